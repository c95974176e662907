"""Names that broke other tools, and folders that do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.cache import shared_home
from support.cli import Cli
from support.local_node import mode, problems

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine, pytest.mark.usefixtures("own_ports")]


@pytest.mark.parametrize("name", ["My Lab_2", "2nd node", "all", "stoic_to_from", "Universität Zürich"])
def test_an_ordinary_name_is_previewed_and_makes_nothing(cli: Cli, name: str) -> None:
    planned = cli("preview", "--name", name, "--json").ok().json
    assert planned["name"] == name
    assert {row["operation"] for row in planned["changes"]} == {"create"}
    assert cli("status", "--json").ok().json == []
    assert not (cli.home / "nodes").exists()


@pytest.mark.parametrize("name", ["", "…", "🏥🏥"])
def test_an_impossible_name_is_refused_at_once(bare_cli: Cli, name: str) -> None:
    refused = bare_cli("deploy", "--name", name, timeout=60)
    assert refused.code == 2
    assert "at least one letter or digit" in refused.err
    assert not bare_cli.home.exists()


@pytest.mark.node
def test_a_node_called_all_is_one_node(cli: Cli) -> None:
    cli.deploy("Inst", "--no-wait")
    cli.deploy("all", "--no-wait")
    cli("destroy", "--name", "all", "--yes").ok()
    assert [row["name"] for row in cli("status", "--json", "--no-probe").ok().json] == ["Inst"]
    assert cli.node("inst").exists()
    assert not cli.node("all").exists()


@pytest.mark.tier("deep")
@pytest.mark.node
def test_a_home_with_odd_characters_and_no_umask(
    tmp_path: Path, cache: Path, engine: Path, runtime: Path
) -> None:
    home = shared_home(tmp_path / "a b #1%", cache, runtimes=True)
    cli = Cli(home)
    before = os.umask(0)
    try:
        cli.deploy("Inst")
        assert problems(cli) == []
        assert cli("ssh", "--name", "Inst", "--", "sh", "-c", "exit 7").code == 7
        open_files = [
            path
            for part in ("state", "stacks", "nodes", "passphrase")
            for path in ((home / part).rglob("*") if (home / part).is_dir() else [home / part])
            if path.is_file() and mode(path) & 0o077 and path.suffix != ".pub"
        ]
        private = [path for path in open_files if "state" not in path.parts and "stacks" not in path.parts]
        assert private == []
        # Pulumi's own files are as it makes them, behind folders that only their owner may enter.
        assert {mode(home / part) for part in ("state", "stacks", "nodes")} == {0o700}
    finally:
        os.umask(before)
        cli.destroy_all()
