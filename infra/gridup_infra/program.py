"""The Pulumi program: a spec in, a node's outputs out. The same for `gridup` and plain `pulumi`."""

from __future__ import annotations

import pulumi
from pulumi.runtime.config import get_config_env

from gridup_infra import targets
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import PROJECT, DeploySpec


def spec_of_stack() -> DeploySpec:
    """The spec in the configuration of the stack being run.

    Raises:
        UsageError: it has none, or not a valid one.
    """
    prefix = f"{PROJECT}:"
    config = pulumi.Config(PROJECT)
    # Plain Pulumi tells all that is set, so a mistyped key is noticed.
    told = [key.removeprefix(prefix) for key in get_config_env() if key.startswith(prefix)]
    found = {key: config.get(key) for key in {*DeploySpec.config_keys(), *told}}
    return DeploySpec.from_config({key: text for key, text in found.items() if text is not None})


def build(spec: DeploySpec) -> None:
    """Declare the node's resources and export its outputs."""
    outputs = targets.target(spec.target).build(spec)
    exports = outputs.apply(lambda node: node.exports())
    for key in NodeOutputs.EXPORTS:
        pulumi.export(key, exports[key])


def main() -> None:
    """The entry of an inline program and of `infra/__main__.py`."""
    build(spec_of_stack())


__all__ = ["build", "main", "spec_of_stack"]
