"""`python -m gridup_node.serve`: the node's one ASGI process, syft's api with our portal beside it.

Reads node.json, makes what secrets are missing and serves on its socket in the node's folder. Where the
reverse proxy is on another host (a container of its own), node.json has a port, `GRIDUP_LISTEN` the address
and `GRIDUP_PROXY` names that host. The reverse proxy's X-Forwarded headers are believed, and no other's.
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
"""How long open requests may take to end; the supervisor kills what takes `stop_seconds`."""
KEEP_ALIVE_SECONDS = 180
"""How long an idle connection is kept: longer than the reverse proxy keeps one (Caddy: two minutes).

Whoever closes first may do so in the moment in which the other sends a request, which is then lost.
"""
GARBAGE_AT_START = 20_000, 10, 1000
"""As of `gc.set_threshold`. With none collected at all the node would have 7% more memory for good."""
PROXY = "GRIDUP_PROXY"
OPEN_FILES = 65_536
PR_SET_PDEATHSIG = 1
"""From Linux's <sys/prctl.h>."""


def environment(folder: facts.NodeDir) -> dict[str, str]:
    """The variables that syft reads at its import. Nothing secret: those are handed over as values.

    syft keeps objects of more than a megabyte in `tempfile.gettempdir() / SYFT_TEMP_ROOT`, which an
    absolute path takes out of the temporary folder, for the jobs it forks as well. Its stock
    administrator (info@openmined.org, changethis) is the default of `DEFAULT_ROOT_PASSWORD`:
    with a random one that nobody keeps, no path through syft can ever make that account.
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
    # The socket and the queue's are named from here: a socket's path may have 107 bytes at most (unix(7)).
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
        # syft would take these before what we hand it.
        os.environ.pop(variable, None)
    os.environ.update(environment(folder))
    _raise_open_files()
    os.register_at_fork(after_in_child=partial(_in_job, port or own_api.SOCKET))

    import uvicorn

    from gridup_node import app
    from gridup_node.guard.protocol import Protocol

    log.info("starting %s node %r", node.node_type, node.name)
    # syft's modules make a million objects, and nearly all of them stay: to look for some that do not, again
    # and again, is a tenth of the start. Nor are they looked at later, here or in the process of a job.
    usual = gc.get_threshold()
    gc.set_threshold(*GARBAGE_AT_START)
    node_app = app.create(folder, node, os.environ.get(PROXY, "").split())
    gc.freeze()
    gc.set_threshold(*usual)
    uvicorn.run(
        node_app,
        host=host,
        port=port,
        # The folder that it is in is its user's alone.
        uds=None if port else own_api.SOCKET,
        access_log=False,
        server_header=False,
        # The guard reads these itself.
        proxy_headers=False,
        ws="none",
        http=Protocol,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        log_config=None,
        # syft turns nearly all logging off; why the server could not start must still be told.
        log_level="info",
    )
    return 0


def _is_alarm(record: logging.LogRecord) -> bool:
    """Whether a line of syft's is one: at each start it tells a hash of its key, as critical."""
    return not record.getMessage().startswith("Hash of the signing key")


def _is_of_the_server(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's tells of itself: what it warns of are requests of strangers, one by one."""
    return record.levelno != logging.WARNING


def _check_free(host: str, port: int) -> None:
    """Fail now and not in some seconds, before a second server touches the first one's data.

    Raises:
        OSError: something listens there, or the host is not this machine's.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _raise_open_files() -> None:
    """Each connection is an open file; the usual soft limit of 1,024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _in_job(own: int | str) -> None:
    """In a process that syft forks for a job: it ends when told to, and when the node is gone.

    Without this it inherits uvicorn's way with SIGTERM, so syft could not stop a job; and it
    would hold the node's port after the node was killed, so that the node could not come back.
    """
    _let_go(own)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _let_go(own: int | str) -> None:
    """Let go of the server's sockets, those of its port or path, which a fork has copied.

    A connection ends when its last copy does. The reverse proxy would take one that the server has closed as
    idle for open as long as the job runs, send a request down it, and wait for ever.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - no object for each, right after a fork
        # The listing's own is gone by now.
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                at = one.getsockname()
                is_own = at == own if one.family == socket.AF_UNIX else at[1:2] == (own,)
            if is_own:
                # Its number stays taken: objects of the server's still mean it.
                os.dup2(nothing, int(name), inheritable=False)
    os.close(nothing)


if __name__ == "__main__":
    sys.exit(main())
