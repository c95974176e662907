"""Installs a cloud's SDK from its lock at its first use, into the Python environment that runs Gridup.

The base installation contains no SDK. If two runs need an SDK at the same time, only one installs it. A run
that is killed leaves a marker file. It shows the next run that a package may be incomplete.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import operator
import os
import platform
import re
import shlex
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from gridup_infra.errors import BusyError, SetupError
from gridup_infra.locking import locked

INSTALL_SECONDS = 900.0
"""Time limit for uv, which downloads about 20 MB."""

FOLDER = ".gridup"
"""Folder next to the packages, for the process lock and the marker files of running installations."""

NO_NETWORK = re.compile(
    r"failed to fetch|failed to download|error sending request|dns error|name resolution|"
    r"connection (refused|reset|error|timed out)|network is unreachable|not found in the package registry|"
    r"timed out|tunnel",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Pin:
    """One line of a lock file: a distribution, its version, its environment marker (empty: everywhere)."""

    name: str
    version: str
    marker: str


def ensure(extra: str, say: Callable[[str], None]) -> None:
    """Install the packages of `extra` if any is missing; else take milliseconds and start no process.

    Args:
        extra: the name of a lock file in requirements/; empty for none.
        say: called with one line for each step.

    Raises:
        SetupError: the packages could not be installed.
    """
    if not extra or installed(extra):
        return
    lock, mark = lock_of(extra), _mark(extra)
    pins = list(read(lock.read_text(encoding="utf-8")))
    try:
        with _exclusive(mark.with_name("lock"), extra, say):
            # Another run may have installed them meanwhile.
            broken_off = _is_there(mark)
            if broken_off or (lacking := missing(pins)):
                mark.touch()
                _install(lock, extra, pins if broken_off else lacking, say, again=broken_off)
                mark.unlink()
    except OSError as error:
        raise _not_writable(extra, lock, error.strerror or str(error)) from None
    # The import system caches the folder's content from before the installation.
    importlib.invalidate_caches()


def installed(extra: str) -> bool:
    """Return whether all packages of `extra` are installed, in the versions of its lock file."""
    return not _is_there(_mark(extra)) and not missing(read(lock_of(extra).read_text(encoding="utf-8")))


def _mark(extra: str) -> Path:
    """Return the path of the marker file of an installation that has begun and not ended."""
    return Path(sysconfig.get_path("purelib")) / FOLDER / f"{extra}.installing"


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return False  # The environment belongs to another user, and only that user installs into it.


def lock_of(extra: str) -> Path:
    """Return the lock file of an extra: next to this module in a wheel, in requirements/ in a checkout."""
    own = Path(__file__).parent
    packaged = own / "locks" / f"{extra}.txt"
    return packaged if packaged.exists() else own.parents[2] / "requirements" / f"{extra}.txt"


def read(text: str) -> Iterator[Pin]:
    """Return the pins of a lock file that uv wrote."""
    for found in re.finditer(r"^([\w.-]+)==([^\s;]+)(?: *; *([^\\\n]*[^\\\s]))?", text, re.MULTILINE):
        yield Pin(found[1], found[2], found[3] or "")


def missing(pins: Iterable[Pin]) -> list[Pin]:
    """Return the pins that apply to this Python and are not installed in exactly that version."""
    return [pin for pin in pins if _version(pin.name) != pin.version and marker_matches(pin.marker)]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, KeyError):
        return None  # KeyError: an incomplete package, without its metadata.


def marker_matches(marker: str) -> bool:
    """Return whether an environment marker (PEP 508) is true here. Supports the markers that uv writes.

    Raises:
        SetupError: the marker can't be parsed or is not supported.
    """
    try:
        return not marker or _holds(ast.parse(marker, mode="eval").body)
    except (SyntaxError, KeyError, TypeError, ValueError):
        raise SetupError(f"The lock has a marker that can't be read: {marker}.") from None


_OPERATORS: dict[type[ast.cmpop], Callable[[tuple[object, ...], tuple[object, ...]], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def _holds(node: ast.expr) -> bool:
    # A marker is also a valid Python expression, so Python's parser can read it. It is never executed.
    if isinstance(node, ast.BoolOp):
        return (all if isinstance(node.op, ast.And) else any)(map(_holds, node.values))
    if not isinstance(node, ast.Compare) or len(node.ops) != 1:
        raise ValueError("not a comparison")
    left, right = node.left, node.comparators[0]
    if not isinstance(left, ast.Name) or not isinstance(right, ast.Constant):
        raise ValueError("not a variable and a text")
    here, wanted = _variables()[left.id], str(right.value)
    if left.id in ("python_version", "python_full_version"):
        return _OPERATORS[type(node.ops[0])](_numbers(here), _numbers(wanted))
    return _OPERATORS[type(node.ops[0])]((here,), (wanted,))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _variables() -> dict[str, str]:
    """Return the PEP 508 variables that lock files use."""
    return {
        "python_version": ".".join(map(str, sys.version_info[:2])),
        "python_full_version": ".".join(map(str, sys.version_info[:3])),
        "implementation_name": sys.implementation.name,
        "platform_python_implementation": platform.python_implementation(),
        "sys_platform": sys.platform,
        "os_name": os.name,
        "platform_system": platform.system(),
        "platform_machine": platform.machine(),
    }


@contextlib.contextmanager
def _exclusive(path: Path, extra: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the installation lock. If another run holds it, report that and wait."""
    what = f"installing the packages of {extra}"
    with contextlib.ExitStack() as stack:
        try:
            try:
                stack.enter_context(locked(path, what, wait=0, busy="Waiting for another run"))
            except BusyError as error:
                say(error.message.rstrip("."))
                busy = f"The packages of {extra} are still not there"
                stack.enter_context(locked(path, what, wait=INSTALL_SECONDS, busy=busy))
        except BusyError as error:
            raise SetupError(error.message, "End that process, then run the same command again.") from None
        yield


def _install(lock: Path, extra: str, pins: list[Pin], say: Callable[[str], None], *, again: bool) -> None:
    from gridup_infra import uv
    from gridup_infra.processes import run

    names = ", ".join(pin.name for pin in pins)
    say(f"Installing the packages of {extra}, once: {names}")
    argv = [uv.uv(), "pip", "install", "--quiet", "--require-hashes", "--compile-bytecode"]
    # The lock file also lists all dependencies. Nothing else may change in the environment that runs Gridup.
    argv += ["--no-deps", "--python", sys.executable, "--requirements", str(lock)]
    if again:
        argv += [word for pin in pins for word in ("--reinstall-package", pin.name)]
    try:
        result = run(argv, timeout=INSTALL_SECONDS, env=uv.environment())
    except TimeoutError as error:
        raise SetupError(f"The packages of {extra} were not there in time: {error}.") from None
    if not result.ok:
        raise _error(extra, f"{result.stderr}\n{result.stdout}", lock)


def _error(extra: str, text: str, lock: Path) -> SetupError:
    from gridup_infra import uv

    lines = [line.strip(" │╰─▶├×") for line in text.splitlines() if line.strip(" │╰─▶├×")]

    def first(pattern: str) -> str:
        return tidy(next((line for line in lines if re.search(pattern, line, re.IGNORECASE)), ""))

    def tidy(found: str) -> str:
        line = re.sub(r"^((error|warning|cause|caused by):\s*)+", "", found, flags=re.IGNORECASE)
        return uv.without_accounts(line)[:200]

    if cause := first(r"no space left|os error 28|disk quota exceeded"):
        return SetupError(f"There is no room for the packages of {extra}: {cause}.", "Free some space.")
    if cause := first(r"externally managed|permission denied|read-only file system"):
        return _not_writable(extra, lock, cause)
    if cause := first(r"hash mismatch|do not match the hashes"):
        return SetupError(
            f"The package index gave something else for {extra} than the lock names: {cause}",
            "Nothing of it was installed. Is a mirror in between (PIP_INDEX_URL, UV_DEFAULT_INDEX)?",
        )
    if cause := tidy(uv.untrusted(lines)):
        return SetupError(
            f"The certificate of the package index is not trusted here: {cause}", uv.UNTRUSTED_HINT
        )
    if cause := first(NO_NETWORK.pattern):
        return SetupError(
            f"The packages of {extra} could not be fetched: {cause}",
            "Is there a network? HTTPS_PROXY, SSL_CERT_FILE, PIP_INDEX_URL, UV_DEFAULT_INDEX are honoured.",
        )
    return SetupError(f"The packages of {extra} could not be installed.", _by_hand(lock), tuple(lines[-4:]))


def _not_writable(extra: str, lock: Path, why: str) -> SetupError:
    folder = sysconfig.get_path("purelib")
    return SetupError(f"The packages of {extra} can't be installed into {folder}: {why}.", _by_hand(lock))


def _by_hand(lock: Path) -> str:
    words = [
        "uv",
        "pip",
        "install",
        "--python",
        sys.executable,
        "--require-hashes",
        "--requirement",
        str(lock),
    ]
    return f"By hand, as its owner: {shlex.join(words)}"
