"""The resources of a node on a machine, whichever cloud made that: ManagementKey, Host, Node.

Host is there as soon as the machine has become a container host; it is another one when the machine
is. Node is the bundle on it, and is changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import pulumi

from gridup_infra.outputs import MANAGEMENT_KEY
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.dynamic import (
    SHAPE,
    OwnedResource,
    Properties,
    shape,
)
from gridup_infra.vm import node as machine_node
from gridup_infra.vm.acme import AcmeConfig
from gridup_infra.vm.node import HOST_RESOURCE, MODULE
from gridup_infra.vm.plan import plan, version_of
from gridup_infra.vm.providers import ContainerHostProvider, ManagementKeyProvider, NodeProvider


class ManagementKey(OwnedResource, module=MODULE, name="ManagementKey"):
    """The deployer's key pair."""

    provider_class = ManagementKeyProvider

    public_key: pulumi.Output[str]
    private_key: pulumi.Output[str]
    former_key: pulumi.Output[str]

    def __init__(self, name: str, props: Properties, opts: pulumi.ResourceOptions | None = None) -> None:
        secret = pulumi.ResourceOptions(additional_secret_outputs=["private_key"])
        super().__init__(name, props, pulumi.ResourceOptions.merge(opts, secret))


class ContainerHost(OwnedResource, module=MODULE, name="ContainerHost"):
    """A machine that has become a container host."""

    provider_class = ContainerHostProvider

    host_key: pulumi.Output[str]


class Node(OwnedResource, module=MODULE, name="Node"):
    """The node on it."""

    provider_class = NodeProvider

    ca: pulumi.Output[str]
    release: pulumi.Output[str]
    built: pulumi.Output[str]


def declare(
    spec: DeploySpec,
    key: ManagementKey,
    machine: pulumi.Output[str],
    address: pulumi.Output[str],
    after: Sequence[pulumi.Resource],
    identity: pulumi.Output[str],
    console: Mapping[str, pulumi.Input[str]] | None = None,
    dns_name: pulumi.Input[str] = "",
) -> pulumi.Output[dict[str, str]]:
    """Declare what makes a machine a node, and export the key that it is entered with.

    Args:
        machine: an id that is another for another machine, whatever its address.
        address: its IP address.
        after: what must be there before it can be entered: the machine, its network, its data disk.
        identity: the engine's id of it, which a preview knows unless there will be another machine.
        console: what its cloud finds the machine by to tell what it printed; None where it can't.
        dns_name: that the cloud gave to the address; empty where it gave none.

    Returns:
        `host_key`, `ca`, `release` and `built`, for `node.node_outputs`; nothing with `--no-node`.
    """
    private = exported(key)
    if spec.no_node:
        return pulumi.Output.from_input({})
    common = {
        "stack": spec.stack,
        "stack_id": spec.stack_id,
        "name": spec.name,
        "machine": machine,
        "address": address,
        "private_key": private,
    }
    # Only where there is one: those that are deployed have no such input.
    asked = {"asked_key": spec.host_key} if spec.host_key else {}
    shown = {"console": {"target": spec.target, **console}} if console else {}
    told = {**common, SHAPE: identity, **asked, **shown}
    host = ContainerHost(HOST_RESOURCE, told, pulumi.ResourceOptions(depends_on=[key, *after]))
    return declare_node(spec, common, key, host.host_key, [host, *after], identity, dns_name=dns_name)


def exported(key: ManagementKey) -> pulumi.Output[str]:
    """The private half, which the stack exports as a secret."""
    private: pulumi.Output[str] = pulumi.Output.secret(cast("Any", key.private_key))
    pulumi.export(MANAGEMENT_KEY, private)
    return private


def declare_node(
    spec: DeploySpec,
    common: Properties,
    key: ManagementKey,
    host_key: pulumi.Output[str],
    after: Sequence[pulumi.Resource],
    identity: pulumi.Output[str] | str = "",
    *,
    shared: bool = False,
    dns_name: pulumi.Input[str] = "",
) -> pulumi.Output[dict[str, str]]:
    """Declare the node on a machine that is a container host.

    Args:
        common: `stack`, `stack_id`, `name`, `machine`, `address`, `private_key`; of a machine that the person
            has named `host`, see `ssh.SshEndpoint`, and its `port`.
        identity: see `declare`.
        shared: see `release.Plan`.
        dns_name: as `declare` takes it.

    Returns:
        As `declare`.
    """
    acme = AcmeConfig.from_env()
    planned = pulumi.Output.all(common["address"], key.public_key, key.former_key, dns_name).apply(
        partial(_plan, spec, acme, shared=shared)
    )
    named = pulumi.Output.from_input(dns_name).apply(lambda name: machine_node.named(spec, name).domain_name)
    node = Node(
        "node",
        {
            **common,
            "host_key": host_key,
            "plan": planned,
            SHAPE: pulumi.Output.all(identity, plan(spec, "", "", acme, shared=shared)).apply(shape),
            "version": version_of(spec),
            "trusted": named.apply(lambda name: acme.ca if name else ""),
            # Only where there are some: those that are deployed have no such input.
            **({"packages": spec.packages_lock} if spec.packages_lock else {}),
        },
        pulumi.ResourceOptions(depends_on=list(after)),
    )
    found = pulumi.Output.all(host_key=host_key, ca=node.ca, release=node.release, built=node.built)
    return found.apply(_texts)


def _plan(spec: DeploySpec, acme: AcmeConfig, known: Sequence[str], *, shared: bool) -> dict[str, Any]:
    address, public_key, former, dns_name = known
    kept = former if spec.rotating else ""
    return plan(
        machine_node.named(spec, dns_name), address, public_key, acme, shared=shared, former_key=kept or ""
    )


def turned(spec: DeploySpec) -> Properties:
    """The input of a `ManagementKey` that makes another pair of it; none before the first time."""
    return {"rotated": spec.rotated} if spec.rotated else {}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value or "") for name, value in values.items()}
