from __future__ import annotations

import ast
import base64
import gzip
import io
import json
import tokenize
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gridup_node.vm import host, user_data
from gridup_node.vm.machine import CONFIG, PROGRAM, Config
from gridup_node.vm.user_data import HEADER, LIMIT, Host, public_key
from support.ssh_keys import ed25519, rsa4096

DISK = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0"
ODD = """a b: c #1 'x' "y" \\n \\ %s {z} [w] & * ! | > é ß 漢 \u2028 \u0085 \x7f 😀"""
PRINTABLE = ODD.replace("\u2028", "").replace("\u0085", "").replace("\x7f", "")
PLAIN = Host((ed25519("ada@inst"),), (DISK,))
NOISE = rsa4096("x").split()[1] + rsa4096("y").split()[1] + rsa4096("z").split()[1]
CA = f"-----BEGIN CERTIFICATE-----\n{NOISE}\n-----END CERTIFICATE-----\n"
MOST = Host(
    ssh_keys=(ed25519("gridup"), *(rsa4096(f"person-{n}@a-machine.of-the.inst.example") for n in range(10))),
    disk=(DISK, *(f"/dev/disk/by-path/*another-cloud-{n}" for n in range(4))),
    name="𝕀" * 200,
    hostname="n" * 63,
    disk_seconds=86400,
    packages=tuple(f"a-package-with-a-long-name-{n}" for n in range(8)),
    proxy="http://a-proxy.of-the.inst.example:3128",
    no_proxy=tuple(f"host-{n}.inst.example" for n in range(8)),
    mirror="https://a-mirror.of-the.inst.example/a/path",
    ca=CA,
)


def loaded(sent: bytes) -> dict[str, Any]:
    """What cloud-init takes the bytes for."""
    text = gzip.decompress(sent) if sent[:2] == b"\x1f\x8b" else sent
    assert text.startswith(HEADER.encode())
    assert b"\r" not in text
    text.decode("ascii")
    told: dict[str, Any] = yaml.safe_load(text)
    return told


def files(sent: bytes) -> dict[str, bytes]:
    """What cloud-init writes."""
    made = {}
    for entry in loaded(sent)["write_files"]:
        content = entry["content"]
        if entry.get("encoding") == "gz+b64":
            made[entry["path"]] = gzip.decompress(base64.b64decode(content, validate=True))
        else:
            assert "encoding" not in entry
            made[entry["path"]] = content.encode()
    return made


@pytest.mark.parametrize(
    "wanted", [PLAIN, replace(PLAIN, name=PRINTABLE), MOST], ids=["plain", "odd", "most"]
)
def test_the_document_holds_every_value_to_the_byte(wanted: Host) -> None:
    sent = user_data.user_data(wanted)
    told = loaded(sent)
    (user,) = told["users"]
    assert user["name"] == "gridup"
    assert user["lock_passwd"] is True
    assert tuple(user["ssh_authorized_keys"]) == wanted.ssh_keys
    written = files(sent)
    config = Config.parse(written[CONFIG].decode())
    for name in ("disk", "disk_seconds", "packages", "proxy", "no_proxy", "mirror", "ca"):
        assert getattr(config, name) == getattr(wanted, name)
    assert written[PROGRAM] == user_data.program()
    assert written.get("/etc/motd", b"").decode() == (
        f"{wanted.name}: a node made by Gridup\n" * bool(wanted.name)
    )
    assert told.get("hostname", "") == wanted.hostname
    assert told["runcmd"][-1] == ["systemctl", "enable", "--now", "gridup-boot.service"]


@pytest.mark.parametrize("value", [ODD, "", "\ufeff", "\x00\x1f\x80", [ODD, [True, 12]], {ODD: {"a": []}}])
def test_yaml_reads_what_was_written(value: Any) -> None:
    text = user_data.to_yaml(value)
    assert text.isascii()
    assert "\n" not in text
    assert yaml.safe_load(text) == value


def test_the_common_host_is_sent_as_text_of_a_few_kb() -> None:
    sent = user_data.user_data(replace(PLAIN, ssh_keys=(ed25519("gridup"), ed25519("ada@inst"))))
    assert sent.startswith(b"#cloud-config\nusers: ")
    assert len(sent) < 11_500


def test_the_most_that_may_be_told_fits() -> None:
    assert len(user_data.document(MOST)) > LIMIT
    assert len(user_data.user_data(MOST)) <= LIMIT


def test_more_than_a_machine_takes_is_refused_with_sizes() -> None:
    keys = tuple(rsa4096(f"person-{n}") for n in range(30))
    with pytest.raises(ValueError, match=r"\d\d,\d{3} bytes compressed .* takes 16,384.* ssh keys 2\d,\d{3}"):
        user_data.user_data(replace(MOST, ssh_keys=keys))


def test_the_same_host_is_the_same_bytes_and_another_one_has_another_fingerprint() -> None:
    assert user_data.user_data(MOST) == user_data.user_data(replace(MOST))
    assert user_data.fingerprint(PLAIN) == user_data.fingerprint(replace(PLAIN))
    others = [replace(PLAIN, **{name: getattr(MOST, name)}) for name in MOST.__dataclass_fields__]
    assert len({user_data.fingerprint(other) for other in (PLAIN, *others)}) == len(others) + 1


def test_a_fingerprint_does_not_depend_on_the_compressor(monkeypatch: pytest.MonkeyPatch) -> None:
    before = user_data.fingerprint(MOST)
    monkeypatch.setattr(user_data, "_gzip", lambda data: gzip.compress(data, 1, mtime=0))
    assert user_data.fingerprint(MOST) == before


def test_the_program_is_the_package_without_comments_and_runs_by_itself() -> None:
    with zipfile.ZipFile(io.BytesIO(user_data.program())) as archive:
        names = set(archive.namelist())
        assert {f"gridup_node/vm/{name}.py" for name in host.MODULES} < names
        for name in names:
            source = archive.read(name).decode()
            assert not any(
                token.type == tokenize.COMMENT for token in tokenize.generate_tokens(lines(source))
            )
            original = Path(host.__file__).parent / Path(name).name
            if Path(name).stem in host.MODULES:
                assert ast.dump(ast.parse(source)) == ast.dump(code(original.read_text(encoding="utf-8")))
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gridup"):
                    assert f"{(node.module or '').replace('.', '/')}.py" in names


def lines(source: str) -> Callable[[], str]:
    return io.StringIO(source).readline


def code(source: str) -> ast.Module:
    """A module's code without the strings that are statements."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and len(body) > 1:
            node.body = [  # type: ignore[attr-defined]
                statement
                for statement in body
                if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
            ]
    return tree


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ('"""Doc."""\n\nimport os  # why\n', "import os\n"),
        ('A = 1\n"""Of A."""\n', "A = 1\n"),
        ('class E(Exception):\n    """Only this."""\n', 'class E(Exception):\n    """Only this."""\n'),
        (
            'def f():\n    """Doc\n\n    more.\n    """\n    # why\n    return "# kept"\n',
            'def f():\n    return "# kept"\n',
        ),
        ('A = """\\\n\n# text\n\n"""\n', 'A = """\\\n\n# text\n\n"""\n'),
        ('A = f"""\\\n\n{1}\n"""\n', 'A = f"""\\\n\n{1}\n"""\n'),
    ],
)
def test_stripping_leaves_the_code(source: str, left: str) -> None:
    assert user_data.minify(source) == left


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r\n\r\n", "\n\n  \n"])
@pytest.mark.parametrize("begin", ["", "\ufeff", "\ufeff\r\n", "  "])
def test_a_public_key_file_becomes_one_clean_line(begin: str, end: str) -> None:
    key = ed25519("a b: c #1 é 😀")
    assert public_key(f"{begin}{key}{end}") == key


def test_a_public_key_needs_no_comment() -> None:
    assert public_key(f"{rsa4096()}\n") == rsa4096()
    assert public_key(f"{rsa4096()}  x \n") == f"{rsa4096()} x"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has 0"),
        (f"{ed25519('a')}\n{ed25519('b')}\n", "has 2"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n", "private key"),
        ("ssh-dss AAAAB3NzaC1kc3MAAACB", "sshd accepts"),
        (f'command="true" {ed25519()}', "sshd accepts"),
        (ed25519()[:60], "damaged or cut off"),
        (ed25519().replace("ssh-ed25519", "ssh-rsa"), "damaged or cut off"),
        ("ssh-ed25519 not-base64!", "damaged or cut off"),
        ("ssh-ed25519", "damaged or cut off"),
        (f"{ed25519()} a\x1b[2Jb", "control characters"),
    ],
)
def test_what_is_no_public_key_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        public_key(text)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ssh_keys": ()}, "nobody could enter"),
        ({"ssh_keys": (f"{ed25519('a')}\n",)}, "clean public key"),
        ({"disk": ()}, "data disk"),
        ({"disk": ("nvme1n1",)}, "device's path"),
        ({"packages": ("--purge",)}, "package's name"),
        ({"hostname": "my_host"}, "host name"),
        ({"proxy": "proxy:3128"}, "proxy is not an http address"),
        ({"proxy": "http://me:secret@proxy:3128"}, "no place for one"),
        ({"proxy": 'http://proxy"'}, "proxy is not an http address"),
        ({"mirror": "ftp://mirror"}, "mirror is not an http address"),
        ({"no_proxy": ('"',)}, "without the proxy"),
        ({"ca": "-----BEGIN PRIVATE KEY-----"}, "private key"),
    ],
)
def test_a_host_that_cant_be_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        replace(PLAIN, **change)
    assert "secret" not in str(raised.value)


def test_settings_of_nobody_are_not_sent() -> None:
    config = json.loads(files(user_data.user_data(PLAIN))[CONFIG])
    assert set(config) == {"disk", "disk_seconds"}
    assert "hostname" not in loaded(user_data.user_data(PLAIN))
