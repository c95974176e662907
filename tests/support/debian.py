"""This machine's way to Debian's packages, for systems that the tests make of them."""

from __future__ import annotations

import os
from pathlib import Path

from gridup_infra.processes import run, which

BUNDLE = "etc/ssl/certs/ca-certificates.crt"

ACQUIRE = ("Acquire::http", "Acquire::Check-", "Acquire::Retries", "Acquire::Force")
"""What of apt's configuration has to do with the way to its sources."""


def apt_sources(suite: str) -> tuple[str, str]:
    """The mirror that this machine's apt has Debian from, and its sources as those of a system of `suite`.

    Both empty on another system than Debian: debootstrap then knows where Debian is.
    """
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    if release.get("ID") != "debian":
        return "", ""
    here = release["VERSION_CODENAME"]
    # Apt tells it for either format of its files.
    told = _told(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Identifier: Packages"
    )
    rows = dict.fromkeys(line for line in told.splitlines() if line.count(" ") == 2)
    suites = (here, f"{here}-updates", f"{here}-security")
    debian = [row for row in (line.split(" ") for line in rows) if row[1] in suites]
    mirror = next((uri for uri, of, component in debian if (of, component) == (here, "main")), "")
    lines = (f"deb {uri} {of.replace(here, suite)} {component}\n" for uri, of, component in debian)
    return mirror, "".join(lines)


def apt_settings() -> bytes:
    """The proxies, certificates and the like of this machine's apt."""
    lines = ['Acquire::Languages "none";']
    if which("apt-config"):
        lines += [line for line in _told("apt-config", "dump").splitlines() if line.startswith(ACQUIRE)]
    return "".join(f"{line}\n" for line in lines).encode()


def certificates() -> dict[str, bytes]:
    """What this machine trusts, by the path below / that a Debian system has it at."""
    copied = {BUNDLE: Path(os.environ.get("SSL_CERT_FILE") or f"/{BUNDLE}")}
    # An update of the package ca-certificates makes the bundle anew from these.
    local = Path("/usr/local/share/ca-certificates")
    copied |= {str(path.relative_to("/")): path for path in sorted(local.rglob("*.crt"))}
    return {path: source.read_bytes() for path, source in copied.items() if source.is_file()}


def _told(*argv: str) -> str:
    result = run(argv, timeout=60)
    if not result.ok:
        raise RuntimeError(f"{' '.join(argv)}: {' '.join(result.tail())}")
    return result.stdout
