"""The endpoint to probe, the result of a probe, and the evaluation of several results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gridup_node.services import ProbeKind


@dataclass(frozen=True)
class Trust:
    """Which certificates a probe accepts.

    Attributes:
        ca: the only trusted CA, in PEM. Empty: the CAs that this machine trusts.
        named: whether that CA also signs for others. Then the name in the certificate must match.
        ours: whether Gridup deployed the node. Then a certificate that does not verify is a failure. For
            other nodes it only adds a note.
    """

    ca: str = field(default="", repr=False)
    named: bool = False
    ours: bool = False


@dataclass(frozen=True)
class Endpoint:
    """One endpoint to probe: an address of a service.

    Attributes:
        service, title: the service's key in the service table, and the title that users see.
        url: the address that users open; `host:port` for a service that does not speak http.
        proof: how a probe verifies that the right service answers.
        host, port: the address to connect to. `localhost` means 127.0.0.1 or ::1; either may answer.
        path: the http path to request, for a service that speaks http.
        tls: whether the service speaks https.
        expected: metadata that the answer must contain, such as `{"name": "Inst"}`. None if nothing is
            known about the node because Gridup did not deploy it.
        trust: which certificates the probe accepts.
        offered, reason: False and why, for a service that the node does not have, or that is not known to
            be this node's. Such a service is never probed.
        open_to: the networks that may reach the port; empty for everybody. If it is not empty, a silent
            port is RESTRICTED, not TIMEOUT, until `restrictions.reclassify` finds that this machine's
            address is in one of the networks.
        way: the argv of a program whose stdin and stdout are a connection to the service. Empty if the
            probe connects to `host` and `port` directly.
        node: the node that the endpoint belongs to. A host row is up only because of its own node's
            services.
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
        """Text for users that says which networks may reach the port; empty if everybody may."""
        return f"open to {', '.join(self.open_to)} only" if self.open_to else ""


class ProbeState(Enum):
    """The outcome of a probe."""

    UP = "up"
    """The right service answers."""
    DOWN = "down"
    """Nothing answers, or something else answers."""
    NOT_READY = "not-ready"
    """The service may be starting: 404, 502, 503, 504, or a connection closed without an answer."""
    TIMEOUT = "timeout"
    """No complete answer within the deadline."""
    RESTRICTED = "restricted"
    """The port is not open to this machine's address, so the probe can't verify the service."""
    NOT_OFFERED = "not-offered"
    """The node does not have the service, or is not known to have it. Not a failure."""


@dataclass(frozen=True)
class ProbeResult:
    """The result of one probe.

    Attributes:
        detail: one short line for users.
        note: a remark on a service that is up, such as "untrusted certificate".
        seconds: how long the probe took.
        facts: what the service reports about itself: `syft_version`, `server_type`, `name`,
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
    """Return whether at least one service is offered and all offered services are up."""
    offered = [r for r in results if r.state is not ProbeState.NOT_OFFERED]
    return bool(offered) and all(r.up for r in offered)


def healthy(results: Sequence[ProbeResult]) -> bool:
    """Return whether all services that this machine can reach are up.

    Like `all_up`, but without RESTRICTED results. At least one service must be up: a node whose services
    are all restricted is not healthy.
    """
    seen = [r for r in results if r.state is not ProbeState.RESTRICTED]
    return all_up(seen)


def summary(results: Sequence[ProbeResult]) -> str:
    """Return one line: how many services are up, and what is wrong with the others."""
    offered = [r for r in results if r.state is not ProbeState.NOT_OFFERED]
    up = sum(r.up for r in offered)
    wrong = [f"{r.endpoint.title}: {r.detail or r.state.value}" for r in offered if not r.up]
    return "; ".join([f"{up} of {len(offered)} up", *wrong])


def to_json(results: Sequence[ProbeResult]) -> list[dict[str, Any]]:
    """Return the results for `--json`, in the same order. The keys are a stable interface.

    `service`, `title`, `url`: as in `Endpoint`. `state`: one of `ProbeState`'s values. `up`: true or
    false. `detail`, `note`: text, may be empty. `seconds`: rounded to milliseconds. `facts`: text by key.
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
