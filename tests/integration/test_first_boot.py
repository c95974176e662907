"""A bare Debian 13 that really boots, with exactly the bytes of `user_data`, and what it makes of itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gridup_infra.processes import Result, run, wait_until
from gridup_node.vm import first_boot
from gridup_node.vm.first_boot import State
from gridup_node.vm.machine import LOG
from gridup_node.vm.user_data import LIMIT, Host, public_key, user_data
from support import debian
from support.ssh_keys import ed25519, rsa4096
from support.system import must
from support.vm_rig import Machine, Rig

pytestmark = [pytest.mark.tier("gate"), pytest.mark.vm]

DEVICE = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0"
PATTERNS = ("/dev/disk/azure/scsi1/lun0", "/dev/disk/by-id/nvme-*_vol0123456789abcdef0")
COMMENT = "a b: c #1 – Zoë 😀"
PRECIOUS = "/var/lib/gridup/node/precious"
BOOT_SECONDS = 240.0


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deployer's own private key."""
    path = tmp_path_factory.mktemp("key") / "key"
    must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", COMMENT, "-f", str(path))
    return path


@pytest.fixture(scope="module")
def plan(key: Path) -> Host:
    """A host as most are; it does not wait long for its disk."""
    text = key.with_suffix(".pub").read_text(encoding="utf-8")
    return Host((public_key(text), ed25519(COMMENT)), PATTERNS, name='"Inst" & Söhne 😀: #1', disk_seconds=5)


@pytest.fixture(scope="module")
def machine(vm_rig: Rig) -> Iterator[Callable[[], Machine]]:
    """Makes machines that are gone at the end of this module."""
    made: list[Machine] = []

    def make() -> Machine:
        made.append(vm_rig.machine(golden=False))
        return made[-1]

    yield make
    for one in made:
        one.destroy()


@pytest.fixture(scope="module")
def ordinary(machine: Callable[[], Machine], vm_rig: Rig, plan: Host) -> Machine:
    made = machine()
    made.boot(user_data(plan), {DEVICE: vm_rig.disk()})
    return made


@pytest.fixture(scope="module")
def diskless(machine: Callable[[], Machine], plan: Host) -> Machine:
    made = machine()
    made.boot(user_data(plan))
    return made


@pytest.fixture(scope="module")
def foreign(machine: Callable[[], Machine], vm_rig: Rig, plan: Host) -> tuple[Machine, str]:
    """A machine whose disk has a file system of somebody's, and the disk's hash."""
    made, disk = machine(), vm_rig.disk(64)
    must("mkfs.ext4", "-q", "-L", "photos", disk.device)
    made.boot(user_data(plan), {DEVICE: disk})
    return made, sha256(Path(disk.device))


@pytest.fixture(scope="module")
def busy(machine: Callable[[], Machine], plan: Host) -> Machine:
    """A machine whose packages another program holds, and that is told of a package that is not to be had."""
    made = machine()
    holder = made.root / "etc/systemd/system/holder.service"
    (made.root / "root/holder.py").write_text(HOLDER)
    holder.write_text("[Service]\nExecStart=/usr/bin/python3 /root/holder.py\n")
    wants = holder.parent / "multi-user.target.wants"
    (wants / holder.name).symlink_to("../holder.service")
    made.boot(user_data(replace(plan, packages=("no-such-package",), disk_seconds=600)))
    return made


HOLDER = """\
import fcntl, os, time
held = {}
for name in ("apt/lists/lock", "dpkg/lock-frontend"):
    held[name] = open("/var/lib/" + name, "w")
    fcntl.lockf(held[name], fcntl.LOCK_EX)
for name, file in held.items():
    while not os.path.exists("/run/release-" + os.path.basename(name)):
        time.sleep(0.1)
    file.close()
time.sleep(3600)
"""


@pytest.fixture(scope="module", autouse=True)
def side_by_side(ordinary: Machine, diskless: Machine, foreign: tuple[Machine, str], busy: Machine) -> None:
    """They boot at the same time."""


def state(machine: Machine) -> State:
    return first_boot.parse(machine.try_run(*first_boot.READ).stdout)


def settled(machine: Machine) -> State:
    """How this very boot's run ended."""
    boot = machine.run("cat", "/proc/sys/kernel/random/boot_id").strip()

    def ended() -> bool:
        now = state(machine)
        return now.boot_id == boot and now.settled

    assert wait_until(ended, timeout=BOOT_SECONDS, every=0.3), tail(machine)
    return state(machine)


def tail(machine: Machine) -> str:
    return machine.try_run(*first_boot.TAIL).stdout


def says(machine: Machine, text: str) -> bool:
    """Whether its log comes to say so."""

    def known() -> bool:
        return text in machine.try_run("cat", LOG).stdout or state(machine).settled

    wait_until(known, timeout=BOOT_SECONDS, every=0.2)
    return text in machine.run("cat", LOG)


def ssh(
    machine: Machine, key: Path, *argv: str, user: str = "gridup", options: tuple[str, ...] = ()
) -> Result:
    known = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")
    always = ("-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-i", str(key), *known)
    return run(["ssh", *always, *options, f"{user}@{machine.address}", *argv], timeout=60)


def authorized(machine: Machine) -> set[str]:
    """The keys that may enter; cloud-init writes them in any order."""
    text = machine.read("/home/gridup/.ssh/authorized_keys").decode()
    return {line for line in text.split("\n") if line}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def test_a_missing_disk_fails_the_first_boot_and_nothing_falls_back_to_the_root_disk(
    diskless: Machine,
) -> None:
    found = settled(diskless)
    assert (found.state, found.step) == ("failed", "disk")
    assert "did not appear within 5 s" in found.message
    assert PATTERNS[0] in found.message
    assert diskless.try_run("test", "-e", "/var/lib/gridup/node").code != 0
    assert diskless.try_run("which", "dockerd").code != 0
    # As a cloud's serial console shows it, for a machine that nobody can enter.
    assert f"failed at step disk: {found.message}" in diskless.console
    assert "failed at step disk" in tail(diskless).splitlines()[-1]
    assert diskless.try_run("systemctl", "is-failed", "gridup-boot").ok
    assert "error" in diskless.try_run("cloud-init", "status", "--wait").stdout


def test_even_a_failed_host_lets_only_its_keys_in(diskless: Machine, key: Path) -> None:
    settled(diskless)
    assert ssh(diskless, key, *first_boot.TAIL).stdout == tail(diskless)
    assert "Permission denied (publickey)" in ssh(diskless, key, "true", user="root").stderr
    asked = ("-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password")
    assert "Permission denied (publickey)" in ssh(diskless, key, "true", options=asked).stderr


def test_a_disk_with_somebodys_file_system_is_refused_and_left_as_it_is(
    foreign: tuple[Machine, str], vm_rig: Rig
) -> None:
    machine, before = foreign
    found = settled(machine)
    assert (found.state, found.step) == ("failed", "disk")
    assert "a file system (ext4, label photos) that Gridup did not make" in found.message
    assert machine.try_run("mountpoint", "/var/lib/gridup").code != 0
    device = machine.run("readlink", "--canonicalize", "/dev/disk/by-label/photos").strip()
    assert sha256(Path(device)) == before


def test_a_disk_that_comes_late_and_held_packages_are_waited_for_and_a_wrong_package_ends_it(
    busy: Machine, vm_rig: Rig, key: Path
) -> None:
    assert wait_until(lambda: state(busy).step == "disk", timeout=BOOT_SECONDS)
    busy.attach(DEVICE, vm_rig.disk())
    assert says(busy, "the package lock is held, waiting: Could not get lock /var/lib/apt/lists/lock")
    assert str(state(busy)) == "the first boot is at step packages"
    busy.run("touch", "/run/release-lock")
    assert says(busy, "Could not get lock /var/lib/dpkg/lock-frontend")
    assert str(state(busy)) == "the first boot is at step packages"
    busy.run("touch", "/run/release-lock-frontend")
    found = settled(busy)
    why = "apt-get install: Unable to locate package no-such-package"
    assert str(found) == f"the first boot failed at step packages: {why}"
    assert found.ended >= found.started
    assert "Unable to locate package no-such-package" in ssh(busy, key, *first_boot.TAIL).stdout


def test_an_ordinary_first_boot_ends_with_a_container_host(ordinary: Machine, key: Path) -> None:
    found = settled(ordinary)
    assert found.done, tail(ordinary)
    assert set(found.seconds) > {"disk", "packages", "docker"}
    print(f"first boot: {dict(found.seconds)}")
    entered = ssh(ordinary, key, "docker version --format '{{.Server.Version}}' && docker compose version")
    assert entered.ok, entered.stderr
    assert "Docker Compose version" in entered.stdout
    assert "done" in ordinary.run("cloud-init", "status", "--wait")
    assert ordinary.run("systemctl", "list-units", "--failed", "--quiet") == ""


def test_containers_run(ordinary: Machine) -> None:
    settled(ordinary)
    # The one program of Debian's that needs no other file.
    ordinary.run("sh", "-c", "tar -C / -c usr/sbin/ldconfig | docker import - probe")
    assert "ldconfig" in ordinary.run("docker", "run", "--rm", "probe", "/usr/sbin/ldconfig", "--version")


def test_the_data_disk_is_mounted_and_the_node_has_its_place(ordinary: Machine) -> None:
    settled(ordinary)
    columns = ("--noheadings", "--output", "MAJ:MIN,FSTYPE,OPTIONS")
    number, kind, options = ordinary.run("findmnt", *columns, "/var/lib/gridup").split()
    disk = os.stat(ordinary.disks[DEVICE].device).st_rdev
    assert (number, kind) == (f"{os.major(disk)}:{os.minor(disk)}", "ext4")
    assert {"nodev", "nosuid"} < set(options.split(","))
    told = ordinary.run("stat", "--format=%u:%g %a", "/var/lib/gridup/node")
    assert told == "10001:10001 700\n"
    # Images are the root disk's.
    assert ordinary.run("docker", "info", "--format", "{{.DockerRootDir}}") == "/var/lib/docker\n"
    ordinary.run("sh", "-c", f"echo kept >{PRECIOUS}")


def test_security_updates_come_by_themselves(ordinary: Machine) -> None:
    settled(ordinary)
    told = ordinary.run("apt-config", "dump", "APT::Periodic")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in told
    assert 'APT::Periodic::Update-Package-Lists "1";' in told
    for unit in ("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service"):
        assert ordinary.try_run("systemctl", "is-enabled", unit).ok
        assert ordinary.try_run("systemctl", "is-active", unit).ok
    origins = ordinary.run("unattended-upgrade", "--dry-run", "--verbose", timeout=300)
    assert "label=Debian-Security" in origins


def test_every_value_arrives_to_the_byte(ordinary: Machine, plan: Host) -> None:
    settled(ordinary)
    assert authorized(ordinary) == set(plan.ssh_keys)
    assert ordinary.read("/etc/motd") == f"{plan.name}: a node made by Gridup\n".encode()
    assert ordinary.read("/var/lib/cloud/instance/user-data.txt") == user_data(plan)


def may_grow_what_is_mounted() -> bool:
    """Whether this machine's root has CAP_SYS_RESOURCE, as that of a real machine; a container's may not."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return bool(int(status["CapEff"], 16) >> 24 & 1)


def room(machine: Machine) -> int:
    """Bytes of the data disk's file system."""
    told = machine.run("stat", "--file-system", "--format=%b %S", "/var/lib/gridup").split()
    return int(told[0]) * int(told[1])


def test_a_reboot_is_quick_and_keeps_the_data(ordinary: Machine, vm_rig: Rig) -> None:
    settled(ordinary)
    before = room(ordinary)
    grown = may_grow_what_is_mounted()
    if grown:
        ordinary.disks[DEVICE].grow(512)
    ordinary.reboot()
    found = settled(ordinary)
    assert found.done, tail(ordinary)
    # By fstab, before our own program comes to it: Docker need not wait for that.
    assert "$ mount" not in ordinary.run("cat", LOG).rpartition("step ssh")[2]
    assert ordinary.run("cat", PRECIOUS) == "kept\n"
    assert room(ordinary) > before * (1.8 if grown else 0.9)
    assert ordinary.try_run("docker", "ps").ok
    assert "apt-get" not in ordinary.run("cat", LOG).rpartition("step ssh")[2]


def test_a_boot_without_the_disk_keeps_docker_off_until_it_is_back(ordinary: Machine) -> None:
    settled(ordinary)
    disk = ordinary.disks[DEVICE]
    ordinary.poweroff()
    ordinary.detach(DEVICE)
    ordinary.start()
    found = settled(ordinary)
    assert (found.state, found.step) == ("failed", "disk")
    # Nothing can be put where the data would be, by nobody and in no way.
    assert "not permitted" in ordinary.try_run("mkdir", "/var/lib/gridup/node").stderr
    assert "not permitted" in ordinary.try_run("touch", "/var/lib/gridup/file").stderr
    assert ordinary.try_run("systemctl", "is-active", "docker").stdout in ("inactive\n", "failed\n")
    assert ordinary.try_run("pgrep", "dockerd").code != 0
    ordinary.attach(DEVICE, disk)
    assert ordinary.try_run(*first_boot.AGAIN, timeout=120).ok, tail(ordinary)
    assert state(ordinary).done
    assert ordinary.run("cat", PRECIOUS) == "kept\n"
    assert ordinary.try_run("docker", "ps").ok


def test_a_new_machine_told_the_most_and_cut_off_in_the_middle_finds_the_old_ones_data(
    ordinary: Machine, machine: Callable[[], Machine], key: Path, plan: Host, tmp_path: Path
) -> None:
    """All options, the most keys: what is sent is compressed then. The power goes in mid-install."""
    settled(ordinary)
    disk = ordinary.disks[DEVICE]
    ordinary.run("test", "-e", PRECIOUS)
    before = room(ordinary)
    ordinary.cut()
    disk.grow(1024)
    full = the_most(plan, tmp_path)
    sent = user_data(full)
    assert sent[:2] == b"\x1f\x8b"
    assert len(sent) <= LIMIT
    fresh = machine()
    fresh.boot(sent, {DEVICE: disk})
    assert says(fresh, "Unpacking docker.io"), tail(fresh)
    fresh.cut()
    fresh.start()
    assert settled(fresh).done, tail(fresh)
    assert fresh.run("cat", PRECIOUS) == "kept\n"
    assert room(fresh) > 1.8 * before
    assert ssh(fresh, key, "docker", "ps").ok
    assert authorized(fresh) == set(full.ssh_keys)
    assert fresh.run("hostname") == f"{full.hostname}\n"
    assert fresh.try_run("tree", "--version").ok
    assert f"HTTPS_PROXY={full.proxy}" in fresh.run("systemctl", "show", "docker", "--property=Environment")
    bundle = fresh.read("/etc/ssl/certs/ca-certificates.crt").decode()
    assert full.ca.strip() in bundle
    if full.mirror:
        assert fresh.run("apt-get", "indextargets", "--format", "$(SITE)", "Identifier: Packages")
        assert fresh.try_run("test", "-e", "/etc/apt/sources.list").code != 0


def the_most(plan: Host, folder: Path) -> Host:
    """Everything that can be told, where this machine's tools allow it."""
    name = folder / "ca"
    subject = ("-subj", "/CN=Inst's own", "-days", "2", "-nodes")
    must(
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:4096",
        *subject,
        "-keyout",
        f"{name}.key",
        "-out",
        f"{name}.pem",
    )
    mirror, _ = debian.apt_sources("trixie")
    at_its_place = mirror.endswith("/debian")
    return replace(
        plan,
        ssh_keys=(plan.ssh_keys[0], *(rsa4096(f"person-{n}@workstation.inst.example") for n in range(10))),
        disk=(*PATTERNS, *(f"/dev/disk/by-path/some-other-cloud-{n}" for n in range(4))),
        name="𝕀" * 200,
        hostname="n" * 63,
        packages=("tree",),
        # Nobody listens there: packages come without it or not at all.
        proxy="http://192.0.2.250:3128",
        no_proxy=tuple({part.split("/")[2] for part in mirror.split() if "//" in part}),
        mirror=mirror.removesuffix("/debian") if at_its_place else "",
        ca=Path(f"{name}.pem").read_text(),
    )
