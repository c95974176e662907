"""What people type as an address, and where the services of such a host are looked for."""

from __future__ import annotations

import pytest

from gridup.probes import Address, endpoints_for_host, parse_address
from gridup_infra.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", Address("localhost")),
        (" 1.2.3.4:81 ", Address("1.2.3.4", 81)),
        ("[::1]:8081", Address("::1", 8081)),
        ("[::1]", Address("::1")),
        ("2001:db8::7", Address("2001:db8::7")),
        ("http://host/", Address("host", None, "http")),
        ("HTTPS://inst.example.org:8443/login?next=1#x", Address("inst.example.org", 8443, "https")),
        ("host/login", Address("host")),
        ("http://[fe80::1]:80/", Address("fe80::1", 80, "http")),
        ("my_node-1.local:65535", Address("my_node-1.local", 65535)),
        ("bücher.example", Address("bücher.example")),
    ],
)
def test_addresses_are_read_as_people_mean_them(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ":80",
        "host:",
        "host:0",
        "host:65536",
        "host:http",
        "host:-1",
        "host:８０",
        "host:99999999999999",
        "[::1",
        "[::1]8081",
        "[1.2.3.4]:80",
        "[host]:80",
        "1:2:3",
        "1.2.3.4.5",
        "999.1.1.1",
        "ftp://host/",
        "me@host",
        "a b",
        "a\r\nb",
        "a..b",
        "x" * 64 + ".org",
        "http://",
    ],
)
def test_what_is_no_address_is_a_usage_error_that_says_how(text):
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert caught.value.exit_code == 2
    assert "HOST:PORT" in caught.value.suggestion
    assert "\n" not in caught.value.message


def shown(text):
    return {e.service: e.url for e in endpoints_for_host(text)}


def test_a_remote_host_is_looked_for_at_the_tutorials_places():
    assert shown("20.31.143.254") == {
        "proxy": "20.31.143.254",
        "ui": "http://20.31.143.254/login",
        "api": "http://20.31.143.254/api/v2",
        "ssh": "20.31.143.254:22",
        "jupyter": "http://20.31.143.254:8888",
    }


def test_this_machine_is_looked_at_where_a_local_node_listens():
    for host in ("localhost", "127.0.0.1", "127.0.0.1:8080"):
        ports = {e.service: e.port for e in endpoints_for_host(host)}
        assert ports == {"proxy": 8080, "ui": 8080, "api": 8080, "ssh": 2222, "jupyter": 8888}


def test_a_given_port_is_the_front_doors_and_ipv6_stands_in_brackets():
    urls = shown("[::1]:8081")
    assert urls["ui"] == "http://[::1]:8081/login"
    assert urls["ssh"] == "[::1]:2222"
    assert urls["jupyter"] == "http://[::1]:8888"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("localhost", set()),
        ("https://inst.example.org", set()),
        ("localhost:8080", {"ssh", "jupyter"}),
        ("http://inst.example.org:8080", {"ssh", "jupyter"}),
    ],
)
def test_nothing_ties_a_hosts_other_ports_to_a_given_one(text, named):
    assert {e.service for e in endpoints_for_host(text) if not e.offered} == named


@pytest.mark.parametrize("text", ["https://inst.example.org", "inst.example.org:443"])
def test_https_is_meant_by_scheme_or_by_port(text):
    api = next(e for e in endpoints_for_host(text) if e.service == "api")
    assert (api.tls, api.port, api.url) == (True, 443, "https://inst.example.org/api/v2")


def test_http_on_this_machine_means_port_80():
    assert shown("http://localhost/")["ui"] == "http://localhost/login"


def test_nothing_is_expected_of_an_unknown_node():
    assert all(e.expected is None and e.offered for e in endpoints_for_host("host"))
