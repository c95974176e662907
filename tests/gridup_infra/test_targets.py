"""The registry of targets: what there is, what is planned, and nothing loaded before it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gridup_infra import targets
from gridup_infra.errors import UsageError


def test_the_default_is_there_and_first() -> None:
    assert targets.names()[0] == targets.DEFAULT
    assert targets.target(targets.DEFAULT).name == targets.DEFAULT


@pytest.mark.parametrize("name", ["", "moon", "Local"])
def test_an_unknown_target_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(UsageError, match=f"The target {name!r} is unknown") as caught:
        targets.target(name)
    assert "local" in caught.value.suggestion


def test_a_planned_one_is_said_to_be_not_there_yet() -> None:
    assert not set(targets._PLANNED) & set(targets.names()), "what is there is planned no more"
    for name in targets._PLANNED:
        with pytest.raises(UsageError, match=f"The target {name!r} is not there yet"):
            targets.target(name)


@pytest.mark.parametrize("name", targets.names())
def test_loading_a_target_loads_no_sdk(name: str) -> None:
    code = (
        f"import sys; from gridup_infra import targets; targets.target({name!r})\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'pulumi', 'psutil', 'rich', 'boto3', 'docker', 'azure', 'slugify', 'requests'}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert ended.stdout == "[]\n"
