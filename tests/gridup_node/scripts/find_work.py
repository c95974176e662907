"""With the real client: what is there of what `leave_work.py` left, and what it is still good for."""

import json
import sys

import syft as sy

told = json.loads(sys.stdin.read())
root = sy.login(url=told["url"], email=told["email"], password=told["password"])
if told.get("locked"):
    # As an administrator lets somebody in again.
    [grace] = [one for one in root.users.get_all() if one.email == told["her"]]
    root.users.update(uid=grace.id, password=told["hers"])
her = sy.login(url=told["url"], email=told["her"], password=told["hers"])
ages = her.datasets[told["dataset"]].assets["ages"]
seen = {
    "data": float(root.datasets[told["dataset"]].assets["ages"].data.sum()),
    "mock": float(ages.mock.sum()),
    "result": next(job for job in her.jobs if str(job.id) == told["job"]).result.get(),
    "requests": sorted(one.status.name for one in root.requests if one.requesting_user_email == told["her"]),
    "approved": her.code.approved(ages=ages, blocking=False).wait(timeout=60).get(),
    "id": str(root.id),
}
try:
    seen["hers"] = float(ages.data.sum())
except Exception:  # noqa: BLE001 - however the client says no
    seen["hers"] = "refused"
next(one for one in root.requests if one.status.name == "PENDING").approve()
seen["waiting"] = her.code.waiting(ages=ages, blocking=False).wait(timeout=60).get()
print(json.dumps(seen))
