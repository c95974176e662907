"""Making what is made once, the node's environment, in a home that has none. It takes a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from support import language_host
from support.cli import Cli
from support.interrupts import all_end, below, kill_run, locks, nothing_left
from support.local_node import HER, HERS, client, eventually, facts, mode, problems
from support.package_index import serving
from support.plain_pulumi import Plain

from .test_broken_off import DEPLOY, interrupted, one_of_everything

pytestmark = [pytest.mark.tier("deep"), pytest.mark.engine, pytest.mark.node]


@pytest.fixture
def plain(cli: Cli, tmp_path: Path) -> Plain:
    return Plain(cli, language_host.install(tmp_path / "language host"))


@pytest.fixture
def own_runtimes(cli: Cli) -> Path:
    """Makes this home's node environments its own: there is none yet, so a deploy builds one."""
    folder = cli.home / "runtimes"
    shutil.rmtree(folder)
    return folder


def test_after_a_kill_in_the_runtimes_build_plain_destroy_and_a_new_deploy_work(
    plain: Plain, own_runtimes: Path
) -> None:
    run = plain.cli.start(*DEPLOY)
    installing(run, own_runtimes)
    all_end(kill_run(run, providers=False))
    plain("destroy", "-s", "inst", "--yes").ok()
    nothing_left(plain.cli)
    run = plain.cli.start(*DEPLOY)
    installing(run, own_runtimes)
    all_end(kill_run(run, providers=True))
    plain.cli(*DEPLOY).ok()
    one_of_everything(plain.cli)


def installing(run: subprocess.Popen[str], runtimes: Path) -> None:
    """Wait until uv fills the new environment."""

    def filling() -> bool:
        try:
            uv_runs = any(one.name() == "uv" and "pip" in one.cmdline() for one in below(run.pid))
        except psutil.NoSuchProcess:
            # It ended while it was looked at.
            return False
        return uv_runs and any(runtimes.glob("*/bin/python"))

    eventually(lambda: run.poll() is not None or filling(), 60)
    assert run.poll() is None, run.communicate()


def test_first_use_with_an_empty_home_survives_a_ctrl_c(tmp_path: Path, engine: Path, runtime: Path) -> None:
    person = tmp_path / "a person"
    (person / ".local" / "share").mkdir(parents=True)
    cache = subprocess.run(
        [shutil.which("uv") or uv(), "cache", "dir"], capture_output=True, text=True, check=True
    )
    path = os.pathsep.join([str(engine / "bin"), os.environ["PATH"]])
    environment = {"HOME": str(person), "PATH": path, "UV_CACHE_DIR": cache.stdout.strip()}
    cli = EmptyHome(person / ".local" / "share" / "gridup", environment)
    run = cli.start(*DEPLOY)
    installing(run, cli.home / "runtimes")
    said = interrupted(run)
    assert 'What exists of "Inst": owner.' in said
    assert locks(cli.home) == []
    assert list((cli.home / "runtimes").glob("*/complete.json")) == []
    try:
        cli(*DEPLOY).ok()
        one_of_everything(cli)
        assert (mode(cli.home), mode(cli.home / "state")) == (0o700, 0o700)
        assert mode(cli.home / "passphrase") == 0o600
        assert "Nothing changed" in cli(*DEPLOY).ok().err
    finally:
        cli("destroy", "Inst", "--yes").ok()
    nothing_left(cli)


class EmptyHome(Cli):
    """A person who has set nothing at all."""

    def env(self, extra: object = None) -> dict[str, str]:
        given = super().env()
        del given["GRIDUP_HOME"]
        given.pop("XDG_DATA_HOME", None)
        return given


def uv() -> str:
    from uv import find_uv_bin

    return str(find_uv_bin())


def test_a_deleted_runtime_is_seen_and_rebuilt(cli: Cli, runtime: Path) -> None:
    shared = cli.home / "runtimes"
    (shared / runtime.name).unlink()
    shutil.copytree(runtime.resolve(), shared / runtime.name, symlinks=True, copy_function=os.link)
    cli.deploy("Inst")
    shutil.rmtree(shared / runtime.name)
    assert any("Python environment" in problem for problem in problems(cli))
    assert any("Python environment" in p for p in cli("refresh", "Inst", "--json").ok().json["problems"])
    cli("deploy", "--name", "Inst").ok()
    assert problems(cli) == []
    kept = cli("prune", "--yes", "--json").ok().json["removed"]
    assert str(shared / runtime.name) not in kept
    cli("destroy", "Inst", "--yes").ok()
    assert str(shared / runtime.name) in cli("prune", "--yes", "--json").ok().json["removed"]


@pytest.mark.tier("deep")
def test_a_rebuild_makes_the_environment_anew_and_the_data_stays(cli: Cli) -> None:
    cli.deploy("Inst")
    first = json.loads((cli.node() / "config" / "programs.json").read_text())["api"]["argv"][0]
    secret = (cli.node() / "secrets" / "server_key").read_bytes()
    assert cli("status", "Inst", "--json").ok().json[0]["updates"] == []
    cli.deploy("Inst", "--rebuild")
    second = json.loads((cli.node() / "config" / "programs.json").read_text())["api"]["argv"][0]
    assert first != second
    assert (cli.node() / "secrets" / "server_key").read_bytes() == secret
    assert problems(cli) == []
    assert "Nothing changed" in cli.deploy("Inst").err
    cli("destroy", "Inst", "--yes").ok()


def test_a_data_owners_packages_are_there_for_approved_code_whoever_deploys(
    plain: Plain, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli, listed = plain.cli, tmp_path / "science.txt"
    listed.write_text("tinysum\n")
    with serving(tmp_path / "index") as index:
        index.add("tinysum", "1.0")
        # Before the usual one, which has all else.
        monkeypatch.setenv("UV_INDEX", index.url)
        cli.deploy("Inst", "--packages", str(listed))
        index.add("tinysum", "1.1")
        assert "Nothing changed" in cli.deploy("Inst").err
    assert client(cli, runtime, "import_more.py", her=HER, hers=HERS) == "1.0"
    assert facts(cli)["packages"] == ["tinysum"]
    assert cli("outputs", "Inst", "--json").ok().json["packages"] == ["tinysum==1.0"]
    monkeypatch.delenv("UV_INDEX")
    plain("preview", "-s", "inst", "--expect-no-changes").ok()
    for path in (*(cli.home / "state").rglob("*.json*"), *(cli.home / "stacks").rglob("*.yaml")):
        assert index.PASSWORD.encode() not in path.read_bytes(), path
    shared = {path.name for path in (cli.home / "runtimes").iterdir() if path.is_dir()}
    cli.deploy("Inst", "--packages", "none")
    used = json.loads((cli.node() / "config" / "programs.json").read_text())["api"]["argv"][0]
    assert used == str(cli.home / "runtimes" / runtime.name / "bin" / "python"), "the one of all other nodes"
    (gone,) = cli("prune", "--yes", "--json").ok().json["removed"]
    assert Path(gone).name in shared - {runtime.name}
    cli("destroy", "Inst", "--yes").ok()
