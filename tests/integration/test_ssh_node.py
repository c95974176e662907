"""A node on a machine that exists: one booted Debian for the whole file, from its refusals to its end."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gridup_infra.processes import Result, run, wait_until
from gridup_infra.targets.ssh.providers import FORGET
from gridup_node.image import BASE_IMAGE
from support import language_host
from support.cache import shared_home
from support.cli import Cli, Ended
from support.interrupts import Held, interrupt, kill_run, locks
from support.local_node import eventually
from support.plain_pulumi import Plain
from support.ssh_person import Person, machine_for
from support.vm_rig import Machine, Rig

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine, pytest.mark.node, pytest.mark.vm]

WATCHED = "/etc /usr /var/lib /home /root /opt /srv /boot"
NOT_OURS = (
    # What runs on any machine by itself.
    "/var/lib/systemd/*",
    "/var/lib/apt/*",
    "/var/lib/dpkg/*",
    "/var/lib/cloud/*",
    "/var/lib/docker/*",
    "/var/lib/containerd/*",
    "/var/lib/private*",
)
"""Folders of which only what Docker and dpkg say counts."""


@dataclass
class Lab:
    """The machine, and who works with it."""

    machine: Machine
    cli: Cli
    ada: Person
    plain: Plain

    @property
    def host(self) -> str:
        return f"ada@{self.machine.address}"

    def deploy(self, *words: str, name: str = "Inst", host: str = "") -> Ended:
        return self.cli("deploy", "--name", name, "--cloud", "ssh", "--host", host or self.host, *words)

    def files(self) -> dict[str, str]:
        """Each file of the machine, with all that tells one state of it from another."""
        skipped = " ".join(f"-path '{name}' -prune -o" for name in NOT_OURS)
        told = self.machine.run(
            "sh",
            "-c",
            f"find {WATCHED} -xdev {skipped} -type f -printf '%p|%s %m %U %T@\\n' "
            "-o -type d -printf '%p|%m %U\\n'",
        )
        return dict(line.split("|", 1) for line in told.splitlines())

    def docker(self) -> dict[str, set[str]]:
        """What Docker has: containers as they run, images, networks, volumes."""
        asked = {
            "containers": ("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}"),
            "images": ("image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"),
            "networks": ("network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}"),
            "volumes": ("volume", "ls", "--format", "{{.Name}}"),
        }
        return {kind: set(self.machine.run("docker", *words).splitlines()) for kind, words in asked.items()}

    def nothing_of_ours(self) -> None:
        """No user, no file, no program, no container of the node."""
        homes = ("/home/gridup", "/home/gridup-user")
        for path in ("/var/lib/gridup", "/var/lib/gridup-boot", *homes, "/etc/sudoers.d/gridup"):
            assert self.machine.try_run("test", "-e", path).code != 0, path
        for user in ("gridup", "gridup-user"):
            assert self.machine.try_run("id", user).code != 0
            assert self.machine.try_run("getent", "group", user).code != 0
        assert self.machine.try_run("pgrep", "--uid", "10001,10002,10003").stdout == ""
        assert not [line for line in self.machine.run("ls", "/etc").split() if "gridup" in line]
        assert self.machine.try_run("systemctl", "cat", "gridup-shield.service").code != 0
        for program in ("iptables", "ip6tables"):
            for table in ("raw", "filter"):
                assert "GRIDUP" not in self.machine.try_run(program, "--table", table, "--list-rules").stdout


@pytest.fixture(scope="module")
def lab(vm_rig: Rig, cache: Path, engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A machine without Docker."""
    yield from booted(vm_rig.machine(golden=False), cache, tmp_path_factory)


def booted(machine: Machine, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A machine that Ada and Bob may enter, and Ada's command line."""
    ada = Person(tmp_path_factory.mktemp("ada"))
    machine.boot(machine_for(ada=(ada.public_key, True), bob=(ada.public_key, False)))
    cli = Cli(shared_home(tmp_path_factory.mktemp("ssh") / "home", cache), ada.environment)
    plain = Plain(cli, language_host.install(tmp_path_factory.mktemp("language host")))
    assert wait_until(lambda: machine.try_run("id", "bob").ok, timeout=300, every=0.2)
    machine.run("cloud-init", "status", "--wait", timeout=300)
    yield Lab(machine, cli, ada, plain)
    machine.destroy()


def refused(lab: Lab, ended: Ended, code: int, *texts: str) -> None:
    """It ends so, with these words, no traceback, no stack, and within a time that a person waits."""
    assert ended.code == code, ended.err
    for text in texts:
        assert text in ended.err
    assert "Traceback" not in ended.err
    assert lab.cli("status", "--no-probe", "--json").ok().json == []


def test_what_it_does_not_understand_is_refused_and_the_machine_stays_byte_identical(lab: Lab) -> None:
    """Cases G14 and G16: each with its own words, before anything is made."""
    lab.machine.run("systemd-run", "--unit=web", "--quiet", "python3", "-m", "http.server", "443")
    assert wait_until(lambda: is_open(lab, 443), timeout=120)
    before, address = lab.files(), lab.machine.address
    taken = lab.deploy()
    refused(
        lab,
        taken,
        1,
        "can't take the node: port 443 is taken by python3 (process",
        "have it listen elsewhere",
    )
    lab.machine.run("systemctl", "stop", "web")
    refused(lab, lab.deploy(host=f"bob@{address}"), 3, "sudo asks for a password or is not there", "NOPASSWD")
    refused(
        lab,
        lab.deploy(host=f"eve@{address}"),
        3,
        "can't be entered by ssh",
        "Permission denied",
        "ssh-copy-id",
    )
    refused(lab, lab.deploy(host=f"ada@{address}:23"), 1, "Connection refused", "--host user@address:2222")
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHEqQrwX+uyY52PLpPQ4uZA9s1YZ+hqp0f9ra4Tu6M8H"
    refused(lab, lab.deploy("--host-key", other), 1, "is not the one that was given", "it shows SHA256:")
    refused(lab, lab.cli("deploy", "Inst", "--cloud", "ssh"), 2, "Which machine?", "--host user@address")
    assert lab.files() == before
    assert lab.ada.known_hosts.read_bytes() == b""


def test_what_stands_where_the_nodes_own_would_is_not_touched(lab: Lab) -> None:
    lab.machine.run("mkdir", "/var/lib/gridup")
    lab.machine.run("touch", "/var/lib/gridup/theirs")
    lab.machine.run("useradd", "--uid", "10001", "olga")
    before = lab.files()
    found = lab.deploy()
    refused(lab, found, 1, "the user id 10001 is olga's", "/var/lib/gridup holds files")
    assert lab.files() == before
    lab.machine.run("userdel", "olga")
    lab.machine.run("rm", "-r", "/var/lib/gridup")


def test_a_known_host_with_another_key_is_refused(lab: Lab) -> None:
    address = lab.machine.address
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHEqQrwX+uyY52PLpPQ4uZA9s1YZ+hqp0f9ra4Tu6M8H"
    lab.ada.known_hosts.write_text(f"{address} {other}\n")
    refused(lab, lab.deploy(), 1, "is not the one in your known_hosts")
    ecdsa = lab.machine.read("/etc/ssh/ssh_host_ecdsa_key.pub").decode().split()[:2]
    # From here on by a key of another type: the one that is pinned is vouched for through it.
    lab.ada.known_hosts.write_text(f"{address} {' '.join(ecdsa)}\n")


@pytest.mark.tier("deep")
def test_a_deploy_that_is_broken_off_is_gone_with_plain_pulumi_or_goes_on(lab: Lab, tmp_path: Path) -> None:
    """Case G09. Where there is no Docker it is installed, once."""
    words = ("deploy", "--name", "Inst", "--cloud", "ssh", "--host", lab.host, "--no-node")
    before = lab.files()
    held = Held("ContainerHostProvider.create", tmp_path)
    run = lab.cli.start(*words, env=held.env)
    held.wait(run)
    assert lab.machine.try_run("id", "gridup").ok
    kill_run(run, providers=True)
    held.release()
    lab.plain("cancel", "--yes", "-s", "inst")
    lab.plain("destroy", "-s", "inst", "--yes").ok()
    lab.nothing_of_ours()
    lab.cli("destroy", "Inst", "--yes")
    changed = {path for path, told in lab.files().items() if before.get(path) != told}
    assert "/usr/bin/docker" in changed
    assert not [path for path in changed if "gridup" in path]

    run = lab.cli.start(*words, env=held.env)
    held.wait(run)
    interrupt(run)
    held.release()
    _, err = run.communicate(timeout=90)
    assert run.returncode == 130, err
    assert locks(lab.cli.home) == []
    known = lab.ada.known_hosts.read_bytes()
    ended = lab.cli(*words).ok()
    assert "gridup ssh Inst" in ended.err
    assert "✅" in ended.out
    assert lab.cli("ssh", "Inst", "--", "docker", "ps", "--quiet").ok().out == ""
    assert lab.cli("status", "Inst", "--json").ok().json[0]["state"] == "running"
    assert lab.ada.known_hosts.read_bytes() == known
    # Taken away behind our back: told as it is, and made anew by the person's own way in.
    lab.machine.run("userdel", "--force", "--remove", "gridup")
    assert lab.cli("status", "Inst", "--json").ok().json[0]["state"] == "missing"
    lab.cli(*words).ok()
    assert lab.cli("ssh", "Inst", "--", "sudo", "-n", "id", "-u").ok().out == "0\n"
    lab.cli("destroy", "Inst", "--yes").ok()
    lab.nothing_of_ours()


@pytest.fixture(scope="module")
def shop(vm_rig: Rig, cache: Path, engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A machine whose owner runs containers on it."""
    yield from booted(vm_rig.machine(), cache, tmp_path_factory)


@pytest.fixture(scope="module")
def theirs(shop: Lab) -> dict[str, set[str]]:
    """The machine's own Docker things, from before the node."""
    shop.machine.run("docker", "tag", BASE_IMAGE, "shop:1")
    shop.machine.run("docker", "network", "create", "shop")
    shop.machine.run("docker", "volume", "create", "shop")
    run = ("run", "--detach", "--name=shop", "--network=shop", "--volume=shop:/s", "--publish=8443:8443")
    shop.machine.run("docker", *run, "shop:1", "sleep", "infinity")
    return shop.docker()


@pytest.fixture(scope="module")
def inst(shop: Lab, theirs: dict[str, set[str]]) -> Lab:
    ended = shop.deploy("--ssh-key", str(shop.ada.key.with_suffix(".pub"))).ok()
    for row in ("host", "UI", "api", "ssh", "jupyter"):
        assert any(row in line and "✅" in line for line in ended.out.splitlines()), ended.out
    return shop


def test_the_same_again_changes_nothing(inst: Lab) -> None:
    before = inst.docker()
    assert "Nothing changed" in inst.cli("deploy", "--name", "Inst").ok().err
    assert inst.docker() == before
    assert inst.cli("preview", "--name", "Inst").ok().out == "No change.\n"
    assert inst.cli("check", "Inst", "--wait").ok().out.count("✅") == 6


def test_a_persons_key_enters_without_rights_and_sshd_is_as_it_was(inst: Lab) -> None:
    known = inst.cli.home / "stacks/inst/keys/known_hosts"
    inst.cli("ssh", "Inst", "--", "true").ok()
    options = (
        "-F",
        "none",
        "-o",
        f"UserKnownHostsFile={known}",
        "-o",
        "BatchMode=yes",
        "-i",
        str(inst.ada.key),
    )

    def enter(user: str, *argv: str) -> Result:
        return run(["ssh", *options, f"{user}@{inst.machine.address}", *argv], timeout=30)

    assert enter("gridup-user", "id", "-nG").stdout == "gridup-user\n"
    assert not enter("gridup-user", "sudo", "-n", "true").ok
    assert not enter("gridup-user", "docker", "ps").ok
    assert enter("gridup", "true").code == 255
    assert "gridup" not in inst.machine.run("ls", "/etc/ssh", "/etc/ssh/sshd_config.d")
    assert "reboot" not in inst.machine.run("ls", "/etc/apt/apt.conf.d")


def test_another_node_on_it_is_refused_by_its_name(inst: Lab) -> None:
    ended = inst.deploy(name="Other")
    assert ended.code == 1, ended.err
    assert 'the machine already has a node of Gridup\'s, "Inst"' in ended.err
    assert [row["name"] for row in inst.cli("status", "--no-probe", "--json").ok().json] == ["Inst"]


def test_no_secret_of_it_is_in_plain(inst: Lab) -> None:
    key = inst.machine.run("cat", "/var/lib/gridup/node/secrets/admin_password").strip()
    state = next((inst.cli.home / "state").rglob("inst.json")).read_text()
    assert key not in state
    assert "PRIVATE KEY" not in state
    exported = json.loads(state)["checkpoint"]["latest"]["resources"][0]["outputs"]["node"]
    facts = json.loads(exported)["facts"]
    assert {name for name, text in facts.items() if inst.machine.address in text} == {"host", "ip"}


def test_what_was_removed_by_hand_is_seen_and_put_right(inst: Lab) -> None:
    inst.machine.run("docker", "rm", "--force", "gridup-jupyter")
    eventually(lambda: "the container gridup-jupyter is gone" in inst.cli("status", "Inst").out)
    assert "node: changed" in inst.cli("refresh", "Inst").ok().err
    inst.cli("deploy", "--name", "Inst").ok()
    assert inst.cli("check", "Inst", "--wait").ok()


def test_past_the_machines_own_firewall_only_those_come_in_who_may(
    inst: Lab, theirs: dict[str, set[str]]
) -> None:
    own = (
        ("--append", "INPUT", "--match", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "--jump", "ACCEPT"),
        ("--append", "INPUT", "--protocol", "tcp", "--dport", "22", "--jump", "ACCEPT"),
        ("--policy", "INPUT", "DROP"),
    )
    for words in own:
        inst.machine.run("iptables", *words)
    assert is_open(inst, 443) and is_open(inst, 8888), "Docker's published ports go past it"
    told = inst.cli("preview", "--name", "Other", "--cloud", "ssh", "--host", inst.host).ok().err
    assert "goes past it" in told and "--web-cidr" in told
    inst.cli("deploy", "--name", "Inst", "--no-wait", "--web-cidr", "198.51.100.0/24").ok()
    for _ in range(2):
        assert not is_open(inst, 443) and not is_open(inst, 80)
        assert is_open(inst, 8888) and is_open(inst, 22)
        inst.machine.run("systemctl", "restart", "docker", timeout=120)
        assert wait_until(lambda: is_open(inst, 8888), timeout=120)
    inst.cli("deploy", "--name", "Inst", "--web-cidr", "0.0.0.0/0", "--web-cidr", "::/0").ok()
    assert is_open(inst, 443)
    inst.machine.run("iptables", "--policy", "INPUT", "ACCEPT")
    for words in own[:2]:
        inst.machine.run("iptables", "--delete", *words[1:])
    # The restart ended what is to have no other end, and gave Docker's own networks other ids.
    inst.machine.run("docker", "start", "shop")
    names = {line.split()[1] for line in theirs["networks"]}
    theirs["networks"] = {line for line in inst.docker()["networks"] if line.split()[1] in names}


def is_open(lab: Lab, port: int) -> bool:
    """Whether somebody else's machine reaches this port of it."""
    try:
        with socket.create_connection((lab.machine.address, port), timeout=5):
            return True
    except OSError:
        return False


def test_destroy_asks_and_takes_away_what_is_the_nodes_alone(inst: Lab, theirs: dict[str, set[str]]) -> None:
    ended = inst.cli("destroy", "Inst")
    assert ended.code == 2
    assert "--yes" in ended.err
    password = inst.machine.run("cat", "/var/lib/gridup/node/secrets/admin_password")
    inst.cli("deploy", "--name", "Inst", "--keep-data").ok()
    ended = inst.cli("destroy", "Inst", "--yes").ok()
    assert "/var/lib/gridup" in ended.err
    assert inst.docker() == theirs
    assert inst.machine.try_run("id", "gridup").code != 0
    # The next node of that name has its data again where that is said; one of another name is refused.
    other = inst.deploy(name="Other")
    assert 'holds the data of "Inst", which was kept' in other.err, other.err
    refused = inst.deploy("--yes")
    assert refused.code == 2
    assert "the folder /var/lib/gridup on" in refused.err and "--adopt" in refused.err
    assert inst.machine.try_run("id", "gridup").code != 0
    inst.deploy("--no-keep-data", "--adopt").ok()
    assert inst.machine.try_run("test", "-e", "/var/lib/gridup/kept.json").code != 0
    assert inst.machine.run("cat", "/var/lib/gridup/node/secrets/admin_password") == password
    inst.plain._exports.clear()
    inst.plain("destroy", "-s", "inst", "--yes").ok()
    inst.nothing_of_ours()
    assert inst.docker() == theirs


def test_a_machine_that_is_gone_holds_nothing_up_and_is_told_of(lab: Lab) -> None:
    lab.deploy("--no-node").ok()
    lab.machine.poweroff()
    ended = lab.cli("destroy", "Inst", "--yes", timeout=150)
    assert ended.code == 4, ended.err
    assert f"What the node has on {lab.host} could not be deleted" in ended.err
    assert "/var/lib/gridup" in ended.err
    assert f"{FORGET}=1 gridup destroy Inst" in ended.err
    lab.cli("destroy", "Inst", "--yes", env={FORGET: "1"}).ok()
    assert lab.cli("status", "--no-probe", "--json").ok().json == []
