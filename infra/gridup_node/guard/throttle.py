"""Slows down attackers who guess passwords: a wait that doubles with each failure, by caller and account.

An attacker with many addresses is slowed by account: all strangers share the account's tries per minute.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gridup_node.guard.remembered import Remembered
from gridup_node.guard.slots import Busy, Rate

FREE_TRIES = 5
"""Failures without a wait, for one caller and one account."""
FREE_TRIES_OF_CALLER = 20
"""Failures without a wait, for one caller and all accounts together."""
LONGEST_WAIT = 300
"""Seconds."""
LONGEST_WAIT_OF_REMEMBERED = 10
"""Seconds, for a caller who has signed in to this account before: an attacker may share the address."""
TRIES_OF_ACCOUNT, TRIES_A_SECOND = 50, 6 / 60
"""Tries of one account by all strangers together: at once, and per second in the long run."""
NEWCOMERS_A_SECOND = 12 / 60
"""Additional tries of one account for strangers from networks with hardly any tries of this account."""
TRIES_OF_NETWORK, NETWORKS_A_SECOND = 3, 3 / (24 * 60 * 60)
"""One network's part of the newcomers' tries of one account: at once, and per second in the long run."""
FORGET_SECONDS = 15 * 60
MOST_ENTRIES = 2_000


@dataclass
class _Tries:
    failed: int
    last: float


class Throttle:
    """Counts failed sign-ins.

    It never locks an account for everybody: otherwise a stranger could lock out the administrator.

    An attacker with thousands of addresses has too few failures at each address to count. So all strangers to
    an account share its tries: 50 at once, then 6 a minute. A user who has signed in to the account before,
    from this address or with this device, is no stranger, and has separate limits. A user who signs in for
    the first time during an attack would find the shared tries used up. For these newcomers there are 12 more
    tries a minute, of which each network (/16 of IPv4, /32 of IPv6) has 3 a day. Attackers use up their part
    soon, unless they have addresses in thousands of networks. In that case a newcomer needs luck or patience.
    All attackers of an account together have at most 18 tries a minute.

    Args:
        remembered: the callers who have signed in before; None for no callers.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, remembered: Remembered | None = None
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tries: dict[tuple[str, str], _Tries] = {}
        self._remembered = remembered or Remembered(clock=clock)
        self._of_account = Rate(TRIES_A_SECOND, TRIES_OF_ACCOUNT, clock)
        self._of_newcomers = Rate(NEWCOMERS_A_SECOND, TRIES_OF_ACCOUNT, clock)
        self._of_network = Rate(NETWORKS_A_SECOND, TRIES_OF_NETWORK, clock)

    def remembers(self, caller: str, account: str) -> bool:
        """Whether this caller has signed in to this account before."""
        return self._remembered.has(caller, account.casefold())

    def wait(self, caller: str, account: str, known: bool = False) -> int:
        """Return the whole seconds until this caller may try this account again; 0 if it may try now.

        Args:
            known: whether the caller itself proves that it has signed in to this account before.
        """
        with self._lock:
            own, of_caller = _keys(caller, account)
            if known or self._remembered.has(*own[0]):
                return math.ceil(self._left(*own, LONGEST_WAIT_OF_REMEMBERED))
            waits = [self._left(*key, LONGEST_WAIT) for key in (own, of_caller)]
            waits.append(self._wait_of_strangers(*own[0]))
        return math.ceil(max(waits))

    def failed(self, caller: str, account: str, known: bool = False) -> None:
        """Count a failed try. `known` is as for `wait`."""
        now = self._clock()
        with self._lock:
            for key in [key for key, row in self._tries.items() if now - row.last > FORGET_SECONDS]:
                del self._tries[key]
            if not known and not self._remembered.has(caller, account.casefold()):
                self._count_stranger(caller, account.casefold())
            for key, _ in _keys(caller, account):
                row = self._tries.pop(key, None)
                while len(self._tries) >= MOST_ENTRIES:
                    # Delete the oldest: `pop` above keeps the rows in the order of their last failure.
                    del self._tries[next(iter(self._tries))]
                self._tries[key] = _Tries(failed=row.failed + 1 if row else 1, last=now)

    def succeeded(self, caller: str, account: str) -> None:
        """Undo the count of a try that succeeded, and of all failures of this caller with this account.

        The caller's failures with other accounts still count. It may wait for the disk, see `Remembered.add`.
        """
        self._remembered.add(caller, account.casefold())
        with self._lock:
            self._tries.pop((caller, account.casefold()), None)
            row = self._tries.get((caller, ""))
            if row is not None:
                row.failed -= 1

    def _wait_of_strangers(self, caller: str, account: str) -> float:
        wait = self._of_account.wait(account)
        if not wait:
            return 0.0
        of_network = self._of_network.wait((_network(caller), account))
        return min(wait, max(self._of_newcomers.wait(account), of_network))

    def _count_stranger(self, caller: str, account: str) -> None:
        first = self._of_newcomers if self._of_account.wait(account) else self._of_account
        for rate, key in ((first, account), (self._of_network, (_network(caller), account))):
            # This only counts. `wait` decides who has to wait.
            with contextlib.suppress(Busy):
                rate.take(key)

    def _left(self, key: tuple[str, str], free: int, longest: float) -> float:
        row = self._tries.get(key)
        if row is None or row.failed < free:
            return 0.0
        pause = min(2.0 ** min(row.failed - free, 20), longest)
        return max(0.0, row.last + pause - self._clock())


def _keys(caller: str, account: str) -> tuple[tuple[tuple[str, str], int], ...]:
    return (((caller, account.casefold()), FREE_TRIES), ((caller, ""), FREE_TRIES_OF_CALLER))


def _network(caller: str) -> str:
    """Return the network of an address that one owner may have as a whole: a /16 of IPv4, a /32 of IPv6."""
    try:
        address = ipaddress.ip_address(caller)
    except ValueError:
        return caller
    return str(ipaddress.ip_network((address, 16 if address.version == 4 else 32), strict=False))
