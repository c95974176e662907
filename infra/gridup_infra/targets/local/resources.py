"""The local target's resources: Owner, Runtime, NodeDir and Services, whose providers are in `providers`.

Owner is created first and deleted last. Its delete removes everything that still has the stack's ownership
mark, so that an interrupted create leaves nothing behind, not even with plain `pulumi destroy`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import Resource

from gridup_infra.outputs import BUILT
from gridup_infra.spec import HTTPS, DeploySpec
from gridup_infra.targets.dynamic import (
    Properties,
    normalize_numbers,
)
from gridup_infra.targets.local import node, runtime
from gridup_infra.targets.local.providers import (
    NodeDirProvider,
    OwnerProvider,
    RuntimeProvider,
    ServicesProvider,
)
from gridup_node import catalog
from gridup_node.image import bundle_digest


class Owner(Resource, module="gridup-local", name="Owner"):
    """The owner of the stack on this machine."""

    def __init__(self, name: str, props: Properties, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(OwnerProvider(), name, props, opts)


class Runtime(Resource, module="gridup-local", name="Runtime"):
    """The node's Python environment."""

    path: pulumi.Output[str]
    build_id: pulumi.Output[str]

    def __init__(self, name: str, props: Properties, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(RuntimeProvider(), name, {**props, "path": None, "build_id": None}, opts)


class NodeDir(Resource, module="gridup-local", name="NodeDir"):
    """The node's folder."""

    ports: pulumi.Output[dict[str, Any]]
    fingerprints: pulumi.Output[dict[str, str]]
    restart_tokens: pulumi.Output[dict[str, str]]
    tools: pulumi.Output[dict[str, str]]
    user: pulumi.Output[str]
    names: pulumi.Output[list[str]]
    address: pulumi.Output[str]

    def __init__(self, name: str, props: Properties, opts: pulumi.ResourceOptions | None = None) -> None:
        known = ("ports", "fingerprints", "restart_tokens", "tools", "user", "names", "address")
        super().__init__(NodeDirProvider(), name, {**props, **dict.fromkeys(known)}, opts)


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
    laid = NodeDir(
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
            "build_id": environment.build_id,
            "fingerprints": laid.fingerprints,
            "restart_tokens": laid.restart_tokens,
            "https": spec.scheme == HTTPS,
            # New secrets come with a new CA: the changed input makes Services read it again.
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
        return replace(made, facts={**made.facts, BUILT: runtime.built(values["build_id"])})

    return pulumi.Output.all(
        bin=bin_folder,
        build_id=environment.build_id,
        ports=laid.ports,
        tools=laid.tools,
        user=laid.user,
        names=laid.names,
        address=laid.address,
        ca=running.ca,
        running=running.id,
    ).apply(outputs)
