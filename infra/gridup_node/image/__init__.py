"""What the node's image is built from: a Dockerfile, three locks and the package `gridup_node` itself.

Standard library only: the deployer builds it on a Docker daemon, a VM on its own.
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
"""Where BuildKit lays a step's secrets (https://docs.docker.com/reference/dockerfile/#run---mounttypesecret)."""

REBUILT = "REBUILT"
"""The build's argument that is another one where all is to be made anew, whatever a builder has kept."""

BASE_IMAGE = "python:3.11-slim-bookworm"

BASE_DIGEST = "sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b"
"""What that tag led to on 2026-08-25, for all of its platforms. Moved with each release; the source is
https://github.com/docker-library/repo-info/blob/master/repos/python/remote/3.11-slim-bookworm.md"""

PINNED_BASE = f"{BASE_IMAGE}@{BASE_DIGEST}"
"""The Dockerfile's own default: whoever can change the tag on its registry changes no node."""


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


def context(tag: str, added: str = "") -> dict[str, bytes]:
    """The files of the build's context, by their path in it.

    Args:
        tag: the syft version.
        added: the lock of what a data owner adds to what the node runs on.

    Raises:
        ValueError: that version is not shipped.
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
"""For the shell: has each of a step's secrets in its environment, by its name."""


def with_secrets(files: Mapping[str, bytes], names: Sequence[str]) -> dict[str, bytes]:
    """A context for BuildKit: each step has what a build may be handed as secrets, for as long as it runs.

    It keeps a build's arguments with the steps, and secrets nowhere. Docker's other builder knows none.

    Args:
        names: of what the build may be handed; of those that it is not handed there is no file.
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
    """What the image is known by: another one as soon as anything in it is.

    Args:
        rebuilt: when it was last asked to be made anew.
    """
    made = hashlib.sha256(base_image.encode() + rebuilt.encode())
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
