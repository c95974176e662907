"""What is probed, what came of it, and what to make of several results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gridup_node.services import ProbeKind


@dataclass(frozen=True)
class Trust:
    """Which certificates count.

    Attributes:
        ca: the only CA, in PEM. Empty: those that the machine trusts.
        named: whether that CA signs for others too, so that the name in a certificate counts.
        ours: whether Gridup deployed what is proven: then one that does not verify is another's. Else it
            gets a note.
    """

    ca: str = field(default="", repr=False)
    named: bool = False
    ours: bool = False


@dataclass(frozen=True)
class Endpoint:
    """One service to prove.

    Attributes:
        service, title: its key in the service table, and what people call it.
        url: where people find it; `host:port` for a service that is not http.
        proof: what shows that the right thing answers.
        host, port: what to connect to. `localhost` means 127.0.0.1 and ::1, either will do.
        path: what to ask for, of a service that speaks http.
        tls: whether it speaks https.
        expected: metadata the answer must carry, such as `{"name": "Inst"}`; None where nothing is
            known of the node because Gridup never deployed it.
        trust: which certificates it may have.
        offered, reason: False and why, for a service this node does not have, or is not known to have; it
            is never probed.
        open_to: the networks that its port is open to; empty for everybody. Silence then means
            RESTRICTED, not TIMEOUT, until `restrictions.settled` knows that we are in one of them.
        way: the argv of a program whose input and output are a connection to it; empty where `host` and
            `port` are connected to.
        node: groups endpoints, so that a host row is up by its own node's services alone.
    """

    service: str
    title: str
    url: str
    proof: ProbeKind
    host: str
    port: int
    path: str = "/"
    tls: bool = False
    expected: Mapping[str, str] | None = field(default=None, hash=False)
    trust: Trust = Trust()
    offered: bool = True
    reason: str = ""
    open_to: tuple[str, ...] = ()
    way: tuple[str, ...] = ()
    node: str = ""

    @property
    def restricted(self) -> str:
        """To whom the port is open, for people; empty where everybody may come."""
        return f"open to {', '.join(self.open_to)} only" if self.open_to else ""


class ProbeState(Enum):
    """What a probe found."""

    UP = "up"
    """Proven: the right thing answers."""
    DOWN = "down"
    """Nothing there, or the wrong thing."""
    NOT_READY = "not-ready"
    """On its way: 404, 502, 503, 504, or a connection closed without an answer."""
    TIMEOUT = "timeout"
    """No whole answer within the deadline."""
    RESTRICTED = "restricted"
    """Not open to this machine's address, so nothing can be told from here."""
    NOT_OFFERED = "not-offered"
    """This node does not have the service, or is not known to; not a failure."""


@dataclass(frozen=True)
class ProbeResult:
    """What one probe found.

    Attributes:
        detail: one short line for people.
        note: a remark on something that is up, such as "untrusted certificate".
        seconds: how long the probe took.
        facts: what the service said of itself: `syft_version`, `server_type`, `name`,
            `jupyter_version`, `banner`.
    """

    endpoint: Endpoint
    state: ProbeState
    detail: str = ""
    note: str = ""
    seconds: float = 0.0
    facts: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def up(self) -> bool:
        return self.state is ProbeState.UP


def all_up(results: Sequence[ProbeResult]) -> bool:
    """Whether something is offered, and all that is offered is proven."""
    offered = [r for r in results if r.state is not ProbeState.NOT_OFFERED]
    return bool(offered) and all(r.up for r in offered)


def healthy(results: Sequence[ProbeResult]) -> bool:
    """As `all_up`, but what is closed to this machine's address doesn't count against the node.

    At least one service must be proven: a node of which nothing can be seen is not healthy.
    """
    seen = [r for r in results if r.state is not ProbeState.RESTRICTED]
    return all_up(seen)


def summary(results: Sequence[ProbeResult]) -> str:
    """One line: how many are up, and what is wrong with the others."""
    offered = [r for r in results if r.state is not ProbeState.NOT_OFFERED]
    up = sum(r.up for r in offered)
    wrong = [f"{r.endpoint.title}: {r.detail or r.state.value}" for r in offered if not r.up]
    return "; ".join([f"{up} of {len(offered)} up", *wrong])


def to_json(results: Sequence[ProbeResult]) -> list[dict[str, Any]]:
    """The results for `--json`, in their order. The keys of each are a promise.

    `service`, `title`, `url`: as in `Endpoint`. `state`: one of `ProbeState`'s values. `up`: true or
    false. `detail`, `note`: text, maybe empty. `seconds`: to a millisecond. `facts`: text by key.
    """
    return [
        {
            "service": r.endpoint.service,
            "title": r.endpoint.title,
            "url": r.endpoint.url,
            "state": r.state.value,
            "up": r.up,
            "detail": r.detail,
            "note": r.note,
            "seconds": round(r.seconds, 3),
            "facts": dict(r.facts),
        }
        for r in results
    ]
