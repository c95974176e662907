"""The providers of the AWS target's resources. The engine calls them; the other modules here do the work.

A data disk or a subnet is found by its tags and not by the id in the state: a launch in another zone may have
replaced it (see `instances`). All other resources are found by their id.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar

from pulumi.dynamic import CreateResult, DiffResult, ReadResult, UpdateResult

from gridup_infra.progress import report
from gridup_infra.targets.aws import (
    addresses,
    cleanup,
    client,
    firewall,
    instances,
    keypairs,
    kinds,
    naming,
    networks,
    placement,
    tags,
    volumes,
)
from gridup_infra.targets.aws.client import Cloud
from gridup_infra.targets.aws.kinds import ResourceKind, Thing
from gridup_infra.targets.dynamic import DRIFT, Properties, Provider, normalize_numbers, translate_errors
from gridup_node.vm.user_data import Host, user_data


class AwsProvider(Provider):
    """Base of the AWS providers.

    Attributes:
        replace_on: inputs whose change replaces the resource; `region` always does.
        delete_first: whether the former resource is deleted before its replacement is created.
    """

    replace_on: ClassVar[frozenset[str]] = frozenset()
    delete_first: ClassVar[bool] = True

    def diff(self, _id: str, olds: Properties, news: Properties) -> DiffResult:
        changed = self.changed(olds, news)
        return DiffResult(
            changes=bool(changed or olds.get(DRIFT)),
            replaces=[key for key in changed if key in self.replace_on | {"region"}],
            delete_before_replace=self.delete_first,
        )


def _cloud(props: Properties) -> AbstractContextManager[Cloud]:
    return client.connected(props["region"], str(props.get("account") or ""))


def _delete(props: Properties, work: Callable[[Cloud], None], vpc: str = "") -> None:
    """Delete a resource, unless an instance uses it that is not in the state.

    The create of such an instance was interrupted. Owner's delete then deletes both.

    Args:
        work: deletes the resource.
        vpc: the network of such an instance; empty for any network.
    """

    def delete() -> None:
        with _cloud(props) as cloud:
            strays = kinds.list_all(cloud, kinds.INSTANCE, tags.by_stack(props["stack_id"]))
            if not [row for row in strays if vpc in ("", row.get("VpcId"))]:
                work(cloud)

    translate_errors(delete)


class OwnerProvider(AwsProvider):
    """Provider of Owner; see the module docstring of `resources`."""

    computed = ("account",)

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            account, _ = client.identity(props["region"])
            return CreateResult(props["stack_id"], {**normalize_numbers(props), "account": account})

        return translate_errors(create)

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            client.same_account(props["region"], props["account"])
            return ReadResult(id_, props)

        return translate_errors(read)

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            client.same_account(news["region"], olds["account"])
            return UpdateResult({**normalize_numbers(news), **self.carry_over_computed(olds)})

        return translate_errors(update)

    def delete(self, _id: str, props: Properties) -> None:
        def delete() -> None:
            with _cloud(props) as cloud:
                cleanup.delete_all(cloud, props, keep_data=bool(props["keep_data"]))

        translate_errors(delete)


class PlacementProvider(AwsProvider):
    """Provider of Placement. It creates nothing on AWS: the choice is only stored in the state."""

    computed = ("zones", "all_zones", "image", "architecture", "vpc")

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            with _cloud(props) as cloud:
                return CreateResult(
                    props["project"], {**normalize_numbers(props), **placement.select_placement(cloud, props)}
                )

        return translate_errors(create)

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            with _cloud(news) as cloud:
                chosen = self._chosen(cloud, olds, news)
            return UpdateResult({**normalize_numbers(news), **chosen})

        return translate_errors(update)

    def _chosen(self, cloud: Cloud, olds: Properties, news: Properties) -> Properties:
        """Return the former choice, or a new one if the instance will be replaced."""
        if {"subnet_id", "machine_revision"} & set(self.changed(olds, news)):
            return placement.select_placement(cloud, news)
        if olds["size"] == news["size"]:
            return self.carry_over_computed(olds)
        told = placement.size_of(cloud, news["size"])
        if placement.architecture_of(news["size"], told) != olds["architecture"]:
            return placement.select_placement(cloud, news)
        return self.carry_over_computed(olds)


class _EnsureProvider(AwsProvider):
    """Base for a resource that is found by its id; create and update both ensure that it is there."""

    kind: ClassVar[ResourceKind]
    used: ClassVar[bool] = True
    """Whether an instance in the network `vpc` prevents the delete."""

    def ensure(self, cloud: Cloud, props: Properties) -> Thing:
        """Return the resource; create it if it does not exist."""
        raise NotImplementedError

    def told(self, found: Thing) -> Properties:
        """Return the values of `computed`."""
        raise NotImplementedError

    def drift(self, found: Thing, props: Properties) -> list[str]:  # noqa: ARG002
        """Return the drift of the resource, one line each."""
        return []

    def remove(self, cloud: Cloud, found: Thing) -> None:
        networks.remove(cloud, self.kind, found)

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            with _cloud(props) as cloud:
                found = self.ensure(cloud, props)
            return CreateResult(
                found[self.kind.id], {**normalize_numbers(props), **self.told(found), DRIFT: []}
            )

        return translate_errors(create)

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            with _cloud(news) as cloud:
                found = self.ensure(cloud, news)
            return UpdateResult({**normalize_numbers(news), **self.told(found), DRIFT: []})

        return translate_errors(update)

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with _cloud(props) as cloud:
                found = kinds.get(cloud, self.kind, id_)
            if found is None:
                return ReadResult("", {})
            return ReadResult(id_, {**props, DRIFT: self.drift(found, normalize_numbers(props))})

        return translate_errors(read)

    def delete(self, id_: str, props: Properties) -> None:
        def work(cloud: Cloud) -> None:
            if found := kinds.get(cloud, self.kind, id_):
                self.remove(cloud, found)

        if self.used:
            _delete(props, work, str(props["vpc"]))
        else:
            translate_errors(partial(self._delete, props, work))

    @staticmethod
    def _delete(props: Properties, work: Callable[[Cloud], None]) -> None:
        with _cloud(props) as cloud:
            work(cloud)


class VpcProvider(_EnsureProvider):
    kind = kinds.VPC
    computed = ("vpc",)

    def ensure(self, cloud: Cloud, props: Properties) -> Thing:
        return networks.vpc(cloud, props)

    def told(self, found: Thing) -> Properties:
        return {"vpc": found["VpcId"]}

    def delete(self, id_: str, props: Properties) -> None:
        def delete() -> None:
            with _cloud(props) as cloud:
                # If resources in it are in no state, Owner's delete deletes them, and then the VPC too.
                if not cleanup.within(cloud, props["stack_id"], id_):
                    networks.remove(cloud, kinds.VPC, {"VpcId": id_})

        translate_errors(delete)


class GatewayProvider(_EnsureProvider):
    kind = kinds.GATEWAY
    computed = ("gateway",)
    replace_on = frozenset({"vpc"})

    def ensure(self, cloud: Cloud, props: Properties) -> Thing:
        return networks.gateway(cloud, props)

    def told(self, found: Thing) -> Properties:
        return {"gateway": found["InternetGatewayId"]}

    def drift(self, found: Thing, props: Properties) -> list[str]:
        return networks.gateway_drift(found, props)


class RouteTableProvider(_EnsureProvider):
    kind = kinds.ROUTES
    computed = ("table",)
    replace_on = frozenset({"vpc"})

    def ensure(self, cloud: Cloud, props: Properties) -> Thing:
        return networks.routes(cloud, props)

    def told(self, found: Thing) -> Properties:
        return {"table": found["RouteTableId"]}

    def drift(self, found: Thing, props: Properties) -> list[str]:
        return networks.routes_drift(found, props)


class SecurityGroupProvider(_EnsureProvider):
    kind = kinds.GROUP
    computed = ("group",)
    replace_on = frozenset({"vpc"})
    # An instance in another network needs its own group before the former instance is deleted.
    delete_first = False

    def ensure(self, cloud: Cloud, props: Properties) -> Thing:
        return firewall.ensure(cloud, props)

    def told(self, found: Thing) -> Properties:
        return {"group": found["GroupId"]}

    def drift(self, found: Thing, props: Properties) -> list[str]:
        return firewall.drift(found, props)


class KeyPairProvider(_EnsureProvider):
    kind = kinds.KEY
    used = False
    replace_on = frozenset({"public_key"})
    sure = frozenset({"public_key"})

    def ensure(self, cloud: Cloud, props: Properties) -> Thing:
        return keypairs.ensure(cloud, props)

    def told(self, found: Thing) -> Properties:  # noqa: ARG002
        return {}


class AddressProvider(_EnsureProvider):
    kind = kinds.ADDRESS
    used = False
    computed = ("allocation", "address")

    def ensure(self, cloud: Cloud, props: Properties) -> Thing:
        return addresses.ensure(cloud, props)

    def told(self, found: Thing) -> Properties:
        return {"allocation": found["AllocationId"], "address": found["PublicIp"]}

    def remove(self, cloud: Cloud, found: Thing) -> None:
        addresses.release(cloud, found)


class SubnetProvider(AwsProvider):
    """Provider of Subnet: one subnet, and those that a launch in another zone added."""

    computed = ("subnet",)
    ignored = frozenset({"zones", "all_zones"})
    replace_on = frozenset({"vpc"})

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            with _cloud(props) as cloud:
                there = networks.subnets(cloud, props)
                found = there[0] if there else networks.subnet(cloud, props, props["zones"][0])
            return CreateResult(
                found["SubnetId"], {**normalize_numbers(props), "subnet": found["SubnetId"], DRIFT: []}
            )

        return translate_errors(create)

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        return UpdateResult({**normalize_numbers(news), **self.carry_over_computed(olds), DRIFT: []})

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with _cloud(props) as cloud:
                found = kinds.get(cloud, kinds.SUBNET, id_)
            return ReadResult(id_, props) if found else ReadResult("", {})

        return translate_errors(read)

    def delete(self, _id: str, props: Properties) -> None:
        def work(cloud: Cloud) -> None:
            for found in networks.subnets(cloud, props):
                networks.remove(cloud, kinds.SUBNET, found)

        _delete(props, work, str(props["vpc"]))


class VolumeProvider(AwsProvider):
    """Provider of Volume. With `keep_data`, its delete retains the disk for the next node of this name."""

    computed = ("volume",)
    ignored = frozenset({"zones"})

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            found = self._ensure(props)
            return CreateResult(found["VolumeId"], self._outs(props, found))

        return translate_errors(create)

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return translate_errors(lambda: UpdateResult(self._outs(news, self._ensure(news))))

    def read(self, _id: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with _cloud(props) as cloud:
                found = volumes.list_owned(cloud, props)
            if not found:
                return ReadResult("", {})
            id_ = str(found[0]["VolumeId"])
            small = int(found[0]["Size"]) < volumes.wanted_size(props)
            return ReadResult(id_, {**self._outs(props, found[0]), DRIFT: ["the disk is too small"] * small})

        return translate_errors(read)

    def delete(self, _id: str, props: Properties) -> None:
        def keep() -> None:
            with _cloud(props) as cloud:
                volumes.keep(cloud, props)

        if props["keep_data"]:
            translate_errors(keep)
        else:
            _delete(props, lambda cloud: volumes.remove(cloud, props))

    def _ensure(self, props: Properties) -> Thing:
        with _cloud(props) as cloud:
            return volumes.ensure(cloud, props, props["zones"][0])

    @staticmethod
    def _outs(props: Properties, found: Thing) -> Properties:
        return {**normalize_numbers(props), "volume": found["VolumeId"], DRIFT: []}


class InstanceProvider(AwsProvider):
    """Provider of Instance. An update changes the size in place; it never changes the user-data."""

    computed = ("instance", "zone", "private_address", "disk")
    ignored = frozenset({"zones", "all_zones", "image", "host", "routes", "vpc", "key", "disk_size"})
    replace_on = frozenset({"machine_revision", "subnet_id", "architecture", "volume"})

    def changed(self, olds: Properties, news: Properties) -> list[str]:
        found = super().changed(olds, news)
        # A launch in another zone uses another blank disk (`disk`) than the one in its inputs.
        return [key for key in found if not (key == "volume" and news["volume"] == olds.get("disk"))]

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            with _cloud(props) as cloud:
                found = instances.launch(
                    cloud,
                    props,
                    lambda disk: self._user_data(props, disk),
                    lambda text: report("instance", text),
                )
            return CreateResult(
                found["InstanceId"], {**normalize_numbers(props), **self._told(found), DRIFT: []}
            )

        return translate_errors(create)

    def update(self, id_: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            with _cloud(news) as cloud:
                instances.converge(cloud, id_, news, lambda text: report("instance", text))
            return UpdateResult({**normalize_numbers(news), **self.carry_over_computed(olds), DRIFT: []})

        return translate_errors(update)

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with _cloud(props) as cloud:
                found = kinds.get(cloud, kinds.INSTANCE, id_)
                mode = instances.credits_of(cloud, found) if found and props.get("cpu_credits") else ""
            if found is None:
                return ReadResult("", {})
            return ReadResult(id_, {**props, DRIFT: instances.drift(found, normalize_numbers(props), mode)})

        return translate_errors(read)

    def delete(self, id_: str, props: Properties) -> None:
        def delete() -> None:
            with _cloud(props) as cloud:
                instances.terminate(cloud, id_)

        translate_errors(delete)

    @staticmethod
    def _user_data(props: Properties, disk: str) -> bytes:
        told: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in normalize_numbers(props["host"]).items()
        }
        return user_data(Host(**told, disk=naming.disk_paths(disk)))

    @staticmethod
    def _told(found: Thing) -> Properties:
        return {
            "instance": found["InstanceId"],
            "zone": found["Placement"]["AvailabilityZone"],
            "private_address": found["PrivateIpAddress"],
            "disk": found["disk"],
        }


class AttachmentProvider(AwsProvider):
    """Provider of Attachment: waits until the instance runs, and attaches data disk and address to it."""

    replace_on = frozenset({"instance", "volume"})
    sure = frozenset({"instance"})

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            self._ensure(props)
            return CreateResult(
                f"{props['volume']}:{props['instance']}", {**normalize_numbers(props), DRIFT: []}
            )

        return translate_errors(create)

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            self._ensure(news)
            return UpdateResult({**normalize_numbers(news), DRIFT: []})

        return translate_errors(update)

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with _cloud(props) as cloud, ThreadPoolExecutor(max_workers=3) as pool:
                machine = pool.submit(kinds.get, cloud, kinds.INSTANCE, props["instance"])
                disk = pool.submit(kinds.get, cloud, kinds.VOLUME, props["volume"])
                address = pool.submit(kinds.get, cloud, kinds.ADDRESS, props["allocation"])
                if not machine.result() or not disk.result():
                    return ReadResult("", {})
                problems = []
                if volumes.attached_to(disk.result()) != props["instance"]:
                    problems.append("the data disk is not attached to the instance")
                if props["allocation"] and addresses.holder(address.result()) != props["instance"]:
                    problems.append("the address does not lead to the instance")
            return ReadResult(id_, {**props, DRIFT: problems})

        return translate_errors(read)

    def delete(self, _id: str, props: Properties) -> None:
        def delete() -> None:
            with _cloud(props) as cloud:
                if kinds.get(cloud, kinds.INSTANCE, props["instance"]) is None:
                    return
                # Programs on the instance use the disk.
                instances.stop(cloud, props["instance"], props["name"])
                volumes.detach(cloud, props["volume"], props["instance"])

        translate_errors(delete)

    def _ensure(self, props: Properties) -> None:
        machine, disk, allocation = props["instance"], props["volume"], props["allocation"]
        with _cloud(props) as cloud, ThreadPoolExecutor(max_workers=3) as pool:
            mark = pool.submit(volumes.mark_used, cloud, disk)
            if kinds.state_of(kinds.get(cloud, kinds.INSTANCE, machine) or {}) not in ("running", "stopped"):
                instances.running(cloud, machine)
            mark.result()
            attached = pool.submit(volumes.attach, cloud, disk, machine)
            if allocation:
                addresses.associate(cloud, allocation, machine)
            attached.result()
