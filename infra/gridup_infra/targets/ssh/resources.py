"""The ssh target's resources: ManagementKey, Owner, ContainerHost, and the node on it.

Owner pins the machine's host key and creates nothing. It is deleted last. Its delete deletes everything with
the stack's ownership mark on the machine, so that an interrupted create leaves nothing behind. ContainerHost
makes the machine a container host.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import pulumi

from gridup_infra.outputs import BEHIND, NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.dynamic import (
    OwnedResource,
)
from gridup_infra.targets.ssh import machine_agent
from gridup_infra.targets.ssh.providers import ContainerHostProvider, OwnerProvider
from gridup_infra.vm import node as machine_node
from gridup_infra.vm.keys import let_in_from
from gridup_infra.vm.resources import ManagementKey, declare_node, exported, turned

MODULE = "gridup-ssh"


class Owner(OwnedResource, module=MODULE, name="Owner"):
    """The stack's owner: the machine's address and pinned host key."""

    provider_class = OwnerProvider

    address: pulumi.Output[str]
    port: pulumi.Output[int]
    host_key: pulumi.Output[str]
    behind: pulumi.Output[str | None]


class ContainerHost(OwnedResource, module=MODULE, name="ContainerHost"):
    """The machine as a container host."""

    provider_class = ContainerHostProvider

    machine: pulumi.Output[str]


def build(spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
    """Declare a node's resources on an existing machine; return its `NodeOutputs`."""
    marks = {"stack": spec.stack, "stack_id": spec.stack_id, "name": spec.name}
    key = ManagementKey("management-key", {**marks, "target": spec.target, "host": spec.host, **turned(spec)})
    private = exported(key)
    owner = Owner(
        "owner",
        {
            **marks,
            "target": spec.target,
            "host": spec.host,
            "asked_key": spec.host_key,
            "keep_data": spec.keeps,
            **spec.leaves,
            "private_key": private,
        },
        pulumi.ResourceOptions(depends_on=[key]),
    )
    reached = {"address": owner.address, "port": owner.port, "private_key": private}
    asked = machine_agent.told(spec)
    machine = ContainerHost(
        "container-host",
        {
            **marks,
            **reached,
            "host": spec.host,
            "host_key": owner.host_key,
            "public_key": key.public_key.apply(partial(let_in_from, spec.key_from)),
            "ports": list(asked.ports),
            "build": asked.build,
            # Present only if they are set: stacks of earlier versions do not have these inputs.
            **({"key_from": list(spec.key_from)} if spec.key_from else {}),
            **({**spec.adopts, "adopting": spec.adopting} if spec.adopts else {}),
        },
        pulumi.ResourceOptions(depends_on=[owner]),
    )
    vm: pulumi.Output[dict[str, str]] = pulumi.Output.from_input({})
    if not spec.no_node:
        common = {**marks, **reached, "machine": machine.machine, "host": spec.host}
        vm = declare_node(spec, common, key, owner.host_key, [machine], shared=True)
    known = pulumi.Output.all(
        vm=vm,
        address=owner.address,
        port=owner.port,
        host_key=owner.host_key,
        behind=owner.behind,
        machine=machine.machine,
    )
    return known.apply(partial(_outputs, spec))


def _outputs(spec: DeploySpec, known: Mapping[str, Any]) -> NodeOutputs:
    vm = {**known["vm"], "host_key": known["host_key"]}
    facts = {machine_node.HOST: spec.host, machine_node.MACHINE: known["machine"]}
    if behind := known["behind"]:
        facts[BEHIND] = behind
    return machine_node.node_outputs(spec, cast("str", known["address"]), vm, facts, int(known["port"]))
