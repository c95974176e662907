"""When a machine's own updates may restart it, and whether they wait for that.

Debian's unattended-upgrades installs security updates each day; those of the kernel count from the next boot
on. It restarts the machine where its setting Automatic-Reboot says so, at the hour of Automatic-Reboot-Time.
Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gridup_node.vm.docker_cli import Completed, Failed, run

FILE = "/etc/apt/apt.conf.d/90gridup-reboot"
"""Of apt's files the last one counts, by its name; the distribution's own begins with 50."""

REQUIRED = "/run/reboot-required"
PACKAGES = f"{REQUIRED}.pkgs"
"""What Debian's packages leave there: that a restart is due, and which of them need it."""

DUE = ("sh", "-c", f"test -e {REQUIRED} && echo due && sort -u {PACKAGES} 2>/dev/null | head -n 20")
"""Tells the machine's user whether a restart is due: nothing, or `due` and the packages, a line each."""


def settings(at: str) -> str:
    """The file's text.

    Args:
        at: `HH:MM` by the machine's clock; empty for never.
    """
    rows = {"Automatic-Reboot": "true" if at else "false"}
    if at:
        # Nobody is asked: who works there at that hour chose it.
        rows |= {"Automatic-Reboot-WithUsers": "true", "Automatic-Reboot-Time": at}
    return "".join(f'Unattended-Upgrade::{name} "{value}";\n' for name, value in rows.items())


def parse(text: str) -> tuple[str, ...] | None:
    """The packages for whose sake a restart is due, from what `DUE` printed; None where none is."""
    first, *packages = text.split() or [""]
    return tuple(sorted(set(packages))) if first == "due" else None


class Updates:
    """The setting on this machine, as a user sees it who may use sudo.

    Args:
        file: where it lies; tests have a place of their own.
        run: see `docker_cli.run`.
    """

    def __init__(self, file: Path = Path(FILE), run: Callable[..., Completed] = run) -> None:
        self._file, self._run = file, run

    def problems(self, at: str | None) -> list[str]:
        """What is not as `lay` makes it, a line each.

        Args:
            at: see `settings`; None where the machine's updates are not the node's to set.
        """
        if at is None:
            return []
        try:
            same = self._file.read_text(encoding="utf-8") == settings(at)
        except OSError:
            same = False
        return [] if same else ["when the machine's updates may restart it is not set as it was"]

    def lay(self, at: str | None) -> None:
        """Have it so; nothing is done where it is.

        Raises:
            Failed: it can't be.
        """
        if at is None or not self.problems(at):
            return
        argv = ["sudo", "--non-interactive", "install", "--mode=0644", "/dev/stdin", str(self._file)]
        done = self._run(argv, input=settings(at).encode())
        if done.code != 0:
            raise Failed(f"When the machine's updates may restart it could not be set: {done.line}.")
