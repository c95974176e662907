"""The sandbox's service on a folder of its own, in any of its shells, with little memory for each job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from gridup_infra.processes import wait_until
from gridup_node.sandbox import client, shells
from gridup_node.sandbox.client import Failed, Request
from gridup_node.sandbox.outcome import Failure

ROOT = Path(__file__).parents[2]
MEMORY = 300 << 20

SERVE = """
import os
import sys
from pathlib import Path
from gridup_node.sandbox import confining
from gridup_node.sandbox.supervisor import Setting, Supervisor
if "NO_LANDLOCK" in os.environ:
    confining.landlock = lambda: 0
name, folder, temporary, own, memory = sys.argv[1:]
Path(temporary).mkdir(mode=0o700, exist_ok=True)
Supervisor(Setting(Path(folder), Path(temporary), name, own == "True", int(memory))).serve()
"""


@dataclass
class Heard:
    """Hears what a job tells, and answers what it asks with what it was asked."""

    text: str = ""
    questions: list[Any] = field(default_factory=list)

    def printed(self, text: str) -> None:
        self.text += text

    def asked(self, what: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        self.questions.append((what, list(args), dict(kwargs)))
        return self.questions[-1]


@dataclass
class Sandbox:
    """The service."""

    folder: Path
    process: subprocess.Popen[bytes]

    def run(self, body: str, *, seconds: float = 60, heard: Heard | None = None, **arguments: Any) -> Any:
        """What `def f(ARGUMENTS): BODY` returns there; how it failed, where it has not returned."""
        names = ", ".join(arguments)
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        request = Request(f"def f({names}):\n{lines}\n", "f", arguments)
        try:
            return client.run(self.folder, request, heard or Heard(), seconds=seconds)
        except Failed as error:
            return error.failure

    def failure(self, body: str, **more: Any) -> Failure:
        found = self.run(body, **more)
        assert isinstance(found, Failure), found
        return found


def shell(name: str, folder: Path) -> shells.Shell:
    """One of those that might work here.

    Raises:
        LookupError: it does not.
    """
    with mock.patch.object(shells, "TRY_SECONDS", 120):
        for one in shells.candidates(folder):
            if one.name == name and shells.works(one):
                return one
    raise LookupError(name)


@contextmanager
def sandbox(
    home: Path,
    name: str = "",
    python: Path = Path(sys.executable),
    memory: int = MEMORY,
    *,
    landlock: bool = True,
) -> Iterator[Sandbox]:
    """The service in the shell `name`, for a while; without `landlock` as on a kernel that has none."""
    folder = home / "jobs"
    folder.mkdir(mode=0o700, parents=True)
    around = shell(name, folder)
    env = {**shells.environment(os.environ), "PYTHONPATH": str(ROOT / "infra")}
    if not landlock:
        env["NO_LANDLOCK"] = "yes"
    words = [name, around.folder, around.temporary, str(around.own), str(memory)]
    process = subprocess.Popen(
        [*around.argv, python, "-c", SERVE, *words],
        env=env,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert wait_until(lambda: (folder / "socket").exists(), timeout=60)
        yield Sandbox(folder, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
