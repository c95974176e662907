"""`python -m gridup_node.launch SERVICE`: exec that service's program.

Supervisor starts this module instead of the program, so that Supervisor's configuration file needs no path of
the node, which would have to be quoted. The only cost is the start of one bare interpreter.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

PRIVILEGE_SEPARATION = Path("/run/sshd")
"""An empty folder that OpenSSH requires if it runs as root. Normally a service manager creates it."""


def main(service: str) -> None:
    home = Path(os.environ["GRIDUP_NODE_HOME"])
    program = json.loads((home / "config" / "programs.json").read_text(encoding="utf-8"))[service]
    argv: list[str] = program["argv"]
    if Path(argv[0]).name == "sshd" and os.geteuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, parents=True, exist_ok=True)
    os.execve(argv[0], argv, {**os.environ, **program["environment"]})  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1])
