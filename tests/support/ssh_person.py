"""A person with an ssh of their own, and machines that let them in.

OpenSSH finds ~/.ssh by the password file, not by HOME: so their settings are handed to the real `ssh` by a
script of that name, which stands first on their PATH.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gridup_infra.paths import ensure_private
from gridup_node.vm.user_data import HEADER, to_yaml
from support.system import must


class Person:
    """Somebody with a key.

    Attributes:
        known_hosts: theirs.
        public_key: a line.
    """

    def __init__(self, folder: Path) -> None:
        if not shutil.which("ssh"):
            pytest.skip("no ssh (Debian's package openssh-client)")
        self.folder = ensure_private(folder)
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.touch()
        self.key = folder / "id_ed25519"
        must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        self.public_key = self.key.with_suffix(".pub").read_text().strip()
        self.bin = ensure_private(folder / "bin")
        config = folder / "config"
        config.write_text(
            f"Host *\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
        )
        script = self.bin / "ssh"
        script.write_text(f'#!/bin/sh\nexec "{shutil.which("ssh")}" -F "{config}" "$@"\n')
        script.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.pathsep.join([str(self.bin), os.environ["PATH"]])}


def machine_for(**people: tuple[str, bool]) -> bytes:
    """User-data of an ordinary machine: people, each with their key, and whether they may use sudo."""
    users = [
        {
            "name": name,
            "shell": "/bin/bash",
            "ssh_authorized_keys": [key],
            **({"sudo": "ALL=(ALL) NOPASSWD:ALL"} if sudo else {}),
        }
        for name, (key, sudo) in people.items()
    ]
    # As any machine has its own name: sudo asks the name servers for one that it does not find.
    return f"{HEADER}users: {to_yaml(users)}\nmanage_etc_hosts: true\n".encode()
