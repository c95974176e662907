"""How much may go on at once, and how often: limits by caller and in total. For one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass

MOST_KEYS = 20_000
"""Callers whose rate is remembered; beyond, the one longest silent is forgotten."""


class Busy(Exception):
    """There is no room; the caller should try again in a while."""


def network(address: str) -> str:
    """What counts as one caller: an IPv4 address, or the first 64 bits of an IPv6 one, which are a site's."""
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
    """At most `total` at once, and at most `each` of one caller; who finds none waits `seconds` at most.

    Callers take turns: who has many waiting makes another wait for one of them, not for all.
    """

    def __init__(self, total: int, each: int, seconds: float) -> None:
        self._free = total
        self._each, self._seconds = each, seconds
        self._held: Counter[Hashable] = Counter()
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def hold(self, caller: Hashable) -> AsyncIterator[None]:
        """Have a slot within the context.

        Raises:
            Busy: there is none, or this caller has as many as one may.
        """
        give_back = await self.enter(caller)
        try:
            yield
        finally:
            give_back()

    async def enter(self, caller: Hashable) -> Callable[[], None]:
        """Have a slot until what this returns is called, which may be more than once.

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
    """Requests of callers that we do not know yet: when there are too many, the oldest gives way.

    So who comes anew always gets in, however many hold on to what they began; those of one address, where
    many people may be, give way to one another.
    """

    def __init__(self, total: int, each: int) -> None:
        self._total, self._each = total, each
        self._tasks: OrderedDict[object, tuple[Hashable, Callable[[], object]]] = OrderedDict()
        # Of each caller, the oldest first.
        self._held: dict[Hashable, dict[object, None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def enter(self, caller: Hashable, give_up: Callable[[], object]) -> object:
        """Be one of the crowd; `give_up` is called when this one must make room.

        Returns what `leave` takes.
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
        """Leave the crowd. May be called again."""
        row = self._tasks.pop(token, None)
        if row is not None:
            del self._held[row[0]][token]
            if not self._held[row[0]]:
                del self._held[row[0]]


class Seen:
    """What was seen in the last while; beyond `MOST_KEYS`, what was seen longest ago is forgotten."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._rows: OrderedDict[Hashable, float] = OrderedDict()

    def add(self, what: Hashable) -> None:
        """Remember it from now on."""
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
    """At most `burst` at once and `each_second` in the long run, for each caller."""

    def __init__(self, each_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._each_second, self._burst, self._clock = each_second, burst, clock
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, caller: Hashable) -> None:
        """Count one.

        Raises:
            Busy: it is one too many for now.
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
        """Seconds until `take` counts one; 0 when at once. To ask counts nothing."""
        bucket = self._buckets.get(caller)
        return max(0.0, (1 - self._left(bucket, self._clock())) / self._each_second) if bucket else 0.0

    def _left(self, bucket: _Bucket, now: float) -> float:
        return min(self._burst, bucket.left + (now - bucket.seen) * self._each_second)
