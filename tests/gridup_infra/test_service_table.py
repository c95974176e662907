"""One row more in the service table is one service more everywhere; what is rendered survives any path."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest

from gridup.probes import endpoints_for_node
from gridup_infra.outputs import NodeOutputs
from gridup_infra.processes import which
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.docker import naming, resources
from gridup_node import containers as containers_module
from gridup_node import launch
from gridup_node import services as services_module
from gridup_node.confines import IMAGE_UID, MACHINE_UID, writable
from gridup_node.containers import compose, containers, machine_containers, networks
from gridup_node.render import Context, Tls, fingerprints, render
from gridup_node.services import (
    SERVICES,
    Audience,
    ProbeKind,
    Service,
    backends,
    folders,
    fronted,
    ports,
    probed,
    programs,
    service,
)
from gridup_node.vm.host import SSHD
from gridup_node.vm.machine import STRONG_SSH, UID
from support.declaring import declared

CATALOG = Service(
    name="catalog",
    title="catalog",
    port=7070,
    audience=Audience.NODE,
    command=("{bin}/python", "-m", "catalog", "--data={home}/data"),
    front_path="/catalog",
    proof=ProbeKind.LOGIN_PAGE,
    proof_path="/catalog/login",
    environment={"CATALOG_HOME": "{home}/catalog"},
)
METRICS = Service(
    name="metrics",
    title="metrics",
    port=9100,
    audience=Audience.STAFF,
    command=("{bin}/metrics",),
    proof=ProbeKind.JUPYTER_API,
    facts_read=("name",),
    stop_seconds=3,
)
TABLE = (*SERVICES, CATALOG, METRICS)

NASTY = '/srv/it\'s 100% "mine" #1; a\\b {x} $HOME'


def context(home: str = "/srv/node", table: tuple[Service, ...] = SERVICES, **changes: Any) -> Context:
    made = Context(
        home=home,
        bin=f"{home}/runtime/bin",
        bind="127.0.0.1",
        ports=ports(table),
        user="ada",
        tools={"sshd": "/usr/sbin/sshd"},
        facts={"name": "Inst", "node_type": "domain", "admin_email": "a@b.example", "bundle": "b1"},
    )
    return replace(made, **changes)


def supervisord(text: str, environment: Mapping[str, str]) -> configparser.RawConfigParser:
    """Read as Supervisor reads: inline comments cut, then `%(…)s` filled from the environment."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(text)
    for section in parser.sections():
        for key, value in parser.items(section):
            parser.set(section, key, value % {f"ENV_{k}": v for k, v in environment.items()})
    return parser


def test_a_new_service_needs_its_ports() -> None:
    assert {"catalog": 7070, "metrics": 9100}.items() <= ports(TABLE).items()


def test_a_new_service_is_run_by_the_node() -> None:
    files = render(context(table=TABLE), TABLE)
    assert json.loads(files["programs.json"])["catalog"] == {
        "argv": ["/srv/node/runtime/bin/python", "-m", "catalog", "--data=/srv/node/data"],
        "environment": {"CATALOG_HOME": "/srv/node/catalog"},
    }
    section = supervisord(files["supervisord.conf"], {"GRIDUP_NODE_HOME": "/n", "GRIDUP_SOCKET": "/s"})
    assert section["program:catalog"]["command"] == "python -m gridup_node.launch catalog"
    assert section["program:catalog"]["stdout_logfile"] == "logs/catalog.log"
    assert "catalog" in fingerprints(context(table=TABLE), TABLE)


def test_a_new_service_with_a_path_stands_behind_the_front_door_before_what_takes_the_rest() -> None:
    caddyfile = render(context(table=TABLE), TABLE)["Caddyfile"]
    assert re.search(r"handle /catalog/\* \{[^}]+\}\s+reverse_proxy 127\.0\.0\.1:7070 \{", caddyfile)
    assert caddyfile.index("/catalog/*") < caddyfile.index("handle * {")
    assert "9100" not in caddyfile


def test_a_new_service_is_shown_and_probed() -> None:
    node = NodeOutputs(spec=DeploySpec(name="Inst"), address="192.0.2.7", ports=ports(TABLE))
    shown = node.endpoints(TABLE)
    assert shown["catalog"].url == "http://192.0.2.7:8080/catalog"
    assert shown["metrics"].url == "http://192.0.2.7:9100"
    probes = {endpoint.service: endpoint for endpoint in endpoints_for_node(node, table=TABLE)}
    assert (probes["catalog"].proof, probes["catalog"].path) == (ProbeKind.LOGIN_PAGE, "/catalog/login")
    assert probes["metrics"].port == 9100
    assert list(probes) == [row.name for row in probed(TABLE)]


def test_a_service_is_found_by_its_name() -> None:
    assert service("catalog", TABLE) is CATALOG
    with pytest.raises(KeyError):
        service("catalog")


def test_no_two_services_share_a_name_or_a_port() -> None:
    assert len({row.name for row in SERVICES}) == len(SERVICES)
    assert len(set(ports().values())) == len(ports())
    assert {row.served_by for row in SERVICES if row.served_by} <= {row.name for row in programs()}


def test_a_program_whose_tool_is_missing_is_not_run() -> None:
    files = render(context(tools={}))
    assert "ssh" not in json.loads(files["programs.json"])
    assert "[program:ssh]" not in files["supervisord.conf"]
    assert "sshd_config" not in files


def test_only_what_people_connect_to_leaves_the_loopback() -> None:
    files = render(context(bind="192.0.2.7"))
    assert "bind 192.0.2.7" in files["Caddyfile"]
    assert "ListenAddress 192.0.2.7" in files["sshd_config"]
    assert "c.ServerApp.ip = '192.0.2.7'" in files["jupyter_server_config.py"]
    assert re.findall(r"reverse_proxy (\S+)", files["Caddyfile"]) == ["unix/run/api.sock"] * 2


def test_with_https_what_has_a_port_of_its_own_is_behind_the_front_door() -> None:
    fronted = {"proxy": 8080, "jupyter": 8888}
    at = {**ports(), "jupyter": 18888}
    tls = Tls("192.0.2.7", more=("lab", "2001:db8::7", "192.0.2.7"))
    files = render(context(bind="0.0.0.0", ports=at, tls=tls, fronted=fronted))
    caddyfile = files["Caddyfile"]
    for port in fronted.values():
        sites = f"https://192.0.2.7:{port}, https://lab:{port}, https://[2001:db8::7]:{port} {{"
        assert f"\n{sites}\n\tbind 0.0.0.0\n" in caddyfile
    assert "\thttps_port 8080\n" in caddyfile
    assert "\tlocal_certs\n" in caddyfile
    # Nothing is plain, not even to redirect: a site for http would listen.
    assert "http://" not in caddyfile
    assert re.findall(r"reverse_proxy (\S+)", caddyfile) == ["unix/run/api.sock"] * 2 + ["127.0.0.1:18888"]
    told = files["jupyter_server_config.py"]
    assert "c.ServerApp.ip = '127.0.0.1'\n" in told
    assert "c.ServerApp.port = 18888\n" in told
    # The reverse proxy serves the hosts above alone; Jupyter itself would refuse all but the loopback.
    assert "allow_remote_access = True" in told
    assert "allow_remote_access" not in render(context())["jupyter_server_config.py"]
    assert "ListenAddress 0.0.0.0" in files["sshd_config"]


def test_an_ipv6_address_is_bound_in_brackets() -> None:
    assert "\tbind [::1]\n" in render(context(bind="::1"))["Caddyfile"]


@pytest.mark.parametrize(
    "home", ["/srv/a b", "/srv/a #1", "/srv/100%", "/srv/it's", '/srv/"q"', "/srv/a;b", NASTY]
)
def test_any_path_survives_in_every_file(home: str) -> None:
    here = context(home)
    files = render(here)

    run = json.loads(files["programs.json"])
    assert run["proxy"]["argv"][0] == f"{home}/runtime/bin/caddy"
    assert run["ssh"]["argv"][-1] == f"{home}/config/sshd_config"
    assert run["jupyter"]["environment"]["JUPYTER_DATA_DIR"] == f"{home}/jupyter"

    parsed = supervisord(files["supervisord.conf"], {"GRIDUP_NODE_HOME": home, "GRIDUP_SOCKET": f"{home}/s"})
    assert parsed["supervisord"]["logfile"] == f"{home}/logs/supervisord.log"
    assert parsed["unix_http_server"]["file"] == f"{home}/s"
    assert parsed["program:api"]["directory"] == home

    assert home not in files["Caddyfile"]


@pytest.mark.parametrize(
    "name", ["a b", "a #1", "100%", "%h %%", "it's", '"q"', "a\\b", "back\\\\two", "x;y {z} $H"]
)
def test_the_real_sshd_reads_a_path_of_any_kind(tmp_path: Path, name: str) -> None:
    sshd, keygen = which("sshd"), which("ssh-keygen")
    if not sshd or not keygen:
        pytest.skip("no sshd on this machine")
    home = tmp_path / name
    (home / "keys").mkdir(parents=True)
    (home / "config").mkdir()
    key = home / "keys" / "host_ed25519"
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    config = home / "config" / "sshd_config"
    config.write_text(render(context(str(home)))["sshd_config"])
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    ended = subprocess.run([sshd, "-t", "-f", config], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    shown = subprocess.run([sshd, "-T", "-f", config], capture_output=True, text=True, check=True).stdout
    assert f"hostkey {key}\n" in shown
    # Percent signs of this one are filled in at each login: `%%` stands for one.
    keys = next(line for line in shown.splitlines() if line.startswith("authorizedkeysfile "))
    assert keys.removeprefix("authorizedkeysfile ").replace("%%", "%") == str(
        home / "keys" / "authorized_keys"
    )


def test_the_sshd_takes_keys_alone_and_lets_one_user_in() -> None:
    lines = render(context())["sshd_config"].splitlines()
    for line in ("AllowUsers ada", "AuthenticationMethods publickey", "PasswordAuthentication no"):
        assert line in lines
    assert set(STRONG_SSH) <= set(lines) & set(SSHD.splitlines())


def test_the_folder_that_an_sshd_of_root_needs_is_made_for_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").mkdir()
    programs = {"ssh": "/usr/sbin/sshd", "jupyter": "/usr/bin/python"}
    told = {name: {"argv": [path], "environment": {}} for name, path in programs.items()}
    (tmp_path / "config/programs.json").write_text(json.dumps(told))
    folder = tmp_path / "run/sshd"
    ran: list[str] = []
    monkeypatch.setenv("GRIDUP_NODE_HOME", str(tmp_path))
    monkeypatch.setattr(launch, "PRIVILEGE_SEPARATION", folder)
    monkeypatch.setattr(os, "execve", lambda path, _argv, _environment: ran.append(path))
    for name, user, made in (("ssh", 1000, False), ("jupyter", 0, False), ("ssh", 0, True)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        launch.main(name)
        assert folder.exists() == made
    assert list(folder.iterdir()) == []
    assert ran == [programs["ssh"], programs["jupyter"], programs["ssh"]]


def test_jupyters_file_is_python_that_names_the_right_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / 'it\'s 100% "mine" #1'
    (home / "secrets").mkdir(parents=True)
    (home / "secrets" / "jupyter_token").write_text("t0ken\n")

    class Any_:
        def __getattr__(self, name: str) -> Any_:
            made = Any_()
            setattr(self, name, made)
            return made

    class ServerApp:
        def write_server_info_file(self) -> None:
            raise AssertionError("it would hold the token")

        write_browser_open_files = write_server_info_file

    left = tmp_path / "runtime" / "jpserver-12.json"
    left.parent.mkdir()
    left.write_text('{"token": "t0ken"}')
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(left.parent))
    serverapp = SimpleNamespace(ServerApp=ServerApp)
    monkeypatch.setitem(sys.modules, "jupyter_server", SimpleNamespace(serverapp=serverapp))
    monkeypatch.setitem(sys.modules, "jupyter_server.serverapp", serverapp)
    config = Any_()
    exec(render(context(str(home)))["jupyter_server_config.py"], {"get_config": lambda: config})
    assert config.ServerApp.port == 8888
    assert config.ServerApp.root_dir == str(home / "data" / "notebooks")
    assert config.IdentityProvider.token == "t0ken"
    ServerApp().write_server_info_file()
    ServerApp().write_browser_open_files()
    assert not left.exists(), "what a former start left of it"


def test_what_the_node_may_tell_comes_back_as_it_was() -> None:
    facts = {"name": 'Universität "Zürich" 🧬', "ports": {"proxy": 8080}}
    assert json.loads(render(context(facts=facts))["node.json"]) == facts


def test_no_secret_is_in_any_rendered_file(tmp_path: Path) -> None:
    from gridup_node import secrets

    (tmp_path / "secrets").mkdir(mode=0o700)
    made = [path.read_text().strip() for path in secrets.ensure(tmp_path / "secrets").values()]
    assert len(made) >= 3
    whole = "\0".join(render(context(str(tmp_path))).values())
    assert not [secret for secret in made if secret in whole]


def changed(before: Context, after: Context, table: tuple[Service, ...] = SERVICES) -> set[str]:
    old, new = fingerprints(before, table), fingerprints(after, table)
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


@pytest.mark.parametrize(
    ("port", "restarted"),
    [
        ("proxy", {"proxy"}),
        ("jupyter", {"jupyter"}),
        ("ssh", {"ssh"}),
    ],
)
def test_a_changed_port_restarts_only_whom_it_concerns(port: str, restarted: set[str]) -> None:
    before = context()
    assert changed(before, replace(before, ports={**before.ports, port: 1234})) == restarted


@pytest.mark.parametrize(
    ("fact", "restarted"),
    [
        ("name", {"api"}),
        ("admin_email", {"api"}),
        ("bundle", {"api", "jobs"}),
        ("endpoints", set()),
        ("gridup_version", set()),
    ],
)
def test_a_changed_fact_restarts_only_whoever_reads_it_once(fact: str, restarted: set[str]) -> None:
    before = context()
    assert changed(before, replace(before, facts={**before.facts, fact: "other"})) == restarted


def test_nothing_changed_restarts_nothing() -> None:
    assert changed(context(), context()) == set()


def test_a_new_runtime_restarts_whatever_runs_from_it() -> None:
    assert changed(context(), context(bin="/new/bin")) == {"proxy", "api", "jobs", "jupyter"}


def test_a_tool_that_appears_starts_its_service() -> None:
    assert changed(context(tools={}), context()) == {"ssh"}


KNOWN = {
    "name": "Cost: $HOME ${x}",
    "admin_email": "a@b.example",
    "ssh_keys": ["ssh-ed25519 AAAA a"],
    "unheard": "of",
}
"""What a deployer may know of a node."""


class TestContainers:
    """The table -> containers, for the target `docker` and for the compose file of a VM."""

    def test_a_new_service_has_a_container(self) -> None:
        made = {part.service: part for part in containers(KNOWN, TABLE)}
        assert list(made) == [row.name for row in programs(TABLE)]
        assert made["metrics"] == containers_module.Container(
            service="metrics",
            command=("metrics",),
            environment={
                "GRIDUP_SERVICE": "metrics",
                "GRIDUP_NODE": json.dumps({"name": KNOWN["name"]}),
            },
            port=9100,
            published=False,
            depends_on=("api", "catalog"),
            networks=("metrics",),
            closed=True,
            stop_seconds=3,
            hidden=folders(TABLE),
            share={"memory": 0.25, "cpus": 0.5, "pids": 512},
        )
        assert made["catalog"].published is False

    def test_a_container_is_told_what_its_program_reads_and_nothing_else(self) -> None:
        told = {
            part.service: json.loads(part.environment["GRIDUP_NODE"]) for part in containers(KNOWN, TABLE)
        }
        assert told == {
            "proxy": {},
            "api": {"name": KNOWN["name"], "admin_email": "a@b.example"},
            "jobs": {},
            "ssh": {"ssh_keys": KNOWN["ssh_keys"]},
            "jupyter": {},
            "catalog": {},
            "metrics": {"name": KNOWN["name"]},
        }

    def test_what_a_program_reads_at_its_start_its_container_is_told(self) -> None:
        for row in programs():
            assert set(row.restart_on_facts) <= set(row.facts_read), row.name

    def test_all_wait_for_those_behind_the_front_door_which_wait_for_nobody(self) -> None:
        after = {part.service: part.depends_on for part in containers(KNOWN, TABLE)}
        behind = tuple(row.name for row in backends(TABLE))
        assert behind == ("api", "catalog")
        # The reverse proxy has the ports of the last two, which may have had them themselves before.
        assert after.pop("proxy") == (*behind, "jupyter", "metrics")
        assert after == {name: () if name in behind else behind for name in after}

    @staticmethod
    def composed(bind: str = "192.0.2.7", volume: str = "p-data") -> Any:
        parts = containers(KNOWN, TABLE)
        outside = {part.service: part.port + 1 for part in parts if part.port}
        return json.loads(compose("p", "gridup-node:1", parts, outside, bind, volume, TABLE))

    def test_a_new_service_is_in_the_compose_file(self) -> None:
        made = self.composed()
        assert (made["name"], list(made["services"])) == ("p", [row.name for row in programs(TABLE)])
        metrics = made["services"]["metrics"]
        assert (metrics["image"], metrics["command"]) == ("gridup-node:1", ["metrics"])
        assert "192.0.2.7:9101:9100" in made["services"]["proxy"]["ports"]
        assert metrics["stop_grace_period"] == "3s"
        assert metrics["volumes"] == ["p-data:/var/lib/gridup"]
        assert made["volumes"] == {"p-data": {"name": "p-data"}}

    def test_each_sees_the_folders_that_it_needs_and_no_others(self) -> None:
        needed = {
            "proxy": {"proxy"},
            "api": {"data", "secrets", "token", "jobs"},
            "jobs": {"jobs"},
            "ssh": {"keys", "notebooks"},
            "jupyter": {"jupyter", "notebooks", "token"},
            "catalog": set(),
            "metrics": set(),
        }
        for part in containers(KNOWN, TABLE):
            assert set(part.folders) == needed[part.service]
            assert set(part.folders).isdisjoint(part.hidden)
            assert {*part.folders, *part.hidden} == set(folders(TABLE))
        rows = self.composed()["services"]
        covers = [line for line in rows["jupyter"]["tmpfs"] if line.startswith("/var/lib/gridup")]
        assert {line.partition(":")[0].rpartition("/")[2] for line in covers} == {
            "data",
            "secrets",
            "keys",
            "proxy",
            "jobs",
        }
        assert all(line.endswith(":ro,size=4k,mode=000") for line in covers)
        apart = self.composed(volume="/data/gridup")["services"]["jupyter"]["tmpfs"]
        assert set(rows["jupyter"]["tmpfs"]) - set(apart) == set(covers)

    def test_only_what_people_connect_to_is_published(self) -> None:
        published = {name: row.get("ports") for name, row in self.composed("::1")["services"].items()}
        assert published == {
            "proxy": ["[::1]:8081:8080", "[::1]:8889:8888", "[::1]:9101:9100"],
            "api": None,
            "jobs": None,
            "ssh": ["[::1]:2223:2222"],
            "jupyter": None,
            "catalog": None,
            "metrics": None,
        }

    def test_compose_finds_no_variable_of_its_own_in_what_a_container_is_told(self) -> None:
        text = self.composed()["services"]["api"]["environment"]["GRIDUP_NODE"]
        assert not re.search(r"(?<!\$)(?:\$\$)*\$(?!\$)", text)
        assert json.loads(text.replace("$$", "$"))["name"] == KNOWN["name"]

    def test_a_folder_of_the_machine_is_no_named_volume(self) -> None:
        made = self.composed(volume="/data/gridup")
        assert "volumes" not in made
        assert made["services"]["jupyter"]["volumes"] == [
            f"/data/gridup/{name}:/var/lib/gridup/{name}" for name in ("jupyter", "notebooks", "token")
        ]

    def test_no_container_may_more_than_it_needs_and_all_come_back_after_a_reboot(self) -> None:
        for row in self.composed()["services"].values():
            assert row["cap_drop"] == ["ALL"]
            assert row["security_opt"] == ["no-new-privileges:true"]
            assert row["restart"] == "unless-stopped"
            assert row["read_only"] is True
            assert row["logging"] == {
                "driver": "json-file",
                "options": {"max-size": "10m", "max-file": "3"},
            }

    def test_a_program_behind_the_front_door_meets_it_alone(self) -> None:
        where = {part.service: set(part.networks) for part in containers(KNOWN, TABLE)}
        for row in (*backends(TABLE), *fronted(TABLE)):
            others = {name for name, networks in where.items() if networks & where[row.name]}
            assert others == {row.name, "proxy"}, row.name
        assert where["ssh"].isdisjoint(where["proxy"])

    def test_notebooks_have_a_way_out_only_where_it_was_asked_for(self) -> None:
        nets = networks(TABLE)
        for egress in (False, True):
            out = {
                part.service
                for part in containers(KNOWN, TABLE, egress=egress)
                if not all(nets[name] for name in part.networks)
            }
            assert out == {"proxy", "api", "ssh", *(["jupyter", "catalog", "metrics"] if egress else [])}
            for part in containers(KNOWN, TABLE, egress=egress):
                assert part.closed == (part.service not in out)
                # What it is made in is where its way out is. Code has no network at all.
                assert [nets[name] for name in part.networks[:1]] == (
                    [] if part.service == "jobs" else [part.closed]
                )

    def test_a_closed_network_is_so_in_the_compose_file_and_has_no_name_server(self) -> None:
        made = self.composed()
        closed = {name for name, row in made["networks"].items() if row["internal"]}
        assert closed == {"catalog", "jupyter", "metrics"}
        for name, row in made["networks"].items():
            options = row["driver_opts"]
            bridge = options["com.docker.network.bridge.name"]
            # The most that Linux takes (IFNAMSIZ).
            assert bridge == f"gridup-{name}" and len(bridge) <= 15
            assert options.get("com.docker.network.bridge.inhibit_ipv4") == (
                "true" if name in closed else None
            )
        asked = {name for name, row in made["services"].items() if row.get("dns") == ["127.0.0.1"]}
        assert asked == closed
        assert made["services"]["jupyter"]["networks"] == ["jupyter"]

    def test_code_has_no_network_in_the_compose_file_whatever_was_asked_for(self) -> None:
        parts = machine_containers(KNOWN, TABLE, egress=True)
        made = json.loads(compose("p", "i", parts, {}, "", "/data", TABLE))["services"]
        assert [name for name, row in made.items() if row.get("network_mode") == "none"] == ["jobs"]
        assert not {"networks", "dns", "ports"} & set(made["jobs"])
        assert made["jobs"]["volumes"] == ["/data/jobs:/var/lib/gridup/jobs"]

    def test_a_notebook_finds_the_node_at_one_address_wherever_it_runs(self) -> None:
        for tls in (None, Tls(name="192.0.2.7")):
            caddyfile = render(context(bind="0.0.0.0", separate_hosts=True, tls=tls))["Caddyfile"]
            (site,) = re.findall(r"http://:18080 \{.*?\n\}", caddyfile, re.DOTALL)
            assert site.count("reverse_proxy api:18080") == 2
        assert "18080 {" not in render(context())["Caddyfile"].replace("127.0.0.1:18080 {", "")

    def test_each_has_a_share_of_the_machine_and_none_has_all_of_it(self) -> None:
        rows = self.composed()["services"]
        for name, row in rows.items():
            share = row["x-share"]
            assert 0 < share["memory"] < 1 and 0 < share["cpus"] < 1, name
            assert share["pids"] > 0
        assert rows["api"]["x-share"]["memory"] > rows["jupyter"]["x-share"]["memory"]

    def test_where_memory_runs_out_people_s_own_programs_end_before_the_node(self) -> None:
        yielding = {name: row["oom_score_adj"] for name, row in self.composed()["services"].items()}
        assert {name for name, score in yielding.items() if score} == {"ssh", "jobs", "jupyter"}

    def test_on_a_machine_of_its_own_no_program_is_the_user_who_may_use_sudo(self) -> None:
        parts = machine_containers(KNOWN, TABLE)
        made = json.loads(compose("p", "i", parts, {}, "", "/data", TABLE))["services"]
        assert {row["user"] for row in made.values()} == {f"{MACHINE_UID}:{MACHINE_UID}"}
        assert MACHINE_UID != UID == IMAGE_UID
        own = [line for row in made.values() for line in row["tmpfs"] if "uid=" in line]
        assert own and all(f"uid={MACHINE_UID},gid={MACHINE_UID}" in line for line in own)

    def test_apart_the_front_door_finds_the_others_by_name_and_they_listen_on_every_address(self) -> None:
        files = render(context(table=TABLE, bind="0.0.0.0", separate_hosts=True), TABLE)
        assert set(re.findall(r"reverse_proxy (\S+) ", files["Caddyfile"])) == {
            "api:18080",
            "catalog:7070",
            "jupyter:8888",
            "metrics:9100",
        }
        assert "c.ServerApp.ip = '0.0.0.0'" in files["jupyter_server_config.py"]
        assert "ListenAddress 0.0.0.0" in files["sshd_config"]
        assert context(bind="0.0.0.0", separate_hosts=True).listen(CATALOG) == "0.0.0.0"
        assert context(bind="0.0.0.0").listen(CATALOG) == "127.0.0.1"


class Declared(pulumi.runtime.Mocks):
    """Keeps what a program declares, as the engine would see it."""

    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.inputs[args.name] = dict(args.inputs)
        chosen = {"ports": {name: port + 1 for name, port in naming.published().items()}}
        outputs = {"network": chosen, "volume": {"volume": "the-data"}, "owner": {"daemon": "D"}}
        return args.name, {**args.inputs, **outputs.get(args.name, {"config": "c"})}

    def call(self, _args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        return {}


@pytest.fixture
def one_row_more(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The table that everybody reads has the new rows in it."""
    for module in (services_module, containers_module):
        for made in vars(module).values():
            if SERVICES in (getattr(made, "__defaults__", None) or ()):
                monkeypatch.setattr(made, "__defaults__", (TABLE,))
    yield


def test_a_new_service_is_declared_on_docker(one_row_more: None) -> None:
    spec = DeploySpec(
        name="Inst", target="docker", stack_id="0123456789abcdef", bind="127.0.0.1", host="unix:///x"
    )
    mocks = Declared()
    made: NodeOutputs = declared(mocks, lambda: resources.build(spec), "inst")
    others = {"owner", "image", "network", "volume"}
    assert set(mocks.inputs) == others | {row.name for row in programs(TABLE)}
    metrics = mocks.inputs["metrics"]
    assert (metrics["command"], metrics["port"], metrics["published"]) == (["metrics"], 9100, 0)
    assert mocks.inputs["proxy"]["fronts"] == {"jupyter": 8889, "metrics": 9101}
    project = "gridup-inst-01234567"
    assert mocks.inputs["network"]["networks"] == {
        project: False,
        f"{project}-catalog": True,
        f"{project}-jupyter": True,
        f"{project}-metrics": True,
        f"{project}-out": False,
    }
    assert (metrics["network"], metrics["closed"]) == (f"{project}-metrics", True)
    assert mocks.inputs["proxy"]["network"] == mocks.inputs["api"]["network"] == project
    assert json.loads(metrics["environment"]["GRIDUP_NODE"]) == {"name": "Inst"}
    assert (metrics["volume"], metrics["stop_seconds"]) == ("the-data", 3)
    assert metrics["urn"] == "urn:pulumi:inst::gridup::pulumi-python:dynamic/gridup-docker:Container::metrics"
    covers = dict.fromkeys((f"/var/lib/gridup/{name}" for name in folders(TABLE)), "ro,size=4k,mode=000")
    assert metrics["tmpfs"] == {**writable(IMAGE_UID), **covers}
    assert metrics["share"] == {"memory": 0.25, "cpus": 0.5, "pids": 512}
    assert (mocks.inputs["catalog"]["published"], mocks.inputs["catalog"]["port"]) == (0, 7070)
    assert made.ports["metrics"] == 9101
    assert set(json.loads(made.facts["configs"])) == {row.name for row in programs(TABLE)}
