"""Known vulnerabilities of the packages that Gridup installs.

The list is in requirements/advisories.json. `scripts/lock` adds to it if the internet is reachable. A test
compares every lock file with it.
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
        id: the CVE number; another identifier if there is no CVE number.
        aliases: other identifiers of the same vulnerability.
        package: normalized name of the package.
        affected: the affected versions (PEP 440 specifier).
        fixed: the first version that is not affected; empty if there is none yet.
        date: when the vulnerability became known (ISO 8601).
        source: URL of the publisher of this advisory.
        about: a short description.
        reason: why the vulnerability can't be reached in a node or in the command line; set only if a lock
            file still has an affected version.
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
        """Return whether this version of the package has the vulnerability."""
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(self.affected).contains(version, prereleases=True)


def file() -> Path:
    """Return the path of advisories.json.

    A wheel has it next to the lock files of the extras; a checkout has it in the folder `requirements`.
    """
    own = Path(__file__).parent
    packaged = own / "setup" / "locks" / FILE
    return packaged if packaged.exists() else own.parents[1] / "requirements" / FILE


def load(path: Path | None = None) -> list[Advisory]:
    """Return all known vulnerabilities."""
    told = json.loads((path or file()).read_text(encoding="utf-8"))
    return [Advisory(**{**one, "aliases": tuple(one["aliases"])}) for one in told]


def of(packages: Iterable[tuple[str, str]], known: Iterable[Advisory]) -> Iterator[tuple[str, str, Advisory]]:
    """Yield the vulnerabilities of the given packages, as (name, version, advisory).

    Args:
        packages: (normalized name, version) of each package.
    """
    by_package: dict[str, list[Advisory]] = {}
    for advisory in known:
        by_package.setdefault(advisory.package, []).append(advisory)
    for name, version in packages:
        for advisory in by_package.get(name, ()):
            if advisory.affects(version):
                yield name, version, advisory
