"""Reports the current step of a resource's provider to the user who deploys.

Providers run in a process of the engine and can return only their result. A caller that wants more sets
`GRIDUP_PROGRESS` to the path of a file. Each step appends a line of JSON to that file. Plain Pulumi does not
set the variable, so nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import os

VARIABLE = "GRIDUP_PROGRESS"


def report(resource: str, text: str) -> None:
    """Report the current step for `resource` (its name in the program). Never fails."""
    path = os.environ.get(VARIABLE)
    if path and text:
        line = json.dumps({"resource": resource, "text": text}) + "\n"
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(fd, line.encode())
            finally:
                os.close(fd)
