"""The Pulumi program: takes a spec and exports a node's outputs. `gridup` and plain `pulumi` both run it."""

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
    """Return the spec in the configuration of the stack that is being run.

    Raises:
        UsageError: the configuration has no spec, or an invalid one.
    """
    prefix = f"{PROJECT}:"
    config = pulumi.Config(PROJECT)
    # Plain Pulumi passes all keys that are set. Include unknown ones, so that a mistyped key is refused.
    told = [key.removeprefix(prefix) for key in get_config_env() if key.startswith(prefix)]
    found = {key: config.get(key) for key in {*DeploySpec.config_keys(), *told}}
    return DeploySpec.from_config({key: text for key, text in found.items() if text is not None})


def build(spec: DeploySpec) -> None:
    """Declare the node's resources and export its outputs.

    Raises:
        UsageError: the spec's packages are not locked for its syft version.
    """
    check_locked(spec)
    outputs = targets.target(spec.target).build(spec)
    exports = outputs.apply(lambda node: with_packages(node).exports())
    for key in NodeOutputs.EXPORTS:
        pulumi.export(key, exports[key])


def with_packages(node: NodeOutputs) -> NodeOutputs:
    """Return the outputs with the packages that are installed on the node.

    Unchanged for a published image, whose packages are not known here, and without a node.
    """
    if node.spec.image or node.spec.no_node:
        return node
    pins = [*catalog.pins(node.spec.tag), *catalog.pins_of(node.spec.packages_lock)]
    return replace(node, facts={**node.facts, PACKAGES: " ".join(dict.fromkeys(pins))})


def check_locked(spec: DeploySpec) -> None:
    """Check that the spec's lock was made from its packages and for its syft version.

    Raises:
        UsageError: it was not.
    """
    if not spec.no_node and not is_locked(spec):
        raise UsageError(
            f'The packages of "{spec.name}" are not locked for syft {catalog.resolve(spec.tag)}.',
            f"`{typed('deploy', spec.name)}` locks them.",
        )


def main() -> None:
    """Run the program: the entry point of inline programs and of `infra/__main__.py`."""
    build(spec_of_stack())


__all__ = ["build", "main", "spec_of_stack", "with_packages"]
