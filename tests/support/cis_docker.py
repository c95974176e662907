"""The rows of the CIS Docker Benchmark 1.6.0 on images (section 4) and on containers (section 5).

Each is a check of a node over what `docker inspect` tells of it: it says what is wrong, for each container or
the image. A row that asks for what people do is held against the code that does it here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gridup_node.image import BASE_IMAGE
from gridup_node.services import SERVICES

Inspected = Mapping[str, Any]

SYSTEM = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr", "/var/run", "/run")
"""Folders of the machine that no container may have."""


@dataclass(frozen=True)
class Node:
    """A node of containers.

    Attributes:
        containers: as inspected, by service.
        image: of all of them, as inspected.
        history: the image's layers, as the daemon tells them.
        info: the daemon's.
        dockerfile: what the image is built from.
        code: of ours that speaks to the daemon.
    """

    containers: Mapping[str, Inspected]
    image: Inspected
    history: tuple[Inspected, ...]
    info: Inspected
    dockerfile: str
    code: str


@dataclass(frozen=True)
class Row:
    """A row of the benchmark: what it asks for, in our words, and what is wrong with a node."""

    title: str
    check: Callable[[Node], Iterable[str]]


def _each(wrong: Callable[[Inspected], object]) -> Callable[[Node], Iterable[str]]:
    """The services whose container is wrong."""
    return lambda node: [name for name, one in node.containers.items() if wrong(one)]


def _host(wrong: Callable[[Inspected], object]) -> Callable[[Node], Iterable[str]]:
    """The same, of a container's HostConfig."""
    return _each(lambda one: wrong(one["HostConfig"]))


def _image(wrong: Callable[[Node], object]) -> Callable[[Node], Iterable[str]]:
    return lambda node: ["image"] if wrong(node) else []


def _steps(node: Node) -> str:
    """The commands that made the image."""
    return "\n".join(layer["CreatedBy"] for layer in node.history)


def _joined(node: Node) -> str:
    """The Dockerfile, each command in one line."""
    return re.sub(r"\\\n(\s*#.*\n)*", "", node.dockerfile)


def _sick(one: Inspected) -> bool:
    """Whether nobody looks at its health, or it is bad; that of a new container is not known yet."""
    return one["State"].get("Health", {}).get("Status", "none") in ("none", "unhealthy")


def _sshd(node: Node) -> Iterable[str]:
    """Containers whose program is an sshd, by the service table."""
    servers = {row.name for row in SERVICES if row.requires_tool == "sshd"}
    return sorted(servers & set(node.containers))


def _low_ports(node: Node) -> Iterable[str]:
    """Containers that listen on a port of root's."""
    return [
        name
        for name, one in node.containers.items()
        for port in one["NetworkSettings"]["Ports"] or ()
        if int(port.partition("/")[0]) < 1024
    ]


def _published(node: Node) -> Iterable[str]:
    """Containers with a port outside that the service table has no use for."""
    people = {row.name for row in SERVICES if row.port and not row.inner}
    wanted = {"ssh": 1, "proxy": len(people - {"ssh"})}
    return [
        name
        for name, one in node.containers.items()
        if len(one["HostConfig"]["PortBindings"] or {}) != wanted.get(name, 0)
    ]


def _bound_to_all(host: Inspected) -> bool:
    bindings = [row for rows in (host["PortBindings"] or {}).values() for row in rows]
    return any(row["HostIp"] in ("", "0.0.0.0", "::") for row in bindings)


def _limited(needs: str, key: str) -> Callable[[Node], Iterable[str]]:
    """Containers without a limit that this machine's kernel could keep."""
    return lambda node: [
        name
        for name, one in node.containers.items()
        if node.info.get(needs) and not (one["HostConfig"][key] or 0) > 0
    ]


def _options(host: Inspected) -> list[str]:
    return list(host["SecurityOpt"] or ())


SECRET = re.compile(r"(password|passwd|secret|token|api_?key)\w*\s*[=:]\s*\S", re.IGNORECASE)


def _confined(by: str, told: Callable[[Inspected], str]) -> Callable[[Node], Iterable[str]]:
    """Containers that are not confined by what the machine has."""
    return lambda node: [
        name
        for name, one in node.containers.items()
        if any(by in option for option in node.info["SecurityOptions"]) and told(one) in ("", "unconfined")
    ]


def _runs(words: str) -> Callable[[Node], Iterable[str]]:
    """Whether our own code runs a command in a container with such words."""
    return lambda node: ["gridup"] if re.search(rf"exec_create\([^)]*\b({words})\b", node.code) else []


ROWS: Mapping[str, Row] = {
    "4.1": Row(
        "the image has a user who is not root",
        _image(lambda node: node.image["Config"]["User"] in ("", "root", "0")),
    ),
    "4.2": Row(
        "it stands on a base that is trusted: pinned by its digest",
        _image(lambda node: f"ARG BASE_IMAGE={BASE_IMAGE}@sha256:" not in node.dockerfile),
    ),
    "4.3": Row(
        "nothing is installed that is not needed",
        _image(lambda node: re.findall(r"apt-get install(?![^&]*--no-install-recommends)", node.dockerfile)),
    ),
    "4.4": Row(
        "it is built with the newest security fixes",
        _image(lambda node: "apt-get upgrade" not in _steps(node) or "ARG REBUILT" not in node.dockerfile),
    ),
    "4.5": Row("content trust is on", lambda _node: ["image"]),
    "4.6": Row(
        "it has a health check",
        _image(lambda node: not (node.image["Config"].get("Healthcheck") or {}).get("Test")),
    ),
    "4.7": Row(
        "an update of the lists of packages is no step of its own",
        _image(lambda node: re.search(r"^RUN apt-get update[^&]*$", _joined(node), re.MULTILINE)),
    ),
    "4.8": Row(
        "no program of it gives its user another's rights",
        _image(lambda node: "-perm /6000 -exec chmod a-s" not in _steps(node)),
    ),
    "4.9": Row(
        "files are copied, not added from elsewhere",
        _image(lambda node: re.search(r"^ADD ", node.dockerfile, re.MULTILINE)),
    ),
    "4.10": Row(
        "no secret is in the Dockerfile, nor in what made the image",
        _image(lambda node: SECRET.search(node.dockerfile) or SECRET.search(_steps(node))),
    ),
    "4.11": Row(
        "only packages are installed whose origin is verified",
        _image(lambda node: len(re.findall(r"--require-hashes", node.dockerfile)) < 2),
    ),
    "4.12": Row(
        "whatever is fetched is verified",
        _image(lambda node: re.search(r"\b(curl|wget)\b|https?://", node.dockerfile.replace("# ", ""))),
    ),
    "5.1": Row(
        "the daemon is in no swarm",
        lambda node: ["daemon"] if node.info["Swarm"]["LocalNodeState"] != "inactive" else [],
    ),
    "5.2": Row(
        "AppArmor confines each, where the machine has it",
        _confined("apparmor", lambda one: one.get("AppArmorProfile", "")),
    ),
    "5.3": Row(
        "SELinux confines each, where the machine has it",
        _confined("selinux", lambda one: one.get("ProcessLabel", "")),
    ),
    "5.4": Row(
        "the kernel's capabilities are dropped",
        _host(lambda host: host["CapDrop"] != ["ALL"] or host["CapAdd"]),
    ),
    "5.5": Row("none is privileged", _host(lambda host: host["Privileged"])),
    "5.6": Row(
        "none has folders of the machine's own",
        _each(
            lambda one: [
                mount for mount in one["Mounts"] if mount["Type"] == "bind" or mount["Source"] in SYSTEM
            ]
        ),
    ),
    "5.7": Row("none runs an sshd", _sshd),
    "5.8": Row("none listens on a port below 1024", _low_ports),
    "5.9": Row("only the ports are open that people need", _published),
    "5.10": Row("none is in the machine's network", _host(lambda host: host["NetworkMode"] == "host")),
    "5.11": Row("memory is limited", _limited("MemoryLimit", "Memory")),
    "5.12": Row("processor time is shared out", _limited("CpuCfsQuota", "NanoCpus")),
    "5.13": Row("the root file system can't be written to", _host(lambda host: not host["ReadonlyRootfs"])),
    "5.14": Row("a port is opened on one address", _host(_bound_to_all)),
    "5.15": Row(
        "one that fails is started five times, no more",
        _host(
            lambda host: (
                host["RestartPolicy"]["Name"] != "on-failure"
                or host["RestartPolicy"]["MaximumRetryCount"] != 5
            )
        ),
    ),
    "5.16": Row("none sees the machine's processes", _host(lambda host: host["PidMode"] == "host")),
    "5.17": Row(
        "none shares memory with the machine", _host(lambda host: host["IpcMode"] not in ("private", "none"))
    ),
    "5.18": Row("none has a device of the machine's", _host(lambda host: host["Devices"])),
    "5.19": Row("open files and processes have limits", _host(lambda host: not host["Ulimits"])),
    "5.20": Row(
        "no mount shows its changes to the machine",
        _each(lambda one: [m for m in one["Mounts"] if m.get("Propagation") in ("shared", "rshared")]),
    ),
    "5.21": Row("none sets the machine's name", _host(lambda host: host["UTSMode"] == "host")),
    "5.22": Row(
        "the default seccomp profile is on",
        lambda node: [
            *_host(lambda host: "seccomp=unconfined" in _options(host))(node),
            *(["daemon"] if not any("seccomp" in one for one in node.info["SecurityOptions"]) else []),
        ],
    ),
    "5.23": Row("no command is run in one with all rights", _runs("privileged")),
    "5.24": Row("no command is run in one as root", _runs("user")),
    "5.25": Row("each is in the daemon's own cgroup", _host(lambda host: host["CgroupParent"])),
    "5.26": Row(
        "none gains rights",
        _host(lambda host: not any(one.startswith("no-new-privileges") for one in _options(host))),
    ),
    "5.27": Row(
        "the health of each is looked at",
        _each(_sick),
    ),
    "5.28": Row(
        "each runs the image of its tag as it is now",
        lambda node: [name for name, one in node.containers.items() if one["Image"] != node.image["Id"]],
    ),
    "5.29": Row("the number of processes is limited", _limited("PidsLimit", "PidsLimit")),
    "5.30": Row(
        "none is in Docker's default network",
        _each(lambda one: "bridge" in one["NetworkSettings"]["Networks"]),
    ),
    "5.31": Row("none shares the machine's users", _host(lambda host: host["UsernsMode"] == "host")),
    "5.32": Row(
        "none has the daemon's socket",
        _each(lambda one: [mount for mount in one["Mounts"] if "docker.sock" in mount["Source"]]),
    ),
}


def findings(node: Node) -> dict[str, list[str]]:
    """What is wrong with a node, by row."""
    found = {name: sorted(row.check(node)) for name, row in ROWS.items()}
    return {name: where for name, where in found.items() if where}
