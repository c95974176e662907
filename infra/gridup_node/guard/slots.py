"""Limits of concurrency and rate, by caller and in total. For one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass

MOST_KEYS = 20_000
"""Callers whose rate is remembered. Beyond this number, the one silent for longest is forgotten."""


class Busy(Exception):
    """There is no free slot or rate; the caller should try again later."""


def network(address: str) -> str:
    """Return the part of an address that counts as one caller.

    This is the whole IPv4 address, or the first 64 bits of an IPv6 address, which belong to one site.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False).network_address)


class Slots:
    """At most `total` slots at once, and at most `each` for one caller. A caller waits at most `seconds`.

    Callers take turns. If one caller has many requests waiting, another one waits for one of them, not all.
    """

    def __init__(self, total: int, each: int, seconds: float) -> None:
        self._free = total
        self._each, self._seconds = each, seconds
        self._held: Counter[Hashable] = Counter()
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def hold(self, caller: Hashable) -> AsyncIterator[None]:
        """Hold a slot within the context.

        Raises:
            Busy: no slot became free in time, or this caller holds or waits for `each` already.
        """
        give_back = await self.enter(caller)
        try:
            yield
        finally:
            give_back()

    async def enter(self, caller: Hashable) -> Callable[[], None]:
        """Hold a slot until the returned function is called. More than one call of it is fine.

        Raises:
            Busy: as `hold`.
        """
        if self._held[caller] >= self._each:
            raise Busy
        self._held[caller] += 1
        try:
            await self._take(caller)
        except BaseException:
            self._leave(caller)
            raise
        given_back = False

        def give_back() -> None:
            nonlocal given_back
            if not given_back:
                given_back = True
                self._leave(caller)
                self._give_back()

        return give_back

    def _leave(self, caller: Hashable) -> None:
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]

    async def _take(self, caller: Hashable) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            await asyncio.wait_for(turn, self._seconds)
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._give_back()
            elif caller in self._waiting and turn in self._waiting[caller]:
                self._waiting[caller].remove(turn)
                if not self._waiting[caller]:
                    del self._waiting[caller]
            if isinstance(error, TimeoutError):
                raise Busy from None
            raise

    def _give_back(self) -> None:
        while self._waiting:
            caller, turns = next(iter(self._waiting.items()))
            turn = turns.popleft()
            if turns:
                self._waiting.move_to_end(caller)
            else:
                del self._waiting[caller]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Crowd:
    """The open requests of callers that are not known yet. If there are too many, the oldest is dropped.

    So a new caller always gets in, even if many others keep slow requests open. Many users may share one
    address: requests of one address displace one another.
    """

    def __init__(self, total: int, each: int) -> None:
        self._total, self._each = total, each
        self._tasks: OrderedDict[object, tuple[Hashable, Callable[[], object]]] = OrderedDict()
        # The tokens of each caller, oldest first.
        self._held: dict[Hashable, dict[object, None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def enter(self, caller: Hashable, give_up: Callable[[], object]) -> object:
        """Add a request to the crowd. `give_up` is called when the request must make room for a new one.

        Returns the token for `leave`.
        """
        while len(self._held.get(caller, ())) >= self._each:
            self._end(next(iter(self._held[caller])))
        while len(self._tasks) >= self._total:
            self._end(next(iter(self._tasks)))
        token = object()
        self._tasks[token] = (caller, give_up)
        self._held.setdefault(caller, {})[token] = None
        return token

    def _end(self, token: object) -> None:
        _, give_up = self._tasks[token]
        self.leave(token)
        give_up()

    def leave(self, token: object) -> None:
        """Remove a request from the crowd. A second call does nothing."""
        row = self._tasks.pop(token, None)
        if row is not None:
            del self._held[row[0]][token]
            if not self._held[row[0]]:
                del self._held[row[0]]


class Seen:
    """The keys seen in the last `seconds`. Beyond `MOST_KEYS`, the oldest key is forgotten."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._rows: OrderedDict[Hashable, float] = OrderedDict()

    def add(self, what: Hashable) -> None:
        """Remember a key from now on."""
        self._rows.pop(what, None)
        while len(self._rows) >= MOST_KEYS:
            self._rows.popitem(last=False)
        self._rows[what] = self._clock()

    def __contains__(self, what: Hashable) -> bool:
        told = self._rows.get(what)
        return told is not None and self._clock() - told < self._seconds


@dataclass
class _Bucket:
    left: float
    seen: float


class Rate:
    """A rate limit for each caller: at most `burst` requests at once, and `each_second` in the long run."""

    def __init__(self, each_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._each_second, self._burst, self._clock = each_second, burst, clock
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, caller: Hashable) -> None:
        """Count one request.

        Raises:
            Busy: the caller has no requests left for now.
        """
        now = self._clock()
        bucket = self._buckets.pop(caller, None) or _Bucket(float(self._burst), now)
        bucket.left, bucket.seen = self._left(bucket, now), now
        while len(self._buckets) >= MOST_KEYS:
            self._buckets.popitem(last=False)
        self._buckets[caller] = bucket
        if bucket.left < 1:
            raise Busy
        bucket.left -= 1

    def wait(self, caller: Hashable) -> float:
        """Return the seconds until `take` accepts a request; 0 if it does now. This counts no request."""
        bucket = self._buckets.get(caller)
        return max(0.0, (1 - self._left(bucket, self._clock())) / self._each_second) if bucket else 0.0

    def _left(self, bucket: _Bucket, now: float) -> float:
        return min(self._burst, bucket.left + (now - bucket.seen) * self._each_second)
