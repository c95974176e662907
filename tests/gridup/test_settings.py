"""Where the state is, who may read it, and which of a setting's sources wins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gridup.settings import BACKEND, PASSPHRASE, PASSPHRASE_FILE, Settings, file_defaults
from gridup_infra.errors import PassphraseError, StateError, UsageError
from gridup_infra.paths import Home


def settings(root: Path, **environment: str) -> Settings:
    return Settings(Home(root), environment)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_state_is_a_folder_below_the_home_whatever_its_path() -> None:
    odd = settings(Path("/tmp/my state #1/100% ?x"))
    assert odd.backend_url == "file:///tmp/my%20state%20%231/100%25%20%3Fx/state"
    assert odd.file_backend == Path("/tmp/my state #1/100% ?x/state")


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("file:///srv/state", Path("/srv/state")),
        ("file:///srv/my%20state%20%231", Path("/srv/my state #1")),
        ("file:///srv/state?no_tmp_dir=true", Path("/srv/state")),
        ("file://~", Path.home()),
        ("file://~/state", Path.home() / "state"),
        ("file://./state", Path.cwd() / "state"),
        ("s3://bucket/prefix", None),
        ("https://api.pulumi.com", None),
    ],
)
def test_the_persons_backend_wins_and_is_read_as_pulumi_reads_it(url: str, folder: Path | None) -> None:
    own = settings(Path("/h"), **{BACKEND: url})
    assert own.backend_url == url
    assert own.pulumi_environment()[BACKEND] == url
    assert own.file_backend == folder


def test_without_a_choice_the_passphrase_is_a_file_of_ours() -> None:
    made = settings(Path("/h")).pulumi_environment()
    assert made[PASSPHRASE_FILE] == "/h/passphrase"
    assert made["GRIDUP_HOME"] == "/h"
    assert PASSPHRASE not in made


@pytest.mark.parametrize("given", ["hunter2", ""])
def test_the_persons_passphrase_wins_and_is_passed_on_by_nobody(tmp_path: Path, given: str) -> None:
    own = settings(tmp_path / "h", **{PASSPHRASE: given, PASSPHRASE_FILE: "/f"})
    made = own.pulumi_environment()
    assert PASSPHRASE_FILE not in made
    assert PASSPHRASE not in made, "it is in the environment already; what `env` prints holds no secret"
    own.ensure_state()
    assert not own.home.passphrase.exists()


def test_the_persons_passphrase_file_wins(tmp_path: Path) -> None:
    own = settings(tmp_path / "h", **{PASSPHRASE_FILE: "/f"})
    assert own.pulumi_environment()[PASSPHRASE_FILE] == "/f"
    own.ensure_state()
    assert not own.home.passphrase.exists()


def test_an_empty_passphrase_file_variable_is_as_none(tmp_path: Path) -> None:
    own = settings(tmp_path / "h", **{PASSPHRASE_FILE: ""})
    own.ensure_state()
    assert Path(own.pulumi_environment()[PASSPHRASE_FILE]).read_text()


def test_a_first_use_makes_a_private_state_and_passphrase_and_a_second_keeps_them(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        own = settings(tmp_path / "a b #1")
        own.ensure_state()
    finally:
        os.umask(umask)
    assert own.file_backend is not None
    assert (mode(own.home.root), mode(own.file_backend), mode(own.home.passphrase)) == (0o700, 0o700, 0o600)
    made = own.home.passphrase.read_bytes()
    assert len(made) >= 40
    own.ensure_state()
    assert own.home.passphrase.read_bytes() == made
    assert {path.name for path in own.home.root.iterdir()} == {"state", "passphrase"}


def test_a_state_that_people_share_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "team"
    shared.mkdir()
    shared.chmod(0o770)
    settings(tmp_path / "h", **{BACKEND: f"file://{shared}"}).ensure_state()
    assert mode(shared) == 0o770
    settings(tmp_path / "h", **{BACKEND: f"file://{tmp_path}/new/state"}).ensure_state()
    assert mode(tmp_path / "new" / "state") == 0o700


def test_many_first_uses_at_once_agree_on_one_passphrase(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from gridup.settings import Settings; from gridup_infra.paths import Home\n"
        "sys.stdin.read(); own = Settings(Home(Path(sys.argv[1])), {}); own.ensure_state()\n"
        "print(own.home.passphrase.read_text())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "h"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(4)
    ]
    for run in runs:
        assert run.stdin is not None
        run.stdin.close()
        run.stdin = None
    seen = {run.communicate(timeout=60)[0] for run in runs}
    assert [run.returncode for run in runs] == [0] * 4
    assert len(seen) == 1
    assert seen.pop().strip()
    assert [path.name for path in (tmp_path / "h").iterdir() if path.name.startswith(".")] == []


def test_a_home_that_can_not_be_made_says_where_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="can't be made") as caught:
        settings(tmp_path / "file" / "h").ensure_state()
    assert "GRIDUP_HOME" in caught.value.suggestion


def config(root: Path, text: str | bytes) -> Home:
    root.mkdir(exist_ok=True)
    (root / "config.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return Home(root)


def test_defaults_are_read_by_command_in_the_spelling_of_the_flags(tmp_path: Path) -> None:
    home = config(tmp_path, "deploy:\n  port: 9000\n  admin-email: a@b.example\n  keep_data: true\n")
    assert file_defaults(home) == {"deploy": {"port": 9000, "admin_email": "a@b.example", "keep_data": True}}


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_is_no_defaults(tmp_path: Path, text: str) -> None:
    assert file_defaults(config(tmp_path, text)) == {}
    assert file_defaults(Home(tmp_path / "none")) == {}


@pytest.mark.parametrize(
    "text",
    [
        "- deploy",
        "deploy",
        "deploy: 9000",
        "deploy: [port]",
        "a: b: c",
        "\t",
        b"\xff\xfe\x00",
        "deploy: {1: 2}",
        "1: {a: 2}",
    ],
)
def test_a_file_of_another_form_is_refused_by_its_path(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(UsageError) as caught:
        file_defaults(config(tmp_path, text))
    assert str(tmp_path / "config.yaml") in caught.value.message
    assert "\n" not in caught.value.message


def test_an_unreadable_file_is_refused_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(UsageError, match=r"config\.yaml"):
        file_defaults(Home(tmp_path))


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_passphrase_is_told_as_such_and_never_replaced(tmp_path: Path, content: str) -> None:
    own = settings(tmp_path / "h")
    own.ensure_state()
    own.home.passphrase.write_text(content)
    with pytest.raises(PassphraseError, match="is empty") as caught:
        own.ensure_state()
    assert str(own.home.passphrase) in caught.value.message
    assert own.home.passphrase.read_text() == content


def test_while_there_are_stacks_no_new_passphrase_is_made(tmp_path: Path) -> None:
    own = settings(tmp_path / "h")
    own.ensure_state(lambda: ())
    old = own.home.passphrase.read_bytes()
    own.home.passphrase.unlink()
    with pytest.raises(PassphraseError, match="is missing") as caught:
        own.ensure_state(lambda: ("hub", "inst"))
    assert str(own.home.passphrase) in caught.value.message and "hub, inst" in caught.value.message
    assert PASSPHRASE in caught.value.suggestion and "copy" in caught.value.suggestion
    assert not own.home.passphrase.exists()
    own.home.passphrase.write_bytes(old)
    own.ensure_state(lambda: ("hub", "inst"))
    settings(tmp_path / "other", **{PASSPHRASE: "theirs"}).ensure_state(lambda: ("hub",))


def test_a_passphrase_that_another_run_makes_meanwhile_is_taken(tmp_path: Path) -> None:
    own = settings(tmp_path / "h")

    def others_first_deploy() -> tuple[str, ...]:
        own.home.passphrase.write_bytes(b"theirs")
        return ("inst",)

    own.ensure_state(others_first_deploy)
    assert own.home.passphrase.read_bytes() == b"theirs"
