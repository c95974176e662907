"""`gridup rotate` killed at each of its steps: one secret always opens the node, and the next run goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import pytest

from gridup_infra.processes import wait_until
from support.cli import Cli
from support.interrupts import below
from support.rotated import Opened, all_open, check_replaced, opened

pytestmark = [
    pytest.mark.tier("deep"),
    pytest.mark.engine,
    pytest.mark.node,
    pytest.mark.usefixtures("own_ports"),
]

STEPS = (
    'Replacing the secrets of "Inst"',
    "Replacing the secrets of api",
    "Starting api anew",
    "Replacing the secrets of proxy",
    "Replacing the secrets of ssh",
    "Replacing the secrets of jupyter",
    "Starting proxy, ",
    "Ending what opened the node before",
)


def test_killed_at_each_step_either_secret_opens_the_node_and_the_next_run_goes_on(
    cli: Cli, runtime: Path, tmp_path: Path
) -> None:
    cli.deploy("Inst")
    with opened(cli, tmp_path, keys=cli.node() / "keys", tls=False, runtime=runtime) as before:
        for step in STEPS:
            kill_at(cli, step)
            opens(before)
        cli("rotate", "Inst", "--yes").ok()
        check_replaced(before)


def kill_at(cli: Cli, step: str) -> None:
    """A rotate that is killed as soon as it says that it is at this step."""
    run = cli.start("rotate", "Inst", "--yes")
    assert run.stderr is not None
    said: list[str] = []
    for line in run.stderr:
        said.append(line)
        if line.startswith(step):
            break
    else:
        raise AssertionError(f"it never came to {step!r}: {said}")
    # Whatever it has started: an engine with its providers, or a program of the node's that replaces secrets.
    for process in [psutil.Process(run.pid), *below(run.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    run.communicate()


def opens(before: Opened) -> None:
    """What the command line shows opens the node, as soon as that answers; and it shows one whole set."""
    node = before.node
    node("check", "Inst", "--wait").ok()
    shown = node("outputs", "Inst", "--show-secrets", "--json").ok().json
    now = {"password": shown["admin_password"], "begin": True}
    # Jupyter has the former token until it was started anew.
    tokens = (shown["jupyter_token"], before.told["token"])

    def whole() -> bool:
        return any(before.knock(**now, token=token) == all_open(before) for token in tokens)

    assert wait_until(whole, timeout=60)
    assert node("ssh", "Inst", "--", "true").ok()
