"""What a resource's provider is doing right now, told to whoever deploys.

Providers run in a process of the engine's and have no way to report but their result. A caller
that wants more names a file in `GRIDUP_PROGRESS`; each step is a line of JSON appended to it.
Under plain Pulumi nobody asks and nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import os

VARIABLE = "GRIDUP_PROGRESS"


def report(resource: str, text: str) -> None:
    """Say what is being done to `resource` (its name in the program). Never fails."""
    path = os.environ.get(VARIABLE)
    if path and text:
        line = json.dumps({"resource": resource, "text": text}) + "\n"
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(fd, line.encode())
            finally:
                os.close(fd)
