"""Looking at a local node from outside Gridup: its processes, ports, files, and the real syft client."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import psutil

from gridup_infra.processes import run, wait_until
from support.cli import Cli
from support.syft_client import SCRIPTS, run_script

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


def eventually(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for it, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files_below(folder: Path, without: Container[str] = ()) -> Iterator[tuple[Path, int, bytes]]:
    """Each file with its mode and what is in it; a node that runs may remove some meanwhile.

    Args:
        without: names of folders that are left out.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in without]
        for path in (Path(place, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    yield path, mode(path), path.read_bytes()


def problems(cli: Cli, name: str = "Inst") -> list[str]:
    """What `gridup status` says is not right."""
    found: list[str] = settled(cli, name)["problems"]
    return found


LATE = re.compile(r" in [\d.]+ s\b|none of its services is proven")
"""What `gridup status` says where no answer came in time."""


def settled(cli: Cli, name: str = "Inst") -> dict[str, Any]:
    """What `gridup status` says of a node; once it is more than that an answer was late, as on a busy
    machine."""
    seen: list[dict[str, Any]] = []

    def in_time() -> bool:
        seen.append(cli("status", name, "--json").ok().json[0])
        late = [bool(LATE.search(problem)) for problem in seen[-1]["problems"]]
        return not late or not all(late)

    wait_until(in_time, timeout=90)
    return seen[-1]


def client(
    cli: Cli, runtime: Path, script: str, name: str = "Inst", trusted: Path | None = None, **told: Any
) -> Any:
    """Run a script with the real syft client against the deployed node's reverse proxy.

    Args:
        trusted: the only CA that the client is told to trust, as the node's instructions say.
    """
    outputs = cli("outputs", name, "--show-secrets", "--json").ok().json
    told = {
        "url": outputs["api_url"].removesuffix("/api/v2"),
        "email": outputs["admin_email"],
        "password": outputs["admin_password"],
        "jupyter": outputs["jupyter_url"],
        "token": outputs["jupyter_token"],
        **told,
    }
    pinned = dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), str(trusted)) if trusted else {}
    python, env, stdin = runtime / "bin" / "python", {**os.environ, **pinned}, json.dumps(told).encode()
    if cli.around:
        ended = run([*cli.around, python, SCRIPTS / script], timeout=300, env=env, input=stdin)
    else:
        ended = run_script(python, script, env=env, timeout=300, told=stdin)
    assert ended.ok, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])
