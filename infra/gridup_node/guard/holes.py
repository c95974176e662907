"""Closes known security holes in syft: it does things at a caller's request that it must not do.

This is the second layer, for attackers who get past the guard. Each hole has a test that fails without its
fix. If a hole can't be closed in another syft version, that syft does not start.
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
"""Minimum bytes that an array takes, even with few values."""
OF_NODES = methods.ASSOCIATION | methods.PEER | methods.PEER_OF_NETWORK
"""Methods that nodes call on each other in their own name."""
CHALLENGE_BYTES = 16
"""Length of a challenge that syft's own callers send to `ping`: too short to be a call."""


def close(guests: bool, network: bool, server: str = "") -> None:
    """Close all holes. Call it before a server is created.

    Args:
        server: the node's id.

    Raises:
        AttributeError, KeyError, LookupError: this syft version does not have the expected code.
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
    """Limit each of syft's roles to the methods in Gridup's table. Close calls of numpy functions by path."""
    from syft.service.service import ServiceConfigRegistry, UserLibConfigRegistry, UserServiceConfigRegistry

    of_nodes = methods.PEER | ((methods.ASSOCIATION | methods.PEER_OF_NETWORK) if network else frozenset())
    guest = of_nodes | (methods.paths(Role.GUEST) if guests else frozenset())

    made: dict[Any, tuple[int, Any]] = {}

    def from_role(cls: Any, user_service_role: Any) -> Any:
        # syft asks for this at each call. The result changes only when syft registers more methods.
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
    """Make deserialisers safe: they never call a function that the data names, and they limit memory."""
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
    """Build an alias such as `list[int]`. syft's own deserialiser calls any function that `path` names."""
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
    """Build a defaultdict. syft's own deserialiser accepts any class, and each missing key calls it."""
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
    """Build an array within the budget.

    syft's own deserialiser reserves as much memory as the sender claims by size, shape, type or longest text.
    """
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
    """Return the number of elements that an Arrow tensor claims. They may all share the same few bytes."""
    import pyarrow as pa
    from syft.serde.arrow import ApacheArrowCompression, flags

    codec = flags.APACHE_ARROW_COMPRESSION
    if codec is not ApacheArrowCompression.NONE:
        packed = pa.decompress(packed, decompressed_size=size, codec=codec.value)
    return int(pa.ipc.read_tensor(pa.BufferReader(packed)).size)


def _size_of_texts(said: Any) -> int:
    """Return the bytes that an array of texts takes.

    It is sent as numbers: all characters, the end of each text, the number of texts, the shape and the length
    of the shape.
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
    # numpy stores each text with the length of the longest, at four bytes per character.
    return count * 4 * int(lengths.max(initial=1))


def _series(blob: bytes) -> Any:
    """Build a series from one column. syft's own deserialiser builds a table first.

    With many columns, that table becomes as wide as all rows together are long.
    """
    from syft.serde.deserialize import _deserialize
    from syft.serde.third_party import deserialize_series

    said = _deserialize(blob, from_bytes=True)
    if not isinstance(said, dict) or len(said) != 1:
        raise ValueError("no series")
    return deserialize_series(blob)


def _union(blob: bytes) -> Any:
    """Build a union of types. syft's own deserialiser accepts any values and runs their `|` operator."""
    from syft.serde.deserialize import _deserialize
    from syft.serde.recursive_primitives import deserialize_union_type

    for one in _deserialize(blob, from_bytes=True):
        if not isinstance(one, type) and typing.get_origin(one) is None:
            raise ValueError("a union of what is no type")
    return deserialize_union_type(blob)


def _range(blob: bytes) -> Any:
    """Build a range of limited length. syft's own has no limit, and a model with a list field expands it."""
    from syft.serde.recursive_primitives import deserialize_iterable

    made = range(*deserialize_iterable(tuple, blob))
    if made and abs(made[-1] - made[0]) // abs(made.step) >= MOST_VALUES:
        raise ValueError(budget.TOO_MUCH)
    return made


def _frame(blob: bytes) -> Any:
    """Build a table within the budget. syft's own deserialiser expands a few bytes to a table of any size."""
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
    """Let `ping` sign only 16 bytes, which can't be a call. It signs with the administrator's key."""
    from syft.service.network.network_service import NetworkService
    from syft.types.errors import SyftException

    def ping(inner: Any, arguments: dict[str, Any]) -> Any:
        challenge = arguments["challenge"]
        if type(challenge) is not bytes or len(challenge) != CHALLENGE_BYTES:
            raise SyftException(public_message=f"a challenge has {CHALLENGE_BYTES} bytes")
        return inner(**arguments)

    _before(NetworkService, "ping", ping)


def _close_peers() -> None:
    """Let a node change only its own peer record, and limit the number of open association requests.

    A route may lead to the machine of this node only if an administrator has seen the route.
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
    """Stop callers from creating or changing other accounts of their own or a higher role.

    Administrators may create and change any account. Nobody may set an account's key.
    """
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
            # With this permission, syft would trust the sender about which data is a mock.
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
    """Keep each blob in the blob folder. In syft, the caller chooses the file name."""
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
    """Limit look-ups by id to types that users work with. None of these types holds secrets.

    syft lets any user read any account, with its key and password hash. It lets the owner of a failed job
    read the job's settings, which contain the node's own key.
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
    """Refuse answers that contain a private key, except the caller's own key."""
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
    """Do not count data from the node's own database against the budget of the current message."""
    from syft.store.db.stash import ObjectStash

    row_as_obj = ObjectStash.row_as_obj

    def read(self: Any, row: Any) -> Any:
        with budget.within(budget.ANY):
            return row_as_obj(self, row)

    ObjectStash.row_as_obj = wraps(row_as_obj)(read)


def _close_connections(server: str) -> None:
    """Let the node try only routes of administrators, and never sign a call that it would obey itself.

    The node's key is the administrator's key. The other node decides which methods syft's client calls, with
    which arguments and on which node. If it names this node, it gets a signed call that it can replay here.
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
            # A network node passes on this call of an account. The answer goes to the account.
            return make_call(self, signed_call)
        with budget.within(budget.STRANGERS):
            answer = make_call(self, signed_call)
            if getattr(answer, "is_valid", False):
                # The first access builds the message, within this budget. syft caches it.
                _ = answer.message
            return answer

    def small(method: Any) -> Any:
        @wraps(method)
        def of_a_stranger(*args: Any, **kwargs: Any) -> Any:
            with budget.within(budget.STRANGERS):
                return method(*args, **kwargs)

        return of_a_stranger

    def validate_with_context(self: Any, context: Any) -> Any:
        # At an approval the context has no role, but it has the caller's key.
        if context.server.get_role_for_credentials(context.credentials) == ServiceRole.ADMIN:
            return connect(self, context)
        return as_result(SyftException)(of_itself)(self, context)

    def of_itself(self: Any, context: Any) -> Any:
        """Return this node's peer record with a route that a data scientist names. Do not try the route."""
        peer = context.server.settings.to(ServerPeer)
        peer.server_routes.append(self)
        return peer

    for name in ("get_api", "get_server_metadata", "login"):
        setattr(HTTPConnection, name, small(getattr(HTTPConnection, name)))
    HTTPConnection.make_call = wraps(make_call)(make_call_to_others)
    ServerRoute.validate_with_context = wraps(connect)(validate_with_context)
