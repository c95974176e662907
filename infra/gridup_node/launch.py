"""`python -m gridup_node.launch SERVICE`: become that service's program.

Supervisor starts this instead of the program, so that no path of the node has to survive the
quoting of Supervisor's own file. It costs one bare interpreter's start and then is gone.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

PRIVILEGE_SEPARATION = Path("/run/sshd")
"""Where OpenSSH, run as root, insists on an empty folder; a service manager would make it."""


def main(service: str) -> None:
    home = Path(os.environ["GRIDUP_NODE_HOME"])
    program = json.loads((home / "config" / "programs.json").read_text(encoding="utf-8"))[service]
    argv: list[str] = program["argv"]
    if Path(argv[0]).name == "sshd" and os.geteuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, parents=True, exist_ok=True)
    os.execve(argv[0], argv, {**os.environ, **program["environment"]})  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1])
