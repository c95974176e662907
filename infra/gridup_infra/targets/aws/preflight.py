"""What would make a deploy to AWS fail, looked for before anything is created."""

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
"""As long as the management key, which is made in the deploy itself."""

HOME = "us-east-1"
"""Where an account is told of regions that are not enabled for it."""


def check(spec: DeploySpec, current: NodeOutputs | None) -> None:
    """Nothing, when nothing is in the way.

    Raises:
        CredentialsError: AWS does not know us, or not in this region.
        PreflightError: the region, the size, the subnet, an image or the quota is in the way.
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
    """Nothing, when a region's name is one.

    Raises:
        PreflightError: it is none that boto3 knows; near ones are named.
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
    """Nothing, unless credentials are refused because the region is not enabled for the account.

    Raises:
        PreflightError: that is so.
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
    """Look whether the machine can be told all that it must.

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
    """The new size of a machine, which stays in its zone."""
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
    """The refusal of a size that the region does not have, with those that are like it."""
    near = placement.similar_sizes(cloud, size)
    hint = f"Near it: {', '.join(near)}." if near else f"For example --size {naming.DEFAULT_SIZE}."
    return PreflightError(f"{cloud.region} has no size {size!r}.", hint)


def _quota(cloud: Cloud, spec: DeploySpec) -> None:
    """What the account may still have, as far as AWS tells."""
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
    """The answer, or None where AWS does not tell: these rights are not needed to deploy."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return ask()
    except (ClientError, BotoCoreError):
        return None


def _address_limit(cloud: Cloud) -> float | None:
    rows = cloud.ec2.describe_account_attributes(AttributeNames=["vpc-max-elastic-ips"])["AccountAttributes"]
    return next((float(row["AttributeValues"][0]["AttributeValue"]) for row in rows), None)
