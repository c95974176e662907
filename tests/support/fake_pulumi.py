"""A `pulumi` that only reads, and names stacks as the real one does: in a self-managed backend, and on Pulumi
Cloud.

https://www.pulumi.com/docs/iac/concepts/stacks/ says how, and the engine's own `backend/diy` and
`backend/httpstate`. `tests/contract/test_reading.py` runs one suite against it and the real one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = """#!{python} -S
import json, os, pathlib, sys, time

folder = pathlib.Path({folder!r})
words = [word for word in sys.argv[1:] if word != "--non-interactive"]
with open(folder / "calls", "a") as calls:
    calls.write(json.dumps(words) + "\\n")
told = json.loads((folder / "stacks.json").read_text())
default = told["cloud"] and os.environ.get("PULUMI_DEFAULT_ORGANIZATION") or told["account"]
file = pathlib.Path("Pulumi.yaml")
project = file.read_text().split("name: ")[1].split()[0] if file.exists() else ""


def fail(text):
    sys.exit("error: " + text)


def option(name):
    return words[words.index(name) + 1] if name in words else ""


def found(stack):
    parts = stack.split("/")
    if len(parts) < 3 and not project:
        fail("no Pulumi.yaml project file found")
    owner = parts[0] if len(parts) > 1 else default
    if not told["cloud"] and owner != "organization":
        fail("organization name must be 'organization'")
    whole = "/".join([owner, parts[1] if len(parts) == 3 else project, parts[-1]])
    if whole not in told["stacks"]:
        fail(f"no stack named '{{stack}}' found")
    return told["stacks"][whole]


def shown(whole):
    owner, its, name = whole.split("/")
    if its != project:
        return whole
    return name if owner == default else f"{{owner}}/{{name}}"


assert words[0] == "stack", words
if words[1] == "ls":
    wanted = option("--project") or project
    rows = [whole for whole in told["stacks"] if whole.split("/")[1] == wanted]
    print(json.dumps([{{"name": shown(whole), "current": False}} for whole in rows]))
elif words[1] == "export":
    held = found(option("--stack"))
    (folder / f"reading-{{os.getpid()}}").touch()
    while len(list(folder.glob("reading-*"))) < told["together"]:
        time.sleep(0.01)
    print(json.dumps({{"version": 3, "deployment": held}}))
elif words[1] == "output":
    outputs = found(option("--stack"))["resources"][0]["outputs"]
    print(json.dumps(outputs))
else:
    fail("unknown command " + words[1])
"""


@dataclass
class FakePulumi:
    """One, in a folder of its own.

    Attributes:
        root: the engine's folder, as set-up would find it.
        account: whose name is the default organization; `organization` in a self-managed backend.
    """

    root: Path
    account: str = "organization"

    def hold(self, stacks: Mapping[str, Mapping[str, Any]], together: int = 0) -> None:
        """Have it hold stacks.

        Args:
            stacks: deployments by `organization/project/stack`.
            together: an export answers only once so many have begun.
        """
        told = {
            "account": self.account,
            "cloud": self.account != "organization",
            "stacks": dict(stacks),
            "together": together,
        }
        program = self.root / "bin" / "pulumi"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(PROGRAM.format(python=sys.executable, folder=str(self.root)))
        program.chmod(0o755)
        (self.root / "stacks.json").write_text(json.dumps(told))
        (self.root / "calls").write_text("")

    @property
    def calls(self) -> list[list[str]]:
        """What each of its processes was asked."""
        return [json.loads(line) for line in (self.root / "calls").read_text().splitlines()]
