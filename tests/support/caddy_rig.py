"""A node's real reverse proxy, as the service table renders it, before whatever is in the api's place."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from gridup_infra.processes import wait_until
from gridup_node.render import Context, render
from gridup_node.services import PROXY, ports
from support.workers import free_port


@contextlib.contextmanager
def before(home: Path, environment: Path, max_upload: int) -> Iterator[int]:
    """A running Caddy, as long as the block lasts; its port.

    Args:
        home: the node's folder, with the socket in it of what it passes calls on to.
        environment: the node's, in which Caddy is.
        max_upload: of one call, in bytes.
    """
    port = free_port()
    context = Context(
        home=str(home),
        bin=str(environment / "bin"),
        bind="127.0.0.1",
        ports={**ports(), PROXY: port},
        facts={"max_upload": max_upload},
    )
    files = render(context)
    (home / "config" / "Caddyfile").write_text(files["Caddyfile"])
    program = json.loads(files["programs.json"])[PROXY]
    process = subprocess.Popen(
        program["argv"],
        env={"PATH": os.defpath, "HOME": str(home), **program["environment"]},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # As the supervisor runs it.
        cwd=home,
    )

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
        return False

    try:
        assert wait_until(listens, timeout=120)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=120)
