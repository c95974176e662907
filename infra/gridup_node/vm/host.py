"""Turns a machine into the container host of a node. Runs on it as root, at the first and each later boot.

The program is sent in user-data (see `user_data`) with the modules of `MODULES`. They import only each other
and the standard library of Debian 13. `STEPS` is the whole program. Each step checks first and does only what
is missing. The first step that fails ends the run with exit code 1. The progress is in `STATE` and `LOG`.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from gridup_node.vm.disk import ensure_disk
from gridup_node.vm.docker import ensure_docker, ensure_node_folder, lay_docker
from gridup_node.vm.machine import (
    CONFIG,
    LOG,
    STRONG_SSH,
    USER,
    Config,
    Failed,
    Machine,
    boot_id,
    now,
    readers,
)
from gridup_node.vm.packages import ensure_packages, ensure_sources, ensure_updates

MODULES = ("machine", "disk", "packages", "docker", "host")
"""The modules of this package that run on the machine."""

SSHD = f"""\
AllowUsers {USER}
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowAgentForwarding no
X11Forwarding no
LogLevel VERBOSE
""" + "".join(f"{line}\n" for line in STRONG_SSH)


def ensure_ssh(machine: Machine) -> None:
    """Configure sshd: keys only, one user only. The first step, so that it holds if a later one fails.

    Raises:
        Failed: the user does not exist, or sshd refuses the settings.
    """
    code, _ = machine.run("id", USER)
    if code != 0:
        raise Failed(f"there is no user {USER}: cloud-init did not make it, see /var/log/cloud-init.log")
    # sshd uses the first value it reads. This file name sorts before those of the image and of cloud-init.
    if machine.write("/etc/ssh/sshd_config.d/10-gridup.conf", SSHD):
        # Without this folder sshd refuses to check its settings. Only sshd's service creates it.
        machine.path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        machine.check_run("/usr/sbin/sshd", "-t")
        machine.check_run("systemctl", "try-reload-or-restart", "ssh.service")


Step = tuple[str, Callable[[Machine], None]]

STEPS: tuple[Step, ...] = (
    ("ssh", ensure_ssh),
    ("docker's conditions", lay_docker),
    ("disk", ensure_disk),
    ("sources", ensure_sources),
    ("packages", ensure_packages),
    ("updates", ensure_updates),
    ("docker", ensure_docker),
    ("node folder", ensure_node_folder),
)


def make(machine: Machine, steps: Sequence[Step] = STEPS) -> bool:
    """Run the steps up to the first that fails, and publish the progress. Return whether all succeeded."""
    began, boot = now(), boot_id(machine)
    seconds: dict[str, float] = {}

    def publish(state: str, step: str, message: str, ended: str | None = None) -> None:
        machine.publish(
            state=state,
            step=step,
            message=message,
            started=began,
            ended=ended,
            boot_id=boot,
            seconds=seconds,
        )

    for name, step in steps:
        publish("running", name, "")
        machine.log(f"step {name}")
        since = machine.clock()
        try:
            step(machine)
        except Exception as error:  # noqa: BLE001
            if not isinstance(error, Failed):
                machine.log(traceback.format_exc().rstrip())
            message = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            machine.log(f"failed at step {name}: {message}")
            publish("failed", name, message, now())
            return False
        seconds[name] = round(machine.clock() - since, 2)
    machine.log("done")
    publish("done", "", "", now())
    return True


def _stopped(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Failed("it was stopped before its end, by a shutdown or the service's time limit")


def main() -> int:
    """Run the program. Return exit code 0 if the machine is a container host, else 1."""
    signal.signal(signal.SIGTERM, _stopped)
    os.umask(0o022)
    machine = Machine(Config.parse(Path(CONFIG).read_text(encoding="utf-8")))
    log = machine.path(LOG)
    log.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    log.touch(mode=0o640)
    os.chown(log, 0, readers())
    return 0 if make(machine) else 1
