"""The user-data of a container host: a cloud-init document of a few KB, the same for every cloud.

A cloud shows user-data to everybody who can read the machine's settings, so it contains no secret.
"""

from __future__ import annotations

import ast
import base64
import binascii
import gzip
import hashlib
import io
import json
import re
import tokenize
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gridup_node.vm.host import MODULES
from gridup_node.vm.machine import CONFIG, MOUNT_UNIT, PROGRAM, UID, UNIT, USER

LIMIT = 16384
"""Bytes of user-data that EC2 accepts, before its API's base64. Azure accepts 64 KB."""

HEADER = "#cloud-config\n"
"""The first line; without it cloud-init ignores the whole document."""

# After the mount unit: at a later boot systemd checks the file system and mounts it before this program runs.
SERVICE = f"""\
[Unit]
Description=Gridup container host
Wants=network-online.target
After=network-online.target {MOUNT_UNIT}

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 {PROGRAM}
RemainAfterExit=yes
TimeoutStartSec=3600
StandardOutput=journal+console

[Install]
WantedBy=multi-user.target
"""

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
"""Debian Policy 5.6.1."""

_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""One label of RFC 1123."""

_NO_PROXY = re.compile(r"[A-Za-z0-9.:*_/-]+")

_KEY_TYPE = re.compile(
    r"(ssh-(rsa|ed25519)|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
)
"""The key types that Debian 13's sshd accepts."""


@dataclass(frozen=True)
class Host:
    """A container host as its deployer wants it. Empty means: as in the image.

    Attributes:
        ssh_keys: public keys that give access, each as `public_key` returns it: the deployer's own first,
            then the users'.
        disk: patterns (glob) of device paths of the data disk, the likeliest first.
        name: the node's name as typed; shown at login.
        hostname: one label.
        disk_seconds: how long to wait for the disk; some clouds attach it when the machine already runs.
        packages: Debian packages in addition to `packages.PACKAGES`.
        proxy: `http://host:port`, for apt and Docker.
        no_proxy: hosts to reach without the proxy.
        mirror: a server with `/debian` and `/debian-security` below it, as `https://mirror.inst.example`.
        ca: certificates (PEM) to trust in addition to Debian's.

    Raises:
        ValueError: a value has a wrong form, or is a secret.
    """

    ssh_keys: tuple[str, ...]
    disk: tuple[str, ...]
    name: str = ""
    hostname: str = ""
    disk_seconds: int = 300
    packages: tuple[str, ...] = ()
    proxy: str = ""
    no_proxy: tuple[str, ...] = ()
    mirror: str = ""
    ca: str = ""

    def __post_init__(self) -> None:
        if not self.ssh_keys:
            raise ValueError("without a public key nobody could enter the machine")
        for key in self.ssh_keys:
            if public_key(key) != key:
                raise ValueError(f"not a clean public key: {key!r}")
        for pattern in self.disk:
            if not pattern.startswith("/dev/"):
                raise ValueError(f"not a device's path: {pattern!r}")
        if not self.disk:
            raise ValueError("a container host needs to know its data disk")
        _each("a Debian package's name", _PACKAGE, self.packages)
        _each("a host name", _HOSTNAME, (self.hostname,))
        _each("a host to reach without the proxy", _NO_PROXY, self.no_proxy)
        _web_address("proxy", self.proxy)
        _web_address("mirror", self.mirror)
        if "PRIVATE KEY" in self.ca:
            raise ValueError("the certificates come with a private key, and user-data is no place for one")


def user_data(host: Host) -> bytes:
    """Return the bytes to send, before the API's own base64: plain text, or gzip if only that fits.

    Raises:
        ValueError: even compressed there are more than `LIMIT` bytes.
    """
    plain = document(host).encode()
    if len(plain) <= LIMIT:
        return plain
    # cloud-init unpacks gzip by itself.
    packed = _gzip(plain)
    if len(packed) <= LIMIT:
        return packed
    parts = {
        "ssh keys": sum(map(len, host.ssh_keys)),
        "certificates": len(host.ca),
        "the host's own program": len(_gzip(program())),
    }
    told = ", ".join(f"{name} {size:,}" for name, size in parts.items())
    raise ValueError(
        f"the user-data has {len(packed):,} bytes compressed ({len(plain):,} plain), "
        f"and a machine takes {LIMIT:,}. In bytes: {told}"
    )


def fingerprint(host: Host) -> str:
    """Return a hash of the machine's user-data. It is the same with every Python's compressor."""
    made = hashlib.sha256(json.dumps(_content(host)).encode())
    for name, data in _files(host).items():
        made.update(f"\0{name}\0".encode() + hashlib.sha256(data).digest())
    return made.hexdigest()[:16]


def document(host: Host) -> str:
    """Return the cloud-init document as text: pure ASCII, one line for each key."""
    files = [_write_file(path, data) for path, data in _files(host).items()]
    rows = {**_content(host), "write_files": files, "runcmd": RUN}
    return HEADER + "".join(f"{name}: {to_yaml(value)}\n" for name, value in rows.items())


RUN = [
    ["systemctl", "daemon-reload"],
    # Waits until the run ends. The unit is enabled, so that a reboot repairs what it can.
    ["systemctl", "enable", "--now", UNIT],
]


def _content(host: Host) -> dict[str, Any]:
    rows: dict[str, Any] = {
        "users": [
            {
                "name": USER,
                "uid": UID,
                "gecos": "Gridup",
                "shell": "/bin/bash",
                "lock_passwd": True,
                # No loss of security: every user of Docker can become root anyway.
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": list(host.ssh_keys),
            }
        ],
        "ssh_pwauth": False,
        "disable_root": True,
    }
    if host.hostname:
        rows |= {"hostname": host.hostname, "manage_etc_hosts": True}
    return rows


def _files(host: Host) -> dict[str, bytes]:
    told = {
        "disk": host.disk,
        "disk_seconds": host.disk_seconds,
        "packages": host.packages,
        "proxy": host.proxy,
        "no_proxy": host.no_proxy,
        "mirror": host.mirror,
        "ca": host.ca,
    }
    config = json.dumps({name: value for name, value in told.items() if value}, ensure_ascii=False)
    files = {
        PROGRAM: program(),
        CONFIG: f"{config}\n".encode(),
        f"/etc/systemd/system/{UNIT}": SERVICE.encode(),
    }
    if host.name:
        files["/etc/motd"] = f"{host.name}: a node made by Gridup\n".encode()
    return files


def program() -> bytes:
    """Return the program `host` as one file that Python runs."""
    return zipapp("gridup_node.vm.host", [f"vm/{name}" for name in MODULES])


def zipapp(main: str, modules: Iterable[str]) -> bytes:
    """Return modules of `gridup_node` as one file that Python runs, without comments and docstrings.

    The same modules give the same bytes. The file itself is not compressed, so that the whole compresses
    better.

    Args:
        main: the module whose `main` runs; its return value is the exit code.
        modules: paths in the package, without `.py`.
    """
    own = Path(__file__).parents[1]
    files = {
        "__main__.py": f"import sys\n\nfrom {main} import main\n\nsys.exit(main())\n",
        "gridup_node/__init__.py": "",
        "gridup_node/vm/__init__.py": "",
    }
    for name in modules:
        files[f"gridup_node/{name}.py"] = minify((own / f"{name}.py").read_text(encoding="utf-8"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


def minify(source: str) -> str:
    """Return Python code without comments, docstrings and blank lines; the other lines stay as they are.

    A docstring here is any statement that is a constant. A body that contains nothing else keeps it.
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    inside: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.end_lineno:
            # A blank line within a string is part of the string.
            inside.update(range(node.lineno, node.end_lineno + 1))
    dropped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and len(body) > 1:
            for statement in body:
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    dropped.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    kept = (
        line
        for number, line in enumerate(lines, 1)
        if number not in dropped and (line.strip() or number in inside)
    )
    return "".join(f"{line}\n" for line in kept)


def _write_file(path: str, data: bytes) -> dict[str, Any]:
    """Return cloud-init's entry for a file, in the form with the fewest bytes."""
    packed = {"path": path, "encoding": "gz+b64", "content": base64.b64encode(_gzip(data)).decode()}
    try:
        plain = {"path": path, "content": data.decode()}
    except UnicodeDecodeError:
        return packed
    return min(plain, packed, key=lambda entry: len(to_yaml(entry)))


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)


def to_yaml(value: Any) -> str:
    """Return a value as one line of ASCII YAML, which every YAML reader reads as exactly this value.

    Like JSON, except for characters above U+FFFF: YAML does not join JSON's surrogate pairs.
    """
    if isinstance(value, str):
        return f'"{"".join(map(_escaped, value))}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{to_yaml(name)}: {to_yaml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(to_yaml, value)) + "]"
    raise TypeError(f"no YAML for {type(value).__name__}")


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character == "\n":
        return "\\n"
    if " " <= character <= "~":
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def public_key(text: str) -> str:
    """Return the line of a public key file in clean form, whatever editor or system wrote the file.

    Raises:
        ValueError: the file holds no public key, several keys, a key of a type that sshd does not accept, or
            options before the key.
    """
    if "PRIVATE KEY" in text:
        raise ValueError("that is a private key; the public one is in the file that ends with .pub")
    lines = [line.strip() for line in text.replace("\ufeff", "").splitlines() if line.strip()]
    if len(lines) != 1:
        raise ValueError(f"a public key file has one line; this one has {len(lines)}")
    kind, _, rest = lines[0].partition(" ")
    encoded, _, comment = rest.strip().partition(" ")
    if not _KEY_TYPE.fullmatch(kind):
        raise ValueError(f"not a public key that sshd accepts; it begins with {kind[:40]!r}")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        blob = b""
    # RFC 4253 6.6: the key's data begins with its type again, after four bytes of length.
    named = blob[4 : 4 + int.from_bytes(blob[:4], "big")]
    if named != kind.encode() or len(blob) < 4 + len(named) + 32:
        raise ValueError(f"the {kind} key is damaged or cut off")
    if not comment.isprintable():
        raise ValueError(f"the {kind} key's comment has control characters in it")
    return " ".join(part for part in (kind, encoded, comment.strip()) if part)


def _each(what: str, pattern: re.Pattern[str], values: Iterable[str]) -> None:
    for value in values:
        if value and not pattern.fullmatch(value):
            raise ValueError(f"not {what}: {value!r}")


def _web_address(what: str, address: str) -> None:
    """Check an address that goes into settings of apt and systemd.

    Raises:
        ValueError: it is no http address, contains a password, or has characters that break those settings.
    """
    if not address:
        return
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[^!-~]|[\"'\\;]", address):
        raise ValueError(f"the {what} is not an http address: {address!r}")
    if parts.password or parts.username:
        raise ValueError(f"the {what}'s address has a password in it, and user-data is no place for one")
