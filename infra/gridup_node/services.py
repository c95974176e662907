"""The service table: every service of a node, with its port, path, command and proof.

Firewall rules, outputs, probes, the compose file, the Docker containers and the local
supervisor's configuration all derive from this table. A port written anywhere else is a bug.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum


class Audience(Enum):
    """The clients that may reach a port."""

    WEB = "web"
    """All users of the node: `--web-cidr`, by default every address on a cloud."""
    STAFF = "staff"
    """The data owner's staff: `--allow-cidr`."""
    NODE = "node"
    """The node's own processes, on its loopback or private networks only."""


class ProbeKind(Enum):
    """How a probe verifies that the service itself answers. A server that always answers 200 fails."""

    ANY = "any"
    """The host is up: at least one of its services passes its probe."""
    SYFT_METADATA = "syft-metadata"
    """syft's metadata: JSON with the node's name, its server type and syft's version."""
    LOGIN_PAGE = "login-page"
    """The login page of Gridup's portal: HTML that contains `PORTAL_MARK`."""
    JUPYTER_API = "jupyter-api"
    """Jupyter's version API: JSON with a `version` of digits and dots."""
    SSH_BANNER = "ssh-banner"
    """ssh's banner: a line that begins with `SSH-2.0-` (RFC 4253, section 4.2)."""
    SANDBOX = "sandbox"
    """The sandbox reports the mechanisms that confine jobs. It has no port: the check runs in the node."""


PORTAL_MARK = '<meta name="generator" content="Gridup portal">'
"""A tag in every page of the portal. It proves that Gridup's portal made the page."""

PROBLEM = "gridup_problem"
"""The JSON key for a node's problem. While there is one, the node answers every request with it."""


@dataclass(frozen=True)
class Service:
    """A service that a node offers, or a program that the node needs for one.

    Attributes:
        name: the key, as in `gridup logs INST NAME`.
        title: its name in tables.
        port: its default port.
        socket: the socket that it uses instead of a port where all programs share a machine with other
            users, who could reach a port. The path is relative to the node's folder, so that it is short
            (107 bytes at most, unix(7)).
        vm_port: the port at which users reach it on a container host; 0 for none.
        provided_by_host: whether the container host provides it itself, so that Gridup runs no program.
        audience: the clients that may reach that port.
        command: the program's argv, with the placeholders of `Context`; empty if another
            service's program serves this one (`served_by`).
        served_by: the service whose program serves this one.
        front_path: its path behind the reverse proxy; empty if users connect to its own port, or not at
            all.
        body: the largest request body behind the reverse proxy, in bytes; 0 for the value of `--max-upload`.
        proof, proof_path: how it is probed, and at which path.
        environment: variables of its program, with the same placeholders. Never a secret.
        files: names of the rendered configuration files that it reads. It restarts if one changes.
        restart_on_facts: keys of node.json that it reads once, at its start. It restarts if one changes.
        facts_read: all keys of node.json that it reads. Its own container gets no others.
        folders: the folders of the node's data (see `folders`) that its container sees.
        memory, cpus: the limits of its container, as fractions of the machine's. Their sum is more than the
            whole machine: a container may use what others leave.
        pids: the most processes and threads that its container may have.
        offline: whether its container never has any network.
        outward: whether its program connects to hosts outside of the node. Without it the container has
            outbound access only with `--allow-egress`.
        yields: whether its container is ended before others if the machine's memory runs out.
        requires_tool: a program that the machine must have; without it the service is "not offered".
        start_seconds: how long it must run to count as started. Ending sooner is a failed start, and after
            some failed starts the supervisor gives up.
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
        """Whether a probe can reach it from outside of the node."""
        return bool(self.front_path) or (bool(self.port) and not self.inner)

    @property
    def inner(self) -> bool:
        """Whether only the node's own programs reach it, whatever address the node is bound to."""
        return self.audience is Audience.NODE

    @property
    def speaks_http(self) -> bool:
        """Whether a browser can open it."""
        return self.proof in (ProbeKind.LOGIN_PAGE, ProbeKind.SYFT_METADATA, ProbeKind.JUPYTER_API)


PROXY = "proxy"
"""The reverse proxy, to which browsers and clients connect. It serves all services with a `front_path`."""

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
        # Longer than the import of syft on a busy machine: ending during the import is a failed start.
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
    """Return the service called `name`.

    Raises:
        KeyError: the table has no service with that name.
    """
    for row in table:
        if row.name == name:
            return row
    raise KeyError(name)


def programs(table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """Return the services that have their own program."""
    return tuple(row for row in table if row.command)


def probed(table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """Return the services that `gridup check` probes, in the order of its table."""
    return tuple(row for row in table if row.proof and row.reached)


def inside_only(table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """Return the programs that can be checked only within the node."""
    return tuple(row for row in programs(table) if row.proof and not row.reached)


def backends(table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """Return the programs that the reverse proxy passes requests on to."""
    behind = {row.served_by or row.name for row in table if row.front_path}
    return tuple(row for row in programs(table) if row.name in behind)


def served(program: Service, table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """Return the services with a proof that one program serves, including its own."""
    return tuple(row for row in table if row.proof and program.name in (row.name, row.served_by))


def ports(table: Sequence[Service] = SERVICES) -> dict[str, int]:
    """Return every port that a node needs, by the name of its service."""
    return {row.name: row.port for row in table if row.port}


def ports_outside(table: Sequence[Service] = SERVICES) -> dict[str, int]:
    """Return the ports that a node needs if its programs share a machine with other users."""
    return {row.name: row.port for row in table if row.port and not row.socket}


def folders(table: Sequence[Service] = SERVICES) -> tuple[str, ...]:
    """Return every folder of a node's data. `gridup_node.folders` defines their content."""
    return tuple(sorted({name for row in table for name in row.folders}))


REDIRECT_PORT = 80
"""The port on a container host at which the reverse proxy redirects to https and answers ACME."""


def machine_ports(table: Sequence[Service] = SERVICES) -> dict[str, int]:
    """Return every port at which users reach a container host's node, by the name of its service."""
    return {row.name: row.vm_port for row in table if row.vm_port}


def firewall_ports(table: Sequence[Service] = SERVICES) -> tuple[tuple[int, Audience], ...]:
    """Return the TCP ports that a machine's firewall opens, each with the audience that may reach it."""
    rows = [(row.vm_port, row.audience) for row in table if row.vm_port]
    return tuple(sorted([*rows, (REDIRECT_PORT, Audience.WEB)], key=lambda row: row[0]))


def machine_doors(
    port: int = 0, *, fronted: bool = False, table: Sequence[Service] = SERVICES
) -> dict[int, int]:
    """Return {port of the container host: port in the container} of the reverse proxy's published ports.

    Args:
        port: the port that replaces the reverse proxy's `vm_port`; 0 for the table's.
        fronted: whether the site's own reverse proxy is in front. It has the redirect port, too.
        table: the service table.
    """
    own = machine_ports(table)
    # The port in the container does not depend on the port outside.
    doors = {own[PROXY]: inside(own[PROXY])} if not port else {port: inside(own[PROXY])}
    if not fronted:
        doors[REDIRECT_PORT] = inside(REDIRECT_PORT)
    return doors | {own[row.name]: inside(own[row.name]) for row in machine_fronted(table)}


def inside(port: int) -> int:
    """Return the port in the container for the published `port`: low ports need privileges."""
    return port if port >= 1024 else port + 8000


def fronted(table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """Return the programs whose own port the reverse proxy serves if each program is in a container."""
    return tuple(row for row in programs(table) if row.speaks_http and not row.inner and row.name != PROXY)


def https_ports(table: Sequence[Service] = SERVICES) -> dict[str, int]:
    """Return the ports in the reverse proxy's container that serve https, by service."""
    rows = (service(PROXY, table), *machine_fronted(table))
    return {row.name: inside(row.vm_port) for row in rows}


def machine_fronted(table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """Return the programs whose port on a container host the reverse proxy serves, with its TLS."""
    return tuple(row for row in fronted(table) if row.vm_port and not row.provided_by_host)
