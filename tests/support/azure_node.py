"""Deploying a node's host to the tests' own Azure, and what must be true of the subscription afterwards."""

from __future__ import annotations

from typing import Any

from gridup_infra.targets.azure import naming
from support.arm import SUBSCRIPTION, Arm
from support.arm.customer import Customer
from support.cli import Cli, Ended

REGION = "westeurope"
CLOUD = ("--cloud", "azure", "--no-node", "--no-wait", "--yes")
STAFF = "203.0.113.7/32"
DEPLOY = ("deploy", "--name", "Inst", *CLOUD, "--region", REGION, "--allow-cidr", STAFF)

OPEN = {(22, STAFF), (8888, STAFF), (80, "0.0.0.0/0"), (443, "0.0.0.0/0")}

NETWORK, COMPUTE = "Microsoft.Network", "Microsoft.Compute"

ONE_OF_EACH = {
    f"{NETWORK}/virtualNetworks": 1,
    f"{NETWORK}/networkSecurityGroups": 1,
    f"{NETWORK}/publicIPAddresses": 1,
    f"{NETWORK}/networkInterfaces": 1,
    f"{COMPUTE}/virtualMachines": 1,
    # The VM's own, and the data's.
    f"{COMPUTE}/disks": 2,
}


class Account:
    """The subscription, and what was in it before the test.

    Args:
        group: a resource group that is there already; empty for a node with one of its own.
    """

    def __init__(self, arm: Arm, group: str = "") -> None:
        self.arm, self.group = arm, group
        self.customer = Customer(arm)
        if group:
            self.customer.send(
                "PUT", f"resourceGroups/{group}", {"location": REGION, "tags": {"whose": "theirs"}}
            )
            self.customer.make(
                f"resourceGroups/{group}/providers/{NETWORK}/networkSecurityGroups/theirs",
                {"location": REGION, "properties": {}},
            )
        self._before = self.snapshot()

    def snapshot(self) -> dict[str, Any]:
        """All that there is, by its id."""
        with self.arm.world.lock:
            self.arm.world.settle()
            return {key: (thing.tags, thing.state) for key, thing in self.arm.world.things.items()}

    def things(self, type_: str) -> list[dict[str, Any]]:
        """All of a type that the test did not begin with, as ARM shows them."""
        with self.arm.world.lock:
            ids = [thing.id for thing in self.arm.world.of(type_) if thing.id.key not in self._before]
        return [self.customer.get(str(id_)).body for id_ in ids]

    def one(self, type_: str) -> dict[str, Any]:
        found = self.things(type_)
        assert len(found) == 1, [row["id"] for row in found]
        return found[0]

    def machine(self) -> dict[str, Any]:
        return self.one(f"{COMPUTE}/virtualMachines")

    def data_disk(self) -> dict[str, Any]:
        [disk] = [row for row in self.things(f"{COMPUTE}/disks") if row["name"].endswith("-data")]
        return disk

    def power(self) -> str:
        view = self.customer.get(f"{self.machine()['id']}/instanceView").body
        return next(
            row["code"].partition("/")[2] for row in view["statuses"] if row["code"].startswith("PowerState/")
        )

    def one_of_everything(self) -> None:
        """One of each kind, all of one stack, wired to each other, and the machine runs."""
        assert {kind: len(self.things(kind)) for kind in ONE_OF_EACH} == ONE_OF_EACH
        rows = [row for kind in ONE_OF_EACH for row in self.things(kind) if not row["name"].endswith("-root")]
        assert len({row["tags"][naming.STACK_ID] for row in rows}) == 1
        assert {row["properties"]["provisioningState"] for row in rows} == {"Succeeded"}
        machine, disk = self.machine(), self.data_disk()
        attached = machine["properties"]["storageProfile"]["dataDisks"]
        assert [row["managedDisk"]["id"].lower() for row in attached] == [disk["id"].lower()]
        interface = self.one(f"{NETWORK}/networkInterfaces")
        assert interface["properties"]["virtualMachine"]["id"].lower() == machine["id"].lower()
        [configuration] = interface["properties"]["ipConfigurations"]
        address = self.one(f"{NETWORK}/publicIPAddresses")
        assert configuration["properties"]["publicIPAddress"]["id"].lower() == address["id"].lower()
        assert self.power() == "running"
        if not self.group:
            groups = {key for key in self.snapshot() if key not in self._before and key.count("/") == 4}
            assert len(groups) == 1

    def as_before(self) -> None:
        """All that was there before, and nothing else."""
        assert self.snapshot() == self._before

    def rules(self) -> set[tuple[int, str]]:
        """What the node's firewall lets in: (port, network)."""
        group = self.one(f"{NETWORK}/networkSecurityGroups")
        rows = [row["properties"] for row in group["properties"]["securityRules"]]
        return {
            (int(port), who)
            for row in rows
            if row["access"] == "Allow"
            for port in row.get("destinationPortRanges") or [row["destinationPortRange"]]
            for who in row.get("sourceAddressPrefixes") or [row["sourceAddressPrefix"]]
        }

    def address(self) -> str:
        return str(self.one(f"{NETWORK}/publicIPAddresses")["properties"]["ipAddress"])


def deploy(cli: Cli, *words: str) -> Ended:
    return cli(*DEPLOY, *words).ok()


__all__ = ["CLOUD", "DEPLOY", "ONE_OF_EACH", "OPEN", "REGION", "STAFF", "SUBSCRIPTION", "Account", "deploy"]
