"""Messages as syft's client sends them, and as it never would: made without syft."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gridup_node.guard import wire


def blob(name: str, data: bytes, version: int = 1) -> bytes:
    """A value with a form of its own."""
    message = _schema()["Object"].new_message(name=name, version=version)
    message.blob = [data]
    made: bytes = message.to_bytes()
    return made


def fields(name: str, values: Mapping[str, bytes] | Iterable[tuple[str, bytes]], version: int = 1) -> bytes:
    """A value with fields."""
    rows = list(values.items()) if isinstance(values, Mapping) else list(values)
    message = _schema()["Object"].new_message(name=name, version=version)
    message.fieldNames = [key for key, _ in rows]
    message.fieldValues = [[value] for _, value in rows]
    made: bytes = message.to_bytes()
    return made


def value(thing: Any) -> bytes:
    """A plain value: what Python's own types become."""
    if thing is None:
        return blob("NoneType", b"1")
    if isinstance(thing, bool):
        return blob("bool", b"1" if thing else b"0")
    if isinstance(thing, int):
        return blob("int", thing.to_bytes((thing.bit_length() + 7) // 8 + 1, "big", signed=True))
    if isinstance(thing, str):
        return blob("str", thing.encode())
    if isinstance(thing, bytes):
        return blob("bytes", thing)
    if isinstance(thing, Raw):
        return thing.data
    if isinstance(thing, list | tuple):
        message = _schema()["Sequence"].new_message(values=[[value(one)] for one in thing])
        return blob(type(thing).__name__, message.to_bytes())
    if isinstance(thing, dict):
        message = _schema()["Pairs"].new_message(
            keys=[value(key) for key in thing], values=[[value(one)] for one in thing.values()]
        )
        return blob("dict", message.to_bytes())
    raise TypeError(type(thing))


@dataclass(frozen=True)
class Raw:
    """A value that is made already."""

    data: bytes


def uid(sixteen: bytes) -> Raw:
    """An id of syft's."""
    return Raw(fields("UID", {"value": value(sixteen)}))


def call(server: bytes, path: str, *args: Any, blocking: Any = True, **kwargs: Any) -> bytes:
    """What a signed call signs."""
    return fields(
        "SyftAPICall",
        {
            "args": value(list(args)),
            "blocking": value(blocking),
            "kwargs": value(kwargs),
            "path": value(path),
            "server_uid": uid(server).data,
        },
    )


def signed(key: Any, message: bytes, signature: bytes | None = None, sender: bytes | None = None) -> bytes:
    """A message in its frame.

    Args:
        key: of `nacl.signing.SigningKey`.
    """
    who = sender or bytes(key.verify_key)
    return fields(
        "SignedSyftAPICall",
        {
            "credentials": fields("SyftVerifyKey", {"verify_key": blob("nacl_verify_key", who)}),
            "serialized_message": value(message),
            "signature": value(key.sign(message).signature if signature is None else signature),
        },
    )


def alias(path: str, *arguments: bytes) -> Raw:
    """What syft's deserialiser makes by calling what `path` names."""
    said = {"path": path, "__origin__": Raw(blob("type", b"str:1")), "__args__": tuple(map(Raw, arguments))}
    return Raw(blob("_GenericAlias", value(said)))


def runs(argument: str, function: str = "os.system") -> Raw:
    """What runs a command where syft deserialises it: `os.system(command=…)`."""
    return Raw(blob("_GenericAlias", value({"path": function, "command": argument})))


def mutate(rng: random.Random, body: bytes) -> bytes:
    """`body` with a few bytes changed, cut, doubled or moved."""
    data = bytearray(body)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data))
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            word = at // 8 * 8
            data[word : word + 8] = rng.randbytes(8)
        elif kind == 3:
            other = rng.randrange(len(data)) // 8 * 8
            data[at // 8 * 8 : at // 8 * 8 + 8] = data[other : other + 8]
        elif kind == 4:
            del data[at : at + rng.randint(1, 64)]
        else:
            data[at:at] = data[at : at + rng.randint(1, 64)]
        if not data:
            return b""
    return bytes(data)


def names(blob_: bytes) -> list[str]:
    """The types in an answer of syft's, outermost first, as far as they can be read without it."""
    found, left = [], [blob_]
    while left:
        try:
            one = wire.read(left.pop(0))
        except wire.Malformed:
            continue
        found.append(one.name)
        left += [data for _, data in one.fields]
        if one.name == "bytes":
            left.append(one.blob)
    return found


def text_of(answer: bytes) -> str:
    """What an answer says, refusals among it: its text, whatever stands around it."""
    return answer.decode("utf-8", "replace")


def _schema() -> Any:
    return wire._schema()[1]
