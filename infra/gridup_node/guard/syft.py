"""The guard's interface to syft's server, which runs in this process."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gridup_node import account
from gridup_node.guard import quotas
from gridup_node.guard.asgi import Caller
from gridup_node.guard.methods import Role
from gridup_node.secrets import is_own_password

KNOWN_SECONDS, MOMENT = 2.0, 0.5
MOST_KNOWN = 1000


class SyftServer:
    """The implementation of `asgi.Syft` on syft's own store. Every call blocks, except as `asgi.Syft` says.

    Args:
        secrets: the folder of the node's own secrets.
    """

    def __init__(self, server: Any, secrets: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._server, self._secrets, self._clock = server, secrets, clock
        self._known: dict[bytes, tuple[float, Caller]] = {}

    @property
    def server(self) -> bytes:
        """The node's id."""
        found: bytes = self._server.id.value.bytes
        return found

    @property
    def own_key(self) -> bytes:
        """The node's own public key. It is public: the metadata contains it."""
        return bytes(self._server.verify_key.verify_key)

    @functools.cached_property
    def is_network(self) -> bool:
        """Whether this is a network node, with which other nodes associate."""
        from syft.abstract_server import ServerType

        return bool(self._server.server_type == ServerType.GATEWAY)

    def caller(self, key: bytes) -> Caller:
        """Return the holder of a key. After a change of role, this returns the old role for a moment.

        That is safe: syft looks up the role again for each call, and opens to it only the methods in Gridup's
        table.
        """
        now = self._clock()
        told, found = self._known.get(key, (0.0, None))
        if found is not None and now - told < KNOWN_SECONDS:
            return found
        found = self._caller(key)
        if found.role is not Role.NOBODY:
            while len(self._known) >= MOST_KNOWN:
                self._known.pop(next(iter(self._known)), None)
            self._known[key] = now, found
        return found

    def is_remembered(self, key: bytes) -> bool:
        """Whether `caller` needs no look-up for this key, at least for the next `MOMENT`."""
        told, found = self._known.get(key, (0.0, None))
        return found is not None and self._clock() - told < KNOWN_SECONDS - MOMENT

    def _caller(self, key: bytes) -> Caller:
        from nacl.signing import VerifyKey
        from syft.server.credentials import SyftVerifyKey
        from syft.store.document_store_errors import NotFoundException

        wanted = SyftVerifyKey(verify_key=VerifyKey(key))
        root = self._server.verify_key
        try:
            user = self._server.services.user.stash.get_by_verify_key(root, wanted).unwrap()
            return Caller(_role(user.role))
        except NotFoundException:
            pass
        try:
            self._server.services.network.stash.get_by_verify_key(root, wanted).unwrap()
            return Caller(Role.NOBODY, peer=True)
        except NotFoundException:
            return Caller(Role.NOBODY)

    def has_peers(self) -> bool:
        """Whether other nodes are associated with this one."""
        return len(self._server.services.network.stash) > 0

    def has_room(self) -> bool:
        """Whether the disk has room for data from data scientists."""
        return quotas.has_room(self._server)

    def is_own_password(self, password: str) -> bool:
        """Whether this is the administrator password that the node generated."""
        return is_own_password(self._secrets, password)

    def open_to_sign_up(self) -> bool:
        """Whether anybody may create an account."""
        return bool(self._server.settings.signup_enabled)

    def signed_refusal(self, message: str) -> bytes:
        """Return the answer that refuses a signed call."""
        from syft.client.api import SyftAPIData
        from syft.serde.serialize import _serialize
        from syft.service.response import SyftError

        signed = SyftAPIData(data=SyftError(message=message)).sign(self._server.signing_key)
        answer: bytes = _serialize(signed, to_bytes=True)
        return answer

    def refusal(self, message: str) -> bytes:
        """Return the answer that refuses another request."""
        from syft.serde.serialize import _serialize
        from syft.service.response import SyftError

        answer: bytes = _serialize(SyftError(message=message), to_bytes=True)
        return answer

    def sign_in(self, email: str, password: str) -> tuple[bytes, bytes] | None:
        """Return the account's public key and the answer with its private key; None if they do not match."""
        from syft.serde.serialize import _serialize
        from syft.service.user.user import UserPrivateKey

        try:
            user = account.find(self._server, email, password)
        except account.Refused:
            return None
        return bytes(user.verify_key.verify_key), _serialize(user.to(UserPrivateKey), to_bytes=True)


def _role(role: Any) -> Role:
    # A role that a later syft adds has no rights until a developer defines them.
    return Role.__members__.get(getattr(role, "name", ""), Role.NOBODY)
