"""The product's own program, each of whose resources the provider makes in the emulator: without an engine.

What takes minutes under the engine is seen here in a second: that ARM takes each body, that a refresh of what
nobody touched finds nothing, and that what is imported after an interrupted create need not be replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from gridup_infra.spec import DeploySpec
from gridup_infra.targets.azure import AzureTarget, resources
from gridup_infra.targets.azure.providers import UserDataProvider
from support.arm import SUBSCRIPTION, Arm
from support.azure_native import kinds
from support.azure_native.server import Provider
from support.azure_native.values import plain
from support.declaring import declared
from support.provider_caller import Caller

pytestmark = pytest.mark.tier("gate")

SUBNET = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/theirs/providers/Microsoft.Network/virtualNetworks/lab"
    "/subnets/machines"
)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHEqQrwX+uyY52PLpPQ4uZA9s1YZ+hqp0f9ra4Tu6M8H gridup"


class Engine(pulumi.runtime.Mocks):
    """Makes what a program declares: Azure's own by the provider; of ours, what they would tell.

    Attributes:
        made: Azure's resources by name, as (type, id, inputs, outputs).
    """

    def __init__(self) -> None:
        self.provider = Caller(Provider())
        self.made: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {}

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], None]:
        raise AssertionError(args.token)

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        if args.typ == "pulumi:providers:azure-native":
            self.provider.configure(**{k: v for k, v in args.inputs.items() if isinstance(v, str)})
        if args.typ not in kinds.KINDS:
            return args.name, {**args.inputs, **self._ours(args)}
        checked = self.provider.check(args.typ, args.inputs)
        assert not checked.failures, checked.failures
        inputs = plain(checked.inputs)
        made = self.provider.create(args.typ, inputs)
        outputs = plain(made.properties)
        self.made[args.name] = (args.typ, made.id, inputs, outputs)
        return made.id, outputs

    @staticmethod
    def _ours(args: pulumi.runtime.MockResourceArgs) -> dict[str, Any]:
        if args.name == "user-data":
            return UserDataProvider().create(args.inputs).outs
        return {
            "owner": {"subscription": SUBSCRIPTION},
            "management-key": {"public_key": KEY, "private_key": "s3cret"},
            "retained-disk": {"source": "", "size": 0},
        }.get(args.name, {})


Run = Callable[..., Engine]


@pytest.fixture
def run(azure: Arm) -> Run:
    def ran(**how: Any) -> Engine:
        asked = {"allow_cidr": ("203.0.113.7/32", "2001:db8::/32"), "no_node": True, "region": "westeurope"}
        wanted = DeploySpec("Inst", target="azure", stack_id="0123456789abcdef", **{**asked, **how})
        spec = AzureTarget().resolve(wanted, None)
        engine = Engine()
        declared(engine, lambda: resources.build(spec), spec.stack)
        return engine

    return ran


def others(provider: Caller) -> None:
    """A group and a network that were there before."""
    group = {"resourceGroupName": "theirs", "location": "westeurope"}
    provider.create("azure-native:resources:ResourceGroup", group)
    network = {
        **group,
        "virtualNetworkName": "lab",
        "addressSpace": {"addressPrefixes": ["10.9.0.0/16"]},
        "subnets": [{"name": "machines", "addressPrefix": "10.9.0.0/24"}],
    }
    provider.create("azure-native:network:VirtualNetwork", network)


@pytest.mark.parametrize(
    "how",
    [{}, {"resource_group": "theirs"}, {"subnet_id": SUBNET, "private": True}, {"keep_data": True}],
    ids=["all of its own", "group of others", "subnet of others", "kept data"],
)
def test_arm_takes_it_all_and_finds_it_again(azure: Arm, run: Run, how: dict[str, Any]) -> None:
    provider = Caller(Provider())
    provider.configure()
    others(provider)
    engine = run(**how)
    assert "machine" in engine.made
    assert not [call for call in azure.calls if call.status >= 400 and call.status != 404]
    for name, (type_, id_, inputs, outputs) in engine.made.items():
        read = provider.read(type_, id_, outputs, inputs)
        assert plain(read.inputs) == inputs, name
        # By `import`, and as the engine settles a create that was interrupted: with the inputs, and no state.
        for known in (None, inputs):
            read = provider.read(type_, id_, {}, known)
            told = provider.diff(type_, plain(read.inputs), inputs, plain(read.properties))
            assert list(told.replaces) == [], name
            # An update then mends what could not be read, and ARM takes that too.
            mended = provider.update(type_, plain(read.properties), plain(read.inputs), inputs)
            again = provider.read(type_, id_, plain(mended.properties), inputs)
            assert plain(again.inputs) == inputs, name
    for type_, id_, *_ in reversed(engine.made.values()):
        provider.delete(type_, id_)
    assert {thing.id.group for thing in azure.world.things.values()} == {"theirs"}
