"""Find and delete the shared Python environments that no node uses."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from gridup_infra.errors import BusyError, GridupError
from gridup_infra.locking import locked
from gridup_infra.targets.local.runtime import folders, user


def unused(runtimes: Path, nodes: Path) -> list[Path]:
    """Return the environments that no node's configuration names, including half-built ones."""
    used = {path for folder in nodes.glob("*/config/programs.json") for path in _programs(folder)}
    return [
        path for path in folders(runtimes) if not any(str(program).startswith(f"{path}/") for program in used)
    ]


def remove(path: Path, nodes: Path) -> None:
    """Delete an environment that is unused.

    Raises:
        BusyError: the environment is being built, or is in use by now.
        GridupError: it can't be deleted.
    """
    with locked(
        path.with_name(f".{path.name}.lock"), "a prune", wait=0, busy=f"The environment {path.name} is in use"
    ):
        # A deploy may have begun to use it since the list was made.
        if path not in unused(path.parent, nodes) or user(path):
            raise BusyError(f"The environment {path.name} is used by a node now.")
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise GridupError(f"{path} could not be removed: {error.strerror}.") from error


def _programs(path: Path) -> list[str]:
    found: list[str] = []
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        for program in json.loads(path.read_text(encoding="utf-8")).values():
            found.append(program["argv"][0])
    return found
