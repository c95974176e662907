"""The providers of Gridup's own few resources on Azure: Owner, UserData, RetainedDisk, DiskSize,
RetainedDiskCleanup, ExclusiveRules, PowerState.

Pulumi's azure-native creates all other resources.
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
    """Provider of the stack's owner; see the first lines of `resources`."""

    computed = ("subscription",)

    def changed(self, olds: Properties, news: Properties) -> list[str]:
        # No change if this machine has no subscription set, or the ids differ only in upper and lower case.
        configured, had = str(news["default_subscription"] or ""), str(olds.get("subscription") or "")
        same = configured.lower() in ("", had.lower())
        return [key for key in super().changed(olds, news) if key != "default_subscription" or not same]

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            with client.connected(props["default_subscription"]) as arm:
                # Without access to the subscription, fail before any resource is created.
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
    """Return ARM's description of the subscription.

    Raises:
        CredentialsError: the subscription does not exist for these credentials, or is not enabled.
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
    """Check that this machine is set up for the node's subscription, or for none.

    Raises:
        CredentialsError: it is set up for another one, where the node would look as if it were gone.
    """
    if configured and configured.lower() != had.lower():
        raise CredentialsError(
            f"The node is in the Azure subscription {had}, and this machine is set up for {configured}.",
            "Set AZURE_SUBSCRIPTION_ID to the former.",
        )


class UserDataProvider(Provider):
    """Provider of the VM's user-data. Azure can't change it on a VM, so only a deploy with a new VM does."""

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
    """Provider that finds the retained disk which the node adopts. It searches only once, at create."""

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
    """Base of providers that do the same for create and update.

    Attributes:
        id_of: the input that becomes the resource's id.
    """

    id_of: ClassVar[str] = "project"

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(lambda: CreateResult(props[self.id_of], self._ensure(props)))

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return translate_errors(lambda: UpdateResult(self._ensure(news)))

    def _ensure(self, props: Properties) -> Properties:
        """Make the resource match its inputs. Returns its outputs."""
        raise NotImplementedError


class DiskSizeProvider(_EnsureProvider):
    """Provider that ensures the size of a data disk that is a copy, and that nobody can export the disk.

    azure-native updates a disk by sending all its properties again. Azure then checks the copy's source each
    time, and the source may be gone. This provider sends only the properties that change.
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
        """Return the properties to change. A disk that was enlarged by hand stays so: a disk can't shrink."""
        had = disk.get("properties") or {}
        found: dict[str, Any] = {
            key: wanted for key, wanted in naming.DISK_ACCESS.items() if had.get(key) != wanted
        }
        size = int(props["size"])
        return {**found, "diskSizeGB": size} if retained_disk.size_of(disk) < size else found


class RetainedDiskCleanupProvider(_EnsureProvider):
    """Provider that deletes the adopted retained disk, so that its data does not exist twice."""

    def _ensure(self, props: Properties) -> Properties:
        if props["source"]:
            with client.connected(props["subscription"]) as arm:
                retained_disk.remove(arm, props["source"])
        return normalize_numbers(props)  # type: ignore[no-any-return]


class ExclusiveRulesProvider(_EnsureProvider):
    """Provider that deletes all rules of the security group that are not Gridup's.

    Each rule is a Pulumi resource of its own, so Pulumi would not notice an additional rule.
    """

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
    """Provider that ensures that the VM runs: a deploy starts a stopped VM."""

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
