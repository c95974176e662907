"""A cloud that is none: a target with every capability, which does what a test tells it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

from gridup_infra import targets
from gridup_infra.errors import GridupError, ResourceError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.base import (
    Capability,
    Inspection,
    NodeAccess,
    NodeStatus,
    Retained,
    SshAccess,
    StackRef,
    Target,
)


class FakeTarget(Target):
    """The moon.

    Attributes:
        calls: what was asked of it, in order.
        refuses: what its preflight, and each look at what is there, ends with.
        lost: what a change of a deployed node destroys.
        gives_up: why waiting is no use.
        left: what an earlier node of whatever name has left there.
        readiness: its answers to `ready`, the last one for ever; an error is raised.
        restart: what its machine is to be restarted for.
        machine: what its state has of a machine whose deploy was interrupted.
        where: where its nodes are.
        power: how they run.
        silent: whether no way in answers.
        explains: what a failure in the engine comes of.
    """

    name: ClassVar[str] = "moon"
    title: ClassVar[str] = "the moon"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability) - {
        Capability.PORT,
        Capability.BIND,
        Capability.SCHEME,
    }
    key_types: ClassVar[tuple[str, ...]] = ("ssh-ed25519", "ssh-rsa")

    calls: ClassVar[list[str]] = []
    refuses: ClassVar[GridupError | None] = None
    lost: ClassVar[tuple[str, ...]] = ()
    gives_up: ClassVar[ResourceError | None] = None
    left: ClassVar[Retained | None] = None
    readiness: ClassVar[list[bool | Exception]] = [True]
    restart: ClassVar[tuple[str, ...] | None] = None
    machine: ClassVar[NodeOutputs | None] = None
    where: ClassVar[dict[str, str]] = {}
    power: ClassVar[NodeStatus] = NodeStatus.RUNNING
    silent: ClassVar[bool] = False
    explains: ClassVar[GridupError | None] = None

    def resolve(self, spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:
        self.calls.append("resolve")
        return spec

    def preflight(self, spec: DeploySpec, current: NodeOutputs | None) -> None:
        self.calls.append("preflight")
        self._refuse()

    def build(self, spec: DeploySpec) -> None:  # type: ignore[override]
        raise NotImplementedError

    def translate_error(self, error: ResourceError, spec: DeploySpec) -> GridupError:
        return self.explains or super().translate_error(error, spec)

    def summary(self, spec: DeploySpec) -> tuple[str, ...]:
        return (f"a crater in {spec.region or 'the sea of tranquility'}",)

    def data(self, spec: DeploySpec) -> str:
        return f"a lake of {spec.disk_size or 1} GB"

    def retained_on_destroy(self, spec: DeploySpec) -> tuple[str, ...]:
        return ("the lake",) if spec.keeps else ()

    def inspect(self, outputs: NodeOutputs) -> Inspection:
        self._refuse()
        return Inspection(self.power, complete=True)

    def partial_outputs(self, identity: StackRef, spec: DeploySpec, states: object) -> NodeOutputs | None:
        return replace(self.machine, spec=spec) if self.machine else None

    def place(self, outputs: NodeOutputs) -> dict[str, str]:
        return dict(self.where)

    def answers(self, outputs: NodeOutputs) -> bool:
        return not self.silent

    def start(self, outputs: NodeOutputs) -> None:
        self.calls.append(f"start {outputs.facts['machine']}")

    def stop(self, outputs: NodeOutputs) -> None:
        self.calls.append(f"stop {outputs.facts['machine']}")

    def leftovers(self, identity: StackRef) -> tuple[str, ...]:
        return ()

    def delete_all(self, identity: StackRef) -> None: ...

    def access(self, outputs: NodeOutputs) -> NodeAccess:
        return _NoWay()

    def retained(self, spec: DeploySpec) -> Retained | None:
        return self.left

    def destructive_changes(self, spec: DeploySpec, current: NodeOutputs) -> tuple[str, ...]:
        return self.lost

    def terminal_failure(self, outputs: NodeOutputs) -> ResourceError | None:
        return self.gives_up

    def ready(self, outputs: NodeOutputs) -> bool:
        self.calls.append("ready")
        answer = self.readiness.pop(0) if len(self.readiness) > 1 else self.readiness[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def restart_due(self, outputs: NodeOutputs) -> tuple[str, ...] | None:
        self.calls.append("restart_due")
        return self.restart

    def boot_log(self, outputs: NodeOutputs) -> str:
        return "[    0.000000] Linux on the moon\ncloud-init: done\n"

    def _refuse(self) -> None:
        if self.refuses:
            raise self.refuses


class _NoWay(NodeAccess):
    def run(  # type: ignore[override]
        self, argv: object, *, timeout: float, input: bytes | None = None, service: str = ""
    ) -> None:
        raise ResourceError("There is no way in.")

    def programs(self) -> tuple[str, ...]:
        return ("api",)

    def restart(self, services: object) -> None:
        raise ResourceError("There is no way in.")

    def logs(self, services: object, *, lines: int, follow: bool) -> Iterator[tuple[str, str]]:
        yield "api", "a line"

    def ssh(self) -> SshAccess:
        raise ResourceError("There is no way in.")


@pytest.fixture
def moon(monkeypatch: pytest.MonkeyPatch) -> type[FakeTarget]:
    """The target, registered for one test beside the real ones, with nothing told to it yet."""
    registry = {**targets._REGISTRY, "moon": "support.fake_target:FakeTarget"}
    monkeypatch.setattr("gridup_infra.targets._REGISTRY", registry)
    told = {"calls": [], "refuses": None, "lost": (), "gives_up": None, "left": None, "restart": None}
    told |= {"machine": None, "where": {}, "power": NodeStatus.RUNNING, "silent": False, "explains": None}
    for name, value in told.items():
        monkeypatch.setattr(FakeTarget, name, value)
    monkeypatch.setattr(FakeTarget, "readiness", [True])
    return FakeTarget
