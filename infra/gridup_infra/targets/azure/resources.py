"""The Azure target's resources.

Most come from Pulumi's azure-native: group, network, security-group, address, interface, disk, machine.
Subnet and rules are separate resources: inside their parent, a change that Azure itself makes in them (the
etag) would look like a change of the parent.

Owner is one of Gridup's own resources. It is created first and deleted last. Its delete removes everything
that still has the stack's tags, so that an interrupted create leaves nothing behind, not even with plain
`pulumi destroy`. Owner creates nothing in Azure, so its own create leaves nothing when it is interrupted.
The engine creates resources that do not depend on each other in parallel.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import pulumi

from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.azure import client, firewall, naming, providers
from gridup_infra.targets.dynamic import OwnedResource, Properties
from gridup_infra.vm import node as machine_node
from gridup_infra.vm.resources import ManagementKey, declare, turned
from gridup_node.vm.machine import USER

MODULE = "gridup-azure"

TIMEOUT = pulumi.CustomTimeouts(create="30m", update="30m", delete="30m")


class Owner(OwnedResource, module=MODULE, name="Owner"):
    """The owner of the stack in its subscription."""

    provider_class = providers.OwnerProvider

    subscription: pulumi.Output[str]


class UserData(OwnedResource, module=MODULE, name="UserData"):
    """The VM's user-data."""

    provider_class = providers.UserDataProvider

    custom_data: pulumi.Output[str]


class RetainedDisk(OwnedResource, module=MODULE, name="RetainedDisk"):
    """The retained disk of an earlier node of this name."""

    provider_class = providers.RetainedDiskProvider

    source: pulumi.Output[str]
    size: pulumi.Output[int]


class DiskSize(OwnedResource, module=MODULE, name="DiskSize"):
    """The size of a data disk that is a copy."""

    provider_class = providers.DiskSizeProvider


class RetainedDiskCleanup(OwnedResource, module=MODULE, name="RetainedDiskCleanup"):
    """The deletion of a retained disk after it was adopted."""

    provider_class = providers.RetainedDiskCleanupProvider


class ExclusiveRules(OwnedResource, module=MODULE, name="ExclusiveRules"):
    """The absence of security rules that are not Gridup's."""

    provider_class = providers.ExclusiveRulesProvider


class PowerState(OwnedResource, module=MODULE, name="PowerState"):
    """The running state of the VM."""

    provider_class = providers.PowerStateProvider


class _Declared:
    """Options and arguments that the resources of one node share.

    Attributes:
        spec: the node's spec.
        group: the resource group's name, known once the group exists.
    """

    def __init__(self, spec: DeploySpec, owner: Owner, provider: pulumi.ProviderResource) -> None:
        self.spec = spec
        self._options = pulumi.ResourceOptions(provider=provider, depends_on=[owner], custom_timeouts=TIMEOUT)
        self._after: list[pulumi.Resource] = []
        self.group: pulumi.Input[str] = spec.resource_group
        self._container: pulumi.Resource | None = None
        if not spec.resource_group:
            self._own_group()
        # Owner's delete removes all of the stack's resources in the order that Azure needs, leftovers too.
        # A leftover would prevent the engine from deleting the resources that the leftover uses.
        self._container = self._container or owner

    def _own_group(self) -> None:
        from pulumi_azure_native import resources as azure

        spec = self.spec
        made = azure.ResourceGroup(
            "group",
            resource_group_name=naming.group(spec),
            location=spec.region,
            tags=naming.tags(spec, "group"),
            # The group's delete would delete the retained disk too; Owner deletes the other resources.
            opts=self.options(retain_on_delete=spec.keeps or None),
        )
        self.group = made.name
        # Deleting a group deletes all its resources: the engine need not delete them one by one.
        if not spec.keeps:
            self._container = made

    def options(self, **more: Any) -> pulumi.ResourceOptions:
        """Return the options of a resource."""
        own = pulumi.ResourceOptions(deleted_with=self._container, **more)
        return pulumi.ResourceOptions.merge(self._options, own)

    def common(self, name: str) -> dict[str, Any]:
        """Return the arguments that all resources in the group take."""
        return {
            "resource_group_name": self.group,
            "location": self.spec.region,
            "tags": naming.tags(self.spec, name),
        }


def build(spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
    """Declare a node's resources on Azure; the result is its `NodeOutputs`."""
    configured = client.configured_subscription(os.environ)
    owner = Owner(
        "owner",
        {
            **naming.common(spec),
            "target": spec.target,
            "keep_data": spec.keeps,
            **spec.leaves,
            "default_subscription": configured,
        },
    )
    after = pulumi.ResourceOptions(depends_on=[owner])
    made = _Declared(spec, owner, _provider(owner, configured))
    key = ManagementKey("management-key", {**naming.common(spec), **turned(spec)}, after)
    told = UserData(
        "user-data",
        {
            **naming.common(spec),
            "machine_revision": spec.machine_revision,
            "subnet_id": spec.subnet_id,
            "host": key.public_key.apply(partial(_host, spec)),
        },
        after,
    )
    here = {**naming.common(spec), "subscription": owner.subscription}
    interface, address, open_ = _network(made, here)
    kept = RetainedDisk("retained-disk", {**here, **spec.adopts}, after)
    size = kept.size.apply(lambda known: max(int(known or 0), spec.disk_size))
    disk = _disk(made, kept, size)
    sized: list[pulumi.Resource] = [disk]
    # The data disk is then a copy of a retained disk.
    if spec.took_over:
        sized = [DiskSize("disk-size", {**here, "size": size}, pulumi.ResourceOptions(depends_on=[disk]))]
    # Delete the retained disk only after the node has been healthy with the copy.
    over = "" if spec.adopting else kept.source
    RetainedDiskCleanup(
        "retained-disk-cleanup", {**here, "source": over}, pulumi.ResourceOptions(depends_on=[disk])
    )
    machine = _machine(made, key, told, interface, disk)
    running = PowerState(
        "power-state",
        {**here, "vm": naming.machine(spec), "machine": machine.vm_id},
        pulumi.ResourceOptions(depends_on=[machine]),
    )
    reached: pulumi.Output[str] = (
        address.ip_address if address else interface.ip_configurations.apply(_private_address)
    )
    console = {"subscription": owner.subscription, "group": made.group, "vm": naming.machine(spec)}
    dns_name = _dns_name(address)
    needed = [machine, running, interface, *sized, *open_]
    vm = declare(spec, key, machine.vm_id, reached, needed, machine.id, console, dns_name)
    known = pulumi.Output.all(
        vm=vm, address=reached, dns_name=dns_name, subscription=owner.subscription, machine=machine.vm_id
    )
    return known.apply(partial(_outputs, spec))


def _provider(owner: Owner, configured: str) -> pulumi.ProviderResource:
    """Declare azure-native's provider, with the same credentials and subscription that Gridup uses."""
    import pulumi_azure_native as azure

    host = client.endpoint_host()
    how: dict[str, Any] = {}
    if host in client.ENVIRONMENTS:
        how["environment"] = client.ENVIRONMENTS[host]
    else:
        how |= {"metadata_host": client.metadata_host(), "disable_instance_discovery": True}
    made: pulumi.ProviderResource = azure.Provider(
        "azure",
        # Owner refuses a subscription that is not the node's before this provider uses it.
        subscription_id=configured or owner.subscription,
        use_default_azure_credential=None if client.uses_arm_variables() else True,
        opts=pulumi.ResourceOptions(depends_on=[owner]),
        **how,
    )
    return made


def _network(made: _Declared, here: Properties) -> tuple[Any, Any, list[pulumi.Resource]]:
    """Declare and return the network interface, the public address (None with --private), and the rules."""
    from pulumi_azure_native import network as azure

    spec, project = made.spec, naming.project(made.spec)
    group = azure.NetworkSecurityGroup(
        "security-group",
        network_security_group_name=project,
        opts=made.options(),
        **made.common("security-group"),
    )
    subnet = spec.subnet_id or _subnet(made)
    address = None if spec.private else _address(made)
    interface = azure.NetworkInterface(
        "interface",
        network_interface_name=project,
        network_security_group={"id": group.id},
        ip_configurations=[
            azure.NetworkInterfaceIPConfigurationArgs(
                name="node",
                primary=True,
                private_ip_allocation_method="Dynamic",
                # Plain dicts, because the SDK's classes add defaults, which a mere reference must not have.
                subnet={"id": subnet},
                public_ip_address={"id": address.id} if address else None,
            )
        ],
        opts=made.options(),
        **made.common("interface"),
    )
    return interface, address, _rules(made, here, group, interface)


def _subnet(made: _Declared) -> Any:
    """Declare the node's own network, and return the id of its subnet."""
    from pulumi_azure_native import network as azure

    network = azure.VirtualNetwork(
        "network",
        virtual_network_name=naming.project(made.spec),
        address_space=azure.AddressSpaceArgs(address_prefixes=[naming.NETWORK]),
        opts=made.options(),
        **made.common("network"),
    )
    subnet = azure.Subnet(
        naming.SUBNET_RESOURCE,
        resource_group_name=made.group,
        virtual_network_name=network.name,
        subnet_name=naming.SUBNET_NAME,
        address_prefix=naming.SUBNET,
        opts=made.options(),
    )
    return subnet.id


def _rules(made: _Declared, here: Properties, group: Any, interface: Any) -> list[pulumi.Resource]:
    from pulumi_azure_native import network as azure

    spec = made.spec
    wanted = firewall.rules(spec.allow_cidr, spec.web_cidr, shared=bool(spec.subnet_id))
    # Create the rules one by one, and after the interface that uses the group. A security group accepts one
    # change at a time, and no resource can begin to use it during a change. The VM is created in parallel.
    chain: list[pulumi.Resource] = [interface]
    for rule in wanted:
        declared = azure.SecurityRule(
            naming.RULE_RESOURCE + rule.name,
            resource_group_name=made.group,
            network_security_group_name=group.name,
            security_rule_name=rule.name,
            priority=rule.priority,
            direction="Inbound",
            access="Allow" if rule.allow else "Deny",
            protocol="Tcp" if rule.ports else "*",
            # Azure accepts a service tag only in the singular argument.
            source_address_prefixes=list(rule.who) if rule.allow else None,
            source_address_prefix=None if rule.allow else rule.who[0],
            source_port_range="*",
            destination_address_prefix="*",
            destination_port_ranges=[str(port) for port in rule.ports] or None,
            destination_port_range=None if rule.ports else "*",
            opts=made.options(depends_on=chain[-1:]),
        )
        chain.append(declared)
    names = [rule.name for rule in wanted]
    alone = ExclusiveRules(
        "exclusive-rules", {**here, "rules": names}, pulumi.ResourceOptions(depends_on=chain[1:])
    )
    return [*chain[1:], alone]


def _address(made: _Declared) -> Any:
    from pulumi_azure_native import network as azure

    project = naming.project(made.spec)
    return azure.PublicIPAddress(
        "address",
        public_ip_address_name=project,
        # Basic addresses are retired, and Standard addresses are always static.
        sku=azure.PublicIPAddressSkuArgs(name="Standard", tier="Regional"),
        public_ip_allocation_method="Static",
        public_ip_address_version="IPv4",
        dns_settings=azure.PublicIPAddressDnsSettingsArgs(domain_name_label=project),
        opts=made.options(),
        **made.common("address"),
    )


def _dns_name(address: Any) -> pulumi.Input[str]:
    if address is None:
        return ""
    # Wait for ip_address, which is unknown until the address exists: before, dns_settings holds only inputs.
    made: pulumi.Output[str] = pulumi.Output.all(address.ip_address, address.dns_settings).apply(
        lambda told: naming.dns_name(told[1])
    )
    return made


def _disk(made: _Declared, kept: RetainedDisk, size: pulumi.Output[int]) -> Any:
    from pulumi_azure_native import compute as azure

    return azure.Disk(
        "disk",
        disk_name=naming.data_disk(made.spec),
        disk_size_gb=size,
        sku=azure.DiskSkuArgs(name=naming.DISK_SKU),
        creation_data=kept.source.apply(_creation),
        network_access_policy=naming.DISK_ACCESS["networkAccessPolicy"],
        public_network_access=naming.DISK_ACCESS["publicNetworkAccess"],
        opts=made.options(
            retain_on_delete=made.spec.keeps or None,
            # Never send a copy's properties again: see `DiskSizeProvider`.
            ignore_changes=["*"] if made.spec.took_over else None,
        ),
        **made.common("disk"),
    )


def _machine(made: _Declared, key: ManagementKey, told: UserData, interface: Any, disk: Any) -> Any:
    from pulumi_azure_native import compute as azure

    spec = made.spec
    return azure.VirtualMachine(
        "machine",
        vm_name=naming.machine(spec),
        hardware_profile=azure.HardwareProfileArgs(vm_size=spec.size),
        security_profile=azure.SecurityProfileArgs(
            security_type="TrustedLaunch",
            uefi_settings=azure.UefiSettingsArgs(secure_boot_enabled=True, v_tpm_enabled=True),
        ),
        os_profile=azure.OSProfileArgs(
            admin_username=USER,
            computer_name=naming.project(spec),
            custom_data=told.custom_data,
            linux_configuration=azure.LinuxConfigurationArgs(
                disable_password_authentication=True,
                ssh=azure.SshConfigurationArgs(
                    public_keys=[
                        azure.SshPublicKeyArgs(
                            path=f"/home/{USER}/.ssh/authorized_keys", key_data=key.public_key
                        )
                    ]
                ),
            ),
        ),
        storage_profile=azure.StorageProfileArgs(
            image_reference=azure.ImageReferenceArgs(**naming.IMAGE),
            os_disk=azure.OSDiskArgs(
                name=naming.root_disk(spec),
                create_option="FromImage",
                delete_option="Delete",
                disk_size_gb=naming.ROOT_GB,
                managed_disk=azure.ManagedDiskParametersArgs(storage_account_type=naming.DISK_SKU),
            ),
            data_disks=[
                azure.DataDiskArgs(
                    lun=naming.LUN,
                    create_option="Attach",
                    delete_option="Detach",
                    managed_disk=azure.ManagedDiskParametersArgs(id=disk.id),
                )
            ],
        ),
        network_profile=azure.NetworkProfileArgs(
            network_interfaces=[
                azure.NetworkInterfaceReferenceArgs(id=interface.id, primary=True, delete_option="Detach")
            ]
        ),
        # Without the URI of a storage account, Azure uses one of its own.
        diagnostics_profile=azure.DiagnosticsProfileArgs(
            boot_diagnostics=azure.BootDiagnosticsArgs(enabled=True)
        ),
        # Disk and interface can be attached to only one VM at a time.
        opts=made.options(delete_before_replace=True),
        **made.common("machine"),
    )


def _creation(source: str | None) -> dict[str, str]:
    return {"createOption": "Copy", "sourceResourceId": source} if source else {"createOption": "Empty"}


def _host(spec: DeploySpec, public_key: str) -> dict[str, Any]:
    return asdict(machine_node.host(spec, public_key, naming.DISK_PATHS))


def _private_address(rows: Any) -> str:
    return str(rows[0].private_ip_address or "") if rows else ""


def _outputs(spec: DeploySpec, known: Mapping[str, Any]) -> NodeOutputs:
    facts = naming.facts(spec, known)
    return machine_node.node_outputs(spec, known["address"], known["vm"], facts, dns_name=known["dns_name"])
