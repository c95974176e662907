"""Scripts with the real syft client, each in a process of its own that has it imported already.

They are copies of one process for each worker, Python and network.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from gridup_infra.processes import Result

SCRIPTS = Path(__file__).parent.parent / "gridup_node" / "scripts"
START_SECONDS = 180.0
"""Until syft is imported, on a machine that is busy."""

_standing_by: dict[tuple[Path, int], _StandBy] = {}


def run_script(
    python: Path, script: str, *words: str | Path, env: Mapping[str, str], timeout: float, told: bytes = b""
) -> Result:
    """Run one of `SCRIPTS` to its end.

    Args:
        words: its arguments.
        env: its whole environment.
        timeout: seconds.
        told: its stdin.

    Raises:
        TimeoutError: it took longer.
    """
    network = Path("/proc/thread-self/ns/net")
    key = (python, network.stat().st_ino if network.exists() else 0)
    found = _standing_by.get(key)
    if found is None or found.ended:
        found = _standing_by[key] = _StandBy(python)
    return found.run([str(SCRIPTS / script), *map(str, words)], told, env, timeout)


class _StandBy:
    def __init__(self, python: Path) -> None:
        self._python, self._lock = python, threading.Lock()
        # Of no test's environment: each script is told its own.
        env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
        argv = [python, SCRIPTS / "stand_by.py"]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=env
        )
        atexit.register(self._process.kill)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def run(self, argv: list[str], told: bytes, env: Mapping[str, str], timeout: float) -> Result:
        with self._lock, tempfile.TemporaryDirectory() as folder:
            files = {name: str(Path(folder) / name) for name in ("stdin", "stdout", "stderr")}
            Path(files["stdin"]).write_bytes(told)
            asked = {"argv": argv, "environment": dict(env), **files}
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            pid = self._said("pid", START_SECONDS)
            try:
                code = self._said("code", timeout)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                self._said("code", 60)
                raise TimeoutError(f"{argv[0]} did not end within {timeout:g} s") from None
            out, err = (Path(files[name]).read_text(errors="replace") for name in ("stdout", "stderr"))
            return Result((str(self._python), *argv), code, out, err)

    def _said(self, what: str, seconds: float) -> int:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise TimeoutError(what)
        return int(json.loads(self._process.stdout.readline())[what])
