"""The Pulumi program: a spec in, a node's outputs out. The same for `gridup` and plain `pulumi`."""

from __future__ import annotations


import pulumi

from gridup_infra import targets
from gridup_infra.outputs import EXPORT
from gridup_infra.spec import PROJECT, DeploySpec


def spec_of_stack() -> DeploySpec:
    """The spec in the configuration of the stack being run.

    Raises:
        UsageError: it has none, or not a valid one.
    """
    from pulumi.runtime.config import CONFIG

    prefix = f"{PROJECT}:"
    return DeploySpec.from_config({k: v for k, v in CONFIG.items() if k.startswith(prefix)})


def build(spec: DeploySpec) -> None:
    """Declare the node's resources and export its outputs."""
    outputs = targets.target(spec.target).build(spec)
    exports = outputs.apply(lambda node: node.exports())
    pulumi.export("name", spec.name)
    pulumi.export(EXPORT, exports.apply(lambda values: values[EXPORT]))
    pulumi.export(
        "urls", exports.apply(lambda values: {k: v for k, v in values.items() if k not in (EXPORT, "name")})
    )


def main() -> None:
    """The entry of an inline program and of `infra/__main__.py`."""
    build(spec_of_stack())


__all__ = ["build", "main", "spec_of_stack"]
