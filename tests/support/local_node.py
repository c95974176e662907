"""Looking at a local node from outside Gridup: its processes, ports, files, and the real syft client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from support.cli import Cli

SCRIPTS = Path(__file__).parent.parent / "gridup_node" / "scripts"
HER, HERS = "ada@inst.example", "Ana1ytical-Engine"


def facts(cli: Cli, stack: str = "inst") -> dict[str, Any]:
    """What the node knows of itself."""
    found: dict[str, Any] = json.loads((cli.node(stack) / "config" / "node.json").read_text())
    return found


def marked(stack_id: str) -> list[psutil.Process]:
    """Every live process that inherited the node's mark, or serves its sshd_config."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.status() != psutil.STATUS_ZOMBIE
                and process.environ().get("GRIDUP_STACK_ID") == stack_id
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def listening(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0


def pids(cli: Cli, stack: str = "inst") -> dict[str, int]:
    """The process of each service, by what it runs; one that is just starting or ending is left out."""
    signs = {
        "proxy": "caddy run",
        "api": "gridup_node.serve",
        "jupyter": "jupyterlab",
        "ssh": "sshd",
    }
    supervisor = psutil.Process(int((cli.node(stack) / "supervisord.pid").read_text()))
    found: dict[str, int] = {"supervisor": supervisor.pid}
    for child in supervisor.children():
        with contextlib.suppress(psutil.Error):
            line = " ".join(child.cmdline())
            found.update({name: child.pid for name, sign in signs.items() if sign in line})
    return found


def bound_addresses(cli: Cli, stack: str = "inst") -> dict[int, str]:
    """The address of each port that a process of the node listens on, by port."""
    own = {process.pid for process in marked(facts(cli, stack)["stack_id"])} | set(pids(cli, stack).values())
    return {
        connection.laddr.port: connection.laddr.ip
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.pid in own
    }


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for it, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def problems(cli: Cli, name: str = "Inst") -> list[str]:
    """What `gridup status` says is not right."""
    rows = cli("status", name, "--json").ok().json
    found: list[str] = rows[0]["problems"]
    return found


def client(
    cli: Cli, runtime: Path, script: str, name: str = "Inst", trusted: Path | None = None, **told: Any
) -> Any:
    """Run a script with the real syft client against the deployed node's front door.

    Args:
        trusted: the only CA that the client is told to trust, as the node's instructions say.
    """
    outputs = cli("outputs", name, "--show-secrets", "--json").ok().json
    told = {
        "url": outputs["api_url"].removesuffix("/api/v2"),
        "email": outputs["admin_email"],
        "password": outputs["admin_password"],
        **told,
    }
    pinned = dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), str(trusted)) if trusted else {}
    ended = subprocess.run(
        [*cli.around, str(runtime / "bin" / "python"), str(SCRIPTS / script)],
        env={**os.environ, **pinned},
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])
