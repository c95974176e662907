from __future__ import annotations

import json
from pathlib import Path

import pytest

from gridup.setup import build
from gridup_infra.processes import run

pytestmark = pytest.mark.tier("deep")

ASK = """
import json, pathlib, tempfile
import gridup, gridup_infra
from gridup.setup import build
folder = pathlib.Path(tempfile.mkdtemp()) / "module"
build._write_module(folder)
files = sorted(path.name for path in folder.iterdir())
print(json.dumps({"go": build.needed_go(), "files": files, "at": gridup.__file__}))
"""


def test_an_installed_wheel_brings_the_engines_module(installed_wheel: Path, tmp_path: Path) -> None:
    result = run([installed_wheel / "python", "-I", "-c", ASK], timeout=60, cwd=tmp_path)
    assert result.ok, result.stderr
    answer = json.loads(result.stdout)
    assert answer["go"] == build.needed_go()
    assert answer["files"] == sorted([*build.MODULE_FILES, "tmp"])
    assert answer["at"].startswith(str(installed_wheel.parent))


GET = """
import importlib, json, sys
from gridup.setup import extras
extra, *modules = sys.argv[1:]
said = []
for _ in range(2):
    extras.ensure(extra, said.append)
for module in modules:
    importlib.import_module(module)
print(json.dumps({"said": said, "lock": str(extras.lock_of(extra))}))
"""


@pytest.mark.parametrize(("extra", "modules"), [("aws", ("boto3", "asyncssh"))])
def test_it_installs_a_clouds_sdk_at_its_first_use(
    installed_wheel: Path, tmp_path: Path, extra: str, modules: tuple[str, ...]
) -> None:
    without = run([installed_wheel / "python", "-I", "-c", f"import {modules[0]}"], timeout=60, cwd=tmp_path)
    assert not without.ok, "the base install has it already"
    result = run([installed_wheel / "python", "-I", "-c", GET, extra, *modules], timeout=300, cwd=tmp_path)
    assert result.ok, result.stderr
    answer = json.loads(result.stdout)
    (said,) = answer["said"]
    assert said.startswith(f"Installing the packages of {extra}, once: ")
    assert all(module in said for module in modules)
    assert answer["lock"].startswith(str(installed_wheel.parent))


def test_its_command_starts(installed_wheel: Path, tmp_path: Path) -> None:
    result = run([installed_wheel / "gridup", "--help"], timeout=60, cwd=tmp_path)
    assert result.ok, result.stderr
    assert "deploy" in result.stdout
