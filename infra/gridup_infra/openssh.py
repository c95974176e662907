"""Runs the user's own `ssh`.

It reads the user's ~/.ssh/config, known_hosts and agent, so whatever works with `ssh HOST` works here. It
never asks for a password, because there may be no user at the terminal.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gridup_infra.errors import PreflightError
from gridup_infra.processes import run

CONNECT_SECONDS = 10
"""OpenSSH's `ConnectTimeout`: the limit until the server has sent its greeting."""

ASK_SECONDS = 8.0
"""The time limit of a short command on the machine."""

UNREACHED = 255
"""The exit code of ssh itself, if it did not get as far as the remote command."""

OPTIONS: Mapping[str, str] = {
    "BatchMode": "yes",
    "ConnectTimeout": str(CONNECT_SECONDS),
    # Detect a dead connection within half a minute.
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
    # A shared connection would stay open after this process has ended.
    "ControlMaster": "no",
    "ControlPath": "none",
    "RemoteCommand": "none",
    # With `QUIET` in the user's own settings, ssh would print no error message.
    "LogLevel": "INFO",
}

NO_HOST, NO_USER = set("'\"`\\$;&<>|(){}*?"), set("'\"`$;&<>|(){}")
"""Characters that a host or a user must not have: a ProxyCommand would pass them to a shell. OpenSSH 9.6
refuses them too."""

_DESTINATION = re.compile(r"((?P<user>[^@]*)@)?(?P<host>\[[^\]]*\]|[^:\[\]]*)(:(?P<port>\d{1,5}))?")

CAUSES = (
    (
        ("Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED"),
        "Its key is not known here, or is another one than before: run `{debug_command}` once, and look.",
    ),
    (
        ("Permission denied", "Too many authentication failures"),
        "`{debug_command}` must work without a question: put your key there (`ssh-copy-id`), "
        "and into your agent (`ssh-add`).",
    ),
    (
        ("Could not resolve hostname",),
        "Is the name right? It is one of the DNS, or a Host of ~/.ssh/config.",
    ),
    (
        ("Connection refused",),
        "Does its ssh server run, and on that port? Another one is given so: {other_port}",
    ),
    (
        ("timed out", "No route to host", "unreachable"),
        "Is the machine up, and can it be reached from here? `{debug_command}` must work.",
    ),
)
"""Parts of ssh's messages -> what to do. The first match is used. Ordered by root cause: ssh prints
consequences after causes."""


@dataclass(frozen=True)
class Destination:
    """The machine that `ssh` connects to.

    Attributes:
        host: a name, an address, or a `Host` of ~/.ssh/config.
        user: the user who logs in; empty for OpenSSH's choice.
        port: the port of the ssh server; 0 for OpenSSH's choice.
    """

    host: str
    user: str = ""
    port: int = 0

    @classmethod
    def read(cls, text: str) -> Destination:
        """Parse `[user@]host[:port]`, with an IPv6 address in brackets.

        Raises:
            ValueError: the text has another form, or OpenSSH could take a part of it for something else.
        """
        parts = _DESTINATION.fullmatch(text)
        if parts is None:
            raise ValueError("an IPv6 address stands in brackets, and a port is a number")
        port = int(parts["port"] or 0)
        if port > 65535 or (parts["port"] and not port):
            raise ValueError(f"{port} is no port")
        made = cls(parts["host"].strip("[]"), parts["user"] or "", port)
        if problem := made.problem(user_given=parts["user"] is not None):
            raise ValueError(problem)
        return made

    def problem(self, *, user_given: bool) -> str:
        """Return why this destination must not be passed to OpenSSH; empty if it is safe."""
        host, user = self.host, self.user
        if not host:
            return "it names no host"
        if host.startswith("-") or NO_HOST & set(host) or not _visible(host):
            return f"{host!r} can't be a host"
        if user_given and (not user or user.startswith("-") or NO_USER & set(user) or not _visible(user)):
            return f"{user!r} can't be a user"
        return ""

    def argv(self) -> list[str]:
        """Return the arguments for `ssh`. It can't take the host for an option."""
        words = ["-p", str(self.port)] if self.port else []
        words += ["-l", self.user] if self.user else []
        return [*words, "--", self.host]

    def shell_command(self, *argv: str) -> str:
        """Return the command that a user types to run `argv` on the machine."""
        port = ["-p", str(self.port)] if self.port else []
        host = f"{self.user}@{self.host}" if self.user else self.host
        return shlex.join(["ssh", *port, host, *argv])


def ssh(*more: str, options: Mapping[str, str] | None = None, alone: bool = True) -> list[str]:
    """Return the beginning of an argv: `ssh` with Gridup's options. The destination follows it.

    Args:
        more: more words for `ssh`, before the options.
        options: options that are added to `OPTIONS` or replace some of them.
        alone: whether to ignore a connection that the user shares (ControlPath).
    """
    words = ["ssh", "-a", "-x", *more]
    for key, value in {**OPTIONS, **(options or {})}.items():
        if alone or key != "ControlPath":
            words += ["-o", f"{key}={value}"]
    return words


def configuration(destination: Destination) -> dict[str, str]:
    """Return ssh's settings for a destination, from `ssh -G`. Does not connect.

    Raises:
        FileNotFoundError: there is no ssh.
        PreflightError: ssh refuses its configuration.
    """
    shown = run(["ssh", "-G", *destination.argv()], timeout=ASK_SECONDS)
    rows: dict[str, str] = {}
    for line in shown.stdout.splitlines():
        key, _, value = line.partition(" ")
        rows.setdefault(key, value)
    if not shown.ok or "hostname" not in rows:
        raise PreflightError(f"ssh can't tell where {destination.host} is: {' '.join(shown.tail(1))}.")
    return rows


@dataclass(frozen=True)
class Configured:
    """The settings that ~/.ssh/config gives to a destination.

    Attributes:
        address: the name or address to connect to.
        port: the port of its ssh server.
        user: the user who logs in.
        names: the names that known_hosts may list the machine under.
        files: the known_hosts files.
        jump: ProxyJump: the machines on the way, in order; empty for none.
        command: ProxyCommand; empty for none.
    """

    address: str
    port: int
    user: str = ""
    names: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    jump: str = ""
    command: str = ""

    @classmethod
    def of(cls, destination: Destination) -> Configured:
        """Ask ssh for the settings of a destination, see `configuration`.

        Raises:
            PreflightError: there is no ssh, or it refuses its configuration.
        """
        try:
            return cls.told(configuration(destination))
        except FileNotFoundError:
            raise PreflightError("There is no `ssh` on this machine.", "Install OpenSSH's client.") from None

    @classmethod
    def told(cls, rows: Mapping[str, str]) -> Configured:
        """Create it from the result of `configuration`."""
        address, port = rows["hostname"], int(rows.get("port", "22"))
        names = [address if port == 22 else f"[{address}]:{port}"]
        if alias := rows.get("hostkeyalias", ""):
            names = [alias]
        files = shlex.split(f"{rows.get('userknownhostsfile', '')} {rows.get('globalknownhostsfile', '')}")
        jump, command = (rows.get(key, "none") for key in ("proxyjump", "proxycommand"))
        return cls(
            address,
            port,
            rows.get("user", ""),
            tuple(names),
            tuple(Path(name).expanduser() for name in files),
            "" if jump == "none" else jump,
            "" if command == "none" else command,
        )

    @property
    def behind(self) -> str:
        """The ProxyJump or ProxyCommand that leads to the machine; empty for a direct connection."""
        return self.jump or self.command

    def way(self, address: str, port: int, user: str) -> tuple[str, ...]:
        """Return the argv of a program whose stdin and stdout are a connection to the machine's sshd.

        Args:
            address, port: the machine's, as the last machine on the way reaches it.
            user: the user who will log in on the machine.

        Returns:
            The argv; empty if the machine is reached directly.

        Raises:
            PreflightError: the last machine of ProxyJump is not a valid destination.
        """
        if self.jump:
            before, _, last = self.jump.rpartition(",")
            try:
                destination = Destination.read(last)
            except ValueError as error:
                raise PreflightError(f"ProxyJump {self.jump} of your ssh: {error}.") from None
            there = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            words = ssh(*(["-J", before] if before else []), "-W", there, alone=False)
            return (*words, *destination.argv())
        if self.command:
            return (os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {self._expanded(address, port, user)}")
        return ()

    def _expanded(self, address: str, port: int, user: str) -> str:
        """Return ProxyCommand with its tokens replaced (ssh_config(5), TOKENS)."""
        tokens = {"%": "%", "h": address, "n": address, "p": str(port), "r": user}
        return re.sub(r"%(.)", lambda found: tokens.get(found[1], found[0]), self.command)


def way(host: str, address: str, port: int, user: str) -> tuple[str, ...]:
    """Return `Configured.way` for a machine that the user has typed as `host`.

    Empty if there is no ssh: then the machine must be reached directly.
    """
    try:
        rows = configuration(Destination.read(host))
    except FileNotFoundError:
        return ()
    return Configured.told(rows).way(address, port, user)


def diagnose(said: Sequence[str], debug_command: str, other_port: str) -> tuple[str, str]:
    """Return ssh's own line that explains why it did not connect, and a suggestion.

    Args:
        said: the lines that ssh printed.
        debug_command: a command that the user can run to see the problem.
        other_port: how the user gives another port.
    """
    lines = [line.strip() for line in said if line.strip()]
    for signs, suggestion in CAUSES:
        for line in reversed(lines):
            if any(sign in line for sign in signs):
                return line.rstrip("."), suggestion.format(debug_command=debug_command, other_port=other_port)
    if lines:
        return lines[-1].rstrip("."), f"`{debug_command}` tells more."
    return "", CAUSES[-1][1].format(debug_command=debug_command)


def _visible(text: str) -> bool:
    return text.isprintable() and not any(char.isspace() for char in text)
