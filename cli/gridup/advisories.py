"""Known vulnerabilities of the packages that Gridup installs: requirements/advisories.json, and what it says
of given versions.

`scripts/lock` adds to that file where the internet can be reached; a test holds every lock against it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

FILE = "advisories.json"


@dataclass(frozen=True)
class Advisory:
    """One vulnerability of one package.

    Attributes:
        id: its CVE number, or another where it has none.
        aliases: its other names.
        package: its normalized name.
        affected: the versions that have it (PEP 440).
        fixed: the first version without it; empty while there is none.
        date: when it became known (ISO 8601).
        source: the address of who says so.
        about: in a few words.
        reason: why it can't be reached in a node or the command, for one that a lock still has.
    """

    id: str
    aliases: tuple[str, ...]
    package: str
    affected: str
    fixed: str
    date: str
    source: str
    about: str
    reason: str = ""

    def affects(self, version: str) -> bool:
        """Whether that version of the package has it."""
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(self.affected).contains(version, prereleases=True)


def file() -> Path:
    """The file: in a wheel beside the locks of the extras, in a checkout where they are made."""
    own = Path(__file__).parent
    packaged = own / "setup" / "locks" / FILE
    return packaged if packaged.exists() else own.parents[1] / "requirements" / FILE


def load(path: Path | None = None) -> list[Advisory]:
    """All that are known."""
    told = json.loads((path or file()).read_text(encoding="utf-8"))
    return [Advisory(**{**one, "aliases": tuple(one["aliases"])}) for one in told]


def of(packages: Iterable[tuple[str, str]], known: Iterable[Advisory]) -> Iterator[tuple[str, str, Advisory]]:
    """The vulnerabilities that packages have, as (name, version, which).

    Args:
        packages: their normalized names and versions.
    """
    by_package: dict[str, list[Advisory]] = {}
    for advisory in known:
        by_package.setdefault(advisory.package, []).append(advisory)
    for name, version in packages:
        for advisory in by_package.get(name, ()):
            if advisory.affects(version):
                yield name, version, advisory
