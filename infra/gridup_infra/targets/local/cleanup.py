"""Find and delete the processes and the folder of a local stack, by their ownership marks."""

from __future__ import annotations

from pathlib import Path

from gridup_infra.targets.local import node, process_env
from gridup_infra.targets.local.supervisor import Supervisor
from gridup_node import kept


def leftovers(stack_id: str, folder: Path) -> list[str]:
    """Return what exists of the stack, a line each: its processes, and the folder if it is this stack's."""
    found = [f"process {process.pid} ({process.name()})" for process in process_env.find(stack_id, folder)]
    if is_ours(stack_id, folder):
        found.append(f"folder {folder}")
    return found


def delete_all(stack_id: str, folder: Path, *, keep_data: bool) -> None:
    """End the stack's processes and delete its folder, or all of the folder but the data.

    Raises:
        ResourceError: a process could not be ended, or a file could not be deleted.
    """
    Supervisor(folder, stack_id).stop()
    if is_ours(stack_id, folder):
        node.remove(folder, keep_data=keep_data)


def is_ours(stack_id: str, folder: Path) -> bool:
    """Return whether the folder belongs to this stack.

    A folder without configuration comes from an interrupted create. It belongs to the stack with its name.
    """
    owner = node.owner_of(folder)
    # Retained data belongs to no stack until a stack adopts it.
    return folder.exists() and (owner == stack_id or (owner is None and not (folder / kept.NOTE).exists()))
