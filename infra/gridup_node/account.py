"""One person's access to syft's server in this process, by the signed calls that syft's client makes.

Not syft's client itself: that builds the whole api for each person who signs in (0.6 s and 5 MB each).
The server checks signature and role of each call here just as it does for one that came over the
network, so nobody sees more than syft lets them. Calls block: run them in a thread.
"""

from __future__ import annotations

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


def sign_in(server: Any, email: str, password: str) -> Account:
    """The account of this e-mail address, when the password is its own.

    Raises:
        Refused: it is not; the message is the same whatever was wrong.
    """
    from syft.server.credentials import UserLoginCredentials
    from syft.types.errors import SyftException

    wrong = "Wrong e-mail address or password."
    if not password or len(password.encode()) > LONGEST_PASSWORD or "\0" in password:
        raise Refused(wrong)
    try:
        credentials = UserLoginCredentials(email=email, password=password)
        context = server.get_unauthed_context(credentials)
        key = server.services.user.exchange_credentials(context=context).value
    except (SyftException, ValueError) as error:  # pydantic's ValidationError is a ValueError
        raise Refused(wrong) from error
    return Account(server, key.signing_key)
