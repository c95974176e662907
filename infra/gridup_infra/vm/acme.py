"""Reads from the deployer's environment which certificate authority issues a node's certificate."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gridup_infra.errors import UsageError

ACME_URL = "GRIDUP_ACME_URL"
"""URL of the ACME directory (RFC 8555) of the authority that issues the certificates for --domain-name."""

ACME_CA = "GRIDUP_ACME_CA"
"""File of CA certificates (PEM): trust roots of that authority's server and of the certificates it issues."""


@dataclass(frozen=True)
class AcmeConfig:
    """The certificate authority to use. Empty: the public authorities that Caddy chooses.

    Attributes:
        url: the URL of its ACME directory.
        ca: its CA certificates (PEM).
    """

    url: str = ""
    ca: str = ""

    @classmethod
    def from_env(cls) -> AcmeConfig:
        """Read `ACME_URL` and `ACME_CA` from the environment.

        Raises:
            UsageError: a value is not valid, or `ACME_CA` is set without `ACME_URL`.
        """
        url, file = os.environ.get(ACME_URL, ""), os.environ.get(ACME_CA, "")
        if url and not (urlsplit(url).scheme == "https" and urlsplit(url).hostname):
            raise UsageError(f"{ACME_URL} is {url!r}; it must be an https address.")
        if not file:
            return cls(url)
        if not url:
            raise UsageError(
                f"{ACME_CA} is set, and {ACME_URL} is not: public authorities need no such file."
            )
        try:
            text = Path(file).read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            raise UsageError(f"{ACME_CA}: {file} can't be read: {error}.") from None
        if "BEGIN CERTIFICATE" not in text or "PRIVATE KEY" in text:
            raise UsageError(f"{ACME_CA}: {file} must hold certificates (PEM), and no key.")
        return cls(url, text)
