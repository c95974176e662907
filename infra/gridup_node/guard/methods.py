"""Who may call which of syft's methods.

syft opens some 50 methods to anybody with a key. This is our own table: a method that is not in it, such as
one that a later syft adds, is closed to everybody until somebody opens it here. syft checks its own rights
after that, and narrows many of these to the caller's own objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class Role(IntEnum):
    """Who calls; each may do what those before it may."""

    NOBODY = 0
    """A key without an account."""
    GUEST = 1
    """A key without an account, where the node is set to show its catalogue (`--guests`)."""
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


# A line for each service of syft's: its methods.
_TABLE: Mapping[Role, str] = {
    Role.GUEST: """
        action:get_mock
        dataset:get_all,search
        metadata:get_metadata
        user:get_current_user
        """,
    # `metadata` is none of syft's methods: syft answers it before it looks for one. So it does with `queue`,
    # which nobody may call: it hands over what a job was given, the node's own key with it.
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
"""The least role that may call each method."""

PEER = frozenset({"network.check_peer_association", "network.ping"})
"""What the key of an associated node may call: we prove who we are, and that we know it still."""
ASKS = "network.add_peer"
"""Leaves a request to be associated, which somebody has to answer."""
ASSOCIATION = frozenset({ASKS, "network.check_peer_association", "network.get_peer_by_name", "network.ping"})
"""What a network node accepts of a key that it does not know: a request to be associated."""

JOBS = frozenset({"code.call", "api.call", "api.call_public", "api.call_private"})
"""What may become a job: a worker that syft starts does not look at roles."""

PEER_OF_NETWORK = frozenset({"network.update_peer"})
"""What an associated node may call of a network node beside that: its own routes have changed."""


def allowed(role: Role, path: str) -> bool:
    """Whether `role` may call the method at `path`."""
    least = METHODS.get(path)
    return least is not None and role >= least


def paths(role: Role) -> frozenset[str]:
    """All methods that `role` may call."""
    return frozenset(path for path, least in METHODS.items() if role >= least)
