"""With the real client: what somebody without an account sees of a node that has guests."""

import json
import sys

import numpy as np
import syft as sy

told = json.loads(sys.stdin.read())
root = sy.login(url=told["url"], email=told["email"], password=told["password"])
asset = sy.Asset(name="ages", data=np.full(300_000, 2.0), mock=np.ones(300_000))
root.upload_dataset(sy.Dataset(name="Census", asset_list=[asset]))

guest = sy.login_as_guest(url=told["url"])
ages = guest.datasets["Census"].assets["ages"]
seen = {"datasets": [dataset.name for dataset in guest.datasets], "mock": float(ages.mock.sum())}
for name, ask in {"data": lambda: float(ages.data.sum()), "users": lambda: list(guest.users)}.items():
    try:
        seen[name] = str(ask())
    except Exception:  # noqa: BLE001 - however the client says no
        seen[name] = "refused"
print(json.dumps(seen))
