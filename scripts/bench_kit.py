"""Shared code of the benchmark's groups: running gridup from a clone, and measuring a program."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "infra"), str(ROOT / "cli")]

from gridup_infra.uv import uv  # noqa: E402
from gridup_node.image import BASE_IMAGE  # noqa: E402
from support.cache import engine_in, runtime_in, test_cache  # noqa: E402

HAGRID = "0.3.124"
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class Bench:
    """One run: a temporary GRIDUP_HOME with the shared engine and runtime, and hagrid's environment."""

    def __init__(self, folder: Path, repeat: int) -> None:
        self.repeat = repeat
        self.folder = folder
        self.cache = test_cache()
        self.engine = engine_in(self.cache)
        self.home = folder / "home"
        self.home.mkdir(mode=0o700)
        for shared in ("engine", "runtimes"):
            (self.home / shared).symlink_to(self.cache / shared)
        # Run it like scripts/gridup does: an isolated interpreter of an environment with Gridup's folders.
        self.gridup = [sys.executable, "-m", "gridup"]

    @cached_property
    def runtime(self) -> Path:
        return runtime_in(self.cache)

    @cached_property
    def hagrid(self) -> Path:
        return _hagrid(self.cache)

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GRIDUP_", "PULUMI_"))}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        return {
            **kept,
            "GRIDUP_HOME": str(self.home),
            # The images of the test rigs have only the tag, no digest.
            "GRIDUP_BASE_IMAGE": BASE_IMAGE,
            "PYTHONPATH": f"{ROOT / 'infra'}:{ROOT / 'cli'}",
            "PATH": f"{self.engine / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self, *words: str, **more: str) -> float:
        """Return the seconds that `gridup WORDS` takes."""
        return seconds([*self.gridup, *words], {**self.env, **more})

    def in_turns(self, **what: Callable[[], float]) -> dict[str, float]:
        """Return the median of each function, measured in turns so that a slow moment affects all of them."""
        found: dict[str, list[float]] = {name: [] for name in what}
        for _ in range(self.repeat):
            for name, measure in what.items():
                found[name].append(measure())
        return {name: round(statistics.median(values), 3) for name, values in found.items()}


def seconds(argv: list[str], env: Mapping[str, str], cwd: Path | None = None) -> float:
    began = time.perf_counter()
    subprocess.run(argv, env=dict(env), cwd=cwd, check=True, **QUIET)  # type: ignore[call-overload]
    return time.perf_counter() - began


def ratio(figures: dict[str, float], ours: str, theirs: float, limit: float) -> dict[str, Any]:
    return {**figures, "ratio": round(figures[ours] / theirs, 3), "limit": limit}


BARE = """
import os, sys
from pulumi import automation as auto
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider
import bare_provider
def program():
    bare_provider.Thing("thing")
stack = auto.create_or_select_stack("bare", "bare", program, opts=auto.LocalWorkspaceOptions(
    pulumi_command=auto.PulumiCommand(sys.argv[1])))
stack.up()
"""
PROVIDER = """
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider
class Provider(ResourceProvider):
    serialize_as_secret_always = False
    def create(self, props):
        return CreateResult("one", props)
    def diff(self, _id, olds, news):
        return DiffResult(changes=False)
class Thing(Resource, module="bare", name="Thing"):
    def __init__(self, name):
        super().__init__(Provider(), name, {"a": 1})
"""


def bare_up(bench: Bench, *, new: bool) -> float:
    """Return the seconds of an inline up of one dynamic resource, including the interpreter's start."""
    folder = bench.folder / "bare"
    state = folder / "state"
    if new:
        shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True, exist_ok=True)
    (folder / "bare_provider.py").write_text(PROVIDER)
    (folder / "bare.py").write_text(BARE)
    env = {
        **bench.env,
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE": "bare",
        "PULUMI_SKIP_UPDATE_CHECK": "1",
        "PULUMI_PYTHON_CMD": sys.executable,
        "PYTHONPATH": str(folder),
    }
    if not new and not any(state.iterdir()):
        seconds([sys.executable, str(folder / "bare.py"), str(bench.engine)], env)
    return seconds([sys.executable, str(folder / "bare.py"), str(bench.engine)], env)


def started(argv: list[Any], env: Mapping[str, str], url: str) -> tuple[float, float]:
    began = time.perf_counter()
    process = subprocess.Popen(argv, env=dict(env), start_new_session=True, **QUIET)  # type: ignore[call-overload]
    try:
        while not answers(url):
            if process.poll() is not None or time.perf_counter() - began > 120:
                raise SystemExit(f"{argv[0]} did not start")
            time.sleep(0.05)
        took = time.perf_counter() - began
        time.sleep(3)
        return took, pss_mb(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def pss_mb(pid: int) -> float:
    """Return the memory of a process and its descendants in MB, with shared pages counted once."""
    top = psutil.Process(pid)
    total = 0
    for process in [top, *top.children(recursive=True)]:
        memory = process.memory_full_info()
        total += getattr(memory, "pss", memory.uss)
    return round(total / 1e6, 1)


def peak_mb(argv: list[str], env: Mapping[str, str]) -> float:
    """Return the highest resident memory of a process in MB, without its children."""
    process = subprocess.Popen(argv, env=dict(env), **QUIET)  # type: ignore[call-overload]
    peak = 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.005)
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(argv)} failed")
    return round(peak / 1e3, 1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _hagrid(cache: Path) -> Path:
    """Return hagrid's program in its own environment, which is created if it is missing."""
    folder = cache / f"hagrid-{HAGRID}"
    if not (folder / "bin" / "hagrid").exists():
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        subprocess.run([uv(), "venv", "-q", "--python", sys.executable, folder], check=True, env=env)
        packages = [f"hagrid=={HAGRID}", "setuptools<81"]
        argv = [uv(), "pip", "install", "-q", "--compile-bytecode", "--python", folder / "bin" / "python"]
        subprocess.run([*argv, *packages], check=True, env=env)
    return folder / "bin" / "hagrid"
