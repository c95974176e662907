"""With the real client: a data scientist's code that may not do what it does; prints what they are told."""

import contextlib
import json
import sys
import threading

import numpy as np
import pandas as pd
import syft as sy

told = json.loads(sys.stdin.read())
seen = {}
root = sy.login(url=told["url"], email=told["email"], password=told["password"])
frame = pd.DataFrame({"age": [30, 40, 50], "name": ["a", "b", "c"]})
asset = sy.Asset(name="people", data=frame, mock=frame.head(1))
numbers = sy.Asset(name="numbers", data=np.arange(6.0), mock=np.zeros(6))
root.upload_dataset(sy.Dataset(name="People", asset_list=[asset, numbers]))
root.users.create(email=told["her"], name="Ada", password=told["hers"], password_verify=told["hers"])
root.users.create(
    email=told["owner"], name="Owen", password=told["hers"], password_verify=told["hers"], role="data_owner"
)
owner = sy.login(url=told["url"], email=told["owner"], password=told["hers"])
her = sy.login(url=told["url"], email=told["her"], password=told["hers"])
people, numbers = her.datasets["People"].assets["people"], her.datasets["People"].assets["numbers"]


def approved(function):
    her.code.request_code_execution(function)
    next(one for one in root.requests if one.status.name == "PENDING").approve()
    return getattr(her.code, function.func_name)


def message(what):
    """What a call says that has no result."""
    try:
        return str(getattr(what(), "message", "no error"))
    except Exception as error:  # noqa: BLE001 - however the client says no
        return str(error)


@sy.syft_function_single_use(people=people, numbers=numbers)
def report(people, numbers):
    print("rows:", len(people))
    by_name = people.set_index("name")["age"]
    return {
        "mean": by_name.mean(),
        "table": people.describe(),
        "sum": numbers.sum(),
        "none": None,
        "t": (1, "é"),
    }


job = approved(report)(people=people, numbers=numbers, blocking=False)
found = job.wait(timeout=300).get()
seen["result"] = [
    found["mean"],
    found["table"].loc["max", "age"],
    float(found["sum"]),
    found["none"],
    found["t"],
]
seen["printed"] = her.jobs[0].logs(_print=False)


@sy.syft_function_single_use(people=people)
def reads_secret(people):
    print("looking")
    return open(f"{told}/secrets/server_key").read()


code = reads_secret
code.code = code.code.replace("{told}", told["home"])
call = approved(code)
job = call(people=people, blocking=False)
failed = job.wait(timeout=300)
mine = next(one for one in her.jobs if one.id == job.id)
theirs = next(one for one in owner.jobs if one.id == job.id) if told.get("owner") else None
seen["her error"], seen["her log"] = str(mine.result), mine.logs(_print=False)
seen["owner error"] = str(theirs.result)
with contextlib.suppress(Exception):
    seen["owner log"] = theirs.logs(_print=False)
seen["at once"] = message(lambda: call(people=people))


@sy.syft_function_single_use(people=people)
def connects(people):
    import urllib.request

    return urllib.request.urlopen("http://169.254.169.254/").read()


seen["connects"] = message(lambda: approved(connects)(people=people))


@sy.syft_function_single_use(people=people)
def hungry(people):
    kept = []
    while True:
        kept.append(bytearray(5_000_000))


@sy.syft_function_single_use(people=people)
def endless(people):
    while True:
        pass


@sy.syft_function_single_use(people=people)
def raises(people):
    raise ValueError(people.to_csv())


@sy.syft_function_single_use(people=people)
def evil(people):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    return Evil()


seen["raises"] = message(lambda: approved(raises)(people=people))
seen["evil"] = message(lambda: approved(evil)(people=people))
calls = {"hungry": approved(hungry), "endless": approved(endless)}
waiting = [
    threading.Thread(
        target=lambda name=name: seen.update({name: message(lambda: calls[name](people=people))})
    )
    for name in calls
]
for one in waiting:
    one.start()
# Meanwhile the node answers.
seen["answered"] = 0
while any(one.is_alive() for one in waiting):
    for one in waiting:
        one.join(timeout=0.5)
    assert len(root.datasets.get_all()) == 1
    seen["answered"] += any(one.is_alive() for one in waiting)
print(json.dumps(seen))
