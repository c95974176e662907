"""Whether an answer to a data scientist holds a private key, "own" or "another's", that a method returned."""

import sys

from syft.client.api import SyftAPIData
from syft.serde.serialize import _serialize
from syft.server.credentials import SyftSigningKey

from gridup_node.guard import asgi, holes

# A second time as well: what it wraps then is wrapped already.
holes.close(False, False)
holes.close(False, False)
root, eve = SyftSigningKey.generate(), SyftSigningKey.generate()
asgi.answers_to.set(bytes(eve.signing_key.verify_key))
held = eve if sys.argv[1] == "own" else root
answer = SyftAPIData(data=[held]).sign(root).serialized_message
key, kept = bytes(held.signing_key), _serialize(held, to_bytes=True)
print("held", key in answer, key in kept)
