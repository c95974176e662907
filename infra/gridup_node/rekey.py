"""Replaces the keys of all accounts in a node's database. A new key gets all that the former key had.

syft writes the public key of an account into every object that the account owns, may read, has requested or
decided, and in a few places a hash over the key: as text, and in messages that it packs into text. In each of
these forms all keys have the same length, so a new key can replace the former one in place. A key is 256
random bits, so no other value looks like a key.

Text that was signed with a former key (messages in projects) stays unchanged, and its signature is not valid
any more.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import re
import secrets as random
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCK_SECONDS = 30.0
"""How long to wait for another program's lock on the database."""

USERS, CODE, PEERS = '"User"', '"UserCode"', '"ServerPeer"'
"""syft's tables; each has the name of its object type."""

SALT = 29
"""The number of characters at the beginning of bcrypt's hash that are its salt."""


class RekeyError(Exception):
    """The database is not as expected; nothing was changed. The message is one line, without secrets."""


@dataclass(frozen=True)
class Rekeyed:
    """The result of replacing the keys.

    Attributes:
        accounts: the number of accounts that got a new key, without the administrator's.
        locked: the number of these accounts that need a new password.
        peers: the names of the associated nodes, which know this node by its former key.
    """

    accounts: int = 0
    locked: int = 0
    peers: tuple[str, ...] = ()


def rekey(database: Path, former: str, key: str, password: str, locked: str = "") -> Rekeyed:
    """Give each account a new key, and the administrator `key` and `password`, in one transaction.

    Args:
        former, key: the server's former and new key, which is the administrator's too: 32 bytes, as hex. If
            the database uses `key` already, nothing is changed.
        password: bcrypt's hash of the administrator's new password.
        locked: bcrypt's hash of a password that nobody knows. All other accounts get it, so that the
            administrator must set new passwords for them. Empty to leave their passwords unchanged.

    Raises:
        RekeyError: no account has the former key.
        sqlite3.Error: the database could not be read or written.
    """
    with contextlib.closing(sqlite3.connect(database, timeout=LOCK_SECONDS, isolation_level=None)) as store:
        # The overwritten data contain keys.
        store.execute("PRAGMA secure_delete = ON")
        store.execute("BEGIN IMMEDIATE")
        try:
            done = _rekey(store, former, key, password, locked)
            store.execute("COMMIT")
        except BaseException:
            store.execute("ROLLBACK")
            raise
        # Until then the write-ahead log contains the former data.
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return done


def _rekey(store: sqlite3.Connection, former: str, key: str, password: str, locked: str) -> Rekeyed:
    accounts = list(_fields(store, USERS))
    known = {row.get("verify_key") for row in accounts}
    peers = tuple(sorted({str(row.get("name", "")) for row in _fields(store, PEERS)}))
    others = len(accounts) - 1
    done = Rekeyed(others, others if locked else 0, peers)
    if public(key) in known:
        return done
    if public(former) not in known:
        raise RekeyError("no account in the database has the node's key")
    swap = Swap(_new_keys(accounts, former, key))
    swap = Swap({**swap.pairs, **dict(_code_hashes(store, swap))})
    for table in _tables(store):
        _write_anew(store, table, swap)
    _set_passwords(store, public(key), password, locked)
    return done


def public(key: str) -> str:
    """Return the public half of a key. Both are hex, as syft writes them."""
    from nacl.signing import SigningKey

    return bytes(SigningKey(bytes.fromhex(key)).verify_key).hex()


def _new_keys(accounts: list[dict[str, Any]], former: str, key: str) -> dict[str, str]:
    """Return {former: new} with both halves of each account's key."""
    pairs = {}
    for row in accounts:
        fresh = key if row.get("verify_key") == public(former) else random.token_hex(32)
        for had, gets in ((row.get("signing_key"), fresh), (row.get("verify_key"), public(fresh))):
            if had:
                pairs[str(had)] = gets
    return pairs


def _code_hashes(store: sqlite3.Connection, swap: Swap) -> Iterator[tuple[str, str]]:
    """Yield the former and new hash of submitted code: syft's hash covers the code and its author's key."""
    for row in _fields(store, CODE):
        code, author, had = (row.get(name) for name in ("raw_code", "user_verify_key", "code_hash"))
        if isinstance(code, str) and author in swap.pairs and had == _code_hash(code, author):
            yield had, _code_hash(swap.text(code), swap.pairs[author])


def _code_hash(code: str, author: str) -> str:
    return hashlib.sha256(f"{code}{author}".encode()).hexdigest()


class Swap:
    """Replaces keys by other keys, in any form in which syft writes them.

    Args:
        pairs: {former: new}, 32 bytes each, as hex.
    """

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self.pairs = dict(pairs)
        self._raw = {bytes.fromhex(had): bytes.fromhex(gets) for had, gets in pairs.items()}

    def text(self, text: str) -> str:
        """Replace the keys in JSON: as hex, and in the data that syft packs into base64."""
        return _BASE64.sub(self._unpacked, _HEX.sub(lambda found: self.pairs.get(found[0], found[0]), text))

    def data(self, data: bytes) -> bytes:
        """Replace the keys in bytes that syft has packed. The length does not change."""
        data = _HEX_BYTES.sub(lambda found: self.pairs.get(found[0].decode(), "").encode() or found[0], data)
        for had, gets in self._raw.items():
            data = data.replace(had, gets)
        return data

    def _unpacked(self, found: re.Match[str]) -> str:
        try:
            packed = base64.b64decode(found[0], validate=True)
        except binascii.Error:
            return found[0]
        fresh = self.data(packed)
        return found[0] if fresh == packed else base64.b64encode(fresh).decode()


_HEX = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_HEX_BYTES = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_BASE64 = re.compile(r'(?<=")[A-Za-z0-9+/]{43,}={0,2}(?=")')
"""A JSON string that may hold a key."""


def _tables(store: sqlite3.Connection) -> list[str]:
    rows = store.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    return [_quoted(name) for (name,) in rows.fetchall()]


def _write_anew(store: sqlite3.Connection, table: str, swap: Swap) -> None:
    columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
    # Read one row at a time: a row may have a megabyte.
    for (number,) in store.execute(f"SELECT rowid FROM {table}").fetchall():  # noqa: S608
        row = store.execute(f"SELECT * FROM {table} WHERE rowid = ?", (number,)).fetchone()  # noqa: S608
        for column, value in zip(columns, row, strict=True):
            if isinstance(value, str):
                fresh: str | bytes = swap.text(value)
            elif isinstance(value, bytes):
                fresh = swap.data(value)
            else:
                continue
            if fresh != value:
                store.execute(
                    f"UPDATE {table} SET {_quoted(column)} = ? WHERE rowid = ?",  # noqa: S608
                    (fresh, number),
                )


def _set_passwords(store: sqlite3.Connection, administrator: str, hashed: str, locked: str) -> None:
    for number, text in store.execute(f"SELECT rowid, fields FROM {USERS}").fetchall():  # noqa: S608
        row = json.loads(text)
        new = hashed if row.get("verify_key") == administrator else locked
        # A token that a user got to reset the password gives access to the account, too.
        row["reset_token"] = None
        if new:
            row |= {"hashed_password": new, "salt": new[:SALT]}
        store.execute(
            f"UPDATE {USERS} SET fields = ? WHERE rowid = ?",  # noqa: S608
            (json.dumps(row), number),
        )


def _fields(store: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    """Yield the objects in one of syft's tables; none if there is no such table."""
    if table in _tables(store):
        for (text,) in store.execute(f"SELECT fields FROM {table}").fetchall():  # noqa: S608
            yield json.loads(text)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
