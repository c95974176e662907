"""With the real client: what the administrator finds on a node that `set_up.py` was run on."""

import json
import sys

import syft as sy

told = json.loads(sys.stdin.read())
root = sy.login(url=told["url"], email=told["email"], password=told["password"])
seen = {
    "datasets": [dataset.name for dataset in root.datasets],
    "data": float(root.datasets["Census"].assets["ages"].data.sum()),
    "users": sorted(user.email for user in root.users.get_all()),
}
print(json.dumps(seen))
