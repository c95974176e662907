"""Age and known vulnerabilities of a node's image or environment.

`gridup status` reports them. `gridup deploy --rebuild` fixes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from gridup import advisories
from gridup.advisories import Advisory
from gridup_infra.outputs import BUILT, PACKAGES, NodeOutputs

OLD = timedelta(days=30)
"""The age from which an image or environment should be rebuilt: it lacks a month of security updates."""

NAMED = 5
"""How many vulnerable packages are named; of further ones only the number is reported."""


def now() -> datetime:
    """Return the current time; tests replace this function."""
    return datetime.now(timezone.utc)


def concerns(outputs: NodeOutputs, today: datetime, known: Sequence[Advisory] | None = None) -> list[str]:
    """Return a line for each reason to rebuild the node's image or environment.

    Args:
        today: the current time.
        known: the vulnerabilities to check; None for those that this Gridup knows.
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
    # Docker writes nanoseconds, which Python 3.10 can't parse.
    try:
        return today - datetime.fromisoformat(f"{built[:19]}+00:00")
    except ValueError:
        return None
