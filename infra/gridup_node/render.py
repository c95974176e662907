"""Renders the configuration files of one node from the service table. Pure: text in, text out.

Standard library only: the deployer renders for every target, and the node itself (through
`gridup_node.launch`) reads the rendered files.
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
"""The bytes that a call may have in addition to its upload."""
NOWHERE = 1
"""A port that no service uses."""

ACME_ROOT = "acme-root.pem"
"""The file in `config/` with the certificates of `Tls.acme_ca`."""


@dataclass(frozen=True)
class Tls:
    """The TLS settings of a machine's reverse proxy.

    Attributes:
        name: the domain name or the IP address that users connect to.
        acme: whether a certificate authority issues the certificate, with ACME; else Caddy's own CA does.
        email: the e-mail address for that authority; empty for none.
        acme_url: the URL of the authority's ACME directory; empty for public ones.
        acme_ca: the CA certificates (PEM) that verify the authority's server; empty for the system's.
        more: other names and addresses of the reverse proxy.
    """

    name: str
    acme: bool = False
    email: str = ""
    acme_url: str = ""
    acme_ca: str = ""
    more: tuple[str, ...] = ()

    def told(self) -> dict[str, Any]:
        """Return the settings as the reverse proxy's container gets them."""
        return {key: value for key, value in asdict(self).items() if value}


@dataclass(frozen=True)
class Context:
    """The values of one node for the templates, including those of the service table's placeholders.

    Attributes:
        home: the node's folder, as the node itself sees it.
        bin: the folder of the node's Python environment that has `python` and `caddy`.
        bind: the address of the services that users reach.
        ports: the ports, by service.
        user: the user who runs the services, and the only user who may log in by ssh.
        tools: paths of programs of the machine, by the name in `Service.requires_tool`.
        facts: the node's facts, which go to node.json. Never a secret.
        separate_hosts: whether each program has its own host: a container with the name of its service.
        tls: the TLS settings; None for plain http.
        fronted: with `tls`, the ports at which the reverse proxy serves https, by service; `ports` then has
            the ports on which the programs of these services listen. Empty for a machine's own ports.
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
        """Fill this node's paths into a template of the service table."""
        return template.format(home=self.home, bin=self.bin, config=f"{self.home}/config", **self.tools)

    def listen(self, row: Service) -> str:
        """Return the address that `row` listens on: the loopback, unless users connect to the service.

        A container has its own loopback. So a container listens on `bind`, and the other containers connect
        through the node's private networks.
        """
        behind = row.inner or (row.name in self.fronted and row.name != PROXY)
        return LOOPBACK if behind and not self.separate_hosts else self.bind

    def upstream(self, row: Service) -> str:
        """Return the address at which the reverse proxy reaches a program, in Caddy's syntax."""
        if self.separate_hosts:
            return f"{row.name}:{self.ports[row.name]}"
        # Caddy runs in the node's folder, so the socket's path is relative to it.
        return f"unix/{row.socket}" if row.socket else f"{LOOPBACK}:{self.ports[row.name]}"


def offered(context: Context, table: Sequence[Service] = SERVICES) -> tuple[Service, ...]:
    """Return the programs that this node can run: those whose required tool the machine has."""
    return tuple(
        row for row in programs(table) if not row.requires_tool or row.requires_tool in context.tools
    )


def render(context: Context, table: Sequence[Service] = SERVICES) -> dict[str, str]:
    """Return the content of every configuration file of the node, by its name in `config/`."""
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
    """Return for each program a hash of its configuration. If the hash changes, the program must restart."""
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
    """Render the reverse proxy's configuration, which passes each path on to the program that serves it.

    It serves plain http on one port, or https. On a container host http only redirects to https.
    """
    bind = context.bind if ":" not in context.bind else f"[{context.bind}]"
    head = "# Written by Gridup; changes are seen by `gridup status` and put right by `gridup deploy`.\n"
    # While the API starts, each probe would log a 502. The API's own log is more useful.
    log = "\tlog {\n\t\tlevel WARN\n\t\texclude http.log.error\n\t}\n"
    if context.tls is None:
        options = f"\tadmin off\n\tauto_https off\n\tpersist_config off\n\t{_servers(context, '')}\n"
        if context.ports[PROXY] == machine_ports()[PROXY]:
            # Caddy refuses plain http at the port that it uses for https.
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
        # This port is for the node's own programs, such as notebooks. It is not reachable from outside.
        sites[f"http://:{context.ports[backends(table)[0].name]}"] = _routes(context, table)
    blocks = (f"\n{where} {{\n\tbind {bind}\n\theader -Server\n{what}}}\n" for where, what in sites.items())
    return f"{head}{{\n{options}{log}}}\n{''.join(blocks)}"


HEADER_SECONDS, IDLE_SECONDS = 10, 75
"""The timeouts for a request's headers, from the beginning of a connection, and between two requests.

A connection costs an open file and some 10 to 50 kB. Caddy itself can't count the connections of one address
(a machine's firewall does, see `vm.shield`), so idle connections end soon. But the idle timeout must be
longer than 60 s: a proxy in front (nginx, a cloud's load balancer) keeps its connections for that long, and
would lose a request that it sends while Caddy closes the connection.
"""
LARGEST_HEADERS_KB = 16
LOOPBACKS = ("127.0.0.0/8", "::1/128")
"""The addresses of this machine, which are trusted: a site's own reverse proxy may run on it."""
HSTS_SECONDS = 365 * 24 * 60 * 60


def _servers(context: Context, protocols: str) -> str:
    """Return Caddy's options for all its ports: timeouts, the header size limit and the trusted proxies.

    Caddy sets no timeout for bodies. The guard limits them, because it knows the sender.
    """
    trusted = (*LOOPBACKS, *context.facts.get("trusted_proxies", ()))
    lines = [
        *([protocols] if protocols else []),
        f"timeouts {{\n\t\t\tread_header {HEADER_SECONDS}s\n\t\t\tidle {IDLE_SECONDS}s\n\t\t}}",
        f"max_header_size {LARGEST_HEADERS_KB}KB",
        f"trusted_proxies static {' '.join(trusted)}",
        # Read X-Forwarded-For from the right: a client can prepend false addresses.
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
    # More specific paths come first; `*` matches all others.
    routes.sort(key=lambda text: text.startswith("\thandle * "))
    return "".join(routes)


def _own_port(upstream: str, *more: str) -> str:
    """Return a site that passes all requests to one program, with default headers that its answers lack."""
    told = [f"\theader ?{name.decode()} {_word(value.decode())}\n" for name, value in NO_PAGE.items()]
    return "".join(told) + _passed_on(upstream, 1, *more)


SECURE_COOKIES = 'header_down Set-Cookie ^(.+)$ "$1; Secure"'
"""Marks cookies as secure, for a program that does not know that its port serves https."""


def _passed_on(upstream: str, depth: int, *more: str) -> str:
    """Return the block that passes requests on to `upstream`."""
    indent = "\t" * depth
    lines = [
        # Answer 502 at once while the node starts: the probes wait, not the reverse proxy.
        "lb_try_duration 0s",
        # Send exactly one address: the client's, as far as the proxies in front are trusted.
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
    """Return Caddy's global options: how it gets its certificate, and that it uses only published ports."""
    https = _tls_ports(context, SERVICES)[PROXY]
    # Caddy requires an http port that differs from the https port. If no site uses it, nothing listens there.
    http = NOWHERE if context.fronted else inside(REDIRECT_PORT)
    lines = [
        "admin off",
        "persist_config off",
        "auto_https disable_redirects",
        f"https_port {https}",
        f"http_port {http}",
        # A client that connects to an IP address sends no server name (RFC 6066, section 3).
        f"default_sni {tls.name}",
        # Disable HTTP/3: Caddy would announce it at a port that is not reachable from outside.
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

    # Set HSTS only with ACME. With Caddy's own CA users must be able to ignore the browser's warning.
    hsts = f'\theader Strict-Transport-Security "max-age={HSTS_SECONDS}"\n' if tls.acme else ""
    sites = {}
    for name, port in _tls_ports(context, table).items():
        behind = context.upstream(service(name, table)) if name != PROXY else ""
        own = _own_port(behind, SECURE_COOKIES) if behind else _routes(context, table)
        sites[at(port)] = hsts + own
    if not context.fronted:
        # Always redirect to the first name, because the certificate is for that name.
        sites[f"http://:{inside(REDIRECT_PORT)}"] = f"\tredir https://{hosts[0]}{{uri}} 308\n"
    return sites


def _word(text: str) -> str:
    """Quote text as one word of a Caddyfile."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def node_json(context: Context) -> str:
    """Render the node's facts. The portal reads them at each request, so no program restarts for them."""
    return json.dumps(dict(context.facts), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def sshd_config(context: Context, _table: Sequence[Service]) -> str:
    """Render OpenSSH's configuration: one user, the node's own host key and only its authorized keys."""
    lines = [
        f"Port {context.ports['ssh']}",
        f"ListenAddress {context.bind}",
        f"HostKey {_quoted(context.home + '/keys/host_ed25519')}",
        # Only in this setting sshd substitutes `%u` and similar tokens.
        f"AuthorizedKeysFile {_quoted((context.home + '/keys/authorized_keys').replace('%', '%%'))}",
        f"AllowUsers {context.user}",
        "AuthenticationMethods publickey",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "UsePAM no",
        "PidFile none",
        # The folder has mode 0700 from the beginning. The check would refuse any home below /tmp.
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
    """Render JupyterLab's configuration. The token is read from its file, so no argv or variable has it."""
    row = next(row for row in table if row.name == "jupyter")
    # Behind the reverse proxy's https Jupyter listens on the loopback, where it would check the requested
    # host name itself. The reverse proxy knows the allowed names.
    remote = "c.ServerApp.allow_remote_access = True\n" if row.name in context.fronted else ""
    headers = {"Content-Security-Policy": "; ".join(JUPYTER_POLICY), **JUPYTER_HEADERS}
    web = {"headers": headers, "xsrf_cookie_kwargs": {"samesite": "Lax"}}
    return (
        "import hashlib\n"
        "import os\n"
        "from pathlib import Path\n\n"
        "from jupyter_server.serverapp import ServerApp\n\n"
        # Jupyter writes these files for other programs of its user, with the token. No setting disables both.
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
        # The cookie secret depends on the token, so a new token ends all browser sessions.
        'c.ServerApp.cookie_secret = hashlib.sha256(b"cookie:" + token.encode()).digest()\n'
        'c.LabApp.app_settings_dir = str(home / "config")\n'
        # A node contacts no other host by itself.
        "c.LabApp.news_url = None\n"
        'c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"\n'
        'c.LabApp.extension_manager = "readonly"\n'
        # There are no language servers. Jupyter would log a line for each that it does not find.
        "c.LanguageServerManager.autodetect = False\n"
    )


JUPYTER_POLICY = (
    # JupyterLab has inline scripts and styles, and compiles the validators of its settings.
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "font-src 'self' data:",
    "media-src 'self' data: blob:",
    "connect-src 'self'",
    "worker-src 'self' blob:",
    "frame-src 'self' data: blob:",
    # For JupyterLab's PDF viewer.
    "object-src 'self' blob:",
    "manifest-src 'self'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'self'",
)
"""The content that a page of Jupyter may load: nothing from other hosts, so that a notebook's output can't
leak data. There is no `default-src`: Jupyter itself sets a different one for answers that are not pages."""

JUPYTER_HEADERS: Mapping[str, str] = {
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def jupyter_overrides(_context: Context, _table: Sequence[Service]) -> str:
    """Render JupyterLab's default settings, which answer its question whether to fetch news."""
    notification = {"fetchNews": "false", "checkForUpdates": False}
    return json.dumps({"@jupyterlab/apputils-extension:notification": notification}, indent=2) + "\n"


def programs_json(context: Context, table: Sequence[Service]) -> str:
    """Render the programs that `gridup_node.launch` runs, by service."""
    made = {row.name: _program(context, row) for row in offered(context, table)}
    return json.dumps(made, indent=2, sort_keys=True) + "\n"


def supervisord_conf(context: Context, table: Sequence[Service]) -> str:
    """Render Supervisor's configuration. It has no paths: its parser would interpret ` #` and `%` in them."""
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
    """Quote a path that may have spaces, as sshd_config requires."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
