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

from gridup_node.facts import MAX_UPLOAD
from gridup_node.guard.headers import NO_PAGE
from gridup_node.services import (
    PROXY,
    REDIRECT_PORT,
    SERVICES,
    Service,
    backends,
    fronted,
    https_ports,
    inside,
    machine_ports,
    programs,
    service,
)
from gridup_node.vm.machine import STRONG_SSH

LOOPBACK = "127.0.0.1"

BODY_OVERHEAD = 1024 * 1024
"""Bytes that a call may have beside what it uploads."""
NOWHERE = 1
"""A port that no service has."""

ACME_ROOT = "acme-root.pem"
"""The file in `config/` with what `Tls.acme_ca` says."""


@dataclass(frozen=True)
class Tls:
    """How the reverse proxy of a machine proves who it is.

    Attributes:
        name: the domain name or the IP address that people connect to.
        acme: whether a certificate authority vouches for it, by ACME; else Caddy's own CA does.
        email: told to that authority; empty for none.
        acme_url: of the authority's directory; empty for public ones.
        acme_ca: certificates (PEM) that the authority's server is trusted by; empty for the system's.
        more: other names and addresses that it is reached at.
    """

    name: str
    acme: bool = False
    email: str = ""
    acme_url: str = ""
    acme_ca: str = ""
    more: tuple[str, ...] = ()

    def told(self) -> dict[str, Any]:
        """As the reverse proxy's container is told it."""
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
        tls: plain http without it.
        fronted: with `tls`, the ports at which the reverse proxy speaks https, by service; `ports` then has
            what the programs of these listen on. Empty for those of a machine.
    """

    home: str
    bin: str
    bind: str
    ports: Mapping[str, int]
    user: str = ""
    tools: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    separate_hosts: bool = False
    tls: Tls | None = None
    fronted: Mapping[str, int] = field(default_factory=dict)

    def format(self, template: str) -> str:
        """A template of the service table with this node's paths in it."""
        return template.format(home=self.home, bin=self.bin, config=f"{self.home}/config", **self.tools)

    def listen(self, row: Service) -> str:
        """The address that `row` listens on: only what people connect to leaves the loopback.

        A container's loopback is its own: there the others come in by the node's private network.
        """
        behind = row.inner or (row.name in self.fronted and row.name != PROXY)
        return LOOPBACK if behind and not self.separate_hosts else self.bind

    def upstream(self, row: Service) -> str:
        """Where the reverse proxy finds a program, as Caddy names it."""
        if self.separate_hosts:
            return f"{row.name}:{self.ports[row.name]}"
        # It runs in the node's folder.
        return f"unix/{row.socket}" if row.socket else f"{LOOPBACK}:{self.ports[row.name]}"


def offered(context: Context, table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """The programs that this node can run: those whose tools the machine has."""
    return tuple(
        row for row in programs(table) if not row.requires_tool or row.requires_tool in context.tools
    )


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
        facts = {key: context.facts.get(key) for key in row.restart_on_facts}
        parts = [json.dumps([_program(context, row), own, facts], sort_keys=True)]
        parts += [files[name] for name in row.files]
        made[row.name] = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return made


def caddyfile(context: Context, table: Sequence[Service]) -> str:
    """The reverse proxy, passing each path on to the program that serves it.

    Plain http on one port, or https; on a machine of its own http only redirects there.
    """
    bind = context.bind if ":" not in context.bind else f"[{context.bind}]"
    head = "# Written by Gridup; changes are seen by `gridup status` and put right by `gridup deploy`.\n"
    # While the api starts every probe is a 502; the api's own log tells more than the proxy's.
    log = "\tlog {\n\t\tlevel WARN\n\t\texclude http.log.error\n\t}\n"
    if context.tls is None:
        options = f"\tadmin off\n\tauto_https off\n\tpersist_config off\n\t{_servers(context, '')}\n"
        if context.ports[PROXY] == machine_ports()[PROXY]:
            # Caddy refuses plain http at what it takes for the port of https.
            options += f"\thttps_port {NOWHERE}\n"
        sites = {f"http://:{context.ports[PROXY]}": _routes(context, table)}
        if context.separate_hosts:
            sites |= {
                f"http://:{context.ports[row.name]}": _own_port(context.upstream(row))
                for row in fronted(table)
            }
    else:
        options = _tls_options(context, context.tls)
        sites = _tls_sites(context, context.tls, table)
    if context.separate_hosts:
        # For programs of the node's, such as notebooks: nobody outside finds this port.
        sites[f"http://:{context.ports[backends(table)[0].name]}"] = _routes(context, table)
    blocks = (f"\n{where} {{\n\tbind {bind}\n\theader -Server\n{what}}}\n" for where, what in sites.items())
    return f"{head}{{\n{options}{log}}}\n{''.join(blocks)}"


HEADER_SECONDS, IDLE_SECONDS = 10, 75
"""For a request's headers, from the first moment of a connection, and between two requests.

A connection costs a file and some 10 to 50 kB, and Caddy by itself can't count those of one address (the
firewall of a machine does, see `vm.shield`): so idle ones end soon. Not as soon as in 60 s, though: what may
stand in front (nginx, a cloud's load balancer) keeps its own for that long, and would lose a request that it
sends as we hang up.
"""
LARGEST_HEADERS_KB = 16
LOOPBACKS = ("127.0.0.0/8", "::1/128")
"""Whoever is on this machine may stand in front of the reverse proxy: a site's own, most likely."""
HSTS_SECONDS = 365 * 24 * 60 * 60


def _servers(context: Context, protocols: str) -> str:
    """Caddy's options of all its ports: how long it waits, for how much, and whose word it takes.

    Bodies have no time limit here: the guard knows whose they are.
    """
    trusted = (*LOOPBACKS, *context.facts.get("trusted_proxies", ()))
    lines = [
        *([protocols] if protocols else []),
        f"timeouts {{\n\t\t\tread_header {HEADER_SECONDS}s\n\t\t\tidle {IDLE_SECONDS}s\n\t\t}}",
        f"max_header_size {LARGEST_HEADERS_KB}KB",
        f"trusted_proxies static {' '.join(trusted)}",
        # From the right: what a client has put before its own address counts for nothing.
        "trusted_proxies_strict",
    ]
    return "servers {\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}"


def _routes(context: Context, table: Sequence[Service]) -> str:
    routes = []
    for row in table:
        if not row.front_path:
            continue
        paths = "*" if row.served_by else f"{row.front_path}/*"
        upstream = context.upstream(service(row.served_by or row.name, table))
        largest = row.body or context.facts.get("max_upload", MAX_UPLOAD)
        body = f"\t\trequest_body {{\n\t\t\tmax_size {largest + BODY_OVERHEAD}\n\t\t}}\n"
        routes.append(f"\thandle {paths} {{\n{body}{_passed_on(upstream, 2)}\t}}\n")
    # The most specific path first; `*` takes what is left.
    routes.sort(key=lambda text: text.startswith("\thandle * "))
    return "".join(routes)


def _own_port(upstream: str, *more: str) -> str:
    """A site that is all of one program's. What its answers do not say themselves is said for them."""
    told = [f"\theader ?{name.decode()} {_word(value.decode())}\n" for name, value in NO_PAGE.items()]
    return "".join(told) + _passed_on(upstream, 1, *more)


SECURE_COOKIES = 'header_down Set-Cookie ^(.+)$ "$1; Secure"'
"""For a program that does not know that its port is one of https."""


def _passed_on(upstream: str, depth: int, *more: str) -> str:
    """Pass on to `upstream`."""
    indent = "\t" * depth
    lines = [
        # A node that is starting answers 502 at once; the probes wait, not the proxy.
        "lb_try_duration 0s",
        # One address, whatever those in front have sent: the client's, as far as they are trusted.
        "header_up X-Forwarded-For {client_ip}",
        *more,
    ]
    return (
        f"{indent}reverse_proxy {upstream} {{\n"
        + "".join(f"{indent}\t{line}\n" for line in lines)
        + f"{indent}}}\n"
    )


def _tls_ports(context: Context, table: Sequence[Service]) -> Mapping[str, int]:
    return context.fronted or https_ports(table)


def _tls_options(context: Context, tls: Tls) -> str:
    """Caddy's global options: how it gets its certificate, and no port but those that are published."""
    https = _tls_ports(context, SERVICES)[PROXY]
    # Caddy wants another one than for https, though no site may be plain: then nothing listens there.
    http = NOWHERE if context.fronted else inside(REDIRECT_PORT)
    lines = [
        "admin off",
        "persist_config off",
        "auto_https disable_redirects",
        f"https_port {https}",
        f"http_port {http}",
        # A client that connects to an IP address names no server (RFC 6066, section 3).
        f"default_sni {tls.name}",
        # HTTP/3 would be announced at a port that nobody outside finds.
        _servers(context, "protocols h1 h2"),
    ]
    if not tls.acme:
        lines += ["local_certs", "skip_install_trust"]
    if tls.email:
        lines.append(f"email {_word(tls.email)}")
    if tls.acme_url:
        lines.append(f"acme_ca {_word(tls.acme_url)}")
    if tls.acme_ca:
        lines.append(f"acme_ca_root {_word(f'{context.home}/config/{ACME_ROOT}')}")
    return "".join(f"\t{line}\n" for line in lines)


def _tls_sites(context: Context, tls: Tls, table: Sequence[Service]) -> dict[str, str]:
    hosts = [f"[{name}]" if ":" in name else name for name in dict.fromkeys((tls.name, *tls.more))]

    def at(port: int) -> str:
        return ", ".join(f"https://{host}:{port}" for host in hosts)

    # Of a name with a public certificate alone: where Caddy's own CA vouches, people must be able to go on.
    hsts = f'\theader Strict-Transport-Security "max-age={HSTS_SECONDS}"\n' if tls.acme else ""
    sites = {}
    for name, port in _tls_ports(context, table).items():
        behind = context.upstream(service(name, table)) if name != PROXY else ""
        own = _own_port(behind, SECURE_COOKIES) if behind else _routes(context, table)
        sites[at(port)] = hsts + own
    if not context.fronted:
        # Whatever name it was asked by: the certificate is for this one.
        sites[f"http://:{inside(REDIRECT_PORT)}"] = f"\tredir https://{hosts[0]}{{uri}} 308\n"
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
        *STRONG_SSH,
    ]
    return "\n".join(lines) + "\n"


def jupyter_config(context: Context, table: Sequence[Service]) -> str:
    """JupyterLab: the token comes from the secret's file, so it is in no argv and no environment."""
    row = next(row for row in table if row.name == "jupyter")
    # Behind the reverse proxy's https it is on the loopback; by which hosts it may be asked, that one knows.
    remote = "c.ServerApp.allow_remote_access = True\n" if row.name in context.fronted else ""
    headers = {"Content-Security-Policy": "; ".join(JUPYTER_POLICY), **JUPYTER_HEADERS}
    web = {"headers": headers, "xsrf_cookie_kwargs": {"samesite": "Lax"}}
    return (
        "import hashlib\n"
        "import os\n"
        "from pathlib import Path\n\n"
        "from jupyter_server.serverapp import ServerApp\n\n"
        # Files for other programs of its user, with the token in them; no setting leaves both out.
        "ServerApp.write_server_info_file = lambda _app: None\n"
        "ServerApp.write_browser_open_files = lambda _app: None\n"
        'for left in Path(os.environ["JUPYTER_RUNTIME_DIR"]).glob("jpserver-*"):\n'
        "    left.unlink(missing_ok=True)\n"
        f"home = Path({context.home!r})\n"
        "c = get_config()  # type: ignore[name-defined]  # noqa: F821\n"
        f"c.ServerApp.ip = {context.listen(row)!r}\n"
        f"c.ServerApp.port = {context.ports[row.name]}\n"
        "c.ServerApp.port_retries = 0\n"
        f"{remote}"
        "c.ServerApp.open_browser = False\n"
        "c.ServerApp.allow_root = True\n"
        "c.ServerApp.quit_button = False\n"
        'c.ServerApp.root_dir = str(home / "data" / "notebooks")\n'
        'token = (home / "secrets" / "jupyter_token").read_text().strip()\n'
        "c.IdentityProvider.token = token\n"
        'c.IdentityProvider.cookie_options = {"samesite": "Lax"}\n'
        f"c.ServerApp.tornado_settings = {web!r}\n"
        # A browser that is signed in is so no longer than the token it came with holds.
        'c.ServerApp.cookie_secret = hashlib.sha256(b"cookie:" + token.encode()).digest()\n'
        'c.LabApp.app_settings_dir = str(home / "config")\n'
        # A node talks to nobody on its own.
        "c.LabApp.news_url = None\n"
        'c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"\n'
        'c.LabApp.extension_manager = "readonly"\n'
        # There are none: it would log a line for each that it has looked for.
        "c.LanguageServerManager.autodetect = False\n"
    )


JUPYTER_POLICY = (
    # JupyterLab has scripts and styles in its page, and compiles what checks its settings.
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "font-src 'self' data:",
    "media-src 'self' data: blob:",
    "connect-src 'self'",
    "worker-src 'self' blob:",
    "frame-src 'self' data: blob:",
    # Its viewer of PDF files.
    "object-src 'self' blob:",
    "manifest-src 'self'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'self'",
)
"""What a page of Jupyter may load: nothing from elsewhere, so that what a notebook shows tells nobody of its
data. Without `default-src`, to which Jupyter itself gives another value where it answers with no page."""

JUPYTER_HEADERS: Mapping[str, str] = {
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


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
        "argv": [context.format(word) for word in row.command],
        "environment": {name: context.format(value) for name, value in row.environment.items()},
    }


def _quoted(path: str) -> str:
    """As sshd_config wants a path that may hold spaces."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
