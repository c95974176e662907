"""Creates the skeleton of a target's module and its line in the registry."""

from __future__ import annotations

import sys
from pathlib import Path

MODULE = '''"""The target `{name}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.base import Capability, Inspection, NodeAccess, StackRef, Target

if TYPE_CHECKING:
    import pulumi


class {title}Target(Target):
    """Where it is, in one line."""

    name: ClassVar[str] = "{name}"
    title: ClassVar[str] = "{name}"
    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    def resolve(self, spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:
        raise NotImplementedError

    def preflight(self, spec: DeploySpec, current: NodeOutputs | None) -> None:
        raise NotImplementedError

    def build(self, spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
        raise NotImplementedError

    def summary(self, spec: DeploySpec) -> tuple[str, ...]:
        raise NotImplementedError

    def data(self, spec: DeploySpec) -> str:
        raise NotImplementedError

    def retained_on_destroy(self, spec: DeploySpec) -> tuple[str, ...]:
        raise NotImplementedError

    def inspect(self, outputs: NodeOutputs) -> Inspection:
        raise NotImplementedError

    def leftovers(self, identity: StackRef) -> tuple[str, ...]:
        raise NotImplementedError

    def delete_all(self, identity: StackRef) -> None:
        raise NotImplementedError

    def access(self, outputs: NodeOutputs) -> NodeAccess:
        raise NotImplementedError
'''

REGISTRY_END = "}\n\n_PLANNED"


def main(root: Path, name: str) -> None:
    """Write the module and the registry line. Never changes an existing target.

    Raises:
        SystemExit: a target with that name exists already.
    """
    folder = root / "infra" / "gridup_infra" / "targets"
    module, registry = folder / f"{name}.py", folder / "__init__.py"
    if module.exists() or (folder / name).exists():
        sys.exit(f"Error: there is a target {name} already.")
    title = "".join(part.capitalize() for part in name.split("_"))
    text = registry.read_text()
    line = f'    "{name}": "gridup_infra.targets.{name}:{title}Target",\n'
    module.write_text(MODULE.format(name=name, title=title))
    registry.write_text(text.replace(REGISTRY_END, line + REGISTRY_END, 1))
    sys.stdout.write(f"{module.relative_to(root)} is there and registered.\n")
    sys.stdout.write("Now: scripts/test tests/contract\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
