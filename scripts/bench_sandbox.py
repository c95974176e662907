"""The benchmark of the sandbox: a call of an approved function in it, compared with syft's own execution."""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_kit import pss_mb
from support.node_process import Node
from support.syft_client import SCRIPTS

if TYPE_CHECKING:
    from bench_kit import Bench

CALLS = 15
ROUNDS = 3


def bench_sandbox(bench: Bench, _full: bool) -> dict[str, Any]:
    """Measure the milliseconds of a whole call that returns a sum, with and without sandbox in turns."""
    python = bench.runtime / "bin" / "python"
    nodes = {
        "sandbox": Node(home=bench.folder / "sandbox", python=python),
        "syft's own": Node(
            home=bench.folder / "own", python=python, program=(str(SCRIPTS / "bare_serve.py"),)
        ),
    }
    try:
        seen: dict[str, dict[str, list[float]]] = {}
        for node in nodes.values():
            node.start()
            node.client("time_calls.py", calls=1)
        idle = {"api": pss_mb(_pid(nodes["sandbox"].process)), "jobs": pss_mb(_pid(nodes["sandbox"].jobs))}
        for _ in range(ROUNDS):
            for name, node in nodes.items():
                for what, row in node.client("time_calls.py", calls=CALLS).items():
                    seen.setdefault(what, {}).setdefault(name, []).extend(row)
        result: dict[str, Any] = {}
        for what, ways in seen.items():
            medians = {name: statistics.median(row) for name, row in ways.items()}
            result[what] = {
                **{f"{name} median ms": round(value, 1) for name, value in medians.items()},
                "more ms": round(medians["sandbox"] - medians["syft's own"], 1),
            }
        alone = _alone(python, nodes["sandbox"])
        return {
            **result,
            "job alone median ms": alone,
            "memory mb": {name: round(value, 1) for name, value in idle.items()},
        }
    finally:
        for node in nodes.values():
            node.kill()


def _alone(python: Path, node: Node) -> dict[str, float]:
    """Measure a job's start, arguments and result, without syft's part of a call. The job is trivial."""
    argv = [str(python), str(SCRIPTS / "time_jobs.py"), str(node.home), str(CALLS)]
    done = subprocess.run(argv, env=node.environment, capture_output=True, check=True, text=True)
    rows: dict[str, list[float]] = json.loads(done.stdout)
    return {name: round(statistics.median(row), 1) for name, row in rows.items()}


def _pid(process: Any) -> int:
    return int(process.pid)
