"""What the tools of others find at a node and on its machine. Each result is kept beside its test."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gridup_infra.processes import run
from support.vm_rig import Machine

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests/integration"
SSH: list[dict[str, Any]] = json.loads((TESTS / "ssh_audit.json").read_text())
"""What ssh-audit finds at every sshd of a node's, each with the reason why it may stay."""
SECONDS = 300.0
TLS: dict[str, Any] = json.loads((TESTS / "sslyze.json").read_text())
"""What sslyze finds at a port of https of a VM's."""
LYNIS: dict[str, Any] = json.loads((TESTS / "lynis.json").read_text())
"""What lynis finds on a bare machine (`before`), what of that is gone on a node's (`gone`), and the reasons
why the rest may stay."""


@cache
def scanners() -> Path:
    """The programs of the environment `audit`, made where it is not there yet.

    Skips the test where it can't be had.
    """
    made = run([sys.executable, "-IB", ROOT / "scripts/make_env.py", "audit"], timeout=1800)
    if not made.ok:
        pytest.skip(f"no scanners: {' '.join(made.tail())}")
    return ROOT / ".venvs/audit/bin"


def ssh(host: str, port: int) -> list[dict[str, str]]:
    """What ssh-audit has to say of an sshd, but for what it only mentions."""
    # It would open connections by the dozen, for which sshd shuts an address out for a while.
    argv = [scanners() / "ssh-audit", "--json", "--skip-rate-test", "--port", str(port), host]
    told: dict[str, Any] = json.loads(run(argv, timeout=SECONDS).stdout)
    found = [
        {"algorithm": one["algorithm"], "level": level, "note": note}
        for kind in ("kex", "key", "enc", "mac")
        for one in told[kind]
        for level, notes in one["notes"].items()
        if level != "info"
        for note in notes
    ]
    found += [{"algorithm": "", "level": "fail", "note": str(one)} for one in told["cves"]]
    return sorted(found, key=lambda one: tuple(one.values()))


def tls(host: str, port: int, ca: Path) -> dict[str, Any]:
    """What sslyze finds at a port that speaks TLS: `offered` suites by version, and `findings`."""
    argv = [scanners() / "python", Path(__file__).parent / "scan_tls.py", host, str(port), str(ca)]
    done = run(argv, timeout=SECONDS)
    assert done.ok, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def lynis(machine: Machine) -> list[str]:
    """What lynis suggests or warns of on a machine: names of its tests, of sshd's with the option."""
    machine.try_run("lynis", "audit", "system", "--quiet", "--no-colors", "--quick", timeout=SECONDS)
    found: set[str] = set()
    for line in machine.read("/var/log/lynis-report.dat").decode(errors="replace").splitlines():
        kind, _, told = line.partition("=")
        if kind in ("suggestion[]", "warning[]"):
            name, _, details, *_ = told.split("|")
            found.add(f"{name} {details.split()[0]}" if name == "SSH-7408" else name)
    return sorted(found)


def explained(kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The findings of a file that are given a reason there, without the reasons."""
    return [{key: value for key, value in row.items() if key != "reason"} for row in kept if row["reason"]]
