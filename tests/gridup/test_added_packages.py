"""`--packages`: what a data owner adds to a node, asked for, remembered, changed and taken back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gridup.package_file import LONGEST
from gridup_infra import resolving
from gridup_infra.outputs import PACKAGES
from gridup_infra.program import with_packages
from gridup_node import catalog
from support.checkpoints import outputs_for
from support.cli import Ended
from support.fake_target import FakeTarget
from support.inside import Inside, spec_of
from support.package_index import PackageIndex
from support.package_index import package_index as package_index

ON_THE_MOON = ("--cloud", "moon", "--allow-cidr", "203.0.113.0/24", "--no-wait")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "science.txt"
    path.write_text("# ours\ntinysum\n")
    return path


def deploy(inside: Inside, *words: str) -> Ended:
    return inside("deploy", "Inst", *ON_THE_MOON, *words)


def pins(inside: Inside) -> list[str]:
    return catalog.pins_of(spec_of(inside).packages_lock)


def test_they_are_locked_once_and_kept_until_they_are_taken_back(
    inside: Inside, moon: type[FakeTarget], package_index: PackageIndex, listed: Path
) -> None:
    package_index.add("tinysum", "1.0")
    said = deploy(inside, "--packages", str(listed)).ok().err
    assert said.count("Looking for 1 package beside those of the node") == 1
    assert spec_of(inside).packages == ("tinysum",) and pins(inside) == ["tinysum==1.0"]
    assert package_index.PASSWORD not in json.dumps(spec_of(inside).to_config())

    package_index.add("tinysum", "1.1")
    package_index.asked.clear()
    assert "Looking for" not in deploy(inside, "--organization", "Inst").ok().err
    assert pins(inside) == ["tinysum==1.0"] and not package_index.asked, "a deploy alone changes none"

    deploy(inside, "--rebuild").ok()
    assert pins(inside) == ["tinysum==1.1"], "what is made anew has the newest"

    listed.write_text("tinysum<1.1\n")
    deploy(inside, "--packages", str(listed)).ok()
    assert pins(inside) == ["tinysum==1.0"]

    deploy(inside, "--packages", "none").ok()
    spec = spec_of(inside)
    assert (spec.packages, spec.packages_lock) == ((), "")


def test_another_lock_of_the_nodes_own_has_them_locked_anew_and_their_versions_kept(
    inside: Inside,
    moon: type[FakeTarget],
    package_index: PackageIndex,
    listed: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    package_index.add("tinysum", "1.0")
    deploy(inside, "--packages", str(listed)).ok()
    package_index.add("tinysum", "1.1")
    before = spec_of(inside)
    newer = tmp_path / "syft-0.9.5.txt"
    newer.write_text(catalog.lock_for("latest").read_text() + "# A later Gridup's.\n")
    monkeypatch.setattr(catalog, "lock_for", lambda _tag: newer)
    assert not resolving.is_locked(before)
    deploy(inside).ok()
    assert resolving.is_locked(spec_of(inside)) and pins(inside) == ["tinysum==1.0"]


def test_a_preview_looks_for_them_too_and_keeps_nothing(
    inside: Inside, moon: type[FakeTarget], package_index: PackageIndex, listed: Path
) -> None:
    words = ("preview", "Inst", *ON_THE_MOON[:-1], "--packages")
    ended = inside(*words, str(listed))
    assert ended.code == 2 and "tinysum was not found" in ended.err
    package_index.add("tinysum", "1.0")
    package_index.add("tinyother", "1.0")
    listed.write_text("tinyother\n")
    inside(*words, str(listed)).ok()
    assert inside.engine.calls == ["preview"]


def test_with_no_node_nothing_is_looked_for_yet(
    inside: Inside, moon: type[FakeTarget], package_index: PackageIndex, listed: Path
) -> None:
    package_index.add("tinysum", "1.0")
    deploy(inside, "--packages", str(listed), "--no-node").ok()
    assert (spec_of(inside).packages, spec_of(inside).packages_lock, package_index.asked) == (
        ("tinysum",),
        "",
        [],
    )
    deploy(inside).ok()
    assert pins(inside) == ["tinysum==1.0"]


def test_a_published_image_gets_none(
    inside: Inside, moon: type[FakeTarget], package_index: PackageIndex, listed: Path
) -> None:
    package_index.add("tinysum", "1.0")
    published = ("--image", "registry.example/node@sha256:" + "0" * 64)
    asked = deploy(inside, "--packages", str(listed), *published)
    assert asked.code == 2 and "--packages: a published image has its own packages" in asked.err
    deploy(inside, "--packages", str(listed)).ok()
    later = deploy(inside, *published)
    assert later.code == 2 and "--packages none" in later.err, "they are not lost without a word"
    deploy(inside, *published, "--packages", "none").ok()
    assert spec_of(inside).image


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"humanize\n--index-url https://ada:s3cret@mirror.example/simple\n", "line 2 is an option"),
        (b"humanize @ https://ada:s3cret@mirror.example/a.whl", "line 1 is an address"),
        (b"\n# nothing\n", "names no package"),
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        (b"#" * (LONGEST + 1), "has more than 64 KB"),
    ],
)
def test_a_file_that_is_none_is_refused_before_anything_is_made(
    inside: Inside, listed: Path, content: bytes, said: str
) -> None:
    listed.write_bytes(content)
    ended = inside("deploy", "Inst", "--packages", str(listed))
    assert (ended.code, ended.out, inside.engine.calls) == (2, "", [])
    assert f"--packages {listed}" in ended.err and said in ended.err and "s3cret" not in ended.err


def test_a_file_that_is_not_there_is_named(inside: Inside, listed: Path) -> None:
    ended = inside("deploy", "Inst", "--packages", f"{listed}.no")
    assert ended.code == 2 and f"--packages {listed}.no can't be read: No such file" in ended.err


def test_a_mark_of_utf_8_and_windows_lines_are_no_part_of_a_package(
    inside: Inside, moon: type[FakeTarget], package_index: PackageIndex, listed: Path
) -> None:
    package_index.add("tinysum", "1.0")
    listed.write_bytes(b"\xef\xbb\xbftinysum>=1\r\n\r\n")
    deploy(inside, "--packages", str(listed)).ok()
    assert spec_of(inside).packages == ("tinysum>=1",)


def test_outputs_and_status_list_what_was_asked_for(inside: Inside, package_index: PackageIndex) -> None:
    package_index.add("tinysum", "1.0", needs=["tinybase"])
    package_index.add("tinybase", "2.0")
    wanted = ("tinysum", "rich")
    spec = inside.spec("Inst", packages=wanted)
    spec = replace(spec, packages_lock=resolving.lock(("tinysum",), "latest"))
    inside.lay_outputs(with_packages(outputs_for(spec, inside.home.node(spec.stack))))
    (own,) = [pin for pin in catalog.pins("latest") if pin.startswith("rich==")]
    found = inside("outputs", "Inst", "--json").ok().json
    assert found["packages"] == ["tinysum==1.0", own]
    assert f"tinysum==1.0, {own}" in inside("outputs", "Inst").ok().out
    assert "tinybase==2.0" in inside.outputs("inst").facts[PACKAGES].split()
    (row,) = inside("status", "--no-probe", "--json").ok().json
    assert row["packages"] == ["tinysum==1.0", own]


def test_a_node_without_any_says_nothing_of_them(inside: Inside) -> None:
    inside.lay("Inst")
    assert "packages" not in inside("outputs", "Inst", "--json").ok().json
    assert inside("status", "--no-probe", "--json").ok().json[0]["packages"] == []
