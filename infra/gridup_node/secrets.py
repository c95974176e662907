"""The node's own secrets: made where its data lives, at its first start, each in a file of its own.

Standard library only: the deployer imports this module too.
"""

from __future__ import annotations

import contextlib
import os
import secrets as random
import stat
import string
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

ADMIN_PASSWORD = "admin_password"  # noqa: S105
SERVER_UID = "server_uid"
SERVER_KEY = "server_key"
JUPYTER_TOKEN = "jupyter_token"  # noqa: S105
SESSION_KEY = "session_key"

GENERATED_LENGTH = 24
SYMBOLS = "-_.:+=@%"
"""Of the fourth class, and harmless when pasted into a shell, a URL's form or a table."""
SHORTEST, LONGEST = 10, 72
"""Bytes of a given password. bcrypt, which syft stores it with, reads no more than 72."""
LEAST_CLASSES = 3
RULE = (
    f"a password has {SHORTEST} to {LONGEST} bytes, no control characters, and at least {LEAST_CLASSES} of: "
    "lower-case letters, upper-case letters, digits, other characters"
)


def generate_password() -> str:
    """A password that satisfies `check_password` and Azure's rule for a VM's password as well."""
    alphabet = string.ascii_letters + string.digits + SYMBOLS
    while True:
        made = "".join(random.choice(alphabet) for _ in range(GENERATED_LENGTH))
        if _classes(made) >= LEAST_CLASSES:
            return made


def check_password(text: str) -> None:
    """Whether a person's own password may become the administrator's.

    Raises:
        ValueError: it may not; the message states the rule and never the password.
    """
    if not SHORTEST <= len(text.encode("utf-8", "surrogatepass")) <= LONGEST:
        raise ValueError(RULE)
    if any(ord(char) < 0x20 or 0x7F <= ord(char) <= 0x9F or 0xD800 <= ord(char) <= 0xDFFF for char in text):
        raise ValueError(RULE)
    if _classes(text) < LEAST_CLASSES:
        raise ValueError(RULE)


def _classes(text: str) -> int:
    lower = any(char.islower() for char in text)
    upper = any(char.isupper() for char in text)
    digit = any(char.isdigit() for char in text)
    other = any(not (char.islower() or char.isupper() or char.isdigit()) for char in text)
    return sum((lower, upper, digit, other))


MAKERS: Mapping[str, Callable[[], str]] = {
    ADMIN_PASSWORD: generate_password,
    # syft's two: with only one of them kept, the node is another one after a restart.
    # A true UUID of version 4: syft forces those bits whenever it reads one back, and any other
    # random id would then be another node's (a job of it fails with "arguments are not approved").
    SERVER_UID: lambda: uuid.uuid4().hex,
    SERVER_KEY: lambda: random.token_hex(32),
    JUPYTER_TOKEN: lambda: random.token_hex(24),
    SESSION_KEY: lambda: random.token_hex(32),
}


def ensure(folder: Path) -> dict[str, Path]:
    """Make each secret that is missing and close those that others may read; never change one.

    Safe when several programs start at once: one of them wins and all then see its value.

    Returns:
        The file of each secret, by its name.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)
    paths = {name: folder / name for name in MAKERS}
    for name, path in paths.items():
        if not _filled(path):
            _create(path, MAKERS[name]())
        elif stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
    return paths


def read(folder: Path, name: str) -> str:
    """One secret's value.

    Raises:
        FileNotFoundError: the node has not made it yet.
    """
    return (folder / name).read_text(encoding="utf-8").strip("\r\n")


def replace(folder: Path, name: str, value: str) -> None:
    """Give a secret a new value: whole or not at all, never readable by others."""
    temporary = _write_beside(folder / name, value)
    try:
        temporary.replace(folder / name)
    except BaseException:
        temporary.unlink()
        raise
    _sync(folder)


def problems(folder: Path) -> list[str]:
    """What is not as `ensure` leaves it, one line each; empty when all is well."""
    if not folder.is_dir():
        return [f"{folder.name}: missing"]
    found = []
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        found.append(f"{folder.name}: others may enter it (mode {stat.S_IMODE(folder.stat().st_mode):04o})")
    for name in MAKERS:
        path = folder / name
        if not path.exists():
            found.append(f"{folder.name}/{name}: missing")
        elif not _filled(path):
            found.append(f"{folder.name}/{name}: empty")
        elif stat.S_IMODE(path.stat().st_mode) & 0o077:
            found.append(
                f"{folder.name}/{name}: others may read it (mode {stat.S_IMODE(path.stat().st_mode):04o})"
            )
    return found


def _filled(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _create(path: Path, value: str) -> None:
    """Put `value` there unless another program was first."""
    temporary = _write_beside(path, value)
    try:
        if path.exists() and not _filled(path):
            # Nobody leaves an empty one on purpose: a full disk did.
            temporary.replace(path)
            return
        with contextlib.suppress(FileExistsError):
            # A link, unlike a rename, never takes the place of a file that is there.
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _write_beside(path: Path, value: str) -> Path:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(value + "\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def _sync(folder: Path) -> None:
    """So that a new name outlives a power cut: a node that lost its key can't open its own data."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
