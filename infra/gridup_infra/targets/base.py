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
from typing import TYPE_CHECKING, Any, ClassVar

from gridup_infra.errors import GridupError, ResourceError, StateError, UsageError
from gridup_infra.naming import typed
from gridup_infra.outputs import NodeOutputs
from gridup_infra.processes import Result
from gridup_infra.spec import DeploySpec
from gridup_node import catalog

if TYPE_CHECKING:
    import pulumi

    from gridup_infra.room import Need


class Capability(Enum):
    """What a target can do beyond the life of a stack."""

    POWER = "power"
    """`start` and `stop`."""
    BIND = "bind"
    """`--bind`: the person chooses the address that services listen on."""
    SCHEME = "plain-http"
    """`--plain-http`: and how they speak there."""
    PORT = "port"
    """`--port`."""
    KEEP_DATA = "keep-data"
    """`--keep-data`."""
    REGION = "region"
    """`--region`, `--size`, `--disk-size`: a cloud's choices."""
    CPU_CREDITS = "cpu-credits"
    """`--cpu-credits`: some of its sizes have a share of a processor."""
    FIREWALL = "firewall"
    """`--allow-cidr` and `--web-cidr`."""
    CLOSED = "closed"
    """Without `--allow-cidr` ssh and jupyter are open to whoever deploys alone."""
    DOMAIN_NAME = "domain-name"
    """`--domain-name`: HTTPS by ACME."""
    SSH_KEYS = "ssh-keys"
    """`--ssh-key`."""
    ADMIN_SSH_KEYS = "admin-ssh-keys"
    """`--admin-ssh-key`: people who administer the node's machine."""
    REBOOT = "reboot"
    """`--reboot-at`: the machine's own updates are the node's to set, and may restart it."""
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
    EGRESS = "egress"
    """`--allow-egress`: it can keep notebooks and jobs from connecting to what is outside."""
    NEW_MACHINE = "new-machine"
    """`--new-machine`: another VM on the same data disk."""
    HOST = "host"
    """`--host`: a machine that exists."""
    HOST_KEY = "host-key"
    """`--host-key`: the key that the node's machine must show to ssh."""
    KEY_FROM = "key-from"
    """`--key-from`: from where the stack's own key lets in to the node's machine."""
    BOOT_LOG = "boot-log"
    """`logs --boot`: what the machine printed as it booted, by way of the cloud."""


class NodeStatus(Enum):
    """Whether a node runs, as seen just now."""

    RUNNING = "running"
    STARTING = "starting"
    STOPPED = "stopped"
    """On purpose, by `gridup stop`."""
    DEGRADED = "degraded"
    """It should run, and does not, or differs from its definition."""
    MISSING = "missing"
    """What the state knows is not there any more."""
    UNKNOWN = "unknown"
    """It could not be looked at, for want of credentials or of a network."""


@dataclass(frozen=True)
class Inspection:
    """A cheap look at what is really there.

    Attributes:
        power: see `NodeStatus`.
        problems: what differs from the definition, a line each; empty when all is right.
        dead: services that crashed and are not restarted, each with its exit code.
        notes: what is as defined, and should be known, a line each.
        whole: whether `problems` holds all that a refresh would find, so that none is needed.
        remedy: what there is to do where a deploy brings nothing back, for people; empty where it repairs.
    """

    power: NodeStatus
    problems: tuple[str, ...] = ()
    crashed: tuple[str, ...] = ()
    complete: bool = False
    notes: tuple[str, ...] = ()
    remedy: str = ""

    @property
    def healthy(self) -> bool:
        """Whether there certainly is no drift, without a refresh."""
        return self.complete and self.power in (NodeStatus.RUNNING, NodeStatus.STARTING) and not self.problems


def emptied(name: str) -> str:
    """The remedy for the node called `name` whose data are gone."""
    return f"its data are lost: `{typed('deploy', name)}` makes an empty node."


@dataclass(frozen=True)
class StackRef:
    """What is known of a stack even when its making was interrupted: enough to find its leftovers."""

    stack: str
    stack_id: str
    name: str
    target: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Retained:
    """Data of a node that was destroyed and whose data was kept.

    Attributes:
        id: what `DeploySpec.adopted` has for them: another one for other data.
        what: for people, such as "the folder /…".
        since: when they were kept (ISO 8601, UTC); empty where that is not known.
        size: in bytes; 0 where that is not known.
        admin_email: of that node's administrator; empty where that is not known.
        node_type: of that node; empty where that is not known.
    """

    id: str
    what: str
    since: str = ""
    size: int = 0
    admin_email: str = ""
    node_type: str = ""


@dataclass(frozen=True)
class SshAccess:
    """How `gridup ssh` enters: as the argv of OpenSSH's client would have it.

    Attributes:
        way: a program that leads there, see `openssh.Configured.way`; empty where it is reached directly.
    """

    user: str
    host: str
    port: int
    key: Path
    known_hosts: Path
    way: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shell:
    """How `gridup ssh` enters a node whose programs are processes of this machine.

    Attributes:
        program: the person's shell.
        folder: where it begins.
        environment: the node's own.
    """

    program: str
    folder: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class DoctorCheck:
    """One thing that `gridup doctor` looked at.

    Attributes:
        what: the thing.
        ok: whether it is as needed; None for something that is only nice to have and missing.
        detail: what was found, and what to do.
    """

    name: str
    ok: bool | None
    detail: str


class NodeAccess(ABC):
    """Commands on the node itself: secrets, logs and upgrades go through it."""

    @abstractmethod
    def run(
        self, argv: Sequence[str], *, timeout: float, input: bytes | None = None, service: str = ""
    ) -> Result:
        """Run a command where the node's data lives, in the node's own environment.

        Args:
            service: where the folders of this service's program are seen; empty for those of the api.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
            ResourceError: the node can't be entered.
        """

    @abstractmethod
    def programs(self) -> tuple[str, ...]:
        """The services with a program of the node's own: what `run` and `restart` take, the api's first."""

    @abstractmethod
    def restart(self, services: Sequence[str]) -> None:
        """Start programs anew, and end what they have started, such as logins; one that does not run, too.

        Raises:
            ResourceError: one would not.
        """

    @abstractmethod
    def logs(self, services: Sequence[str], *, lines: int, follow: bool) -> Iterator[tuple[str, str]]:
        """The last lines of each service's log as (service, line), and with `follow` those to come."""

    @abstractmethod
    def ssh(self) -> SshAccess:
        """How to log in.

        Raises:
            NotOfferedError: the node has no ssh.
            ResourceError: it can't be entered.
        """

    def shell(self) -> Shell | None:
        """What takes the place of a login, where the node has no ssh and needs none; else None.

        Raises:
            ResourceError: the node can't be entered.
        """
        return None


PUBLIC_IP = "public_ip"
"""The key of `Target.place` for the address that the internet reaches the node at."""

ANSWER_SECONDS = 2.0

LOG_LINES = 15
"""Of a service that has ended: how much of its log an error shows."""

ReadSecret = Callable[[str, str], str]
"""Reads a secret export of a stack: (stack, export) -> its text; whoever has the engine lends it."""


def secrets_unavailable(stack: str, export: str) -> str:
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
    """The types of people's keys that it takes, as a public key begins; empty for all that sshd accepts."""
    providers: ClassVar[tuple[str, ...]] = ()
    """The modules of its dynamic providers: only what is in one of them is ever run from a state."""
    packages: ClassVar[tuple[str, ...]] = ()
    """The packages of Pulumi's of which it has resources, beside its own."""

    data_resource: ClassVar[str] = ""
    """The resource, in the program, that is nothing but the node's data; empty where there is none such."""

    def __init__(self, secret: ReadSecret = secrets_unavailable) -> None:
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

    def glance(self, spec: DeploySpec, current: NodeOutputs | None) -> None:  # noqa: B027 - many have none
        """What of `preflight` this machine tells at once, so that nothing is fetched before it.

        Raises:
            PreflightError: something is in the way.
        """

    def needs(self, spec: DeploySpec) -> tuple[Need, ...]:  # noqa: ARG002
        """What a deploy writes to this machine's disks, beside the engine. Fetches nothing."""
        return ()

    @abstractmethod
    def build(self, spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
        """Declare the resources. Runs inside a Pulumi program."""

    @abstractmethod
    def summary(self, spec: DeploySpec) -> tuple[str, ...]:
        """What will exist beside `data`, a line each."""

    @abstractmethod
    def data(self, spec: DeploySpec) -> str:
        """What will hold the node's data, a line."""

    def usual_ports(self, spec: DeploySpec) -> Mapping[str, tuple[int, ...]]:  # noqa: ARG002
        """Where the port of each service is looked for before others are, in this order; empty where none is
        chosen."""
        return {}

    def makes(self, spec: DeploySpec) -> tuple[str, ...]:
        """What a deploy makes, a line each."""
        return (*self.summary(spec), *self.listens(spec), self.data(spec))

    def listens(self, spec: DeploySpec) -> tuple[str, ...]:  # noqa: ARG002
        """At which ports a new node is reached, a line each; empty where `summary` says."""
        return ()

    def removes(self, spec: DeploySpec) -> tuple[str, ...]:
        """What `destroy` removes, a line each."""
        return self.summary(spec) if spec.keeps else (*self.summary(spec), self.data(spec))

    @abstractmethod
    def retained_on_destroy(self, spec: DeploySpec) -> tuple[str, ...]:
        """What `destroy` leaves, a line each; empty when nothing."""

    def retained(self, spec: DeploySpec) -> Retained | None:  # noqa: ARG002
        """The data that an earlier node of this name has left, which a new one may take over: those that were
        kept last. A target never takes any over but those that `DeploySpec.adopted` names.

        Raises:
            CredentialsError: the cloud would not let us look.
        """
        return None

    @abstractmethod
    def inspect(self, outputs: NodeOutputs) -> Inspection:
        """Look at what is really there, without the engine. Cheap: `status` asks it of every node."""

    @abstractmethod
    def leftovers(self, identity: StackRef) -> tuple[str, ...]:
        """What still bears this stack's marks, whatever the state says."""

    @abstractmethod
    def delete_all(self, identity: StackRef) -> None:
        """Remove all that bears this stack's marks, kept data apart.

        Raises:
            ResourceError: something could not be removed.
        """

    def recover_interrupted(self, identity: StackRef, known: Mapping[str, str]) -> dict[str, str]:  # noqa: ARG002
        """Make what a interrupted deploy has left fit for the next one: what exists is told, so that the
        state takes it over; what the state can't take over is removed. A target whose creates look for
        themselves has nothing to do.

        Args:
            known: the URNs that the state knows, each with the id it has; empty for a create that was
                interrupted.

        Returns:
            The ids of things that exist, by those URNs whose id is empty.
        """
        return {}

    def translate_error(self, error: ResourceError, spec: DeploySpec) -> GridupError:  # noqa: ARG002
        """What a provider that is not ours said of a failure, as a person can act on it."""
        return error

    @abstractmethod
    def access(self, outputs: NodeOutputs) -> NodeAccess:
        """How to run commands on the node."""

    def terminal_failure(self, outputs: NodeOutputs) -> ResourceError | None:
        """Why waiting longer for the node is no use, with the end of the log that tells; None while it is."""
        dead = self.inspect(outputs).crashed
        if not dead:
            return None
        lines = self.access(outputs).logs([dead[0].split()[0]], lines=LOG_LINES, follow=False)
        hint = f"The whole log: {typed('logs', outputs.spec.name)}"
        return ResourceError(dead[0], hint, tuple(line for _, line in lines))

    def ready(self, outputs: NodeOutputs) -> bool:  # noqa: ARG002
        """Whether what no probe can see is done too; asked once all probes are green."""
        return True

    def warnings(self, spec: DeploySpec, current: NodeOutputs | None) -> tuple[str, ...]:  # noqa: ARG002
        """What the person should know of a node that is as asked, a line each; told at each deploy.

        Args:
            current: the node as it is deployed, None for a new one.
        """
        return ()

    def answers(self, outputs: NodeOutputs) -> bool:  # noqa: ARG002
        """Whether a way in can be tried at all, told in `ANSWER_SECONDS`; True where that is not known."""
        return True

    def restart_due(self, outputs: NodeOutputs) -> tuple[str, ...] | None:  # noqa: ARG002
        """The packages for whose sake the node's machine is to be restarted; None where it need not be, or
        where that is not to be told. One command on the machine."""
        return None

    def destructive_changes(self, spec: DeploySpec, current: NodeOutputs) -> tuple[str, ...]:  # noqa: ARG002
        """What bringing a deployed node to `spec` destroys, a line each; the person is asked first."""
        return ()

    def partial_outputs(
        self,
        identity: StackRef,  # noqa: ARG002
        spec: DeploySpec,  # noqa: ARG002
        states: Mapping[str, Mapping[str, Any]],  # noqa: ARG002
    ) -> NodeOutputs | None:
        """The outputs as far as they are known of the machine that the state has: its deploy may have
        failed, or be under way. It can be looked at, stopped, started and entered, and its boot log be
        read. None while the state has none.

        Args:
            spec: what is known of it.
            states: by URN, the outputs that the state has of what exists, and the id as `id`.
        """
        return None

    def place(self, outputs: NodeOutputs) -> dict[str, str]:  # noqa: ARG002
        """Where a node is and on what, for people and scripts: `PUBLIC_IP`, region, instance, size, volume;
        only what there is."""
        return {}

    def boot_log(self, outputs: NodeOutputs) -> str:
        """What the machine printed as it booted."""
        raise NotImplementedError

    def start(self, outputs: NodeOutputs) -> None:
        """Start a stopped node; one that runs is left alone."""
        raise NotImplementedError

    def stop(self, outputs: NodeOutputs) -> None:
        """Stop a node and keep its data; a stopped one is left alone."""
        raise NotImplementedError

    def sign_in(self, ask: Callable[[str], str | None]) -> dict[str, str]:  # noqa: ARG002
        """What this machine's credentials must be asked of a person for, once in a run: the variables, for
        this process and those that it starts, that stand for the answer.

        Args:
            ask: asks for a line; None where there is nobody to ask.

        Raises:
            CredentialsError: there is nobody to ask, or the answer is refused.
        """
        return {}

    def doctor(self) -> Iterable[DoctorCheck]:
        """What this machine has for this target, beyond what every target needs."""
        return ()

    def prunable(self) -> tuple[str, ...]:
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
