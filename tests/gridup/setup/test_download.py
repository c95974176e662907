from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from gridup.setup import download
from gridup.setup.binary import ENGINE_VERSION, PROVIDER, SourceError
from gridup.setup.download import Limits
from gridup.setup.engine import ensure_engine, find_engine
from gridup_infra.errors import SetupError
from gridup_infra.paths import Home
from gridup_infra.processes import run
from support.release_mirror import ARCHIVE, CHECKSUMS, Mirror, archive, engine_script

pytestmark = pytest.mark.timeout(60)

QUICK = Limits(connect=1, first=10, stall=0.5, stall_bytes=10_000, total=20, attempts=3)


def silently(_text: str) -> None: ...


def made(home: Home) -> list[str]:
    """What lies in the engines' folder, apart from the lock."""
    return sorted(path.name for path in home.engine.iterdir() if path.name != ".lock")


def test_the_release_is_downloaded_checked_and_put_in_place(home: Home, mirror: Mirror) -> None:
    told: list[str] = []
    engine = ensure_engine(home, told.append)
    assert (engine.version, engine.source) == (ENGINE_VERSION, "download")
    assert run([engine.root / "bin" / "pulumi", "version"], timeout=10).stdout == f"v{ENGINE_VERSION}\n"
    assert os.access(engine.root / "bin" / PROVIDER, os.X_OK)
    assert made(home) == [ENGINE_VERSION]
    assert any("downloading" in line and "127.0.0.1" in line for line in told)
    assert home.engine.stat().st_mode & 0o777 == 0o700


def test_the_second_time_nothing_is_asked(home: Home, mirror: Mirror) -> None:
    first = ensure_engine(home, silently)
    mirror.asked.clear()
    told: list[str] = []
    assert ensure_engine(home, told.append) == first == find_engine(home)
    assert (mirror.asked, told) == ([], [])


def test_a_wrong_checksum_is_never_used(home: Home, mirror: Mirror) -> None:
    mirror.publish(archive(), digest="a" * 64)
    with pytest.raises(SetupError, match="does not match the release's checksum"):
        ensure_engine(home, silently)
    assert made(home) == []


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "HTTP 404"),
        ({f"/{CHECKSUMS}": b"<html>sign in</html>"}, f"do not name {ARCHIVE}"),
        ({f"/{CHECKSUMS}": f"{'b' * 64}  {ARCHIVE}\n".encode()}, "HTTP 404 for the archive"),
    ],
)
def test_what_a_mirror_lacks_is_said(
    home: Home, mirror: Mirror, files: dict[str, bytes], reason: str
) -> None:
    mirror.files = files
    with pytest.raises(SetupError, match=reason):
        ensure_engine(home, silently)
    assert made(home) == []


def test_a_broken_connection_is_taken_up_where_it_broke(home: Home, mirror: Mirror) -> None:
    data = archive()
    mirror.cut = 2
    told: list[str] = []
    assert ensure_engine(home, told.append).source == "download"
    ranges = [asked for path, asked in mirror.asked if path == f"/{ARCHIVE}"]
    half = len(data) // 2
    assert ranges[:2] == [None, f"bytes={half}-"]
    assert len(ranges) == 3
    assert any("going on" in line for line in told)


def test_a_connection_that_always_breaks_ends(tmp_path: Path, mirror: Mirror) -> None:
    mirror.cut = 99
    with pytest.raises(SourceError, match="the connection broke 3 times"):
        download.get(tmp_path / "engine", silently, QUICK)


def test_a_trickle_does_not_hold_us(tmp_path: Path, mirror: Mirror) -> None:
    mirror.trickle = 0.05
    with pytest.raises(SourceError, match="too slow"):
        download.get(tmp_path / "engine", silently, QUICK)
    assert list(tmp_path.glob("**/*.tar.gz")) == []


def test_a_server_that_says_nothing_does_not_hold_us(tmp_path: Path, mirror: Mirror) -> None:
    mirror.silent = True
    with pytest.raises(SourceError, match="no answer"):
        download.get(tmp_path / "engine", silently, replace(QUICK, first=1))


def test_nobody_there_is_said(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDUP_ENGINE_URL", "http://127.0.0.1:9/pulumi")
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:9: connection refused"):
        download.get(tmp_path / "engine", silently, QUICK)


def test_an_archive_writes_nowhere_else(home: Home, mirror: Mirror, tmp_path: Path) -> None:
    evil = {"pulumi/../../evil": b"x", "/tmp/gridup-evil": b"x", "pulumi/sub/pulumi": b"x", "../pulumi": b"x"}
    good = {"./pulumi/pulumi": engine_script(), f"./pulumi/{PROVIDER}": b"#!/bin/sh\n"}
    mirror.publish(archive({**evil, **good}, {"pulumi/pulumi-link": "/etc/passwd"}))
    engine = ensure_engine(home, silently)
    assert sorted(path.name for path in (engine.root / "bin").iterdir()) == ["pulumi", PROVIDER]
    assert not list(tmp_path.rglob("*evil*"))
    assert not Path("/tmp/gridup-evil").exists()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (archive({"pulumi/pulumi": engine_script("v3.1.0"), f"pulumi/{PROVIDER}": b""}), "is 3.1.0, not"),
        (archive({"pulumi/pulumi": b"\x7fELF nonsense", f"pulumi/{PROVIDER}": b""}), "does not run"),
        (archive({"pulumi/pulumi": engine_script()}), f"has no {PROVIDER}"),
        (b"not an archive", "is damaged"),
        (archive()[:-30], "is damaged"),
    ],
)
def test_an_archive_that_is_no_engine_is_refused(
    home: Home, mirror: Mirror, data: bytes, reason: str
) -> None:
    mirror.publish(data)
    with pytest.raises(SetupError, match=reason):
        ensure_engine(home, silently)
    assert made(home) == []


def test_a_mirrors_password_is_not_shown(home: Home, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDUP_ENGINE_URL", mirror.url.replace("http://", "http://me:S3cret@"))
    told: list[str] = []
    mirror.publish(archive(), digest="a" * 64)
    with pytest.raises(SetupError) as caught:
        ensure_engine(home, told.append)
    assert "S3cret" not in f"{told} {caught.value} {caught.value.suggestion} {caught.value.details}"


def test_a_proxy_is_used(home: Home, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDUP_ENGINE_URL", "https://mirror.invalid")
    monkeypatch.setenv("HTTPS_PROXY", mirror.url)
    monkeypatch.setenv("https_proxy", mirror.url)
    with pytest.raises(SetupError, match="the proxy refused"):
        ensure_engine(home, silently)
    assert mirror.asked[0][0] == "mirror.invalid:443"


PLAIN = ["http://mirror.example", "HTTP://me:S3cret@mirror.example/pulumi", "http://localhost.example"]


@pytest.mark.parametrize("url", PLAIN)
def test_a_mirror_over_plain_http_is_refused_and_nothing_else_tried(
    home: Home, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", mirror.url)
    monkeypatch.setenv("http_proxy", mirror.url)
    monkeypatch.setenv("GRIDUP_ENGINE_URL", url)
    with pytest.raises(
        SetupError, match=r"GRIDUP_ENGINE_URL names .*example.* not downloaded over plain http"
    ) as caught:
        ensure_engine(home, silently)
    assert "https://" in caught.value.suggestion
    assert "S3cret" not in caught.value.message
    assert (mirror.asked, made(home)) == ([], [])


@pytest.mark.parametrize("file", [CHECKSUMS, ARCHIVE])
def test_a_redirect_to_plain_http_is_not_followed(
    home: Home, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", mirror.url)
    monkeypatch.setenv("http_proxy", mirror.url)
    mirror.moved = {f"/{file}": f"http://mirror.example/{file}"}
    with pytest.raises(SetupError, match=r"leads on to mirror\.example over plain http"):
        ensure_engine(home, silently)
    assert not [path for path, _ in mirror.asked if "mirror.example" in path]
    assert made(home) == []


def test_this_machine_is_not_asked_by_way_of_a_proxy(
    home: Home, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it would be another machine."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    mirror.moved = {f"/{CHECKSUMS}": f"{mirror.url}/there"}
    mirror.files["/there"] = mirror.files[f"/{CHECKSUMS}"]
    assert ensure_engine(home, silently).source == "download"


def test_without_a_mirror_the_official_addresses_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRIDUP_ENGINE_URL", raising=False)
    assert [base.split("/")[2] for base in download.bases()] == ["get.pulumi.com", "github.com"]
    monkeypatch.setenv("GRIDUP_ENGINE_URL", "https://mirror.example/pulumi/")
    assert download.bases() == ("https://mirror.example/pulumi",)
