"""How old what a node runs is, and its known vulnerabilities: said by `status`, cured by `--rebuild`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from gridup import advisories
from gridup.advisories import Advisory
from gridup_infra.outputs import BUILT, PACKAGES, NodeOutputs

OLD = timedelta(days=30)
"""From when on what a node runs should be made anew: a month's security updates are missing in it."""

NAMED = 5
"""Vulnerable packages that are named; of more their number is told."""


def now() -> datetime:
    """The time; tests set their own."""
    return datetime.now(timezone.utc)


def concerns(outputs: NodeOutputs, today: datetime, known: Sequence[Advisory] | None = None) -> list[str]:
    """What speaks for making the node's image or environment anew, a line each.

    Args:
        known: the vulnerabilities; None for those that this Gridup knows.
    """
    found = []
    age = _age(outputs.facts.get(BUILT, ""), today)
    if age is not None and age > OLD:
        found.append(f"what it runs was made {age.days} days ago, and lacks the updates since")
    packages = [tuple(pin.split("==", 1)) for pin in outputs.facts.get(PACKAGES, "").split()]
    vulnerable: dict[str, list[str]] = {}
    pins = [(pin[0], pin[1]) for pin in packages if len(pin) == 2]
    for name, version, advisory in advisories.of(pins, advisories.load() if known is None else known):
        if not advisory.reason:
            vulnerable.setdefault(f"{name} {version}", []).append(advisory.id)
    for package, ids in list(vulnerable.items())[:NAMED]:
        found.append(f"{package} has known vulnerabilities: {', '.join(ids)}")
    if len(vulnerable) > NAMED:
        found.append(f"so have {len(vulnerable) - NAMED} further packages")
    return found


def _age(built: str, today: datetime) -> timedelta | None:
    # Docker tells nanoseconds, which Python 3.10 does not read.
    try:
        return today - datetime.fromisoformat(f"{built[:19]}+00:00")
    except ValueError:
        return None
