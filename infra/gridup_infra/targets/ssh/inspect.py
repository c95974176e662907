"""Inspects a node on a user's own machine: one login with the management key."""

from __future__ import annotations

from gridup_infra.outputs import MANAGEMENT_KEY, NodeOutputs
from gridup_infra.targets.base import Inspection, NodeStatus, ReadSecret
from gridup_infra.vm import first_boot_wait
from gridup_infra.vm.access import door_of
from gridup_infra.vm.node import HOST_KEY
from gridup_infra.vm.release_client import ReleaseClient
from gridup_infra.vm.ssh import AuthenticationError, ssh_session
from gridup_infra.vm.target import INSPECT_TIMEOUT

HOST_IS_GONE = "what Gridup made of the machine is gone"


def inspect(outputs: NodeOutputs, secret: ReadSecret) -> Inspection:
    """See `Target.inspect`.

    Raises:
        SshUnreachableError: the machine does not answer; it is not known whether it is off or gone.
    """
    key = secret(outputs.spec.stack, MANAGEMENT_KEY)
    door = door_of(outputs, key, outputs.facts.get(HOST_KEY, ""))
    try:
        with ssh_session(door, timeout=INSPECT_TIMEOUT, retry_auth=False) as session:
            state = first_boot_wait.read_state(session)
            if not state.done:
                return Inspection(NodeStatus.DEGRADED, (HOST_IS_GONE if not state.failed else str(state),))
            if outputs.spec.no_node:
                return Inspection(NodeStatus.RUNNING, complete=True)
            found = ReleaseClient(session).look()
    except AuthenticationError:
        return Inspection(
            NodeStatus.MISSING,
            (f"{outputs.address} does not let the node's user in any more: it has nothing of the node",),
        )
    problems = tuple(found["problems"])
    power = NodeStatus.DEGRADED if problems else NodeStatus.RUNNING
    return Inspection(power, problems, tuple(found["dead"]), complete=True)
