"""A node whose database file is removed, or replaced, under it or while it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gridup_node import facts
from gridup_node.database import Database, check, watched
from gridup_node.services import PROBLEM


@pytest.fixture
def folder(tmp_path: Path) -> facts.NodeDir:
    for name in ("data", "secrets"):
        (tmp_path / name).mkdir()
    return facts.NodeDir(tmp_path)


@pytest.fixture
def held(folder: facts.NodeDir) -> Iterator[sqlite3.Connection]:
    """The node's own connection, with a row."""
    with contextlib.closing(sqlite3.connect(folder.database)) as connection:
        connection.execute("CREATE TABLE people (name)")
        connection.execute("INSERT INTO people VALUES ('ada')")
        connection.commit()
        yield connection


def people(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM people")]


def test_a_node_that_never_had_one_may_start(folder: facts.NodeDir) -> None:
    assert check(folder) == ""


def test_one_that_lost_it_while_it_was_stopped_does_not_begin_with_an_empty_one(
    folder: facts.NodeDir, held: sqlite3.Connection
) -> None:
    Database(folder)
    held.close()
    assert check(folder) == ""
    folder.database.unlink()
    told = check(folder)
    assert str(folder.database) in told
    assert "Put a copy of it back" in told and "destroy" in told


def test_what_is_removed_under_it_is_put_back_and_no_more_is_taken(
    folder: facts.NodeDir, held: sqlite3.Connection
) -> None:
    found = Database(folder)
    assert found.problem() == ""
    folder.database.unlink()
    told = found.problem()
    assert "was removed" in told and "was put back" in told and "Stop and start" in told
    assert people(folder.database) == ["ada"]
    assert folder.database.stat().st_mode & 0o077 == 0
    assert [path.name for path in folder.data.iterdir()] == [folder.database.name]
    # What is open is still the other one.
    assert found.problem() == told
    assert Database(folder).problem() == ""


def test_one_that_nobody_has_open_is_told_of(folder: facts.NodeDir, held: sqlite3.Connection) -> None:
    found = Database(folder)
    held.close()
    folder.database.unlink()
    assert "Put a copy of it back" in found.problem()
    assert not folder.database.exists()


def test_one_that_was_replaced_stays_as_it_is(folder: facts.NodeDir, held: sqlite3.Connection) -> None:
    found = Database(folder)
    copy = folder.data / "copy"
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        connection.execute("CREATE TABLE people (name)")
        connection.commit()
    copy.rename(folder.database)
    assert "was replaced" in found.problem()
    assert people(folder.database) == []


def test_a_change_within_it_is_none_of_it(folder: facts.NodeDir, held: sqlite3.Connection) -> None:
    found = Database(folder)
    held.execute("INSERT INTO people VALUES ('grace')")
    held.commit()
    assert found.problem() == ""


def test_nothing_but_the_problem_is_answered_while_there_is_one() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send("passed")

    def asked(problem: str, kind: str = "http") -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(watched(app, lambda: problem)({"type": kind}, None, send))
        return sent

    assert asked("") == ["passed"]
    assert asked("gone", "lifespan") == ["passed"]
    start, body = asked("gone")
    assert start["status"] == 500
    assert json.loads(body["body"]) == {PROBLEM: "gone"}
