"""The service table -> the configuration files of one node. Pure: text in, text out.

Standard library only: the deployer renders for every target, and the node itself (through
`gridup_node.launch`) reads what was rendered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gridup_node.services import (
    FRONT,
    REDIRECT_PORT,
    SERVICES,
    Service,
    inside,
    machine_fronted,
    machine_ports,
    programs,
)

LOOPBACK = "127.0.0.1"

ACME_ROOT = "acme-root.pem"
"""The file in `config/` with what `Tls.acme_ca` says."""


@dataclass(frozen=True)
class Tls:
    """How the front door of a machine proves who it is.

    Attributes:
        name: the domain name or the IP address that people connect to.
        acme: whether a certificate authority vouches for it, by ACME; else Caddy's own CA does.
        email: told to that authority; empty for none.
        acme_url: of the authority's directory; empty for public ones.
        acme_ca: certificates (PEM) that the authority's server is trusted by; empty for the system's.
    """

    name: str
    acme: bool = False
    email: str = ""
    acme_url: str = ""
    acme_ca: str = ""

    def told(self) -> dict[str, Any]:
        """As the front door's container is told it."""
        return {key: value for key, value in asdict(self).items() if value}


@dataclass(frozen=True)
class Context:
    """What the placeholders of the service table stand for on one node.

    Attributes:
        home: the node's folder, as the node itself sees it.
        bin: the folder of the node's Python environment that holds `python` and `caddy`.
        bind: the address of the services that people reach.
        ports: by service.
        user: who runs the services, and the only one to log in by ssh.
        tools: paths of programs of the machine, by the name in `Service.needs`.
        facts: what the node may tell about itself; goes to node.json. Never a secret.
        apart: whether each program has a host of its own, a container, called like its service.
        tls: for a machine of its own; plain http without it.
    """

    home: str
    bin: str
    bind: str
    ports: Mapping[str, int]
    user: str = ""
    tools: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    apart: bool = False
    tls: Tls | None = None

    def fill(self, template: str) -> str:
        """A template of the service table with this node's paths in it."""
        return template.format(home=self.home, bin=self.bin, config=f"{self.home}/config", **self.tools)

    def listen(self, row: Service) -> str:
        """The address that `row` listens on: only what people connect to leaves the loopback.

        A container's loopback is its own: there the others come in by the node's private network.
        """
        return LOOPBACK if row.inner and not self.apart else self.bind

    def upstream(self, program: str) -> str:
        """Where the front door finds a program, as `host:port`."""
        return f"{program if self.apart else LOOPBACK}:{self.ports[program]}"


def offered(context: Context, table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """The programs that this node can run: those whose tools the machine has."""
    return tuple(row for row in programs(table) if not row.needs or row.needs in context.tools)


def render(context: Context, table: Sequence[Service] = SERVICES) -> dict[str, str]:
    """Every configuration file of the node, by its name in `config/`."""
    makers = {
        "Caddyfile": caddyfile,
        "sshd_config": sshd_config,
        "jupyter_server_config.py": jupyter_config,
        "overrides.json": jupyter_overrides,
    }
    rows = offered(context, table)
    files = {name: makers[name](context, table) for row in rows for name in row.files}
    files["node.json"] = node_json(context)
    files["programs.json"] = programs_json(context, table)
    files["supervisord.conf"] = supervisord_conf(context, table)
    return files


def fingerprints(context: Context, table: Sequence[Service] = SERVICES) -> dict[str, str]:
    """For each program a hash of all that it runs with: where it changes, the program must restart."""
    files = render(context, table)
    made = {}
    for row in offered(context, table):
        own = context.ports.get(row.name)
        facts = {key: context.facts.get(key) for key in row.start_facts}
        parts = [json.dumps([_program(context, row), own, facts], sort_keys=True)]
        parts += [files[name] for name in row.files]
        made[row.name] = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return made


def caddyfile(context: Context, table: Sequence[Service]) -> str:
    """The front door, passing each path on to the program that serves it.

    Plain http on one port; on a machine of its own https, and http only to redirect there.
    """
    bind = context.bind if ":" not in context.bind else f"[{context.bind}]"
    head = "# Written by Gridup; changes are seen by `gridup status` and put right by `gridup deploy`.\n"
    # While the api starts every probe is a 502; the api's own log tells more than the proxy's.
    log = "\tlog {\n\t\tlevel WARN\n\t\texclude http.log.error\n\t}\n"
    if context.tls is None:
        options = "\tadmin off\n\tauto_https off\n\tpersist_config off\n"
        sites = {f"http://:{context.ports[FRONT]}": _routes(context, table)}
    else:
        options = _tls_options(context.tls, f"{context.home}/config/{ACME_ROOT}")
        sites = _tls_sites(context, context.tls, table)
    blocks = (f"\n{where} {{\n\tbind {bind}\n\theader -Server\n{what}}}\n" for where, what in sites.items())
    return f"{head}{{\n{options}{log}}}\n{''.join(blocks)}"


def _routes(context: Context, table: Sequence[Service]) -> str:
    routes = []
    for row in table:
        if not row.front_path:
            continue
        paths = "*" if row.served_by else f"{row.front_path}/*"
        upstream = context.upstream(row.served_by or row.name)
        routes.append(f"\thandle {paths} {{\n{_passed_on(upstream, 2)}\t}}\n")
    # The most specific path first; `*` takes what is left.
    routes.sort(key=lambda text: text.startswith("\thandle * "))
    return "".join(routes)


def _passed_on(upstream: str, depth: int) -> str:
    indent = "\t" * depth
    # A node that is starting answers 502 at once; the probes wait, not the proxy.
    return f"{indent}reverse_proxy {upstream} {{\n{indent}\tlb_try_duration 0s\n{indent}}}\n"


def _tls_options(tls: Tls, acme_root: str) -> str:
    """Caddy's global options: how it gets its certificate, and no port but those that are published."""
    https, http = inside(machine_ports()[FRONT]), inside(REDIRECT_PORT)
    lines = [
        "admin off",
        "persist_config off",
        "auto_https disable_redirects",
        f"https_port {https}",
        f"http_port {http}",
        # A client that connects to an IP address names no server (RFC 6066, section 3).
        f"default_sni {tls.name}",
        # HTTP/3 would be announced at a port that nobody outside finds.
        "servers {\n\t\tprotocols h1 h2\n\t}",
    ]
    if not tls.acme:
        lines += ["local_certs", "skip_install_trust"]
    if tls.email:
        lines.append(f"email {_word(tls.email)}")
    if tls.acme_url:
        lines.append(f"acme_ca {_word(tls.acme_url)}")
    if tls.acme_ca:
        lines.append(f"acme_ca_root {_word(acme_root)}")
    return "".join(f"\t{line}\n" for line in lines)


def _tls_sites(context: Context, tls: Tls, table: Sequence[Service]) -> dict[str, str]:
    host = f"[{tls.name}]" if ":" in tls.name else tls.name
    ports = machine_ports(table)
    sites = {f"https://{host}:{inside(ports[FRONT])}": _routes(context, table)}
    for row in machine_fronted(table):
        sites[f"https://{host}:{inside(ports[row.name])}"] = _passed_on(context.upstream(row.name), 1)
    # Whatever name it was asked by: the certificate is for this one.
    sites[f"http://:{inside(REDIRECT_PORT)}"] = f"\tredir https://{host}{{uri}} 308\n"
    return sites


def _word(text: str) -> str:
    """One word of a Caddyfile."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def node_json(context: Context) -> str:
    """What the node knows of itself. The portal reads it at each request, so no program restarts for it."""
    return json.dumps(dict(context.facts), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def sshd_config(context: Context, _table: Sequence[Service]) -> str:
    """OpenSSH for one user, with the node's own host key and only the node's keys."""
    lines = [
        f"Port {context.ports['ssh']}",
        f"ListenAddress {context.bind}",
        f"HostKey {_quoted(context.home + '/keys/host_ed25519')}",
        # sshd fills in `%u` and the like here, and nowhere else.
        f"AuthorizedKeysFile {_quoted((context.home + '/keys/authorized_keys').replace('%', '%%'))}",
        f"AllowUsers {context.user}",
        "AuthenticationMethods publickey",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "UsePAM no",
        "PidFile none",
        # The folder is 0700 from the first moment; the check would refuse any home below /tmp.
        "StrictModes no",
        "AllowAgentForwarding no",
        "X11Forwarding no",
        "PermitTunnel no",
        "PermitUserEnvironment no",
        "PrintMotd no",
        "LogLevel INFO",
        "Subsystem sftp internal-sftp",
    ]
    return "\n".join(lines) + "\n"


def jupyter_config(context: Context, table: Sequence[Service]) -> str:
    """JupyterLab: the token comes from the secret's file, so it is in no argv and no environment."""
    row = next(row for row in table if row.name == "jupyter")
    return (
        "from pathlib import Path\n\n"
        f"home = Path({context.home!r})\n"
        "c = get_config()  # type: ignore[name-defined]  # noqa: F821\n"
        f"c.ServerApp.ip = {context.listen(row)!r}\n"
        f"c.ServerApp.port = {context.ports[row.name]}\n"
        "c.ServerApp.port_retries = 0\n"
        "c.ServerApp.open_browser = False\n"
        "c.ServerApp.allow_root = True\n"
        "c.ServerApp.quit_button = False\n"
        'c.ServerApp.root_dir = str(home / "data" / "notebooks")\n'
        'c.IdentityProvider.token = (home / "secrets" / "jupyter_token").read_text().strip()\n'
        'c.LabApp.app_settings_dir = str(home / "config")\n'
        # A node talks to nobody on its own.
        "c.LabApp.news_url = None\n"
        'c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"\n'
        'c.LabApp.extension_manager = "readonly"\n'
    )


def jupyter_overrides(_context: Context, _table: Sequence[Service]) -> str:
    """JupyterLab's settings as people find them: its question whether to fetch news is answered."""
    notification = {"fetchNews": "false", "checkForUpdates": False}
    return json.dumps({"@jupyterlab/apputils-extension:notification": notification}, indent=2) + "\n"


def programs_json(context: Context, table: Sequence[Service]) -> str:
    """What `gridup_node.launch` runs, by service."""
    made = {row.name: _program(context, row) for row in offered(context, table)}
    return json.dumps(made, indent=2, sort_keys=True) + "\n"


def supervisord_conf(context: Context, table: Sequence[Service]) -> str:
    """Supervisor's own file. No path stands in it: its parser takes ` #` and `%` in one for its own."""
    sections = [
        "; Written by Gridup.\n"
        "[supervisord]\n"
        "nodaemon=true\n"
        "silent=true\n"
        "logfile=%(ENV_GRIDUP_NODE_HOME)s/logs/supervisord.log\n"
        "logfile_maxbytes=5MB\n"
        "logfile_backups=2\n"
        "pidfile=%(ENV_GRIDUP_NODE_HOME)s/supervisord.pid\n"
        "minfds=1024\n"
        "umask=077\n\n"
        "[unix_http_server]\n"
        "file=%(ENV_GRIDUP_SOCKET)s\n"
        "chmod=0600\n\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
    ]
    for order, row in enumerate(offered(context, table)):
        sections.append(
            f"[program:{row.name}]\n"
            f"command=python -m gridup_node.launch {row.name}\n"
            "directory=%(ENV_GRIDUP_NODE_HOME)s\n"
            f"priority={order}\n"
            "autostart=true\n"
            "autorestart=true\n"
            f"startsecs={row.start_seconds}\n"
            "startretries=2\n"
            f"stopwaitsecs={row.stop_seconds}\n"
            "stopasgroup=true\n"
            "killasgroup=true\n"
            "redirect_stderr=true\n"
            f"stdout_logfile=logs/{row.name}.log\n"
            "stdout_logfile_maxbytes=10MB\n"
            "stdout_logfile_backups=3\n"
        )
    return "\n".join(sections)


def _program(context: Context, row: Service) -> dict[str, Any]:
    return {
        "argv": [context.fill(word) for word in row.command],
        "environment": {name: context.fill(value) for name, value in row.environment.items()},
    }


def _quoted(path: str) -> str:
    """As sshd_config wants a path that may hold spaces."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
