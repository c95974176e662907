"""gridup env: print the environment that plain `pulumi` needs to work on a node."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import typer

from gridup.commands.options import Json, NameArgument, NameOption, StackOption, meant
from gridup.session import Session

EPILOG = """\b
Examples:
  eval "$(gridup env Inst)"; pulumi -C "$GRIDUP_PROJECT" destroy -s inst --yes
  gridup env Inst --json

GRIDUP_PROJECT is a folder with what `pulumi` needs; a clone of this repository is one
as well. No secret is printed: the passphrase stays in its file."""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    stack: StackOption = None,
    json: Json = False,
) -> None:
    """Print what plain `pulumi` needs to work on a node."""
    session = Session.of(context, json=json)
    record = session.find(meant(argument, name, stack))
    if record.target:
        # Plain `pulumi` runs the target's providers in this Python environment. They need the target's SDK.
        session.target(record.target)
    with session.ui.progress() as reporter:
        engine = session.engine(reporter)
        if engine.unlock(record.stack):
            reporter.note(f"The lock of a killed run on {record.name} was removed.")
        binary = session.binary(reporter)
    settings = session.settings
    made = settings.pulumi_environment()
    made["PULUMI_OPTION_CONFIG_FILE"] = str(settings.stack_file(record.stack))
    leading = [str(Path(sys.executable).parent), str(Path(binary.root) / "bin")]
    made["GRIDUP_PROJECT"] = str(settings.ensure_project())
    made["PATH"] = os.pathsep.join([*leading, settings.environment.get("PATH", os.defpath)])

    def human() -> None:
        for key, value in made.items():
            # Extend the PATH that the shell has when it runs this line.
            text = "".join(f"{shlex.quote(path)}{os.pathsep}" for path in leading) + '"$PATH"'
            session.ui.line(f"export {key}={text if key == 'PATH' else shlex.quote(value)}")

    session.ui.result(made, human)
