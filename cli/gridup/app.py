"""The Typer app: global options and the list of commands. A command's module is imported when it runs."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import typer

from gridup_infra import __version__
from gridup_infra.errors import StoppedError, UsageError

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
    "rotate": "Replace every secret of a node: passwords, tokens, keys and certificates.",
    "refresh": "Look at what is really there and take it into the state.",
    "destroy": "Destroy a node.",
    "doctor": "Check what this machine has for running Gridup.",
    "prune": "Remove node environments and images that no node uses.",
    "env": "Print what plain `pulumi` needs to work on a node.",
    "launch": "The words of HAGrid: launch NAME to docker:80.",
    "land": "The words of HAGrid: land NAME.",
    "version": "Show the versions of Gridup, the engine and syft.",
}
"""Every command and its line of help, in the order of `gridup --help`. Its module has the same name."""

EPILOG = """\b
Examples:
  gridup deploy --name "Inst"      a whole node on this machine
  gridup check Inst --wait         wait until every endpoint answers
  gridup outputs Inst --show-secrets
  gridup destroy Inst

\b
Exit codes: 0 ok, 1 error, 2 usage, 3 credentials, 4 a resource failed,
6 no such deployment, 7 not offered, 8 cancelled, 9 timeout, 10 unhealthy,
130 Ctrl-C."""

HELP_WORDS = ["-h", "--help"]

HELP = "Deploy PySyft domain nodes and keep them right."


def build(argv: Sequence[str]) -> Callable[..., Any]:
    """Build the app for this command line. Only the module of the command that it names is imported."""
    from gridup.commands.parsing import Command

    app = typer.Typer(
        help=HELP,
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": HELP_WORDS, "auto_envvar_prefix": "GRIDUP"},
    )
    app.callback()(_globals)
    if len(argv) == 2 and argv[0] in SHELL_OPTIONS:
        return functools.partial(_completion, *argv)
    wanted = next((word for word in argv if not word.startswith("-")), "")
    if wanted and wanted not in COMMANDS:
        raise UsageError(f'There is no command "{wanted}".', f"{_near(wanted)}`gridup --help` lists all.")
    completing = any(name.endswith("_COMPLETE") and name.startswith("_GRIDUP") for name in os.environ)
    for name, text in COMMANDS.items():
        if completing or name == wanted:
            module = importlib.import_module(f"gridup.commands.{name}")
            settings = getattr(module, "CONTEXT", None)
            epilog = getattr(module, "EPILOG", None)
            kind = getattr(module, "Command", Command)
            register = app.command(name, cls=kind, epilog=epilog, context_settings=settings)
            register(_interruptible(module.main))
        else:
            app.command(name, help=text)(_named)
    made = typer.main.get_command(app)
    commands: dict[str, Any] = getattr(made, "commands", {})
    shown = typer.Context(made, help_option_names=HELP_WORDS)
    helps = [command.get_help_option(shown) for command in (made, *commands.values())]
    for switch in (*made.params, *filter(None, helps)):
        # Many CI jobs set GRIDUP_VERSION to a version number. It must not switch on `--version`.
        switch.allow_from_autoenv = False
    for name, command in commands.items():
        for parameter in command.params:
            if parameter.param_type_name == "argument" or parameter.name in SAID:
                parameter.allow_from_autoenv = False
                continue
            for other in LIKE.get(name, ()):
                # If the other command has no such option, nobody sets this variable: it does no harm.
                parameter.envvar = parameter.envvar or f"GRIDUP_{other}_{parameter.name}".upper()
            # Every other option has a variable too, such as GRIDUP_DEPLOY_PORT. Help shows only variables
            # that are set explicitly.
            parameter.show_envvar = bool(getattr(parameter, "envvar", None))
    return made


SAID = ("yes", "force", "name", "stack")
"""Options that only the command line may set: they choose the node or confirm an action. A variable or
config.yaml would set them unseen."""


OTHERS = {
    "help": "--help",
    "list": "status",
    "ls": "status",
    "ps": "status",
    "rm": "destroy",
    "delete": "destroy",
    "remove": "destroy",
    "up": "deploy",
    "create": "deploy",
    "update": "deploy",
    "down": "destroy",
    "plan": "preview",
    "exec": "ssh",
    "shell": "ssh",
    "login": "ssh",
    "connect": "ssh",
    "kill": "stop",
    "pause": "stop",
    "resume": "start",
    "install": "deploy",
    "uninstall": "destroy",
    "info": "outputs",
    "show": "outputs",
}
"""Names of commands in other tools -> the name of Gridup's command."""

SEVERAL = {
    "restart": "`gridup stop` and `gridup start` do it.",
    "reboot": "`gridup ssh NAME -- sudo reboot` restarts a machine, `gridup stop` and `gridup start` a node.",
    "upgrade": "`gridup deploy` does it: `--tag` for another syft, `--rebuild` for the newest packages.",
}
"""Commands of other tools that need several commands or options in Gridup -> the hint."""


def _nearest(word: str, known: Iterable[str]) -> str:
    """Return the word of `known` that is most similar to `word`; empty if none is similar."""
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")


def _near(word: str) -> str:
    if word in SEVERAL:
        return f"{SEVERAL[word]} "
    near = OTHERS.get(word) or _nearest(word, COMMANDS)
    return f"Did you mean `gridup {near}`? " if near else ""


SHELLS = ("bash", "zsh", "fish")
SHELL_OPTIONS = ("--show-completion", "--install-completion")
"""Typer's options. Typer uses the shell that runs the command; Gridup also accepts the name of a shell."""


def _completion(option: str, shell: str, **_context: Any) -> None:
    # These functions are private in Typer: its own two options call them.
    from typer._completion_shared import get_completion_script, install_bash, install_fish, install_zsh

    if shell not in SHELLS:
        raise UsageError(f"{option}: the shell is one of {', '.join(SHELLS)}.")
    if option == "--show-completion":
        typer.echo(get_completion_script(prog_name="gridup", complete_var="_GRIDUP_COMPLETE", shell=shell))
    else:
        install = {"bash": install_bash, "zsh": install_zsh, "fish": install_fish}[shell]
        path = install(prog_name="gridup", complete_var="_GRIDUP_COMPLETE", shell=shell)
        typer.echo(f"Completion for {shell} is in {path}; it works in new shells.")


def _named() -> None:
    """Placeholder for a command that this command line does not name. Help shows only its line."""


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
    from gridup.ui import Ui

    ctx.obj = Ui(quiet=quiet, verbose=verbose)
    ctx.default_map = _defaults(ctx)


def _defaults(ctx: typer.Context) -> dict[str, Any]:
    """Return the defaults in config.yaml for the command that runs, keyed by Typer's parameter names.

    Raises:
        UsageError: config.yaml has an unknown command, an unknown option, an invalid value, or an option that
            only the command line may set.
    """
    from gridup.settings import CONFIG, file_defaults
    from gridup_infra.paths import Home

    home = Home.default()
    found = file_defaults(home)
    file = home.root / CONFIG
    for command in found:
        if command not in COMMANDS:
            raise UsageError(f'{file}: there is no command "{command}".', _did_you_mean(command, COMMANDS))
    wanted = ctx.invoked_subcommand or ""
    if wanted not in found and not set(LIKE.get(wanted, ())) & found.keys():
        return {}
    parameters = getattr(ctx.command, "commands", {})[wanted].params
    named = {word.lstrip("-").replace("-", "_"): item for item in parameters for word in item.opts}
    made = {}
    for section in (*LIKE.get(wanted, ()), wanted):
        for key, value in found.get(section, {}).items():
            item = named.get(key) or next((one for one in parameters if one.name == key), None)
            if item is not None:
                if item.param_type_name == "argument" or item.name in SAID:
                    raise UsageError(f"{file}: {section}: {key}: only the command line says this.")
                try:
                    item.type_cast_value(ctx, value)
                except typer.BadParameter as error:
                    raise UsageError(f"{file}: {section}: {key}: {error.message}") from None
                made[item.name] = value
            elif section == wanted:
                hint = _did_you_mean(key, named)
                raise UsageError(f'{file}: {section} has no option "{key}".', hint)
    return {wanted: made}


LIKE = {"preview": ("deploy",)}
"""Commands that also use the defaults of other commands: a preview must show what `deploy` would do."""


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = _nearest(word, known)
    return f"Did you mean {near}?" if near else "`gridup COMMAND --help` lists the options."


def _interruptible(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn Ctrl-C into a StoppedError, which has its own exit code, before Typer handles Ctrl-C."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            raise StoppedError("Stopped.") from None

    return run
