"""Inspects a whole node at once: whether its instance runs, and its drift."""

from __future__ import annotations

from typing import Any

from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.aws import (
    addresses,
    cleanup,
    firewall,
    instances,
    kinds,
    naming,
    networks,
    volumes,
)
from gridup_infra.targets.aws.client import Cloud
from gridup_infra.targets.aws.kinds import ResourceKind, Thing
from gridup_infra.targets.base import Inspection, NodeStatus
from gridup_infra.vm.node import MACHINE

POWER = {
    "pending": NodeStatus.STARTING,
    "running": NodeStatus.RUNNING,
    "stopping": NodeStatus.STOPPED,
    "stopped": NodeStatus.STOPPED,
}


def inspect(cloud: Cloud, outputs: NodeOutputs) -> Inspection:
    """See `Target.inspect`. Makes ten describe calls in parallel, and one call for the CPU credits."""
    facts, spec = outputs.facts, outputs.spec
    there: dict[ResourceKind, dict[str, Thing]] = {kind: {} for kind in cleanup.ORDER}
    for kind, thing in cleanup.found(cloud, spec.stack_id):
        there[kind][thing[kind.id]] = thing
    machine = there[kinds.INSTANCE].get(facts[MACHINE])
    problems = _network_problems(there, spec, facts["group"])
    disk = there[kinds.VOLUME].get(facts["volume"])
    if disk is None:
        problems.append("the data disk is gone")
    elif machine and volumes.attached_to(disk) != facts[MACHINE]:
        problems.append("the data disk is not attached to the instance")
    if not spec.private:
        address = there[kinds.ADDRESS].get(facts["allocation"])
        if address is None:
            problems.append("the public address is gone")
        elif machine and addresses.holder(address) != facts[MACHINE]:
            problems.append("the address does not lead to the instance")
    if machine is None:
        gone = f"the instance {facts[MACHINE]} is gone"
        return Inspection(NodeStatus.MISSING, (gone, *problems))
    power = POWER.get(kinds.state_of(machine), NodeStatus.DEGRADED)
    wanted = {"size": spec.size, "group": facts["group"], **naming.credits_input(spec)}
    own = instances.drift(machine, wanted, instances.credits_of(cloud, machine) if spec.cpu_credits else "")
    if power is NodeStatus.STOPPED:
        return Inspection(power, (*(line for line in own if "stopped" not in line), *problems))
    problems = [*own, *problems]
    # AWS does not know whether the node on the instance is healthy.
    whole = spec.no_node
    return Inspection(NodeStatus.DEGRADED if problems else power, tuple(problems), complete=whole)


def _network_problems(there: dict[ResourceKind, dict[str, Thing]], spec: DeploySpec, group: str) -> list[str]:
    problems = []
    wanted = [kinds.KEY] if spec.subnet_id else [kinds.KEY, kinds.VPC, kinds.SUBNET]
    problems += [f"the {kind.title} is gone" for kind in wanted if not there[kind]]
    found = there[kinds.GROUP].get(group)
    if found is None:
        problems.append("the security group is gone")
    else:
        problems += firewall.drift(found, {"rules": firewall.rules(spec.allow_cidr, spec.web_cidr)})
    if not spec.subnet_id and not any("gone" in line for line in problems):
        problems += _way_out_problems(there)
    return problems


def _way_out_problems(there: dict[ResourceKind, dict[str, Thing]]) -> list[str]:
    gateways, tables = there[kinds.GATEWAY], there[kinds.ROUTES]
    if not gateways or not tables:
        return ["the network's way out is gone"]
    props: dict[str, Any] = {"vpc": next(iter(there[kinds.VPC])), "gateway": next(iter(gateways))}
    problems = networks.gateway_drift(next(iter(gateways.values())), props)
    table = next(iter(tables.values()))
    for subnet in there[kinds.SUBNET]:
        problems += networks.routes_drift(table, {**props, "subnet": subnet})
    return list(dict.fromkeys(problems))
