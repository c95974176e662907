"""Names that only a test knows, for programs that ask the system's resolver.

They see another /etc/hosts than the rest of this machine: a mount of their own, which ends with them.
"""

from __future__ import annotations

from pathlib import Path

HOSTS = Path("/etc/hosts")

ENTER = f'mount --bind "$0" {HOSTS} && exec "$@"'


class Hosts:
    """This machine's names and the test's.

    Attributes:
        around: what a program that shall know them is started by (`Cli.around`); takes root.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, str] = {}
        file.write_text(HOSTS.read_text().rstrip("\n") + "\n")
        file.chmod(0o644)
        self.around = ("unshare", "--mount", "sh", "-c", ENTER, str(file))

    def add(self, name: str, address: str) -> None:
        """Have a name lead to an address, also for programs that run already."""
        if self._known.get(name) != address:
            assert name not in self._known, f"{name} leads to {self._known[name]} already"
            self._known[name] = address
            # Never made anew: what is mounted is this very file.
            with self._file.open("a") as file:
                file.write(f"{address} {name}\n")

    def find(self, name: str) -> str:
        """Where a name leads to; empty where there is no such name."""
        return self._known.get(name, "")
