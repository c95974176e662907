"""A node's secrets are replaced whole or not at all, wherever that is cut short; no node need run."""

from __future__ import annotations

import base64
import io
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from gridup_node import durable, facts, keys, rekey, rotation, secrets

ID, LATER = "2026-11-29T10:00:00", "2026-11-29T11:00:00"
KEY, NEW = "11" * 32, "22" * 32
HERS = "33" * 32
CODE = "def total(ages): return ages.sum()"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> facts.NodeDir:
    (tmp_path / "config").mkdir()
    told = {"name": "Inst", "node_type": "domain", "ports": {"api": 1}, "admin_email": "a@inst.example"}
    (tmp_path / "config" / "node.json").write_text(json.dumps(told))
    for name in ("secrets", "proxy", "keys", "jupyter", "data"):
        (tmp_path / name).mkdir(mode=0o700)
    monkeypatch.setenv("GRIDUP_NODE_HOME", str(tmp_path))
    return facts.NodeDir(tmp_path)


def run(*argv: str, told: Any = None) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    stdin = io.StringIO(json.dumps({"id": ID} if told is None else told))
    return rotation.main(list(argv), stdin, out, err), out.getvalue(), err.getvalue()


def held(folder: facts.NodeDir) -> dict[str, str]:
    """The node's own secrets."""
    return {name: secrets.read(folder.secrets, name) for name in secrets.MAKERS}


# The database.


def public(key: str) -> str:
    return bytes(SigningKey(bytes.fromhex(key)).verify_key).hex()


def zipapp(*keys: str) -> str:
    """As syft has what JSON has no form for: a message in base64."""
    return base64.b64encode(b"capnp\0" + b"\0\0".join(map(bytes.fromhex, keys)) + b"\xff").decode()


def account(email: str, key: str) -> dict[str, Any]:
    return {
        "email": email,
        "signing_key": key,
        "verify_key": public(key),
        "hashed_password": f"hash of {email}",
        "salt": "salt",
        "reset_token": "t0ken",
    }


def hashed(key: str) -> str:
    return rekey._code_hash(CODE, public(key))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """As syft lays one: a table for each kind of object, with its fields and who may read it."""
    rows = {
        "User": [account("a@inst.example", KEY), account("ada@inst.example", HERS)],
        "ServerPeer": [{"name": "Net", "verify_key": "99" * 32}],
        "UserCode": [
            {
                "raw_code": CODE,
                "user_verify_key": public(HERS),
                "code_hash": hashed(HERS),
                "unique_func_name": f"func_total_{public(HERS)}_{hashed(HERS)}",
            }
        ],
        "UserCodeStatusCollection": [{"status_dict": zipapp(public(KEY), public(HERS))}],
        'Odd"Name': [{"owner": f"{public(HERS)}_READ"}],
    }
    path = tmp_path / "node.db"
    with sqlite3.connect(path) as store:
        store.execute("PRAGMA journal_mode = WAL")
        for table, objects in rows.items():
            name = rekey._quoted(table)
            store.execute(
                f"CREATE TABLE {name} (id TEXT PRIMARY KEY, fields JSON, permissions JSON, raw BLOB)"
            )
            for number, row in enumerate(objects):
                may = json.dumps([f"{public(KEY)}_OWNER", f"{public(HERS)}_READ", "ALL_READ"])
                raw = bytes.fromhex(public(HERS)) + b"data"
                store.execute(
                    f"INSERT INTO {name} VALUES (?, ?, ?, ?)", (str(number), json.dumps(row), may, raw)
                )
    store.close()
    return path


def dump(database: Path) -> dict[str, list[Any]]:
    store = sqlite3.connect(database)
    try:
        tables = [row[0] for row in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: store.execute(f"SELECT * FROM {rekey._quoted(name)}").fetchall() for name in sorted(tables)
        }
    finally:
        store.close()


def fields(database: Path, table: str, row: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(dump(database)[table][row][1])
    return found


def test_each_account_gets_a_new_key_wherever_the_former_one_stands(database: Path) -> None:
    done = rekey.rekey(database, KEY, NEW, "x" * 60)
    assert done == rekey.Rekeyed(accounts=1, locked=0, peers=("Net",))
    root, ada = fields(database, "User"), fields(database, "User", 1)
    assert (root["signing_key"], root["verify_key"]) == (NEW, public(NEW))
    assert ada["verify_key"] == public(ada["signing_key"])
    assert ada["signing_key"] not in (KEY, NEW, HERS)
    assert (root["hashed_password"], root["salt"]) == ("x" * 60, "x" * 29)
    assert (ada["hashed_password"], ada["salt"]) == ("hash of ada@inst.example", "salt")
    assert (root["reset_token"], ada["reset_token"]) == (None, None)
    theirs, hers = public(NEW), ada["verify_key"]
    for rows in dump(database).values():
        for row in rows:
            assert json.loads(row[2]) == [f"{theirs}_OWNER", f"{hers}_READ", "ALL_READ"]
            assert row[3] == bytes.fromhex(hers) + b"data"
    assert fields(database, "UserCodeStatusCollection") == {"status_dict": zipapp(theirs, hers)}
    assert fields(database, 'Odd"Name') == {"owner": f"{hers}_READ"}
    code = fields(database, "UserCode")
    assert code["code_hash"] == rekey._code_hash(CODE, hers)
    assert code["unique_func_name"] == f"func_total_{hers}_{code['code_hash']}"
    assert fields(database, "ServerPeer")["verify_key"] == "99" * 32


def test_no_former_key_is_left_in_the_files_of_the_database(database: Path) -> None:
    rekey.rekey(database, KEY, NEW, "x" * 60)
    for path in database.parent.glob("node.db*"):
        for key in (KEY, HERS, public(KEY), public(HERS)):
            assert key.encode() not in path.read_bytes(), path
            assert bytes.fromhex(key) not in path.read_bytes(), path


def test_who_is_locked_out_has_another_password(database: Path) -> None:
    assert rekey.rekey(database, KEY, NEW, "x" * 60, "y" * 60).locked == 1
    assert fields(database, "User")["hashed_password"] == "x" * 60
    assert fields(database, "User", 1)["hashed_password"] == "y" * 60


def test_the_same_again_changes_nothing(database: Path) -> None:
    first = rekey.rekey(database, KEY, NEW, "x" * 60)
    before = dump(database)
    assert rekey.rekey(database, KEY, NEW, "z" * 60) == first
    assert rekey.rekey(database, NEW, NEW, "z" * 60) == first
    assert dump(database) == before


def test_what_fails_in_the_middle_changes_nothing(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dump(database)

    def fail(*_words: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(rekey, "_set_passwords", fail)
    with pytest.raises(OSError, match="no space"):
        rekey.rekey(database, KEY, NEW, "x" * 60)
    assert dump(database) == before


def test_a_database_of_another_node_is_left_alone(database: Path) -> None:
    before = dump(database)
    with pytest.raises(rekey.RekeyError, match="no account"):
        rekey.rekey(database, "44" * 32, NEW, "x" * 60)
    assert dump(database) == before


# The node's own secrets.


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """bcrypt is in a node's environment alone."""
    monkeypatch.setattr(rotation, "_hash", lambda password: f"hash of {password}")


@pytest.fixture
def whole(folder: facts.NodeDir, database: Path, hashes: None) -> facts.NodeDir:
    """A node with a database."""
    secrets.ensure(folder.secrets)
    secrets.replace(folder.secrets, secrets.SERVER_KEY, KEY)
    database.rename(folder.database)
    for path in database.parent.glob("node.db-*"):
        path.unlink()
    return folder


def test_until_the_next_start_the_former_secrets_hold(whole: facts.NodeDir) -> None:
    before, data = held(whole), dump(whole.database)
    assert run("renew", "api") == (0, "{}\n", "")
    assert held(whole) == before
    assert dump(whole.database) == data
    assert rotation.finish(whole) == ""
    after = held(whole)
    assert {name for name in after if after[name] == before[name]} == {"server_uid"}
    assert fields(whole.database, "User")["signing_key"] == after["server_key"]
    assert fields(whole.database, "User")["hashed_password"] == f"hash of {after['admin_password']}"
    assert secrets.problems(whole.secrets) == []
    assert not list(whole.secrets.glob("*next*")) + list(whole.secrets.glob(".*"))


def test_the_same_id_again_makes_nothing_anew_and_another_does(whole: facts.NodeDir) -> None:
    run("renew", "api")
    rotation.finish(whole)
    first = held(whole)
    run("renew", "api")
    assert rotation.finish(whole) == ""
    assert held(whole) == first
    run("renew", "api", told={"id": LATER, "lock": True})
    rotation.finish(whole)
    assert set(held(whole).values()) & set(first.values()) == {first["server_uid"]}
    assert rotation.done(whole.secrets) == {"id": LATER, "accounts": 1, "locked": 1, "peers": ["Net"]}


class Cut(Exception):
    """A run that ends there and then."""


def cutting(real: Callable[..., Any], cut: int, *, late: bool) -> Callable[..., Any]:
    """`real`, whose call of that number is the end: before it does anything, or once it has."""
    calls = iter(range(1, 1000))

    def call(*words: Any, **named: Any) -> Any:
        last = next(calls) == cut
        if last and not late:
            raise Cut
        done = real(*words, **named)
        if last:
            raise Cut
        return done

    return call


STEPS: list[tuple[Any, str]] = [
    (secrets, "replace"),
    (secrets, "ensure"),
    (durable, "write"),
    (durable, "sync"),
    (Path, "rename"),
    (shutil, "rmtree"),
    (rekey, "rekey"),
]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("where", "step"), STEPS, ids=[name for _, name in STEPS])
def test_wherever_it_is_cut_short_the_node_has_one_whole_set_and_goes_on(
    whole: facts.NodeDir, monkeypatch: pytest.MonkeyPatch, where: Any, step: str, late: bool
) -> None:
    """Each call of each step in turn: the database and the files then belong together after a start."""
    before = held(whole)
    for cut in range(1, 60):
        asked = {"id": f"{ID}-{cut}"}
        with monkeypatch.context() as patch:
            patch.setattr(where, step, cutting(getattr(where, step), cut, late=late))
            try:
                run("renew", "api", told=asked)
                rotation.finish(whole)
            except Cut:
                pass
            else:
                assert cut > 1, "never called"
                return
        # What the next start of the node finds, whether anybody asks again or not.
        assert rotation.finish(whole) == ""
        belong_together(whole)
        run("renew", "api", told=asked)
        assert rotation.finish(whole) == ""
        belong_together(whole)
        assert rotation.done(whole.secrets)["id"] == asked["id"]
        after = held(whole)
        assert {name for name in after if after[name] == before[name]} == {"server_uid"}
        before = after
    raise AssertionError("there are more steps than were tried")


def belong_together(folder: facts.NodeDir) -> None:
    now, root = held(folder), fields(folder.database, "User")
    assert root["signing_key"] == now["server_key"]
    assert root["hashed_password"] in (f"hash of {now['admin_password']}", "hash of a@inst.example")
    assert secrets.problems(folder.secrets) == []


def test_where_the_database_can_not_be_written_all_former_ones_stay_and_it_is_said(
    whole: facts.NodeDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, data = held(whole), dump(whole.database)
    run("renew", "api")

    def fail(*_words: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(rekey, "_rekey", fail)
        assert "disk is full" in rotation.finish(whole)
    assert (held(whole), dump(whole.database)) == (before, data)
    monkeypatch.setattr("gridup_node.admin.wait_for", lambda _folder, _node, _seconds: None)
    code, _, err = run("settle", "api")
    assert code == 1
    assert "serves on with its former secrets: OperationalError: database or disk is full" in err
    assert rotation.finish(whole) == ""
    code, out, _ = run("settle", "api")
    assert (code, json.loads(out)["accounts"]) == (0, 1)


def test_no_secret_is_said(whole: facts.NodeDir) -> None:
    before = held(whole)
    said = [*run("renew", "api"), *run("renew", "proxy"), *run("renew", "jupyter"), rotation.finish(whole)]
    for secret in (*before.values(), *held(whole).values()):
        assert not any(secret in str(text) for text in said)


@pytest.mark.parametrize("argv", [(), ("renew",), ("renew", "nobody"), ("nothing", "api")])
def test_a_command_that_is_none_is_one_line(folder: facts.NodeDir, argv: tuple[str, ...]) -> None:
    code, out, err = run(*argv)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_an_input_that_is_none_is_one_line(folder: facts.NodeDir) -> None:
    code, _, err = run("renew", "api", told=[1])
    assert (code, err.count("\n")) == (1, 1)


# What proves that the node is the node.


def certificate(folder: facts.NodeDir, text: str) -> Path:
    path = folder.root / "proxy/caddy/certificates/local/inst/inst.crt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_reverse_proxy_makes_its_keys_anew_and_the_former_ones_go_once_it_has(
    folder: facts.NodeDir,
) -> None:
    path = certificate(folder, "old")
    assert run("renew", "proxy")[0] == 0
    assert not path.exists()
    certificate(folder, "new")
    run("renew", "proxy")
    assert path.read_text() == "new"
    assert run("settle", "proxy") == (0, "{}\n", "")
    assert path.read_text() == "new"
    assert sorted(one.name for one in (folder.root / "proxy").iterdir()) == ["caddy", "rotated"]


def test_where_there_is_no_new_certificate_the_former_one_comes_back(
    folder: facts.NodeDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "CERTIFICATE_SECONDS", 0.0)
    path = certificate(folder, "old")
    run("renew", "proxy")
    code, _, err = run("settle", "proxy")
    assert code == 1
    assert "the former one is back" in err
    assert path.read_text() == "old"
    run("renew", "proxy")
    assert not path.exists(), "the same again tries it once more"


def test_plain_http_has_nothing_to_wait_for(folder: facts.NodeDir) -> None:
    assert run("renew", "proxy")[0] == run("settle", "proxy")[0] == 0


# ssh.


def make(argv: Any) -> None:
    """In the place of ssh-keygen: two files."""
    path = Path(argv[-1])
    made = base64.b64encode(SigningKey.generate().encode()).decode()
    path.write_text(f"private {made}\n")
    path.with_suffix(".pub").write_text(f"ssh-ed25519 {made} gridup inst\n")


def lines(folder: Path, name: str) -> set[str]:
    return set((folder / name).read_text().splitlines())


def test_both_keys_are_good_until_ssh_is_started_anew_and_then_the_new_ones_alone(tmp_path: Path) -> None:
    keys.ensure(tmp_path, "gridup inst", ["ssh-ed25519 PERSON"], make)
    old = {name: (tmp_path / name).with_suffix(".pub").read_text().strip() for name in keys.PRIVATE}
    keys.renew(tmp_path, make)
    new = {name: (tmp_path / name).with_suffix(".pub").read_text().strip() for name in keys.PRIVATE}
    for name in keys.PRIVATE:
        assert old[name] != new[name]
        assert (tmp_path / name).read_text().split()[1] == new[name].split()[1]
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        assert new[name].endswith(" gridup inst")
    client, host = keys.CLIENT_KEY, keys.HOST_KEY
    assert lines(tmp_path, keys.AUTHORIZED) == {old[client], new[client], "ssh-ed25519 PERSON"}
    assert lines(tmp_path, keys.KNOWN_HOSTS) == {f"* {old[host]}", f"* {new[host]}"}
    keys.ensure(tmp_path, "gridup inst", ["ssh-ed25519 PERSON"], make)
    assert lines(tmp_path, keys.AUTHORIZED) == {new[client], "ssh-ed25519 PERSON"}
    assert lines(tmp_path, keys.KNOWN_HOSTS) == {f"* {new[host]}"}


@pytest.mark.parametrize("cut", range(1, 9))
def test_ssh_keys_are_of_one_pair_wherever_it_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    keys.ensure(tmp_path, "gridup", [], make)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", cutting(durable.write, cut, late=False))
        try:
            keys.renew(tmp_path, make)
        except Cut:
            pass
        else:
            assert cut > 6
    private = (tmp_path / keys.CLIENT_KEY).read_text().split()[1]
    assert any(private in line for line in lines(tmp_path, keys.AUTHORIZED)), "nobody could log in now"
    keys.ensure(tmp_path, "gridup", [], make)
    for name in keys.PRIVATE:
        pair = [(tmp_path / name).read_text(), (tmp_path / name).with_suffix(".pub").read_text()]
        assert pair[0].split()[1] == pair[1].split()[1]
    private = (tmp_path / keys.CLIENT_KEY).read_text().split()[1]
    assert any(private in line for line in lines(tmp_path, keys.AUTHORIZED))
    assert not list(tmp_path.glob("*next*"))
