"""One row more in the service table is one service more everywhere; what is rendered survives any path."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest

from gridup.probes import endpoints_for_node
from gridup_infra.outputs import NodeOutputs
from gridup_infra.processes import which
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.docker import nodes, resources
from gridup_node import containers as containers_module
from gridup_node import services as services_module
from gridup_node.containers import compose, containers
from gridup_node.render import Context, fingerprints, render
from gridup_node.services import (
    SERVICES,
    Audience,
    Proof,
    Service,
    backends,
    ports,
    probed,
    programs,
    service,
)
from support.declaring import declared

CATALOG = Service(
    name="catalog",
    title="catalog",
    port=7070,
    audience=Audience.NODE,
    command=("{bin}/python", "-m", "catalog", "--data={home}/data"),
    front_path="/catalog",
    proof=Proof.LOGIN_PAGE,
    proof_path="/catalog/login",
    environment={"CATALOG_HOME": "{home}/catalog"},
)
METRICS = Service(
    name="metrics",
    title="metrics",
    port=9100,
    audience=Audience.STAFF,
    command=("{bin}/metrics",),
    proof=Proof.JUPYTER_API,
    knows=("name",),
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
    assert re.search(r"handle /catalog/\* \{\s+reverse_proxy 127\.0\.0\.1:7070 \{", caddyfile)
    assert caddyfile.index("/catalog/*") < caddyfile.index("handle * {")
    assert "9100" not in caddyfile


def test_a_new_service_is_shown_and_probed() -> None:
    node = NodeOutputs(spec=DeploySpec(name="Inst"), address="192.0.2.7", ports=ports(TABLE))
    shown = node.endpoints(TABLE)
    assert shown["catalog"].url == "http://192.0.2.7:8080/catalog"
    assert shown["metrics"].url == "http://192.0.2.7:9100"
    probes = {endpoint.service: endpoint for endpoint in endpoints_for_node(node, table=TABLE)}
    assert (probes["catalog"].proof, probes["catalog"].path) == (Proof.LOGIN_PAGE, "/catalog/login")
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
    assert re.findall(r"reverse_proxy (\S+):", files["Caddyfile"]) == ["127.0.0.1"] * 2


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


def test_jupyters_file_is_python_that_names_the_right_places(tmp_path: Path) -> None:
    home = tmp_path / 'it\'s 100% "mine" #1'
    (home / "secrets").mkdir(parents=True)
    (home / "secrets" / "jupyter_token").write_text("t0ken\n")

    class Any_:
        def __getattr__(self, name: str) -> Any_:
            made = Any_()
            setattr(self, name, made)
            return made

    config = Any_()
    exec(render(context(str(home)))["jupyter_server_config.py"], {"get_config": lambda: config})
    assert config.ServerApp.port == 8888
    assert config.ServerApp.root_dir == str(home / "data" / "notebooks")
    assert config.IdentityProvider.token == "t0ken"


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
        ("api", {"api", "proxy"}),
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
        ("bundle", {"api"}),
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
    assert changed(context(), context(bin="/new/bin")) == {"proxy", "api", "jupyter"}


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
            published=True,
            after=("api", "catalog"),
            stop_seconds=3,
        )
        assert made["catalog"].published is False

    def test_a_container_is_told_what_its_program_reads_and_nothing_else(self) -> None:
        told = {
            part.service: json.loads(part.environment["GRIDUP_NODE"]) for part in containers(KNOWN, TABLE)
        }
        assert told == {
            "proxy": {},
            "api": {"name": KNOWN["name"], "admin_email": "a@b.example"},
            "ssh": {"ssh_keys": KNOWN["ssh_keys"]},
            "jupyter": {},
            "catalog": {},
            "metrics": {"name": KNOWN["name"]},
        }

    def test_what_a_program_reads_at_its_start_its_container_is_told(self) -> None:
        for row in programs():
            assert set(row.start_facts) <= set(row.knows), row.name

    def test_all_wait_for_those_behind_the_front_door_which_wait_for_nobody(self) -> None:
        after = {part.service: part.after for part in containers(KNOWN, TABLE)}
        behind = tuple(row.name for row in backends(TABLE))
        assert behind == ("api", "catalog")
        assert after == {name: () if name in behind else behind for name in after}

    @staticmethod
    def composed(bind: str = "192.0.2.7", volume: str = "p-data") -> Any:
        parts = containers(KNOWN, TABLE)
        outside = {part.service: part.port + 1 for part in parts if part.published}
        return json.loads(compose("p", "gridup-node:1", parts, outside, bind, volume))

    def test_a_new_service_is_in_the_compose_file(self) -> None:
        made = self.composed()
        assert (made["name"], list(made["services"])) == ("p", [row.name for row in programs(TABLE)])
        metrics = made["services"]["metrics"]
        assert (metrics["image"], metrics["command"]) == ("gridup-node:1", ["metrics"])
        assert metrics["ports"] == ["192.0.2.7:9101:9100"]
        assert metrics["stop_grace_period"] == "3s"
        assert metrics["volumes"] == ["p-data:/var/lib/gridup"]
        assert made["volumes"] == {"p-data": {"name": "p-data"}}

    def test_only_what_people_connect_to_is_published(self) -> None:
        published = {name: row.get("ports") for name, row in self.composed("::1")["services"].items()}
        assert published == {
            "proxy": ["[::1]:8081:8080"],
            "api": None,
            "ssh": ["[::1]:2223:2222"],
            "jupyter": ["[::1]:8889:8888"],
            "catalog": None,
            "metrics": ["[::1]:9101:9100"],
        }

    def test_compose_finds_no_variable_of_its_own_in_what_a_container_is_told(self) -> None:
        text = self.composed()["services"]["api"]["environment"]["GRIDUP_NODE"]
        assert not re.search(r"(?<!\$)(?:\$\$)*\$(?!\$)", text)
        assert json.loads(text.replace("$$", "$"))["name"] == KNOWN["name"]

    def test_a_folder_of_the_machine_is_no_named_volume(self) -> None:
        made = self.composed(volume="/data/gridup")
        assert "volumes" not in made
        assert made["services"]["api"]["volumes"] == ["/data/gridup:/var/lib/gridup"]

    def test_no_container_may_more_than_it_needs_and_all_come_back_after_a_reboot(self) -> None:
        for row in self.composed()["services"].values():
            assert row["cap_drop"] == ["ALL"]
            assert row["security_opt"] == ["no-new-privileges:true"]
            assert row["restart"] == "unless-stopped"

    def test_apart_the_front_door_finds_the_others_by_name_and_they_listen_on_every_address(self) -> None:
        files = render(context(table=TABLE, bind="0.0.0.0", apart=True), TABLE)
        assert set(re.findall(r"reverse_proxy (\S+) ", files["Caddyfile"])) == {"api:18080", "catalog:7070"}
        assert "c.ServerApp.ip = '0.0.0.0'" in files["jupyter_server_config.py"]
        assert "ListenAddress 0.0.0.0" in files["sshd_config"]
        assert context(bind="0.0.0.0", apart=True).listen(CATALOG) == "0.0.0.0"
        assert context(bind="0.0.0.0").listen(CATALOG) == "127.0.0.1"


class Declared(pulumi.runtime.Mocks):
    """Keeps what a program declares, as the engine would see it."""

    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.inputs[args.name] = dict(args.inputs)
        chosen = {"ports": {name: port + 1 for name, port in nodes.published().items()}}
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
    assert (metrics["command"], metrics["port"], metrics["published"]) == (["metrics"], 9100, 9101)
    assert json.loads(metrics["environment"]["GRIDUP_NODE"]) == {"name": "Inst"}
    assert (metrics["volume"], metrics["stop_seconds"]) == ("the-data", 3)
    assert metrics["urn"] == "urn:pulumi:inst::gridup::pulumi-python:dynamic/gridup-docker:Container::metrics"
    assert (mocks.inputs["catalog"]["published"], mocks.inputs["catalog"]["port"]) == (0, 7070)
    assert made.ports["metrics"] == 9101
    assert set(json.loads(made.facts["configs"])) == {row.name for row in programs(TABLE)}
