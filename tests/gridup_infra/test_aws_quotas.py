"""Which quota of vCPUs a size counts against, and what a used-up one is told as: no AWS."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gridup_infra.errors import PreflightError
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.aws import client, kinds, placement, preflight, quotas
from gridup_infra.targets.aws.client import Cloud

STANDARD = "L-1216C47A"


@pytest.mark.parametrize(
    ("sizes", "code"),
    [
        ("a1.large c7i.large d3en.xlarge h1.2xlarge i7ie.large im4gn.large is4gen.large", STANDARD),
        ("m7g.metal r8gd.large t3.large t4g.small z1d.large", STANDARD),
        ("g4dn.xlarge g6e.xlarge gr6.4xlarge vt1.3xlarge", "L-DB2E81BA"),
        ("p3.2xlarge p5en.48xlarge", "L-417A185B"),
        ("x1e.xlarge x2gd.large x8g.large", "L-7295265B"),
        ("f1.2xlarge f2.6xlarge", "L-74FC7D96"),
        ("inf1.xlarge inf2.xlarge", "L-1945791B"),
        ("trn1.2xlarge trn2.48xlarge", "L-2C3B7624"),
        ("dl1.24xlarge dl2q.24xlarge", "L-6E869C2A"),
        ("hpc7g.4xlarge hpc6id.32xlarge", "L-F7808C92"),
        ("u-6tb1.56xlarge u7i-12tb.224xlarge u7inh-32tb.480xlarge", "L-43DA4232"),
    ],
)
def test_each_class_has_a_quota_of_its_own(sizes: str, code: str) -> None:
    for size in sizes.split():
        found = quotas.quota_of(size)
        assert found is not None and found.code == code, size


@pytest.mark.parametrize("size", ["mac2.metal", "q1.large", "tx9.large", ""])
def test_of_an_unknown_family_nothing_is_known(size: str) -> None:
    assert quotas.quota_of(size) is None


def machine(size: str, cores: int, **more: str) -> dict[str, Any]:
    return {"InstanceType": size, "CpuOptions": {"CoreCount": cores, "ThreadsPerCore": 2}, **more}


def test_only_what_runs_of_the_class_counts() -> None:
    there = [
        machine("g5.xlarge", 2),
        machine("vt1.3xlarge", 6),
        machine("m5.large", 1),
        machine("g5.xlarge", 2, InstanceLifecycle="spot"),
        machine("mac2.metal", 4),
    ]
    accelerated, standard = quotas.quota_of("g5.xlarge"), quotas.quota_of("t3.large")
    assert accelerated and standard
    assert (quotas.vcpus(there, accelerated), quotas.vcpus(there, standard)) == (16, 2)


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, float]], list[str]]:
    """The look at quotas for a size of 4 vCPUs where 8 of each class run; which quotas were asked for."""

    def check(size: str, limits: dict[str, float]) -> list[str]:
        asked: list[str] = []

        def answer(ServiceCode: str, QuotaCode: str) -> dict[str, Any]:
            assert ServiceCode == "ec2"
            asked.append(QuotaCode)
            return {"Quota": {"Value": limits[QuotaCode]}}

        def every(_cloud: Cloud, kind: object, _filters: object) -> list[dict[str, Any]]:
            running = [machine(f"{quota.families[0]}1.x", 4) for quota in quotas.QUOTAS]
            return running if kind is kinds.INSTANCE else []

        ec2 = SimpleNamespace(describe_account_attributes=lambda **_: {"AccountAttributes": []})
        service = SimpleNamespace(get_service_quota=answer)
        monkeypatch.setattr(client, "client", lambda *_, **__: service)
        monkeypatch.setattr(kinds, "list_all", every)
        monkeypatch.setattr(placement, "size_of", lambda *_: {"VCpuInfo": {"DefaultVCpus": 4}})
        spec = DeploySpec("Inst", target="aws", region="eu-west-1", size=size)
        preflight._quota(cast("Cloud", SimpleNamespace(ec2=ec2)), spec)
        return asked

    return check


def test_the_quota_of_the_sizes_own_class_is_asked_for(
    look: Callable[[str, dict[str, float]], list[str]],
) -> None:
    for quota in quotas.QUOTAS:
        size = f"{quota.families[-1]}9.xlarge"
        assert look(size, {quota.code: 12}) == [quota.code]
        with pytest.raises(PreflightError) as refused:
            look(size, {quota.code: 11})
        assert refused.value.message == (
            f"The AWS account may run 11 vCPUs of the class {quota.name} in eu-west-1 and runs 8: "
            f"{size} needs 4."
        )
        assert quota.code in refused.value.suggestion


def test_a_size_of_an_unknown_family_is_not_refused(
    look: Callable[[str, dict[str, float]], list[str]],
) -> None:
    assert look("mac2.metal", {}) == []
