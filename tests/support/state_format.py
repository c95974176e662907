"""What a stack's state is made of: the names that Gridup must find again in what an older one has written.

`python -m support.state_format` writes it to tests/gridup_infra/state_format.json: if that is meant.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pulumi
from pulumi.dynamic import Resource, ResourceProvider

from gridup_infra import targets
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from support.declaring import declared

FILE = Path(__file__).parents[1] / "gridup_infra" / "state_format.json"

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHEqQrwX+uyY52PLpPQ4uZA9s1YZ+hqp0f9ra4Tu6M8H gridup"

SUBSCRIPTION = "5ab5c71b-0000-4000-8000-00000000a2e0"

ASKED: dict[str, dict[str, Any]] = {
    "local": {"bind": "127.0.0.1"},
    "docker": {"bind": "127.0.0.1", "host": "unix:///x"},
    "ssh": {"host": "ada@203.0.113.9"},
}
CLOUD: dict[str, Any] = {
    "region": "eu-west-1",
    "size": "large",
    "disk_size": 64,
    "cpu_credits": "standard",
    "allow_cidr": ("203.0.113.7/32",),
    "web_cidr": ("0.0.0.0/0",),
    "host_key": KEY,
    "adopted": "kept",
}
"""What a node's spec has, so that each resource of its target is declared."""

ANSWERS: dict[str, Any] = {
    "public_key": KEY,
    "host_key": KEY,
    "subscription": SUBSCRIPTION,
    "address": "203.0.113.20",
    "ipAddress": "203.0.113.20",
    "port": 22,
    "size": 0,
    "ports": {"proxy": 8080, "api": 18080, "ssh": 2222, "jupyter": 8888},
    "tools": {},
    "vmId": "11111111-2222-3333-4444-555555555555",
    "name": "name",
}
"""What providers answer, where the program reads it."""


class _Engine(pulumi.runtime.Mocks):
    """Answers for every provider, and keeps what was declared.

    Attributes:
        computed: for the names of resources, the outputs that their providers compute.
    """

    def __init__(self) -> None:
        self.types: dict[str, str] = {}
        self.inputs: dict[str, set[str]] = {}
        self.computed: dict[str, set[str]] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.types[args.name] = args.typ
        self.inputs[args.name] = {key for key in args.inputs if not key.startswith("__")}
        keys = {*self.computed.get(args.name, ()), "ipAddress", "vmId", "name"} - set(args.inputs)
        made = {key: ANSWERS.get(key, "x") for key in keys}
        if "ipConfigurations" in args.inputs:
            rows = args.inputs["ipConfigurations"]
            made["ipConfigurations"] = [{**row, "privateIPAddress": "10.53.0.4"} for row in rows]
        return f"/subscriptions/{SUBSCRIPTION}/{args.name}", {**args.inputs, **made}

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        raise AssertionError(args.token)


def of_target(name: str) -> dict[str, Any]:
    """The resources of a target's node by their name: type token, provider's class path, property keys."""
    engine, providers = _Engine(), {}
    begin = Resource.__init__

    def noted(
        self: Resource,
        provider: ResourceProvider,
        name: str,
        props: dict[str, Any],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        kind = type(provider)
        providers[name] = f"{kind.__module__}.{kind.__qualname__}"
        engine.computed[name] = {key for key, value in props.items() if value is None}
        begin(self, provider, name, props, opts)

    spec = DeploySpec("Inst", target=name, stack_id="0123456789abcdef", **ASKED.get(name, CLOUD))
    with patch.object(Resource, "__init__", noted):
        declared(engine, lambda: targets.target(name).build(spec), spec.stack)
    return {
        resource: {
            "type": token,
            **({"provider": providers[resource]} if resource in providers else {}),
            "properties": sorted(engine.inputs[resource] | engine.computed.get(resource, set())),
        }
        for resource, token in sorted(engine.types.items())
    }


def of_stack() -> dict[str, Any]:
    """What each stack has, whatever its target: the keys of its configuration and of its outputs."""
    return {"config": sorted(DeploySpec.config_keys()), "exports": sorted(NodeOutputs.EXPORTS)}


if __name__ == "__main__":
    os.environ["AZURE_SUBSCRIPTION_ID"] = SUBSCRIPTION
    promised = {"stack": of_stack(), "targets": {name: of_target(name) for name in targets.names()}}
    FILE.write_text(json.dumps(promised, indent=2) + "\n")
