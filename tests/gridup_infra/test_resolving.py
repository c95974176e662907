"""The lock of what a data owner adds: made by the real uv, of an index with a password, for every node."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gridup_infra import requirements, resolving
from gridup_infra.errors import PreflightError, ResourceError, UsageError
from gridup_infra.outputs import PACKAGES, NodeOutputs
from gridup_infra.processes import run
from gridup_infra.program import check_locked, with_packages
from gridup_infra.resolving import is_locked, lock
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.local import runtime
from gridup_infra.uv import environment, uv
from gridup_node import catalog, image
from support.package_index import PackageIndex
from support.package_index import package_index as package_index

SPEC = DeploySpec(name="Inst", stack_id="0" * 16)


def names(text: str) -> list[str]:
    return catalog.pins_of(text)


def locked(*wanted: str) -> DeploySpec:
    return replace(SPEC, packages=wanted, packages_lock=lock(wanted, "latest"))


def test_a_lock_has_what_is_asked_for_and_what_that_wants_with_hashes_and_no_address(
    package_index: PackageIndex,
) -> None:
    made = package_index.add("tinysum", "1.0", needs=["tinybase>=2", "rich"])["py3-none-any"]
    package_index.add("tinybase", "2.1")
    # The node has it, in the version of its own lock.
    own = next(
        pin.version
        for pin in resolving.parse_lock(catalog.lock_for("latest").read_text())
        if pin.name == "rich"
    )
    package_index.add("rich", own)
    package_index.add("rich", "99.0")
    text = lock(("tinysum",), "latest")
    assert names(text) == ["tinybase==2.1", "tinysum==1.0"], "what the node has is left to its own lock"
    assert f"tinysum==1.0 \\\n    --hash=sha256:{made}\n" in text
    assert "://" not in text and package_index.PASSWORD not in text and "127.0.0.1" not in text
    assert is_locked(locked("tinysum"))


def test_each_wheel_that_a_node_may_install_is_in_it_and_no_other(package_index: PackageIndex) -> None:
    there = (
        "cp310-cp310-manylinux_2_28_x86_64",
        "cp312-cp312-manylinux_2_28_aarch64",
        "cp38-abi3-macosx_11_0_arm64",
    )
    others = (
        "cp313-cp313-manylinux_2_28_x86_64",
        "cp310-cp310-win_amd64",
        "pp310-pypy310_pp73-manylinux_2_28_x86_64",
    )
    hashes = package_index.add("tinyfast", "1.0", tags=(*there, *others))
    text = lock(("tinyfast",), "latest")
    assert {digest for digest in hashes.values() if digest in text} == {hashes[tag] for tag in there}


@pytest.mark.parametrize(
    ("wheel", "fits"),
    [
        ("a-1-py3-none-any", True),
        ("a-1-py2.py3-none-any", True),
        ("a-1-py2-none-any", False),
        ("a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", True),
        ("a-1-cp311-cp311-musllinux_1_2_aarch64", True),
        ("a-1-cp311-cp311-manylinux_2_17_ppc64le", False),
        ("a-1-cp313-cp313t-manylinux_2_17_x86_64", False),
        ("a-1-cp311-abi3-macosx_10_9_universal2", True),
        ("a-1-cp313-abi3-macosx_11_0_arm64", False),
        ("a-1-cp39-cp39-manylinux_2_17_x86_64", False),
        ("a-1-py313-none-any", False),
        ("a-1-py3-none-win_amd64", False),
        ("no wheel", False),
    ],
)
def test_what_a_node_may_install_is_told_by_a_wheels_name(wheel: str, fits: bool) -> None:
    assert resolving._fits(wheel) is fits


def test_a_build_of_an_index_of_ones_own_keeps_its_label(package_index: PackageIndex) -> None:
    made = package_index.add("tinytorch", "1.0+cpu", tags=("cp311-cp311-linux_x86_64",))
    text = lock(("tinytorch",), "latest")
    assert names(text) == ["tinytorch==1.0+cpu"] and made["cp311-cp311-linux_x86_64"] in text


def test_what_is_for_other_systems_alone_is_left_out(package_index: PackageIndex) -> None:
    needs = ["tinywin ; sys_platform == 'win32'", "tinyold ; python_version < '3.11'"]
    package_index.add("tinysum", "1.0", needs=needs)
    package_index.add("tinywin", "1.0", tags=("py3-none-win_amd64",))
    package_index.add("tinyold", "1.0")
    text = lock(("tinysum",), "latest")
    assert names(text) == ["tinyold==1.0", "tinysum==1.0"]
    assert "tinyold==1.0 ; python_full_version" in text and "tinysum==1.0 \\\n" in text


def test_a_conflict_with_the_nodes_own_is_told_in_two_lines_with_uvs_reason(
    package_index: PackageIndex,
) -> None:
    package_index.add("requests", "2.29.0")
    package_index.add("tinyold", "1.0", needs=["requests<2.30"])
    with pytest.raises(UsageError) as caught:
        lock(("tinyold",), "latest")
    assert (
        caught.value.message == "--packages: there are no such packages beside those that syft 0.9.5 runs on."
    )
    assert caught.value.suggestion.startswith("uv: Because ")
    assert "requests<2.30" in caught.value.suggestion and "\n" not in caught.value.suggestion


def test_what_is_not_there_is_named(package_index: PackageIndex) -> None:
    with pytest.raises(UsageError) as caught:
        lock(("nosuchthing",), "latest")
    assert "nosuchthing was not found in the package registry" in caught.value.suggestion
    assert package_index.PASSWORD not in f"{caught.value.message} {caught.value.suggestion}"


def test_one_for_newer_pythons_alone_is_told_with_the_way_out(package_index: PackageIndex) -> None:
    package_index.add("tinynew", "1.0", python=">=3.11")
    with pytest.raises(UsageError) as caught:
        lock(("tinynew==1.0",), "latest")
    assert 'python_version >= "3.11"' in caught.value.suggestion
    assert "tinynew==1.0 ; python_full_version" in lock(
        ('tinynew==1.0 ; python_version >= "3.11"',), "latest"
    )


def test_nothing_is_built(package_index: PackageIndex) -> None:
    package_index.add_source("tinysource", "1.0")
    with pytest.raises(UsageError, match="no such packages") as caught:
        lock(("tinysource",), "latest")
    assert "no usable wheels" in caught.value.suggestion


def test_one_without_a_wheel_for_any_node_is_named(package_index: PackageIndex) -> None:
    package_index.add("tinywin", "1.0", tags=("cp311-cp311-win_amd64",))
    with pytest.raises(UsageError, match="tinywin"):
        lock(("tinywin",), "latest")


def test_an_index_that_does_not_answer_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://ada:s3cret@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(PreflightError, match="could not lock them") as caught:
        lock(("tinysum",), "latest")
    assert "s3cret" not in caught.value.message
    assert "UV_INDEX_URL" in caught.value.suggestion


def test_versions_stay_until_newer_ones_are_asked_for(package_index: PackageIndex) -> None:
    package_index.add("tinysum", "1.0")
    first = lock(("tinysum",), "latest")
    package_index.add("tinysum", "1.1")
    assert names(lock(("tinysum",), "latest")) == ["tinysum==1.1"]
    assert names(lock(("tinysum", "tinysum>=1"), "latest", first)) == ["tinysum==1.0"]
    assert names(lock(("tinysum>1.0",), "latest", first)) == ["tinysum==1.1"], "where they may"


def test_so_do_those_of_a_package_that_has_one_for_each_python(package_index: PackageIndex) -> None:
    package_index.add("tinyfork", "1.0")
    package_index.add("tinyfork", "2.0", python=">=3.11")
    first = lock(("tinyfork",), "latest")
    assert names(first) == ["tinyfork==1.0", "tinyfork==2.0"]
    package_index.add("tinyfork", "2.1", python=">=3.11")
    assert names(lock(("tinyfork",), "latest")) == ["tinyfork==1.0", "tinyfork==2.1"]
    again = lock(("tinyfork>0",), "latest", first)
    assert again.partition("\n")[2] == first.partition("\n")[2]


def test_a_lock_that_the_state_can_not_hold_is_refused(
    package_index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_index.add("tinysum", "1.0")
    monkeypatch.setattr(requirements, "LONGEST_LOCK", 50)
    with pytest.raises(UsageError, match="may have 50") as caught:
        lock(("tinysum",), "latest")
    assert caught.value.suggestion == "Ask for fewer packages."


def test_a_node_tells_them_among_its_packages(package_index: PackageIndex) -> None:
    package_index.add("tinysum", "1.0")
    told = with_packages(NodeOutputs(locked("tinysum"), "127.0.0.1", {"proxy": 80})).facts[PACKAGES].split()
    assert told == [*dict.fromkeys(catalog.pins("latest")), "tinysum==1.0"]


def test_plain_pulumi_makes_no_node_of_packages_that_were_not_locked(package_index: PackageIndex) -> None:
    package_index.add("tinysum", "1.0")
    made = locked("tinysum")
    check_locked(made)
    check_locked(SPEC)
    stale = replace(made, packages=("tinysum<2",))
    check_locked(replace(stale, no_node=True))
    for spec in (stale, replace(made, packages_lock=""), replace(made, packages=())):
        with pytest.raises(UsageError, match=r"not locked for syft 0\.9\.5") as caught:
            check_locked(spec)
        assert caught.value.suggestion == "`gridup deploy --name Inst` locks them."


class TestRuntime:
    """The environment of a node on this machine, of a small lock of its own."""

    def own(self, package_index: PackageIndex, tmp_path: Path) -> Path:
        digest = package_index.add("tinynode", "1.0")["py3-none-any"]
        path = tmp_path / "syft-0.txt"
        path.write_text(f"tinynode==1.0 \\\n    --hash=sha256:{digest}\n")
        return path

    def test_they_are_installed_beside_the_nodes_own(
        self, package_index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runtime, "find_python", lambda: (sys.executable, "3.11"))
        own, said = self.own(package_index, tmp_path), []  # type: ignore[var-annotated]
        package_index.add("tinysum", "1.0")
        text = lock(("tinysum",), "latest")
        runtimes = tmp_path / "runtimes"
        bare = runtime.ensure(runtimes, own, said.append)
        added = runtime.ensure(runtimes, own, said.append, "", text)
        assert bare.path != added.path
        assert "installing tinysum" in said
        code = "import tinynode, tinysum; print(tinysum.VERSION)"
        assert run([added.bin / "python", "-c", code], timeout=60).stdout == "1.0\n"
        assert not run([bare.bin / "python", "-c", code], timeout=60).ok
        assert runtime.ensure(runtimes, own, said.append, "", text).stamp == added.stamp, "once for all nodes"
        # Of what the node has anyway nothing is added.
        runtime.ensure(runtimes, own, said.append, "", requirements.lock_text(("rich",), b"", []))

    def test_a_wheel_that_is_not_the_one_that_was_found_is_refused(
        self, package_index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runtime, "find_python", lambda: (sys.executable, "3.11"))
        own = self.own(package_index, tmp_path)
        package_index.add("tinysum", "1.0")
        text = lock(("tinysum",), "latest")
        package_index.add("tinysum", "1.0", needs=["tinyevil"])
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "another-cache"))
        with pytest.raises(ResourceError, match="could not install") as caught:
            runtime.ensure(tmp_path / "runtimes", own, lambda _text: None, "", text)
        assert "Hash mismatch" in " ".join(caught.value.details)
        assert not [path for path in (tmp_path / "runtimes").iterdir() if path.is_dir()]


class TestImage:
    """The image's own step for them, run by a shell without a daemon."""

    def step(self, tmp_path: Path, added: str) -> list[str]:
        """Run it on an environment of its own; what that has afterwards."""
        made, listed = tmp_path / "node", tmp_path / "packages.txt"
        run([uv(), "venv", "--quiet", "--no-project", "--python", sys.executable, made], timeout=60)
        listed.write_bytes(image.context("latest", added)["packages.txt"])
        text = image.context("latest")["Dockerfile"].decode().replace("\\\n", " ")
        (script,) = re.findall(r"^RUN (.*packages\.txt.*)$", text, re.MULTILINE)
        for theirs, ours in (("/tmp/packages.txt", listed), ("/tmp/uv/bin/uv", uv()), ("/opt/node", made)):
            assert theirs in script
            script = script.replace(theirs, str(ours))
        done = run(["sh", "-c", script], timeout=60, env=environment())
        assert done.ok, done.stderr
        frozen = run([uv(), "pip", "freeze", "--python", made / "bin" / "python"], timeout=60)
        return frozen.stdout.split()

    def test_it_installs_what_was_locked_on_top_of_the_nodes_own(
        self, package_index: PackageIndex, tmp_path: Path
    ) -> None:
        package_index.add("tinysum", "1.0", needs=["tinybase"])
        package_index.add("tinybase", "2.0")
        assert self.step(tmp_path, lock(("tinysum",), "latest")) == ["tinybase==2.0", "tinysum==1.0"]

    @pytest.mark.parametrize("added", ["", requirements.lock_text(("rich",), b"", [])])
    def test_where_there_is_nothing_to_add_it_does_nothing(self, tmp_path: Path, added: str) -> None:
        assert self.step(tmp_path, added) == []
