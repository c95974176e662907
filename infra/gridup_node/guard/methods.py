"""The table of who may call which of syft's methods.

syft opens some 50 methods to anybody with a key. This is Gridup's own table. A method that is not in the
table, such as one that a later syft adds, is closed to everybody until a developer adds it here. syft checks
its own permissions after that, and limits many of these methods to the caller's own objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class Role(IntEnum):
    """The caller's role. Each role may also do what the roles before it may do."""

    NOBODY = 0
    """A key without an account."""
    GUEST = 1
    """A key without an account, if the node shows its catalogue to guests (`--guests`)."""
    DATA_SCIENTIST = 2
    DATA_OWNER = 32
    ADMIN = 128


def _rows() -> dict[str, Role]:
    rows: dict[str, Role] = {}
    for role, text in _TABLE.items():
        for line in text.split():
            service, _, names = line.partition(":")
            for name in names.split(","):
                rows[f"{service}.{name}" if service else name] = role
    return rows


# One line for each of syft's services: `service:method,method`.
_TABLE: Mapping[Role, str] = {
    Role.GUEST: """
        action:get_mock
        dataset:get_all,search
        metadata:get_metadata
        user:get_current_user
        """,
    # `metadata` is not one of syft's methods: syft answers it before it looks for a method. syft does the
    # same for `queue`. Nobody may call `queue`: it returns a job's settings, with the node's own key.
    Role.DATA_SCIENTIST: """
        :metadata
        action:exists,get,get_pointer,has_storage_permission,is_resolved,set
        api:api_endpoints,call,call_in_jobs,call_public,call_public_in_jobs,view
        blob_storage:allocate,mark_write_complete,read,write_to_disk
        code:call,get_all,get_all_for_user,get_by_id,get_by_service_func_name,request_code_execution,submit
        code_history:get,get_all,get_history,submit_version
        code_status:get_by_uid
        dataset:get_assets_by_action_id
        job:get,get_active,get_all,get_by_user_code_id,get_subjobs,kill,restart
        log:get,get_all,get_stdout,has_storage_permission
        migration:_get_object
        network:get_all_peers,get_peer_by_name,get_peers_by_type,ping
        notifications:activate,deactivate,get_all,get_all_read,get_all_sent,get_all_unread,reply,resolve_object
        output:get,get_all,get_by_output_policy_id,get_by_user_code_id,has_output_read_permissions
        project:add_event,broadcast_event,can_create_project,create_project,get_all,get_by_name,get_by_uid
        request:get_all,get_all_approved,get_all_pending,get_all_rejected,get_by_uid,submit
        settings:welcome_show
        user:update,view
        worker:get,get_all,status
        worker_image:get_all,get_by_config,get_by_uid
        worker_pool:filter_by_image_id,get_all,get_by_name
        """,
    Role.DATA_OWNER: """
        :migration
        api:call_private,call_private_in_jobs,exists
        blob_storage:delete,get_all,get_by_uid,get_metadata
        code:store_execution_output
        code_history:delete,get_by_name_and_user_email,get_histories,get_history_for_user
        data_subject:add,get_all,get_by_name,get_members
        dataset:add,delete,get_by_action_id,get_by_id
        job:add_read_permission_job_for_code_owner,add_read_permission_log_for_code_owner
        job:create_job_for_user_code_id,update
        log:add,append,delete,restart
        notifications:clear,mark_as_read,mark_as_unread,send,user_settings
        output:create
        policy:get_all,get_by_uid
        request:add_changes,apply,delete_by_uid,filter_all_info,get_all_info,get_by_usercode_id,undo
        settings:get,welcome_customize,welcome_preview
        user:create,get_all,get_index,search
        worker:logs
        """,
    Role.ADMIN: """
        action:delete
        api:add,delete,get,get_all,get_private_context,get_public_context,set_settings,set_state,update
        code:delete,update
        code_status:get_all
        job:delete,get_by_result_id
        log:get_stderr
        network:check_peer_association,delete_peer_by_id,exchange_credentials_with
        notifications:settings
        output:get_by_job_id
        request:set_tags
        settings:allow_association_request_auto_approval,allow_guest_signup,batch_notifications
        settings:disable_notifications,enable_notifications,get_server_config,set,set_email_rate_limit,update
        user:delete,get_by_verify_key,request_password_reset
        """,
}

METHODS: Mapping[str, Role] = _rows()
"""The lowest role that may call each method."""

PEER = frozenset({"network.check_peer_association", "network.ping"})
"""Methods for the key of an associated node. With them this node proves its identity and the association."""
ASKS = "network.add_peer"
"""Creates an association request, which a user has to answer."""
ASSOCIATION = frozenset({ASKS, "network.check_peer_association", "network.get_peer_by_name", "network.ping"})
"""Methods that a network node opens to unknown keys, for association requests."""

JOBS = frozenset({"code.call", "api.call", "api.call_public", "api.call_private"})
"""Methods that may run as a job. A worker that syft starts does not check roles."""

PEER_OF_NETWORK = frozenset({"network.update_peer"})
"""Additional methods of a network node for associated nodes: to report that their own routes changed."""


def allowed(role: Role, path: str) -> bool:
    """Whether `role` may call the method at `path`."""
    least = METHODS.get(path)
    return least is not None and role >= least


def paths(role: Role) -> frozenset[str]:
    """Return all methods that `role` may call."""
    return frozenset(path for path, least in METHODS.items() if role >= least)
