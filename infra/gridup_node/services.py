"""THE service table: every service of a node, its port, path, command and proof.

Firewall rules, outputs, probes, the compose file, the Docker containers and the local
supervisor all come from here. A port written anywhere else is a bug.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum


class Audience(Enum):
    """Who may reach a port."""

    WEB = "web"
    """Everybody who uses the node: `--web-cidr`, by default the world on a cloud."""
    STAFF = "staff"
    """The data owner's own people: `--allow-cidr`."""
    NODE = "node"
    """The node's own processes; never leaves its loopback or private network."""


class ProbeKind(Enum):
    """What shows that the right thing answers, so that a decoy that says 200 to everything fails."""

    ANY = "any"
    """The host is there: at least one of its services is proven."""
    SYFT_METADATA = "syft-metadata"
    """JSON with the node's name, its server type and syft's version."""
    LOGIN_PAGE = "login-page"
    """Our portal's login page: HTML that carries `PORTAL_MARK`."""
    JUPYTER_API = "jupyter-api"
    """Jupyter's version API: JSON with a `version` of digits and dots."""
    SSH_BANNER = "ssh-banner"
    """A line that begins with `SSH-2.0-` (RFC 4253, section 4.2)."""
    SANDBOX = "sandbox"
    """The sandbox says what it keeps jobs in with. It has no port: it is asked within the node."""


PORTAL_MARK = '<meta name="generator" content="Gridup portal">'
"""Stands in every page of the portal; proves that a page is ours."""

PROBLEM = "gridup_problem"
"""The key, in what a node answers in the place of anything else, of what is wrong with it."""


@dataclass(frozen=True)
class Service:
    """One thing a node offers, or one program it needs for that.

    Attributes:
        name: the key, as in `gridup logs INST NAME`.
        title: what tables call it.
        port: the port it listens on when none is asked for.
        socket: where it listens where all programs share a machine with others, who could reach a port: in
            the node's folder, from there, so that the path is short (107 bytes at most, unix(7)).
        vm_port: the port that people find it at on a machine of its own, a VM; 0 for none.
        provided_by_host: whether such a machine serves it by itself, so that no program of ours does.
        audience: who may reach that port.
        command: the program's argv, with the placeholders of `Context`; empty when another
            service's program serves this one (`served_by`).
        served_by: the service whose program answers for this one.
        front_path: its path behind the reverse proxy; empty when it has a port of its own that
            people connect to, or none.
        body: the largest request body behind the reverse proxy, in bytes; 0 for what `--max-upload` says.
        proof, proof_path: how it is probed, and at which path.
        environment: variables of its program, with the same placeholders. Never a secret.
        files: names of the rendered configuration files it reads: it restarts when one changes.
        restart_on_facts: keys of node.json that it reads once, at its start: it restarts when one changes.
        knows: keys of node.json that it reads at all; in a container of its own it is told no others.
        folders: of the node's data (see `folders`): what its container sees, and no others.
        memory, cpus: the most that its container gets, as fractions of what the machine has. Together they
            are more than all of it: what one leaves another may use.
        pids: processes and threads that its container may have.
        offline: whether its container has no network at all, whatever was asked for.
        outward: whether its program connects to what is outside of the node; the container of one that does
            not has no way there, but with `--allow-egress`.
        yields: whether its container is ended before others where the machine's memory runs out.
        needs: a program that must be on the machine; where it is not, the service is "not offered".
        start_seconds: how long it must run before it counts as started: ending sooner is a failed
            start, and after some of those the supervisor gives up.
        stop_seconds: how long it may take to stop before it is killed.
    """

    name: str
    title: str
    port: int = 0
    socket: str = ""
    vm_port: int = 0
    provided_by_host: bool = False
    audience: Audience = Audience.NODE
    command: tuple[str, ...] = ()
    served_by: str = ""
    front_path: str = ""
    body: int = 0
    proof: ProbeKind | None = None
    proof_path: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    restart_on_facts: tuple[str, ...] = ()
    facts_read: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    memory: float = 0.25
    cpus: float = 0.5
    pids: int = 512
    yields: bool = False
    offline: bool = False
    outward: bool = False
    requires_tool: str = ""
    start_seconds: int = 1
    stop_seconds: int = 10

    @property
    def reached(self) -> bool:
        """Whether it can be probed from outside of the node."""
        return bool(self.front_path) or (bool(self.port) and not self.inner)

    @property
    def inner(self) -> bool:
        """Whether it listens on the node's loopback alone, whatever address the node is bound to."""
        return self.audience is Audience.NODE

    @property
    def speaks_http(self) -> bool:
        """Whether a browser can open it."""
        return self.proof in (ProbeKind.LOGIN_PAGE, ProbeKind.SYFT_METADATA, ProbeKind.JUPYTER_API)


PROXY = "proxy"
"""The service people's browsers and clients connect to; it passes on to those with a `front_path`."""

SERVICES: tuple[Service, ...] = (
    Service(
        name=PROXY,
        title="host",
        port=8080,
        vm_port=443,
        audience=Audience.WEB,
        command=("{bin}/caddy", "run", "--config", "{config}/Caddyfile", "--adapter", "caddyfile"),
        proof=ProbeKind.ANY,
        environment={"XDG_DATA_HOME": "{home}/proxy", "XDG_CONFIG_HOME": "{home}/proxy"},
        files=("Caddyfile",),
        facts_read=("tls", "max_upload", "trusted_proxies"),
        folders=("proxy",),
        memory=0.15,
        outward=True,
        stop_seconds=5,
    ),
    Service(
        name="ui",
        title="UI",
        served_by="api",
        front_path="/login",
        body=64 * 1024,
        proof=ProbeKind.LOGIN_PAGE,
        proof_path="/login",
    ),
    Service(
        name="api",
        title="api",
        port=18080,
        socket="run/api.sock",
        audience=Audience.NODE,
        command=("{bin}/python", "-m", "gridup_node.serve"),
        front_path="/api/v2",
        proof=ProbeKind.SYFT_METADATA,
        proof_path="/api/v2/metadata",
        restart_on_facts=(
            *("name", "node_type", "admin_email", "bundle", "max_upload", "guests"),
            *("organization", "description"),
        ),
        facts_read=(
            *("name", "node_type", "admin_email", "bundle", "ports", "endpoints", "gridup_version"),
            *("max_upload", "guests", "host_names", "organization", "description", "packages"),
        ),
        folders=("data", "secrets", "token", "jobs"),
        memory=0.75,
        cpus=0.9,
        pids=2048,
        outward=True,
        # Longer than an import of syft on a busy machine: one that ends in it has not started.
        start_seconds=30,
        stop_seconds=20,
    ),
    Service(
        name="jobs",
        title="jobs",
        command=("{bin}/python", "-m", "gridup_node.sandbox"),
        proof=ProbeKind.SANDBOX,
        restart_on_facts=("bundle",),
        facts_read=("bundle",),
        folders=("jobs",),
        memory=0.5,
        cpus=0.75,
        pids=1280,
        yields=True,
        offline=True,
        stop_seconds=5,
    ),
    Service(
        name="ssh",
        title="ssh",
        port=2222,
        vm_port=22,
        provided_by_host=True,
        audience=Audience.STAFF,
        command=("{sshd}", "-D", "-e", "-f", "{config}/sshd_config"),
        proof=ProbeKind.SSH_BANNER,
        files=("sshd_config",),
        facts_read=("ssh_keys",),
        folders=("keys", "notebooks"),
        memory=0.5,
        outward=True,
        yields=True,
        requires_tool="sshd",
        stop_seconds=5,
    ),
    Service(
        name="jupyter",
        title="jupyter",
        port=8888,
        vm_port=8888,
        audience=Audience.STAFF,
        command=("{bin}/python", "-m", "jupyterlab", "--config={config}/jupyter_server_config.py"),
        proof=ProbeKind.JUPYTER_API,
        proof_path="/api",
        environment={
            "JUPYTER_CONFIG_DIR": "{home}/jupyter",
            "JUPYTER_DATA_DIR": "{home}/jupyter",
            "JUPYTER_RUNTIME_DIR": "{home}/jupyter/runtime",
        },
        files=("jupyter_server_config.py", "overrides.json"),
        folders=("jupyter", "notebooks", "token"),
        memory=0.5,
        cpus=0.75,
        pids=2048,
        yields=True,
        start_seconds=4,
    ),
)


def service(name: str, table: Sequence[Service] = SERVICES) -> Service:
    """The service called `name`.

    Raises:
        KeyError: the table has none of that name.
    """
    for row in table:
        if row.name == name:
            return row
    raise KeyError(name)


def programs(table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """The services that are a program of their own."""
    return tuple(row for row in table if row.command)


def probed(table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """The services a check proves, in the order of its table."""
    return tuple(row for row in table if row.proof and row.reached)


def inside_only(table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """The programs whose proof is to be had within the node alone."""
    return tuple(row for row in programs(table) if row.proof and not row.reached)


def backends(table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """The programs that the reverse proxy passes on to."""
    behind = {row.served_by or row.name for row in table if row.front_path}
    return tuple(row for row in programs(table) if row.name in behind)


def served(program: Service, table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """The services that one program answers for, itself among them where it is proven."""
    return tuple(row for row in table if row.proof and program.name in (row.name, row.served_by))


def ports(table: Sequence[Service] = SERVICES) -> dict[str, int]:
    """Every port a node needs, by its service's name."""
    return {row.name: row.port for row in table if row.port}


def ports_outside(table: Sequence[Service] = SERVICES) -> dict[str, int]:
    """Of them those that it needs where its programs share a machine with others."""
    return {row.name: row.port for row in table if row.port and not row.socket}


def folders(table: Sequence[Service] = SERVICES) -> tuple[str, ...]:
    """Every folder of a node's data; what lies in each is for `gridup_node.folders` to say."""
    return tuple(sorted({name for row in table for name in row.folders}))


REDIRECT_PORT = 80
"""On a machine of its own the reverse proxy also listens here: it redirects to https, and ACME asks here."""


def machine_ports(table: Sequence[Service] = SERVICES) -> dict[str, int]:
    """Every port that people reach a machine's node at, by its service's name."""
    return {row.name: row.vm_port for row in table if row.vm_port}


def firewall_ports(table: Sequence[Service] = SERVICES) -> tuple[tuple[int, Audience], ...]:
    """What a machine's firewall lets in (TCP), each port with who may reach it."""
    rows = [(row.vm_port, row.audience) for row in table if row.vm_port]
    return tuple(sorted([*rows, (REDIRECT_PORT, Audience.WEB)], key=lambda row: row[0]))


def machine_doors(
    port: int = 0, *, fronted: bool = False, table: Sequence[Service] = SERVICES
) -> dict[int, int]:
    """The ports of a machine at which its node's reverse proxy is found, each with the one in its container.

    Args:
        port: at which it is found in the place of the table's; 0 for that.
        fronted: whether a reverse proxy of the site's own stands in front, which has the redirect, too.
    """
    own = machine_ports(table)
    # Of each service the door in the container is the same, wherever it is found outside.
    doors = {own[PROXY]: inside(own[PROXY])} if not port else {port: inside(own[PROXY])}
    if not fronted:
        doors[REDIRECT_PORT] = inside(REDIRECT_PORT)
    return doors | {own[row.name]: inside(own[row.name]) for row in machine_fronted(table)}


def inside(port: int) -> int:
    """What a program without any rights listens on in its container, where people find it at `port`."""
    return port if port >= 1024 else port + 8000


def fronted(table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """The programs with a port of their own that the reverse proxy has where each is in a container."""
    return tuple(row for row in programs(table) if row.speaks_http and not row.inner and row.name != PROXY)


def https_ports(table: Sequence[Service] = SERVICES) -> dict[str, int]:
    """What the reverse proxy listens on in its container where it speaks https, by service."""
    rows = (service(PROXY, table), *machine_fronted(table))
    return {row.name: inside(row.vm_port) for row in rows}


def machine_fronted(table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """Those of them that have a port on a machine, where the reverse proxy serves it with its TLS."""
    return tuple(row for row in fronted(table) if row.vm_port and not row.provided_by_host)
