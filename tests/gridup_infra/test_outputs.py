"""What a stack exports: URLs that can be opened, and a form that comes back whole."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gridup_infra import __version__
from gridup_infra.errors import StateError
from gridup_infra.outputs import EXPORT, NodeOutputs, url_host
from gridup_infra.spec import DeploySpec
from gridup_node.services import SERVICES, ports

NODE = NodeOutputs(
    spec=DeploySpec(name="My Lab_2", stack_id="0123456789abcdef", allow_cidr=("10.0.0.0/8",), port=8081),
    address="127.0.0.1",
    ports={**ports(), "proxy": 8081},
    ssh_user="ada",
    facts={"folder": "/a b/c", "bin": "/r/bin"},
)


def urls(node: NodeOutputs) -> dict[str, str]:
    return {name: end.url for name, end in node.endpoints().items()}


def test_each_service_has_an_address_that_a_person_can_use() -> None:
    assert urls(NODE) == {
        "proxy": "127.0.0.1",
        "ui": "http://127.0.0.1:8081/login",
        "api": "http://127.0.0.1:8081/api/v2",
        "ssh": "127.0.0.1:2222",
        "jupyter": "http://127.0.0.1:8888",
    }


def test_what_is_behind_the_front_door_is_reached_at_its_port() -> None:
    ends = NODE.endpoints()
    assert (ends["api"].host, ends["api"].port) == ("127.0.0.1", 8081)
    assert ends["jupyter"].port == 8888


def test_an_ipv6_address_stands_in_brackets_in_a_url_and_bare_elsewhere() -> None:
    node = replace(NODE, address="2001:db8::7")
    assert urls(node)["ui"] == "http://[2001:db8::7]:8081/login"
    assert urls(node)["ssh"] == "[2001:db8::7]:2222"
    assert node.endpoints()["ui"].host == "2001:db8::7"
    assert url_host("node.example") == "node.example"


@pytest.mark.parametrize(
    ("tls", "port", "url"),
    [
        (False, 80, "http://127.0.0.1/login"),
        (True, 443, "https://127.0.0.1/login"),
        (False, 443, "http://127.0.0.1:443/login"),
        (True, 80, "https://127.0.0.1:80/login"),
    ],
)
def test_the_schemes_own_port_is_left_out(tls: bool, port: int, url: str) -> None:
    node = replace(NODE, tls=tls, ports={**NODE.ports, "proxy": port})
    assert urls(node)["ui"] == url


def test_a_service_that_is_not_offered_has_its_reason_and_no_exported_url() -> None:
    node = replace(NODE, not_offered={"ssh": "no sshd on this machine"})
    assert node.endpoints()["ssh"].reason == "no sshd on this machine"
    assert "ssh" not in node.exports()["urls"]
    assert node.exports()["urls"]["ui"] == "http://127.0.0.1:8081/login"


def test_the_exports_are_those_announced_and_come_back_whole() -> None:
    node = replace(NODE, tls=True, not_offered={"ssh": "no sshd"})
    exports = node.exports()
    assert set(exports) == set(NodeOutputs.EXPORTS)
    assert exports["name"] == "My Lab_2"
    assert NodeOutputs.from_exports(json.loads(json.dumps(exports))) == node


def test_a_stack_that_has_not_got_so_far_has_no_node() -> None:
    assert NodeOutputs.from_exports({}) is None
    assert NodeOutputs.from_exports({"name": "Inst"}) is None


def _damaged(**changes: object) -> str:
    return json.dumps({**json.loads(NODE.exports()[EXPORT]), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "null",
        "[]",
        "7",
        {"a": 1},
        "{}",
        _damaged(spec=None),
        _damaged(spec=["name"]),
        _damaged(spec={"name": "…"}),
        _damaged(spec={"name": "Inst", "from-a-later-version": "1"}),
        _damaged(ports=None),
        _damaged(later=1),
    ],
)
def test_a_damaged_export_is_an_error_of_the_state_not_of_the_person(text: object) -> None:
    with pytest.raises(StateError, match="output 'node' can't be read"):
        NodeOutputs.from_exports({EXPORT: text})


def test_the_table_of_the_tutorial_is_in_order() -> None:
    assert list(NODE.endpoints()) == [row.name for row in SERVICES if row.proof and row.reached]


def test_an_older_layout_is_told_apart_from_damage() -> None:
    exports = NODE.exports()
    whole = json.loads(exports[EXPORT])
    whole["spec"]["generation"] = "1"
    with pytest.raises(StateError, match='The node "My Lab_2" was deployed by an older Gridup') as caught:
        NodeOutputs.from_exports({**exports, EXPORT: json.dumps(whole)})
    assert "Destroy it with that version" in caught.value.suggestion


def test_the_state_says_which_gridup_wrote_it() -> None:
    exports = NODE.exports()
    whole = json.loads(exports[EXPORT])
    assert whole.pop("written_by") == __version__
    before = NodeOutputs.from_exports({**exports, EXPORT: json.dumps(whole)})
    assert before is not None and before.written_by == ""
