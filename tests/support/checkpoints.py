"""Checkpoints in the form of Pulumi's file backend, made by hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import PROJECT, DeploySpec
from gridup_node.services import ports

RESOURCES = ("owner", "runtime", "node", "services")
"""What a local node consists of, in the order of its making."""


PORTS = {key: number for number, key in enumerate(ports(), 1)}
"""A port for each service at which nothing listens, whatever else runs on this machine."""


def outputs_for(spec: DeploySpec, folder: Path | None = None) -> NodeOutputs:
    """A node as the target `local` would export it."""
    where = folder or Path("/nowhere/nodes") / spec.stack
    return NodeOutputs(
        spec=spec,
        address="127.0.0.1",
        ports={**PORTS, "proxy": spec.port or PORTS["proxy"]},
        ssh_user="ada",
        facts={"folder": str(where), "bin": "/nowhere/runtime/bin", "bundle": "b1"},
    )


def urn(stack: str, kind: str, name: str) -> str:
    return f"urn:pulumi:{stack}::{PROJECT}::{kind}::{name}"


def deployment(
    spec: DeploySpec,
    resources: Sequence[str] = RESOURCES,
    *,
    outputs: Mapping[str, Any] | None = None,
    pending: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """What a checkpoint holds: the stack, a provider of its own kind, the resources, what was interrupted."""
    stack = spec.stack
    root = urn(stack, "pulumi:pulumi:Stack", f"{PROJECT}-{stack}")
    owner = {"stack_id": spec.stack_id, "name": spec.name, "target": spec.target, "keep_data": spec.keep_data}
    made: list[dict[str, Any]] = [
        {"urn": root, "custom": False, "type": "pulumi:pulumi:Stack", "outputs": dict(outputs or {})},
        {
            "urn": urn(stack, "pulumi:providers:pulumi-python", "default"),
            "custom": True,
            "id": "p",
            "type": "pulumi:providers:pulumi-python",
        },
    ]
    kind = "pulumi-python:gridup-local:Thing"
    for name in resources:
        inputs = {**owner, "__provider": "gASV"} if name == "owner" else {"__provider": "gASV"}
        made.append(
            {
                "urn": urn(stack, kind, name),
                "custom": True,
                "id": name,
                "type": kind,
                "inputs": inputs,
                "parent": root,
            }
        )
    return {
        "manifest": {"time": "2026-01-01T00:00:00Z", "magic": "m", "version": "v3"},
        "secrets_providers": {"type": "passphrase", "state": {"salt": "v1:x"}},
        "resources": made,
        "pending_operations": [
            {"type": operation, "resource": {"urn": urn(stack, kind, name), "type": kind}}
            for operation, name in pending
        ],
    }


def checkpoint_path(root: Path, stack: str) -> Path:
    return root / ".pulumi" / "stacks" / PROJECT / f"{stack}.json"


def write_checkpoint(
    root: Path, stack: str, latest: Mapping[str, Any] | None, *, zipped: bool = False
) -> Path:
    """Lay a stack's checkpoint into the state's folder; `latest` None is a stack that never had an update."""
    checkpoint: dict[str, Any] = {"stack": f"organization/{PROJECT}/{stack}"}
    if latest is not None:
        checkpoint["latest"] = latest
    text = json.dumps({"version": 3, "checkpoint": checkpoint}).encode()
    path = checkpoint_path(root, stack)
    path.parent.mkdir(parents=True, exist_ok=True)
    if zipped:
        path = path.with_name(f"{path.name}.gz")
        text = gzip.compress(text)
    path.write_bytes(text)
    return path
