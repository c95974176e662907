"""`python -m gridup_node.sandbox`: runs the service in the best isolation layer available.

With the argument `look`: inspects a running service.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from gridup_node.facts import NodeDir
from gridup_node.sandbox import confining, frames, shells
from gridup_node.sandbox.client import look
from gridup_node.sandbox.supervisor import Setting, Supervisor, memory_of_one

MACHINE_SHARE = 0.5
"""The share of the machine's memory that a job may use if nothing else limits it."""


def main(argv: list[str]) -> None:
    """Run the program."""
    os.umask(0o077)
    if argv[:1] == ["inside"]:
        name, socket_folder, temporary, own = argv[1:]
        confining.end_with_parent()
        Path(temporary).mkdir(mode=0o700, exist_ok=True)
        memory = memory_of_one(MACHINE_SHARE)
        setting = Setting(Path(socket_folder), Path(temporary), name, own == "own", memory)
        sys.stderr.write(f"code that was approved runs in: {', '.join(setting.means)}\n")
        Supervisor(setting).serve()
        return
    home = NodeDir.from_env().root
    if argv == ["look"]:
        # A path relative to here is short enough for a socket.
        os.chdir(home)
        sys.stdout.write(json.dumps(look(Path(frames.FOLDER))) + "\n")
        return
    folder = home / frames.FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    folder = folder.resolve()
    shell = shells.choose(folder)
    inside = ["inside", shell.name, shell.folder, shell.temporary, "own" if shell.own else "shared"]
    # Start a new program: jobs are copies of it, so their memory has nothing of this program's environment.
    words = [*shell.argv, sys.executable, "-m", "gridup_node.sandbox", *inside]
    os.execve(words[0], words, shells.environment(os.environ))  # noqa: S606


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"gridup_node.sandbox: {error}")
