"""A machine behind ssh: a real sshd of the tests' own, and a person whose `ssh` knows the way to it.

OpenSSH finds ~/.ssh by the password file, not by HOME: so the person's settings are handed to the real
`ssh` by a script of that name, which stands first on their PATH.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from gridup_infra.paths import ensure_private
from gridup_infra.processes import wait_until, which
from support.workers import free_port

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
"""The second is this machine too, but no name of it that anything takes for here."""

ALIASES = {"machine": HERE, "elsewhere": ELSEWHERE}


class Machine:
    """An sshd that lets this user in by key, on a port of its own.

    Attributes:
        port: its port, on both addresses.
        bin: the folder of the person's `ssh`; goes first on PATH.
        config: the person's ~/.ssh/config. Knows the hosts of `ALIASES`.
        known_hosts: theirs.
        log: the server's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = ensure_private(folder)
        self.port = free_port(HERE)
        self.bin = ensure_private(folder / "bin")
        self.config = folder / "config"
        self.known_hosts = folder / "known_hosts"
        self.log = folder / "log"
        self._key = folder / "id_ed25519"
        self._host_key = folder / "host_ed25519"
        self._server: subprocess.Popen[bytes] | None = None
        for path in (self._key, self._host_key):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        self._write_person()

    @property
    def path(self) -> str:
        """The person's PATH."""
        return os.pathsep.join([str(self.bin), os.environ["PATH"]])

    def start(
        self, settings: Mapping[str, str] | None = None, files: Mapping[str, Path] | None = None
    ) -> None:
        """Start it, with further lines of sshd_config.

        Args:
            files: files of the system, and what its logins have in their place; takes root.
        """
        program = which("sshd")
        if program is None or not shutil.which("ssh"):
            pytest.skip("no sshd or no ssh (Debian's packages openssh-server and openssh-client)")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        lines = {
            "Port": str(self.port),
            "HostKey": str(self._host_key),
            "AuthorizedKeysFile": str(self._key.with_suffix(".pub")),
            "AuthenticationMethods": "publickey",
            "UsePAM": "no",
            "PidFile": "none",
            "StrictModes": "no",
            **(settings or {}),
        }
        text = [f"{key} {value}" for key, value in lines.items()]
        text += [f"ListenAddress {address}" for address in (HERE, ELSEWHERE)]
        (self.folder / "sshd_config").write_text("\n".join(text) + "\n")
        words = [program, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.log)]
        for path, own in (files or {}).items():
            bound = ["sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(own), path]
            words = [*bound, *words]
        if files:
            words = ["unshare", "--mount", *words]
        self._server = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
        assert wait_until(self._greets, timeout=120), self.log.read_text()

    def stop(self) -> None:
        """End it, with all that is logged in."""
        if self._server is not None:
            # It has not been waited for yet: it is there, though it may have ended.
            for process in psutil.Process(self._server.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._server.kill()
            self._server.wait()
            self._server = None

    def restart(self, settings: Mapping[str, str]) -> None:
        self.stop()
        self.start(settings)

    def __enter__(self) -> Machine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def clients(self) -> list[psutil.Process]:
        """The person's ssh processes."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if process.name() == "ssh" and str(self.config) in words:
                    found.append(process)
        return found

    def guards(self) -> list[psutil.Process]:
        """What watches over them."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if "parent_guard.py" in line and f"{self.bin}/" in line:
                    found.append(process)
        return found

    def nothing_runs(self) -> bool:
        """Whether all of the person's tunnels have ended."""
        return wait_until(lambda: not self.clients() and not self.guards(), timeout=120)

    def _write_person(self) -> None:
        public = self._host_key.with_suffix(".pub").read_text()
        self.known_hosts.write_text("".join(f"[{a}]:{self.port} {public}" for a in ALIASES.values()))
        hosts = "".join(f"Host {name}\n  HostName {address}\n" for name, address in ALIASES.items())
        self.config.write_text(
            f"{hosts}"
            # The person is logged in there already, with a forward of their own that can be had but once.
            f"Host {' '.join(ALIASES)}\n"
            f"  Port {self.port}\n"
            f"  User {getpass.getuser()}\n"
            f"  LocalForward {HERE}:{self.port} {HERE}:{self.port}\n"
            "Host *\n"
            f"  IdentityFile {self._key}\n"
            "  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known_hosts}\n"
            "  GlobalKnownHostsFile /dev/null\n"
            "  ControlMaster auto\n"
            f"  ControlPath {self.folder}/%n\n"
            "  ControlPersist 60\n"
            "  LogLevel QUIET\n"
        )
        script = self.bin / "ssh"
        script.write_text(f'#!/bin/sh\nexec "{shutil.which("ssh")}" -F "{self.config}" "$@"\n')
        script.chmod(0o755)

    def _greets(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HERE, self.port), timeout=2) as probe:
            return probe.recv(4) == b"SSH-"
        return False
