"""HTTPS on a machine of its own, with the real Caddy: its own CA for an address, ACME for a name."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gridup_infra.processes import wait_until
from gridup_node.containers import compose, machine_containers
from gridup_node.entrypoint import prepare, told
from gridup_node.render import Context, Tls, render
from gridup_node.services import SERVICES, inside, machine_fronted, machine_ports, ports, service
from support import http_rig as rig
from support.pebble_rig import pebble

ADDRESSES = (f"127.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250}.{last}" for last in range(1, 255))
"""Addresses of this machine, one for each Caddy: the ports are always the same. They are this process's own,
for Caddy shares a port with whoever listens there in the same way."""

HTTPS, JUPYTER, HTTP = inside(443), inside(8888), inside(80)

NAME = "node.inst.example"


@dataclass
class Front:
    """A running Caddy.

    Attributes:
        here: the address that it listens on.
        data: where it keeps its CA and its certificates.
        typed: the name that people open it by; empty for its address.
    """

    here: str
    data: Path
    log: Path
    typed: str = ""

    @property
    def root(self) -> Path:
        """Its own CA's certificate."""
        return self.data / "caddy/pki/authorities/local/root.crt"

    def proves_itself(self) -> bool:
        with contextlib.suppress(OSError):
            return self.get(HTTPS, "/login")[0] == 200
        return False

    def get(self, port: int, path: str, ca: Path | None = None, name: str = "") -> tuple[int, bytes]:
        """As a client that trusts one CA alone; `name` is what its person typed."""
        name = name or self.typed
        context = ssl.create_default_context(cafile=str(ca or self.root))
        raw = socket.create_connection((self.here, port), timeout=60)
        with raw, context.wrap_socket(raw, server_hostname=name or self.here) as connection:
            client = http.client.HTTPConnection(name or self.here, port)
            client.sock = connection
            client.request("GET", path)
            answer = client.getresponse()
            return answer.status, answer.read()


@contextlib.contextmanager
def front(runtime: Path, folder: Path, here: str, tls: Tls) -> Iterator[Front]:
    """Caddy as the table has it, before stand-ins for the node's programs."""
    home = folder / "home"
    (home / "config").mkdir(parents=True, exist_ok=True)
    with rig.serve(rig.node()) as api, rig.serve(rig.jupyter()) as notebooks:
        upstreams = {**ports(), "api": api.port, "jupyter": notebooks.port}
        context = Context(
            home=str(home),
            bin=str(runtime / "bin"),
            bind=here,
            ports=upstreams,
            separate_hosts=False,
            tls=tls,
        )
        # In the place of the api stands a port.
        files = render(context, tuple(replace(row, socket="") for row in SERVICES))
        (home / "config" / "Caddyfile").write_text(files["Caddyfile"])
        if tls.acme_ca:
            (home / "config" / "acme-root.pem").write_text(tls.acme_ca)
        program = json.loads(files["programs.json"])["proxy"]
        log = folder / "caddy.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                program["argv"],
                env={"PATH": os.defpath, "HOME": str(folder), **program["environment"]},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            up = lambda: process.poll() is not None or listens(here, HTTPS)  # noqa: E731
            assert wait_until(up, timeout=300) and process.poll() is None, log.read_text()
            made = Front(here, home / "proxy", log, "" if tls.name == here else tls.name)
            # Caddy listens a moment before its own CA has made the certificate.
            assert tls.acme or wait_until(made.proves_itself, timeout=300, every=0.02), log.read_text()
            yield made
        finally:
            process.terminate()
            process.wait(timeout=120)


def listens(here: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((here, port), timeout=2):
        return True
    return False


@pytest.fixture(scope="module")
def by_address(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    here = next(ADDRESSES)
    with front(runtime, tmp_path_factory.mktemp("by-address"), here, Tls(name=here)) as made:
        yield made


def test_an_address_is_served_with_a_certificate_of_the_nodes_own_ca(by_address: Front) -> None:
    # Python sends no server name for an address, as all clients do.
    status, page = by_address.get(HTTPS, "/login")
    assert (status, page) == (200, rig.LOGIN)
    assert json.loads(by_address.get(HTTPS, "/api/v2/metadata")[1]) == rig.METADATA


def test_jupyter_is_served_with_the_same_certificate(by_address: Front) -> None:
    assert json.loads(by_address.get(JUPYTER, "/api")[1])["version"]


def test_whoever_does_not_pin_the_ca_refuses_it(by_address: Front, tmp_path: Path) -> None:
    other = rig.self_signed(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        by_address.get(HTTPS, "/login", other.cert)


def test_plain_http_only_redirects(by_address: Front) -> None:
    client = http.client.HTTPConnection(by_address.here, HTTP, timeout=60)
    client.request("GET", "/login?a=b", headers={"Host": "evil.example"})
    answer = client.getresponse()
    assert (answer.status, answer.getheader("Location")) == (308, f"https://{by_address.here}/login?a=b")
    assert answer.getheader("Server") is None
    client.close()


def test_a_web_server_in_front_is_served_by_each_name_that_it_passes_on(
    runtime: Path, tmp_path: Path
) -> None:
    """nginx names no server in TLS and verifies none, and hands on the name that people have typed."""
    here = next(ADDRESSES)
    with front(runtime, tmp_path, here, Tls(NAME, more=(NAME, "lab.inst.example"))):
        found = {}
        for typed in (NAME, "lab.inst.example", "evil.example"):
            raw = socket.create_connection((here, HTTPS), timeout=60)
            blind = ssl.create_default_context()
            blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
            with raw, blind.wrap_socket(raw) as connection:
                client = http.client.HTTPConnection(here, HTTPS)
                client.sock = connection
                client.request("GET", "/login", headers={"Host": typed})
                answer = client.getresponse()
                found[typed] = answer.read() == rig.LOGIN
        assert found == {NAME: True, "lab.inst.example": True, "evil.example": False}


def test_the_ca_is_its_owners_alone_and_the_same_after_a_restart(runtime: Path, tmp_path: Path) -> None:
    roots, here = [], next(ADDRESSES)
    for _ in range(2):
        with front(runtime, tmp_path, here, Tls(name=here)) as made:
            assert made.get(HTTPS, "/login")[0] == 200
            roots.append(made.root.read_text())
            assert made.root.with_suffix(".key").stat().st_mode & 0o077 == 0
    assert roots[0] == roots[1]


def test_a_name_gets_its_certificate_by_acme(runtime: Path, cache: Path, tmp_path: Path) -> None:
    here = next(ADDRESSES)
    with pebble(cache, tmp_path, find=lambda _: here, http=HTTP, https=HTTPS) as authority:
        tls = Tls(NAME, True, "ops@inst.example", authority.url, authority.ca.read_text())

        def served(made: Front) -> bool:
            with contextlib.suppress(OSError):
                return made.get(HTTPS, "/login", authority.ca, NAME) == (200, rig.LOGIN)
            return False

        with front(runtime, tmp_path, here, tls) as made:
            assert wait_until(partial(served, made), timeout=300, every=0.5), made.log.read_text()
            assert made.get(JUPYTER, "/api", authority.ca, NAME)[0] == 200
            assert not made.root.exists()
        assert "ops@inst.example" in authority.log.read_text() or account(made)["contact"] == [
            "mailto:ops@inst.example"
        ]
        assert list(made.data.rglob(f"{NAME}.crt"))
    # Kept where the data is: the next start asks nobody.
    with front(runtime, tmp_path, here, tls) as made:
        assert wait_until(partial(served, made), timeout=300, every=0.5), made.log.read_text()


def account(made: Front) -> Any:
    """What Caddy told the authority of itself."""
    return json.loads(next(made.data.rglob("users/*/*.json")).read_text())


NAMES = [Tls("192.0.2.7"), Tls("2001:db8::7"), Tls(NAME, True), Tls(NAME, True, 'a{x}"b\\@c.example')]


@pytest.mark.parametrize("tls", NAMES, ids=lambda tls: tls.email or tls.name)
def test_caddy_takes_what_is_rendered(runtime: Path, tmp_path: Path, tls: Tls) -> None:
    context = Context(home="/srv/node", bin="/b", bind="0.0.0.0", ports=ports(), separate_hosts=True, tls=tls)
    file = tmp_path / "Caddyfile"
    file.write_text(render(context)["Caddyfile"])
    argv = [runtime / "bin" / "caddy", "adapt", "--config", file, "--adapter", "caddyfile"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    apps = json.loads(done.stdout)["apps"]
    listening = {port for server in apps["http"]["servers"].values() for port in server["listen"]}
    wanted = (HTTPS, JUPYTER, HTTP, ports()["api"])
    assert {address.rpartition("/")[2] for address in listening} == {f"0.0.0.0:{port}" for port in wanted}
    assert all(server.get("protocols", []) == ["h1", "h2"] for server in apps["http"]["servers"].values())


def test_without_tls_nothing_is_as_it_would_be_with_it() -> None:
    context = Context(home="/n", bin="/b", bind="127.0.0.1", ports=ports())
    text = render(context)["Caddyfile"]
    assert "auto_https off" in text
    assert "https://" not in text


KNOWN = {"name": "Inst", "ssh_keys": ["ssh-ed25519 AAAA a"], "tls": {"name": "192.0.2.7"}}


class TestContainers:
    """What a machine's compose file says."""

    @staticmethod
    def composed() -> Any:
        return json.loads(compose("gridup", "node:1", machine_containers(KNOWN), {}, "", "/data"))["services"]

    def test_the_front_door_is_the_only_one_that_people_connect_to(self) -> None:
        published = {name: row.get("ports") for name, row in self.composed().items()}
        assert published == {
            "proxy": ["443:8443", "80:8080", "8888:8888"],
            "api": None,
            "jobs": None,
            "jupyter": None,
        }

    def test_what_the_machine_serves_has_no_container(self) -> None:
        assert service("ssh").provided_by_host
        assert "ssh" not in self.composed()

    def test_only_the_front_door_is_told_of_its_certificate(self) -> None:
        told_of = {
            name: "tls" in json.loads(row["environment"]["GRIDUP_NODE"].replace("$$", "$"))
            for name, row in self.composed().items()
        }
        assert told_of == {"proxy": True, "api": False, "jobs": False, "jupyter": False}

    def test_no_program_needs_the_right_to_a_low_port(self) -> None:
        for row in self.composed().values():
            for line in row.get("ports", ()):
                assert int(line.rpartition(":")[2]) >= 1024

    def test_the_table_says_what_the_front_door_serves_beside_itself(self) -> None:
        assert [row.name for row in machine_fronted()] == ["jupyter"]
        more = replace(service("jupyter"), name="metrics", port=9100, vm_port=9100)
        doors = {part.service: part.published_ports for part in machine_containers({}, (*SERVICES, more))}
        assert doors["proxy"][9100] == 9100

    def test_each_is_found_by_its_name(self) -> None:
        assert {row["container_name"] for row in self.composed().values()} == {
            "gridup-proxy",
            "gridup-api",
            "gridup-jobs",
            "gridup-jupyter",
        }


def test_caddy_takes_plain_http_at_the_port_of_https(runtime: Path, tmp_path: Path) -> None:
    context = Context(home="/n", bin="/b", bind="127.0.0.1", ports={**ports(), "proxy": 443})
    file = tmp_path / "Caddyfile"
    file.write_text(render(context)["Caddyfile"])
    argv = [runtime / "bin/caddy", "validate", "--config", file, "--adapter", "caddyfile"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_a_container_lays_down_its_certificates_authority(tmp_path: Path) -> None:
    home, data = tmp_path / "home", tmp_path / "data"
    for folder in (home, data):
        folder.mkdir(mode=0o700)
    row = service("proxy")
    tls = Tls(NAME, True, acme_url="https://ca.inst.example/dir", acme_ca="PEM\n").told()
    prepare(home, data, row, json.loads(told(row, {"tls": tls})), SERVICES)
    caddyfile = (home / "config" / "Caddyfile").read_text()
    assert f'acme_ca_root "{home}/config/acme-root.pem"' in caddyfile
    assert 'acme_ca "https://ca.inst.example/dir"' in caddyfile
    assert (home / "config" / "acme-root.pem").read_text() == "PEM\n"
    assert "reverse_proxy jupyter:8888" in caddyfile
    assert machine_ports()["jupyter"] == 8888
