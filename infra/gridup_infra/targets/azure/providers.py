"""The providers of the few resources on Azure that are our own: Owner, Told, Kept, Grown, Taken,
Firewall, Running.

All else is made by Pulumi's azure-native.
"""

from __future__ import annotations

import base64
from typing import Any, ClassVar

from pulumi.dynamic import CreateResult, ReadResult, UpdateResult

from gridup_infra.errors import CredentialsError, ResourceError
from gridup_infra.targets.azure import cleanup, client, firewall, kinds, machines, naming, retained_disk
from gridup_infra.targets.base import NodeStatus
from gridup_infra.targets.dynamic import DRIFT, Properties, Provider, normalize_numbers, translate_errors
from gridup_node.vm.user_data import Host, user_data


class OwnerProvider(Provider):
    """The stack's mark; see the first lines of `resources`."""

    computed = ("subscription",)

    def changed(self, olds: Properties, news: Properties) -> list[str]:
        # On a machine that is set up for none, or names it in other letters, nothing is another.
        configured, had = str(news["default_subscription"] or ""), str(olds.get("subscription") or "")
        same = configured.lower() in ("", had.lower())
        return [key for key in super().changed(olds, news) if key != "default_subscription" or not same]

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            with client.connected(props["default_subscription"]) as arm:
                # Who is not let in shall hear of it before anything is made.
                require_subscription(arm)
            return CreateResult(
                props["stack_id"], {**normalize_numbers(props), "subscription": arm.subscription}
            )

        return translate_errors(create)

    def read(self, id_: str, props: Properties) -> ReadResult:
        return ReadResult(id_, props)

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            same_subscription(str(olds["subscription"]), str(news["default_subscription"]))
            return UpdateResult({**normalize_numbers(news), **self.carry_over_computed(olds)})

        return translate_errors(update)

    def delete(self, _id: str, props: Properties) -> None:
        def delete() -> None:
            with client.connected(props["subscription"]) as arm:
                cleanup.delete_all(arm, props, keep_data=bool(props["keep_data"]))

        translate_errors(delete)


def require_subscription(arm: client.Arm) -> dict[str, Any]:
    """What ARM tells of the subscription.

    Raises:
        CredentialsError: it is not there for these credentials, or is not enabled.
    """
    found = arm.get(arm.root, client.SUBSCRIPTIONS)
    if found is None:
        raise client.error_of_code("SubscriptionNotFound", "", arm.subscription)
    if found.get("state") not in ("Enabled", "PastDue"):
        raise CredentialsError(
            f"The Azure subscription {arm.subscription} is {found.get('state')}.",
            "Enable it in the portal, or set AZURE_SUBSCRIPTION_ID to another.",
        )
    return found


def same_subscription(had: str, configured: str) -> None:
    """Nothing, when this machine is set up for the subscription that a node is in, or for none.

    Raises:
        CredentialsError: it is set up for another one, in which the node would look as if it were gone.
    """
    if configured and configured.lower() != had.lower():
        raise CredentialsError(
            f"The node is in the Azure subscription {had}, and this machine is set up for {configured}.",
            "Set AZURE_SUBSCRIPTION_ID to the former.",
        )


class UserDataProvider(Provider):
    """What the VM is told at its first boot. Azure can't change it, so neither does a later deploy, unless
    it makes another VM."""

    computed = ("custom_data",)
    ignored = frozenset({"host"})

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(lambda: CreateResult(props["project"], self._told(props)))

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        if "machine_revision" in self.changed(olds, news):
            return translate_errors(lambda: UpdateResult(self._told(news)))
        return UpdateResult({**normalize_numbers(news), **self.carry_over_computed(olds)})

    @staticmethod
    def _told(props: Properties) -> Properties:
        told: dict[str, Any] = normalize_numbers(props["host"])
        host: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in told.items()
        }
        return {**normalize_numbers(props), "custom_data": base64.b64encode(user_data(Host(**host))).decode()}


class RetainedDiskProvider(Provider):
    """Which kept disk the node takes over: looked for once in its life."""

    computed = ("source", "size")

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            with client.connected(props["subscription"]) as arm:
                found = retained_disk.find(arm, props)
            return CreateResult(props["project"], {**normalize_numbers(props), **found})

        return translate_errors(create)

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        return UpdateResult({**normalize_numbers(news), **self.carry_over_computed(olds)})


class _EnsureProvider(Provider):
    """A provider that does the same when its thing is made as when it is changed.

    Attributes:
        id_of: the input that is the thing's id.
    """

    id_of: ClassVar[str] = "project"

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(lambda: CreateResult(props[self.id_of], self._ensure(props)))

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return translate_errors(lambda: UpdateResult(self._ensure(news)))

    def _ensure(self, props: Properties) -> Properties:
        """Bring it to what is asked. Returns its outputs."""
        raise NotImplementedError


class DiskSizeProvider(_EnsureProvider):
    """That a data disk which is a copy has its size, and is shut to others.

    Pulumi's provider changes a disk by sending all of it again, and Azure looks at a copy's source each time
    that it is sent, which may be gone. Here no more is sent than what changes.
    """

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with client.connected(props["subscription"]) as arm:
                disk = kinds.get(arm, props["group"], kinds.DISK, naming.data_disk_of(props["project"]))
            if disk is None:
                return ReadResult("", {})
            wrong = ["the data disk is smaller than it was asked to be, or others may export it"]
            return ReadResult(id_, {**props, DRIFT: wrong if self._missing(disk, props) else []})

        return translate_errors(read)

    def _ensure(self, props: Properties) -> Properties:
        name = naming.data_disk_of(props["project"])
        with client.connected(props["subscription"]) as arm:
            disk = kinds.get(arm, props["group"], kinds.DISK, name)
            if disk is None:
                raise ResourceError(f"The data disk {name} is gone.")
            if missing := self._missing(disk, props):
                where = kinds.path(arm, props["group"], kinds.DISK, name)
                arm.patch(where, kinds.DISK.api, {"properties": missing})
        return {**normalize_numbers(props), DRIFT: []}

    @staticmethod
    def _missing(disk: kinds.Thing, props: Properties) -> dict[str, Any]:
        """What of the disk is to be changed; one that was grown by hand stays so: a disk can't shrink."""
        had = disk.get("properties") or {}
        found: dict[str, Any] = {
            key: wanted for key, wanted in naming.DISK_ACCESS.items() if had.get(key) != wanted
        }
        size = int(props["size"])
        return {**found, "diskSizeGB": size} if retained_disk.size_of(disk) < size else found


class RetainedDiskCleanupProvider(_EnsureProvider):
    """That what was taken over is not there twice."""

    def _ensure(self, props: Properties) -> Properties:
        if props["source"]:
            with client.connected(props["subscription"]) as arm:
                retained_disk.remove(arm, props["source"])
        return normalize_numbers(props)  # type: ignore[no-any-return]


class ExclusiveRulesProvider(_EnsureProvider):
    """That the security group has no rules but ours: those are resources of their own, of which Pulumi would
    not see one more."""

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with client.connected(props["subscription"]) as arm:
                group = kinds.get(arm, props["group"], kinds.GROUP, props["project"])
            if group is None:
                return ReadResult("", {})
            found = firewall.unmanaged_rules(group, props["rules"])
            drift = [f"the firewall has a rule {name} that is not the node's" for name in found]
            return ReadResult(id_, {**props, DRIFT: drift})

        return translate_errors(read)

    def _ensure(self, props: Properties) -> Properties:
        with client.connected(props["subscription"]) as arm:
            group = kinds.get(arm, props["group"], kinds.GROUP, props["project"]) or {}
            for name in firewall.unmanaged_rules(group, props["rules"]):
                arm.delete(
                    kinds.child_path(arm, props["group"], kinds.GROUP, props["project"], name), client.NETWORK
                )
        return {**normalize_numbers(props), DRIFT: []}


class PowerStateProvider(_EnsureProvider):
    """That the VM runs: a deploy starts one that was stopped."""

    id_of = "machine"

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with client.connected(props["subscription"]) as arm:
                vm = machines.get(arm, props["group"], props["vm"])
            if vm is None:
                return ReadResult("", {})
            stopped = machines.power_of(vm) not in (NodeStatus.RUNNING, NodeStatus.STARTING)
            return ReadResult(id_, {**props, DRIFT: ["the VM is stopped"] if stopped else []})

        return translate_errors(read)

    def _ensure(self, props: Properties) -> Properties:
        with client.connected(props["subscription"]) as arm:
            machines.start(arm, props, props["name"])
        return {**normalize_numbers(props), DRIFT: []}
