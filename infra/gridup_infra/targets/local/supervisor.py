"""One node's supervisor: start it, query it, restart its services, stop it.

Gridup talks to Supervisor (from the node's environment) over XML-RPC, on a socket that only the node's
account may open.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import stat
import xmlrpc.client
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridup_infra.errors import ResourceError
from gridup_infra.naming import typed
from gridup_infra.paths import write_private
from gridup_infra.processes import boot, start_detached, wait_until
from gridup_infra.targets.local import process_env

START_SECONDS = 20
"""Seconds to wait until Supervisor itself answers; it needs 0.3 s on an idle machine."""

STOP_SECONDS = 45
"""Seconds to wait until all services have ended; syft's server may take its `stop_seconds`."""

RESTART_SECONDS = 20
"""Seconds to wait until programs end before a restart; after that they are killed."""

CALL_SECONDS = 10
SHORT = Path("/tmp")  # noqa: S108 - only a folder that this account alone can access, see `_ensure_ours`
SOCKET_PATH_MAX = 100
"""Maximum bytes of a Unix socket's path: Linux allows 107, macOS 103."""

RUNNING = "RUNNING"
STARTING = ("STARTING", "BACKOFF")


@dataclass(frozen=True)
class ServiceState:
    """Supervisor's report on one service: name of its state, process id, last exit code and start error."""

    name: str
    state: str
    pid: int
    exit_code: int
    error: str


def socket_path(folder: Path, stack_id: str) -> Path:
    """Return Supervisor's socket: in the node's folder, or in a short private one if that path is too long.

    Uses no setting that may differ for the next command, such as TMPDIR.
    """
    path = folder / "supervisor.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
        return path
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    return SHORT / f"gridup-{os.getuid()}-{stack_id}-{key}" / "s"


def _ensure_ours(folder: Path) -> None:
    """Create a private folder in a place where every account may create a folder of that name.

    Raises:
        ResourceError: the folder exists already, and is not private to this account.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ResourceError(
            f"{folder} is there already, and is not this account's alone.",
            "Remove it, or set GRIDUP_HOME to a folder with a shorter path.",
        )


class Supervisor:
    """The supervisor of the node in `folder`.

    Args:
        folder: the node's folder.
        stack_id: the ownership mark of the node's processes.
        bin: the folder with the programs of the node's environment; needed only to start processes.
    """

    def __init__(self, folder: Path, stack_id: str, bin: Path | None = None) -> None:
        self.folder = folder
        self.stack_id = stack_id
        self.bin = bin
        self.socket = socket_path(folder, stack_id)

    @property
    def stopped_by_user(self) -> bool:
        return self._stop_note.exists()

    @property
    def _stop_note(self) -> Path:
        return self.folder / "stopped"

    @property
    def rebooted(self) -> bool:
        """Whether the machine was restarted after the supervisor's last start; False if unknown."""
        with contextlib.suppress(OSError):
            before, now = self._boot_note.read_text(encoding="ascii"), boot()
            return bool(now) and before != now
        return False

    @property
    def _boot_note(self) -> Path:
        return self.folder / "boot"

    def states(self) -> dict[str, ServiceState] | None:
        """Return the state of each service; None if no supervisor answers."""
        try:
            infos: Any = self._call("getAllProcessInfo")
        except (OSError, xmlrpc.client.Error, http.client.HTTPException):
            return None
        return {
            info["name"]: ServiceState(
                info["name"], info["statename"], info["pid"], info["exitstatus"], info["spawnerr"]
            )
            for info in infos
        }

    def start(self) -> None:
        """Start the supervisor, and with it every service, unless the supervisor answers already.

        Raises:
            ResourceError: the supervisor did not answer in time.
        """
        with contextlib.suppress(FileNotFoundError):
            self._stop_note.unlink()
        if self.states() is not None:
            return
        assert self.bin is not None
        # Processes that an older, killed supervisor left running would hold the ports.
        self.kill_strays()
        if self.socket.parent != self.folder:
            _ensure_ours(self.socket.parent)
        write_private(self._boot_note, boot().encode())
        log = self.folder / "logs" / "supervisor-start.log"
        start_detached(
            [
                self.bin / "python",
                "-m",
                "supervisor.supervisord",
                "-n",
                "-c",
                self.folder / "config" / "supervisord.conf",
            ],
            env=self.environment(),
            cwd=self.folder,
            log=log,
        )
        if not wait_until(lambda: self.states() is not None, timeout=START_SECONDS):
            tail = log.read_text(errors="replace").splitlines()[-5:]
            raise ResourceError(
                f"The node's supervisor did not start within {START_SECONDS} s.", f"See {log}.", tuple(tail)
            )

    def environment(self) -> dict[str, str]:
        """Return the environment of every process of the node.

        It has few of the user's variables, and of Gridup's only the node's folder, socket and ownership mark.
        """
        passed = ("HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR")
        proxies = (
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "NO_PROXY",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "REQUESTS_CA_BUNDLE",
        )
        mirrors = ("PIP_INDEX_URL", "UV_INDEX_URL")
        names = (*passed, *proxies, *(name.lower() for name in proxies), *mirrors)
        assert self.bin is not None
        return {
            **{name: os.environ[name] for name in names if name in os.environ},
            "PATH": os.pathsep.join([str(self.bin), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": str(self.folder / "app"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "GRIDUP_NODE_HOME": str(self.folder),
            "GRIDUP_SOCKET": str(self.socket),
            process_env.STACK_ID: self.stack_id,
        }

    def apply(self, changed: Collection[str], removed: Collection[str]) -> None:
        """Load a new configuration: restart the `changed` services and stop the `removed` ones, no others.

        Raises:
            ResourceError: Supervisor did not accept the configuration.
        """
        try:
            self._call("reloadConfig")
            # Stop all of them first: one may now listen where another one listened before.
            for name in (*removed, *changed):
                self._stop_group(name)
            for name in changed:
                self._call("addProcessGroup", name)
        except (OSError, xmlrpc.client.Error, http.client.HTTPException) as error:
            raise ResourceError(
                f"The node's supervisor did not take its new configuration: {error}."
            ) from error

    def restart(self, names: Sequence[str], node: str) -> None:
        """End programs with all their descendants, and let Supervisor start the programs again.

        Supervisor starts them also if this command is interrupted.

        Args:
            names: the programs.
            node: the node's name, for messages.

        Raises:
            ResourceError: Supervisor does not answer, or a process did not end.
        """
        states = self.states()
        if states is None:
            again = typed("deploy", node)
            raise ResourceError("The node's supervisor does not run.", f"`{again}` starts it.")
        own = [state for name, state in states.items() if name in names]
        # An ssh login has its own session, and would outlive the program.
        started = [child for state in own for child in process_env.started(state.pid)]
        alive = process_env.end(process_env.of(state.pid for state in own), grace=RESTART_SECONDS)
        alive += process_env.end(started, grace=0)
        if alive:
            raise ResourceError(f"Processes would not end: {', '.join(str(one.pid) for one in alive)}.")
        try:
            for name in names:
                if name not in states:
                    self._call("addProcessGroup", name)
                elif states[name].state not in (RUNNING, *STARTING):
                    self._call("startProcess", name, False)
        except (OSError, xmlrpc.client.Error, http.client.HTTPException) as error:
            raise ResourceError(f"The node's supervisor did not start them anew: {error}.") from error

    def _stop_group(self, name: str) -> None:
        # Supervisor returns a fault if there is no such group, or if it is stopped already.
        for method, words in (("stopProcessGroup", (name, True)), ("removeProcessGroup", (name,))):
            with contextlib.suppress(xmlrpc.client.Fault):
                self._call(method, *words, timeout=STOP_SECONDS)

    def stop(self, *, on_purpose: bool = False) -> None:
        """Stop every service and the supervisor; no process of the node runs when this returns.

        Args:
            on_purpose: whether the user asked for it; the node then counts as stopped until its next start.

        Raises:
            ResourceError: a process did not end.
        """
        if on_purpose:
            self._stop_note.touch(mode=0o600)
        with contextlib.suppress(OSError, xmlrpc.client.Error, http.client.HTTPException):
            self._call("shutdown")
            wait_until(lambda: self.states() is None, timeout=STOP_SECONDS)
        self.kill_strays()

    def kill_strays(self) -> None:
        """End every process that has this node's ownership mark, and delete the supervisor's socket.

        Raises:
            ResourceError: a process did not end.
        """
        alive = process_env.end(process_env.find(self.stack_id, self.folder), grace=10)
        if alive:
            which = ", ".join(str(process.pid) for process in alive)
            raise ResourceError(f"Processes of this node would not end: {which}.")
        for left in (self.socket, self.folder / "supervisord.pid"):
            with contextlib.suppress(OSError):
                left.unlink()
        if self.socket.parent != self.folder:
            with contextlib.suppress(OSError):
                self.socket.parent.rmdir()

    def _call(self, method: str, *words: object, timeout: float = CALL_SECONDS) -> object:
        with xmlrpc.client.ServerProxy(
            "http://node/RPC2", transport=_Transport(self.socket, timeout)
        ) as proxy:
            return getattr(proxy.supervisor, method)(*words)


class _Transport(xmlrpc.client.Transport):
    """XML-RPC over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__()
        self._path = path
        self._timeout = timeout

    def make_connection(self, _host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path, self._timeout)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("node", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except BaseException:
            # The caller has no access to the socket yet, so it can't close it.
            self.sock.close()
            raise


def running_problems(states: Mapping[str, ServiceState] | None, wanted: Collection[str]) -> list[str]:
    """Return which of the `wanted` services do not run, a line each."""
    if states is None:
        return ["the supervisor does not run"]
    problems = []
    for name in wanted:
        state = states.get(name)
        if state is None:
            problems.append(f"{name} is not known to the supervisor")
        elif state.state != RUNNING and state.state not in STARTING:
            problems.append(f"{name} is {state.state.lower()} (exit code {state.exit_code})")
    return problems
