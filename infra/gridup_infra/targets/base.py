"""The seam between the product and a place where a node runs.

Everything outside `targets/` asks a target for a capability, never for its name.
A target's module must import quickly: pulumi and cloud SDKs are imported where they are used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gridup_infra.errors import GridupError, ResourceError, StateError, UsageError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.processes import Result
from gridup_infra.spec import DeploySpec
from gridup_node import catalog

if TYPE_CHECKING:
    import pulumi


class Capability(Enum):
    """What a target can do beyond the life of a stack."""

    POWER = "power"
    """`start` and `stop`."""
    BIND = "bind"
    """`--bind`: the person chooses the address that services listen on."""
    PORT = "port"
    """`--port`."""
    KEEP_DATA = "keep-data"
    """`--keep-data`."""
    REGION = "region"
    """`--region`, `--size`, `--disk-size`: a cloud's choices."""
    FIREWALL = "firewall"
    """`--allow-cidr` and `--web-cidr`."""
    DOMAIN_NAME = "domain-name"
    """`--domain-name`: HTTPS by ACME."""
    SSH_KEYS = "ssh-keys"
    """`--ssh-key`."""
    HOST_ONLY = "host-only"
    """`--no-node`: stops at the container host."""
    SUBNET = "subnet"
    """`--subnet-id`: a network that is there already."""
    RESOURCE_GROUP = "resource-group"
    """`--resource-group`: a group of the cloud's that is there already."""
    PRIVATE = "private"
    """`--private`: no public address."""
    IMAGE = "image"
    """`--image`: a published image of the node."""
    NEW_MACHINE = "new-machine"
    """`--new-machine`: another VM on the same data disk."""
    HOST = "host"
    """`--host` and `--host-key`: a machine that exists."""
    BOOT_LOG = "boot-log"
    """`logs --boot`: what the machine printed as it booted, by way of the cloud."""


class Power(Enum):
    """Whether a node runs, as seen just now."""

    RUNNING = "running"
    STARTING = "starting"
    STOPPED = "stopped"
    """On purpose, by `gridup stop`."""
    BROKEN = "broken"
    """It should run, and does not, or not as it was laid down."""
    GONE = "gone"
    """What the state knows is not there any more."""
    UNKNOWN = "unknown"
    """It could not be looked at, for want of credentials or of a network."""


@dataclass(frozen=True)
class Inspection:
    """A cheap look at what is really there.

    Attributes:
        power: see `Power`.
        problems: what differs from what was laid down, a line each; empty when all is right.
        dead: services that have given up, each with how it ended.
        whole: whether `problems` holds all that a refresh would find, so that none is needed.
    """

    power: Power
    problems: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    whole: bool = False

    @property
    def right(self) -> bool:
        """Whether it is certain, without a refresh, that all is as it was laid down."""
        return self.whole and self.power in (Power.RUNNING, Power.STARTING) and not self.problems


@dataclass(frozen=True)
class Identity:
    """What is known of a stack even when its making was broken off: enough to find its leftovers."""

    stack: str
    stack_id: str
    name: str
    target: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SshAccess:
    """How `gridup ssh` enters: as the argv of OpenSSH's client would have it."""

    user: str
    host: str
    port: int
    key: Path
    known_hosts: Path


@dataclass(frozen=True)
class Finding:
    """One thing that `gridup doctor` looked at.

    Attributes:
        what: the thing.
        ok: whether it is as needed; None for something that is only nice to have and missing.
        detail: what was found, and what to do.
    """

    what: str
    ok: bool | None
    detail: str


class WayIn(ABC):
    """Commands on the node itself: secrets, logs and upgrades go through it."""

    @abstractmethod
    def run(self, argv: Sequence[str], *, timeout: float, input: bytes | None = None) -> Result:
        """Run a command where the node's data lives, in the node's own environment.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
            ResourceError: the node can't be entered.
        """

    @abstractmethod
    def logs(self, services: Sequence[str], *, lines: int, follow: bool) -> Iterator[tuple[str, str]]:
        """The last lines of each service's log as (service, line), and with `follow` those to come."""

    @abstractmethod
    def ssh(self) -> SshAccess:
        """How to log in.

        Raises:
            ResourceError: the node has no ssh.
        """


LOG_LINES = 15
"""Of a service that has ended: how much of its log an error shows."""

Secret = Callable[[str, str], str]
"""Reads a secret export of a stack: (stack, export) -> its text; whoever has the engine lends it."""


def no_secret(stack: str, export: str) -> str:
    """What a target has that nobody lent a way to read secrets.

    Raises:
        StateError: always.
    """
    raise StateError(f"The secret {export} of {stack} can't be read here.")


class Target(ABC):
    """A place where a node runs.

    Args:
        secret: how to read a secret that the stack exports.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]]
    extra: ClassVar[str] = ""
    """The lock in `requirements/` with the SDK that this target needs; installed at its first use."""
    key_types: ClassVar[tuple[str, ...]] = ()
    """The types of `--ssh-key` that it takes, as a public key begins; empty for all that sshd accepts."""

    def __init__(self, secret: Secret = no_secret) -> None:
        self.secret = secret

    @abstractmethod
    def resolve(self, spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:
        """The spec with this target's own defaults filled in.

        Raises:
            UsageError: it asks for what this target does not have.
        """

    @abstractmethod
    def preflight(self, spec: DeploySpec, current: NodeOutputs | None) -> None:
        """Look for what would make the deploy fail, before anything is created.

        Args:
            current: the node as it is deployed, None for a new one.

        Raises:
            PreflightError: something is in the way: a port, a missing tool, a full disk.
            CredentialsError: the cloud would not let us.
        """

    @abstractmethod
    def build(self, spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
        """Declare the resources. Runs inside a Pulumi program."""

    @abstractmethod
    def summary(self, spec: DeploySpec) -> tuple[str, ...]:
        """What will exist, a line each, for the confirmation and for `destroy`."""

    @abstractmethod
    def kept(self, spec: DeploySpec) -> tuple[str, ...]:
        """What `destroy` leaves, a line each; empty when nothing."""

    @abstractmethod
    def inspect(self, outputs: NodeOutputs) -> Inspection:
        """Look at what is really there, without the engine. Cheap: `status` asks it of every node."""

    @abstractmethod
    def leftovers(self, identity: Identity) -> tuple[str, ...]:
        """What still bears this stack's marks, whatever the state says."""

    @abstractmethod
    def sweep(self, identity: Identity) -> None:
        """Remove all that bears this stack's marks, kept data apart.

        Raises:
            ResourceError: something could not be removed.
        """

    def settle(self, identity: Identity, known: Mapping[str, str]) -> dict[str, str]:  # noqa: ARG002
        """Make what a broken-off deploy has left fit for the next one: what exists is told, so that the state
        takes it over; what the state can't take over is removed. A target whose creates look for themselves
        has nothing to do.

        Args:
            known: the URNs that the state knows, each with the id it has; empty for a create that was
                broken off.

        Returns:
            The ids of things that exist, by those URNs whose id is empty.
        """
        return {}

    def explained(self, error: ResourceError, spec: DeploySpec) -> GridupError:  # noqa: ARG002
        """What a provider that is not ours said of a failure, as a person can act on it."""
        return error

    @abstractmethod
    def way_in(self, outputs: NodeOutputs) -> WayIn:
        """How to run commands on the node."""

    def given_up(self, outputs: NodeOutputs) -> ResourceError | None:
        """Why waiting longer for the node is no use, with the end of the log that tells; None while it is."""
        dead = self.inspect(outputs).dead
        if not dead:
            return None
        lines = self.way_in(outputs).logs([dead[0].split()[0]], lines=LOG_LINES, follow=False)
        hint = f'The whole log: gridup logs "{outputs.spec.name}"'
        return ResourceError(dead[0], hint, tuple(line for _, line in lines))

    def ready(self, outputs: NodeOutputs) -> bool:  # noqa: ARG002
        """Whether what no probe can see is done too; asked once all probes are green."""
        return True

    def losses(self, spec: DeploySpec, current: NodeOutputs) -> tuple[str, ...]:  # noqa: ARG002
        """What bringing a deployed node to `spec` takes away, a line each; the person is asked first."""
        return ()

    def begun(self, identity: Identity, known: Mapping[str, str]) -> NodeOutputs | None:  # noqa: ARG002
        """The outputs as far as `boot_log` reads them, of the machine that the state knows: its deploy may
        have failed, or be under way. None while the state knows none.

        Args:
            known: as `settle` takes it.
        """
        return None

    def boot_log(self, outputs: NodeOutputs) -> str:
        """What the machine printed as it booted."""
        raise NotImplementedError

    def start(self, outputs: NodeOutputs) -> None:
        """Start a stopped node; one that runs is left alone."""
        raise NotImplementedError

    def stop(self, outputs: NodeOutputs) -> None:
        """Stop a node and keep its data; a stopped one is left alone."""
        raise NotImplementedError

    def doctor(self) -> Iterable[Finding]:
        """What this machine has for this target, beyond what every target needs."""
        return ()

    def unused(self) -> tuple[str, ...]:
        """What nodes share and no node uses any more, a line each."""
        return ()

    def prune(self, thing: str) -> None:
        """Remove one of `unused`; what is in use by now is left alone.

        Raises:
            GridupError: it could not be removed.
        """
        raise NotImplementedError


def check_tag(spec: DeploySpec) -> None:
    """Nothing, when the syft version that is asked for is one that we ship.

    Raises:
        UsageError: it is not; those that are there are named.
    """
    try:
        catalog.resolve(spec.tag)
    except ValueError as error:
        raise UsageError(f"--tag {spec.tag}: {error}.") from None
