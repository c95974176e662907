from __future__ import annotations

import json
from pathlib import Path

from gridup.setup import build
from gridup_infra.processes import run

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


def test_its_command_starts(installed_wheel: Path, tmp_path: Path) -> None:
    result = run([installed_wheel / "gridup", "--help"], timeout=60, cwd=tmp_path)
    assert result.ok, result.stderr
    assert "deploy" in result.stdout
