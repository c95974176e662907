"""The parts of the host's program that need no machine. `integration/test_first_boot.py` boots it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gridup_infra.processes import run
from gridup_node.vm import disk, docker, first_boot, host, packages
from gridup_node.vm.first_boot import State, parse
from gridup_node.vm.machine import LOG, STATE, Config, Failed, Machine

CONFIG = Config(("/dev/disk/by-id/*vol1", "/dev/disk/by-id/*vol2"), disk_seconds=10)
UUID = "11111111-2222-3333-4444-555555555555"
LINE = f"UUID={UUID} /var/lib/gridup ext4 defaults,nofail,nodev,nosuid,x-systemd.device-timeout=20s 0 2\n"


class Fake(Machine):
    """A machine below a folder, whose programs answer what a test says and whose clock nobody waits for."""

    def __init__(self, root: Path, config: Config = CONFIG) -> None:
        self.now = 0.0
        self.ran: list[str] = []
        self.answers: list[tuple[str, int, str]] = []
        super().__init__(config, root, lambda: self.now, self.pass_)
        self.path(LOG).parent.mkdir(parents=True)

    def pass_(self, seconds: float) -> None:
        self.now += seconds

    def run(self, *argv: str, timeout: float = 0) -> tuple[int, str]:
        """The first answer that is left for a command that begins so; success and silence else."""
        line = " ".join(argv)
        self.ran.append(line)
        for answer in self.answers:
            begin, code, text = answer
            if line.startswith(begin) or begin in line:
                self.answers.remove(answer)
                return code, text
        return 0, ""

    @property
    def log_text(self) -> str:
        return self.path(LOG).read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def published(machine: Machine) -> State:
    return parse(machine.path(STATE).read_text())


# Steps


def test_the_steps_end_with_done_and_tell_how_long_each_took(machine: Fake) -> None:
    seen = []
    steps = [(name, lambda m: (seen.append(str(published(m))), m.sleep(2))[0]) for name in ("one", "two")]
    assert host.make(machine, steps)  # type: ignore[arg-type]
    assert seen == ["the first boot is at step one", "the first boot is at step two"]
    assert published(machine).done
    assert published(machine).seconds == {"one": 2, "two": 2}
    assert machine.log_text.splitlines()[-1].endswith("Z done")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Failed("no disk, “attach” it"), "no disk, “attach” it"),
        (OSError(28, "full"), "OSError: [Errno 28] full"),
    ],
)
def test_the_first_step_that_fails_is_the_last_and_the_log_ends_with_why(
    machine: Fake, error: Exception, message: str
) -> None:
    later = []

    def fail(_: Machine) -> None:
        raise error

    assert not host.make(machine, [("one", fail), ("two", later.append)])
    found = published(machine)
    assert (found.state, found.step, found.message) == ("failed", "one", message)
    assert found.ended
    assert not later
    assert machine.log_text.splitlines()[-1].endswith(f"failed at step one: {message}")
    assert ("Traceback" in machine.log_text) == (not isinstance(error, Failed))


def test_the_state_is_whole_and_not_for_everybody(machine: Fake) -> None:
    host.make(machine, [])
    assert machine.path(STATE).stat().st_mode & 0o777 == 0o640
    assert [path.name for path in machine.path(STATE).parent.iterdir()] == [Path(LOG).name, Path(STATE).name]


def test_a_file_is_written_once(machine: Fake) -> None:
    assert machine.write("/etc/a/b.conf", "é\n")
    assert not machine.write("/etc/a/b.conf", "é\n")
    assert machine.write("/etc/a/b.conf", "other\n")
    assert [path.name for path in machine.path("/etc/a").iterdir()] == ["b.conf"]


def test_a_program_s_output_is_in_the_log(tmp_path: Path) -> None:
    real = Machine(CONFIG, tmp_path)
    real.path(LOG).parent.mkdir(parents=True)
    assert real.run("sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\nerr\n")
    assert "out\nerr\n" in real.path(LOG).read_text()
    assert real.run("no-such-program")[0] == 127
    assert real.run("sleep", "600", timeout=0.1) == (124, "sleep did not end within 0.1 s")
    with pytest.raises(Failed, match="sh -c echo why; exit 1 ended with 1: why"):
        real.check_run("sh", "-c", "echo why; exit 1")


def test_without_its_user_the_host_goes_no_further(machine: Fake) -> None:
    machine.answers = [("id gridup", 1, "no such user")]
    with pytest.raises(Failed, match="cloud-init"):
        host.ensure_ssh(machine)


# The disk


def block(machine: Fake, *names: str) -> None:
    folder = machine.path("/dev/disk/by-id")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.fixture
def all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is a block device."""
    monkeypatch.setattr(disk, "is_block", os.path.exists)


def test_the_disk_is_the_first_pattern_s_and_never_a_partition(machine: Fake, all_blocks: None) -> None:
    block(machine, "nvme-vol2", "nvme-vol3", "nvme-vol1-part1")
    assert disk.wait_for_disk(machine).endswith("/nvme-vol2")
    block(machine, "nvme-vol1")
    (machine.path("/dev/disk/by-id") / "other-vol1").symlink_to("nvme-vol1")
    assert disk.wait_for_disk(machine).endswith("/nvme-vol1")
    assert machine.now == 0


def test_two_disks_are_not_chosen_between(machine: Fake, all_blocks: None) -> None:
    block(machine, "a-vol1", "b-vol1")
    with pytest.raises(Failed, match=r"which of \S+a-vol1 and \S+b-vol1 is the data disk"):
        disk.wait_for_disk(machine)


def test_a_disk_that_does_not_come_is_waited_for_as_long_as_told(machine: Fake) -> None:
    # A file is no device.
    block(machine, "nvme-vol1")
    with pytest.raises(Failed, match=r"within 10 s: no device matches /dev/disk/by-id/\*vol1 /dev"):
        disk.wait_for_disk(machine)
    assert 10 <= machine.now <= 11


needs_tools = pytest.mark.skipif(
    not (shutil.which("blkid", path="/usr/sbin:/sbin") and shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")),
    reason="blkid and mkfs.ext4 are not installed (Debian's packages util-linux and e2fsprogs)",
)


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with this one's own programs."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    made = Machine(CONFIG, tmp_path)
    made.path(LOG).parent.mkdir(parents=True)
    return made


def image(folder: Path, fill: Callable[[Path], object]) -> str:
    path = folder / "disk"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    fill(path)
    return str(path)


def put(data: bytes, at: int) -> Callable[[Path], object]:
    def fill(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(data)

    return fill


def made_by(*argv: str) -> Callable[[Path], object]:
    return lambda path: run([f"/usr/sbin/{argv[0]}", *argv[1:], str(path)], timeout=30)


@needs_tools
def test_a_blank_disk_is_formatted_once(real: Machine) -> None:
    device = image(real.root, lambda _: None)
    uuid = disk.ensure_filesystem(real, device)
    assert disk.ensure_filesystem(real, device) == uuid == disk.probe(real, device)["UUID"]
    assert real.path(LOG).read_text().count("mkfs.ext4") == 1
    assert disk.size(Path(device)) == disk.fs_size(Path(device)) == 64 << 20


@needs_tools
@pytest.mark.parametrize(
    ("fill", "why"),
    [
        (
            made_by("mkfs.ext4", "-q", "-L", "photos"),
            r"file system \(ext4, label photos\) that Gridup did not make",
        ),
        (made_by("mkfs.ext4", "-q"), r"file system \(ext4\) that Gridup did not make"),
        (made_by("mkswap"), r"file system \(swap\) that Gridup did not make"),
        (put(b"\x55\xaa", 510), "left alone"),
        (put(b"\x80\x00\x02\x00\x83" + b"\x01" * 11, 446), "data of no known kind"),
        (put(b"x", (1 << 20) - 1), "data of no known kind"),
    ],
)
def test_a_disk_with_anything_on_it_is_left_as_it_is(
    real: Machine, fill: Callable[[Path], object], why: str
) -> None:
    device = image(real.root, fill)
    before = Path(device).read_bytes()
    with pytest.raises(Failed, match=why):
        disk.ensure_filesystem(real, device)
    assert Path(device).read_bytes() == before


@pytest.mark.parametrize(
    ("found", "what"),
    [
        ({"TYPE": "ext4", "LABEL": "gridup-data", "UUID": UUID}, ""),
        ({"PTTYPE": "gpt", "PTUUID": UUID}, "a partition table (gpt)"),
        ({"TYPE": "xfs", "LABEL": "gridup-data", "UUID": UUID}, "a file system (xfs, label gridup-data)"),
        ({"TYPE": "LVM2_member"}, "a file system (LVM2_member)"),
        ({"USAGE": "raid"}, "a file system (unknown)"),
    ],
)
def test_only_our_own_file_system_is_ours(found: dict[str, str], what: str) -> None:
    assert disk.describe_foreign(found) == what


def test_a_disk_that_can_t_be_read_is_not_taken_for_a_blank_one(machine: Fake) -> None:
    for code, why in ((8, "several kinds"), (4, "no medium"), (127, "no medium")):
        machine.answers = [("blkid", code, "no medium")]
        with pytest.raises(Failed, match=why):
            disk.probe(machine, "/dev/x")


@pytest.mark.parametrize(
    "before",
    [
        "",
        LINE,
        "UUID=old /var/lib/gridup ext4 defaults 0 2\n",
        f"{LINE}{LINE}",
    ],
)
def test_fstab_has_one_line_for_the_data(before: str) -> None:
    others = "# /var/lib/gridup is not here\nUUID=r / ext4 defaults 0 1\n"
    assert disk.fstab_with(others + before, UUID) == others + LINE
    assert disk.fstab_with(LINE + others, UUID) == LINE + others


@pytest.mark.tier("gate")  # only root may write in a folder of mode 0
def test_a_mount_point_with_files_is_not_hidden(machine: Fake) -> None:
    point = machine.path("/var/lib/gridup")
    disk.make_immutable(machine, point)
    assert point.stat().st_mode & 0o777 == 0
    assert machine.ran == [f"chattr +i {point}"]
    (point / "x").mkdir()
    with pytest.raises(Failed, match="files on the root disk"):
        disk.make_immutable(machine, point)


def test_a_disk_that_systemd_still_checks_is_mounted_after_that(
    machine: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda _: machine.now >= 3)
    machine.answers = [("mount /var/lib/gridup", 32, "already mounted or mount point busy")] * 3
    disk.mount(machine)
    assert machine.ran == ["mount /var/lib/gridup"] * 3
    monkeypatch.setattr(Path, "is_mount", lambda _: False)
    machine.answers = [("mount", 32, "bad superblock")] * 1000
    with pytest.raises(Failed, match="could not be mounted at /var/lib/gridup: bad superblock"):
        disk.mount(machine)


# Packages

HELD = "Reading...\nE: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)\n"
UNREACHED = "Err:1 x\nE: Failed to fetch http://x/  Temporary failure resolving 'x'\n"


def test_what_is_installed_is_not_asked_for(machine: Fake) -> None:
    machine.answers = [("dpkg-query", 0, "".join(f"{name}=installed\n" for name in packages.PACKAGES))]
    packages.ensure_packages(machine)
    assert len(machine.ran) == 1


def test_what_is_missing_is_installed(tmp_path: Path) -> None:
    machine = Fake(tmp_path, Config((), packages=("tree",)))
    there = "".join(f"{name}=installed\n" for name in packages.PACKAGES[1:])
    machine.answers = [
        ("dpkg-query", 1, f"dpkg-query: no packages found matching tree\ndocker.io=config-files\n{there}")
    ]
    packages.ensure_packages(machine)
    update, install = machine.ran[1:]
    assert update.endswith("update --error-on=any")
    assert install.endswith("install --yes --no-install-recommends docker.io tree")
    assert "DPkg::Lock::Timeout=900" in install


def test_a_held_lock_is_waited_for_up_to_a_limit(machine: Fake) -> None:
    machine.answers = [("apt-get", 100, HELD)] * 5
    packages.apt(machine, "update")
    assert len(machine.ran) == 6
    assert (
        "waiting: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)"
        in machine.log_text
    )
    machine.answers = [("apt-get", 100, HELD)] * 10_000
    with pytest.raises(Failed, match="still held after 900 s: Could not get lock"):
        packages.apt(machine, "update")


def test_trouble_with_the_network_is_tried_again_up_to_a_limit(machine: Fake) -> None:
    machine.answers = [("apt-get", 100, UNREACHED)] * 2
    packages.apt(machine, "update")
    assert len(machine.ran) == 3
    began = machine.now
    machine.answers = [("apt-get", 100, UNREACHED)] * 10
    with pytest.raises(Failed, match="apt-get update: Failed to fetch http://x/"):
        packages.apt(machine, "update")
    assert len(machine.ran) == 3 + packages.TRIES
    assert 60 < machine.now - began < 180


def test_a_package_that_is_not_there_is_not_tried_again(machine: Fake) -> None:
    machine.answers = [("apt-get", 100, "E: Unable to locate package x\n")]
    with pytest.raises(Failed, match="apt-get install: Unable to locate package x"):
        packages.apt(machine, "install", "x")
    assert len(machine.ran) == 1


def test_an_installation_that_was_cut_off_is_gone_on_with(machine: Fake) -> None:
    said = "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem.\n"
    machine.answers = [("apt-get", 100, said)]
    packages.apt(machine, "install", "x")
    assert [line.split()[0] for line in machine.ran] == ["apt-get", "dpkg", "apt-get"]


def test_a_mirror_takes_the_place_of_every_other_source(tmp_path: Path) -> None:
    machine = Fake(tmp_path, Config((), mirror="https://mirror.inst.example/x/"))
    machine.write("/etc/os-release", 'NAME="Debian"\nVERSION_CODENAME=trixie\n')
    machine.write("/etc/apt/sources.list", "deb x\n")
    machine.write("/etc/apt/sources.list.d/debian.sources", "x\n")
    for _ in range(2):
        packages.ensure_sources(machine)
        names = sorted(path.name for path in machine.path("/etc/apt/sources.list.d").iterdir())
        assert names == ["debian.sources.off", "gridup.sources"]
        assert not machine.path("/etc/apt/sources.list").exists()
    told = machine.path("/etc/apt/sources.list.d/gridup.sources").read_text()
    assert "URIs: https://mirror.inst.example/x/debian\nSuites: trixie trixie-updates\n" in told
    assert "URIs: https://mirror.inst.example/x/debian-security\nSuites: trixie-security\n" in told


def test_certificates_and_a_proxy_are_set_once(tmp_path: Path) -> None:
    machine = Fake(tmp_path, Config((), ca="PEM\n", proxy="http://p:1", no_proxy=("a.b",)))
    packages.ensure_sources(machine)
    packages.ensure_sources(machine)
    assert machine.ran == ["update-ca-certificates"]
    assert machine.path("/etc/apt/apt.conf.d/95gridup").read_text().splitlines() == [
        'Acquire::http::Proxy "http://p:1";',
        'Acquire::https::Proxy "http://p:1";',
        'Acquire::http::Proxy::a.b "DIRECT";',
        'Acquire::https::Proxy::a.b "DIRECT";',
    ]


# Docker


def test_docker_needs_the_data_disk() -> None:
    assert docker.docker_unit("", ()) == (
        "[Unit]\nRequiresMountsFor=/var/lib/gridup\nAssertPathIsMountPoint=/var/lib/gridup\n"
    )


def test_docker_goes_through_the_proxy() -> None:
    told = docker.docker_unit("http://p%20q:1", ("a", "b")).splitlines()
    assert told[3:] == [
        "[Service]",
        'Environment="HTTP_PROXY=http://p%%20q:1"',
        'Environment="HTTPS_PROXY=http://p%%20q:1"',
        'Environment="NO_PROXY=a,b"',
    ]


def test_docker_s_settings_are_json_and_laid_once(machine: Fake) -> None:
    docker.lay_docker(machine)
    docker.lay_docker(machine)
    assert machine.ran == ["systemctl daemon-reload", "systemctl stop docker.service"]
    assert json.loads(machine.path("/etc/docker/daemon.json").read_text())["live-restore"] is True


def test_a_docker_that_does_not_answer_is_given_up(machine: Fake) -> None:
    machine.answers = [("docker version", 1, "no daemon")] * 3
    docker.ensure_docker(machine)
    assert machine.ran[-1] == "usermod --append --groups docker gridup"
    machine.answers = [("docker version", 1, "no daemon")] * 1000
    with pytest.raises(Failed, match="did not answer within 90 s: no daemon"):
        docker.ensure_docker(machine)


# Its state, as the deployer reads it


def test_a_state_comes_back_as_it_was_published(machine: Fake) -> None:
    machine.publish(
        state="failed", step="disk", message="é", started="s", ended=None, boot_id="b", seconds={"a": 1}
    )
    assert published(machine) == State("failed", "disk", "é", "s", "", "b", {"a": 1})
    assert published(machine).settled


def test_before_it_began_it_waits() -> None:
    assert parse(" \n") == State("waiting")
    assert str(parse("")) == "the first boot has not begun"
    assert not parse("").settled


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"state": "odd"}', "{}", "Permission denied"])
def test_what_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the state of a first boot"):
        parse(text)


def test_what_the_deployer_runs_names_the_published_files() -> None:
    assert STATE in first_boot.READ[-1]
    assert first_boot.TAIL[-1] == LOG
