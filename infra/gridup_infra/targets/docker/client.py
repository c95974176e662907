"""Chooses a Docker daemon, connects to it, and turns connection failures into errors with a suggestion.

The SDK negotiates the API version. This module reads no version string and does not run the `docker` program.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gridup_infra.errors import PreflightError, ResourceError
from gridup_infra.loopback import is_loopback

if TYPE_CHECKING:
    import docker

DEFAULT_HOST = "unix:///var/run/docker.sock"
HOST_VARIABLE = "DOCKER_HOST"
CONTEXT_VARIABLE = "DOCKER_CONTEXT"

CONNECT_SECONDS = 8.0
"""Time limit for the daemon to return its version."""

CALL_SECONDS = 120.0
"""Time limit for any other call. A call that stops a container waits for its program to end."""

BUILD_SECONDS = 1800.0
"""Time limit between two lines of a build's output: a download of 250 MB prints nothing meanwhile."""

LOCAL = ("unix", "npipe")

SSH = "ssh"

PROGRAMS = ("dockerd", "docker")
"""At least one of these programs exists where Docker is installed."""


class UnreachableError(PreflightError):
    """No daemon can be reached. Nothing was created."""


def chosen_host() -> str:
    """Return the address of the daemon that the user's `docker` program would use.

    It comes from DOCKER_HOST, else from the current Docker context, else it is the default socket.

    Raises:
        UnreachableError: Docker's configuration can't be read, or the context that it or DOCKER_CONTEXT names
            does not exist.
    """
    given = os.environ.get(HOST_VARIABLE)
    if given:
        return given
    # Import the SDK only when a context is read: with DOCKER_HOST set, it is not needed here.
    from docker.context import ContextAPI
    from docker.context.config import get_current_context_name

    name = os.environ.get(CONTEXT_VARIABLE)
    try:
        name = name or str(get_current_context_name())
        context = ContextAPI.get_context(name)
        host = "" if context is None or name == "default" else str(context.Host or "")
    except Exception as error:
        raise UnreachableError(f"Docker's configuration can't be read: {_first_line(error)}.") from error
    if context is None:
        raise UnreachableError(f"There is no Docker context {name!r}.", "`docker context ls` lists them.")
    # The SDK adds "http+" to a socket's address; the `docker` program does not.
    return host.removeprefix("http+") or DEFAULT_HOST


def check_host(host: str) -> None:
    """Check that `host` is a daemon's address in a form that Gridup supports.

    Raises:
        UnreachableError: it is not, or it is a remote address without TLS.
    """
    try:
        scheme = urlsplit(host).scheme
    except ValueError:
        scheme = ""
    if scheme == SSH:
        from gridup_infra.targets.docker.ssh_host import SshDockerHost

        SshDockerHost.parse(host)
    elif scheme not in (*LOCAL, "tcp", "http", "https"):
        raise UnreachableError(
            f"DOCKER_HOST={host} is not the address of a daemon.",
            "It begins with unix://, tcp:// or ssh://, for example unix:///var/run/docker.sock.",
        )
    elif _is_plain(scheme) and not _is_near(host):
        # A user of a daemon is root on its machine, and plain traffic can be read and changed on its way.
        raise UnreachableError(
            f"The Docker daemon at {host} would be spoken to without TLS.",
            "Set DOCKER_HOST=ssh://user@host, or use TLS: DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH.",
        )


def _is_plain(scheme: str) -> bool:
    return scheme == "http" or (scheme == "tcp" and not os.environ.get("DOCKER_TLS_VERIFY"))


def _is_near(host: str) -> bool:
    try:
        return is_loopback(urlsplit(host).hostname or "")
    except ValueError:
        return False


def is_local(host: str) -> bool:
    """Return whether the daemon publishes ports on this machine.

    Raises:
        UnreachableError: `host` is an invalid ssh:// address.
    """
    return urlsplit(host).scheme in LOCAL or _host_name(host) in ("localhost", "127.0.0.1", "::1")


def address_of(host: str) -> str:
    """Return the name or address of the machine that a daemon runs on; 127.0.0.1 for a local socket.

    Raises:
        UnreachableError: `host` is an invalid ssh:// address.
    """
    return _host_name(host) or "127.0.0.1"


def _host_name(host: str) -> str:
    if urlsplit(host).scheme == SSH:
        from gridup_infra.targets.docker.tunnel import machine_of

        return machine_of(host)
    return urlsplit(host).hostname or ""


@contextlib.contextmanager
def connected(host: str) -> Iterator[docker.DockerClient]:
    """Yield a client of the daemon at `host`, and close it at the end. Translates the SDK's errors.

    Raises:
        UnreachableError: no daemon answers at `host`.
        ResourceError: the daemon refuses a call, or the connection is interrupted.
    """
    import docker
    import requests
    import urllib3

    client = connect(host)
    try:
        yield client
    except docker.errors.APIError as error:
        raise ResourceError(f"Docker refused: {reason(error)}.") from error
    except (
        requests.exceptions.RequestException,
        docker.errors.DockerException,
        # `requests` does not wrap errors that occur while a stream is read, such as a build's output.
        urllib3.exceptions.HTTPError,
        ConnectionError,
    ) as error:
        raise ResourceError(
            f"The Docker daemon at {host} broke off: {_first_line(error)}.", "Run the same command again."
        ) from error
    finally:
        client.close()


def connect(host: str) -> docker.DockerClient:
    """Return a client of the daemon at `host`.

    Raises:
        UnreachableError: no daemon answers at `host`. The message says why: Docker is not installed or not
            running, or the user has no permission.
    """
    check_host(host)
    if urlsplit(host).scheme == SSH:
        from gridup_infra.targets.docker.tunnel import tunnel_to

        tunnel = tunnel_to(host)
        near = tunnel.open()
        try:
            return _client(f"unix://{near}", tunnel.no_daemon)
        except UnreachableError:
            if tunnel.pid is not None:
                raise
        # The tunnel broke while it was used: open it again, and try once more.
        return _client(f"unix://{tunnel.open()}", tunnel.no_daemon)
    return _client(host, lambda error: _unreachable(host, error))


def _client(url: str, explain: Callable[[Exception], UnreachableError]) -> docker.DockerClient:
    """Return a client of the daemon at a URL that the SDK supports.

    Args:
        explain: turns the SDK's error into the error to raise.
    """
    import docker
    from docker.tls import TLSConfig

    scheme = urlsplit(url).scheme
    tls: TLSConfig | bool = False
    try:
        if scheme == "unix":
            _check_socket(urlsplit(url).path)
        if scheme in ("tcp", "https") and os.environ.get("DOCKER_TLS_VERIFY"):
            folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
            cert, key, ca = (str(folder / f"{name}.pem") for name in ("cert", "key", "ca"))
            tls = TLSConfig(client_cert=(cert, key), ca_cert=ca, verify=True)
        client = docker.DockerClient(base_url=url, version="auto", timeout=CONNECT_SECONDS, tls=tls)
    except docker.errors.TLSParameterError as error:
        raise UnreachableError(
            f"Docker's certificates can't be used: {_first_line(error)}.",
            "DOCKER_CERT_PATH names the folder of ca.pem, cert.pem and key.pem.",
        ) from error
    except (docker.errors.DockerException, OSError, ValueError) as error:
        raise explain(error) from error
    client.api.timeout = CALL_SECONDS
    return client


def reason(error: docker.errors.DockerException) -> str:
    """Return the daemon's error message, or the client's, in one line without a full stop."""
    return " ".join(str(getattr(error, "explanation", None) or error).split()).rstrip(".")


def same_daemon(told: Mapping[str, Any], known: str, host: str) -> None:
    """Check that the daemon is the one that the node was created on.

    Args:
        told: the result of `docker info`.
        known: the id of the daemon that the node was created on; empty if it is not known.

    Raises:
        ResourceError: it is another daemon.
    """
    found = daemon_id(told)
    if known and found and found != known:
        raise ResourceError(
            f"The Docker daemon at {host} is not the one that this node was made on.",
            "Set DOCKER_HOST to that one and deploy again; if it is gone for good, "
            "`pulumi stack rm STACK --force` forgets the node.",
        )


def daemon_id(told: Mapping[str, Any]) -> str:
    """Return the daemon's id from the result of `docker info`; empty if it has none."""
    return str(told.get("ID", ""))


def _check_socket(path: str) -> None:
    """Check that a program listens at a socket. Without this check the SDK would leave its own socket open.

    Raises:
        OSError: no program listens there, or this user has no permission.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as knocking:
        knocking.settimeout(CONNECT_SECONDS)
        knocking.connect(path)


def _unreachable(host: str, error: Exception) -> UnreachableError:
    number = _errno(error)
    text = str(error)
    if number in (errno.EACCES, errno.EPERM) or "Permission denied" in text:
        return UnreachableError(
            f"You have no permission to use Docker at {host}.",
            "Join the group `docker` and log in again, run as root, or use rootless Docker (DOCKER_HOST).",
        )
    if host == DEFAULT_HOST and not _installed():
        return UnreachableError(
            "Docker is not installed on this machine.",
            "Install Docker Engine, or name a daemon elsewhere: DOCKER_HOST=ssh://user@host",
        )
    if urlsplit(host).scheme in LOCAL or number == errno.ECONNREFUSED:
        return UnreachableError(
            f"Docker is not running: nothing answers at {host}.",
            "Start it (`systemctl start docker`, or Docker Desktop), or set DOCKER_HOST to where it runs.",
        )
    return UnreachableError(
        f"No Docker daemon can be reached at {host}: {_first_line(_cause(error))}.", "Is DOCKER_HOST right?"
    )


def _installed() -> bool:
    from gridup_infra.processes import which

    return any(which(name) for name in PROGRAMS)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 12:
        yield error
        for inner in getattr(error, "args", ()):
            if isinstance(inner, BaseException):
                yield from _chain(inner)
        reason = getattr(error, "reason", None)
        if isinstance(reason, BaseException):
            yield from _chain(reason)
        error, seen = error.__cause__ or error.__context__, seen + 1


def _errno(error: BaseException) -> int | None:
    return next((e.errno for e in _chain(error) if isinstance(e, OSError) and e.errno), None)


def _cause(error: Exception) -> BaseException:
    """Return the operating system's error in the chain of causes; `error` itself if there is none."""
    return next((e for e in _chain(error) if isinstance(e, OSError) and e.strerror), error)


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
