"""Adds to requirements/advisories.json what pip-audit knows against the locks; scripts/lock runs it.

It needs the internet, where the package index tells of vulnerabilities. What is known already is not
changed, so ranges and reasons that a person wrote stay.
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
"""An advisory, as it stands in the file; see `gridup.advisories.Advisory`."""


def locks() -> list[Path]:
    """Every lock in the repository."""
    return sorted((ROOT / "requirements").glob("*.txt")) + sorted(
        (ROOT / "infra" / "gridup_node" / "locks").glob("*.txt")
    )


def rounds(pins: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Requirements of all versions: a lock has some packages in two, and pip-audit takes each once."""
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
    """The file's rows with those that are new, and the new ones' ids.

    Args:
        told: what `pip-audit --format json` wrote, a document for each round.
        today: the day on which they became known to us (ISO 8601).
    """
    rows = [dict(row) for row in known]
    names = {name for row in rows for name in (row["id"], *row["aliases"])}
    new = []
    for package in (package for document in told for package in document["dependencies"]):
        # What was skipped has a reason instead.
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
    """What pip-audit has to say of some requirements.

    Raises:
        OSError: it could not tell.
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
        # It exits with 1 where it found something.
        told: Mapping[str, Any] = json.loads(ended.stdout)
    except ValueError:
        raise OSError((ended.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]) from None
    return told


def main() -> int:
    """Update the file; without the internet say so and leave it."""
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
