"""All that bears a local stack's marks: found, and removed."""

from __future__ import annotations

from pathlib import Path

from gridup_infra.targets.local import node, process_env
from gridup_infra.targets.local.supervisor import Supervisor
from gridup_node import kept


def leftovers(stack_id: str, folder: Path) -> list[str]:
    """What is there of the stack, a line each: processes, and its folder when it is this stack's."""
    found = [f"process {process.pid} ({process.name()})" for process in process_env.find(stack_id, folder)]
    if is_ours(stack_id, folder):
        found.append(f"folder {folder}")
    return found


def delete_all(stack_id: str, folder: Path, *, keep_data: bool) -> None:
    """End the stack's processes and remove its folder, or all of it but the data.

    Raises:
        ResourceError: something could not be ended or removed.
    """
    Supervisor(folder, stack_id).stop()
    if is_ours(stack_id, folder):
        node.remove(folder, keep_data=keep_data)


def is_ours(stack_id: str, folder: Path) -> bool:
    """Whether the folder is this stack's, or one that nobody has finished laying.

    A folder without its configuration is a interrupted create: its stack is the one named like it.
    """
    owner = node.owner_of(folder)
    # What was kept is nobody's, until a stack has taken it over.
    return folder.exists() and (owner == stack_id or (owner is None and not (folder / kept.NOTE).exists()))
