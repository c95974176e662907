"""A real node on this machine, from deploy to destroy, as its owner lives with it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from support.argvs import Argvs
from support.cli import Cli
from support.deep import all_but
from support.local_node import (
    HER,
    HERS,
    bound_addresses,
    client,
    eventually,
    facts,
    kill,
    listening,
    marked,
    mode,
    pids,
    problems,
)

pytestmark = [
    pytest.mark.tier("gate"),
    pytest.mark.engine,
    pytest.mark.node,
    pytest.mark.usefixtures("own_ports"),
]


@pytest.fixture(scope="module")
def inst(module_cli: Cli) -> Cli:
    """One node that the tests below share; each leaves it right."""
    ended = module_cli.deploy("Inst")
    for row in ("host", "UI", "api", "ssh", "jupyter"):
        assert any(row in line and "✅" in line for line in ended.out.splitlines()), ended.out
    return module_cli


def test_a_check_proves_every_endpoint(inst: Cli) -> None:
    rows = inst("check", "Inst", "--json").ok().json[0]["endpoints"]
    assert {row["service"]: row["state"] for row in rows} == dict.fromkeys(
        ("proxy", "ui", "api", "ssh", "jupyter"), "up"
    )


def test_an_address_is_checked_like_one_that_gridup_never_deployed(inst: Cli) -> None:
    rows = inst("check", f"localhost:{facts(inst)['ports']['proxy']}", "--json").json[0]["endpoints"]
    assert {row["service"]: row["state"] for row in rows}["api"] == "up"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended = inst("check", f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "2")
    assert ended.code == 10


def test_the_same_deploy_again_changes_nothing(inst: Cli) -> None:
    before = pids(inst)
    again = inst("deploy", "--name", "Inst").ok()
    assert "Nothing changed" in again.err
    assert pids(inst) == before
    assert inst("preview", "--name", "Inst").ok().out == "No change.\n"


def test_everything_listens_on_the_loopback_alone(inst: Cli) -> None:
    assert set(bound_addresses(inst).values()) == {"127.0.0.1"}


def test_keys_and_secrets_are_their_owners_alone(inst: Cli) -> None:
    folder = inst.node()
    assert mode(folder) == 0o700
    for name in ("secrets", "keys", "config", "data"):
        assert mode(folder / name) == 0o700
        for path in (folder / name).rglob("*"):
            if path.is_file() and path.suffix != ".pub":
                assert not mode(path) & 0o077, path


def test_data_outlives_stop_start_and_a_change_of_port(inst: Cli, runtime: Path) -> None:
    seen = client(inst, runtime, "set_up.py", her=HER, hers=HERS)
    assert seen["stock"] == "SyftException"
    assert (seen["mock"], seen["data"]) == (300_000.0, "refused")

    inst("stop", "Inst").ok()
    assert inst("status", "Inst", "--json").ok().json[0]["state"] == "stopped"
    assert not listening(facts(inst)["ports"]["proxy"])
    inst("start", "Inst").ok()

    before, port = pids(inst), facts(inst)["ports"]["proxy"] + 1000
    inst("deploy", "--name", "Inst", "--port", str(port)).ok()
    after = pids(inst)
    assert facts(inst)["ports"]["proxy"] == port
    assert before.pop("proxy") != after.pop("proxy")
    assert before == after  # only the front door was touched

    kept = client(inst, runtime, "look_again.py", her=HER, hers=HERS, slow=seen["slow"])
    assert (kept["datasets"], kept["data"], kept["mock"]) == (["Census"], 600_000.0, 300_000.0)
    assert (kept["hers"], kept["job"]) == ("refused", 600_000.0)


def test_a_killed_service_comes_back_by_itself(inst: Cli) -> None:
    before = pids(inst)
    kill(before["proxy"])
    eventually(lambda: pids(inst).get("proxy", before["proxy"]) != before["proxy"])
    inst("check", "Inst", "--wait", "--timeout", "30").ok()


@pytest.mark.tier("deep")
def test_a_silent_wait_reports_once_when_the_node_comes_up(inst: Cli) -> None:
    inst("stop", "Inst").ok()
    waiting = inst.start("check", "Inst", "--wait", "--silent", "--timeout", "120")
    inst("start", "Inst").ok()
    out, err = waiting.communicate(timeout=130)
    assert (waiting.returncode, err) == (0, "")
    assert (out.count("✅"), out.count("host")) == (5, 1)


DRIFTS = {
    "a killed supervisor": (lambda cli: kill(pids(cli)["supervisor"]), "the supervisor does not run"),
    "an edited Caddyfile": (
        lambda cli: (cli.node() / "config" / "Caddyfile").write_text(":1 {\n}\n"),
        "config/Caddyfile was changed",
    ),
    "a loosened secret": (
        lambda cli: (cli.node() / "secrets" / "admin_password").chmod(0o644),
        "others may read it",
    ),
    "a loosened key": (
        lambda cli: (cli.node() / "keys" / "client_ed25519").chmod(0o640),
        "can be read by others",
    ),
    "changed code": (
        lambda cli: (cli.node() / "app" / "gridup_node" / "facts.py").write_text("# nothing\n"),
        "app/ was changed",
    ),
}


@pytest.mark.parametrize("what", all_but(["a killed supervisor", "an edited Caddyfile"], DRIFTS))
def test_drift_is_seen_and_repaired(inst: Cli, what: str) -> None:
    damage, sign = DRIFTS[what]
    damage(inst)
    assert any(sign in problem for problem in problems(inst)), problems(inst)
    refreshed = inst("refresh", "Inst", "--json").ok().json
    assert refreshed["changes"]
    assert any(sign in problem for problem in refreshed["problems"])
    assert inst("preview", "--name", "Inst", "--json").ok().json["changes"]
    inst("deploy", "--name", "Inst").ok()
    assert problems(inst) == []


def test_ssh_runs_commands_and_leaves_the_persons_files_alone(inst: Cli, tmp_path: Path) -> None:
    person = tmp_path / "a b"
    (person / ".ssh").mkdir(parents=True)
    known = person / ".ssh" / "known_hosts"
    known.write_text("example.org ssh-ed25519 AAAA\n")
    env = {"HOME": str(person)}
    assert inst("ssh", "--name", "Inst", "--", "sh", "-c", "exit 7", env=env).code == 7
    whole = inst("ssh", "Inst", "--", "printf", "%s|", "a  b", "c'd", "$HOME", env=env).ok()
    assert whole.out == "a  b|c'd|$HOME|"
    assert known.read_text() == "example.org ssh-ed25519 AAAA\n"
    assert mode(inst.node() / "keys" / "client_ed25519") == 0o600


def test_a_changed_host_key_is_refused(inst: Cli) -> None:
    known = inst.node() / "keys" / "known_hosts"
    right = known.read_text()
    known.write_text("* " + (inst.node() / "keys" / "client_ed25519.pub").read_text())
    try:
        refused = inst("ssh", "Inst", "--", "true")
        assert refused.code == 255
        assert (
            "HOST IDENTIFICATION HAS CHANGED" in refused.err.upper() or "verification failed" in refused.err
        )
    finally:
        known.write_text(right)


def test_logs_show_one_service_or_all(inst: Cli) -> None:
    assert "Jupyter Server" in inst("logs", "Inst", "jupyter").ok().out
    every = inst("logs", "Inst", "--json").ok().json
    assert {"api", "jupyter"} <= {row["service"] for row in every}
    assert "It has: proxy, api" in inst("logs", "Inst", "nope").err


def test_a_given_password_is_set_and_shows_nowhere(inst: Cli, runtime: Path, tmp_path: Path) -> None:
    secret = "S3cret!x9Qz"
    file = tmp_path / "password"
    file.write_text(secret + "\n")
    with Argvs() as seen:
        ended = inst("deploy", "--name", "Inst", "--admin-password-file", str(file), "-v").ok()
    out, err = ended.out, ended.err
    assert not any(secret in line for line in (*seen.lines, out, err))
    masked = inst("outputs", "Inst").ok()
    assert secret not in masked.out and "[secret]" in masked.out
    assert inst("outputs", "Inst", "--show-secrets", "--json").ok().json["admin_password"] == secret
    holders = [
        path
        for path in inst.home.rglob("*")
        if path.is_file() and "runtimes" not in path.parts and secret.encode() in path.read_bytes()
    ]
    assert holders == [inst.node() / "secrets" / "admin_password"]
    assert client(inst, runtime, "sign_in.py", tries=[secret, "changethis"]) == [True, False]


@pytest.mark.tier("deep")
def test_a_second_node_takes_the_next_free_ports(inst: Cli) -> None:
    inst.deploy("Hub", "--type", "network")
    mine, other = facts(inst)["ports"], facts(inst, "hub")["ports"]
    assert not set(mine.values()) & set(other.values())
    inst("check", "Inst", "Hub").ok()
    inst("destroy", "Hub", "--yes").ok()
    inst("check", "Inst").ok()


def test_a_taken_port_is_refused_before_anything_is_made(inst: Cli, cli: Cli) -> None:
    port = facts(inst)["ports"]["proxy"]
    refused = cli("deploy", "--name", "Other", "--port", str(port))
    assert refused.code == 1
    assert f"Port {port} of 127.0.0.1 is in use by caddy (process {pids(inst)['proxy']})." in refused.err
    assert cli("status", "--json").ok().json == []


def test_two_names_of_one_stack_are_not_mixed_up(inst: Cli) -> None:
    refused = inst("deploy", "--name", "INST")
    assert refused.code == 2
    assert '"Inst"' in refused.err
    assert inst("destroy", "INST", "--yes").code == 6
    inst("check", "Inst").ok()


def test_destroy_without_a_terminal_deletes_nothing(inst: Cli) -> None:
    refused = inst("destroy", "--name", "Inst", timeout=5)
    assert refused.code == 2
    assert "--yes" in refused.err
    inst("check", "Inst").ok()


def test_outputs_and_status_are_json_even_with_both_streams_in_one(inst: Cli) -> None:
    for command in (["outputs", "Inst"], ["status"]):
        ended = subprocess.run(
            [*inst.argv, *command, "--json"], env=inst.env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        json.loads(ended.stdout)


def test_urls_are_whole_on_a_narrow_screen(inst: Cli) -> None:
    shown = inst("check", "Inst", env={"COLUMNS": "40"}).ok().out
    assert f"http://127.0.0.1:{facts(inst)['ports']['proxy']}/api/v2" in shown
    assert "\x1b" not in shown


@pytest.mark.tier("deep")
def test_a_service_that_cannot_start_ends_the_wait_early(inst: Cli) -> None:
    inst("stop", "Inst").ok()
    database = inst.node() / "data" / "node.db"
    database.rename(database.with_suffix(".aside"))
    database.mkdir()
    try:
        failed = inst("start", "Inst", "--timeout", "120", timeout=110)
        assert failed.code == 4
        assert "api ended with exit code" in failed.err
        assert "unable to open database file" in failed.err
        assert inst("check", "Inst", "--wait", "--timeout", "60").code == 10
    finally:
        database.rmdir()
        database.with_suffix(".aside").rename(database)
    inst("deploy", "--name", "Inst").ok()


def test_destroy_leaves_nothing_and_a_new_node_has_new_keys(inst: Cli, runtime: Path) -> None:
    old = facts(inst)
    key = (inst.node() / "keys" / "host_ed25519.pub").read_text()
    inst("destroy", "Inst", "--yes").ok()
    assert marked(old["stack_id"]) == []
    assert not any(listening(port) for port in old["ports"].values())
    assert not inst.node().exists()
    assert runtime.exists()
    assert inst("status", "--json").ok().json == []
    inst.deploy("Inst", "--port", str(old["ports"]["proxy"]))
    assert (inst.node() / "keys" / "host_ed25519.pub").read_text() != key
    # Same address, other host key: no prompt, no alarm (case G35).
    inst("ssh", "Inst", "--", "true").ok()


def test_kept_data_is_the_next_nodes_of_that_name(cli: Cli) -> None:
    cli.deploy("Inst", "--keep-data", "--no-wait")
    eventually((cli.node() / "secrets" / "admin_password").exists)
    kept = (cli.node() / "secrets" / "admin_password").read_text()
    gone = cli("destroy", "Inst", "--yes").ok()
    assert "keeps" in gone.err and "--keep-data" in gone.err
    assert sorted(path.name for path in cli.node().iterdir()) == ["data", "kept.json", "keys", "secrets"]
    cli.deploy("Inst", "--no-wait")
    assert (cli.node() / "secrets" / "admin_password").read_text() == kept
    assert not (cli.node() / "kept.json").exists()


@pytest.mark.tier("deep")
def test_kept_data_is_found_by_the_next_node(cli: Cli, runtime: Path) -> None:
    cli.deploy("Inst", "--keep-data")
    left = client(cli, runtime, "leave_dataset.py")
    gone = cli("destroy", "Inst", "--yes").ok()
    assert "keeps" in gone.err and "--keep-data" in gone.err
    assert sorted(path.name for path in cli.node().iterdir()) == ["data", "kept.json", "keys", "secrets"]
    cli.deploy("Inst")
    assert client(cli, runtime, "leave_dataset.py", look=True) == left == {"Census": 600_000.0}


@pytest.mark.tier("deep")
def test_a_deleted_folder_is_gone_and_laid_anew(cli: Cli) -> None:
    cli.deploy("Inst", "--no-wait")
    shutil.rmtree(cli.node())
    assert cli("status", "Inst", "--json").ok().json[0]["state"] == "gone"
    cli("deploy", "--name", "Inst").ok()
    assert problems(cli) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="hides sshd by a mount, which only root can")
@pytest.mark.tier("deep")
def test_without_sshd_the_row_says_so_and_counts_as_not_offered(cli: Cli) -> None:
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if sshd is None:
        pytest.skip("no sshd to hide")
    hidden = f'mount --bind /dev/null {sshd} && exec "$@"'
    argv = ["unshare", "-m", "sh", "-c", hidden, "sh", *cli.argv, "deploy", "--name", "Inst"]
    ended = subprocess.run(argv, env=cli.env(), capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "➖ no sshd on this machine" in ended.stdout
    assert cli("ssh", "Inst", "--", "true").code == 4
    # With sshd there, the next deploy offers it. (Its supervisor must leave the place without sshd first.)
    cli("stop", "Inst").ok()
    offered = cli("deploy", "--name", "Inst").ok()
    assert "no sshd" not in offered.out


@pytest.mark.tier("deep")
def test_bind_opens_the_node_to_that_address_alone(cli: Cli) -> None:
    address = "127.0.0.2"
    if psutil.MACOS:
        pytest.skip("macOS has only one loopback address")
    cli.deploy("Inst", "--bind", address)
    bound = bound_addresses(cli)
    front, inner = {"proxy", "jupyter", "ssh"}, {"api"}
    ports = facts(cli)["ports"]
    assert {bound[ports[name]] for name in front} == {address}
    assert {bound[ports[name]] for name in inner} == {"127.0.0.1"}
    cli("check", "Inst").ok()
