"""`python -m gridup_node.health [SERVICE]`: check whether a program of this node works.

The check runs next to the program, in its own container, so it covers that program alone. `gridup check`
covers the path from the users to the program. Exit code 0 if the program works; else 1 and one line that says
why. For the sandbox exit code 0 comes with one line too: the mechanisms that confine jobs.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from gridup_node.facts import HOME_VARIABLE
from gridup_node.services import PORTAL_MARK, PROBLEM, ProbeKind, Service, served, service

SERVICE = "GRIDUP_SERVICE"
"""The variable with the name of this container's program."""

SECONDS = 8.0
LARGEST = 256 * 1024
"""The most bytes of an answer that are read."""


def problem(program: Service, host: str = "127.0.0.1") -> str:
    """Return what is wrong with a program, in one line; empty if all services that it serves pass."""
    for row in served(program) or (program,):
        try:
            found = PROOFS[row.proof](host, program.port, row)
        except (OSError, http.client.HTTPException) as error:
            # An answer that is not HTTP is in the error unchanged, so make it one line.
            found = " ".join(str(error).split()) or type(error).__name__
        if found:
            return f"{row.name}: {found}"
    return ""


def _listens(host: str, port: int, _row: Service) -> str:
    socket.create_connection((host, port), timeout=SECONDS).close()
    return ""


def _get(host: str, port: int, path: str) -> tuple[int, bytes]:
    # Don't use `urllib`: it would send the request through the proxy in HTTP_PROXY.
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(LARGEST)
    finally:
        connection.close()


def _json_with(key: str) -> Callable[[str, int, Service], str]:
    def prove(host: str, port: int, row: Service) -> str:
        status, body = _get(host, port, row.proof_path)
        with contextlib.suppress(ValueError, AttributeError):
            told = json.loads(body)
            if status == 200 and told.get(key):
                return ""
            if found := told.get(PROBLEM):
                return str(found)
        return f"answered {status} without a {key}"

    return prove


def _login_page(host: str, port: int, row: Service) -> str:
    status, body = _get(host, port, row.proof_path)
    return "" if status == 200 and PORTAL_MARK.encode() in body else f"answered {status}, not the login page"


def _ssh_banner(host: str, port: int, _row: Service) -> str:
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        return "" if connection.recv(64).startswith(b"SSH-2.0-") else "no ssh banner"


def _sandbox(_host: str, _port: int, _row: Service) -> str:
    return "" if _means() else "it does not say what it keeps jobs in with"


def _means() -> list[str]:
    # Import here: the deployer imports this module too and does not need these.
    from gridup_node.sandbox.client import look
    from gridup_node.sandbox.frames import FOLDER

    home = os.environ.get(HOME_VARIABLE)
    if home:
        # Relative to this folder the socket's path is short.
        os.chdir(home)
    return [str(one) for one in look(Path(FOLDER)).get("means", ())]


PROOFS: Mapping[ProbeKind | None, Callable[[str, int, Service], str]] = {
    None: _listens,
    # The reverse proxy must pass on its own even while the programs behind it start.
    ProbeKind.ANY: _listens,
    ProbeKind.SYFT_METADATA: _json_with("server_type"),
    ProbeKind.LOGIN_PAGE: _login_page,
    ProbeKind.JUPYTER_API: _json_with("version"),
    ProbeKind.SSH_BANNER: _ssh_banner,
    ProbeKind.SANDBOX: _sandbox,
}


def main(argv: list[str]) -> int:
    """Check one program. Returns the exit code."""
    program = service(argv[0] if argv else os.environ[SERVICE])
    found = problem(program)
    told = found or (", ".join(_means()) if program.proof is ProbeKind.SANDBOX else "")
    if told:
        sys.stdout.write(told + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
