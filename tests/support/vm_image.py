"""Debian 13 near enough as a cloud's marketplace has it: the root disk of a machine of `vm_rig`."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import pytest

from gridup_infra.locking import locked
from gridup_infra.paths import ensure_private
from gridup_infra.processes import run, which
from support import debian
from support.docker_rig import BOOTSTRAP_SECONDS, unmount_below
from support.system import must

PACKAGES = (
    "ca-certificates",
    "cloud-init",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "iptables",
    "netbase",
    "openssh-server",
    "python3-cffi-backend",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
    "unattended-upgrades",
)

DISK_BYTES = 16 << 30
"""Of a root disk. It takes no more room here than what is on it."""

STRIPPED = (
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/info",
    "var/cache",
    "var/lib/apt/lists",
)
"""Folders that are emptied: less to unpack for each machine."""


def base_system(cache: Path) -> Path:
    """The root disk as a file, with this machine's way to Debian's packages in it; made once.

    Skips the test where it can't be made.
    """
    mirror, sources = debian.apt_sources("trixie")
    files = debian.certificates() | {"etc/apt/apt.conf.d/90machine": debian.apt_settings()}
    if sources:
        files["etc/apt/sources.list"] = sources.encode()
    made = hashlib.sha256(repr(("2", mirror, PACKAGES, STRIPPED, sorted(files.items()))).encode())
    folder = ensure_private(cache / "vm")
    disk = folder / f"trixie-{made.hexdigest()[:12]}.img"
    with locked(folder / "image.lock", "a bootstrap", wait=BOOTSTRAP_SECONDS, busy="The image is made"):
        if not disk.exists():
            _make(disk, mirror, files)
    return disk


def _make(disk: Path, mirror: str, files: dict[str, bytes]) -> None:
    program = which("debootstrap")
    if program is None:
        pytest.skip("no machine can be made: debootstrap is not installed (Debian's package debootstrap)")
    root = Path(tempfile.mkdtemp(dir=disk.parent, prefix="image."))
    unfinished = disk.with_suffix(".part")
    try:
        root.chmod(0o755)
        include = f"--include={','.join(PACKAGES)}"
        argv = [program, "--variant=minbase", include, "trixie", str(root)]
        made = run(argv + [mirror] * bool(mirror), timeout=BOOTSTRAP_SECONDS)
        if not made.ok:
            pytest.fail("\n".join(("debootstrap failed:", *made.tail(15))), pytrace=False)
        for name in STRIPPED:
            for path in (root / name).iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        # Each machine gets its own at its first boot.
        (root / "etc/machine-id").write_text("")
        for path in (root / "etc/ssh").glob("ssh_host_*"):
            path.unlink()
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        unmount_below(root)
        with unfinished.open("wb") as file:
            file.truncate(DISK_BYTES)
        # A clone is a copy of what is not zero, and is gone at once when it is removed.
        must("mkfs.ext4", "-q", "-L", "root", "-d", str(root), str(unfinished))
        unfinished.replace(disk)
    finally:
        unfinished.unlink(missing_ok=True)
        unmount_below(root)
        shutil.rmtree(root)
