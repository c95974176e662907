"""A person without a clone: pip install the wheel, deploy, and live with the node."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.cache import shared_home
from support.cli import Cli

pytestmark = [pytest.mark.tier("deep"), pytest.mark.engine, pytest.mark.node]


@dataclass
class Installed(Cli):
    """The command of an installed wheel."""

    bin: Path = Path()

    @property
    def argv(self) -> list[str]:
        return [str(self.bin / "gridup")]

    def env(self, extra: dict[str, str] | None = None) -> dict[str, str]:  # type: ignore[override]
        made = super().env(extra)
        del made["PYTHONPATH"]
        # Not even this suite's environment may lend a hand.
        made["PATH"] = os.pathsep.join(p for p in made["PATH"].split(os.pathsep) if ".venvs" not in p)
        return made


def test_an_installed_wheel_deploys_a_node(
    installed_wheel: Path, tmp_path: Path, cache: Path, engine: Path, runtime: Path
) -> None:
    home = shared_home(tmp_path / "home", cache, runtimes=True)
    gridup = Installed(home, bin=installed_wheel)
    try:
        shown = gridup.deploy("Inst").out
        assert shown.count("✅") == 5, shown
        assert "Nothing changed" in gridup.deploy("Inst").err
        exported = gridup("env", "Inst", "--json").ok().json
        assert exported["PULUMI_PYTHON_CMD"].startswith(str(installed_wheel))
        gridup("destroy", "Inst", "--yes").ok()
        assert not gridup.node().exists()
    finally:
        gridup.destroy_all()
