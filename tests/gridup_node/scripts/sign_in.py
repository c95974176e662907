"""With the real client: which of the passwords open the administrator's account."""

import json
import sys

import syft as sy

told = json.loads(sys.stdin.read())
opened = []
for password in told["tries"]:
    try:
        opened.append(sy.login(url=told["url"], email=told["email"], password=password) is not None)
    except Exception:  # noqa: BLE001 - however the client says no
        opened.append(False)
print(json.dumps(opened))
