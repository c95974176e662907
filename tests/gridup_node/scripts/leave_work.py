"""With the real client: data and three requests for code: one was run, one is approved, one waits."""

import json
import sys

import numpy as np
import syft as sy

told = json.loads(sys.stdin.read())
root = sy.login(url=told["url"], email=told["email"], password=told["password"])
# Above a megabyte syft keeps an object outside its database.
asset = sy.Asset(name="ages", data=np.full(300_000, 2.0), mock=np.ones(300_000))
root.upload_dataset(sy.Dataset(name=told["dataset"], asset_list=[asset]))
root.users.create(email=told["her"], name="Grace", password=told["hers"], password_verify=told["hers"])
her = sy.login(url=told["url"], email=told["her"], password=told["hers"])
ages = her.datasets[told["dataset"]].assets["ages"]


@sy.syft_function_single_use(ages=ages)
def run(ages):
    return float(ages.sum())


@sy.syft_function_single_use(ages=ages)
def approved(ages):
    return float(ages.max())


@sy.syft_function_single_use(ages=ages)
def waiting(ages):
    return float(ages.min())


for code in (run, approved):
    her.code.request_code_execution(code)
    next(one for one in root.requests if one.status.name == "PENDING").approve()
her.code.request_code_execution(waiting)
job = her.code.run(ages=ages, blocking=False)
seen = {
    "result": job.wait(timeout=60).get(),
    "job": str(job.id),
    "id": str(root.id),
}
print(json.dumps(seen))
