"""The node's Python environment on this machine: syft, JupyterLab, Supervisor and Caddy.

It is shared by all nodes with the same lock and Python, belongs to no stack, and counts as
there only with the marker that is written last; a half-built one is built anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gridup_infra.errors import ResourceError
from gridup_infra.locking import locked
from gridup_infra.packages import environment, uv
from gridup_infra.paths import ensure_private
from gridup_infra.processes import run, stream

NODE_PYTHON = ((3, 10), (3, 12))
"""The oldest and the newest Python that syft 0.9.5 runs on."""

BUILD_SECONDS = 1800
"""How long uv may take: some 250 MB to download and 800 MB to write."""

NEEDED_BYTES = 1_500_000_000
"""Free space for an environment of 810 MB and its compiled bytecode."""

MAKE_ROOM = (
    "Free some space (`gridup prune` removes unused environments), or set GRIDUP_HOME to another disk."
)

MARKER = "complete.json"


@dataclass(frozen=True)
class Runtime:
    """A built environment.

    Attributes:
        path: its folder.
        stamp: changes with every build, so that what ran on an older one restarts.
        python: the version of its interpreter.
    """

    path: Path
    stamp: str
    python: str

    @property
    def bin(self) -> Path:
        return self.path / "bin"


def lock_digest(lock: Path) -> str:
    """The part of a runtime's key that stands for its packages."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:12]


def python_request() -> str:
    """What to ask uv for: GRIDUP_NODE_PYTHON, this interpreter when a node runs on it, else any that does."""
    given = os.environ.get("GRIDUP_NODE_PYTHON")
    if given:
        return given
    oldest, newest = NODE_PYTHON
    if oldest <= sys.version_info[:2] <= newest:
        return sys.executable
    return f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"


def find_python() -> tuple[str, str]:
    """The interpreter for nodes, and its `major.minor`.

    Raises:
        ResourceError: there is none, and uv could not bring one.
    """
    request = python_request()
    if request == sys.executable:
        return request, f"{sys.version_info[0]}.{sys.version_info[1]}"
    result = run([uv(), "python", "find", "--no-project", request], timeout=60, env=environment())
    if not result.ok:
        # uv may bring one where the network lets it.
        fetched = run([uv(), "python", "install", _newest()], timeout=600, env=environment())
        if fetched.ok:
            result = run([uv(), "python", "find", "--no-project", request], timeout=60, env=environment())
    path = result.stdout.strip()
    if not result.ok or not path:
        here = ".".join(map(str, sys.version_info[:2]))
        raise ResourceError(
            f"A node needs Python {_range()}; this one is {here}, and no other could be found or fetched.",
            f"Install Python {_newest()}, or name one: GRIDUP_NODE_PYTHON=/path/to/python{_newest()}",
        )
    asked = run(
        [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], timeout=30, env=environment()
    )
    version = asked.stdout.strip()
    if tuple(int(part) for part in version.split(".") or "0") not in _allowed():
        raise ResourceError(
            f"A node needs Python {_range()}; {request} is {version or 'not a Python'}.",
            f"Name another one: GRIDUP_NODE_PYTHON=/path/to/python{_newest()}",
        )
    return path, version


def runtime_path(runtimes: Path, lock: Path, version: str) -> Path:
    """Where the environment of `lock` for that Python lies, built or not."""
    abi = "cp" + version.replace(".", "")
    platform = sysconfig.get_platform().replace(".", "_")
    return runtimes / f"{lock.stem}-{lock_digest(lock)}-{abi}-{platform}"


def load(path: Path) -> Runtime | None:
    """The environment in `path`; None when it is missing, half-built or damaged."""
    try:
        marker = json.loads((path / MARKER).read_text())
        if not (path / "bin" / "python").exists():
            return None
        if _listing(path) != marker["listing"]:
            return None
        return Runtime(path, marker["stamp"], marker["python"])
    except (OSError, ValueError, KeyError):
        return None


def ensure(runtimes: Path, lock: Path, say: Callable[[str], None]) -> Runtime:
    """The environment of `lock`, built when it is not there.

    Raises:
        ResourceError: it could not be built; nothing half-built stays.
    """
    python, version = find_python()
    path = runtime_path(runtimes, lock, version)
    found = load(path)
    if found:
        return found
    ensure_private(runtimes)
    with locked(
        path.with_name(f".{path.name}.lock"),
        "a build of the node's environment",
        wait=BUILD_SECONDS,
        busy=f"The node's environment {path.name} is being built",
    ):
        found = load(path)
        if found:
            return found
        shutil.rmtree(path, ignore_errors=True)
        try:
            return _build(path, lock, python, version, say)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise


def _build(path: Path, lock: Path, python: str, version: str, say: Callable[[str], None]) -> Runtime:
    free = shutil.disk_usage(path.parent).free
    if free < NEEDED_BYTES:
        raise ResourceError(
            f"The node's environment needs {NEEDED_BYTES / 1e9:.1f} GB; {free / 1e9:.1f} GB are free "
            f"in {path.parent}.",
            MAKE_ROOM,
        )
    say(f"making a Python {version} environment")
    made = run([uv(), "venv", "--no-project", "--python", python, path], timeout=120, env=environment())
    if not made.ok:
        raise ResourceError(f"uv could not make the node's environment: {' '.join(made.tail(1))}")
    say("installing syft and JupyterLab")
    argv = [uv(), "pip", "install", "--require-hashes", "--compile-bytecode"]
    argv += ["--python", str(path / "bin" / "python"), "-r", str(lock)]
    try:
        installed = stream(argv, lambda line: say(line.strip()), timeout=BUILD_SECONDS, env=environment())
    except TimeoutError as error:
        raise ResourceError(f"The node's environment was not ready in time: {error}.") from None
    if not installed.ok:
        raise _install_error(installed.stdout, path)
    marker = {
        "python": version,
        "stamp": f"{time.time_ns():x}",
        "listing": _listing(path),
    }
    (path / MARKER).write_text(json.dumps(marker))
    found = load(path)
    if found is None:
        raise ResourceError(f"The node's environment in {path} is not whole right after its making.")
    return found


def _install_error(output: str, path: Path) -> ResourceError:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    text = " ".join(lines)
    if "No space left" in text or "os error 28" in text:
        return ResourceError(
            f"The disk of {path.parent} is full.",
            MAKE_ROOM,
        )
    causes = [line for line in lines if "error" in line.lower() or "failed" in line.lower()] or lines[-1:]
    return ResourceError(
        f"uv could not install the node's packages: {causes[0] if causes else 'no reason given'}",
        "Is the package index reachable? HTTPS_PROXY, SSL_CERT_FILE and UV_INDEX_URL are honoured.",
        tuple(lines[-5:]),
    )


def _listing(path: Path) -> list[str]:
    """The names at the top of its packages and programs: cheap to compare, and shows most damage."""
    names = [name for name in os.listdir(path / "bin") if not name.startswith("__")]  # noqa: PTH208
    for packages in sorted(path.glob("lib/python3.*/site-packages")):
        names += [name for name in os.listdir(packages) if name != "__pycache__"]  # noqa: PTH208
    return sorted(names)


def _allowed() -> tuple[tuple[int, int], ...]:
    (major, oldest), (_, newest) = NODE_PYTHON
    return tuple((major, minor) for minor in range(oldest, newest + 1))


def _range() -> str:
    return " to ".join(".".join(map(str, version)) for version in NODE_PYTHON)


def _newest() -> str:
    return ".".join(map(str, NODE_PYTHON[1]))


def built(runtimes: Path) -> Iterator[Path]:
    """Every folder of an environment, whole or not."""
    if runtimes.is_dir():
        yield from sorted(path for path in runtimes.iterdir() if path.is_dir())
