"""`python -m gridup_node.folders [UID]`: create the folders of a node's data and migrate old locations.

This program runs before the containers of a release are created, in a container that sees all of the data at
`GRIDUP_NODE_DATA`. It moves data from the locations of earlier versions, which takes no time and no disk
space. It leaves a link at the old location, so that after a rollback the containers of the earlier version
find the data too. Every step may be repeated.

Standard library only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from gridup_node import services

DATA = "GRIDUP_NODE_DATA"

PLACES: Mapping[str, str] = {
    "data/notebooks": "notebooks",
    "secrets/jupyter_token": "token/jupyter_token",
}
"""Paths that programs use -> where the data really are: in another folder, which other containers see too."""


def holder(path: str) -> str:
    """Return the folder of the data that really holds `path`, a path that programs use."""
    return PLACES.get(path, path).partition("/")[0]


def ensure(data: Path, uid: int = -1) -> None:
    """Create each missing folder, and move data from old locations.

    Args:
        uid: the user and group ID that shall own all data; -1 to leave the owner unchanged.

    Raises:
        OSError: a folder is a link, or a step failed.
    """
    for name in services.folders():
        if (data / name).is_symlink():
            # Whoever created the link could choose which files of the machine a container sees.
            raise OSError(f"{data / name} is a link, and must be a folder")
        (data / name).mkdir(mode=0o700, exist_ok=True)
    for former, place in PLACES.items():
        _move(data / former, data / place)
    if uid != -1:
        _give(data, uid)


def _move(former: Path, place: Path) -> None:
    if former.is_symlink():
        return
    if former.is_dir():
        # Both may exist, if a run was interrupted and the earlier version then created an empty folder.
        place.mkdir(mode=0o700, exist_ok=True)
        for child in former.iterdir():
            if not os.path.lexists(place / child.name):
                child.rename(place / child.name)
        if any(former.iterdir()):
            return
        former.rmdir()
    elif former.exists():
        if place.exists():
            former.unlink()
        else:
            former.rename(place)
    former.parent.mkdir(mode=0o700, exist_ok=True)
    former.symlink_to(os.path.relpath(place, former.parent))


def _give(data: Path, uid: int) -> None:
    """Make `uid` the owner of all data. A folder comes after its content: its owner shows that it is done."""
    for name in services.folders():
        if (data / name).stat().st_uid != uid:
            for path in _below(data / name):
                os.chown(path, uid, uid, follow_symlinks=False)


def _below(folder: Path) -> Iterator[str]:
    for root, folders, files in os.walk(folder, topdown=False):
        yield from (os.path.join(root, name) for name in (*files, *folders))  # noqa: PTH118
    yield str(folder)


def main() -> None:
    """Run the program: exit code 0 on success, else 1 and one line on stderr."""
    os.umask(0o077)
    try:
        ensure(Path(os.environ[DATA]), int(sys.argv[1]) if len(sys.argv) > 1 else -1)
    except OSError as error:
        sys.exit(f"gridup_node.folders: {error}")


if __name__ == "__main__":
    main()
