"""One look at an endpoint: what proves it, what doesn't, and that no server can outlast the deadline."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gridup.probes import (
    Endpoint,
    ProbeState,
    all_up,
    endpoints_for_host,
    endpoints_for_node,
    healthy,
    probe_all,
    reclassify,
    summary,
    to_json,
)
from gridup.probes.model import Trust
from gridup.probes.run import WORKERS
from gridup.probes.web import MAX_REDIRECTS
from gridup_infra.outputs import DNS_NAME, NodeOutputs
from gridup_infra.processes import wait_until
from gridup_infra.spec import DeploySpec
from gridup_node.services import PORTAL_MARK, ProbeKind
from support import http_rig as rig
from support.checkpoints import outputs_for

UP, DOWN, NOT_READY = ProbeState.UP, ProbeState.DOWN, ProbeState.NOT_READY
TIMEOUT, RESTRICTED, NOT_OFFERED = ProbeState.TIMEOUT, ProbeState.RESTRICTED, ProbeState.NOT_OFFERED
pytestmark = pytest.mark.timeout(180)
"""What a test's probes would outlast is longer by far: what does not end in its time ends here."""

LONG = 600.0
PATHS = {
    ProbeKind.LOGIN_PAGE: "/login",
    ProbeKind.SYFT_METADATA: "/api/v2/metadata",
    ProbeKind.JUPYTER_API: "/api",
}


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def endpoint(proof, port, host="127.0.0.1", **more):
    name = {ProbeKind.SYFT_METADATA: "api", ProbeKind.LOGIN_PAGE: "ui"}.get(proof, proof.value)
    return Endpoint(name, name, f"{host}:{port}", proof, host, port, path=PATHS.get(proof, "/"), **more)


def look(proof, handler, timeout=LONG, **more):
    """Probe a server with that handler."""
    serve_more = {key: more.pop(key) for key in ("tls", "speaks_first") if key in more}
    with rig.serve(handler, **serve_more) as server:
        more["tls"] = "tls" in serve_more
        return probe_all([endpoint(proof, server.port, **more)], timeout)[0]


# What proves a service


def test_a_node_is_proven_on_every_row():
    with (
        rig.serve(rig.node()) as front,
        rig.serve(rig.jupyter("2.17.0")) as lab,
        rig.serve(rig.banner("SSH-2.0-OpenSSH_9.2"), speaks_first=True) as sshd,
    ):
        ports = {"ssh": sshd.port, "jupyter": lab.port}
        wanted = [replace(e, port=ports.get(e.service, front.port)) for e in endpoints_for_host("127.0.0.1")]
        results = probe_all(wanted, LONG)
    assert [r.state for r in results] == [UP] * 5
    assert all_up(results)
    assert healthy(results)
    assert summary(results) == "5 of 5 up"
    facts = {r.endpoint.service: r.facts for r in results}
    assert facts["api"] == {"name": "Inst", "server_type": "datasite", "syft_version": "0.9.5"}
    assert facts["jupyter"] == {"jupyter_version": "2.17.0"}
    assert facts["ssh"] == {"banner": "SSH-2.0-OpenSSH_9.2"}
    assert "UI" in results[0].detail


DECOYS = [
    rig.reply(body=b"<html>It works!</html>"),
    rig.reply(body=b""),
    rig.json_reply({"status": "ok", "version": "1.0"}),
    rig.json_reply({"name": "Inst", "version": "1.0"}),
    rig.json_reply(["version"]),
    rig.reply(body=b"{", content_type="application/json"),
    rig.reply(body=b"[" * 100_000, content_type="application/json"),
]


@pytest.mark.parametrize("answer", DECOYS)
def test_a_decoy_that_says_200_to_everything_is_red_on_every_row(answer):
    with rig.serve(rig.always(answer)) as server:
        wanted = [replace(e, port=server.port) for e in endpoints_for_host("127.0.0.1")]
        results = probe_all(wanted, 1.0)
    assert not any(r.up for r in results)
    assert all(r.detail for r in results)


def test_the_api_must_be_the_node_that_was_asked_for():
    with rig.serve(rig.node({**rig.METADATA, "name": "Other"})) as server:
        wanted = endpoint(ProbeKind.SYFT_METADATA, server.port)
        anybody, inst = probe_all([wanted, replace(wanted, expected={"name": "Inst"})], LONG)
    assert anybody.state is UP
    assert (inst.state, inst.detail) == (DOWN, "the api says it is 'Other', not 'Inst'")


@pytest.mark.parametrize(("node_type", "said"), [("domain", "datasite"), ("network", "gateway")])
def test_the_api_must_be_of_the_type_that_was_deployed(tmp_path, node_type, said):
    spec = DeploySpec(name="Inst", target="local", stack_id="0" * 16, bind="127.0.0.1", node_type=node_type)
    (api,) = (e for e in endpoints_for_node(outputs_for(spec, tmp_path)) if e.service == "api")
    for server_type in ("datasite", "gateway"):
        with rig.serve(rig.node({**rig.METADATA, "server_type": server_type})) as server:
            (found,) = probe_all([replace(api, port=server.port)], LONG)
        assert found.up == (server_type == said)
        if not found.up:
            assert found.detail == f"the api says its server type is '{server_type}', not '{said}'"


@pytest.mark.parametrize(
    "broken", [{"name": 7}, {"syft_version": "latest"}, {"server_type": ""}, {"name": None}]
)
def test_metadata_with_a_field_of_the_wrong_kind_is_not_syfts(broken):
    result = look(ProbeKind.SYFT_METADATA, rig.node({**rig.METADATA, **broken}))
    assert (result.state, result.detail) == (DOWN, "answered, but not with syft's metadata")


def test_a_page_without_our_mark_or_of_another_kind_is_not_our_login_page():
    for answer in (
        rig.reply(body=b"<title>Log in</title>"),
        rig.reply(body=rig.LOGIN, content_type="text/plain"),
    ):
        result = look(ProbeKind.LOGIN_PAGE, rig.always(answer))
        assert (result.state, result.detail) == (DOWN, "answered, but this is not a Gridup login page")


def test_a_node_that_hagrid_deployed_is_found_with_its_own_addresses():
    described = {"openapi": "3.0.2", "paths": {"/api/v1/syft/metadata": {}, "/api/v1/login": {}}}
    pages = {
        "/login": rig.reply(body=b"<html><title>PyGrid</title></html>"),
        "/api/v1/openapi.json": rig.json_reply(described),
    }
    with rig.serve(lambda sock, path: sock.sendall(pages.get(path, rig.reply(404)))) as server:
        results = {
            r.endpoint.service: r for r in probe_all(endpoints_for_host(f"127.0.0.1:{server.port}"), LONG)
        }
    assert (results["api"].up, results["api"].note) == (True, "deployed by HAGrid")
    assert results["api"].endpoint.url == f"http://127.0.0.1:{server.port}/api/v1"
    assert (results["ui"].up, results["ui"].note) == (True, "deployed by HAGrid")
    assert results["proxy"].up


def test_another_api_at_hagrids_address_is_none_of_it():
    pages = {
        "/login": rig.reply(body=b"<html></html>"),
        "/api/v1/openapi.json": rig.json_reply({"paths": {"/api/v1/users": {}}}),
    }
    with rig.serve(lambda sock, path: sock.sendall(pages.get(path, rig.reply(404)))) as server:
        results = {
            r.endpoint.service: r for r in probe_all(endpoints_for_host(f"127.0.0.1:{server.port}"), LONG)
        }
    assert (results["api"].up, results["ui"].up) == (False, False)


def test_what_a_node_says_is_wrong_with_it_is_told():
    answer = rig.json_reply({"gridup_problem": "its database file was removed"}, 500)
    for proof in (ProbeKind.SYFT_METADATA, ProbeKind.LOGIN_PAGE):
        result = look(proof, rig.always(answer))
        assert (result.state, result.detail) == (DOWN, "its database file was removed")


@pytest.mark.parametrize("version", ["2.17", "v2.17.0", "", 2, None, "2.17.0; rm"])
def test_jupyters_version_is_digits_and_dots(version):
    result = look(ProbeKind.JUPYTER_API, rig.jupyter(version))
    assert (result.state is UP) == (version == "2.17")


def test_lines_may_come_before_the_ssh_banner():
    lines = ["Authorised use only", "", "SSH-2.0-OpenSSH_10.0p2 Debian-7"]
    result = look(ProbeKind.SSH_BANNER, rig.banner(*lines), speaks_first=True)
    assert (result.state, result.facts["banner"]) == (UP, lines[-1])


@pytest.mark.parametrize(
    "lines", [["HTTP/1.1 400 Bad Request"], ["SSH-1.5-old"], ["x"] * 1000, ["y" * 100_000]]
)
def test_other_talk_is_not_ssh(lines):
    result = look(ProbeKind.SSH_BANNER, rig.banner(*lines), speaks_first=True)
    assert (result.state, result.detail) == (DOWN, "answered, but not as an ssh server does")


def test_an_sshd_that_shuts_us_out_for_a_while_is_quoted():
    result = look(ProbeKind.SSH_BANNER, rig.banner("Not allowed at this time"), speaks_first=True)
    assert (result.state, result.detail) == (NOT_READY, "sshd says: Not allowed at this time")


# Not up


def test_nothing_listening_is_refused():
    results = probe_all(endpoints_for_host(f"127.0.0.1:{rig.free_port()}")[1:3], LONG)
    assert [(r.state, r.detail) for r in results] == [(DOWN, "connection refused")] * 2


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (rig.reply(404), "404: the api is not there (yet)"),
        (rig.reply(502), "502 from the proxy: the api is still starting"),
        (rig.reply(503), "503: the api is still starting"),
        (b"", "closed the connection: the api may be starting"),
    ],
)
def test_a_node_that_boots_is_not_ready_and_then_up(answer, detail):
    with rig.serve(rig.first(answer, then=rig.node())) as server:
        wanted = [endpoint(ProbeKind.SYFT_METADATA, server.port)]
        before, after = probe_all(wanted, LONG)[0], probe_all(wanted, LONG)[0]
    assert (before.state, before.detail) == (NOT_READY, detail)
    assert after.state is UP


@pytest.mark.parametrize("proof", list(PATHS))
def test_errors_and_other_protocols_are_down(proof):
    assert look(proof, rig.always(rig.reply(500))).detail == "answers 500"
    assert look(proof, rig.banner("SSH-2.0-x"), speaks_first=True).detail == "answered, but not in http"


def test_an_sshd_that_hangs_up_is_not_ready():
    assert look(ProbeKind.SSH_BANNER, rig.reset, speaks_first=True).state is NOT_READY
    assert look(ProbeKind.SSH_BANNER, lambda sock, path: None, speaks_first=True).state is NOT_READY


def test_what_is_not_offered_is_said_and_never_probed():
    with rig.serve(rig.silent) as server:
        absent = endpoint(
            ProbeKind.SSH_BANNER, server.port, offered=False, reason="no sshd is installed here"
        )
        results = probe_all([absent], LONG)
        assert server.connections == 0
    assert (results[0].state, results[0].detail) == (NOT_OFFERED, "no sshd is installed here")
    assert not all_up(results), "a node that offers nothing is not up"


# The host row


def host(name="", at="127.0.0.1"):
    return Endpoint("proxy", "host", at, ProbeKind.ANY, at, 1, node=name)


def test_the_host_is_up_by_its_own_nodes_services_alone():
    with rig.serve(rig.node()) as server:
        ours = replace(endpoint(ProbeKind.LOGIN_PAGE, server.port), node="A")
        theirs = replace(endpoint(ProbeKind.LOGIN_PAGE, rig.free_port()), node="B")
        a, b, _, _ = probe_all([host("A"), host("B"), ours, theirs], LONG)
    assert (a.state, a.detail) == (UP, "proven by its ui")
    assert (b.state, b.detail) == (DOWN, "none of its services is proven")


def test_another_ssh_of_the_host_does_not_prove_the_node_at_a_given_port():
    with rig.serve(rig.banner("SSH-2.0-OpenSSH_9.2"), speaks_first=True) as sshd:
        asked = endpoints_for_host(f"127.0.0.1:{rig.free_port()}")
        wanted = [replace(e, port=sshd.port) if e.service == "ssh" else e for e in asked]
        results = {r.endpoint.service: r for r in probe_all(wanted, LONG)}
        assert sshd.connections == 0
    assert (results["proxy"].state, results["proxy"].detail) == (DOWN, "none of its services is proven")
    for service in ("ssh", "jupyter"):
        found = results[service]
        assert (found.state, found.detail) == (NOT_OFFERED, "not known to be this node's")


def test_a_deployed_nodes_endpoints_carry_what_is_known_of_it():
    outputs = NodeOutputs(
        DeploySpec(name="My Inst"),
        "127.0.0.1",
        {"proxy": 8443, "jupyter": 8889, "ssh": 2223, "api": 1},
        tls=True,
        ca="PEM",
        not_offered={"ssh": "no sshd is installed here"},
    )
    hints = {"jupyter": ("203.0.113.0/24",)}
    by = {e.service: e for e in endpoints_for_node(outputs, open_to=hints)}
    assert by["api"].expected == {"name": "My Inst", "server_type": "datasite"}
    assert (by["api"].port, by["api"].tls) == (8443, True)
    assert by["api"].path == "/api/v2/metadata"
    assert (by["ssh"].offered, by["ssh"].reason, by["ssh"].tls) == (False, "no sshd is installed here", False)
    assert by["jupyter"].restricted == "open to 203.0.113.0/24 only"
    assert {e.trust for e in by.values()} == {Trust("PEM", named=False, ours=True)}
    assert {e.node for e in by.values()} == {"My Inst"}


WAY = "import sys; sys.stdout.write({!r}); sys.stdout.flush(); sys.stderr.write({!r}); sys.stdin.read({})"


@pytest.mark.parametrize(
    ("answer", "errors", "state", "detail"),
    [
        ("SSH-2.0-lab\r\n", "", ProbeState.UP, ""),
        (
            "",
            "channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed\n",
            ProbeState.DOWN,
            "on the way there: channel 0: open failed: connect failed: Connection refused",
        ),
        (
            "",
            "ada@bastion: Permission denied (publickey).\n",
            ProbeState.RESTRICTED,
            "on the way there: ada@bastion: Permission denied (publickey)",
        ),
        ("", "", ProbeState.RESTRICTED, "on the way there: no answer"),
    ],
)
def test_ssh_that_goes_by_way_of_another_machine_is_proven_on_that_way(answer, errors, state, detail):
    way = (sys.executable, "-c", WAY.format(answer, errors, int(bool(answer))))
    outputs = NodeOutputs(DeploySpec(name="Inst"), "127.0.0.1", {"proxy": 1, "ssh": 1, "jupyter": 1})
    rows = {end.service: end for end in endpoints_for_node(outputs, way=way)}
    assert {name for name, end in rows.items() if end.way} == {"ssh"}
    (found,) = probe_all([rows["ssh"]], LONG)
    assert (found.state, found.detail) == (state, detail)


# localhost


@pytest.mark.parametrize("only", ["127.0.0.1", "::1"])
def test_localhost_is_up_when_either_loopback_is(only):
    with rig.serve(rig.node(), host=only) as server:
        result = probe_all([endpoint(ProbeKind.LOGIN_PAGE, server.port, host="localhost")], LONG)[0]
    assert result.state is UP


def test_localhost_is_up_on_one_loopback_though_the_other_keeps_silent():
    with rig.serve(rig.silent) as deaf, rig.serve(rig.node(), host="::1", port=deaf.port) as server:
        result = probe_all([endpoint(ProbeKind.LOGIN_PAGE, server.port, host="localhost")], LONG)[0]
    assert result.state is UP


def test_of_two_failures_the_one_that_says_most_is_told():
    with rig.serve(rig.always(rig.reply(502)), host="::1") as server:
        result = probe_all([endpoint(ProbeKind.SYFT_METADATA, server.port, host="localhost")], LONG)[0]
    assert result.detail == "502 from the proxy: the api is still starting"


def test_a_name_that_is_not_known_is_said(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    result = probe_all([endpoint(ProbeKind.LOGIN_PAGE, 80, host="nowhere.example")], LONG)[0]
    assert (result.state, result.detail) == (DOWN, "there is no host of this name")


# Redirects and TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return rig.self_signed(tmp_path_factory.mktemp("tls"))


def test_a_redirect_to_a_self_signed_certificate_is_up_with_a_note(certificate):
    with (
        rig.serve(rig.node(), tls=certificate.context) as secure,
        rig.serve(rig.redirect(lambda path: f"https://localhost:{secure.port}{path}", 308)) as plain,
    ):
        wanted = endpoint(ProbeKind.SYFT_METADATA, plain.port, host="localhost", expected={"name": "Inst"})
        untrusted, pinned = probe_all(
            [wanted, replace(wanted, trust=Trust(certificate.cert.read_text()))], LONG
        )
    assert (untrusted.state, untrusted.note) == (UP, "untrusted certificate")
    assert (pinned.state, pinned.note) == (UP, "")


def test_a_certificate_of_another_ca_than_the_pinned_one_is_not_this_node(certificate, tmp_path):
    other = rig.self_signed(tmp_path)
    result = look(
        ProbeKind.LOGIN_PAGE, rig.node(), tls=certificate.context, trust=Trust(other.cert.read_text())
    )
    assert result.state is DOWN
    assert "not this node's own" in result.detail


@pytest.mark.parametrize(
    "text", ["no certificate", "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"]
)
def test_a_pinned_ca_that_is_none_is_said(certificate, text):
    result = look(ProbeKind.LOGIN_PAGE, rig.node(), tls=certificate.context, trust=Trust(text))
    assert result.state is DOWN
    assert "its CA, as the stack has it, can't be read" in result.detail


@pytest.mark.parametrize("ours", [True, False])
def test_an_untrusted_certificate_is_remarked_upon_only_with_a_host_that_is_not_ours(certificate, ours):
    result = look(ProbeKind.LOGIN_PAGE, rig.node(), tls=certificate.context, trust=Trust(ours=ours))
    if ours:
        assert result.state is DOWN
        assert result.detail == "its certificate is not this node's own: self-signed certificate"
    else:
        assert (result.state, result.note) == (UP, "untrusted certificate")


def test_the_name_counts_where_the_ca_signs_for_others_too(tmp_path):
    """An authority of the site's own: whoever has a certificate of it could else be the node."""
    other = rig.self_signed(tmp_path, "DNS:other.example")
    pem = other.cert.read_text()
    alone = look(ProbeKind.LOGIN_PAGE, rig.node(), tls=other.context, trust=Trust(pem, ours=True))
    assert alone.state is UP
    result = look(
        ProbeKind.LOGIN_PAGE, rig.node(), tls=other.context, trust=Trust(pem, named=True, ours=True)
    )
    assert result.state is DOWN
    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in result.detail


def test_an_impostor_behind_a_redirect_of_ours_is_no_node_of_ours(certificate):
    with (
        rig.serve(rig.node(), tls=certificate.context) as secure,
        rig.serve(rig.redirect(lambda path: f"https://127.0.0.1:{secure.port}{path}", 308)) as plain,
    ):
        result = probe_all([endpoint(ProbeKind.LOGIN_PAGE, plain.port, trust=Trust(ours=True))], LONG)[0]
    assert result.state is DOWN
    assert "not this node's own" in result.detail


def test_the_ca_of_a_name_is_asked_for_the_name_and_a_public_one_too():
    for spec, ca, wanted in (
        (DeploySpec(name="Inst", domain_name="node.example"), "PEM", Trust("PEM", named=True, ours=True)),
        (DeploySpec(name="Inst", domain_name="node.example"), "", Trust(named=True, ours=True)),
        (DeploySpec(name="Inst"), "", Trust(ours=True)),
    ):
        ports = {"proxy": 443, "jupyter": 8888, "ssh": 22}
        outputs = NodeOutputs(spec, "node.example", ports, tls=True, ca=ca)
        assert {e.trust for e in endpoints_for_node(outputs)} == {wanted}
    given = replace(outputs, facts={DNS_NAME: "node.example"})
    assert {e.trust for e in endpoints_for_node(given)} == {Trust(named=True, ours=True)}
    assert {e.trust for e in endpoints_for_host("https://node.example")} == {Trust()}


def test_plain_http_where_https_was_meant_is_said():
    def refuse(sock, _):
        sock.recv(65536)
        sock.sendall(rig.reply(400))

    with rig.serve(refuse, speaks_first=True) as server:
        result = probe_all([endpoint(ProbeKind.LOGIN_PAGE, server.port, tls=True)], LONG)[0]
    assert (result.state, result.detail) == (DOWN, "answered, but not in https")


def test_caddys_refusal_of_plain_http_leads_to_https_on_the_same_port(certificate):
    """Go's server looks at the first byte; so does this one."""

    def both(raw, path):
        if raw.recv(1, socket.MSG_PEEK) == b"\x16":
            with certificate.context.wrap_socket(raw, server_side=True) as sock:
                rig.node()(sock, rig._path(sock))
        else:
            rig._path(raw)
            raw.sendall(rig.reply(400, b"Client sent an HTTP request to an HTTPS server.\n", "text/plain"))

    result = look(ProbeKind.LOGIN_PAGE, both, speaks_first=True)
    assert (result.state, result.note) == (UP, "untrusted certificate")


def test_a_redirect_loop_is_down():
    result = look(ProbeKind.LOGIN_PAGE, rig.redirect("/login"))
    assert (result.state, result.detail) == (DOWN, "redirect loop")


def test_a_redirect_to_a_port_where_nothing_listens_says_where_it_led():
    port = rig.free_port()
    result = look(ProbeKind.LOGIN_PAGE, rig.redirect(f"http://127.0.0.1:{port}/login"))
    assert result.state is DOWN
    assert result.detail == f"connection refused (redirected to http://127.0.0.1:{port})"


def test_redirects_without_end_are_bounded():
    with rig.serve(rig.redirect(lambda path: path + "x")) as server:
        result = probe_all([endpoint(ProbeKind.LOGIN_PAGE, server.port)], LONG)[0]
        assert len(server.paths) == MAX_REDIRECTS + 1
    assert result.state is DOWN
    assert result.detail.startswith("redirect loop")


def test_a_redirect_elsewhere_is_named_and_not_followed():
    with rig.serve(rig.node(), host="127.0.0.1") as elsewhere:
        for place in (f"http://node.example:{elsewhere.port}/login", "file:///etc/passwd", "http://[/"):
            result = look(ProbeKind.LOGIN_PAGE, rig.redirect(place))
            assert result.state is DOWN
            assert result.detail.startswith("redirects to")
        assert elsewhere.connections == 0


def test_a_redirect_from_https_to_plain_http_is_refused(certificate):
    with rig.serve(rig.node()) as plain:
        there = rig.redirect(f"http://127.0.0.1:{plain.port}/login")
        result = look(ProbeKind.LOGIN_PAGE, there, tls=certificate.context)
        assert plain.connections == 0
    assert (result.state, result.detail) == (DOWN, "redirects from https to plain http")


# Through a proxy


def test_a_hosts_page_goes_through_the_environments_proxy_with_its_password(monkeypatch):
    asked = []

    def proxy(sock, _):
        request = sock.recv(65536).decode()
        asked.append(request)
        sock.sendall(rig.reply(body=rig.LOGIN))

    with rig.serve(proxy, speaks_first=True) as server:
        monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{server.port}")
        result = probe_all([endpoint(ProbeKind.LOGIN_PAGE, 81, host="node.example")], LONG)[0]
    assert (result.state, result.note) == (UP, "through the proxy 127.0.0.1")
    assert asked[0].startswith("GET http://node.example:81/login HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic bWU6cEBzcw==" in asked[0]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_what_the_proxy_may_have_answered_itself_is_said_to_be_the_proxys(monkeypatch, status):
    with rig.serve(rig.always(rig.reply(status))) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
        result = probe_all([endpoint(ProbeKind.LOGIN_PAGE, 81, host="node.example")], LONG)[0]
    assert result.state is NOT_READY
    assert result.detail.startswith(f"the proxy 127.0.0.1 answers {status}: no way to the node, or the ui")


def test_https_goes_through_a_tunnel_of_the_proxy(monkeypatch, certificate):
    def proxy(raw, _):
        raw.sendall(
            b"HTTP/1.1 200 Connected\r\n\r\n" if rig._path(raw) == "node.example:443" else rig.reply(403)
        )
        with certificate.context.wrap_socket(raw, server_side=True) as sock:
            rig.node()(sock, rig._path(sock))

    with rig.serve(proxy, speaks_first=True) as server:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{server.port}")
        wanted = endpoint(
            ProbeKind.LOGIN_PAGE,
            443,
            host="node.example",
            tls=True,
            trust=Trust(certificate.cert.read_text()),
        )
        good, refused = probe_all([wanted, replace(wanted, port=444)], LONG)
    assert (good.state, good.note) == (UP, "through the proxy 127.0.0.1")
    assert refused.detail == "the proxy 127.0.0.1 answers 403"


def test_this_machine_is_never_asked_through_a_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{rig.free_port()}")
    assert look(ProbeKind.LOGIN_PAGE, rig.node()).state is UP


def test_a_proxy_that_is_no_url_is_said_without_its_password(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://me:S3cret!x9Qz@proxy:notaport")
    result = probe_all([endpoint(ProbeKind.LOGIN_PAGE, 80, host="node.example")], LONG)[0]
    assert (result.state, result.detail) == (DOWN, "the proxy in the environment is no URL")


# The deadline

PAGE = rig.reply(body=rig.LOGIN)
OUTLASTERS = {
    "silent": rig.silent,
    "a byte at a time, header": rig.trickle(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000),
    "a byte at a time, status": rig.trickle(b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "a byte at a time, body": rig.trickled_body(PAGE),
    "endless slow body": rig.endless(b"x", pause=0.1),
    "endless chunks": rig.trickled_body(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\nx\r\n" * 1000,
        every=0.05,
    ),
}


@pytest.mark.parametrize("handler", OUTLASTERS.values(), ids=OUTLASTERS.keys())
@pytest.mark.parametrize("proof", [ProbeKind.LOGIN_PAGE, ProbeKind.SSH_BANNER])
def test_no_server_outlasts_the_deadline(handler, proof):
    with rig.serve(handler, speaks_first=proof is ProbeKind.SSH_BANNER) as server:
        results = probe_all([endpoint(proof, server.port, host="localhost"), host(at="localhost")], 1.0)
    assert not any(r.up for r in results)
    assert results[0].state in (TIMEOUT, DOWN)


def nobody_probes() -> bool:
    return not any(thread.name.startswith("gridup-probe") for thread in threading.enumerate())


def test_threads_end_by_themselves_though_the_server_goes_on():
    for handler in (rig.trickle(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000, 0.1), rig.silent):
        with rig.serve(handler) as server:
            probe_all(
                [endpoint(ProbeKind.LOGIN_PAGE, server.port, host=at) for at in ("127.0.0.1", "localhost")],
                0.5,
            )
            assert wait_until(nobody_probes, timeout=30)


def test_what_the_time_went_by_with_is_told(deaf_port):
    with rig.serve(rig.silent, speaks_first=True) as server:
        silent = endpoint(ProbeKind.LOGIN_PAGE, server.port)
        results = probe_all(
            [endpoint(ProbeKind.SSH_BANNER, deaf_port), replace(silent, tls=True), silent], 5.0
        )
    assert {r.state for r in results} == {TIMEOUT}
    assert [r.detail for r in results] == [
        "no answer from this address in 5 s",
        "connected, but TLS did not start in 5 s",
        "connected, but no whole answer in 5 s",
    ]


def test_slow_redirects_share_one_deadline():
    def slow(sock, path):
        time.sleep(0.4)
        rig.redirect(path + "x")(sock, path)

    with rig.serve(slow) as server:
        result = probe_all([endpoint(ProbeKind.LOGIN_PAGE, server.port)], 1.0)[0]
    assert result.state is TIMEOUT


def test_an_endless_body_is_read_to_a_bound_only():
    result = look(ProbeKind.LOGIN_PAGE, rig.endless(b"x" * 65536))
    assert (result.state, result.detail) == (DOWN, "answered, but this is not a Gridup login page")


def test_a_login_page_is_proven_by_its_beginning():
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<head>" + PORTAL_MARK.encode()

    def handle(sock, path):
        sock.sendall(head)
        rig.silent(sock, path)

    result = look(ProbeKind.LOGIN_PAGE, handle)
    assert result.state is UP


@pytest.mark.parametrize("count", [1, 300])
def test_many_silent_endpoints_are_probed_at_the_same_time(count):
    with rig.serve(rig.silent) as server:
        results = probe_all([endpoint(ProbeKind.LOGIN_PAGE, server.port)] * count, 2.0)
    assert {r.state for r in results} == {TIMEOUT}
    tried = [r for r in results if r.detail != "too many probes: not tried in 2 s"]
    # Each takes all of the time. On a busy machine some of the workers begin when it is over.
    assert min(count, 2) <= len(tried) <= WORKERS


def test_what_has_come_when_time_is_over_is_not_taken_for_cut_off():
    main, calls = threading.current_thread(), itertools.count()

    def starved() -> float:
        if threading.current_thread() is not main or next(calls) == 0:
            return 0.0
        assert wait_until(nobody_probes, timeout=60)
        return 100.0

    with rig.serve(rig.node()) as server:
        results = probe_all([endpoint(ProbeKind.LOGIN_PAGE, server.port)] * 3, 60, clock=starved)
    assert all_up(results)


def test_many_prompt_endpoints_are_all_proven_though_not_all_at_the_same_time():
    with rig.serve(rig.node()) as server:
        results = probe_all([endpoint(ProbeKind.LOGIN_PAGE, server.port)] * 400, 60)
    assert all_up(results)


EXITS = """
import socket, sys, time
sys.path[:0] = {path!r}
socket.getaddrinfo = lambda *a, **k: time.sleep(600)
from gridup.probes import endpoints_for_host, probe_all
results = probe_all(endpoints_for_host("node.example"), 1.0)
print({{r.state.value for r in results}}, results[1].detail)
"""


def test_a_hanging_name_look_up_keeps_neither_the_probe_nor_the_process():
    root = Path(__file__).parents[2]
    code = textwrap.dedent(EXITS).format(path=[str(root / "cli"), str(root / "infra")])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "{'timeout'} the name could not be looked up in 1 s"
    assert (run.returncode, run.stderr) == (0, "")


# Restricted


def test_silence_is_restricted_where_the_port_is_not_open_to_us(deaf_port):
    with rig.serve(rig.node()) as server:
        web = endpoint(ProbeKind.LOGIN_PAGE, server.port)
        ssh = endpoint(ProbeKind.SSH_BANNER, deaf_port)
        results = probe_all([host(), web, replace(ssh, open_to=("203.0.113.0/24", "10.0.0.0/8"))], 3.0)
        plain = probe_all([ssh], 1.0)[0]
    assert [r.state for r in results] == [UP, UP, RESTRICTED]
    assert results[2].detail == "open to 203.0.113.0/24, 10.0.0.0/8 only"
    assert healthy(results)
    assert not all_up(results)
    assert plain.state is TIMEOUT


def test_a_host_of_which_nothing_can_be_seen_is_not_healthy(deaf_port):
    closed = endpoint(ProbeKind.SSH_BANNER, deaf_port, open_to=OTHERS)
    results = probe_all([host(), closed], 3.0)
    assert [r.state for r in results] == [RESTRICTED, RESTRICTED]
    assert not healthy(results)


def test_a_refusal_is_down_though_the_port_is_restricted():
    result = probe_all([endpoint(ProbeKind.SSH_BANNER, rig.free_port(), open_to=OTHERS)], LONG)[0]
    assert result.state is DOWN


OTHERS = ("203.0.113.0/24",)


@pytest.mark.parametrize(
    ("own", "state", "up"),
    [("203.0.113.7", TIMEOUT, False), ("198.51.100.7", RESTRICTED, True), (None, RESTRICTED, True)],
)
def test_what_is_silent_to_one_who_is_let_in_is_not_restricted(deaf_port, own, state, up):
    with rig.serve(rig.node()) as server:
        closed = endpoint(ProbeKind.SSH_BANNER, deaf_port, open_to=OTHERS)
        results = probe_all([host(), endpoint(ProbeKind.LOGIN_PAGE, server.port), closed], 3.0)
    results = reclassify(results, lambda: own)
    assert [r.state for r in results] == [UP, UP, state]
    assert healthy(results) is up


def test_the_host_row_follows(deaf_port):
    results = probe_all([host(), endpoint(ProbeKind.SSH_BANNER, deaf_port, open_to=OTHERS)], 3.0)
    assert [r.state for r in reclassify(results, lambda: "203.0.113.7")] == [TIMEOUT, TIMEOUT]


def test_our_own_address_is_asked_for_only_where_it_matters(deaf_port):
    def own():
        pytest.fail("asked")

    with rig.serve(rig.banner("SSH-2.0-OpenSSH_10.0")) as server:
        up = endpoint(ProbeKind.SSH_BANNER, server.port, open_to=OTHERS)
        silent, refused = (
            endpoint(ProbeKind.SSH_BANNER, deaf_port),
            endpoint(ProbeKind.SSH_BANNER, rig.free_port()),
        )
        results = probe_all([host(), up, silent, replace(refused, open_to=OTHERS)], 3.0)
    assert reclassify(results, own) == results


# What is made of results


def test_json_has_its_documented_keys_and_plain_values():
    with rig.serve(rig.node()) as server:
        ok = endpoint(ProbeKind.SYFT_METADATA, server.port)
        bad = endpoint(ProbeKind.LOGIN_PAGE, rig.free_port())
        results = probe_all([ok, bad], LONG)
    first, second = to_json(results)
    assert list(first) == ["service", "title", "url", "state", "up", "detail", "note", "seconds", "facts"]
    assert (first["state"], first["up"], first["facts"]["syft_version"]) == ("up", True, "0.9.5")
    assert (second["state"], second["up"], second["detail"]) == ("down", False, "connection refused")
    assert summary(results) == "1 of 2 up; ui: connection refused"


def test_a_bug_in_a_probe_is_raised_not_swallowed(monkeypatch):
    def broken(*_):
        raise KeyError("a bug")

    monkeypatch.setattr("gridup.probes.run.verify", broken)
    for at in ("127.0.0.1", "localhost"):
        with pytest.raises(KeyError):
            probe_all([endpoint(ProbeKind.LOGIN_PAGE, 1, host=at)], LONG)


def test_importing_the_probes_loads_no_http_library():
    root = Path(__file__).parents[2]
    code = f"import sys; sys.path[:0] = {[str(root / 'cli'), str(root / 'infra')]!r}; import gridup.probes; "
    code += "print({'http.client', 'ssl', 'requests', 'asyncio', 'urllib.request'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "set()"
