"""gridup ssh: log in to a node, or run a command on it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gridup.commands import parsing
from gridup.commands.options import NameOption, StackOption, complete_names, meant
from gridup.session import Session
from gridup_infra import openssh
from gridup_infra.errors import SetupError
from gridup_infra.processes import run_interactive, which
from gridup_infra.targets.base import SshAccess

EPILOG = """\b
Examples:
  gridup ssh Inst
  gridup ssh Inst -- df -h
  gridup ssh Inst -- 'cd /tmp; ls | wc -l'     one word: the node's shell reads it
  gridup ssh --name Inst -- sh -c 'exit 7'     exits with 7

The node's own key and host key are used; your ~/.ssh is neither read nor written. A node
on this machine that has no sshd is entered by a shell in its folder and environment."""

CONTEXT = {"allow_interspersed_args": False, "ignore_unknown_options": True}


class Command(parsing.Command):
    """Restores a `--` that the parser removes if no name precedes it: the next word is then not a name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        dashes = args.count("--")
        rest = super().parse_args(ctx, args)
        words = list(ctx.params.get("words") or ())
        if words.count("--") < dashes:
            ctx.params["words"] = ["--", *words]
        return rest


def main(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME] [-- COMMAND...]",
            help="The node, and what to run on it.",
            autocompletion=complete_names,
        ),
    ] = None,
    name: NameOption = None,
    stack: StackOption = None,
) -> None:
    """Log in to a node, or run a command on it."""
    session = Session.of(context)
    argument, command = split(words or [], named=name is not None or stack is not None)
    outputs, target = session.reached(session.find(meant(argument, name, stack)))
    session.check_answers(outputs, target)
    access = target.access(outputs)
    if (shell := access.shell()) is not None:
        session.check_running(outputs, target)
        words = [shell.program, *(["-c", remote(command)] if command else [])]
        raise typer.Exit(run_interactive(words, env=shell.environment, cwd=shell.folder))
    account = access.ssh()
    client = which("ssh")
    if client is None:
        raise SetupError("There is no `ssh` on this machine.", "Install OpenSSH's client.")
    code = run_interactive([client, *client_words(account, command)], env=dict(os.environ))
    if code == openssh.UNREACHED:
        session.check_running(outputs, target)
    raise typer.Exit(code)


def split(words: Sequence[str], *, named: bool) -> tuple[str | None, list[str]]:
    """Split the words into the node's name, if there is one, and the command after the name or `--`."""
    rest = list(words)
    argument = None
    if not named and rest and rest[0] != "--":
        argument = rest.pop(0)
    if rest and rest[0] == "--":
        rest.pop(0)
    return argument, rest


def client_words(access: SshAccess, command: Sequence[str]) -> list[str]:
    """Return the arguments for OpenSSH: only the node's key and host key, none of the user's own files."""
    options = {
        "IdentityFile": _path(access.key),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": _path(access.known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "PasswordAuthentication": "no",
        "ConnectTimeout": "10",
        "LogLevel": "ERROR",
    }
    if access.way:
        options["ProxyCommand"] = shlex.join(access.way).replace("%", "%%")
    words = ["-F", "/dev/null", "-p", str(access.port)]
    for key, value in options.items():
        words += ["-o", f"{key}={value}"]
    words += ["-l", access.user, access.host]
    if not command:
        return words
    return [*words, "--", remote(command)]


def remote(command: Sequence[str]) -> str:
    """Return the one string that the node's shell gets.

    A single word is that string, as with ssh. Several words are quoted, so that each arrives unchanged.
    """
    return command[0] if len(command) == 1 else shlex.join(command)


def _path(path: Path) -> str:
    """Quote a path for ssh_config: ssh parses the value again, and `%` begins a token."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'
