"""What a cloud asks of the command line, with a cloud that is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gridup import public_ip
from gridup.session import Session
from gridup.setup import extras
from gridup_infra.errors import CredentialsError, ResourceError, SetupError
from gridup_infra.targets.local import LocalTarget
from support import http_rig as rig
from support.checkpoints import write_checkpoint
from support.cli import Ended
from support.fake_target import FakeTarget
from support.inside import Inside, spec_of

OPEN = ("--allow-cidr", "203.0.113.0/24")

Deploy = Callable[..., Ended]


@pytest.fixture
def deploy(inside: Inside, moon: type[FakeTarget]) -> Deploy:
    """`gridup deploy Inst` on the cloud, not waited for."""

    def run(*words: str) -> Ended:
        return inside("deploy", "Inst", "--cloud", "moon", "--no-wait", *words)

    return run


class TestOptions:
    """What is asked for reaches the spec, and stays there."""

    def test_all_of_them(self, inside: Inside, deploy: Deploy) -> None:
        image = "registry.inst.example:5000/gridup/node@sha256:" + "0" * 64
        words = ["--region", "eu-west-1", "--size", "large", "--disk-size", "64", "--subnet-id", "subnet-1"]
        words += [
            "--cpu-credits",
            "unlimited",
            "--private",
            "--image",
            image,
            "--domain-name",
            "node.inst.example",
            "--keep-data",
        ]
        words += ["--web-cidr", "10.0.0.0/8", "--web-cidr", "203.0.113.0/24", *OPEN]
        deploy(*words).ok()
        spec = spec_of(inside)
        assert (spec.region, spec.size, spec.disk_size, spec.subnet_id) == (
            "eu-west-1",
            "large",
            64,
            "subnet-1",
        )
        assert spec.cpu_credits == "unlimited"
        assert (spec.private, spec.image, spec.domain_name) == (True, image, "node.inst.example")
        assert (spec.web_cidr, spec.allow_cidr) == (("10.0.0.0/8", "203.0.113.0/24"), ("203.0.113.0/24",))
        assert "Nothing changed" in deploy().err
        deploy("--no-private").ok()
        assert (spec_of(inside).private, spec_of(inside).region) == (False, "eu-west-1")

    @pytest.mark.parametrize(
        "words", [["destroy", "Inst", "--yes"], ["refresh", "Inst"], ["deploy", "Inst", *OPEN]]
    )
    def test_what_a_provider_fails_with_is_explained_whatever_the_engine_was_asked_for(
        self, inside: Inside, deploy: Deploy, moon: type[FakeTarget], words: list[str]
    ) -> None:
        deploy(*OPEN).ok()
        inside.engine.fail_at = ("node", "token: 401")
        moon.explains = CredentialsError("The credentials for the moon have expired.", "Log in again.")
        moon.left = None
        ended = inside(*words, *(["--size", "large", "--no-wait"] if words[0] == "deploy" else []))
        assert ended.code == 3
        assert "The credentials for the moon have expired." in ended.err
        assert "Log in again." in ended.err
        moon.explains = None
        assert inside(*words, *(["--size", "large", "--no-wait"] if words[0] == "deploy" else [])).code == 4

    def test_a_new_machine_is_another_generation_each_time(self, inside: Inside, deploy: Deploy) -> None:
        deploy("--new-machine", *OPEN).ok()
        assert spec_of(inside).machine_revision == 0, "a new node has a new machine anyway"
        for generation in (1, 2):
            deploy("--new-machine").ok()
            assert spec_of(inside).machine_revision == generation
        assert "Nothing changed" in deploy().err

    def test_the_next_deploy_brings_up_what_was_stopped_at_the_host(
        self, inside: Inside, deploy: Deploy
    ) -> None:
        deploy("--no-node", *OPEN).ok()
        assert spec_of(inside).no_node
        deploy().ok()
        assert not spec_of(inside).no_node

    def test_a_password_is_for_a_node(self, inside: Inside, deploy: Deploy, tmp_path: Path) -> None:
        (tmp_path / "p").write_text("S3cret!x9Qz-long\n")
        ended = deploy("--no-node", "--admin-password-file", str(tmp_path / "p"), *OPEN)
        assert (ended.code, inside.engine.calls) == (2, [])
        assert "with --no-node there is no node to set it on" in ended.err

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--image", "a node"], "--image 'a node' is not an image's reference"),
            (["--image", "-rm"], "is not an image's reference"),
            (["--image", "node@sha256:12"], "is not an image's reference"),
            (["--domain-name", "node"], "--domain-name 'node' is not a whole DNS name"),
            (["--domain-name", "node.example {\n}"], "is not a whole DNS name"),
            (["--allow-cidr", "203.0.113.7/24"], "--allow-cidr '203.0.113.7/24' is not a network"),
            (["--disk-size", "0"], "--disk-size"),
            (["--cpu-credits", "free"], "--cpu-credits 'free': it is standard or unlimited"),
            (["--port", "80"], "A node on the moon has no --port"),
        ],
    )
    @pytest.mark.parametrize("command", ["deploy", "preview"])
    def test_the_impossible_is_refused_before_anything_is_made(
        self, inside: Inside, moon: type[FakeTarget], command: str, words: list[str], said: str
    ) -> None:
        ended = inside(command, "Inst", "--cloud", "moon", *OPEN, *words)
        assert (ended.code, inside.engine.calls) == (2, [])
        assert said in ended.err

    @pytest.mark.parametrize(
        "words",
        [
            ["--subnet-id", "s"],
            ["--private"],
            ["--cpu-credits", "unlimited"],
            ["--image", "node"],
            ["--new-machine"],
            ["--domain-name", "a.example"],
        ],
    )
    def test_who_has_no_such_thing_refuses_it_by_its_flag(self, inside: Inside, words: list[str]) -> None:
        ended = inside("deploy", "Inst", *words)
        assert (ended.code, inside.engine.calls) == (2, [])
        assert f"A node on {LocalTarget.title} has no {words[0]}." in ended.err

    def test_hagrids_words_take_what_a_cloud_asks(self, inside: Inside, moon: type[FakeTarget]) -> None:
        words = ["launch", "Inst", "to", "moon", "--region", "eu-west-1", "--size", "large", *OPEN]
        # Nothing of it is there, so the wait would last.
        moon.gives_up = ResourceError("There is no air.")
        assert inside(*words).code == 4
        assert (spec_of(inside).region, spec_of(inside).size) == ("eu-west-1", "large")


class TestOwnAddress:
    """Whoever deploys is let in, and nobody else."""

    @pytest.mark.parametrize(
        ("told", "opened"), [("203.0.113.7\n", "203.0.113.7/32"), ("2001:db8::7", "2001:db8::7/128")]
    )
    def test_it_is_asked_for_once_and_kept(
        self,
        inside: Inside,
        deploy: Deploy,
        monkeypatch: pytest.MonkeyPatch,
        told: str,
        opened: str,
    ) -> None:
        asked: list[str] = []
        monkeypatch.setattr(public_ip, "ask", lambda url: asked.append(url) or told.strip())
        monkeypatch.setenv(public_ip.VARIABLE, "http://address.inst.example/")
        deploy().ok()
        assert (spec_of(inside).allow_cidr, asked) == ((opened,), ["http://address.inst.example/"])
        assert "Nothing changed" in deploy().err
        assert len(asked) == 1

    def test_who_says_who_is_not_asked(
        self, inside: Inside, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(public_ip, "ask", lambda _url: pytest.fail("asked"))
        deploy(*OPEN).ok()
        inside("deploy", "Here", "--no-wait", "--cloud", "local").ok()

    @pytest.mark.parametrize("command", ["deploy", "preview"])
    def test_where_nobody_tells_the_flag_is_demanded(
        self, inside: Inside, moon: type[FakeTarget], monkeypatch: pytest.MonkeyPatch, command: str
    ) -> None:
        monkeypatch.setenv(public_ip.VARIABLE, "http://127.0.0.1:9/")
        ended = inside(command, "Inst", "--cloud", "moon")
        assert (ended.code, ended.out, inside.engine.calls) == (2, "", [])
        assert "--allow-cidr 203.0.113.0/24" in ended.err
        assert "preflight" not in moon.calls
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9/")
        assert "the proxy that HTTPS_PROXY names" in inside(command, "Inst", "--cloud", "moon").err


class TestLosses:
    """What a change destroys is said first."""

    @pytest.fixture(autouse=True)
    def _deployed(self, inside: Inside, deploy: Deploy, moon: type[FakeTarget]) -> None:
        deploy(*OPEN).ok()
        moon.lost = ("the VM i-1, and what is on its root disk",)
        inside.engine.calls.clear()

    def test_with_nobody_to_ask_it_is_refused_naming_the_flag(self, inside: Inside, deploy: Deploy) -> None:
        ended = deploy("--new-machine")
        assert (ended.code, ended.out, inside.engine.calls) == (2, "", [])
        assert "the VM i-1, and what is on its root disk" in ended.err
        assert "--yes" in ended.err
        assert "the VM i-1" in deploy("--new-machine", "--json").err

    def test_yes_agrees(self, inside: Inside, deploy: Deploy) -> None:
        assert "the VM i-1" in deploy("--new-machine", "--yes").ok().err
        assert inside.engine.calls == ["up"]

    @pytest.mark.parametrize("answer", ["", "n", "maybe"])
    def test_no_is_the_default(self, inside: Inside, deploy: Deploy, person: list[str], answer: str) -> None:
        person.append(answer)
        ended = deploy("--new-machine", "-q")
        assert (ended.code, inside.engine.calls) == (8, [])
        assert "the VM i-1" in ended.err
        assert 'Change "Inst"? [y/N]' in ended.err

    def test_a_person_agrees(self, inside: Inside, deploy: Deploy, person: list[str]) -> None:
        person.append("y")
        deploy("--new-machine").ok()
        assert inside.engine.calls == ["up"]

    def test_what_would_be_lost_only_since_then_was_not_agreed_to(
        self, inside: Inside, deploy: Deploy, person: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = iter([("one",), ("one", "another")])
        monkeypatch.setattr(FakeTarget, "destructive_changes", lambda *_: next(told))
        person.append("y")
        ended = deploy("--new-machine")
        assert (ended.code, inside.engine.calls) == (1, [])
        assert "was changed by another run meanwhile" in ended.err

    def test_a_preview_shows_it_and_asks_nobody(self, inside: Inside) -> None:
        ended = inside("preview", "Inst", "--new-machine").ok()
        assert "It destroys the VM i-1" in ended.out
        assert inside("preview", "Inst", "--json").ok().json["destructive_changes"] == [
            "the VM i-1, and what is on its root disk"
        ]


class TestSomethingNew:
    """A new node costs money: a person is asked, a script has asked by itself."""

    def test_a_person_sees_what_will_be_and_may_say_no(
        self, inside: Inside, deploy: Deploy, person: list[str]
    ) -> None:
        # What visitors of a new node read is asked for first.
        person += ["Lab of Inst", "", "n"]
        ended = deploy("--region", "eu-west-1", *OPEN)
        assert (ended.code, inside.engine.calls) == (8, [])
        assert "a crater in eu-west-1" in ended.err
        person.append("y")
        deploy("--region", "eu-west-1", "--description", "Cohorts", "--organization", "Lab", *OPEN).ok()
        assert (spec_of(inside).organization, spec_of(inside).description) == ("Lab", "Cohorts")
        # It is there now, and nothing is lost: nobody is asked.
        deploy("--size", "large").ok()

    def test_what_visitors_read_is_as_it_was_answered(
        self, inside: Inside, deploy: Deploy, person: list[str]
    ) -> None:
        person += ["Lab of Inst", "", "y"]
        deploy(*OPEN).ok()
        assert (spec_of(inside).organization, spec_of(inside).description) == ("Lab of Inst", None)
        ended = deploy("--organization", "a\nb")
        assert (ended.code, "--organization: a line of at most 200 characters" in ended.err) == (2, True)
        deploy("--organization", "", "--description=").ok()
        assert (spec_of(inside).organization, spec_of(inside).description) == ("", ""), "taken back"

    def test_a_script_is_not_asked(self, inside: Inside, deploy: Deploy) -> None:
        assert "crater" not in deploy(*OPEN).ok().err

    def test_nor_is_anybody_where_it_costs_nothing(
        self, inside: Inside, person: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(LocalTarget, "preflight", lambda *_: None)
        inside("deploy", "Inst", "--no-wait").ok()


class TestCredentials:
    """Case G14: nobody is logged in."""

    @pytest.fixture(autouse=True)
    def _nobody(self, moon: type[FakeTarget]) -> None:
        moon.refuses = CredentialsError("The moon has no credentials of yours.", "Set MOON_KEY.")

    def test_a_deploy_makes_nothing(self, inside: Inside, deploy: Deploy) -> None:
        ended = deploy(*OPEN)
        assert (ended.code, ended.out, inside.engine.calls) == (3, "", [])
        assert ended.err.splitlines()[-2:] == [
            "Error: The moon has no credentials of yours.",
            "Set MOON_KEY.",
        ]
        assert not list((inside.state).rglob("inst*"))
        assert inside("status", "--json").ok().json == []

    def test_without_the_preflight_it_is_the_engine_that_finds_out(
        self, inside: Inside, deploy: Deploy
    ) -> None:
        deploy("--no-preflight", *OPEN).ok()
        assert inside.engine.calls == ["up"]

    def test_a_node_that_cant_be_looked_at_hides_no_other(self, inside: Inside) -> None:
        inside.lay("Away", target="moon")
        inside.lay("Here")
        rows = {row["name"]: row for row in inside("status", "--json").ok().json}
        assert rows["Away"]["state"] == "unknown"
        assert rows["Away"]["problems"] == ["can't be looked at: The moon has no credentials of yours."]
        assert rows["Here"]["state"] == "missing"
        shown = inside("status").ok()
        assert "Away: Set MOON_KEY." in shown.out
        assert "❔ unknown" in shown.out
        assert 'deploy --name "Away"' not in shown.out


def test_a_node_is_destroyed_without_its_region_being_named(inside: Inside, deploy: Deploy) -> None:
    deploy("--region", "eu-west-1", *OPEN).ok()
    ended = inside("destroy", "Inst", "--yes").ok()
    assert "a crater in eu-west-1" in ended.err


def test_nor_that_of_one_whose_making_was_broken_off(inside: Inside, moon: type[FakeTarget]) -> None:
    spec = inside.lay("Inst", half=True, target="moon")
    path = inside.state / ".pulumi/stacks/gridup/inst.json"
    latest = json.loads(path.read_text())["checkpoint"]["latest"]
    for resource in latest["resources"]:
        if "stack_id" in resource.get("inputs", {}):
            resource["inputs"]["region"] = "eu-west-1"
    write_checkpoint(inside.state, spec.stack, latest)
    assert "a crater in eu-west-1" in inside("destroy", "Inst", "--yes").ok().err


class TestSdk:
    """A target's SDK is installed when it is first needed."""

    @pytest.fixture(autouse=True)
    def _needs(self, moon: type[FakeTarget], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FakeTarget, "extra", "moon")

    @pytest.fixture
    def got(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        calls: list[str] = []
        monkeypatch.setattr(extras, "ensure", lambda extra, _say: calls.append(extra) if extra else None)
        monkeypatch.setattr(extras, "installed", lambda _extra: False)
        return calls

    def test_once_a_run_before_the_target_looks_at_anything(
        self, deploy: Deploy, got: list[str], moon: type[FakeTarget]
    ) -> None:
        deploy(*OPEN).ok()
        assert got == ["moon"]
        moon.calls.clear()

    @pytest.mark.parametrize("words", [["--port", "80"], ["--name", "Other"], ["--ssh-key", "/no/such"]])
    def test_not_for_what_is_refused_anyway(self, deploy: Deploy, got: list[str], words: list[str]) -> None:
        assert deploy(*OPEN, *words).code == 2
        assert got == []

    @pytest.mark.parametrize(
        "words",
        [["status"], ["check", "Inst", "--timeout", "1"], ["refresh", "Inst"], ["destroy", "Inst", "--yes"]],
    )
    def test_for_a_command_that_asks_the_target(
        self, inside: Inside, got: list[str], words: list[str]
    ) -> None:
        inside.lay("Inst", target="moon")
        inside(*words)
        assert got == ["moon"]

    def test_plain_pulumi_finds_it_there_as_well(
        self, inside: Inside, got: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Session, "binary", lambda _session, _reporter: type("Binary", (), {"root": "/e"}))
        inside.lay("Inst", target="moon")
        inside("env", "Inst").ok()
        assert got == ["moon"]

    @pytest.mark.parametrize(
        "words", [["outputs", "Inst"], ["open", "Inst"], ["doctor"], ["deploy", "--help"]]
    )
    def test_not_for_what_needs_no_look(self, inside: Inside, got: list[str], words: list[str]) -> None:
        inside.lay("Inst", target="moon")
        inside(*words)
        assert got == []

    @pytest.mark.parametrize(("there", "said"), [(True, "installed"), (False, "none yet")])
    def test_doctor_says_whether_it_is_there(
        self, inside: Inside, got: list[str], monkeypatch: pytest.MonkeyPatch, there: bool, said: str
    ) -> None:
        monkeypatch.setattr(extras, "installed", lambda _extra: there)
        found = {row["name"]: row for row in inside("doctor", "--json").json}["SDK of the moon"]
        assert found["ok"] is (True if there else None)
        assert found["detail"].startswith(said)

    def test_a_failure_is_one_error_and_hides_no_other_node(
        self, inside: Inside, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tries: list[str] = []

        def fail(extra: str, _say: object) -> None:
            if extra:
                tries.append(extra)
                raise SetupError(
                    "The packages of moon could not be fetched: no route.", "Is there a network?"
                )

        monkeypatch.setattr(extras, "ensure", fail)
        ended = deploy(*OPEN)
        assert (ended.code, inside.engine.calls) == (1, [])
        assert (
            "Error: The packages of moon could not be fetched: no route.\nIs there a network?\n" in ended.err
        )
        for name in ("One", "Two", "Three"):
            inside.lay(name, target="moon")
        inside.lay("Here")
        tries.clear()
        rows = {row["name"]: row["state"] for row in inside("status", "--json").ok().json}
        assert rows == {"Here": "missing", "One": "unknown", "Two": "unknown", "Three": "unknown"}
        assert tries == ["moon"], "one try is enough"


@pytest.mark.timeout(60)
class TestAsking:
    """The service that tells our address."""

    @pytest.mark.parametrize("told", ["203.0.113.7\n", " 198.51.100.7 "])
    def test_an_address_is_taken(self, told: str) -> None:
        with rig.serve(rig.always(rig.reply(200, told.encode(), "text/plain"))) as server:
            assert public_ip.ask(url_of(server)) == told.strip()

    def test_the_address_of_a_proxy_is_not_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with (
            rig.serve(rig.always(rig.reply(200, b"198.51.100.7"))) as proxy,
            rig.serve(rig.always(rig.reply(200, b"203.0.113.9"))) as server,
        ):
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, url_of(proxy))
            monkeypatch.setenv("NO_PROXY", "")
            assert public_ip.ask(url_of(server)) == "203.0.113.9"
            assert proxy.connections == 0

    def test_nor_is_one_of_ipv6_which_no_node_has(self) -> None:
        with rig.serve(rig.always(rig.reply(200, b"2001:db8::7", "text/plain"))) as server:
            assert public_ip.ask(url_of(server)) is None

    @pytest.mark.parametrize("told", ["", "<html>", "203.0.113.7, 10.0.0.1", "0.0.0.0", "1" * 5000, "\xff"])
    def test_anything_else_is_not(self, told: str) -> None:
        with rig.serve(rig.always(rig.reply(200, told.encode(), "text/plain"))) as server:
            assert public_ip.ask(url_of(server)) is None

    def test_nor_is_what_comes_with_an_error(self) -> None:
        with rig.serve(rig.always(rig.reply(503, b"203.0.113.7"))) as server:
            assert public_ip.ask(url_of(server)) is None

    @pytest.mark.parametrize("handler", [rig.silent, rig.trickle(b"HTTP/1.1 200 OK\r\nA: 1\r\n" * 50)])
    def test_a_server_that_dawdles_has_only_its_time(self, handler: rig.Handler) -> None:
        with rig.serve(handler) as server:
            assert public_ip.ask(url_of(server), 0.5) is None


def url_of(server: rig.Server) -> str:
    return f"http://{server.host}:{server.port}/"
