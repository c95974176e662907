"""A node on this machine that others reach: https by its own CA, unless plain http was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from gridup_node.database import HAD
from support import observatory
from support.cache import shared_home
from support.cli import Cli
from support.local_node import bound_addresses, client, eventually, facts, files_below, listening, pids
from support.observatory import Answer, Seen, Visitor, findings
from support.own_ca import get
from support.own_network import can_have_one, own_network
from support.rotated import all_open, check_replaced, opened
from support.system import must

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine, pytest.mark.node]

HERE = "203.0.113.77"
"""An address of this machine's that is no loopback."""


@pytest.fixture(scope="module")
def inst(tmp_path_factory: pytest.TempPathFactory, cache: Path, engine: Path, runtime: Path) -> Iterator[Cli]:
    """A node that listens on every address."""
    if not can_have_one():
        pytest.skip("only root on Linux can give this machine another address")
    runner = Cli(shared_home(tmp_path_factory.mktemp("https") / "home", cache, runtimes=True))
    with own_network():
        must("ip", "address", "add", f"{HERE}/32", "dev", "lo")
        made = runner.deploy("Inst", "--bind", "0.0.0.0")
        assert "plain http" not in made.err
        yield runner
        runner.destroy_all()


@pytest.fixture
def ca(inst: Cli, tmp_path: Path) -> Path:
    path = tmp_path / "inst-ca.pem"
    path.write_text(inst("outputs", "Inst", "--ca").ok().out)
    return path


def test_every_endpoint_is_proven_over_https(inst: Cli) -> None:
    seen = inst("check", "Inst", "--json", "--wait").ok().json[0]["endpoints"]
    outer = [row for row in seen if row["service"] != "jobs"]
    assert {row["service"]: (row["state"], row["note"]) for row in outer} == dict.fromkeys(
        ("proxy", "ui", "api", "ssh", "jupyter"), ("up", "")
    )
    urls = {row["service"]: row["url"] for row in seen}
    assert all(urls[name].startswith("https://") for name in ("ui", "api", "jupyter"))
    # Its pages tell the same addresses.
    assert facts(inst)["endpoints"]["jupyter"].startswith("https://")


@pytest.mark.parametrize("host", [HERE, "127.0.0.1", "localhost"])
def test_the_certificate_is_for_each_address_that_it_is_reached_at(inst: Cli, ca: Path, host: str) -> None:
    ports = facts(inst)["ports"]
    assert ports["proxy"] == 443
    assert b"Gridup portal" in get(f"https://{host}:{ports['proxy']}/login", ca)
    assert set(json.loads(get(f"https://{host}:{ports['jupyter']}/api", ca))) == {"version"}
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        get(f"https://{host}:{ports['proxy']}/login", None)


def test_nothing_speaks_plain_http_beyond_the_loopback(inst: Cli) -> None:
    ports = facts(inst)["ports"]
    bound = bound_addresses(inst)
    open_to_all = {name for name, port in ports.items() if bound[port] in ("0.0.0.0", "::")}
    assert open_to_all == {"proxy", "jupyter", "ssh"}
    for name in ("proxy", "jupyter"):
        with pytest.raises(OSError, match="HTTP Error 400"):
            get(f"http://{HERE}:{ports[name]}/", None)
    assert bound[ports["jupyter-behind"]] == "127.0.0.1"
    assert not listening(ports["jupyter-behind"], HERE)


def test_the_real_client_signs_in_as_it_is_told(inst: Cli, runtime: Path, ca: Path) -> None:
    password = inst("outputs", "Inst", "--show-secrets", "--json").ok().json["admin_password"]
    assert 'sy.login(url="https://127.0.0.1", ' in inst("outputs", "Inst").ok().out
    assert client(inst, runtime, "sign_in.py", trusted=ca, tries=[password]) == [True]
    # Without the CA nobody is told the password.
    assert client(inst, runtime, "sign_in.py", tries=[password]) == [False]


def test_a_notebook_runs_over_a_websocket_and_for_nobody_else(inst: Cli, runtime: Path, ca: Path) -> None:
    seen = client(inst, runtime, "run_notebook.py", trusted=ca)
    assert seen == {"result": "2", "nobody": 403, "another site": 403}


KEPT: list[dict[str, Any]] = json.loads((Path(__file__).parent / "observatory.json").read_text())


def cookies_of(answer: Answer) -> str:
    """What a browser sends back."""
    found: SimpleCookie = SimpleCookie()
    for line in answer.every("set-cookie"):
        found.load(line)
    return "; ".join(f"{name}={one.value}" for name, one in found.items() if one.value)


def form_of(page: Answer, **fields: str) -> str:
    """A page's form, filled in."""
    (token,) = re.findall(r'name="token" value="([^"]+)"', page.body.decode())
    return urlencode({**fields, "token": token})


def every_page(inst: Cli, ca: Path) -> dict[str, Seen]:
    """Pages of the portal, the api and Jupyter, signed in and not, by what they are."""
    shown = inst("outputs", "Inst", "--show-secrets", "--json").ok().json
    base = {name: f"https://{HERE}:{port}" for name, port in facts(inst)["ports"].items()}
    portal, jupyter = Visitor(base["proxy"], str(ca)), Visitor(base["jupyter"], str(ca))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    said = {"Content-Type": "application/json"}
    seen = {
        f"portal {path}": portal.see(path) for path in ("/", "/login", "/portal.css", "/portal.svg", "/x")
    }
    page = seen["portal /login"].page
    wrong = form_of(page, email="nobody@inst.example", password="wrong")
    cookie = {"Cookie": cookies_of(page)}
    seen["portal wrong sign-in"] = portal.see("/login", method="POST", body=wrong, more={**form, **cookie})
    right = form_of(page, email=shown["admin_email"], password=shown["admin_password"])
    sent = {**form, **cookie}
    done = observatory.get(f"{portal.base}/login", str(ca), method="POST", body=right, headers=sent)
    assert done.status == 303
    seen["portal sign-in"] = Seen(done, done)
    mine = {"Cookie": cookies_of(done)}
    seen["portal / signed in"] = portal.see("/", more=mine)
    leave = form_of(seen["portal / signed in"].page)
    seen["portal sign-out"] = portal.see("/logout", method="POST", body=leave, more={**form, **mine})
    for path in ("metadata", "api", "api_call", "nowhere"):
        seen[f"api {path}"] = portal.see(f"/api/v2/{path}")
    wrong = json.dumps({"email": "nobody@inst.example", "password": "wrong"})
    seen["api wrong sign-in"] = portal.see("/api/v2/login", method="POST", body=wrong, more=said)
    seen["api call of nobody"] = portal.see("/api/v2/api_call", method="POST", body="x")
    for path in ("/", "/login", "/api", "/api/contents", "/files/x", "/static/x"):
        seen[f"jupyter {path}"] = jupyter.see(path)
    token = {"Authorization": f"token {shown['jupyter_token']}"}
    for path in ("/lab", "/api/contents", "/files/x"):
        seen[f"jupyter {path} signed in"] = jupyter.see(path, more=token)
    return seen


def test_every_page_keeps_the_rules_of_mozillas_observatory(inst: Cli, ca: Path) -> None:
    pages = every_page(inst, ca)
    statuses = {name: seen.page.status for name, seen in pages.items()}
    answered = ("portal / signed in", "jupyter /lab signed in", "api metadata")
    assert [statuses[name] for name in answered] == [200] * 3
    found: dict[tuple[str, str], list[str]] = {}
    for name, seen in pages.items():
        for rule, what in findings(seen).items():
            found.setdefault((rule, what), []).append(name)
    kept = {(row["rule"], row["found"]): row["pages"] for row in KEPT if row["reason"]}
    everywhere = {key: list(pages) if where == ["*"] else where for key, where in kept.items()}
    assert found == everywhere


def test_the_same_deploy_again_changes_nothing_and_the_ca_stays(inst: Cli, ca: Path) -> None:
    before = pids(inst)
    again = inst("deploy", "--name", "Inst").ok()
    assert "Nothing changed" in again.err
    assert "Warning" not in again.err
    assert pids(inst) == before
    inst("stop", "Inst").ok()
    inst("start", "Inst").ok()
    assert inst("outputs", "Inst", "--ca").ok().out == ca.read_text()
    assert b"Gridup portal" in get(f"https://{HERE}:{facts(inst)['ports']['proxy']}/login", ca)


def test_plain_http_is_there_for_the_asking_with_a_warning_and_https_again(inst: Cli, ca: Path) -> None:
    before = pids(inst)
    plain = inst("deploy", "--name", "Inst", "--plain-http").ok()
    assert 'Warning: "Inst" speaks plain http at 0.0.0.0' in plain.err
    port = facts(inst)["ports"]["proxy"]
    assert b"Gridup portal" in get(f"http://{HERE}:{port}/login", None)
    # It is remembered, and said each time.
    again = inst("deploy", "--name", "Inst").ok()
    assert "Nothing changed" in again.err
    assert "Warning" in again.err
    back = inst("deploy", "--name", "Inst", "--no-plain-http").ok()
    assert "Warning" not in back.err
    assert facts(inst)["ports"]["proxy"] == port
    eventually(lambda: bool(pids(inst).get("proxy")))
    assert pids(inst)["api"] == before["api"]  # The api has nothing to do with it.
    assert inst("outputs", "Inst", "--ca").ok().out == ca.read_text()
    inst("check", "Inst", "--wait").ok()


def test_every_secret_is_replaced_and_the_data_stays(inst: Cli, runtime: Path, tmp_path: Path) -> None:
    with opened(inst, tmp_path, keys=inst.node() / "keys", tls=True, runtime=runtime) as before:
        held = {path: path.read_text() for path in (inst.node() / "secrets").iterdir() if path.is_file()}
        refused = inst("rotate", "Inst")
        assert refused.code == 2
        assert "--yes" in refused.err
        assert before.knock() == all_open(before)
        done = inst("rotate", "Inst", "--yes", "--json").ok().json
        assert (done["name"], done["accounts"], done["locked"]) == ("Inst", 1, 0)
        check_replaced(before)
    same = {path.name for path, text in held.items() if path.read_text() == text}
    assert same == {"server_uid", HAD}
    old = [held[inst.node() / "secrets" / name].strip() for name in ("server_key", "admin_password")]
    left = [
        path
        for path, _, text in files_below(inst.home, without=("runtimes", "engine"))
        if any(secret.encode() in text for secret in (*old, *before.told["keys"]))
    ]
    assert left == []
    assert "Nothing changed" in inst("deploy", "--name", "Inst").ok().err


def test_the_ca_outlives_the_node_with_its_data(inst: Cli, ca: Path) -> None:
    inst("deploy", "--name", "Inst", "--keep-data").ok()
    inst("destroy", "Inst", "--yes").ok()
    inst("deploy", "--name", "Inst", "--bind", HERE, "--no-keep-data", "--adopt").ok()
    assert inst("outputs", "Inst", "--ca").ok().out == ca.read_text()
    assert b"Gridup portal" in get(f"https://{HERE}:{facts(inst)['ports']['proxy']}/login", ca)
