"""A cloud that is none: a target with every capability, which does what a test tells it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from gridup_infra import targets
from gridup_infra.errors import GridupError, ResourceError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.base import Capability, Identity, Inspection, Power, SshAccess, Target, WayIn


class MoonTarget(Target):
    """The moon.

    Attributes:
        calls: what was asked of it, in order.
        refuses: what its preflight, and each look at what is there, ends with.
        lost: what a change of a deployed node takes away.
        gives_up: why waiting is no use.
        readiness: its answers to `ready`, the last one for ever; an error is raised.
    """

    name: ClassVar[str] = "moon"
    title: ClassVar[str] = "the moon"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability) - {Capability.PORT, Capability.BIND}
    key_types: ClassVar[tuple[str, ...]] = ("ssh-ed25519", "ssh-rsa")

    calls: ClassVar[list[str]] = []
    refuses: ClassVar[GridupError | None] = None
    lost: ClassVar[tuple[str, ...]] = ()
    gives_up: ClassVar[ResourceError | None] = None
    readiness: ClassVar[list[bool | Exception]] = [True]

    def resolve(self, spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:
        self.calls.append("resolve")
        return spec

    def preflight(self, spec: DeploySpec, current: NodeOutputs | None) -> None:
        self.calls.append("preflight")
        self._refuse()

    def build(self, spec: DeploySpec) -> None:  # type: ignore[override]
        raise NotImplementedError

    def summary(self, spec: DeploySpec) -> tuple[str, ...]:
        return (f"a crater in {spec.region or 'the sea of tranquility'}",)

    def kept(self, spec: DeploySpec) -> tuple[str, ...]:
        return ()

    def inspect(self, outputs: NodeOutputs) -> Inspection:
        self._refuse()
        return Inspection(Power.RUNNING, whole=True)

    def leftovers(self, identity: Identity) -> tuple[str, ...]:
        return ()

    def sweep(self, identity: Identity) -> None: ...

    def way_in(self, outputs: NodeOutputs) -> WayIn:
        return _NoWay()

    def losses(self, spec: DeploySpec, current: NodeOutputs) -> tuple[str, ...]:
        return self.lost

    def given_up(self, outputs: NodeOutputs) -> ResourceError | None:
        return self.gives_up

    def ready(self, outputs: NodeOutputs) -> bool:
        self.calls.append("ready")
        answer = self.readiness.pop(0) if len(self.readiness) > 1 else self.readiness[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def boot_log(self, outputs: NodeOutputs) -> str:
        return "[    0.000000] Linux on the moon\ncloud-init: done\n"

    def _refuse(self) -> None:
        if self.refuses:
            raise self.refuses


class _NoWay(WayIn):
    def run(self, argv: object, *, timeout: float, input: bytes | None = None) -> None:  # type: ignore[override]
        raise ResourceError("There is no way in.")

    def logs(self, services: object, *, lines: int, follow: bool) -> Iterator[tuple[str, str]]:
        yield "api", "a line"

    def ssh(self) -> SshAccess:
        raise ResourceError("There is no way in.")


@pytest.fixture
def moon(monkeypatch: pytest.MonkeyPatch) -> type[MoonTarget]:
    """The target, registered for one test beside the real ones, with nothing told to it yet."""
    registry = {**targets._REGISTRY, "moon": "support.moon:MoonTarget"}
    monkeypatch.setattr("gridup_infra.targets._REGISTRY", registry)
    for name, value in {"calls": [], "refuses": None, "lost": (), "gives_up": None}.items():
        monkeypatch.setattr(MoonTarget, name, value)
    monkeypatch.setattr(MoonTarget, "readiness", [True])
    return MoonTarget
