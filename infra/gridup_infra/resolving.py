"""Locks the packages that a data owner adds: uv finds versions that work with the node's own packages."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from urllib.parse import unquote

from gridup_infra.errors import GridupError, PreflightError, UsageError
from gridup_infra.processes import run
from gridup_infra.requirements import Pin, check_lock, is_of, lock_text
from gridup_infra.spec import DeploySpec
from gridup_infra.uv import UNTRUSTED_HINT, environment, untrusted, uv, without_accounts
from gridup_node import catalog

SECONDS = 600.0
"""The time limit for uv, which asks the index about each package and its dependencies."""

LONGEST_REASON = 700
"""Characters of uv's output that a message shows."""

LOCK = "pylock.toml"
"""The lock format that has the names of wheels, and the file's name."""

PYTHON_HINT = (
    f" A node may run on Python {'.'.join(map(str, catalog.PYTHONS[0]))}; a marker leaves a package out "
    'there, such as: networkx==3.5 ; python_version >= "3.11"'
)

_MACHINES = {"linux": ("x86_64", "aarch64"), "darwin": ("x86_64", "arm64")}
"""The systems and machine types that a node runs on, with their names in markers."""

_PLATFORM = re.compile(
    r"any|((many|musl)?linux\w*)_(x86_64|aarch64)|macosx_\w+_(x86_64|arm64|universal2)", re.ASCII
)


def lock(wanted: Sequence[str], tag: str, former: str = "") -> str:
    """Return the lock of the packages that the data owner asks for, see `requirements.lock_text`.

    The lock is the same for all targets, systems and Pythons that a node runs on. It does not repeat the
    packages of the node's own lock. It has only wheels: nothing is built, so no code of a package runs before
    the package is on a node.

    Args:
        wanted: the lines, see `requirements.parse`.
        tag: the syft version.
        former: a lock whose versions are preferred where they are allowed; empty for the newest versions.

    Raises:
        UsageError: a package does not exist, does not fit the node's own (with uv's reason) or has no usable
            wheel, or the lock is too long.
        PreflightError: uv failed for another reason, such as an unreachable index, or took too long.
    """
    own = catalog.lock_for(tag)
    with tempfile.TemporaryDirectory(prefix="gridup-packages-") as name:
        # Use an empty folder: uv would read the settings of a project in the current folder.
        folder = Path(name)
        (folder / "wanted.txt").write_text("".join(f"{line}\n" for line in wanted), encoding="utf-8")
        if former:
            # uv prefers the versions in an existing output file.
            (folder / LOCK).write_text(_pylock(parse_lock(former)), encoding="utf-8")
        newest = [] if former else ["--upgrade"]
        argv = [uv(), "pip", "compile", "wanted.txt", *newest, "--constraint", str(own), "--universal"]
        argv += ["--python-version", ".".join(map(str, catalog.PYTHONS[0])), "--python", sys.executable]
        argv += ["--no-build", "--generate-hashes", "--no-header", "--quiet"]
        argv += ["--format", LOCK, "--output-file", LOCK]
        try:
            done = run(argv, timeout=SECONDS, cwd=folder, env=environment())
        except TimeoutError as error:
            raise PreflightError(f"The packages could not be locked in time: {error}.") from None
        if not done.ok:
            raise _error(f"{done.stderr}\n{done.stdout}", catalog.resolve(tag))
        pins = parse_pylock((folder / LOCK).read_text(encoding="utf-8"))
    made = lock_text(wanted, own.read_bytes(), _added(pins, parse_lock(own.read_text(encoding="utf-8"))))
    try:
        check_lock(made)
    except ValueError as error:
        raise UsageError(f"--packages: {error}.", "Ask for fewer packages.") from None
    return made


def _pylock(pins: Iterable[Pin]) -> str:
    """Return a pylock.toml (PEP 751) with only the parts that uv reads to learn the preferred versions."""
    head = 'lock-version = "1.0"\ncreated-by = "gridup"\n'
    return head + "".join(
        f'\n[[packages]]\nname = "{pin.name}"\nversion = "{pin.version}"\n'
        + (f'marker = "{pin.marker}"\n' if pin.marker else "")
        for pin in pins
    )


def is_locked(spec: DeploySpec) -> bool:
    """Return whether the spec's lock was made from its packages and from the node's own lock."""
    if not spec.packages:
        return not spec.packages_lock
    return is_of(spec.packages_lock, spec.packages, catalog.lock_for(spec.tag).read_bytes())


def parse_pylock(text: str) -> list[Pin]:
    """Return the packages of a pylock.toml (PEP 751) from uv, each with the wheels that a node may install.

    Raises:
        UsageError: a package has no such wheel.
    """
    found = []
    for part in text.split("\n[[packages]]\n")[1:]:
        told = dict(re.findall(r'^(name|version|marker) = "([^"\\]*)"$', part, re.MULTILINE))
        wheels = re.findall(r'([^"/\\]+)\.whl"[^}]*\bsha256 = "([0-9a-f]{64})"', part)
        hashes = tuple(digest for wheel, digest in wheels if _fits(unquote(wheel)))
        pin = Pin(told["name"], told["version"], told.get("marker", ""), hashes)
        where = _where(pin.marker)
        if where and not hashes:
            raise UsageError(
                f"--packages: {pin.name} {pin.version} has no wheel with a hash "
                f"for Linux or macOS with Python {catalog.pythons()}."
            )
        if where:
            found.append(replace(pin, marker="") if len(where) == len(_WHERE) else pin)
    return found


def parse_lock(text: str) -> list[Pin]:
    """Return the packages of a lock in pip's format, without their hashes."""
    found = re.findall(r"^([\w.-]+)(?:\[[\w,.-]+\])?==([^\s;]+)(?: ; (.*?))?(?: \\)?$", text, re.MULTILINE)
    return [Pin(name, version, marker, ()) for name, version, marker in found]


def _fits(wheel: str) -> bool:
    """Return whether any node could install a wheel with this name (PEP 427)."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        _, _, _, tags = parse_wheel_filename(f"{wheel}.whl")
    except InvalidWheelFilename:
        return False
    return any(_python_fits(tag.interpreter, tag.abi) and _PLATFORM.fullmatch(tag.platform) for tag in tags)


def _python_fits(python: str, abi: str) -> bool:
    (major, oldest), (_, newest) = catalog.PYTHONS
    found = re.fullmatch(rf"(cp|py){major}(\d*)", python)
    if not found:
        return False
    minor = int(found[2] or 0)
    if (found[1], abi) in (("py", "none"), ("cp", "abi3")):
        # Such a wheel also works on all later minor versions.
        return minor <= newest
    return oldest <= minor <= newest and abi in ("none", python)


def _where(marker: str) -> frozenset[int]:
    """Return the indexes in `_WHERE` (systems and Pythons of nodes) for which a marker is true."""
    from packaging.markers import Marker

    if not marker:
        return frozenset(range(len(_WHERE)))
    made = Marker(marker)
    return frozenset(number for number, surroundings in enumerate(_WHERE) if made.evaluate(surroundings))


def _surroundings() -> Iterator[dict[str, str]]:
    (major, oldest), (_, newest) = catalog.PYTHONS
    for minor, patch in product(range(oldest, newest + 1), (0, 20)):
        for system, machines in _MACHINES.items():
            for machine in machines:
                yield {
                    "implementation_name": "cpython",
                    "os_name": "posix",
                    "platform_machine": machine,
                    "platform_python_implementation": "CPython",
                    "platform_system": system.capitalize(),
                    "python_full_version": f"{major}.{minor}.{patch}",
                    "python_version": f"{major}.{minor}",
                    "sys_platform": system,
                }


_WHERE = tuple(_surroundings())


def _added(pins: Sequence[Pin], own: Sequence[Pin]) -> Iterator[Pin]:
    """Yield the pins that the node's own lock does not install on each system and Python they are for."""
    there: dict[tuple[str, str], frozenset[int]] = {}
    for pin in own:
        key = (pin.name, pin.version)
        there[key] = there.get(key, frozenset()) | _where(pin.marker)
    for pin in pins:
        if not _where(pin.marker) <= there.get((pin.name, pin.version), frozenset()):
            yield pin


def _error(output: str, version: str) -> GridupError:
    text = without_accounts(" ".join(re.sub(r"[│╰─▶×]", " ", output).split()))
    reason = re.search(r"\b(Because .*?|[^.:]* was not found in .*?)(?= hint: |$)", text)
    if "No solution found" in text and reason:
        said = reason[1] if len(reason[1]) <= LONGEST_REASON else f"{reason[1][:LONGEST_REASON]}…"
        message = f"--packages: there are no such packages beside those that syft {version} runs on."
        return UsageError(
            message, f"uv: {said}{PYTHON_HINT if re.search(r'Python ?(version|>)', said) else ''}"
        )
    if untrusted([text]):
        return PreflightError(
            f"--packages: the certificate of the package index is not trusted here: {text[:200]}",
            UNTRUSTED_HINT,
        )
    return PreflightError(
        f"--packages: uv could not lock them: {text[:LONGEST_REASON]}",
        "Is the package index reachable? HTTPS_PROXY, SSL_CERT_FILE and UV_INDEX_URL are honoured.",
    )
