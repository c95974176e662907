"""The interface between Gridup and a target, the place where a node runs.

Code outside of `targets/` asks a target for a capability, never for its name. A target's module must import
quickly: import pulumi and cloud SDKs only in the functions that use them.
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
    """A feature that only some targets have. Most stand for an option of the command line."""

    POWER = "power"
    """`start` and `stop`."""
    BIND = "bind"
    """`--bind`: the user chooses the address that services listen on."""
    SCHEME = "plain-http"
    """`--plain-http`: the user chooses http or https at that address."""
    PORT = "port"
    """`--port`: the user chooses the port of the reverse proxy."""
    KEEP_DATA = "keep-data"
    """`--keep-data`: destroy retains the node's data."""
    REGION = "region"
    """`--region`, `--size`, `--disk-size`: the choices of a cloud."""
    CPU_CREDITS = "cpu-credits"
    """`--cpu-credits`: some sizes have only a share of a processor."""
    FIREWALL = "firewall"
    """`--allow-cidr` and `--web-cidr`: the networks that may reach the node."""
    CLOSED = "closed"
    """Without `--allow-cidr`, only the user who deploys can reach ssh and jupyter."""
    DOMAIN_NAME = "domain-name"
    """`--domain-name`: HTTPS by ACME."""
    SSH_KEYS = "ssh-keys"
    """`--ssh-key`: public keys of users."""
    ADMIN_SSH_KEYS = "admin-ssh-keys"
    """`--admin-ssh-key`: public keys of users who administer the node's machine."""
    REBOOT = "reboot"
    """`--reboot-at`: Gridup configures the machine's own updates, which may restart it."""
    HOST_ONLY = "host-only"
    """`--no-node`: only create the container host."""
    SUBNET = "subnet"
    """`--subnet-id`: use an existing network."""
    RESOURCE_GROUP = "resource-group"
    """`--resource-group`: use an existing group of the cloud."""
    PRIVATE = "private"
    """`--private`: no public address."""
    IMAGE = "image"
    """`--image`: use a published image of the node."""
    EGRESS = "egress"
    """`--allow-egress`: the target can prevent connections from notebooks and jobs to the outside."""
    NEW_MACHINE = "new-machine"
    """`--new-machine`: replace the VM and keep the data disk."""
    HOST = "host"
    """`--host`: use an existing machine."""
    HOST_KEY = "host-key"
    """`--host-key`: the host key that the node's machine must show."""
    KEY_FROM = "key-from"
    """`--key-from`: the networks from which the management key gives access to the node's machine."""
    BOOT_LOG = "boot-log"
    """`logs --boot`: the cloud returns the machine's boot output."""


class NodeStatus(Enum):
    """Whether a node runs at the moment."""

    RUNNING = "running"
    STARTING = "starting"
    STOPPED = "stopped"
    """The user has stopped it with `gridup stop`."""
    DEGRADED = "degraded"
    """It should run but does not, or it differs from its definition."""
    MISSING = "missing"
    """The node in the state does not exist any more."""
    UNKNOWN = "unknown"
    """It could not be inspected, for lack of credentials or of a network."""


@dataclass(frozen=True)
class Inspection:
    """The result of a cheap check of the real resources.

    Attributes:
        power: see `NodeStatus`.
        problems: the differences from the definition, a line each; empty if there are none.
        crashed: services that crashed and are not restarted, each with its exit code.
        complete: whether `problems` has everything that a refresh would find, so that no refresh is needed.
        notes: facts that match the definition but that the user should know, a line each.
        remedy: advice for users if a deploy can't repair the node; empty if a deploy repairs it.
    """

    power: NodeStatus
    problems: tuple[str, ...] = ()
    crashed: tuple[str, ...] = ()
    complete: bool = False
    notes: tuple[str, ...] = ()
    remedy: str = ""

    @property
    def healthy(self) -> bool:
        """Whether it is certain without a refresh that there is no drift."""
        return self.complete and self.power in (NodeStatus.RUNNING, NodeStatus.STARTING) and not self.problems


def emptied(name: str) -> str:
    """Return the remedy for the node called `name`, whose data are lost."""
    return f"its data are lost: `{typed('deploy', name)}` makes an empty node."


@dataclass(frozen=True)
class StackRef:
    """The identity of a stack: enough to find its leftovers, even if its first deploy was interrupted."""

    stack: str
    stack_id: str
    name: str
    target: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Retained:
    """The retained data of a destroyed node.

    Attributes:
        id: the unique id of these data, for `DeploySpec.adopted`.
        what: a description for users, such as "the folder /…".
        since: when the data were retained (ISO 8601, UTC); empty if not known.
        size: the size in bytes; 0 if not known.
        admin_email: the e-mail address of that node's administrator; empty if not known.
        node_type: the type of that node; empty if not known.
    """

    id: str
    what: str
    since: str = ""
    size: int = 0
    admin_email: str = ""
    node_type: str = ""


@dataclass(frozen=True)
class SshAccess:
    """How `gridup ssh` connects: the values for OpenSSH's client.

    Attributes:
        user: the user to log in as.
        host: the address to connect to.
        port: the port of the ssh server.
        key: the file with the private key.
        known_hosts: the file with the host key.
        way: the argv of a program that connects to it, see `openssh.Configured.way`; empty for a direct
            connection.
    """

    user: str
    host: str
    port: int
    key: Path
    known_hosts: Path
    way: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shell:
    """How `gridup ssh` opens a shell for a node whose programs are processes of this machine.

    Attributes:
        program: the user's shell.
        folder: the folder that the shell starts in.
        environment: the node's own environment.
    """

    program: str
    folder: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class DoctorCheck:
    """The result of one check of `gridup doctor`.

    Attributes:
        name: the name of the check.
        ok: whether the check passed; None if something optional is missing.
        detail: the finding, and what to do.
    """

    name: str
    ok: bool | None
    detail: str


class NodeAccess(ABC):
    """Access to the node itself: runs commands there, such as for secrets, logs and upgrades."""

    @abstractmethod
    def run(
        self, argv: Sequence[str], *, timeout: float, input: bytes | None = None, service: str = ""
    ) -> Result:
        """Run a command in the node's own environment, where the node's data are.

        Args:
            service: run where the folders of this service's program are visible; empty for those of the api.

        Raises:
            TimeoutError: the command took longer than `timeout` seconds.
            ResourceError: there is no access to the node.
        """

    @abstractmethod
    def programs(self) -> tuple[str, ...]:
        """Return the services with their own program, for `run` and `restart`; the api's comes first."""

    @abstractmethod
    def restart(self, services: Sequence[str]) -> None:
        """Restart programs and end their child processes, such as logins. Also starts a stopped program.

        Raises:
            ResourceError: a program could not be restarted.
        """

    @abstractmethod
    def logs(self, services: Sequence[str], *, lines: int, follow: bool) -> Iterator[tuple[str, str]]:
        """Yield the last lines of each service's log as (service, line); with `follow` also new lines."""

    @abstractmethod
    def ssh(self) -> SshAccess:
        """Return how to log in by ssh.

        Raises:
            NotOfferedError: the node has no ssh.
            ResourceError: there is no access to the node.
        """

    def shell(self) -> Shell | None:
        """Return the shell to use instead of a login if the node has no ssh and needs none; else None.

        Raises:
            ResourceError: there is no access to the node.
        """
        return None


PUBLIC_IP = "public_ip"
"""The key of `Target.place` for the node's public IP address."""

ANSWER_SECONDS = 2.0

LOG_LINES = 15
"""How many lines of a crashed service's log an error shows."""

ReadSecret = Callable[[str, str], str]
"""Reads a secret export of a stack: (stack, export) -> its text. Code that has the engine provides it."""


def secrets_unavailable(stack: str, export: str) -> str:
    """Refuse to read a secret: the default `ReadSecret` of a target.

    Raises:
        StateError: always.
    """
    raise StateError(f"The secret {export} of {stack} can't be read here.")


class Target(ABC):
    """A place where a node runs.

    Args:
        secret: reads a secret that the stack exports.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]]
    extra: ClassVar[str] = ""
    """The lock file in `requirements/` with the SDK of this target. The SDK is installed at its first use."""
    key_types: ClassVar[tuple[str, ...]] = ()
    """The accepted types of users' ssh keys: the first word of a public key. Empty for all types of sshd."""
    providers: ClassVar[tuple[str, ...]] = ()
    """The modules of its dynamic providers. Only providers from these modules may run from a state."""
    packages: ClassVar[tuple[str, ...]] = ()
    """The Pulumi packages whose resources it uses, in addition to its own."""

    data_resource: ClassVar[str] = ""
    """The name, in the program, of the resource that is only the node's data; empty if there is none."""

    def __init__(self, secret: ReadSecret = secrets_unavailable) -> None:
        self.secret = secret

    @abstractmethod
    def resolve(self, spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:
        """Return the spec with this target's own defaults filled in.

        Raises:
            UsageError: the spec asks for something that this target does not have.
        """

    @abstractmethod
    def preflight(self, spec: DeploySpec, current: NodeOutputs | None) -> None:
        """Check for problems that would make the deploy fail, before anything is created.

        Args:
            current: the deployed node; None for a new one.

        Raises:
            PreflightError: there is a problem, such as a used port, a missing tool, a full disk.
            CredentialsError: the cloud refuses the credentials.
        """

    def glance(self, spec: DeploySpec, current: NodeOutputs | None) -> None:  # noqa: B027 - many have none
        """Run the quick checks of `preflight` that need only this machine, before anything is downloaded.

        Raises:
            PreflightError: there is a problem.
        """

    def needs(self, spec: DeploySpec) -> tuple[Need, ...]:  # noqa: ARG002
        """Return what a deploy writes to this machine's disks, without the engine. Downloads nothing."""
        return ()

    @abstractmethod
    def build(self, spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
        """Declare the resources and return the node's outputs. Runs inside a Pulumi program."""

    @abstractmethod
    def summary(self, spec: DeploySpec) -> tuple[str, ...]:
        """Return what a deploy creates in addition to `data`, a line each."""

    @abstractmethod
    def data(self, spec: DeploySpec) -> str:
        """Return a line about the place of the node's data."""

    def usual_ports(self, spec: DeploySpec) -> Mapping[str, tuple[int, ...]]:  # noqa: ARG002
        """Return, by service, the ports to try first, in order; empty if the target does not choose ports."""
        return {}

    def makes(self, spec: DeploySpec) -> tuple[str, ...]:
        """Return all that a deploy creates, a line each."""
        return (*self.summary(spec), *self.listens(spec), self.data(spec))

    def listens(self, spec: DeploySpec) -> tuple[str, ...]:  # noqa: ARG002
        """Return the ports of a new node, a line each; empty if `summary` has them."""
        return ()

    def removes(self, spec: DeploySpec) -> tuple[str, ...]:
        """Return what `destroy` deletes, a line each."""
        return self.summary(spec) if spec.keeps else (*self.summary(spec), self.data(spec))

    @abstractmethod
    def retained_on_destroy(self, spec: DeploySpec) -> tuple[str, ...]:
        """Return what `destroy` retains, a line each; empty for nothing."""

    def retained(self, spec: DeploySpec) -> Retained | None:  # noqa: ARG002
        """Return the retained data of an earlier node of this name, which a new node may adopt.

        If there are several, return the ones that were retained last. A target adopts only the data that
        `DeploySpec.adopted` names.

        Raises:
            CredentialsError: the cloud refuses the credentials.
        """
        return None

    @abstractmethod
    def inspect(self, outputs: NodeOutputs) -> Inspection:
        """Check the real resources without the engine. Must be cheap: `status` calls it for every node."""

    @abstractmethod
    def leftovers(self, identity: StackRef) -> tuple[str, ...]:
        """Return all that has this stack's ownership mark, no matter what the state has."""

    @abstractmethod
    def delete_all(self, identity: StackRef) -> None:
        """Delete all that has this stack's ownership mark, except retained data.

        Raises:
            ResourceError: something could not be deleted.
        """

    def recover_interrupted(self, identity: StackRef, known: Mapping[str, str]) -> dict[str, str]:  # noqa: ARG002
        """Reconcile an interrupted deploy, so that the next one can go on.

        Returns the resources that exist but are not in the state, for import. Deletes those that can't be
        imported. A target whose creates find and adopt such resources has nothing to do here.

        Args:
            known: the URNs in the state -> the resource's id; empty for an interrupted create.

        Returns:
            The URNs with an empty id whose resource exists -> the resource's id.
        """
        return {}

    def translate_error(self, error: ResourceError, spec: DeploySpec) -> GridupError:  # noqa: ARG002
        """Translate the error of another vendor's provider into one that a user can act on."""
        return error

    @abstractmethod
    def access(self, outputs: NodeOutputs) -> NodeAccess:
        """Return the access to the node, which runs commands there."""

    def terminal_failure(self, outputs: NodeOutputs) -> ResourceError | None:
        """Return the error that makes further waiting pointless, with the log's tail; else None.

        Such an error is a crashed service or a failed first boot.
        """
        dead = self.inspect(outputs).crashed
        if not dead:
            return None
        lines = self.access(outputs).logs([dead[0].split()[0]], lines=LOG_LINES, follow=False)
        hint = f"The whole log: {typed('logs', outputs.spec.name)}"
        return ResourceError(dead[0], hint, tuple(line for _, line in lines))

    def ready(self, outputs: NodeOutputs) -> bool:  # noqa: ARG002
        """Return whether the steps that no probe can see are done too. Called once all probes pass."""
        return True

    def warnings(self, spec: DeploySpec, current: NodeOutputs | None) -> tuple[str, ...]:  # noqa: ARG002
        """Return warnings about a node that matches its spec, a line each. Each deploy shows them.

        Args:
            current: the deployed node; None for a new one.
        """
        return ()

    def answers(self, outputs: NodeOutputs) -> bool:  # noqa: ARG002
        """Return within `ANSWER_SECONDS` whether access to the node can be tried; True if that is unknown."""
        return True

    def restart_due(self, outputs: NodeOutputs) -> tuple[str, ...] | None:  # noqa: ARG002
        """Return the packages that need a restart of the node's machine; None if no restart is needed.

        Also None if it can't be found out. Runs one command on the machine.
        """
        return None

    def destructive_changes(self, spec: DeploySpec, current: NodeOutputs) -> tuple[str, ...]:  # noqa: ARG002
        """Return what changing the deployed node to `spec` destroys, a line each. The user is asked first."""
        return ()

    def partial_outputs(
        self,
        identity: StackRef,  # noqa: ARG002
        spec: DeploySpec,  # noqa: ARG002
        states: Mapping[str, Mapping[str, Any]],  # noqa: ARG002
    ) -> NodeOutputs | None:
        """Return the known outputs of a machine whose deploy has failed or is still running.

        With them commands can inspect, stop, start and access the machine, and read its boot log. None while
        the state has no machine.

        Args:
            spec: the known part of the spec.
            states: the URNs of the existing resources in the state -> their outputs, with the id as `id`.
        """
        return None

    def place(self, outputs: NodeOutputs) -> dict[str, str]:  # noqa: ARG002
        """Return where a node runs, for users and scripts: `PUBLIC_IP`, region, instance, size, volume.

        Has only the keys with a value.
        """
        return {}

    def boot_log(self, outputs: NodeOutputs) -> str:
        """Return the machine's boot output."""
        raise NotImplementedError

    def start(self, outputs: NodeOutputs) -> None:
        """Start a stopped node. Does nothing to a running one."""
        raise NotImplementedError

    def stop(self, outputs: NodeOutputs) -> None:
        """Stop a node and keep its data. Does nothing to a stopped one."""
        raise NotImplementedError

    def sign_in(self, ask: Callable[[str], str | None]) -> dict[str, str]:  # noqa: ARG002
        """Ask the user once per run for what this machine's credentials need, such as a code.

        Args:
            ask: asks the user for a line; returns None if there is no user to ask.

        Returns:
            Environment variables with the result, for this process and those that it starts.

        Raises:
            CredentialsError: there is no user to ask, or the answer is refused.
        """
        return {}

    def doctor(self) -> Iterable[DoctorCheck]:
        """Check what this machine has for this target, in addition to what every target needs."""
        return ()

    def prunable(self) -> tuple[str, ...]:
        """Return the shared resources that no node uses any more, a line each."""
        return ()

    def prune(self, thing: str) -> None:
        """Delete one of `prunable`, unless a node uses it by now.

        Raises:
            GridupError: it could not be deleted.
        """
        raise NotImplementedError


def check_tag(spec: DeploySpec) -> None:
    """Check that Gridup has the requested syft version.

    Raises:
        UsageError: it does not; the message names the versions that it has.
    """
    try:
        catalog.resolve(spec.tag)
    except ValueError as error:
        raise UsageError(f"--tag {spec.tag}: {error}.") from None
