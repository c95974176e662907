"""uv, and the surroundings it installs Python packages in. Standard library only."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from gridup_infra.errors import SetupError

DROPPED = frozenset(
    {
        # Without compiled bytecode `import syft` takes twice as long.
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONPATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "UV_PROJECT_ENVIRONMENT",
        "UV_PYTHON",
        "UV_SYSTEM_PYTHON",
    }
)
"""What would lead uv and pip elsewhere than they are told."""

PLACES = {
    "PIP_FIND_LINKS": None,
    "UV_FIND_LINKS": ",",
    "PIP_CONSTRAINT": None,
    "UV_CONSTRAINT": None,
    "PIP_CONFIG_FILE": "",
    "UV_CONFIG_FILE": "",
    "PIP_CERT": "",
    "SSL_CERT_FILE": "",
    "SSL_CERT_DIR": ":",
    "REQUESTS_CA_BUNDLE": "",
    "CURL_CA_BUNDLE": "",
}
"""Variables that name files and folders, each with what is between several (None: white space)."""


STORES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""The system's own store of CAs, by the places that distributions have it in."""

_UNTRUSTED = re.compile(r"certificate|unknownissuer|x509", re.IGNORECASE)

UNTRUSTED_HINT = (
    "Where a proxy of your organisation reads what passes, put its CA in the system's store, or name it: "
    "SSL_CERT_FILE=/path/to/ca.pem"
)


def untrusted(lines: Iterable[str]) -> str:
    """The first of a tool's lines that tells of a server that it does not trust; empty where none does."""
    return next((line for line in lines if _UNTRUSTED.search(line)), "")


def without_accounts(text: str) -> str:
    """A tool's words without what addresses in them tell of accounts: a password may be among it."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


def store() -> str:
    """The system's store of CAs, where an organisation's own is too; empty where it is no file."""
    return next((path for path in STORES if Path(path).is_file()), "")


def uv() -> str:
    """The uv that came with us."""
    from uv import find_uv_bin

    return str(find_uv_bin())


def environment(own: Mapping[str, str] | None = None) -> dict[str, str]:
    """What uv and pip run with: the person's settings, understood by both alike.

    uv does not read pip's settings nor pip uv's; a mirror set for one of them is meant for both.

    Args:
        own: the variables to begin with; this process's where it is None.

    Raises:
        SetupError: one of them names a file or folder that is not there.
    """
    made = {name: value for name, value in (own or os.environ).items() if name not in DROPPED}
    check(made)
    made["UV_NO_PROGRESS"] = "1"

    def default(name: str, value: str | None) -> None:
        if value:
            made.setdefault(name, value)

    if not any(name in made for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX")):
        default("UV_DEFAULT_INDEX", made.get("PIP_INDEX_URL"))
        default("UV_INDEX", made.get("PIP_EXTRA_INDEX_URL"))
    default("PIP_INDEX_URL", made.get("UV_DEFAULT_INDEX") or made.get("UV_INDEX_URL"))
    default("UV_FIND_LINKS", ",".join(made.get("PIP_FIND_LINKS", "").split()))
    # uv and pip bring CAs of their own, among which an organisation's is not.
    default("SSL_CERT_FILE", made.get("PIP_CERT") or store())
    default("UV_SYSTEM_CERTS", "true" if sys.platform == "darwin" else None)
    default("PIP_CERT", made.get("SSL_CERT_FILE"))
    return made


def check(variables: Mapping[str, str]) -> None:
    """Refuse a variable that leads nowhere: the tools tell of the place alone, if at all.

    Raises:
        SetupError: names the variable and the place.
    """
    for name, between in PLACES.items():
        value = variables.get(name, "")
        for place in value.split(between) if between != "" else [value]:
            path = place.strip().removeprefix("file://")
            if path and "://" not in path and not Path(path).expanduser().exists():
                raise SetupError(
                    f"The variable {name} names {path}, which is not there.", f"Correct it, or unset {name}."
                )
