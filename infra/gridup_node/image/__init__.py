"""The build context of the node's image: a Dockerfile, three locks and the package `gridup_node` itself.

Standard library only: the deployer builds the image on a Docker daemon, a container host builds its own.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from gridup_node import catalog

HERE = Path(__file__).parent
PACKAGE = HERE.parent

SECRETS = "/run/secrets"
"""BuildKit's folder of a step's secrets (https://docs.docker.com/reference/dockerfile/#run---mounttypesecret)."""

REBUILT = "REBUILT"
"""The build argument that changes if the image must be rebuilt completely, without the builder's cache."""

BASE_IMAGE = "python:3.11-slim-bookworm"

BASE_DIGEST = "sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b"
"""The digest of that tag on 2026-08-25, for all of its platforms. Updated with each release. The source is
https://github.com/docker-library/repo-info/blob/master/repos/python/remote/3.11-slim-bookworm.md"""

PINNED_BASE = f"{BASE_IMAGE}@{BASE_DIGEST}"
"""The Dockerfile's own default. Because of the digest, changing the tag in its registry changes no node."""


def bundle_files(source: Path = PACKAGE) -> list[Path]:
    """Return every file of a `gridup_node` package, without compiled files."""
    return sorted(
        path
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    )


def bundle_digest(source: Path = PACKAGE) -> str:
    """Return a hash over every file's name and bytes."""
    digest = hashlib.sha256()
    for path in bundle_files(source):
        digest.update(str(path.relative_to(source)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def context(tag: str, added: str = "") -> dict[str, bytes]:
    """Return the content of the files of the build context, by their path in it.

    Args:
        tag: the syft version.
        added: the lock of the packages that a data owner adds.

    Raises:
        ValueError: Gridup does not ship that version.
    """
    own = {f"gridup_node/{path.relative_to(PACKAGE)}": path.read_bytes() for path in bundle_files()}
    return {
        "Dockerfile": (HERE / "Dockerfile").read_bytes(),
        "uv.txt": (HERE / "uv.txt").read_bytes(),
        "node.txt": catalog.lock_for(tag).read_bytes(),
        "packages.txt": added.encode(),
        **own,
    }


EXPORT = (
    f'for secret in {SECRETS}/*; do [ ! -s "$secret" ] || export "${{secret##*/}}=$(cat "$secret")"; done'
)
"""A shell command that exports each of a step's secrets as a variable, by its name."""


def with_secrets(files: Mapping[str, bytes], names: Sequence[str]) -> dict[str, bytes]:
    """Return a context for BuildKit in which each step gets the arguments `names` as secrets while it runs.

    BuildKit stores a build's arguments with the steps, but it does not store secrets. Docker's other builder
    does not support secrets.

    Args:
        names: the arguments that the build may get. There is no file for an argument that it does not get.
    """
    mounts = " ".join(f"--mount=type=secret,id={name}" for name in names)
    lines = files["Dockerfile"].decode().splitlines()
    arguments = {f"ARG {name}" for name in names}
    steps = [
        f"RUN {mounts} {EXPORT} \\\n    && {line.removeprefix('RUN ')}" if line.startswith("RUN ") else line
        for line in lines
        if line not in arguments
    ]
    return {**files, "Dockerfile": "".join(f"{line}\n" for line in steps).encode()}


def digest(files: dict[str, bytes], base_image: str = PINNED_BASE, rebuilt: str = "") -> str:
    """Return the image's digest, which identifies the image. It differs if anything in the image differs.

    Args:
        files: the build context.
        base_image: the reference of the base image.
        rebuilt: when a complete rebuild was last requested.
    """
    made = hashlib.sha256(base_image.encode() + rebuilt.encode())
    for name, data in sorted(files.items()):
        made.update(b"\0" + name.encode() + b"\0" + hashlib.sha256(data).digest())
    return made.hexdigest()[:12]


def archive(files: dict[str, bytes]) -> bytes:
    """Return the context as a tar. Times and modes are fixed, because a builder's cache compares them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
