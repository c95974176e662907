"""A cloud's SDK at its first use: a package of our own, from a folder, into an environment of its own."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gridup.setup import extras
from gridup.setup.extras import Pin
from gridup_infra.errors import SetupError
from gridup_infra.processes import run
from gridup_infra.uv import uv
from support.cli import REPOSITORY

ASK = """
import sys
from pathlib import Path
from gridup.setup import extras
from gridup_infra import uv
from gridup_infra.errors import GridupError
extras.lock_of = lambda extra: Path(sys.argv[1])
uv.uv = lambda: sys.argv[2]
try:
    extras.ensure("moon", lambda text: print(text, flush=True))
    import tiny
    print("tiny", tiny.VERSION)
except GridupError as error:
    print(f"{type(error).__name__}: {error.message} {error.suggestion}")
"""


@dataclass
class Place:
    """An environment, the folder that packages come from, and a lock of them."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        return self.root / "venv/bin/python"

    @property
    def lock(self) -> Path:
        return self.root / "moon.txt"

    @property
    def packages(self) -> Path:
        return next(self.root.glob("venv/lib/python3*/site-packages"))

    def publish(self, version: str) -> None:
        """A wheel of `tiny`, and a lock that pins it."""
        wheel = self.root / "wheels" / f"tiny-{version}-py3-none-any.whl"
        wheel.parent.mkdir(exist_ok=True)
        info = f"tiny-{version}.dist-info"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("tiny/__init__.py", f"VERSION = {version!r}\n")
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
            archive.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{info}/RECORD", f"tiny/__init__.py,,\n{info}/METADATA,,\n{info}/RECORD,,\n")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        self.lock.write_text(
            f"tiny=={version} ; python_full_version >= '3.10' \\\n    --hash=sha256:{digest}\n"
        )

    def argv(self, uv_path: str) -> list[str]:
        return [str(self.python), "-c", ASK, str(self.lock), uv_path]

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "infra"), str(REPOSITORY / "cli")]),
            "UV_NO_INDEX": "1",
            "UV_FIND_LINKS": str(self.root / "wheels"),
            "UV_CACHE_DIR": str(self.root / "cache"),
            **(extra or {}),
        }

    def ask(self, uv_path: str = "", env: Mapping[str, str] | None = None) -> list[str]:
        result = run(self.argv(uv_path or uv()), timeout=60, env=self.env(env))
        assert result.ok, result.stderr
        return result.stdout.splitlines()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = run([uv(), "venv", "--no-project", "--python", sys.executable, tmp_path / "venv"], timeout=60)
    assert made.ok, made.stderr
    place = Place(tmp_path)
    place.publish("1.0")
    return place


def test_a_first_use_installs_it_and_says_so_and_a_second_does_nothing(place: Place) -> None:
    assert place.ask() == ["Installing the packages of moon, once: tiny", "tiny 1.0"]
    assert place.ask("/no/such/uv") == ["tiny 1.0"]


def test_another_lock_brings_another_version(place: Place) -> None:
    place.ask()
    place.publish("1.1")
    assert place.ask()[-1] == "tiny 1.1"


def test_two_at_once_install_it_once(place: Place) -> None:
    slow, go = place.root / "uv", place.root / "go"
    wait = f'while [ ! -e "{go}" ]; do sleep 0.1; done'
    slow.write_text(f'#!/bin/sh\necho >>"{place.root}/calls"; {wait}; exec "{uv()}" "$@"\n')
    slow.chmod(0o755)
    runs = [
        subprocess.Popen(place.argv(str(slow)), env=place.env(), stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    # One has begun and the others have met it: then it goes on.
    begun = [process.stdout.readline() for process in runs if process.stdout]
    go.touch()
    said = [process.communicate(timeout=120)[0].splitlines() for process in runs]
    assert [lines[-1] for lines in said] == ["tiny 1.0"] * 3
    assert (place.root / "calls").read_text() == "\n"
    assert sum("Waiting for another run: installing the packages of moon" in line for line in begun) == 2


def test_what_a_killed_run_left_is_made_whole(place: Place) -> None:
    place.ask()
    # As uv leaves it when it is killed: its metadata is there, its modules are not yet.
    (place.packages / "tiny/__init__.py").write_text("")
    cut = place.root / "uv"
    cut.write_text("#!/bin/sh\nkill -9 $PPID; sleep 20\n")
    cut.chmod(0o755)
    place.publish("1.1")
    killed = run(place.argv(str(cut)), timeout=60, env=place.env())
    assert killed.code == -9
    place.publish("1.0")
    assert place.ask()[-1] == "tiny 1.0"
    assert place.ask("/no/such/uv") == ["tiny 1.0"]


def test_without_a_network_one_error_says_so_and_the_next_run_goes_on(place: Place) -> None:
    nowhere = {"UV_NO_INDEX": "", "UV_FIND_LINKS": "", "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}
    nowhere |= {"UV_HTTP_RETRIES": "0", "NO_PROXY": "127.0.0.1"}
    (line,) = place.ask(env=nowhere)[1:]
    assert line.startswith("SetupError: The packages of moon could not be fetched: ")
    assert "HTTPS_PROXY" in line
    assert place.ask()[-1] == "tiny 1.0"


def test_a_certificate_that_is_not_trusted_is_told_as_that(place: Place) -> None:
    cut = place.root / "uv"
    cut.write_text("#!/bin/sh\necho 'error: invalid peer certificate: UnknownIssuer' >&2; exit 2\n")
    cut.chmod(0o755)
    (line,) = [text for text in place.ask(str(cut)) if text.startswith("SetupError")]
    assert "The certificate of the package index is not trusted here" in line
    assert "SSL_CERT_FILE" in line and "network" not in line


def test_what_is_not_what_the_lock_names_is_refused(place: Place) -> None:
    text = place.lock.read_text()
    place.lock.write_text(text[: text.index("sha256:")] + "sha256:" + "0" * 64 + "\n")
    (line,) = place.ask()[1:]
    assert "The package index gave something else for moon than the lock names" in line
    assert not (place.packages / "tiny").exists()


def test_an_environment_that_is_not_ours_to_write_is_one_error_with_the_way(
    place: Place,
) -> None:
    # A file in the folder's place: root may write everywhere else.
    (place.packages / extras.FOLDER).write_text("")
    (line,) = place.ask()
    assert line.startswith(f"SetupError: The packages of moon can't be installed into {place.packages}")
    (place.packages / extras.FOLDER).unlink()
    by_hand = shlex.split(line.partition("By hand, as its owner: ")[2])
    assert by_hand[0] == "uv"
    assert run([uv(), *by_hand[1:]], timeout=60, env=place.env()).ok
    assert place.ask("/no/such/uv") == ["tiny 1.0"]


def test_nothing_is_looked_at_for_a_target_without_an_sdk() -> None:
    extras.ensure("", lambda _text: pytest.fail("it said something"))


@pytest.mark.parametrize("name", ["aws"])
def test_what_is_there_is_seen_without_a_process(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a process"))
    extras.ensure(name, lambda text: pytest.fail(text))
    assert not (Path(sysconfig.get_path("purelib")) / extras.FOLDER).exists()


def test_a_lock_is_read_with_its_markers() -> None:
    text = (
        "# made by uv\nboto3==1.44.8 \\\n    --hash=sha256:00\n    # via -r -\n"
        "pycparser==3.11 ; python_full_version < '3.11' and implementation_name != 'PyPy' \\\n"
        "    --hash=sha256:00\n"
    )
    assert list(extras.read(text)) == [
        Pin("boto3", "1.44.8", ""),
        Pin("pycparser", "3.11", "python_full_version < '3.11' and implementation_name != 'PyPy'"),
    ]


@pytest.mark.parametrize(
    ("marker", "holds"),
    [
        ("", True),
        ("python_full_version >= '3.10'", True),
        ("python_full_version < '3.10'", False),
        ("python_version > '3.9' and sys_platform != 'win32'", True),
        ("sys_platform == 'win32' or implementation_name != 'cpython'", False),
        ("(sys_platform == 'win32' or python_version >= '3.10') and os_name == 'posix'", True),
    ],
)
def test_a_marker_is_understood(marker: str, holds: bool) -> None:
    assert extras.marker_matches(marker) is holds


@pytest.mark.parametrize(
    "marker", ["extra == 'aws'", "__import__('os')", "python_version", "a b", "'3' < '4'"]
)
def test_a_marker_that_is_not_understood_is_an_error(marker: str) -> None:
    with pytest.raises(SetupError, match="a marker that can't be read"):
        extras.marker_matches(marker)
