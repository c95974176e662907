"""What the node's image is built from: a Dockerfile, two locks and the package `gridup_node` itself.

Standard library only: the deployer builds it on a Docker daemon, a VM on its own.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from gridup_node import catalog

HERE = Path(__file__).parent
PACKAGE = HERE.parent

BASE_IMAGE = "python:3.11-slim-bookworm"
"""The Dockerfile's own default."""


def bundle_files(source: Path = PACKAGE) -> list[Path]:
    """Every file of a `gridup_node` package, compiled ones apart."""
    return sorted(
        path
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    )


def bundle_digest(source: Path = PACKAGE) -> str:
    """A hash over every file's name and bytes."""
    digest = hashlib.sha256()
    for path in bundle_files(source):
        digest.update(str(path.relative_to(source)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def context(tag: str) -> dict[str, bytes]:
    """The files of the build's context, by their path in it.

    Args:
        tag: the syft version.

    Raises:
        ValueError: that version is not shipped.
    """
    own = {f"gridup_node/{path.relative_to(PACKAGE)}": path.read_bytes() for path in bundle_files()}
    return {
        "Dockerfile": (HERE / "Dockerfile").read_bytes(),
        "uv.txt": (HERE / "uv.txt").read_bytes(),
        "node.txt": catalog.lock_for(tag).read_bytes(),
        **own,
    }


def digest(files: dict[str, bytes], base_image: str = BASE_IMAGE) -> str:
    """What the image is known by: another one as soon as anything in it is."""
    made = hashlib.sha256(base_image.encode())
    for name, data in sorted(files.items()):
        made.update(b"\0" + name.encode() + b"\0" + hashlib.sha256(data).digest())
    return made.hexdigest()[:12]


def archive(files: dict[str, bytes]) -> bytes:
    """The context as a tar, the same bytes for the same files: a builder's cache looks at times and modes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
