"""Programs of the system that the tests' rigs drive, and whether this machine has what they need."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping

from gridup_infra.processes import Result, run, which

LIMIT_SECONDS = 120.0


def program(name: str) -> str:
    """Where a program is.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    return found


def attempt(*argv: str) -> Result:
    """Run a program; how it ended is for the caller to judge."""
    return run([program(argv[0]), *argv[1:]], timeout=LIMIT_SECONDS)


def must(*argv: str) -> Result:
    """Run a program that must succeed."""
    result = attempt(*argv)
    if not result.ok:
        raise RuntimeError(f"{' '.join(argv)}: {' '.join(result.tail())}")
    return result


def lacking(programs: Mapping[str, str]) -> str:
    """Why nothing that mounts and confines can be run here; empty when nothing speaks against it.

    Args:
        programs: what it takes -> Debian's package of it.
    """
    if sys.platform != "linux":
        return "it needs Linux"
    if os.geteuid() != 0:
        return "the tests do not run as root"
    for name, package in programs.items():
        if which(name) is None:
            return f"{name} is not installed (Debian's package {package})"
    with tempfile.TemporaryDirectory() as folder:
        if not attempt("mount", "-t", "tmpfs", "none", folder).ok:
            return "nothing may be mounted here, as in a container without privileges"
        must("umount", folder)
    return ""
