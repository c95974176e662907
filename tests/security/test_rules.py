"""The rules that a node is held against elsewhere: each of them sees what it is there for."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from support import cis_docker, observatory
from support.observatory import FOREIGN, Answer, Seen

GOOD = {
    "content-security-policy": (
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; style-src 'self'"
    ),
    "content-type": "text/html; charset=utf-8",
    "referrer-policy": "same-origin",
    "strict-transport-security": "max-age=31536000",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "set-cookie": "__Host-session=1; Path=/; Secure; HttpOnly; SameSite=lax",
}
PAGE = b'<link rel="stylesheet" href="/portal.css"><script src="/a.js"></script>'


def seen(
    changed: dict[str, str] | None = None,
    *,
    body: bytes = PAGE,
    crossed: dict[str, str] | None = None,
    plain: str | None = "https://node.example/",
) -> Seen:
    headers = {name: value for name, value in {**GOOD, **(changed or {})}.items() if value}
    page = Answer("https://node.example/", 200, tuple(headers.items()), body)
    moved = Answer("http://node.example/", 308, (("location", plain),)) if plain else None
    return Seen(page, Answer(page.url, 200, tuple((crossed or {}).items())), moved, public=True)


def test_nothing_is_wrong_with_a_page_that_keeps_every_rule() -> None:
    assert observatory.findings(seen()) == {}
    assert observatory.findings(seen(plain=None)) == {}


@pytest.mark.parametrize(
    ("rule", "page"),
    [
        ("content-security-policy", seen({"content-security-policy": ""})),
        ("content-security-policy", seen({"content-security-policy": "frame-ancestors 'none'"})),
        ("content-security-policy", seen({"content-security-policy": "default-src 'self'"})),
        ("content-security-policy", seen({"content-security-policy": "default-src 'unsafe-inline'"})),
        ("content-security-policy", seen({"content-security-policy": "default-src 'unsafe-eval'"})),
        ("content-security-policy", seen({"content-security-policy": "default-src http://a.example"})),
        (
            "content-security-policy: frames, base, forms",
            seen({"content-security-policy": "default-src 'none'"}),
        ),
        ("cookies", seen({"set-cookie": "a=1; HttpOnly; SameSite=lax"})),
        ("cookies", seen({"set-cookie": "session=1; Secure; SameSite=lax"})),
        ("cookies", seen({"set-cookie": "_xsrf=1; Secure; HttpOnly"})),
        ("cookies", seen({"set-cookie": "a=1; Secure; SameSite=maybe"})),
        ("cross-origin-resource-sharing", seen(crossed={"access-control-allow-origin": "*"})),
        (
            "cross-origin-resource-sharing",
            seen(
                crossed={
                    "access-control-allow-origin": FOREIGN,
                    "access-control-allow-credentials": "true",
                }
            ),
        ),
        ("redirection", seen(plain="http://node.example/x")),
        ("redirection", seen(plain="https://other.example/")),
        ("referrer-policy", seen({"referrer-policy": "unsafe-url"})),
        ("referrer-policy", seen({"referrer-policy": ""})),
        ("strict-transport-security", seen({"strict-transport-security": ""})),
        ("strict-transport-security", seen({"strict-transport-security": "max-age=60"})),
        ("subresource-integrity", seen(body=b'<script src="https://cdn.example/a.js"></script>')),
        ("subresource-integrity", seen(body=b'<link rel="stylesheet" href="//cdn.example/a.css">')),
        ("x-content-type-options", seen({"x-content-type-options": ""})),
        ("cross-origin-resource-policy", seen({"cross-origin-resource-policy": "cross-origin"})),
        ("content-type", seen({"content-type": "text/html"})),
    ],
)
def test_a_page_that_breaks_a_rule_of_the_observatory_is_seen(rule: str, page: Seen) -> None:
    assert rule in observatory.findings(page)


def test_a_page_that_anybody_may_frame_is_seen() -> None:
    page = seen({"content-security-policy": "default-src 'none'", "x-frame-options": ""})
    assert observatory.findings(page)["x-frame-options"] == "x-frame-options-not-implemented"


HOST: dict[str, Any] = {
    "CapDrop": ["ALL"],
    "CapAdd": None,
    "Privileged": False,
    "NetworkMode": "inst",
    "Memory": 1 << 30,
    "NanoCpus": 10**9,
    "PidsLimit": 100,
    "ReadonlyRootfs": True,
    "PortBindings": None,
    "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5},
    "PidMode": "",
    "IpcMode": "private",
    "Devices": None,
    "Ulimits": [{"Name": "nofile"}],
    "UTSMode": "",
    "SecurityOpt": ["no-new-privileges:true"],
    "CgroupParent": "",
    "UsernsMode": "",
}
CONTAINER: dict[str, Any] = {
    "HostConfig": HOST,
    "Image": "sha256:1",
    "AppArmorProfile": "docker-default",
    "ProcessLabel": "s0",
    "Mounts": [{"Type": "volume", "Source": "/var/lib/docker/volumes/x/_data", "Propagation": ""}],
    "State": {"Health": {"Status": "healthy"}},
    "NetworkSettings": {"Networks": {"inst": {}}, "Ports": {"18080/tcp": None}},
}
DOCKERFILE = f"""
ARG BASE_IMAGE={cis_docker.BASE_IMAGE}@sha256:0
ARG REBUILT
RUN pip install --require-hashes a && uv pip install --require-hashes b
RUN apt-get update && apt-get upgrade && apt-get install --no-install-recommends c
COPY a b
"""
STEPS = "apt-get upgrade; find -perm /6000 -exec chmod a-s {} +"


def node(**changed: Any) -> cis_docker.Node:
    parts: dict[str, Any] = {
        "containers": {"api": deepcopy(CONTAINER)},
        "image": {"Id": "sha256:1", "Config": {"User": "gridup", "Healthcheck": {"Test": ["CMD"]}}},
        "history": ({"CreatedBy": STEPS},),
        "info": {
            "Swarm": {"LocalNodeState": "inactive"},
            "SecurityOptions": ["name=seccomp", "name=apparmor", "name=selinux"],
            **dict.fromkeys(("MemoryLimit", "CpuCfsQuota", "PidsLimit"), True),
        },
        "dockerfile": DOCKERFILE,
        "code": "exec_create(identity, argv)",
    }
    return cis_docker.Node(**{**parts, **changed})


def container(where: str, value: Any) -> cis_docker.Node:
    """A node whose container has another value at one place."""
    made = deepcopy(CONTAINER)
    *path, last = where.split(".")
    part = made
    for name in path:
        part = part[name]
    part[last] = value
    return node(containers={"api": made})


BROKEN = {
    "4.1": node(image={"Id": "sha256:1", "Config": {"User": "", "Healthcheck": {"Test": ["CMD"]}}}),
    "4.2": node(dockerfile=DOCKERFILE.replace("@sha256:0", "")),
    "4.3": node(dockerfile=DOCKERFILE.replace("--no-install-recommends ", "")),
    "4.4": node(history=({"CreatedBy": STEPS.replace("upgrade", "update")},)),
    "4.6": node(image={"Id": "sha256:1", "Config": {"User": "gridup"}}),
    "4.7": node(dockerfile=f"{DOCKERFILE}RUN apt-get update\n"),
    "4.8": node(history=({"CreatedBy": "apt-get upgrade"},)),
    "4.9": node(dockerfile=f"{DOCKERFILE}ADD a b\n"),
    "4.10": node(history=({"CreatedBy": f"{STEPS} ADMIN_PASSWORD=x"},)),
    "4.11": node(dockerfile=DOCKERFILE.replace("uv pip install --require-hashes", "uv pip install")),
    "4.12": node(dockerfile=f"{DOCKERFILE}RUN curl x\n"),
    "5.1": node(info={**node().info, "Swarm": {"LocalNodeState": "active"}}),
    "5.2": container("AppArmorProfile", "unconfined"),
    "5.3": container("ProcessLabel", ""),
    "5.4": container("HostConfig.CapAdd", ["NET_RAW"]),
    "5.5": container("HostConfig.Privileged", True),
    "5.6": container("Mounts", [{"Type": "bind", "Source": "/etc"}]),
    "5.7": node(containers={"ssh": deepcopy(CONTAINER)}),
    "5.8": container("NetworkSettings.Ports", {"80/tcp": None}),
    "5.9": container("HostConfig.PortBindings", {"18080/tcp": [{"HostIp": "127.0.0.1"}]}),
    "5.10": container("HostConfig.NetworkMode", "host"),
    "5.11": container("HostConfig.Memory", 0),
    "5.12": container("HostConfig.NanoCpus", 0),
    "5.13": container("HostConfig.ReadonlyRootfs", False),
    "5.14": container("HostConfig.PortBindings", {"18080/tcp": [{"HostIp": "0.0.0.0"}]}),
    "5.15": container("HostConfig.RestartPolicy", {"Name": "always", "MaximumRetryCount": 0}),
    "5.16": container("HostConfig.PidMode", "host"),
    "5.17": container("HostConfig.IpcMode", "host"),
    "5.18": container("HostConfig.Devices", [{"PathOnHost": "/dev/sda"}]),
    "5.19": container("HostConfig.Ulimits", None),
    "5.20": container("Mounts", [{"Type": "volume", "Source": "/x", "Propagation": "rshared"}]),
    "5.21": container("HostConfig.UTSMode", "host"),
    "5.22": container("HostConfig.SecurityOpt", ["no-new-privileges:true", "seccomp=unconfined"]),
    "5.23": node(code="exec_create(identity, argv, privileged=True)"),
    "5.24": node(code="exec_create(identity, argv, user='root')"),
    "5.25": container("HostConfig.CgroupParent", "/mine"),
    "5.26": container("HostConfig.SecurityOpt", []),
    "5.27": container("State.Health.Status", "unhealthy"),
    "5.28": container("Image", "sha256:0"),
    "5.29": container("HostConfig.PidsLimit", None),
    "5.30": container("NetworkSettings.Networks", {"bridge": {}}),
    "5.31": container("HostConfig.UsernsMode", "host"),
    "5.32": container("Mounts", [{"Type": "bind", "Source": "/var/run/docker.sock"}]),
}


def test_a_node_that_keeps_every_row_has_no_finding_but_that_of_content_trust() -> None:
    assert cis_docker.findings(node()) == {"4.5": ["image"]}
    assert set(BROKEN) | {"4.5"} == set(cis_docker.ROWS)


@pytest.mark.parametrize("row", BROKEN)
def test_a_node_that_breaks_a_row_of_the_cis_benchmark_is_seen(row: str) -> None:
    assert row in cis_docker.findings(BROKEN[row])
