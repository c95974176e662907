"""`python -m gridup_node.entrypoint SERVICE`: write this container's configuration, then exec its program.

A container gets its facts in one variable and has no file from the deployer. This module renders its
configuration from the service table in the image. Persistent data are at `GRIDUP_NODE_DATA`, where the
container sees only the folders of the node's data that its program needs.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gridup_node import facts, folders, keys, launch, secrets
from gridup_node.folders import DATA
from gridup_node.render import ACME_ROOT, Context, Tls, render
from gridup_node.sandbox.frames import CONTAINER, SHELL
from gridup_node.services import PROXY, SERVICES, Service, ports, service

FACTS_ENV = "GRIDUP_NODE"
"""The variable with this container's facts, as JSON: see `told`."""

EVERYWHERE = "0.0.0.0"  # noqa: S104 - in the container only; the Docker daemon decides what is published


def told(row: Service, known: Mapping[str, Any]) -> str:
    """Return the facts for the container of `row` as JSON: only those that its program reads. No secrets."""
    return json.dumps({key: known[key] for key in row.facts_read if key in known}, sort_keys=True)


def prepare(home: Path, data: Path, row: Service, known: Mapping[str, Any], table: Sequence[Service]) -> None:
    """Create the node's folder in this container. Every step may be repeated.

    Args:
        home: the node's folder.
        data: the folder of the node's data.
        row: the service that this container runs.
        known: the facts that this container got.
        table: the service table.

    Raises:
        OSError: the volume can't be written, or a key could not be made.
    """
    for name in ("config", "run", "logs"):
        (home / name).mkdir(mode=0o700, exist_ok=True)
    for folder in row.folders:
        (data / folder).mkdir(mode=0o700, exist_ok=True)
        _link(home / folder, data / folder)
    for known_by, place in folders.PLACES.items():
        # If the parent is a link to a folder of the data, the link exists in that folder already.
        if folders.holder(known_by) in row.folders and not (home / known_by).parent.is_symlink():
            _link(home / known_by, data / place)
    own = [name for name in secrets.MAKERS if folders.holder(f"secrets/{name}") in row.folders]
    if own:
        secrets.ensure(home / "secrets", own)
    tools = (
        {row.requires_tool: path} if row.requires_tool and (path := shutil.which(row.requires_tool)) else {}
    )
    if tools:
        keys.ensure(data / "keys", "gridup", known.get("ssh_keys", ()))
    tls = Tls(**known["tls"]) if "tls" in known else None
    context = Context(
        home=str(home),
        bin=str(Path(sys.executable).parent),
        bind=EVERYWHERE,
        ports=ports(table),
        user=pwd.getpwuid(os.getuid()).pw_name,
        tools=tools,
        facts=dict(known),
        separate_hosts=True,
        tls=tls,
    )
    files = render(context, table)
    for name in (*row.files, "node.json", "programs.json"):
        keys.write(home / "config" / name, files[name])
    if tls and tls.acme_ca:
        keys.write(home / "config" / ACME_ROOT, tls.acme_ca)


def _link(path: Path, place: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(place)


def main(name: str) -> None:
    """Prepare this container, then exec the program of the service `name`."""
    os.umask(0o077)
    folder = facts.NodeDir.from_env()
    row = service(name)
    try:
        prepare(
            folder.root, Path(os.environ[DATA]), row, json.loads(os.environ.get(FACTS_ENV, "{}")), SERVICES
        )
    except OSError as error:
        sys.exit(f"gridup_node.entrypoint: {error}")
    os.environ["GRIDUP_LISTEN"] = EVERYWHERE
    os.environ["GRIDUP_PROXY"] = PROXY
    os.environ[SHELL] = CONTAINER
    launch.main(name)


if __name__ == "__main__":
    main(sys.argv[1])
