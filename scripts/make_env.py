"""Creates a Python environment of this checkout: `python -IB scripts/make_env.py cli|dev|audit`.

scripts/lib.sh runs it, with Python 3.10 or newer and only the standard library. It creates the environment in
a new folder, `.venvs/NAME-XXXXXXXX`. Only when the environment is complete, it points the link `.venvs/NAME`
to that folder. So an incomplete environment is never used, even if a process is killed, and programs that
still run in the former environment are not disturbed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "infra"))

from gridup_infra.errors import BusyError, GridupError, SetupError  # noqa: E402
from gridup_infra.locking import locked  # noqa: E402
from gridup_infra.processes import Result, run  # noqa: E402
from gridup_infra.uv import UNTRUSTED_HINT, environment, untrusted  # noqa: E402

VENVS = ROOT / ".venvs"

MINIMAL_UV = (0, 9)
"""The oldest version of the user's own uv that is used. If it is older, Gridup's own uv is used."""

SECONDS = 1800.0
"""How long an installation may take, and how long a run may wait for another one's installation."""

NO_SPACE = ("no space left", "os error 28", "disk quota exceeded")
NO_NETWORK = re.compile(
    r"failed to fetch|failed to download|error sending request|dns error|name resolution|"
    r"connection (refused|reset|error|timed out)|network is unreachable|newconnectionerror|"
    r"no matching distribution|not found in the package registry|timed out|tunnel",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Plan:
    """An environment to create.

    Attributes:
        name: its name in `.venvs`, and its lock's name in `requirements`.
        sources: the folders of the checkout whose modules can be imported in it.
        room: the disk space that its packages need, in bytes.
        whole: whether to install the lock without checking dependencies, because it overrides some of them.
    """

    name: str
    sources: tuple[str, ...]
    room: int
    whole: bool = False

    @property
    def link(self) -> Path:
        return VENVS / self.name

    @property
    def lock(self) -> Path:
        return ROOT / "requirements" / f"{self.name}.txt"

    def made(self, folder: Path) -> str:
        """Return the content of the file `made`, which marks `folder` as complete; lib.sh reads it."""
        return "\n".join([str(folder), sys.executable, os.environ.get("GRIDUP_PYTHON", ""), ""])


PLANS = {
    "cli": Plan("cli", ("infra", "cli"), 250_000_000),
    "dev": Plan("dev", ("infra", "cli", "tests"), 550_000_000),
    "audit": Plan("audit", (), 60_000_000, whole=True),
}


def main(name: str) -> int:
    """Create the environment. Returns the exit code."""
    try:
        ensure(PLANS[name])
    except GridupError as error:
        tell(f"Error: {error.message}", *error.details, error.suggestion)
        return error.exit_code
    except KeyboardInterrupt:
        tell("Interrupted; nothing half-made will be used.")
        return 130
    except OSError as error:
        problem = disk_error(error)
        tell(f"Error: {problem.message}", problem.suggestion)
        return problem.exit_code
    return 0


def tell(*lines: str) -> None:
    sys.stderr.write("".join(f"{line}\n" for line in lines if line))
    sys.stderr.flush()


def ensure(plan: Plan) -> None:
    """Make sure that `.venvs/NAME` links to a complete environment of the current lock and this Python.

    Raises:
        SetupError: the environment could not be created.
        OSError: a file or folder could not be read or written.
    """
    VENVS.mkdir(exist_ok=True)
    with turn(plan):
        remove_leftovers(plan)
        folder = find_made(plan) or build(plan)
        point(plan.link, folder)
        # Programs may still run in the previous environment. Older ones are hardly in use any more.
        others = [path for path in made_folders(plan) if path != folder]
        for path in sorted(others, key=lambda path: (path / "made").stat().st_mtime)[:-1]:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def turn(plan: Plan) -> Iterator[None]:
    """Allow one run at a time. Prints a message if the run has to wait for another one.

    Raises:
        SetupError: the other run did not end in time.
    """
    lock, what = VENVS / ".locks" / plan.name, f"making the Python environment {plan.link}"
    stack = contextlib.ExitStack()
    try:
        try:
            stack.enter_context(locked(lock, what, wait=0, busy="Waiting for another run"))
        except BusyError as error:
            tell(f"{error.message.rstrip('.')} …")
            stack.enter_context(locked(lock, what, wait=SECONDS, busy=f"{plan.link} is not free"))
    except BusyError as error:
        raise SetupError(error.message, "End that process, then run the same command again.") from None
    with stack:
        yield


def made_folders(plan: Plan) -> list[Path]:
    return [path for path in VENVS.glob(f"{plan.name}-*") if (path / "made").is_file()]


def find_made(plan: Plan) -> Path | None:
    """Return a complete environment of the same lock and Python that exists, e.g. from another branch."""
    lock = plan.lock.read_bytes()
    for folder in made_folders(plan):
        python = folder / "bin" / "python"
        made = folder / "made"
        if not (made.read_text(encoding="utf-8") == plan.made(folder) and os.access(python, os.X_OK)):
            continue
        newer = Path(sys.executable).stat().st_mtime > made.stat().st_mtime
        if not newer and (folder / "requirements.txt").read_bytes() == lock:
            return folder
    return None


def remove_leftovers(plan: Plan) -> None:
    """Delete what an interrupted run left behind. This run holds the lock, so no other run uses it."""
    whole = set(made_folders(plan))
    for path in [*VENVS.glob(f"{plan.name}-*"), *VENVS.glob(f".{plan.name}-*")]:
        if path not in whole:
            if path.is_symlink() or path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)


def point(link: Path, folder: Path) -> None:
    """Point `link` to `folder`, atomically."""
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    temporary = link.with_name(f".{link.name}-link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name)
    temporary.replace(link)


def build(plan: Plan) -> Path:
    """Create the environment in a new folder. Deletes the folder on failure."""
    check_room(plan.room)
    began = time.monotonic()
    version = ".".join(map(str, sys.version_info[:3]))
    folder = VENVS / f"{plan.name}-{secrets.token_hex(4)}"
    try:
        uv = find_uv()
        tell(f"Making the Python {version} environment of {plan.lock.relative_to(ROOT)} …")
        install(uv, plan, folder)
        connect_sources(plan, folder)
        (folder / "requirements.txt").write_bytes(plan.lock.read_bytes())
        (folder / "made").write_text(plan.made(folder), encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    tell(f"Made it in {time.monotonic() - began:.0f} s.")
    return folder


def check_room(needed: int) -> None:
    free = shutil.disk_usage(VENVS).free
    if free < needed:
        raise SetupError(
            f"The Python environment needs {needed / 1e6:.0f} MB in {VENVS}; {free / 1e6:.0f} MB are free.",
            "Free some space, then run the same command again.",
        )


def install(uv: str, plan: Plan, folder: Path) -> None:
    tool([uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder)], "uv")
    arguments = ["--quiet", "--require-hashes", "--compile-bytecode"]
    arguments += ["--python", str(folder / "bin" / "python"), "--requirements", str(plan.lock)]
    arguments += ["--no-deps"] if plan.whole else []
    tool([uv, "pip", "install", *arguments], "uv")


def connect_sources(plan: Plan, folder: Path) -> None:
    """Add the checkout's own sources to the environment's path. They are used in place, not installed."""
    packages = next(folder.glob("lib/python3.*/site-packages"))
    paths = "".join(f"{ROOT / source}\n" for source in plan.sources)
    (packages / "gridup-checkout.pth").write_text(paths, encoding="utf-8")


def find_uv() -> str:
    """Return the user's uv if it is new enough, else Gridup's own from the pinned wheel."""
    # Check every folder of PATH: the first uv may be a shim without a real uv.
    for place in os.environ.get("PATH", "").split(os.pathsep):
        theirs = shutil.which("uv", path=place) if place else None
        if theirs and uv_version(theirs) >= MINIMAL_UV:
            return theirs
    ours = VENVS / "bootstrap" / "bin" / "uv"
    pinned = re.search(
        r"^uv==([0-9.]+)", (ROOT / "requirements" / "uv.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    wanted = tuple(map(int, pinned[1].split("."))) if pinned else MINIMAL_UV
    if uv_version(str(ours)) != wanted:
        bootstrap(wanted)
    return str(ours)


def uv_version(uv: str) -> tuple[int, ...]:
    """Return the version of a uv; () if it does not work, for example a shim without a real uv."""
    try:
        result = run([uv, "--version"], timeout=20)
    except (OSError, TimeoutError):
        return ()
    found = re.match(r"uv (\d+(?:\.\d+)*)", result.stdout)
    return tuple(map(int, found[1].split("."))) if result.ok and found else ()


def bootstrap(version: tuple[int, ...]) -> None:
    """Install the pinned uv with pip into `.venvs/bootstrap`."""
    with turn(Plan("bootstrap", (), 0)):
        plan, target = Plan("bootstrap", (), 0), VENVS / "bootstrap"
        if uv_version(str(target / "bin" / "uv")) == version:
            return
        remove_leftovers(plan)
        tell(f"Fetching uv {'.'.join(map(str, version))} with pip …")
        folder = VENVS / f"bootstrap-{secrets.token_hex(4)}"
        try:
            make_venv(folder)
            lock = str(ROOT / "requirements" / "uv.txt")
            arguments = ["--quiet", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:"]
            python = str(folder / "bin" / "python")
            tool([python, "-m", "pip", "install", *arguments, "--require-hashes", "-r", lock], "pip")
            # uv is one binary that runs from any path, so the folder may be renamed.
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def make_venv(folder: Path) -> None:
    try:
        tool([sys.executable, "-m", "venv", str(folder)], "venv")
    except SetupError as error:
        if is_full(" ".join(error.details)) or has_modules():
            raise
        minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"{sys.executable} has no ensurepip, and no uv {version_text(MINIMAL_UV)} or newer is on PATH.",
            f"Install one of them: on Debian `apt install python3-venv` (or python{minor}-venv), or uv.",
        ) from None


def has_modules() -> bool:
    # Debian's python3 has venv, but not ensurepip.
    script = "import venv, ensurepip"
    return run([sys.executable, "-I", "-c", script], timeout=60, env=environment()).ok


def version_text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def tool(argv: list[str], name: str) -> None:
    """Run the tool of one step.

    Raises:
        SetupError: the tool failed; the message is one line with the reason.
    """
    try:
        result = run(argv, timeout=SECONDS, env=environment())
    except TimeoutError as error:
        raise SetupError(f"{name} took too long: {error}.", "Run the same command again.") from None
    if not result.ok:
        raise tool_error(name, result)


def tool_error(name: str, result: Result) -> SetupError:
    text = f"{result.stderr}\n{result.stdout}"
    lines = [line.strip(" │╰─▶├×") for line in text.splitlines() if line.strip()]
    if is_full(text):
        return full()
    forged = next(
        (line for line in lines if re.search(r"hash mismatch|do not match the hashes", line, re.I)), ""
    )
    if forged:
        return SetupError(
            f"The package index gave something else than the lock names: {shorten(forged)}",
            "Nothing of it was installed. Is a mirror in between (PIP_INDEX_URL, UV_DEFAULT_INDEX)?",
        )
    if cause := untrusted(lines):
        return SetupError(
            f"{name} does not trust the package index's certificate: {shorten(cause)}", UNTRUSTED_HINT
        )
    if NO_NETWORK.search(text):
        cause = next((line for line in lines if NO_NETWORK.search(line)), "")
        return SetupError(
            f"{name} could not get the packages: {shorten(cause)}",
            "Is there a network? HTTPS_PROXY, SSL_CERT_FILE, PIP_INDEX_URL, UV_DEFAULT_INDEX are honoured.",
        )
    cause = next((line for line in lines if line.lower().startswith("error")), lines[-1] if lines else "")
    return SetupError(f"{name} failed: {shorten(cause) or f'exit code {result.code}'}", "", tuple(lines[-4:]))


def shorten(line: str) -> str:
    """Shorten a tool's message to one short line, without its prefix and without secrets in URLs."""
    line = re.sub(r"^((error|warning|cause|caused by):\s*)+", "", line, flags=re.IGNORECASE)
    line = re.sub(r"://[^/@\s]+@", "://", line)
    return line if len(line) <= 200 else f"{line[:199]}…"


def is_full(text: str) -> bool:
    return any(sign in text.lower() for sign in NO_SPACE)


def full() -> SetupError:
    return SetupError(
        f"The disk is full: no room for the packages in {VENVS}, in uv's cache or in the temporary folder.",
        "Free some space, then run the same command again.",
    )


def disk_error(error: OSError) -> SetupError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return full()
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return SetupError(
            f"{error.filename or VENVS} can't be written: {error.strerror}.",
            "Clone Gridup into a folder of your own, or run it as that folder's owner.",
        )
    return SetupError(f"The Python environment could not be made: {error}.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
