"""A tunnel to a daemon behind ssh: the user's OpenSSH forwards a local socket to the daemon's socket.

OpenSSH reads the user's ~/.ssh/config, known_hosts and agent, so every host that `ssh HOST` reaches works
here. OpenSSH never asks for a password: there may be no user to type it.
"""

from __future__ import annotations

import contextlib
import functools
import shlex
import socket
import tempfile
import threading
from pathlib import Path

from gridup_infra import openssh
from gridup_infra.errors import PreflightError
from gridup_infra.processes import OwnedProcess, Result, run, wait_until
from gridup_infra.targets.docker.client import UnreachableError
from gridup_infra.targets.docker.ssh_host import SshDockerHost

TUNNEL_TIMEOUT = 13.0
"""Time limit for the tunnel to open, including the login."""

SOCKET_BYTES = 103
"""The longest path of a socket on macOS, in bytes; on Linux it is 107."""


class Tunnel:
    """A tunnel to one daemon. It opens at first use, opens again after it broke, and ends with this process.

    Get it from `tunnel_to`, so that this process has at most one tunnel to a daemon.
    """

    def __init__(self, place: SshDockerHost) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._ssh: OwnedProcess | None = None
        self._socket = Path()

    def open(self) -> Path:
        """Open the tunnel if it is not open. Returns the local socket's path.

        Raises:
            UnreachableError: ssh can't connect. The message says why, the suggestion what to do.
        """
        with self._lock:
            if self._ssh is None or not self._ssh.running:
                self._stop()
                self._start()
            return self._socket

    def close(self) -> None:
        """Close the tunnel and all connections through it."""
        with self._lock:
            self._stop()

    @property
    def pid(self) -> int | None:
        """The process id of the ssh that keeps the tunnel open; None if the tunnel is not open."""
        ssh = self._ssh
        return ssh.pid if ssh and ssh.running else None

    def _stop(self) -> None:
        if self._ssh is not None:
            self._ssh.close()
            self._ssh = None

    def _start(self) -> None:
        folder = _private_folder()
        here = folder / "d.sock"
        there = self.place.path.replace("%", "%%")
        # ExitOnForwardFailure is not set: a `LocalForward` in the user's configuration may fail here while
        # the user is logged in on that machine. The socket shows whether Gridup's own forward works.
        words = [*openssh.ssh("-nNT", "-L", f"{here}:{there}"), *self.place.argv()]
        try:
            ssh = OwnedProcess(words, litter=folder)
        except FileNotFoundError:
            folder.rmdir()
            raise _no_ssh() from None
        try:
            there_in_time = wait_until(lambda: not ssh.running or _listens(here), timeout=TUNNEL_TIMEOUT)
            if not there_in_time or not ssh.running:
                raise _no_way(self.place, ssh.said())
        except BaseException:
            ssh.close()
            raise
        self._ssh, self._socket = ssh, here

    def no_daemon(self, error: Exception) -> UnreachableError:
        """Return the error for a tunnel that is open while no daemon answers at its end.

        Args:
            error: what the SDK raised.
        """
        place, ssh = self.place, self._ssh
        # The connection closes a moment before ssh prints the reason.
        wait_until(lambda: _refusal(ssh) != "" or self.pid is None, timeout=1)
        refusal = _refusal(ssh)
        if any(sign in refusal for sign in ("prohibited", "unknown channel type")):
            return UnreachableError(
                f"The ssh server of {place.host} opens no tunnel to a socket: {refusal}.",
                "OpenSSH's does, with `AllowStreamLocalForwarding yes` in its sshd_config.",
            )
        if not refusal:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            return UnreachableError(
                f"No Docker daemon answers at {place.path} of {place.host}: {reason[0].rstrip('.')}.",
                f"`{place.debug_command()}` tells more.",
            )
        return _no_socket(place)


def tunnel_to(host: str) -> Tunnel:
    """Return this process's only tunnel to the daemon at `ssh://…`, without opening it.

    Raises:
        UnreachableError: `host` is not such an address.
    """
    place = SshDockerHost.parse(host)
    return _TUNNELS.setdefault(place, Tunnel(place))


_TUNNELS: dict[SshDockerHost, Tunnel] = {}
"""Tunnels live as long as the process: a tunnel costs a login, and every call to the daemon needs one."""


def machine_of(host: str) -> str:
    """Return the name or address of the machine behind `ssh://…`, according to ~/.ssh/config.

    Raises:
        UnreachableError: `host` is not such an address.
    """
    return _host_name(SshDockerHost.parse(host))


@functools.cache
def _host_name(place: SshDockerHost) -> str:
    with contextlib.suppress(OSError, PreflightError):
        return openssh.configuration(place)["hostname"]
    return place.host


def _private_folder() -> Path:
    """Create a folder that only this user may enter.

    The path of a socket in it is short enough, and has no character that OpenSSH interprets.
    """
    parent = tempfile.gettempdir()
    if len(f"{parent}/gridup-12345678/d.sock".encode()) > SOCKET_BYTES or set(":\\$%") & set(parent):
        parent = "/tmp"  # noqa: S108 - mkdtemp makes a name of its own
    return Path(tempfile.mkdtemp(prefix="gridup-", dir=parent))


def _listens(path: Path) -> bool:
    if not path.exists():
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _refusal(ssh: OwnedProcess | None) -> str:
    """Return ssh's last message about a connection that the other side refused; empty if there is none."""
    lines = [line for line in (ssh.said() if ssh else ()) if "open failed: " in line]
    return lines[-1].partition("open failed: ")[2].rstrip(".") if lines else ""


def _no_socket(place: SshDockerHost) -> UnreachableError:
    """Ask the machine why the daemon's socket refuses connections, and return the error.

    A command on the machine is needed because OpenSSH reports all causes in the same words.
    """
    # A file in a folder that this user may not enter seems not to exist, so check the folder too.
    script = (
        'd=${1%/*}; [ -e "$1" ] || { [ -e "$d" ] && [ ! -x "$d" ] && exit 4; exit 3; }; [ -w "$1" ] || exit 4'
    )
    asked = _ask(place, ["sh", "-c", script, "sh", place.path])
    if asked is not None and asked.code == 4:
        return UnreachableError(
            f"You have no permission to use Docker on {place.host}: {place.path} is closed to that user.",
            "Have the user join the group `docker` there, or name another one: ssh://user@host",
        )
    if asked is not None and asked.code == 3:
        return UnreachableError(
            f"Docker is not running on {place.host}: there is no {place.path}.",
            "Install or start it there, or say where its socket is: ssh://host/path/to/docker.sock",
        )
    if asked is not None and asked.ok:
        return UnreachableError(
            f"Docker is not running on {place.host}: nothing answers at {place.path}.",
            # If OpenSSH's server forbids the tunnel, it gives no other reason than this.
            f"Start it there (`systemctl start docker`). If `{place.debug_command()}` works, its sshd_config "
            "needs AllowStreamLocalForwarding yes.",
        )
    return UnreachableError(
        f"Docker can't be used on {place.host}: {place.path} is closed, or nothing answers there.",
        f"`{place.debug_command()}` tells more.",
    )


def _ask(place: SshDockerHost, words: list[str]) -> Result | None:
    """Run a command on the machine. Returns None if it can't be run or does not end in time."""
    try:
        return run([*openssh.ssh("-nT"), *place.argv(), shlex.join(words)], timeout=openssh.ASK_SECONDS)
    except OSError:
        return None


def _no_ssh() -> UnreachableError:
    return UnreachableError(
        "There is no `ssh` on this machine, which DOCKER_HOST=ssh://… needs.",
        "Install OpenSSH's client, or name a daemon by unix:// or tcp://.",
    )


def _no_way(place: SshDockerHost, said: tuple[str, ...]) -> UnreachableError:
    """Return the error for an ssh that can't connect, from the lines that it printed."""
    lines = [line.strip() for line in said if line.strip()]
    why, suggestion = openssh.diagnose(lines, place.debug_command(), "ssh://host:2222")
    return UnreachableError(
        f"{place.host} can't be reached by ssh: {why or f'not within {TUNNEL_TIMEOUT:g} s'}.",
        suggestion,
        tuple(lines[-5:]) if len(lines) > 1 else (),
    )
