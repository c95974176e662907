"""`python -m gridup_node.admin COMMAND`: administration commands that the deployer runs on a node.

    secrets         prints the administrator's account and Jupyter's token as JSON
    set-password    reads {"password": ...} on stdin and sets it as the administrator's password

A failure prints one line on stderr and returns exit code 1. argv and messages never contain a secret.
"""

from __future__ import annotations

import fcntl
import gc
import http.client
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from gridup_node import facts, own_api, secrets

START_SECONDS = 60.0
"""How long the API of a starting node may take to answer."""
CALL_SECONDS = 30.0


class AdminError(Exception):
    """The command failed; the message is one line, without secrets."""


def main(argv: list[str], stdin: IO[str], stdout: IO[str], stderr: IO[str]) -> int:
    """Run one command. Returns the exit code."""
    try:
        folder = facts.NodeDir.from_env()
        node = facts.load(folder.facts)
        if argv == ["secrets"]:
            stdout.write(json.dumps(show(folder, node)) + "\n")
        elif argv == ["set-password"]:
            stderr.write(set_password(folder, node, _wanted(stdin)) + "\n")
        else:
            raise AdminError("the commands are: secrets, set-password")
    except (AdminError, facts.FactsError, OSError) as error:
        stderr.write(f"gridup_node.admin: {error}\n")
        return 1
    return 0


def show(folder: facts.NodeDir, node: facts.Facts) -> dict[str, str]:
    """Return the credentials of the node: the administrator's account and Jupyter's token.

    Raises:
        AdminError: the node has not created its secrets yet.
    """
    try:
        return {
            "admin_email": node.admin_email,
            "admin_password": secrets.read(folder.secrets, secrets.ADMIN_PASSWORD),
            "jupyter_token": secrets.read(folder.secrets, secrets.JUPYTER_TOKEN),
        }
    except FileNotFoundError:
        raise AdminError("the node has no secrets yet: it makes them at its first start") from None


def set_password(folder: facts.NodeDir, node: facts.Facts, password: str) -> str:
    """Set the administrator's password, in syft and then in the node's secrets. Returns a message.

    The file is written last. So if the file already has this password, nothing is left to do, and the next
    run completes an interrupted one. A node that has never started takes its first password from the file.

    Raises:
        AdminError: the node does not answer, or refuses the password.
    """
    secrets.ensure(folder.secrets)
    with exclusive(folder):
        if secrets.read(folder.secrets, secrets.ADMIN_PASSWORD) == password:
            return "the administrator already has this password"
        if folder.database.exists():
            _change(folder, node, password)
        secrets.replace(folder.secrets, secrets.ADMIN_PASSWORD, password)
    return "the administrator's password is set"


def _change(folder: facts.NodeDir, node: facts.Facts, password: str) -> None:
    wait_for(folder, node, START_SECONDS)
    # Importing syft takes seconds, so import it only after the node has answered.
    from gridup_node.account import Account, Refused

    server, key = _remote(folder, node)
    # The server's own key belongs to the administrator. It works with any current password.
    root = Account(server, key)
    try:
        from syft.service.user.user import UserUpdate

        me = root.call("user.get_current_user")
        root.call("user.update", uid=me.id, user_update=UserUpdate(password=password))
    except Refused as error:
        raise AdminError(f"the node refused the new password: {_one_line(str(error))}") from None


def wait_for(folder: facts.NodeDir, node: facts.Facts, seconds: float) -> None:
    """Wait until the node's API answers.

    Raises:
        AdminError: the API does not answer within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        connection = own_api.connection(folder, node, 5)
        try:
            connection.request("GET", "/api/v2/metadata")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        if time.monotonic() > deadline:
            raise AdminError(f"the node's api does not answer on {own_api.where(node)}: is it running?")
        time.sleep(0.2)


@dataclass(frozen=True)
class _Remote:
    """syft's server of this node in another process, with the interface that `Account` calls."""

    id: Any
    folder: facts.NodeDir
    node: facts.Facts

    def handle_api_call_with_unsigned_result(self, call: Any) -> Any:
        """Send a signed call and return the answer's content.

        Raises:
            AdminError: the connection fails, or the status of the answer is not 200.
        """
        from syft.serde.deserialize import _deserialize
        from syft.serde.serialize import _serialize

        # Don't use `requests`: it would send the call through the proxy in HTTP_PROXY.
        connection = own_api.connection(self.folder, self.node, CALL_SECONDS)
        try:
            connection.request("POST", "/api/v2/api_call", body=_serialize(call, to_bytes=True))
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise AdminError(f"the node's api broke off: {_one_line(str(error))}") from None
        finally:
            connection.close()
        if answer.status != 200:
            raise AdminError(f"the node's api answered {answer.status}")
        return _deserialize(body, from_bytes=True).message.data


def _remote(folder: facts.NodeDir, node: facts.Facts) -> tuple[_Remote, Any]:
    from syft.server.credentials import SyftSigningKey
    from syft.types.uid import UID

    uid = UID.from_string(secrets.read(folder.secrets, secrets.SERVER_UID))
    key = SyftSigningKey.from_string(secrets.read(folder.secrets, secrets.SERVER_KEY))
    return _Remote(uid, folder, node), key


@contextmanager
def exclusive(folder: facts.NodeDir) -> Iterator[None]:
    """Allow one change at a time, so that syft and the file end with the same password."""
    folder.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder.run / "admin.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wanted(stdin: IO[str]) -> str:
    try:
        password = json.loads(stdin.read())["password"]
    except (ValueError, KeyError, TypeError):
        raise AdminError('stdin must hold JSON: {"password": "…"}') from None
    if not isinstance(password, str):
        raise AdminError('stdin must hold JSON: {"password": "…"}')
    try:
        secrets.check_password(password)
    except ValueError as error:
        raise AdminError(str(error)) from None
    return password


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


if __name__ == "__main__":
    # The process is short-lived. Garbage collection would take a fifth of its time if it imports syft.
    gc.disable()
    sys.exit(main(sys.argv[1:], sys.stdin, sys.stdout, sys.stderr))
