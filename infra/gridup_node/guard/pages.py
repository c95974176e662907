"""Reads a table in the form that syft's client sends (Parquet), within memory limits.

A few bytes may expand to gigabytes: a page that compresses well, one value for all rows, an endless list. The
sender writes the footer of the file, so the footer is no proof. The size is computed from the header of each
page instead, which Arrow itself uses to read (parquet.thrift, `PageHeader`, in Thrift's compact protocol).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gridup_node.guard.budget import TOO_MUCH, Budget

WRITER = "parquet-cpp-arrow"
"""The writer's name in pyarrow's files. In some other writers' files, Arrow reads past a column's end."""
MOST_PAGES = 100_000
ROWS_AT_ONCE = 4096
NUMBER, TEXT, NESTED = 8, 64, 256
"""Bytes of a value in pandas: a number, a text in addition to its characters, a nested value."""
TABLE, COLUMN = 16 * 1024, 256
"""Minimum bytes of a table in pandas, and of each of its columns."""
STOP, TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12
I32, NUMBERS = 5, (4, 5, 6)
"""Types of Thrift's compact protocol."""
LAST_FIELD = 2**15 - 1
"""Arrow truncates a field's number to 16 bits."""
DEEPEST = 8
LONGEST_VARINT = 10


def table(blob: bytes, budget: Budget) -> Any:
    """Return the pyarrow table in a file.

    Args:
        budget: the memory limit. The table's bytes are taken from it.

    Raises:
        ValueError: the table exceeds the budget, or the file is no valid table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(blob))
    budget.take(TABLE + COLUMN * file.metadata.num_columns)
    most = budget.left
    try:
        texts, told = _check(file, memoryview(blob), most)
    except IndexError:
        raise ValueError("no table") from None
    if texts:
        # Read the texts as dictionaries first, without a copy per row: one text may be as large as the file.
        again = pq.ParquetFile(pa.BufferReader(blob), read_dictionary=texts)
        _within(again.iter_batches(batch_size=ROWS_AT_ONCE, columns=texts), most)
    batches, size = _within(file.iter_batches(batch_size=ROWS_AT_ONCE), most)
    budget.take(max(told, size))
    return pa.Table.from_batches(batches, schema=file.schema_arrow)


def _within(batches: Iterator[Any], most: int) -> tuple[list[Any], int]:
    """Return all batches, and the bytes that they take.

    Raises:
        ValueError: they take more than `most` bytes.
    """
    kept, size = [], 0
    for batch in batches:
        size += sum(_weight(column) for column in batch.columns)
        if size > most:
            raise ValueError(TOO_MUCH)
        kept.append(batch)
    return kept, size


def _weight(array: Any) -> int:
    """Return the bytes of an Arrow array. A value in a dictionary counts once per use."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = pc.binary_length(array.dictionary)
        return int(pc.sum(lengths.take(array.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(_weight(part) for part in array.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        inside = array.items if pa.types.is_map(kind) else array.values
        return _weight(inside) + int(array.nbytes)
    size: int = array.nbytes
    return size


def _check(file: Any, data: memoryview, most: int) -> tuple[list[str], int]:
    """Check that all pages together stay within the limits.

    Returns the paths of the text columns, and the bytes of all pages.

    Raises:
        ValueError: the pages exceed the limits, or the file is no valid table of pyarrow.
        IndexError: the data ends too early.
    """
    import pyarrow as pa

    seen, schema = file.metadata, file.schema
    if not (seen.created_by or "").startswith(WRITER):
        raise ValueError("a table of a writer that is not known")
    if seen.num_columns * seen.num_row_groups > MOST_PAGES:
        raise ValueError(TOO_MUCH)
    nested = any(pa.types.is_nested(field.type) for field in file.schema_arrow)
    size, pages, texts = seen.num_rows * max(len(file.schema_arrow), 1) * NUMBER, 0, []
    for index in range(seen.num_columns):
        column = schema.column(index)
        text = column.physical_type == "BYTE_ARRAY"
        if text:
            texts.append(column.path)
        each = NESTED if nested else TEXT if text else max(NUMBER, column.length or 0)
        for group in range(seen.num_row_groups):
            for page in _pages(data, seen.row_group(group).column(index)):
                pages += 1
                size += page.unpacked + page.values * each
                if size > most or pages > MOST_PAGES:
                    raise ValueError(TOO_MUCH)
    return texts, size


@dataclass(frozen=True)
class _Page:
    """The header of a page: its stored bytes, its unpacked bytes, and the number of values that it claims."""

    packed: int
    unpacked: int
    values: int


def _pages(data: memoryview, chunk: Any) -> Iterator[_Page]:
    if chunk.file_path:
        raise ValueError("a table in several files")
    start, first = chunk.data_page_offset, chunk.dictionary_page_offset
    at = min(start, first) if first else start
    end = at + chunk.total_compressed_size
    if at < 0 or not at <= end <= len(data):
        raise ValueError("no table")
    while at < end:
        head = _Head(data, at)
        page = head.page()
        at = head.at + page.packed
        yield page
    if at != end:
        raise ValueError("no table")


class _Head:
    """A reader of a page header. After `page`, `at` is the end of the header."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self.at = data, at

    def page(self) -> _Page:
        numbers: dict[int, int] = {}
        values = 0
        for field, kind in self._fields():
            # A field with an unexpected type is ignored. Arrow does the same.
            if kind == I32:
                numbers[field] = self._number()
            elif kind == STRUCT:
                # The header of the page's own kind. Its first field is always the number of values.
                for inner, sort in self._fields():
                    if inner == 1 and sort == I32:
                        values = max(values, self._number())
                    else:
                        self._skip(sort)
            else:
                self._skip(kind)
        unpacked, packed = numbers.get(2, -1), numbers.get(3, -1)
        if unpacked < 0 or packed < 0 or values < 0:
            raise ValueError("no table")
        return _Page(packed, unpacked, values)

    def _fields(self) -> Iterator[tuple[int, int]]:
        field = 0
        while (head := self._byte()) & 0x0F != STOP:
            field = field + (head >> 4) if head >> 4 else self._number()
            if not 0 <= field <= LAST_FIELD:
                raise ValueError("no table")
            yield field, head & 0x0F

    def _skip(self, kind: int, depth: int = 0) -> None:
        if depth > DEEPEST:
            raise ValueError("no table")
        if kind in NUMBERS:
            self._varint()
        elif kind in (BYTE, DOUBLE):
            self.at += 1 if kind == BYTE else 8
        elif kind == BINARY:
            length = self._varint()
            self.at += length
        elif kind in (LIST, SET):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._varint()
            self._skip_all([head & 0x0F], count, depth)
        elif kind == MAP:
            count = self._varint()
            kinds = self._byte() if count else 0
            self._skip_all([kinds >> 4, kinds & 0x0F], count, depth)
        elif kind == STRUCT:
            for _, inner in self._fields():
                self._skip(inner, depth + 1)
        elif kind not in (TRUE, FALSE):
            raise ValueError("no table")

    def _skip_all(self, kinds: list[int], count: int, depth: int) -> None:
        for _ in range(count):
            for kind in kinds:
                # In a list, a boolean takes a byte.
                self._skip(BYTE if kind in (TRUE, FALSE) else kind, depth + 1)
                if self.at > len(self._data):
                    raise IndexError

    def _byte(self) -> int:
        self.at += 1
        return int(self._data[self.at - 1])

    def _varint(self) -> int:
        found = 0
        for place in range(LONGEST_VARINT):
            part = self._byte()
            found |= (part & 0x7F) << (7 * place)
            if part < 0x80:
                return found
        raise ValueError("no table")

    def _number(self) -> int:
        found = self._varint()
        return (found >> 1) ^ -(found & 1)
