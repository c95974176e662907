"""With the real client: a dataset of a gigabyte goes in and comes back."""

import json
import sys

import numpy as np
import syft as sy

told = json.loads(sys.stdin.read())
data = np.frombuffer(np.random.default_rng(1).bytes(told["bytes"]), dtype=np.uint8)
root = sy.login(url=told["url"], email=told["email"], password=told["password"])
root.upload_dataset(sy.Dataset(name="Large", asset_list=[sy.Asset(name="x", data=data, mock=data[:100])]))
back = root.datasets["Large"].assets["x"].data
print(json.dumps({"same": bool((back == data).all()), "bytes": int(back.nbytes)}))
