"""The Pulumi program: a spec in, a node's outputs out. The same for `gridup` and plain `pulumi`."""

from __future__ import annotations

from dataclasses import replace

import pulumi
from pulumi.runtime.config import get_config_env

from gridup_infra import targets
from gridup_infra.errors import UsageError
from gridup_infra.naming import typed
from gridup_infra.outputs import PACKAGES, NodeOutputs
from gridup_infra.resolving import is_locked
from gridup_infra.spec import PROJECT, DeploySpec
from gridup_node import catalog


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
    """Declare the node's resources and export its outputs.

    Raises:
        UsageError: its packages were not locked for the syft version that it is to run.
    """
    check_locked(spec)
    outputs = targets.target(spec.target).build(spec)
    exports = outputs.apply(lambda node: with_packages(node).exports())
    for key in NodeOutputs.EXPORTS:
        pulumi.export(key, exports[key])


def with_packages(node: NodeOutputs) -> NodeOutputs:
    """The same, with what is installed on the node; nobody here knows what a published image has."""
    if node.spec.image or node.spec.no_node:
        return node
    pins = [*catalog.pins(node.spec.tag), *catalog.pins_of(node.spec.packages_lock)]
    return replace(node, facts={**node.facts, PACKAGES: " ".join(dict.fromkeys(pins))})


def check_locked(spec: DeploySpec) -> None:
    """Nothing, when what a node's packages were found to be is of these packages and its syft version.

    Raises:
        UsageError: it is not.
    """
    if not spec.no_node and not is_locked(spec):
        raise UsageError(
            f'The packages of "{spec.name}" are not locked for syft {catalog.resolve(spec.tag)}.',
            f"`{typed('deploy', spec.name)}` locks them.",
        )


def main() -> None:
    """The entry of an inline program and of `infra/__main__.py`."""
    build(spec_of_stack())


__all__ = ["build", "main", "spec_of_stack", "with_packages"]
