"""Enforces ownership: an account must not use objects of other accounts that syft leaves open.

syft reads some objects with the node's own key at a caller's request, and trusts some claims of callers about
themselves. Each check has a test that fails without it. For `holes`.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import wraps
from typing import Any

from gridup_node.guard import quotas
from gridup_node.guard.before import before

LONGEST_CODE = 512 * 1024
"""Characters. Python needs about a hundred times as much memory to parse them."""

_sender: ContextVar[Any] = ContextVar("_sender", default=None)
"""The key (syft's type) of the sender whose message is being built."""


def close() -> None:
    """Install all checks.

    Raises:
        AttributeError, LookupError: this syft version does not have the expected code.
    """
    _close_named_keys()
    _close_requests()
    _close_projects()
    _close_blobs()
    _close_objects()
    _close_outputs()
    _close_code()
    _close_endpoints()


def _is_staff(context: Any) -> bool:
    from syft.service.user.user_roles import ServiceRole

    role = context.server.get_role_for_credentials(context.credentials)
    return role in (ServiceRole.DATA_OWNER, ServiceRole.ADMIN)


def _close_named_keys() -> None:
    """Set the sender's key in each object sent. syft reads an object's blob with the key that it names."""
    from syft.client.api import SignedSyftAPICall
    from syft.serde import recursive
    from syft.types.syft_object import SyftBaseObject

    message: Any = SignedSyftAPICall.__dict__["message"]
    if getattr(message.fget, "closed", False):
        return
    build = recursive.rs_proto2object

    def rs_proto2object(proto: Any) -> Any:
        made, sender = build(proto), _sender.get()
        if sender is not None and isinstance(made, SyftBaseObject):
            named = getattr(made, "syft_client_verify_key", None)
            if named is not None and named != sender:
                made.syft_client_verify_key = sender
        return made

    def of_its_sender(self: Any) -> Any:
        before_ = _sender.set(self.credentials)
        try:
            return message.fget(self)
        finally:
            _sender.reset(before_)

    of_its_sender.closed = True  # type: ignore[attr-defined]
    recursive.rs_proto2object = rs_proto2object
    SignedSyftAPICall.message = property(of_its_sender)


def _close_requests() -> None:
    """Allow only requests whose approval changes what the request shows, and nothing else.

    syft has kinds of requests whose approval sets any field of any object. Its client creates none of these.
    """
    from syft.service.action.action_permissions import ActionPermission
    from syft.service.action.action_service import ActionService
    from syft.service.code.user_code_service import UserCodeService
    from syft.service.network.association_request import AssociationRequestChange
    from syft.service.request import request as kinds
    from syft.service.request.request_service import RequestService
    from syft.types.errors import SyftException
    from syft.types.result import as_result

    status, synced = kinds.UserCodeStatusChange, kinds.SyncedUserCodeStatusChange
    allowed = (kinds.ActionStoreChange, status, synced, AssociationRequestChange)

    def refuse(_self: Any, *_: Any, **__: Any) -> Any:
        raise SyftException(public_message="That can't be asked for.")

    def check(change: Any, context: Any) -> None:
        if type(change) not in allowed:
            refuse(change)
        if isinstance(change, kinds.ActionStoreChange):
            read = change.apply_permission_type == ActionPermission.READ
            if not (read and change.linked_obj.service_type is ActionService):
                refuse(change)
        elif type(change) is status:
            of_its_code(change, context)

    def of_its_code(change: Any, context: Any) -> None:
        """Check that the change sets the status of the code that it shows."""
        if change.linked_user_code.service_type is not UserCodeService:
            refuse(change)
        code = change.linked_user_code.resolve_with_context(context).unwrap()
        link, wanted = code.status_link, change.linked_obj
        same = link is not None and link.object_uid == wanted.object_uid
        if not same or link.service_type is not wanted.service_type:
            refuse(change)

    def submit(inner: Any, arguments: dict[str, Any]) -> Any:
        for change in arguments["request"].changes:
            check(change, arguments["context"])
        return inner(**arguments)

    def add_changes(inner: Any, arguments: dict[str, Any]) -> Any:
        for change in arguments["changes"]:
            check(change, arguments["context"])
        return inner(**arguments)

    before(RequestService, "submit", submit)
    before(RequestService, "add_changes", add_changes)
    # This also stops requests that an older node has accepted.
    for kind in (kinds.ObjectMutation, kinds.EnumMutation):
        kind._run = as_result(SyftException)(refuse)
    run = status._run

    @wraps(run)
    def run_of_its_code(self: Any, context: Any, apply: bool) -> Any:
        as_result(SyftException)(of_its_code)(self, context).unwrap()
        return run(self, context, apply)

    status._run = run_of_its_code


def _close_projects() -> None:
    """Limit a project to its members and staff. syft lets anybody read it and add to it."""
    from syft.service.project.project_service import ProjectService
    from syft.types.errors import SyftException

    def get_by_uid(inner: Any, arguments: dict[str, Any]) -> Any:
        found, context = inner(**arguments), arguments["context"]
        if not found.has_permission(context.credentials) and not _is_staff(context):
            raise SyftException(public_message=f"Project {arguments['uid']} not found")
        return found

    def broadcast_event(inner: Any, arguments: dict[str, Any]) -> Any:
        context, event = arguments["context"], arguments["project_event"]
        stash = arguments["self"].stash
        project = stash.get_by_uid(context.server.verify_key, uid=event.project_id).unwrap()
        if not project.has_permission(context.credentials) and not _is_staff(context):
            raise SyftException(public_message=f"Project {event.project_id} not found")
        return inner(**arguments)

    before(ProjectService, "get_by_uid", get_by_uid)
    before(ProjectService, "broadcast_event", broadcast_event)


def _close_blobs() -> None:
    """Let only the owner of a blob write it. syft lets every user write it who may read it."""
    from syft.service.blob_storage.service import BlobStorageService
    from syft.types.errors import SyftException

    def write_to_disk(inner: Any, arguments: dict[str, Any]) -> Any:
        context, uid = arguments["context"], arguments["uid"]
        entry = arguments["self"].stash.get_by_uid(credentials=context.credentials, uid=uid).unwrap()
        if entry.uploaded_by != context.credentials:
            raise SyftException(public_message="That is another's blob.")
        if type(arguments["data"]) is not bytes:
            # Other types with a buffer could be written, too. Only the bytes in a message were measured.
            raise SyftException(public_message="A blob is bytes.")
        quotas.written(context, entry, len(arguments["data"]))
        return inner(**arguments)

    before(BlobStorageService, "write_to_disk", write_to_disk)


def _close_objects() -> None:
    """Let an object name only blobs that its sender may read, and a mock only the sender's own blobs.

    A user who may read the object may then read the blob, and everybody may read a mock.
    """
    from syft.service.action.action_service import ActionService
    from syft.types.errors import SyftException
    from syft.types.twin_object import TwinObject

    def check(context: Any, part: Any, own: bool) -> None:
        uid = part.syft_blob_storage_entry_id
        if uid is None:
            return
        stash = context.server.services.blob_storage.stash
        entry = stash.get_by_uid(context.credentials, uid=uid).unwrap(
            public_message="There is no such blob, or it is not yours to read."
        )
        if own and entry.uploaded_by != context.credentials and not _is_staff(context):
            raise SyftException(public_message="A mock has a blob of its own.")

    def set_(inner: Any, arguments: dict[str, Any]) -> Any:
        context, thing = arguments["context"], arguments["action_object"]
        if isinstance(thing, TwinObject):
            check(context, thing.private_obj, own=False)
            check(context, thing.mock_obj, own=True)
        else:
            check(context, thing, own=False)
        return inner(**arguments)

    before(ActionService, "set", set_)


def _close_outputs() -> None:
    """Show the outputs of code only to the owner of the code. syft reads the outputs with the node's key."""
    from syft.service.output.output_service import OutputService

    def own(inner: Any, arguments: dict[str, Any]) -> Any:
        context = arguments["context"]
        if not _is_staff(context):
            # This raises if the code is not the caller's.
            stash = context.server.services.user_code.stash
            stash.get_by_uid(context.credentials, uid=arguments["user_code_id"]).unwrap()
        return inner(**arguments)

    def executed_by(inner: Any, arguments: dict[str, Any]) -> Any:
        context, found = arguments["context"], inner(**arguments)
        staff = _is_staff(context)
        return [one for one in found if staff or one.executing_user_verify_key == context.credentials]

    before(OutputService, "get_by_user_code_id", own)
    before(OutputService, "has_output_read_permissions", own)
    before(OutputService, "get_by_output_policy_id", executed_by)


def _close_code() -> None:
    """Limit the length of code: a parser needs much more memory than the code itself."""
    from syft.service.code.user_code import SubmitUserCode
    from syft.service.code.user_code_service import UserCodeService
    from syft.service.code_history.code_history_service import CodeHistoryService
    from syft.types.errors import SyftException

    def short(inner: Any, arguments: dict[str, Any]) -> Any:
        code = arguments["code"]
        if isinstance(code, SubmitUserCode) and len(code.code) > LONGEST_CODE:
            raise SyftException(public_message=f"Code has {LONGEST_CODE} characters at most.")
        return inner(**arguments)

    before(UserCodeService, "submit", short)
    before(UserCodeService, "request_code_execution", short)
    before(CodeHistoryService, "submit_version", short)


def _close_endpoints() -> None:
    """List an administrator's own API endpoints only to accounts."""
    from syft.service.api.api_service import APIService
    from syft.service.user.user_roles import ServiceRole
    from syft.types.result import as_result

    listed = APIService.get_endpoints

    def get_endpoints(self: Any, context: Any) -> Any:
        role = context.server.get_role_for_credentials(context.credentials)
        return listed(self, context).unwrap() if role.value > ServiceRole.GUEST.value else []

    APIService.get_endpoints = wraps(listed)(as_result(Exception)(get_endpoints))
