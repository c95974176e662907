"""The folders of a node's data: made, and what an earlier version left elsewhere found again, by both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gridup_node import folders, secrets, services
from gridup_node.folders import ensure, holder

TOKEN = "secrets/jupyter_token"
NOTEBOOKS = "data/notebooks"


def former(data: Path) -> Path:
    """A node's data as versions before this one laid it."""
    secrets.ensure(data / "secrets")
    for name in ("data/notebooks/more", "keys", "jupyter", "proxy"):
        (data / name).mkdir(mode=0o700, parents=True)
    (data / "data/node.db").write_text("rows")
    (data / "data/notebooks/a.ipynb").write_text("a")
    (data / "data/notebooks/more/b.ipynb").write_text("b")
    return data


def files(data: Path) -> dict[str, str]:
    """Each file where it really lies, by its path."""
    return {
        str(path.relative_to(data)): path.read_text()
        for path in data.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_a_new_nodes_folders_are_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ensure(tmp_path)
    finally:
        os.umask(before)
    assert {path.name for path in tmp_path.iterdir()} == set(services.folders())
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o700}


def test_what_an_earlier_version_laid_is_where_the_containers_look_for_it(tmp_path: Path) -> None:
    before = files(former(tmp_path))
    for _ in range(2):
        ensure(tmp_path)
        moved = {
            path.replace(NOTEBOOKS, "notebooks").replace(TOKEN, "token/jupyter_token"): text
            for path, text in before.items()
        }
        assert files(tmp_path) == moved


def test_the_earlier_version_finds_all_of_it_should_it_come_back(tmp_path: Path) -> None:
    before = files(former(tmp_path))
    ensure(tmp_path)
    assert {path: (tmp_path / path).read_text() for path in before} == before
    # As its containers begin.
    (tmp_path / NOTEBOOKS).mkdir(mode=0o700, exist_ok=True)
    secrets.ensure(tmp_path / "secrets")
    assert {path: (tmp_path / path).read_text() for path in before} == before
    (tmp_path / NOTEBOOKS / "c.ipynb").write_text("c")
    assert (tmp_path / "notebooks/c.ipynb").read_text() == "c"


def test_the_links_hold_wherever_the_data_are(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    ensure(former(tmp_path / "one"))
    (tmp_path / "one").rename(tmp_path / "two")
    assert (tmp_path / "two" / NOTEBOOKS / "a.ipynb").read_text() == "a"


def test_nothing_is_lost_where_a_run_was_cut_off_and_the_earlier_version_ran_meanwhile(
    tmp_path: Path,
) -> None:
    former(tmp_path)
    (tmp_path / NOTEBOOKS).rename(tmp_path / "notebooks")
    (tmp_path / NOTEBOOKS).mkdir()
    (tmp_path / NOTEBOOKS / "c.ipynb").write_text("c")
    ensure(tmp_path)
    assert {path.name for path in (tmp_path / "notebooks").iterdir()} == {"a.ipynb", "more", "c.ipynb"}
    assert (tmp_path / NOTEBOOKS).is_symlink()


def test_of_two_files_of_one_name_neither_is_lost(tmp_path: Path) -> None:
    former(tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/a.ipynb").write_text("other")
    ensure(tmp_path)
    assert (tmp_path / "notebooks/a.ipynb").read_text() == "other"
    assert (tmp_path / NOTEBOOKS / "a.ipynb").read_text() == "a"
    assert (tmp_path / "notebooks/more/b.ipynb").read_text() == "b"


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/notebooks").symlink_to("/etc")
    (tmp_path / "data/keys").symlink_to("/root")
    with pytest.raises(OSError, match="keys is a link"):
        ensure(tmp_path / "data")


def test_all_of_it_is_given_to_whom_it_shall_be_and_the_folders_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def chown(path: str, uid: int, gid: int, *, follow_symlinks: bool) -> None:
        assert (uid, gid, follow_symlinks) == (10002, 10002, False)
        given.append(str(Path(path).relative_to(tmp_path)))

    former(tmp_path)
    monkeypatch.setattr(os, "chown", chown)
    ensure(tmp_path, 10002)
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert sorted(given) == sorted(there)
    for path in given:
        assert all(given.index(path) > given.index(below) for below in there if below.startswith(f"{path}/"))
    given.clear()
    ensure(tmp_path, os.getuid())
    assert given == []


def test_each_secret_lies_where_only_those_who_need_it_look(tmp_path: Path) -> None:
    ensure(tmp_path)
    secrets.ensure(tmp_path / "secrets")
    who = {
        name: {row.name for row in services.programs() if holder(f"secrets/{name}") in row.folders}
        for name in secrets.MAKERS
    }
    assert who.pop(secrets.JUPYTER_TOKEN) == {"api", "jupyter"}
    assert set(map(tuple, who.values())) == {("api",)}
    for name in secrets.MAKERS:
        assert [path.name for path in (tmp_path / holder(f"secrets/{name}")).iterdir()].count(name) == 1
        assert secrets.read(tmp_path / "secrets", name)
    secrets.replace(tmp_path / "secrets", secrets.JUPYTER_TOKEN, "new")
    assert (tmp_path / "token/jupyter_token").read_text() == "new\n"
    assert (tmp_path / TOKEN).is_symlink()


@pytest.mark.parametrize("code", [0, 1])
def test_the_program_tells_by_its_exit_code(tmp_path: Path, code: int) -> None:
    if code:
        (tmp_path / "data").write_text("no folder")
    ended = subprocess.run(
        [sys.executable, "-m", "gridup_node.folders"],
        env={"PYTHONPATH": str(Path(folders.__file__).parents[1]), folders.DATA: str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == code
    assert ended.stderr.count("\n") == code
