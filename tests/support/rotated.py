"""What opens a node: remembered before its secrets are replaced, and tried again afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridup_infra.processes import Result, run, wait_until
from support.cli import Cli
from support.knock import knock
from support.local_node import client

ADMIN = "admin@example.org"
HER, HERS = "grace@inst.example", "Flow-Matic-1959"
WORK = {"dataset": "Births", "her": HER, "hers": HERS}


@dataclass
class Opened:
    """A node, and all that opens it.

    Attributes:
        node: whose.
        folder: for what is kept of it.
        keys: where the deployer has its ssh keys, once it has logged in.
        tls: whether it has a CA of its own.
        told: what `knock` remembers.
        login: somebody who is logged in by ssh.
        runtime, left: with the real client, and what `leave_work.py` told, where work was left on it.
    """

    node: Cli
    folder: Path
    keys: Path
    tls: bool
    told: dict[str, Any]
    login: subprocess.Popen[str]
    runtime: Path | None = None
    left: dict[str, Any] | None = None

    @property
    def former(self) -> Path:
        return self.folder / "former"

    def knock(self, **more: Any) -> dict[str, Any]:
        """What of all that opens the node."""
        ca = str(ca_of(self.node, self.folder)) if self.tls else ""
        opens: dict[str, Any] = knock(self.node, {**self.told, "begin": False, "ca": ca, **more})["opens"]
        return opens

    def ssh(self, *options: str) -> Result:
        """Log in with the key and the host key that are remembered."""
        host, _, port = self.told["ssh"].rpartition(":")
        words = ["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-p", port, *options]
        words += ["-o", f"UserKnownHostsFile={self.former / 'known_hosts'}"]
        words += ["-i", str(self.former / "client_ed25519"), f"{self.told['user']}@{host}", "true"]
        return run([*self.node.around, "ssh", *words], timeout=60)


def ca_of(node: Cli, folder: Path) -> Path:
    path = folder / "ca.pem"
    path.write_text(node("outputs", "Inst", "--ca").ok().out)
    return path


@contextlib.contextmanager
def opened(
    node: Cli, folder: Path, *, keys: Path, tls: bool, runtime: Path | None = None
) -> Iterator[Opened]:
    """Open a node that is deployed in every way.

    Args:
        folder, keys, tls: see `Opened`.
        runtime: with the real client, to leave work on it.
    """
    former = folder / "former"
    former.mkdir()
    trusted = ca_of(node, former) if tls else None
    login = node.start("ssh", "Inst", "--", "sh", "-c", "id -un; sleep 600")
    try:
        assert login.stdout is not None
        user = login.stdout.readline().strip()
        for name in ("client_ed25519", "known_hosts"):
            shutil.copy(keys / name, former / name)
        shown = node("outputs", "Inst", "--show-secrets", "--json").ok().json
        left = client(node, runtime, "leave_work.py", trusted=trusted, **WORK) if runtime else None
        told = {
            "url": shown["api_url"].removesuffix("/api/v2"),
            "jupyter": shown["jupyter_url"],
            "ssh": shown["ssh_address"],
            "user": user,
            "ca": str(trusted or ""),
            "email": shown["admin_email"],
            "password": shown["admin_password"],
            "token": shown["jupyter_token"],
            "others": {HER: HERS} if runtime else {},
        }
        made = Opened(node, folder, keys, tls, {}, login, runtime, left)

        def all_opens() -> bool:
            made.told = knock(node, {**told, "begin": True})
            opens: dict[str, Any] = made.told["opens"]
            return opens == all_open(made)

        # On a busy machine a part of the node may be slow.
        assert wait_until(all_opens, timeout=120, every=2), made.told["opens"]
        assert made.ssh().ok
        yield made
    finally:
        # Its ssh too: who reads what that would write waits as long as it runs.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(login.pid, signal.SIGKILL)
        login.communicate()


def all_open(before: Opened) -> dict[str, Any]:
    """What `knock` tells of a node that takes all of it."""
    return {
        **dict.fromkeys((before.told["email"], *before.told["others"]), True),
        **dict.fromkeys(("token", "portal", "notebook"), True),
        "keys": [True] * len(before.told["keys"]),
    }


def check_replaced(
    before: Opened, *, host_key: bool = True, locked: bool = False, own_ca: bool = True
) -> None:
    """All that is remembered opens nothing any more, what took its place does, and the work is there.

    Args:
        host_key: whether the one that ssh shows was replaced too.
        locked: whether other accounts were.
        own_ca: whether its CA, where it has one, is its own.
    """
    node = before.node
    shut = before.knock()
    assert shut.pop(HER, not locked) is not locked
    assert shut == {
        **dict.fromkeys((before.told["email"], "token", "portal", "notebook"), False),
        "keys": [False] * len(before.told["keys"]),
    }
    refused = before.ssh()
    assert not refused.ok
    assert ("verification failed" in refused.stderr) == host_key, refused.stderr
    anyway = before.ssh("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
    assert "Permission denied" in anyway.stderr, anyway.stderr
    assert wait_until(lambda: before.login.poll() is not None, timeout=60), "a login outlived its key"
    if before.tls and own_ca:
        fetch = ["curl", "--noproxy", "*", "--silent", "--show-error", f"{before.told['url']}/login"]
        page = run([*node.around, *fetch, "--cacert", str(before.former / "ca.pem")], timeout=60)
        assert "certificate" in page.stderr, page.stderr
    check_new(before, locked=locked)


def check_new(before: Opened, *, locked: bool = False) -> None:
    """The secrets as they are now open the node, and all that was left on it is there."""
    node = before.node
    shown = node("outputs", "Inst", "--show-secrets", "--json").ok().json
    now = {"password": shown["admin_password"], "token": shown["jupyter_token"]}
    if before.runtime and before.left:
        trusted = ca_of(node, before.folder) if before.tls else None
        told = {**WORK, "job": before.left["job"], "locked": locked}
        found = client(node, before.runtime, "find_work.py", trusted=trusted, **told)
        assert found == {
            "data": 600_000.0,
            "mock": 300_000.0,
            "hers": "refused",
            "result": 600_000.0,
            "requests": ["APPROVED", "APPROVED", "PENDING"],
            "approved": 2.0,
            "waiting": 2.0,
            "id": before.left["id"],
        }
    assert before.knock(**now, begin=True) == all_open(before)
    assert node("ssh", "Inst", "--", "true").ok()
