"""Users' own ssh keys on a machine (`--ssh-key`). They log in as a user without sudo and Docker.

That user owns its home and can put anything there, even a link to a file of root. So all reading and writing
there runs as that user. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gridup_node.vm.docker_cli import Completed, Failed, run

USER = "gridup-user"
UID = 10003
"""Different from the uid of the user with sudo and from that of the node's programs."""

HOME = f"/home/{USER}"

SSHD_OURS = "10-gridup.conf"
"""A file in sshd's folder on a cloud machine. It allows only the user with sudo."""

SSHD = "11-gridup-user.conf"
SSHD_FOLDER = "/etc/ssh/sshd_config.d"
ALLOWED = f"AllowUsers {USER}\n"
"""sshd combines several such lines (sshd_config(5))."""

LONGEST = 256 * 1024
"""How many bytes of the user's authorized_keys are read."""

WRITE = """\
set -eu; umask 077; chmod 0700 "$1"; cd "$1"
if [ -L .ssh ] || ! [ -d .ssh ]; then rm -rf .ssh; mkdir .ssh; fi
chmod 0700 .ssh; cd .ssh; rm -rf .keys.new
if [ -d authorized_keys ]; then rm -rf authorized_keys; fi
cat >.keys.new; mv -fT .keys.new authorized_keys
"""
"""A script that runs as `USER`. Whatever that user put there can affect only that user."""

READ_SECONDS = 15.0
"""For reading a file. It may be a pipe that nobody writes to."""


class People:
    """The user `USER` on this machine, managed with the rights of the user with sudo.

    Args:
        folder: sshd's own; tests pass their own.
        run: see `docker_cli.run`.
    """

    def __init__(self, folder: Path = Path(SSHD_FOLDER), run: Callable[..., Completed] = run) -> None:
        self._folder, self._run = folder, run

    def problems(self, keys: Sequence[str]) -> list[str]:
        """Return the differences from what `lay` writes, a line each."""
        there = self._there()
        if not keys and there != UID:
            return []
        found = []
        if there != UID:
            found.append(f"ssh: there is no user {USER} of the node's")
        else:
            if self._keys() != set(keys):
                found.append(f"ssh: the keys of who may enter as {USER} were changed")
            if self._groups() != [USER]:
                found.append(f"ssh: the user {USER} was made a member of other groups")
        if not self._let_in():
            found.append(f"ssh: sshd does not let {USER} in any more")
        return found

    def lay(self, keys: Sequence[str]) -> None:
        """Give access to exactly these keys. The user is created with the first key, and stays.

        Raises:
            Failed: access can't be given; none of the keys has access.
        """
        if not self.problems(keys):
            return
        if (there := self._there()) != UID:
            self._make(there)
        if self._groups() != [USER]:
            self._must(["usermod", "--groups", "", USER])
        lines = "".join(f"{key}\n" for key in keys)
        self._must(["sh", "-c", WRITE, "keys", HOME], f"--user={USER}", input=lines.encode())
        if not self._let_in():
            file = str(self._folder / SSHD)
            self._must(["install", "--mode=0644", "/dev/stdin", file], input=ALLOWED.encode())
            self._must(["/usr/sbin/sshd", "-t"])
            self._must(["systemctl", "try-reload-or-restart", "ssh.service"])
        if keys and (why := self._in_the_way()):
            raise Failed(
                f"The machine's sshd would not let {USER} in by key: {why}.",
                f"Gridup changes nothing of sshd there. Have it let {USER} in, and deploy again.",
            )

    def _there(self) -> int | None:
        """Return the user's id; None if the user does not exist."""
        words = self._run(["getent", "passwd", USER]).text.strip().split(":")
        return int(words[2]) if words[0] == USER and words[2].isdecimal() else None

    def _make(self, there: int | None) -> None:
        owner = self._run(["getent", "passwd", str(UID)]).text.partition(":")[0].strip()
        if there is not None or owner:
            what = f"a user {USER} of its own" if there is not None else f"a user {owner} with the id {UID}"
            raise Failed(
                f"The machine has {what}, so that --ssh-key can't let anybody in.",
                "Remove or renumber that user, or leave --ssh-key away.",
            )
        # No password at all: sshd without PAM treats an account with a locked password as closed.
        words = [
            f"--uid={UID}",
            "--user-group",
            f"--home-dir={HOME}",
            "--create-home",
            "--key=HOME_MODE=0700",
        ]
        self._must(["useradd", *words, "--shell=/bin/bash", "--password=*", "--comment=Gridup", USER])

    def _keys(self) -> set[str]:
        read = ["head", f"--bytes={LONGEST}", f"{HOME}/.ssh/authorized_keys"]
        argv = ["sudo", "--non-interactive", f"--user={USER}", *read]
        done = self._run(argv, timeout=READ_SECONDS)
        return set(done.text.splitlines()) if done.code == 0 else set()

    def _groups(self) -> list[str]:
        return self._run(["id", "-nG", USER]).text.split()

    def _let_in(self) -> bool:
        """Return whether sshd allows the user. True if sshd's settings are not Gridup's."""
        if not (self._folder / SSHD_OURS).exists():
            return True
        try:
            return (self._folder / SSHD).read_text(encoding="utf-8") == ALLOWED
        except OSError:
            return False

    def _in_the_way(self) -> str:
        asked = ["/usr/sbin/sshd", "-T", "-C", f"user={USER},host=localhost,addr=127.0.0.1"]
        return in_the_way(self._run(["sudo", "--non-interactive", *asked]).text, USER, {USER})

    def _must(self, argv: Sequence[str], *how: str, **more: Any) -> None:
        done = self._run(["sudo", "--non-interactive", *how, *argv], **more)
        if done.code != 0:
            raise Failed(f"The keys of --ssh-key could not be let in to the machine: {done.line}.")


def in_the_way(told: str, user: str, groups: set[str]) -> str:
    """Return the sshd setting that prevents a user's login by key; empty for none.

    Args:
        told: the output of `sshd -T -C user=USER,…`.
        groups: the user's groups.
    """
    rows: dict[str, list[str]] = {}
    for line in told.splitlines():
        name, _, value = line.partition(" ")
        rows.setdefault(name, []).extend(value.split())
    users = rows.get("allowusers", [])
    allowed = rows.get("allowgroups", [])
    keyed = rows.get("authorizedkeysfile", [".ssh/authorized_keys"])
    if users and not {user, "*"} & set(users):
        return f"AllowUsers {' '.join(users)}"
    if allowed and not {*groups, "*"} & set(allowed):
        return f"AllowGroups {' '.join(allowed)}"
    if user in rows.get("denyusers", []):
        return f"DenyUsers {user}"
    if rows.get("pubkeyauthentication") == ["no"]:
        return "PubkeyAuthentication no"
    if not any(file in (".ssh/authorized_keys", "%h/.ssh/authorized_keys") for file in keyed):
        return f"AuthorizedKeysFile {' '.join(keyed)}"
    return ""
