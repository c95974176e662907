"""The machine as the steps of its boot see it: what they are told, its files, its programs and its clock."""

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
"""Of `USER`, who may use sudo. The node's programs have another: `confines.MACHINE_UID`."""

MOUNT = "/var/lib/gridup"
"""Where the data disk is mounted."""

MOUNT_UNIT = "var-lib-gridup.mount"
"""systemd's name for that, by `systemd-escape --path --suffix=mount`."""

STRONG_SSH = (
    "HostKeyAlgorithms ssh-ed25519",
    "KexAlgorithms -ecdh-sha2-*,diffie-hellman-*",
    "MACs -hmac-sha1*,hmac-sha2-256,hmac-sha2-512,umac-64*,umac-128@openssh.com",
)
"""For every sshd of a node's: what ssh-audit leaves of OpenSSH's own choice. They say what is removed: a
later OpenSSH offers what is stronger too, and an earlier one finds no name that it does not know."""

COMMAND_SECONDS = 120.0


class Failed(Exception):
    """The machine can't be made right. The message says what of it, and where it can, what to do."""


@dataclass(frozen=True)
class Config:
    """What the deployer tells, from `CONFIG`. Empty text means: as the image has it.

    Attributes:
        disk: where the data disk may be: patterns of device paths; the first that is there counts.
        disk_seconds: until it must have appeared.
        packages: Debian packages beside `PACKAGES`.
        proxy: `http://host:port` for apt and Docker.
        no_proxy: hosts that are reached without it.
        mirror: a server that takes the place of Debian's own.
        ca: certificates (PEM) to trust beside Debian's.
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
    """The machine's files, programs and clock, and what the run tells of itself.

    Attributes:
        root: `/`, or what a test has in its place.
    """

    config: Config
    root: Path = Path("/")
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def log(self, text: str) -> None:
        """A line for the log, and for the console, which a cloud shows even when nobody can log in."""
        print(f"gridup: {text}", flush=True)  # noqa: T201
        with self.path(LOG).open("a", encoding="utf-8") as log:
            log.write(f"{now()} {text}\n")

    def run(self, *argv: str, timeout: float = COMMAND_SECONDS) -> tuple[int, str]:
        """Run a program to its end: its exit code and all that it wrote, which the log has too."""
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
        """What a program wrote.

        Raises:
            Failed: it failed.
        """
        code, text = self.run(*argv, timeout=timeout)
        if code != 0:
            raise Failed(f"{' '.join(argv)} ended with {code}: {last_lines(text)}")
        return text

    def write(self, name: str, text: str, mode: int = 0o644, group: int = 0) -> bool:
        """Write a file whole or not at all. Returns whether it was another one before."""
        path = self.path(name)
        if path.is_file() and path.read_bytes() == text.encode():
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        # Hidden, so that no program takes the unfinished one for a part of its configuration.
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
        """Tell in `STATE` how the run goes."""
        self.write(STATE, json.dumps(state, indent=1, ensure_ascii=False) + "\n", 0o640, readers())


def sync(folder: Path) -> None:
    """So that a name in a folder outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def last_lines(text: str) -> str:
    """A program's last words, in one line."""
    return " ".join(" ".join(text.splitlines()[-3:]).split()) or "it wrote nothing"


def parse_env_file(text: str) -> dict[str, str]:
    """Lines `NAME=VALUE`, as of os-release."""
    return {
        name: value.strip().strip('"')
        for name, equals, value in (line.partition("=") for line in text.splitlines())
        if equals
    }


def readers() -> int:
    """The group that may read the log and the state: `USER`'s, or root's where cloud-init did not make it."""
    try:
        return grp.getgrnam(USER).gr_gid
    except KeyError:
        return 0


def boot_id(machine: Machine) -> str:
    try:
        return machine.path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
