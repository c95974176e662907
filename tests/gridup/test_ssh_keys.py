"""People's public keys: cases G24 and G31."""

from __future__ import annotations

from pathlib import Path

import pytest

from gridup.ssh_keys import read_key, rsa_bits
from gridup_infra.errors import UsageError
from gridup_infra.processes import run, which
from support import ssh_keys
from support.fake_target import FakeTarget
from support.inside import Inside

KEY = ssh_keys.ed25519("a b: c #1")


@pytest.mark.parametrize(
    "raw",
    [
        f"{KEY}\n".encode(),
        b"\xef\xbb\xbf" + f"{KEY}\r\n\r\n".encode(),
        f"\n\n  {KEY}  \n\n\n".encode(),
        f"{KEY}\r\n".encode("utf-16"),
    ],
    ids=["plain", "BOM, CRLF, blank line", "blank lines", "PowerShell"],
)
def test_a_key_file_of_any_editor_is_one_clean_line(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "k.pub").write_bytes(raw)
    assert read_key(tmp_path / "k.pub") == KEY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "that is a private key"),
        ("", "is empty"),
        ("\r\n\r\n", "is empty"),
        (f"{KEY}\n{KEY}\n", "has one line; this one has 2"),
        ("hello", "begins with 'hello'"),
        (f"{ssh_keys.dsa()}\n", "begins with 'ssh-dss'"),
        (f"{ssh_keys.rsa(1024)}\n", "an RSA key of 1024 bits is too short"),
        (KEY[:40], "the ssh-ed25519 key is damaged or cut off"),
        ("\x00\xff\xfe", "begins with"),
    ],
    ids=["private", "empty", "blank", "two", "no key", "DSA", "RSA-1024", "cut off", "binary"],
)
def test_what_is_no_good_key_is_refused_before_anything_is_made(
    inside: Inside, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "k").write_text(text)
    ended = inside("deploy", "Inst", "--ssh-key", str(tmp_path / "k"))
    assert (ended.code, ended.out, inside.engine.calls) == (2, "", [])
    assert said in ended.err
    assert "PRIVATE" not in ended.err


def test_a_file_that_is_no_text_is_refused(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"\xff\xff\x00")
    assert "is not a text file" in inside("deploy", "Inst", "--ssh-key", str(tmp_path / "k")).err


@pytest.mark.parametrize("key", [ssh_keys.ed25519("a"), ssh_keys.rsa4096("a"), ssh_keys.rsa(2048, "a")])
def test_what_every_cloud_takes_is_taken(
    inside: Inside, moon: type[FakeTarget], tmp_path: Path, key: str
) -> None:
    (tmp_path / "k.pub").write_text(key)
    words = ["--allow-cidr", "203.0.113.7/32", "--ssh-key", str(tmp_path / "k.pub")]
    inside("deploy", "Inst", "--cloud", "moon", "--no-wait", *words).ok()
    assert key in (inside.state / ".pulumi/stacks/gridup/inst.json").read_text()


@pytest.mark.parametrize("command", ["deploy", "preview"])
def test_a_type_that_the_target_does_not_take_is_refused_naming_it(
    inside: Inside, moon: type[FakeTarget], tmp_path: Path, command: str
) -> None:
    (tmp_path / "k.pub").write_text(ssh_keys.ecdsa("ada@inst"))
    ended = inside(command, "Inst", "--cloud", "moon", "--ssh-key", str(tmp_path / "k.pub"))
    assert (ended.code, inside.engine.calls) == (2, [])
    assert "--ssh-key 'ada@inst' is of the type ecdsa-sha2-nistp256; the moon takes" in ended.err
    inside(
        command, "Inst", "--ssh-key", str(tmp_path / "k.pub"), *(["--no-wait"] * (command == "deploy"))
    ).ok()


@pytest.mark.parametrize("bits", [1024, 2048, 3072])
def test_the_length_of_a_real_rsa_key_is_known(tmp_path: Path, bits: int) -> None:
    keygen = which("ssh-keygen")
    if keygen is None:
        pytest.skip("there is no ssh-keygen")
    argv = [keygen, "-q", "-t", "rsa", "-b", str(bits), "-N", "", "-f", str(tmp_path / "k")]
    assert run(argv, timeout=60).ok
    assert rsa_bits((tmp_path / "k.pub").read_text().strip()) == bits
    if bits < 2048:
        with pytest.raises(UsageError, match=f"of {bits} bits is too short"):
            read_key(tmp_path / "k.pub")


def test_nobodys_takes_the_keys_away_and_an_administrators_are_read_as_well(
    inside: Inside, moon: type[FakeTarget], tmp_path: Path
) -> None:
    for name in ("ada", "bob"):
        (tmp_path / f"{name}.pub").write_text(ssh_keys.ed25519(name))
    words = ["--cloud", "moon", "--allow-cidr", "203.0.113.7/32", "--no-wait"]
    keys = ["--ssh-key", str(tmp_path / "ada.pub"), "--admin-ssh-key", str(tmp_path / "bob.pub")]
    inside("deploy", "Inst", *words, *keys).ok()
    assert inside.outputs("inst").spec.admin_ssh_keys == (ssh_keys.ed25519("bob"),)
    inside("deploy", "Inst", "--no-wait", "--ssh-key", "none", "--admin-ssh-key", "none").ok()
    spec = inside.outputs("inst").spec
    assert (spec.ssh_keys, spec.admin_ssh_keys) == ((), ())
    ended = inside("deploy", "Inst", "--admin-ssh-key", "/no/such.pub")
    assert ended.code == 2
    assert "--admin-ssh-key /no/such.pub can't be read" in ended.err


def test_the_hour_of_restarts_is_kept_and_taken_back(inside: Inside, moon: type[FakeTarget]) -> None:
    words = ["--cloud", "moon", "--allow-cidr", "203.0.113.7/32", "--no-wait"]
    inside("deploy", "Inst", *words, "--reboot-at", "03:30").ok()
    assert inside.outputs("inst").spec.reboot_at == "03:30"
    inside("deploy", "Inst", "--no-wait").ok()
    assert inside.outputs("inst").spec.reboot_at == "03:30"
    inside("deploy", "Inst", "--no-wait", "--reboot-at", "never").ok()
    assert inside.outputs("inst").spec.reboot_at == ""
    ended = inside("deploy", "Inst", "--reboot-at", "half past three")
    assert ended.code == 2


def test_from_where_the_stacks_own_key_lets_in_is_changed_by_the_next_deploy_alone(
    inside: Inside, moon: type[FakeTarget]
) -> None:
    networks = ("203.0.113.0/24", "2001:db8::/32")
    words = [word for network in networks for word in ("--key-from", network)]
    inside("deploy", "Inst", "--cloud", "moon", "--allow-cidr", networks[0], "--no-wait", *words).ok()
    assert inside.outputs("inst").spec.key_from == networks
    inside("deploy", "Inst", "--no-wait").ok()
    assert inside.outputs("inst").spec.key_from == networks
    inside("deploy", "Inst", "--no-wait", "--key-from", "none").ok()
    assert inside.outputs("inst").spec.key_from == ()
