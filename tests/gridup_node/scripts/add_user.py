"""With the real client: an account for a data scientist."""

import json
import sys

import syft as sy

told = json.loads(sys.stdin.read())
root = sy.login(url=told["url"], email=told["email"], password=told["password"])
root.users.create(email=told["her"], name="Grace", password=told["hers"], password_verify=told["hers"])
print(json.dumps(len(root.users.get_all())))
