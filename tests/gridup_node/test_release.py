"""The machine's own program: what it asks of Docker, and what is true after whatever happens in between."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gridup_node.containers import compose, machine_containers
from gridup_node.vm import engine, release
from gridup_node.vm.engine import MADE, Done, Engine, Failed, told
from gridup_node.vm.release import Plan, Release, Releases, State
from gridup_node.vm.store import Store
from gridup_node.vm.user_data import packed

PROGRAM = packed("gridup_node.vm.release", release.MODULES)

OWN = "ssh-ed25519 AAAA gridup"
FILES = {"Dockerfile": b"FROM scratch\n", "gridup_node/__init__.py": b""}


class Docker:
    """Stands for the programs `docker` and `docker compose` of a machine.

    Attributes:
        sick: for an image, the services whose program never does its work.
        broken: those whose program ends at once, so that Docker gives it up.
        calls: every argv so far.
    """

    def __init__(self) -> None:
        self.images: set[str] = set()
        self.containers: dict[str, dict[str, Any]] = {}
        self.sick: dict[str, set[str]] = {}
        self.broken: dict[str, set[str]] = {}
        self.calls: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.fails: dict[str, Done] = {}
        self.time = 0.0

    def engine(self) -> Engine:
        return Engine(self.run, lambda: self.time, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def run(self, argv: Sequence[str], **more: Any) -> Done:
        self.calls.append(list(argv))
        self.environments.append(dict(more.get("environment") or {}))
        words = list(argv[1:])
        for beginning, done in self.fails.items():
            if " ".join(words).startswith(beginning):
                return done
        if words[0] == "compose":
            return self._compose(words[1:])
        if words[:2] == ["image", "inspect"]:
            return Done(0 if words[-1] in self.images else 1, "")
        if words[:2] == ["image", "rm"]:
            self.images.discard(words[-1])
        elif words[0] == "pull":
            self.images.add(words[-1])
        elif words[0] == "build":
            for line in ("#5 [environment 2/3] RUN x", "#5 1.2 from https://ada:s3cret@mirror.example"):
                more["on_line"](line)
            self.images.add(next(w for w in words if w.startswith("--tag=")).removeprefix("--tag="))
        elif words[:2] == ["container", "inspect"]:
            found = [self.containers[name] for name in words[4:] if name in self.containers]
            text = "\n".join(json.dumps(row) for row in found)
            missing = len(found) < len(words[4:])
            return Done(int(missing), text + ("\nError: No such container: x" if missing else ""))
        elif words[0] == "exec":
            own = self.containers[words[1]]
            service = words[1].removeprefix("gridup-")
            sick = service in self.sick.get(own["Image"], set())
            return Done(int(sick), f"{service}: it only dawdles" if sick else "")
        elif words[0] == "logs":
            return Done(0, "first\n\nboom")
        return Done(0, "")

    def _compose(self, words: list[str]) -> Done:
        file = next(w for w in words if w.startswith("--file=")).removeprefix("--file=")
        whole = json.loads(Path(file).read_text())["services"]
        if "down" in words:
            self.containers.clear()
            return Done(0, "")
        named = words[words.index("--remove-orphans") + 1 :]
        for service, made in whole.items():
            if named and service not in named:
                continue
            broken = service in self.broken.get(made["image"], set())
            self.containers[made["container_name"]] = {
                "Name": f"/{made['container_name']}",
                "Image": made["image"],
                "Config": {"Labels": made["labels"]},
                "RestartCount": 3 * broken,
                "State": {
                    "Running": not broken,
                    "Restarting": broken,
                    "Paused": False,
                    "ExitCode": 3 * broken,
                },
            }
        return Done(0, "")

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
        "first": ["api"],
        "people": [OWN],
        "ca_file": "",
        "health_seconds": 30,
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
        self.docker = Docker()
        self.said: list[str] = []
        self.releases = self.fresh()
        self.releases.store.take(tar_of(FILES.values()))

    def fresh(self) -> Releases:
        """As another run of the program."""
        return Releases(self.folder, self.home, self.said.append, self.docker.engine(), self.docker.sleep)

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
        assert store.take(tar_of([b"one", b"two"])) == 2
        assert store.missing([one, two]) == []
        (tmp_path / "files" / two).write_bytes(b"tw")
        assert store.missing([one, two]) == [two]
        assert store.read(one) == b"one"
        store.keep([one])
        assert [path.name for path in (tmp_path / "files").iterdir()] == [one]
        assert (tmp_path / "files" / one).stat().st_mode & 0o077 == 0

    @pytest.mark.parametrize("name", ["0" * 64, "../../outside", "/etc/passwd"])
    def test_a_file_that_is_not_what_its_name_says_is_refused(self, tmp_path: Path, name: str) -> None:
        store = Store(tmp_path / "files")
        with pytest.raises(ValueError, match="did not arrive whole"):
            store.take(tar_of([b"one"], lambda _data: name))
        assert list((tmp_path / "files").iterdir()) == []
        assert not (tmp_path / "outside").exists()


class TestApply:
    """One release takes the place of another."""

    def test_the_first_is_built_brought_up_and_proven(self, place: Place) -> None:
        report = place.releases.apply(plan())
        assert report == {"release": Release.of(plan()).id, "problems": [], "dead": [], "ca": ""}
        assert place.docker.ups() == [["api"], []]
        assert place.running() == {"gridup-node:1"}
        assert (place.home / ".ssh/authorized_keys").read_text() == f"{OWN}\n"

    def test_what_another_version_keeps_beside_it_is_no_trouble(self, place: Place) -> None:
        place.releases.apply(plan())
        saved = place.folder / "releases.json"
        told_ = json.loads(saved.read_text())
        told_["current"]["novelty"] = told_["novelty"] = 1
        saved.write_text(json.dumps(told_))
        assert place.fresh().look()["problems"] == []

    def test_a_builders_last_words_are_told_without_passwords(self, place: Place) -> None:
        whole = place.docker.run

        def fail(argv: Sequence[str], **more: Any) -> Done:
            done = whole(argv, **more)
            return Done(1, "ERROR") if argv[1] == "build" else done

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
        assert len(place.docker.calls) <= 3

    def test_nothing_secret_is_in_an_argv_a_file_or_a_word(self, place: Place) -> None:
        place.releases.apply(plan())
        (built,) = place.docker.did("build")
        assert built[built.index("PIP_INDEX_URL") - 1] == "--build-arg"
        assert {"PIP_INDEX_URL": plan().arguments["PIP_INDEX_URL"]} in place.docker.environments
        files = b"".join(path.read_bytes() for path in place.folder.rglob("*") if path.is_file())
        for text in (*map(str, place.docker.calls), *place.said, files.decode()):
            assert "s3cret" not in text
        assert "[environment 2/3] RUN x" in place.said
        assert not any("mirror.example" in line for line in place.said)

    def test_a_new_one_takes_its_place_and_the_former_could_come_back(self, place: Place) -> None:
        for number in (1, 2, 3):
            place.fresh().apply(plan(f"gridup-node:{number}"))
        state = place.state()
        assert state.current and state.former
        assert (state.current.image, state.former.image) == ("gridup-node:3", "gridup-node:2")
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
        why = "become healthy within 30 s: it only dawdles" if how == "sick" else "ended with exit code 3"
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
        place.docker.fails["build"] = Done(1, "ERROR: process did not complete")
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
        place.docker.fails["build"] = Done(1, output)
        with pytest.raises(Failed) as caught:
            place.releases.apply(plan())
        assert caught.value.message == message

    def test_a_published_image_is_pulled_and_not_built(self, place: Place) -> None:
        name = f"registry.inst.example/node@sha256:{'a' * 64}"
        place.releases.apply(plan(name, pull=True, files={}))
        assert place.docker.did("pull") == [["docker", "pull", "--quiet", name]]
        assert not place.docker.did("build")
        place.docker.fails["pull"] = Done(1, "Error response: denied")
        with pytest.raises(Failed, match="could not be pulled: Error response: denied"):
            place.fresh().apply(plan(name.replace("a", "b"), pull=True, files={}))

    @pytest.mark.parametrize("moment", ["build", "compose", "exec"])
    def test_a_run_that_was_cut_off_is_put_right_by_the_next(self, place: Place, moment: str) -> None:
        place.releases.apply(plan())
        whole = place.docker.run

        def cut(argv: Sequence[str], **more: Any) -> Done:
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
        place.releases.apply(plan(people=[OWN, "ssh-ed25519 BBBB ada"]))
        place.docker.calls.clear()
        place.fresh().apply(plan(people=[OWN, "ssh-ed25519 CCCC bo"]))
        keys = place.home / ".ssh/authorized_keys"
        assert keys.read_text().splitlines() == [OWN, "ssh-ed25519 CCCC bo"]
        assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert not place.docker.did("compose")
        with pytest.raises(Failed, match="nobody could enter"):
            place.fresh().apply(plan(people=[]))
        assert OWN in keys.read_text()

    def test_the_certificate_of_the_nodes_own_ca_is_told(self, place: Place, tmp_path: Path) -> None:
        file = tmp_path / "root.crt"
        whole = place.docker.sleep

        def sleep(seconds: float) -> None:
            whole(seconds)
            file.write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")

        releases = Releases(place.folder, place.home, place.said.append, place.docker.engine(), sleep)
        report = releases.apply(plan(ca_file=str(file)))
        assert report["ca"] == file.read_text()
        assert place.fresh().look()["ca"] == file.read_text()
        file.unlink()
        assert place.fresh().look()["ca"] == ""


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
            ({"Running": False, "ExitCode": 3}, "api ended with exit code 3 and was given up"),
        ],
    )
    def test_a_container_that_does_not_run_is_seen_and_put_right(
        self, place: Place, what: dict[str, Any], problem: str
    ) -> None:
        place.releases.apply(plan())
        self.change(place, **what)
        report = place.fresh().look()
        assert report["problems"] == [problem]
        assert report["dead"] == [problem] * ("given up" in problem)
        assert place.fresh().apply(plan())["problems"] == []

    def test_one_that_is_gone_or_made_otherwise_is_seen_and_put_right(self, place: Place) -> None:
        place.releases.apply(plan())
        del place.docker.containers["gridup-proxy"]
        place.docker.containers["gridup-api"]["Config"]["Labels"] = {MADE: "other"}
        assert place.fresh().look()["problems"] == [
            "proxy: the container gridup-proxy is gone",
            "api: the container was made otherwise",
        ]
        assert place.fresh().apply(plan())["problems"] == []

    def test_a_key_put_there_by_hand_is_seen_and_put_right(self, place: Place) -> None:
        place.releases.apply(plan())
        keys = place.home / ".ssh/authorized_keys"
        keys.write_text(f"{OWN}\nssh-ed25519 EVIL x\n")
        assert place.fresh().look()["problems"] == ["ssh: the keys of who may enter the machine were changed"]
        place.fresh().apply(plan())
        assert keys.read_text() == f"{OWN}\n"

    def test_docker_that_does_not_answer_is_said(self, place: Place) -> None:
        place.releases.apply(plan())
        place.docker.fails["container"] = Done(1, "Cannot connect to the Docker daemon")
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
    assert Release.of(plan()) == Release.of(replace(plan(), arguments={}, people=("x",)))


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
        done = engine.run(["sh", "-c", "cat; echo two >&2; exit 3"], input=b"one\n", on_line=seen.append)
        assert (done.code, done.text, seen) == (3, "one\ntwo", ["one", "two"])

    def test_one_that_takes_too_long_is_killed(self) -> None:
        done = engine.run(["sleep", "600"], timeout=0.3)
        assert (done.code, done.line) == (124, "sleep did not end within 0.3 s")

    def test_one_that_is_not_there_is_said(self) -> None:
        assert engine.run(["no-such-program"]) == Done(127, "no-such-program is not installed")

    def test_one_that_does_not_read_its_input_ends(self) -> None:
        assert engine.run(["true"], input=b"x" * 1_000_000).code == 0

    def test_what_it_is_told_by_the_environment_it_has(self) -> None:
        assert engine.run(["sh", "-c", "echo $A"], environment={"A": "b"}).text == "b"


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
        assert machine("take", tar_of(FILES.values()).getvalue()) == (0, [{"done": {"taken": 2}}])
        assert machine("missing", json.dumps(names).encode()) == (0, [{"done": {"missing": []}}])

    def test_a_failure_is_told_as_one(self, machine: Any) -> None:
        code, told_ = machine("take", tar_of([b"x"], lambda _data: "y").getvalue())
        assert code == 1
        assert told_[0]["failed"]["message"].startswith("The copy to the machine broke off")

    def test_without_docker_it_says_so(self, machine: Any, tmp_path: Path) -> None:
        machine("take", tar_of(FILES.values()).getvalue())
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
        Releases(program.parent, tmp_path, print).store.take(tar_of(FILES.values()))
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
        assert process.wait(timeout=20) == 1
        assert (tmp_path / "built").exists()

    def test_it_is_small_and_the_same_each_time(self) -> None:
        assert len(PROGRAM) < 60_000
        assert packed("gridup_node.vm.release", release.MODULES) == PROGRAM
