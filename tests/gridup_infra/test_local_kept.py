"""The folder that a node on this machine leaves where its data is kept, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gridup_infra.paths import write_private
from gridup_infra.targets.local import node


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a network node, as it was deployed."""
    made = tmp_path / "inst"
    for part in ("config", "data", "secrets", "logs"):
        (made / part).mkdir(parents=True)
    told = {"stack_id": "a" * 16, "name": "Inst", "node_type": "network", "admin_email": "ada@inst.example"}
    write_private(made / "config" / "node.json", json.dumps(told).encode())
    return made


def test_it_tells_who_logs_in_there_and_what_it_is(folder: Path) -> None:
    node.remove(folder, keep_data=True)
    assert sorted(path.name for path in folder.iterdir()) == ["data", "kept.json", "secrets"]
    for _ in range(2):
        left = node.retained(folder)
        assert left is not None
        assert (left.admin_email, left.node_type) == ("ada@inst.example", "network")
        assert left.what == f'the folder {folder} of "Inst"'
        # A destroy that is repeated has nothing to tell it by any more.
        node.remove(folder, keep_data=True)


def test_a_note_that_tells_less_will_do(folder: Path) -> None:
    (folder / "config" / "node.json").unlink()
    node.remove(folder, keep_data=True)
    left = node.retained(folder)
    assert left is not None
    assert (left.admin_email, left.node_type, left.what) == ("", "", f"the folder {folder}")
