"""`gridup check --wait --silent` of what never comes up (case G03), in a process of its own."""

from __future__ import annotations

import pytest

from support.cli import Cli


@pytest.mark.parametrize("targets", [("127.0.0.1:1",), ("127.0.0.1:1", "[::1]:1", "127.0.0.2:1")])
def test_a_wait_for_nothing_ends_in_time_with_one_report(bare_cli: Cli, targets: tuple[str, ...]) -> None:
    ended = bare_cli("check", *targets, "--wait", "--silent", "--timeout", "1", timeout=60)
    assert ended.code == 9
    assert ended.out.count("host") == len(targets)
    assert ended.out.count("connection refused") >= 2 * len(targets)
    assert ended.err.startswith("Error: ")
    assert not bare_cli.home.exists()
