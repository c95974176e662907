"""Secrets: made once, by one of many, and open to nobody else."""

from __future__ import annotations

import os
import re
import stat
import string
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gridup_node import secrets


def test_two_thousand_generated_passwords_keep_the_rule() -> None:
    for made in {secrets.generate_password() for _ in range(2000)}:
        assert secrets.is_generated(made)
        assert not secrets.is_generated(made[:-1] + ("a" if made[-1] != "a" else "b"))
        classes = [string.ascii_lowercase, string.ascii_uppercase, string.digits, secrets.SYMBOLS]
        assert 12 <= len(made) <= 72
        assert sum(any(char in kind for char in made) for kind in classes) >= 3
        assert made.isprintable()
        secrets.check_password(made)


@pytest.mark.parametrize("text", ["S3cret!x9Qz", "Zwölf Grüße 9", "a" * 70 + "B1", "pass WORD pass"])
def test_a_good_password_is_accepted(text: str) -> None:
    secrets.check_password(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "aaaaaaaaaaaa",
        "changethis",
        "Sh0rt!",
        "a" * 71 + "B1",
        "S3cret!x9\nQz",
        "S3cret!x9\x00Qz",
        "Aa1\ud800" * 4,
    ],
)
def test_a_bad_password_is_refused_and_the_rule_stated(text: str) -> None:
    with pytest.raises(ValueError, match="10 to 72 bytes"):
        secrets.check_password(text)


def test_secrets_are_private_from_the_first_byte_and_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    before = os.umask(0)
    try:
        paths = secrets.ensure(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert sorted(path.name for path in folder.iterdir()) == sorted(paths)
    values = {name: path.read_text() for name, path in paths.items()}
    assert len(set(values.values())) == len(values)
    assert {name: path.read_text() for name, path in secrets.ensure(folder).items()} == values
    assert secrets.problems(folder) == []


def test_the_servers_id_survives_syfts_own_reading(tmp_path: Path) -> None:
    secrets.ensure(tmp_path)
    value = secrets.read(tmp_path, secrets.SERVER_UID)
    assert uuid.UUID(value, version=4).hex == value


def test_programs_that_start_at_once_see_the_same_secrets(tmp_path: Path) -> None:
    def start(_: int) -> dict[str, str]:
        return {name: path.read_text() for name, path in secrets.ensure(tmp_path / "secrets").items()}

    with ThreadPoolExecutor(16) as pool:
        seen = list(pool.map(start, range(64)))
    assert all(one == seen[0] for one in seen)
    assert all(seen[0].values())


def test_problems_names_what_is_wrong_and_ensure_puts_it_right(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert secrets.problems(folder) == ["secrets: missing"]
    secrets.ensure(folder)
    folder.chmod(0o755)
    (folder / "server_key").chmod(0o644)
    (folder / "session_key").unlink()
    (folder / "jupyter_token").write_text("")
    assert secrets.problems(folder) == [
        "secrets: others may enter it (mode 0755)",
        "secrets/server_key: others may read it (mode 0644)",
        "secrets/jupyter_token: empty",
        "secrets/session_key: missing",
    ]
    secrets.ensure(folder)
    assert secrets.problems(folder) == []


def test_replace_is_whole_and_private(tmp_path: Path) -> None:
    secrets.ensure(tmp_path)
    secrets.replace(tmp_path, secrets.ADMIN_PASSWORD, "S3cret!x9Qz")
    assert secrets.read(tmp_path, secrets.ADMIN_PASSWORD) == "S3cret!x9Qz"
    assert secrets.problems(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == len(secrets.MAKERS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Sh0rt!", "it has 6 bytes, too few"),
        ("a" * 71 + "B1", "it has 73 bytes, too many"),
        ("S3cret!x9\nQz", "it has a control character"),
        ("aaaaaaaaaaaa", "it has 1 of the four kinds of characters"),
        ("aaaaaaaaaaaa1", "it has 2 of the four kinds of characters"),
    ],
)
def test_a_refusal_names_what_is_wrong_and_never_the_password(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}.*; {re.escape(secrets.RULE)}$") as caught:
        secrets.check_password(text)
    assert text not in str(caught.value)


def test_only_a_password_that_the_node_has_made_is_its_own(tmp_path: Path) -> None:
    """It is never made to wait, so nobody may have chosen it."""
    folder = tmp_path / "secrets"
    assert not secrets.is_own_password(folder, "")
    secrets.ensure(folder)
    own = secrets.read(folder, secrets.ADMIN_PASSWORD)
    assert secrets.is_own_password(folder, own)
    for other in ("", own[:-1], own.upper(), secrets.generate_password(), "é" * 24):
        assert not secrets.is_own_password(folder, other)
    for chosen in ("Ana1ytical-Engine", "Passw0rd-Passw0rd-Passw0"):
        secrets.replace(folder, secrets.ADMIN_PASSWORD, chosen)
        assert not secrets.is_own_password(folder, chosen)
