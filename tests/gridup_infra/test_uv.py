"""What uv and pip run with."""

from __future__ import annotations

from pathlib import Path

import pytest

from gridup_infra import uv
from gridup_infra.errors import SetupError
from gridup_infra.uv import PLACES, environment


@pytest.mark.parametrize("name", sorted(PLACES))
def test_a_variable_that_leads_nowhere_is_named(tmp_path: Path, name: str) -> None:
    missing = tmp_path / "no such place"
    there = tmp_path / "there"
    there.mkdir()
    between = PLACES[name]
    path = str(missing).replace(" ", "-")
    value = path if between == "" else f"{there}{between or ' '}{path}"
    with pytest.raises(SetupError, match=f"The variable {name} names {path}, which is not there.") as caught:
        environment({name: value})
    assert name in caught.value.suggestion
    assert environment({name: str(there)})[name] == str(there)
    environment({name: ""})


def test_an_address_is_no_place() -> None:
    environment(
        {
            "PIP_FIND_LINKS": "https://wheels.example/simple",
            "UV_FIND_LINKS": "https://a.example,https://b.example",
        }
    )


def test_a_mirror_that_is_set_for_one_is_meant_for_both() -> None:
    made = environment({"PIP_INDEX_URL": "https://a.example", "PIP_EXTRA_INDEX_URL": "https://b.example"})
    assert (made["UV_DEFAULT_INDEX"], made["UV_INDEX"]) == ("https://a.example", "https://b.example")
    assert environment({"UV_DEFAULT_INDEX": "https://a.example"})["PIP_INDEX_URL"] == "https://a.example"
    both = environment({"UV_INDEX_URL": "https://u.example", "PIP_INDEX_URL": "https://p.example"})
    assert (both["UV_INDEX_URL"], both["PIP_INDEX_URL"]) == ("https://u.example", "https://p.example")
    assert "UV_DEFAULT_INDEX" not in both


def test_the_systems_own_cas_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "ca.crt"
    store.write_text("-----BEGIN CERTIFICATE-----\n")
    monkeypatch.setattr(uv, "STORES", ("/nowhere", str(store)))
    made = environment({"HOME": "/x"})
    assert (made["SSL_CERT_FILE"], made["PIP_CERT"]) == (str(store), str(store))
    own = tmp_path / "own.crt"
    own.touch()
    assert environment({"SSL_CERT_FILE": str(own)})["PIP_CERT"] == str(own)


def test_what_would_lead_them_elsewhere_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uv, "STORES", ())
    assert environment({"PYTHONPATH": "/x", "UV_PYTHON": "3.9", "HTTPS_PROXY": "http://p"}).keys() == {
        "HTTPS_PROXY",
        "UV_NO_PROGRESS",
    }
