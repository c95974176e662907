"""A real node's api behind its real proxy: nobody loses a call by what others send at the same time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support import caddy_rig
from support.node_process import Node
from support.syft_client import SCRIPTS

pytestmark = [pytest.mark.node, pytest.mark.tier("deep"), pytest.mark.timeout(1800)]

CALLS = 1_000
OTHERS = 3


def test_none_of_1000_calls_is_lost_while_three_processes_post_invalid_bodies(
    make_node: Callable[..., Node], node_python: Path
) -> None:
    # As in a node on this machine: only the proxy finds it.
    node = make_node(by_socket=True)
    node.start()
    with caddy_rig.before(node.home, node_python.parents[1], 2 * 1024**3) as port:
        others = [
            subprocess.Popen(
                [node_python, SCRIPTS / "post_invalid.py", str(port), f"198.51.100.{number}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(1, OTHERS + 1)
        ]
        try:
            lost = node.client("call_often.py", limit=1500, url=f"http://127.0.0.1:{port}", calls=CALLS)
            # They have posted to the end.
            assert [one.poll() for one in others] == [None] * OTHERS
            statuses = [json.loads(one.communicate("", timeout=120)[0]) for one in others]
        finally:
            for one in others:
                one.kill()
                one.wait()
    assert lost == []
    for seen in statuses:
        answered = {int(status): count for status, count in seen.items() if status != "closed"}
        assert sum(answered.values()) > 100, seen
        assert all(400 <= status < 500 for status in answered), seen
