"""Access to a node on a machine: ssh to the machine, and Docker there to the node's programs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from gridup_infra.errors import ResourceError
from gridup_infra.naming import typed
from gridup_infra.outputs import MANAGEMENT_KEY, NodeOutputs
from gridup_infra.paths import Home, ensure_private, write_private
from gridup_infra.processes import Result, wait_until
from gridup_infra.targets.base import NodeAccess, ReadSecret, SshAccess
from gridup_infra.vm import first_boot_wait
from gridup_infra.vm.node import HOST, HOST_KEY, IP, MACHINE, PROJECT
from gridup_infra.vm.ssh import KILL_ON_DISCONNECT, Session, SshEndpoint, ssh_session
from gridup_node import keys
from gridup_node.containers import LAID, LAID_SECONDS
from gridup_node.services import backends, programs, service
from gridup_node.vm.first_boot import State

CONNECT_TIMEOUT = 30.0

LOG_SECONDS = 60.0
RESTART_SECONDS = 60.0
"""Time limit to restart one program."""

JOURNAL = ("journalctl", "--unit=ssh.service", "--no-pager", "--output=short-iso")
"""The command that reads the log of ssh, the only service that the machine itself provides."""


def door_of(outputs: NodeOutputs, key: str, host_key: str) -> SshEndpoint:
    """Return the ssh endpoint of a node's machine.

    Args:
        key: the stack's management key, the private half.
        host_key: the pinned host key; empty before the first contact.
    """
    facts, port = outputs.facts, outputs.ports["ssh"]
    return SshEndpoint(
        facts[IP], key, host_key, outputs.ssh_user, port, facts.get(HOST, ""), outputs.spec.name
    )


class VmAccess(NodeAccess):
    """Access to the machine of one node.

    Args:
        secret: reads the stack's management key.
        enter_seconds: time limit for a login; meanwhile a machine that does not answer is tried again.
        retry_auth: see `ssh.ssh_session`.
    """

    def __init__(
        self,
        outputs: NodeOutputs,
        secret: ReadSecret,
        enter_seconds: float = CONNECT_TIMEOUT,
        *,
        retry_auth: bool = True,
    ) -> None:
        self._outputs = outputs
        self._until_let_in = retry_auth
        self._secret = secret
        self._seconds = enter_seconds

    def run(
        self, argv: Sequence[str], *, timeout: float, input: bytes | None = None, service: str = ""
    ) -> Result:
        if reason := self._outputs.not_offered.get(backends()[0].name):
            raise ResourceError(f"This machine has no node yet: {reason}.")
        name = f"{PROJECT}-{service or backends()[0].name}"
        words = ["docker", "exec", "--interactive", name, *argv]
        with self.session() as session:
            done = session.run(words, timeout=timeout, input=input)
            if not done.ok and not self._runs(session, name):
                raise ResourceError(
                    f"The container {name} does not run on the machine.",
                    f"`{typed('logs', self._outputs.spec.name)}` tells why; "
                    f"`{typed('deploy', self._outputs.spec.name)}` starts it.",
                )
        return Result(tuple(argv), done.code, done.stdout, done.stderr)

    def programs(self) -> tuple[str, ...]:
        first = backends()[0].name
        own = [row.name for row in programs() if not row.provided_by_host and row.name != first]
        return () if self._outputs.spec.no_node else (first, *own)

    def restart(self, services: Sequence[str]) -> None:
        seconds = max((service(name).stop_seconds for name in services), default=0)
        argv = ["docker", "restart", f"--time={seconds}", *(f"{PROJECT}-{name}" for name in services)]
        with self.session() as session:
            done = session.run(argv, timeout=RESTART_SECONDS * max(len(services), 1))
            if not done.ok:
                why = " ".join(done.tail(1))
                raise ResourceError(f"The node's programs could not be started anew: {why}.")
            for name in services:
                asked = ["docker", "exec", f"{PROJECT}-{name}", *LAID]
                if not wait_until(partial(_succeeds, session, asked), timeout=LAID_SECONDS):
                    raise ResourceError(f"{name} did not start anew within {LAID_SECONDS:g} s.")

    def logs(self, services: Sequence[str], *, lines: int, follow: bool) -> Iterator[tuple[str, str]]:
        commands = {name: self._log(name, lines, follow) for name in services}
        with self.session() as session:
            if follow:
                yield from session.follow(commands)
                return
            for name, argv in commands.items():
                # Docker writes a program's errors to stderr; they are part of the log too.
                words = ["sh", "-c", 'exec "$@" 2>&1', "log", *argv]
                for line in session.run(words, timeout=LOG_SECONDS).stdout.splitlines():
                    yield name, line

    def ssh(self) -> SshAccess:
        door = self._door()
        if not door.host_key:
            # Pin the host key at this contact; OpenSSH itself would ask the user.
            with self.session():
                door = self._door()
        key = self._folder() / keys.CLIENT_KEY
        # Write the key each time: the file may hold another key, of an earlier deploy.
        write_private(key, door.key.encode())
        self._pin(door.host_key)
        known_hosts = self._folder() / keys.KNOWN_HOSTS
        return SshAccess(door.user, door.address, door.port, key, known_hosts, door.way())

    def boot_state(self) -> State:
        """Return the progress of the machine's first boot.

        Raises:
            SshUnreachableError: the machine can't be entered (yet).
        """
        with self.session() as session:
            return first_boot_wait.read_state(session)

    def boot_tail(self) -> tuple[str, ...]:
        """Return the last lines of the first boot's log.

        Raises:
            SshUnreachableError: the machine can't be entered (yet).
        """
        with self.session() as session:
            return first_boot_wait.read_tail(session)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Log in to the machine, yield the session, and pin the host key.

        Raises:
            SshUnreachableError: the machine can't be entered.
        """
        door = self._door()
        with ssh_session(door, timeout=self._seconds, retry_auth=self._until_let_in) as session:
            self._pin(session.host_key)
            yield session

    def _door(self) -> SshEndpoint:
        key = self._secret(self._outputs.spec.stack, MANAGEMENT_KEY)
        host_key = self._outputs.facts.get(HOST_KEY) or self._pinned()
        return door_of(self._outputs, key, host_key)

    def _pin(self, host_key: str) -> None:
        """Write the host key to a file: for OpenSSH, and for stacks that do not store it (`--no-node`)."""
        write_private(
            self._folder() / keys.KNOWN_HOSTS, f"{self._mark()}\n{keys.known_hosts(host_key)}".encode()
        )

    def _pinned(self) -> str:
        """Return the host key that this deployer pinned earlier for exactly this machine; empty for none."""
        with contextlib.suppress(FileNotFoundError):
            first, _, rest = (self._folder() / keys.KNOWN_HOSTS).read_text(encoding="utf-8").partition("\n")
            if first == self._mark():
                return rest.strip().removeprefix("* ")
        return ""

    def _mark(self) -> str:
        return f"# {self._outputs.facts.get(MACHINE, '')} {self._outputs.facts[IP]}"

    def _folder(self) -> Path:
        return ensure_private(Home.default().stack(self._outputs.spec.stack) / "keys")

    @staticmethod
    def _runs(session: Session, container: str) -> bool:
        argv = ["docker", "container", "inspect", "--format", "{{.State.Running}}", container]
        return session.run(argv, timeout=LOG_SECONDS).stdout.strip() == "true"

    @staticmethod
    def _log(name: str, lines: int, follow: bool) -> list[str]:
        own = service(name)
        watched = KILL_ON_DISCONNECT if follow else ()
        if own.provided_by_host:
            # Run the watching shell as root too: another user could not end root's program.
            return ["sudo", *watched, *JOURNAL, f"--lines={lines}", *["--follow"] * follow]
        container = f"{PROJECT}-{own.served_by or own.name}"
        return [*watched, "docker", "logs", f"--tail={lines}", *["--follow"] * follow, container]


def _succeeds(session: Session, argv: Sequence[str]) -> bool:
    return session.run(argv, timeout=LOG_SECONDS).ok
