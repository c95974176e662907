"""Access to a machine by the user's own ssh: for the first contact, when it knows no other key yet."""

from __future__ import annotations

import contextlib
import shlex
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gridup_infra import openssh
from gridup_infra.errors import CredentialsError, GridupError, PreflightError, ResourceError
from gridup_infra.openssh import Configured, Destination
from gridup_infra.processes import Result, run, stream
from gridup_infra.vm.keys import HOST_KEY_TYPE
from gridup_infra.vm.ssh import HostKeyError, SshUnreachableError, fingerprint, host_key_of

Say = Callable[[str], None]

SCAN_SECONDS = 10.0
OTHER_PORT = "--host user@address:2222"

ALIAS = "gridup-machine"
"""The machine's name in the known_hosts file of one call. So the real name and port need no escaping."""

SHELL_SECONDS = 20.0
"""Limit for the check whether a login shell runs commands."""

NO_SUDO, NO_TERMINAL, NO_PYTHON = "no sudo", "no terminal", "no python"

TAKEN_OVER, RUNS = 97, 96
"""Exit codes: of a shell that reads the program's input, and of a shell that runs the command it is given."""

FIRST_LINE = f"exit {TAKEN_OVER}\n".encode()
"""Sent before the input of a program. A shell that has replaced the login shell reads this line as a command,
and exits instead of running the program's input."""

AS_ROOT = "; ".join(
    (
        "read -r line",
        'if [ "$(id -u)" = 0 ]; then :',
        'elif said=$(LC_ALL=C sudo -n true 2>&1 </dev/null); then set -- sudo -n "$@"',
        # The message of sudo, see requiretty in sudoers(5).
        f'else case $said in *"must have a tty"*) why="{NO_TERMINAL}";; *) why="{NO_SUDO}";; esac',
        'echo "{\\"refused\\": \\"$why\\"}"; exit 1',
        f'fi; command -v python3 >/dev/null 2>&1 || {{ echo \'{{"refused": "{NO_PYTHON}"}}\'; exit 1; }}',
        'exec "$@"',
    )
)
"""Runs its arguments as root. Their input is what follows `FIRST_LINE`. It is a single line, because some
login shells do not accept a word of several lines."""

LONGEST_LINE = 200

NO_LOGIN = "account is currently not available"
"""The message of nologin(8)."""


@dataclass(frozen=True)
class UserSsh:
    """The user's own ssh to one machine with a known host key.

    Attributes:
        host: the destination as the user typed it.
        host_key: the key that the machine shows or must show.
        trusted_by_known_hosts: whether only the user's known_hosts vouch for the machine, by a key of another
            type.
        first_contact: whether nothing vouched for the host key before.
    """

    host: str
    destination: Destination
    configured: Configured
    host_key: str
    trusted_by_known_hosts: bool = False
    first_contact: bool = field(default=False, compare=False)

    def run(self, argv: Sequence[str], input: bytes, on_line: Say, timeout: float) -> Result:
        """Run a program on the machine as root; `on_line` also receives ssh's own messages.

        Raises:
            TimeoutError: the program takes longer than `timeout` seconds.
        """
        remote = shlex.join(["sh", "-c", AS_ROOT, "gridup", *argv])
        with self._options() as options:
            words = [*openssh.ssh("-T", options=options), *self.destination.argv(), remote]
            return stream(words, on_line, timeout=timeout, input=FIRST_LINE + input)

    def refused(self, said: Sequence[str], what: str, code: int) -> GridupError:
        """Return the error that explains why there was no answer.

        Args:
            said: the lines that were written instead, by any program.
            what: the reason that `AS_ROOT` reported on the machine; empty for none.
            code: the exit code of the user's ssh.
        """
        user = self.configured.user
        if what == NO_TERMINAL:
            return CredentialsError(
                f"On {self.host} sudo wants a terminal (its setting requiretty), and a program has none.",
                f"`Defaults:{user} !requiretty` there (`sudo visudo`) lifts it for {user}; or --host root@…",
            )
        if what == NO_SUDO:
            return CredentialsError(
                f"On {self.host} you are not root, and sudo asks for a password or is not there.",
                "Name a user who may use sudo without one (NOPASSWD in /etc/sudoers), or --host root@…",
            )
        if what == NO_PYTHON:
            return PreflightError(
                f"{self.host} has no python3.", "Install it there (`sudo apt-get install python3`)."
            )
        if code != openssh.UNREACHED:
            return self._not_run(said, code)
        by_hand = self.destination.shell_command("true")
        why, suggestion = openssh.diagnose(said, by_hand, OTHER_PORT)
        if not self.trusted_by_known_hosts and "ost key verification failed" in why:
            shown = _shown(self.host, self.destination, self.configured)
            return _another(self.host, shown, "that was given, or pinned at first contact")
        kind = CredentialsError if "denied" in why.lower() or "authentication" in why else PreflightError
        return kind(f"{self.host} can't be entered by ssh: {why or 'no answer in time'}.", suggestion)

    def _not_run(self, said: Sequence[str], code: int) -> GridupError:
        """Return the error for a machine that lets the user in, but did not run the program.

        To find the reason, check the login shell alone.
        """
        user = self.configured.user
        accepted = f"{self.host} lets {user} in"
        with self._options() as options:
            # Only the shell's output: without ssh's messages and sshd's banner.
            words = openssh.ssh("-T", options={**options, "LogLevel": "QUIET"})
            words += [*self.destination.argv(), f"exit {RUNS}"]
            try:
                asked = run(words, timeout=SHELL_SECONDS, input=FIRST_LINE)
            except TimeoutError:
                asked = None
        if TAKEN_OVER in (code, asked and asked.code):
            return PreflightError(
                f"{accepted}, but another shell takes over there, and runs nothing of what ssh hands over.",
                "A start-up file of the shell (such as ~/.bashrc) does `exec` it. Have it done on a terminal "
                "only (`[ -t 0 ] && exec …`), or name another user.",
            )
        if asked is None or asked.code == RUNS or asked.code == openssh.UNREACHED:
            return unheard(self.host, said, code)
        lines = [short(line) for line in asked.tail(1)]
        if not lines or NO_LOGIN in lines[0]:
            told = f' It says "{lines[0]}".' if lines else ""
            return CredentialsError(
                f"{accepted}, but the login shell there runs nothing: it is /bin/false, nologin or the like, "
                f"or a start-up file ends it.{told}",
                f"Give {user} a shell there ({shlex.join(['sudo', 'chsh', '-s', '/bin/bash', user])}), "
                "or name another user.",
            )
        return PreflightError(
            f'{accepted}, but something else runs there than what ssh hands over. It says "{lines[0]}".',
            "A start-up file of the shell (such as ~/.bashrc) may `exec` it, or sshd's ForceCommand. Have it "
            "done on a terminal only (`[ -t 0 ] && exec …`), or name another user.",
        )

    @contextlib.contextmanager
    def _options(self) -> Iterator[dict[str, str]]:
        always = {"StrictHostKeyChecking": "yes", "UpdateHostKeys": "no", "ClearAllForwardings": "yes"}
        if self.trusted_by_known_hosts:
            yield always
            return
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", prefix="gridup-known-", suffix=".txt"
        ) as known:
            known.write(f"{ALIAS} {self.host_key}\n")
            known.flush()
            yield always | {
                "HostKeyAlias": ALIAS,
                "HostKeyAlgorithms": HOST_KEY_TYPE,
                "UserKnownHostsFile": f'"{known.name}"',
                "GlobalKnownHostsFile": "/dev/null",
            }


def short(line: str) -> str:
    """Return the end of a line that a machine has written, as much as fits in a message."""
    return line.strip()[-LONGEST_LINE:]


def unheard(host: str, said: Sequence[str], code: int) -> GridupError:
    """Return the error for a program that ran on the machine and gave no answer."""
    last = " ".join(map(short, said[-3:])) or f"exit code {code}"
    return ResourceError(f"The machine's program on {host} ended without a word: {last}.")


def verify_host(host: str, pinned: str = "") -> UserSsh:
    """Check which machine answers; return the user's own ssh to it.

    Args:
        host: `[user@]address[:port]`.
        pinned: the host key that the machine must show. If empty: a key in the user's known_hosts, or any key
            if they have none.

    Raises:
        PreflightError: no machine answers.
        HostKeyError: another machine answers. With `pinned`, only the login itself detects this.
    """
    destination = Destination.read(host)
    configured = Configured.of(destination)
    if pinned:
        # ssh itself checks it. Current servers count connections without a login, and then block the client.
        return UserSsh(host, destination, configured, pinned)
    shown = _shown(host, destination, configured)
    known = _known(configured)
    if shown in known:
        return UserSsh(host, destination, configured, shown)
    if any(line.startswith(f"{HOST_KEY_TYPE} ") for line in known):
        raise _another(host, shown, "in your known_hosts")
    return UserSsh(
        host, destination, configured, shown, trusted_by_known_hosts=bool(known), first_contact=not known
    )


def _shown(host: str, destination: Destination, configured: Configured) -> str:
    way = configured.way(configured.address, configured.port, configured.user)
    try:
        if not way:
            # Only for a direct connection: a jump host may know names that this machine does not know.
            socket.getaddrinfo(configured.address, configured.port, type=socket.SOCK_STREAM)
        return host_key_of(configured.address, configured.port, SCAN_SECONDS, way)
    except socket.gaierror:
        said = f"Could not resolve hostname {configured.address}"
    except SshUnreachableError as error:
        said = "Operation timed out" if error.message == "no answer" else error.message
        said = said[:1].upper() + said[1:]
    why, suggestion = openssh.diagnose([said], destination.shell_command("true"), OTHER_PORT)
    raise PreflightError(f"{host} can't be reached by ssh: {why}.", suggestion)


def _known(configured: Configured) -> list[str]:
    """Return the machine's host keys in the user's known_hosts, each as type and key."""
    found = []
    for file in configured.files:
        for name in configured.names:
            with contextlib.suppress(OSError):
                shown = run(["ssh-keygen", "-F", name, "-f", str(file)], timeout=openssh.ASK_SECONDS)
                for line in shown.stdout.splitlines():
                    words = line.split()
                    if words and not line.startswith("#"):
                        found.append(" ".join(words[-2:] if words[0].startswith("@") else words[1:3]))
    return found


def _another(host: str, shown: str, which: str) -> HostKeyError:
    return HostKeyError(
        f"The host key of {host} is not the one {which}: it shows {fingerprint(shown)}. Another "
        "machine answers, or somebody is in between.",
        'If it was installed anew, give its key: --host-key "ssh-ed25519 …", from '
        "/etc/ssh/ssh_host_ed25519_key.pub there.",
    )
