"""A node's resources, made by the real program, our providers and the tests' azure-native; no engine."""

from __future__ import annotations

from typing import Any

import pulumi

from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.azure import providers, resources
from gridup_infra.vm.providers import ManagementKeyProvider
from support.arm import SUBSCRIPTION
from support.azure_native.server import Provider
from support.azure_native.values import plain
from support.declaring import declared
from support.provider_caller import Caller

OURS = {
    "Owner": providers.OwnerProvider(),
    "UserData": providers.UserDataProvider(),
    "RetainedDisk": providers.RetainedDiskProvider(),
    "DiskSize": providers.DiskSizeProvider(),
    "RetainedDiskCleanup": providers.RetainedDiskCleanupProvider(),
    "PowerState": providers.PowerStateProvider(),
    "ExclusiveRules": providers.ExclusiveRulesProvider(),
    "ManagementKey": ManagementKeyProvider(),
}


class Parts(pulumi.runtime.Mocks):
    """What the program declares, really made.

    Attributes:
        made: by name: type, id, inputs as checked, state.
    """

    def __init__(self) -> None:
        self.caller = Caller(Provider())
        self.caller.configure(useDefaultAzureCredential="true", subscriptionId=SUBSCRIPTION)
        self.made: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {}

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], None]:
        raise AssertionError(args.token)

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        if args.typ.startswith("pulumi:"):
            return args.name, args.inputs
        if args.typ.startswith("azure-native:"):
            checked = self.caller.check(args.typ, args.inputs)
            assert not checked.failures, checked.failures
            inputs = plain(checked.inputs)
            created = self.caller.create(args.typ, inputs)
            self.made[args.name] = (args.typ, created.id, inputs, plain(created.properties))
            return created.id, plain(created.properties)
        own = OURS[args.typ.rpartition(":")[2]].create(args.inputs)
        self.made[args.name] = (args.typ, own.id, args.inputs, dict(own.outs or {}))
        return own.id, dict(own.outs or {})

    def deploy(self, spec: DeploySpec) -> NodeOutputs:
        """Run the program."""
        made: NodeOutputs = declared(self, lambda: resources.build(spec), spec.stack)
        return made

    def refresh(self) -> dict[str, list[str]]:
        """What of Azure's own is not as defined, by name."""
        changed = {}
        for name, (type_, id_, inputs, state) in self.made.items():
            if type_.startswith("azure-native:"):
                now = self.caller.read(type_, id_, state, inputs)
                if not now.id:
                    changed[name] = ["gone"]
                elif keys := sorted(self.caller.diff(type_, plain(now.inputs), inputs, state).diffs):
                    changed[name] = keys
        return changed

    def destroy(self) -> None:
        """All of it, in the reverse order."""
        for name, (type_, id_, _, state) in reversed(self.made.items()):
            if type_.startswith("azure-native:"):
                self.caller.delete(type_, id_)
            elif name == "owner":
                OURS["Owner"].delete(id_, state)
