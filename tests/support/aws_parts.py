"""A node's host on AWS, made by the providers alone, one after the other: no engine, a second in all."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gridup_infra.spec import STANDARD, DeploySpec
from gridup_infra.targets.aws import firewall, naming, providers
from gridup_infra.targets.aws.preflight import SAMPLE_KEY
from gridup_infra.targets.dynamic import DRIFT
from gridup_infra.vm import node
from support.moto_rig import REGION

Props = dict[str, Any]

ORDER: tuple[tuple[str, str, providers.AwsProvider], ...] = (
    ("Owner", "owner", providers.OwnerProvider()),
    ("KeyPair", "key-pair", providers.KeyPairProvider()),
    ("Placement", "placement", providers.PlacementProvider()),
    ("Vpc", "vpc", providers.VpcProvider()),
    ("Subnet", "subnet", providers.SubnetProvider()),
    ("InternetGateway", "internet-gateway", providers.GatewayProvider()),
    ("RouteTable", "route-table", providers.RouteTableProvider()),
    ("SecurityGroup", "security-group", providers.SecurityGroupProvider()),
    ("Volume", "volume", providers.VolumeProvider()),
    ("Address", "address", providers.AddressProvider()),
    ("Instance", "instance", providers.InstanceProvider()),
    ("Attachment", "attachment", providers.AttachmentProvider()),
)


class Parts:
    """The resources of one node.

    Attributes:
        outs: of each that is there, by name; ids likewise.
    """

    def __init__(self, spec: DeploySpec) -> None:
        self.spec = spec
        self.outs: dict[str, Props] = {}
        self.ids: dict[str, str] = {}

    def inputs(self, name: str) -> Props:
        """The inputs of a resource, as `resources.build` declares them."""
        spec, told = self.spec, self.outs
        common = {**naming.common(spec), "account": told.get("owner", {}).get("account")}
        urns = {
            "volume_urn": naming.volume_urn(spec.stack),
            "subnet_urn": naming.urn(spec.stack, "Subnet", "subnet"),
        }
        place = {key: told.get("placement", {}).get(key) for key in ("zones", "all_zones")}
        vpc = {"vpc": told.get("vpc", {}).get("vpc")}
        rows: dict[str, Props] = {
            "owner": {"target": "aws", "keep_data": spec.keeps, **urns},
            "key-pair": {"public_key": SAMPLE_KEY},
            "placement": {
                "size": spec.size,
                "subnet_id": "",
                "machine_revision": spec.machine_revision,
                **urns,
                **spec.adopts,
            },
            "vpc": {},
            "subnet": {**vpc, **place},
            "internet-gateway": vpc,
            "route-table": {**vpc, "gateway": None, "subnet": None},
            "security-group": {**vpc, "rules": firewall.rules(spec.allow_cidr, spec.web_cidr)},
            "volume": {
                "zones": place["zones"],
                "disk_size": spec.disk_size,
                "keep_data": spec.keeps,
                **spec.leaves,
                **spec.adopts,
            },
            "address": {},
            "instance": {
                **vpc,
                **place,
                **urns,
                **{key: told.get("placement", {}).get(key) for key in ("image", "architecture")},
                "size": spec.size,
                **naming.credits_input(spec),
                "machine_revision": spec.machine_revision,
                "subnet_id": "",
                "group": told.get("security-group", {}).get("group"),
                "key": common["project"],
                "routes": told.get("route-table", {}).get("table"),
                "volume": told.get("volume", {}).get("volume"),
                "disk_size": spec.disk_size,
                "host": self._host(),
            },
            "attachment": {
                "instance": told.get("instance", {}).get("instance"),
                "volume": told.get("instance", {}).get("disk"),
                "allocation": told.get("address", {}).get("allocation"),
            },
        }
        if name == "route-table":
            rows[name] |= {
                "gateway": told["internet-gateway"]["gateway"],
                "subnet": told["subnet"]["subnet"],
            }
        kind = next(kind for kind, each, _ in ORDER if each == name)
        return {**common, **rows[name], "urn": naming.urn(spec.stack, kind, name)}

    def deploy(self) -> Parts:
        """Make what is not there, and bring the rest to the spec, as the engine does."""
        for _, name, provider in ORDER:
            news = self.inputs(name)
            if name not in self.outs:
                made = provider.create(news)
                self.ids[name], self.outs[name] = made.id, made.outs
            elif provider.diff(self.ids[name], self.outs[name], news).changes:
                self.outs[name] = provider.update(self.ids[name], self.outs[name], news).outs
        return self

    def refresh(self) -> dict[str, list[str]]:
        """What is not as defined, by resource; what is gone is forgotten."""
        found: dict[str, list[str]] = {}
        for _, name, provider in ORDER:
            seen = provider.read(self.ids[name], self.outs[name])
            if not seen.id:
                found[name] = ["gone"]
                del self.outs[name], self.ids[name]
                continue
            self.ids[name], self.outs[name] = seen.id, seen.outs
            if problems := seen.outs.get(DRIFT):
                found[name] = problems
        return found

    def destroy(self) -> None:
        for _, name, provider in reversed(ORDER):
            if name in self.outs:
                provider.delete(self.ids[name], self.outs[name])
                del self.outs[name], self.ids[name]

    def _host(self) -> Props:
        told = asdict(node.host(self.spec, SAMPLE_KEY, naming.disk_paths(naming.ANY_VOLUME)))
        told.pop("disk")
        return told


def spec(name: str = "Inst", **how: Any) -> DeploySpec:
    """A node's host as `AwsTarget.resolve` leaves it."""
    asked = {
        "region": REGION,
        "size": naming.DEFAULT_SIZE,
        "disk_size": naming.DEFAULT_DISK,
        "cpu_credits": STANDARD if naming.has_credits(how.get("size", naming.DEFAULT_SIZE)) else "",
        "allow_cidr": ("203.0.113.7/32",),
        "no_node": True,
    }
    return DeploySpec(name, target="aws", **{**asked, **how}).with_new_id()
