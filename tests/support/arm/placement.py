"""Where a machine can be: its size, what a customer may have of it, and the image that goes with it."""

from __future__ import annotations

from support.arm import catalogue, refusals
from support.arm.catalogue import Image, Size
from support.arm.world import Thing, World

MACHINES = "Microsoft.Compute/virtualMachines"


def size_of(thing: Thing) -> Size:
    return catalogue.SIZES[thing.properties["hardwareProfile"]["vmSize"].lower()]


def cores(world: World, location: str | None, family: str = "") -> int:
    """Those in use in a region: of all machines, running or not.

    https://learn.microsoft.com/azure/virtual-machines/quotas
    """
    sizes = [size_of(one) for one in world.of(MACHINES) if one.location == location]
    return sum(size.cores for size in sizes if not family or size.family == family)


def size(world: World, thing: Thing) -> Size:
    """Look the size up: the region has it, and the customer may have it."""
    name = (thing.properties.get("hardwareProfile") or {}).get("vmSize")
    size = catalogue.SIZES.get(str(name).lower())
    if size is None or not world.offers(thing.location, size.name):
        known = ",".join(one.name for one in catalogue.SIZES.values())
        raise refusals.BAD_SIZE(
            f"The value {name} provided for the VM size is not valid. The valid sizes in the current region "
            f"are: {known}. Find out more on the valid VM sizes in each region at "
            "https://aka.ms/azure-regions.",
            "vmSize",
        )
    if world.is_restricted(thing.location, size.name):
        raise refusals.NO_SIZE_HERE(
            "The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: "
            f"{size.name}' is currently not available in location '{thing.location}'. Please try another "
            "size or deploy to a different location or different zone. See "
            "https://aka.ms/azureskunotavailable for details.",
            "vmSize",
        )
    return size


def quota(world: World, thing: Thing, size: Size, old: Thing | None) -> None:
    """Refuse what would be more vCPUs than the customer may have."""
    for name, told, used in (
        ("cores", "Total Regional Cores", cores(world, thing.location)),
        (size.family, f"{size.family} Cores", cores(world, thing.location, size.family)),
    ):
        have = size_of(old) if old else None
        more = size.cores - (have.cores if have and name in ("cores", have.family) else 0)
        limit = world.quota(thing.location, name, catalogue.CORES)
        if more > 0 and used + more > limit:
            raise refusals.QUOTA(
                f"Operation could not be completed as it results in exceeding approved {told} quota. "
                f"Additional details - Deployment Model: Resource Manager, Location: {thing.location}, "
                f"Current Limit: {limit}, Current Usage: {used}, Additional Required: {more}, (Minimum) New "
                f"Limit Required: {used + more}. Setup Alerts when Quota reaches threshold. Learn more at "
                "https://aka.ms/quotamonitoringalerting."
            )


def image(thing: Thing) -> Image:
    """Look the image up."""
    storage = thing.properties.get("storageProfile") or {}
    asked = storage.get("imageReference") or {}
    parts = [str(asked.get(name, "")) for name in ("publisher", "offer", "sku")]
    image = catalogue.IMAGES.get((parts[0].lower(), parts[1].lower(), parts[2].lower()))
    version = str(asked.get("version", ""))
    if image is None or version not in ("latest", *image.versions):
        raise refusals.NO_IMAGE(
            f"The platform image '{':'.join((*parts, version))}' is not available. Verify that all fields "
            "in the storage profile are correct. For more details about storage profile information, "
            "please refer to https://aka.ms/storageprofile",
            "imageReference",
        )
    asked["exactVersion"] = image.versions[-1] if version == "latest" else version
    return image


def fits(thing: Thing, size: Size, image: Image) -> None:
    """Look whether size, image and kind of security go together."""
    if size.architecture != image.architecture:
        raise refusals.WRONG_ARCHITECTURE(
            f"Cannot create a VM of size '{size.name}' because this VM size only supports a CPU "
            f"Architecture of '{size.architecture}', but an image or disk with CPU Architecture "
            f"'{image.architecture}' was given."
        )
    if image.generation not in size.generations:
        raise refusals.WRONG_GENERATION(
            f"The selected VM size '{size.name}' cannot boot Hypervisor Generation "
            f"'{image.generation[1:]}'. If this was a Create operation please check that the Hypervisor "
            "Generation of the Image matches the Hypervisor Generation of the selected VM Size."
        )
    security = thing.properties.get("securityProfile") or {}
    if str(security.get("securityType", "")).lower() == "trustedlaunch":
        if not (image.secure and size.secure and image.generation == "V2"):
            raise refusals.NO_TRUSTED_LAUNCH(
                f"The requested VM size '{size.name}' or the image '{image.offer}:{image.sku}' does not "
                "support security type 'TrustedLaunch'.",
                "securityProfile.securityType",
            )
    elif security.get("uefiSettings"):
        raise refusals.NO_TRUSTED_LAUNCH(
            "Use of UEFI settings is not supported for virtual machines with security type 'Standard'.",
            "securityProfile.uefiSettings",
        )
