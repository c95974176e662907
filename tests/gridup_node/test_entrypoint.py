"""A container's part of a node: its keys, its folder, and the proof that its program does its work."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gridup_node import entrypoint, folders, health, keys, secrets
from gridup_node.entrypoint import prepare, told
from gridup_node.services import PORTAL_MARK, SERVICES, ProbeKind, Service, programs, served, service
from support.http_rig import (
    LOGIN,
    METADATA,
    Handler,
    always,
    banner,
    free_port,
    json_reply,
    jupyter,
    node,
    reply,
    reset,
    serve,
)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Whatever is private here is so by our own doing."""
    before = os.umask(0)
    yield
    os.umask(before)


class TestKeys:
    """Made once, by the real ssh-keygen."""

    def test_they_are_private_and_fit(self, tmp_path: Path, open_umask: None) -> None:
        folder = tmp_path / "keys"
        keys.ensure(folder, "inst", ["ssh-ed25519 AAAA ada@inst", "ssh-ed25519 BBBB b"])
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        private = {name: mode for name, mode in modes(folder).items() if not name.endswith(".pub")}
        assert private == dict.fromkeys((*keys.PRIVATE, keys.AUTHORIZED, keys.KNOWN_HOSTS), 0o600)
        client, host = (
            (folder / f"{name}.pub").read_text().strip() for name in (keys.CLIENT_KEY, keys.HOST_KEY)
        )
        assert client.endswith(" inst")
        assert (folder / keys.AUTHORIZED).read_text().splitlines() == [
            client,
            "ssh-ed25519 AAAA ada@inst",
            "ssh-ed25519 BBBB b",
        ]
        assert (folder / keys.KNOWN_HOSTS).read_text() == f"* {host}\n"
        derived = subprocess.run(
            ["ssh-keygen", "-y", "-f", folder / keys.CLIENT_KEY], capture_output=True, text=True, check=True
        )
        assert client.startswith(" ".join(derived.stdout.split()[:2]))

    def test_a_key_that_is_there_is_never_changed_and_who_may_enter_is(self, tmp_path: Path) -> None:
        keys.ensure(tmp_path, "inst", ["ssh-ed25519 AAAA a"])
        before = {name: (tmp_path / name).read_bytes() for name in keys.PRIVATE}
        (tmp_path / keys.HOST_KEY).chmod(0o644)
        keys.ensure(tmp_path, "other", [])
        assert {name: (tmp_path / name).read_bytes() for name in keys.PRIVATE} == before
        assert (tmp_path / keys.AUTHORIZED).read_text().count("\n") == 1
        assert modes(tmp_path)[keys.HOST_KEY] == 0o600

    @pytest.mark.parametrize("lost", [keys.HOST_KEY, f"{keys.HOST_KEY}.pub"])
    @pytest.mark.parametrize("how", ["gone", "empty"])
    def test_a_half_made_key_is_made_anew_and_the_other_stays(
        self, tmp_path: Path, lost: str, how: str
    ) -> None:
        keys.ensure(tmp_path, "inst", [])
        client, host = ((tmp_path / name).read_bytes() for name in (keys.CLIENT_KEY, keys.HOST_KEY))
        (tmp_path / lost).unlink() if how == "gone" else (tmp_path / lost).write_text("")
        assert not keys.whole(tmp_path / keys.HOST_KEY)
        keys.ensure(tmp_path, "inst", [])
        assert keys.whole(tmp_path / keys.HOST_KEY)
        assert (tmp_path / keys.CLIENT_KEY).read_bytes() == client
        assert (tmp_path / keys.HOST_KEY).read_bytes() != host
        public = (tmp_path / f"{keys.HOST_KEY}.pub").read_text().strip()
        assert (tmp_path / keys.KNOWN_HOSTS).read_text() == f"* {public}\n"
        assert not list(tmp_path.glob(".*")), "nothing of its making is left"

    def test_a_keygen_that_fails_leaves_no_half_of_a_key(self, tmp_path: Path) -> None:
        def fail(argv: Any) -> None:
            Path(argv[-1]).write_text("half")
            keys.run([sys.executable, "-c", "import sys; sys.exit('no\\nentropy')"])

        with pytest.raises(OSError, match="no entropy"):
            keys.ensure(tmp_path / "keys", "inst", [], fail)
        assert list((tmp_path / "keys").iterdir()) == []


KNOWN = {
    "name": "Inst & Söhne",
    "node_type": "domain",
    "admin_email": "a@b.example",
    "bundle": "b1",
    "endpoints": {"ui": "http://127.0.0.1:8080/login"},
    "gridup_version": "0.1.0",
    "ssh_keys": ["ssh-ed25519 AAAA ada"],
}


@pytest.mark.tier("gate")  # sshd is in the image, and not on every machine
class TestLay:
    """The folder of a container."""

    @staticmethod
    def laid(tmp_path: Path, name: str) -> tuple[Path, Path]:
        home, data = tmp_path / "home", tmp_path / "data"
        for folder in (home, data):
            folder.mkdir(mode=0o700, exist_ok=True)
        folders.ensure(data)
        row = service(name)
        prepare(home, data, row, json.loads(told(row, KNOWN)), SERVICES)
        return home, data

    @staticmethod
    def contents(*folders: Path) -> dict[str, tuple[int, bytes]]:
        return {
            str(path): (stat.S_IMODE(path.lstat().st_mode), path.read_bytes() if path.is_file() else b"")
            for folder in folders
            for path in folder.rglob("*")
        }

    @pytest.mark.parametrize("name", [row.name for row in programs()])
    def test_laid_twice_it_is_as_laid_once(self, tmp_path: Path, name: str) -> None:
        places = self.laid(tmp_path, name)
        once = self.contents(*places)
        assert self.laid(tmp_path, name) == places
        assert self.contents(*places) == once

    @pytest.mark.parametrize("name", [row.name for row in programs()])
    def test_what_must_outlive_it_lies_in_the_folders_that_it_sees_and_in_no_other(
        self, tmp_path: Path, name: str
    ) -> None:
        home, data = self.laid(tmp_path, name)
        links = {path.resolve() for path in home.rglob("*") if path.is_symlink()}
        seen = {path.relative_to(data).parts[0] for path in links}
        assert seen == set(service(name).folders)
        rest = {path.name for path in home.iterdir() if not path.is_symlink()}
        assert {"config", "run", "logs"} <= rest

    def test_the_api_has_every_secret_and_jupyter_its_token_alone(self, tmp_path: Path) -> None:
        home, _ = self.laid(tmp_path, "api")
        assert secrets.problems(home / "secrets") == []
        (tmp_path / "apart").mkdir()
        other = tmp_path / "apart/home"
        other.mkdir()
        prepare(other, tmp_path / "data", service("jupyter"), {}, SERVICES)
        made = {path.name: path.read_text() for path in (other / "secrets").iterdir()}
        assert made == {secrets.JUPYTER_TOKEN: (home / "secrets" / secrets.JUPYTER_TOKEN).read_text()}

    def test_jupyter_may_be_the_first_to_make_its_token(self, tmp_path: Path) -> None:
        home, data = self.laid(tmp_path, "jupyter")
        token = secrets.read(home / "secrets", secrets.JUPYTER_TOKEN)
        assert secrets.read(data / "secrets", secrets.JUPYTER_TOKEN) == token
        assert (home / "data/notebooks").resolve() == data / "notebooks"

    @pytest.mark.parametrize("name", [row.name for row in programs()])
    def test_everything_is_its_owners_alone(self, tmp_path: Path, open_umask: None, name: str) -> None:
        for place in self.laid(tmp_path, name):
            for path in place.rglob("*"):
                if path.is_symlink() or path.suffix == ".pub":
                    continue
                wanted = 0o700 if path.is_dir() else 0o600
                assert stat.S_IMODE(path.stat().st_mode) == wanted, path

    def test_only_its_own_configuration_is_rendered(self, tmp_path: Path) -> None:
        for row in programs():
            (tmp_path / row.name).mkdir()
            home, _ = self.laid(tmp_path / row.name, row.name)
            assert {path.name for path in (home / "config").iterdir()} == {
                *row.files,
                "node.json",
                "programs.json",
            }

    def test_the_configuration_is_that_of_a_program_with_a_host_of_its_own(self, tmp_path: Path) -> None:
        home, _ = self.laid(tmp_path, "proxy")
        assert "reverse_proxy api:18080" in (home / "config" / "Caddyfile").read_text()
        run = json.loads((home / "config" / "programs.json").read_text())["proxy"]
        assert run["argv"][0] == str(Path(sys.executable).parent / "caddy")

    def test_it_knows_what_it_was_told(self, tmp_path: Path) -> None:
        home, _ = self.laid(tmp_path, "api")
        known = json.loads((home / "config" / "node.json").read_text())
        assert known == {key: value for key, value in KNOWN.items() if key != "ssh_keys"}

    def test_whoever_was_named_may_enter_and_only_ssh_makes_keys(self, tmp_path: Path) -> None:
        _, data = self.laid(tmp_path, "jupyter")
        assert list((data / "keys").iterdir()) == []
        home, data = self.laid(tmp_path, "ssh")
        assert "ssh-ed25519 AAAA ada" in (data / "keys" / keys.AUTHORIZED).read_text().splitlines()
        assert f'HostKey "{home}/keys/host_ed25519"' in (home / "config" / "sshd_config").read_text()

    def test_told_leaves_out_what_is_not_known_and_what_is_not_asked_for(self) -> None:
        row = replace(service("ssh"), facts_read=("name", "missing"))
        assert json.loads(told(row, {**KNOWN, "secret": "x"})) == {"name": "Inst & Söhne"}

    def test_a_volume_that_cannot_be_written_ends_it_with_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "home").mkdir()
        (tmp_path / "data").write_text("not a folder")
        ended = subprocess.run(
            [sys.executable, "-m", "gridup_node.entrypoint", "api"],
            env={
                **os.environ,
                "PYTHONPATH": str(Path(entrypoint.__file__).parents[1]),
                "GRIDUP_NODE_HOME": str(tmp_path / "home"),
                "GRIDUP_NODE_DATA": str(tmp_path / "data"),
            },
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert ended.returncode == 1
        assert ended.stderr.startswith("gridup_node.entrypoint: ")
        assert ended.stderr.count("\n") == 1

    def test_it_becomes_its_program(self, tmp_path: Path) -> None:
        bin_, home, data = (tmp_path / name for name in ("bin", "home", "data"))
        for folder in (bin_, home, data):
            folder.mkdir()
        # The table's programs lie beside the Python that runs it.
        (bin_ / "python").symlink_to(sys.executable)
        (bin_ / "caddy").write_text('#!/bin/sh\necho "$PPID $GRIDUP_LISTEN $XDG_DATA_HOME $*"; umask\n')
        (bin_ / "caddy").chmod(0o755)
        started = subprocess.Popen(
            [bin_ / "python", "-m", "gridup_node.entrypoint", "proxy"],
            env={
                **os.environ,
                "PYTHONPATH": str(Path(entrypoint.__file__).parents[1]),
                "GRIDUP_NODE_HOME": str(home),
                "GRIDUP_NODE_DATA": str(data),
                "GRIDUP_NODE": "{}",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        out, err = started.communicate(timeout=30)
        assert (started.returncode, err) == (0, "")
        first, mask = out.splitlines()
        assert (
            first
            == f"{os.getpid()} 0.0.0.0 {home}/proxy run --config {home}/config/Caddyfile --adapter caddyfile"
        )
        assert mask == "0077"


DECOY = always(reply(200, b"<html>OK</html>"))
TALKATIVE = always(b"220 mail.example ESMTP\r\n")
PLAIN = {"version": "1", "server_type": "datasite"}

RIGHT: dict[str, Handler] = {
    "api": node(),
    "jupyter": jupyter(),
    "ssh": banner("SSH-2.0-OpenSSH_9.2"),
    "proxy": DECOY,
}
"""For each program a server that does its work."""

WRONG: list[tuple[str, Handler, str]] = [
    ("api", DECOY, "ui: answered 200, not the login page"),
    ("api", always(reply(200, LOGIN)), "api: answered 200 without a server_type"),
    ("api", always(json_reply(METADATA)), "ui: answered 200, not the login page"),
    ("api", node({}), "api: answered 200 without a server_type"),
    ("api", node({"name": "Inst"}), "api: answered 200 without a server_type"),
    ("api", always(reply(503, LOGIN)), "ui: answered 503, not the login page"),
    ("api", reset, "ui: "),
    ("api", TALKATIVE, "ui: "),
    ("jupyter", DECOY, "jupyter: answered 200 without a version"),
    ("jupyter", jupyter(""), "jupyter: answered 200 without a version"),
    ("jupyter", always(json_reply(["version"])), "jupyter: answered 200 without a version"),
    ("jupyter", always(json_reply(PLAIN, 500)), "jupyter: answered 500 without a version"),
    ("ssh", DECOY, "ssh: "),
    ("ssh", TALKATIVE, "ssh: no ssh banner"),
    ("ssh", banner("SSH-1.5-old"), "ssh: no ssh banner"),
    ("ssh", always(b""), "ssh: no ssh banner"),
]


class TestHealth:
    """Asked of real servers."""

    @pytest.fixture(autouse=True)
    def patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(health, "SECONDS", 120)

    @staticmethod
    def problem(name: str, handler: Handler) -> str:
        with serve(handler, speaks_first=name == "ssh") as server:
            return health.problem(replace(service(name), port=server.port))

    def test_there_is_a_proof_of_every_kind(self) -> None:
        assert set(health.PROOFS) == {None, *ProbeKind}
        # The sandbox has no port: see tests/security/test_sandbox.py.
        assert set(RIGHT) == {row.name for row in programs() if row.proof is not ProbeKind.SANDBOX}

    @pytest.mark.parametrize("name", RIGHT)
    def test_a_program_that_does_its_work_has_no_problem(self, name: str) -> None:
        assert self.problem(name, RIGHT[name]) == ""

    @pytest.mark.parametrize(("name", "handler", "said"), WRONG)
    def test_what_only_answers_has_one(self, name: str, handler: Handler, said: str) -> None:
        found = self.problem(name, handler)
        assert found.startswith(said)
        assert found.partition(": ")[2].strip()
        assert "\n" not in found

    @pytest.mark.parametrize("name", RIGHT)
    def test_where_nothing_listens_that_is_said(self, name: str) -> None:
        found = health.problem(replace(service(name), port=free_port()))
        assert found == f"{served(service(name))[0].name}: [Errno 111] Connection refused"

    def test_a_program_without_a_proof_must_at_least_listen(self) -> None:
        row = Service(name="metrics", title="metrics", port=free_port())
        assert health.problem(row).startswith("metrics: ")
        with serve(DECOY) as server:
            assert health.problem(replace(row, port=server.port)) == ""

    def test_a_proxy_of_the_environment_is_not_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
        assert self.problem("api", node()) == ""

    def test_a_program_that_never_answers_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from support.http_rig import silent

        monkeypatch.setattr(health, "SECONDS", 0.3)
        for name in ("api", "ssh"):
            assert "timed out" in self.problem(name, silent)

    def test_the_mark_counts_wherever_it_stands_in_a_page_of_the_usual_size(self) -> None:
        page = b"<html>" + b" " * 100_000 + PORTAL_MARK.encode()
        with serve(
            lambda sock, path: (always(reply(200, page)) if path == "/login" else node())(sock, path)
        ) as at:
            assert health.problem(replace(service("api"), port=at.port)) == ""

    @pytest.mark.parametrize("how", ["argument", "environment"])
    def test_as_a_program_it_ends_with_0_or_with_1_and_a_line(
        self, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["jupyter"] if how == "argument" else []
        monkeypatch.setenv("GRIDUP_SERVICE", "jupyter" if how == "environment" else "ssh")
        with serve(jupyter()) as server:
            # Another port than the table's: that one may be taken on this machine.
            monkeypatch.setattr(health, "service", lambda name: replace(service(name), port=server.port))
            assert (health.main(words), capsys.readouterr().out) == (0, "")
        assert health.main(words) == 1
        assert re.fullmatch(r"jupyter: .+\n", capsys.readouterr().out)
