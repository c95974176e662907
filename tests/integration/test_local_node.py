"""A real node on this machine, from deploy to destroy, as its owner lives with it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gridup_node.guard.throttle import FREE_TRIES
from gridup_node.own_api import SOCKET
from gridup_node.services import programs
from support import attacks, audits
from support.argvs import Argvs
from support.attacker import Attacker
from support.cli import Cli
from support.deep import all_but
from support.local_node import (
    HER,
    HERS,
    bound_addresses,
    client,
    eventually,
    facts,
    files_below,
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


GUESS = json.dumps({"email": "nobody@inst.example", "password": "wrong"}).encode()
JSON = {"Content-Type": "application/json"}

KEPT = ["data", "kept.json", "keys", "proxy", "secrets"]
"""What `--keep-data` leaves: the node's own CA too, which clients were told to trust."""


def test_a_check_proves_every_endpoint(inst: Cli) -> None:
    rows = inst("check", "Inst", "--json", "--wait").ok().json[0]["endpoints"]
    assert {row["service"]: row["state"] for row in rows} == dict.fromkeys(
        ("proxy", "ui", "api", "ssh", "jupyter", "jobs"), "up"
    )


def test_an_address_is_checked_like_one_that_gridup_never_deployed(inst: Cli) -> None:
    address = f"localhost:{facts(inst)['ports']['proxy']}"
    rows = inst("check", address, "--json", "--timeout", "60").json[0]["endpoints"]
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
        for path, rights, _ in files_below(folder / name):
            assert path.suffix == ".pub" or not rights & 0o077, path


def test_its_programs_run_as_the_user_who_deployed_it(inst: Cli) -> None:
    every = [psutil.Process(pid) for pid in pids(inst).values()]
    assert len(every) == len(programs())
    assert {tuple(process.uids()) for process in every} == {(os.getuid(),) * 3}


def test_what_ssh_audit_finds_is_explained(inst: Cli) -> None:
    assert audits.ssh("127.0.0.1", facts(inst)["ports"]["ssh"]) == audits.explained(audits.SSH)


def test_the_api_is_reached_through_the_reverse_proxy_alone(inst: Cli) -> None:
    assert "api" not in facts(inst)["ports"]
    api = psutil.Process(pids(inst)["api"])
    listening = [one for one in api.net_connections("all") if one.status == psutil.CONN_LISTEN]
    assert listening == []
    assert (inst.node() / SOCKET).is_socket()
    assert not any(mode(one) & 0o077 for one in (inst.node() / SOCKET, (inst.node() / SOCKET).parent))


def test_who_asks_is_the_reverse_proxys_word(inst: Cli) -> None:
    """It is seen by whose failed sign-ins make whom wait."""
    port = facts(inst)["ports"]["proxy"]

    def waits(address: str) -> bool:
        _, answer = Attacker(port, address).ask("POST", "/api/v2/login", GUESS, JSON)
        return b"Too many failed sign-ins" in answer

    # Each says that it is another one. The waits double: on a slow machine too, one try falls into one.
    others = [f"198.51.100.{number}" for number in range(FREE_TRIES + 20)]
    assert not any(waits(address) for address in others)
    assert any(waits("198.51.100.99") for _ in others)


@pytest.fixture
def scene(inst: Cli) -> Iterator[attacks.Scene]:
    """Whoever is on this machine is believed to be a proxy of the site's own."""
    with attacks.scene(attacks.Target.of(inst, lambda: pids(inst))) as made:
        yield made


def test_attacks_at_its_front_door_fail(scene: attacks.Scene) -> None:
    attacks.play(scene, *attacks.REQUESTS)


def test_floods_at_its_front_door_keep_nobody_out(scene: attacks.Scene) -> None:
    attacks.play(scene, *attacks.FLOODS)


def test_changed_messages_at_its_front_door_reach_nothing(scene: attacks.Scene) -> None:
    attacks.play(scene, attacks.changed_frames_reach_nothing)


def test_data_outlives_stop_start_and_a_change_of_port(inst: Cli, runtime: Path) -> None:
    seen = client(inst, runtime, "set_up.py", her=HER, hers=HERS)
    assert seen["stock"] == "SyftException"
    assert (seen["mock"], seen["data"]) == (300_000.0, "refused")

    inst("stop", "Inst").ok()
    assert inst("status", "Inst", "--json").ok().json[0]["state"] == "stopped"
    assert not listening(facts(inst)["ports"]["proxy"])
    for words in (["check", "Inst"], ["ssh", "Inst", "--", "true"]):
        stopped = inst(*words)
        assert stopped.code == 10, words
        assert 'Error: "Inst" is stopped.\n`gridup start Inst` starts it.' in stopped.err
    inst("start", "Inst").ok()

    before, port = pids(inst), facts(inst)["ports"]["proxy"] + 1000
    inst("deploy", "--name", "Inst", "--port", str(port)).ok()
    after = pids(inst)
    assert facts(inst)["ports"]["proxy"] == port
    assert before.pop("proxy") != after.pop("proxy")
    assert before == after  # only the reverse proxy was touched

    kept = client(inst, runtime, "look_again.py", her=HER, hers=HERS, slow=seen["slow"])
    assert (kept["datasets"], kept["data"], kept["mock"]) == (["Census"], 600_000.0, 300_000.0)
    assert (kept["hers"], kept["job"]) == ("refused", 600_000.0)


def test_a_killed_service_comes_back_by_itself(inst: Cli) -> None:
    before = pids(inst)
    kill(before["proxy"])
    eventually(lambda: pids(inst).get("proxy", before["proxy"]) != before["proxy"])
    inst("check", "Inst", "--wait").ok()


@pytest.mark.tier("deep")
def test_a_silent_wait_reports_once_when_the_node_comes_up(inst: Cli) -> None:
    # It comes up by itself: of one that was stopped `check` says so at once.
    kill(pids(inst)["api"])
    waiting = inst.start("check", "Inst", "--wait", "--silent", "--timeout", "120")
    out, err = waiting.communicate(timeout=130)
    assert (waiting.returncode, err) == (0, "")
    assert (out.count("✅"), out.count("host")) == (6, 1)


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


def test_after_a_restart_of_the_machine_one_line_says_what_to_run(inst: Cli) -> None:
    for process in marked(facts(inst)["stack_id"]):
        with contextlib.suppress(psutil.Error):
            process.kill()
    (inst.node() / "boot").write_text("the boot before this one")
    (row,) = inst("status", "Inst", "--json").ok().json
    assert (row["state"], row["problems"]) == ("stopped", [])
    assert row["notes"] == ["this machine was restarted since it ran: `gridup start Inst` starts it"]
    assert "gridup start Inst" in inst("check", "Inst").err
    inst("start", "Inst").ok()
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
    files = files_below(inst.home, without=("runtimes",))
    holders = [path for path, _, held in files if secret.encode() in held]
    assert holders == [inst.node() / "secrets" / "admin_password"]
    assert client(inst, runtime, "sign_in.py", tries=[secret, "changethis"]) == [True, False]


@pytest.mark.tier("deep")
def test_a_second_node_takes_the_next_free_ports(inst: Cli) -> None:
    inst.deploy("Hub", "--type", "network")
    mine, other = facts(inst)["ports"], facts(inst, "hub")["ports"]
    assert not set(mine.values()) & set(other.values())
    inst("check", "Inst", "Hub", "--wait").ok()
    inst("destroy", "Hub", "--yes").ok()
    inst("check", "Inst", "--wait").ok()


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
    inst("check", "Inst", "--wait").ok()


def test_destroy_without_a_terminal_deletes_nothing(inst: Cli) -> None:
    refused = inst("destroy", "--name", "Inst")
    assert refused.code == 2
    assert "--yes" in refused.err
    inst("check", "Inst", "--wait").ok()


def test_outputs_and_status_are_json_even_with_both_streams_in_one(inst: Cli) -> None:
    for command in (["outputs", "Inst"], ["status"]):
        ended = subprocess.run(
            [*inst.argv, *command, "--json"], env=inst.env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        json.loads(ended.stdout)


def test_urls_are_whole_on_a_narrow_screen(inst: Cli) -> None:
    shown = inst("check", "Inst", "--wait", env={"COLUMNS": "40"}).ok().out
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
        assert "api crashed (exit" in failed.err
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
    assert sorted(path.name for path in cli.node().iterdir()) == [
        "data",
        "kept.json",
        "keys",
        "proxy",
        "secrets",
    ]
    asked = cli("deploy", "--name", "Inst", "--no-wait")
    assert asked.code == 2
    assert f'An earlier "Inst" has left its data: the folder {cli.node()} of "Inst", kept ' in asked.err
    assert "--adopt" in asked.err and "--new-data" in asked.err
    assert "It asks about the folder" in cli("preview", "--name", "Inst").ok().out
    cli.deploy("Inst", "--no-wait", "--adopt")
    assert (cli.node() / "secrets" / "admin_password").read_text() == kept
    # It was not waited for, and so has not been healthy: its end keeps them.
    cli("destroy", "Inst", "--yes").ok()
    assert (cli.node() / "secrets" / "admin_password").read_text() == kept
    cli.deploy("Inst", "--no-wait", "--new-data")
    assert (cli.node() / "secrets" / "admin_password").read_text() != kept
    [aside] = cli.node().parent.glob("inst.kept-*")
    assert (aside / "secrets" / "admin_password").read_text() == kept
    cli("destroy", "Inst", "--yes").ok()
    assert not cli.node().exists()
    assert aside.exists()


@pytest.mark.tier("deep")
def test_kept_data_is_found_by_the_next_node(cli: Cli, runtime: Path) -> None:
    cli.deploy("Inst", "--keep-data")
    left = client(cli, runtime, "leave_dataset.py")
    gone = cli("destroy", "Inst", "--yes").ok()
    assert "keeps" in gone.err and "--keep-data" in gone.err
    assert sorted(path.name for path in cli.node().iterdir()) == [
        "data",
        "kept.json",
        "keys",
        "proxy",
        "secrets",
    ]
    cli.deploy("Inst", "--adopt")
    assert not (cli.node() / "kept.json").exists(), "it was healthy with them"
    assert client(cli, runtime, "leave_dataset.py", look=True) == left == {"Census": 600_000.0}
    cli("deploy", "--name", "Inst", "--no-keep-data").ok()
    cli("destroy", "Inst", "--yes").ok()
    assert not cli.node().exists()


@pytest.mark.tier("deep")
def test_a_deleted_folder_is_gone_and_laid_anew(cli: Cli) -> None:
    cli.deploy("Inst", "--no-wait")
    shutil.rmtree(cli.node())
    assert cli("status", "Inst", "--json").ok().json[0]["state"] == "missing"
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
    assert cli("ssh", "Inst", "--", "exit 7").code == 7
    assert cli("ssh", "Inst", "--", "pwd").ok().out == f"{cli.node()}\n"
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
    ports = facts(cli)["ports"]
    assert {bound[ports[name]] for name in ("proxy", "jupyter", "ssh")} == {address}
    # The api has a socket of the node's own, and no port.
    assert set(bound.values()) == {address}
    cli("check", "Inst", "--wait").ok()


def test_jupyter_s_token_stands_in_the_file_of_its_secret_alone(inst: Cli) -> None:
    """Jupyter would write it into files of its own, for other programs of its user."""
    token = (inst.node() / "secrets" / "jupyter_token").read_bytes().strip()
    holding = [path for path, _, held in files_below(inst.node()) if not path.is_symlink() and token in held]
    assert [path.relative_to(inst.node()).parts[0] for path in holding] == ["secrets"]
    assert not list((inst.node() / "jupyter" / "runtime").glob("jpserver-*"))
