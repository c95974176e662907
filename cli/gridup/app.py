"""The Typer app: globals and registration only. A command's module is imported when it is run."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from gridup_infra import __version__
from gridup_infra.errors import InterruptedError_

COMMANDS: dict[str, str] = {
    "deploy": "Make a node, or bring one to what is asked; safe to repeat.",
    "preview": "Show what deploy would do, and do nothing.",
    "status": "Show every node: does it run, is it right?",
    "check": "Prove each endpoint of a node, or of any HOST[:PORT].",
    "ssh": "Log in to a node, or run a command on it.",
    "logs": "Show what a node's services log.",
    "outputs": "Show where a node is and, if asked, its secrets.",
    "open": "Open a node's UI in the browser.",
    "start": "Start a stopped node.",
    "stop": "Stop a node; its data stays.",
    "refresh": "Look at what is really there and take it into the state.",
    "destroy": "Take a node away.",
    "doctor": "Check what this machine has for running Gridup.",
    "prune": "Remove node environments and images that no node uses.",
    "env": "Print what plain `pulumi` needs to work on a node.",
    "launch": "The words of HAGrid: launch NAME to docker:80.",
    "land": "The words of HAGrid: land NAME.",
    "version": "Show the versions of Gridup, the engine and syft.",
}
"""Every command with its line of help, in the order of `gridup --help`; the module has the same name."""

EPILOG = """\b
Examples:
  gridup deploy --name "Inst"      a whole node on this machine
  gridup check Inst --wait         wait until every endpoint answers
  gridup outputs Inst --show-secrets
  gridup destroy Inst

\b
Exit codes: 0 ok, 1 error, 2 usage, 3 credentials, 4 a resource failed,
6 no such deployment, 8 cancelled, 9 timeout, 10 unhealthy, 130 Ctrl-C."""

HELP = "Deploy PySyft domain nodes and keep them right."


def build(argv: Sequence[str]) -> Callable[..., Any]:
    """The app for this command line: only the command that it names is really loaded."""
    app = typer.Typer(
        help=HELP,
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "GRIDUP"},
    )
    app.callback()(_globals)
    wanted = next((word for word in argv if not word.startswith("-")), "")
    completing = any(name.endswith("_COMPLETE") and name.startswith("_GRIDUP") for name in os.environ)
    for name, text in COMMANDS.items():
        if completing or name == wanted:
            module = importlib.import_module(f"gridup.commands.{name}")
            settings = getattr(module, "CONTEXT", None)
            epilog = getattr(module, "EPILOG", None)
            kind = getattr(module, "Command", None)
            register = app.command(name, cls=kind, epilog=epilog, context_settings=settings)
            register(_interruptible(module.main))
        else:
            app.command(name, help=text)(_named)
    made = typer.main.get_command(app)
    for command in getattr(made, "commands", {}).values():
        for parameter in command.params:
            # Every option has its variable, GRIDUP_DEPLOY_PORT and so on; help names only the special ones.
            parameter.show_envvar = bool(getattr(parameter, "envvar", None))
    return made


def _named() -> None:
    """Stands for a command that this command line does not name; help shows its line."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gridup {__version__}")
        raise typer.Exit


def _globals(
    ctx: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show more of the progress.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", help="Show Gridup's version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    from gridup.settings import file_defaults
    from gridup.ui import Ui
    from gridup_infra.paths import Home

    ctx.obj = Ui(quiet=quiet, verbose=verbose)
    ctx.default_map = file_defaults(Home.default())


def _interruptible(command: Callable[..., Any]) -> Callable[..., Any]:
    """Ctrl-C is an error of ours, with its own exit code, before Typer makes it another."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            raise InterruptedError_("Stopped.") from None

    return run
