"""Whether this machine's clock is right, by what a cloud's answers say: a signature with a wrong time is
refused as if the credentials were wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from gridup_infra.errors import CredentialsError

MOST_SECONDS = 300.0
"""How far a clock may be off before it is told of; AWS refuses from here on, too."""

HINT = "Set this machine's clock (`timedatectl set-ntp true`), and run the same command again."


def off(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float:
    """Seconds that this machine's clock is ahead of that of whoever answered; negative where it is behind, 0
    where it is right or that is not told."""
    told = next((value for name, value in headers.items() if name.lower() == "date"), "")
    try:
        found = now() - parsedate_to_datetime(told).timestamp()
    except (ValueError, TypeError):
        return 0.0
    return found if abs(found) > MOST_SECONDS else 0.0


def explained(who: str, code: str, headers: Mapping[str, str]) -> CredentialsError | None:
    """The error, where a refusal comes of the clock.

    Args:
        who: has refused.
        code: its own, of the refusal.
    """
    seconds = off(headers)
    if not seconds:
        return None
    minutes = round(abs(seconds) / 60)
    how = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    side = "ahead of" if seconds > 0 else "behind"
    return CredentialsError(
        f"{who} refuses these credentials ({code}): this machine's clock is {how} {side} its own.", HINT
    )
