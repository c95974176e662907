"""The node's Python environment on this machine: syft, JupyterLab, Supervisor and Caddy.

All nodes with the same lock and Python share it, and it belongs to no stack. It counts as built only with its
marker file, which is written last. A half-built environment is built again.
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
from datetime import datetime, timezone
from pathlib import Path

from gridup_infra import room
from gridup_infra.errors import ResourceError
from gridup_infra.locking import locked
from gridup_infra.paths import ensure_private
from gridup_infra.processes import run, stream
from gridup_infra.uv import UNTRUSTED_HINT, environment, untrusted, uv, without_accounts
from gridup_node import catalog

BUILD_SECONDS = 1800
"""How long uv may take: it downloads about 250 MB and writes 800 MB."""

NEEDED_BYTES = 1_500_000_000
"""Free space that the build needs: the environment has 820 MB, and its compiled bytecode 180 MB."""

CACHED_BYTES = 900_000_000
"""Free space that uv's cache needs on another disk. On the same disk, both share the files."""

PYTHON_BYTES = 200_000_000
"""Free space for a Python that uv installs."""

MARKER = "complete.json"

ADDED = "packages.txt"
"""File in an environment: the lock of the packages that the data owner has added."""


@dataclass(frozen=True)
class Runtime:
    """A built environment.

    Attributes:
        path: the folder of the environment.
        stamp: a value that changes with every build, so that services on an older build restart.
        python: the version of the interpreter.
    """

    path: Path
    stamp: str
    python: str

    @property
    def bin(self) -> Path:
        return self.path / "bin"


def lock_digest(lock: Path, rebuilt: str = "", added: str = "") -> str:
    """Return the part of a runtime's key that identifies its packages and its last requested rebuild.

    Args:
        lock: the lock of syft's packages.
        rebuilt: when the user last requested a rebuild.
        added: the lock of the packages that the data owner adds.
    """
    return hashlib.sha256(lock.read_bytes() + rebuilt.encode() + added.encode()).hexdigest()[:12]


def built(stamp: str) -> str:
    """Return when an environment was built (ISO 8601), from its stamp; empty if the stamp is not a time."""
    try:
        seconds = int(stamp, 16) / 1e9
    except ValueError:
        return ""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def python_request() -> str:
    """Return the Python to request from uv: GRIDUP_NODE_PYTHON, else this interpreter, else a version range.

    This interpreter is requested only if a node can run on it.
    """
    given = os.environ.get("GRIDUP_NODE_PYTHON")
    if given:
        return given
    oldest, newest = catalog.PYTHONS
    if oldest <= sys.version_info[:2] <= newest:
        return sys.executable
    return f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"


def python_here() -> str:
    """Return the path of this machine's interpreter for nodes; empty if it has none."""
    request = python_request()
    if request == sys.executable:
        return request
    return run(
        [uv(), "python", "find", "--no-project", request], timeout=60, env=environment()
    ).stdout.strip()


def find_python() -> tuple[str, str]:
    """Return the interpreter for nodes, and its `major.minor`. If there is none, uv installs one (slow).

    Raises:
        ResourceError: there is none and uv could not install one, or a node can't run on it.
    """
    request, path = python_request(), python_here()
    if path == sys.executable:
        return path, _version(path)
    # uv can't install a Python that is requested by its path.
    if not path and os.sep not in request:
        run([uv(), "python", "install", _newest()], timeout=600, env=environment())
        path = python_here()
    if not path:
        here = ".".join(map(str, sys.version_info[:2]))
        raise ResourceError(
            f"A node needs Python {catalog.pythons()}; this one is {here}, "
            "and no other could be found or fetched.",
            f"Install Python {_newest()}, or name one: GRIDUP_NODE_PYTHON=/path/to/python{_newest()}",
        )
    version = _version(path)
    if tuple(int(part) for part in version.split(".") or "0") not in _allowed():
        raise ResourceError(
            f"A node needs Python {catalog.pythons()}; {request} is {version or 'not a Python'}.",
            f"Name another one: GRIDUP_NODE_PYTHON=/path/to/python{_newest()}",
        )
    return path, version


def _version(python: str) -> str:
    if python == sys.executable:
        return f"{sys.version_info[0]}.{sys.version_info[1]}"
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return run([python, "-c", code], timeout=30, env=environment()).stdout.strip()


def needs(runtimes: Path, lock: Path, rebuilt: str = "", added: str = "") -> tuple[room.Need, ...]:
    """Return the disk space for building the environment of `lock`; none if it exists. Downloads nothing."""
    python = python_here()
    if python and load(runtime_path(runtimes, lock, _version(python), rebuilt, added)):
        return ()
    made = [_need(runtimes)]
    cache = _uv_folder("cache")
    if room.disk(cache) != room.disk(runtimes):
        made.append(room.Need("uv's cache", CACHED_BYTES, cache))
    if not python:
        made.append(room.Need(f"Python {_newest()}", PYTHON_BYTES, _uv_folder("python")))
    return tuple(made)


def _need(runtimes: Path) -> room.Need:
    return room.Need("the node's Python environment", NEEDED_BYTES, runtimes)


def _uv_folder(kind: str) -> Path:
    """Return uv's folder of this kind: `cache`, or `python` for the interpreters that uv has installed."""
    return Path(run([uv(), kind, "dir"], timeout=60, env=environment()).stdout.strip()).absolute()


def runtime_path(runtimes: Path, lock: Path, version: str, rebuilt: str = "", added: str = "") -> Path:
    """Return the folder of the environment of `lock` for that Python, built or not; see `lock_digest`."""
    abi = "cp" + version.replace(".", "")
    platform = sysconfig.get_platform().replace(".", "_")
    return runtimes / f"{lock.stem}-{lock_digest(lock, rebuilt, added)}-{abi}-{platform}"


def load(path: Path) -> Runtime | None:
    """Return the environment in `path`; None if it is missing, half-built or damaged."""
    try:
        marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
        if not (path / "bin" / "python").exists():
            return None
        if _listing(path) != marker["listing"]:
            return None
        return Runtime(path, marker["stamp"], marker["python"])
    except (OSError, ValueError, KeyError):
        return None


def ensure(
    runtimes: Path, lock: Path, say: Callable[[str], None], rebuilt: str = "", added: str = ""
) -> Runtime:
    """Return the environment of `lock`; build it if it does not exist. See `lock_digest`.

    Raises:
        ResourceError: the build failed, and its files are deleted; or the environment is damaged and in use.
    """
    python, version = find_python()
    path = runtime_path(runtimes, lock, version, rebuilt, added)
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
        if path.exists() and (pid := user(path)):
            raise ResourceError(
                f"The node's environment {path} is damaged, and process {pid} runs on it.",
                "Stop this machine's nodes (`gridup status` lists them), and run the same command again.",
            )
        shutil.rmtree(path, ignore_errors=True)
        try:
            return _build(path, lock, python, version, say, added)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise


def _build(
    path: Path, lock: Path, python: str, version: str, say: Callable[[str], None], added: str
) -> Runtime:
    if lack := room.lacking([_need(path.parent)]):
        raise ResourceError(lack, room.MAKE_ROOM)
    say(f"making a Python {version} environment")
    made = run([uv(), "venv", "--no-project", "--python", python, path], timeout=120, env=environment())
    if not made.ok:
        raise ResourceError(f"uv could not make the node's environment: {' '.join(made.tail(1))}")
    say("installing syft and JupyterLab")
    _install(path, lock, say)
    if added:
        names = dict.fromkeys(pin.partition("==")[0] for pin in catalog.pins_of(added))
        say(f"installing {', '.join(names) or 'no further packages'}")
        owners = path / ADDED
        owners.write_text(added, encoding="utf-8")
        _install(path, owners, say, "--no-build")
    marker = {
        "python": version,
        "stamp": f"{time.time_ns():x}",
        "listing": _listing(path),
    }
    (path / MARKER).write_text(json.dumps(marker), encoding="utf-8")
    found = load(path)
    if found is None:
        raise ResourceError(f"The node's environment in {path} is not whole right after its making.")
    return found


def _install(path: Path, lock: Path, say: Callable[[str], None], *options: str) -> None:
    """Install a lock with uv, without resolving dependencies.

    The lock is complete. Some of its versions are newer than syft's own pins (see the lock's overrides).

    Raises:
        ResourceError: uv could not install it.
    """
    argv = [uv(), "pip", "install", "--require-hashes", "--no-deps", "--compile-bytecode", *options]
    argv += ["--python", str(path / "bin" / "python"), "-r", str(lock)]
    try:
        installed = stream(
            argv,
            lambda line: say(without_accounts(line.strip())),
            timeout=BUILD_SECONDS,
            env=environment(),
        )
    except TimeoutError as error:
        raise ResourceError(f"The node's environment was not ready in time: {error}.") from None
    if not installed.ok:
        raise _install_error(installed.stdout, path)


def _install_error(output: str, path: Path) -> ResourceError:
    lines = [line.strip() for line in without_accounts(output).splitlines() if line.strip()]
    text = " ".join(lines)
    if "No space left" in text or "os error 28" in text:
        return ResourceError(
            f"The disk of {path.parent} is full.",
            room.MAKE_ROOM,
        )
    if cause := untrusted(lines):
        return ResourceError(
            f"The certificate of the package index is not trusted here: {cause[:200]}", UNTRUSTED_HINT
        )
    causes = [line for line in lines if "error" in line.lower() or "failed" in line.lower()] or lines[-1:]
    return ResourceError(
        f"uv could not install the node's packages: {causes[0] if causes else 'no reason given'}",
        "Is the package index reachable? HTTPS_PROXY, SSL_CERT_FILE and UV_INDEX_URL are honoured.",
        tuple(lines[-5:]),
    )


def _listing(path: Path) -> list[str]:
    """Return the top-level names of packages and programs: cheap to compare, and reveals most damage."""
    names = [name for name in os.listdir(path / "bin") if not name.startswith("__")]  # noqa: PTH208
    for packages in sorted(path.glob("lib/python3.*/site-packages")):
        names += [name for name in os.listdir(packages) if name != "__pycache__"]  # noqa: PTH208
    return sorted(names)


def _allowed() -> tuple[tuple[int, int], ...]:
    (major, oldest), (_, newest) = catalog.PYTHONS
    return tuple((major, minor) for minor in range(oldest, newest + 1))


def _newest() -> str:
    return ".".join(map(str, catalog.PYTHONS[1]))


def user(path: Path) -> int:
    """Return the id of a process that runs in an environment; 0 if there is none."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if words[0].startswith(f"{path}{os.sep}"):
            return int(process.pid)
    return 0


def folders(runtimes: Path) -> Iterator[Path]:
    """Yield the folder of each environment, complete or not."""
    if runtimes.is_dir():
        yield from sorted(path for path in runtimes.iterdir() if path.is_dir())
