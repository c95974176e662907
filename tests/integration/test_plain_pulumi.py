"""Plain `pulumi` on a node that Gridup deployed: from the root, with what `gridup env` prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support import language_host
from support.cli import Cli
from support.deep import deep
from support.interrupts import listeners, locks, nothing_left, services_of
from support.local_node import facts, listening, marked, pids
from support.plain_pulumi import Plain

pytestmark = [
    pytest.mark.tier("gate"),
    pytest.mark.engine,
    pytest.mark.node,
    pytest.mark.usefixtures("own_ports"),
]

DEAF = ("--no-wait",)
"""Where only the processes matter, not that they answer."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_host.install(tmp_path_factory.mktemp("language host"))


@pytest.fixture
def plain(cli: Cli, host: Path) -> Plain:
    return Plain(cli, host)


@pytest.fixture(scope="module")
def inst(module_cli: Cli, host: Path) -> Plain:
    """One node that the tests below share; each leaves it right."""
    module_cli.deploy("Inst")
    return Plain(module_cli, host)


def test_a_preview_right_after_the_deploy_shows_no_change(inst: Plain) -> None:
    seen = inst("preview", "-s", "inst", "--expect-no-changes").ok()
    assert "5 unchanged" in seen.out
    refreshed = inst("preview", "-s", "inst", "--refresh", "--expect-no-changes").ok()
    assert "5 unchanged" in refreshed.out


def test_who_has_no_checkout_has_a_folder_for_it(inst: Plain, tmp_path: Path) -> None:
    # As from an installed Gridup: nothing of a checkout is where it runs, or on its path.
    folder = inst.cli("env", "Inst", "--json").ok().json["GRIDUP_PROJECT"]
    assert sorted(path.name for path in Path(folder).iterdir()) == ["Pulumi.yaml", "__main__.py"]
    seen = inst("-C", folder, "preview", "-s", "inst", "--expect-no-changes", cwd=tmp_path).ok()
    assert "5 unchanged" in seen.out


def test_the_outputs_are_plain_pulumis_too(inst: Plain) -> None:
    shown = json.loads(inst("stack", "output", "-s", "inst", "--json").ok().out)
    assert shown["name"] == "Inst"
    assert shown["urls"]["ui"] == f"http://127.0.0.1:{facts(inst.cli)['ports']['proxy']}/login"


def test_env_prints_no_secret(inst: Plain) -> None:
    passphrase = (inst.cli.home / "passphrase").read_text().strip()
    assert passphrase not in inst.exports()


def test_a_port_set_in_the_configuration_moves_the_front_door_alone(inst: Plain) -> None:
    before, port = pids(inst.cli), facts(inst.cli)["ports"]["proxy"] + 1500
    inst("config", "set", "gridup:port", str(port), "-s", "inst").ok()
    changed = inst("up", "-s", "inst", "--yes", "--skip-preview").ok()
    assert "2 updated" in changed.out, changed.out
    after = pids(inst.cli)
    assert before.pop("proxy") != after.pop("proxy")
    assert before == after
    inst.cli("check", "Inst", "--wait").ok()
    assert listening(port)
    # The next deploy keeps what plain Pulumi has set.
    assert "Nothing changed" in inst.cli("deploy", "--name", "Inst").ok().err
    assert facts(inst.cli)["ports"]["proxy"] == port


def test_a_wrong_configuration_is_one_line(inst: Plain) -> None:
    reasons = {
        "port": ("nine", "gridup:port is 'nine'; it must be a whole number."),
        "node-type": ("island", "a node is a domain or a network"),
        "type": ("network", "unknown key gridup:type"),
    }
    for key, (value, reason) in reasons.items():
        inst("config", "set", f"gridup:{key}", value, "-s", "inst").ok()
        refused = inst("preview", "-s", "inst")
        assert refused.code not in (0, None)
        assert reason in refused.out
        assert "Traceback" not in refused.out + refused.err
        inst("config", "rm", f"gridup:{key}", "-s", "inst").ok()
    # Gridup's own next deploy lays the configuration anew.
    inst.cli("deploy", "--name", "Inst", *DEAF).ok()
    inst("preview", "-s", "inst", "--expect-no-changes").ok()


def test_a_wrong_passphrase_changes_nothing(inst: Plain) -> None:
    state = inst.cli.home / "state"
    wrong = {"PULUMI_CONFIG_PASSPHRASE": "wrong"}
    # As `env` prints it with the person's own variable set: it wins, and no file is named beside it.
    exports = inst.cli("env", "Inst", env=wrong).ok().out
    before = snapshot(state)
    for words in (["deploy", "--name", "Inst"], ["destroy", "Inst", "--yes"], ["refresh", "Inst"]):
        refused = inst.cli(*words, env=wrong)
        assert refused.code == 3, refused
        assert "The passphrase does not open this state." in refused.err
    for words in (["preview"], ["up", "--yes", "--skip-preview"], ["destroy", "--yes"]):
        refused = inst(*words, "-s", "inst", exports=exports, env=wrong)
        assert refused.code not in (0, None)
        assert "incorrect passphrase" in refused.out + refused.err
    assert snapshot(state) == before
    assert services_of(inst.cli.home)["api"] == 1


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_destroy_leaves_nothing_and_the_name_is_free_again(plain: Plain) -> None:
    cli = plain.cli
    cli.deploy("Inst", *DEAF)
    node = facts(cli)
    plain("destroy", "-s", "inst", "--yes").ok()
    assert marked(node["stack_id"]) == []
    nothing_left(cli, node["ports"])
    cli.deploy("Inst", *DEAF)
    assert facts(cli)["stack_id"] != node["stack_id"]
    cli("destroy", "Inst", "--yes").ok()
    nothing_left(cli, node["ports"])
    assert plain.cli("env", "Inst").code == 6


def test_destroy_works_from_a_folder_with_nothing_but_a_project(plain: Plain, tmp_path: Path) -> None:
    cli = plain.cli
    cli.deploy("My Institution", "--keep-data", *DEAF)
    stack = "my-institution"
    node = facts(cli, stack)
    elsewhere = tmp_path / "else where"
    (elsewhere / "any").mkdir(parents=True)
    (elsewhere / "Pulumi.yaml").write_text("name: gridup\nruntime: python\nmain: any/\n")
    plain("destroy", "-s", stack, "--yes", name="My Institution", cwd=elsewhere).ok()
    assert marked(node["stack_id"]) == []
    kept = sorted(path.name for path in cli.node(stack).iterdir())
    assert kept == ["data", "kept.json", "keys", "proxy", "secrets"]
    assert listeners(node["ports"]) == []
    assert locks(cli.home) == []
    assert cli("status", "--json").ok().json == []


@pytest.fixture(params=["home", deep("backend")])
def odd_place(request: pytest.FixtureRequest, home: Path, host: Path) -> Callable[[], Plain]:
    """A state whose path needs quoting, by GRIDUP_HOME or by PULUMI_BACKEND_URL."""

    def make() -> Plain:
        odd = home.parent / "my state #1"
        if request.param == "home":
            home.rename(odd)
            return Plain(Cli(odd), host)
        return Plain(Cli(home, {"PULUMI_BACKEND_URL": f"file://{odd}"}), host)

    return make


def test_a_path_with_a_space_and_a_hash_works(odd_place: Callable[[], Plain], tmp_path: Path) -> None:
    plain = odd_place()
    cli = plain.cli
    try:
        cli.deploy("Inst", *DEAF)
        checkpoints = list(tmp_path.rglob("stacks/gridup/inst.json"))
        assert ["my state #1" in str(path) for path in checkpoints] == [True]
        assert "Nothing changed" in cli("deploy", "--name", "Inst", *DEAF).ok().err
        assert "5 unchanged" in plain("preview", "-s", "inst", "--refresh").ok().out
        plain("destroy", "-s", "inst", "--yes").ok()
        nothing_left(cli)
    finally:
        for row in cli("status", "--no-probe", "--json").ok().json:
            cli("destroy", row["name"], "--yes").ok()
