"""What `gridup ssh` asks of OpenSSH's client: the right key, port and words, whatever is in them."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from gridup.commands.ssh import client_words, split
from gridup_infra.targets.base import SshAccess


def access(home: str = "/srv/node", port: int = 2222) -> SshAccess:
    keys = Path(home) / "keys"
    return SshAccess("ada", "127.0.0.1", port, keys / "client_ed25519", keys / "known_hosts")


def options(words: list[str]) -> dict[str, str]:
    return dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "-o")


def test_the_nodes_own_port_user_and_host_are_used() -> None:
    words = client_words(access(port=2207), [])
    assert words[words.index("-p") + 1] == "2207"
    assert words[-3:] == ["-l", "ada", "127.0.0.1"]


def test_nothing_of_the_persons_own_is_read_or_written_and_a_changed_host_key_is_refused() -> None:
    words = client_words(access(), [])
    assert words[:2] == ["-F", "/dev/null"]
    assert {
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": '"/srv/node/keys/known_hosts"',
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
    }.items() <= options(words).items()


@pytest.mark.parametrize("name", ["a b", "100%", "%h", "it's", '"q"', "a #1", "a\\b", "$HOME"])
def test_the_real_client_reads_a_key_path_of_any_kind(tmp_path: Path, name: str) -> None:
    ssh, keygen = shutil.which("ssh"), shutil.which("ssh-keygen")
    if not ssh or not keygen:
        pytest.skip("no ssh client on this machine")
    keys = tmp_path / name / "keys"
    keys.mkdir(parents=True)
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", keys / "client_ed25519"], check=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        # Once connected, the client tells which key it has read; then it is let go.
        threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
        words = client_words(access(str(tmp_path / name), server.getsockname()[1]), ["true"])
        loud = [word.replace("LogLevel=ERROR", "LogLevel=DEBUG2") for word in words]
        ended = subprocess.run([ssh, *loud], capture_output=True, text=True, timeout=30, check=False)
    # -1 is the type of a key that is not there; the path is shown with its backslashes doubled.
    assert re.search(r"identity file .*/keys/client_ed25519 type \d", ended.stderr), ended.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["echo", "a  b"],
        ["sh", "-c", "exit 7"],
        ["printf", "%s", "'\"$HOME`id`\\ #;&|*"],
        ["echo", ""],
        ["echo", "ü\n"],
    ],
)
def test_each_word_arrives_whole_on_the_other_side(command: list[str]) -> None:
    words = client_words(access(), command)
    assert words[-2] == "--"
    assert len(words) == len(client_words(access(), [])) + 2, "the remote shell gets one string"
    argv = "import sys; print(sys.argv[1:])"
    sent = words[-1]
    ended = subprocess.run(
        ["sh", "-c", f"set -- {sent}; python3 -c '{argv}' \"$@\""], capture_output=True, text=True, check=True
    )
    assert ended.stdout == f"{command}\n"


def test_without_a_command_it_is_a_login() -> None:
    assert "--" not in client_words(access(), [])


@pytest.mark.parametrize(
    ("words", "named", "expected"),
    [
        ([], False, (None, [])),
        (["Inst"], False, ("Inst", [])),
        (["Inst", "--", "df", "-h"], False, ("Inst", ["df", "-h"])),
        (["Inst", "df", "-h"], False, ("Inst", ["df", "-h"])),
        (["--", "df"], False, (None, ["df"])),
        (["df", "-h"], True, (None, ["df", "-h"])),
        (["--", "df"], True, (None, ["df"])),
        (["Inst", "--", "git", "checkout", "--", "x"], False, ("Inst", ["git", "checkout", "--", "x"])),
    ],
)
def test_the_name_stands_before_the_command(
    words: list[str], named: bool, expected: tuple[str | None, list[str]]
) -> None:
    assert split(words, named=named) == expected
