"""The providers of the few resources on Azure that are our own: Owner, Told, Kept, Taken, Firewall,
Running.

All else is made by Pulumi's azure-native.
"""

from __future__ import annotations

import base64
from typing import Any

from pulumi.dynamic import CreateResult, ReadResult, UpdateResult

from gridup_infra.errors import CredentialsError
from gridup_infra.targets.azure import client, firewall, keeping, kinds, machines, sweeping
from gridup_infra.targets.base import Power
from gridup_infra.targets.dynamic import DRIFT, CloudProvider, Properties, guarded, plain
from gridup_node.vm.user_data import Host, user_data


class OwnerProvider(CloudProvider):
    """The stack's mark; see the first lines of `resources`."""

    tells = ("subscription",)

    def changed(self, olds: Properties, news: Properties) -> list[str]:
        # On a machine that is set up for none, or names it in other letters, nothing is another.
        configured, had = str(news["configured"] or ""), str(olds.get("subscription") or "")
        same = configured.lower() in ("", had.lower())
        return [key for key in super().changed(olds, news) if key != "configured" or not same]

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            with client.connected(props["configured"]) as arm:
                # Who is not let in shall hear of it before anything is made.
                known(arm)
            return CreateResult(props["stack_id"], {**plain(props), "subscription": arm.subscription})

        return guarded(create)

    def read(self, id_: str, props: Properties) -> ReadResult:
        return ReadResult(id_, props)

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            same_subscription(str(olds["subscription"]), str(news["configured"]))
            return UpdateResult({**plain(news), **self.kept(olds)})

        return guarded(update)

    def delete(self, _id: str, props: Properties) -> None:
        def delete() -> None:
            with client.connected(props["subscription"]) as arm:
                sweeping.sweep(arm, props, keep_data=bool(props["keep_data"]))

        guarded(delete)


def known(arm: client.Arm) -> dict[str, Any]:
    """What ARM tells of the subscription.

    Raises:
        CredentialsError: it is not there for these credentials, or is not enabled.
    """
    found = arm.get(arm.root, client.SUBSCRIPTIONS)
    if found is None:
        raise client.explained("SubscriptionNotFound", "", arm.subscription)
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


class ToldProvider(CloudProvider):
    """What the VM is told at its first boot. Azure can't change it, so neither does a later deploy, unless
    it makes another VM."""

    tells = ("custom_data",)
    ignored = frozenset({"host"})

    def create(self, props: Properties) -> CreateResult:
        return guarded(lambda: CreateResult(props["project"], self._told(props)))

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        if "generation" in self.changed(olds, news):
            return guarded(lambda: UpdateResult(self._told(news)))
        return UpdateResult({**plain(news), **self.kept(olds)})

    @staticmethod
    def _told(props: Properties) -> Properties:
        told: dict[str, Any] = plain(props["host"])
        host: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in told.items()
        }
        return {**plain(props), "custom_data": base64.b64encode(user_data(Host(**host))).decode()}


class KeptProvider(CloudProvider):
    """Which kept disk the node takes over: looked for once in its life."""

    tells = ("source", "size")

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            with client.connected(props["subscription"]) as arm:
                found = keeping.find(arm, props)
            return CreateResult(props["project"], {**plain(props), **found})

        return guarded(create)

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        return UpdateResult({**plain(news), **self.kept(olds)})


class TakenProvider(CloudProvider):
    """That what was taken over is not there twice."""

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            if props["source"]:
                with client.connected(props["subscription"]) as arm:
                    keeping.remove(arm, props["source"])
            return CreateResult(props["project"], plain(props))

        return guarded(create)

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return UpdateResult(plain(news))


class FirewallProvider(CloudProvider):
    """That the security group has no rules but ours: those are resources of their own, of which Pulumi would
    not see one more."""

    def create(self, props: Properties) -> CreateResult:
        return guarded(lambda: CreateResult(props["project"], self._ensure(props)))

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return guarded(lambda: UpdateResult(self._ensure(news)))

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with client.connected(props["subscription"]) as arm:
                group = kinds.get(arm, props["group"], kinds.GROUP, props["project"])
            if group is None:
                return ReadResult("", {})
            found = firewall.strangers(group, props["rules"])
            drift = [f"the firewall has a rule {name} that is not the node's" for name in found]
            return ReadResult(id_, {**props, DRIFT: drift})

        return guarded(read)

    @staticmethod
    def _ensure(props: Properties) -> Properties:
        with client.connected(props["subscription"]) as arm:
            group = kinds.get(arm, props["group"], kinds.GROUP, props["project"]) or {}
            for name in firewall.strangers(group, props["rules"]):
                arm.delete(
                    kinds.part(arm, props["group"], kinds.GROUP, props["project"], name), client.NETWORK
                )
        return {**plain(props), DRIFT: []}


class RunningProvider(CloudProvider):
    """That the VM runs: a deploy starts one that was stopped."""

    def create(self, props: Properties) -> CreateResult:
        return guarded(lambda: CreateResult(props["machine"], self._ensure(props)))

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return guarded(lambda: UpdateResult(self._ensure(news)))

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with client.connected(props["subscription"]) as arm:
                vm = machines.get(arm, props["group"], props["vm"])
            if vm is None:
                return ReadResult("", {})
            stopped = machines.power_of(vm) not in (Power.RUNNING, Power.STARTING)
            return ReadResult(id_, {**props, DRIFT: ["the VM is stopped"] if stopped else []})

        return guarded(read)

    @staticmethod
    def _ensure(props: Properties) -> Properties:
        with client.connected(props["subscription"]) as arm:
            machines.start(arm, props)
        return {**plain(props), DRIFT: []}
