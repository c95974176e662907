"""When a machine's own updates may restart it, and whether a restart is due.

Debian's unattended-upgrades installs security updates each day. Kernel updates take effect at the next boot.
It restarts the machine if its setting Automatic-Reboot is true, at the hour of Automatic-Reboot-Time.
Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gridup_node.vm.docker_cli import Completed, Failed, run

FILE = "/etc/apt/apt.conf.d/90gridup-reboot"
"""apt reads its files by name, and the last one wins. The name of the distribution's own begins with 50."""

REQUIRED = "/run/reboot-required"
PACKAGES = f"{REQUIRED}.pkgs"
"""Debian's packages create these files: a restart is due, and the packages that need it."""

DUE = ("sh", "-c", f"test -e {REQUIRED} && echo due && sort -u {PACKAGES} 2>/dev/null | head -n 20")
"""Command for the machine's user. Prints `due` and the packages, a line each, or nothing."""


def settings(at: str) -> str:
    """Return the text of the file.

    Args:
        at: `HH:MM` by the machine's clock; empty for never.
    """
    rows = {"Automatic-Reboot": "true" if at else "false"}
    if at:
        # Do not wait for logged-in users: whoever works there at that hour chose it.
        rows |= {"Automatic-Reboot-WithUsers": "true", "Automatic-Reboot-Time": at}
    return "".join(f'Unattended-Upgrade::{name} "{value}";\n' for name, value in rows.items())


def parse(text: str) -> tuple[str, ...] | None:
    """Return the packages that need a restart, from the output of `DUE`; None if no restart is due."""
    first, *packages = text.split() or [""]
    return tuple(sorted(set(packages))) if first == "due" else None


class Updates:
    """The setting on this machine, managed with the rights of the user with sudo.

    Args:
        file: the path of the setting; tests pass their own.
        run: see `docker_cli.run`.
    """

    def __init__(self, file: Path = Path(FILE), run: Callable[..., Completed] = run) -> None:
        self._file, self._run = file, run

    def problems(self, at: str | None) -> list[str]:
        """Return the differences from what `lay` writes, a line each.

        Args:
            at: see `settings`; None if the machine's updates are not the node's to set.
        """
        if at is None:
            return []
        try:
            same = self._file.read_text(encoding="utf-8") == settings(at)
        except OSError:
            same = False
        return [] if same else ["when the machine's updates may restart it is not set as it was"]

    def lay(self, at: str | None) -> None:
        """Write the setting. Do nothing if it is right already.

        Raises:
            Failed: the setting can't be written.
        """
        if at is None or not self.problems(at):
            return
        argv = ["sudo", "--non-interactive", "install", "--mode=0644", "/dev/stdin", str(self._file)]
        done = self._run(argv, input=settings(at).encode())
        if done.code != 0:
            raise Failed(f"When the machine's updates may restart it could not be set: {done.line}.")
