"""Values between the node and a job, in a format of Gridup's own that can't refer to anything callable.

A value is a tree in JSON, followed by parts of plain bytes. A JSON scalar means itself. All else is a list
that begins with its kind. The kinds are those that data scientists use; a value of another kind is refused. A
job's data is untrusted: `decode` counts before it builds, and limits depth, size and keys.

numpy and pandas are imported only for their own values.
"""

from __future__ import annotations

import functools
import json
import math
import re
import zoneinfo
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, TypeAlias

Blob: TypeAlias = "bytes | bytearray | memoryview"

DEEPEST = 64
MOST_VALUES = 1_000_000
"""Lists, dicts, texts and numbers in a value, each counted; the elements of an array do not count."""
LARGEST_TREE = 64 << 20
"""Bytes of the JSON."""
ODD_KEYS = 2_000
"""Keys of types that allow many values with the same hash. Each of them is compared with all others."""
LONG_TEXT = 1024
"""From this many characters on, a text is a separate part."""
MOST_DIMENSIONS, LONGEST_DIMENSION = 32, 1 << 40
PLAIN_KEY = 1 << 60
"""Whole numbers below this are their own hash, so no two have the same hash."""

_DTYPE = re.compile(r"[<>|=]?[biufcSUmM][0-9]{0,6}(\[[0-9]{0,6}[a-zA-Z]{1,2}\])?")
_MASKED = re.compile("(Int|UInt)(8|16|32|64)|Float(32|64)|boolean")
_HEAD = 8


class Unfit(ValueError):
    """The value can't be sent, or the data is not a valid value; the message is one line for users."""


@dataclass(frozen=True)
class Bounds:
    """Limits on what `decode` builds; without them it builds whatever was sent."""

    values: int = MOST_VALUES
    depth: int = DEEPEST
    tree: int = LARGEST_TREE
    odd_keys: int = ODD_KEYS


def itself(value: Any) -> Any:
    """Return the value itself."""
    return value


def encode(value: Any, unwrap: Callable[[Any], Any] = itself, most: int | None = None) -> list[Blob]:
    """Encode a value for `decode`. Return the pieces in the order in which they are sent.

    Args:
        unwrap: called for each value of an unknown kind; returns a value to send instead.
        most: the most values that it may contain; None for any number.

    Raises:
        Unfit: it contains a value of another kind or too many values, or is nested too deep.
    """
    writer = _Writer(unwrap, most)
    try:
        # A text may contain lone surrogates: JSON's escapes keep them.
        tree = json.dumps([writer.tree(value, 0), [len(part) for part in writer.parts]]).encode()
    except (Unfit, MemoryError):
        raise
    except (ValueError, OverflowError):
        # A number with more digits than Python writes.
        raise Unfit("a number that is too long") from None
    except Exception as error:  # noqa: BLE001
        # Libraries raise many kinds of errors, as in `decode`, and `unwrap` may fail too.
        raise Unfit(f"what can't be read ({type(error).__name__})") from None
    return [len(tree).to_bytes(_HEAD, "big"), tree, *writer.parts]


def decode(data: memoryview, bounds: Bounds | None = None) -> Any:
    """Return the value that `encode` packed.

    Args:
        data: arrays continue to use it.
        bounds: limits for untrusted data.

    Raises:
        Unfit: the data is not a valid value, or exceeds the bounds.
    """
    size = int.from_bytes(data[:_HEAD], "big")
    if bounds and size > bounds.tree:
        raise Unfit("too many values")
    if len(data) < _HEAD or size > len(data) - _HEAD:
        raise Unfit("cut off")
    text = bytes(data[_HEAD : _HEAD + size])
    if bounds and text.count(b",") + text.count(b"[") + text.count(b"{") > 4 * bounds.values:
        raise Unfit("too many values")
    try:
        tree, lengths = json.loads(text)
        parts, at = [], _HEAD + size
        for length in lengths:
            if type(length) is not int or not 0 <= length <= len(data) - at:
                raise Unfit("cut off")
            parts.append(data[at : at + length])
            at += length
        return _Reader(parts, bounds).value(tree, 0)
    except Unfit:
        raise
    except RecursionError:
        raise Unfit("nested too deep") from None
    except MemoryError:
        raise Unfit("too large") from None
    except Exception as error:  # noqa: BLE001
        # Libraries raise many kinds of errors if they can't build what the data describes.
        raise Unfit(f"not in the form of its kind ({type(error).__name__})") from None


class _Writer:
    def __init__(self, unwrap: Callable[[Any], Any], most: int | None) -> None:
        self.parts: list[Blob] = []
        self._unwrap = unwrap
        self._left = -1 if most is None else most

    def tree(self, value: Any, depth: int) -> Any:
        if self._left == 0:
            raise Unfit("too many values")
        self._left -= 1
        if value is None or value is True or value is False:
            return value
        if depth > DEEPEST:
            raise Unfit(f"a value nested deeper than {DEEPEST}")
        kind = type(value)
        if kind is int or kind is float:
            return value
        if kind is str:
            return (
                value if len(value) < LONG_TEXT else ["s", self._part(value.encode("utf-8", "surrogatepass"))]
            )
        if kind in _PLAIN:
            return _PLAIN[kind](self, value, depth)
        # Check the module's name first: a value can't be of a library that this process never imported.
        for module, write in _LIBRARIES.items():
            if kind.__module__.partition(".")[0] == module:
                found = write(self, value, depth)
                if found is not None:
                    return found
        # OrderedDict, defaultdict, Counter and named tuples become plain dicts and tuples.
        if isinstance(value, dict):
            return self._of_dict(value, depth)
        if isinstance(value, list | tuple):
            return self._of("l" if isinstance(value, list) else "t", value, depth)
        if isinstance(value, str | bytes | int | float) and not isinstance(value, Enum):
            base: Any = next(one for one in (str, bytes, int, float) if isinstance(value, one))
            return self.tree(base(value), depth)
        other = self._unwrap(value)
        if other is value:
            raise Unfit(f"a value of the type {_name(kind)}")
        return self.tree(other, depth + 1)

    def _part(self, data: Blob) -> int:
        self.parts.append(data)
        return len(self.parts) - 1

    def _of(self, name: str, values: Any, depth: int) -> list[Any]:
        return [name, *(self.tree(one, depth + 1) for one in values)]

    def _of_dict(self, value: Mapping[Any, Any], depth: int) -> list[Any]:
        pairs = (one for pair in value.items() for one in pair)
        return ["d", *(self.tree(one, depth + 1) for one in pairs)]

    def _of_bytes(self, value: Blob, _depth: int) -> list[Any]:
        return ["y" if isinstance(value, bytes) else "Y", self._part(bytes(value))]

    def _of_numpy(self, value: Any, depth: int) -> list[Any] | None:
        import numpy as np

        if isinstance(value, np.generic):
            return (
                ["g", value.dtype.str, self._part(np.asarray(value).tobytes())]
                if _plain(value.dtype)
                else None
            )
        if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
            return self._array(np.asarray(value), depth)
        if isinstance(value, np.dtype):
            return ["dtype", value.str] if _plain(value) else None
        return None

    def _array(self, value: Any, depth: int) -> list[Any]:
        import numpy as np

        shape = list(value.shape)
        if value.dtype == object:
            return ["o", shape, self._objects(value.ravel().tolist(), depth)]
        if not _plain(value.dtype):
            raise Unfit(f"an array of the type {value.dtype}")
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        flat = np.ascontiguousarray(value.T if order == "F" else value)
        return ["a", value.dtype.str, shape, order, self._part(memoryview(flat.reshape(-1).view(np.uint8)))]

    def _objects(self, values: list[Any], depth: int) -> list[Any]:
        """Encode a column of objects. A column of texts and missing values only is packed: it may be long."""
        import numpy as np

        codes = np.fromiter((_code(one) for one in values), np.uint8, len(values))
        if len(values) and codes.max() < _OTHER:
            texts = [one.encode("utf-8", "surrogatepass") if type(one) is str else b"" for one in values]
            ends = np.cumsum([len(one) for one in texts], dtype=np.int64)
            blobs = (b"".join(texts), memoryview(ends.view(np.uint8)), memoryview(codes))
            return ["texts", *(self._part(one) for one in blobs)]
        return self._of("l", values, depth)

    def _of_pandas(self, value: Any, depth: int) -> list[Any] | None:
        import pandas as pd

        if isinstance(value, pd.DataFrame):
            columns = [self._column(value.iloc[:, at].array, depth + 1) for at in range(value.shape[1])]
            return ["D", self._index(value.index, depth + 1), self._index(value.columns, depth + 1), *columns]
        if isinstance(value, pd.Series):
            name = self.tree(value.name, depth + 1)
            return ["P", self._index(value.index, depth + 1), name, self._column(value.array, depth + 1)]
        if isinstance(value, pd.Index):
            return ["I", self._index(value, depth + 1)]
        if value is pd.NaT:
            return ["NaT"]
        if value is pd.NA:
            return ["NA"]
        if isinstance(value, pd.Timestamp):
            return ["ts", str(value.asm8.astype("int64")), value.unit, _zone(value.tz)]
        if isinstance(value, pd.Timedelta):
            return ["td", str(value.asm8.astype("int64")), value.unit]
        if isinstance(value, pd.api.extensions.ExtensionArray):
            return ["E", self._column(value, depth + 1)]
        return None

    def _index(self, value: Any, depth: int) -> list[Any]:
        import pandas as pd

        if isinstance(value, pd.RangeIndex):
            return ["range", value.start, value.stop, value.step, self.tree(value.name, depth)]
        if isinstance(value, pd.MultiIndex):
            levels = [self._column(value.get_level_values(at).array, depth) for at in range(value.nlevels)]
            return ["levels", [self.tree(name, depth) for name in value.names], *levels]
        return ["index", self.tree(value.name, depth), self._column(value.array, depth)]

    def _column(self, value: Any, depth: int) -> list[Any]:
        import numpy as np
        import pandas as pd

        dtype = value.dtype
        if isinstance(dtype, pd.CategoricalDtype):
            codes = self._array(np.asarray(value.codes), depth)
            return ["category", bool(value.ordered), codes, self._column(value.categories.array, depth)]
        if isinstance(dtype, pd.DatetimeTZDtype):
            return ["zone", dtype.unit, _zone(dtype.tz), self._array(value.asi8, depth)]
        if isinstance(dtype, pd.StringDtype):
            return ["string", self._objects(value.astype(object).tolist(), depth)]
        if isinstance(dtype, pd.PeriodDtype):
            return ["period", str(dtype)[len("period[") : -1], self._array(value.asi8, depth)]
        if _MASKED.fullmatch(dtype.name):
            mask = value.isna()
            data = value.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
            return ["masked", self._array(data, depth), self._array(np.asarray(mask), depth)]
        if isinstance(dtype, np.dtype) or isinstance(value, pd.arrays.NumpyExtensionArray):
            return self._array(value.to_numpy(), depth)
        raise Unfit(f"a column of the type {dtype}")


_PLAIN: Mapping[type, Callable[[_Writer, Any, int], Any]] = {
    list: lambda writer, value, depth: writer._of("l", value, depth),
    tuple: lambda writer, value, depth: writer._of("t", value, depth),
    dict: lambda writer, value, depth: writer._of_dict(value, depth),
    set: lambda writer, value, depth: writer._of("S", value, depth),
    frozenset: lambda writer, value, depth: writer._of("F", value, depth),
    bytes: lambda writer, value, depth: writer._of_bytes(value, depth),
    bytearray: lambda writer, value, depth: writer._of_bytes(value, depth),
    complex: lambda _writer, value, _depth: ["c", value.real, value.imag],
    range: lambda _writer, value, _depth: ["r", value.start, value.stop, value.step],
    slice: lambda writer, value, depth: writer._of("slice", (value.start, value.stop, value.step), depth),
    datetime: lambda _writer, value, _depth: ["dt", value.isoformat()],
    date: lambda _writer, value, _depth: ["date", value.isoformat()],
    time: lambda _writer, value, _depth: ["time", value.isoformat()],
    timedelta: lambda _writer, value, _depth: ["delta", value.days, value.seconds, value.microseconds],
    Decimal: lambda _writer, value, _depth: ["dec", str(value)],
    type(Ellipsis): lambda _writer, _value, _depth: ["..."],
}

_LIBRARIES: Mapping[str, Callable[[_Writer, Any, int], list[Any] | None]] = {
    "numpy": _Writer._of_numpy,
    "pandas": _Writer._of_pandas,
}

_TEXT, _NONE, _NAN, _NA, _OTHER = range(5)


def _code(value: Any) -> int:
    if type(value) is str:
        return _TEXT
    if value is None:
        return _NONE
    if type(value) is float and math.isnan(value):
        return _NAN
    return _NA if type(value).__name__ == "NAType" else _OTHER


def _plain(dtype: Any) -> bool:
    """Return whether a numpy type consists only of numbers, times or texts of one length."""
    return bool(_DTYPE.fullmatch(dtype.str)) and dtype.itemsize > 0


def _zone(zone: Any) -> str | None:
    if zone is None:
        return None
    name = getattr(zone, "key", None) or getattr(zone, "zone", None) or str(zone)
    if not re.fullmatch(r"[A-Za-z0-9_+\-/:]{1,64}", name):
        raise Unfit("a time zone without a name")
    return str(name)


def _name(kind: type) -> str:
    whole = f"{kind.__module__}.{kind.__name__}".removeprefix("builtins.")
    return whole if re.fullmatch(r"[\w.<>]{1,80}", whole, re.ASCII) else "?"


class _Reader:
    def __init__(self, parts: list[memoryview], bounds: Bounds | None) -> None:
        self._parts = parts
        self._bounds = bounds
        self._left = bounds.values if bounds else -1
        self._odd = bounds.odd_keys if bounds else -1

    def value(self, tree: Any, depth: int) -> Any:
        self._take(1)
        if tree is None or isinstance(tree, bool | int | float | str):
            return tree
        if not isinstance(tree, list) or not tree or not isinstance(tree[0], str):
            raise Unfit("no value")
        if self._bounds and depth > self._bounds.depth:
            raise Unfit("nested too deep")
        read = _READERS.get(tree[0])
        if read is None:
            raise Unfit("a value of no kind")
        return read(self, tree[1:], depth + 1)

    def _take(self, count: int) -> None:
        """Count values before they are built."""
        if self._left >= 0:
            if count > self._left:
                raise Unfit("too many values")
            self._left -= count

    def _key(self, key: Any) -> Any:
        plain = key is None or isinstance(key, str | bytes | bool | float)
        if not plain and not (type(key) is int and -PLAIN_KEY < key < PLAIN_KEY) and self._odd >= 0:
            if self._odd == 0:
                raise Unfit("too many keys that are no texts or numbers")
            self._odd -= 1
        return key

    def _part(self, at: Any) -> memoryview:
        if type(at) is not int or at < 0:
            raise Unfit("no part")
        return self._parts[at]

    def each(self, trees: Sequence[Any], depth: int) -> Iterator[Any]:
        return (self.value(one, depth) for one in trees)

    def keys(self, trees: Sequence[Any], depth: int) -> Iterator[Any]:
        return (self._key(self.value(one, depth)) for one in trees)

    def pairs(self, trees: Sequence[Any], depth: int) -> dict[Any, Any]:
        if len(trees) % 2:
            raise Unfit("a key without a value")
        return {
            self._key(self.value(key, depth)): self.value(one, depth)
            for key, one in zip(trees[::2], trees[1::2], strict=True)
        }

    def blob(self, trees: Sequence[Any]) -> bytes:
        (at,) = trees
        return bytes(self._part(at))

    def text(self, trees: Sequence[Any], _depth: int) -> str:
        return self.blob(trees).decode("utf-8", "surrogatepass")

    def range(self, trees: Sequence[Any]) -> range:
        made = range(*(_whole(one) for one in trees))
        # Iteration over a range produces all its values.
        if (
            self._bounds
            and len(trees) == 3
            and made
            and abs(made[-1] - made[0]) // abs(made.step) >= self._left
        ):
            raise Unfit("too many values")
        return made

    def dtype(self, name: Any) -> Any:
        import numpy as np

        if not isinstance(name, str) or not _DTYPE.fullmatch(name):
            raise Unfit("an array of no plain type")
        made = np.dtype(name)
        if not _plain(made):
            raise Unfit("an array of no plain type")
        return made

    def scalar(self, trees: Sequence[Any], _depth: int) -> Any:
        name, at = trees
        (made,) = self._numbers(name, at)
        return made

    def _numbers(self, name: Any, at: Any) -> Any:
        import numpy as np

        dtype = self.dtype(name)
        if dtype.kind == "b":
            # numpy counts the elements of a mask by adding its bytes, so each must be 0 or 1.
            return np.frombuffer(self._part(at), np.uint8) != 0
        return np.frombuffer(self._part(at), dtype)

    def array(self, trees: Sequence[Any], _depth: int) -> Any:
        name, shape, order, at = trees
        flat = self._numbers(name, at)
        shape = self._shape(shape, len(flat))
        return flat.reshape(shape[::-1]).T if order == "F" else flat.reshape(shape)

    def objects(self, trees: Sequence[Any], depth: int) -> Any:
        import numpy as np

        shape, tree = trees
        values = self._texts(tree, depth)
        made = np.empty(len(values), dtype=object)
        for at, one in enumerate(values):
            made[at] = one
        return made.reshape(self._shape(shape, len(values)))

    @staticmethod
    def _shape(shape: Any, size: int) -> tuple[int, ...]:
        if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS:
            raise Unfit("an array of no shape")
        if any(type(one) is not int or not 0 <= one <= LONGEST_DIMENSION for one in shape):
            raise Unfit("an array of no shape")
        if math.prod(shape) != size:
            raise Unfit("an array of another size")
        return tuple(shape)

    def _texts(self, tree: Any, depth: int) -> list[Any]:
        if not isinstance(tree, list) or tree[:1] not in (["texts"], ["l"]):
            raise Unfit("no column")
        if tree[0] == "l":
            return list(self.each(tree[1:], depth))
        import numpy as np

        blob, ends, codes = (self._part(one) for one in tree[1:])
        last, at = np.frombuffer(ends, np.int64), 0
        self._take(len(last))
        if len(codes) != len(last):
            raise Unfit("texts of another number")
        made: list[Any] = []
        for end, code in zip(last.tolist(), bytes(codes), strict=True):
            if not at <= end <= len(blob):
                raise Unfit("texts beyond their end")
            made.append(str(blob[at:end], "utf-8", "surrogatepass") if code == _TEXT else _missing(code))
            at = end
        return made

    def frame(self, trees: Sequence[Any], depth: int) -> Any:
        import pandas as pd

        rows, names, *columns = trees
        made = [self.column(one, depth) for one in columns]
        index = self.index(rows, depth, len(made[0]) if made else 0)
        labels = self.index(names, depth)
        if len(labels) != len(made) or any(len(one) != len(index) for one in made):
            raise Unfit("a table of another shape")
        frame = pd.DataFrame(dict(enumerate(made)), index=index, copy=False)
        frame.columns = labels
        return frame

    def series(self, trees: Sequence[Any], depth: int) -> Any:
        import pandas as pd

        rows, name, column = trees
        made = self.column(column, depth)
        index = self.index(rows, depth, len(made))
        if len(index) != len(made):
            raise Unfit("a series of another length")
        return pd.Series(made, index=index, name=self._key(self.value(name, depth)), copy=False)

    def index(self, tree: Any, depth: int, rows: int = 0) -> Any:
        """Return the labels of rows or columns. A range may be as long as `rows`, or as the bounds allow."""
        import pandas as pd

        kind, *rest = tree
        if kind == "range":
            start, stop, step, name = rest
            made = pd.RangeIndex(*(_whole(one) for one in (start, stop, step)))
            # pandas may write the range out in memory.
            if self._bounds and len(made) > max(self._bounds.values, rows):
                raise Unfit("too many values")
            return made.rename(self._key(self.value(name, depth)))
        if kind == "levels":
            names, *levels = rest
            columns = [self.column(one, depth) for one in levels]
            if len({len(one) for one in columns}) != 1:
                raise Unfit("an index of another shape")
            return pd.MultiIndex.from_arrays(columns, names=list(self.keys(names, depth)))
        if kind != "index":
            raise Unfit("no index")
        name, column = rest
        return pd.Index(self.column(column, depth), name=self._key(self.value(name, depth)))

    def column(self, tree: Any, depth: int) -> Any:
        import numpy as np
        import pandas as pd

        kind, *rest = tree
        if kind == "a":
            made = self.array(rest, depth)
        elif kind == "o":
            made = self.objects(rest, depth)
        elif kind == "category":
            ordered, codes, categories = rest
            known = pd.Index(self.column(categories, depth))
            made = pd.Categorical.from_codes(self.column(codes, depth), known, ordered is True)
        elif kind == "zone":
            unit, zone, stamps = rest
            if unit not in ("s", "ms", "us", "ns"):
                raise Unfit("no unit of time")
            naive = pd.DatetimeIndex(self.column(stamps, depth).view(f"M8[{unit}]"))
            made = naive.tz_localize("UTC").tz_convert(_known_zone(zone)).array
        elif kind == "string":
            made = pd.array(self._texts(rest[0], depth), dtype="string")
        elif kind == "period":
            freq, stamps = rest
            if not isinstance(freq, str) or not re.fullmatch(r"[A-Za-z0-9\-]{1,16}", freq):
                raise Unfit("no frequency")
            made = pd.PeriodIndex.from_ordinals(self.column(stamps, depth), freq=freq).array
        elif kind == "masked":
            data, mask = (self.column(one, depth) for one in rest)
            if len(data) != len(mask) or mask.dtype != np.bool_:
                raise Unfit("a column of another form")
            made = pd.array(data, dtype=_masked_name(data.dtype))
            made[mask] = pd.NA
        else:
            raise Unfit("no column")
        if made.ndim != 1:
            raise Unfit("no column")
        return made


def _whole(value: Any) -> int:
    if type(value) is not int or abs(value) > 1 << 62:
        raise Unfit("no whole number")
    return value


def _missing(code: int) -> Any:
    if code == _NA:
        import pandas as pd

        return pd.NA
    if code not in (_NONE, _NAN):
        raise Unfit("no text")
    return None if code == _NONE else math.nan


def _masked_name(dtype: Any) -> str:
    if dtype.kind not in "biuf":
        raise Unfit("a column of another form")
    names = {"b": "boolean", "i": "Int", "u": "UInt", "f": "Float"}
    return names[dtype.kind] + (str(dtype.itemsize * 8) if dtype.kind != "b" else "")


def _known_zone(name: Any) -> Any:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_+\-/:]{1,64}", name):
        raise Unfit("no time zone")
    if offset := re.fullmatch(r"(?:UTC)?([+-])(\d\d):(\d\d)", name):
        minutes = int(offset[2]) * 60 + int(offset[3])
        return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes))
    if name not in _zones():
        # pandas would look for a file with this name.
        raise Unfit("no time zone")
    return name


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _timestamp(trees: Sequence[Any]) -> Any:
    import numpy as np
    import pandas as pd

    value, unit, zone = trees
    if unit not in ("s", "ms", "us", "ns"):
        raise Unfit("no unit of time")
    made = pd.Timestamp(np.datetime64(int(value), unit))
    return made if zone is None else made.tz_localize("UTC").tz_convert(_known_zone(zone))


def _timedelta(trees: Sequence[Any]) -> Any:
    import numpy as np
    import pandas as pd

    value, unit = trees
    if unit not in ("s", "ms", "us", "ns"):
        raise Unfit("no unit of time")
    return pd.Timedelta(np.timedelta64(int(value), unit))


def _of_pandas(name: str) -> Any:
    import pandas as pd

    return getattr(pd, name)


def _decimal(trees: Sequence[Any]) -> Decimal:
    (text,) = trees
    if not isinstance(text, str) or len(text) > 100:
        raise Unfit("no number")
    made = Decimal(text)
    # Conversion to a whole number would write out all its digits.
    if made.is_finite() and abs(made.adjusted()) > 1000:
        raise Unfit("no number")
    return made


_READERS: Mapping[str, Callable[[_Reader, Sequence[Any], int], Any]] = {
    "s": _Reader.text,
    "y": lambda reader, trees, _depth: reader.blob(trees),
    "Y": lambda reader, trees, _depth: bytearray(reader.blob(trees)),
    "l": lambda reader, trees, depth: list(reader.each(trees, depth)),
    "t": lambda reader, trees, depth: tuple(reader.each(trees, depth)),
    "d": _Reader.pairs,
    "S": lambda reader, trees, depth: set(reader.keys(trees, depth)),
    "F": lambda reader, trees, depth: frozenset(reader.keys(trees, depth)),
    "c": lambda _reader, trees, _depth: complex(float(trees[0]), float(trees[1])),
    "r": lambda reader, trees, _depth: reader.range(trees),
    "slice": lambda reader, trees, depth: slice(*reader.each(trees, depth)),
    "dt": lambda _reader, trees, _depth: datetime.fromisoformat(*trees),
    "date": lambda _reader, trees, _depth: date.fromisoformat(*trees),
    "time": lambda _reader, trees, _depth: time.fromisoformat(*trees),
    "delta": lambda _reader, trees, _depth: timedelta(*(_whole(one) for one in trees)),
    "dec": lambda _reader, trees, _depth: _decimal(trees),
    "...": lambda _reader, _trees, _depth: ...,
    "g": _Reader.scalar,
    "a": _Reader.array,
    "o": _Reader.objects,
    "dtype": lambda reader, trees, _depth: reader.dtype(*trees),
    "D": _Reader.frame,
    "P": _Reader.series,
    "I": lambda reader, trees, depth: reader.index(trees[0], depth),
    "E": lambda reader, trees, depth: reader.column(trees[0], depth),
    "NaT": lambda _reader, _trees, _depth: _of_pandas("NaT"),
    "NA": lambda _reader, _trees, _depth: _of_pandas("NA"),
    "ts": lambda _reader, trees, _depth: _timestamp(trees),
    "td": lambda _reader, trees, _depth: _timedelta(trees),
}
