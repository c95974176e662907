"""With the real client: what a node tells of itself, and what its administrator then sets, if anything."""

import json
import sys

import syft as sy

told = json.loads(sys.stdin.read())
root = sy.login(url=told["url"], email=told["email"], password=told["password"])
seen = [root.metadata.organization, root.metadata.description]
settings = root.settings.get()
assert [settings.organization, settings.description] == seen
root.settings.update(**told["sets"])
print(json.dumps(seen))
