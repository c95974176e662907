"""With the real client: how many calls come to nothing, and what they ended with."""

import json
import sys

import syft as sy

told = json.loads(sys.stdin.read())
root = sy.login(url=told["url"], email=told["email"], password=told["password"])
lost = []
for _ in range(told["calls"]):
    try:
        if [user.email for user in root.users.get_all()] != [told["email"]]:
            lost.append("another answer")
    except Exception as error:  # noqa: BLE001 - however the client says it
        lost.append(f"{type(error).__name__}: {error}"[:300])
print(json.dumps(lost))
