"""The local target's resources: Owner, Runtime, Node and Services, with their providers.

Owner is first and deleted last: its delete removes whatever still bears the stack's marks, so
that a interrupted create leaves nothing behind, not even under plain `pulumi destroy`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import CheckResult, CreateResult, ReadResult, Resource, UpdateResult

from gridup_infra.outputs import BUILT
from gridup_infra.paths import account
from gridup_infra.processes import which
from gridup_infra.progress import report
from gridup_infra.spec import HTTPS, DeploySpec
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
from gridup_node.image import bundle_digest
from gridup_node.services import programs


class OwnerProvider(Provider):
    """The stack's mark on this machine; see the module's first lines."""

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
    """The shared environment. Its delete does nothing: other nodes may use it, `gridup prune` asks."""

    def create(self, props: Properties) -> CreateResult:
        made = translate_errors(lambda: self._ensure(props))
        return CreateResult(made["path"], made)

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return UpdateResult(translate_errors(lambda: self._ensure(news)))

    def read(self, id_: str, props: Properties) -> ReadResult:
        found = runtime.load(Path(props["path"]))
        if found is None:
            return ReadResult(id_, {**props, DRIFT: [f"{props['path']} is missing or damaged"]})
        return ReadResult(id_, {**props, "stamp": found.stamp, DRIFT: []})

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
            "stamp": made.stamp,
            "python": made.python,
            DRIFT: [],
        }


class NodeProvider(Provider):
    """The node's folder."""

    tells = ("ports", "fingerprints", "repaired")

    def check(self, _olds: Properties, news: Properties) -> CheckResult:
        # Facts of the machine that the program can't know: they change the node when they change.
        found = {row.requires_tool: which(row.requires_tool) for row in programs() if row.requires_tool}
        tools = {name: path for name, path in found.items() if path}
        spec = DeploySpec.from_config(news["spec"])
        inputs = {**news, "tools": tools, "user": account(os.geteuid()), "names": fronting.names_of(spec)}
        if outward := fronting.outward(spec):
            inputs["address"] = outward
        if not unknown(news["bin"]):
            # What a preview can know of its outputs.
            inputs |= node.foreseen(_plan(inputs))
        return CheckResult(inputs, [])

    def create(self, props: Properties) -> CreateResult:
        made = translate_errors(lambda: node.write_node_dir(_plan(props), {}))
        return CreateResult(props["folder"], {**normalize_numbers(props), **made})

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        made = translate_errors(lambda: node.write_node_dir(_plan(news), normalize_numbers(olds["ports"])))
        # A repair must restart its service even when it is the second one.
        made["repaired"] = {**olds.get("repaired", {}), **made["repaired"]}
        return UpdateResult({**normalize_numbers(news), **made})

    def read(self, id_: str, props: Properties) -> ReadResult:
        if node.owner_of(Path(props["folder"])) is None and not (Path(props["folder"]) / "data").exists():
            return ReadResult("", {})
        found = translate_errors(lambda: node.drift(_plan(props), normalize_numbers(props["ports"])))
        return ReadResult(id_, {**props, DRIFT: found})

    def delete(self, _id: str, _props: Properties) -> None:
        # The folder goes last, with its owner: until then it is what marks the processes as ours.
        pass


class ServicesProvider(Provider):
    """The node's running services."""

    # A runtime that is changed is made anew, and a node whose fingerprints can't be foreseen has others.
    sure = frozenset({"stamp", "fingerprints"})

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
            # Whatever a interrupted create started may run on an older configuration.
            supervisor.stop()
        supervisor.start()

    def _converge(self, olds: Properties, news: Properties) -> None:
        supervisor = _supervisor(news)
        whole = olds.get("stamp") != news["stamp"] or olds.get("bin") != news["bin"]
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
    repaired = props.get("repaired", {})
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


class Owner(Resource, module="gridup-local", name="Owner"):
    """Marks the stack on this machine."""

    def __init__(self, name: str, props: Properties, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(OwnerProvider(), name, props, opts)


class Runtime(Resource, module="gridup-local", name="Runtime"):
    """The node's Python environment."""

    path: pulumi.Output[str]
    stamp: pulumi.Output[str]

    def __init__(self, name: str, props: Properties, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(RuntimeProvider(), name, {**props, "path": None, "stamp": None}, opts)


class Node(Resource, module="gridup-local", name="Node"):
    """The node's folder."""

    ports: pulumi.Output[dict[str, Any]]
    fingerprints: pulumi.Output[dict[str, str]]
    repaired: pulumi.Output[dict[str, str]]
    tools: pulumi.Output[dict[str, str]]
    user: pulumi.Output[str]
    names: pulumi.Output[list[str]]
    address: pulumi.Output[str]

    def __init__(self, name: str, props: Properties, opts: pulumi.ResourceOptions | None = None) -> None:
        known = ("ports", "fingerprints", "repaired", "tools", "user", "names", "address")
        super().__init__(NodeProvider(), name, {**props, **dict.fromkeys(known)}, opts)


class Services(Resource, module="gridup-local", name="Services"):
    """The node's processes."""

    ca: pulumi.Output[str]

    def __init__(self, name: str, props: Properties, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(ServicesProvider(), name, {**props, "ca": None}, opts)


def build(spec: DeploySpec, folder: Path, runtimes: Path) -> pulumi.Output[Any]:
    """Declare a local node's resources; the result is its `NodeOutputs`."""
    syft_version = catalog.resolve(spec.tag)
    owner = Owner(
        "owner",
        {
            "stack_id": spec.stack_id,
            "name": spec.name,
            "target": spec.target,
            "folder": str(folder),
            "keep_data": spec.keeps,
        },
    )
    after = pulumi.ResourceOptions(depends_on=[owner])
    environment = Runtime(
        "runtime",
        {
            "runtimes": str(runtimes),
            "syft_version": syft_version,
            "lock": runtime.lock_digest(catalog.lock_for(syft_version), spec.rebuilt, spec.packages_lock),
            **({"rebuilt": spec.rebuilt} if spec.rebuilt else {}),
            **({"packages": spec.packages_lock} if spec.packages_lock else {}),
        },
        after,
    )
    bin_folder = environment.path.apply(lambda path: str(Path(path) / "bin"))
    bundle = bundle_digest()
    laid = Node(
        "node",
        {
            "folder": str(folder),
            "spec": spec.to_config(),
            "bin": bin_folder,
            "bundle": bundle,
            "syft_version": syft_version,
        },
        after,
    )
    running = Services(
        "services",
        {
            "folder": str(folder),
            "stack_id": spec.stack_id,
            "bin": bin_folder,
            "stamp": environment.stamp,
            "fingerprints": laid.fingerprints,
            "repaired": laid.repaired,
            "https": spec.scheme == HTTPS,
            # Once its secrets are replaced its CA is another one, to be read again.
            **({"rotated": spec.rotated} if spec.rotated and not spec.rotating else {}),
        },
        pulumi.ResourceOptions(depends_on=[owner, environment, laid]),
    )

    def outputs(values: dict[str, Any]) -> Any:
        plan = node.Plan(
            folder,
            spec,
            values["bin"],
            bundle,
            values["tools"],
            values["user"],
            syft_version,
            tuple(values["names"] or ()),
            values["address"] or "",
        )
        made = node.node_outputs(plan, normalize_numbers(values["ports"]), ca=values["ca"] or "")
        return replace(made, facts={**made.facts, BUILT: runtime.built(values["stamp"])})

    return pulumi.Output.all(
        bin=bin_folder,
        stamp=environment.stamp,
        ports=laid.ports,
        tools=laid.tools,
        user=laid.user,
        names=laid.names,
        address=laid.address,
        ca=running.ca,
        running=running.id,
    ).apply(outputs)
