"""Running the command line in a process of its own, as a person or a CI job does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gridup_node.image import BASE_IMAGE

REPOSITORY = Path(__file__).parent.parent.parent
LONGEST = 600


@dataclass(frozen=True)
class Ended:
    """How one run ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def ok(self) -> Ended:
        """Itself, when it ended well."""
        assert self.code == 0, f"exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"
        return self


@dataclass
class Cli:
    """`gridup` with one GRIDUP_HOME; no terminal, unless a test gives it one.

    Attributes:
        around: a program that starts it, with its arguments: for who must see this machine otherwise.
    """

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    around: tuple[str, ...] = ()

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GRIDUP_", "PULUMI_"))}
        paths = os.pathsep.join([str(REPOSITORY / "infra"), str(REPOSITORY / "cli")])
        return {
            **kept,
            "PYTHONPATH": paths,
            "GRIDUP_HOME": str(self.home),
            # What the tests make bears the tag; the digest that a node's image begins with is the registry's.
            "GRIDUP_BASE_IMAGE": BASE_IMAGE,
            **self.environment,
            **(extra or {}),
        }

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-m", "gridup"]

    def __call__(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout: float = LONGEST,
    ) -> Ended:
        ended = subprocess.run(
            [*self.around, *self.argv, *words],
            env=self.env(env),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.home.parent,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """The same, under way; in a process group of its own."""
        return subprocess.Popen(
            [*self.around, *self.argv, *words],
            env=self.env(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home.parent,
            start_new_session=True,
        )

    def deploy(self, name: str = "Inst", *words: str) -> Ended:
        return self("deploy", "--name", name, *words).ok()

    def destroy_all(self) -> None:
        """Take away whatever the test left, so that the next one finds the machine as it was."""
        if not (self.home / "state").exists():
            return
        for row in self("status", "--no-probe", "--json").ok().json:
            self("destroy", row["name"], "--yes", "--wait-lock", "60").ok()

    def node(self, stack: str = "inst") -> Path:
        """The folder of a local node."""
        return self.home / "nodes" / stack
