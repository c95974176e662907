"""When a machine's own updates may restart it, as its own program sets it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gridup_node.vm.docker_cli import Completed, Failed
from gridup_node.vm.updates import DUE, PACKAGES, REQUIRED, Updates, parse, settings


class Root:
    """Stands for `sudo install`."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.code = 0

    def run(self, argv: Sequence[str], **more: Any) -> Completed:
        self.calls.append(list(argv))
        if self.code == 0:
            Path(argv[-1]).write_bytes(more["input"])
        return Completed(self.code, "a password is required" * bool(self.code))


def test_it_is_laid_once_and_put_right(tmp_path: Path) -> None:
    root, file = Root(), tmp_path / "90gridup-reboot"
    updates = Updates(file, root.run)
    for at in ("", "03:30", "04:00"):
        assert updates.problems(at) == ["when the machine's updates may restart it is not set as it was"]
        updates.lay(at)
        updates.lay(at)
        assert updates.problems(at) == []
    assert len(root.calls) == 3
    file.write_text(settings("03:30"))
    assert updates.problems("") != []


def test_where_the_updates_are_the_owners_nothing_is_touched(tmp_path: Path) -> None:
    root = Root()
    updates = Updates(tmp_path / "file", root.run)
    updates.lay(None)
    assert updates.problems(None) == []
    assert root.calls == []


def test_where_it_cannot_be_set_that_is_said(tmp_path: Path) -> None:
    root = Root()
    root.code = 1
    with pytest.raises(Failed, match="could not be set: a password is required"):
        Updates(tmp_path / "file", root.run).lay("03:30")


@pytest.mark.parametrize(
    ("at", "wanted"),
    [
        ("", {"Automatic-Reboot": "false"}),
        (
            "03:30",
            {
                "Automatic-Reboot": "true",
                "Automatic-Reboot-WithUsers": "true",
                "Automatic-Reboot-Time": "03:30",
            },
        ),
    ],
)
def test_apt_reads_it_so(tmp_path: Path, at: str, wanted: dict[str, str]) -> None:
    tool = shutil.which("apt-config")
    if tool is None:
        pytest.skip("there is no apt-config")
    (tmp_path / "apt.conf").write_text(settings(at))
    argv = [tool, f"--config-file={tmp_path / 'apt.conf'}", "dump", "Unattended-Upgrade"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout
    rows = dict(line.removeprefix("Unattended-Upgrade::").split(" ", 1) for line in told.splitlines()[1:])
    assert {name: rows[name].strip('";') for name in wanted} == wanted


@pytest.mark.parametrize("packages", [None, "", "linux-image-6.12\nlinux-base\nlinux-image-6.12\n"])
def test_what_the_machine_tells_of_a_restart_is_understood(tmp_path: Path, packages: str | None) -> None:
    script = DUE[2].replace(PACKAGES, str(tmp_path / "pkgs")).replace(REQUIRED, str(tmp_path / "due"))
    if packages is not None:
        (tmp_path / "due").touch()
        if packages:
            (tmp_path / "pkgs").write_text(packages)
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=20).stdout
    found = parse(told)
    assert found == (None if packages is None else ("linux-base", "linux-image-6.12") if packages else ())
