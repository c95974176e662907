"""What costs syft far more than it is: a gigabyte took it minutes, and fourteen of memory. For `holes`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any

from gridup_node.guard import view, wire

PLAIN = (str, bytes, bytearray, memoryview)
"""Sequences that syft looks through for objects of its own, of which there are none in them."""


def close() -> None:
    """Close them all.

    Raises:
        AttributeError: this syft has something elsewhere.
    """
    _close_attributes()
    _close_log()
    _close_signatures()
    _close_copies()
    _close_roles()


def _close_attributes() -> None:
    """syft tells each object in an answer where it is from, and takes a blob for a list of objects."""
    from syft.service import service
    from syft.types import syft_object

    attach = syft_object.attach_attribute_to_syft_object
    if service.attach_attribute_to_syft_object is not attach:
        raise AttributeError("syft's way to tell an object where it is from")
    if getattr(attach, "closed", False):
        return

    def attach_to_objects(result: Any, attr_dict: dict[str, Any]) -> None:
        if not isinstance(result, PLAIN):
            attach(result, attr_dict)

    attach_to_objects.closed = True  # type: ignore[attr-defined]
    service.attach_attribute_to_syft_object = syft_object.attach_attribute_to_syft_object = attach_to_objects


def _close_log() -> None:
    """syft puts each call with all that it holds into words for its log, which then does not keep them."""
    from syft.client.api import SyftAPICall

    SyftAPICall.__repr__ = lambda call: f"SyftAPICall(path={call.path}, blocking={call.blocking})"


def _close_signatures() -> None:
    """syft copies what is signed three times to look at the signature."""
    from syft.client.api import SignedSyftAPICall

    def is_valid(call: Any) -> bool:
        key = bytes(call.credentials.verify_key)
        return wire.verifies(key, call.serialized_message, call.signature)

    SignedSyftAPICall.is_valid = property(is_valid)


_looked_up: ContextVar[list[tuple[Any, Any]] | None] = ContextVar("looked_up", default=None)
"""The caller's key and role, as a call has looked them up; None where there is no call."""


def _close_roles() -> None:
    """syft looks up the caller's role twice at the start of a call, which takes two fifths of a short one.

    The second time gets what the first has found, and no later look-up does.
    """
    from syft.server.server import Server

    handle, look_up = Server.handle_api_call_with_unsigned_result, Server.get_role_for_credentials
    if getattr(handle, "closed", False):
        return

    @wraps(handle)
    def handle_with_one(*args: Any, **kwargs: Any) -> Any:
        token = _looked_up.set([])
        try:
            return handle(*args, **kwargs)
        finally:
            _looked_up.reset(token)

    @wraps(look_up)
    def look_up_once(self: Any, credentials: Any) -> Any:
        found = _looked_up.get()
        if found is None:
            return look_up(self, credentials)
        if not found:
            found.append((credentials, look_up(self, credentials)))
            return found[0][1]
        _looked_up.set(None)
        key, role = found[0]
        return role if key == credentials else look_up(self, credentials)

    handle_with_one.closed = True  # type: ignore[attr-defined]
    Server.handle_api_call_with_unsigned_result = handle_with_one
    Server.get_role_for_credentials = look_up_once


LARGE = 1024 * 1024
"""Bytes of a message that is read in place."""
ANY = 2**62
"""Words: whether a message says too much was seen by `wire`."""
SEQUENCES = ("list", "tuple", "set", "frozenset")
MAPPINGS = ("dict", "OrderedDict")
IN_PLACE = frozenset({*SEQUENCES, *MAPPINGS, "numpy_ndarray"})
"""Types whose deserialisers take what stands in its message; all others get bytes."""


class _Seen:
    """A value as syft's deserialiser asks for it, each part of it still where it stands."""

    def __init__(self, found: view.Fields) -> None:
        self.canonicalName, self.version, self.fieldsName, values, own = found
        self.fieldsData = [_Whole(value) for value in values]
        self.nonrecursiveBlob = _Whole(own if self.canonicalName in IN_PLACE else bytes(own))


class _Whole:
    """What syft would put together out of its chunks."""

    def __init__(self, data: view.Data) -> None:
        self.data = data


def _close_copies() -> None:
    """syft copies what is in a value, and what is in that again, and keeps all of it until the end."""
    from syft.serde import deserialize, recursive, recursive_primitives
    from syft.types.syft_object_registry import SyftObjectRegistry

    theirs, read, combine = deserialize._deserialize, recursive.rs_bytes2object, recursive.combine_bytes
    if getattr(theirs, "closed", False):
        return

    def rs_bytes2object(blob: Any) -> Any:
        # Small ones by the library: that is quicker.
        found = None if isinstance(blob, bytes) and len(blob) <= LARGE else view.structure(blob, ANY)
        return read(bytes(blob)) if found is None else recursive.rs_proto2object(_Seen(found))

    def _deserialize(blob: Any, from_proto: bool = True, from_bytes: bool = False) -> Any:
        if from_bytes and isinstance(blob, memoryview | view.Rope):
            return rs_bytes2object(blob)
        return theirs(blob, from_proto, from_bytes)

    def combine_bytes(chunks: Any) -> Any:
        return chunks.data if isinstance(chunks, _Whole) else combine(chunks)

    def sequence(ours: Callable[[bytes], Any], kind: type, blob: Any) -> Any:
        found = None if isinstance(blob, bytes) else view.sequence(blob, ANY)
        if found is None:
            return ours(bytes(blob))
        return kind([_deserialize(one, from_bytes=True) for one in found])

    def mapping(ours: Callable[[bytes], Any], kind: type, blob: Any) -> Any:
        found = None if isinstance(blob, bytes) else view.pairs(blob, ANY)
        if found is None:
            return ours(bytes(blob))
        keys, values = ([_deserialize(one, from_bytes=True) for one in part] for part in found)
        return kind(zip(keys, values, strict=True))

    registry = SyftObjectRegistry.__object_serialization_registry__
    for names, ours in ((SEQUENCES, sequence), (MAPPINGS, mapping)):
        for name in names:
            row = registry[name][1]
            registry[name][1] = (*row[:2], partial(ours, row[2], row[7]), *row[3:])
    _deserialize.closed = True  # type: ignore[attr-defined]
    # Those of syft's modules that have it by name get by with their own: it is handed bytes there.
    deserialize._deserialize, recursive.rs_bytes2object = _deserialize, rs_bytes2object
    recursive.combine_bytes = recursive_primitives.combine_bytes = combine_bytes
