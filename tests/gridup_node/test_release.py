"""The machine's own program: what it asks of Docker, and what is true after whatever happens in between."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gridup_node.containers import compose, machine_containers
from gridup_node.vm import docker_cli, logins, release
from gridup_node.vm.docker_cli import MADE, Completed, Engine, Failed, told
from gridup_node.vm.people import People
from gridup_node.vm.release import Plan, Release, ReleaseManager, State
from gridup_node.vm.shield import COUNTS, DOORS, MOST_CONNECTIONS, PATH, UNIT, Shield, opening, removal, unit
from gridup_node.vm.store import Store
from gridup_node.vm.updates import Updates, settings
from gridup_node.vm.user_data import zipapp

PROGRAM = zipapp("gridup_node.vm.release", release.MODULES)

OWN = "ssh-ed25519 AAAA gridup"
MADE_AT = "2026-11-29T12:19:38.123456789Z"
LIMITED = ("mem_limit", "memswap_limit", "cpus", "pids_limit")
FILES = {"Dockerfile": b"FROM scratch\n", "gridup_node/__init__.py": b""}


class Docker:
    """Stands for the programs `docker` and `docker compose` of a machine.

    Attributes:
        sick: for an image, the services whose program never does its work.
        broken: those whose program ends at once, so that Docker gives it up.
        info: what `docker info` tells.
        files: what containers have, by their name and its path.
        calls: every argv so far.
    """

    def __init__(self) -> None:
        self.images: set[str] = set()
        self.containers: dict[str, dict[str, Any]] = {}
        self.sick: dict[str, set[str]] = {}
        self.broken: dict[str, set[str]] = {}
        self.info: dict[str, Any] = {}
        self.files: dict[tuple[str, str], str] = {}
        self.calls: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.fails: dict[str, Completed] = {}
        self.time = 0.0

    def engine(self) -> Engine:
        return Engine(self.run, lambda: self.time, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def run(self, argv: Sequence[str], **more: Any) -> Completed:
        self.calls.append(list(argv))
        self.environments.append(dict(more.get("environment") or {}))
        words = list(argv[1:])
        if argv[0] == "sudo" and "install" in argv:
            Path(argv[-1]).write_bytes(more["input"])
        if argv[0] == "getent":
            return Completed(2, "")
        if argv[0] in ("sudo", "systemctl"):
            return self.fails.get(argv[0], Completed(0, ""))
        for beginning, done in self.fails.items():
            if " ".join(words).startswith(beginning):
                return done
        if words[0] == "compose":
            return self._compose(words[1:])
        if words[:2] == ["image", "inspect"]:
            there = words[-1] in self.images
            return Completed(0, MADE_AT) if there else Completed(1, f"Error: No such image: {words[-1]}")
        if words[:2] == ["image", "rm"]:
            self.images.discard(words[-1])
        elif words[0] == "pull":
            self.images.add(words[-1])
        elif words[0] == "rm":
            for name in words[2:]:
                self.containers.pop(name, None)
        elif words[0] == "build":
            for line in ("#5 [environment 2/3] RUN x", "#5 1.2 from https://ada:s3cret@mirror.example"):
                more["on_line"](line)
            self.images.add(next(w for w in words if w.startswith("--tag=")).removeprefix("--tag="))
        elif words[:2] == ["container", "inspect"]:
            found = [self.containers[name] for name in words[4:] if name in self.containers]
            text = "\n".join(json.dumps(row) for row in found)
            missing = len(found) < len(words[4:])
            return Completed(int(missing), text + ("\nError: No such container: x" if missing else ""))
        elif words[0] == "exec" and words[2] == "cat":
            text = self.files.get((words[1], words[3]))
            return Completed(int(text is None), (text or "No such file or directory").rstrip("\n"))
        elif words[0] == "info":
            return Completed(0, f"WARNING: no swap limit support\n{json.dumps(self.info)}")
        elif words[0] == "ps":
            return Completed(0, "\n".join(self.containers))
        elif words[0] == "exec":
            own = self.containers[words[1]]
            service = words[1].removeprefix("gridup-")
            sick = service in self.sick.get(own["Image"], set())
            return Completed(int(sick), f"{service}: it only dawdles" if sick else "")
        elif words[0] == "logs":
            return Completed(0, "first\n\nboom")
        return Completed(0, "")

    def _compose(self, words: list[str]) -> Completed:
        file = next(w for w in words if w.startswith("--file=")).removeprefix("--file=")
        whole = json.loads(Path(file).read_text())["services"]
        if "down" in words:
            self.containers.clear()
            return Completed(0, "")
        named = words[words.index("--remove-orphans") + 1 :]
        for service, made in whole.items():
            if named and service not in named:
                continue
            # One that is there by the same definition keeps the limits that it has by now.
            definition = {**made["labels"], "limits": json.dumps([made.get(key) for key in LIMITED])}
            own = self.containers.get(made["container_name"], {})
            broken = service in self.broken.get(made["image"], set())
            self.containers[made["container_name"]] = {
                "Name": f"/{made['container_name']}",
                "Image": made["image"],
                "Definition": definition,
                "Config": {"Labels": made["labels"]},
                "RestartCount": 3 * broken,
                "HostConfig": own["HostConfig"]
                if own.get("Definition") == definition
                else {
                    "Memory": made.get("mem_limit", 0),
                    "MemorySwap": made.get("memswap_limit", 0),
                    "NanoCpus": int(made.get("cpus", 0) * 1e9),
                    "PidsLimit": made.get("pids_limit"),
                },
                "State": {
                    "Running": not broken,
                    "Restarting": broken,
                    "Paused": False,
                    "ExitCode": 3 * broken,
                },
            }
        return Completed(0, "")

    def did(self, *beginning: str) -> list[list[str]]:
        """The calls that begin so, after `docker`."""
        return [call for call in self.calls if call[1 : 1 + len(beginning)] == list(beginning)]

    def ups(self) -> list[list[str]]:
        """What each call of compose's `up` names."""
        return [call[call.index("--remove-orphans") + 1 :] for call in self.calls if call[1:2] == ["compose"]]


def plan(image: str = "gridup-node:1", name: str = "Inst", **more: Any) -> Plan:
    known = {"name": name, "admin_email": "a@b.example", "tls": {"name": "192.0.2.7"}}
    told_ = {
        "image": image,
        "pull": False,
        "base_image": "python:3.11",
        "project": "gridup",
        "compose": compose("gridup", image, machine_containers(known), {}, "", "/var/lib/gridup/node"),
        "start_first": ["api"],
        "authorized_keys": [OWN],
        "ca_file": "",
        "health_seconds": 30,
        "data": "/var/lib/gridup/node",
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()},
        "arguments": {"PIP_INDEX_URL": "https://ada:s3cret@mirror.example/simple"},
    }
    return Plan.parse({**told_, **more})


class Place:
    """A machine with a stand-in for Docker."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder / "release", folder / "home"
        for path in (self.folder, self.home):
            path.mkdir()
        self.unit, self.restarts = folder / "gridup-shield.service", folder / "90gridup-reboot"
        self.docker = Docker()
        self.said: list[str] = []
        self.ended = 0
        self.releases = self.fresh()
        self.releases.store.upload(tar_of(FILES.values()))

    def fresh(self) -> ReleaseManager:
        """As another run of the program."""
        return self.releases_of(self.docker.sleep)

    def end_logins(self) -> None:
        self.ended += 1

    def releases_of(self, sleep: Callable[[float], None]) -> ReleaseManager:
        run = self.docker.run
        return ReleaseManager(
            self.folder,
            self.home,
            self.said.append,
            self.docker.engine(),
            sleep,
            Shield(self.unit, run),
            People(self.folder / "sshd_config.d", run),
            Updates(self.restarts, run),
            self.end_logins,
        )

    def state(self) -> State:
        return State.load(self.folder / "releases.json")

    def running(self) -> set[str]:
        """The images that containers run on."""
        return {row["Image"] for row in self.docker.containers.values()}


def tar_of(
    files: Any, name: Callable[[bytes], str] = lambda data: hashlib.sha256(data).hexdigest()
) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for data in files:
            info = tarfile.TarInfo(name(data))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    return buffer


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class TestStore:
    """Files that need not be sent again."""

    def test_only_what_is_missing_or_damaged_is_asked_for(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "files")
        one, two = (hashlib.sha256(data).hexdigest() for data in (b"one", b"two"))
        assert store.missing([one, two]) == [one, two]
        assert store.upload(tar_of([b"one", b"two"])) == 2
        assert store.missing([one, two]) == []
        (tmp_path / "files" / two).write_bytes(b"tw")
        assert store.missing([one, two]) == [two]
        assert store.read(one) == b"one"
        store.retain_only([one])
        assert [path.name for path in (tmp_path / "files").iterdir()] == [one]
        assert (tmp_path / "files" / one).stat().st_mode & 0o077 == 0

    @pytest.mark.parametrize("name", ["0" * 64, "../../outside", "/etc/passwd"])
    def test_a_file_that_is_not_what_its_name_says_is_refused(self, tmp_path: Path, name: str) -> None:
        store = Store(tmp_path / "files")
        with pytest.raises(ValueError, match="did not arrive whole"):
            store.upload(tar_of([b"one"], lambda _data: name))
        assert list((tmp_path / "files").iterdir()) == []
        assert not (tmp_path / "outside").exists()


class TestApply:
    """One release takes the place of another."""

    def test_the_first_is_built_brought_up_and_proven(self, place: Place) -> None:
        report = place.releases.apply(plan())
        id_ = Release.of(plan()).id
        assert report == {"release": id_, "problems": [], "dead": [], "ca": "", "built": MADE_AT}
        assert place.docker.ups() == [["api"], []]
        assert place.running() == {"gridup-node:1"}
        assert (place.home / ".ssh/authorized_keys").read_text() == f"{OWN}\n"

    def test_what_was_never_to_be_made_anew_is_built_from_the_base_that_is_there(self, place: Place) -> None:
        place.releases.apply(plan())
        assert not place.docker.did("pull")
        assert "REBUILT" not in " ".join(place.docker.did("build")[0])

    @pytest.mark.parametrize("reachable", [True, False])
    def test_what_is_to_be_made_anew_takes_the_newest_base_and_nothing_of_a_former_build(
        self, place: Place, *, reachable: bool
    ) -> None:
        if not reachable:
            place.docker.fails = {"pull": Completed(1, "no route to the registry")}
        place.releases.apply(plan(image="gridup-node:2", rebuilt="2026-11-29"))
        assert place.docker.did("pull", "--quiet") == [["docker", "pull", "--quiet", "python:3.11"]]
        (build,) = place.docker.did("build")
        assert build[build.index("REBUILT=2026-11-29") - 1] == "--build-arg"
        assert place.running() == {"gridup-node:2"}

    def test_what_another_version_keeps_beside_it_is_no_trouble(self, place: Place) -> None:
        place.releases.apply(plan())
        saved = place.folder / "releases.json"
        told_ = json.loads(saved.read_text())
        told_["current"]["novelty"] = told_["novelty"] = 1
        saved.write_text(json.dumps(told_))
        assert place.fresh().look()["problems"] == []

    def test_a_builders_last_words_are_told_without_passwords(self, place: Place) -> None:
        whole = place.docker.run

        def fail(argv: Sequence[str], **more: Any) -> Completed:
            done = whole(argv, **more)
            return Completed(1, "ERROR") if argv[1] == "build" else done

        place.docker.run = fail  # type: ignore[method-assign]
        with pytest.raises(Failed) as caught:
            place.fresh().apply(plan())
        assert caught.value.details == ("[environment 2/3] RUN x", "from https://***@mirror.example")

    def test_the_same_once_more_changes_nothing(self, place: Place) -> None:
        place.releases.apply(plan())
        place.docker.calls.clear()
        place.fresh().apply(plan())
        assert not place.docker.did("compose")
        assert not place.docker.did("build")
        assert len(place.docker.calls) <= 11

    def test_nothing_secret_is_in_an_argv_a_file_or_a_word(self, place: Place) -> None:
        place.releases.apply(plan())
        (built,) = place.docker.did("build")
        assert built[built.index("id=PIP_INDEX_URL,env=PIP_INDEX_URL") - 1] == "--secret"
        assert [word for word in built if word.startswith(("BASE_IMAGE", "PIP"))] == [
            "BASE_IMAGE=python:3.11"
        ]
        # Docker's other builder knows no secrets.
        handed = {"PIP_INDEX_URL": plan().arguments["PIP_INDEX_URL"], "DOCKER_BUILDKIT": "1"}
        assert handed in place.docker.environments
        files = b"".join(path.read_bytes() for path in place.folder.rglob("*") if path.is_file())
        for text in (*map(str, place.docker.calls), *place.said, files.decode()):
            assert "s3cret" not in text
        assert "[environment 2/3] RUN x" in place.said
        assert not any("mirror.example" in line for line in place.said)

    def test_a_new_one_takes_its_place_and_the_former_could_come_back(self, place: Place) -> None:
        for number in (1, 2, 3):
            place.fresh().apply(plan(f"gridup-node:{number}"))
        state = place.state()
        assert state.current and state.previous
        assert (state.current.image, state.previous.image) == ("gridup-node:3", "gridup-node:2")
        assert place.docker.images == {"gridup-node:2", "gridup-node:3"}
        assert place.running() == {"gridup-node:3"}

    @pytest.mark.parametrize("how", ["sick", "broken"])
    @pytest.mark.parametrize("service", ["api", "proxy"])
    def test_one_that_does_not_become_healthy_gives_way_to_the_former(
        self, place: Place, how: str, service: str
    ) -> None:
        place.releases.apply(plan())
        before = place.state()
        getattr(place.docker, how)["gridup-node:2"] = {service}
        with pytest.raises(Failed) as caught:
            place.fresh().apply(plan("gridup-node:2"))
        error = caught.value
        why = "become healthy within 30 s: it only dawdles" if how == "sick" else "crashing (exit 3)"
        assert error.message.startswith(f"{service}: ")
        assert why in error.message
        assert error.suggestion == "The former release runs again."
        assert error.details == ("first", "boom")
        assert place.running() == {"gridup-node:1"}
        assert place.fresh().look()["problems"] == []
        assert place.state().current == before.current
        # The next good one removes what the failed one left.
        place.fresh().apply(plan("gridup-node:3"))
        assert place.docker.images == {"gridup-node:1", "gridup-node:3"}

    def test_one_whose_api_fails_touches_nothing_else(self, place: Place) -> None:
        place.releases.apply(plan())
        place.docker.sick["gridup-node:2"] = {"api"}
        place.docker.calls.clear()
        with pytest.raises(Failed):
            place.fresh().apply(plan("gridup-node:2"))
        assert place.docker.ups()[0] == ["api"]

    def test_a_former_one_that_is_sick_too_is_said(self, place: Place) -> None:
        place.releases.apply(plan())
        place.docker.sick = {"gridup-node:1": {"proxy"}, "gridup-node:2": {"api"}}
        with pytest.raises(Failed, match="api: ") as caught:
            place.fresh().apply(plan("gridup-node:2"))
        assert caught.value.suggestion.startswith("The former release does not run either: proxy: ")

    def test_the_very_first_that_fails_has_nothing_to_go_back_to(self, place: Place) -> None:
        place.docker.broken["gridup-node:1"] = {"api"}
        with pytest.raises(Failed) as caught:
            place.releases.apply(plan())
        assert (caught.value.suggestion, caught.value.details) == ("", ("first", "boom"))
        assert place.state().current is None
        place.docker.broken.clear()
        assert place.fresh().apply(plan())["problems"] == []

    def test_a_build_that_fails_touches_nothing(self, place: Place) -> None:
        place.releases.apply(plan())
        before = dict(place.docker.containers)
        place.docker.fails["build"] = Completed(1, "ERROR: process did not complete")
        with pytest.raises(Failed, match=r"could not be built \(exit code 1\)"):
            place.fresh().apply(plan("gridup-node:2"))
        assert place.docker.containers == before

    @pytest.mark.parametrize(
        ("output", "message"),
        [
            ("write /x: no space left on device", "The machine's disk is full."),
            ("failed to resolve source metadata for x", "The base image python:3.11 could not be had."),
        ],
    )
    def test_why_a_build_failed_is_told(self, place: Place, output: str, message: str) -> None:
        place.docker.fails["build"] = Completed(1, output)
        with pytest.raises(Failed) as caught:
            place.releases.apply(plan())
        assert caught.value.message == message

    def test_a_published_image_is_pulled_and_not_built(self, place: Place) -> None:
        name = f"registry.inst.example/node@sha256:{'a' * 64}"
        place.releases.apply(plan(name, pull=True, files={}))
        assert place.docker.did("pull") == [["docker", "pull", "--quiet", name]]
        assert not place.docker.did("build")
        place.docker.fails["pull"] = Completed(1, "Error response: denied")
        with pytest.raises(Failed, match="could not be pulled: Error response: denied"):
            place.fresh().apply(plan(name.replace("a", "b"), pull=True, files={}))

    @pytest.mark.parametrize("moment", ["build", "compose", "exec"])
    def test_a_run_that_was_cut_off_is_put_right_by_the_next(self, place: Place, moment: str) -> None:
        place.releases.apply(plan())
        whole = place.docker.run

        def cut(argv: Sequence[str], **more: Any) -> Completed:
            done = whole(argv, **more)
            if argv[1] == moment:
                raise SystemExit
            return done

        place.docker.run = cut  # type: ignore[method-assign]
        with pytest.raises(SystemExit):
            place.fresh().apply(plan("gridup-node:2"))
        place.docker.run = whole  # type: ignore[method-assign]
        # Either may come next: the same again, or the one before.
        for image in ("gridup-node:2", "gridup-node:1", "gridup-node:2"):
            report = place.fresh().apply(plan(image))
            assert report["problems"] == []
            assert place.running() == {image}

    def test_only_one_run_at_a_time(self, place: Place) -> None:
        with (place.folder / "lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(Failed, match="still busy"):
                place.releases.apply(plan())
        assert place.said == ["another run is busy on the machine, waiting for its end"]
        place.releases.apply(plan())

    def test_people_come_and_go_in_place_and_the_deployer_always_may_enter(self, place: Place) -> None:
        place.releases.apply(plan(authorized_keys=[OWN, "ssh-ed25519 BBBB ada"]))
        place.docker.calls.clear()
        assert place.ended == 0, "who comes ends nobody's login"
        place.fresh().apply(plan(authorized_keys=[OWN, "ssh-ed25519 CCCC bo"]))
        assert place.ended == 1, "whose key goes is logged out"
        keys = place.home / ".ssh/authorized_keys"
        assert keys.read_text().splitlines() == [OWN, "ssh-ed25519 CCCC bo"]
        assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert not place.docker.did("compose")
        with pytest.raises(Failed, match="nobody could enter"):
            place.fresh().apply(plan(authorized_keys=[]))
        assert OWN in keys.read_text()

    def test_the_certificate_of_the_nodes_own_ca_is_told(self, place: Place) -> None:
        whole = place.docker.sleep
        text = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"

        def sleep(seconds: float) -> None:
            whole(seconds)
            place.docker.files["gridup-proxy", "/tls/root.crt"] = text

        report = place.releases_of(sleep).apply(plan(ca_file="proxy:/tls/root.crt"))
        assert report["ca"] == text
        assert place.fresh().look()["ca"] == text
        place.docker.files.clear()
        assert place.fresh().look()["ca"] == ""


class TestData:
    """The node's data are made ready for a release before its containers are."""

    @staticmethod
    def prepared(place: Place) -> list[str]:
        """Whose the data were made, by the program of which image."""
        return [f"{call[-1]} by {call[-4]}" for call in place.docker.did("run")]

    def test_before_any_container_and_by_the_releases_own_image(self, place: Place) -> None:
        place.releases.apply(plan())
        (ran,) = place.docker.did("run")
        assert ran[-5:] == [
            "--entrypoint=python",
            "gridup-node:1",
            "-m",
            "gridup_node.folders",
            str(release.IMAGE_UID),
        ]
        assert "--volume=/var/lib/gridup/node:/var/lib/gridup" in ran
        assert {"--rm", "--network=none", "--cap-drop=ALL"} <= set(ran)
        assert place.docker.calls.index(ran) < place.docker.calls.index(place.docker.did("compose")[0])

    def test_data_that_cannot_be_made_ready_leave_the_former_release_as_it_is(self, place: Place) -> None:
        place.releases.apply(plan())
        place.docker.fails["run"] = Completed(1, "gridup_node.folders: data is a link, and must be a folder")
        with pytest.raises(Failed, match=r"could not be made ready: gridup_node\.folders: data is a link"):
            place.fresh().apply(plan("gridup-node:2"))
        assert place.running() == {"gridup-node:1"}

    def test_a_release_of_another_user_gets_the_data_while_nothing_runs(self, place: Place) -> None:
        place.releases.apply(plan())
        place.docker.calls.clear()
        place.fresh().apply(plan("gridup-node:2", uid=10002))
        words = [call[1] for call in place.docker.calls]
        assert words.index("stop") < words.index("run") < words.index("compose")
        assert self.prepared(place) == ["10002 by gridup-node:2"]

    def test_where_it_fails_the_former_release_has_its_data_back(self, place: Place) -> None:
        place.releases.apply(plan())
        place.docker.calls.clear()
        place.docker.sick["gridup-node:2"] = {"api"}
        with pytest.raises(Failed) as caught:
            place.fresh().apply(plan("gridup-node:2", uid=10002))
        assert caught.value.suggestion == "The former release runs again."
        assert self.prepared(place) == ["10002 by gridup-node:2", "10001 by gridup-node:2"]
        assert place.running() == {"gridup-node:1"}

    def test_a_release_that_an_earlier_version_made_is_of_the_images_own_user(self, place: Place) -> None:
        place.releases.apply(plan())
        saved = place.folder / "releases.json"
        told_ = json.loads(saved.read_text())
        for name in ("uid", "data"):
            del told_["current"][name]
        saved.write_text(json.dumps(told_))
        current = place.state().current
        assert current and current.uid == 10001


class TestShares:
    """Each container's share of the machine is worked out there."""

    MACHINE: ClassVar = {
        "MemTotal": 8 << 30,
        "NCPU": 4,
        "MemoryLimit": True,
        "SwapLimit": True,
        "CpuCfsQuota": True,
        "PidsLimit": True,
    }

    @staticmethod
    def laid(place: Place, service: str) -> dict[str, Any]:
        whole = json.loads((place.folder / "compose.json").read_text())["services"][service]
        return {key: whole.get(key) for key in ("mem_limit", "memswap_limit", "cpus", "pids_limit")}

    def test_by_what_docker_tells_of_it(self, place: Place) -> None:
        place.docker.info = self.MACHINE
        place.releases.apply(plan())
        memory = int((8 << 30) * 0.75)
        assert self.laid(place, "api") == {
            "mem_limit": memory,
            "memswap_limit": memory,
            "cpus": 3.6,
            "pids_limit": 2048,
        }
        assert self.laid(place, "jupyter")["mem_limit"] == 4 << 30

    @pytest.mark.parametrize(
        ("key", "value"), [("Memory", 1 << 30), ("NanoCpus", 0), ("PidsLimit", -1), ("MemorySwap", -1)]
    )
    def test_limits_that_were_changed_by_hand_are_seen_and_put_right(
        self, place: Place, key: str, value: int
    ) -> None:
        place.docker.info = self.MACHINE
        place.releases.apply(plan())
        host = place.docker.containers["gridup-jupyter"]["HostConfig"]
        right = dict(host)
        host[key] = value
        assert place.fresh().look()["problems"] == ["jupyter: the container's limits were changed"]
        assert place.fresh().apply(plan())["problems"] == []
        assert place.docker.containers["gridup-jupyter"]["HostConfig"] == right
        assert place.docker.did("rm") == [["docker", "rm", "--force", "gridup-jupyter"]]

    def test_another_size_of_the_machine_is_no_other_release_but_gives_other_limits(
        self, place: Place
    ) -> None:
        place.docker.info = self.MACHINE
        first = place.releases.apply(plan())["release"]
        place.docker.info = {**self.MACHINE, "MemTotal": int(self.MACHINE["MemTotal"] * 1.01)}
        assert place.fresh().look()["problems"] == []
        place.docker.info = {**self.MACHINE, "MemTotal": 2 * self.MACHINE["MemTotal"]}
        seen = place.fresh().look()
        assert (seen["release"], len(seen["problems"])) == (first, len(place.docker.containers))
        report = place.fresh().apply(plan())
        assert (report["release"], report["problems"]) == (first, [])
        assert place.docker.containers["gridup-api"]["HostConfig"]["Memory"] == 12 << 30

    def test_what_the_kernel_cannot_keep_is_not_asked_for(self, place: Place) -> None:
        place.docker.info = {"MemTotal": 8 << 30, "NCPU": 4}
        place.releases.apply(plan())
        assert set(self.laid(place, "api").values()) == {None}

    def test_a_release_without_shares_comes_up_as_it_was(self, place: Place) -> None:
        place.docker.info = self.MACHINE
        whole = json.loads(plan().compose)
        for made in whole["services"].values():
            del made["x-share"]
        place.releases.apply(plan(compose=json.dumps(whole)))
        assert set(self.laid(place, "api").values()) == {None}


class TestShield:
    """The cloud's metadata service is closed to the containers before they run, and stays closed."""

    @staticmethod
    def laid(place: Place) -> list[str]:
        return [" ".join(call[2:]) for call in place.docker.calls if call[0] == "sudo"]

    def test_it_is_laid_before_any_container_and_once(self, place: Place) -> None:
        place.releases.apply(plan())
        assert self.laid(place) == [
            f"install --mode=0644 /dev/stdin {place.unit}",
            "systemctl daemon-reload",
            f"systemctl enable --quiet {UNIT}",
            f"systemctl restart {UNIT}",
        ]
        assert place.unit.read_text() == unit()
        words = [call[0] if call[0] == "sudo" else call[1] for call in place.docker.calls]
        assert words.index("sudo") < words.index("compose")
        place.docker.calls.clear()
        place.fresh().apply(plan("gridup-node:2"))
        assert self.laid(place) == []

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda place: place.unit.unlink(), "are not laid"),
            (lambda place: place.unit.write_text("[Unit]\n"), "are not laid"),
            (lambda place: place.docker.fails.update(systemctl=Completed(3, "inactive")), "are off"),
        ],
    )
    def test_where_it_was_taken_away_that_is_seen_and_put_right(
        self, place: Place, damage: Callable[[Place], None], said: str
    ) -> None:
        place.releases.apply(plan())
        place.docker.calls.clear()
        damage(place)
        (problem,) = place.fresh().look()["problems"]
        assert said in problem
        place.fresh().apply(plan())
        assert len(self.laid(place)) == 4

    def test_where_it_cannot_be_laid_nothing_new_runs(self, place: Place) -> None:
        place.releases.apply(plan())
        place.unit.unlink()
        place.docker.fails["sudo"] = Completed(1, "sudo: a password is required")
        with pytest.raises(Failed, match=r"could not be closed to the containers: sudo: a password is req"):
            place.fresh().apply(plan("gridup-node:2"))
        assert place.running() == {"gridup-node:1"}

    def test_the_unit_comes_before_docker_at_every_boot(self) -> None:
        lines = unit().splitlines()
        assert Path(PATH).name == UNIT
        assert "Before=docker.service" in lines and "WantedBy=multi-user.target" in lines

    def test_who_reaches_the_nodes_ports_is_said_in_dockers_own_chain(self) -> None:
        rules = unit({"443": ["203.0.113.0/24", "2001:db8::/32"], "8888": ["10.0.0.0/8"]})
        for way in ("DOCKER-USER --out-interface gridup-+", "INPUT"):
            assert f"--insert {way} --jump GRIDUP-DOORS" in rules
        asked = "--protocol tcp --match conntrack --ctdir ORIGINAL --ctorigdstport"
        for program, networks in (
            ("iptables", {443: ["203.0.113.0/24"], 8888: ["10.0.0.0/8"]}),
            ("ip6tables", {443: ["2001:db8::/32"], 8888: []}),
        ):
            begin = f"/usr/sbin/{program} --wait --append GRIDUP-DOORS "
            laid = [line.partition(begin)[2] for line in rules.splitlines() if begin in line]
            own = ["--in-interface lo --jump RETURN", "--in-interface gridup-+ --jump RETURN"]
            for port, sources in networks.items():
                own += [f"{asked} {port} --source {one} --jump RETURN" for one in sources]
                own.append(f"{asked} {port} --jump DROP")
            assert laid == own
        assert "GRIDUP-DOORS" not in unit()

    def test_who_reaches_them_is_changed_in_place_and_taken_back(self, place: Place) -> None:
        doors = {"8888": ["10.0.0.0/8"]}
        place.releases.apply(plan())
        place.fresh().apply(plan(doors=doors))
        assert place.unit.read_text() == unit(doors)
        assert place.fresh().look()["problems"] == []
        place.docker.calls.clear()
        place.fresh().apply(plan(doors=doors))
        assert self.laid(place) == []
        place.fresh().apply(plan())
        assert place.unit.read_text() == unit()
        assert self.laid(place)[4:] == [" ".join(argv) for argv in opening(DOORS)]
        assert [argv for argv in removal() if DOORS in argv] == opening(DOORS)

    def test_the_connections_of_one_address_are_counted_but_for_a_proxys(self, place: Place) -> None:
        rules = unit(counted={"443": ["203.0.113.7/32"]})
        for way in ("DOCKER-USER --out-interface gridup-+", "INPUT"):
            assert f"--insert {way} --jump {COUNTS}" in rules
        asked = "--protocol tcp --syn --match conntrack --ctdir ORIGINAL --ctorigdstport 443"
        for program, sites, proxies in (("iptables", 32, ["203.0.113.7/32"]), ("ip6tables", 64, [])):
            begin = f"/usr/sbin/{program} --wait --append {COUNTS} "
            above = f"--match connlimit --connlimit-above {MOST_CONNECTIONS} --connlimit-mask {sites}"
            assert [line.partition(begin)[2] for line in rules.splitlines() if begin in line] == [
                "--in-interface lo --jump RETURN",
                "--in-interface gridup-+ --jump RETURN",
                *(f"{asked} --source {one} --jump RETURN" for one in proxies),
                f"{asked} {above} --jump REJECT --reject-with tcp-reset",
            ]
        # A kernel that can't count has the rest all the same.
        assert all("ExecStart=-" in line for line in rules.splitlines() if COUNTS in line)
        place.releases.apply(plan())
        place.fresh().apply(plan(counted={"443": []}))
        assert place.unit.read_text() == unit(counted={"443": []})
        place.docker.calls.clear()
        place.fresh().apply(plan())
        assert self.laid(place)[4:] == [" ".join(argv) for argv in opening(COUNTS)]

    @pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "iptables", "ip6tables"))),
        reason="takes root, unshare and iptables",
    )
    def test_the_kernel_takes_the_rules_again_and_again_and_none_is_left(self) -> None:
        lines = [
            line.partition("=")[2]
            for line in unit(
                {"443": ["203.0.113.0/24", "2001:db8::/32"]}, {"443": ["203.0.113.7/32"]}
            ).splitlines()
            if line.startswith("ExecStart=")
        ]
        laid = [f"{line[1:]} 2>/dev/null || :" if line.startswith("-") else line for line in lines]
        shown = ["iptables --list-rules", "ip6tables --list-rules"]
        gone = [" ".join(argv) for argv in (*opening(DOORS), *opening(COUNTS))]
        script = "\n".join(["set -e", *laid, *laid, *shown, "echo gone", *gone, *shown])
        done = subprocess.run(
            ["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        there, _, left = done.stdout.partition("gone\n")
        assert there.count("-A INPUT -j GRIDUP-DOORS") == 2
        assert there.count("--ctorigdstport 443 --ctdir ORIGINAL -j DROP") == 2
        assert there.count(f"-m connlimit --connlimit-above {MOST_CONNECTIONS} --connlimit-mask") == 2
        assert DOORS not in left and COUNTS not in left

    def test_what_it_closes_is_closed_to_the_nodes_networks_alone(self) -> None:
        made = json.loads(plan().compose)["networks"]
        bridges = {row["driver_opts"]["com.docker.network.bridge.name"] for row in made.values()}
        rules = unit()
        (prefix,) = set(re.findall(r"--insert PREROUTING --in-interface (\S+)\+ ", rules))
        assert all(bridge.startswith(prefix) for bridge in bridges)
        for closed in ("169.254.0.0/16", "168.63.129.16", "fd00:ec2::/32"):
            assert f"--destination {closed} --jump DROP" in rules
        # Names are asked for at one of these on Azure.
        assert rules.index("--dport 53 --jump RETURN") < rules.index("--jump DROP")


class TestLook:
    """What a refresh sees."""

    def change(self, place: Place, **changes: Any) -> None:
        place.docker.containers["gridup-api"]["State"].update(changes)

    def test_nothing_is_there_yet(self, place: Place) -> None:
        report = place.releases.look()
        assert (report["release"], report["problems"]) == ("", ["nothing is released on the machine"])

    @pytest.mark.parametrize(
        ("what", "problem"),
        [
            ({"Running": False, "ExitCode": 0}, "api: the container does not run (exit code 0)"),
            ({"Paused": True}, "api: the container is paused"),
            ({"Running": False, "ExitCode": 3}, "api crashed (exit 3), not restarting"),
        ],
    )
    def test_a_container_that_does_not_run_is_seen_and_put_right(
        self, place: Place, what: dict[str, Any], problem: str
    ) -> None:
        place.releases.apply(plan())
        self.change(place, **what)
        report = place.fresh().look()
        assert report["problems"] == [problem]
        assert report["dead"] == [problem] * ("crashed" in problem)
        assert place.fresh().apply(plan())["problems"] == []

    def test_one_that_is_gone_or_made_otherwise_is_seen_and_put_right(self, place: Place) -> None:
        place.releases.apply(plan())
        del place.docker.containers["gridup-proxy"]
        place.docker.containers["gridup-api"]["Config"]["Labels"] = {MADE: "other"}
        assert place.fresh().look()["problems"] == [
            "proxy: the container gridup-proxy is gone",
            "api: the container differs from its definition",
        ]
        assert place.fresh().apply(plan())["problems"] == []

    def test_a_login_is_ended_with_what_was_started_in_it_and_the_own_one_is_not(self) -> None:
        rows = [
            (1, 0, "systemd", 0),
            (10, 1, "sshd", 0),
            # Ours: sshd's, the user's, and what it runs.
            (20, 10, "sshd-session", 0),
            (21, 20, "sshd-session", 7),
            (22, 21, "python3", 7),
            # Another one, with a shell and sudo in it.
            (30, 10, "sshd-session", 0),
            (31, 30, "sshd-session", 7),
            (32, 31, "bash", 7),
            (33, 32, "sleep", 7),
            (34, 32, "sudo", 0),
            # Somebody else's, the node's, and one that only says so.
            (40, 10, "sshd", 0),
            (41, 40, "sshd", 8),
            (50, 1, "containerd", 7),
            (51, 50, "sshd) 1 (x", 7),
        ]
        known = {row[0]: logins.Process(*row) for row in rows}
        assert logins.others(known, 22, 7) == [31, 32, 33]
        assert logins.others(known, 32, 7) == [21, 22]

    def test_the_processes_of_a_machine_are_read(self) -> None:
        known = logins.processes()
        own = known[os.getpid()]
        assert (own.parent, own.uid) == (os.getppid(), os.getuid())
        with subprocess.Popen(["sleep", "60"]) as child:
            found = logins.processes()[child.pid]
            child.kill()
        assert (found.parent, found.name) == (os.getpid(), "sleep")

    def test_a_key_put_there_by_hand_is_seen_and_put_right(self, place: Place) -> None:
        place.releases.apply(plan())
        keys = place.home / ".ssh/authorized_keys"
        keys.write_text(f"{OWN}\nssh-ed25519 EVIL x\n")
        assert place.fresh().look()["problems"] == ["ssh: the keys of who may enter the machine were changed"]
        place.fresh().apply(plan())
        assert keys.read_text() == f"{OWN}\n"
        assert place.ended == 1, "whoever came by it is logged out"

    def test_when_updates_may_restart_the_machine_is_set_without_a_new_release(self, place: Place) -> None:
        place.releases.apply(plan(reboot_at=""))
        assert place.restarts.read_text() == settings("")
        place.docker.calls.clear()
        place.fresh().apply(plan(reboot_at="03:30"))
        assert place.restarts.read_text() == settings("03:30")
        assert not place.docker.did("compose")
        place.restarts.unlink()
        assert place.fresh().look()["problems"] == [
            "when the machine's updates may restart it is not set as it was"
        ]
        place.fresh().apply(plan(reboot_at="03:30"))
        assert place.restarts.exists()

    def test_keys_of_people_without_rights_are_not_those_of_the_machines_user(self, place: Place) -> None:
        place.releases.apply(plan(authorized_keys=[OWN, "ssh-ed25519 BBBB ada"]))
        wrong = "ssh: there is no user gridup-user of the node's"
        with pytest.raises(Failed, match="could not be let in"):
            place.docker.fails["sudo"] = Completed(1, "no")
            place.fresh().apply(plan(users=["ssh-ed25519 BBBB ada"]))
        # As an earlier version had it: they are taken from the one user before the other has them.
        assert (place.home / ".ssh/authorized_keys").read_text() == f"{OWN}\n"
        assert place.fresh().look()["problems"] == [wrong]

    def test_docker_that_does_not_answer_is_said(self, place: Place) -> None:
        place.releases.apply(plan())
        place.docker.fails["container"] = Completed(1, "Cannot connect to the Docker daemon")
        (problem,) = place.fresh().look()["problems"]
        assert problem == "Docker does not answer on the machine: Cannot connect to the Docker daemon"

    def test_after_down_it_comes_up_again(self, place: Place) -> None:
        place.releases.apply(plan())
        assert place.fresh().down() == {}
        assert place.docker.containers == {}
        assert place.fresh().apply(plan())["problems"] == []


def test_a_change_of_one_service_is_a_change_of_its_container_alone() -> None:
    one, two = (json.loads(Release.of(plan(name=name)).compose)["services"] for name in ("Inst", "Other"))
    changed = {name for name in one if one[name]["labels"] != two[name]["labels"]}
    assert changed == {"api"}
    assert Release.of(plan()).id != Release.of(plan(name="Other")).id
    assert Release.of(plan()) == Release.of(replace(plan(), arguments={}, authorized_keys=("x",)))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("#12 34.5 Collecting x", "Collecting x"),
        ("#7 [stage-1 2/3] RUN apt-get", "[stage-1 2/3] RUN apt-get"),
        ("\x1b[31m#3 DONE 0.1s\x1b[0m", "DONE 0.1s"),
        ("index https://u:p%40ss@m.example/simple, p%40ss", "index https://***@m.example/simple, ***"),
        ("", ""),
    ],
)
def test_what_a_builder_says_is_told_without_its_numbers_and_passwords(line: str, text: str) -> None:
    assert told(line, {"A": "https://u:p%40ss@m.example/simple", "B": "x.example,localhost"}) == text


@pytest.mark.timeout(60)
class TestRun:
    """Real programs."""

    def test_output_comes_line_by_line_and_whole(self) -> None:
        seen: list[str] = []
        done = docker_cli.run(["sh", "-c", "cat; echo two >&2; exit 3"], input=b"one\n", on_line=seen.append)
        assert (done.code, done.text, seen) == (3, "one\ntwo", ["one", "two"])

    def test_one_that_takes_too_long_is_killed(self) -> None:
        done = docker_cli.run(["sleep", "600"], timeout=0.3)
        assert (done.code, done.line) == (124, "sleep did not end within 0.3 s")

    def test_one_that_is_not_there_is_said(self) -> None:
        assert docker_cli.run(["no-such-program"]) == Completed(127, "no-such-program is not installed")

    def test_one_that_does_not_read_its_input_ends(self) -> None:
        assert docker_cli.run(["true"], input=b"x" * 1_000_000).code == 0

    def test_what_it_is_told_by_the_environment_it_has(self) -> None:
        assert docker_cli.run(["sh", "-c", "echo $A"], environment={"A": "b"}).text == "b"


class TestProgram:
    """As it is sent, run by a Python of its own without anything beside it."""

    @pytest.fixture
    def machine(self, tmp_path: Path) -> Callable[..., tuple[int, list[dict[str, Any]]]]:
        program = tmp_path / ".gridup" / "release-1.pyz"
        program.parent.mkdir()
        program.write_bytes(PROGRAM)

        def run(command: str, input: bytes) -> tuple[int, list[dict[str, Any]]]:
            done = subprocess.run(
                [sys.executable, "-I", str(program), command],
                input=input,
                capture_output=True,
                env={"HOME": str(tmp_path), "PATH": str(tmp_path)},
                timeout=30,
            )
            assert done.stderr == b"", done.stderr
            return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

        return run

    def test_it_takes_files_and_tells_what_is_missing(self, machine: Any) -> None:
        names = [hashlib.sha256(data).hexdigest() for data in FILES.values()]
        assert machine("missing", json.dumps(names).encode()) == (0, [{"done": {"missing": names}}])
        assert machine("upload", tar_of(FILES.values()).getvalue()) == (0, [{"done": {"taken": 2}}])
        assert machine("missing", json.dumps(names).encode()) == (0, [{"done": {"missing": []}}])

    def test_a_failure_is_told_as_one(self, machine: Any) -> None:
        code, told_ = machine("upload", tar_of([b"x"], lambda _data: "y").getvalue())
        assert code == 1
        assert told_[0]["failed"]["message"].startswith("The copy to the machine broke off")

    def test_without_docker_it_says_so(self, machine: Any, tmp_path: Path) -> None:
        machine("upload", tar_of(FILES.values()).getvalue())
        sent = json.dumps({**vars(plan()), "surplus": 1}).encode()
        code, lines = machine("apply", sent)
        assert code == 1
        assert lines[0] == {"say": "building the node's image"}
        assert lines[-1]["failed"]["message"] == "The node's image could not be built (exit code 127)."
        assert (tmp_path / ".ssh/authorized_keys").read_text() == f"{OWN}\n"

    def test_it_goes_on_when_nobody_listens_any_more(self, tmp_path: Path) -> None:
        program = tmp_path / ".gridup" / "release-1.pyz"
        program.parent.mkdir()
        program.write_bytes(PROGRAM)
        docker = tmp_path / "docker"
        docker.write_text(
            '#!/bin/sh\ncase "$*" in *build*) sleep 1; echo "#1 line"; touch "$HOME/built";; esac\nexit 1\n'
        )
        docker.chmod(0o755)
        ReleaseManager(program.parent, tmp_path, print).store.upload(tar_of(FILES.values()))
        process = subprocess.Popen(
            [sys.executable, "-I", str(program), "apply"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.defpath}"},
        )
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(vars(plan())).encode())
        process.stdin.close()
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=120) == 1
        assert (tmp_path / "built").exists()

    def test_it_is_small_and_the_same_each_time(self) -> None:
        assert len(PROGRAM) < 60_000
        assert zipapp("gridup_node.vm.release", release.MODULES) == PROGRAM
