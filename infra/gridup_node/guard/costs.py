"""Makes syft's slow steps cheap: a gigabyte took minutes, and fourteen gigabytes of memory. For `holes`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any

from gridup_node.guard import view, wire

PLAIN = (str, bytes, bytearray, memoryview)
"""Sequences that never contain syft's objects. syft searches them for such objects all the same."""


def close() -> None:
    """Replace all slow steps.

    Raises:
        AttributeError: this syft version does not have the expected code.
    """
    _close_attributes()
    _close_log()
    _close_signatures()
    _close_copies()
    _close_roles()


def _close_attributes() -> None:
    """Skip blobs when syft attaches its origin to each object of an answer.

    syft treats a blob as a list of objects.
    """
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
    """Give calls a short `repr`. syft formats each call with all its data for a log that drops the text."""
    from syft.client.api import SyftAPICall

    SyftAPICall.__repr__ = lambda call: f"SyftAPICall(path={call.path}, blocking={call.blocking})"


def _close_signatures() -> None:
    """Verify signatures without copies. syft copies the signed data three times to check a signature."""
    from syft.client.api import SignedSyftAPICall

    def is_valid(call: Any) -> bool:
        key = bytes(call.credentials.verify_key)
        return wire.verifies(key, call.serialized_message, call.signature)

    SignedSyftAPICall.is_valid = property(is_valid)


_looked_up: ContextVar[list[tuple[Any, Any]] | None] = ContextVar("looked_up", default=None)
"""The caller's key and role from the first look-up of a call; None outside a call."""


def _close_roles() -> None:
    """Save a look-up of the caller's role.

    syft looks it up twice at the start of a call, which takes two fifths of the time of a short call. The
    second look-up reuses the result of the first. Later look-ups do not.
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
"""Messages above this size, in bytes, are read in place."""
ANY = 2**62
"""Limit in words. `wire` has checked the size of the message already."""
SEQUENCES = ("list", "tuple", "set", "frozenset")
MAPPINGS = ("dict", "OrderedDict")
IN_PLACE = frozenset({*SEQUENCES, *MAPPINGS, "numpy_ndarray"})
"""Types whose deserialisers accept data in place, within its message. All others get bytes."""


class _Seen:
    """A value in the form that syft's deserialiser expects. Its parts are not copied."""

    def __init__(self, found: view.Fields) -> None:
        self.canonicalName, self.version, self.fieldsName, values, own = found
        self.fieldsData = [_Whole(value) for value in values]
        self.nonrecursiveBlob = _Whole(own if self.canonicalName in IN_PLACE else bytes(own))


class _Whole:
    """Data that is joined already. syft would join it from chunks."""

    def __init__(self, data: view.Data) -> None:
        self.data = data


def _close_copies() -> None:
    """Avoid copies of nested values. syft copies the content of a value at each level.

    syft keeps all these copies until the end.
    """
    from syft.serde import deserialize, recursive, recursive_primitives
    from syft.types.syft_object_registry import SyftObjectRegistry

    theirs, read, combine = deserialize._deserialize, recursive.rs_bytes2object, recursive.combine_bytes
    if getattr(theirs, "closed", False):
        return

    def rs_bytes2object(blob: Any) -> Any:
        # The library reads small messages faster.
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
    # Some modules of syft imported the function by name and keep the original. That works: they pass bytes.
    deserialize._deserialize, recursive.rs_bytes2object = _deserialize, rs_bytes2object
    recursive.combine_bytes = recursive_primitives.combine_bytes = combine_bytes
