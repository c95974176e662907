"""A node on a machine of its own: its first boot, its own CA, who is let in, what it printed as it booted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from gridup import health, public_ip
from gridup.reporter import Silent
from gridup_infra.errors import DeadlineError, FirstBootError, ResourceError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.base import StackRef
from support import http_rig as rig
from support.fake_target import FakeTarget
from support.inside import Inside

TAIL = ("E: Unable to locate package docker.oi", "gridup-host: step packages failed")


@pytest.fixture
def machine(inside: Inside, moon: type[FakeTarget]) -> Iterator[NodeOutputs]:
    """A container host whose ssh answers, and which has no node."""
    with rig.serve(rig.banner("SSH-2.0-OpenSSH_10.0"), speaks_first=True) as ssh:
        outputs = host(inside.spec("Inst", target="moon", no_node=True), ssh.port)
        inside.lay_outputs(outputs)
        yield outputs


def host(spec: DeploySpec, ssh: int) -> NodeOutputs:
    offered = {"proxy": 1, "ssh": ssh, "jupyter": 2}
    missing = dict.fromkeys(("ui", "api", "jupyter"), "--no-node")
    return NodeOutputs(spec, "127.0.0.1", offered, tls=True, ssh_user="gridup", not_offered=missing)


class TestRestart:
    """What `status` says of a machine whose updates wait for a restart."""

    def test_it_is_said_with_the_packages_and_what_to_do(
        self, inside: Inside, moon: type[FakeTarget], machine: NodeOutputs
    ) -> None:
        moon.restart = ("base", "linux-1", "linux-2", "x")
        told = inside("status", "Inst").ok().out
        assert (
            "Inst: a restart of its machine is due for its updates (base, linux-1, linux-2, …): "
            "`gridup ssh Inst -- sudo reboot` does it; `--reboot-at HH:MM` has the updates do it."
        ) in " ".join(told.split())
        (row,) = inside("status", "--json").ok().json
        assert (row["reboot_due"], row["right"]) == (True, True)
        inside.lay_outputs(replace(machine, spec=replace(machine.spec, reboot_at="03:30")))
        assert "due for its updates" in (told := " ".join(inside("status").ok().out.split()))
        assert "it comes with the updates at 03:30" in told

    def test_nothing_is_said_where_none_is_due_and_nobody_asked_whose_ssh_is_silent(
        self, inside: Inside, moon: type[FakeTarget], machine: NodeOutputs
    ) -> None:
        assert "restart" not in inside("status").ok().out
        assert inside("status", "--json").ok().json[0]["reboot_due"] is False
        assert moon.calls.count("restart_due") == 2
        moon.restart = ()
        inside("status", "--no-probe").ok()
        inside.lay_outputs(replace(machine, ports={**machine.ports, "ssh": 1}))
        assert inside("status", "--json").json[0]["reboot_due"] is False
        assert moon.calls.count("restart_due") == 2


class TestFirstBoot:
    """What no probe sees: whether the first boot has ended, and how."""

    def test_a_wait_lasts_until_it_has(
        self, inside: Inside, moon: type[FakeTarget], machine: NodeOutputs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "READY_PAUSE", 0.05)
        moon.readiness = [False, ResourceError("sshd is being restarted."), False, True]
        ended = inside("check", "Inst", "--wait", "--timeout", "10").ok()
        assert moon.calls.count("ready") == 4
        assert ended.out.count("✅") == 2
        assert "➖ --no-node" in ended.out

    def test_one_that_failed_ends_it_at_once_with_the_tail(
        self, inside: Inside, moon: type[FakeTarget], machine: NodeOutputs
    ) -> None:
        moon.readiness = [False]
        moon.gives_up = FirstBootError("The first boot of Inst failed.", "gridup logs Inst --boot", TAIL)
        for words in (["--wait", "--timeout", "60"], []):
            ended = inside("check", "Inst", *words)
            assert ended.code == 4
            for line in TAIL:
                assert f"  | {line}" in ended.err

    @pytest.mark.parametrize(("words", "code"), [(["--wait", "--timeout", "1"], 9), ([], 10)])
    def test_one_that_has_not_ended_in_time_is_not_up(
        self, inside: Inside, moon: type[FakeTarget], machine: NodeOutputs, words: list[str], code: int
    ) -> None:
        moon.readiness = [ResourceError("sshd is being restarted.")]
        ended = inside("check", "Inst", "--json", *words)
        assert ended.code == code
        assert "its first boot has not ended yet: sshd is being restarted." in ended.err
        (row,) = ended.json
        assert (row["name"], row["up"]) == ("Inst", False)

    def test_what_comes_of_it_is_a_deploys_end_too(
        self, inside: Inside, moon: type[FakeTarget], machine: NodeOutputs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "support.fake_engine.outputs_for", lambda spec, _folder: replace(machine, spec=spec)
        )
        words = ["deploy", "New", "--cloud", "moon", "--no-node", "--allow-cidr", "127.0.0.0/8"]
        moon.gives_up, moon.readiness = FirstBootError("The first boot of New failed.", "", TAIL), [False]
        ended = inside(*words)
        assert ended.code == 4
        assert TAIL[0] in ended.err
        moon.gives_up, moon.readiness = None, [False, True]
        monkeypatch.setattr(health, "READY_PAUSE", 0.05)
        ended = inside(*words).ok()
        assert "Waiting for the first boot to end" in ended.err
        assert "`gridup deploy --name New` goes on." in ended.err
        assert "password" not in ended.err

    def test_nobody_waits_who_asked_not_to(
        self, inside: Inside, moon: type[FakeTarget], machine: NodeOutputs
    ) -> None:
        moon.readiness = [False]
        words = ["--cloud", "moon", "--no-node", "--allow-cidr", "127.0.0.0/8", "--no-wait"]
        inside("deploy", "New", *words).ok()
        assert "ready" not in moon.calls


class TestOwnCa:
    """A node whose certificate its own CA signed."""

    @pytest.fixture
    def node(self, inside: Inside, moon: type[FakeTarget], tmp_path: Path) -> Iterator[NodeOutputs]:
        certificate = rig.self_signed(tmp_path)
        with ExitStack() as stack:
            web = stack.enter_context(rig.serve(rig.node(), tls=certificate.context))
            jupyter = stack.enter_context(rig.serve(rig.jupyter(), tls=certificate.context))
            ssh = stack.enter_context(rig.serve(rig.banner("SSH-2.0-OpenSSH_10.0"), speaks_first=True))
            outputs = NodeOutputs(
                inside.spec("Inst", target="moon"),
                "127.0.0.1",
                {"proxy": web.port, "jupyter": jupyter.port, "ssh": ssh.port},
                tls=True,
                ca=certificate.cert.read_text(),
            )
            inside.lay_outputs(outputs)
            yield outputs

    def test_it_is_the_only_one_that_counts(
        self, inside: Inside, node: NodeOutputs, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        shown = inside("check", "Inst").ok().out
        assert shown.count("✅") == 5
        assert "untrusted" not in shown
        other = rig.self_signed(tmp_path_factory.mktemp("other")).cert.read_text()
        inside.lay_outputs(replace(node, ca=other))
        ended = inside("check", "Inst")
        assert ended.code == 10
        assert ended.out.count("its certificate is not this node's own") == 3

    @pytest.mark.parametrize("name", ["", "inst.localhost"])
    def test_an_impostor_in_the_place_of_a_node_with_a_public_certificate_is_down(
        self, inside: Inside, node: NodeOutputs, name: str
    ) -> None:
        spec = replace(node.spec, domain_name=name)
        outputs = replace(node, ca="", spec=spec, address=name or node.address)
        inside.lay_outputs(outputs)
        ended = inside("check", "Inst", "--json")
        assert ended.code == 10
        rows = {row["service"]: (row["state"], row["detail"]) for row in ended.json[0]["endpoints"]}
        why = "its certificate is not this node's own: self-signed certificate"
        assert [rows[key] for key in ("ui", "api", "jupyter")] == [("down", why)] * 3
        assert inside("check", "Inst", "--wait", "--timeout", "1").code == 9
        target = FakeTarget()
        with pytest.raises(DeadlineError, match="its certificate is not this node's own"):
            health.wait_healthy(target, outputs, Silent(), 0.5, own=lambda: None)
        # Of a host that nobody says is ours, nothing else can be known.
        front = node.ports["proxy"]
        seen = inside("check", f"https://127.0.0.1:{front}", "--json").json[0]["endpoints"]
        assert {row["note"] for row in seen if row["service"] in ("ui", "api")} == {"untrusted certificate"}

    def test_it_is_printed_and_nothing_else(self, inside: Inside, node: NodeOutputs) -> None:
        assert inside("outputs", "Inst", "--ca").ok().out == node.ca
        assert inside("outputs", "Inst", "--ca", "--json").ok().json == {"ca": node.ca}
        assert inside("outputs", "Inst", "--json").ok().json["ca"] == node.ca
        assert "BEGIN" not in inside("outputs", "Inst").ok().out

    @pytest.mark.parametrize(("tls", "why"), [(True, "a public CA vouches for it"), (False, "plain http")])
    def test_one_without_says_why(self, inside: Inside, node: NodeOutputs, tls: bool, why: str) -> None:
        inside.lay_outputs(replace(node, ca="", tls=tls))
        ended = inside("outputs", "Inst", "--ca")
        assert (ended.code, ended.out) == (2, "")
        assert "Inst has no CA of its own" in ended.err
        assert why in ended.err
        assert "CA_BUNDLE" not in inside("outputs", "Inst").ok().out

    def test_at_another_port_than_that_of_https_no_way_is_told_that_syft_can_t_go(
        self, inside: Inside, node: NodeOutputs
    ) -> None:
        """Its client takes the port of an https address for 443, whatever it says."""
        told = inside("outputs", "Inst").ok().out
        assert "--ca >inst-ca.pem" in told
        assert (
            f"syft's client reaches https at port 443 alone, and this node has {node.ports['proxy']}" in told
        )
        assert "sy.login" not in told

    def test_the_way_to_trust_it_works_as_it_is_told(
        self, inside: Inside, node: NodeOutputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "HTTPS_PORT", node.ports["proxy"])
        told = inside("outputs", "Inst").ok().out.splitlines()
        save, export, login = (line.strip() for line in told[-3:])
        words, _, file = save.partition(" >")
        (tmp_path / file).write_text(inside(*(word.strip('"') for word in words.split()[1:])).ok().out)
        # What the syft client does first, with the library it does it with.
        url = login.partition('url="')[2].partition('"')[0]
        ask = f"import requests; print(requests.get('{url}/api/v2/metadata').json()['syft_version'])"
        script = f'{export}\n{sys.executable} -c "{ask}"'
        ended = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert ended.stdout == "0.9.5\n", ended.stderr
        assert subprocess.run([sys.executable, "-c", ask], capture_output=True, timeout=60).returncode != 0


class TestWhoIsLetIn:
    """Rows that are closed to us are told apart from rows that are down."""

    SPEC = DeploySpec(name="Inst", target="moon", allow_cidr=("203.0.113.0/24",), web_cidr=("0.0.0.0/0",))

    def test_the_table_of_services_tells_whom_each_is_open_to(self) -> None:
        assert health.open_to(self.SPEC) == {"ssh": ("203.0.113.0/24",), "jupyter": ("203.0.113.0/24",)}
        narrowed = replace(self.SPEC, web_cidr=("10.0.0.0/8",))
        assert health.open_to(narrowed)["ui"] == health.open_to(narrowed)["api"] == ("10.0.0.0/8",)
        assert health.open_to(DeploySpec(name="Inst")) == {}
        either = replace(self.SPEC, allow_cidr=("203.0.113.0/24", "::/0"))
        assert health.open_to(either) == {}

    @pytest.mark.parametrize(
        ("own", "code", "shown"),
        [("198.51.100.7", 0, "🔒 open to 203.0.113.0/24 only"), ("203.0.113.9", 10, "❌ no answer")],
    )
    def test_a_check_from_outside_says_restricted(
        self,
        inside: Inside,
        moon: type[FakeTarget],
        monkeypatch: pytest.MonkeyPatch,
        deaf_port: int,
        own: str,
        code: int,
        shown: str,
    ) -> None:
        asked: list[str] = []
        monkeypatch.setattr(public_ip, "ask", lambda url: asked.append(url) or own)
        with rig.serve(rig.node()) as web:
            ports = {"proxy": web.port, "jupyter": deaf_port, "ssh": deaf_port}
            inside.lay_outputs(NodeOutputs(self.SPEC, "127.0.0.1", ports))
            ended = inside("check", "Inst", "--timeout", "3")
        assert ended.code == code
        assert ended.out.count(shown) == 2
        assert len(asked) == 1

    def test_a_healthy_node_asks_nobody(
        self, inside: Inside, moon: type[FakeTarget], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(public_ip, "ask", lambda _url: pytest.fail("asked"))
        with (
            rig.serve(rig.node()) as web,
            rig.serve(rig.jupyter()) as jupyter,
            rig.serve(rig.banner("SSH-2.0-OpenSSH_10.0"), speaks_first=True) as ssh,
        ):
            ports = {"proxy": web.port, "jupyter": jupyter.port, "ssh": ssh.port}
            inside.lay_outputs(NodeOutputs(self.SPEC, "127.0.0.1", ports))
            assert inside("check", "Inst").ok().out.count("✅") == 5


class TestBootLog:
    """gridup logs --boot."""

    def test_it_is_shown_without_what_moves_the_cursor(
        self, inside: Inside, moon: type[FakeTarget], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside.lay("Inst", target="moon")
        text = "\x1b[2J\x1b[0;32m OK \x1b[0m Started sshd\r\ncloud-init: done\x07\r\n"
        monkeypatch.setattr(FakeTarget, "boot_log", lambda *_: text)
        assert inside("logs", "Inst", "--boot").ok().out == " OK  Started sshd\ncloud-init: done\n"
        assert inside("logs", "Inst", "--boot", "--json").ok().json == [
            {"service": "boot", "line": " OK  Started sshd"},
            {"service": "boot", "line": "cloud-init: done"},
        ]

    def test_one_that_is_not_there_yet_says_so(
        self, inside: Inside, moon: type[FakeTarget], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside.lay("Inst", target="moon")
        monkeypatch.setattr(FakeTarget, "boot_log", lambda *_: "")
        ended = inside("logs", "Inst", "--boot").ok()
        assert (ended.out, ended.err.startswith("The cloud has nothing yet")) == ("", True)

    def test_a_node_whose_deploy_failed_has_one_as_soon_as_it_has_a_machine(
        self, inside: Inside, moon: type[FakeTarget], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = inside.lay("Inst", half=True, target="moon")
        assert "was not completed" in inside("logs", "Inst", "--boot").err

        def partial_outputs(
            _self: FakeTarget, identity: StackRef, found: DeploySpec, states: Mapping[str, object]
        ) -> NodeOutputs:
            assert (identity.stack_id, found.name, len(states)) == (spec.stack_id, "Inst", 2)
            return NodeOutputs(spec, "", {}, facts={"machine": "m-1"})

        monkeypatch.setattr(FakeTarget, "partial_outputs", partial_outputs)
        monkeypatch.setattr(FakeTarget, "boot_log", lambda _self, outputs: f"of {outputs.facts['machine']}")
        assert inside("logs", "Inst", "--boot").ok().out == "of m-1\n"

    @pytest.mark.parametrize("words", [["api"], ["-f"]])
    def test_it_is_the_machines_and_whole(
        self, inside: Inside, moon: type[FakeTarget], words: list[str]
    ) -> None:
        inside.lay("Inst", target="moon")
        assert inside("logs", "Inst", "--boot", *words).code == 2

    def test_who_has_no_machine_has_no_such_log(self, inside: Inside) -> None:
        inside.lay("Inst")
        ended = inside("logs", "Inst", "--boot")
        assert ended.code == 2
        assert "has no --boot" in ended.err
