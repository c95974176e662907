"""What the story of a node on a cloud asks of the cloud (tests/integration/test_cloud_boot.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from support.cli import Cli
from support.hypervisor import Cloud, Hypervisor


class CloudRig(Protocol):
    """A customer's part of an emulated cloud, whose machines boot.

    Attributes:
        words: what a deploy there is told: `--cloud` and what else it takes.
        machines: the cloud as the hypervisor knows it.
        issuer: what the issuer of a node's certificate is called there.
        boot_log: what stands in `logs --boot` of a machine whose first boot lacked `no-such-package`.
        secrets: of the customer's own, which nobody else may see.
    """

    words: tuple[str, ...]
    machines: Cloud
    issuer: str
    boot_log: str
    secrets: tuple[str, ...]

    def cli(self, home: Path) -> Cli:
        """A command line that is the customer's."""
        ...

    def obey(self, hypervisor: Hypervisor) -> None:
        """From now on say that a machine is off or gone when it is, as clouds do."""
        ...

    def user_data(self, identity: str) -> bytes:
        """What the API holds as told to a machine."""
        ...

    def address(self) -> str:
        """The node's public IP address, as the API has it."""
        ...

    def name(self) -> str:
        """What people reach the node by: the name that the cloud gave to its address, else that."""
        ...

    def said(self) -> str:
        """All that the API was sent."""
        ...

    def marked(self) -> Sequence[str]:
        """What is there that bears a stack's mark."""
        ...

    def stop(self, identity: str) -> None:
        """Stop a machine, as somebody does in the cloud's console."""
        ...

    def delete(self, identity: str) -> None:
        """Delete a machine there."""
        ...
