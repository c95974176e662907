"""Finds the pinned Pulumi engine on PATH or in GRIDUP_HOME, or gets it by a download or a Go build.

If two runs need the engine at the same time, only one gets it; the other waits for it. A run that is killed
leaves nothing that looks like a complete engine. The next run removes what it left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from gridup.setup import binary, on_path
from gridup.setup.binary import ENGINE_VERSION, Engine, SourceError
from gridup_infra.errors import BusyError, SetupError
from gridup_infra.locking import locked
from gridup_infra.paths import Home, ensure_private
from gridup_infra.room import Need

__all__ = ["ENGINE_VERSION", "Engine", "ensure_engine", "find_engine"]

WAIT_SECONDS = 3600.0
"""How long to wait for another run that gets the engine. A build on a slow machine takes long."""

INSTALL_PAGE = "https://www.pulumi.com/docs/install/"


def find_engine(home: Home) -> Engine | None:
    """Return the engine that `ensure_engine` would use now; None if it would have to get one."""
    return on_path.find(home.engine) or binary.load(home.engine / ENGINE_VERSION)


def needs(home: Home) -> tuple[Need, ...]:
    """Return the disk space that a download of the engine needs; empty if an engine is there.

    A build needs more space and checks that itself.
    """
    if find_engine(home):
        return ()
    from gridup.setup import download

    return (Need("the Pulumi engine", download.NEEDED_BYTES, home.engine),)


def ensure_engine(home: Home, progress: Callable[[str], None]) -> Engine:
    """Return the engine. Download or build it first if it is missing.

    Args:
        progress: called with a short line for each step.

    Raises:
        SetupError: no source provided an engine. The message lists what was tried.
    """
    found = find_engine(home)
    if found:
        return found
    try:
        ensure_private(home.engine)
        with _turn(home.engine, progress):
            return find_engine(home) or _get(home.engine, progress)
    except OSError as error:
        raise _disk_error(error, home.engine) from None


@contextlib.contextmanager
def _turn(engines: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock for getting the engine. If another run holds it, report that and wait."""
    lock, what = engines / ".lock", f"getting the Pulumi engine {ENGINE_VERSION}"
    with contextlib.ExitStack() as stack:
        try:
            try:
                stack.enter_context(locked(lock, what, wait=0, busy="waiting for another run"))
            except BusyError as error:
                progress(error.message.rstrip("."))
                busy = "The Pulumi engine is still not there after an hour"
                stack.enter_context(locked(lock, what, wait=WAIT_SECONDS, busy=busy))
        except BusyError as error:
            raise SetupError(error.message, "End that process, then run the same command again.") from None
        yield


def _get(engines: Path, progress: Callable[[str], None]) -> Engine:
    # Import them here: a machine needs both only once.
    from gridup.setup import build, download

    binary.remove_leftovers(engines)
    target = engines / ENGINE_VERSION
    tried: list[str] = []
    details: tuple[str, ...] = ()
    for get in (download.get, build.get):
        try:
            return get(target, progress)
        except SourceError as error:
            # Catch only this error. Others, such as a full disk, would also stop the next source.
            tried.append(error.message)
            details = error.details or details
    raise SetupError(
        f"The Pulumi engine {ENGINE_VERSION} could not be had: {'; '.join(tried)}.",
        f"Install Pulumi {ENGINE_VERSION} or newer ({INSTALL_PAGE}) or Go {build.needed_go()} or newer,"
        f" or set {download.BASE_VARIABLE} to a mirror of Pulumi's releases.",
        details,
    )


def _disk_error(error: OSError, engines: Path) -> SetupError:
    if binary.is_full(error):
        return binary.disk_full_error(str(engines))
    return SetupError(
        f"{error.filename or engines} can't be used: {error.strerror or error}.",
        "Make it writable, or set GRIDUP_HOME to a folder of your own.",
    )
