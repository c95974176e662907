"""With the real client: how long calls of an approved function take, in milliseconds."""

import json
import sys
import time

import numpy as np
import pandas as pd
import syft as sy

told = json.loads(sys.stdin.read())
root = sy.login(url=told["url"], email=told["email"], password=told["password"])
if not root.datasets.get_all():
    table = pd.DataFrame({"x": np.arange(1000.0)})
    assets = [
        sy.Asset(name="numbers", data=np.arange(1000.0), mock=np.zeros(1000)),
        sy.Asset(name="table", data=table, mock=table),
    ]
    root.upload_dataset(sy.Dataset(name="Numbers", asset_list=assets))
    numbers, table = root.datasets["Numbers"].assets

    # An administrator may call it more than once.
    @sy.syft_function_single_use(numbers=numbers)
    def total(numbers):
        return float(numbers.sum())

    # An administrator may call it more than once.
    @sy.syft_function_single_use(table=table)
    def mean(table):
        return float(table["x"].mean())

    for function in (total, mean):
        root.code.request_code_execution(function)
numbers, table = root.datasets["Numbers"].assets


def took(call):
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


seen = {
    "array": [took(lambda: root.code.total(numbers=numbers)) for _ in range(told["calls"])],
    "table": [took(lambda: root.code.mean(table=table)) for _ in range(told["calls"])],
}
print(json.dumps(seen))
