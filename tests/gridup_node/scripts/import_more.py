"""With the real client: approved code that imports what the data owner has added; prints its version."""

import json
import sys

import numpy as np
import syft as sy

told = json.loads(sys.stdin.read())
root = sy.login(url=told["url"], email=told["email"], password=told["password"])
asset = sy.Asset(name="numbers", data=np.arange(6.0), mock=np.zeros(6))
root.upload_dataset(sy.Dataset(name="Numbers", asset_list=[asset]))
root.users.create(email=told["her"], name="Ada", password=told["hers"], password_verify=told["hers"])
her = sy.login(url=told["url"], email=told["her"], password=told["hers"])
numbers = her.datasets["Numbers"].assets["numbers"]


@sy.syft_function_single_use(numbers=numbers)
def version(numbers):
    import tinysum

    return tinysum.VERSION


her.code.request_code_execution(version)
next(one for one in root.requests if one.status.name == "PENDING").approve()
print(json.dumps(her.code.version(numbers=numbers).get()))
