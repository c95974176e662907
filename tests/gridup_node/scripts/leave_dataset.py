"""With the real client: upload a small dataset, or say which there are (`told["look"]`)."""

import json
import sys

import numpy as np
import syft as sy

told = json.loads(sys.stdin.read())
root = sy.login(url=told["url"], email=told["email"], password=told["password"])
if not told.get("look"):
    # Above a megabyte syft keeps an object outside its database.
    asset = sy.Asset(name="ages", data=np.full(300_000, 2.0), mock=np.ones(300_000))
    root.upload_dataset(sy.Dataset(name="Census", asset_list=[asset]))
print(json.dumps({row.name: float(row.assets["ages"].data.sum()) for row in root.datasets}))
