"""The machine for the steps of its boot: its configuration, files, programs and clock."""

from __future__ import annotations

import grp
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = "/usr/local/lib/gridup-boot/host.pyz"
CONFIG = "/usr/local/lib/gridup-boot/host.json"
UNIT = "gridup-boot.service"
STATE = "/var/lib/gridup-boot/first-boot.json"
LOG = "/var/lib/gridup-boot/first-boot.log"

USER = "gridup"
UID = 10001
"""The uid of `USER`, who may use sudo. The node's programs have another: `confines.MACHINE_UID`."""

MOUNT = "/var/lib/gridup"
"""The mount point of the data disk."""

MOUNT_UNIT = "var-lib-gridup.mount"
"""systemd's name of that mount, by `systemd-escape --path --suffix=mount`."""

STRONG_SSH = (
    "HostKeyAlgorithms ssh-ed25519",
    "KexAlgorithms -ecdh-sha2-*,diffie-hellman-*",
    "MACs -hmac-sha1*,hmac-sha2-256,hmac-sha2-512,umac-64*,umac-128@openssh.com",
)
"""Settings for every sshd of a node: OpenSSH's defaults without the algorithms that ssh-audit rejects. The
lists with `-` name what to remove, so a later OpenSSH can still offer stronger algorithms, and an earlier one
reads no name that it does not know.
"""

COMMAND_SECONDS = 120.0


class Failed(Exception):
    """The machine can't be set up. The message says why and, if possible, what to do."""


@dataclass(frozen=True)
class Config:
    """The deployer's settings, from `CONFIG`. Empty means: as in the image.

    Attributes:
        disk: patterns of device paths of the data disk; the first that matches counts.
        disk_seconds: how long to wait for the disk.
        packages: Debian packages in addition to `PACKAGES`.
        proxy: `http://host:port` for apt and Docker.
        no_proxy: hosts to reach without the proxy.
        mirror: a server that replaces Debian's own.
        ca: certificates (PEM) to trust in addition to Debian's.
    """

    disk: tuple[str, ...]
    disk_seconds: float = 300
    packages: tuple[str, ...] = ()
    proxy: str = ""
    no_proxy: tuple[str, ...] = ()
    mirror: str = ""
    ca: str = ""

    @classmethod
    def parse(cls, text: str) -> Config:
        told: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in json.loads(text).items()
        }
        return cls(**told)


@dataclass
class Machine:
    """The machine's files, programs and clock, and the reports of the run.

    Attributes:
        root: `/`, or a test's own folder.
    """

    config: Config
    root: Path = Path("/")
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def log(self, text: str) -> None:
        """Write a line to the log and to the console. A cloud shows the console even if nobody can log in."""
        print(f"gridup: {text}", flush=True)  # noqa: T201
        with self.path(LOG).open("a", encoding="utf-8") as log:
            log.write(f"{now()} {text}\n")

    def run(self, *argv: str, timeout: float = COMMAND_SECONDS) -> tuple[int, str]:
        """Run a program to its end. Return its exit code and output; the log has the output too."""
        with self.path(LOG).open("a+b") as log:
            log.write(f"{now()} $ {' '.join(argv)}\n".encode())
            log.flush()
            begin = log.tell()
            try:
                code = subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=timeout,
                    env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
                    check=False,
                ).returncode
            except FileNotFoundError:
                return 127, f"{argv[0]} is not installed"
            except subprocess.TimeoutExpired:
                return 124, f"{argv[0]} did not end within {timeout:g} s"
            log.seek(begin)
            return code, log.read().decode(errors="replace")

    def check_run(self, *argv: str, timeout: float = COMMAND_SECONDS) -> str:
        """Run a program and return its output.

        Raises:
            Failed: the program failed.
        """
        code, text = self.run(*argv, timeout=timeout)
        if code != 0:
            raise Failed(f"{' '.join(argv)} ended with {code}: {last_lines(text)}")
        return text

    def write(self, name: str, text: str, mode: int = 0o644, group: int = 0) -> bool:
        """Write a file completely or not at all. Return whether its content changed."""
        path = self.path(name)
        if path.is_file() and path.read_bytes() == text.encode():
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        # A hidden name, so that no program reads the unfinished file as part of its configuration.
        fresh = path.with_name(f".{path.name}.new")
        with fresh.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.chmod(mode)
        if group:
            os.chown(fresh, 0, group)
        fresh.replace(path)
        sync(path.parent)
        return True

    def publish(self, **state: Any) -> None:
        """Write the progress of the run to `STATE`."""
        self.write(STATE, json.dumps(state, indent=1, ensure_ascii=False) + "\n", 0o640, readers())


def sync(folder: Path) -> None:
    """Flush a folder to disk, so that new names in it survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def last_lines(text: str) -> str:
    """Return the last lines of a program's output, in one line."""
    return " ".join(" ".join(text.splitlines()[-3:]).split()) or "it wrote nothing"


def parse_env_file(text: str) -> dict[str, str]:
    """Parse lines of the form `NAME=VALUE`, as in os-release."""
    return {
        name: value.strip().strip('"')
        for name, equals, value in (line.partition("=") for line in text.splitlines())
        if equals
    }


def readers() -> int:
    """Return the group that may read log and state: that of `USER`, or root's if `USER` does not exist."""
    try:
        return grp.getgrnam(USER).gr_gid
    except KeyError:
        return 0


def boot_id(machine: Machine) -> str:
    try:
        return machine.path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
