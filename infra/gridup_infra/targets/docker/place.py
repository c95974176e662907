"""Where a daemon behind ssh is: `ssh://[user@]host[:port][/path/to/docker.sock]`, and how OpenSSH is told."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from gridup_infra.targets.docker.client import HOST_VARIABLE, UnreachableError

SOCKET = "/var/run/docker.sock"

NO_HOST, NO_USER = set("'\"`\\$;&<>|(){}*?"), set("'\"`$;&<>|(){}")
"""What OpenSSH 9.6 refuses too: it would reach a shell by way of a ProxyCommand."""


@dataclass(frozen=True)
class Place:
    """A daemon behind ssh.

    Attributes:
        host: a name, an address, or a `Host` of ~/.ssh/config.
        user: empty for OpenSSH's choice.
        port: 0 for OpenSSH's choice.
        path: the daemon's socket there.
    """

    host: str
    user: str = ""
    port: int = 0
    path: str = SOCKET

    @classmethod
    def parse(cls, text: str) -> Place:
        """`ssh://[user@]host[:port][/path/to/docker.sock]`.

        Raises:
            UnreachableError: it is not that, or what is in it could be taken for something else by OpenSSH.
        """
        try:
            parts = urlsplit(text)
            user, at, rest = parts.netloc.rpartition("@")
            # Not `hostname`, which is in small letters: the names of ~/.ssh/config may be otherwise.
            host = rest[1:].partition("]")[0] if rest.startswith("[") else rest.partition(":")[0]
            place = cls(host, unquote(user), parts.port or 0, unquote(parts.path.rstrip("/")) or SOCKET)
        except ValueError as error:
            raise _malformed(text, str(error)) from None
        if ":" in user:
            raise _malformed(text, "a password can't be given; ssh logs in by key")
        if problem := _problem(place, bool(at)):
            raise _malformed(text, problem)
        if parts.query or parts.fragment or not text.isprintable():
            raise _malformed(text, "nothing may follow the path")
        return place

    def words(self) -> list[str]:
        """The place as `ssh` wants it: nothing in it is taken for an option."""
        words = ["-p", str(self.port)] if self.port else []
        words += ["-l", self.user] if self.user else []
        return [*words, "--", self.host]

    def by_hand(self) -> str:
        """The command by which a person sees for themselves what is wrong."""
        port = ["-p", str(self.port)] if self.port else []
        host = f"{self.user}@{self.host}" if self.user else self.host
        return shlex.join(["ssh", *port, host, "docker", "version"])


def _problem(place: Place, user_given: bool) -> str:
    host, user, path = place.host, place.user, place.path
    if not host:
        return "it names no host"
    if host.startswith("-") or NO_HOST & set(host) or not _visible(host):
        return f"{host!r} can't be a host"
    if user_given and (not user or user.startswith("-") or NO_USER & set(user) or not _visible(user)):
        return f"{user!r} can't be a user"
    if set(":\\$") & set(path) or not path.isprintable():
        return f"{path!r} can't be the path of a socket"
    return ""


def _visible(text: str) -> bool:
    return text.isprintable() and not any(char.isspace() for char in text)


def _malformed(text: str, why: str) -> UnreachableError:
    shown = re.sub(r"(//[^/:@]*):[^/]*@", r"\1:…@", text)
    shown = shown if shown.isprintable() else repr(shown)
    return UnreachableError(
        f"{HOST_VARIABLE}={shown} is not the address of a daemon: {why}.",
        "It has the form ssh://[user@]host[:port][/path/to/docker.sock].",
    )
