"""Within a node, in the place of its api: code for the sandbox that may not do what it does."""

import json
import os
import sys
import threading
from pathlib import Path

from gridup_node.sandbox import client

os.chdir(os.environ["GRIDUP_NODE_HOME"])
attacks = json.loads(sys.argv[1])


class Nobody:
    def printed(self, text):
        pass

    def asked(self, what, args, kwargs):
        raise client.Refused("nothing")


def run(body, seconds=30):
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    request = client.Request(f"def f():\n{lines}", "f", {})
    try:
        return ["returned", client.run(Path("jobs"), request, Nobody(), seconds=seconds)]
    except client.Failed as error:
        return [error.failure.reason.value, error.failure.sentence]


FILL = "kept = []\nwhile True:\n    kept.append(bytearray(10**7))"
found = {"look": client.look(Path("jobs"))}
hungry = {}
# Of a daemon that sets no limits nothing is left to the others: then it only asks for too much.
fill = FILL if found["look"]["memory"] < 2 << 30 else "return bytearray(10**12)"
one = threading.Thread(target=lambda: hungry.update(was=run(fill, 300)))
one.start()
# While one job takes all the memory there is, the others come and go.
for name, body in attacks.items():
    found[name] = run(body, 2 if name == "endless" else 30)
one.join()
found["hungry"] = hungry["was"]
AFTER = """
import os
left = os.listdir('.')
try:
    left += [name for name in os.listdir('/tmp') if not os.path.samefile('/tmp/' + name, '.')]
except PermissionError:
    pass
return left
"""
found["after"] = run(AFTER.strip())
print(json.dumps(found))
