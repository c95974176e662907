"""The providers of a local node's resources: the engine calls them to create, change and delete the node."""

from __future__ import annotations

import os
from pathlib import Path

from pulumi.dynamic import CheckResult, CreateResult, ReadResult, UpdateResult

from gridup_infra.paths import account
from gridup_infra.processes import which
from gridup_infra.progress import report
from gridup_infra.spec import DeploySpec
from gridup_infra.targets import fronting
from gridup_infra.targets.dynamic import (
    DRIFT,
    Properties,
    Provider,
    normalize_numbers,
    translate_errors,
    unknown,
)
from gridup_infra.targets.local import cleanup, node, runtime
from gridup_infra.targets.local.supervisor import Supervisor, running_problems
from gridup_node import catalog
from gridup_node.services import programs


class OwnerProvider(Provider):
    """Provider of the stack's owner on this machine; see the first lines of `resources`."""

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(lambda: CreateResult(props["stack_id"], normalize_numbers(props)))

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return UpdateResult(normalize_numbers(news))

    def delete(self, _id: str, props: Properties) -> None:
        translate_errors(
            lambda: cleanup.delete_all(
                props["stack_id"], Path(props["folder"]), keep_data=bool(props["keep_data"])
            )
        )


class RuntimeProvider(Provider):
    """Provider of the shared environment. Its delete does nothing, because other nodes may use it.

    `gridup prune` deletes unused ones.
    """

    def create(self, props: Properties) -> CreateResult:
        made = translate_errors(lambda: self._ensure(props))
        return CreateResult(made["path"], made)

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return UpdateResult(translate_errors(lambda: self._ensure(news)))

    def read(self, id_: str, props: Properties) -> ReadResult:
        found = runtime.load(Path(props["path"]))
        if found is None:
            return ReadResult(id_, {**props, DRIFT: [f"{props['path']} is missing or damaged"]})
        return ReadResult(id_, {**props, "build_id": found.stamp, DRIFT: []})

    def delete(self, _id: str, _props: Properties) -> None:
        pass

    def _ensure(self, props: Properties) -> Properties:
        lock = catalog.lock_for(props["syft_version"])
        rebuilt, added = props.get("rebuilt", ""), props.get("packages", "")
        made = runtime.ensure(
            Path(props["runtimes"]), lock, lambda text: report("runtime", text), rebuilt, added
        )
        return {
            **normalize_numbers(props),
            "path": str(made.path),
            "build_id": made.stamp,
            "python": made.python,
            DRIFT: [],
        }


class NodeDirProvider(Provider):
    """Provider of the node's folder."""

    computed = ("ports", "fingerprints", "restart_tokens")

    def check(self, _olds: Properties, news: Properties) -> CheckResult:
        # Facts of the machine that the Pulumi program can't know. As inputs, their changes update the node.
        found = {row.requires_tool: which(row.requires_tool) for row in programs() if row.requires_tool}
        tools = {name: path for name, path in found.items() if path}
        spec = DeploySpec.from_config(news["spec"])
        inputs = {**news, "tools": tools, "user": account(os.geteuid()), "names": fronting.names_of(spec)}
        if outward := fronting.outward(spec):
            inputs["address"] = outward
        if not unknown(news["bin"]):
            # Outputs that a preview can know already.
            inputs |= node.foreseen(_plan(inputs))
        return CheckResult(inputs, [])

    def create(self, props: Properties) -> CreateResult:
        made = translate_errors(lambda: node.write_node_dir(_plan(props), {}))
        return CreateResult(props["folder"], {**normalize_numbers(props), **made})

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        made = translate_errors(lambda: node.write_node_dir(_plan(news), normalize_numbers(olds["ports"])))
        # Keep older tokens, since losing one would restart its service. A second repair has a new token, so
        # it restarts its service again.
        made["restart_tokens"] = {**olds.get("restart_tokens", {}), **made["restart_tokens"]}
        return UpdateResult({**normalize_numbers(news), **made})

    def read(self, id_: str, props: Properties) -> ReadResult:
        if node.owner_of(Path(props["folder"])) is None and not (Path(props["folder"]) / "data").exists():
            return ReadResult("", {})
        found = translate_errors(lambda: node.drift(_plan(props), normalize_numbers(props["ports"])))
        return ReadResult(id_, {**props, DRIFT: found})

    def delete(self, _id: str, _props: Properties) -> None:
        # Owner deletes the folder, last: until then the folder identifies the node's processes.
        pass


class ServicesProvider(Provider):
    """Provider of the node's running services."""

    # If a preview can't know these inputs, they change: a changed runtime is built again, and a node whose
    # fingerprints are not known in advance gets new ones.
    sure = frozenset({"build_id", "fingerprints"})

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            self._start(props, restart=True)
            return CreateResult(props["stack_id"], {**normalize_numbers(props), "ca": _ca(props), DRIFT: []})

        return translate_errors(create)

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            self._converge(normalize_numbers(olds), normalize_numbers(news))
            return UpdateResult({**normalize_numbers(news), "ca": _ca(news), DRIFT: []})

        return translate_errors(update)

    def read(self, id_: str, props: Properties) -> ReadResult:
        folder = Path(props["folder"])
        if not folder.exists():
            return ReadResult("", {})
        supervisor = _supervisor(props)
        if supervisor.stopped_by_user:
            return ReadResult(id_, {**props, DRIFT: ["stopped by `gridup stop`"]})
        found = running_problems(supervisor.states(), props["fingerprints"])
        return ReadResult(id_, {**props, DRIFT: found})

    def delete(self, _id: str, props: Properties) -> None:
        if Path(props["folder"]).exists():
            translate_errors(_supervisor(props).stop)

    def _start(self, props: Properties, *, restart: bool) -> None:
        report("services", "starting")
        supervisor = _supervisor(props)
        if restart:
            # Services that an interrupted create started may run with an older configuration.
            supervisor.stop()
        supervisor.start()

    def _converge(self, olds: Properties, news: Properties) -> None:
        supervisor = _supervisor(news)
        whole = olds.get("build_id") != news["build_id"] or olds.get("bin") != news["bin"]
        if whole or supervisor.states() is None:
            self._start(news, restart=whole)
            return
        before, after = _marks_of(olds), _marks_of(news)
        changed = {name for name in after if before.get(name) != after[name]}
        if olds.get(DRIFT):
            states = supervisor.states() or {}
            changed |= {name for name in after if running_problems(states, [name])}
        supervisor.apply(sorted(changed), sorted(set(before) - set(after)))


def _ca(props: Properties) -> str:
    return node.ca_of(Path(props["folder"])) if props["https"] else ""


def _marks_of(props: Properties) -> dict[str, tuple[str, str]]:
    repaired = props.get("restart_tokens", {})
    return {name: (mark, repaired.get(name, "")) for name, mark in props["fingerprints"].items()}


def _supervisor(props: Properties) -> Supervisor:
    return Supervisor(Path(props["folder"]), props["stack_id"], Path(props["bin"]))


def _plan(props: Properties) -> node.Plan:
    return node.Plan(
        folder=Path(props["folder"]),
        spec=DeploySpec.from_config(props["spec"]),
        bin=props["bin"],
        bundle=props["bundle"],
        tools=props["tools"],
        user=props["user"],
        syft_version=props["syft_version"],
        names=tuple(props.get("names") or ()),
        address=props.get("address") or "",
    )
