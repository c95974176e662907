"""The Azure tests' provider does what the real one does: a product that passes here is not flattered."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc, status_pb2

from gridup_infra.processes import wait_until
from support import azure_native
from support.azure_native.server import Provider
from support.azure_native.values import UNKNOWN, plain
from support.provider_caller import Caller, Refused, urn
from support.small_arm import SUBSCRIPTION, SmallArm

pytestmark = pytest.mark.tier("deep", proves=("azure_native",))

NETWORK = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/inst/providers/Microsoft.Network"
TOKEN = "azure-native:network:"


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallArm]:
    with SmallArm() as arm:
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in arm.environment.items():
            monkeypatch.setenv(name, value)
        yield arm


@pytest.fixture
def call(arm: SmallArm) -> Caller:
    caller = Caller(Provider())
    caller.configure()
    return caller


ADDRESS = {
    "resourceGroupName": "inst",
    "publicIpAddressName": "inst",
    "location": "westeurope",
    "sku": {"name": "Standard"},
    "publicIPAllocationMethod": "Static",
    "dnsSettings": {"domainNameLabel": "inst-1234"},
    "tags": {"gridup:stack": "inst"},
}


# Configuration.


@pytest.mark.parametrize(
    ("without", "told"),
    [
        ("ARM_SUBSCRIPTION_ID", "A Subscription ID must be configured"),
        ("ARM_TENANT_ID", "A Tenant ID must be configured"),
        ("ARM_CLIENT_SECRET", "Azure CLI not found"),
        ("GRIDUP_TEST_ARM_ENDPOINT", "GRIDUP_TEST_ARM_ENDPOINT is not set"),
    ],
)
def test_the_provider_must_be_told_who_it_is(
    arm: SmallArm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, without: str, told: str
) -> None:
    monkeypatch.delenv(without)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match=told):
        Caller(Provider()).configure()


def test_the_azure_variables_count_only_where_the_provider_is_told_so(
    arm: SmallArm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"):
        monkeypatch.setenv(f"AZURE_{name}", arm.environment[f"ARM_{name}"])
        monkeypatch.delenv(f"ARM_{name}")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="Azure CLI not found"):
        Caller(Provider()).configure()
    call = Caller(Provider())
    call.configure(useDefaultAzureCredential="true", subscriptionId=SUBSCRIPTION)
    call.create(f"{TOKEN}PublicIPAddress", ADDRESS)
    assert arm.tokens == 1


def test_the_azure_cli_is_asked_where_nothing_is_said(
    arm: SmallArm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("SUBSCRIPTION_ID", "TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"):
        monkeypatch.delenv(f"ARM_{name}")
    az = tmp_path / "az"
    az.write_text(
        "#!/bin/sh\n"
        'case "$2" in\n'
        f'show) echo \'{{"id": "{SUBSCRIPTION}"}}\' ;;\n'
        'get-access-token) echo \'{"accessToken": "token", "expires_on": 4102444800}\' ;;\n'
        "esac\n"
    )
    az.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    call = Caller(Provider())
    call.configure()
    assert call.create(f"{TOKEN}PublicIPAddress", ADDRESS).id == f"{NETWORK}/publicIPAddresses/inst"
    assert arm.tokens == 0


def test_a_refused_secret_is_told_in_entras_words(arm: SmallArm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARM_CLIENT_SECRET", "wrong")
    call = Caller(Provider())
    call.configure()
    with pytest.raises(Refused, match="AADSTS7000215"):
        call.create(f"{TOKEN}PublicIPAddress", ADDRESS)


# Check.


def test_check_adds_the_api_version_and_takes_the_location_of_the_group(call: Caller, arm: SmallArm) -> None:
    call.create(
        "azure-native:resources:ResourceGroup", {"resourceGroupName": "inst", "location": "northeurope"}
    )
    said = {"resourceGroupName": "inst", "networkSecurityGroupName": "inst"}
    checked = plain(call.check(f"{TOKEN}NetworkSecurityGroup", said).inputs)
    assert checked == {**said, "location": "northeurope", "azureApiVersion": "2024-05-01"}
    checked = plain(call.check(f"{TOKEN}NetworkSecurityGroup", {**said, "resourceGroupName": UNKNOWN}).inputs)
    assert checked["location"] is UNKNOWN


def test_check_makes_up_a_name_and_keeps_it(call: Caller) -> None:
    type_ = "azure-native:resources:ResourceGroup"
    first = plain(call.check(type_, {"location": "westeurope"}, randomSeed=b"one").inputs)
    assert first["resourceGroupName"].startswith("thing")
    assert first["resourceGroupName"] != "thing"
    again = plain(call.check(type_, {"location": "westeurope"}, first, randomSeed=b"two").inputs)
    assert again == first


def test_check_refuses_what_is_missing_or_mistyped(call: Caller) -> None:
    def told(news: Any, type_: str) -> list[str]:
        return [failure.reason for failure in call.check(type_, news).failures]

    rule = {"networkSecurityGroupName": "inst", "securityRuleName": "ssh", "priority": "high"}
    assert told(rule, f"{TOKEN}SecurityRule") == [
        "missing required property 'resourceGroupName'",
        "'priority' should be of type 'integer' but got str",
    ]
    assert told({**ADDRESS, "sku": "Standard"}, f"{TOKEN}PublicIPAddress") == [
        "'sku' should be of type 'object' but got str"
    ]
    assert told({**ADDRESS, "zones": "1"}, f"{TOKEN}PublicIPAddress") == [
        "'zones' should be of type 'array' but got str"
    ]


def test_an_unknown_type_is_refused(call: Caller) -> None:
    with pytest.raises(Refused, match="Resource type azure-native:network:Moon not found"):
        call.check(f"{TOKEN}Moon", {})


# Diff.


@pytest.mark.parametrize(
    ("change", "replaces"),
    [
        ({"tags": {"gridup:stack": "other"}}, []),
        ({"dnsSettings": {"domainNameLabel": "other"}}, []),
        ({"sku": {"name": "Basic"}}, ["sku.name"]),
        ({"location": "northeurope"}, ["location"]),
        ({"publicIpAddressName": "other"}, ["publicIpAddressName"]),
        ({"resourceGroupName": "other"}, ["resourceGroupName"]),
    ],
)
def test_what_replaces_an_address(call: Caller, change: Any, replaces: list[str]) -> None:
    answer = call.diff(f"{TOKEN}PublicIPAddress", ADDRESS, {**ADDRESS, **change})
    assert answer.changes == provider_pb2.DiffResponse.DIFF_SOME
    assert list(answer.diffs) == list(change)
    assert list(answer.replaces) == replaces
    assert answer.deleteBeforeReplace == bool(replaces)


def test_no_change_is_none(call: Caller) -> None:
    answer = call.diff(f"{TOKEN}PublicIPAddress", ADDRESS, {**ADDRESS, "location": "West Europe"})
    assert answer.changes == provider_pb2.DiffResponse.DIFF_NONE


def test_the_api_version_of_the_state_counts_for_what_was_imported(call: Caller) -> None:
    news = {**ADDRESS, "azureApiVersion": "2024-05-01"}
    answer = call.diff(f"{TOKEN}PublicIPAddress", ADDRESS, news, state={"azureApiVersion": "2024-05-01"})
    assert answer.changes == provider_pb2.DiffResponse.DIFF_NONE


def test_what_is_said_later_as_it_was_all_the_time_does_not_replace(call: Caller) -> None:
    news = {**ADDRESS, "publicIPAddressVersion": "IPv4"}
    for there, replaces in (("IPv4", []), ("IPv6", ["publicIPAddressVersion"])):
        state = {"publicIPAddressVersion": there}
        assert list(call.diff(f"{TOKEN}PublicIPAddress", ADDRESS, news, state).replaces) == replaces


# Create, update, read, delete.


@pytest.mark.parametrize("style", ["at once", "operation", "location", "state"])
def test_a_create_looks_puts_follows_and_reads(call: Caller, arm: SmallArm, style: str) -> None:
    arm.style = style
    made = call.create(f"{TOKEN}PublicIPAddress", ADDRESS)
    path = f"{NETWORK}/publicIPAddresses/inst"
    assert made.id == path
    methods = [method for method, at, _, _ in arm.calls if at == path]
    assert methods[:2] == ["GET", "PUT"]
    assert methods[-1] == "GET"
    assert {query["api-version"] for _, _, query, _ in arm.calls} == {"2024-05-01"}
    state = plain(made.properties)
    assert state["provisioningState"] == "Succeeded"
    assert state["dnsSettings"] == {"domainNameLabel": "inst-1234"}
    assert state["azureApiVersion"] == "2024-05-01"
    assert arm.sent("inst") == {
        "location": "westeurope",
        "sku": {"name": "Standard"},
        "tags": {"gridup:stack": "inst"},
        "properties": {
            "publicIPAllocationMethod": "Static",
            "dnsSettings": {"domainNameLabel": "inst-1234"},
        },
    }


def test_what_exists_is_not_created(call: Caller, arm: SmallArm) -> None:
    path = f"{NETWORK}/publicIPAddresses/inst"
    arm.things[path.lower()] = {"id": path}
    with pytest.raises(Refused, match=f"cannot create already existing resource '{path}'"):
        call.create(f"{TOKEN}PublicIPAddress", ADDRESS)
    assert arm.made("PUT") == []


def test_a_preview_asks_nothing_and_knows_what_was_said(call: Caller, arm: SmallArm) -> None:
    known = plain(call.create(f"{TOKEN}PublicIPAddress", ADDRESS, preview=True).properties)
    assert arm.calls == []
    assert known["sku"]["name"] == "Standard"
    assert known["sku"]["tier"] is UNKNOWN
    assert known["ipAddress"] is UNKNOWN
    news = {**ADDRESS, "tags": {}}
    known = plain(
        call.update(f"{TOKEN}PublicIPAddress", {"name": "inst"}, ADDRESS, news, preview=True).properties
    )
    assert known["name"] == "inst"
    assert known["ipAddress"] is UNKNOWN
    assert arm.calls == []


def test_lists_that_are_resources_of_their_own_stay(call: Caller, arm: SmallArm) -> None:
    group = {"resourceGroupName": "inst", "networkSecurityGroupName": "inst", "location": "westeurope"}
    type_ = f"{TOKEN}NetworkSecurityGroup"
    made = call.create(type_, group)
    assert arm.sent("inst")["properties"] == {"securityRules": []}
    rule = {"name": "ssh", "properties": {"priority": 100}}
    arm.things[f"{NETWORK}/networkSecurityGroups/inst".lower()]["properties"]["securityRules"] = [rule]
    state = plain(made.properties)
    call.update(type_, state, group, {**group, "tags": {"a": "b"}})
    assert arm.sent("inst")["properties"]["securityRules"] == [rule]
    refreshed = call.read(type_, made.id, state, group)
    assert plain(refreshed.inputs) == {**group, "tags": {"a": "b"}}
    call.update(type_, state, group, {**group, "securityRules": []})
    assert arm.sent("inst")["properties"]["securityRules"] == []


def test_a_refresh_tells_what_was_changed_by_hand_and_no_defaults(call: Caller, arm: SmallArm) -> None:
    made = call.create(f"{TOKEN}PublicIPAddress", ADDRESS)
    state = plain(made.properties)
    there = arm.things[made.id.lower()]
    there["etag"] = "two"
    there["properties"]["ipConfiguration"] = {"id": "/nic"}
    same = call.read(f"{TOKEN}PublicIPAddress", made.id, state, ADDRESS)
    assert plain(same.inputs) == ADDRESS
    assert plain(same.properties)["etag"] == "two"
    there["tags"] = {}
    there["properties"]["idleTimeoutInMinutes"] = 30
    changed = call.read(f"{TOKEN}PublicIPAddress", made.id, state, ADDRESS)
    assert plain(changed.inputs) == {**ADDRESS, "tags": {}, "idleTimeoutInMinutes": 30}


def test_what_is_gone_has_no_id(call: Caller) -> None:
    assert call.read(f"{TOKEN}PublicIPAddress", f"{NETWORK}/publicIPAddresses/inst", {}, ADDRESS).id == ""


def test_an_import_takes_its_inputs_from_the_answer_and_the_id(call: Caller) -> None:
    made = call.create(f"{TOKEN}PublicIPAddress", {**ADDRESS, "ipTags": []})
    read = call.read(f"{TOKEN}PublicIPAddress", made.id.replace("resourceGroups", "RESOURCEGROUPS"))
    assert plain(read.inputs) == ADDRESS
    with pytest.raises(Refused, match="is not of the form"):
        call.read(f"{TOKEN}NetworkInterface", made.id)


@pytest.mark.parametrize("style", ["at once", "operation", "location"])
def test_a_delete_is_followed_and_what_is_gone_is_deleted(call: Caller, arm: SmallArm, style: str) -> None:
    made = call.create(f"{TOKEN}PublicIPAddress", ADDRESS)
    arm.style = style
    call.delete(f"{TOKEN}PublicIPAddress", made.id)
    assert arm.things == {}
    assert arm.operations or style == "at once"
    call.delete(f"{TOKEN}PublicIPAddress", made.id)


# Errors.


def test_a_refusal_is_told_in_arms_words(call: Caller, arm: SmallArm) -> None:
    arm.errors.append(("PUT", 409, "SkuNotAvailable"))
    with pytest.raises(Refused) as refused:
        call.create(f"{TOKEN}PublicIPAddress", ADDRESS)
    assert str(refused.value) == 'Status=409 Code="SkuNotAvailable" Message="It was made to fail."'
    assert call.context.metadata == ()


@pytest.mark.parametrize("style", ["operation", "state"])
def test_what_fails_after_it_was_accepted_is_kept_by_the_engine(
    call: Caller, arm: SmallArm, style: str
) -> None:
    arm.style, arm.fails = style, ("AllocationFailed", "No room.")
    with pytest.raises(Refused):
        call.create(f"{TOKEN}PublicIPAddress", ADDRESS)
    ((key, packed),) = call.context.metadata
    assert key == "grpc-status-details-bin"
    detail = provider_pb2.ErrorResourceInitFailed()
    assert status_pb2.Status.FromString(packed).details[0].Unpack(detail)
    assert detail.id == f"{NETWORK}/publicIPAddresses/inst"
    assert plain(detail.inputs) == ADDRESS
    assert plain(detail.properties)["sku"] == {"name": "Standard"}
    if style == "operation":
        assert list(detail.reasons) == ['Status=200 Code="AllocationFailed" Message="No room."']


@pytest.mark.parametrize(
    ("status", "code"), [(429, "TooManyRequests"), (503, ""), (409, "AnotherOperationInProgress")]
)
def test_what_may_pass_is_asked_again(call: Caller, arm: SmallArm, status: int, code: str) -> None:
    arm.errors += [("PUT", status, code)] * 2
    call.create(f"{TOKEN}PublicIPAddress", ADDRESS)
    assert len(arm.made("PUT")) == 3


def test_cancel_ends_every_wait(call: Caller, arm: SmallArm) -> None:
    arm.held.clear()
    path = f"{NETWORK}/publicIPAddresses/inst"
    with ThreadPoolExecutor(1) as pool:
        create = pool.submit(call.create, f"{TOKEN}PublicIPAddress", ADDRESS)
        assert wait_until(lambda: arm.made("PUT") == [path], timeout=10)
        assert call.provider.busy == 1
        call.provider.Cancel(Empty(), call.context)
        with pytest.raises(Refused, match="context canceled"):
            create.result(timeout=10)
    assert call.provider.busy == 0
    # Whether ARM took it nobody knows: the engine is told of no thing.
    assert call.context.metadata == ()


def test_what_was_accepted_when_it_was_cancelled_is_kept(call: Caller, arm: SmallArm) -> None:
    arm.style, arm.endless = "operation", True
    with ThreadPoolExecutor(1) as pool:
        create = pool.submit(call.create, f"{TOKEN}PublicIPAddress", ADDRESS)
        assert wait_until(lambda: arm.operations, timeout=10)
        call.provider.Cancel(Empty(), call.context)
        with pytest.raises(Refused, match="context canceled"):
            create.result(timeout=10)
    detail = provider_pb2.ErrorResourceInitFailed()
    assert status_pb2.Status.FromString(call.context.metadata[0][1]).details[0].Unpack(detail)
    assert detail.id == f"{NETWORK}/publicIPAddresses/inst"


# The process.


STARTS = """\
import subprocess, sys
plugin = subprocess.Popen([sys.argv[1], "127.0.0.1:1"], stdout=subprocess.PIPE, text=True)
print(plugin.pid, plugin.stdout.readline().strip(), flush=True)
sys.stdin.readline()
"""


def test_the_process_tells_its_port_and_ends_with_its_engine(arm: SmallArm, tmp_path: Path) -> None:
    plugin = azure_native.install(tmp_path)
    engine = subprocess.Popen(
        [sys.executable, "-c", STARTS, str(plugin)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert engine.stdin is not None
    assert engine.stdout is not None
    assert engine.stderr is not None
    with engine.stdin, engine.stdout:
        pid, port = engine.stdout.readline().split()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = provider_pb2_grpc.ResourceProviderStub(channel)
            assert stub.GetPluginInfo(Empty(), timeout=20).version == "3.29.0"
            with pytest.raises(grpc.RpcError) as unknown:
                stub.Handshake(provider_pb2.ProviderHandshakeRequest(), timeout=20)
            assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED
            stub.Configure(provider_pb2.ConfigureRequest(), timeout=20)
            with pytest.raises(grpc.RpcError) as refused:
                stub.Read(provider_pb2.ReadRequest(urn=urn(f"{TOKEN}Moon"), id="/x"), timeout=20)
            assert refused.value.details() == f"Resource type {TOKEN}Moon not found"
        engine.kill()
        engine.wait()
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists(), timeout=10)
    with engine.stderr:
        assert engine.stderr.read() == ""
