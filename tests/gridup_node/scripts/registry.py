"""Every method of syft's with the roles that syft itself opens it to, and what our guard makes of them."""

import json

from syft.service.service import (
    LibConfigRegistry,
    ServiceConfigRegistry,
    UserLibConfigRegistry,
    UserServiceConfigRegistry,
)
from syft.service.user.user_roles import ServiceRole

from gridup_node.guard import holes

KINDS = {"domain": (False, False), "guests": (True, False), "network": (False, True)}
rows = ServiceConfigRegistry.get_registered_configs()
seen = {
    "syft": {path: [role.name for role in row.roles] for path, row in rows.items()},
    "syft's lib": len(LibConfigRegistry.get_registered_configs()),
}
for kind, (guests, network) in KINDS.items():
    holes.close(guests=guests, network=network)
    seen[kind] = {
        role.name: sorted(UserServiceConfigRegistry.from_role(role).get_registered_configs())
        for role in ServiceRole
        if role.value
    }
seen["lib"] = len(UserLibConfigRegistry.from_user(None).get_registered_configs())
print(json.dumps(seen))
