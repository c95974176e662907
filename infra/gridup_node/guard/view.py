"""Reads Cap'n Proto's encoding in place: it returns views of a message's parts, not copies.

It reads only the forms that the library itself writes for the structures of frames.capnp
(capnproto.org/encoding.html). For any other form it returns None, and `wire` uses the library.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from struct import Struct

WORD = 8
MOST_SEGMENTS = 512
COPIED = 4096
"""Data up to this size, in bytes, is copied: a view would cost more."""
MOST_PIECES = 64
BYTES, POINTERS = 2, 6
"""Codes for the element size of a list."""

_word = Struct("<Q").unpack_from
_half = Struct("<I").unpack_from


class _Unusual(Exception):
    """The message has a form that this module does not read."""


class Rope:
    """Bytes in several pieces, in order. Data longer than 512 MB is sent in pieces."""

    __slots__ = ("_length", "_pieces", "_starts")

    def __init__(self, pieces: Sequence[memoryview]) -> None:
        self._pieces, self._starts, self._length = pieces, [], 0
        for piece in pieces:
            self._starts.append(self._length)
            self._length += len(piece)

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        return b"".join(self._pieces)

    def __getitem__(self, part: slice) -> memoryview | Rope:
        start, stop, _ = part.indices(self._length)
        index = self._piece(start)
        at = start - self._starts[index]
        if at + stop - start <= len(self._pieces[index]):
            return self._pieces[index][at : at + stop - start]
        found = []
        while start < stop:
            piece = self._pieces[index][start - self._starts[index] :][: stop - start]
            found.append(piece)
            start, index = start + len(piece), index + 1
        return Rope(found)

    @property
    def pieces(self) -> Sequence[memoryview]:
        return self._pieces

    def word(self, at: int) -> tuple[int]:
        index = self._piece(at)
        piece, at = self._pieces[index], at - self._starts[index]
        if at + WORD > len(piece):
            raise _Unusual
        found: tuple[int] = _word(piece, at)
        return found

    def _piece(self, at: int) -> int:
        return max(bisect_right(self._starts, at) - 1, 0)


Data = bytes | memoryview | Rope


def joined(parts: Sequence[Data]) -> Data:
    """Join all parts. Large ones are not copied."""
    if sum(map(len, parts)) <= COPIED:
        return b"".join(map(bytes, parts))
    pieces: list[memoryview] = []
    for part in parts:
        if len(part):
            pieces += part.pieces if isinstance(part, Rope) else [memoryview(part)]
    if len(pieces) == 1:
        return pieces[0]
    return Rope(pieces) if len(pieces) <= MOST_PIECES else b"".join(pieces)


class _Reader:
    """The reader of one message. All reads together may cover at most `words` words."""

    __slots__ = ("_data", "_left", "_segments", "_word")

    def __init__(self, given: Data, words: int) -> None:
        if isinstance(given, Rope):
            data: memoryview | Rope = given
            head, self._word = given.pieces[0], given.word
        else:
            data = head = memoryview(given)
            self._word = partial(_word, data)
        self._data, self._left = data, words
        if len(data) < 2 * WORD or len(data) % WORD or len(head) < WORD:
            raise _Unusual
        count = _half(head, 0)[0] + 1
        if count > MOST_SEGMENTS or len(head) < (at := (count * 4 + 4 + WORD - 1) // WORD * WORD):
            raise _Unusual
        self._segments = []
        for index in range(count):
            end = at + _half(head, 4 + 4 * index)[0] * WORD
            self._segments.append((at, end))
            at = end
        if at > len(data):
            raise _Unusual

    def root(self) -> tuple[int, int, int, int]:
        """Return the root structure's segment, the start of its data and of its pointers, and its end."""
        start, end = self._segments[0]
        if start >= end:
            raise _Unusual
        segment, pointer, base = self._followed(0, start)
        # Accept only a pointer to a structure that is not null.
        if pointer & 3 or not pointer:
            raise _Unusual
        at = base + self._offset(pointer)
        data, pointers = (pointer >> 32 & 0xFFFF) * WORD, (pointer >> 48) * WORD
        self._check(segment, at, data + pointers)
        return segment, at, at + data, at + data + pointers

    def number(self, at: int) -> int:
        found: int = self._word(at)[0] & 0xFFFFFFFF
        return found - (1 << 32) if found >> 31 else found

    def list_of(self, segment: int, at: int, size: int) -> tuple[int, int, int]:
        """Return the segment, the start and the number of elements of the list that a pointer refers to."""
        pointer = self._word(at)[0]
        if not pointer:
            return segment, at, 0
        if pointer & 3 == 1:
            base = at + WORD
        else:
            segment, pointer, base = self._followed(segment, at)
        if pointer & 3 != 1 or pointer >> 32 & 7 != size:
            raise _Unusual
        count = pointer >> 35
        start = base + self._offset(pointer)
        self._check(segment, start, count if size == BYTES else count * WORD)
        return segment, start, count

    def data(self, segment: int, at: int) -> Data:
        """Return the bytes that a pointer refers to."""
        _, start, count = self.list_of(segment, at, BYTES)
        found = self._data[start : start + count]
        return found if count > COPIED else bytes(found)

    def chunks(self, segment: int, at: int) -> Data:
        """Return the joined bytes of a list of data."""
        segment, start, count = self.list_of(segment, at, POINTERS)
        if count == 1:
            return self.data(segment, start)
        return joined([self.data(segment, start + index * WORD) for index in range(count)])

    def text(self, segment: int, at: int) -> str:
        _, start, count = self.list_of(segment, at, BYTES)
        if not count:
            if self._word(at)[0]:
                # A text that exists ends with a zero byte, which is part of the count.
                raise _Unusual
            return ""
        found = bytes(self._data[start : start + count])
        if found[-1]:
            raise _Unusual
        try:
            return found[:-1].decode()
        except UnicodeDecodeError:
            raise _Unusual from None

    def _followed(self, segment: int, at: int) -> tuple[int, int, int]:
        """Follow a far pointer, if `at` holds one.

        Returns the segment of the final pointer, the pointer itself, and the position that its offset counts
        from.
        """
        pointer = self._word(at)[0]
        if pointer & 3 != 2:
            return segment, pointer, at + WORD
        # Refuse double-far pointers: the library writes them only on request.
        if pointer & 4 or pointer >> 32 >= len(self._segments):
            raise _Unusual
        segment = pointer >> 32
        at = self._segments[segment][0] + (pointer >> 3 & 0x1FFFFFFF) * WORD
        self._check(segment, at, WORD)
        pointer = self._word(at)[0]
        if pointer & 3 == 2:
            raise _Unusual
        return segment, pointer, at + WORD

    @staticmethod
    def _offset(pointer: int) -> int:
        offset = pointer >> 2 & 0x3FFFFFFF
        return (offset - (1 << 30) if offset >> 29 else offset) * WORD

    def _check(self, segment: int, at: int, size: int) -> None:
        start, end = self._segments[segment]
        if not (start <= at and at + size <= end):
            raise _Unusual
        self._left -= (size + WORD - 1) // WORD + 1
        if self._left < 0:
            raise _Unusual


Fields = tuple[str, int, list[str], list[Data], Data]


def structure(data: Data, words: int) -> Fields | None:
    """Read an `Object`: its name, version, field names, field values and blob; None for an unusual form."""
    try:
        reader = _Reader(data, words)
        segment, at, pointers, end = reader.root()
        # Additional pointers of a later version of the structure are ignored.
        if pointers == at or end - pointers < 4 * WORD:
            return None
        names_in, start, count = reader.list_of(segment, pointers, POINTERS)
        names = [reader.text(names_in, start + index * WORD) for index in range(count)]
        values_in, start, count = reader.list_of(segment, pointers + WORD, POINTERS)
        values = [reader.chunks(values_in, start + index * WORD) for index in range(count)]
        own = reader.chunks(segment, pointers + 2 * WORD)
        return reader.text(segment, pointers + 3 * WORD), reader.number(at), names, values, own
    except _Unusual:
        return None


def sequence(data: Data, words: int) -> list[Data] | None:
    """Read the values of a `Sequence`; None for an unusual form."""
    try:
        reader = _Reader(data, words)
        segment, _, pointers, end = reader.root()
        if end - pointers < WORD:
            return None
        segment, start, count = reader.list_of(segment, pointers, POINTERS)
        return [reader.chunks(segment, start + index * WORD) for index in range(count)]
    except _Unusual:
        return None


Pairs = tuple[list[Data], list[Data]]


def pairs(data: Data, words: int) -> Pairs | None:
    """Read the keys and the values of `Pairs`; None for an unusual form."""
    try:
        reader = _Reader(data, words)
        segment, _, pointers, end = reader.root()
        if end - pointers < 2 * WORD:
            return None
        keys_in, start, count = reader.list_of(segment, pointers, POINTERS)
        keys = [reader.data(keys_in, start + index * WORD) for index in range(count)]
        segment, start, count = reader.list_of(segment, pointers + WORD, POINTERS)
        return keys, [reader.chunks(segment, start + index * WORD) for index in range(count)]
    except _Unusual:
        return None
