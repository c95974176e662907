"""What this Azure offers: regions, sizes, images, quotas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LOCATIONS: Mapping[str, str] = {
    "westeurope": "West Europe",
    "northeurope": "North Europe",
    "germanywestcentral": "Germany West Central",
    "swedencentral": "Sweden Central",
    "uksouth": "UK South",
    "eastus": "East US",
    "westus2": "West US 2",
}

GENERATIONS = ("V1", "V2")


@dataclass(frozen=True)
class Size:
    """A VM's.

    Attributes:
        cores, memory, disks: vCPUs, GiB, and how many data disks it takes.
        secure: whether it can have trusted launch.
    """

    name: str
    family: str
    cores: int
    memory: float
    disks: int
    architecture: str = "x64"
    generations: tuple[str, ...] = GENERATIONS
    secure: bool = True

    @property
    def tier(self) -> str:
        return self.name.split("_")[0]


SIZES: Mapping[str, Size] = {
    size.name.lower(): size
    for size in (
        Size("Standard_B1s", "standardBSFamily", 1, 1, 2),
        Size("Standard_B1ms", "standardBSFamily", 1, 2, 2),
        Size("Standard_B2s", "standardBSFamily", 2, 4, 4),
        Size("Standard_B2ms", "standardBSFamily", 2, 8, 4),
        Size("Standard_B4ms", "standardBSFamily", 4, 16, 8),
        Size("Standard_B8ms", "standardBSFamily", 8, 32, 16),
        Size("Standard_B2s_v2", "standardBsv2Family", 2, 8, 4),
        Size("Standard_B4s_v2", "standardBsv2Family", 4, 16, 8),
        Size("Standard_B2as_v2", "standardBasv2Family", 2, 8, 4),
        Size("Standard_B4as_v2", "standardBasv2Family", 4, 16, 8),
        Size("Standard_D2s_v3", "standardDSv3Family", 2, 8, 4),
        Size("Standard_D4s_v3", "standardDSv3Family", 4, 16, 8),
        Size("Standard_D2s_v5", "standardDSv5Family", 2, 8, 4),
        Size("Standard_D4s_v5", "standardDSv5Family", 4, 16, 8),
        Size("Standard_D8s_v5", "standardDSv5Family", 8, 32, 16),
        Size("Standard_D2as_v5", "standardDASv5Family", 2, 8, 4),
        Size("Standard_D4as_v5", "standardDASv5Family", 4, 16, 8),
        Size("Standard_E2s_v5", "standardESv5Family", 2, 16, 4),
        Size("Standard_D2ps_v5", "standardDPSv5Family", 2, 8, 4, "Arm64", ("V2",), False),
        Size("Standard_A1_v2", "standardAv2Family", 1, 2, 2, generations=("V1",), secure=False),
        Size("Standard_D64s_v5", "standardDSv5Family", 64, 256, 32),
    )
}


@dataclass(frozen=True)
class Image:
    """One of the marketplace's."""

    publisher: str
    offer: str
    sku: str
    generation: str
    architecture: str = "x64"
    gigabytes: int = 30
    secure: bool = True
    versions: tuple[str, ...] = ("0.20250814.2204", "0.20251006.2257")

    @property
    def key(self) -> tuple[str, str, str]:
        return self.publisher.lower(), self.offer.lower(), self.sku.lower()


IMAGES: Mapping[tuple[str, str, str], Image] = {
    image.key: image
    for image in (
        Image("Debian", "debian-13", "13", "V1", secure=False),
        Image("Debian", "debian-13", "13-gen2", "V2"),
        Image("Debian", "debian-13", "13-arm64", "V2", "Arm64", secure=False),
        Image("Debian", "debian-12", "12", "V1", secure=False),
        Image("Debian", "debian-12", "12-gen2", "V2"),
        Image("Canonical", "ubuntu-24_04-lts", "server", "V2", versions=("24.04.202508140",)),
    )
}

CORES = 20
"""The quota of vCPUs in a region, and of each family in it, that a subscription begins with."""

IPS = 20
"""That of public IP addresses."""
