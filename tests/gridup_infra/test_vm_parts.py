"""What a node on a machine is told, asks for and exports; and who may be let in. No machine, no cloud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pulumi
import pytest

from gridup_infra.build_env import portable_build_args
from gridup_infra.errors import DeadlineError, FirstBootError, ResourceError, UsageError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.processes import Result
from gridup_infra.requirements import Pin, lock_text
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.dynamic import DRIFT, ProviderError
from gridup_infra.vm import access, first_boot_wait, providers, release_client, resources
from gridup_infra.vm import node as vm_node
from gridup_infra.vm.access import VmAccess
from gridup_infra.vm.acme import ACME_CA, ACME_URL, AcmeConfig
from gridup_infra.vm.first_boot_wait import Limits, wait_for_host
from gridup_infra.vm.plan import plan
from gridup_infra.vm.providers import ContainerHostProvider, ManagementKeyProvider, NodeProvider
from gridup_infra.vm.release_client import ReleaseClient
from gridup_infra.vm.ssh import AuthenticationError, HostKeyError, SshEndpoint, SshUnreachableError
from gridup_infra.vm.target import MachineTarget
from gridup_node import image, services
from gridup_node.vm import first_boot
from gridup_node.vm.release import Plan, Release
from gridup_node.vm.user_data import LIMIT, document, user_data
from support.declaring import declared

OWN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHEqQrwX+uyY52PLpPQ4uZA9s1YZ+hqp0f9ra4Tu6M8H gridup"
ADAS = OWN.replace("gridup", "ada")
IP = "192.0.2.7"
LOCK = lock_text(("humanize",), b"", [Pin("humanize", "4.9.0", "", ("a" * 64,))])
MADE = "2026-11-29T12:19:38.123456789Z"
SPEC = DeploySpec(name="My Lab_2", target="aws", stack_id="0123456789abcdef", ssh_keys=(ADAS,))


class TestHost:
    """What the machine is told at its first boot."""

    @pytest.mark.parametrize(
        "name", ["Inst", "My Lab_2", "2nd node", "Universität Zürich", "n" * 200, "東京"]
    )
    def test_any_name_makes_a_machine(self, name: str) -> None:
        made = vm_node.host(replace(SPEC, name=name), OWN, ["/dev/disk/by-id/x"])
        assert made.name == name
        assert 0 < len(made.hostname) <= 63
        assert len(user_data(made)) <= LIMIT

    def test_only_the_deployers_own_key_is_in_it(self) -> None:
        made = vm_node.host(SPEC, OWN, ["/dev/disk/by-id/x"])
        assert made.ssh_keys == (OWN,)
        assert made == vm_node.host(replace(SPEC, ssh_keys=(), tag="0.9.5"), OWN, ["/dev/disk/by-id/x"])
        # With what stands around it: three letters alone are somewhere in what is packed.
        assert ' ada"' not in document(made)
        assert OWN in document(made)


class TestOutputs:
    """What the stack exports."""

    VM: ClassVar = {"host_key": "ssh-ed25519 H", "ca": "PEM", "release": "r1", "built": MADE}

    def test_every_url_is_https_and_the_ca_goes_with_it(self) -> None:
        made = vm_node.node_outputs(SPEC, IP, self.VM, {"machine": "i-1"})
        urls = {name: end.url for name, end in made.endpoints().items()}
        assert urls == {
            "proxy": IP,
            "ui": f"https://{IP}/login",
            "api": f"https://{IP}/api/v2",
            "ssh": f"{IP}:22",
            "jupyter": f"https://{IP}:8888",
        }
        assert (made.tls, made.ca, made.ssh_user, made.not_offered) == (True, "PEM", "gridup", {})
        assert made.facts == {
            "machine": "i-1",
            "ip": IP,
            "host_key": "ssh-ed25519 H",
            "release": "r1",
            "built": MADE,
            "people": "gridup-user",
        }

    def test_a_domain_name_is_what_people_connect_to(self) -> None:
        made = vm_node.node_outputs(replace(SPEC, domain_name="node.inst.example"), IP, {}, {})
        assert made.endpoint(services.service("ui")).url == "https://node.inst.example/login"
        assert made.facts["ip"] == IP

    def test_without_a_node_only_ssh_is_offered(self) -> None:
        made = vm_node.node_outputs(replace(SPEC, no_node=True), IP, {}, {})
        offered = {name for name, end in made.endpoints().items() if not end.reason}
        assert offered == {"ssh", "proxy"}
        assert set(made.not_offered.values()) == {"--no-node"}

    def test_it_comes_back_from_the_state(self) -> None:
        made = vm_node.node_outputs(SPEC, IP, self.VM, {"machine": "i-1"})
        assert NodeOutputs.from_exports(made.exports()) == made


class TestPlan:
    """What the machine is to make of it."""

    @staticmethod
    def planned(acme: AcmeConfig | None = None, **changes: Any) -> dict[str, Any]:
        return plan(replace(SPEC, **changes), IP, OWN, acme or AcmeConfig())

    def told(self, service: str, acme: AcmeConfig | None = None, **changes: Any) -> Any:
        made = json.loads(self.planned(acme, **changes)["compose"])["services"][service]
        return json.loads(made["environment"]["GRIDUP_NODE"].replace("$$", "$"))

    def test_the_machines_program_understands_it(self) -> None:
        made = Plan.parse(json.loads(json.dumps(self.planned())))
        assert set(Release.of(made).services) == {"proxy", "api", "jupyter", "jobs"}
        assert made.start_first == ("api",)
        assert (made.authorized_keys, made.users) == ((OWN,), (ADAS,))
        made = Plan.parse(json.loads(json.dumps(self.planned(admin_ssh_keys=(ADAS,), ssh_keys=()))))
        assert (made.authorized_keys, made.users) == ((OWN, ADAS), ())

    def test_the_updates_are_the_clouds_machines_to_set_and_not_a_persons(self) -> None:
        assert self.planned()["reboot_at"] == ""
        assert self.planned(reboot_at="03:30")["reboot_at"] == "03:30"
        assert "reboot_at" not in plan(SPEC, IP, OWN, AcmeConfig(), shared=True)

    def test_the_node_knows_its_addresses(self) -> None:
        known = self.told("api")
        assert known["endpoints"]["jupyter"] == f"https://{IP}:8888"
        assert known["endpoints"]["ssh"] == "gridup ssh 'My Lab_2'"
        assert known["ports"]["api"] == 18080

    def test_without_a_domain_name_its_own_ca_vouches(self) -> None:
        assert self.told("proxy") == {"tls": {"name": IP}}
        assert self.planned()["ca_file"].startswith("proxy:/var/lib/gridup/proxy/")

    def test_with_one_an_authority_does(self) -> None:
        name = {"domain_name": "node.inst.example"}
        assert self.told("proxy", **name) == {"tls": {"name": "node.inst.example", "acme": True}}
        acme = AcmeConfig("https://ca.inst.example/dir", "PEM")
        told = self.told("proxy", acme, admin_email="ops@inst.example", **name)["tls"]
        assert (told["email"], told["acme_url"], told["acme_ca"]) == ("ops@inst.example", acme.url, "PEM")
        assert self.planned(**name)["ca_file"] == ""

    def test_a_published_image_is_pulled(self) -> None:
        name = f"registry.example/node@sha256:{'a' * 64}"
        made = self.planned(image=name)
        assert (made["pull"], made["image"]) == (True, name)
        assert json.loads(made["compose"])["services"]["api"]["image"] == name
        assert self.planned()["image"].startswith("gridup-node:0.9.5-")

    def test_another_base_image_is_another_image(self) -> None:
        assert self.planned()["image"] != self.planned(base_image="python:3.12")["image"]

    def test_packages_of_a_data_owners_make_an_image_of_their_own(self) -> None:
        made = self.planned(packages=("humanize",), packages_lock=LOCK)
        assert made["image"] != self.planned()["image"]
        assert made["image"].endswith(image.digest(release_client.context("latest", LOCK)))
        assert self.told("api", packages=("humanize",), packages_lock=LOCK)["packages"] == ["humanize"]

    def test_the_data_lies_on_the_data_disk(self) -> None:
        made = json.loads(self.planned()["compose"])
        for name, row in made["services"].items():
            assert row["volumes"] == [
                f"/var/lib/gridup/node/{folder}:/var/lib/gridup/{folder}"
                for folder in services.service(name).folders
            ]
        assert "volumes" not in made
        assert self.planned()["data"] == "/var/lib/gridup/node"


class TestAcme:
    """Another certificate authority."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "ca.pem"
        path.write_text("-----BEGIN CERTIFICATE-----\nx\n")
        return path

    def test_nothing_set_means_public_ones(self) -> None:
        assert AcmeConfig.from_env() == AcmeConfig()

    def test_it_is_read(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(ACME_URL, "https://ca.inst.example/dir")
        assert AcmeConfig.from_env() == AcmeConfig("https://ca.inst.example/dir")
        monkeypatch.setenv(ACME_CA, str(file))
        assert AcmeConfig.from_env().ca == file.read_text()

    @pytest.mark.parametrize("url", ["http://ca.inst.example", "ca.inst.example", "https://"])
    def test_an_address_that_is_none_is_refused(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(ACME_URL, url)
        with pytest.raises(UsageError, match="must be an https address"):
            AcmeConfig.from_env()

    def test_a_file_that_is_none_is_refused(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(ACME_CA, str(file))
        with pytest.raises(UsageError, match="GRIDUP_ACME_URL is not"):
            AcmeConfig.from_env()
        monkeypatch.setenv(ACME_URL, "https://ca.inst.example/dir")
        for text in ("", "BEGIN CERTIFICATE and a PRIVATE KEY"):
            file.write_text(text)
            with pytest.raises(UsageError, match="must hold certificates"):
                AcmeConfig.from_env()
        file.unlink()
        with pytest.raises(UsageError, match="can't be read"):
            AcmeConfig.from_env()


def test_what_only_this_machine_serves_is_not_told_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "PIP_INDEX_URL",
        "UV_INDEX_URL",
        "UV_DEFAULT_INDEX",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.inst.example:3128")
    monkeypatch.setenv("PIP_INDEX_URL", "https://u:p@localhost/simple")
    monkeypatch.setenv("UV_INDEX_URL", "https://mirror.inst.example/simple")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    found = {key: value for key, value in portable_build_args().items() if "EXTRA" not in key}
    found.pop("UV_INDEX", None)
    assert found == {
        "HTTP_PROXY": "http://proxy.inst.example:3128",
        "UV_DEFAULT_INDEX": "https://mirror.inst.example/simple",
        "NO_PROXY": "localhost,127.0.0.1",
    }


class _Target(MachineTarget):
    name: ClassVar[str] = "machine"
    title: ClassVar[str] = "a machine"
    preflight = build = summary = inspect = leftovers = delete_all = None  # type: ignore[assignment]


_Target.__abstractmethods__ = frozenset()


class TestTarget:
    """What all such targets refuse and answer."""

    @staticmethod
    def resolved(**changes: Any) -> DeploySpec:
        return _Target().resolve(replace(SPEC, **changes), None)

    def test_a_domain_name_is_made_plain(self) -> None:
        assert self.resolved(domain_name="Node.Inst.Example").domain_name == "node.inst.example"

    @pytest.mark.parametrize("image", ["node:1", "node", "registry.example:5000/a/node:0.9.5"])
    def test_an_image_without_a_digest_is_refused(self, image: str) -> None:
        with pytest.raises(UsageError, match="has no digest"):
            self.resolved(image=image)

    def test_people_s_keys_are_read_once_more(self) -> None:
        assert self.resolved(ssh_keys=(f"\ufeff{ADAS}\r\n",)).ssh_keys == (ADAS,)
        assert self.resolved(admin_ssh_keys=(f"{ADAS}\r\n",)).admin_ssh_keys == (ADAS,)
        with pytest.raises(UsageError, match="--admin-ssh-key: that is a private key"):
            self.resolved(admin_ssh_keys=("-----BEGIN OPENSSH PRIVATE KEY-----",))
        with pytest.raises(UsageError, match="--ssh-key: that is a private key"):
            self.resolved(ssh_keys=("-----BEGIN OPENSSH PRIVATE KEY-----",))

    def test_another_machine_has_another_host_key_than_the_one_that_was_given(self) -> None:
        key = " ".join(ADAS.split()[:2])
        previous = self.resolved(host_key=f"{ADAS}\n")
        assert previous.host_key == key
        assert _Target().resolve(replace(previous, size="large"), previous).host_key == key
        assert _Target().resolve(replace(previous, machine_revision=1), previous).host_key == ""
        with pytest.raises(UsageError, match="--host-key: that is a private key"):
            self.resolved(host_key="-----BEGIN OPENSSH PRIVATE KEY-----")

    def test_what_stays_is_told(self) -> None:
        assert _Target().retained_on_destroy(SPEC) == ()
        assert "data" in _Target().retained_on_destroy(replace(SPEC, keep_data=True))[0]


class Machine:
    """Stands for a machine behind `ssh.ssh_session`.

    Attributes:
        states: what its first boot says, the last one for ever.
        answers: by the beginning of a command, how it ends.
        doors: those that were tried.
    """

    def __init__(self) -> None:
        self.states = [""]
        self.answers: dict[str, Result] = {}
        self.doors: list[SshEndpoint] = []
        self.calls: list[str] = []
        self.closed: list[Exception] = []
        self.host_key = "ssh-ed25519 HOST"

    @contextmanager
    def ssh_session(self, door: SshEndpoint, **_more: Any) -> Iterator[Machine]:
        self.doors.append(door)
        if self.closed:
            raise self.closed.pop(0)
        if door.host_key not in ("", self.host_key):
            raise HostKeyError("another one")
        yield self

    def run(self, argv: Any, **_more: Any) -> Result:
        words = " ".join(argv)
        self.calls.append(words)
        if tuple(argv) == first_boot.READ:
            text = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return Result(tuple(argv), 0, text, "")
        for beginning, result in self.answers.items():
            if words.startswith(beginning):
                return result
        return Result(tuple(argv), 0, "", "")


def state(name: str, **more: str) -> str:
    return json.dumps({"state": name, **more})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    for module in (first_boot_wait, release_client, access):
        monkeypatch.setattr(module, "ssh_session", made.ssh_session)
    monkeypatch.setattr("gridup_infra.vm.first_boot_wait.time.sleep", lambda _seconds: None)
    return made


DOOR = SshEndpoint(IP, "KEY")


class TestBooting:
    """Waiting for the first boot."""

    def test_its_steps_are_told_and_the_host_key_is_pinned(self, machine: Machine) -> None:
        said: list[str] = []
        machine.states = ["", state("running", step="disk"), state("running", step="disk"), state("done")]
        assert wait_for_host(DOOR, said.append) == "ssh-ed25519 HOST"
        assert said[1:] == ["the first boot is at step disk"]

    def test_one_that_fails_ends_it_at_once_with_its_log(self, machine: Machine) -> None:
        machine.states = [state("running", step="disk"), state("failed", step="disk", message="no disk")]
        machine.answers["tail"] = Result((), 0, "one\n\ntwo\n", "")
        with pytest.raises(FirstBootError) as caught:
            wait_for_host(DOOR, print)
        assert caught.value.message == "The first boot failed at step disk: no disk."
        assert caught.value.details == ("one", "two")
        assert caught.value.exit_code == 4

    def test_one_that_failed_long_ago_is_tried_again_once(self, machine: Machine) -> None:
        failed = state("failed", step="disk", message="no disk", ended="2026-01-01T00:00:00Z")
        machine.answers["sh -c echo $(("] = Result((), 0, "3600\n", "")
        machine.states = [failed, state("done")]
        assert wait_for_host(DOOR, print)
        assert sum("systemctl restart" in call for call in machine.calls) == 1
        machine.states = [failed]
        with pytest.raises(FirstBootError):
            wait_for_host(DOOR, print)
        assert sum("systemctl restart" in call for call in machine.calls) == 2

    def test_one_that_has_just_failed_is_not(self, machine: Machine) -> None:
        machine.answers["sh -c echo $(("] = Result((), 0, "5\n", "")
        machine.states = [state("failed", step="disk", message="m", ended="2026-01-01T00:00:00Z")]
        with pytest.raises(FirstBootError):
            wait_for_host(DOOR, print)
        assert not any("systemctl restart" in call for call in machine.calls)

    def test_a_connection_that_breaks_off_meanwhile_is_made_again_with_the_same_key(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, broken = machine.run, [True]

        def run(argv: Any, **more: Any) -> Result:
            if machine.doors[-1].host_key == "" and len(machine.calls) > 1 and broken.pop():
                raise SshUnreachableError("broke off")
            return real(argv, **more)

        monkeypatch.setattr(machine, "run", run)
        machine.states = [state("running", step="packages")] * 3 + [state("done")]
        assert wait_for_host(DOOR, print) == "ssh-ed25519 HOST"
        assert [door.host_key for door in machine.doors] == ["", "ssh-ed25519 HOST"]

    def test_one_that_never_answers_is_given_up(self, machine: Machine) -> None:
        machine.closed = [SshUnreachableError("no")]
        with pytest.raises(SshUnreachableError):
            wait_for_host(DOOR, print)

    def test_one_that_never_ends_is_given_up(self, machine: Machine) -> None:
        machine.states = [state("running", step="packages")]
        with pytest.raises(DeadlineError, match="was not ready in time: the first boot is at step packages"):
            wait_for_host(DOOR, print, Limits(boot=0))

    def test_what_is_no_state_is_an_error(self, machine: Machine) -> None:
        machine.states = ["<html>"]
        with pytest.raises(ResourceError, match="can't be followed"):
            wait_for_host(DOOR, print)


class TestProviders:
    """The resources, without an engine."""

    PROPS: ClassVar[dict[str, Any]] = {
        "stack": "inst",
        "stack_id": "0123",
        "name": "Inst",
        "machine": "i-1",
        "address": IP,
        "private_key": "KEY",
        "urn": "urn",
    }
    NODE: ClassVar[dict[str, Any]] = {
        **PROPS,
        "host_key": "ssh-ed25519 HOST",
        "plan": {"pull": False},
        "version": "0.9.5",
        "trusted": "",
    }

    def test_a_key_stays_for_the_stacks_whole_life(self) -> None:
        provider = ManagementKeyProvider()
        made = provider.create({"stack_id": "0123", "name": "Inst", "private_key": None, "public_key": None})
        assert made.id == "0123"
        assert made.outs is not None
        news = {"stack_id": "0123", "name": "Inst 2", "private_key": None, "public_key": None}
        assert not provider.diff("0123", made.outs, {**news, "name": "Inst"}).changes
        assert provider.diff("0123", made.outs, news).changes
        kept = provider.update("0123", made.outs, news).outs
        assert kept is not None
        assert (kept["private_key"], kept["name"]) == (made.outs["private_key"], "Inst 2")

    def test_a_key_is_another_once_the_secrets_are_replaced_and_the_former_one_is_known(self) -> None:
        provider, first, then = ManagementKeyProvider(), "2026-11-29T10:00", "2026-11-29T11:00"
        plain = {"stack_id": "0123", "name": "Inst"}
        olds = provider.create(plain).outs or {}
        assert olds["former_key"] == ""
        assert provider.diff("0123", olds, {**plain, "rotated": first}).changes
        news = provider.update("0123", olds, {**plain, "rotated": first}).outs or {}
        assert news["public_key"] != olds["public_key"]
        assert news["private_key"] != olds["private_key"]
        assert (news["former_key"], news["turned"]) == (olds["public_key"], first)
        # A deploy that knows of none, or of an earlier one, makes no other.
        for told in (plain, {**plain, "rotated": first}, {**plain, "rotated": "2026-11-29T09:00"}):
            same = provider.update("0123", news, told).outs or {}
            assert (same["private_key"], same["turned"]) == (news["private_key"], first)
        last = provider.update("0123", news, {**plain, "rotated": then}).outs or {}
        assert (last["former_key"], last["turned"]) == (news["public_key"], then)

    def test_a_key_of_a_former_version_is_replaced_too(self) -> None:
        """Its state has neither of the outputs that tell of a replacement."""
        provider, olds = ManagementKeyProvider(), {"public_key": "OLD", "private_key": "KEY"}
        news = provider.update("0123", olds, {"stack_id": "0123", "rotated": "2026"}).outs or {}
        assert (news["former_key"], news["turned"]) == ("OLD", "2026")

    @pytest.mark.parametrize(("taken", "comes_with"), [(("OLD",), "OLD"), (("OLD", "NEW"), "NEW")])
    def test_a_machine_is_entered_by_the_former_key_until_it_takes_the_new_one(
        self, monkeypatch: pytest.MonkeyPatch, taken: tuple[str, ...], comes_with: str
    ) -> None:
        came: list[SshEndpoint] = []

        @contextmanager
        def ssh_session(door: SshEndpoint, **_more: Any) -> Iterator[None]:
            assert door.host_key == "ssh-ed25519 HOST", "whoever answers is known"
            if door.key not in taken:
                raise AuthenticationError("the deployment's key is not accepted")
            yield

        def wait_for_host(door: SshEndpoint, *_words: object) -> str:
            came.append(door)
            return door.host_key

        monkeypatch.setattr(providers, "ssh_session", ssh_session)
        monkeypatch.setattr(first_boot_wait, "wait_for_host", wait_for_host)
        olds = {**self.PROPS, "private_key": "OLD", "host_key": "ssh-ed25519 HOST"}
        news = {**self.PROPS, "private_key": "NEW", "host_key": None}
        made = ContainerHostProvider().update("i-1", olds, news).outs or {}
        assert [(door.key, door.host_key) for door in came] == [(comes_with, "ssh-ed25519 HOST")]
        assert (made["private_key"], made["host_key"]) == ("NEW", "ssh-ed25519 HOST")

    def test_another_machine_is_another_host_and_another_address_is_not(self, machine: Machine) -> None:
        machine.states = [state("done")]
        provider = ContainerHostProvider()
        made = provider.create({**self.PROPS, "host_key": None})
        assert (made.id, made.outs and made.outs["host_key"]) == ("i-1", machine.host_key)
        olds = made.outs or {}
        assert not provider.diff("i-1", olds, {**self.PROPS, "host_key": None}).changes
        assert provider.diff("i-1", olds, {**self.PROPS, "machine": "i-2"}).replaces == ["machine"]
        moved = {**self.PROPS, "address": "192.0.2.8"}
        changed = provider.diff("i-1", olds, moved)
        assert (changed.changes, changed.replaces) == (True, [])
        # At a new address it must still be the same machine.
        provider.update("i-1", olds, moved)
        assert machine.doors[-1].host_key == machine.host_key
        machine.host_key = "ssh-ed25519 OTHER"
        with pytest.raises(ProviderError, match="another one"):
            provider.update("i-1", olds, moved)

    def test_the_key_that_is_given_counts_from_the_first_contact_on(self, machine: Machine) -> None:
        """As it stands on the machine's console: who reads it there need not trust the first contact."""
        machine.states = [state("done")]
        provider, asked = (
            ContainerHostProvider(),
            {**self.PROPS, "host_key": None, "asked_key": machine.host_key},
        )
        made = provider.create(asked)
        assert [door.host_key for door in machine.doors] == [machine.host_key]
        other = {**asked, "asked_key": "ssh-ed25519 ANOTHER"}
        with pytest.raises(ProviderError, match="is not the one given by --host-key"):
            provider.create(other)
        # Later too: then it is looked at again, and what was pinned does not count.
        olds = made.outs or {}
        assert provider.diff("i-1", olds, other).changes
        with pytest.raises(ProviderError, match="is not the one given by --host-key"):
            provider.update("i-1", olds, other)
        assert not provider.diff("i-1", olds, {**self.PROPS, "host_key": None}).changes

    @staticmethod
    def releases(monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any] | Exception) -> list[str]:
        calls: list[str] = []

        def answer(_self: ReleaseClient, *_words: Any) -> Any:
            calls.append("apply" if _words else "look")
            if isinstance(seen, Exception):
                raise seen
            return seen

        monkeypatch.setattr(ReleaseClient, "apply", answer)
        monkeypatch.setattr(ReleaseClient, "look", answer)
        monkeypatch.setattr(ReleaseClient, "down", answer)
        return calls

    def test_a_node_is_applied_and_tells_its_ca(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        report = {"release": "r1", "problems": [], "dead": [], "ca": "PEM", "built": MADE}
        self.releases(monkeypatch, report)
        outs = NodeProvider().create(self.NODE).outs or {}
        assert (outs["ca"], outs["release"], outs["built"], outs[DRIFT]) == ("PEM", "r1", MADE, [])
        news = {**self.NODE, "ca": None, "release": None, "built": None}
        assert not NodeProvider().diff("x", outs, news).changes
        for key, value in (("plan", {}), ("host_key", "other"), ("machine", "i-2")):
            change = NodeProvider().diff("x", outs, {**news, key: value})
            assert (change.changes, change.replaces or []) == (True, [])

    def test_what_is_not_as_it_was_made_becomes_a_change(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        olds = {**self.NODE, "ca": "", "release": "r1", DRIFT: []}
        for seen, wanted in (
            ({"release": "r1", "problems": []}, []),
            ({"release": "r1", "problems": ["api: gone"]}, ["api: gone"]),
            ({"release": "r0", "problems": []}, ["the release is r0, not r1"]),
        ):
            self.releases(monkeypatch, seen)
            outs = NodeProvider().read("x", olds).outs or {}
            assert outs[DRIFT] == wanted
            assert NodeProvider().diff("x", outs, self.NODE).changes == bool(wanted)

    def test_a_machine_that_is_off_is_a_drift_and_no_error(self, machine: Machine) -> None:
        machine.closed = [SshUnreachableError("no answer")]
        outs = NodeProvider().read("x", {**self.NODE, "release": "r1"}).outs or {}
        assert outs[DRIFT] == ["the machine can't be entered: no answer"]

    @pytest.mark.parametrize(
        "error", [SshUnreachableError("gone"), ResourceError("no"), TimeoutError("late")]
    )
    def test_a_delete_needs_no_machine(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        self.releases(monkeypatch, error)
        NodeProvider().delete("x", self.NODE)
        machine.closed = [SshUnreachableError("no answer")]
        NodeProvider().delete("x", self.NODE)

    def test_a_failure_there_is_told_as_it_was(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.releases(
            monkeypatch, ResourceError("api: it ended.", "The former release runs again.", ("boom",))
        )
        with pytest.raises(ProviderError, match=r"api: it ended. The former release runs again.\nboom"):
            NodeProvider().create(self.NODE)


class TestWayIn:
    """Commands on the machine."""

    @pytest.fixture
    def way(self, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VmAccess:
        monkeypatch.setenv("GRIDUP_HOME", str(tmp_path))
        return self.made()

    @staticmethod
    def made(machine_id: str = "i-1", host_key: str = "", **changes: Any) -> VmAccess:
        spec = replace(SPEC, **changes)
        vm = {"host_key": host_key} if host_key else {}
        outputs = vm_node.node_outputs(spec, IP, vm, {"machine": machine_id})
        return VmAccess(outputs, lambda stack, export: f"{stack}/{export}")

    def test_a_command_runs_beside_the_api(self, way: VmAccess, machine: Machine) -> None:
        done = way.run(["python", "-m", "gridup_node.admin", "secrets"], timeout=5)
        assert done.argv == ("python", "-m", "gridup_node.admin", "secrets")
        assert machine.calls == ["docker exec --interactive gridup-api python -m gridup_node.admin secrets"]
        assert machine.doors[0].key == "my-lab-2/management-key"

    def test_a_container_that_does_not_run_is_said(self, way: VmAccess, machine: Machine) -> None:
        machine.answers["docker exec"] = Result((), 1, "", "Error: not running")
        machine.answers["docker container inspect"] = Result((), 0, "true\n", "")
        assert way.run(["false"], timeout=5).code == 1
        machine.answers["docker container inspect"] = Result((), 0, "false\n", "")
        with pytest.raises(ResourceError, match="gridup-api does not run"):
            way.run(["false"], timeout=5)

    def test_without_a_node_there_is_nothing_to_run_in(self, way: VmAccess, machine: Machine) -> None:
        with pytest.raises(ResourceError, match="no node yet: --no-node"):
            self.made(no_node=True).run(["true"], timeout=5)

    def test_each_log_has_its_place(self, way: VmAccess, machine: Machine) -> None:
        machine.answers["sh -c"] = Result((), 0, "a line\n", "")
        assert list(way.logs(["api", "ssh"], lines=3, follow=False)) == [("api", "a line"), ("ssh", "a line")]
        assert machine.calls[0].endswith("docker logs --tail=3 gridup-api")
        assert machine.calls[1].endswith("--unit=ssh.service --no-pager --output=short-iso --lines=3")

    def test_openssh_finds_the_key_and_the_pinned_host_key(self, way: VmAccess, machine: Machine) -> None:
        endpoint = self.made(host_key=machine.host_key).ssh()
        assert (endpoint.user, endpoint.host, endpoint.port) == ("gridup", IP, 22)
        assert endpoint.key.read_text() == "my-lab-2/management-key"
        assert endpoint.key.stat().st_mode & 0o777 == 0o600
        assert endpoint.known_hosts.read_text().splitlines()[-1] == f"* {machine.host_key}"

    def test_a_host_key_that_no_stack_holds_is_pinned_here_for_that_machine(
        self, way: VmAccess, machine: Machine
    ) -> None:
        machine.states = [state("done")]
        assert self.made(no_node=True).boot_state().done
        endpoint = self.made(no_node=True).ssh()
        assert endpoint.known_hosts.read_text().splitlines()[-1] == f"* {machine.host_key}"
        machine.host_key = "ssh-ed25519 OTHER"
        with pytest.raises(HostKeyError):
            self.made(no_node=True).boot_state()
        # Another machine has another one.
        assert self.made("i-2", no_node=True).boot_state().done


class TestWaiting:
    """What tells whoever waits for a node that it is no use, or that all is done."""

    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GRIDUP_HOME", str(tmp_path))

    @staticmethod
    def target() -> MachineTarget:
        return _Target(lambda _stack, _export: "KEY")

    @staticmethod
    def outputs(**changes: Any) -> NodeOutputs:
        return vm_node.node_outputs(replace(SPEC, **changes), IP, {}, {"machine": "i-1"})

    @staticmethod
    def dead(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
        monkeypatch.setattr(ReleaseClient, "look", lambda _self: {"dead": list(lines)})

    def test_a_first_boot_that_failed_is_told_with_its_log(self, machine: Machine) -> None:
        machine.states = [state("failed", step="disk", message="no disk")]
        machine.answers["tail"] = Result((), 0, "the tail\n", "")
        for no_node in (True, False):
            why = self.target().terminal_failure(self.outputs(no_node=no_node))
            assert isinstance(why, FirstBootError)
            assert (why.message, why.details) == (
                "The first boot failed at step disk: no disk.",
                ("the tail",),
            )

    def test_a_program_that_has_given_up_is_told_with_its_log(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine.states = [state("done")]
        machine.answers["sh -c"] = Result((), 0, "boom\n", "")
        self.dead(monkeypatch, "api crashed (exit 3), not restarting")
        why = self.target().terminal_failure(self.outputs())
        assert why is not None
        assert why.message == "api crashed (exit 3), not restarting"
        assert (why.details, why.suggestion) == (("boom",), "The whole log: gridup logs 'My Lab_2'")
        assert self.target().terminal_failure(self.outputs(no_node=True)) is None
        self.dead(monkeypatch)
        assert self.target().terminal_failure(self.outputs()) is None

    def test_a_restart_that_is_due_is_told_and_a_silent_machine_tells_none(self, machine: Machine) -> None:
        machine.answers["sh -c"] = Result((), 0, "due\nlinux-image-6.12\n", "")
        assert self.target().restart_due(self.outputs()) == ("linux-image-6.12",)
        machine.answers["sh -c"] = Result((), 1, "", "")
        assert self.target().restart_due(self.outputs()) is None
        machine.closed = [SshUnreachableError("no answer")]
        assert self.target().restart_due(self.outputs()) is None

    def test_keys_that_entered_with_rights_so_far_are_told_of_once(self) -> None:
        now = self.outputs()
        before = replace(now, facts={key: text for key, text in now.facts.items() if key != "people"})
        (line,) = self.target().warnings(SPEC, before)
        assert 'now enter "My Lab_2" as gridup-user' in line
        assert "--admin-ssh-key lets one in as before" in line
        assert self.target().warnings(SPEC, now) == self.target().warnings(SPEC, None) == ()
        assert self.target().warnings(SPEC, replace(before, spec=replace(SPEC, ssh_keys=()))) == ()

    def test_what_may_yet_come_is_waited_for(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dead(monkeypatch, "api was asked of a machine that still boots")
        machine.states = [state("running", step="packages")]
        assert self.target().terminal_failure(self.outputs()) is None
        machine.closed = [SshUnreachableError("no answer")]
        assert self.target().terminal_failure(self.outputs()) is None

    def test_another_machine_at_its_address_is_no_use(self, machine: Machine) -> None:
        machine.closed = [HostKeyError("another one")]
        assert isinstance(self.target().terminal_failure(self.outputs()), HostKeyError)

    def test_a_host_is_ready_when_its_first_boot_is_done(self, machine: Machine) -> None:
        for name, ready in (("running", False), ("failed", False), ("done", True)):
            machine.states = [state(name)]
            assert self.target().ready(self.outputs(no_node=True)) is ready
        machine.closed = [SshUnreachableError("no answer")]
        assert self.target().ready(self.outputs(no_node=True)) is False
        # The engine has waited for a node's.
        machine.states = [state("running")]
        assert self.target().ready(self.outputs()) is True


class TestDeclare:
    """What the program declares."""

    class Declared(pulumi.runtime.Mocks):
        """Keeps it, as the engine would see it."""

        def __init__(self) -> None:
            self.inputs: dict[str, Any] = {}

        def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
            self.inputs[args.name] = dict(args.inputs)
            made = {
                "management-key": {"private_key": "PRIVATE", "public_key": OWN},
                "container-host": {"host_key": "ssh-ed25519 HOST"},
                "node": {"ca": "PEM", "release": "r1", "built": MADE},
            }
            return args.name, {**args.inputs, **made.get(args.name, {})}

        def call(self, _args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
            return {}

    def declared(self, spec: DeploySpec, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, Any]:
        mocks, exports = self.Declared(), {}
        monkeypatch.setattr(pulumi, "export", lambda name, value: exports.update({name: value}))

        def declare() -> Any:
            common = {"stack": spec.stack, "stack_id": spec.stack_id}
            key = resources.ManagementKey("management-key", common)
            after = pulumi.Output.from_input
            made = resources.declare(spec, key, after("i-1"), after(IP), [key], after("i-1"))
            secret = exports["management-key"]
            return pulumi.Output.all(made, secret.is_secret())

        made, secret = declared(mocks, declare, spec.stack)
        return mocks.inputs, made, secret

    def test_host_and_node_follow_the_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        inputs, made, secret = self.declared(SPEC, monkeypatch)
        assert made == {"host_key": "ssh-ed25519 HOST", "ca": "PEM", "release": "r1", "built": MADE}
        assert secret is True
        assert list(inputs) == ["management-key", "container-host", "node"]
        assert inputs["node"]["plan"]["authorized_keys"] == [OWN]
        assert (
            inputs["container-host"]["urn"]
            == "urn:pulumi:my-lab-2::gridup::pulumi-python:dynamic/gridup-vm:ContainerHost::container-host"
        )

    def test_packages_go_to_the_machine_with_the_node(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "packages" not in self.declared(SPEC, monkeypatch)[0]["node"]
        spec = replace(SPEC, packages=("humanize",), packages_lock=LOCK)
        props = self.declared(spec, monkeypatch)[0]["node"]
        sent: dict[str, bytes] = {}
        applied: list[dict[str, Any]] = []

        def call(
            _self: ReleaseClient, _command: str, told: dict[str, Any], *_words: object, **_more: Any
        ) -> Any:
            applied.append(told)
            return {"ca": "", "release": "r1", "built": MADE}

        monkeypatch.setattr(ReleaseClient, "_send_program", lambda _self: None)
        monkeypatch.setattr(ReleaseClient, "_send", lambda _self, content, _say: sent.update(content))
        monkeypatch.setattr(ReleaseClient, "_call", call)
        NodeProvider().create({**TestProviders.NODE, **props, "host_key": "ssh-ed25519 HOST"})
        (told,) = applied
        assert sent[told["files"]["packages.txt"]] == LOCK.encode()

    def test_without_a_node_only_the_key_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        inputs, made, secret = self.declared(replace(SPEC, no_node=True), monkeypatch)
        assert (list(inputs), made, secret) == (["management-key"], {}, True)
