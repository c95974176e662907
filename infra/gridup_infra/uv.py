"""Finds uv and prepares the environment variables that uv and pip run with. Standard library only."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from gridup_infra.errors import SetupError

DROPPED = frozenset(
    {
        # Without compiled bytecode, `import syft` takes twice as long.
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
"""Variables that are removed: they would make uv and pip use another place or Python than requested."""

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
"""Variables that name files or folders -> the separator of several (None: white space, "": only one)."""


STORES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""The paths where distributions have the system's CA store."""

_UNTRUSTED = re.compile(r"certificate|unknownissuer|x509", re.IGNORECASE)

UNTRUSTED_HINT = (
    "Where a proxy of your organisation reads what passes, put its CA in the system's store, or name it: "
    "SSL_CERT_FILE=/path/to/ca.pem"
)


def untrusted(lines: Iterable[str]) -> str:
    """Return the first line of a tool's output about a server that it does not trust; empty if none."""
    return next((line for line in lines if _UNTRUSTED.search(line)), "")


def without_accounts(text: str) -> str:
    """Return a tool's output without the account part of URLs: it may contain a password."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


def store() -> str:
    """Return the path of the system's CA store, which can include an organisation's own CA; empty if none."""
    return next((path for path in STORES if Path(path).is_file()), "")


def uv() -> str:
    """Return the path of the uv that is installed with Gridup."""
    from uv import find_uv_bin

    return str(find_uv_bin())


def environment(own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for uv and pip: the user's settings, translated so that both understand them.

    uv does not read pip's settings, nor pip uv's. A mirror that is set for one of them is meant for both.

    Args:
        own: the variables to begin with; None for those of this process.

    Raises:
        SetupError: a variable names a file or folder that does not exist.
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
    # uv and pip bring their own CAs, which do not include an organisation's CA.
    default("SSL_CERT_FILE", made.get("PIP_CERT") or store())
    default("UV_SYSTEM_CERTS", "true" if sys.platform == "darwin" else None)
    default("PIP_CERT", made.get("SSL_CERT_FILE"))
    return made


def check(variables: Mapping[str, str]) -> None:
    """Refuse a variable that names a missing file or folder. The tools would report at most the path.

    Raises:
        SetupError: a path does not exist; the message names the variable and the path.
    """
    for name, between in PLACES.items():
        value = variables.get(name, "")
        for place in value.split(between) if between != "" else [value]:
            path = place.strip().removeprefix("file://")
            if path and "://" not in path and not Path(path).expanduser().exists():
                raise SetupError(
                    f"The variable {name} names {path}, which is not there.", f"Correct it, or unset {name}."
                )
