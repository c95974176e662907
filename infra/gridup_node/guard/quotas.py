"""Limits the disk space of users who do not run the node. syft has no limits. For `holes`."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from gridup_node.guard.before import before

MOST_BLOBS, MOST_BYTES = 1_000, 2 * 1024**3
"""Blobs of one data scientist, and their total bytes by the announced sizes."""
MOST_ROWS = 50_000
"""Rows of one kind (requests, code, results, messages…) of one data scientist."""
MOST_ROW_BYTES = 1024**3
"""Total bytes of these rows in the database."""
MOST_COUNTED = 10_000
"""Counters, one per account and kind. Beyond this number, the least recently used one starts again."""
SPARED_BYTES, SPARED_SHARE = 5 * 1024**3, 10
"""Disk space reserved for staff and the node: so many bytes, or one part in so many if that is less."""
MOST_ASSOCIATIONS = 50
"""Open association requests of unknown nodes."""

FULL = "The node's disk is nearly full: what is left is for its data owners."

_one_at_a_time = threading.Lock()


def close() -> None:
    """Limit announced blobs and stored rows.

    Other checks before syft's methods call `written` and `trim` themselves.

    Raises:
        AttributeError, LookupError: this syft version does not have the expected code.
    """
    _close_blobs()
    _close_rows()


def _close_rows() -> None:
    """Check and count rows in the two methods that write to syft's tables."""
    from syft.store.db.stash import ObjectStash

    rows = _Rows()

    def counted(author: Callable[[dict[str, Any]], Any], count: int) -> Callable[[Any, dict[str, Any]], Any]:
        def write(inner: Any, arguments: dict[str, Any]) -> Any:
            key = author(arguments)
            rows.check(arguments["self"], key)
            made = inner(**arguments)
            rows.add(arguments, key, count)
            return made

        return write

    before(ObjectStash, "set", counted(_author, 1))
    before(ObjectStash, "update", counted(itemgetter("credentials"), 0))


class _Rows:
    """Upper bounds of the rows of each kind that an account has, and of their bytes.

    The counters still include rows that were deleted or overwritten meanwhile. So the rows are counted again
    before anything is refused.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, stash: Any, key: Any) -> None:
        """Check whether an account may write another row.

        Raises:
            SyftException: an account that is not staff has too many rows or bytes of this kind.
        """
        from syft.types.errors import SyftException

        what = (stash.table.name, key.verify)
        count, size = self._seen.get(what, (MOST_ROWS, 0))
        if count < MOST_ROWS and size < MOST_ROW_BYTES:
            return
        # Staff have no limit, so their rows are not counted.
        count, size = (0, 0) if _is_staff(stash.get_role(key)) else _rows(stash, key)
        if count >= MOST_ROWS or size >= MOST_ROW_BYTES:
            raise SyftException(
                public_message=f"An account may have {MOST_ROWS} things of one kind and "
                f"{MOST_ROW_BYTES // 1024**2} MiB of them on this node: ask a data owner to delete some."
            )
        with self._lock:
            self._seen[what] = (count, size)

    def add(self, arguments: dict[str, Any], key: Any, count: int) -> None:
        """Count the row that was just written. `count` is 1 for a new row, 0 for a change."""
        stash = arguments["self"]
        what = (stash.table.name, key.verify)
        size = _size_of(stash, arguments["obj"].id, arguments["session"])
        with self._lock:
            seen = self._seen.pop(what, (0, 0))
            self._seen[what] = (seen[0] + count, seen[1] + size)
            while len(self._seen) > MOST_COUNTED:
                self._seen.popitem(last=False)


def _author(arguments: dict[str, Any]) -> Any:
    """Return the key of a new row's owner.

    The node's root key owns results that nobody may read yet. The user who asked for them may write them.
    """
    from syft.service.action.action_permissions import ActionPermission

    more = arguments["add_permissions"] or ()
    asked = [one.credentials for one in more if one.permission == ActionPermission.WRITE and one.credentials]
    return asked[0] if asked else arguments["credentials"]


def _rows(stash: Any, key: Any) -> tuple[int, int]:
    """Return how many rows of a table the account owns, and their bytes. An owner has write permission."""
    from sqlalchemy import func, select

    size = func.length(stash.table.c.fields)
    wanted = select(func.count(), func.coalesce(func.sum(size), 0)).select_from(stash.table)
    with stash.sessionmaker() as session:
        own = stash.table.c.permissions.contains(f"{key.verify}_WRITE")
        count, total = session.execute(wanted.where(own)).one()
    return int(count), int(total)


def _size_of(stash: Any, uid: Any, session: Any) -> int:
    """Return the bytes of one row. `session` is the session that wrote the row, if it is still open."""
    from sqlalchemy import func, select

    wanted = select(func.length(stash.table.c.fields)).where(stash._get_field_filter("id", uid))
    with contextlib.nullcontext(session) if session else stash.sessionmaker() as asked:
        return int(asked.execute(wanted).scalar() or 0)


def _close_blobs() -> None:
    from syft.service.blob_storage.service import BlobStorageService
    from syft.types.errors import SyftException

    def allocate(inner: Any, arguments: dict[str, Any]) -> Any:
        context, size = arguments["context"], arguments["obj"].file_size
        if not is_bounded(context):
            return inner(**arguments)
        if size < 0:
            raise SyftException(public_message="A blob has a size.")
        # Two concurrent calls must not both take the last place.
        with _one_at_a_time:
            if not has_room(context.server, size):
                raise SyftException(public_message=FULL)
            count, total = _kept(arguments["self"].stash, context.credentials)
            if count >= MOST_BLOBS or total + size > MOST_BYTES:
                raise SyftException(
                    public_message=f"An account may have {MOST_BLOBS} blobs and {MOST_BYTES // 1024**2} MiB "
                    "of them on this node: ask a data owner to delete some."
                )
            return inner(**arguments)

    before(BlobStorageService, "allocate", allocate)


def _kept(stash: Any, key: Any) -> tuple[int, int]:
    """Return how many blobs the account has, and their bytes. A query counts: syft would build each blob."""
    from sqlalchemy import func, select

    size = stash.table.c.fields["file_size"].as_integer()
    wanted = select(func.count(), func.coalesce(func.sum(size), 0))
    with stash.sessionmaker() as session:
        count, total = session.execute(wanted.where(stash._get_field_filter("uploaded_by", key))).one()
    return int(count), int(total)


def written(context: Any, entry: Any, size: int) -> None:
    """Refuse a blob that is larger than its announced size.

    Raises:
        SyftException: the blob is larger, and the caller has limits.
    """
    from syft.types.errors import SyftException

    if is_bounded(context) and size > entry.file_size:
        raise SyftException(public_message="The blob is larger than was said.")


def is_bounded(context: Any) -> bool:
    """Whether the caller has limits: every role below data owner."""
    return not _is_staff(context.server.get_role_for_credentials(context.credentials))


def _is_staff(role: Any) -> bool:
    from syft.service.user.user_roles import ServiceRole

    return bool(role.value >= ServiceRole.DATA_OWNER.value)


def has_room(server: Any, size: int = 0) -> bool:
    """Whether the disk has room for `size` more bytes without the reserved part."""
    disk = shutil.disk_usage(server.blob_store_config.client_config.base_directory)
    return bool(disk.free - size >= min(SPARED_BYTES, disk.total // SPARED_SHARE))


def trim(context: Any) -> None:
    """Delete the oldest association requests beyond `MOST_ASSOCIATIONS`, with their notifications.

    The newest requests stay: somebody waits for them. `asgi` limits the rate of callers who send many.
    """
    from syft.service.network.association_request import AssociationRequestChange

    root, services = context.server.verify_key, context.server.services
    asked = [
        one
        for one in services.request.stash.get_all(root, has_permission=True).unwrap()
        if not one.history and any(isinstance(change, AssociationRequestChange) for change in one.changes)
    ]
    asked.sort(key=lambda one: one.request_time.utc_timestamp)
    gone = {one.id: one.requesting_user_verify_key for one in asked[: max(0, len(asked) - MOST_ASSOCIATIONS)]}
    notes = services.notification.stash
    for uid, key in gone.items():
        # A concurrent call may have deleted it already.
        services.request.stash.delete_by_uid(root, uid, has_permission=True)
        for note in notes.get_all(root, has_permission=True, filters={"from_user_verify_key": key}).unwrap():
            if note.linked_obj is not None and note.linked_obj.object_uid == uid:
                notes.delete_by_uid(root, note.id, has_permission=True)
