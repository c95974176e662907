"""In the place of a node's api: how long a job takes in the sandbox alone, in milliseconds."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from gridup_node.sandbox import client


class Nobody:
    def printed(self, text):
        pass

    def asked(self, what, args, kwargs):
        raise client.Refused("nothing")


os.chdir(sys.argv[1])
table = pd.DataFrame({"x": np.arange(1000.0)})
WORK = {
    "nothing": ("return 1", None),
    "array": ("return float(x.sum())", np.arange(1000.0)),
    "table": ("return float(x['x'].mean())", table),
    "100 MB": ("return float(x.sum())", np.arange(12_500_000.0)),
}
seen = {}
for name, (body, value) in WORK.items():
    request = client.Request(f"def f(x):\n    {body}\n", "f", {"x": value})
    for at in range(int(sys.argv[2]) + 1):
        began = time.perf_counter()
        client.run(Path("jobs"), request, Nobody(), seconds=60)
        # The first one loads what all others share.
        if at:
            seen.setdefault(name, []).append((time.perf_counter() - began) * 1000)
print(json.dumps(seen))
