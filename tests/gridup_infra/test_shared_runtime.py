"""The environment that nodes share, and a supervisor's socket: nothing is taken from under a node."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gridup_infra.errors import BusyError, ResourceError
from gridup_infra.processes import Result
from gridup_infra.targets.local import pruning, runtime, supervisor


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """An environment, half of which is there."""
    path = tmp_path / "runtimes" / "syft-0-cp311"
    (path / "bin").mkdir(parents=True)
    shutil.copy("/bin/sleep", path / "bin" / "python")
    return path


@pytest.fixture
def running(shared: Path) -> Iterator[int]:
    with subprocess.Popen([shared / "bin" / "python", "600"]) as process:
        yield process.pid
        process.kill()


def nodes(tmp_path: Path, *programs: Path) -> Path:
    folder = tmp_path / "nodes"
    for number, program in enumerate(programs):
        config = folder / f"node-{number}" / "config"
        config.mkdir(parents=True)
        (config / "programs.json").write_text(json.dumps({"api": {"argv": [str(program)]}}))
    return folder


def test_one_that_a_deploy_has_begun_to_use_meanwhile_stays(shared: Path, tmp_path: Path) -> None:
    assert pruning.unused(shared.parent, tmp_path / "nodes") == [shared]
    used = nodes(tmp_path, shared / "bin" / "python")
    with pytest.raises(BusyError, match="is used by a node now"):
        pruning.remove(shared, used)
    assert shared.exists()


def test_so_does_one_that_something_runs_on(shared: Path, tmp_path: Path, running: int) -> None:
    assert runtime.user(shared) == running
    with pytest.raises(BusyError):
        pruning.remove(shared, nodes(tmp_path))
    assert shared.exists()


def test_one_that_nobody_uses_goes(shared: Path, tmp_path: Path) -> None:
    pruning.remove(shared, nodes(tmp_path))
    assert not shared.exists()


def test_a_damaged_one_is_not_made_anew_under_a_node(
    shared: Path, tmp_path: Path, running: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "runtime_path", lambda *_: shared)
    monkeypatch.setattr(runtime, "find_python", lambda: (sys.executable, "3.11"))
    lock = tmp_path / "syft-0.txt"
    lock.write_text("")
    with pytest.raises(ResourceError, match=f"is damaged, and process {running} runs on it"):
        runtime.ensure(shared.parent, lock, lambda _text: None)
    assert (shared / "bin" / "python").exists()


@pytest.mark.parametrize(
    "said",
    [
        "error: invalid peer certificate: UnknownIssuer for url ({url}syft/)",
        "error: Failed to fetch: `{url}syft/`",
        "{url}syft/",
    ],
)
def test_a_password_in_the_indexs_address_is_not_told_when_the_install_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    line, heard = said.format(url="https://ada:s3cret@packages.inst.example/simple/"), []

    def uv(_argv: list[str], tell: Callable[[str], None], **_: object) -> Result:
        tell(f"  {line}\n")
        return Result(("uv",), 1, f"  {line}\n", "")

    monkeypatch.setattr(runtime, "stream", uv)
    with pytest.raises(ResourceError) as caught:
        runtime._install(tmp_path, tmp_path / "syft-0.txt", heard.append)
    told = [caught.value.message, *caught.value.details, *heard]
    assert "packages.inst.example" in caught.value.message
    assert [text for text in told if "s3cret" in text or "ada" in text] == []


def test_the_supervisors_socket_is_where_it_was_whatever_tmpdir_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    before = supervisor.socket_path(long, "0" * 16)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert supervisor.socket_path(long, "0" * 16) == before
    assert len(str(before)) < supervisor.SOCKET_PATH_MAX


def test_a_folder_that_somebody_else_has_laid_for_it_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "link"
    theirs.symlink_to(tmp_path)
    open_ = tmp_path / "open"
    open_.mkdir(mode=0o755)
    open_.chmod(0o755)
    for folder in (theirs, open_):
        with pytest.raises(ResourceError, match="is not this account's alone"):
            supervisor._ensure_ours(folder)
    supervisor._ensure_ours(tmp_path / "fresh")
    supervisor._ensure_ours(tmp_path / "fresh")


def test_a_restart_of_the_machine_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = supervisor.Supervisor(tmp_path, "0" * 16)
    boots = ["first"]
    monkeypatch.setattr(supervisor, "boot", lambda: boots[-1])
    assert not one.rebooted, "it was never started"
    (tmp_path / "boot").write_text("first")
    assert not one.rebooted
    boots.append("second")
    assert one.rebooted
    boots.append("")
    assert not one.rebooted
