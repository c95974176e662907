"""The first host key of a cloud's machine, compared with what the machine printed on its console."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from gridup_infra.errors import CredentialsError, GridupError, ResourceError
from gridup_infra.targets.dynamic import ProviderError
from gridup_infra.vm import console, first_boot_wait, keys
from gridup_infra.vm.console import WAIT_SECONDS, compare, printed
from gridup_infra.vm.providers import ContainerHostProvider
from gridup_infra.vm.ssh import HostKeyError, fingerprint


def new_key() -> str:
    return " ".join(keys.new_key()[1].split()[:2])


OWN, OTHER = new_key(), new_key()
RSA = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC root@inst"

BOOTED = """\
[    0.000000] Linux version 6.12.0-cloud-amd64\r
[   12.345678] cloud-init[512]: ci-info: no authorized SSH keys fingerprints found for user gridup.\r
<14>Nov 30 00:00:00 cloud-init: #############################################################\r
<14>Nov 30 00:00:00 cloud-init: -----BEGIN SSH HOST KEY FINGERPRINTS-----\r
<14>Nov 30 00:00:00 cloud-init: 256 SHA256:abc root@inst (ED25519)\r
<14>Nov 30 00:00:00 cloud-init: -----END SSH HOST KEY FINGERPRINTS-----\r
-----BEGIN SSH HOST KEY KEYS-----\r
%s
-----END SSH HOST KEY KEYS-----\r
[   13.000000] cloud-init[512]: Cloud-init v. 25.1 finished\r
"""


def booted(*lines: str) -> str:
    return BOOTED % "\n".join(f"{line}\r" for line in lines)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (booted(RSA, f"{OWN} root@inst"), {OWN}),
        (booted(f"[   12.4] cloud-init[512]: {OWN} root@inst"), {OWN}),
        (booted(f"{OWN} a") + booted(f"{OTHER} a"), {OWN, OTHER}),
        (booted(RSA), set()),
        ("", set()),
        # Not yet to its end.
        (booted(f"{OWN} a").partition("-----END SSH HOST KEY KEYS")[0], set()),
        # Somewhere else on the console, as a program may print what it was sent.
        (f"{OTHER} x\r\n{booted(f'{OWN} a')}", {OWN}),
        # The kernel's words in the middle of it.
        (booted(f"{OWN[:40]}[   12.4] usb 1-1: new device{OWN[40:]} a"), set()),
        (booted(f"{OWN}AAAA a"), set()),
    ],
)
def test_whole_keys_of_a_whole_block_are_found(text: str, found: set[str]) -> None:
    assert printed(text) == found


class Console:
    """What a machine's console tells at each look, the last for ever; an error is raised."""

    def __init__(self, *looks: str | GridupError) -> None:
        self.looks = list(looks)
        self.said: list[str] = []
        self.time = 0.0

    def read(self) -> str:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, GridupError):
            raise look
        return look

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def compare(self, name: str = "Inst") -> str:
        """The last that was said."""
        compare(
            name,
            OWN,
            "192.0.2.7",
            self.read,
            self.said.append,
            clock=lambda: self.time,
            sleep=self.sleep,
        )
        return self.said[-1]


def test_the_machines_own_key_is_known_as_soon_as_it_is_printed() -> None:
    seen = Console("", ResourceError("The boot log can't be fetched."), booted(f"{OWN} root@inst"))
    assert seen.compare() == f"the host key is the one on its console: {fingerprint(OWN)}"
    assert 0 < seen.time < WAIT_SECONDS


def test_another_one_is_refused_at_once_and_both_are_named() -> None:
    seen = Console(booted(f"{OTHER} root@inst"))
    with pytest.raises(HostKeyError, match="printed another one on its console") as caught:
        seen.compare()
    assert fingerprint(OWN) in caught.value.message and fingerprint(OTHER) in caught.value.message
    assert "`gridup logs Inst --boot`" in caught.value.suggestion
    assert (caught.value.exit_code, seen.time) == (4, 0)
    with pytest.raises(HostKeyError) as caught:
        seen.compare("Inst $(id)")
    assert "`gridup logs 'Inst $(id)' --boot`" in caught.value.suggestion


@pytest.mark.parametrize(
    ("look", "why", "waits"),
    [
        ("", "it has not printed it", True),
        (booted(RSA), "it has not printed it", True),
        (ResourceError("The boot log can't be fetched."), "The boot log can't be fetched", True),
        (CredentialsError("AWS does not allow ec2:GetConsoleOutput."), "AWS does not allow ec2:GetC", False),
    ],
)
def test_where_it_cannot_be_told_that_is_said_and_the_first_contact_believed(
    look: str | GridupError, why: str, waits: bool
) -> None:
    seen = Console(look)
    line = seen.compare()
    assert line.startswith(f"its host key {fingerprint(OWN)} is believed at first contact, for the console")
    assert why in line
    assert "\n" not in line
    assert (seen.time >= WAIT_SECONDS) is waits


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """What machines' consoles were looked for by; they have another key than `OWN` on them."""
    found: list[dict[str, str]] = []

    def reader(where: dict[str, str], *_words: str) -> Callable[[], str]:
        found.append(where)
        return lambda: booted(f"{OTHER} a")

    monkeypatch.setattr(console, "reader", reader)
    yield found


class TestHost:
    """The resource that makes the first contact."""

    def test_it_is_compared_at_the_first_contact_alone_and_not_where_a_key_was_given(
        self, monkeypatch: pytest.MonkeyPatch, asked: list[dict[str, str]]
    ) -> None:
        monkeypatch.setattr(first_boot_wait, "wait_for_host", lambda *_: OWN)
        where = {"target": "aws", "machine": "i-1"}
        names = {"stack": "inst", "stack_id": "0" * 16, "name": "Inst"}
        props = {**names, "machine": "i-1", "address": "192.0.2.7", "private_key": "K", "console": where}
        provider = ContainerHostProvider()
        with pytest.raises(ProviderError, match="printed another one on its console"):
            provider.create(dict(props))
        assert asked == [where]
        made = provider.create({**props, "asked_key": OWN})
        provider.update("i-1", {**props, "host_key": OWN}, dict(props))
        assert asked == [where]
        # A node that was deployed before there was such an input is not changed by it.
        olds = {key: value for key, value in (made.outs or {}).items() if key not in ("console", "asked_key")}
        assert not provider.diff("i-1", olds, {**props, "host_key": None}).changes
