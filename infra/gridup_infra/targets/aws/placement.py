"""Where a node is placed: the zones that offer its size, and the region's image.

The placement is chosen once, before any resource that is bound to a zone, and stored in the state: a newer
image or another zone must not replace a running instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gridup_infra.errors import ResourceError
from gridup_infra.targets.aws import kinds, volumes
from gridup_infra.targets.aws.client import Cloud, code_of
from gridup_infra.targets.aws.kinds import Thing

DEBIAN_OWNER = "136693071363"
"""Debian's own account (https://wiki.debian.org/Cloud/AmazonEC2Image/Trixie)."""

IMAGES = {"x86_64": "debian-13-amd64-*", "arm64": "debian-13-arm64-*"}
"""Architecture of a size, as EC2 names it -> name pattern of Debian's images."""

NEAR = 8
"""How many similar sizes an error names."""


class UnknownSizeError(ResourceError):
    """The error for a size that the region does not have."""


def select_placement(cloud: Cloud, props: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the placement of a new instance.

    Returns:
        `zones`: those to try, in this order. `all_zones`: all that are open to the account. `architecture`.
        `image`: see `newest_image`. `vpc`: that of a given subnet; else empty.

    Raises:
        ResourceError: the size or an image is not available, or no zone that offers the size fits the data
            disk and a given subnet.
    """
    size, given = props["size"], props["subnet_id"]
    with ThreadPoolExecutor(max_workers=5) as pool:
        told = pool.submit(size_of, cloud, size)
        offering = pool.submit(zones_with, cloud, size)
        open_zones = pool.submit(zones, cloud)
        newest = pool.submit(images, cloud)
        disk = pool.submit(volumes.find_owned_or_retained, cloud, props)
        subnet = pool.submit(subnet_of, cloud, given) if given else None
        architecture = architecture_of(size, told.result())
        usable = [zone for zone in offering.result() if zone in open_zones.result()]
        chosen: dict[str, Any] = {
            "zones": usable,
            "all_zones": open_zones.result(),
            "architecture": architecture,
            "image": newest_image(newest.result(), architecture, cloud.region),
            "vpc": "",
        }
        if subnet:
            chosen |= {"zones": [subnet.result()["AvailabilityZone"]], "vpc": subnet.result()["VpcId"]}
        data = disk.result()
    if data and volumes.holds_data(data):
        chosen["zones"] = [zone for zone in chosen["zones"] if zone == data["AvailabilityZone"]]
    check_zones(cloud.region, props, usable, chosen["zones"], data)
    return chosen


def check_zones(
    region: str, props: Mapping[str, Any], usable: list[str], left: list[str], data: Thing | None
) -> None:
    """Check that a zone is left that offers the size.

    Args:
        usable: the zones that offer the size.
        left: the zones that a given subnet and the data disk `data` leave.

    Raises:
        ResourceError: no zone is left; the message says why.
    """
    size = props["size"]
    if data and volumes.holds_data(data) and not left:
        raise ResourceError(
            f"The node's data disk is in {data['AvailabilityZone']}, where {size} can't be had"
            + (f" in the subnet {props['subnet_id']}." if props["subnet_id"] else "."),
            "Choose another --size" + (", or a subnet of that zone." if props["subnet_id"] else "."),
        )
    if not usable:
        raise ResourceError(
            f"No zone of {region} offers {size} now.", "Choose another --size, or another --region."
        )
    if left and not set(left) & set(usable):
        raise ResourceError(
            f"The subnet {props['subnet_id']} is in {left[0]}, which does not offer {size}.",
            f"Choose another --size, or a subnet in {' or '.join(usable)}.",
        )


def size_of(cloud: Cloud, size: str) -> Thing | None:
    """Return EC2's description of a size; None if the region does not have the size."""
    try:
        rows = cloud.ec2.describe_instance_types(InstanceTypes=[size])["InstanceTypes"]
    except Exception as error:
        if code_of(error) in ("InvalidInstanceType", "InvalidParameterValue"):
            return None
        raise
    return rows[0] if rows else None


def architecture_of(size: str, told: Thing | None) -> str:
    """Return the architecture that an image for the size must have.

    Args:
        told: the result of `size_of`.

    Raises:
        ResourceError: the size does not exist, or Debian has no image for it.
    """
    if told is None:
        raise UnknownSizeError(f"There is no size {size!r} here.", "For example --size t3.large.")
    known = told.get("ProcessorInfo", {}).get("SupportedArchitectures") or ()
    for architecture in IMAGES:
        if architecture in known:
            return architecture
    raise ResourceError(
        f"{size} runs {' and '.join(known) or 'nothing that is known'}; Debian is there for "
        f"{' and '.join(IMAGES)}.",
        "For example --size t3.large or t4g.large.",
    )


def zones_with(cloud: Cloud, size: str) -> list[str]:
    """Return the zones of the region that offer a size."""
    rows = cloud.ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [size]}]
    )["InstanceTypeOfferings"]
    return sorted(row["Location"] for row in rows)


def zones(cloud: Cloud) -> list[str]:
    """Return the region's ordinary zones that are open to this account: no Local or Wavelength Zone."""
    rows = cloud.ec2.describe_availability_zones(Filters=[{"Name": "state", "Values": ["available"]}])
    return sorted(
        row["ZoneName"]
        for row in rows["AvailabilityZones"]
        if row.get("ZoneType", "availability-zone") == "availability-zone"
    )


def images(cloud: Cloud) -> list[Thing]:
    """Return Debian's images for the region."""
    answer = cloud.ec2.describe_images(
        Owners=[DEBIAN_OWNER],
        Filters=[
            {"Name": "name", "Values": list(IMAGES.values())},
            {"Name": "state", "Values": ["available"]},
        ],
    )
    found: list[Thing] = answer["Images"]
    return found


def newest_image(found: list[Thing], architecture: str, region: str) -> dict[str, str]:
    """Return the newest image for an architecture: `id`, and `root`, the name of its root device.

    Raises:
        ResourceError: there is no image.
    """
    fitting = [row for row in found if row["Architecture"] == architecture]
    if not fitting:
        raise ResourceError(
            f"Debian 13 has no image for {architecture} in {region}.",
            "Choose another --region; Debian publishes in all that need no opting in.",
        )
    newest = max(fitting, key=lambda row: (str(row.get("CreationDate", "")), row["Name"]))
    return {"id": newest["ImageId"], "root": newest.get("RootDeviceName") or "/dev/xvda"}


def subnet_of(cloud: Cloud, subnet: str) -> Thing:
    """Return an existing subnet, given by the user.

    Raises:
        ResourceError: there is no subnet with that id.
    """
    found = kinds.get(cloud, kinds.SUBNET, subnet)
    if found is None:
        raise ResourceError(
            f"There is no subnet {subnet} in {cloud.region}.", "--subnet-id takes one of the node's region."
        )
    return found


def similar_sizes(cloud: Cloud, size: str) -> list[str]:
    """Return sizes of the region whose names are similar to a mistyped one."""
    import difflib

    rows = cloud.ec2.get_paginator("describe_instance_type_offerings").paginate(LocationType="region")
    every = sorted({row["InstanceType"] for page in rows for row in page["InstanceTypeOfferings"]})
    family = [name for name in every if name.partition(".")[0] == size.partition(".")[0]]
    close = difflib.get_close_matches(size, every, n=NEAR, cutoff=0.6)
    return list(dict.fromkeys([*close, *family]))[:NEAR]
