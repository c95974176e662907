"""The node's image: what it is built from, and what is in it."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import docker
import pytest

from gridup_infra.build_env import MIRRORS, NAMES
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.docker import images, naming, node_labels
from gridup_infra.targets.docker.client import connected
from gridup_infra.vm import release_client
from gridup_infra.vm.acme import AcmeConfig
from gridup_infra.vm.plan import plan
from gridup_node import catalog, image
from gridup_node.confines import IMAGE_UID, MACHINE_UID, writable
from gridup_node.containers import VOLUME_PATH
from gridup_node.services import programs
from gridup_node.vm import docker_cli

pytestmark = pytest.mark.tier("gate")

SPEC = DeploySpec(
    name="Image Test", target="docker", stack_id="1ma6e00000000000", bind="127.0.0.1", keep_data=False
)
LARGEST = 1_300_000_000
"""Bytes of the whole image; 1.1 GB when this was written."""
LARGEST_OWN = 2_000_000
"""Bytes of the one layer that a change of our own code makes anew."""
MACHINES = replace(SPEC, bind="")


class TestContext:
    """What goes to the builder."""

    def test_it_is_the_dockerfile_three_locks_and_our_own_package(self) -> None:
        files = image.context("latest")
        own = {name for name in files if name.startswith("gridup_node/")}
        assert set(files) - own == {"Dockerfile", "uv.txt", "node.txt", "packages.txt"}
        assert files["node.txt"] == catalog.lock_for("latest").read_bytes()
        assert files["packages.txt"] == b"", "mostly a data owner adds none"
        assert image.context("latest", "# of 0\n")["packages.txt"] == b"# of 0\n"
        assert {"gridup_node/serve.py", "gridup_node/entrypoint.py", "gridup_node/__init__.py"} <= own
        assert len(own) == len(image.bundle_files())

    def test_nothing_compiled_is_in_it(self, tmp_path: Path) -> None:
        for name in ("a.py", "a.pyc", "__pycache__/a.cpython-311.pyc", "sub/__pycache__/b.txt", "sub/b.html"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        assert [str(path.relative_to(tmp_path)) for path in image.bundle_files(tmp_path)] == [
            "a.py",
            "sub/b.html",
        ]
        assert not [
            name for name in image.context("latest") if "__pycache__" in name or name.endswith(".pyc")
        ]

    def test_a_version_that_is_not_shipped_has_none(self) -> None:
        with pytest.raises(ValueError, match="not shipped"):
            image.context("0.0.1")

    def test_the_dockerfile_takes_all_that_is_in_it(self) -> None:
        text = image.context("latest")["Dockerfile"].decode()
        assert f"ARG BASE_IMAGE={image.PINNED_BASE}\n" in text
        for argument in MIRRORS:
            assert f"ARG {argument}\n" in text
        assert f"GRIDUP_NODE_DATA={VOLUME_PATH}\n" in text
        assert re.findall(r"--uid (\d+)", text) == [str(IMAGE_UID), str(MACHINE_UID)]
        assert any(f"GRIDUP_NODE_HOME={path} " in text for path in writable(0))


class TestDigest:
    """What an image is known by."""

    def test_it_is_the_same_for_the_same_and_another_with_any_file(self) -> None:
        files = image.context("latest")
        same = image.digest(dict(reversed(list(files.items()))))
        assert image.digest(files) == same
        others = [image.digest({**files, name: data + b"\n"}) for name, data in files.items()]
        others += [image.digest({**files, "new": b""}), image.digest({n: files[n] for n in list(files)[1:]})]
        assert len({same, *others}) == len(others) + 1

    def test_moved_bytes_and_renamed_files_are_seen(self) -> None:
        made = [{"a": b"1", "b": b"2"}, {"a": b"12", "b": b""}, {"a": b"2", "b": b"1"}, {"ab": b"12"}]
        assert len({image.digest(files) for files in made}) == len(made)

    def test_another_base_is_another_image(self) -> None:
        assert image.digest({}) == image.digest({}, image.PINNED_BASE)
        assert image.digest({}) != image.digest({}, "python:3.12-slim")
        first, second = (naming.image_of(replace(SPEC, base_image=base)) for base in ("", "python:3.12-slim"))
        assert plan(MACHINES, "192.0.2.7", "ssh-ed25519 A", AcmeConfig())["base_image"] == image.PINNED_BASE
        assert first["shared"] != second["shared"] and first["image"] != second["image"]
        assert naming.image_of(replace(SPEC, base_image=image.PINNED_BASE))["shared"] == first["shared"]

    def test_one_that_is_to_be_made_anew_is_another_image_by_another_build(self) -> None:
        first, second, third = (replace(SPEC, rebuilt=when) for when in ("", "2026-11-29", "2026-11-30"))
        made = [naming.image_of(spec) for spec in (first, second, third)]
        assert len({one["shared"] for one in made}) == len({one["image"] for one in made}) == 3
        specs = (replace(MACHINES, rebuilt=when) for when in ("", "2026-11-29"))
        machine = {plan(spec, "192.0.2.7", "ssh-ed25519 A", AcmeConfig())["image"] for spec in specs}
        assert len(machine) == 2
        # Each stage says so before its first step that fetches anything.
        stages = image.context("latest")["Dockerfile"].decode().split("\nFROM ")[1:]
        assert len(stages) == 2
        assert all(stage.index(f"ARG {image.REBUILT}\n") < stage.index("\nRUN ") for stage in stages)

    def test_on_a_machine_what_a_build_is_handed_is_an_argument_of_no_step(self) -> None:
        files = release_client.context(catalog.resolve("latest"))
        text = files["Dockerfile"].decode()
        named = {line.split()[1].partition("=")[0] for line in text.splitlines() if line.startswith("ARG ")}
        assert named == {"BASE_IMAGE", image.REBUILT}
        steps = [line for line in text.splitlines() if line.startswith("RUN ")]
        assert len(steps) == image.context("latest")["Dockerfile"].count(b"\nRUN ") > 2
        for name in NAMES:
            assert all(f" --mount=type=secret,id={name} " in step for step in steps)
        assert {name for name, data in image.context("latest").items() if files[name] != data} == {
            "Dockerfile"
        }

    def test_a_step_has_its_secrets_in_its_environment(self, tmp_path: Path) -> None:
        (tmp_path / "UV_INDEX").write_text("https://ada:s$3 'c\"ret@mirror.example/simple")
        step = image.with_secrets({"Dockerfile": b"RUN printenv UV_INDEX \\\n    && echo done"}, ["UV_INDEX"])
        script = step["Dockerfile"].decode().removeprefix("RUN --mount=type=secret,id=UV_INDEX ")
        script = script.replace(image.SECRETS, str(tmp_path))
        ran = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, timeout=60, env={})
        assert ran.stdout == "https://ada:s$3 'c\"ret@mirror.example/simple\ndone\n", ran
        (tmp_path / "UV_INDEX").unlink()
        ran = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, timeout=60, env={})
        assert (ran.stdout, ran.returncode) == ("", 1), "without a secret there is no such variable"

    def test_what_is_told_of_a_step_is_what_it_does(self) -> None:
        files = image.with_secrets({"Dockerfile": b"RUN python3 -m venv /tmp/uv"}, NAMES)
        # BuildKit shows a step of several lines as one.
        shown = files["Dockerfile"].decode().replace("\\\n", "").strip()
        told = docker_cli.told(f"#9 [environment 3/3] {shown}", {})
        assert told == "[environment 3/3] RUN python3 -m venv /tmp/uv"

    def test_the_digest_of_a_package_sees_names_and_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "a.py").write_text("1")
        first = image.bundle_digest(tmp_path)
        (tmp_path / "a.py").write_text("2")
        second = image.bundle_digest(tmp_path)
        (tmp_path / "a.py").rename(tmp_path / "b.py")
        assert len({first, second, image.bundle_digest(tmp_path)}) == 3
        (tmp_path / "b.pyc").write_text("3")
        (tmp_path / "b.py").rename(tmp_path / "a.py")
        assert image.bundle_digest(tmp_path) == second


@pytest.mark.parametrize("failure", [None, docker.errors.APIError("no route to the registry")])
def test_a_base_image_that_can_not_be_refreshed_is_used_as_it_is(failure: Exception | None) -> None:
    client, heard = Mock(), []
    client.images.pull.side_effect = failure
    images._refresh(client, "python:3.11", heard.append)
    client.images.pull.assert_called_once_with("python:3.11")
    assert heard[0] == "looking for a newer python:3.11"
    assert ("no route to the registry" in heard[-1]) is bool(failure)
    images._refresh(client, image.PINNED_BASE, heard.append)
    client.images.pull.assert_called_once()


def test_the_base_is_one_image_whatever_its_registry_says_tomorrow() -> None:
    assert re.fullmatch(r"python:[\w.-]+@sha256:[0-9a-f]{64}", image.PINNED_BASE)


def test_the_archive_has_the_same_bytes_for_the_same_files_and_is_readable_by_all() -> None:
    files = image.context("latest")
    made = image.archive(files)
    assert image.archive(dict(reversed(list(files.items())))) == made
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        members = tar.getmembers()
        assert {member.name: tar.extractfile(member).read() for member in members} == files  # type: ignore[union-attr]
    assert {(member.mode, member.mtime, member.uid) for member in members} == {(0o644, 0, 0)}


@dataclass
class Built:
    """An image on the daemon."""

    client: docker.DockerClient
    props: dict[str, Any]
    identity: str
    said: list[str]

    @property
    def description(self) -> dict[str, Any]:
        return self.client.api.inspect_image(self.identity)  # type: ignore[no-any-return]

    def run(self, script: str, user: str | None = None) -> list[str]:
        """The lines that a shell in it writes; as its own user, unless another is given."""
        text = self.client.containers.run(
            self.identity, ["-c", script], entrypoint="sh", user=user, remove=True, network_mode="none"
        )
        return text.decode().splitlines()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def built(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The image as a deploy makes it."""
    spec = replace(SPEC, host=docker_host, base_image=image.BASE_IMAGE)
    props = {**naming.image_of(spec), "urn": "urn:pulumi:image"}
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch, connected(docker_host) as client:
        patch.setenv("GRIDUP_HOME", str(tmp_path_factory.mktemp("home")))
        identity = images.ensure(client, props, said.append)
        yield Built(client, props, identity, said)
        images.remove(client, spec.stack_id)


class TestImage:
    """Built on a real daemon."""

    def test_it_runs_as_a_user_of_its_own(self, built: Built) -> None:
        assert built.run("id -u; id -un; id -G") == [str(IMAGE_UID), "gridup", str(IMAGE_UID)]
        own = str(MACHINE_UID)
        assert built.run("id -u; id -un; id -G; echo $HOME", user=own) == [own, "node", own, "/home/gridup"]
        assert built.run("test -x /var/lib/gridup && ! test -w /var/lib/gridup && echo so", user=own) == [
            "so"
        ]
        assert built.description["Config"]["User"] == naming.USER

    def test_the_user_can_write_its_folders_and_nothing_of_ours(self, built: Built) -> None:
        writable = (
            "for p in /srv/node /var/lib/gridup /opt/gridup/gridup_node /opt/node/bin /etc; do test -w $p"
        )
        assert built.run(f"{writable} && echo $p; done; true") == ["/srv/node", "/var/lib/gridup"]

    @pytest.mark.parametrize("name", ["gcc", "cc", "g++", "c++", "make", "ld", "cargo", "uv", "git", "sudo"])
    def test_no_tool_of_its_making_is_left(self, built: Built, name: str) -> None:
        assert built.run(f"find / -xdev -name {name} ! -type d 2>/dev/null; true", user="root") == []

    def test_there_is_one_environment_and_no_cache(self, built: Built) -> None:
        found = built.run("find / -xdev -name pyvenv.cfg", user="root")
        assert found == ["/opt/node/pyvenv.cfg"]
        assert (
            built.run("find / -xdev -type d '(' -path '*/.cache/*' -o -name uv-cache ')'", user="root") == []
        )
        assert built.run("ls -A /tmp; ls -A /var/lib/apt/lists; ls -A /var/cache/apt", user="root") == []

    def test_no_node_has_anothers_host_key(self, built: Built) -> None:
        assert built.run("find / -xdev -name 'ssh_host_*'", user="root") == []

    def test_all_programs_of_the_table_are_there(self, built: Built) -> None:
        for tool in {row.requires_tool for row in programs() if row.requires_tool} | {
            "caddy",
            "ssh-keygen",
            "jupyter",
        }:
            assert built.run(f"command -v {tool}"), tool

    def test_it_proves_its_program_by_itself(self, built: Built) -> None:
        check = built.description["Config"]["Healthcheck"]
        assert check["Test"] == ["CMD", "python", "-m", "gridup_node.health"]
        assert check["Timeout"] > 8e9, "longer than the proof's own deadline"

    def test_our_own_code_is_the_last_layer_with_anything_in_it(
        self, built: Built, capsys: pytest.CaptureFixture[str]
    ) -> None:
        history = built.client.api.history(built.identity)
        layers = [(row["Size"], row["CreatedBy"]) for row in history if row["Size"]]
        with capsys.disabled():
            print(f"\n{sum(size for size, _ in layers) / 1e6:10.1f} MB  in all")
            for size, command in layers:
                print(f"{size / 1e6:10.1f} MB  {' '.join(command.split())[:80]}")
        size, command = layers[0]
        assert "/opt/gridup/gridup_node" in command
        assert size < LARGEST_OWN
        assert sum(size for size, _ in layers) < LARGEST

    def test_it_bears_the_stacks_marks_and_the_shared_one_below_it_does_not(self, built: Built) -> None:
        own = built.description["Config"]["Labels"]
        assert own[node_labels.STACK_ID] == SPEC.stack_id and own[node_labels.SHARED] == built.props["shared"]
        shared = built.client.api.inspect_image(built.props["shared"])["Config"]["Labels"]
        assert node_labels.STACK_ID not in shared and node_labels.URN not in shared

    def test_a_second_time_nothing_is_built(self, built: Built) -> None:
        said: list[str] = []
        assert images.ensure(built.client, built.props, said.append) == built.identity
        assert said == []
        assert images.drift(built.client, built.props) == []

    def test_another_node_of_the_same_code_shares_it(self, built: Built) -> None:
        name = """Other "q" $HOME ${x} \\ it's #1 `id` 🧬"""
        told = {"host": built.props["host"], "base_image": image.BASE_IMAGE}
        spec = replace(SPEC, name=name, stack_id="0the400000000000", **told)
        props, said = {**naming.image_of(spec), "urn": "u"}, []  # type: ignore[var-annotated]
        try:
            other = images.ensure(built.client, props, said.append)
            assert said == []
            assert other != built.identity
            labels = built.client.api.inspect_image(other)["Config"]["Labels"]
            assert (labels[node_labels.NAME], labels[node_labels.STACK]) == (name, spec.stack)
            parents = [
                built.client.api.inspect_image(one)["RootFS"]["Layers"] for one in (other, built.identity)
            ]
            assert parents[0] == parents[1]
        finally:
            images.remove(built.client, spec.stack_id)
        assert images.exists(built.client, props["image"]) is False
        assert images.exists(built.client, built.props["image"]) is True
