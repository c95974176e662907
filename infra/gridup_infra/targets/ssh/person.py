"""The way to a machine by the person's own ssh: for the first contact, when it knows nobody else yet."""

from __future__ import annotations

import contextlib
import shlex
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gridup_infra import openssh
from gridup_infra.errors import CredentialsError, GridupError, PreflightError
from gridup_infra.openssh import Destination
from gridup_infra.processes import Result, run, stream
from gridup_infra.vm.ssh import KEY_TYPE, ClosedError, HostKeyError, fingerprint, host_key_of

Say = Callable[[str], None]

SCAN_SECONDS = 10.0
OTHER_PORT = "--host user@address:2222"

ALIAS = "gridup-machine"
"""What the machine is called in the known_hosts of one call: its name and port need no escaping then."""

NO_SUDO, NO_PYTHON = "no sudo", "no python"

AS_ROOT = f"""\
if [ "$(id -u)" = 0 ]; then :
elif sudo -n true </dev/null >/dev/null 2>&1; then set -- sudo -n "$@"
else echo '{{"refused": "{NO_SUDO}"}}'; exit 1; fi
command -v python3 >/dev/null 2>&1 || {{ echo '{{"refused": "{NO_PYTHON}"}}'; exit 1; }}
exec "$@"
"""
"""Runs its arguments as root."""


@dataclass(frozen=True)
class Configured:
    """What ~/.ssh/config makes of a destination.

    Attributes:
        names: that known_hosts may have it by.
        files: the known_hosts files.
    """

    address: str
    port: int
    names: tuple[str, ...]
    files: tuple[Path, ...]

    @classmethod
    def of(cls, destination: Destination) -> Configured:
        """As `ssh -G` tells; nothing is connected to.

        Raises:
            PreflightError: there is no ssh, it refuses its configuration, or goes by way of another machine.
        """
        try:
            shown = run(["ssh", "-G", *destination.words()], timeout=openssh.ASK_SECONDS)
        except FileNotFoundError:
            raise PreflightError("There is no `ssh` on this machine.", "Install OpenSSH's client.") from None
        rows: dict[str, str] = {}
        for line in shown.stdout.splitlines():
            key, _, value = line.partition(" ")
            rows.setdefault(key, value)
        if not shown.ok or "hostname" not in rows:
            raise PreflightError(f"ssh can't tell where {destination.host} is: {' '.join(shown.tail(1))}.")
        for key in ("proxyjump", "proxycommand"):
            if rows.get(key, "none") != "none":
                raise PreflightError(
                    f"Your ssh reaches {destination.host} by way of another machine ({key} {rows[key]}).",
                    "A node must be reached directly, by its users as by you.",
                )
        address, port = rows["hostname"], int(rows.get("port", "22"))
        names = [address if port == 22 else f"[{address}]:{port}"]
        if alias := rows.get("hostkeyalias", ""):
            names = [alias]
        files = f"{rows.get('userknownhostsfile', '')} {rows.get('globalknownhostsfile', '')}"
        return cls(address, port, tuple(names), tuple(Path(name).expanduser() for name in shlex.split(files)))


@dataclass(frozen=True)
class Person:
    """The person's ssh to one machine, whose host key is known.

    Attributes:
        host: as typed.
        host_key: that it shows.
        theirs: whether only their known_hosts can vouch for it, by a key of another type.
        fresh: whether nobody had vouched for the key before.
    """

    host: str
    destination: Destination
    configured: Configured
    host_key: str
    theirs: bool = False
    fresh: bool = field(default=False, compare=False)

    def run(self, argv: Sequence[str], input: bytes, on_line: Say, timeout: float) -> Result:
        """Run a program there as root; `on_line` hears what ssh itself says, too.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
        """
        remote = shlex.join(["sh", "-c", AS_ROOT, "gridup", *argv])
        with self._options() as options:
            words = [*openssh.ssh("-T", options=options), *self.destination.words(), remote]
            return stream(words, on_line, timeout=timeout, input=input)

    def refused(self, said: Sequence[str], what: str = "") -> GridupError:
        """Why there was no answer.

        Args:
            what: that the machine told by `AS_ROOT`.
        """
        if what == NO_SUDO:
            return CredentialsError(
                f"On {self.host} you are not root, and sudo asks for a password or is not there.",
                "Name a user who may use sudo without one (NOPASSWD in /etc/sudoers), or --host root@…",
            )
        if what == NO_PYTHON:
            return PreflightError(
                f"{self.host} has no python3.", "Install it there (`sudo apt-get install python3`)."
            )
        by_hand = self.destination.command("true")
        why, suggestion = openssh.cause(said, by_hand, OTHER_PORT)
        if not self.theirs and "ost key verification failed" in why:
            shown = _shown(self.host, self.destination, self.configured)
            return _another(self.host, shown, "that was given, or pinned at first contact")
        kind = CredentialsError if "denied" in why.lower() or "authentication" in why else PreflightError
        return kind(f"{self.host} can't be entered by ssh: {why or 'no answer in time'}.", suggestion)

    @contextlib.contextmanager
    def _options(self) -> Iterator[dict[str, str]]:
        always = {"StrictHostKeyChecking": "yes", "UpdateHostKeys": "no"}
        if self.theirs:
            yield always
            return
        with tempfile.NamedTemporaryFile("w", prefix="gridup-known-", suffix=".txt") as known:
            known.write(f"{ALIAS} {self.host_key}\n")
            known.flush()
            yield always | {
                "HostKeyAlias": ALIAS,
                "HostKeyAlgorithms": KEY_TYPE,
                "UserKnownHostsFile": f'"{known.name}"',
                "GlobalKnownHostsFile": "/dev/null",
            }


def meet(host: str, pinned: str = "") -> Person:
    """Look who answers there, and whether that is who it should be.

    Args:
        host: `[user@]address[:port]`.
        pinned: the host key that it must show; empty for what the person's known_hosts say, else any.

    Raises:
        PreflightError: nobody answers, or not directly.
        HostKeyError: somebody else answers; where it is pinned that shows only when the machine is entered.
    """
    destination = Destination.read(host)
    configured = Configured.of(destination)
    if pinned:
        # ssh itself will look. A server of today counts who comes and does not log in, and shuts them out.
        return Person(host, destination, configured, pinned)
    shown = _shown(host, destination, configured)
    known = _known(configured)
    if shown in known:
        return Person(host, destination, configured, shown)
    if any(line.startswith(f"{KEY_TYPE} ") for line in known):
        raise _another(host, shown, "in your known_hosts")
    return Person(host, destination, configured, shown, theirs=bool(known), fresh=not known)


def _shown(host: str, destination: Destination, configured: Configured) -> str:
    try:
        socket.getaddrinfo(configured.address, configured.port, type=socket.SOCK_STREAM)
        return host_key_of(configured.address, configured.port, SCAN_SECONDS)
    except socket.gaierror:
        said = f"Could not resolve hostname {configured.address}"
    except ClosedError as error:
        said = "Operation timed out" if error.message == "no answer" else error.message.capitalize()
    why, suggestion = openssh.cause([said], destination.command("true"), OTHER_PORT)
    raise PreflightError(f"{host} can't be reached by ssh: {why}.", suggestion)


def _known(configured: Configured) -> list[str]:
    """The host keys that the person's known_hosts have of it, each as type and key."""
    found = []
    for file in configured.files:
        for name in configured.names:
            with contextlib.suppress(OSError):
                shown = run(["ssh-keygen", "-F", name, "-f", str(file)], timeout=openssh.ASK_SECONDS)
                for line in shown.stdout.splitlines():
                    words = line.split()
                    if words and not line.startswith("#"):
                        found.append(" ".join(words[-2:] if words[0].startswith("@") else words[1:3]))
    return found


def _another(host: str, shown: str, which: str) -> HostKeyError:
    return HostKeyError(
        f"The host key of {host} is not the one {which}: it shows {fingerprint(shown)}. Another "
        "machine answers, or somebody is in between.",
        'If it was installed anew, give its key: --host-key "ssh-ed25519 …", from '
        "/etc/ssh/ssh_host_ed25519_key.pub there.",
    )
