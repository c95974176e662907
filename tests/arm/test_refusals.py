"""What is refused is refused to a raw request: each rule of refusals.py is met by one, and answers as ARM."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from support.arm import refusals
from support.arm.customer import Reply
from support.arm.errors import Refusal
from support.arm.sites import ADDRESS, DISK, LOCATION, MACHINE, NSG, RULE, VNET, Site, changed
from support.ssh_keys import dsa, ecdsa, rsa, rsa4096

pytestmark = pytest.mark.tier("deep", proves=("arm",))

Attempt = Callable[[Site], Reply]

RULES = {name: value for name, value in vars(refusals).items() if isinstance(value, Refusal)}


def put(type_: str, name: str, body: dict, **changes: object) -> Attempt:
    return lambda site: site.put(type_, name, changed(body, **changes))


def send(method: str, path: str, body: object = None, **how: object) -> Attempt:
    return lambda site: site.customer.send(method, path, body, **how)


def tagged(tags: dict[str, str]) -> Attempt:
    return send("PUT", "resourceGroups/other", {"location": LOCATION, "tags": tags})


def rule(**changes: object) -> Attempt:
    """A security rule, in a group of its own."""
    return lambda site: site.put(
        "networkSecurityGroups",
        "nsg",
        {
            "location": LOCATION,
            "properties": {"securityRules": [{"name": "one", **changed(RULE, **changes)}]},
        },
    )


def interface(**inner: object) -> Attempt:
    def attempt(site: Site) -> Reply:
        site.vnet()
        return site.put("networkInterfaces", "nic", site.interface_body(**inner))

    return attempt


def label(text: str) -> Attempt:
    return put("publicIPAddresses", "ip", ADDRESS, properties__dnsSettings={"domainNameLabel": text})


def machine(**changes: object) -> Attempt:
    def attempt(site: Site) -> Reply:
        site.vnet()
        site.interface()
        return site.put("virtualMachines", "vm", site.machine_body(**changes))

    return attempt


def key(line: str, user: str = "gridup") -> Attempt:
    keys = [{"path": f"/home/{user}/.ssh/authorized_keys", "keyData": line}]
    return machine(properties__osProfile__linuxConfiguration__ssh={"publicKeys": keys})


def password(text: str) -> Attempt:
    return machine(
        properties__osProfile__adminPassword=text,
        properties__osProfile__linuxConfiguration={"disablePasswordAuthentication": False},
    )


def after(prepare: Callable[[Site], object], attempt: Attempt) -> Attempt:
    def both(site: Site) -> Reply:
        prepare(site)
        return attempt(site)

    return both


def delete(type_: str, name: str) -> Attempt:
    return lambda site: site.customer.send("DELETE", site.path(type_, name))


def copy_disk(site: Site, source: str = "data") -> Reply:
    made_of = {"createOption": "Copy", "sourceResourceId": site.id("disks", source)}
    return site.put("disks", "copy", changed(DISK, properties__creationData=made_of))


def copied_disk(site: Site) -> None:
    site.disk()
    site.disk("other")
    site.customer.done(copy_disk(site))


def without_source(site: Site) -> Reply:
    """A PUT that changes nothing of a disk whose source is gone; a PATCH is taken."""
    site.customer.drop(site.id("disks", "data"))
    more = {"properties": {"diskSizeGB": 64}}
    grown = site.customer.send("PATCH", site.path("disks", "copy"), more)
    assert grown.status in (200, 202), grown
    site.customer.done(grown)
    return copy_disk(site)


def whole(site: Site) -> None:
    site.whole()


def two_machines(site: Site) -> None:
    """One that is whole, and an interface for another."""
    site.whole()
    site.interface("second")


def failed_machine(site: Site) -> None:
    """One whose creation failed, and that is gone again; what was to be its interface is there."""
    arm = site.customer.arm
    arm.world.reserves = 60
    site.vnet()
    site.interface()
    arm.fail("*/virtualMachines/write", "AllocationFailed", "No room.", late=True, count=1)
    reply = site.put("virtualMachines", "vm", site.machine_body())
    assert site.customer.done(reply).body["error"]["code"] == "AllocationFailed"
    site.customer.drop(site.path("virtualMachines", "vm"))


def quota(name: str, limit: int) -> Callable[[Site], None]:
    def set_(site: Site) -> None:
        site.customer.arm.world.quotas[LOCATION, name] = limit

    return set_


def without_rights(*rights: str) -> Callable[[Site], None]:
    def set_(site: Site) -> None:
        site.vnet()
        site.customer.arm.rights = rights

    return set_


def token(text: str) -> Callable[[Site], None]:
    return lambda site: setattr(site.customer, "token", text)


def late_token(site: Site) -> None:
    site.customer.arm.tokens.lasts = -1
    site.customer.token = site.customer.arm.tokens.give()


def blocked_group(site: Site) -> Reply:
    """Its network is used by an interface of another group."""
    site.vnet()
    other = Site(site.customer, "other")
    body = site.interface_body()
    other.make("networkInterfaces", "nic", body)
    reply = site.customer.send("DELETE", "resourceGroups/site")
    assert reply.status == 202
    return site.customer.done(reply)


def going_group(site: Site) -> Reply:
    site.customer.arm.lasts = 60
    site.customer.send("DELETE", "resourceGroups/site")
    return site.put("publicIPAddresses", "ip", ADDRESS)


def busy(site: Site) -> Reply:
    site.customer.arm.lasts = 60
    site.put("virtualNetworks", "net", VNET)
    return site.put("virtualNetworks", "net", VNET)


def unready(site: Site) -> Reply:
    site.vnet()
    site.customer.arm.lasts = 60
    site.put("publicIPAddresses", "ip", ADDRESS)
    return site.put(
        "networkInterfaces",
        "nic",
        site.interface_body(publicIPAddress={"id": site.id("publicIPAddresses", "ip")}),
    )


def full_subnet(site: Site) -> Reply:
    """A /29 has three addresses for customers."""
    small = [{"name": "front", "properties": {"addressPrefix": "10.0.0.0/29"}}]
    site.vnet(properties__subnets=small)
    for number in range(3):
        site.interface(f"nic{number}")
    return site.put("networkInterfaces", "nic", site.interface_body())


def other_network(site: Site) -> Reply:
    site.vnet()
    site.interface()
    far = site.make("virtualNetworks", "far", VNET)
    moved = site.interface_body(subnet={"id": f"{far['id']}/subnets/front"})
    return site.put("networkInterfaces", "nic", moved)


def same_address(site: Site) -> Reply:
    site.vnet()
    fixed = {"privateIPAllocationMethod": "Static", "privateIPAddress": "10.0.0.10"}
    site.interface(**fixed)
    return site.put("networkInterfaces", "other", site.interface_body(**fixed))


def same_public_address(site: Site) -> Reply:
    site.vnet()
    ip = {"publicIPAddress": {"id": site.address()["id"]}}
    site.interface(**ip)
    return site.put("networkInterfaces", "other", site.interface_body(**ip))


def grown_subnet(site: Site) -> Reply:
    site.vnet()
    site.interface()
    path = site.path("virtualNetworks", "net") + "/subnets/front"
    return site.customer.send("PUT", path, {"properties": {"addressPrefix": "10.0.1.0/24"}})


def changed_machine(**changes: object) -> Attempt:
    def attempt(site: Site) -> Reply:
        site.whole()
        return site.put("virtualMachines", "vm", site.machine_body("nic", "data", **changes))

    return attempt


def too_many_disks(site: Site) -> Reply:
    site.vnet()
    site.interface()
    names = [site.disk(f"data{number}")["name"] for number in range(5)]
    return site.put("virtualMachines", "vm", site.machine_body("nic", *names))


def same_lun(site: Site) -> Reply:
    site.vnet()
    site.interface()
    body = site.machine_body("nic", site.disk("one")["name"], site.disk("two")["name"])
    body["properties"]["storageProfile"]["dataDisks"][1]["lun"] = 0
    return site.put("virtualMachines", "vm", body)


def second_machine(*disks: str, nic: str = "second", **changes: object) -> Attempt:
    """Beside one that is whole."""
    root = {"properties__storageProfile__osDisk": {"name": "root2", "createOption": "FromImage"}, **changes}
    return after(
        two_machines, lambda site: site.put("virtualMachines", "vm2", site.machine_body(nic, *disks, **root))
    )


def size(name: str) -> Attempt:
    return machine(properties__hardwareProfile={"vmSize": name}, properties__securityProfile=None)


def image(**parts: str) -> Attempt:
    whole = {**MACHINE["properties"]["storageProfile"]["imageReference"], **parts}
    return machine(properties__storageProfile__imageReference=whole, properties__securityProfile=None)


def boot_diagnostics(site: Site) -> Reply:
    site.whole(properties__diagnosticsProfile=None)
    return site.customer.send("POST", site.path("virtualMachines", "vm") + "/retrieveBootDiagnosticsData")


SUBNETS = "properties__subnets"


def subnets(*prefixes: str) -> list[dict]:
    return [
        {"name": f"s{number}", "properties": {"addressPrefix": prefix}}
        for number, prefix in enumerate(prefixes)
    ]


OSP = "properties__osProfile__"

CASES: list[tuple[str, Attempt]] = [
    # Who asks, and how.
    ("NO_TOKEN", send("GET", "resourceGroups", headers={"Authorization": ""})),
    ("BAD_TOKEN", after(token("made.up"), send("GET", "resourceGroups"))),
    ("OLD_TOKEN", after(late_token, send("GET", "resourceGroups"))),
    ("NO_RIGHT", after(without_rights("*/read"), put("publicIPAddresses", "ip", ADDRESS))),
    (
        "NO_LINKED_RIGHT",
        after(
            without_rights("*/read", "*/networkInterfaces/write"),
            lambda site: site.put("networkInterfaces", "nic", site.interface_body()),
        ),
    ),
    ("NO_SUBSCRIPTION", send("GET", "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups")),
    (
        "READ_ONLY_SUBSCRIPTION",
        after(
            lambda site: setattr(site.customer.arm.subscription, "state", "Warned"),
            put("publicIPAddresses", "ip", ADDRESS),
        ),
    ),
    ("NO_VERSION", send("GET", "resourceGroups", version="")),
    ("BAD_VERSION", send("GET", "providers/Microsoft.Network/virtualNetworks", version="2099-01-01")),
    ("BAD_VERSION_OF_ARM", send("GET", "resourceGroups", version="yesterday")),
    (
        "UNREGISTERED",
        after(
            lambda site: site.customer.arm.subscription.providers.pop("Microsoft.Network"),
            put("publicIPAddresses", "ip", ADDRESS),
        ),
    ),
    ("NO_NAMESPACE", send("GET", "providers/Microsoft.Nowhere")),
    ("NO_TYPE", send("GET", "providers/Microsoft.Network/virtualNets", version="2024-05-01")),
    ("NO_METHOD", send("POST", "resourceGroups/site")),
    # What is sent.
    ("BAD_JSON", send("PUT", "resourceGroups/other", raw=b"{")),
    ("BAD_JSON", send("PUT", "resourceGroups/other", {"location": LOCATION, "colour": "red"})),
    ("BAD_JSON", send("PUT", "resourceGroups/other", {"location": LOCATION, "tags": ["a"]})),
    ("BAD_BODY_OF_NETWORK", put("publicIPAddresses", "ip", ADDRESS, properties__colour="red")),
    (
        "BAD_BODY_OF_NETWORK",
        put("publicIPAddresses", "ip", ADDRESS, properties__provisioningState="Succeeded"),
    ),
    ("BAD_BODY_OF_NETWORK", put("publicIPAddresses", "ip", ADDRESS, sku={"name": "Premium"})),
    ("BAD_BODY_OF_NETWORK", rule(properties__priority="100")),
    ("BAD_BODY_OF_NETWORK", rule(properties__direction=None)),
    ("BAD_BODY_OF_COMPUTE", machine(properties__vmId="mine")),
    ("BAD_BODY_OF_COMPUTE", machine(**{f"{OSP}adminUserName": "gridup"})),
    ("BAD_BODY_OF_COMPUTE", put("disks", "data", DISK, properties__diskSizeGB="32")),
    ("NO_LOCATION", put("publicIPAddresses", "ip", ADDRESS, location=None)),
    ("BAD_LOCATION", put("publicIPAddresses", "ip", ADDRESS, location="atlantis")),
    ("BAD_LOCATION_OF_GROUP", send("PUT", "resourceGroups/other", {"location": "atlantis"})),
    ("MOVED", after(Site.vnet, put("virtualNetworks", "net", VNET, location="eastus"))),
    ("MOVED_GROUP", send("PUT", "resourceGroups/site", {"location": "eastus"})),
    ("BAD_NAME", put("virtualNetworks", "n", VNET)),
    ("BAD_NAME", put("networkSecurityGroups", "-nsg", NSG)),
    ("BAD_NAME", put("publicIPAddresses", "x" * 81, ADDRESS)),
    ("BAD_NAME", put("disks", "my.disk", DISK)),
    ("BAD_NAME", put("virtualMachines", "my vm", MACHINE)),
    ("BAD_NAME", put("virtualMachines", "vm-", MACHINE)),
    ("BAD_NAME", put("virtualMachines", "v" * 65, MACHINE)),
    ("BAD_GROUP_NAME", send("PUT", "resourceGroups/ends.", {"location": LOCATION})),
    ("BAD_GROUP_NAME", send("PUT", f"resourceGroups/{'g' * 91}", {"location": LOCATION})),
    ("BAD_GROUP_NAME", send("PUT", "resourceGroups/My Lab", {"location": LOCATION})),
    ("NAME_MISMATCH", after(Site.vnet, lambda site: _named(site))),
    ("TOO_MANY_TAGS", tagged({f"t{number}": "" for number in range(51)})),
    ("LONG_TAG_NAME", tagged({"t" * 513: ""})),
    ("LONG_TAG_VALUE", tagged({"t": "x" * 257})),
    ("BAD_TAG_NAME", tagged({"a/b": ""})),
    ("SAME_TAGS", tagged({"a": "", "A": ""})),
    ("BAD_FILTER", send("GET", "resources", query={"$filter": "colour eq 'red'"})),
    (
        "BAD_FILTER",
        send(
            "GET",
            "resources",
            query={"$filter": "tagName eq 'a' and resourceType eq 'Microsoft.Compute/disks'"},
        ),
    ),
    ("BAD_FILTER", send("GET", "providers/Microsoft.Compute/skus", query={"$filter": "name eq 'x'"})),
    (
        "CHANGED",
        after(
            Site.vnet, lambda site: site.put("virtualNetworks", "net", VNET, headers={"If-None-Match": "*"})
        ),
    ),
    (
        "CHANGED",
        after(
            Site.vnet, lambda site: site.put("virtualNetworks", "net", VNET, headers={"If-Match": 'W/"old"'})
        ),
    ),
    # What is there, and what is not.
    ("NO_GROUP", send("GET", "resourceGroups/nowhere")),
    (
        "NO_GROUP",
        send("PUT", "resourceGroups/nowhere/providers/Microsoft.Network/publicIPAddresses/ip", ADDRESS),
    ),
    ("NO_RESOURCE", lambda site: site.customer.get(site.path("virtualNetworks", "net"))),
    (
        "NO_CHILD",
        after(
            Site.vnet, lambda site: site.customer.get(site.path("virtualNetworks", "net") + "/subnets/back")
        ),
    ),
    ("NO_PARENT", lambda site: _named(site)),
    ("GROUP_GOES", going_group),
    ("GROUP_STAYS", blocked_group),
    ("BUSY", busy),
    ("NO_OPERATION", send("GET", "providers/Microsoft.Network/locations/westeurope/operations/none")),
    ("NO_REFERENCE", lambda site: site.put("networkInterfaces", "nic", site.interface_body())),
    (
        "NO_REFERENCE",
        after(
            Site.vnet,
            lambda site: site.put(
                "networkInterfaces", "nic", {**site.interface_body(), "location": "eastus"}
            ),
        ),
    ),
    ("UNREADY_REFERENCE", unready),
    # Microsoft.Network.
    (
        "BAD_CIDR",
        put("virtualNetworks", "net", VNET, properties__addressSpace={"addressPrefixes": ["10.0.0.1/16"]}),
    ),
    (
        "BAD_PREFIX",
        put("virtualNetworks", "net", VNET, properties__addressSpace={"addressPrefixes": ["10.0/x"]}),
    ),
    ("NO_PREFIX", put("virtualNetworks", "net", VNET, properties__addressSpace=None)),
    ("NO_PREFIX", put("virtualNetworks", "net", VNET, **{SUBNETS: [{"name": "s", "properties": {}}]})),
    (
        "OVERLAPPING_SPACES",
        put(
            "virtualNetworks",
            "net",
            VNET,
            properties__addressSpace={"addressPrefixes": ["10.0.0.0/16", "10.0.1.0/24"]},
        ),
    ),
    ("SUBNET_OUTSIDE", put("virtualNetworks", "net", VNET, **{SUBNETS: subnets("10.1.0.0/24")})),
    (
        "SUBNETS_OVERLAP",
        put("virtualNetworks", "net", VNET, **{SUBNETS: subnets("10.0.0.0/24", "10.0.0.0/25")}),
    ),
    ("SUBNET_SMALL", put("virtualNetworks", "net", VNET, **{SUBNETS: subnets("10.0.0.0/30")})),
    ("SUBNET_IN_USE", after(whole, delete("virtualNetworks", "net"))),
    ("SUBNET_IN_USE", after(whole, put("virtualNetworks", "net", VNET, **{SUBNETS: []}))),
    ("SUBNET_PREFIX_IN_USE", grown_subnet),
    ("SUBNET_FULL", full_subnet),
    (
        "SAME_NAMES",
        put("virtualNetworks", "net", VNET, **{SUBNETS: [*subnets("10.0.0.0/24"), *subnets("10.0.1.0/24")]}),
    ),
    ("SAME_NAMES", lambda site: _twice(site)),
    ("RULE_PRIORITY", rule(properties__priority=99)),
    ("RULE_PRIORITY", rule(properties__priority=4097)),
    (
        "RULES_CONFLICT",
        put(
            "networkSecurityGroups",
            "nsg",
            NSG,
            properties__securityRules=[{"name": "a", **RULE}, {"name": "b", **RULE}],
        ),
    ),
    ("RULES_CONFLICT", after(Site.nsg, lambda site: _rule(site, "another", RULE))),
    ("RULE_PORTS", rule(properties__destinationPortRange="70000")),
    ("RULE_PORTS", rule(properties__destinationPortRange="90-80")),
    ("RULE_ADDRESS", rule(properties__sourceAddressPrefix="198.51.100.7/24")),
    (
        "RULE_ADDRESS",
        rule(properties__sourceAddressPrefix=None, properties__sourceAddressPrefixes=["Internet", "x"]),
    ),
    ("RULE_PARAMETER", rule(properties__sourceAddressPrefix=None)),
    ("RULE_PARAMETER", rule(properties__destinationPortRange=None)),
    ("NSG_IN_USE", lambda site: _used_nsg(site)),
    ("BASIC_IP", put("publicIPAddresses", "ip", ADDRESS, sku={"name": "Basic"})),
    ("BASIC_IP", put("publicIPAddresses", "ip", ADDRESS, sku=None)),
    (
        "STANDARD_IP_STATIC",
        put("publicIPAddresses", "ip", ADDRESS, properties__publicIPAllocationMethod="Dynamic"),
    ),
    ("IP_IDLE", put("publicIPAddresses", "ip", ADDRESS, properties__idleTimeoutInMinutes=60)),
    ("IP_COUNT", after(quota("PublicIPAddresses", 0), put("publicIPAddresses", "ip", ADDRESS))),
    ("IP_IN_USE", after(whole, delete("publicIPAddresses", "ip"))),
    ("IP_TAKEN", same_public_address),
    (
        "IP_CHANGED",
        after(
            Site.address, put("publicIPAddresses", "ip", ADDRESS, properties__publicIPAddressVersion="IPv6")
        ),
    ),
    ("DNS_LABEL", label("Inst_1")),
    ("DNS_LABEL", label("1inst")),
    ("DNS_LABEL", label("x" * 64)),
    ("DNS_RESERVED", label("windows-lab")),
    ("DNS_RESERVED", label("my-microsofts")),
    ("DNS_RESERVED", label("login-1")),
    ("DNS_RESERVED", label("the-office")),
    ("DNS_TAKEN", after(Site.address, put("publicIPAddresses", "other", ADDRESS))),
    (
        "DNS_TAKEN",
        after(
            lambda site: site.customer.arm.world.taken_labels.add("inst-7f3a"),
            put("publicIPAddresses", "ip", ADDRESS),
        ),
    ),
    (
        "NIC_NO_IP",
        lambda site: site.put("networkInterfaces", "nic", {"location": LOCATION, "properties": {}}),
    ),
    ("NIC_NO_SUBNET", interface(subnet=None)),
    ("NIC_IN_USE", after(whole, delete("networkInterfaces", "nic"))),
    ("NIC_RESERVED", after(failed_machine, delete("networkInterfaces", "nic"))),
    (
        "NIC_RESERVED",
        after(failed_machine, lambda site: site.put("virtualMachines", "vm2", site.machine_body())),
    ),
    ("NIC_ADDRESS_OUTSIDE", interface(privateIPAllocationMethod="Static", privateIPAddress="10.9.0.9")),
    ("NIC_ADDRESS_RESERVED", interface(privateIPAllocationMethod="Static", privateIPAddress="10.0.0.1")),
    ("NIC_ADDRESS_TAKEN", same_address),
    ("NIC_MOVED", other_network),
    # Microsoft.Compute.
    ("BAD_SIZE", size("Standard_Z99")),
    (
        "NO_SIZE_HERE",
        after(lambda site: site.customer.arm.world.restricted.add((LOCATION, "Standard_D2s_v5")), machine()),
    ),
    ("QUOTA", after(quota("cores", 1), machine())),
    ("QUOTA", after(quota("standardDSv5Family", 1), machine())),
    ("QUOTA", size("Standard_D64s_v5")),
    ("NO_IMAGE", image(sku="13-gen3")),
    ("NO_IMAGE", image(version="1.2.3")),
    ("BAD_ADMIN", machine(**{f"{OSP}adminUsername": "admin"})),
    ("BAD_ADMIN", machine(**{f"{OSP}adminUsername": "root"})),
    ("BAD_ADMIN", machine(**{f"{OSP}adminUsername": "u" * 65})),
    ("BAD_ADMIN", machine(**{f"{OSP}adminUsername": "my user"})),
    ("BAD_PASSWORD", password("aaaaaaaaaaaa")),
    ("BAD_PASSWORD", password("P@ssw0rd")),
    ("BAD_HOST_NAME", machine(**{f"{OSP}computerName": "my_lab"})),
    ("BAD_HOST_NAME", machine(**{f"{OSP}computerName": "h" * 65})),
    ("BAD_KEY", key(ecdsa("a"))),
    ("BAD_KEY", key(dsa("a"))),
    ("BAD_KEY", key(rsa(1024, "a"))),
    ("BAD_KEY", key("-----BEGIN OPENSSH PRIVATE KEY-----")),
    ("BAD_KEY", key(rsa4096("a")[:300])),
    ("BAD_KEY_PATH", key(rsa4096("a"), user="other")),
    ("NO_WAY_IN", machine(**{f"{OSP}linuxConfiguration": {"disablePasswordAuthentication": True}})),
    ("BAD_CUSTOM_DATA", machine(**{f"{OSP}customData": "#cloud-config"})),
    ("BAD_CUSTOM_DATA", machine(**{f"{OSP}customData": base64.b64encode(bytes(65536)).decode()})),
    ("MISSING_PARAMETER", machine(properties__osProfile=None)),
    ("MISSING_PARAMETER", machine(properties__networkProfile={"networkInterfaces": []})),
    ("FIXED_PROPERTY", changed_machine(**{f"{OSP}customData": "eHg="})),
    ("FIXED_PROPERTY", changed_machine(**{f"{OSP}adminUsername": "another"})),
    ("FIXED_PROPERTY", changed_machine(**{f"{OSP}computerName": "another"})),
    ("FIXED_PROPERTY", changed_machine(properties__storageProfile__osDisk__name="another")),
    ("FIXED_PROPERTY", changed_machine(properties__storageProfile__imageReference__sku="13")),
    ("FIXED_PROPERTY", changed_machine(properties__securityProfile={"securityType": "Standard"})),
    ("FIXED_PROPERTY", changed_machine(zones=["1"])),
    ("NO_TRUSTED_LAUNCH", machine(properties__storageProfile__imageReference__sku="13")),
    ("NO_TRUSTED_LAUNCH", machine(properties__securityProfile={"uefiSettings": {"vTpmEnabled": True}})),
    ("WRONG_GENERATION", size("Standard_A1_v2")),
    ("WRONG_ARCHITECTURE", size("Standard_D2ps_v5")),
    ("SMALL_ROOT", machine(properties__storageProfile__osDisk__diskSizeGB=10)),
    ("TOO_MANY_DISKS", too_many_disks),
    ("SAME_LUN", same_lun),
    ("DISK_TAKEN", second_machine("data")),
    (
        "DISK_EXISTS",
        second_machine(properties__storageProfile__osDisk={"name": "root", "createOption": "FromImage"}),
    ),
    ("DISK_IN_USE", after(whole, delete("disks", "data"))),
    ("DISK_SHRUNK", after(Site.disk, put("disks", "data", DISK, properties__diskSizeGB=16))),
    (
        "FIXED_PROPERTY",
        after(Site.disk, put("disks", "data", DISK, properties__creationData={"createOption": "Copy"})),
    ),
    ("FIXED_PROPERTY", after(copied_disk, lambda site: copy_disk(site, "other"))),
    ("NO_LINKED_RIGHT", after(copied_disk, lambda site: without_source(site))),
    ("DISK_NO_SIZE", put("disks", "data", DISK, properties__diskSizeGB=None)),
    ("DISK_NO_SIZE", put("disks", "data", DISK, properties__diskSizeGB=40000)),
    ("NIC_TAKEN", second_machine(nic="nic")),
    ("NO_BOOT_DIAGNOSTICS", boot_diagnostics),
]


def _named(site: Site) -> Reply:
    """A subnet whose body has another name than its address."""
    body = {"name": "other", "properties": {"addressPrefix": "10.0.9.0/24"}}
    return site.customer.send("PUT", site.path("virtualNetworks", "net") + "/subnets/back", body)


def _twice(site: Site) -> Reply:
    site.vnet()
    body = site.interface_body()
    body["properties"]["ipConfigurations"] *= 2
    return site.put("networkInterfaces", "nic", body)


def _rule(site: Site, name: str, body: dict) -> Reply:
    return site.customer.send(
        "PUT", f"{site.path('networkSecurityGroups', 'nsg')}/securityRules/{name}", body
    )


def _used_nsg(site: Site) -> Reply:
    site.vnet()
    body = site.interface_body()
    body["properties"]["networkSecurityGroup"] = {"id": site.nsg()["id"]}
    site.make("networkInterfaces", "nic", body)
    return site.customer.send("DELETE", site.path("networkSecurityGroups", "nsg"))


@pytest.mark.parametrize(
    ("name", "attempt"), [pytest.param(*case, id=f"{case[0]}-{n}") for n, case in enumerate(CASES)]
)
def test_is_refused(site: Site, name: str, attempt: Attempt) -> None:
    rule, arm = RULES[name], site.customer.arm
    reply = attempt(site)
    call = arm.calls[-1]
    assert call.refusal is rule, reply
    # ARM's form: https://learn.microsoft.com/rest/api/resources/resources/list#errorresponse
    assert (reply.status, reply.code) == (rule.status, rule.code)
    assert len(reply.message) > 20


@pytest.mark.parametrize(
    "attempt",
    [
        rule(properties__priority=99),
        put("virtualNetworks", "net", VNET, **{SUBNETS: subnets("10.0.0.0/24", "10.0.0.0/25")}),
        machine(properties__storageProfile__osDisk__diskSizeGB=10),
        too_many_disks,
    ],
)
def test_what_is_refused_leaves_no_trace(site: Site, attempt: Attempt) -> None:
    attempt(site)
    call = site.customer.arm.calls[-1]
    assert call.refusal is not None
    assert site.customer.get(call.path).status == 404
    assert not [one for one in site.customer.arm.things().all() if one["name"] in ("root", "s0")]


def test_each_rule_is_met() -> None:
    assert {name for name, _ in CASES} == set(RULES)


@pytest.mark.parametrize("name", sorted(RULES))
def test_each_rule_has_a_page_of_microsofts(name: str) -> None:
    assert RULES[name].source.startswith(refusals.LEARN)
