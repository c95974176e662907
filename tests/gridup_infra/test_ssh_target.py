"""The target `ssh` before anything is made: what it is told, who answers, and whose word counts for that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gridup_infra import targets
from gridup_infra.errors import (
    CredentialsError,
    FirstBootError,
    GridupError,
    PreflightError,
    ResourceError,
    UsageError,
)
from gridup_infra.openssh import Destination
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.dynamic import FailedError
from gridup_infra.targets.ssh import guests
from gridup_infra.targets.ssh.person import Configured, meet
from gridup_infra.targets.ssh.resources import FORGET, OwnerProvider
from gridup_infra.vm import keys, node
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
        assert made.words()[-2:] == ["--", made.host]

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

    @pytest.mark.parametrize("line", ["ProxyJump bastion", "ProxyCommand nc bastion 22"])
    def test_one_behind_another_is_refused(self, person: Machine, line: str) -> None:
        person.config.write_text(f"Host machine\n  {line}\n{person.config.read_text()}")
        with pytest.raises(PreflightError, match="by way of another machine"):
            meet("machine")

    @pytest.mark.parametrize("hashed", [False, True])
    def test_known_hosts_vouch_for_it(self, person: Machine, hashed: bool) -> None:
        if hashed:
            words = ["ssh-keygen", "-q", "-H", "-f", str(person.known_hosts)]
            subprocess.run(words, check=True, capture_output=True)
            assert HERE not in person.known_hosts.read_text()
        found = meet("machine")
        assert found.host_key == own_key(person)
        assert (found.theirs, found.fresh) == (False, False)

    def test_one_that_they_do_not_know_is_told_of(self, person: Machine) -> None:
        person.known_hosts.write_text("")
        assert meet("machine").fresh
        assert person.known_hosts.read_text() == ""

    def test_another_key_than_theirs_is_refused(self, person: Machine) -> None:
        _, other = keys.new_key()
        person.known_hosts.write_text(f"[{HERE}]:{person.port} {other}\n")
        with pytest.raises(HostKeyError, match="in your known_hosts: it shows SHA256:"):
            meet("machine")

    def test_another_key_than_the_pinned_one_shows_at_the_door(self, person: Machine) -> None:
        _, other = keys.new_key()
        pinned = " ".join(other.split()[:2])
        with pytest.raises(PreflightError, match=r"given, or pinned at first contact: it shows SHA256:"):
            guests.look(SPEC, pinned=pinned, must_be_ours=False)

    def test_who_is_not_there_is_told_apart(self, person: Machine) -> None:
        with pytest.raises(PreflightError, match="Could not resolve hostname"):
            meet("no-such-machine.invalid")
        with pytest.raises(PreflightError, match="Connection refused") as caught:
            meet(f"{HERE}:1")
        assert "--host user@address:2222" in caught.value.suggestion

    def test_a_key_that_opens_nothing_is_a_matter_of_credentials(self, person: Machine) -> None:
        with pytest.raises(CredentialsError, match="Permission denied") as caught:
            guests.look(replace(SPEC, host="nobody-there@machine"), pinned="", must_be_ours=False)
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

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at this machine as the target does")
    def test_one_that_knows_neither_node_nor_its_key_has_nothing_to_take_away(self, person: Machine) -> None:
        OwnerProvider().delete("", self.props(person))

    def test_one_that_is_gone_is_an_error_with_a_way_out(
        self, person: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gridup_infra.targets.ssh.resources.LEAVE_SECONDS", 1.0)
        props = self.props(person, port=1)
        with pytest.raises(FailedError, match=f'{FORGET}=1 gridup destroy "Inst"') as caught:
            OwnerProvider().delete("", props)
        assert "/var/lib/gridup" in str(caught.value)
        monkeypatch.setenv(FORGET, "1")
        OwnerProvider().delete("", props)


def test_without_ssh_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("ssh")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreflightError, match="There is no `ssh` on this machine"):
        meet("machine")
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

    def refused(self, said: Any, what: str = "") -> GridupError:
        return CredentialsError(f"{what or 'no answer'}: {' '.join(said)}")


class TestAnswers:
    """What comes of the machine's program, as a person is told of it."""

    ASKED = guests.told(SPEC)

    def test_what_it_does_is_heard_and_what_came_of_it_returned(self) -> None:
        heard: list[str] = []
        way = Told({"say": "step user"}, "a banner", {"say": "done"}, {"done": {"machine": "1"}})
        assert guests.make(way, self.ASKED, heard.append) == {"machine": "1"}
        assert heard == ["step user", "done"]

    def test_a_step_that_failed_is_one_of_the_first_boots_with_the_end_of_its_log(self) -> None:
        way = Told(
            {"failed": {"message": "step packages: apt-get install: no network", "tail": ["one", "", "two"]}}
        )
        with pytest.raises(FirstBootError, match="made a container host: step packages: apt-get") as caught:
            guests.make(way, self.ASKED, lambda _text: None)
        assert caught.value.details == ("one", "two")
        assert caught.value.exit_code == 4

    def test_what_came_in_the_way_meanwhile_is_told_like_before(self) -> None:
        found = [
            {"message": "port 80 is taken.", "suggestion": "Stop it."},
            {"message": "b", "suggestion": ""},
        ]
        with pytest.raises(PreflightError, match=r"ada@lab can't take the node: port 80 is taken") as caught:
            guests.make(Told({"problems": found}), self.ASKED, lambda _text: None)
        assert caught.value.suggestion == "Stop it."
        assert caught.value.details == ("also: b",)

    def test_who_is_not_let_in_or_hears_nothing_says_so(self) -> None:
        with pytest.raises(CredentialsError, match="no sudo"):
            guests.make(Told({"refused": "no sudo"}), self.ASKED, lambda _text: None)
        with pytest.raises(CredentialsError, match="no answer: kex_exchange"):
            guests.make(Told("kex_exchange"), self.ASKED, lambda _text: None)
        with pytest.raises(ResourceError, match="did not finish in time"):
            guests.make(Told(TimeoutError("ssh")), self.ASKED, lambda _text: None)
