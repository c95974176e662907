"""The target `ssh` before anything is made: what it is told, who answers, and whose word counts for that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gridup_infra import openssh, targets
from gridup_infra.errors import (
    CredentialsError,
    FirstBootError,
    GridupError,
    PreflightError,
    ResourceError,
    UsageError,
)
from gridup_infra.openssh import Configured, Destination
from gridup_infra.outputs import BEHIND, NodeOutputs
from gridup_infra.processes import Result, run
from gridup_infra.spec import NEW_DATA, DeploySpec
from gridup_infra.targets.base import Retained
from gridup_infra.targets.dynamic import ProviderError
from gridup_infra.targets.ssh import machine_agent
from gridup_infra.targets.ssh.providers import FORGET, OwnerProvider
from gridup_infra.targets.ssh.user_ssh import verify_host
from gridup_infra.vm import keys, node
from gridup_infra.vm.acme import AcmeConfig
from gridup_infra.vm.plan import plan
from gridup_infra.vm.ssh import HostKeyError
from support.ssh_keys import ecdsa, ed25519
from support.ssh_rig import HERE, Machine

SPEC = DeploySpec(name="Inst", target="ssh", stack_id="0123456789abcdef", host="machine")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("ssh")) as machine:
        yield machine


@pytest.fixture
def person(rig: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """As `rig`, on this process's PATH; known hosts and settings are put back."""
    monkeypatch.setenv("PATH", rig.path)
    known, config = rig.known_hosts.read_text(), rig.config.read_text()
    yield rig
    rig.known_hosts.write_text(known)
    rig.config.write_text(config)


def own_key(rig: Machine) -> str:
    return " ".join((rig.folder / "host_ed25519.pub").read_text().split()[:2])


class TestTold:
    @pytest.mark.parametrize(
        ("text", "made"),
        [
            ("lab", Destination("lab")),
            ("ada@lab.inst.example", Destination("lab.inst.example", "ada")),
            ("ada@203.0.113.9:2222", Destination("203.0.113.9", "ada", 2222)),
            ("[2001:db8::1]:22", Destination("2001:db8::1", "", 22)),
            ("a.b@[::1]", Destination("::1", "a.b")),
        ],
    )
    def test_a_machine_is_named_as_ssh_would_have_it(self, text: str, made: Destination) -> None:
        assert Destination.read(text) == made
        assert made.argv()[-2:] == ["--", made.host]

    @pytest.mark.parametrize(
        "text",
        [
            "-oProxyCommand=x",
            "ada@",
            "@lab",
            "-l@lab",
            "a b",
            "$(x)",
            "2001:db8::1",
            "lab:0",
            "lab:99999",
            "lab:ssh",
        ],
    )
    def test_what_ssh_could_take_for_something_else_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="--host") as caught:
            targets.target("ssh").resolve(replace(SPEC, host=text), None)
        assert "[user@]address[:port]" in caught.value.suggestion

    def test_one_must_be_named(self) -> None:
        with pytest.raises(UsageError, match="Which machine") as caught:
            targets.target("ssh").resolve(replace(SPEC, host=""), None)
        assert "--host user@address" in caught.value.suggestion

    @pytest.mark.parametrize(
        ("jump", "address", "words"),
        [
            ("bastion", "192.0.2.7", ["-W", "192.0.2.7:2222", "--", "bastion"]),
            ("ada@bastion:23", "lab", ["-W", "lab:2222", "-p", "23", "-l", "ada", "--", "bastion"]),
            (
                "a,ada@b:23,[::1]:24",
                "fd00::7",
                ["-J", "a,ada@b:23", "-W", "[fd00::7]:2222", "-p", "24", "--", "::1"],
            ),
        ],
    )
    def test_by_way_of_others_it_is_reached_as_their_jump_says(
        self, jump: str, address: str, words: list[str]
    ) -> None:
        way = Configured(address, 22, jump=jump).way(address, 2222, "gridup")
        assert way[0] == "ssh"
        told = [word for word in way if word in words]
        assert told == words
        assert "BatchMode=yes" in way
        # A login on the bastion that the person has open is used.
        assert not any(word.startswith("ControlPath=") for word in way)

    def test_by_a_command_it_is_reached_as_that_is_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SHELL", "/bin/dash")
        made = Configured("lab", 22, command="nc -x 'a b' %h %p # %r %%h %d").way("lab", 2222, "gridup")
        assert made == ("/bin/dash", "-c", "exec nc -x 'a b' lab 2222 # gridup %h %d")
        assert Configured("lab", 22).way("lab", 2222, "gridup") == ()

    def test_a_jump_that_can_be_no_destination_is_refused(self) -> None:
        with pytest.raises(PreflightError, match="ProxyJump"):
            Configured("lab", 22, jump="-oProxyCommand=x").way("lab", 22, "gridup")

    def test_a_host_key_is_a_line_of_ed25519(self) -> None:
        line = ed25519("root@lab")
        made = targets.target("ssh").resolve(replace(SPEC, host_key=f"{line}\n"), None)
        assert made.host_key == " ".join(line.split()[:2])
        for wrong, why in ((ecdsa("a"), "ssh-ed25519 is pinned"), ("SHA256:abc", "not a public key")):
            with pytest.raises(UsageError, match=why) as caught:
                targets.target("ssh").resolve(replace(SPEC, host_key=wrong), None)
            assert "ssh_host_ed25519_key.pub" in caught.value.suggestion


class TestMeeting:
    def test_the_persons_settings_tell_where_it_is(self, person: Machine) -> None:
        found = Configured.of(Destination.read("machine"))
        assert (found.address, found.port) == (HERE, person.port)
        assert found.files[0] == person.known_hosts

    @pytest.mark.parametrize("hashed", [False, True])
    def test_known_hosts_vouch_for_it(self, person: Machine, hashed: bool) -> None:
        if hashed:
            words = ["ssh-keygen", "-q", "-H", "-f", str(person.known_hosts)]
            subprocess.run(words, check=True, capture_output=True)
            assert HERE not in person.known_hosts.read_text()
        found = verify_host("machine")
        assert found.host_key == own_key(person)
        assert (found.trusted_by_known_hosts, found.first_contact) == (False, False)

    def test_one_that_they_do_not_know_is_told_of(self, person: Machine) -> None:
        person.known_hosts.write_text("")
        assert verify_host("machine").first_contact
        assert person.known_hosts.read_text() == ""

    def test_another_key_than_theirs_is_refused(self, person: Machine) -> None:
        _, other = keys.new_key()
        person.known_hosts.write_text(f"[{HERE}]:{person.port} {other}\n")
        with pytest.raises(HostKeyError, match="in your known_hosts: it shows SHA256:"):
            verify_host("machine")

    def test_another_key_than_the_pinned_one_shows_at_the_door(self, person: Machine) -> None:
        _, other = keys.new_key()
        pinned = " ".join(other.split()[:2])
        with pytest.raises(PreflightError, match=r"given, or pinned at first contact: it shows SHA256:"):
            machine_agent.look(SPEC, pinned=pinned, must_be_ours=False)

    def test_who_is_not_there_is_told_apart(self, person: Machine) -> None:
        with pytest.raises(PreflightError, match="Could not resolve hostname"):
            verify_host("no-such-machine.invalid")
        with pytest.raises(PreflightError, match="Connection refused") as caught:
            verify_host(f"{HERE}:1")
        assert "--host user@address:2222" in caught.value.suggestion

    def test_a_key_that_opens_nothing_is_a_matter_of_credentials(self, person: Machine) -> None:
        with pytest.raises(CredentialsError, match="Permission denied") as caught:
            machine_agent.look(replace(SPEC, host="nobody-there@machine"), pinned="", must_be_ours=False)
        assert "ssh-copy-id" in caught.value.suggestion


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at this machine as the target does")
class TestAnotherAddress:
    def test_a_machine_that_does_not_hold_the_node_is_not_it(self, person: Machine) -> None:
        ports = {"proxy": 443, "ssh": 22, "jupyter": 8888}
        current = NodeOutputs(replace(SPEC, host="ada@198.51.100.1"), "198.51.100.1", ports)
        with pytest.raises(PreflightError) as caught:
            targets.target("ssh").preflight(SPEC, current)
        told = [caught.value.message, *caught.value.details]
        assert any('does not hold the node "Inst"' in line for line in told)

    def test_one_that_nothing_was_asked_of_is_not_contacted(self) -> None:
        spec = replace(SPEC, host="ada@198.51.100.1")
        current = node.node_outputs(spec, "198.51.100.1", {}, {node.MACHINE: "0"})
        targets.target("ssh").preflight(spec, current)


class TestOwner:
    def props(self, rig: Machine, **more: Any) -> dict[str, Any]:
        private, _ = keys.new_key()
        marks = {"stack": "inst", "stack_id": "0123456789abcdef", "name": "Inst", "keep_data": False}
        reached = {"address": HERE, "port": rig.port, "host_key": own_key(rig)}
        return {**marks, **reached, "host": "machine", "asked_key": "", "private_key": private, **more}

    def test_a_node_at_another_address_must_show_the_key_that_was_pinned(self, person: Machine) -> None:
        olds = self.props(person, host="ada@198.51.100.1", address="198.51.100.1")
        news = {**olds, "host": "machine", "address": None, "port": None, "host_key": None}
        assert OwnerProvider().diff("", olds, news).changes
        made = OwnerProvider().update("", olds, news).outs
        assert made is not None
        assert (made["address"], made["port"], made["host_key"]) == (HERE, person.port, olds["host_key"])

    def test_one_that_an_earlier_version_has_made_is_told_what_it_lacks_once(self) -> None:
        olds = {"host": "machine", "asked_key": "", "address": HERE, "port": 1, "host_key": "K"}
        news = {**olds, "address": None, "port": None, "host_key": None, "behind": None}
        assert OwnerProvider().diff("", olds, news).changes
        made = OwnerProvider().update("", olds, news).outs
        assert made == {**olds, "behind": ""}
        assert not OwnerProvider().diff("", made, news).changes

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at this machine as the target does")
    def test_one_that_knows_neither_node_nor_its_key_has_nothing_to_take_away(self, person: Machine) -> None:
        OwnerProvider().delete("", self.props(person))

    def test_one_that_is_gone_is_an_error_with_a_way_out(
        self, person: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gridup_infra.targets.ssh.providers.DELETE_TIMEOUT", 1.0)
        props = self.props(person, port=1)
        with pytest.raises(ProviderError, match=f"{FORGET}=1 gridup destroy Inst") as caught:
            OwnerProvider().delete("", props)
        assert "/var/lib/gridup" in str(caught.value)
        monkeypatch.setenv(FORGET, "1")
        OwnerProvider().delete("", props)


def test_without_ssh_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("ssh")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreflightError, match="There is no `ssh` on this machine"):
        verify_host("machine")
    assert issubclass(HostKeyError, ResourceError)


class Told:
    """A machine whose program answers as a test says."""

    host = "ada@lab"

    def __init__(self, *lines: dict[str, Any] | str | Exception) -> None:
        self._lines = lines

    def run(self, argv: Any, input: bytes, on_line: Any, timeout: float) -> Any:
        for line in self._lines:
            if isinstance(line, Exception):
                raise line
            on_line(line if isinstance(line, str) else json.dumps(line))
        return Result((), 1, "", "")

    def refused(self, said: Any, what: str, code: int) -> GridupError:
        return CredentialsError(f"{what or 'no answer'}: {' '.join(said)}")


class TestAnswers:
    """What comes of the machine's program, as a person is told of it."""

    ASKED = machine_agent.told(SPEC)

    def test_what_it_does_is_heard_and_what_came_of_it_returned(self) -> None:
        heard: list[str] = []
        way = Told({"say": "step user"}, "a banner", {"say": "done"}, {"done": {"machine": "1"}})
        assert machine_agent.make(way, self.ASKED, heard.append) == {"machine": "1"}
        assert heard == ["step user", "done"]

    def test_a_step_that_failed_is_one_of_the_first_boots_with_the_end_of_its_log(self) -> None:
        way = Told(
            {"failed": {"message": "step packages: apt-get install: no network", "tail": ["one", "", "two"]}}
        )
        with pytest.raises(FirstBootError, match="made a container host: step packages: apt-get") as caught:
            machine_agent.make(way, self.ASKED, lambda _text: None)
        assert caught.value.details == ("one", "two")
        assert caught.value.exit_code == 4

    def test_what_came_in_the_way_meanwhile_is_told_like_before(self) -> None:
        found = [
            {"message": "port 80 is taken.", "suggestion": "Stop it."},
            {"message": "b", "suggestion": ""},
        ]
        with pytest.raises(PreflightError, match=r"ada@lab can't take the node: port 80 is taken") as caught:
            machine_agent.make(Told({"problems": found}), self.ASKED, lambda _text: None)
        assert caught.value.suggestion == "Stop it."
        assert caught.value.details == ("also: b",)

    def test_who_is_not_let_in_or_hears_nothing_says_so(self) -> None:
        with pytest.raises(CredentialsError, match="no sudo"):
            machine_agent.make(Told({"refused": "no sudo"}), self.ASKED, lambda _text: None)
        with pytest.raises(CredentialsError, match="no answer: kex_exchange"):
            machine_agent.make(Told("kex_exchange"), self.ASKED, lambda _text: None)
        with pytest.raises(ResourceError, match="did not finish in time"):
            machine_agent.make(Told(TimeoutError("ssh")), self.ASKED, lambda _text: None)


class TestKept:
    """Data that an earlier node has left on the machine."""

    NOTE: ClassVar[dict[str, Any]] = {"stack": "inst", "name": "Inst", "since": "2026-11-29", "size": 5.0}

    def told(self, monkeypatch: pytest.MonkeyPatch, note: dict[str, Any] | None) -> Retained | None:
        answer = {"done": {"problems": [{"message": "a", "suggestion": ""}], "kept": note}}
        monkeypatch.setattr(machine_agent, "verify_host", lambda *_words: Told(answer))
        return targets.target("ssh").retained(SPEC)

    def test_they_are_told_of_with_who_logged_in_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        what = "the folder /var/lib/gridup on machine"
        plain = Retained("2026-11-29", what, "2026-11-29", 5)
        assert self.told(monkeypatch, self.NOTE) == plain
        noted = {"admin_email": "ada@inst.example", "node_type": "network"}
        assert self.told(monkeypatch, {**self.NOTE, **noted}) == replace(plain, **noted)
        assert self.told(monkeypatch, None) is None

    def test_the_machine_is_told_what_was_chosen(self) -> None:
        for more, chosen in (
            ({}, ("", False, False)),
            ({"adopted": "2026-11-29", "adopting": True}, ("2026-11-29", True, False)),
            ({"adopted": "2026-11-29"}, ("2026-11-29", False, False)),
            ({"adopted": NEW_DATA}, ("", False, True)),
        ):
            told = machine_agent.told(replace(SPEC, **more))
            assert (told.adopted, told.adopting, told.new_data) == chosen


class TestFirewall:
    """Docker's published ports go past the machine's own."""

    def warned(self, monkeypatch: pytest.MonkeyPatch, spec: DeploySpec, firewall: str = "ufw") -> str:
        monkeypatch.setattr(
            machine_agent, "verify_host", lambda *_words: Told({"done": {"firewall": firewall}})
        )
        return " ".join(targets.target("ssh").warnings(spec, None))

    def test_that_is_said_of_the_ports_that_are_open_to_everybody(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = self.warned(monkeypatch, SPEC)
        assert "machine has a firewall (ufw)" in said and "the node's ports 80, 443, 8888." in said
        assert "--web-cidr says who may reach UI and api, --allow-cidr who jupyter" in said
        assert "ports 80, 443." in self.warned(monkeypatch, replace(SPEC, allow_cidr=("10.0.0.0/8",)))
        both = replace(SPEC, allow_cidr=("10.0.0.0/8",), web_cidr=("0.0.0.0/0", "::/0"))
        bound = replace(SPEC, bind="127.0.0.1", host_names=("lab.inst.example",))
        for quiet in (both, bound, replace(SPEC, no_node=True)):
            assert self.warned(monkeypatch, quiet) == ""
        assert self.warned(monkeypatch, SPEC, firewall="") == ""

    def test_the_machine_is_told_who_reaches_which_port(self) -> None:
        spec = replace(SPEC, allow_cidr=("10.0.0.0/8",), web_cidr=("203.0.113.0/24",))
        web, staff = ["203.0.113.0/24"], ["10.0.0.0/8"]
        for more, doors in (
            ({}, {"443": web, "80": web, "8888": staff}),
            ({"port": 9443, "host_names": ("lab.inst.example",)}, {"9443": web, "8888": staff}),
            ({"web_cidr": ()}, {"8888": staff}),
        ):
            asked = replace(spec, **more)
            assert plan(asked, "192.0.2.7", "ssh-ed25519 A", AcmeConfig(), shared=True)["doors"] == doors
            # The firewall of a cloud's machine is before it.
            assert "doors" not in plan(asked, "192.0.2.7", "ssh-ed25519 A", AcmeConfig())
            summary = " ".join(targets.target("ssh").summary(asked))
            assert all(f"open to {', '.join(who)} alone: {port}" in summary for port, who in doors.items())
        assert "doors" not in plan(SPEC, "192.0.2.7", "ssh-ed25519 A", AcmeConfig(), shared=True)

    def test_the_machine_is_told_where_to_count_connections_and_whose_not(self) -> None:
        def counted(**more: Any) -> Any:
            told = plan(replace(SPEC, **more), "192.0.2.7", "ssh-ed25519 A", AcmeConfig(), shared=True)
            return told.get("counted")

        ports, proxy = ("443", "80", "8888"), "10.0.0.7/32"
        assert counted() == {port: [] for port in ports}
        assert counted(trusted_proxies=(proxy,)) == {port: [proxy] for port in ports}
        # There all have the address of the site's own proxy.
        assert counted(port=9443, host_names=("lab.inst.example",)) is None


def test_the_stacks_own_keys_let_in_from_where_that_is_said_and_peoples_from_everywhere() -> None:
    carol = ed25519("carol")
    spec = replace(SPEC, key_from=("203.0.113.0/24", "2001:db8::/32"), admin_ssh_keys=(carol,))
    own = "ssh-ed25519 A"
    people = plan(spec, "192.0.2.7", own, AcmeConfig(), shared=True, former_key="ssh-ed25519 B")[
        "authorized_keys"
    ]
    begin = 'from="203.0.113.0/24,2001:db8::/32"'
    assert people == [f"{begin} {own}", f"{begin} ssh-ed25519 B", carol]
    assert plan(SPEC, "192.0.2.7", own, AcmeConfig())["authorized_keys"] == [own]
    assert machine_agent.told(spec).key_from == spec.key_from
    with pytest.raises(UsageError, match=r"--key-from '203\.0\.113\.7/24' is not a network"):
        replace(SPEC, key_from=("203.0.113.7/24",))


def test_a_real_sshd_takes_the_line(rig: Machine) -> None:
    """It lets the very key in from the one network, and not from the other."""
    public = rig.folder / "id_ed25519.pub"
    line = public.read_text().strip()
    words = [*openssh.ssh("-T"), "-F", str(rig.config), "-o", "ControlPath=none", "machine", "true"]
    for network, code in (("127.0.0.0/8", 0), ("203.0.113.0/24", 255)):
        public.write_text(f"{keys.let_in_from((network, '2001:db8::/32'), line)}\n")
        try:
            assert run(words, timeout=30).code == code
        finally:
            public.write_text(f"{line}\n")


def test_one_that_is_reached_by_way_of_others_is_not_knocked_at() -> None:
    outputs = node.node_outputs(SPEC, "lab.invalid", {}, {node.MACHINE: "0"})
    assert not targets.target("ssh").answers(outputs)
    behind = replace(outputs, facts={**outputs.facts, BEHIND: "bastion"})
    assert targets.target("ssh").answers(behind)


class TestBehindAProxy:
    """A web server of the machine's own stands in front."""

    ASKED = replace(SPEC, bind="127.0.0.1", port=8443, host_names=("lab.inst.example", "lab.example"))

    def test_the_name_that_it_serves_the_node_by_must_be_known(self) -> None:
        for more in ({"bind": "127.0.0.1"}, {"port": 8443}):
            with pytest.raises(UsageError, match="--bind and --port are for a reverse proxy") as caught:
                targets.target("ssh").resolve(replace(SPEC, **more), None)
            assert "--host-name lab.inst.example" in caught.value.suggestion
        assert targets.target("ssh").resolve(self.ASKED, None) == self.ASKED

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (
                {"domain_name": "lab.inst.example"},
                "--domain-name is for a node that gets its certificate",
            ),
            ({"port": 8888}, "--port 8888: there the node's jupyter is"),
        ],
    )
    def test_what_does_not_go_with_it_is_refused(self, more: dict[str, Any], said: str) -> None:
        with pytest.raises(UsageError, match=said):
            targets.target("ssh").resolve(replace(self.ASKED, **more), None)

    @pytest.mark.parametrize(
        ("more", "published", "listening"),
        [
            ({}, ["443:8443", "80:8080", "8888:8888"], (80, 443, 8888)),
            (
                {"bind": "127.0.0.1", "port": 9443},
                ["127.0.0.1:9443:8443", "127.0.0.1:8888:8888"],
                (8888, 9443),
            ),
            ({"bind": "::1"}, ["[::1]:443:8443", "[::1]:8888:8888"], (443, 8888)),
            ({"port": 9443}, ["9443:8443", "8888:8888"], (8888, 9443)),
        ],
    )
    def test_it_listens_where_it_was_asked_to_and_leaves_port_80_to_the_proxy(
        self, more: dict[str, Any], published: list[str], listening: tuple[int, ...]
    ) -> None:
        spec = replace(self.ASKED, **{"bind": "", "port": 0, **more})
        made = json.loads(plan(spec, "192.0.2.7", "ssh-ed25519 A", AcmeConfig(), shared=True)["compose"])
        ports = {name: row["ports"] for name, row in made["services"].items() if "ports" in row}
        assert ports == {"proxy": published}
        assert machine_agent.told(spec).ports == listening
        summary = " ".join(targets.target("ssh").summary(spec))
        assert f"at the ports {', '.join(map(str, listening))}" in summary

    def test_people_find_it_by_the_proxys_name_and_certificate(self) -> None:
        outputs = node.node_outputs(self.ASKED, "192.0.2.7", {"ca": "PEM"}, {node.MACHINE: "0"}, 2222)
        urls = {name: end.url for name, end in outputs.endpoints().items() if not end.reason}
        assert urls == {
            "proxy": "lab.inst.example",
            "ui": "https://lab.inst.example/login",
            "api": "https://lab.inst.example/api/v2",
            "ssh": "lab.inst.example:2222",
        }
        assert outputs.ca == ""
        assert outputs.not_offered == {"jupyter": "only at 127.0.0.1:8888"}
        assert outputs.facts[node.IP] == "192.0.2.7"
        tls = node.tls(self.ASKED, "192.0.2.7")
        assert (tls.name, set(tls.more), tls.acme) == ("lab.inst.example", set(self.ASKED.host_names), False)
