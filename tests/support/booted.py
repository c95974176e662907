"""A cloud with one machine, which the test itself boots: the target `booted`, and the command line with it.

It makes nothing but what is common to all clouds (`gridup_infra.vm`). Run as a program it is `gridup` with
this target among the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pulumi

from gridup_infra import targets
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.base import Inspection, NodeStatus, StackRef
from gridup_infra.vm.node import MACHINE, node_outputs
from gridup_infra.vm.resources import ManagementKey, declare, turned
from gridup_infra.vm.target import MachineTarget
from support.cli import REPOSITORY, Cli

ADDRESS_VARIABLE, ID_VARIABLE = "BOOTED_ADDRESS", "BOOTED_ID"

PUBLIC_KEY = "public_key"
"""Among the facts of the outputs: what the test boots the machine with."""


class BootedTarget(MachineTarget):
    """The machine at `BOOTED_ADDRESS`, which is another one as soon as `BOOTED_ID` is."""

    name: ClassVar[str] = "booted"
    title: ClassVar[str] = "a machine of the test's"

    def preflight(self, spec: DeploySpec, current: NodeOutputs | None) -> None: ...

    def build(self, spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
        address, machine = os.environ[ADDRESS_VARIABLE], os.environ[ID_VARIABLE]
        common = {"stack": spec.stack, "stack_id": spec.stack_id, "name": spec.name}
        key = ManagementKey("management-key", {**common, **turned(spec)})
        id_ = pulumi.Output.from_input(machine)
        vm = declare(spec, key, id_, pulumi.Output.from_input(address), [key], id_)
        return pulumi.Output.all(vm=vm, key=key.public_key).apply(
            lambda known: node_outputs(
                spec, address, known["vm"], {MACHINE: machine, PUBLIC_KEY: known["key"]}
            )
        )

    def summary(self, spec: DeploySpec) -> tuple[str, ...]:
        return ("a node on the machine",)

    def data(self, spec: DeploySpec) -> str:
        return "its folder there"

    def inspect(self, outputs: NodeOutputs) -> Inspection:
        return Inspection(NodeStatus.RUNNING)

    def leftovers(self, identity: StackRef) -> tuple[str, ...]:
        return ()

    def delete_all(self, identity: StackRef) -> None: ...


@dataclass
class BootedCli(Cli):
    """`gridup` that knows the target."""

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        made = super().env(extra)
        return {**made, "PYTHONPATH": f"{made['PYTHONPATH']}{os.pathsep}{REPOSITORY / 'tests'}"}

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-m", "support.booted"]


if __name__ == "__main__":
    targets._REGISTRY["booted"] = "support.booted:BootedTarget"
    from gridup.__main__ import main

    main()
