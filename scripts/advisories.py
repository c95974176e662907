"""Adds to requirements/advisories.json what pip-audit knows against the locks; scripts/lock runs it.

It needs internet access, because the package index reports the vulnerabilities. It does not change existing
rows, so ranges and reasons that a maintainer wrote stay.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "cli"), str(ROOT / "infra")]

from gridup.setup import extras  # noqa: E402

FILE = ROOT / "requirements" / "advisories.json"
AUDIT_SECONDS = 900

Row = dict[str, Any]
"""An advisory as written in the file; see `gridup.advisories.Advisory`."""


def locks() -> list[Path]:
    """Return every lock in the repository."""
    return sorted((ROOT / "requirements").glob("*.txt")) + sorted(
        (ROOT / "infra" / "gridup_node" / "locks").glob("*.txt")
    )


def rounds(pins: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Split pins into rounds of requirements with one version of each package.

    The locks have some packages in several versions, but one run of pip-audit accepts each package only once.
    """
    versions: dict[str, list[str]] = defaultdict(list)
    for name, version in sorted(set(pins)):
        versions[name].append(version)
    most = max(map(len, versions.values()), default=0)
    return [
        [f"{name}=={each[number]}" for name, each in versions.items() if number < len(each)]
        for number in range(most)
    ]


def merged(
    known: Sequence[Row], told: Iterable[Mapping[str, Any]], today: str
) -> tuple[list[Row], list[str]]:
    """Return the rows of the file including new ones, and the ids of the new rows.

    Args:
        known: the rows that the file has.
        told: the output of `pip-audit --format json`, one document for each round.
        today: the date (ISO 8601) for the new rows.
    """
    rows = [dict(row) for row in known]
    names = {name for row in rows for name in (row["id"], *row["aliases"])}
    new = []
    for package in (package for document in told for package in document["dependencies"]):
        # A skipped package has a reason instead of `vulns`.
        for found in package.get("vulns", ()):
            own = [found["id"], *found.get("aliases", ())]
            if names & set(own):
                continue
            names |= set(own)
            own.sort(key=lambda name: not name.startswith("CVE-"))
            fixed = _first_fix(package["version"], found["fix_versions"])
            rows.append(
                {
                    "id": own[0],
                    "aliases": own[1:],
                    "package": package["name"],
                    "affected": f">={package['version']}" + (f",<{fixed}" if fixed else ""),
                    "fixed": fixed,
                    "date": today,
                    "source": f"https://osv.dev/vulnerability/{found['id']}",
                    "about": " ".join(str(found.get("description") or "see the source").split())[:120],
                }
            )
            new.append(own[0])
    rows.sort(key=lambda row: (row["package"], row["date"], row["id"]))
    return rows, new


def _first_fix(version: str, fixes: Sequence[str]) -> str:
    from packaging.version import Version

    later = sorted((fix for fix in fixes if Version(fix) > Version(version)), key=Version)
    return later[0] if later else ""


def audit(requirements: Sequence[str]) -> Mapping[str, Any]:
    """Return pip-audit's report on requirements.

    Raises:
        OSError: pip-audit failed, or did not end in time.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{line}\n" for line in requirements))
        file.flush()
        argv = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
        argv += ["--no-deps", "--disable-pip", "--requirement", file.name]
        try:
            ended = subprocess.run(argv, capture_output=True, text=True, timeout=AUDIT_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise OSError("pip-audit did not end") from error
    try:
        # Don't check the exit code: it is 1 if pip-audit found a vulnerability.
        told: Mapping[str, Any] = json.loads(ended.stdout)
    except ValueError:
        raise OSError((ended.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]) from None
    return told


def main() -> int:
    """Update the file. If pip-audit fails, print a message and leave the file unchanged."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--file", type=Path, default=FILE)
    path = parser.parse_args().file
    pins = {(pin.name, pin.version) for lock in locks() for pin in extras.read(lock.read_text())}
    try:
        told = [audit(requirements) for requirements in rounds(pins)]
    except OSError as error:
        print(f"The advisories stay as they are, pip-audit could not tell: {error}", file=sys.stderr)
        return 0
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    rows, new = merged(json.loads(path.read_text()), told, today)
    path.write_text(json.dumps(rows, indent=1) + "\n")
    for name in new:
        print(f"new: {name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
