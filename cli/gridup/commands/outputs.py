"""gridup outputs: show a node's addresses and, if asked, its secrets."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gridup.commands.options import Json, NameArgument, NameOption, StackOption, meant
from gridup.health import ca_instructions
from gridup.session import Session
from gridup.ui import Ui
from gridup_infra import requirements
from gridup_infra.errors import UsageError
from gridup_infra.outputs import PACKAGES, PEOPLE, NodeOutputs
from gridup_node.services import PROXY

EPILOG = """\b
Examples:
  gridup outputs Inst
  gridup outputs Inst --json
  gridup outputs Inst --show-secrets
  gridup outputs Inst --ca >inst-ca.pem     what clients of its https trust"""

MASKED = "[secret]"


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    stack: StackOption = None,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Read the node's secrets and show them.")
    ] = False,
    ca: Annotated[
        bool, typer.Option("--ca", help="Print the CA (PEM) that vouches for it, and nothing else.")
    ] = False,
    json: Json = False,
) -> None:
    """Show where a node is and, if asked, its secrets."""
    session = Session.of(context, json=json)
    record = session.find(meant(argument, name, stack))
    if ca:
        show_ca(session.ui, record.name, session.outputs(record))
        return
    outputs, target = session.known(record)
    whole = outputs is record.outputs
    data: dict[str, Any] = {
        "name": outputs.spec.name,
        "stack": record.stack,
        "target": outputs.spec.target,
        "type": outputs.spec.node_type,
        "complete": whole,
        "address": outputs.address,
        **target.place(outputs),
        **addresses(outputs),
        **logins(outputs),
        **({"packages": packages(outputs)} if outputs.spec.packages else {}),
        "admin_email": outputs.spec.admin_email,
        "admin_password": MASKED,
        "jupyter_token": MASKED,
        **{f"{row}_not_offered": reason for row, reason in outputs.not_offered.items()},
        **({"ca": outputs.ca} if outputs.ca else {}),
    }
    if show_secrets:
        from gridup.secrets import read_secrets

        outputs, target = session.require_target(record)
        found = read_secrets(target.access(outputs))
        data["admin_password"] = found.admin_password
        data["jupyter_token"] = found.jupyter_token

    def human() -> None:
        width = max(map(len, data))
        for key, value in data.items():
            if key != "ca":
                text = ", ".join(value) if isinstance(value, list) else value
                session.ui.line(f"{key:<{width}}  {text}")
        for line in ca_instructions(outputs):
            session.ui.line(line)
        if not whole:
            session.ui.say(f"{session.unfinished(record)} {record.way_on}")

    session.ui.result(data, human)


def show_ca(ui: Ui, name: str, outputs: NodeOutputs) -> None:
    """Print the node's own CA.

    Raises:
        UsageError: the node has no CA of its own.
    """
    if not outputs.ca:
        why = "a public CA vouches for it" if outputs.tls else "it speaks plain http"
        raise UsageError(f"{name} has no CA of its own: {why}.")
    ui.result({"ca": outputs.ca}, lambda: ui.line(outputs.ca.rstrip("\n")))


def logins(outputs: NodeOutputs) -> dict[str, str]:
    """Return the ssh users that the keys of --ssh-key and --admin-ssh-key log in as, if keys were given."""
    spec, people = outputs.spec, outputs.facts.get(PEOPLE, "")
    found = {}
    if spec.ssh_keys and people:
        found["ssh_user"] = people
    if spec.admin_ssh_keys:
        found["ssh_admin"] = outputs.ssh_user
    return found


def packages(outputs: NodeOutputs) -> list[str]:
    """Return the packages of --packages as `name==version`.

    A package whose version depends on the node's Python appears with each version.
    """
    return requirements.chosen(outputs.spec.packages, outputs.facts.get(PACKAGES, "").split())


def addresses(outputs: NodeOutputs) -> dict[str, str]:
    """Return `ui_url`, `api_url`, `ssh_address`… for every service that the node offers."""
    return {
        f"{row}_url" if "://" in endpoint.url else f"{row}_address": endpoint.url
        for row, endpoint in outputs.endpoints().items()
        if row != PROXY and not endpoint.reason
    }
