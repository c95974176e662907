"""With the node's own libraries: values go through the sandbox and are the same; what is none, is not."""

import datetime as dt
import decimal
import json
import random
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from gridup_node.sandbox import client, values


class Nobody:
    def printed(self, text):
        pass

    def asked(self, what, args, kwargs):
        raise client.Refused("nothing")


def through(value):
    request = client.Request("def f(x):\n    return x", "f", {"x": value})
    return client.run(Path(sys.argv[1]), request, Nobody(), seconds=60)


days = pd.date_range("2020", periods=2)
table = pd.DataFrame(
    {
        "number": [1, 2],
        "text": ["x", None],
        "kind": pd.Categorical(["u", "v"]),
        "zone": days.tz_localize("Europe/Berlin"),
        "maybe": pd.array([1, None], dtype="Int64"),
        "string": pd.array(["s", None], dtype="string"),
        "day": days,
        "month": pd.period_range("2020", periods=2, freq="M"),
        "list": [[1], [2]],
        "yes": [True, False],
        "perhaps": pd.array([True, None], dtype="boolean"),
    },
    index=["a", "b"],
)
VALUES = [
    *(None, True, 3, -(2**70), 1.5, float("inf"), "a", "x" * 5000, "\ud800", b"ab", bytearray(b"c")),
    *([1, [2]], (1,), {"a": 1, 2: (3,)}, {1, 2}, frozenset({1}), 1 + 2j, range(3), slice(1, None), ...),
    *(
        dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc),
        dt.date(2020, 1, 1),
        dt.time(3),
        dt.timedelta(1, 2, 3),
    ),
    *(decimal.Decimal("1.5"), np.float64(2.5), np.int32(3), np.bool_(True), np.datetime64("2020-01-01")),
    *(np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(5)),
    *(np.zeros((0, 3)), np.array(["a", "bc"]), np.array([True, False]), np.array(["a", None], dtype=object)),
    *(np.full(300_000, 2.0), np.array([[1, 2], None], dtype=object)),
    *(
        table,
        table["text"],
        table.describe(),
        table.groupby("kind", observed=True)["number"].agg(["sum", "mean"]),
    ),
    *(
        table.set_index(["number", "day"])[["yes"]],
        pd.DataFrame(),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
    ),
    *(pd.Index([1, 2]), pd.NaT, pd.NA, pd.Timestamp("2020-01-01", tz="UTC"), pd.Timedelta("1D")),
]


def same(one, other):
    if isinstance(one, pd.DataFrame):
        return pd.testing.assert_frame_equal(one, other) is None
    if isinstance(one, pd.Series | pd.Index):
        return one.equals(other) and one.dtype == other.dtype
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, str(one)) == (other.dtype, other.shape, str(other))
    if one is pd.NA or one is pd.NaT:
        return other is one
    return type(one) is type(other) and bool(one == other)


found = [(one, through(one)) for one in VALUES]
refused = []
for name, value in (("object", object()), ("interval", pd.interval_range(0, 2))):
    try:
        through(value)
    except values.Unfit:
        refused.append(name)
taken = []
for tree in (
    '[["a","|O8",[1],"C",0],[8]]',
    '[["a","<i8",[1000000000000],"C",0],[8]]',
    '[["a","<i8",[-1],"C",0],[8]]',
    '[["a","<i8",[1],"C",0],[7]]',
    '[["g","<U0",0],[0]]',
    '[["dtype","O"],[]]',
    '[["D",["range",0,1000000000000,1,null],["range",0,0,1,null]],[]]',
    '[["I",["range",0,1000000000000,1,null]],[]]',
    '[["o",[3],["texts",0,0,0]],[8]]',
    '[["E",["category",true,["a","<i8",[1],"C",0],["o",[0],["l"]]]],[8]]',
    '[["E",["period","__import__",["a","<i8",[1],"C",0]]],[8]]',
    '[["ts","1","years",null],[]]',
    '[["E",["zone","ns","../../etc/passwd",["a","<i8",[1],"C",0]]],[8]]',
):
    try:
        values.decode(memoryview(len(tree).to_bytes(8, "big") + tree.encode() + b"\1" * 8), values.Bounds())
        taken.append(tree)
    except values.Unfit:
        pass
# numpy counts the bytes of a mask: one of other bytes would have it write beyond an array's end.
mask = b'[["a","|b1",[2],"C",0],[2]]'
whole = values.decode(memoryview(len(mask).to_bytes(8, "big") + mask + b"\x07\x00"), values.Bounds())
assert whole.view(np.uint8).tolist() == [1, 0]
# Whatever is changed in it, it is a value or none, and nothing else happens.
chance, mutated = random.Random(7), 0
good = [b"".join(bytes(piece) for piece in values.encode(one)) for one in VALUES if len(repr(one)) < 10_000]
for _ in range(2000):
    data = bytearray(chance.choice(good))
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] = chance.choice(b'[]{},"0123456789\0\xff-adloP')
    try:
        values.decode(memoryview(data), values.Bounds())
    except values.Unfit:
        mutated += 1
print(
    json.dumps(
        {
            "same": sum(bool(same(*pair)) for pair in found),
            "different": [repr(pair)[:500] for pair in found if not same(*pair)],
            "refused": refused,
            "taken": taken,
            "mutated": mutated,
        }
    )
)
