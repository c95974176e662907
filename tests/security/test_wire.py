"""Messages taken apart without syft: what is one, what is none, and what syft must never be handed."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from gridup_node.guard import view, wire
from gridup_node.guard.types import FORMS
from support import frames

KEY = SigningKey.generate()
SERVER = b"\xa1" * 16


def a_call(**more: Any) -> bytes:
    return frames.call(SERVER, "dataset.add", 1, "two", [b"three", None, {"four": True}], **more)


def test_a_call_is_read_as_it_was_made() -> None:
    frame = wire.frame(frames.signed(KEY, a_call(x=1)))
    assert (frame.key, wire.signed(frame)) == (bytes(KEY.verify_key), True)
    found = wire.call(frame.message)
    assert (found.server, found.path) == (SERVER, "dataset.add")
    assert found.values > 10


def test_the_sender_of_a_large_call_stands_at_its_beginning() -> None:
    body = frames.signed(KEY, a_call(data=b"x" * 1_000_000))
    assert wire.sender(body[:65536] + bytes(len(body) - 65536)) == bytes(KEY.verify_key)
    with pytest.raises(wire.Malformed):
        wire.sender(bytes(100_000))


@pytest.mark.parametrize(
    "evil",
    [
        frames.runs("id"),
        frames.alias("os.system", frames.value("id")),
        frames.alias("builtins.eval", frames.value("1")),
        frames.Raw(frames.blob("_UnionGenericAlias", frames.value({"path": "os.system", "command": "id"}))),
        frames.Raw(frames.blob("_GenericAlias", frames.value([("path", "typing.List")]))),
        frames.Raw(frames.fields("HTTPConnection", {"url": frames.value("http://192.0.2.1")})),
        frames.Raw(frames.fields("UserService", {})),
        frames.Raw(frames.fields("SubmitUserPolicy", {"code": frames.value("import os")})),
        frames.Raw(frames.blob("defaultdict", b"")),
        frames.Raw(frames.blob("pathlib_PosixPath", frames.value("/etc/passwd"))),
        frames.Raw(frames.blob("nacl_signing_key", b"\0" * 32)),
        frames.Raw(frames.blob("type", b"HTTPConnection:1")),
        frames.Raw(frames.blob("type", b"str:\xc2\xb2")),
        frames.Raw(frames.blob("type", b"str")),
        frames.Raw(frames.blob("str", b"x", version=2)),
        frames.Raw(frames.fields("str", {"value": frames.value(1)})),
        frames.Raw(frames.blob("UID", b"x")),
        frames.Raw(frames.fields("UID", [("value", frames.value(b"1")), ("value", frames.value(b"2"))])),
        frames.Raw(frames.blob("no such type", b"")),
        frames.uid(b"\x22" * 16),
        frames.uid(b"\x12\xe3" + b"\x45" * 14),
        frames.uid(b"\xab" * 15),
        frames.Raw(b""),
        frames.Raw(b"\0" * 64),
    ],
)
@pytest.mark.parametrize("where", ["plain", "deep", "as a key"])
def test_what_calls_connects_or_is_unknown_is_refused_anywhere(evil: frames.Raw, where: str) -> None:
    inside: Any = {"plain": evil, "deep": [[{"x": (evil,)}]], "as a key": {evil: 1}}[where]
    with pytest.raises(wire.Malformed):
        wire.call(a_call(x=inside))


@pytest.mark.parametrize("where", ["the frame", "the key"])
@pytest.mark.parametrize("name", ["id", "created_date", "syft_client_verify_key", "syft_server_location"])
def test_beside_the_message_is_nothing_that_is_not_measured(where: str, name: str) -> None:
    """Every object of syft's has these fields; whatever they hold would be built."""
    evil = {name: frames.fields("SubmitUserPolicy", {})}
    message = a_call()
    key = {"verify_key": frames.blob("nacl_verify_key", bytes(KEY.verify_key))}
    fields = {
        "credentials": frames.fields("SyftVerifyKey", key | (evil if where == "the key" else {})),
        "serialized_message": frames.value(message),
        "signature": frames.value(KEY.sign(message).signature),
    }
    with pytest.raises(wire.Malformed):
        wire.frame(frames.fields("SignedSyftAPICall", fields | (evil if where == "the frame" else {})))


@pytest.mark.parametrize("path", ["user.get_all\n2026 refused 1 request", "a b", "x" * 200, ""])
def test_a_path_that_is_none_is_refused_and_gets_into_no_log(path: str) -> None:
    with pytest.raises(wire.Malformed):
        wire.call(frames.call(SERVER, path))


def a_range(*numbers: int) -> frames.Raw:
    inside = wire.read(frames.value(numbers)).blob
    return frames.Raw(frames.blob("range", inside))


def test_a_range_counts_for_as_many_values_as_it_has() -> None:
    assert wire.call(a_call(x=a_range(0, 10, 3))).values == wire.call(a_call(x=a_range(0, 0, 1))).values + 4
    assert wire.call(a_call(x=a_range(10, 0, -3)))
    for evil in (a_range(0, 3_000_000, 1), a_range(5, -(10**12), -1), a_range(0, 1, 0), a_range(0, 1)):
        with pytest.raises(wire.Malformed):
            wire.call(a_call(x=evil))
    with pytest.raises(wire.Malformed):
        wire.call(a_call(x=[a_range(0, 300_000, 1)] * 10))


@pytest.mark.parametrize("kind", ["set", "frozenset", "dict", "ids", "negative"])
def test_keys_of_one_hash_are_few(kind: str) -> None:
    """Thirty thousand of them take syft half a minute, and ten times as many a hundred times as long."""
    numbers: list[Any] = [number * wire.MODULUS for number in range(1, 200)]
    if kind == "ids":
        numbers = [frames.uid((number | 0xA << 124).to_bytes(16, "big")) for number in same_hash(200)]
    elif kind == "negative":
        numbers = [-number for number in numbers]
    if kind in ("set", "frozenset"):
        evil = frames.Raw(frames.blob(kind, wire.read(frames.value(numbers)).blob))
    else:
        evil = frames.Raw(frames.value(dict.fromkeys(numbers, 1)))
    with pytest.raises(wire.Malformed, match="too much alike"):
        wire.call(a_call(x=evil))


def same_hash(count: int) -> list[int]:
    top = 0xA << 124
    return [top + number * wire.MODULUS for number in range(count)]


def test_as_many_other_keys_as_one_likes_are_sent() -> None:
    ids = [frames.uid(b"\xab" * 8 + number.to_bytes(8, "big")) for number in range(300)]
    assert wire.call(a_call(x=dict.fromkeys(range(5000), 1), y=dict.fromkeys(ids, 1)))
    assert wire.call(a_call(x={f"a name that is longer than any number {n}" * 3: 1 for n in range(300)}))


def test_hooks_are_not_for_callers_to_send() -> None:
    for name in ("syft_pre_hooks__", "syft_post_hooks__"):
        hooked = frames.Raw(frames.fields("ActionObject", {name: frames.value({"*": []})}))
        with pytest.raises(wire.Malformed, match="hooks"):
            wire.call(a_call(x=hooked))


def test_a_type_is_named_whole() -> None:
    """What is cut off would count for syft: another version."""
    with pytest.raises(wire.Malformed):
        wire.call(a_call(x=frames.Raw(frames.blob("type", b"str:" + b"0" * 124 + b"1" + b"2"))))


def test_types_and_aliases_that_only_hold_types_are_sent() -> None:
    assert wire.call(a_call(x=frames.Raw(frames.blob("type", b"UserCode:2")), y=frames.alias("typing.List")))


def test_values_within_values_have_a_limit() -> None:
    deep: Any = 1
    for _ in range(wire.DEEPEST + 5):
        deep = [deep]
    with pytest.raises(wire.Malformed, match="too deep"):
        wire.call(a_call(x=deep))
    with pytest.raises(wire.Malformed, match="too many"):
        wire.call(a_call(x=list(range(50))), most=40)


def test_a_message_that_points_at_the_same_bytes_again_and_again_runs_out() -> None:
    """Each level says that it has the level below twenty times, and stores it once."""
    inner = frames.value("x" * 2000)
    for _ in range(12):
        inner = frames.blob("list", many_times(inner, 20))
    with pytest.raises(wire.Malformed):
        wire.measure(inner)


def many_times(blob: bytes, times: int) -> bytes:
    """A sequence of `times` values, all of them the same bytes: pointers of Cap'n Proto's encoding."""
    words = (len(blob) + 7) // 8

    def pointer(offset: int, kind: int, count: int) -> bytes:
        return (((offset << 2) & 0xFFFFFFFF) | 1 | (kind << 32) | (count << 35)).to_bytes(8, "little")

    outer = b"".join(pointer(times - 1 - index, 6, 1) for index in range(times))
    # One list of one pointer to the bytes, which all of the outer pointers mean.
    body = outer + pointer(0, 2, len(blob)) + blob.ljust(words * 8, b"\0")
    root = ((1 << 48) | 0).to_bytes(8, "little") + pointer(0, 6, times)
    segment = root + body
    return (0).to_bytes(4, "little") + (len(segment) // 8).to_bytes(4, "little") + segment


@pytest.mark.parametrize("cut", range(0, 600, 37))
def test_a_message_that_is_cut_off_is_none(cut: int) -> None:
    body = frames.signed(KEY, a_call())
    with pytest.raises(wire.Malformed):
        wire.frame(body[:cut])


@given(st.binary(max_size=2000))
@settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
def test_bytes_are_a_message_or_malformed(data: bytes) -> None:
    for read in (wire.frame, wire.call, wire.measure, wire.read, wire.sender):
        try:
            read(data)
        except wire.Malformed:
            continue


def bodies() -> list[bytes]:
    data = {
        "UID": frames.uid(SERVER),
        "alias": frames.alias("typing.List", frames.value(1)),
        "bytes": b"x" * 500,
    }
    return [
        frames.signed(KEY, a_call(**data)),
        frames.signed(KEY, frames.call(SERVER, "user.get_all")),
        frames.signed(KEY, a_call(x=frames.runs("id"))),
    ]


def fuzz(seed: int, count: int) -> None:
    """What was changed is refused, or is still signed as it is: nothing else gets as far as syft."""
    rng, whole = random.Random(seed), bodies()
    for _ in range(count):
        body = frames.mutate(rng, rng.choice(whole))
        try:
            frame = wire.frame(body)
            if not wire.signed(frame):
                continue
            wire.call(frame.message)
        except wire.Malformed:
            continue
        # The changed bytes are none that count: padding, or what nobody reads.
        assert frame.message in {wire.frame(one).message for one in whole[:2]}


def test_no_changed_message_gets_through() -> None:
    fuzz(seed=1, count=500)


@pytest.mark.tier("gate")
@pytest.mark.parametrize("seed", range(5))
def test_none_of_5_000_changed_messages_gets_through(seed: int) -> None:
    fuzz(seed=100 + seed, count=1000)


@pytest.mark.tier("deep")
@pytest.mark.parametrize("seed", range(20))
def test_none_of_100_000_changed_messages_gets_through(seed: int) -> None:
    fuzz(seed=1000 + seed, count=5000)


def test_what_changes_the_signed_message_itself_never_holds_a_type_that_is_not_for_callers() -> None:
    """An account that signs anything: whatever passes consists of the types of the table alone."""
    rng = random.Random(7)
    whole = [a_call(a=frames.alias("typing.List", frames.value(1)), u=frames.uid(SERVER)), a_call(x=[1] * 20)]
    for _ in range(2000):
        message = frames.mutate(rng, rng.choice(whole))
        try:
            wire.call(message)
        except wire.Malformed:
            continue
        assert types_in(message) <= {name for name, _ in FORMS}


def a_part(rng: random.Random) -> bytes:
    """A message, or a part of one; some are as large as is shown in place, some in several segments."""
    sizes = (0, 1, 8, 500, 4096, 5000, 20_000, 100_000)
    things: list[Any] = [
        a_call(data=b"x" * rng.choice(sizes), x=[1, "two", {3: None}], y=frames.uid(SERVER)),
        frames.fields("UserCreate", {f"name {n}": frames.value("y" * rng.choice(sizes)) for n in range(5)}),
        frames.blob("bytes", b"z" * rng.choice(sizes)),
        wire.read(frames.value([b"a" * rng.choice(sizes), 2, [3]])).blob,
        wire.read(frames.value({b"k" * rng.choice(sizes): 2, "l": [3]})).blob,
        in_chunks([b"p" * rng.choice(sizes) for _ in range(rng.randint(0, 4))]),
    ]
    return bytes(rng.choice(things))


def in_chunks(chunks: list[bytes]) -> bytes:
    message = frames._schema()["Object"].new_message(name="bytes", version=1)
    message.blob = chunks
    made: bytes = message.to_bytes()
    return made


def plain(found: Any) -> Any:
    """What is shown, copied."""
    if isinstance(found, list | tuple):
        return [plain(one) for one in found]
    return bytes(found) if isinstance(found, memoryview | view.Rope) else found


def same_both_ways(seed: int, count: int) -> tuple[int, int]:
    """What is read in place is what the library reads; returns how many were, and how many changed."""
    rng, seen, changed = random.Random(seed), 0, 0
    for index in range(count):
        data = a_part(rng)
        if index % 4:
            data = frames.mutate(rng, data)
        words = wire._words(data)
        for kind, here, there in (
            ("Object", view.structure, wire._object),
            ("Sequence", view.sequence, lambda found: [wire._joined(one) for one in found.values]),
            ("Pairs", view.pairs, wire._of_library),
        ):
            found = here(data, words)
            if found is not None:
                seen, changed = seen + 1, changed + (index % 4 > 0)
                assert plain(found) == plain(wire._open(kind, data, there))
    return seen, changed


def test_what_is_read_in_place_is_what_the_library_reads() -> None:
    seen, changed = same_both_ways(seed=3, count=1500)
    assert seen > 1000
    assert changed > 300


@pytest.mark.tier("deep")
@pytest.mark.parametrize("seed", range(10))
def test_what_is_read_in_place_is_what_the_library_reads_for_long(seed: int) -> None:
    same_both_ways(seed=2000 + seed, count=20_000)


@pytest.mark.parametrize("size", [0, 1, 5000, 300_000])
def test_what_is_uploaded_is_shown_and_not_copied(size: int) -> None:
    """A gigabyte that is copied for each value that it is in costs ten."""
    body = frames.signed(KEY, a_call(data=b"x" * size))
    message = wire.frame(body).message
    assert isinstance(message, memoryview) == (len(body) > wire.LARGE)
    assert wire.call(message).path == "dataset.add"


@pytest.mark.parametrize("size", [8000, 8004])
def test_what_comes_in_several_pieces_is_read_as_one(size: int) -> None:
    """Of more than 512 MB syft's client makes several; where one ends is the sender's to choose."""
    inner = bytes(a_call(data=b"x" * 30_000, y=[1, {"two": 3}]))
    split = in_chunks([inner[at : at + size] for at in range(0, len(inner), size)])
    found = wire.read(split)
    assert isinstance(found.blob, view.Rope)
    assert bytes(found.blob) == inner
    assert wire.call(found.blob) == wire.call(inner)
    many = in_chunks([inner[at : at + 8] for at in range(0, len(inner), 8)])
    assert wire.read(many).blob == inner


def types_in(message: bytes) -> set[str]:
    found, left = set(), [message]
    while left:
        one = wire.read(left.pop())
        found.add(one.name)
        left += list(wire._children(one))
    return found
