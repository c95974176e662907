"""Checks for problems that would make a deploy to AWS fail, before anything is created."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gridup_infra.errors import CredentialsError, PreflightError, ResourceError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.aws import client, kinds, naming, placement, quotas
from gridup_infra.targets.aws.client import Cloud, connected
from gridup_infra.vm import node as machine_node
from gridup_node.vm.user_data import user_data

SAMPLE_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA gridup"
"""As long as the management key, which the deploy itself creates later."""

HOME = "us-east-1"
"""The region whose API reports which regions are not enabled for an account."""


def check(spec: DeploySpec, current: NodeOutputs | None) -> None:
    """Check that nothing prevents the deploy.

    Raises:
        CredentialsError: AWS does not accept the credentials, or not in this region.
        PreflightError: the region, the user-data, the size, the subnet, an image or a quota prevents it.
    """
    known_region(spec.region)
    _fits(spec)
    try:
        client.identity(spec.region)
    except CredentialsError as error:
        enabled(spec.region, error)
        raise
    account = current.facts.get("account", "") if current else ""
    try:
        with connected(spec.region, account) as cloud:
            if current is None:
                with ThreadPoolExecutor(max_workers=2) as pool:
                    quota = pool.submit(_quota, cloud, spec)
                    _place(cloud, spec)
                    quota.result()
            elif _other_machine(spec, current.spec):
                _place(cloud, spec)
            elif spec.size != current.spec.size:
                _size(cloud, spec, current.facts.get("zone", ""))
    except ResourceError as error:
        raise PreflightError(error.message, error.suggestion) from None


def _other_machine(spec: DeploySpec, before: DeploySpec) -> bool:
    return (spec.machine_revision, spec.subnet_id) != (before.machine_revision, before.subnet_id)


def known_region(region: str) -> None:
    """Check that a region exists.

    Raises:
        PreflightError: boto3 does not know the region; the suggestion names similar ones.
    """
    with client.map_errors(region):
        import boto3

        session = boto3.session.Session()
        every = [
            name
            for partition in session.get_available_partitions()
            for name in session.get_available_regions("ec2", partition_name=partition)
        ]
    if region not in every:
        near = difflib.get_close_matches(region, every, n=3, cutoff=0.6)
        hint = f"Did you mean {' or '.join(near)}?" if near else "For example --region eu-west-1."
        raise PreflightError(f"{region!r} is not a region of AWS.", hint)


def enabled(region: str, error: CredentialsError) -> None:
    """Check whether AWS refuses the credentials because the region is not enabled for the account.

    Args:
        error: the refusal.

    Raises:
        PreflightError: the region is not enabled.
    """
    if "does not accept" not in error.message or region == HOME:
        return
    try:
        with connected(HOME) as cloud:
            rows = cloud.ec2.describe_regions(RegionNames=[region], AllRegions=True)["Regions"]
    except (CredentialsError, ResourceError):
        return
    if rows and rows[0].get("OptInStatus") == "not-opted-in":
        raise PreflightError(
            f"The region {region} is not enabled in this AWS account.",
            "Enable it in the console (Account, AWS Regions), or choose another --region.",
        )


def _fits(spec: DeploySpec) -> None:
    """Check that the user-data fits.

    Raises:
        PreflightError: the user-data would be too long.
    """
    try:
        user_data(machine_node.host(spec, SAMPLE_KEY, naming.disk_paths(naming.ANY_VOLUME)))
    except ValueError as error:
        raise PreflightError(f"The machine can't be told all of this: {error}.") from None


def _place(cloud: Cloud, spec: DeploySpec) -> None:
    props = {
        **naming.common(spec),
        "size": spec.size,
        "subnet_id": spec.subnet_id,
        "volume_urn": naming.volume_urn(spec.stack),
    }
    try:
        placement.select_placement(cloud, props)
    except placement.UnknownSizeError:
        raise unknown_size(cloud, spec.size) from None


def _size(cloud: Cloud, spec: DeploySpec, zone: str) -> None:
    """Check the new size of an instance, which stays in its zone."""
    told = placement.size_of(cloud, spec.size)
    if told is None:
        raise unknown_size(cloud, spec.size)
    placement.architecture_of(spec.size, told)
    offering = placement.zones_with(cloud, spec.size)
    if zone and zone not in offering:
        elsewhere = f"; {', '.join(offering)} do" if offering else ""
        raise PreflightError(
            f"{zone}, where the node and its data are, does not offer {spec.size}{elsewhere}.",
            "Choose another --size.",
        )


def unknown_size(cloud: Cloud, size: str) -> PreflightError:
    """Return the error for a size that the region does not have; it names similar sizes."""
    near = placement.similar_sizes(cloud, size)
    hint = f"Near it: {', '.join(near)}." if near else f"For example --size {naming.DEFAULT_SIZE}."
    return PreflightError(f"{cloud.region} has no size {size!r}.", hint)


def _quota(cloud: Cloud, spec: DeploySpec) -> None:
    """Check the account's quotas for vCPUs and elastic IPs, as far as AWS reports them."""
    quota = quotas.quota_of(spec.size)
    with ThreadPoolExecutor(max_workers=5) as pool:
        wanted = pool.submit(placement.size_of, cloud, spec.size)
        limit = pool.submit(_told, lambda: quotas.limit(spec.region, quota) if quota else None)
        used = pool.submit(_told, lambda: quotas.in_use(cloud, quota) if quota else None)
        most = pool.submit(_told, lambda: _address_limit(cloud))
        taken = pool.submit(_told, lambda: len(kinds.list_all(cloud, kinds.ADDRESS, [])))
    vcpus = int((wanted.result() or {}).get("VCpuInfo", {}).get("DefaultVCpus") or 0)
    most_vcpus, running = limit.result(), used.result()
    if quota and most_vcpus is not None and running is not None and running + vcpus > most_vcpus:
        raise PreflightError(
            f"The AWS account may run {most_vcpus:g} vCPUs of the class {quota.name} in {spec.region} and "
            f"runs {running:g}: {spec.size} needs {vcpus}.",
            "Choose a --size that is smaller or of another class, another --region, or ask AWS for more "
            f"(Service Quotas, EC2, {quota.code}).",
        )
    addresses, had = most.result(), taken.result()
    if not spec.private and addresses is not None and had is not None and had >= addresses:
        raise PreflightError(
            f"The AWS account has {had:g} of {addresses:g} elastic IPs in {spec.region}.",
            "Release one, ask AWS for more (Service Quotas, EC2), or choose another --region.",
        )


def _told(ask: Callable[[], float | None]) -> float | None:
    """Return the answer; None if AWS does not give it: a deploy does not need these permissions."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return ask()
    except (ClientError, BotoCoreError):
        return None


def _address_limit(cloud: Cloud) -> float | None:
    rows = cloud.ec2.describe_account_attributes(AttributeNames=["vpc-max-elastic-ips"])["AccountAttributes"]
    return next((float(row["AttributeValues"][0]["AttributeValue"]) for row in rows), None)
