"""The address of a daemon behind ssh: `ssh://[user@]host[:port][/path/to/docker.sock]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from gridup_infra.openssh import Destination
from gridup_infra.targets.docker.client import HOST_VARIABLE, UnreachableError

SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True)
class SshDockerHost(Destination):
    """The address of a daemon behind ssh.

    Attributes:
        path: the path of the daemon's socket on that machine.
    """

    path: str = SOCKET

    @classmethod
    def parse(cls, text: str) -> SshDockerHost:
        """Parse `ssh://[user@]host[:port][/path/to/docker.sock]`.

        Raises:
            UnreachableError: the text does not have this form, or OpenSSH could misread a part of it.
        """
        try:
            parts = urlsplit(text)
            user, at, rest = parts.netloc.rpartition("@")
            # Not `parts.hostname`: it is in lower case, but a `Host` of ~/.ssh/config may have upper case.
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

    def debug_command(self) -> str:
        """Return the command with which the user can see what is wrong."""
        return self.shell_command("docker", "version")


def _problem(place: SshDockerHost, user_given: bool) -> str:
    if problem := place.problem(user_given=user_given):
        return problem
    if set(":\\$") & set(place.path) or not place.path.isprintable():
        return f"{place.path!r} can't be the path of a socket"
    return ""


def _malformed(text: str, why: str) -> UnreachableError:
    shown = re.sub(r"(//[^/:@]*):[^/]*@", r"\1:…@", text)
    shown = shown if shown.isprintable() else repr(shown)
    return UnreachableError(
        f"{HOST_VARIABLE}={shown} is not the address of a daemon: {why}.",
        "It has the form ssh://[user@]host[:port][/path/to/docker.sock].",
    )
