"""Machines that really boot: Debian 13 with systemd, cloud-init, udev and Docker, by systemd-nspawn.

What a cloud's hypervisor does, and no more: it clones the image to a root disk, hands over the bytes of
user-data, attaches disks, gives an address, and switches on and off. The kernel is this machine's.

    with Rig(cache) as rig:
        machine = rig.machine()
        machine.boot(user_data, {"/dev/disk/by-id/nvme-1": rig.disk()})
        machine.run("docker", "version")

Debian's packages: systemd-container, debootstrap, e2fsprogs, iproute2, iptables, mount, util-linux.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from gridup_infra.locking import locked
from gridup_infra.paths import ensure_private
from gridup_infra.processes import Result, run, wait_until
from support import vm_network
from support.docker_rig import unmount_below
from support.golden import golden_system
from support.system import attempt, lacking, must
from support.vm_image import base_system
from support.vm_network import Network

PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "losetup": "mount",
    "nsenter": "util-linux",
    "mkfs.ext4": "e2fsprogs",
}
"""Program -> Debian's package of it."""

BOOT_SECONDS = 60.0
"""Until a machine's systemd must answer; it takes 1 to 3 s."""

STOP_SECONDS = 100.0
"""Until a machine must be off: systemd gives a service 90 s."""

SWEEP_SECONDS = 300.0
"""Until another run must have swept up what it made."""

NSPAWN = (
    "--boot",
    "--register=no",
    "--keep-unit",
    "--capability=all",
    "--system-call-filter=@keyring bpf add_key keyctl",
    "--bind=/dev/fuse",
    "--console=read-only",
    "--resolv-conf=off",
    "--timezone=off",
    "--quiet",
)

NSPAWN_LEFT = Path("/run/systemd/nspawn")
"""Where systemd-nspawn leaves an empty folder of each machine, and a lock of one that was killed."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Disk:
    """A disk of its own, a file behind a loop device; it may go from one machine to the next."""

    def __init__(self, file: Path, megabytes: int) -> None:
        self.file = file
        with file.open("wb") as opened:
            opened.truncate(megabytes << 20)
        self.device = must("losetup", "--find", "--show", str(file)).stdout.strip()

    def grow(self, megabytes: int) -> None:
        """Make it larger, as a cloud does."""
        with self.file.open("r+b") as opened:
            opened.truncate(megabytes << 20)
        must("losetup", "--set-capacity", self.device)

    def detach(self) -> None:
        attempt("losetup", "--detach", self.device)


class Machine:
    """One machine, off until `boot`. Made by `Rig.machine`.

    Attributes:
        root: its root disk, as a folder here.
        disk_file: the same as a file.
        address: reached from here on every port.
        disks: by the path of the device that it has each at.
    """

    def __init__(self, folder: Path, tag: str, number: int, image: Path, address: str) -> None:
        self._folder = folder
        self._tag = f"{tag}-{number}"
        self._cgroup = _cgroups() / self._tag
        self._process: subprocess.Popen[bytes] | None = None
        self.disks: dict[str, Disk] = {}
        self._pid = 0
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self.disk_file = folder / "root.img"
        must("cp", "--sparse=always", str(image), str(self.disk_file))
        # The power that may be lost is the machine's, not ours: its disk need not be flushed.
        must("mount", "-o", "loop,barrier=0", str(self.disk_file), str(self.root))
        (self.root / "etc/resolv.conf").unlink(missing_ok=True)
        (self.root / "etc/resolv.conf").write_text(vm_network.name_servers())
        self._network = Network(tag, number, address)
        self.address = self._network.address

    @property
    def console(self) -> str:
        """All that it has written to its console."""
        path = self._folder / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def boot(self, user_data: bytes, disks: Mapping[str, Disk] | None = None) -> None:
        """Switch it on for the first time.

        Args:
            user_data: the bytes that a cloud's metadata service would give it.
            disks: by the path of the device that the machine has each at.
        """
        seed = self.root / "var/lib/cloud/seed/nocloud"
        seed.mkdir(parents=True)
        (seed / "user-data").write_bytes(user_data)
        (seed / "meta-data").write_text(f"instance-id: {self._tag}\n")
        # The address is there already, as if by DHCP.
        (seed / "network-config").write_text("network:\n  config: disabled\n")
        self.disks = dict(disks or {})
        self._launch()

    def start(self) -> None:
        """Switch it on again."""
        self._launch()

    def reboot(self) -> None:
        """Restart it from within, and return as soon as it comes up again."""
        self._end("reboot")
        self._launch()

    def poweroff(self) -> None:
        """Shut it down in order."""
        self._end("poweroff")

    def cut(self) -> None:
        """Take its power away, if it has any."""
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            (self._cgroup / "cgroup.kill").write_text("1")
        self._process.wait(timeout=STOP_SECONDS)
        self._gone()

    def attach(self, path: str, disk: Disk) -> None:
        """Attach a disk; one that runs sees it at once."""
        self.disks[path] = disk
        if self.running:
            rdev = os.stat(disk.device).st_rdev
            numbers = (str(os.major(rdev)), str(os.minor(rdev)))
            self.run("sh", "-c", f"[ -b {disk.device} ] || mknod {disk.device} b {' '.join(numbers)}")
            self.run("mkdir", "-p", str(Path(path).parent))
            # As udev's links do; the events of a loop device do not tell a machine that its disk is here.
            self.run("ln", "-sf", disk.device, path)
            self.run("udevadm", "trigger", "--settle", disk.device)

    def detach(self, path: str) -> None:
        """Take a disk away from a machine that is off."""
        assert not self.running
        del self.disks[path]

    def try_run(self, *argv: str, timeout: float = 60) -> Result:
        """Run a program on it as root, as on its console."""
        assert self._pid, "the machine is off"
        entered = ["nsenter", "--target", str(self._pid), "--all", "--wd=/"]
        clean = ["/usr/bin/env", "-i", f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8", *argv]
        return run([*entered, *clean], timeout=timeout)

    def run(self, *argv: str, timeout: float = 60) -> str:
        """What a program that must succeed writes."""
        result = self.try_run(*argv, timeout=timeout)
        assert result.ok, f"{' '.join(argv)} ended with {result.code}: {result.stdout}\n{result.stderr}"
        return result.stdout

    def read(self, path: str) -> bytes:
        """A file of it, while it runs."""
        real = self.run("readlink", "--canonicalize", path).strip()
        return Path(f"/proc/{self._pid}/root{real}").read_bytes()

    def write(self, path: str, text: str) -> None:
        """Change a file of it that is there, while it runs; it stays whose it is."""
        real = self.run("readlink", "--canonicalize-existing", path).strip()
        Path(f"/proc/{self._pid}/root{real}").write_text(text)

    def destroy(self) -> None:
        """Remove it and all that it had, but not its disks."""
        self.cut()
        self._network.remove()
        _remove_tree(self._folder)

    def _launch(self) -> None:
        assert not self.running
        binds = [f"--bind={disk.device}" for disk in self.disks.values()]
        binds += [f"--bind={disk.device}:{path}" for path, disk in self.disks.items()]
        # Its systemd only asks udev for devices, and so for the mounts of fstab, where this file is there.
        udev = self._folder / "udev"
        shutil.rmtree(udev, ignore_errors=True)
        udev.mkdir()
        (udev / "control").touch()
        binds.append(f"--bind={udev}:/run/udev")
        self._cgroup.mkdir(exist_ok=True)
        place = f"network-namespace-path=/run/netns/{self._network.namespace}"
        # In a cgroup of its own from its first moment: in one, two machines would meddle with each other.
        enter = ("sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self._cgroup))
        argv = ("systemd-nspawn", f"--directory={self.root}", f"--machine={self._tag}", f"--{place}", *NSPAWN)
        with (self._folder / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                [*enter, *argv, *binds],
                env={
                    "PATH": PATH,
                    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes",
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if not wait_until(lambda: not self.running or self._up(), timeout=BOOT_SECONDS) or not self.running:
            pytest.fail(f"the machine did not come up. Its console:\n{self._console_end()}", pytrace=False)

    def _up(self) -> bool:
        """Whether its systemd answers."""
        assert self._process is not None
        told = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._pid = int(told[0]) if told else 0
        if not self._pid or not (Path(f"/proc/{self._pid}/root") / "run/systemd/private").exists():
            return False
        return bool(self.try_run("systemctl", "show", "--property=Version").ok)

    def _end(self, verb: str) -> None:
        assert self._process is not None
        deadline = time.monotonic() + STOP_SECONDS
        asked = self.try_run("systemctl", "--no-block", verb)
        # In the middle of its boot, before polkit is there, it lets nobody do that.
        while not asked.ok and self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.5)
            asked = self.try_run("systemctl", "--no-block", verb)
        try:
            self._process.wait(timeout=max(deadline - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            said = f"{' '.join(asked.tail())}\nIts journal:\n{self._journal_end()}"
            pytest.fail(
                f"no {verb} after {STOP_SECONDS:g} s: {said}\nIts console:\n{self._console_end()}",
                pytrace=False,
            )
        self._gone()

    def _gone(self) -> None:
        """Tidy up what it had while it was on."""
        self._process, self._pid = None, 0
        _remove_cgroups(self._tag)
        _forget(self._tag, self.root)
        for disk in self.disks.values():
            # Programs of the machine that die late must not have the disk when it goes elsewhere.
            attempt("blockdev", "--flushbufs", disk.device)

    def _journal_end(self) -> str:
        return str(self.try_run("journalctl", "--no-pager", "--lines=40").stdout)

    def _console_end(self) -> str:
        return "\n".join(self.console.splitlines()[-40:])


class Rig:
    """Makes machines and disks, and removes all of them at its end, however the tests went.

    Attributes:
        image: the root disk of a machine as a cloud's marketplace has it.
    """

    image: Path

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._runs = cache / "vm" / "runs"
        self._forwarding = cache / "vm" / "forwarding"
        """Is there when it was a run that had this machine pass packets on."""
        self._tag = f"gridup-vm-{secrets.token_hex(3)}"
        self._folder = self._runs / self._tag
        self._stack, self._alive = ExitStack(), ExitStack()
        self._made = 0

    def __enter__(self) -> Rig:
        """Skips the test where no machine can be had."""
        if reason := _missing():
            pytest.skip(f"no machine can be booted: {reason}")
        self.image = base_system(self._cache)
        ensure_private(self._runs)
        with self._sweeping():
            for left in self._runs.iterdir():
                _sweep_if_orphaned(left)
            ensure_private(self._folder)
            self._alive.enter_context(_held(self._folder / "lock"))
            if vm_network.forward():
                self._forwarding.touch()
        self._stack.callback(self._leave)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def machine(self, address: str = "", *, golden: bool = True) -> Machine:
        """A machine that is off.

        Args:
            address: its address; one for documentation when not given.
            golden: whether Docker and the layers of the node's image are on it already (`support.golden`).
        """
        number = self._next()
        image = golden_system(self, self._cache) if golden else self.image
        made = Machine(self._folder / f"machine-{number}", self._tag, number, image, address)
        self._stack.callback(made.cut)
        return made

    def disk(self, megabytes: int = 256) -> Disk:
        """A blank disk."""
        return Disk(self._folder / f"disk-{self._next()}", megabytes)

    def _leave(self) -> None:
        with self._sweeping():
            self._stop_forwarding()
            self._alive.close()
            _sweep(self._folder)

    def _sweeping(self) -> contextlib.AbstractContextManager[None]:
        """One run at a time: another would take this one for an orphan as soon as its lock is free."""
        lock = self._cache / "vm" / "sweep.lock"
        return locked(lock, "a sweep", wait=SWEEP_SECONDS, busy="Another run sweeps up")

    def _stop_forwarding(self) -> None:
        """Have this machine pass nothing on, if it did not before, once no run needs it any more."""
        others = [run for run in self._runs.iterdir() if run != self._folder and _lives(run)]
        if self._forwarding.exists() and not others:
            vm_network.stop_forwarding()
            self._forwarding.unlink()

    def _next(self) -> int:
        self._made += 1
        return self._made


def _sweep_if_orphaned(folder: Path) -> None:
    """Remove what a run left that was killed; one that still runs holds its lock."""
    with contextlib.suppress(BlockingIOError), _held(folder / "lock"):
        _sweep(folder)


def _lives(folder: Path) -> bool:
    """Whether the run that has this folder goes on."""
    try:
        with contextlib.suppress(FileNotFoundError), _held(folder / "lock"):
            return False
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _sweep(folder: Path) -> None:
    """Remove all that a run made: its folder's name is the tag of everything."""
    tag = folder.name
    for cgroup in _cgroups().glob(f"{tag}-*"):
        with contextlib.suppress(OSError):
            (cgroup / "cgroup.kill").write_text("1")
    _remove_cgroups(f"{tag}-*")
    vm_network.sweep(tag)
    for root in folder.glob("machine-*/root"):
        _forget(f"{tag}-{root.parent.name.removeprefix('machine-')}", root)
    for row in json.loads(attempt("losetup", "--json", "--list").stdout or "{}").get("loopdevices", ()):
        if row["back-file"].startswith(f"{folder}/"):
            attempt("losetup", "--detach", row["name"])
    _remove_tree(folder)


def _remove_tree(folder: Path) -> None:
    unmount_below(folder)
    shutil.rmtree(folder)


def _forget(tag: str, root: Path) -> None:
    """Remove what systemd-nspawn left of a machine."""
    shutil.rmtree(NSPAWN_LEFT / "propagate" / tag, ignore_errors=True)
    found = root.stat()
    (NSPAWN_LEFT / "locks" / f"inode-{found.st_dev}:{found.st_ino}").unlink(missing_ok=True)


def _remove_cgroups(pattern: str) -> None:
    """Remove cgroups as soon as their last process has ended.

    Where the first version of cgroups is there too, systemd-nspawn made the same in systemd's own hierarchy.
    """
    unified = _cgroups()
    bases = {unified, *(unified.parent / name for name in ("systemd",) if unified.name == "unified")}

    def removed() -> bool:
        cgroups = [path for base in bases for path in base.glob(pattern)]
        for cgroup in cgroups:
            for path, _, _ in os.walk(cgroup, topdown=False):
                with contextlib.suppress(OSError):
                    Path(path).rmdir()
        return not any(cgroup.exists() for cgroup in cgroups)

    if not wait_until(removed, timeout=15):
        pytest.fail(f"processes of a machine can't be ended: cgroup {pattern}", pytrace=False)


def _cgroups() -> Path:
    """Where the second version of cgroups is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(point)
    raise FileNotFoundError("no cgroup2 is mounted")


def _missing() -> str:
    """Why no machine can be booted here; empty when nothing speaks against it."""
    if reason := lacking(PROGRAMS):
        return reason
    try:
        if not os.access(_cgroups(), os.W_OK):
            return "its cgroups are read-only"
    except FileNotFoundError as error:
        return str(error)
    if not attempt("losetup", "--find").ok:
        return "it has no loop devices"
    return "" if Path("/dev/fuse").exists() else "it has no /dev/fuse"
