"""Speed and memory, as ratios within one run: what is compared is measured in turns on the same machine.

Each line of the result has the figures, their ratio, and the limit that it should keep. Nothing
here passes or fails: a busy machine is not a defect.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "infra"), str(ROOT / "cli")]

from gridup_infra.targets.local.runtime import uv  # noqa: E402
from support.cache import engine_in, runtime_in, test_cache  # noqa: E402

HAGRID = "0.3.124"
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class Bench:
    """One run: a throw-away GRIDUP_HOME on the shared engine and runtime, and the peer's environment."""

    def __init__(self, folder: Path, repeat: int) -> None:
        self.repeat = repeat
        cache = test_cache()
        self.engine = engine_in(cache)
        self.runtime = runtime_in(cache)
        self.hagrid = _hagrid(cache)
        self.home = folder / "home"
        self.home.mkdir(mode=0o700)
        for shared in ("engine", "runtimes"):
            (self.home / shared).symlink_to(cache / shared)
        self.folder = folder
        # As scripts/gridup runs it: an isolated interpreter of an environment that knows our folders.
        self.gridup = [sys.executable, "-m", "gridup"]

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GRIDUP_", "PULUMI_"))}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        return {
            **kept,
            "GRIDUP_HOME": str(self.home),
            "PYTHONPATH": f"{ROOT / 'infra'}:{ROOT / 'cli'}",
            "PATH": f"{self.engine / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self, *words: str, **more: str) -> float:
        """Seconds that `gridup WORDS` takes."""
        return seconds([*self.gridup, *words], {**self.env, **more})

    def in_turns(self, **what: Callable[[], float]) -> dict[str, float]:
        """The median of each, measured in turns so that a slow moment hits all alike."""
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


def bench_help(bench: Bench) -> dict[str, Any]:
    """`gridup --help` beside `hagrid --help`."""
    found = bench.in_turns(
        gridup=lambda: bench.run("--help"), hagrid=lambda: seconds([str(bench.hagrid), "--help"], bench.env)
    )
    return ratio(found, "gridup", found["hagrid"], 0.5)


def bench_help_memory(bench: Bench) -> dict[str, Any]:
    ours = peak_mb([*bench.gridup, "--help"], bench.env)
    return {"gridup_mb": ours, "hagrid_mb": peak_mb([str(bench.hagrid), "--help"], bench.env), "limit_mb": 60}


def bench_status(bench: Bench) -> dict[str, Any]:
    """`gridup status` of one node, probes apart, beside `pulumi stack output`."""
    raw = subprocess.run(
        [*bench.gridup, "env", "Bench", "--json"], env=bench.env, capture_output=True, check=True
    ).stdout
    plain = {**bench.env, **json.loads(raw)}
    pulumi = [str(bench.engine / "bin" / "pulumi"), "stack", "output", "-s", "bench"]
    found = bench.in_turns(
        status=lambda: bench.run("status", "--no-probe"),
        pulumi_stack_output=lambda: seconds(pulumi, plain, ROOT),
    )
    return ratio(found, "status", found["pulumi_stack_output"], 2.0)


def bench_check(bench: Bench, full: bool) -> dict[str, Any]:
    """`gridup check` of hosts with nothing on them: within the timeout plus 0.5 s, however many."""
    found: dict[str, Any] = {}
    with black_hole() as port:
        for count in (1, 20):
            words = ["check", *[f"127.0.0.1:{port}"] * count, "--timeout", "2"]
            began = time.perf_counter()
            subprocess.run([*bench.gridup, *words], env=bench.env, check=False, **QUIET)  # type: ignore[call-overload]
            found[f"{count * 5}_endpoints"] = round(time.perf_counter() - began, 3)
    found["limit"] = 2.5
    if full:
        began = time.perf_counter()
        subprocess.run([bench.hagrid, "check", "127.0.0.1"], env=bench.env, check=False, **QUIET)  # type: ignore[call-overload]
        found["hagrid"] = round(time.perf_counter() - began, 3)
    return found


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield server.getsockname()[1]


def bench_deploy(bench: Bench) -> dict[str, Any]:
    """A deploy with a warm runtime until all answers, beside a bare inline up and the bare server's start."""

    def ours() -> float:
        took = bench.run("deploy", "--name", "Bench")
        bench.run("destroy", "Bench", "--yes")
        return took

    found = bench.in_turns(
        deploy=ours, bare_up=lambda: bare_up(bench, new=True), bare_syft=lambda: bare_syft(bench)[0]
    )
    return ratio(found, "deploy", found["bare_up"] + found["bare_syft"], 1.3)


def bench_no_change(bench: Bench) -> dict[str, Any]:
    """A deploy that changes nothing, beside a bare inline up that changes nothing."""
    found = bench.in_turns(
        deploy=lambda: bench.run("deploy", "--name", "Bench"), bare_up=lambda: bare_up(bench, new=False)
    )
    return ratio(found, "deploy", found["bare_up"], 1.3)


def bench_deploy_memory(bench: Bench) -> dict[str, Any]:
    """The command line's own peak during a first deploy."""
    return {"mb": peak_mb([*bench.gridup, "deploy", "--name", "Bench"], bench.env), "limit_mb": 150}


def bench_node_memory(bench: Bench) -> dict[str, Any]:
    """A running node beside the bare server and JupyterLab, in proportional set size."""
    supervisor = int((bench.home / "nodes" / "bench" / "supervisord.pid").read_text())
    time.sleep(5)
    node = pss_mb(supervisor)
    parts = {
        Path(p.exe()).name + str(i): pss_mb(p.pid)
        for i, p in enumerate(psutil.Process(supervisor).children())
    }
    # Beside the running node the bare ones would share its pages, and seem smaller than they are.
    bench.run("stop", "Bench")
    _, syft = bare_syft(bench)
    jupyter = bare_jupyter(bench)
    figures = {"node_mb": node, **parts, "bare_syft_mb": syft, "bare_jupyter_mb": jupyter}
    return ratio(figures, "node_mb", syft + jupyter, 1.2)


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
    """Seconds of an inline up of one dynamic resource, from the interpreter's start."""
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


def bare_syft(bench: Bench) -> tuple[float, float]:
    """Seconds until syft's own server answers, and its memory in MB then."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    port, queue = free_port(), free_port()
    env = {
        **bench.env,
        "SYFT_NAME": "bare",
        "SYFT_SERVER_TYPE": "datasite",
        "SYFT_DEV_MODE": "False",
        "SYFT_RESET": "False",
        "SYFT_DB_URL": f"sqlite:///{folder}/node.db",
        "SYFT_PROCESSES": "0",
        "SYFT_N_CONSUMERS": "1",
        "SYFT_CREATE_PRODUCER": "True",
        "SYFT_QUEUE_PORT": str(queue),
        "SERVER_UID": os.urandom(16).hex(),
        "SERVER_PRIVATE_KEY": os.urandom(32).hex(),
        "TMPDIR": str(folder),
    }
    argv = [bench.runtime / "bin" / "uvicorn", "--factory", "syft.server.uvicorn:app_factory"]
    return started([*argv, "--port", str(port)], env, f"http://127.0.0.1:{port}/api/v2/metadata")


def bare_jupyter(bench: Bench) -> float:
    """JupyterLab's memory in MB."""
    port = free_port()
    argv = [bench.runtime / "bin" / "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}"]
    env = {**bench.env, "JUPYTER_TOKEN": "bare", "HOME": str(bench.folder)}
    return started(argv, env, f"http://127.0.0.1:{port}/api")[1]


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
    """Memory of a process and all below it, shared pages counted once."""
    top = psutil.Process(pid)
    total = 0
    for process in [top, *top.children(recursive=True)]:
        memory = process.memory_full_info()
        total += getattr(memory, "pss", memory.uss)
    return round(total / 1e6, 1)


def peak_mb(argv: list[str], env: Mapping[str, str]) -> float:
    """The highest resident memory of the process itself, its children apart."""
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
    """The peer, in an environment of its own."""
    folder = cache / f"hagrid-{HAGRID}"
    if not (folder / "bin" / "hagrid").exists():
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        subprocess.run([uv(), "venv", "-q", "--python", sys.executable, folder], check=True, env=env)
        packages = [f"hagrid=={HAGRID}", "setuptools<81"]
        argv = [uv(), "pip", "install", "-q", "--compile-bytecode", "--python", folder / "bin" / "python"]
        subprocess.run([*argv, *packages], check=True, env=env)
    return folder / "bin" / "hagrid"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="how often each is measured")
    parser.add_argument("--full", action="store_true", help="also hagrid's check of an empty host: 5 minutes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gridup-bench-") as folder:
        bench = Bench(Path(folder), options.repeat)
        result: dict[str, Any] = {
            "cpus": os.cpu_count(),
            "load": os.getloadavg()[0],
            "repeat": options.repeat,
        }
        result["help_seconds"] = bench_help(bench)
        result["help_peak_memory"] = bench_help_memory(bench)
        result["check_nothing_there_seconds"] = bench_check(bench, options.full)
        result["deploy_seconds"] = bench_deploy(bench)
        result["deploy_peak_memory"] = bench_deploy_memory(bench)
        try:
            result["no_change_deploy_seconds"] = bench_no_change(bench)
            result["status_seconds"] = bench_status(bench)
            result["node_memory"] = bench_node_memory(bench)
        finally:
            bench.run("destroy", "Bench", "--yes")
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
