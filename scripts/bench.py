"""Speed and memory, as ratios within one run: what is compared is measured in turns on the same machine.

Each line of the result has the figures, their ratio, and the limit that it should keep. Nothing
here passes or fails: a busy machine is not a defect.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench_aws import bench_aws
from bench_azure import bench_azure
from bench_docker import bench_docker
from bench_guard import bench_guard
from bench_kit import (
    QUIET,
    ROOT,
    Bench,
    bare_up,
    free_port,
    peak_mb,
    pss_mb,
    ratio,
    seconds,
    started,
)
from bench_remote import bench_remote
from bench_sandbox import bench_sandbox


def bench_help(bench: Bench) -> dict[str, Any]:
    """Compare `gridup --help` with `hagrid --help`."""
    found = bench.in_turns(
        gridup=lambda: bench.run("--help"), hagrid=lambda: seconds([str(bench.hagrid), "--help"], bench.env)
    )
    return ratio(found, "gridup", found["hagrid"], 0.5)


def bench_script(bench: Bench) -> dict[str, Any]:
    """Compare `scripts/gridup --help`, which first finds its environment, with a direct run in it."""
    script = str(ROOT / "scripts" / "gridup")
    seconds([script, "--help"], bench.env)
    python = str(ROOT / ".venvs" / "cli" / "bin" / "python")
    found = bench.in_turns(
        script=lambda: seconds([script, "--help"], bench.env),
        gridup=lambda: seconds([python, "-I", "-m", "gridup", "--help"], bench.env),
    )
    return ratio(found, "script", found["gridup"], 1.3)


def bench_help_memory(bench: Bench) -> dict[str, Any]:
    ours = peak_mb([*bench.gridup, "--help"], bench.env)
    return {"gridup_mb": ours, "hagrid_mb": peak_mb([str(bench.hagrid), "--help"], bench.env), "limit_mb": 60}


def bench_status(bench: Bench) -> dict[str, Any]:
    """Compare `gridup status` of one node, without probes, with `pulumi stack output`."""
    raw = subprocess.run(
        [*bench.gridup, "env", "Bench", "--json"], env=bench.env, capture_output=True, check=True
    ).stdout
    plain = {**bench.env, **json.loads(raw)}
    pulumi = [str(bench.engine / "bin" / "pulumi"), "stack", "output", "-s", "bench"]
    found = bench.in_turns(
        status=lambda: bench.run("status", "--no-probe"),
        pulumi_stack_output=lambda: seconds(pulumi, plain, ROOT),
    )
    return ratio(found, "status", found["pulumi_stack_output"], 2.0)


def bench_check(bench: Bench, full: bool) -> dict[str, Any]:
    """Measure `gridup check` of silent hosts: at most the timeout plus 0.5 s, for any number of hosts."""
    found: dict[str, Any] = {}
    with black_hole() as port:
        for count in (1, 20):
            words = ["check", *[f"127.0.0.1:{port}"] * count, "--timeout", "2"]
            began = time.perf_counter()
            subprocess.run([*bench.gridup, *words], env=bench.env, check=False, **QUIET)  # type: ignore[call-overload]
            found[f"{count * 5}_endpoints"] = round(time.perf_counter() - began, 3)
    found["limit"] = 2.5
    if full:
        began = time.perf_counter()
        subprocess.run([bench.hagrid, "check", "127.0.0.1"], env=bench.env, check=False, **QUIET)  # type: ignore[call-overload]
        found["hagrid"] = round(time.perf_counter() - began, 3)
    return found


@contextmanager
def black_hole() -> Iterator[int]:
    """Open a port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield server.getsockname()[1]


def bench_deploy(bench: Bench) -> dict[str, Any]:
    """Compare a whole deploy, until all endpoints answer, with a bare inline up plus the bare server's start.

    The runtime is in the cache.
    """

    def ours() -> float:
        took = bench.run("deploy", "--name", "Bench")
        bench.run("destroy", "Bench", "--yes")
        return took

    found = bench.in_turns(
        deploy=ours, bare_up=lambda: bare_up(bench, new=True), bare_syft=lambda: bare_syft(bench)[0]
    )
    return ratio(found, "deploy", found["bare_up"] + found["bare_syft"], 1.3)


def bench_no_change(bench: Bench) -> dict[str, Any]:
    """Compare a deploy that changes nothing with a bare inline up that changes nothing."""
    found = bench.in_turns(
        deploy=lambda: bench.run("deploy", "--name", "Bench"), bare_up=lambda: bare_up(bench, new=False)
    )
    return ratio(found, "deploy", found["bare_up"], 1.3)


def bench_deploy_memory(bench: Bench) -> dict[str, Any]:
    """Measure the peak memory of the command line itself during a first deploy."""
    return {"mb": peak_mb([*bench.gridup, "deploy", "--name", "Bench"], bench.env), "limit_mb": 150}


def bench_node_memory(bench: Bench) -> dict[str, Any]:
    """Compare the memory (proportional set size) of a running node with the bare server and JupyterLab."""
    supervisor = int((bench.home / "nodes" / "bench" / "supervisord.pid").read_text())
    time.sleep(5)
    node = pss_mb(supervisor)
    parts = {
        Path(p.exe()).name + str(i): pss_mb(p.pid)
        for i, p in enumerate(psutil.Process(supervisor).children())
    }
    # Stop the node first: the bare programs would share its pages and seem smaller than they are.
    bench.run("stop", "Bench")
    _, syft = bare_syft(bench)
    jupyter = bare_jupyter(bench)
    figures = {"node_mb": node, **parts, "bare_syft_mb": syft, "bare_jupyter_mb": jupyter}
    return ratio(figures, "node_mb", syft + jupyter, 1.2)


def bare_syft(bench: Bench) -> tuple[float, float]:
    """Return the seconds until syft's own server answers, and its memory in MB then."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    port, queue = free_port(), free_port()
    env = {
        **bench.env,
        "SYFT_NAME": "bare",
        "SYFT_SERVER_TYPE": "datasite",
        "SYFT_DEV_MODE": "False",
        "SYFT_RESET": "False",
        "SYFT_DB_URL": f"sqlite:///{folder}/node.db",
        "SYFT_PROCESSES": "0",
        "SYFT_N_CONSUMERS": "1",
        "SYFT_CREATE_PRODUCER": "True",
        "SYFT_QUEUE_PORT": str(queue),
        "SERVER_UID": os.urandom(16).hex(),
        "SERVER_PRIVATE_KEY": os.urandom(32).hex(),
        "TMPDIR": str(folder),
    }
    argv = [bench.runtime / "bin" / "uvicorn", "--factory", "syft.server.uvicorn:app_factory"]
    return started([*argv, "--port", str(port)], env, f"http://127.0.0.1:{port}/api/v2/metadata")


def bare_jupyter(bench: Bench) -> float:
    """Return JupyterLab's memory in MB."""
    port = free_port()
    argv = [bench.runtime / "bin" / "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}"]
    env = {**bench.env, "JUPYTER_TOKEN": "bare", "HOME": str(bench.folder)}
    return started(argv, env, f"http://127.0.0.1:{port}/api")[1]


def bench_local(bench: Bench, full: bool) -> dict[str, Any]:
    """Measure a node on this machine, and compare the command line with hagrid's."""
    result: dict[str, Any] = {"help_seconds": bench_help(bench), "help_peak_memory": bench_help_memory(bench)}
    result["script_seconds"] = bench_script(bench)
    result["check_nothing_there_seconds"] = bench_check(bench, full)
    result["deploy_seconds"] = bench_deploy(bench)
    result["deploy_peak_memory"] = bench_deploy_memory(bench)
    try:
        result["no_change_deploy_seconds"] = bench_no_change(bench)
        result["status_seconds"] = bench_status(bench)
        result["node_memory"] = bench_node_memory(bench)
    finally:
        bench.run("destroy", "Bench", "--yes")
    return result


GROUPS: dict[str, Callable[[Bench, bool], dict[str, Any]]] = {
    "local": bench_local,
    "docker": lambda bench, _full: bench_docker(bench),
    "aws": lambda bench, _full: bench_aws(bench),
    "azure": lambda bench, _full: bench_azure(bench),
    "remote": lambda bench, _full: bench_remote(bench),
    "guard": bench_guard,
    "sandbox": bench_sandbox,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="how often each is measured")
    parser.add_argument("--only", choices=GROUPS, help="one group of them")
    parser.add_argument("--full", action="store_true", help="also hagrid's check of an empty host: 5 minutes")
    options = parser.parse_args()
    result: dict[str, Any] = {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "repeat": options.repeat}
    for name in [options.only] if options.only else GROUPS:
        with tempfile.TemporaryDirectory(prefix="gridup-bench-") as folder:
            result[name] = GROUPS[name](Bench(Path(folder), options.repeat), options.full)
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
