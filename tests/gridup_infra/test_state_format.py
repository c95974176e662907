"""What the state promises: what one Gridup has deployed, the next one must be able to read and destroy."""

from __future__ import annotations

import importlib
import json

import pytest

from gridup_infra import targets
from support import state_format
from support.state_format import FILE, SUBSCRIPTION

PROMISED = json.loads(FILE.read_text())

MEANT = (
    "The state of nodes that are deployed has other names. If that is meant, say so in CHANGELOG.md and run "
    "`python -m support.state_format`."
)


@pytest.mark.parametrize("name", targets.names())
def test_the_resources_of_a_target_are_those_of_the_stacks_that_are_deployed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", SUBSCRIPTION)
    assert state_format.of_target(name) == PROMISED["targets"].get(name), MEANT


def test_the_configuration_and_the_outputs_of_a_stack_keep_their_names() -> None:
    assert state_format.of_stack() == PROMISED["stack"], MEANT


def test_each_provider_of_a_deployed_stack_is_found_by_its_class_path() -> None:
    """The engine unpickles it from there at a refresh and a destroy."""
    rows = [row for resources in PROMISED["targets"].values() for row in resources.values()]
    paths = {row["provider"] for row in rows if "provider" in row}
    assert len(paths) > 20
    for path in paths:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path
