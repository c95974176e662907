"""Inspection of a node on Azure: whether its VM runs, and its drift."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from gridup_infra.naming import typed
from gridup_infra.outputs import NodeOutputs
from gridup_infra.targets.azure import firewall, kinds, machines, naming
from gridup_infra.targets.azure.client import Arm
from gridup_infra.targets.azure.kinds import Thing
from gridup_infra.targets.base import Inspection, NodeStatus
from gridup_infra.vm.node import MACHINE


def inspect(arm: Arm, outputs: NodeOutputs) -> Inspection:
    """See `Target.inspect`. Makes its calls in parallel."""
    facts, spec = outputs.facts, outputs.spec
    group, project = facts["group"], facts["project"]
    wanted = {kinds.INTERFACE: project, kinds.GROUP: project, kinds.DISK: naming.data_disk(spec)}
    if not spec.private:
        wanted[kinds.ADDRESS] = project
    if not spec.subnet_id:
        wanted[kinds.NETWORK] = project
    with ThreadPoolExecutor(max_workers=6) as pool:
        asked = {kind: pool.submit(kinds.get, arm, group, kind, name) for kind, name in wanted.items()}
        vm = machines.get(arm, group, facts["vm"])
        there = {kind: answer.result() for kind, answer in asked.items()}
    ours = {kind: thing for kind, thing in there.items() if thing and kinds.is_of(thing, spec.stack_id)}
    problems = [f"the {_title(kind)} is gone" for kind in wanted if kind not in ours]
    if kinds.GROUP in ours:
        rules = firewall.rules(spec.allow_cidr, spec.web_cidr, shared=bool(spec.subnet_id))
        problems += firewall.drift(ours[kinds.GROUP], rules)
    if vm is None or (vm.get("properties") or {}).get("vmId") != facts[MACHINE]:
        gone = f"the VM {facts['vm']} is gone"
        return Inspection(NodeStatus.MISSING, (gone, *problems))
    power = machines.power_of(vm)
    if power is NodeStatus.DEGRADED:
        problems.insert(0, "the VM is not running")
    problems += _drift(vm, outputs, ours)
    if power is NodeStatus.STOPPED:
        stop = f"`{typed('stop', spec.name)}` deallocates it"
        notes = (f"stopped, still billed: {stop}",) if machines.is_billed(vm) else ()
        return Inspection(power, tuple(problems), notes=notes)
    # Azure knows nothing about the node on the VM, so with a node the inspection is not complete.
    return Inspection(NodeStatus.DEGRADED if problems else power, tuple(problems), complete=spec.no_node)


def _title(kind: kinds.ResourceKind) -> str:
    return "data disk" if kind is kinds.DISK else kind.title


def _drift(vm: Thing, outputs: NodeOutputs, ours: dict[kinds.ResourceKind, Thing]) -> list[str]:
    had = vm.get("properties") or {}
    problems = []
    size = str((had.get("hardwareProfile") or {}).get("vmSize") or "")
    if size.lower() != outputs.spec.size.lower():
        problems.append(f"the VM is a {size}, not a {outputs.spec.size}")
    disks = (had.get("storageProfile") or {}).get("dataDisks") or ()
    attached = {str((row.get("managedDisk") or {}).get("id") or "").lower() for row in disks}
    disk = ours.get(kinds.DISK)
    if disk and str(disk["id"]).lower() not in attached:
        problems.append("the data disk is not attached to the VM")
    interface = ours.get(kinds.INTERFACE)
    if interface and kinds.ADDRESS in ours:
        rows = (interface.get("properties") or {}).get("ipConfigurations") or ()
        held = {
            str(((row.get("properties") or {}).get("publicIPAddress") or {}).get("id") or "").lower()
            for row in rows
        }
        if str(ours[kinds.ADDRESS]["id"]).lower() not in held:
            problems.append("the address does not lead to the VM")
    return problems
