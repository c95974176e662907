"""Files and folders of ours are their owner's alone from the first moment, whatever the umask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridup_infra.errors import StateError
from gridup_infra.paths import Home, check_owner, default_home, ensure_home, ensure_private, write_private


@pytest.fixture(params=[0o000, 0o022, 0o077], autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_file_is_0600_and_holds_what_was_given(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "sécret #1"
    write_private(ensure_private(path.parent) / path.name, b"\x00\xff")
    assert (mode(path), path.read_bytes()) == (0o600, b"\x00\xff")


def test_a_loose_file_is_tight_after_writing(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert (mode(path), path.read_bytes()) == (0o600, b"new")


def test_the_secret_is_never_readable_by_others_not_even_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    replace = os.replace

    def look(source: str, target: Path) -> None:
        seen.extend(mode(path) for path in tmp_path.iterdir())
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    write_private(tmp_path / "secret", b"new")
    assert seen == [0o600]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    write_private(path, b"old")

    def fail(_source: str, _target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_0700_with_those_that_had_to_be_made_above(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    made = ensure_private(tmp_path / "a b" / "c")
    assert made == tmp_path / "a b" / "c"
    assert [mode(made), mode(made.parent)] == [0o700, 0o700]
    assert mode(tmp_path) == 0o755, "what was there above is not ours to change"


def test_a_loose_folder_is_tightened_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(mode=0o755)
    for _ in range(2):
        assert mode(ensure_private(tmp_path / "x")) == 0o700


def test_the_home_is_where_gridup_home_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDUP_HOME", str(tmp_path / "a b"))
    assert Home.default().node("inst") == tmp_path / "a b" / "nodes" / "inst"
    assert not (tmp_path / "a b").exists(), "naming a path makes nothing"
    monkeypatch.setenv("GRIDUP_HOME", "~/g")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_home() == tmp_path / "g"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDUP_HOME", "relative")
    assert default_home() == tmp_path / "relative"
    monkeypatch.delenv("GRIDUP_HOME")
    assert default_home().name == "gridup"


class TestHome:
    """GRIDUP_HOME, which others may use too."""

    def test_one_that_is_made_is_ours_alone(self, tmp_path: Path) -> None:
        ensure_home(Home(tmp_path / "a" / "home"))
        assert mode(tmp_path / "a" / "home") == 0o700

    @pytest.mark.parametrize("bits", [0o1777, 0o755, 0o750])
    def test_one_that_is_there_keeps_its_mode(self, tmp_path: Path, bits: int) -> None:
        tmp_path.chmod(bits)
        ensure_home(Home(tmp_path))
        assert tmp_path.stat().st_mode & 0o7777 == bits
        assert mode(ensure_private(Home(tmp_path).logs)) == 0o700
        assert tmp_path.stat().st_mode & 0o7777 == bits

    @pytest.mark.parametrize("bits", [0o777, 0o775, 0o772])
    def test_one_in_which_others_may_replace_secrets_is_refused(self, tmp_path: Path, bits: int) -> None:
        tmp_path.chmod(bits)
        with pytest.raises(StateError, match="may be changed by others") as caught:
            ensure_home(Home(tmp_path))
        assert f"chmod go-w {tmp_path}" in caught.value.suggestion
        assert mode(tmp_path) == bits

    def test_root_makes_nothing_in_the_home_of_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if os.geteuid() == 0:
            os.chown(tmp_path, 65534, 65534)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.delenv("GRIDUP_HOME", raising=False)
        with pytest.raises(StateError, match="This run is root's") as caught:
            check_owner(Home(tmp_path / ".local" / "share" / "gridup"))
        assert "sudo -H" in caught.value.suggestion
        # Who names the folder means it.
        monkeypatch.setenv("GRIDUP_HOME", str(tmp_path))
        check_owner(Home(tmp_path))

    def test_what_another_account_has_made_is_named_with_its_owner(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        monkeypatch.setattr(os, "access", lambda _path, _mode: False)
        with pytest.raises(
            StateError, match=f"{tmp_path} is .*'s, and this account may not use it"
        ) as caught:
            check_owner(Home(tmp_path))
        assert f"sudo chown -R 12345 {tmp_path}" in caught.value.suggestion
        check_owner(Home(tmp_path / "not there yet"))
