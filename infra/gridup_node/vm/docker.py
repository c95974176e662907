"""Docker on the host, and the node's folder on the data disk.

Images are on the root disk, data is on the data disk. An image can be built or pulled again and belongs to
one machine's Docker. The data disk outlives the machine, and its snapshots cost money by the GB. So it holds
only what can't be created again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from gridup_node.vm.machine import MOUNT, UID, USER, Failed, Machine, last_lines

NODE = f"{MOUNT}/node"

DOCKER_SECONDS = 90.0

DOCKERD = """\
{"live-restore": true, "log-driver": "local"}
"""
"""An update of Docker leaves the node running. The log of a container is rotated."""


def lay_docker(machine: Machine) -> None:
    """Write Docker's configuration, before the package is installed: the first start needs the data disk."""
    changed = machine.write("/etc/docker/daemon.json", DOCKERD)
    unit = docker_unit(machine.config.proxy, machine.config.no_proxy)
    changed |= machine.write("/etc/systemd/system/docker.service.d/gridup.conf", unit)
    if changed:
        machine.check_run("systemctl", "daemon-reload")
        # The machine's image may already include a running Docker. `ensure_docker` starts it again.
        machine.run("systemctl", "stop", "docker.service")


def docker_unit(proxy: str, no_proxy: Sequence[str]) -> str:
    """Return Docker's unit settings in addition to Debian's. Docker does not start without the data disk."""
    lines = ["[Unit]", f"RequiresMountsFor={MOUNT}", f"AssertPathIsMountPoint={MOUNT}"]
    if proxy:
        # In a unit file `%` begins a specifier.
        safe, hosts = proxy.replace("%", "%%"), ",".join(no_proxy).replace("%", "%%")
        told = {"HTTP_PROXY": safe, "HTTPS_PROXY": safe, "NO_PROXY": hosts}
        lines += ["[Service]", *(f'Environment="{name}={value}"' for name, value in told.items())]
    return "".join(f"{line}\n" for line in lines)


def ensure_docker(machine: Machine) -> None:
    """Enable Docker, wait until it answers, check its compose plugin, and let `USER` use it.

    Raises:
        Failed: Docker does not answer in time, or a command failed.
    """
    machine.check_run("systemctl", "enable", "--now", "--quiet", "docker.service")
    deadline = machine.clock() + DOCKER_SECONDS
    while True:
        code, text = machine.run("docker", "version", "--format", "{{.Server.Version}}")
        if code == 0:
            break
        if machine.clock() >= deadline:
            raise Failed(f"Docker did not answer within {DOCKER_SECONDS:g} s: {last_lines(text)}")
        machine.sleep(0.5)
    machine.check_run("docker", "compose", "version")
    machine.check_run("usermod", "--append", "--groups", "docker", USER)


def ensure_node_folder(machine: Machine) -> None:
    """Create the node's folder on the data disk, which only the node's user can enter."""
    folder = machine.path(NODE)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.stat()
    if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (UID, UID, 0o700):
        os.chown(folder, UID, UID)
        folder.chmod(0o700)
