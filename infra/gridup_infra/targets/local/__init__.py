"""The target `local`: a whole node on this machine, which needs only Python."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gridup_infra.errors import NotOfferedError, PreflightError, ResourceError
from gridup_infra.naming import typed
from gridup_infra.outputs import NodeOutputs
from gridup_infra.paths import Home
from gridup_infra.processes import Result
from gridup_infra.room import Need
from gridup_infra.spec import DeploySpec
from gridup_infra.targets import fronting, ports
from gridup_infra.targets.base import (
    Capability,
    Inspection,
    NodeAccess,
    NodeStatus,
    Retained,
    Shell,
    SshAccess,
    StackRef,
    Target,
    check_tag,
    emptied,
)
from gridup_node import catalog, keys
from gridup_node.services import PROXY, Service, backends, programs

if TYPE_CHECKING:
    import pulumi

    from gridup_infra.targets.local.node import Plan
    from gridup_infra.targets.local.supervisor import Supervisor

MINIMUM_FREE = 300_000_000
"""Bytes that a node's folder needs at first, for its database, blobs and logs."""


class LocalTarget(Target):
    """Target for this machine."""

    name: ClassVar[str] = "local"
    title: ClassVar[str] = "this machine"
    providers: ClassVar[tuple[str, ...]] = ("gridup_infra.targets.local.providers",)
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.POWER,
            Capability.BIND,
            Capability.SCHEME,
            Capability.PORT,
            Capability.KEEP_DATA,
            Capability.SSH_KEYS,
        }
    )

    def resolve(self, spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:
        check_tag(spec)
        return fronting.settled(replace(spec, bind=spec.bind or "127.0.0.1"), previous)

    def warnings(self, spec: DeploySpec, current: NodeOutputs | None) -> tuple[str, ...]:  # noqa: ARG002
        return fronting.warnings(spec)

    def usual_ports(self, spec: DeploySpec) -> Mapping[str, tuple[int, ...]]:
        return fronting.usual_ports(spec)

    def needs(self, spec: DeploySpec) -> tuple[Need, ...]:
        from gridup_infra import resolving
        from gridup_infra.targets.local import runtime

        # While the packages are not locked yet, use a text that matches no existing environment.
        added = spec.packages_lock if resolving.is_locked(spec) else str(spec.packages)
        made_of = (catalog.lock_for(spec.tag), spec.rebuilt, added)
        node = Need("the node", MINIMUM_FREE, self.folder(spec.stack))
        return (*runtime.needs(Home.default().runtimes, *made_of), node)

    def preflight(self, spec: DeploySpec, current: NodeOutputs | None) -> None:
        from gridup_infra.targets.local import runtime

        self.glance(spec, current)
        runtime.find_python()

    def glance(self, spec: DeploySpec, current: NodeOutputs | None) -> None:
        from gridup_infra.targets.local import node

        folder = self.folder(spec.stack)
        # The node of an interrupted deploy has no outputs, but may run already: its port is not in conflict.
        had = current.ports.get(PROXY) if current else node.ports_of(folder, spec.stack_id).get(PROXY)
        bind = spec.bind or "127.0.0.1"
        moved = current is not None and current.spec.bind != spec.bind
        kept = ports.reserved_by_others(Home.default().nodes, folder)
        try:
            ports.free(bind, 0)
            if spec.port:
                ports.check_kept(spec.port, kept)
            if spec.port and (spec.port != had or moved):
                ports.check_free(bind, spec.port, self._look(spec) if spec.port == had else ports.bind_errno)
        except ResourceError as error:
            raise PreflightError(error.message, error.suggestion) from None

    def _look(self, spec: DeploySpec) -> ports.Obstacle:
        """Return a check that ignores the node's own processes: a moving node frees its port."""
        from gridup_infra.targets.local import process_env

        def look(address: str, port: int) -> int | None:
            met = ports.bind_errno(address, port)
            if met == errno.EADDRINUSE and (there := ports.listeners(port)):
                own = {process.pid for process in process_env.find(spec.stack_id, self.folder(spec.stack))}
                return None if there <= own else met
            return met

        return look

    def build(self, spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
        from gridup_infra.targets.local import resources

        return resources.build(spec, self.folder(spec.stack), Home.default().runtimes)

    def summary(self, spec: DeploySpec) -> tuple[str, ...]:
        return (f"the node's processes on this machine, bound to {spec.bind or '127.0.0.1'}",)

    def listens(self, spec: DeploySpec) -> tuple[str, ...]:
        return ports.announced(spec)

    def data(self, spec: DeploySpec) -> str:
        return f"its folder {self.folder(spec.stack)}: data, secrets, keys, logs"

    def retained_on_destroy(self, spec: DeploySpec) -> tuple[str, ...]:
        runtime = "the shared Python environment (`gridup prune` removes unused ones)"
        if spec.keeps:
            return (f"{self.folder(spec.stack)}: data, secrets and keys (--keep-data)", runtime)
        return (runtime,)

    def retained(self, spec: DeploySpec) -> Retained | None:
        from gridup_infra.targets.local import node

        return node.retained(self.folder(spec.stack))

    def inspect(self, outputs: NodeOutputs) -> Inspection:
        from gridup_infra.targets.local import node, runtime
        from gridup_infra.targets.local.supervisor import running_problems
        from gridup_node import database
        from gridup_node.facts import NodeDir

        plan = self._plan(outputs)
        if not plan.folder.exists():
            return Inspection(
                NodeStatus.MISSING, (f"{plan.folder} is gone",), remedy=emptied(outputs.spec.name)
            )
        problems = node.drift(plan, outputs.ports)
        if runtime.load(Path(plan.bin).parent) is None:
            problems.append(f"the Python environment {Path(plan.bin).parent} is missing or damaged")
        lost = database.lost(NodeDir(plan.folder))
        if lost:
            problems.append(lost)
        remedy = database.REMEDY if lost else ""
        supervisor = self._supervisor(outputs)
        if supervisor.stopped_by_user:
            return Inspection(NodeStatus.STOPPED, tuple(problems), remedy=remedy)
        states = supervisor.states()
        if states is None and supervisor.rebooted:
            start = typed("start", outputs.spec.name)
            note = f"this machine was restarted since it ran: `{start}` starts it"
            return Inspection(NodeStatus.STOPPED, tuple(problems), notes=(note,), remedy=remedy)
        wanted = [row.name for row in _offered(outputs)]
        running = running_problems(states, wanted)
        dead = tuple(
            f"{state.name} crashed (exit {state.exit_code}), not restarting"
            for state in (states or {}).values()
            if state.state == "FATAL"
        )
        problems += running
        if problems:
            power = NodeStatus.DEGRADED
        elif any(state.state != "RUNNING" for state in (states or {}).values()):
            power = NodeStatus.STARTING
        else:
            power = NodeStatus.RUNNING
        return Inspection(power, tuple(problems), dead, complete=True, remedy=remedy)

    def leftovers(self, identity: StackRef) -> tuple[str, ...]:
        from gridup_infra.targets.local import cleanup

        return tuple(cleanup.leftovers(identity.stack_id, self._folder_of(identity)))

    def delete_all(self, identity: StackRef) -> None:
        from gridup_infra.targets.local import cleanup

        cleanup.delete_all(identity.stack_id, self._folder_of(identity), keep_data=False)

    def access(self, outputs: NodeOutputs) -> NodeAccess:
        return LocalAccess(outputs, self._supervisor(outputs))

    def start(self, outputs: NodeOutputs) -> None:
        _check_there(outputs)
        self._supervisor(outputs).start()

    def stop(self, outputs: NodeOutputs) -> None:
        _check_there(outputs)
        self._supervisor(outputs).stop(on_purpose=True)

    def prunable(self) -> tuple[str, ...]:
        from gridup_infra.targets.local import pruning

        home = Home.default()
        return tuple(str(path) for path in pruning.unused(home.runtimes, home.nodes))

    def prune(self, thing: str) -> None:
        from gridup_infra.targets.local import pruning

        pruning.remove(Path(thing), Home.default().nodes)

    @staticmethod
    def folder(stack: str) -> Path:
        """Return the folder of that stack's node."""
        return Home.default().node(stack)

    def _folder_of(self, identity: StackRef) -> Path:
        folder = identity.facts.get("folder")
        return Path(folder) if folder else self.folder(identity.stack)

    @staticmethod
    def _supervisor(outputs: NodeOutputs) -> Supervisor:
        from gridup_infra.targets.local.supervisor import Supervisor

        facts = outputs.facts
        return Supervisor(Path(facts["folder"]), outputs.spec.stack_id, Path(facts["bin"]))

    @staticmethod
    def _plan(outputs: NodeOutputs) -> Plan:
        from gridup_infra.processes import which
        from gridup_infra.targets.local.node import Plan

        tools = {
            row.requires_tool: which(row.requires_tool) or ""
            for row in _offered(outputs)
            if row.requires_tool
        }
        return Plan(
            folder=Path(outputs.facts["folder"]),
            spec=outputs.spec,
            bin=outputs.facts["bin"],
            bundle=outputs.facts["bundle"],
            tools=tools,
            user=outputs.ssh_user,
            syft_version=catalog.resolve(outputs.spec.tag),
            names=tuple(outputs.facts.get("names", "").split()),
            address=outputs.address,
        )


def _offered(outputs: NodeOutputs) -> list[Service]:
    return [row for row in programs() if row.name not in outputs.not_offered]


def _check_there(outputs: NodeOutputs) -> None:
    folder = Path(outputs.facts["folder"])
    if not folder.exists():
        again = typed("deploy", outputs.spec.name)
        raise ResourceError(f"The node's folder {folder} is gone.", f"`{again}` lays it again.")


class LocalAccess(NodeAccess):
    """Access through files and processes of this machine."""

    def __init__(self, outputs: NodeOutputs, supervisor: Supervisor) -> None:
        self._outputs = outputs
        self._supervisor = supervisor
        self._folder = supervisor.folder

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        input: bytes | None = None,
        service: str = "",  # noqa: ARG002 - here each program sees all folders
    ) -> Result:
        from gridup_infra.processes import run

        _check_there(self._outputs)
        return run(argv, timeout=timeout, input=input, cwd=self._folder, env=self._supervisor.environment())

    def programs(self) -> tuple[str, ...]:
        first = backends()[0].name
        return (first, *(row.name for row in _offered(self._outputs) if row.name != first))

    def restart(self, services: Sequence[str]) -> None:
        _check_there(self._outputs)
        self._supervisor.restart(services, self._outputs.spec.name)

    def logs(self, services: Sequence[str], *, lines: int, follow: bool) -> Iterator[tuple[str, str]]:
        from gridup_infra.targets.local.tail import tail

        yield from tail({name: self._folder / "logs" / f"{name}.log" for name in services}, lines, follow)

    def ssh(self) -> SshAccess:
        if reason := self._outputs.not_offered.get("ssh"):
            again = typed("deploy", self._outputs.spec.name)
            raise NotOfferedError(
                f"This node has no ssh: {reason}.", f"Install OpenSSH's server; `{again}` then offers it."
            )
        return SshAccess(
            user=self._outputs.ssh_user,
            host=self._outputs.address,
            port=self._outputs.ports["ssh"],
            key=self._folder / "keys" / keys.CLIENT_KEY,
            known_hosts=self._folder / "keys" / keys.KNOWN_HOSTS,
        )

    def shell(self) -> Shell | None:
        if "ssh" not in self._outputs.not_offered:
            return None
        import os
        import pwd

        _check_there(self._outputs)
        # sshd uses the same shell.
        program = pwd.getpwuid(os.geteuid()).pw_shell or "/bin/sh"
        terminal = {name: os.environ[name] for name in ("TERM",) if name in os.environ}
        return Shell(program, self._folder, {**self._supervisor.environment(), **terminal})
