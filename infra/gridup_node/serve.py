"""`python -m gridup_node.serve`: the node's one ASGI process, syft's api with our portal beside it.

Reads node.json, makes what secrets are missing and serves on the loopback, or on
`GRIDUP_LISTEN` where the proxy is on another host (a container of its own). Then
`FORWARDED_ALLOW_IPS` must name the proxy, so that its X-Forwarded headers are believed.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
import stat
import sys
from functools import partial

from gridup_node import facts, secrets

STOP_SECONDS = 5
"""How long open requests may take to end; the supervisor kills what takes `stop_seconds`."""
PR_SET_PDEATHSIG = 1
"""From Linux's <sys/prctl.h>."""


def environment(folder: facts.Folder) -> dict[str, str]:
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
    log = logging.getLogger("gridup_node")
    log.setLevel(logging.INFO)
    try:
        folder = facts.Folder.of_environment()
        node = facts.load(folder.facts)
    except facts.FactsError as error:
        print(f"gridup_node.serve: {error}", file=sys.stderr)  # noqa: T201
        return 1
    host, port = os.environ.get("GRIDUP_LISTEN", "127.0.0.1"), node.ports["api"]
    try:
        _check_free(host, port)
    except OSError as error:
        log.error("can't listen on %s, port %d: %s", host, port, error.strerror or error)
        return 1
    secrets.ensure(folder.secrets)
    for path in (folder.data, folder.objects, folder.run):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The queue's socket is named from here: a socket's whole path may have 107 bytes at most (unix(7)).
    os.chdir(folder.root)
    for variable in ("SERVER_UID", "SERVER_PRIVATE_KEY"):
        # syft would take these before what we hand it.
        os.environ.pop(variable, None)
    os.environ.update(environment(folder))
    os.register_at_fork(after_in_child=partial(_in_job, port))

    import uvicorn

    from gridup_node import app

    log.info("starting %s node %r", node.node_type, node.name)
    uvicorn.run(
        app.create(folder, node),
        host=host,
        port=port,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        log_config=None,
        # syft turns nearly all logging off; why the server could not start must still be told.
        log_level="info",
    )
    return 0


def _check_free(host: str, port: int) -> None:
    """Fail now and not in some seconds, before a second server touches the first one's data.

    Raises:
        OSError: something listens there, or the host is not this machine's.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _in_job(port: int) -> None:
    """In a process that syft forks for a job: it ends when told to, and when the node is gone.

    Without this it inherits uvicorn's way with SIGTERM, so syft could not stop a job; and it
    would hold the node's port after the node was killed, so that the node could not come back.
    """
    _let_go(port)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _let_go(port: int) -> None:
    """Let go of the server's sockets, which a fork has copied.

    A connection ends when its last copy does. The front door would take one that the server has closed as
    idle for open as long as the job runs, send a request down it, and wait for ever.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - no object for each, right after a fork
        # The listing's own is gone by now.
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                own = one.family in (socket.AF_INET, socket.AF_INET6) and one.getsockname()[1] == port
            if own:
                # Its number stays taken: objects of the server's still mean it.
                os.dup2(nothing, int(name), inheritable=False)
    os.close(nothing)


if __name__ == "__main__":
    sys.exit(main())
