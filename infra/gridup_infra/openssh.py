"""The person's own `ssh`.

It reads their ~/.ssh/config, known_hosts and agent, so whatever `ssh HOST` does works here. No password can
be asked for: nobody may be there to type it.
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
"""OpenSSH's, until the server has greeted us."""

ASK_SECONDS = 8.0
"""For a short command on the machine."""

UNREACHED = 255
"""Its own exit code, where it did not come to the command."""

OPTIONS: Mapping[str, str] = {
    "BatchMode": "yes",
    "ConnectTimeout": str(CONNECT_SECONDS),
    # A connection that died without a word is noticed within half a minute.
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
    # A shared connection would keep ours when we have ended.
    "ControlMaster": "no",
    "ControlPath": "none",
    "RemoteCommand": "none",
    # Where the person's own settings say `QUIET`, no error would tell what is wrong.
    "LogLevel": "INFO",
}

NO_HOST, NO_USER = set("'\"`\\$;&<>|(){}*?"), set("'\"`$;&<>|(){}")
"""What OpenSSH 9.6 refuses too: it would reach a shell by way of a ProxyCommand."""

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
"""What ssh says -> what to do. The first that fits counts: what follows from it is said after it."""


@dataclass(frozen=True)
class Destination:
    """Whom `ssh` is told to reach.

    Attributes:
        host: a name, an address, or a `Host` of ~/.ssh/config.
        user: empty for OpenSSH's choice.
        port: 0 for OpenSSH's choice.
    """

    host: str
    user: str = ""
    port: int = 0

    @classmethod
    def read(cls, text: str) -> Destination:
        """`[user@]host[:port]`, IPv6 in brackets.

        Raises:
            ValueError: it is not that, or what is in it could be taken for something else by OpenSSH.
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
        """Why OpenSSH must not be told so; empty when nothing speaks against it."""
        host, user = self.host, self.user
        if not host:
            return "it names no host"
        if host.startswith("-") or NO_HOST & set(host) or not _visible(host):
            return f"{host!r} can't be a host"
        if user_given and (not user or user.startswith("-") or NO_USER & set(user) or not _visible(user)):
            return f"{user!r} can't be a user"
        return ""

    def argv(self) -> list[str]:
        """As `ssh` wants it: nothing in it is taken for an option."""
        words = ["-p", str(self.port)] if self.port else []
        words += ["-l", self.user] if self.user else []
        return [*words, "--", self.host]

    def shell_command(self, *argv: str) -> str:
        """What a person types to do that there."""
        port = ["-p", str(self.port)] if self.port else []
        host = f"{self.user}@{self.host}" if self.user else self.host
        return shlex.join(["ssh", *port, host, *argv])


def ssh(*more: str, options: Mapping[str, str] | None = None, alone: bool = True) -> list[str]:
    """The beginning of an argv: `ssh` with our options, before the destination.

    Args:
        alone: whether a connection that the person shares (ControlPath) is passed by.
    """
    words = ["ssh", "-a", "-x", *more]
    for key, value in {**OPTIONS, **(options or {})}.items():
        if alone or key != "ControlPath":
            words += ["-o", f"{key}={value}"]
    return words


def configuration(destination: Destination) -> dict[str, str]:
    """What ~/.ssh/config makes of a destination, as `ssh -G` tells; nothing is connected to.

    Raises:
        FileNotFoundError: there is no ssh.
        PreflightError: it refuses its configuration.
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
    """What ~/.ssh/config makes of a destination.

    Attributes:
        user: who logs in there.
        names: that known_hosts may have it by.
        files: the known_hosts files.
        jump: ProxyJump: the machines on the way, the first one first; empty for none.
        command: ProxyCommand, empty for none.
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
        """As `configuration` tells.

        Raises:
            PreflightError: there is no ssh, or it refuses its configuration.
        """
        try:
            return cls.told(configuration(destination))
        except FileNotFoundError:
            raise PreflightError("There is no `ssh` on this machine.", "Install OpenSSH's client.") from None

    @classmethod
    def told(cls, rows: Mapping[str, str]) -> Configured:
        """From what `configuration` tells."""
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
        """By way of what it is reached, for people; empty for a machine that is reached directly."""
        return self.jump or self.command

    def way(self, address: str, port: int, user: str) -> tuple[str, ...]:
        """The argv of a program whose input and output are a connection to the machine's sshd.

        Args:
            address, port: the machine's, as whoever is last on the way reaches it.
            user: who is to log in there.

        Returns:
            None of a machine that is reached directly.

        Raises:
            PreflightError: the last one on the way can't be a destination.
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
        """ProxyCommand with its tokens (ssh_config(5), TOKENS)."""
        tokens = {"%": "%", "h": address, "n": address, "p": str(port), "r": user}
        return re.sub(r"%(.)", lambda found: tokens.get(found[1], found[0]), self.command)


def way(host: str, address: str, port: int, user: str) -> tuple[str, ...]:
    """See `Configured.way`, of a machine that the person has typed as `host`.

    None where there is no ssh: then it must be reached directly.
    """
    try:
        rows = configuration(Destination.read(host))
    except FileNotFoundError:
        return ()
    return Configured.told(rows).way(address, port, user)


def diagnose(said: Sequence[str], debug_command: str, other_port: str) -> tuple[str, str]:
    """Why ssh did not get there, by the line of its own that tells it, and what to do.

    Args:
        debug_command: the command by which a person sees for themselves.
        other_port: how another port is given.
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
