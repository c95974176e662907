"""The resources of a node on a machine, on every cloud: ManagementKey, ContainerHost, Node.

ContainerHost is created when the machine has become a container host, and is replaced when the machine is.
Node is the release on the machine, and is updated in place.
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
    """The management key: the stack's ssh key pair, with which the deployer enters the machine."""

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
    """The node on a container host."""

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
    """Declare the container host and the node on a machine, and export the management key.

    Args:
        machine: the machine's id; a new machine has a new id, whatever its address.
        address: the machine's IP address.
        after: resources that must exist before a login: the machine, its network, its data disk.
        identity: the engine's id of the machine; a preview knows it unless the machine will be replaced.
        console: the facts by which the cloud finds the machine to return its console; None if it can't.
        dns_name: the name that the cloud gave to the address; empty if it gave none.

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
    # Leave the input out if there is no host key: deployed nodes without it must see no change.
    asked = {"asked_key": spec.host_key} if spec.host_key else {}
    shown = {"console": {"target": spec.target, **console}} if console else {}
    told = {**common, SHAPE: identity, **asked, **shown}
    host = ContainerHost(HOST_RESOURCE, told, pulumi.ResourceOptions(depends_on=[key, *after]))
    return declare_node(spec, common, key, host.host_key, [host, *after], identity, dns_name=dns_name)


def exported(key: ManagementKey) -> pulumi.Output[str]:
    """Export the private half of the management key as a secret of the stack, and return it."""
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
        common: the inputs `stack`, `stack_id`, `name`, `machine`, `address`, `private_key`. For a machine
            that the user named, also `host`, see `ssh.SshEndpoint`, and `port`.
        host_key: the machine's pinned host key.
        after: resources that must exist before a login.
        identity: see `declare`.
        shared: see `release.Plan`.
        dns_name: see `declare`.

    Returns:
        The same as `declare`.
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
            # Leave the input out if there are no packages: deployed nodes without it must see no change.
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
    """Return the input that makes `ManagementKey` create a new pair; {} before the first rotation."""
    return {"rotated": spec.rotated} if spec.rotated else {}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value or "") for name, value in values.items()}
