"""syft with its known holes closed: what it does at a caller's word, and must not.

This is the layer behind the guard, for whoever gets past that one. Each has a test that fails without it.
A syft of another version in which one can't be closed does not start.
"""

from __future__ import annotations

import typing
from collections import defaultdict
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any

from gridup_node.guard import budget, costs, methods, outgoing, pages, quotas, rights
from gridup_node.guard.asgi import answers_to
from gridup_node.guard.before import before as _before
from gridup_node.guard.methods import Role
from gridup_node.guard.types import ALIASES, OBJECTS_OF_SYFT, OF_THE_NODE
from gridup_node.guard.wire import MOST_VALUES

ARRAY = 1024
"""Bytes that an array takes, however few values it has."""
OF_NODES = methods.ASSOCIATION | methods.PEER | methods.PEER_OF_NETWORK
"""What nodes ask each other in their own name."""
CHALLENGE_BYTES = 16
"""What syft's own callers of `ping` send: too short to be a call."""


def close(guests: bool, network: bool, server: str = "") -> None:
    """Close them all. Call it before a server is made.

    Args:
        server: the node's id.

    Raises:
        AttributeError, KeyError, LookupError: this syft has something elsewhere.
    """
    _close_methods(guests, network)
    _close_deserialisers()
    _tell_rows_from_messages()
    _close_ping()
    _close_peers()
    _close_accounts()
    _close_blobs()
    _close_lookups()
    _close_keys()
    _close_connections(server)
    outgoing.close()
    rights.close()
    quotas.close()
    costs.close()


def _close_methods(guests: bool, network: bool) -> None:
    """syft's roles may call what our table says, and nothing of numpy's by its path."""
    from syft.service.service import ServiceConfigRegistry, UserLibConfigRegistry, UserServiceConfigRegistry

    of_nodes = methods.PEER | ((methods.ASSOCIATION | methods.PEER_OF_NETWORK) if network else frozenset())
    guest = of_nodes | (methods.paths(Role.GUEST) if guests else frozenset())

    made: dict[Any, tuple[int, Any]] = {}

    def from_role(cls: Any, user_service_role: Any) -> Any:
        # Of each call; it changes only where syft gets more methods.
        count, found = made.get(user_service_role, (-1, None))
        if count != len(ServiceConfigRegistry.__service_config_registry__):
            found = looked_up(cls, user_service_role)
            made[user_service_role] = len(ServiceConfigRegistry.__service_config_registry__), found
        return found

    def looked_up(cls: Any, user_service_role: Any) -> Any:
        role = Role.__members__.get(user_service_role.name, Role.NOBODY)
        open_ = methods.paths(role) if role >= Role.DATA_SCIENTIST else guest
        rows = ServiceConfigRegistry.get_registered_configs()
        return cls(
            {
                path: row
                for path, row in rows.items()
                if path in open_ and row.has_permission(user_service_role)
            }
        )

    UserServiceConfigRegistry.from_role = classmethod(from_role)
    UserLibConfigRegistry.from_user = classmethod(lambda cls, _credentials: cls({}))


def _close_deserialisers() -> None:
    """Deserialisers build values; they call nothing that data names, and stay within bounds."""
    from enum import Enum

    from pydantic import BaseModel
    from syft.client.connection import ServerConnection
    from syft.serde import recursive
    from syft.types.errors import SyftException
    from syft.types.syft_object_registry import SyftObjectRegistry

    registry = SyftObjectRegistry.__object_serialization_registry__
    for name, ours in _DESERIALISERS.items():
        row = registry[name][1]
        registry[name][1] = (*row[:2], ours, *row[3:])
    build, plain = recursive.rs_proto2object, OBJECTS_OF_SYFT | OF_THE_NODE
    fine: set[tuple[str, type]] = set()

    def rs_proto2object(proto: Any) -> Any:
        name, version = proto.canonicalName, proto.version
        row = registry.get(name, {}).get(version)
        if row is not None and not row[0] and (name, row[7]) not in fine:
            kind = row[7]
            known = name in plain or issubclass(kind, BaseModel | Enum)
            if not known or issubclass(kind, ServerConnection):
                raise SyftException(public_message=f"{name} can't be sent")
            fine.add((name, kind))
        return build(proto)

    recursive.rs_proto2object = rs_proto2object


def _alias(blob: bytes) -> Any:
    """`list[int]` and its like; syft's own calls whatever function `path` names."""
    from syft.serde.deserialize import _deserialize

    said = _deserialize(blob, from_bytes=True)
    path, arguments = said["path"], said["__args__"]
    if path not in ALIASES:
        raise ValueError("an alias that can't be sent")
    kind = getattr(typing, path.rpartition(".")[2])
    if kind is typing.Optional:
        return kind[next(one for one in arguments if one is not type(None))]
    return kind[tuple(arguments)]


def _defaultdict(blob: bytes) -> Any:
    """syft's own takes any class, which then is called for each key that is asked for."""
    from syft.serde.deserialize import _deserialize
    from syft.serde.recursive_primitives import get_deserialized_kv_pairs

    factory, pairs = _deserialize(blob, from_bytes=True)
    kind = _deserialize(factory, from_bytes=True)
    if kind not in (None, list, dict, set, tuple, int, float, str, bytes, bool):
        raise ValueError("a defaultdict of a type that can't be sent")
    made: Any = defaultdict(kind)
    made.update(get_deserialized_kv_pairs(blob=pairs))
    return made


def _array(blob: bytes) -> Any:
    """syft's own reserves as much memory as the sender says: by size, shape, type or the longest text."""
    import numpy as np
    from syft.serde import arrow
    from syft.serde.deserialize import _deserialize

    left = budget.current()
    left.take(ARRAY)
    said = _deserialize(blob, from_bytes=True)
    if isinstance(said, tuple):
        packed, size, name = said
        if not isinstance(size, int) or not 0 <= size <= left.left:
            raise ValueError(budget.TOO_MUCH)
        count, kind = _elements(packed, size), np.dtype(name)
        if kind.hasobject:
            raise ValueError("an array of objects")
        left.take(max(size, count * max(kind.itemsize, 1)))
        return arrow.arrow_deserialize(packed, size, name)
    left.take(_size_of_texts(said))
    return arrow.numpyutf8toarray(said)


def _elements(packed: bytes, size: int) -> int:
    """How many elements a tensor of Arrow's says that it has: they may all be the same few bytes."""
    import pyarrow as pa
    from syft.serde.arrow import ApacheArrowCompression, flags

    codec = flags.APACHE_ARROW_COMPRESSION
    if codec is not ApacheArrowCompression.NONE:
        packed = pa.decompress(packed, decompressed_size=size, codec=codec.value)
    return int(pa.ipc.read_tensor(pa.BufferReader(packed)).size)


def _size_of_texts(said: Any) -> int:
    """Bytes of an array of text.

    It is sent as numbers: all characters, where each text ends, how many, the shape, its length.
    """
    import numpy as np

    if not isinstance(said, np.ndarray) or said.ndim != 1 or said.dtype != np.uint64:
        raise ValueError("no array of text")
    rest = said[: -(int(said[-1]) + 1)]
    count = int(rest[-1])
    ends, characters = rest[-(count + 1) : -1].astype(np.int64), len(rest) - count - 1
    lengths = np.diff(ends, prepend=0)
    if len(ends) != count or (lengths < 0).any() or (count and int(ends[-1]) > characters):
        raise ValueError("no array of text")
    # numpy keeps each as long as the longest, at four bytes a character.
    return count * 4 * int(lengths.max(initial=1))


def _series(blob: bytes) -> Any:
    """syft's own makes a table of it first: of many columns, as wide as all of their rows are long."""
    from syft.serde.deserialize import _deserialize
    from syft.serde.third_party import deserialize_series

    said = _deserialize(blob, from_bytes=True)
    if not isinstance(said, dict) or len(said) != 1:
        raise ValueError("no series")
    return deserialize_series(blob)


def _union(blob: bytes) -> Any:
    """syft's own takes any values, and calls what they do for `|`."""
    from syft.serde.deserialize import _deserialize
    from syft.serde.recursive_primitives import deserialize_union_type

    for one in _deserialize(blob, from_bytes=True):
        if not isinstance(one, type) and typing.get_origin(one) is None:
            raise ValueError("a union of what is no type")
    return deserialize_union_type(blob)


def _range(blob: bytes) -> Any:
    """syft's own is of any length, and a model with a list makes a list of it."""
    from syft.serde.recursive_primitives import deserialize_iterable

    made = range(*deserialize_iterable(tuple, blob))
    if made and abs(made[-1] - made[0]) // abs(made.step) >= MOST_VALUES:
        raise ValueError(budget.TOO_MUCH)
    return made


def _frame(blob: bytes) -> Any:
    """syft's own reads a table of any size out of a few bytes."""
    return pages.table(blob, budget.current()).to_pandas()


_DESERIALISERS: dict[str, Callable[[bytes], Any]] = {
    "_GenericAlias": _alias,
    "UnionType": _union,
    "_UnionGenericAlias": _alias,
    "defaultdict": _defaultdict,
    "numpy_ndarray": _array,
    "pandas_dataframe": _frame,
    "pandas_series": _series,
    "range": _range,
}


def _close_ping() -> None:
    """`ping` signs 16 bytes, which are no call, with the key that is the administrator's."""
    from syft.service.network.network_service import NetworkService
    from syft.types.errors import SyftException

    def ping(inner: Any, arguments: dict[str, Any]) -> Any:
        challenge = arguments["challenge"]
        if type(challenge) is not bytes or len(challenge) != CHALLENGE_BYTES:
            raise SyftException(public_message=f"a challenge has {CHALLENGE_BYTES} bytes")
        return inner(**arguments)

    _before(NetworkService, "ping", ping)


def _close_peers() -> None:
    """A node changes what is known of itself, and nothing of another; few of them wait for an answer.

    To its own machine a node leads us only by a route that an administrator has seen.
    """
    from syft.service.network.network_service import NetworkService
    from syft.service.user.user_roles import ServiceRole
    from syft.store.document_store_errors import NotFoundException
    from syft.types.errors import SyftException
    from syft.types.syft_metaclass import Empty

    def own(arguments: dict[str, Any], told: Any, approved: bool) -> None:
        context = arguments["context"]
        if context.role == ServiceRole.ADMIN:
            return
        try:
            known = arguments["self"].stash.get_by_uid(context.server.verify_key, told.id).unwrap()
        except NotFoundException:
            known = None
        if known is not None and known.verify_key != context.credentials:
            raise SyftException(public_message="that is another node's")
        routes, seen = known.server_routes if known else (), approved and known is None
        for route in () if told.server_routes is Empty else told.server_routes:
            if not outgoing.may_lead(route, routes, seen):
                raise SyftException(
                    public_message=f"The node does not connect to {route} unless it is approved."
                )

    def add_peer(inner: Any, arguments: dict[str, Any]) -> Any:
        approved = not arguments["context"].server.settings.association_request_auto_approval
        own(arguments, arguments["peer"], approved)
        found = inner(**arguments)
        quotas.trim(arguments["context"])
        return found

    def update_peer(inner: Any, arguments: dict[str, Any]) -> Any:
        own(arguments, arguments["peer_update"], approved=False)
        return inner(**arguments)

    _before(NetworkService, "add_peer", add_peer)
    _before(NetworkService, "update_peer", update_peer)


def _close_accounts() -> None:
    """Nobody makes an account of a higher role than their own, takes over one, or takes another's key."""
    from syft.service.user.user_roles import ServiceRole
    from syft.service.user.user_service import UserService
    from syft.types.errors import SyftException
    from syft.types.syft_metaclass import Empty

    def create(inner: Any, arguments: dict[str, Any]) -> Any:
        wanted, role = arguments["user_create"], arguments["context"].role
        if role != ServiceRole.ADMIN and wanted.role is not None and wanted.role >= role:
            raise SyftException(public_message="Only an administrator may make such an account.")
        wanted.verify_key = wanted.created_by = None
        wanted.mock_execution_permission = False
        return inner(**arguments)

    def update(inner: Any, arguments: dict[str, Any]) -> Any:
        context, wanted = arguments["context"], arguments["user_update"]
        if wanted.verify_key is not Empty and wanted.verify_key is not None:
            raise SyftException(public_message="An account's key can't be changed.")
        if wanted.mock_execution_permission is True:
            # syft then believes the sender which of the data is a mock.
            raise SyftException(public_message="On this node no code runs that was not approved.")
        user = arguments["self"].stash.get_by_uid(context.server.verify_key, arguments["uid"]).unwrap()
        others = user.verify_key != context.credentials
        if others and context.role != ServiceRole.ADMIN and user.role >= context.role:
            raise SyftException(public_message="Only an administrator may change this account.")
        return inner(**arguments)

    _before(UserService, "create", create)
    _before(UserService, "update", update)
    register = UserService.register

    @wraps(register)
    def register_scientist(self: Any, context: Any, new_user: Any) -> Any:
        new_user.role, new_user.verify_key, new_user.created_by = ServiceRole.DATA_SCIENTIST, None, None
        new_user.mock_execution_permission = False
        return register(self, context, new_user)

    UserService.register = register_scientist


def _close_blobs() -> None:
    """A blob is a file in the folder of blobs; its name is the caller's to choose in syft."""
    from syft.store.blob_storage.on_disk import OnDiskBlobStorageConnection
    from syft.types.errors import SyftException

    allocate, read, delete = (
        getattr(OnDiskBlobStorageConnection, name) for name in ("allocate", "read", "delete")
    )

    def within(self: Any, name: str) -> None:
        folder = Path(self._base_directory).resolve()
        if (folder / name).resolve().parent != folder:
            raise SyftException(public_message="That is no name of a blob.")

    @wraps(allocate)
    def allocate_within(self: Any, obj: Any) -> Any:
        within(self, obj.file_name)
        return allocate(self, obj)

    @wraps(read)
    def read_within(self: Any, fp: Any, *args: Any, **kwargs: Any) -> Any:
        within(self, fp.path)
        return read(self, fp, *args, **kwargs)

    @wraps(delete)
    def delete_within(self: Any, fp: Any) -> Any:
        within(self, fp.path)
        return delete(self, fp)

    OnDiskBlobStorageConnection.allocate = allocate_within
    OnDiskBlobStorageConnection.read = read_within
    OnDiskBlobStorageConnection.delete = delete_within


def _close_lookups() -> None:
    """What looks up any object by its id does so for what people work with, and for nothing with secrets.

    syft lets everybody read everybody's account, key and password hash included, and whose job failed the
    job's settings, in which the node's own key is.
    """
    from syft.server.server import Server
    from syft.service.action.action_object import ActionObject
    from syft.service.code.user_code import UserCode, UserCodeStatusCollection
    from syft.service.dataset.dataset import Dataset
    from syft.service.job.job_stash import Job
    from syft.service.log.log import SyftLog
    from syft.service.migration.migration_service import MigrationService
    from syft.service.network.server_peer import ServerPeer
    from syft.service.notification.notification_service import NotificationService
    from syft.service.notification.notifications import Notification
    from syft.service.output.output_service import ExecutionOutput
    from syft.service.project.project import Project
    from syft.service.request.request import Request
    from syft.service.worker.worker_image import SyftWorkerImage
    from syft.service.worker.worker_pool import SyftWorker
    from syft.types.errors import SyftException
    from syft.types.twin_object import TwinObject

    shown = (
        *(ActionObject, Dataset, ExecutionOutput, Job, Notification, Project, Request, ServerPeer, SyftLog),
        *(SyftWorker, SyftWorkerImage, TwinObject, UserCode, UserCodeStatusCollection),
    )

    def look_up(inner: Any, arguments: dict[str, Any]) -> Any:
        found = inner(**arguments)
        if not isinstance(found, shown):
            raise SyftException(public_message="That can't be looked up.")
        return found

    _before(NotificationService, "resolve_object", look_up)
    _before(MigrationService, "_get_object", look_up)

    def resolve_future(_self: Any, **_: Any) -> Any:
        raise SyftException(public_message="A job's result is read from the job.")

    if not hasattr(Server, "resolve_future"):
        raise LookupError("syft's way to a job's result")
    Server.resolve_future = resolve_future


_answering: ContextVar[bool] = ContextVar("_answering", default=False)


def _close_keys() -> None:
    """No answer holds a private key, but the one of whoever asks."""
    from syft.client.api import SyftAPIData
    from syft.service.response import SyftError
    from syft.types.errors import SyftException
    from syft.types.syft_object_registry import SyftObjectRegistry

    sign = SyftAPIData.sign
    if getattr(sign, "closed", False):
        return

    def key(found: Any) -> bytes:
        if _answering.get() and bytes(found.verify_key) != answers_to.get():
            raise SyftException(public_message="The answer holds a key that is not yours.")
        return bytes(found)

    row = SyftObjectRegistry.__object_serialization_registry__["nacl_signing_key"]
    row[1] = (row[1][0], key, *row[1][2:])

    @wraps(sign)
    def sign_without_keys(self: Any, credentials: Any) -> Any:
        before = _answering.set(True)
        try:
            return sign(self, credentials)
        except SyftException as error:
            return sign(SyftAPIData(data=SyftError(message=error.public_message)), credentials)
        finally:
            _answering.reset(before)

    sign_without_keys.closed = True  # type: ignore[attr-defined]
    SyftAPIData.sign = sign_without_keys


def _tell_rows_from_messages() -> None:
    """What the node reads of its own database is nothing that came with the message that asks for it."""
    from syft.store.db.stash import ObjectStash

    row_as_obj = ObjectStash.row_as_obj

    def read(self: Any, row: Any) -> Any:
        with budget.within(budget.ANY):
            return row_as_obj(self, row)

    ObjectStash.row_as_obj = wraps(row_as_obj)(read)


def _close_connections(server: str) -> None:
    """The node connects where an administrator says, and signs nothing there that it would obey itself.

    Its key is the administrator's. What syft's client calls, and with what, the other side tells it: one that
    names our own node as the one to call gets a call that it may hand to us.
    """
    from syft.client.client import HTTPConnection
    from syft.service.network.routes import ServerRoute
    from syft.service.network.server_peer import ServerPeer
    from syft.service.user.user_roles import ServiceRole
    from syft.types.errors import SyftException
    from syft.types.result import as_result

    make_call, connect = HTTPConnection.make_call, ServerRoute.validate_with_context

    def make_call_to_others(self: Any, signed_call: Any) -> Any:
        call = signed_call.message
        if call.path != "network.ping" and call.server_uid.no_dash == server.replace("-", ""):
            raise SyftException(public_message="The node does not call itself.")
        if call.path not in OF_NODES:
            # An account's, which a network node passes on: the answer is the account's.
            return make_call(self, signed_call)
        with budget.within(budget.STRANGERS):
            answer = make_call(self, signed_call)
            if getattr(answer, "is_valid", False):
                # It is built when it is first asked for, and then kept.
                _ = answer.message
            return answer

    def small(method: Any) -> Any:
        @wraps(method)
        def of_a_stranger(*args: Any, **kwargs: Any) -> Any:
            with budget.within(budget.STRANGERS):
                return method(*args, **kwargs)

        return of_a_stranger

    def validate_with_context(self: Any, context: Any) -> Any:
        # Of an approval the context has no role, but whose it is.
        if context.server.get_role_for_credentials(context.credentials) == ServiceRole.ADMIN:
            return connect(self, context)
        return as_result(SyftException)(of_itself)(self, context)

    def of_itself(self: Any, context: Any) -> Any:
        """The node as others find it by a route that a data scientist names: it is not tried."""
        peer = context.server.settings.to(ServerPeer)
        peer.server_routes.append(self)
        return peer

    for name in ("get_api", "get_server_metadata", "login"):
        setattr(HTTPConnection, name, small(getattr(HTTPConnection, name)))
    HTTPConnection.make_call = wraps(make_call)(make_call_to_others)
    ServerRoute.validate_with_context = wraps(connect)(validate_with_context)
