"""Breaking a run off at a chosen moment, and what must be true of the machine afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from support import delayed_response
from support.cli import Cli
from support.local_node import eventually

SECONDS = 180
"""For a run to reach a moment."""

END_SECONDS = 60
"""For what ends by itself to have ended."""


class Held:
    """A moment of a deploy: a provider's work is done, and the engine has not yet heard of it.

    Args:
        method: of the provider, such as `NodeProvider.create`.
        folder: for the file that says the moment has come.
    """

    def __init__(self, method: str, folder: Path) -> None:
        self._file = folder / f"held-{method}"
        self.env = {"GRIDUP_TEST_HOLD": f"{method}={self._file}"}

    def wait(self, run: subprocess.Popen[str]) -> None:
        """Until the moment has come."""
        eventually(lambda: self._file.exists() or run.poll() is not None, SECONDS)
        assert run.poll() is None, run.communicate()

    def release(self) -> None:
        """Let it go on."""
        self._file.unlink()


def below(pid: int) -> list[psutil.Process]:
    """Every process that it started, and they started, but not what is to outlive them."""
    found: list[psutil.Process] = []
    try:
        children = psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        # Ended meanwhile, and its children are nobody's or have ended too.
        return []
    for process in children:
        if "GRIDUP_DETACHED" not in _environ(process):
            # What is below a spared one is spared too: OpenSSH writes its title over its own environment.
            found += [process, *below(process.pid)]
    return found


def engine_of(run: subprocess.Popen[str]) -> psutil.Process:
    """The run's `pulumi`."""
    return next(process for process in below(run.pid) if _name(process) == "pulumi")


def providers_of(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """The engine's provider processes."""
    modules = {"pulumi.dynamic", "support.azure_native"}
    return [p for p in below(run.pid) if "python" in _name(p) and modules & set(_words(p))]


def kill_run(run: subprocess.Popen[str], *, providers: bool) -> list[psutil.Process]:
    """kill -9 of the command line and its engine, as the OOM killer does; with `providers` of all else too.

    Returns what they had started and nobody has killed.
    """
    children = below(run.pid)
    engine = engine_of(run)
    for process in [psutil.Process(run.pid), engine, *(children if providers else ())]:
        # Many end as soon as whoever started them does.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    run.communicate()
    return [process for process in children if process != engine]


def killed(run: subprocess.Popen[str], held: Sequence[delayed_response.Held], how: str) -> None:
    """Kill a run once a cloud has accepted all that is held, before the answers arrive.

    Args:
        how: `engine` kills the command line and the engine, `all` the providers too, `provider` these alone.
    """
    for one in held:
        one.wait(run)
    if how == "provider":
        for process in providers_of(run):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        out, err = run.communicate(timeout=120)
        assert run.returncode not in (0, None), (out, err)
        assert "Traceback" not in err, err
    else:
        left = kill_run(run, providers=how == "all")
        # A provider that outlives its engine would go on making what no state knows of.
        all_end(left)
    for one in held:
        one.drop()


def interrupt(run: subprocess.Popen[str]) -> None:
    """Ctrl-C, as a terminal sends it: to the whole group."""
    os.killpg(run.pid, signal.SIGINT)


def all_end(processes: list[psutil.Process]) -> None:
    """Each of them ends by itself."""
    _, alive = psutil.wait_procs(processes, timeout=END_SECONDS)
    assert not alive, [(process.pid, _words(process)) for process in alive]


def processes_of(home: Path) -> list[str]:
    """The command lines of all that runs with this GRIDUP_HOME or below it: engines, providers, services."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            of_home = _environ(process).get("GRIDUP_HOME") == str(home) or f"{home}/" in line
            if process.pid != os.getpid() and of_home and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {line}")
        except psutil.Error:
            continue
    return found


def services_of(home: Path) -> dict[str, int]:
    """How often each of a node's programs runs."""
    signs = {
        "supervisor": "supervisor.supervisord",
        "proxy": "caddy run",
        "api": "gridup_node.serve",
        "jobs": "-m gridup_node.sandbox inside",
        "jupyter": "jupyterlab",
        "ssh": "sshd_config",
    }
    lines = processes_of(home)
    found = {name: sum(sign in line for line in lines) for name, sign in signs.items()}
    # A shell may be several processes.
    return {**found, "jobs": min(found["jobs"], 1)}


def locks(home: Path) -> list[Path]:
    """The engine's locks."""
    return list((home / "state" / ".pulumi" / "locks").rglob("*.json"))


def listeners(ports: Mapping[str, int]) -> list[str]:
    """Who listens on a port that was the node's; but a node of another home may have taken it since."""
    found = []
    for connection in psutil.net_connections("inet"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports.values():
            process = psutil.Process(connection.pid) if connection.pid else None
            # OpenSSH writes its title over its environment.
            other = process and ("GRIDUP_NODE_HOME" in _environ(process) or "/nodes/" in _line(process))
            if not other:
                found.append(f"{connection.laddr} by {connection.pid}")
    return found


def nothing_left(cli: Cli, ports: Mapping[str, int] | None = None, stack: str = "inst") -> None:
    """No process, no port, no folder, no lock, and no word of it in `status`."""
    assert processes_of(cli.home) == []
    assert listeners(ports or {}) == []
    assert not cli.node(stack).exists()
    assert locks(cli.home) == []
    assert cli("status", "--json").ok().json == []


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _line(process: psutil.Process) -> str:
    return " ".join(_words(process))


def _environ(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}
