from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from gridup_infra.processes import run, wait_until

from .conftest import ROOT, Checkout, base_python, copy, requirement

pytestmark = pytest.mark.tier("gate")


def answer(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What the stub told about its start."""
    assert result.returncode in (0, 7), result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """The one error of a run that could not begin: at most two lines, after the lines of progress."""
    lines = result.stderr.splitlines()
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    start = next(number for number, line in enumerate(lines) if line.startswith("Error: "))
    assert len(lines) - start <= 2, result.stderr
    return "\n".join(lines[start:])


def nothing_half_made(checkout: Checkout) -> bool:
    return all((path / "made").is_file() for path in (checkout.root / ".venvs").glob("cli-*"))


def test_the_first_run_makes_the_environment_and_hands_everything_over(checkout: Checkout) -> None:
    result = checkout.run("deploy", "--name", "a  b", "", "$HOME*", "fail")
    told = answer(result)
    assert result.returncode == 7
    assert told["argv"] == ["deploy", "--name", "a  b", "", "$HOME*", "fail"]
    assert "Making the Python" in result.stderr
    assert len(result.stderr.splitlines()) == 2
    for source in ("infra", "cli"):
        assert str(checkout.root / source) in told["path"]


def test_the_second_run_starts_no_process_and_says_nothing(checkout: Checkout) -> None:
    first = answer(checkout.run())
    # Without a PATH nothing but bash's own commands can run.
    result = subprocess.run(
        [shutil.which("bash") or "bash", checkout.script, "x"],
        env=checkout.env | {"PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (answer(result)["argv"], result.stderr) == (["x"], "")
    assert answer(result)["prefix"] == first["prefix"]


def test_its_bytecode_is_compiled(checkout: Checkout) -> None:
    prefix = Path(answer(checkout.run())["prefix"])
    assert list(prefix.glob("lib/*/site-packages/shellingham/__pycache__/*.pyc"))


def test_nothing_of_the_current_folder_or_pythonpath_is_imported(checkout: Checkout, tmp_path: Path) -> None:
    for name in ("gridup.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    assert answer(checkout.run(cwd=tmp_path, PYTHONPATH=str(tmp_path)))["argv"] == []


def test_it_runs_through_links_and_from_anywhere(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gridup").symlink_to(checkout.script)
    (tmp_path / "bin/again").symlink_to("gridup")
    (tmp_path / "link").symlink_to(checkout.root)
    first = answer(checkout.run())
    for script, cwd in (
        (f"{tmp_path}/bin/gridup", tmp_path),
        (f"{tmp_path}/bin/again", tmp_path),
        (f"{tmp_path}/link/scripts/gridup", tmp_path),
        ("scripts/gridup", checkout.root),
        ("./gridup", checkout.root / "scripts"),
        ("../scripts/gridup", checkout.root / "cli"),
    ):
        result = checkout.run(script=script, cwd=cwd)
        assert (answer(result)["prefix"], result.stderr) == (first["prefix"], "")
    result = subprocess.run(
        ["bash", "gridup"], cwd=checkout.root / "scripts", env=checkout.env, capture_output=True, text=True
    )
    assert answer(result)["prefix"] == first["prefix"]


def test_another_lock_makes_another_environment_and_the_former_one_is_kept(checkout: Checkout) -> None:
    lock = checkout.root / "requirements/cli.txt"
    before = lock.read_text()
    first = answer(checkout.run())["prefix"]
    lock.write_text(before + requirement("text-unidecode"))
    # As old as may be: it is the content that counts.
    os.utime(lock, (0, 0))
    result = checkout.run()
    second = answer(result)["prefix"]
    assert "Making the Python" in result.stderr
    assert Path(first).is_dir()
    lock.write_text(before)
    result = checkout.run()
    assert answer(result)["prefix"] == first != second
    assert "Making the Python" not in result.stderr
    lock.write_text(before + "# a third one\n")
    answer(checkout.run())
    assert len(checkout.environments()) == 2


def test_what_a_clouds_first_use_adds_makes_no_other_environment(checkout: Checkout) -> None:
    answer(checkout.run("--help"))
    (name,) = checkout.environments()
    packages = next((checkout.root / ".venvs" / name).glob("lib/python3.*/site-packages"))
    (packages / ".gridup").mkdir()
    (packages / "boto3").mkdir()
    result = checkout.run("--help")
    assert (result.stderr, checkout.environments()) == ("", [name])


def test_a_moved_checkout_makes_its_own(checkout: Checkout, tmp_path: Path) -> None:
    answer(checkout.run())
    checkout.root = checkout.root.rename(tmp_path / "moved")
    told = answer(checkout.run())
    assert told["prefix"].startswith(str(checkout.root))
    assert str(checkout.root / "infra") in told["path"]


def test_another_python_makes_another_environment(checkout: Checkout, tmp_path: Path) -> None:
    wrapper = tmp_path / "python-of-mine"
    wrapper.symlink_to(base_python())
    first = answer(checkout.run())["prefix"]
    assert answer(checkout.run(GRIDUP_PYTHON=str(wrapper)))["prefix"] != first


def test_a_python_that_is_gone_or_newer_makes_another_environment(checkout: Checkout) -> None:
    first = answer(checkout.run())["prefix"]
    made = Path(first) / "made"
    # As after an update of the machine's Python in its place.
    os.utime(made, (1, 1))
    second = answer(checkout.run())["prefix"]
    assert second != first
    made = Path(second) / "made"
    made.write_text(made.read_text().replace(base_python(), "/nowhere/python3"))
    assert answer(checkout.run())["prefix"] != second


def test_a_damaged_environment_is_made_anew(checkout: Checkout) -> None:
    first = answer(checkout.run())["prefix"]
    (Path(first) / "bin/python").unlink()
    assert answer(checkout.run())["prefix"] != first


def test_two_runs_at_once_make_it_once(checkout: Checkout, tmp_path: Path) -> None:
    uv, at, go = os.readlink(checkout.tools / "uv"), tmp_path / "at", tmp_path / "go"
    wait = f"echo >{at} && while [ ! -e {go} ]; do sleep 0.1; done"
    checkout.tool("uv", f'[ "$1" = venv ] && {wait}; exec {uv} "$@"')
    first = checkout.start("one")
    assert wait_until(at.exists, timeout=120)
    second = checkout.start("two")
    assert second.stderr is not None
    met = second.stderr.readline()
    go.touch()
    outputs = [process.communicate(timeout=120) for process in (first, second)]
    assert [json.loads(out)["argv"] for out, _ in outputs] == [["one"], ["two"]]
    assert ["Making the Python" in err for _, err in outputs] == [True, False]
    assert "Waiting for another run: making the Python environment" in met
    assert len(checkout.environments()) == 1


@pytest.mark.parametrize("step", ["venv", "pip"])
def test_a_killed_run_leaves_nothing_that_is_used(checkout: Checkout, tmp_path: Path, step: str) -> None:
    uv, at = os.readlink(checkout.tools / "uv"), tmp_path / "at"
    checkout.tool("uv", f'[ "$1" = {step} ] && echo >{at} && sleep 60; exec {uv} "$@"')
    killed = checkout.start()
    assert wait_until(at.exists, timeout=120)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=120)
    assert not (checkout.root / ".venvs/cli").exists()
    checkout.link("uv", uv)
    assert answer(checkout.run("x"))["argv"] == ["x"]
    assert len(checkout.environments()) == 1
    assert nothing_half_made(checkout)


def test_ctrl_c_ends_it_at_once_and_leaves_nothing(checkout: Checkout, tmp_path: Path) -> None:
    uv, at = os.readlink(checkout.tools / "uv"), tmp_path / "at"
    checkout.tool("uv", f'[ "$1" = pip ] && echo >{at} && sleep 600; exec {uv} "$@"')
    stopped = checkout.start()
    assert wait_until(at.exists, timeout=120)
    os.killpg(stopped.pid, signal.SIGINT)
    out, err = stopped.communicate(timeout=120)
    assert (stopped.returncode, out) == (130, "")
    assert "Interrupted" in err
    assert "Traceback" not in err
    assert checkout.environments() == []


def test_a_shim_without_a_python_behind_it_is_passed_over(checkout: Checkout, tmp_path: Path) -> None:
    shims = tmp_path / "shims"
    shims.mkdir()
    for name in ("python3", "python3.14", "uv"):
        (shims / name).write_text("#!/bin/sh\necho 'shim: command not found' >&2; exit 127\n")
        (shims / name).chmod(0o755)
    result = checkout.run(PATH=f"{shims}:{checkout.tools}")
    answer(result)
    assert "Fetching uv" not in result.stderr


def test_an_old_python3_is_passed_over(checkout: Checkout) -> None:
    checkout.tool("python3", "echo old 3.9.2")
    checkout.link("python3.11", base_python())
    answer(checkout.run())


@pytest.mark.parametrize(
    ("script", "said"),
    [(None, "none was found."), ("echo old 3.9.2", "python3 is 3.9.2"), ("exit 1", "none was found.")],
)
def test_without_a_python_one_error_says_so(checkout: Checkout, script: str | None, said: str) -> None:
    (checkout.tools / "python3").unlink()
    if script:
        checkout.tool("python3", script)
    error = refusal(checkout.run())
    assert "needs Python 3.10 or newer" in error
    assert said in error
    assert "apt install python3 python3-venv" in error


def test_a_named_python_that_does_not_work_is_named(checkout: Checkout) -> None:
    assert "GRIDUP_PYTHON=/nowhere/python3" in refusal(checkout.run(GRIDUP_PYTHON="/nowhere/python3"))


def bare_python(folder: Path) -> Path:
    """A real Python without ensurepip, as Debian's without python3-venv."""
    minor = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = folder / "lib" / minor
    library.mkdir(parents=True)
    for path in Path(os.__file__).parent.iterdir():
        if path.name not in ("ensurepip", "site-packages", "__pycache__"):
            (library / path.name).symlink_to(path)
    (folder / "bin").mkdir()
    python = folder / "bin" / minor
    shutil.copy(base_python(), python)
    asked = run([python, "-I", "-c", "import venv, json; import ensurepip"], timeout=20)
    assert "No module named 'ensurepip'" in asked.stderr, asked
    return python


def test_without_venv_and_uv_one_error_names_the_package(checkout: Checkout, tmp_path: Path) -> None:
    checkout.link("python3", bare_python(tmp_path / "bare"))
    (checkout.tools / "uv").unlink()
    error = refusal(checkout.run())
    assert "no ensurepip" in error
    assert "apt install python3-venv" in error
    assert checkout.environments() == []
    # One that has the modules is taken before one that does not.
    checkout.link("python3.12", base_python())
    checkout.tool("uv", f'exec {find_uv_bin()} "$@"')
    made = Path(answer(checkout.run())["prefix"]) / "made"
    assert made.read_text().splitlines()[1] == base_python()


def test_without_venv_but_with_uv_it_works(checkout: Checkout, tmp_path: Path) -> None:
    checkout.link("python3", bare_python(tmp_path / "bare"))
    answer(checkout.run())


@pytest.mark.tier("deep")
@pytest.mark.parametrize("own", ["none", "old"])
def test_without_a_usable_uv_the_pinned_one_is_fetched_once(checkout: Checkout, own: str) -> None:
    (checkout.tools / "uv").unlink()
    if own != "none":
        checkout.tool("uv", "echo uv 0.4.30")
    result = checkout.run()
    answer(result)
    assert "Fetching uv" in result.stderr
    uv = run([checkout.root / ".venvs/bootstrap/bin/uv", "--version"], timeout=20).stdout.split()[1]
    assert requirement("uv").startswith(f"uv=={uv} ")
    lock = checkout.root / "requirements/cli.txt"
    lock.write_text(lock.read_text() + "# changed\n")
    assert "Fetching uv" not in checkout.run().stderr


@contextmanager
def index() -> Iterator[tuple[str, list[str]]]:
    """A package index that has nothing, and what it is asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.tier("deep")
@pytest.mark.parametrize(
    ("tool", "variable"),
    [
        ("uv", "UV_DEFAULT_INDEX"),
        ("uv", "UV_INDEX_URL"),
        ("uv", "PIP_INDEX_URL"),
        ("pip", "UV_DEFAULT_INDEX"),
    ],
)
def test_a_mirror_set_for_one_tool_is_used_by_both(
    checkout: Checkout, tmp_path: Path, tool: str, variable: str
) -> None:
    if tool == "pip":
        (checkout.tools / "uv").unlink()
    with index() as (url, asked):
        error = refusal(checkout.run(**{variable: url, "UV_CACHE_DIR": str(tmp_path / "cache")}))
    assert asked
    assert all(path.startswith(f"/simple/{'shellingham' if tool == 'uv' else 'uv'}") for path in asked)
    assert error


@pytest.mark.tier("deep")
@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_without_a_network_one_error_says_so(checkout: Checkout, tmp_path: Path, tool: str) -> None:
    if tool == "pip":
        (checkout.tools / "uv").unlink()
    dead = {
        "UV_DEFAULT_INDEX": "http://me:S3cret@127.0.0.1:9/simple",
        "UV_HTTP_RETRIES": "0",
        "PIP_RETRIES": "0",
    }
    error = refusal(checkout.run(**dead, UV_CACHE_DIR=str(tmp_path / "cache"), PIP_FIND_LINKS=""))
    assert f"{tool} could not get the packages" in error
    assert "HTTPS_PROXY" in error
    assert "S3cret" not in error
    assert checkout.environments() == []


def test_a_wrong_hash_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    lock = checkout.root / "requirements/cli.txt"
    lock.write_text(f"shellingham==1.5.4 --hash=sha256:{'0' * 64}\n")
    error = refusal(checkout.run(UV_CACHE_DIR=str(tmp_path / "cache")))
    assert "gave something else than the lock names: Hash mismatch for `shellingham==1.5.4`" in error
    assert checkout.environments() == []


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    folder.mkdir()
    argv = ["/bin/mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", folder]
    if os.geteuid() != 0 or not run(argv, timeout=20).ok:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        run(["/bin/umount", folder], timeout=20)


def test_a_small_disk_is_refused_before_the_work(checkout: Checkout, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 8) as disk:
        copy(disk / "checkout")
        checkout.root = disk / "checkout"
        error = refusal(checkout.run())
        assert "needs 250 MB" in error
        assert "Free some space" in error


@pytest.mark.parametrize("megabytes", [1, 2])
def test_a_disk_that_fills_is_one_clear_error(checkout: Checkout, tmp_path: Path, megabytes: int) -> None:
    with small_disk(tmp_path / "small", megabytes) as disk:
        copy(disk / "checkout")
        checkout.root = disk / "checkout"
        maker = checkout.root / "scripts/make_env.py"
        maker.write_text(maker.read_text().replace("250_000_000", "0"))
        lock = checkout.root / "requirements/cli.txt"
        lock.write_text(requirement("pygments"))
        error = refusal(checkout.run())
        assert "The disk is full" in error
        assert checkout.environments() == []


def test_a_checkout_that_may_not_be_written_is_one_clear_error() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can try what another person may not do")
    # Not below pytest's own folder, which others can't enter.
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "checkout"
        copy(root)
        run(["/bin/chmod", "-R", "a+rX", folder], timeout=20)
        result = subprocess.run(
            [root / "scripts/gridup"],
            env={"PATH": "/usr/bin:/bin"},
            user=65534,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )
        error = refusal(result)
        assert ".venvs can't be written: Permission denied" in error
        assert "folder of your own" in error


@pytest.mark.tier("deep")
def test_the_real_environment_runs_the_real_command_line(tmp_path: Path, checkout: Checkout) -> None:
    shutil.rmtree(checkout.root)
    ignored = shutil.ignore_patterns(".*", "__pycache__", "tests", "docs")
    shutil.copytree(ROOT, checkout.root, ignore=ignored)
    result = checkout.run("--help")
    assert result.returncode == 0, result.stderr
    assert "deploy" in result.stdout
