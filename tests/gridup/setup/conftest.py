from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gridup_infra.paths import Home
from gridup_infra.processes import run
from support import release_mirror

ROOT = Path(__file__).resolve().parents[3]

Program = Callable[[str, str], Path]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "a home #1")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a shell script on PATH; there is no Pulumi and no Go but what a test puts there."""
    folder = tmp_path / "programs" / "bin"
    folder.mkdir(parents=True)
    for tool in ("sh", "cat", "sleep"):
        (folder / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("gridup.setup.build.GO_PLACES", ())
    monkeypatch.delenv("GOROOT", raising=False)
    # Nor does the package index bring one.
    for name in (
        "UV_FIND_LINKS",
        "UV_INDEX",
        "UV_INDEX_URL",
        "PIP_FIND_LINKS",
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_NO_CONFIG", "1")

    def make(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!{folder}/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def mirror(programs: Program, monkeypatch: pytest.MonkeyPatch) -> Iterator[release_mirror.Mirror]:
    """A good mirror, and nothing else that an engine could come from."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with release_mirror.serve() as served:
        served.publish(release_mirror.archive())
        monkeypatch.setenv("GRIDUP_ENGINE_URL", served.url)
        yield served


@pytest.fixture(scope="session")
def installed_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of a fresh environment with the built wheel in it, as `pip install` leaves it."""
    from uv import find_uv_bin

    uv, folder = find_uv_bin(), tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # From a copy: building beside others' work would leave traces there.
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "__pycache__", "dist", "tests", "docs"))
    env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source]
    venv = folder / "venv"
    wanted = ["--require-hashes", "-r", ROOT / "requirements" / "cli.txt"]
    steps = [
        build,
        [uv, "venv", "--no-project", "--python", sys.executable, venv],
        [uv, "pip", "install", "--compile-bytecode", "--python", venv / "bin/python", *wanted],
    ]
    for step in steps:
        result = run(step, timeout=600, env=env)
        assert result.ok, result.stderr + result.stdout
    (wheel,) = folder.glob("gridup-*.whl")
    result = run(
        [uv, "pip", "install", "--no-deps", "--python", venv / "bin/python", wheel], timeout=120, env=env
    )
    assert result.ok, result.stderr
    return venv / "bin"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of some MB; only root can."""
    mounted: list[Path] = []

    def mount(megabytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        argv = ["/bin/mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", folder]
        if os.geteuid() != 0 or not run(argv, timeout=20).ok:
            pytest.skip("only root can mount a small disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        run(["/bin/umount", folder], timeout=20)
