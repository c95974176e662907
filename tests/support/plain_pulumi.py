"""Plain `pulumi` as a person runs it: in bash, with what `gridup env` prints and nothing else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.cli import LONGEST, REPOSITORY, Cli, Ended

SCRIPT = 'eval "$1" && shift && exec pulumi --non-interactive "$@"'
PASSED = ("HOME", "LANG", "TMPDIR", "USER", "SSL_CERT_FILE", "UV_CACHE_DIR")


@dataclass
class Plain:
    """`pulumi` for the nodes of one GRIDUP_HOME.

    Attributes:
        language_host: the folder of the suite's own, for PATH.
    """

    cli: Cli
    language_host: Path
    _exports: dict[str, str] = field(default_factory=dict)

    def exports(self, name: str = "Inst") -> str:
        """What a person would hand to `eval`, once in a shell's life."""
        if name not in self._exports:
            self._exports[name] = self.cli("env", name).ok().out
        return self._exports[name]

    def __call__(
        self,
        *words: str,
        name: str = "Inst",
        exports: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path = REPOSITORY,
        timeout: float = LONGEST,
    ) -> Ended:
        ended = subprocess.run(
            ["bash", "-c", SCRIPT, "bash", self.exports(name) if exports is None else exports, *words],
            env={**self.environment(), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in PASSED if name in os.environ}
        return {**kept, "PATH": os.pathsep.join([str(self.language_host), os.environ["PATH"]])}
