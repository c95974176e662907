"""`python -m gridup_node.folders [UID]`: have the folders of a node's data where its containers look.

Run before the containers of a release are made, in one that sees all of the data at `GRIDUP_NODE_DATA`. What
an earlier version left elsewhere is moved, which takes no time and no room, and a link is left there: the
containers of that version, should they come back, find it too. Every step may be repeated.

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
"""What programs know by a path in one folder, and lies in another that further containers see."""


def holder(path: str) -> str:
    """The folder of the data that holds what programs know by `path`."""
    return PLACES.get(path, path).partition("/")[0]


def ensure(data: Path, uid: int = -1) -> None:
    """Make each folder that is missing, and move what lies where it once did.

    Args:
        uid: whose all of it shall be; -1 for whose it is.

    Raises:
        OSError: it could not be done.
    """
    for name in services.folders():
        if (data / name).is_symlink():
            # Whoever laid it there would choose what of the machine a container sees.
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
        # Both may be there: a run was cut off, and the former version made an empty one meanwhile.
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
    """Make all of it `uid`'s. The folders themselves come last: by them is known that all below them is."""
    for name in services.folders():
        if (data / name).stat().st_uid != uid:
            for path in _below(data / name):
                os.chown(path, uid, uid, follow_symlinks=False)


def _below(folder: Path) -> Iterator[str]:
    for root, folders, files in os.walk(folder, topdown=False):
        yield from (os.path.join(root, name) for name in (*files, *folders))  # noqa: PTH118
    yield str(folder)


def main() -> None:
    """The program: exit code 0 where all is as it should be, else 1 and a line."""
    os.umask(0o077)
    try:
        ensure(Path(os.environ[DATA]), int(sys.argv[1]) if len(sys.argv) > 1 else -1)
    except OSError as error:
        sys.exit(f"gridup_node.folders: {error}")


if __name__ == "__main__":
    main()
