"""`python -m gridup_node.serve`: the node's ASGI process, with syft's API and Gridup's portal.

Reads node.json, creates missing secrets and serves on its socket in the node's folder. If the reverse proxy
is on another host (in its own container), node.json has a port, `GRIDUP_LISTEN` has the address to listen on,
and `GRIDUP_PROXY` names the reverse proxy's host. Only the reverse proxy's X-Forwarded headers are trusted.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import stat
import sys
from functools import partial

from gridup_node import database, facts, own_api, rotation, secrets

STOP_SECONDS = 5
"""How long open requests may take to end. After the service's `stop_seconds` the supervisor kills it."""
KEEP_ALIVE_SECONDS = 180
"""How long an idle connection stays open: longer than in the reverse proxy (Caddy: two minutes).

If the server closed a connection first, it could do so while the reverse proxy sends a request on it, which
would be lost.
"""
GARBAGE_AT_START = 20_000, 10, 1000
"""For `gc.set_threshold`. Without any garbage collection the node would need 7% more memory permanently."""
PROXY = "GRIDUP_PROXY"
OPEN_FILES = 65_536
PR_SET_PDEATHSIG = 1
"""From Linux's <sys/prctl.h>."""


def environment(folder: facts.NodeDir) -> dict[str, str]:
    """Return the variables that syft reads when it is imported. No secrets: those are passed as values.

    syft stores objects of more than a megabyte in `tempfile.gettempdir() / SYFT_TEMP_ROOT`. An absolute
    path moves them out of the temporary folder, for the jobs that syft forks as well. syft's default
    administrator (info@openmined.org, changethis) comes from the default of `DEFAULT_ROOT_PASSWORD`. With
    a random password that is stored nowhere, no code path in syft can create that account.
    """
    return {
        "SYFT_TEMP_ROOT": str(folder.objects),
        "DEFAULT_ROOT_EMAIL": "nobody@gridup.invalid",
        "DEFAULT_ROOT_PASSWORD": secrets.generate_password(),
        "ENABLE_SIGNUP": "False",
        "DEV_MODE": "False",
        "CONTAINER_HOST": "",
    }


def main() -> int:
    """Serve until SIGTERM. Returns the exit code."""
    os.umask(0o077)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("syft.server.server").addFilter(_is_alarm)
    logging.getLogger("uvicorn.error").addFilter(_is_of_the_server)
    log = logging.getLogger("gridup_node")
    log.setLevel(logging.INFO)
    try:
        folder = facts.NodeDir.from_env()
        node = facts.load(folder.facts)
    except facts.FactsError as error:
        print(f"gridup_node.serve: {error}", file=sys.stderr)  # noqa: T201
        return 1
    # The paths of both sockets are relative to this folder: a path may have 107 bytes at most (unix(7)).
    os.chdir(folder.root)
    host, port = os.environ.get("GRIDUP_LISTEN", "127.0.0.1"), node.ports.get("api", 0)
    try:
        _check_free(host, port) if port else own_api.claim()
    except OSError as error:
        place = f"{host}, port {port}" if port else own_api.SOCKET
        log.error("can't listen on %s: %s", place, error.strerror or error)
        return 1
    if why := database.check(folder):
        log.error("%s", why)
        return 1
    secrets.ensure(folder.secrets)
    if why := rotation.finish(folder):
        log.error("the node's secrets could not be replaced, the former ones hold: %s", why)
    for path in (folder.data, folder.objects, folder.run):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for variable in ("SERVER_UID", "SERVER_PRIVATE_KEY"):
        # syft would prefer these variables to the values that it is passed.
        os.environ.pop(variable, None)
    os.environ.update(environment(folder))
    _raise_open_files()
    os.register_at_fork(after_in_child=partial(_in_job, port or own_api.SOCKET))

    import uvicorn

    from gridup_node import app
    from gridup_node.guard.protocol import Protocol

    log.info("starting %s node %r", node.node_type, node.name)
    # syft's modules create a million objects, and nearly all of them stay. Searching them for garbage again
    # and again would take a tenth of the start. `freeze` excludes them later too, also in a job's process.
    usual = gc.get_threshold()
    gc.set_threshold(*GARBAGE_AT_START)
    node_app = app.create(folder, node, os.environ.get(PROXY, "").split())
    gc.freeze()
    gc.set_threshold(*usual)
    uvicorn.run(
        node_app,
        host=host,
        port=port,
        # Only the node's user can enter the socket's folder.
        uds=None if port else own_api.SOCKET,
        access_log=False,
        server_header=False,
        # The guard reads these headers itself.
        proxy_headers=False,
        ws="none",
        http=Protocol,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        log_config=None,
        # syft disables nearly all logging, but the log must show why the server could not start.
        log_level="info",
    )
    return 0


def _is_alarm(record: logging.LogRecord) -> bool:
    """Return whether syft's log line is an alarm: at each start it logs a hash of its key as critical."""
    return not record.getMessage().startswith("Hash of the signing key")


def _is_of_the_server(record: logging.LogRecord) -> bool:
    """Return whether uvicorn's log line is about the server: its warnings are about strangers' requests."""
    return record.levelno != logging.WARNING


def _check_free(host: str, port: int) -> None:
    """Check that the port is free, so that a second server fails before it touches the first one's data.

    Raises:
        OSError: a program listens on the port, or the host is not an address of this machine.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _raise_open_files() -> None:
    """Raise the limit of open files: each connection is one, and the usual limit of 1,024 is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _in_job(own: int | str) -> None:
    """Prepare a process that syft forks for a job: it must end on a signal, and when the node ends.

    Otherwise it would inherit uvicorn's handling of SIGTERM, so syft could not stop a job. And it
    would hold the node's port after the node was killed, so that the node could not start again.
    """
    _let_go(own)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _let_go(own: int | str) -> None:
    """Close the fork's copies of the server's sockets, which have the server's port or path.

    A connection ends when its last copy is closed. Otherwise, while the job runs, a connection that the
    server has closed as idle would still look open to the reverse proxy. The reverse proxy would send a
    request on it and wait forever.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - avoid an object for each file, right after a fork
        # The descriptor of the listing itself is closed by now.
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                at = one.getsockname()
                is_own = at == own if one.family == socket.AF_UNIX else at[1:2] == (own,)
            if is_own:
                # Keep the descriptor's number in use: objects of the server still refer to it.
                os.dup2(nothing, int(name), inheritable=False)
    os.close(nothing)


if __name__ == "__main__":
    sys.exit(main())
