"""Values that are small on the wire and huge where they are built; prints what became of each."""

import io
import json
import sys
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from syft.serde.arrow import ApacheArrowCompression, flags
from syft.serde.deserialize import _deserialize
from syft.serde.recursive_primitives import serialize_iterable
from syft.serde.serialize import _serialize
from syft.types.uid import UID

from gridup_node.guard import budget, holes
from support import frames

MIB = 1024 * 1024


def zipapp(tensor: bytes) -> tuple[bytes, int]:
    if flags.APACHE_ARROW_COMPRESSION is ApacheArrowCompression.NONE:
        return tensor, len(tensor)
    return pa.compress(tensor, asbytes=True, codec=flags.APACHE_ARROW_COMPRESSION.value), len(tensor)


def tensor(count: int) -> bytes:
    sink = pa.BufferOutputStream()
    pa.ipc.write_tensor(pa.Tensor.from_numpy(np.zeros(count, dtype=np.int64)), sink)
    made: bytes = sink.getvalue().to_pybytes()
    return made


def array(dtype: str, data: bytes) -> bytes:
    blob, size = zipapp(data)
    return frames.blob("numpy_ndarray", _serialize((blob, size, dtype), to_bytes=True))


def texts(ends: list[int], characters: int) -> bytes:
    numbers = [*([120] * characters), *ends, len(ends), len(ends), 1]
    return frames.blob("numpy_ndarray", _serialize(np.array(numbers, dtype=np.uint64), to_bytes=True))


def many_columns(count: int) -> bytes:
    return frames.blob("pandas_series", _serialize({str(n): {n: 1} for n in range(count)}, to_bytes=True))


def of_one(count: int) -> bytes:
    """A tensor that says it has `count` elements, all of them the same eight bytes."""
    few = 4242
    made = bytearray(tensor(few))
    head = made.index(few.to_bytes(8, "little"))
    made[head : head + 8] = count.to_bytes(8, "little")
    # Its only other number of eight bytes is how far it is from one element to the next.
    at = made.index((8).to_bytes(8, "little"))
    made[at : at + 8] = bytes(8)
    return bytes(made)


def parquet(table: pa.Table, **how: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **how)
    return sink.getvalue()


def page_of(count: int) -> bytes:
    """A table whose page says that it has `count` bytes when it is unpacked; its footer says less."""
    length = 1_200_000
    packed = parquet(pa.table({"x": ["0" * length]}), use_dictionary=False, compression="zstd")
    said = pq.read_metadata(io.BytesIO(packed)).row_group(0).column(0).total_uncompressed_size
    sizes = [zigzag(number) for number in range(length, said + 1) if zigzag(number) in packed]
    own = min(sizes, key=packed.index)
    # As long as the one that was there, so that nothing else moves: up to 2^27.
    assert len(own) == len(zigzag(count)) == 4
    return frames.blob("pandas_dataframe", packed.replace(own, zigzag(count), 1))


def zigzag(number: int) -> bytes:
    left, made = number * 2, bytearray()
    while left > 0x7F:
        made.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*made, left])


def tables() -> dict[str, bytes]:
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, type=pa.int32()), ["x" * (MIB // 8)])
    lists = pa.array([[0] * 500_000] * 4, type=pa.list_(pa.int8()))
    made = {
        "zeros": pa.table({"x": np.zeros(9 * MIB, dtype=np.int64)}),
        "same text": pa.table({"x": text}),
        "long list": pa.table({"x": lists}),
        "nulls": pa.table({f"x{n}": pa.nulls(MIB, pa.int64()) for n in range(9)}),
    }
    return {
        **{name: frames.blob("pandas_dataframe", parquet(table)) for name, table in made.items()},
        "page": page_of(100 * MIB),
        "other writer": frames.blob("pandas_dataframe", other_writer(parquet(pa.table({"x": [1]})))),
    }


def other_writer(file: bytes) -> bytes:
    """parquet-mr's early versions: their columns are read beyond their end."""
    return file.replace(b"parquet-cpp-arrow", b"parquet-mr v1.2.8")


EVIL = {
    **tables(),
    "type": array("S2000000", tensor(200)),
    "shape": array("int64", of_one(40 * MIB)),
    "text": texts([1000, *([1000] * 99_999)], 1000),
    "text back and forth": texts([1000, 0] * 1000, 1000),
    "series": many_columns(3000),
    "range": frames.blob("range", serialize_iterable((0, 10**9, 1))),
    "union": frames.blob("UnionType", _serialize(({1}, {2}), to_bytes=True)),
}
# Each is within the bound, all of them are not.
PART = frames.Raw(frames.blob("pandas_dataframe", parquet(pa.table({"x": np.zeros(MIB, dtype=np.int64)}))))
EVIL["ten tables"] = frames.value([PART] * 10)
ONE = frames.value([PART])
LINE = frames.Raw(_serialize(pd.DataFrame({"x": [1]}), to_bytes=True))
NUMBER = frames.Raw(array("int64", tensor(1)))
OF_A_STRANGER = {"tables": frames.value([LINE] * 100), "arrays": frames.value([NUMBER] * 2000)}
TABLE = pd.DataFrame(
    {
        "numbers": range(9000),
        "texts": [f"a text that is not so short {n % 50}" for n in range(9000)],
        "lists": [["a", "b"][: n % 3] for n in range(9000)],
        "nothing": [None, "x", ""] * 3000,
        "when": pd.date_range("2026-01-01", periods=9000),
        "bytes": [b"x" * (n % 5) for n in range(9000)],
        "kinds": pd.Categorical(["a", "b", "c"] * 3000),
    }
)
FINE: dict[str, Any] = {
    "empty table": pd.DataFrame({"x": [], "y": pd.Series([], dtype="str")}),
    "plain table": TABLE[["numbers", "when"]],
    "numbers": np.arange(12.0).reshape(3, 4),
    "texts": np.array(["a", "bcd", ""]),
    "series": pd.Series([1, 2, 3], name="x"),
    "range": range(1, 9, 2),
    "union": int | None,
    "empty": np.array([], dtype=np.int32),
}


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, np.ndarray | list) else value


def built(blob: bytes, most: int = 64 * MIB) -> Any:
    budget.begin(most)
    try:
        return _deserialize(blob, from_bytes=True)
    except (ValueError, TypeError, MemoryError, OSError) as error:
        return error


sent = {name: _serialize(value, to_bytes=True) for name, value in FINE.items()}
if sys.argv[1] == "closed":
    holes.close(False, False)
seen = {name: type(built(blob)).__name__ for name, blob in EVIL.items()}
same = {name: bool(np.all(built(blob) == FINE[name])) for name, blob in sent.items()}
# More than a megabyte is read in place.
LARGE = {"a": [np.arange(300_000), ("é" * 700_000, {1, 2}, None)], 7: b"y" * 2_000_000, "o": UID()}
large = built(_serialize(LARGE, to_bytes=True))
same["large"] = (
    list(large) == list(LARGE)
    and bool((large["a"][0] == LARGE["a"][0]).all())
    and (large["a"][1], large[7], large["o"]) == (LARGE["a"][1], LARGE[7], LARGE["o"])
)
same["one table"] = isinstance(built(ONE), list)
for name, blob in OF_A_STRANGER.items():
    seen[f"small {name}"] = type(built(blob, budget.STRANGERS)).__name__
    same[f"many small {name}"] = isinstance(built(blob), list)
whole = built(_serialize(TABLE, to_bytes=True))
same["table"] = all(list(map(plain, whole[name])) == list(map(plain, TABLE[name])) for name in TABLE)
print(json.dumps({"evil": seen, "fine": same}))
