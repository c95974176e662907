"""What the environment of whoever deploys says of a node's certificate."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gridup_infra.errors import UsageError

ACME_URL = "GRIDUP_ACME_URL"
"""Of the directory (RFC 8555) of the authority that gives the certificates for --domain-name."""

ACME_CA = "GRIDUP_ACME_CA"
"""A file of certificates (PEM): what that authority's own server and the certificates it gives hang from."""


@dataclass(frozen=True)
class AcmeConfig:
    """Where certificates come from. Empty: Caddy's own choice of public authorities.

    Attributes:
        url: of the directory.
        ca: PEM.
    """

    url: str = ""
    ca: str = ""

    @classmethod
    def from_env(cls) -> AcmeConfig:
        """As `ACME_URL` and `ACME_CA` say.

        Raises:
            UsageError: one of them is not of its kind.
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
