"""What a node on Azure consists of, as the SDK is asked for it: no cloud, no engine."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pulumi
import pytest

from gridup_infra.errors import PreflightError, ResourceError, UsageError
from gridup_infra.naming import NAME_MAX
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import NEW_DATA, DeploySpec
from gridup_infra.targets.azure import AzureTarget, client, firewall, naming, preflight, resources
from gridup_infra.vm.node import MACHINE
from gridup_node import services
from gridup_node.services import Audience, ProbeKind, Service, firewall_ports
from gridup_node.vm.user_data import HEADER
from support.declaring import declared

SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
SUBNET_ID = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/theirs/providers/Microsoft.Network/virtualNetworks/lab"
    "/subnets/machines"
)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHEqQrwX+uyY52PLpPQ4uZA9s1YZ+hqp0f9ra4Tu6M8H gridup"


def spec(name: str = "Inst", previous: DeploySpec | None = None, **how: Any) -> DeploySpec:
    asked = {"allow_cidr": ("203.0.113.7/32",), "no_node": True, "region": "West Europe", **how}
    made = DeploySpec(name, target="azure", stack_id="0123456789abcdef", **asked)
    return AzureTarget().resolve(made, previous)


class Declared(pulumi.runtime.Mocks):
    """What the program declares, and what Azure would have made of it."""

    source = ""
    dns_name: str | None = "Gridup-Inst-01234567.westeurope.cloudapp.stack.example."

    def __init__(self) -> None:
        self.inputs: dict[str, dict[str, Any]] = {}
        self.types: dict[str, str] = {}
        self.providers: dict[str, str] = {}

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], None]:
        raise AssertionError(args.token)

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        assert args.name not in self.inputs
        self.inputs[args.name], self.types[args.name] = args.inputs, args.typ
        self.providers[args.name] = args.provider
        made: dict[str, dict[str, Any]] = {
            "owner": {"subscription": SUBSCRIPTION},
            "management-key": {"public_key": KEY, "private_key": "s3cret"},
            "address": {
                "ipAddress": "203.0.113.20",
                "dnsSettings": {**args.inputs.get("dnsSettings", {}), "fqdn": self.dns_name},
            },
            "machine": {"vmId": "11111111-2222-3333-4444-555555555555"},
            "interface": {
                "ipConfigurations": [
                    {**row, "privateIPAddress": "10.53.0.4"}
                    for row in args.inputs.get("ipConfigurations", ())
                ]
            },
            "retained-disk": {"source": self.source, "size": 128 if self.source else 0},
            "group": {"name": args.inputs.get("resourceGroupName")},
            "network": {"name": args.inputs.get("virtualNetworkName")},
            "security-group": {"name": args.inputs.get("networkSecurityGroupName")},
        }
        if args.name == "user-data":
            from gridup_infra.targets.azure.providers import UserDataProvider

            made["user-data"] = UserDataProvider().create(args.inputs).outs
        where = f"/subscriptions/{SUBSCRIPTION}/{args.name}"
        return where, {**args.inputs, **made.get(args.name, {})}

    @property
    def azure(self) -> dict[str, dict[str, Any]]:
        """Azure's own resources, by name."""
        return {
            name: self.inputs[name] for name, kind in self.types.items() if kind.startswith("azure-native:")
        }


Declare = Callable[[DeploySpec], tuple[Declared, NodeOutputs]]


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Declare:
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", SUBSCRIPTION)

    def run(wanted: DeploySpec) -> tuple[Declared, NodeOutputs]:
        mocks = Declared()
        return mocks, declared(mocks, lambda: resources.build(wanted), wanted.stack)

    return run


def test_one_of_each_and_all_of_it_in_a_group_of_its_own(declare: Declare) -> None:
    made, outputs = declare(spec())
    assert {
        name: kind.removeprefix("azure-native:") for name, kind in made.types.items() if name in made.azure
    } == {
        **naming.TYPES,
        "subnet": "network:Subnet",
        "rule-web": "network:SecurityRule",
        "rule-staff": "network:SecurityRule",
    }
    group = made.azure["group"]["resourceGroupName"]
    assert group == "gridup-inst-01234567"
    for name, inputs in made.azure.items():
        assert inputs["resourceGroupName"] == group
        if name not in naming.TYPES:
            assert inputs.keys().isdisjoint({"location", "tags"})
            continue
        assert inputs["location"] == "westeurope"
        assert inputs["tags"] == {
            "gridup:stack-id": "0123456789abcdef",
            "gridup:urn": f"urn:pulumi:inst::gridup::{made.types[name]}::{name}",
            "gridup:stack": "inst",
            "gridup:name": "Inst",
        }
    assert outputs.facts["ip"] == "203.0.113.20"
    assert outputs.facts[MACHINE] == "11111111-2222-3333-4444-555555555555"


def test_the_provider_is_pulumis_own_with_our_subscription_and_credentials(
    declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = declare(spec())
    told = made.inputs["azure"]
    assert made.types["azure"] == "pulumi:providers:azure-native"
    assert (told["subscriptionId"], told["useDefaultAzureCredential"], told["environment"]) == (
        SUBSCRIPTION,
        "true",
        "public",
    )
    assert all("azure::" in made.providers[name] for name in made.azure)
    assert not any("secret" in key.lower() or "metadata" in key.lower() for key in told)
    monkeypatch.setenv(client.ENDPOINT, "https://management.local.azurestack.external")
    made, _ = declare(spec())
    told = made.inputs["azure"]
    assert (told["metadataHost"], told["disableInstanceDiscovery"]) == (
        "management.local.azurestack.external",
        "true",
    )
    monkeypatch.setenv(client.ENDPOINT, "https://management.local.azurestack.external:30024/")
    made, _ = declare(spec())
    assert made.inputs["azure"]["metadataHost"] == "management.local.azurestack.external:30024"
    monkeypatch.setenv(client.ENDPOINT, "https://management.usgovcloudapi.net")
    made, _ = declare(spec())
    assert made.inputs["azure"]["environment"] == "usgovernment"
    assert "metadataHost" not in made.inputs["azure"]


def test_the_address_is_standard_and_static_and_there_at_the_first_deploy(declare: Declare) -> None:
    """Cases G18 and G19."""
    made, outputs = declare(spec())
    address = made.azure["address"]
    assert address["sku"] == {"name": "Standard", "tier": "Regional"}
    assert address["publicIPAllocationMethod"] == "Static"
    assert address["dnsSettings"] == {"domainNameLabel": "gridup-inst-01234567"}
    assert not re.search(r"None|null", str(outputs.exports()["urls"]))


def test_a_private_node_has_no_address_and_no_name_in_dns(declare: Declare) -> None:
    made, outputs = declare(spec(private=True, subnet_id=SUBNET_ID))
    assert not {"address", "network", "subnet"} & set(made.azure)
    [row] = made.azure["interface"]["ipConfigurations"]
    assert row["subnet"] == {"id": SUBNET_ID}
    assert not row.get("publicIPAddress")
    assert outputs.address == "10.53.0.4"


def rows(made: Declared) -> list[dict[str, Any]]:
    return [inputs for name, inputs in made.azure.items() if name.startswith("rule-")]


def test_the_rules_come_from_the_table_and_each_has_its_own_priority(declare: Declare) -> None:
    """Case G19."""
    made, _ = declare(spec(allow_cidr=("203.0.113.7/32", "10.0.0.0/8", "2001:db8::/32")))
    assert [(row["destinationPortRanges"], row["sourceAddressPrefixes"]) for row in rows(made)] == [
        (["80", "443"], ["0.0.0.0/0"]),
        (["22", "8888"], ["10.0.0.0/8", "203.0.113.7/32"]),
        (["22", "8888"], ["2001:db8::/32"]),
    ]
    priorities = [row["priority"] for row in rows(made)]
    assert len(set(priorities)) == len(priorities)
    assert all(100 <= priority <= 4096 for priority in priorities)
    assert {(row["direction"], row["access"], row["protocol"]) for row in rows(made)} == {
        ("Inbound", "Allow", "Tcp")
    }


def test_an_extra_port_is_in_the_rule_of_whoever_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case G19."""
    metrics = Service(
        name="metrics",
        title="metrics",
        port=9100,
        vm_port=9100,
        audience=Audience.STAFF,
        proof=ProbeKind.ANY,
    )
    table = (*services.SERVICES, metrics)
    monkeypatch.setattr(firewall, "firewall_ports", lambda: firewall_ports(table))
    made = firewall.rules(["10.0.0.0/8"], [], shared=False)
    assert [rule.ports for rule in made] == [(80, 443), (22, 8888, 9100)]
    assert len({rule.priority for rule in made}) == 2


def test_another_cidr_is_a_change_of_the_same_rules() -> None:
    before, after = (
        firewall.rules(["10.0.0.0/8"], [], shared=False),
        firewall.rules(["10.9.0.0/16"], ["10.0.0.0/8"], shared=False),
    )
    assert [(rule.name, rule.priority) for rule in before] == [(rule.name, rule.priority) for rule in after]
    assert firewall.rules([], ["10.0.0.0/8"], shared=False) == [
        rule for rule in after if rule.name.startswith("web")
    ]


def test_in_a_network_that_is_shared_a_last_rule_keeps_its_other_machines_out(declare: Declare) -> None:
    made, _ = declare(spec(subnet_id=SUBNET_ID))
    rules = {name: row for name, row in made.azure.items() if name.startswith("rule-")}
    last = rules["rule-neighbours"]
    assert {
        key: last[key] for key in ("access", "protocol", "sourceAddressPrefix", "destinationPortRange")
    } == {
        "access": "Deny",
        "protocol": "*",
        "sourceAddressPrefix": "VirtualNetwork",
        "destinationPortRange": "*",
    }
    # After all that let somebody in, and before Azure's own, of which the first is 65000.
    assert max(rules, key=lambda name: rules[name]["priority"]) == "rule-neighbours"
    assert last["priority"] <= 4096
    own, _ = declare(spec())
    assert "rule-neighbours" not in own.azure


def test_a_last_rule_that_is_gone_is_told() -> None:
    def group(**changes: str) -> dict[str, Any]:
        rule = {
            "access": "Deny",
            "direction": "Inbound",
            "protocol": "*",
            "destinationPortRange": "*",
            "sourceAddressPrefix": "VirtualNetwork",
            **changes,
        }
        return {"properties": {"securityRules": [{"name": "neighbours", "properties": rule}]}}

    wanted = firewall.rules([], ["0.0.0.0/0"], shared=True)[-1:]
    assert firewall.drift(group(), wanted) == []
    for changed in (group(access="Allow"), group(destinationPortRange="22"), {"properties": {}}):
        assert "keeps the rest of the virtual network out is gone" in firewall.drift(changed, wanted)[-1]
    assert firewall.unmanaged_rules(group(), [rule.name for rule in wanted]) == []


def test_the_machine_is_entered_by_key_alone_and_boots_what_is_signed(declare: Declare) -> None:
    made, _ = declare(spec())
    machine = made.azure["machine"]
    assert machine["securityProfile"] == {
        "securityType": "TrustedLaunch",
        "uefiSettings": {"secureBootEnabled": True, "vTpmEnabled": True},
    }
    os = machine["osProfile"]
    assert os["adminUsername"] == "gridup"
    assert "adminPassword" not in os
    assert os["linuxConfiguration"] == {
        "disablePasswordAuthentication": True,
        "ssh": {"publicKeys": [{"path": "/home/gridup/.ssh/authorized_keys", "keyData": KEY}]},
    }
    assert machine["storageProfile"]["imageReference"] == {
        "publisher": "debian",
        "offer": "debian-13",
        "sku": "13-gen2",
        "version": "latest",
    }
    assert machine["diagnosticsProfile"] == {"bootDiagnostics": {"enabled": True}}
    assert base64.b64decode(os["customData"]).startswith(HEADER.encode())


def test_the_root_disk_goes_with_the_machine_and_the_data_disk_does_not(declare: Declare) -> None:
    """Case G20."""
    made, _ = declare(spec())
    disks = made.azure["machine"]["storageProfile"]
    assert (disks["osDisk"]["deleteOption"], disks["osDisk"]["name"]) == (
        "Delete",
        "gridup-inst-01234567-root",
    )
    [data] = disks["dataDisks"]
    assert (data["createOption"], data["deleteOption"], data["lun"]) == ("Attach", "Detach", 0)
    assert data["managedDisk"] == {"id": f"/subscriptions/{SUBSCRIPTION}/disk"}
    assert made.azure["disk"]["diskSizeGB"] == 64
    # Interface and address are resources of the stack's own.
    assert made.azure["machine"]["networkProfile"]["networkInterfaces"] == [
        {"id": f"/subscriptions/{SUBSCRIPTION}/interface", "primary": True, "deleteOption": "Detach"}
    ]


def test_a_disk_that_was_kept_is_taken_over_in_its_size(
    declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = declare(spec())
    assert made.azure["disk"]["creationData"] == {"createOption": "Empty"}
    monkeypatch.setattr(Declared, "source", "/subscriptions/s/disks/kept")
    made, _ = declare(spec())
    assert made.azure["disk"]["creationData"] == {
        "createOption": "Copy",
        "sourceResourceId": "/subscriptions/s/disks/kept",
    }
    assert made.azure["disk"]["diskSizeGB"] == 128
    assert made.inputs["retained-disk-cleanup"]["source"] == "/subscriptions/s/disks/kept"


@pytest.mark.parametrize(("adopted", "copied"), [("", False), (NEW_DATA, False), ("/disks/kept", True)])
def test_only_a_disk_that_is_a_copy_is_grown_apart(declare: Declare, adopted: str, copied: bool) -> None:
    made, _ = declare(spec(adopted=adopted, disk_size=200))
    assert ("disk-size" in made.inputs) is copied
    if copied:
        assert made.inputs["disk-size"]["size"] == made.azure["disk"]["diskSizeGB"] == 200


def test_a_group_that_was_there_is_not_among_what_is_made(declare: Declare) -> None:
    """Case G23."""
    made, outputs = declare(spec(resource_group="existing"))
    assert "group" not in made.azure
    assert {inputs["resourceGroupName"] for inputs in made.azure.values()} == {"existing"}
    assert outputs.facts["group"] == outputs.facts["resource_group"] == "existing"


def test_no_secret_is_in_what_azure_is_told(declare: Declare) -> None:
    """Case G12."""
    made, _ = declare(spec())
    assert "s3cret" not in str(made.azure)
    assert "s3cret" not in str(made.inputs["user-data"])


def test_another_machine_has_another_name_and_is_told_anew(declare: Declare) -> None:
    first, _ = declare(spec())
    second, _ = declare(spec(machine_revision=1))
    names = [made.azure["machine"]["vmName"] for made in (first, second)]
    assert names == ["gridup-inst-01234567", "gridup-inst-01234567-1"]
    assert (
        first.azure["interface"]["networkInterfaceName"] == second.azure["interface"]["networkInterfaceName"]
    )


NAMES = ["Inst", "My Lab_2", "2nd node", "Универ", "windows login", "Microsoft Azure", "x" * NAME_MAX, "7"]
RULES = {
    "resourceGroupName": r"[-\w.()]{1,89}[-\w()]",
    "virtualNetworkName": r"[a-zA-Z0-9][\w.-]{0,62}\w",
    "networkSecurityGroupName": r"[a-zA-Z0-9][\w.-]{0,78}\w",
    "publicIpAddressName": r"[a-zA-Z0-9][\w.-]{0,78}\w",
    "networkInterfaceName": r"[a-zA-Z0-9][\w.-]{0,78}\w",
    "diskName": r"[\w-]{1,80}",
    "vmName": r"(?!\d+$)[a-zA-Z0-9][a-zA-Z0-9-]{0,62}[a-zA-Z0-9]",
}
"""https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules"""


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_node_is_called_azure_takes_its_names(declare: Declare, name: str) -> None:
    """Case G01."""
    made, outputs = declare(spec(name))
    for resource, inputs in made.azure.items():
        if resource in naming.TYPES:
            assert inputs["tags"]["gridup:name"] == name
            assert all(len(value) <= 256 for value in inputs["tags"].values())
        for key in RULES.keys() & inputs.keys():
            assert re.fullmatch(RULES[key], inputs[key], re.ASCII), (key, inputs[key])
    label = made.azure["address"]["dnsSettings"]["domainNameLabel"]
    assert re.fullmatch(r"[a-z][a-z0-9-]{1,61}[a-z0-9]", label)
    assert not re.search(r"microsoft|windows|-azure-", label)
    computer = made.azure["machine"]["osProfile"]["computerName"]
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,61}[a-z0-9]", computer)
    assert outputs.spec.name == name


def test_what_a_later_release_would_tell_the_machine_changes_nothing() -> None:
    """Azure can't change it: https://learn.microsoft.com/azure/virtual-machines/custom-data."""
    from gridup_infra.targets.azure.providers import UserDataProvider

    provider = UserDataProvider()
    host = {"ssh_keys": [KEY], "disk": list(naming.DISK_PATHS)}
    props = {"project": "p", "machine_revision": 0, "host": host, "custom_data": None}
    made = provider.create(props).outs
    later = {**props, "host": {**host, "name": "Other"}}
    assert not provider.diff("p", made, later).changes
    renewed = {**later, "machine_revision": 1}
    assert provider.diff("p", made, renewed).changes
    assert provider.update("p", made, renewed).outs["custom_data"] != made["custom_data"]
    moved = {**later, "stack": "x"}
    assert provider.update("p", made, moved).outs["custom_data"] == made["custom_data"]


def test_its_name_is_the_one_that_azure_gave_whatever_the_cloud(
    declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clouds of others, and of states, have other suffixes."""
    given = "gridup-inst-01234567.westeurope.cloudapp.stack.example"
    made, outputs = declare(spec(no_node=False))
    assert (outputs.address, outputs.named, outputs.spec.domain_name) == (given, True, "")
    tls = made.inputs["node"]["plan"]["compose"]
    assert given in str(tls) and "203.0.113.20" not in str(tls)
    # A person's own stands in its place.
    _, outputs = declare(spec(domain_name="node.inst.example"))
    assert outputs.address == "node.inst.example"
    assert given not in str(outputs.exports())
    # Where it gave none, the node is known by its address and has a CA of its own.
    monkeypatch.setattr(Declared, "dns_name", None)
    made, outputs = declare(spec(no_node=False))
    assert (outputs.address, outputs.named) == ("203.0.113.20", False)
    assert "203.0.113.20" in str(made.inputs["node"]["plan"]["compose"])


def test_a_name_that_was_computed_once_gives_way_and_a_persons_own_stays() -> None:
    assert spec().domain_name == ""
    assert spec(domain_name="node.inst.example").domain_name == "node.inst.example"
    before = spec(domain_name="gridup-inst-01234567.westeurope.cloudapp.azure.com")
    assert before.domain_name == ""
    assert spec(domain_name="gridup-inst-01234567.inst.example").domain_name != ""


def test_an_empty_list_of_sizes_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    arm = client.Arm(SUBSCRIPTION, client.PUBLIC)
    monkeypatch.setattr(client.Arm, "every", lambda *_, **__: [])
    with pytest.raises(PreflightError, match="names no sizes of VMs in westeurope") as refused:
        preflight.sizes(arm, "westeurope")
    assert "--no-preflight" in refused.value.suggestion


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"subnet_id": "subnet-0a1b2c3d"}, "--subnet-id"),
        ({"resource_group": "a/b"}, "--resource-group"),
        ({"resource_group": "ends."}, "--resource-group"),
        ({"size": "large one"}, "--size"),
        ({"disk_size": 40000}, "--disk-size"),
    ],
)
def test_what_is_not_of_its_form_is_refused(how: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        spec(**how)


@pytest.mark.parametrize(
    "how",
    [{"region": "eastus"}, {"resource_group": "other"}, {"subnet_id": SUBNET_ID}, {"disk_size": 8}],
)
def test_what_azure_cannot_change_is_refused(how: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="can't"):
        spec(previous=spec(), **how)


def test_the_region_is_the_one_that_azs_tools_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path))
    for name in ("AZURE_LOCATION", "AZURE_DEFAULTS_LOCATION", "ARM_LOCATION"):
        monkeypatch.delenv(name, raising=False)
    assert spec(region="").region == naming.DEFAULT_REGION
    (tmp_path / "config").write_text("[defaults]\nlocation = Sweden Central\n")
    assert spec(region="").region == "swedencentral"
    monkeypatch.setenv("AZURE_DEFAULTS_LOCATION", "uksouth")
    assert spec(region="").region == "uksouth"


def test_the_subscription_is_the_one_that_az_has_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "azureProfile.json").write_text(
        '\ufeff{"subscriptions": [{"id": "a", "isDefault": false}, {"id": "b", "isDefault": true}]}'
    )
    assert client.configured_subscription({"AZURE_CONFIG_DIR": str(tmp_path)}) == "b"
    environment = {"AZURE_CONFIG_DIR": str(tmp_path), "ARM_SUBSCRIPTION_ID": "C"}
    assert client.configured_subscription(environment) == "c"
    assert client.configured_subscription({"AZURE_CONFIG_DIR": "/nowhere"}) == ""


FAILURES = [
    (
        'machine: Status=409 Code="SkuNotAvailable" Message="The requested VM size is not available."',
        ("Standard_D2s_v5", "westeurope", "--size", "--region", "SkuNotAvailable"),
    ),
    (
        'machine: GET https://x\nRESPONSE 409\nERROR CODE: OperationNotAllowed\n{"error": {"code": '
        '"OperationNotAllowed", "message": "Operation could not be completed as it results in exceeding '
        'approved Total Regional Cores quota."}}',
        ("Standard_D2s_v5", "westeurope", "quota", "--size"),
    ),
]


@pytest.mark.parametrize(("said", "words"), FAILURES)
def test_what_azure_refuses_in_the_middle_is_one_line_with_what_to_do(
    said: str, words: tuple[str, ...]
) -> None:
    """Case G21."""
    head, *rest = said.splitlines()
    told = AzureTarget().translate_error(ResourceError(head, "", tuple(rest)), spec())
    line = f"{told.message} {told.suggestion}"
    assert "\n" not in line
    assert all(word in line for word in words), line
    assert told.exit_code == 4


LOGIN = (
    "disk: ClientSecretCredential authentication failed. POST https://login/oauth2/v2.0/token RESPONSE 401: "
    '{"error": "invalid_client", "error_description": "AADSTS%s. Trace ID: 1", "error_codes": [1]}'
)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("7000222: The provided client secret keys are expired", "have expired: AADSTS7000222: The provided"),
        ("7000215: Invalid client secret provided", "are not accepted: AADSTS7000215: Invalid"),
        ("700024: Client assertion is not within its valid time range", "are not accepted: AADSTS700024"),
    ],
)
def test_a_provider_that_the_login_does_not_let_in_is_an_error_of_the_credentials(
    said: str, words: str
) -> None:
    told = AzureTarget().translate_error(ResourceError(LOGIN % said), spec())
    assert words in told.message
    assert (told.exit_code, told.suggestion) == (3, client.LOG_IN)


def test_a_wrong_clock_is_told_where_the_login_refuses_its_time() -> None:
    said = "AADSTS700024: Client assertion is not within its valid time range."
    behind = format_datetime(datetime.now(timezone.utc) + timedelta(hours=2), usegmt=True)
    told = client.not_let_in(said, {"Date": behind})
    assert told.exit_code == 3
    assert "(AADSTS700024): this machine's clock is 2 h 0 min behind" in told.message
    right = client.not_let_in(said, {"Date": format_datetime(datetime.now(timezone.utc), usegmt=True)})
    assert "are not accepted: AADSTS700024" in right.message


def test_a_login_that_nobody_answers_is_no_fault_of_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """azure-identity itself, with a login where nobody listens."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        for key, value in {
            "AZURE_TENANT_ID": "5ab5c71b-0000-4000-8000-00000000a2e0",
            "AZURE_CLIENT_ID": "5ab5c71b-0000-4000-8000-00000000a2e1",
            "AZURE_CLIENT_SECRET": "x",
            "AZURE_AUTHORITY_HOST": f"https://127.0.0.1:{port}",
        }.items():
            monkeypatch.setenv(key, value)
        client.clear_caches()
        with pytest.raises(ResourceError, match="Azure's login can't be reached: ") as caught:
            client.token("https://management.azure.com")
        client.clear_caches()
    assert caught.value.exit_code == 4
    assert "HTTPS_PROXY" in caught.value.suggestion


def test_an_error_of_our_own_stays_as_it_is() -> None:
    error = ResourceError("host: no answer")
    assert AzureTarget().translate_error(error, replace(spec())) is error
