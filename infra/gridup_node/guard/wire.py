"""Reads a signed call without syft, because syft's deserialisers build anything that a body names.

A value on the wire is an `Object` (frames.capnp): the name of a type, and fields or a blob. This module only
parses and measures a message, and builds nothing from it. It refuses a type that is not in `types`. So syft
gets only values that it may build.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from gridup_node.guard import view
from gridup_node.guard.types import ALIASES, FORMS, NAMES, Form
from gridup_node.guard.view import Data, Rope

T = TypeVar("T")
CARRIERS = frozenset({"blob_storage.write_to_disk"})
"""Methods whose bytes argument is itself a message."""
KEY_BYTES = 32
ID_BYTES = 16
IDS = frozenset({"UID", "LineageID"})
HASHED = {"set": 1, "frozenset": 1, "dict": 2, "OrderedDict": 2, "dicttuple": 2}
NUMBERS = IDS | {"int", "complex"}
LIKE_A_NUMBER = re.compile(r"[0-9]+(e[0-9]+)?")
SIGNATURE_BYTES = 64
LARGE = 16 * 1024
"""Values above this size, in bytes, are read in place. For smaller ones a copy is faster."""
SHORT = 64 * 1024
"""Up to this message size, in bytes, PyNaCl verifies a signature faster than `cryptography`."""
DEEPEST = 64
"""Levels of nested values. A message of syft's own client has some twenty."""
DEEPEST_ON_AVERAGE = 32
"""Limit of the average nesting of a byte: each byte counts once for each value that contains it."""
SMALL = 1024 * 1024
"""Bytes allowed in addition to that limit."""
MOST_VALUES = 2_000_000
"""Limit of values. A pandas column of a million numbers with dtype object has one value for each number."""
LONGEST_NAME = 128
PATH = re.compile(r"[a-z0-9_.]+", re.IGNORECASE | re.ASCII)
HOOKS = frozenset({"syft_pre_hooks__", "syft_post_hooks__"})
"""Fields with functions that syft calls before and after each action. syft's client sends none."""
LONGEST_INTEGER = 9
"""Bytes of each number of a range."""
MODULUS = 2**61 - 1
"""Python's hash of an integer is the integer modulo this: many large integers have the same hash."""
SAME_HASH = 64
"""Keys with the same hash. Each one costs time in proportion to the number before it."""
EVERY_OBJECT = frozenset(
    {"id", "created_date", "deleted_date", "updated_date", "syft_client_verify_key", "syft_server_location"}
)
"""Fields of every syft object."""
WORD = 8
READS = 4
"""How often a word of a message may be read."""
SLACK_WORDS = 1024
NESTING = 8
"""Limit of nested structures in one `Object`, which has four levels."""


class Malformed(Exception):
    """The bytes are no message of syft's client. The text says why, and contains no data of the message."""


@dataclass(frozen=True)
class Frame:
    """The envelope of a signed call: the key of the claimed sender, the signature and the signed bytes.

    Attributes:
        key: the sender's public key (Ed25519), 32 bytes.
        signature: 64 bytes, not verified yet.
        message: the signed bytes.
    """

    key: bytes
    signature: bytes
    message: Data


@dataclass(frozen=True)
class Call:
    """The content of a signed message.

    Attributes:
        server: the id of the node that the call is for, 16 bytes.
        path: the method, such as `dataset.get_all`.
        waits: whether the caller waits for the answer; else the call becomes a job.
        values: the number of values in the message, at all levels.
    """

    server: bytes
    path: str
    waits: bool
    values: int


@dataclass(frozen=True)
class Value:
    """One parsed value. `fields` is empty if the type has its own form; otherwise `blob` is empty."""

    name: str
    version: int
    fields: tuple[tuple[str, Data], ...]
    blob: Data


def frame(body: Data) -> Frame:
    """Read the envelope of a signed call.

    Raises:
        Malformed: the body is no signed call.
    """
    fields = _fields(read(body), "SignedSyftAPICall", {"credentials", "signature", "serialized_message"})
    # `_fields` allows no other fields: data next to the message would not be measured.
    made = Frame(
        key=_key(fields["credentials"]),
        signature=bytes(_blob(fields["signature"], "bytes")),
        message=_blob(fields["serialized_message"], "bytes"),
    )
    if len(made.signature) != SIGNATURE_BYTES:
        raise Malformed("a signature of another length")
    return made


def sender(memory: Any) -> bytes:
    """Return the sender's key from the beginning of a signed call. Missing bytes are zero in `memory`.

    Raises:
        Malformed: the beginning of the call names no key.
    """

    def credentials_of(found: Any) -> Data:
        names = [str(one) for one in found.fieldNames]
        if found.name != "SignedSyftAPICall" or "credentials" not in names:
            raise Malformed("no signed call")
        return _joined(found.fieldValues[names.index("credentials")])

    seen = view.structure(memory, _words(memory)) if len(memory) > LARGE else None
    if seen is not None and seen[0] == "SignedSyftAPICall" and len(seen[2]) == len(seen[3]):
        values = dict(zip(seen[2], seen[3], strict=True))
        if "credentials" in values:
            return _key(values["credentials"])
    return _key(_open("Object", memory, credentials_of))


def _key(credentials: Data) -> bytes:
    key = _blob(_fields(read(credentials), "SyftVerifyKey", {"verify_key"})["verify_key"], "nacl_verify_key")
    if len(key) != KEY_BYTES:
        raise Malformed("a key of another length")
    return bytes(key)


def signed(frame: Frame) -> bool:
    """Whether the sender's key has signed the message."""
    return verifies(frame.key, frame.message, frame.signature)


def verifies(key: bytes, message: Data, signature: bytes) -> bool:
    """Whether an Ed25519 signature of a message is valid."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from nacl.exceptions import CryptoError
    from nacl.signing import VerifyKey

    try:
        if len(message) <= SHORT:
            VerifyKey(key).verify(bytes(message), signature)
        else:
            # PyNaCl copies the message three times.
            whole = bytes(message) if isinstance(message, Rope) else message
            Ed25519PublicKey.from_public_bytes(key).verify(signature, whole)
    except (CryptoError, InvalidSignature, ValueError):
        return False
    return True


def call(message: Data, most: int = MOST_VALUES) -> Call:
    """Read a call from a message, and check that syft may build all of its values.

    Raises:
        Malformed: the message is no call, has a type that callers may not send, or has too many values.
    """
    wanted = {"server_uid", "path", "args", "kwargs", "blocking"}
    known: dict[Data, Value] = {}

    def once(blob: Data) -> Value:
        value = read(blob)
        if isinstance(blob, bytes):
            known[blob] = value
        return value

    fields = _fields(once(message), "SyftAPICall", wanted, more=EVERY_OBJECT)
    if once(fields["args"]).name != "list" or once(fields["kwargs"]).name != "dict":
        raise Malformed("arguments of another type")
    path = _text(_plain(once(fields["path"]), "str"))
    if not PATH.fullmatch(path):
        raise Malformed("a method of no such name")
    uid = _fields(once(fields["server_uid"]), "UID", {"value"})["value"]
    server = bytes(_plain(once(uid), "bytes"))
    # syft reads everything but "0" as true.
    waits = _plain(once(fields["blocking"]), "bool") != b"0"
    values = measure(message, most, known)
    if path in CARRIERS:
        for argument in (*_of_sequence(read(fields["args"])), *_of_pairs(read(fields["kwargs"]))):
            inner = read(argument)
            if inner.name == "bytes":
                # Every later reader of the blob, such as syft's client, builds the values in it.
                values += measure(inner.blob, most)
    return Call(server=server, path=path, waits=waits, values=values)


def measure(
    message: Data,
    most: int = MOST_VALUES,
    known: Mapping[Data, Value] = MappingProxyType({}),
    types: frozenset[str] | None = None,
) -> int:
    """Count the values of a message, and check that callers may send their types.

    Args:
        most: the largest number of values.
        known: values that were read already.
        types: the allowed types; all types that callers may send if it is left out.

    Raises:
        Malformed: the message has another type, too many values or too many levels.
    """
    count, left = 0, len(message) * DEEPEST_ON_AVERAGE + SMALL
    # One generator per level: an attacker's nesting must not use up Python's stack.
    levels = [_Level(iter((message,)))]
    while levels:
        blob = next(levels[-1].blobs, None)
        if blob is None:
            levels.pop()
            continue
        count += 1
        left -= len(blob)
        if count > most or left < 0:
            raise Malformed("too many values")
        if len(levels) > DEEPEST:
            raise Malformed("values too deep in one another")
        value = (known.get(blob) if isinstance(blob, bytes) else None) or read(blob)
        if types is not None and value.name not in types:
            raise Malformed(f"a type that does not belong there{_named(value.name)}")
        if levels[-1].every:
            levels[-1].note(value)
        if not value.fields and FORMS.get((value.name, value.version)) is Form.LEAF:
            # Most values are leaves, without nested values.
            continue
        levels.append(_Level(_children(value), HASHED.get(value.name, 0)))
        if value.name == "range":
            # Code that iterates over the range gets as many values.
            count += _length_of_range(value)
    if count > most:
        raise Malformed("too many values")
    return count


def read(blob: Data) -> Value:
    """Parse one value.

    Raises:
        Malformed: the bytes are no value.
    """
    seen = view.structure(blob, _words(blob)) if len(blob) > LARGE else None
    name, version, names, values, own = seen or _open("Object", blob, _object)
    if not name or len(name) > LONGEST_NAME:
        raise Malformed("a type without a name")
    if len(names) != len(values):
        raise Malformed("fields without a value")
    if not names:
        return Value(name, version, (), own)
    # syft leaves a field's name empty if it does not send the field's value.
    fields = tuple((key, value) for key, value in zip(names, values, strict=True) if key)
    if len(dict(fields)) != len(fields):
        raise Malformed("a field twice")
    return Value(name, version, fields, own)


def _object(found: Any) -> view.Fields:
    names = [str(one) for one in found.fieldNames]
    values = [_joined(one) for one in found.fieldValues]
    return found.name, found.version, names, values, _joined(found.blob)


def _children(value: Value) -> Iterator[Data]:
    """Return the values directly within a value.

    Raises:
        Malformed: callers may not send its type, or it does not have its type's form.
    """
    form = FORMS.get((value.name, value.version))
    if form is None:
        raise Malformed(f"a type that is not for callers to send{_named(value.name)}")
    if value.blob if form is Form.FIELDS else value.fields:
        raise Malformed("a value in the form of another type")
    return _READERS[form](value)


def _length_of_range(value: Value) -> int:
    numbers = [_blob(one, "int") for one in _of_sequence(value)]
    if len(numbers) != 3 or any(len(number) > LONGEST_INTEGER for number in numbers):
        raise Malformed("a range of another form")
    start, stop, step = (int.from_bytes(number, "big", signed=True) for number in numbers)
    if not step:
        raise Malformed("a range of another form")
    return max(0, (stop - start + step - (1 if step > 0 else -1)) // step)


def _of_fields(value: Value) -> Iterator[Data]:
    if any(name in HOOKS for name, _ in value.fields):
        raise Malformed("hooks")
    if value.name in IDS:
        _check_id(value)
    return (blob for _, blob in value.fields)


def _check_id(value: Value) -> None:
    """Refuse an id whose hex digits look like a number.

    SQLite would store it as a number, and then the whole table can't be read.
    """
    data = _blob(dict(value.fields).get("value", b""), "bytes")
    if len(data) != ID_BYTES or LIKE_A_NUMBER.fullmatch(bytes(data).hex()):
        raise Malformed("an id that can't be kept")


def _of_sequence(value: Value) -> Iterator[Data]:
    seen = view.sequence(value.blob, _words(value.blob)) if len(value.blob) > LARGE else None
    if seen is None:
        seen = _open("Sequence", value.blob, lambda found: [_joined(one) for one in found.values])
    return iter(seen)


def _of_pairs(value: Value) -> Iterator[Data]:
    return itertools.chain.from_iterable(_pairs(value.blob))


class _Level:
    """The values of one level. It counts the hashes of keys.

    Anybody can choose integers and ids with the same hash. Nobody can for texts.
    """

    __slots__ = ("_at", "_seen", "blobs", "every")

    def __init__(self, blobs: Iterator[Data], every: int = 0) -> None:
        # In a set every value is a key (1), in a dict every second one (2). 0: no keys.
        self.blobs, self.every, self._at = blobs, every, 0
        self._seen: Counter[int] | None = None

    def note(self, value: Value) -> None:
        """Count the value if it is a key."""
        key = self._at % self.every == 0
        self._at += 1
        if key and value.name in NUMBERS:
            self._count(value)

    def _count(self, value: Value) -> None:
        if value.name == "complex":
            raise Malformed("a key that is no key")
        signed = value.name == "int"
        data = value.blob if signed else read(dict(value.fields).get("value", b"")).blob
        rest = abs(int.from_bytes(data, "big", signed=signed)) % MODULUS
        if self._seen is None:
            self._seen = Counter()
        self._seen[rest] += 1
        if self._seen[rest] > SAME_HASH:
            raise Malformed("keys that are too much alike")


def _pairs(blob: Data) -> list[tuple[Data, Data]]:
    seen = view.pairs(blob, _words(blob)) if len(blob) > LARGE else None
    keys, values = seen or _open("Pairs", blob, _of_library)
    if len(keys) != len(values):
        raise Malformed("a key without a value")
    return list(zip(keys, values, strict=True))


def _of_library(found: Any) -> tuple[list[Data], list[Data]]:
    return [bytes(key) for key in found.keys], [_joined(one) for one in found.values]


def _of_value(value: Value) -> Iterator[Data]:
    yield value.blob


def _of_nothing(_value: Value) -> Iterator[Data]:
    return iter(())


def _of_type(value: Value) -> Iterator[Data]:
    """Check a type that is sent by its name: callers may name only types in `NAMES`."""
    name, _, version = _text(value.blob).rpartition(":")
    if not (version.isascii() and version.isdigit()) or (name, int(version)) not in NAMES:
        raise Malformed(f"a type that is not for callers to name{_named(name)}")
    return iter(())


def _of_alias(value: Value) -> Iterator[Data]:
    """Check an alias such as `list[int]`. It is sent as a dict, and syft calls what its `path` names."""
    inner = read(value.blob)
    if (inner.name, inner.version) != ("dict", 1):
        raise Malformed("an alias of another form")
    said = {_text(_blob(key, "str")): one for key, one in _pairs(inner.blob)}
    path = _text(_blob(said["path"], "str")) if "path" in said else ""
    if path not in ALIASES or not set(said) <= {"path", "__origin__", "__args__", "_paramspec_tvars"}:
        raise Malformed("an alias that is not for callers to name")
    yield value.blob


_READERS: Mapping[Form, Callable[[Value], Iterator[Data]]] = {
    Form.FIELDS: _of_fields,
    Form.SEQUENCE: _of_sequence,
    Form.PAIRS: _of_pairs,
    Form.VALUE: _of_value,
    Form.LEAF: _of_nothing,
    Form.TYPE: _of_type,
    Form.ALIAS: _of_alias,
}


def _fields(value: Value, name: str, wanted: set[str], more: frozenset[str] = frozenset()) -> dict[str, Data]:
    fields = dict(value.fields)
    if value.name != name or value.version != 1 or set(fields) - more != wanted:
        raise Malformed(f"no {name}")
    return fields


def _blob(blob: Data, name: str) -> Data:
    return _plain(read(blob), name)


def _plain(value: Value, name: str) -> Data:
    if (value.name, value.version) != (name, 1) or value.fields:
        raise Malformed(f"no {name}")
    return value.blob


def _named(name: str) -> str:
    """Return a type's name for an error message, if it looks like a name; else an empty text."""
    return f" ({name})" if name.isascii() and name.replace("_", "").isalnum() else ""


def _text(blob: Data) -> str:
    if len(blob) > LONGEST_NAME:
        # Limit it here: syft itself has no limit.
        raise Malformed("a name that is too long")
    try:
        return bytes(blob).decode()
    except UnicodeDecodeError:
        raise Malformed("a name that is no text") from None


def _joined(chunks: Any) -> Data:
    return bytes(chunks[0]) if len(chunks) == 1 else b"".join(chunks)


def _open(kind: str, blob: Any, take: Callable[[Any], T]) -> T:
    """Parse a message of frames.capnp, and return the result of `take`.

    Data that is read twice counts twice. So a message whose parts point at the same bytes exceeds the limit.

    Raises:
        Malformed: the bytes are no such message.
    """
    error, kinds = _schema()
    if isinstance(blob, Rope):
        blob = bytes(blob)
    try:
        with kinds[kind].from_bytes(
            blob, traversal_limit_in_words=_words(blob), nesting_limit=NESTING
        ) as found:
            return take(found)
    # pycapnp raises ValueError for text that is not UTF-8.
    except (error, ValueError) as cause:
        raise Malformed("no message") from cause


def _words(blob: Any) -> int:
    return len(blob) // WORD * READS + SLACK_WORDS


@functools.cache
def _schema() -> tuple[type[Exception], Mapping[str, Any]]:
    """Return pycapnp's exception class, and the structures of frames.capnp."""
    import capnp

    capnp.remove_import_hook()
    loaded = capnp.load(str(Path(__file__).with_name("frames.capnp")))
    return capnp.KjException, {kind: getattr(loaded, kind) for kind in ("Object", "Sequence", "Pairs")}
