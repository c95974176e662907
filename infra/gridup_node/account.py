"""One person's access to syft's server in this process, by the signed calls that syft's client makes.

Not syft's client itself: that builds the whole api for each person who signs in (0.6 s and 5 MB each).
The server checks signature and role of each call here just as it does for one that came over the
network, so nobody sees more than syft lets them. Calls block: run them in a thread.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

LONGEST_PASSWORD = 72
"""Bytes; bcrypt reads no more, and newer ones refuse longer ones."""


class Refused(Exception):
    """syft refused the call; the message is syft's public one."""


@dataclass(frozen=True)
class Account:
    """Calls `server` with the rights of whoever holds `key` (a `SyftSigningKey`)."""

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
    """The account of this e-mail address, when the password is its own.

    Raises:
        Refused: it is not; the message is the same whatever was wrong.
    """
    return Account(server, find(server, email, password).signing_key)


def find(server: Any, email: str, password: str) -> Any:
    """syft's user of this e-mail address, when the password is theirs.

    Whatever is wrong, the work is the same: one user is read, one password is hashed. So the time it takes
    does not tell which accounts there are.

    Raises:
        Refused: it is not; the message is the same whatever was wrong.
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
    """What changes when the account of `key` (a `SyftSigningKey`) gets another password; None without one.

    Nothing about the password can be told from it.
    """
    from syft.store.document_store_errors import NotFoundException

    try:
        user = server.services.user.stash.get_by_verify_key(server.verify_key, key.verify_key).unwrap()
    except NotFoundException:
        return None
    return hashlib.sha256(b"password:" + (user.hashed_password or "").encode()).digest()
