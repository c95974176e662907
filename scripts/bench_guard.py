"""The benchmark of the guard: the time of a signed call, and memory, compared with syft alone."""

from __future__ import annotations

import contextlib
import http.client
import statistics
import time
from typing import TYPE_CHECKING, Any

from bench_kit import pss_mb
from support import frames
from support.attacker import Attacker
from support.node_process import EMAIL, Node
from support.syft_client import SCRIPTS

if TYPE_CHECKING:
    from bench_kit import Bench

PATHS = ("user.get_current_user", "dataset.get_all", "user.get_all")
CALLS = 240
IDLE_SECONDS = 10
LIMIT = 1.1


def bench_guard(bench: Bench, _full: bool) -> dict[str, Any]:
    """Measure the memory of an unused node, and the milliseconds of a call, with and without guard in turns.

    Other work on the machine disturbs the fastest calls least.
    """
    python = bench.runtime / "bin" / "python"
    guarded = Node(home=bench.folder / "guarded", python=python)
    bare = Node(home=bench.folder / "bare", python=python, program=(str(SCRIPTS / "bare_serve.py"),))
    try:
        callers, memory = {}, idle_memory(guarded, bare)
        for name, node in (("guarded", guarded), ("bare", bare)):
            found = Attacker(node.port).sign_in(EMAIL, node.secret("admin_password"))
            assert found is not None, name
            callers[name] = found
        result: dict[str, Any] = {"idle memory": memory}
        for path in PATHS:
            seen = calls(callers, path)
            result[path] = {
                "limit": LIMIT,
                **{f"{name} median ms": round(statistics.median(row), 2) for name, row in seen.items()},
                "ratio of the fastest": round(min(seen["guarded"]) / min(seen["bare"]), 3),
                "ratio of the medians": round(
                    statistics.median(seen["guarded"]) / statistics.median(seen["bare"]), 3
                ),
            }
        return result
    finally:
        guarded.kill()
        bare.kill()


def idle_memory(guarded: Node, bare: Node) -> dict[str, Any]:
    """Measure the memory of each node alone, then start both.

    Nodes that run at the same time would share pages, and each would seem smaller than it is.
    """
    found = {}
    for name, node in (("guarded MB", guarded), ("bare MB", bare)):
        node.start()
        assert node.process is not None
        time.sleep(IDLE_SECONDS)
        found[name] = round(pss_mb(node.process.pid), 1)
        node.stop()
    for node in (guarded, bare):
        node.start()
    return {**found, "ratio": round(found["guarded MB"] / found["bare MB"], 3), "limit": LIMIT}


def calls(callers: dict[str, Attacker], path: str) -> dict[str, list[float]]:
    """Return the milliseconds of each call, by node. The calls go to the nodes in turns."""
    seen: dict[str, list[float]] = {name: [] for name in callers}
    with contextlib.ExitStack() as open_:
        ways = []
        for name, caller in callers.items():
            connection = http.client.HTTPConnection("127.0.0.1", caller.port, timeout=60)
            open_.callback(connection.close)
            ways.append((name, connection, frames.signed(caller.key, frames.call(caller.server(), path))))
        for _ in range(CALLS):
            for name, connection, body in ways:
                began = time.perf_counter()
                connection.request("POST", "/api/v2/api_call", body)
                answer = connection.getresponse()
                answer.read()
                seen[name].append((time.perf_counter() - began) * 1000)
                assert answer.status == 200, answer.status
    return seen
