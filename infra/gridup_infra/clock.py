"""Compares this machine's clock with the time in a cloud's answers.

A cloud refuses a signature with a wrong time as if the credentials were wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from gridup_infra.errors import CredentialsError

MOST_SECONDS = 300.0
"""Seconds that the clock may be wrong before it is reported. AWS has the same limit."""

HINT = "Set this machine's clock (`timedatectl set-ntp true`), and run the same command again."


def off(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float:
    """Return how many seconds this machine's clock is ahead of the server's (the `Date` header).

    Negative if it is behind; 0 if it is right, or if the answer has no valid date.
    """
    told = next((value for name, value in headers.items() if name.lower() == "date"), "")
    try:
        found = now() - parsedate_to_datetime(told).timestamp()
    except (ValueError, TypeError):
        return 0.0
    return found if abs(found) > MOST_SECONDS else 0.0


def explained(who: str, code: str, headers: Mapping[str, str]) -> CredentialsError | None:
    """Return the error to show if the clock is the cause of a refusal, else None.

    Args:
        who: the cloud that refused.
        code: the cloud's error code.
        headers: the headers of the cloud's answer.
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
