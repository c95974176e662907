"""The node's own secrets. The node creates them next to its data, at its first start, each in its own file.

Standard library only: the deployer imports this module too.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets as random
import stat
import string
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from gridup_node import durable

ADMIN_PASSWORD = "admin_password"  # noqa: S105
SERVER_UID = "server_uid"
SERVER_KEY = "server_key"
JUPYTER_TOKEN = "jupyter_token"  # noqa: S105
SESSION_KEY = "session_key"

GENERATED_LENGTH = 24
CHECKED = 4
"""The number of check characters at the end of a generated password. They are computed from the other
characters, so that a generated password can be recognized."""
SYMBOLS = "-_.:+=@%"
"""The other characters of a generated password: safe to paste into a shell, a form or a table."""
ALPHABET = string.ascii_letters + string.digits + SYMBOLS
SHORTEST, LONGEST = 10, 72
"""The length of a password that a user sets, in bytes. syft stores it with bcrypt, which reads only 72."""
LEAST_CLASSES = 3
RULE = (
    f"a password has {SHORTEST} to {LONGEST} bytes, no control characters, and at least {LEAST_CLASSES} of: "
    "lower-case letters, upper-case letters, digits, other characters"
)


def generate_password() -> str:
    """Return a new password that satisfies `check_password` and Azure's rule for a VM's password."""
    while True:
        made = "".join(random.choice(ALPHABET) for _ in range(GENERATED_LENGTH - CHECKED))
        made += _check_characters(made)
        if _classes(made) >= LEAST_CLASSES:
            return made


def is_generated(text: str) -> bool:
    """Return whether `generate_password` made this password. Nobody can guess such a password."""
    made, check = text[:-CHECKED], text[-CHECKED:]
    return len(text) == GENERATED_LENGTH and set(text) <= set(ALPHABET) and check == _check_characters(made)


def _check_characters(made: str) -> str:
    digest = hashlib.sha256(f"gridup:{made}".encode()).digest()
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in digest[:CHECKED])


def check_password(text: str) -> None:
    """Check a password that a user has chosen for the administrator.

    Raises:
        ValueError: the password is not allowed; the message has the reason and the rule, never the password.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if any(ord(char) < 0x20 or 0x7F <= ord(char) <= 0x9F or 0xD800 <= ord(char) <= 0xDFFF for char in text):
        wrong = "it has a control character, such as the end of a line within it"
    elif size < SHORTEST:
        wrong = f"it has {size} bytes, too few"
    elif size > LONGEST:
        wrong = f"it has {size} bytes, too many"
    elif (kinds := _classes(text)) < LEAST_CLASSES:
        wrong = f"it has {kinds} of the four kinds of characters"
    else:
        return
    raise ValueError(f"{wrong}; {RULE}")


def _classes(text: str) -> int:
    lower = any(char.islower() for char in text)
    upper = any(char.isupper() for char in text)
    digit = any(char.isdigit() for char in text)
    other = any(not (char.islower() or char.isupper() or char.isdigit()) for char in text)
    return sum((lower, upper, digit, other))


MAKERS: Mapping[str, Callable[[], str]] = {
    ADMIN_PASSWORD: generate_password,
    # syft identifies a node by these two. If only one survives a restart, it is a different node.
    # The id must be a UUID of version 4: syft sets the version bits whenever it reads an id, so any other
    # random id would turn into another node's (its jobs fail with "arguments are not approved").
    SERVER_UID: lambda: uuid.uuid4().hex,
    SERVER_KEY: lambda: random.token_hex(32),
    JUPYTER_TOKEN: lambda: random.token_hex(24),
    SESSION_KEY: lambda: random.token_hex(32),
}


def ensure(folder: Path, names: Iterable[str] = MAKERS) -> dict[str, Path]:
    """Create each missing secret, and remove the access of other users. Never changes a secret.

    Safe if several programs start at the same time: one of them wins and all see its value. In containers a
    secret may be a link to a folder that other programs see too: see `gridup_node.folders`.

    Args:
        names: the secrets to create; a container creates those that it may see.

    Returns:
        The file of each secret, by its name.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)
    paths = {name: (folder / name).resolve() for name in names}
    for name, path in paths.items():
        if not _filled(path):
            _create(path, MAKERS[name]())
        elif stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
    return paths


def read(folder: Path, name: str) -> str:
    """Return one secret's value.

    Raises:
        FileNotFoundError: the node has not created the secret yet.
    """
    return (folder / name).read_text(encoding="utf-8").strip("\r\n")


def is_own_password(folder: Path, password: str) -> bool:
    """Return whether this is the administrator's generated password, as its file has it."""
    try:
        own = read(folder, ADMIN_PASSWORD)
    except OSError:
        return False
    return is_generated(own) and hmac.compare_digest(own.encode(), password.encode())


def replace(folder: Path, name: str, value: str) -> None:
    """Give a secret a new value, atomically. Other users can never read it."""
    path = (folder / name).resolve()
    temporary = _write_beside(path, value)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
    durable.sync(path.parent)


def problems(folder: Path) -> list[str]:
    """Return each difference from the state that `ensure` creates, one line each; empty if there is none."""
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
    """Create the secret with `value`, unless another program has created it first."""
    temporary = _write_beside(path, value)
    try:
        if path.exists() and not _filled(path):
            # Only a full disk leaves an empty file, so replace it.
            temporary.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                # Unlike a rename, a hard link never replaces an existing file.
                path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
    durable.sync(path.parent)


def _write_beside(path: Path, value: str) -> Path:
    return durable.beside(path, f"{value}\n".encode())
