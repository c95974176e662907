"""A root disk with Docker on it, as if the machine had built the node's image before: most tests begin there.

What a first boot installs, and the layers of the node's image that its locks alone make, are the same for
every test. They are made once, on a machine that boots, and kept in the cache under a digest of all that goes
into them. Tests of the first boot itself begin with the bare system (`support.vm_image`).
"""

from __future__ import annotations

import hashlib
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gridup_infra.build_env import portable_build_args
from gridup_infra.locking import locked
from gridup_infra.vm import release_client
from gridup_node import catalog
from gridup_node.image import BASE_IMAGE
from gridup_node.vm import docker_cli
from gridup_node.vm.packages import PACKAGES
from support import node_layers
from support.docker_rig import BOOTSTRAP_SECONDS, base_archive, unmount_below
from support.system import must

if TYPE_CHECKING:
    from support.vm_rig import Machine, Rig

BUILD_SECONDS = 1200.0

OLDEST_SECONDS = 5 * 86400.0
"""Of the image. The product drops what a build has not used for a week; Debian has updates by then, too."""

FORGOTTEN = (
    "etc/ssh/ssh_host_*",
    "var/log/**/*",
    "var/lib/apt/lists/*_*",
    "var/cache/apt/*.bin",
    "base.tar",
    "context.tar",
)
"""Files that each machine makes for itself, or that nobody needs any more."""


def golden_system(rig: Rig, cache: Path) -> Path:
    """The root disk as a file; made where it is not there, which takes some two minutes."""
    base, changes = base_archive(cache)
    context = node_layers.context(release_client.context(catalog.resolve("latest")))
    arguments = portable_build_args()
    made_of = ("2", rig.image.name, base.name, changes, PACKAGES, sorted(arguments.items()))
    digest = hashlib.sha256(repr(made_of).encode() + context).hexdigest()[:12]
    disk = rig.image.with_name(f"golden-{digest}.img")
    with locked(
        disk.with_name("golden.lock"), "a golden image", wait=BUILD_SECONDS, busy="The image is made"
    ):
        if not disk.exists() or time.time() - disk.stat().st_mtime > OLDEST_SECONDS:
            for older in disk.parent.glob("golden-*.img"):
                older.unlink()
            _make(rig, disk, base, changes, context, arguments)
    return disk


def _make(
    rig: Rig, disk: Path, base: Path, changes: list[str], context: bytes, arguments: dict[str, str]
) -> None:
    machine = rig.machine(golden=False)
    try:
        must("cp", str(base), str(machine.root / "base.tar"))
        (machine.root / "context.tar").write_bytes(context)
        machine.boot(b"#cloud-config\n{}\n")
        machine.run("cloud-init", "status", "--wait", timeout=120)
        _install(machine)
        told = [word for change in changes for word in ("--change", change)]
        machine.run("docker", "import", *told, "/base.tar", BASE_IMAGE, timeout=BOOTSTRAP_SECONDS)
        _build(machine, arguments)
        machine.run("cloud-init", "clean", "--logs", "--machine-id", "--seed")
        machine.poweroff()
        for pattern in FORGOTTEN:
            for path in machine.root.glob(pattern):
                if path.is_file():
                    path.unlink()
        (machine.root / "etc/machine-id").write_text("")
        must("fstrim", str(machine.root))
        unmount_below(machine.root)
        unfinished = disk.with_suffix(".part")
        must("cp", "--sparse=always", str(machine.disk_file), str(unfinished))
        unfinished.replace(disk)
    finally:
        machine.destroy()


def _install(machine: Machine) -> None:
    quiet = ("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3")
    machine.run(*quiet, "update", timeout=300)
    machine.run(*quiet, "install", "--yes", "--no-install-recommends", *PACKAGES, timeout=BUILD_SECONDS)
    # Looks at a node's machine in a test; of itself it does so each day.
    machine.run(*quiet, "install", "--yes", "--no-install-recommends", "lynis", timeout=BUILD_SECONDS)
    machine.run("systemctl", "disable", "lynis.timer")
    machine.run("apt-get", "clean")


def _build(machine: Machine, arguments: dict[str, str]) -> None:
    """As the product does: the builder's cache is for the very same words."""
    words = [
        *docker_cli.BUILD,
        "--tag=golden",
        *docker_cli.handed({docker_cli.BASE: BASE_IMAGE}, arguments),
        "-",
    ]
    told = [f"{name}={value}" for name, value in arguments.items()]
    machine.run("env", *told, "sh", "-c", f"cd / && {shlex.join(words)} </context.tar", timeout=BUILD_SECONDS)
    machine.run("docker", "image", "rm", "golden")
