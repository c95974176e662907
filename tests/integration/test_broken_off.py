"""Runs that end early: killed, interrupted, refused. Nothing is orphaned, and the next run goes on."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from gridup_infra.processes import wait_until
from support import language_host
from support.cli import Cli
from support.deep import all_but, deep
from support.interrupts import (
    Held,
    all_end,
    below,
    interrupt,
    kill_run,
    locks,
    nothing_left,
    processes_of,
    providers_of,
    services_of,
)
from support.local_node import eventually, facts, pids
from support.plain_pulumi import Plain

pytestmark = [
    pytest.mark.tier("gate"),
    pytest.mark.engine,
    pytest.mark.node,
    pytest.mark.usefixtures("own_ports"),
]

ONE_OF_EACH = dict.fromkeys(("supervisor", "proxy", "api", "jobs", "jupyter", "ssh"), 1)
MOMENTS = ("OwnerProvider.create", "NodeDirProvider.create", "ServicesProvider.create")
DEPLOY = ("deploy", "--name", "Inst", "--no-wait")


@pytest.fixture
def plain(cli: Cli, tmp_path: Path) -> Plain:
    return Plain(cli, language_host.install(tmp_path / "language host"))


def killed_at(cli: Cli, moment: str, tmp_path: Path, *, providers: bool) -> None:
    """A deploy that was killed when the work of `moment` was done and the engine had not heard of it."""
    held = Held(moment, tmp_path)
    run = cli.start(*DEPLOY, env=held.env)
    held.wait(run)
    left = kill_run(run, providers=providers)
    # A provider that outlives its engine would go on making what no state knows of.
    all_end(left)
    assert locks(cli.home)


@pytest.mark.parametrize(
    ("moment", "providers"),
    [
        deep(MOMENTS[0], False),
        (MOMENTS[1], True),
        deep(MOMENTS[2], False),
        deep(MOMENTS[2], True),
    ],
)
def test_a_deploy_after_a_kill_makes_one_of_everything(
    cli: Cli, tmp_path: Path, moment: str, providers: bool
) -> None:
    killed_at(cli, moment, tmp_path, providers=providers)
    cli(*DEPLOY).ok()
    one_of_everything(cli)
    assert locks(cli.home) == []
    assert "Nothing changed" in cli(*DEPLOY).ok().err
    assert cli("status", "Inst", "--no-probe", "--json").ok().json[0]["problems"] == []
    if moment == MOMENTS[-1]:
        cli("check", "Inst", "--wait").ok()


def one_of_everything(cli: Cli) -> None:
    """One supervisor and one of each service, and so it stays."""
    eventually(lambda: services_of(cli.home) == ONE_OF_EACH)
    time.sleep(1)
    assert services_of(cli.home) == ONE_OF_EACH


@pytest.mark.parametrize("moment", all_but(MOMENTS[1:2], MOMENTS))
def test_plain_destroy_after_a_kill_leaves_nothing(plain: Plain, tmp_path: Path, moment: str) -> None:
    killed_at(plain.cli, moment, tmp_path, providers=False)
    ports = ports_of(plain.cli)
    plain("destroy", "-s", "inst", "--yes").ok()
    nothing_left(plain.cli, ports)
    assert plain.cli("env", "Inst").code == 6
    if moment == MOMENTS[1]:
        # What the engine keeps as pending is in nobody's way.
        plain.cli(*DEPLOY).ok()
        one_of_everything(plain.cli)
        plain.cli("destroy", "Inst", "--yes").ok()
        nothing_left(plain.cli)


@pytest.mark.parametrize("moment", MOMENTS)
def test_destroy_after_a_kill_leaves_nothing(cli: Cli, tmp_path: Path, moment: str) -> None:
    killed_at(cli, moment, tmp_path, providers=True)
    ports = ports_of(cli)
    cli("destroy", "Inst", "--yes").ok()
    nothing_left(cli, ports)


def ports_of(cli: Cli) -> dict[str, int]:
    return facts(cli)["ports"] if (cli.node() / "config" / "node.json").exists() else {}


def test_all_providers_of_a_killed_engine_end(cli: Cli, tmp_path: Path) -> None:
    cli(*DEPLOY).ok()
    before, port = pids(cli), facts(cli)["ports"]["proxy"] + 1700
    # Something to repair, so that the deploy looks at what is really there.
    (cli.node() / "config" / "Caddyfile").write_text(":1 {\n}\n")
    held = Held("NodeDirProvider.update", tmp_path)
    run = cli.start(*DEPLOY, "--port", str(port), env=held.env)
    held.wait(run)
    assert providers_of(run)
    left = kill_run(run, providers=False)
    assert left
    all_end(left)
    cli("deploy", "--name", "Inst", "--port", str(port)).ok()
    after = pids(cli)
    assert facts(cli)["ports"]["proxy"] == port
    assert {name for name in after if after[name] != before[name]} == {"proxy"}
    one_of_everything(cli)


def interrupted(run: subprocess.Popen[str]) -> str:
    """Ctrl-C, once. Returns what the run then said."""
    children = below(run.pid)
    interrupt(run)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "Stopped." in err
    assert "Traceback" not in err
    all_end(children)
    return err


@pytest.mark.parametrize("moment", all_but(MOMENTS[1:2], MOMENTS[1:]))
def test_one_ctrl_c_ends_a_deploy_in_order(cli: Cli, tmp_path: Path, moment: str) -> None:
    held = Held(moment, tmp_path)
    run = cli.start(*DEPLOY, env=held.env)
    held.wait(run)
    said = interrupted(run)
    assert 'What exists of "Inst": owner, runtime' in said
    assert "`gridup destroy Inst`" in said
    assert locks(cli.home) == []
    assert cli("status", "--no-probe", "--json").ok().json[0]["name"] == "Inst"
    cli(*DEPLOY).ok()
    one_of_everything(cli)
    cli("destroy", "Inst", "--yes").ok()
    nothing_left(cli)


def test_a_second_deploy_meanwhile_is_told_who_and_since_when(cli: Cli, tmp_path: Path) -> None:
    held = Held("NodeDirProvider.create", tmp_path)
    first = cli.start(*DEPLOY, env=held.env)
    held.wait(first)
    for words in (DEPLOY, ("destroy", "Inst", "--yes"), ("refresh", "Inst")):
        refused = cli(*words)
        assert refused.code == 1, refused
        line = next(line for line in refused.err.splitlines() if line.startswith("Error: "))
        assert re.search(rf'"Inst" is busy: a deploy by process {first.pid} since \d\d:\d\d:\d\d\.', line), (
            line
        )
        assert "--wait-lock" in refused.err
        assert "Traceback" not in refused.err
    second = cli.start(*DEPLOY, "--wait-lock", "60")
    time.sleep(2)
    assert second.poll() is None
    held.release()
    for run in (first, second):
        _, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
    one_of_everything(cli)


@pytest.mark.parametrize(
    "end",
    [
        "raise RuntimeError('boom')",
        pytest.param("sys.exit(3)", marks=pytest.mark.tier("deep")),
        "sys.exit(0)",
    ],
)
def test_a_program_that_ends_early_ends_the_command(cli: Cli, tmp_path: Path, end: str) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"""
import sys
from gridup_infra.targets.local import LocalTarget

def build(self, spec):
    {end}

LocalTarget.build = build
"""
    )
    env = {"PYTHONPATH": os.pathsep.join([str(folder), cli.env()["PYTHONPATH"]])}
    run = cli.start(*DEPLOY, env=env)
    started: dict[int, psutil.Process] = {}

    def ended() -> bool:
        started.update({process.pid: process for process in below(run.pid)})
        return run.poll() is not None

    assert wait_until(ended, timeout=60)
    out, err = run.communicate(timeout=5)
    assert run.returncode not in (0, None), out + err
    assert "Traceback" not in err
    assert "Error: " in err
    all_end(list(started.values()))
    assert processes_of(cli.home) == []
    assert locks(cli.home) == []
    if end.startswith("raise"):
        cli(*DEPLOY).ok()
