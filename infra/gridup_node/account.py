"""Access of one account to syft's server in this process, with the signed calls that syft's client makes.

This module does not use syft's client, because the client builds the whole API for each user who signs in
(0.6 s and 5 MB each). The server checks the signature and role of each call as it does for a call from the
network, so no user sees more than syft allows. Calls block: run them in a thread.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

LONGEST_PASSWORD = 72
"""In bytes. bcrypt ignores further bytes, and newer versions of it refuse longer passwords."""


class Refused(Exception):
    """syft refused the call; the message is syft's public one."""


@dataclass(frozen=True)
class Account:
    """Calls to `server` with the rights of the account that owns `key` (a `SyftSigningKey`)."""

    server: Any
    key: Any

    def call(self, path: str, **arguments: Any) -> Any:
        """Call the service method at `path`, such as `user.get_all`, and return its value.

        Raises:
            Refused: the account may not call it, or the call failed.
        """
        from syft.client.api import SyftAPICall
        from syft.service.response import SyftError, SyftSuccess
        from syft.types.errors import SyftException

        call = SyftAPICall(server_uid=self.server.id, path=path, args=[], kwargs=arguments, blocking=True)
        try:
            result = self.server.handle_api_call_with_unsigned_result(call.sign(self.key))
        except SyftException as error:
            raise Refused(error.public_message) from error
        if isinstance(result, SyftError):
            raise Refused(result.message)
        return result.value if isinstance(result, SyftSuccess) else result


WRONG = "Wrong e-mail address or password."


def sign_in(server: Any, email: str, password: str) -> Account:
    """Return the account of this e-mail address, if the password is correct.

    Raises:
        Refused: the account does not exist or the password is wrong; the message is the same in both cases.
    """
    return Account(server, find(server, email, password).signing_key)


def find(server: Any, email: str, password: str) -> Any:
    """Return syft's user with this e-mail address, if the password is correct.

    Every outcome costs the same work: the function reads one user and hashes one password. So its duration
    does not reveal which accounts exist.

    Raises:
        Refused: the user does not exist or the password is wrong; the message is the same in both cases.
    """
    from bcrypt import checkpw
    from syft.store.document_store_errors import NotFoundException

    usable = bool(password) and len(password.encode()) <= LONGEST_PASSWORD and "\0" not in password
    stash, root = server.services.user.stash, server.verify_key
    try:
        user, known = stash.get_by_email(root, email).unwrap(), True
    except NotFoundException:
        user, known = stash.get_by_verify_key(root, root).unwrap(), False
    hashed = (user.hashed_password or "").encode()
    right = checkpw(password.encode() if usable else b"unusable", hashed)
    if not (right and known and usable):
        raise Refused(WRONG)
    return user


def password_mark(server: Any, key: Any) -> bytes | None:
    """Return bytes that change when the account of `key` (a `SyftSigningKey`) gets another password.

    Returns None if no account has this key. The bytes reveal nothing about the password.
    """
    from syft.store.document_store_errors import NotFoundException

    try:
        user = server.services.user.stash.get_by_verify_key(server.verify_key, key.verify_key).unwrap()
    except NotFoundException:
        return None
    return hashlib.sha256(b"password:" + (user.hashed_password or "").encode()).digest()
