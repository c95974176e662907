"""A node on a machine that really boots, whichever cloud it may stand for: from its first boot to its end.

The machine is told what a cloud would tell it, and has nothing beforehand but the image that the node's own
is built from. All that happens to it then comes by the command line, over ssh.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gridup_infra.outputs import NodeOutputs
from gridup_infra.processes import Result, run, wait_until
from gridup_infra.spec import DeploySpec
from gridup_infra.vm import keys
from gridup_infra.vm.node import host
from gridup_node.confines import LOG_LIMITS, MACHINE_UID, limits
from gridup_node.services import folders
from gridup_node.services import service as table_row
from gridup_node.vm import first_boot
from gridup_node.vm.docker import NODE
from gridup_node.vm.shield import COUNTS, MOST_CONNECTIONS
from gridup_node.vm.user_data import Host, user_data
from support import attacks, audits
from support.booted import ADDRESS_VARIABLE, ID_VARIABLE, PUBLIC_KEY, BootedCli
from support.cache import shared_home
from support.containers import another_version
from support.interrupts import all_end, engine_of, kill_run
from support.local_node import HER, HERS, client, eventually
from support.pebble_rig import pebble
from support.registry import publish
from support.rotated import check_replaced, opened
from support.vm_network import GATEWAY
from support.vm_rig import Machine, Rig

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine, pytest.mark.node, pytest.mark.vm]

DEVICE = "/dev/disk/by-id/nvme-data"

DOMAIN = "node.inst.example"

DATA = {"datasets": ["Census"], "data": 600_000.0, "users": [HER, "admin@example.org"]}
"""What the real client lays down, and finds after whatever happens to the machine."""

BOOM = """
if __name__ == "__main__":
    import sys

    sys.stderr.write("boom\\n")
    sys.exit(3)
"""


@dataclass
class Inst:
    """The node that the tests share, on its machine."""

    cli: BootedCli
    machine: Machine
    ca: Path

    def containers(self) -> dict[str, str]:
        """Each container's id, by its name."""
        told = self.machine.run("docker", "ps", "--all", "--no-trunc", "--format", "{{.Names}} {{.ID}}")
        return dict(line.split() for line in told.splitlines())


def settle(machine: Machine) -> first_boot.State:
    """How its first boot ends."""

    def state() -> first_boot.State:
        return first_boot.parse(machine.try_run(*first_boot.READ).stdout)

    assert wait_until(lambda: state().settled, timeout=900, every=0.5), machine.console[-2000:]
    return state()


def outputs_of(cli: BootedCli, stack: str = "inst") -> NodeOutputs:
    """What a stack exports, as its state has it."""
    outputs = NodeOutputs.from_exports(stack_resource(cli, stack)["outputs"])
    assert outputs is not None
    return outputs


def stack_resource(cli: BootedCli, stack: str = "inst") -> Any:
    state = json.loads((cli.home / f"state/.pulumi/stacks/gridup/{stack}.json").read_text())
    rows = state["checkpoint"]["latest"]["resources"]
    return next(row for row in rows if row["type"] == "pulumi:pulumi:Stack")


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, cache: Path, engine: Path) -> Iterator[BootedCli]:
    yield BootedCli(shared_home(tmp_path_factory.mktemp("vm") / "home", cache))


def hosted(cli: BootedCli, machine: Machine, name: str, **told: Any) -> bytes:
    """Deploy as far as the machine's own key, and tell what a cloud would hand to the machine."""
    cli.environment |= {ADDRESS_VARIABLE: machine.address, ID_VARIABLE: f"{name}-1"}
    words = ("--cloud", "booted", "--allow-cidr", "0.0.0.0/0", "--no-node", "--no-wait")
    cli.deploy(name, *words)
    outputs = outputs_of(cli, DeploySpec(name=name).stack)
    plan: Host = host(outputs.spec, outputs.facts[PUBLIC_KEY], [DEVICE])
    return user_data(replace(plan, **told))


@pytest.fixture(scope="module")
def inst(cli: BootedCli, vm_rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inst]:
    machine = vm_rig.machine()
    machine.boot(hosted(cli, machine, "Inst"), {DEVICE: vm_rig.disk(1024)})
    ended = cli("deploy", "--name", "Inst").ok()
    for row in ("host", "UI", "api", "ssh", "jupyter"):
        assert any(row in line and "✅" in line for line in ended.out.splitlines()), ended.out
    ca = tmp_path_factory.mktemp("ca") / "inst-ca.pem"
    ca.write_text(cli("outputs", "Inst", "--ca").ok().out)
    yield Inst(cli, machine, ca)


@pytest.fixture(scope="module")
def work(inst: Inst, runtime: Path) -> Any:
    """What the real client has done on it, and seen: for whatever looks later whether that is still there."""
    return client(inst.cli, runtime, "set_up.py", trusted=inst.ca, her=HER, hers=HERS)


def test_all_is_https_and_its_own_ca_vouches_for_it(inst: Inst) -> None:
    found = inst.cli("outputs", "Inst", "--json").ok().json
    address = inst.machine.address
    assert found["ui_url"] == f"https://{address}/login"
    assert found["api_url"] == f"https://{address}/api/v2"
    assert found["jupyter_url"] == f"https://{address}:8888"
    fetch = ["curl", "--noproxy", "*", "--silent", "--show-error", "--cacert", str(inst.ca)]
    page = subprocess.run([*fetch, found["ui_url"]], capture_output=True, text=True, timeout=30)
    assert "Gridup portal" in page.stdout, page.stderr
    moved = subprocess.run([*fetch, "--head", f"http://{address}/x"], capture_output=True, text=True)
    assert f"https://{address}/x" in moved.stdout
    assert inst.cli("check", "Inst", "--wait").ok()


def test_the_real_client_logs_in_and_works_where_it_trusts_the_ca(
    inst: Inst, runtime: Path, work: Any
) -> None:
    assert (work["mock"], work["data"]) == (300_000.0, "refused")
    # Beside a job of hers that goes on.
    assert data(inst, runtime) == DATA


def test_a_notebook_runs_over_a_websocket_and_for_nobody_else(inst: Inst, runtime: Path) -> None:
    seen = client(inst.cli, runtime, "run_notebook.py", trusted=inst.ca)
    assert seen == {"result": "2", "nobody": 403, "another site": 403}


def test_attacks_at_its_front_door_fail(inst: Inst) -> None:
    def shell(line: str) -> str:
        return inst.machine.try_run("sh", "-c", line).stdout

    def processes() -> dict[str, int]:
        told = shell("docker inspect --format '{{.Name}} {{.State.Pid}}' $(docker ps --quiet)")
        return {name: int(pid) for name, pid in (line.split() for line in told.splitlines())}

    target = attacks.Target.of(
        inst.cli, processes, shell=shell, ca=str(inst.ca), believed=False, connections=300
    )
    with attacks.scene(target) as scene:
        attacks.play(scene, *attacks.REQUESTS, *attacks.FLOODS, attacks.changed_frames_reach_nothing)


def test_one_address_has_so_many_connections_and_no_more(inst: Inst) -> None:
    there, opened, refused = (inst.machine.address, 443), 0, 0
    with attacks.many_files(), contextlib.ExitStack() as made:
        # Such as ask nothing are ended after a while, and others come in in their places.
        while refused < 50 and opened < 2 * MOST_CONNECTIONS:
            try:
                made.enter_context(socket.create_connection(there, 5))
                opened += 1
            except ConnectionRefusedError:
                refused += 1
        # Others are answered meanwhile.
        port = "import socket; socket.create_connection(('127.0.0.1', 443), 5)"
        assert inst.machine.try_run("python3", "-c", port).ok
    assert refused == 50
    # Connections of the test before may still count.
    assert opened >= MOST_CONNECTIONS - 50
    assert inst.cli("check", "Inst", "--wait").ok()


def data(inst: Inst, runtime: Path) -> Any:
    """What the administrator finds there."""
    return client(inst.cli, runtime, "list_data.py", trusted=inst.ca)


def test_the_key_is_nowhere_in_plain(inst: Inst) -> None:
    files = [
        path
        for path in inst.cli.home.rglob("*")
        if path.is_file() and not path.is_relative_to(inst.cli.home / "engine")
    ]
    inst.cli("ssh", "Inst", "--", "true").ok()
    own = inst.cli.home / "stacks/inst/keys/client_ed25519"
    assert own.stat().st_mode & 0o777 == 0o600
    secret = own.read_text().splitlines()[2]
    assert not [path for path in files if secret in path.read_text(errors="replace") and path != own]


def test_what_sslyze_and_ssh_audit_find_is_explained(inst: Inst) -> None:
    assert audits.ssh(inst.machine.address, 22) == audits.explained(audits.SSH)
    for port in (443, 8888):
        assert audits.tls(inst.machine.address, port, inst.ca) == audits.TLS


def test_what_lynis_finds_on_the_machine_is_explained(inst: Inst) -> None:
    found = audits.lynis(inst.machine)
    assert [name for name in found if not audits.LYNIS["reasons"].get(name)] == []
    assert not set(found) & set(audits.LYNIS["gone"])


def test_check_says_what_keeps_code_in(inst: Inst) -> None:
    (found,) = inst.cli("check", "Inst", "--json", "--wait").ok().json
    jobs = next(row for row in found["endpoints"] if row["service"] == "jobs")
    assert (jobs["state"], jobs["note"].split(", ")[0]) == ("up", "container")
    assert inst.machine.run("docker", "exec", "gridup-jobs", "cat", "/proc/net/dev").count(":") == 1


def test_a_person_gets_in_and_reads_every_log(inst: Inst) -> None:
    ended = inst.cli("ssh", "Inst", "--", "sh", "-c", "id -un; exit 7")
    assert (ended.code, ended.out) == (7, "gridup\n")
    for service in ("api", "proxy", "jupyter", "ssh"):
        lines = inst.cli("logs", "Inst", service, "--lines", "5").ok().out
        assert service == "proxy" or lines, service
    assert "Accepted publickey for gridup" in inst.cli("logs", "Inst", "ssh", "--lines", "50").ok().out


def test_the_same_again_changes_nothing(inst: Inst) -> None:
    before = inst.containers()
    assert set(before) == {"gridup-proxy", "gridup-api", "gridup-jobs", "gridup-jupyter"}
    again = inst.cli("deploy", "--name", "Inst").ok()
    assert "Nothing changed" in again.err
    assert inst.containers() == before
    assert inst.cli("preview", "--name", "Inst").ok().out == "No change.\n"


def test_each_container_has_its_own_folders_and_none_runs_as_who_may_use_sudo(inst: Inst) -> None:
    machine = json.loads(inst.machine.run("docker", "info", "--format", "{{json .}}"))
    for service in ("proxy", "api", "jobs", "jupyter"):
        container = ("docker", "exec", f"gridup-{service}")
        for folder in folders():
            there = inst.machine.try_run(*container, "ls", f"/var/lib/gridup/{folder}")
            assert there.ok == (folder in table_row(service).folders), (service, folder)
        assert inst.machine.run(*container, "id", "-u").strip() == str(MACHINE_UID)
        written = inst.machine.try_run("docker", "exec", "--user=0", f"gridup-{service}", "touch", "/etc/x")
        assert "Read-only file system" in written.stderr
        told = inst.machine.run("docker", "inspect", "--format", "{{json .HostConfig}}", f"gridup-{service}")
        found, row = json.loads(told), table_row(service)
        assert found["LogConfig"]["Config"] == dict(LOG_LIMITS)
        wanted = limits({"memory": row.memory, "cpus": row.cpus, "pids": row.pids}, machine)
        assert found["Memory"] == wanted.get("mem_limit", 0)
        assert found["NanoCpus"] == int(wanted.get("cpus", 0) * 1e9)
        assert (found["PidsLimit"] or 0) == wanted.get("pids_limit", 0)
    assert inst.machine.run("stat", "--format=%u", f"{NODE}/secrets/server_key").strip() == str(MACHINE_UID)
    assert inst.machine.run("id", "-u", "gridup").strip() != str(MACHINE_UID)


METADATA = ("169.254.169.254", 8111)
"""The node itself has port 80 of the machine, which the real one is found at."""

CONNECT = f"import socket; socket.create_connection({METADATA}, 5)"


def metadata(inst: Inst) -> dict[str, bool]:
    """From where a metadata service on the machine is reached: here, a container of the node's or not."""
    address, port = METADATA
    up = f"ip address replace {address}/32 dev lo; systemctl is-active --quiet metadata || systemd-run "
    up += f"--unit=metadata --collect python3 -m http.server {port} --bind {address}"
    inst.machine.run("sh", "-c", up)
    image = inst.machine.run("docker", "inspect", "--format", "{{.Config.Image}}", "gridup-api").strip()
    ways = {
        "machine": ("python3", "-c", CONNECT),
        "foreign": ("docker", "run", "--rm", "--entrypoint=python", image, "-c", CONNECT),
        "api": ("docker", "exec", "gridup-api", "python", "-c", CONNECT),
        "proxy": ("docker", "exec", "gridup-proxy", "python", "-c", CONNECT),
        "jobs": ("docker", "exec", "gridup-jobs", "python", "-c", CONNECT),
        "jupyter": ("docker", "exec", "gridup-jupyter", "python", "-c", CONNECT),
    }
    assert wait_until(lambda: inst.machine.try_run(*ways["machine"]).ok, timeout=120, every=0.5)
    return {name: inst.machine.try_run(*argv).ok for name, argv in ways.items()}


CLOSED = {"machine": True, "foreign": True, "api": False, "proxy": False, "jobs": False, "jupyter": False}


def test_no_container_reaches_the_metadata_service_not_even_once_docker_was_restarted(inst: Inst) -> None:
    assert metadata(inst) == CLOSED
    inst.machine.run("systemctl", "restart", "docker", timeout=300)
    assert metadata(inst) == CLOSED
    inst.machine.run("systemctl", "stop", "gridup-shield.service")
    assert "node: changed" in inst.cli("refresh", "Inst").ok().err
    inst.cli("deploy", "--name", "Inst").ok()
    assert metadata(inst) == CLOSED


def test_a_notebook_reaches_the_front_door_and_nobody_else(inst: Inst) -> None:
    def connects(service: str, host: str, port: int) -> bool:
        program = f"import socket; socket.create_connection(('{host}', {port}), 5)"
        return inst.machine.try_run("docker", "exec", f"gridup-{service}", "python", "-c", program).ok

    where = '{{with index .NetworkSettings.Networks "gridup_api"}}{{.IPAddress}}{{end}}'
    api = inst.machine.run("docker", "inspect", "--format", where, "gridup-api").strip()
    assert api and connects("proxy", api, 18080)
    assert connects("jupyter", "proxy", 18080)
    assert not connects("jupyter", "api", 18080)
    assert not connects("jupyter", api, 18080)
    # The machine's own sshd, at any address of its.
    assert not connects("jupyter", inst.machine.address, 22)
    assert connects("api", inst.machine.address, 22)


@pytest.mark.tier("deep")
@pytest.mark.usefixtures("work")
def test_a_node_whose_programs_had_the_users_own_id_comes_up_with_its_data(inst: Inst, runtime: Path) -> None:
    ca = inst.ca.read_text()
    # As an earlier version laid it: one folder for all containers, of the user who may use sudo.
    laid = f"""docker rm --force $(docker ps --all --quiet); cd {NODE}
        rm data/notebooks secrets/jupyter_token
        mv notebooks data/notebooks && mv token/jupyter_token secrets/ && rmdir token
        chown --recursive gridup:gridup {NODE}"""
    inst.machine.run("sh", "-c", laid)
    inst.cli("deploy", "--name", "Inst").ok()
    assert inst.cli("outputs", "Inst", "--ca").ok().out == ca
    assert data(inst, runtime) == DATA
    assert inst.cli("check", "Inst", "--wait").ok()


def test_what_was_changed_by_hand_is_seen_and_put_right(inst: Inst) -> None:
    inst.machine.run("docker", "rm", "--force", "gridup-jupyter")
    inst.machine.run("sh", "-c", "echo 'ssh-ed25519 EVIL x' >>/home/gridup/.ssh/authorized_keys")
    assert "node: changed" in inst.cli("refresh", "Inst").ok().err
    inst.cli("deploy", "--name", "Inst").ok()
    assert "gridup-jupyter" in inst.containers()
    assert b"EVIL" not in inst.machine.read("/home/gridup/.ssh/authorized_keys")


class Person:
    """Somebody with a key of their own.

    Attributes:
        file: the public half.
    """

    def __init__(self, inst: Inst, folder: Path, name: str) -> None:
        private, public = keys.new_key()
        self._inst, self._key, self.file = inst, folder / name, folder / f"{name}.pub"
        self.file.write_text(f"{public}\n")
        self._key.touch(mode=0o600)
        self._key.write_text(private)
        # It pins the machine's key where `ssh` below looks for it.
        inst.cli("ssh", "Inst", "--", "true").ok()

    def ssh(self, user: str, *argv: str) -> Result:
        """Log in to the machine as `user` and run something there."""
        known = self._inst.cli.home / "stacks/inst/keys/known_hosts"
        options = ("-F", "none", "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes")
        words = ["ssh", *options, "-i", str(self._key), f"{user}@{self._inst.machine.address}"]
        return run([*words, shlex.join(argv)], timeout=30)


DENIED = 255
"""OpenSSH's own exit code."""


def test_a_persons_key_enters_without_rights_and_an_administrators_with_them(
    inst: Inst, tmp_path: Path
) -> None:
    ada, bob = (Person(inst, tmp_path, name) for name in ("ada", "bob"))
    before = inst.containers()
    words = ("deploy", "--name", "Inst", "--ssh-key", str(ada.file), "--admin-ssh-key", str(bob.file))
    inst.cli(*words).ok()
    assert inst.containers() == before
    found = inst.cli("outputs", "Inst", "--json").ok().json
    assert (found["ssh_user"], found["ssh_admin"]) == ("gridup-user", "gridup")
    assert len(bob.ssh("gridup", "docker", "ps", "-q").stdout.split()) == 4
    assert bob.ssh("gridup", "sudo", "-n", "id", "-u").stdout == "0\n"
    assert (ada.ssh("gridup", "true").code, bob.ssh("gridup-user", "true").code) == (DENIED, DENIED)
    assert ada.ssh("gridup-user", "id").stdout.strip() == (
        "uid=10003(gridup-user) gid=10003(gridup-user) groups=10003(gridup-user)"
    )
    for refused in (
        ("sudo", "-n", "true"),
        ("docker", "ps"),
        ("ls", NODE),
        ("ls", "/home/gridup"),
        ("cat", "/var/lib/gridup-boot/first-boot.log"),
        ("cat", "/var/lib/cloud/instance/user-data.txt"),
    ):
        assert not ada.ssh("gridup-user", *refused).ok, refused
    # The node is reached as from anywhere; containers behind its proxy, and the cloud's words, are not.
    where = '{{with index .NetworkSettings.Networks "gridup_api"}}{{.IPAddress}}{{end}}'
    api = inst.machine.run("docker", "inspect", "--format", where, "gridup-api").strip()
    metadata(inst)
    for to, port, reached in ((inst.machine.address, 443, True), (api, 18080, False), (*METADATA, False)):
        connect = f"import socket; socket.create_connection(({to!r}, {port}), 3)"
        assert ada.ssh("gridup-user", "python3", "-c", connect).ok is reached, to
        assert bob.ssh("gridup", "python3", "-c", connect).ok, to
    # What its user lays in the way of a deploy is in nobody's way, and nothing of root's is written.
    trap = "rm -r ~/.ssh && ln -s /etc/ssh ~/.ssh"
    assert ada.ssh("gridup-user", "sh", "-c", trap).ok
    assert "node: changed" in inst.cli("refresh", "Inst").ok().err
    inst.cli("deploy", "--name", "Inst").ok()
    assert inst.machine.try_run("test", "-e", "/etc/ssh/authorized_keys").code != 0
    assert ada.ssh("gridup-user", "true").ok
    inst.cli("deploy", "--name", "Inst", "--ssh-key", "none", "--admin-ssh-key", "none").ok()
    assert (ada.ssh("gridup-user", "true").code, bob.ssh("gridup", "true").code) == (DENIED, DENIED)
    assert inst.cli("ssh", "Inst", "--", "sudo", "-n", "id", "-u").ok().out == "0\n"
    assert inst.containers() == before


def write(machine: Machine, path: str, text: str) -> None:
    """Change a file of a machine's; it stays whose it is."""
    machine.run("python3", "-c", "import sys; open(sys.argv[1], 'w').write(sys.argv[2])", path, text)


def test_keys_that_once_entered_with_rights_move_over(inst: Inst, tmp_path: Path) -> None:
    ada = Person(inst, tmp_path, "ada")
    inst.cli("deploy", "--name", "Inst", "--ssh-key", str(ada.file)).ok()
    # As an earlier version left it: one user for all keys, and a state that knows no other.
    inst.machine.run("userdel", "--force", "--remove", "gridup-user")
    inst.machine.run("rm", "/etc/ssh/sshd_config.d/11-gridup-user.conf")
    saved = "/home/gridup/.gridup/releases.json"
    state = json.loads(inst.machine.read(saved))
    state["authorized_keys"] += state.pop("users")
    del state["reboot_at"]
    write(inst.machine, saved, json.dumps(state))
    keys_file = "/home/gridup/.ssh/authorized_keys"
    write(inst.machine, keys_file, "".join(f"{line}\n" for line in state["authorized_keys"]))
    inst.machine.run("systemctl", "reload", "ssh")
    # It begins anew, and takes no connections for a moment.
    assert wait_until(lambda: ada.ssh("gridup", "true").ok, timeout=60)
    # What an earlier version asked for differs from what this one does; here it is the hour that does.
    inst.cli("deploy", "--name", "Inst", "--reboot-at", "04:00").ok()
    assert ada.ssh("gridup", "true").code == DENIED
    assert ada.ssh("gridup-user", "true").ok
    inst.cli("deploy", "--name", "Inst", "--ssh-key", "none", "--reboot-at", "never").ok()


def test_its_updates_restart_it_at_the_hour_that_was_set_and_never_without(inst: Inst) -> None:
    def told() -> dict[str, str]:
        dump = inst.machine.run("apt-config", "dump", "Unattended-Upgrade")
        rows = (line.removeprefix("Unattended-Upgrade::").split(" ", 1) for line in dump.splitlines())
        return {row[0]: row[1].strip('";') for row in rows if row[0].startswith("Automatic-Reboot")}

    before = inst.containers()
    assert told() == {"Automatic-Reboot": "false"}
    inst.machine.run("sh", "-c", "touch /run/reboot-required; echo linux-image-x >/run/reboot-required.pkgs")
    # One look may be too short on a busy machine, and then says nothing of it.
    eventually(lambda: "a restart of its machine is due" in inst.cli("status", "Inst").ok().out)
    eventually(lambda: inst.cli("status", "Inst", "--json").ok().json[0]["reboot_due"] is True)
    inst.cli("deploy", "--name", "Inst", "--reboot-at", "03:30").ok()
    assert told()["Automatic-Reboot"] == "true"
    # The program itself, which would make it at that hour, as it is due.
    ran = inst.machine.run("unattended-upgrade", "--debug", timeout=300)
    ran += inst.machine.run("cat", "/var/log/unattended-upgrades/unattended-upgrades.log")
    assert "03:30" in ran, ran[-2000:]
    inst.machine.run("shutdown", "-c")
    inst.machine.run("sh", "-c", "rm -f /run/reboot-required*")
    assert inst.cli("status", "Inst", "--json").ok().json[0]["reboot_due"] is False
    inst.cli("deploy", "--name", "Inst", "--reboot-at", "never").ok()
    assert told() == {"Automatic-Reboot": "false"}
    assert inst.containers() == before


@pytest.mark.usefixtures("work")
def test_a_new_version_is_brought_up_in_place_and_keeps_the_data(
    inst: Inst, runtime: Path, tmp_path: Path
) -> None:
    before, ca = inst.containers(), inst.ca.read_text()
    newer = another_version(tmp_path, facts="ANOTHER = 1")
    inst.cli("deploy", "--name", "Inst", env=newer).ok()
    assert not set(before.values()) & set(inst.containers().values())
    assert inst.cli("outputs", "Inst", "--ca").ok().out == ca
    assert data(inst, runtime) == DATA


@pytest.mark.tier("deep")
def test_a_version_that_cannot_become_healthy_gives_way_to_the_one_before(inst: Inst, tmp_path: Path) -> None:
    inst.cli("deploy", "--name", "Inst").ok()
    image = inst.machine.run("docker", "inspect", "--format", "{{.Config.Image}}", "gridup-api")
    failed = inst.cli("deploy", "--name", "Inst", env=another_version(tmp_path, entrypoint=BOOM))
    assert failed.code == 4, failed.err
    assert "(exit 3)" in failed.err
    assert "boom" in failed.err
    assert "The former release runs again." in failed.err
    assert inst.machine.run("docker", "inspect", "--format", "{{.Config.Image}}", "gridup-api") == image
    inst.cli("check", "Inst", "--wait").ok()
    # And the next deploy finds all as it was.
    inst.cli("deploy", "--name", "Inst").ok()
    images = inst.machine.run("docker", "images", "--format", "{{.Repository}}", "gridup-node").split()
    assert len(images) <= 3


@pytest.mark.tier("deep")
def test_a_deploy_that_is_killed_is_finished_by_the_next(inst: Inst, tmp_path: Path) -> None:
    newer = another_version(tmp_path, facts="KILLED = 1")
    run = inst.cli.start("deploy", "--name", "Inst", env=newer)
    busy = ("pgrep", "--full", "release-.*pyz apply")
    assert wait_until(lambda: inst.machine.try_run(*busy).ok, timeout=120, every=0.1)
    engine = engine_of(run)
    kill_run(run, providers=True)
    all_end([engine])
    # What it began there goes on to its end, and the next one waits for that.
    assert inst.machine.try_run(*busy).ok
    inst.cli("deploy", "--name", "Inst", env=newer).ok()
    inst.cli("deploy", "--name", "Inst").ok()


@pytest.mark.usefixtures("work")
def test_after_a_reboot_all_is_back_and_the_data_is_there(inst: Inst, runtime: Path) -> None:
    # Another test may have left it on another version.
    inst.cli("deploy", "--name", "Inst").ok()
    ca = inst.machine.read(f"{NODE}/proxy/caddy/pki/authorities/local/root.crt")
    inst.machine.reboot()
    inst.cli("check", "Inst", "--wait", "--timeout", "500").ok()
    assert metadata(inst) == CLOSED
    # Docker makes its own rules around those that were laid before it started.
    laid = inst.machine.run("iptables", "--list-rules")
    assert f"-A DOCKER-USER -o gridup-+ -j {COUNTS}" in laid and "-A FORWARD -j DOCKER-USER" in laid
    assert inst.machine.read(f"{NODE}/proxy/caddy/pki/authorities/local/root.crt") == ca
    assert "Nothing changed" in inst.cli("deploy", "--name", "Inst").ok().err
    assert data(inst, runtime) == DATA


@pytest.mark.tier("deep")
def test_without_the_node_the_machine_stays_a_host_and_the_data_is_kept(inst: Inst) -> None:
    inst.cli("deploy", "--name", "Inst", "--no-node").ok()
    assert inst.containers() == {}
    assert inst.machine.try_run("test", "-e", f"{NODE}/secrets/admin_password").ok
    inst.cli("deploy", "--name", "Inst").ok()
    assert inst.cli("check", "Inst", "--wait").ok()


@pytest.mark.tier("deep")
def test_every_secret_is_replaced(inst: Inst, tmp_path: Path) -> None:
    """On a machine that is not replaced by another one, which would have a host key of its own."""
    with opened(inst.cli, tmp_path, keys=inst.cli.home / "stacks/inst/keys", tls=True) as before:
        inst.cli("rotate", "Inst", "--yes").ok()
        check_replaced(before, host_key=False)
    inst.ca.write_text(inst.cli("outputs", "Inst", "--ca").ok().out)
    assert "Nothing changed" in inst.cli("deploy", "--name", "Inst").ok().err


def test_another_host_key_at_its_address_is_refused(inst: Inst) -> None:
    keep = "for f in /etc/ssh/ssh_host_ed25519_key*; do"
    inst.machine.run("sh", "-c", f'{keep} mv "$f" "$f.kept"; done; ssh-keygen -A; systemctl restart ssh')
    refused = inst.cli("ssh", "Inst", "--", "true")
    assert refused.code != 0
    deploy = inst.cli("deploy", "--name", "Inst", "--admin-email", "b@inst.example")
    assert deploy.code == 4, deploy.err
    assert "is not the one that was pinned at first contact" in deploy.err
    inst.machine.run(
        "sh", "-c", 'for f in /etc/ssh/*.kept; do mv "$f" "${f%.kept}"; done; systemctl restart ssh'
    )
    inst.cli("deploy", "--name", "Inst").ok()


@pytest.mark.tier("deep")
def test_a_published_image_is_pulled_by_its_digest(inst: Inst) -> None:
    built = inst.machine.run("docker", "inspect", "--format", "{{.Config.Image}}", "gridup-api").strip()
    image = publish(inst.machine, built)
    inst.cli("deploy", "--name", "Inst", "--image", image).ok()
    used = inst.machine.run("docker", "inspect", "--format", "{{.Config.Image}}", "gridup-api").strip()
    assert used == image
    lost = image.replace("@sha256:", "@sha256:" + "0" * 8)[: len(image)]
    failed = inst.cli("deploy", "--name", "Inst", "--image", lost)
    assert failed.code == 4
    assert f"The image {lost} could not be pulled" in failed.err
    inst.cli("check", "Inst", "--wait").ok()


@pytest.mark.tier("deep")
def test_a_domain_name_gets_its_certificate_by_acme_in_place(inst: Inst, cache: Path, tmp_path: Path) -> None:
    address = inst.machine.address
    with pebble(cache, tmp_path, find=lambda _: address, http=80, https=443, host=GATEWAY) as authority:
        env = {"GRIDUP_ACME_URL": authority.url, "GRIDUP_ACME_CA": str(authority.ca)}
        # Nobody here knows the name, so that its rows could not be proven.
        inst.cli("deploy", "--name", "Inst", "--domain-name", DOMAIN, "--no-wait", env=env).ok()
        ca = tmp_path / "told.pem"
        ca.write_text(inst.cli("outputs", "Inst", "--ca").ok().out)
        where = ["--resolve", f"{DOMAIN}:443:{address}", "--noproxy", "*"]
        fetch = ["curl", "--silent", "--show-error", "--cacert", str(ca), *where, f"https://{DOMAIN}/login"]
        served = wait_until(lambda: "Gridup portal" in run(fetch, timeout=20).stdout, timeout=60, every=1)
        assert served, inst.machine.run("docker", "logs", "--tail=20", "gridup-proxy")
    assert ca.read_text().strip() == authority.ca.read_text().strip()


def test_its_end_needs_no_machine(inst: Inst) -> None:
    inst.machine.poweroff()
    inst.cli("destroy", "Inst", "--yes", timeout=150).ok()


@pytest.mark.tier("deep")
def test_a_first_boot_that_fails_ends_the_deploy_with_its_log_and_the_next_one_tries_again(
    cli: BootedCli, vm_rig: Rig, cache: Path
) -> None:
    machine = vm_rig.machine()
    machine.boot(hosted(cli, machine, "Broken", disk_seconds=3))
    failed = cli("deploy", "--name", "Broken")
    assert failed.code == 4, failed.err
    assert "The first boot failed at step disk: the data disk did not appear within 3 s" in failed.err
    assert "failed at step disk" in failed.err
    again = cli("deploy", "--name", "Broken", "--no-node")
    assert again.code == 4, again.err
    assert "did not appear" in again.err
    cli("destroy", "Broken", "--yes").ok()
