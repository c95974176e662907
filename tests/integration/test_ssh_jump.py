"""A machine that is reached by way of another: as the person's own ssh goes there, so does all that follows.

The bastion is a real sshd that knows the machine by a name which nobody else here knows.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gridup import health
from gridup.commands.ssh import client_words
from gridup_infra.errors import PreflightError
from gridup_infra.outputs import BEHIND
from gridup_infra.processes import run, wait_until
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.ssh import machine_agent
from gridup_infra.targets.ssh.user_ssh import verify_host
from gridup_infra.vm import node
from gridup_infra.vm.access import VmAccess
from gridup_infra.vm.ssh import HostKeyError, SshEndpoint, SshUnreachableError, ssh_session
from support.ssh_rig import HERE, Machine

pytestmark = [
    pytest.mark.tier("gate"),
    pytest.mark.timeout(120, func_only=True),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may give the bastion names of its own"),
]

NAME = "lab.inside.test"

WAYS = ("ProxyJump bastion", "ProxyJump bastion,second", "ProxyCommand ssh -W %h:%p bastion")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="module")
def bastion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("bastion"))
    hosts = made.folder / "hosts"
    hosts.write_text(f"{HERE} {NAME}\n")
    made.start(files={"/etc/hosts": hosts})
    yield made
    made.stop()


@pytest.fixture(params=WAYS)
def person(
    request: pytest.FixtureRequest, machine: Machine, bastion: Machine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    """Who reaches the machine so."""
    monkeypatch.setenv("PATH", machine.path)
    known, config = machine.known_hosts.read_text(), machine.config.read_text()
    machine.known_hosts.write_text(
        f"{known}{bastion.known_hosts.read_text()}[{NAME}]:{machine.port} {own(machine)}\n"
    )
    machine.config.write_text(
        f"Host lab\n  HostName {NAME}\n  Port {machine.port}\n  {request.param}\n"
        f"Host bastion second\n  HostName {HERE}\n  Port {bastion.port}\n"
        f"  IdentityFile {bastion.folder}/id_ed25519\n{config}"
    )
    yield machine
    machine.known_hosts.write_text(known)
    machine.config.write_text(config)


def own(machine: Machine) -> str:
    return " ".join((machine.folder / "host_ed25519.pub").read_text().split()[:2])


def door(machine: Machine) -> SshEndpoint:
    key = (machine.folder / "id_ed25519").read_text()
    return SshEndpoint(NAME, key, own(machine), getpass.getuser(), machine.port, "lab")


SPEC = DeploySpec(name="Inst", target="ssh", stack_id="0123456789abcdef", host="lab")


def test_the_name_is_known_to_the_bastion_alone(machine: Machine) -> None:
    with pytest.raises(SshUnreachableError), ssh_session(replace(door(machine), host=""), timeout=2):
        pass


def test_the_first_contact_is_made_and_the_machine_looked_at(person: Machine) -> None:
    met = verify_host("lab")
    assert (met.host_key, met.first_contact, met.configured.address) == (own(person), False, NAME)
    with pytest.raises(PreflightError, match=r"lab can't take the node"):
        machine_agent.look(SPEC, pinned="", must_be_ours=True)


def test_one_that_known_hosts_do_not_know_shows_its_key(person: Machine) -> None:
    lines = person.known_hosts.read_text().splitlines(keepends=True)
    person.known_hosts.write_text("".join(line for line in lines if NAME not in line))
    met = verify_host("lab")
    assert (met.host_key, met.first_contact) == (own(person), True)


def test_the_nodes_key_enters_the_same_way_and_leaves_nothing_running(
    person: Machine, tmp_path: Path
) -> None:
    before = {process.pid for process in person.clients()}
    data = os.urandom(1_000_000)
    with ssh_session(door(person), timeout=30) as session:
        session.put(str(tmp_path / "file"), data, timeout=30)
        assert session.run(["echo", "a b"], timeout=10).stdout == "a b\n"
        assert {process.pid for process in person.clients()} - before
    assert (tmp_path / "file").read_bytes() == data
    assert wait_until(lambda: not {process.pid for process in person.clients()} - before, timeout=10)


def test_another_host_key_than_the_pinned_one_is_refused_there_too(person: Machine, bastion: Machine) -> None:
    with pytest.raises(HostKeyError), ssh_session(replace(door(person), host_key=own(bastion)), timeout=30):
        pass


def test_gridup_ssh_and_check_go_that_way(
    person: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRIDUP_HOME", str(tmp_path / "a home"))
    facts = {node.HOST: "lab", node.MACHINE: "0"}
    outputs = node.node_outputs(SPEC, NAME, {"host_key": own(person)}, facts, person.port)
    outputs = replace(outputs, ssh_user=getpass.getuser())
    access = VmAccess(outputs, lambda _stack, _name: door(person).key).ssh()
    ran = run(["ssh", *client_words(access, ["echo", "a  b"])], timeout=30)
    assert (ran.code, ran.stdout) == (0, "a  b\n"), ran
    outputs = replace(outputs, facts={**outputs.facts, BEHIND: "bastion"})
    (row,) = [end for end in health.endpoints(outputs) if end.service == "ssh"]
    assert [found.up for found in health.look([row], 30, lambda: None)] == [True]


def test_what_is_in_the_way_is_told(person: Machine, bastion: Machine) -> None:
    # A connection that the person has open would be used, and a quiet ssh says nothing.
    plain = "Host bastion second\n  ControlPath none\n  LogLevel ERROR"
    text = person.config.read_text().replace("Host bastion second", plain)
    person.config.write_text(text.replace(f"Port {bastion.port}", "Port 1"))
    with pytest.raises(
        PreflightError, match=r"lab can't be reached by ssh: On the way there: .*Connection refused"
    ):
        verify_host("lab")
    said: list[str] = []
    with pytest.raises(SshUnreachableError) as closed, ssh_session(door(person), timeout=8, say=said.append):
        pass
    # The last attempt may have no time left to tell.
    told = [*said, str(closed.value)]
    assert any(re.search(r"on the way there: .*Connection refused", text) for text in told), told
    person.config.write_text(text.replace(f"{bastion.folder}/id_ed25519", "/dev/null"))
    with pytest.raises(PreflightError, match=r"On the way there: .*Permission denied") as caught:
        verify_host("lab")
    assert "`ssh lab true` must work without a question" in caught.value.suggestion
