"""Who may call which method: our table over every method that syft has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gridup_node.guard import methods
from gridup_node.guard.methods import METHODS, Role
from support import attacks
from support.node_process import ROOT
from support.syft_client import run_script

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def registry(node_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path_factory.getbasetemp()),
        "PYTHONPATH": str(ROOT / "infra"),
    }
    done = run_script(node_python, "registry.py", env=env, timeout=240)
    assert done.ok, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_the_table_opens_nothing_that_syft_does_not_have(registry: Any) -> None:
    # It is none of its methods: syft answers it before it looks for one.
    assert set(METHODS) - set(registry["syft"]) == {"metadata"}
    others = methods.PEER | methods.ASSOCIATION | methods.PEER_OF_NETWORK
    assert others <= set(registry["syft"])


def test_each_method_is_open_to_whom_the_table_says_and_syfts_own_rights_still_count(registry: Any) -> None:
    for path, roles in registry["syft"].items():
        for role in (Role.DATA_SCIENTIST, Role.DATA_OWNER, Role.ADMIN):
            may = path in registry["domain"][role.name]
            assert may == (methods.allowed(role, path) and role.name in roles), (path, role)
            assert not methods.allowed(Role.NOBODY, path), path


def test_a_method_that_a_later_syft_adds_is_closed_to_everybody() -> None:
    assert not any(methods.allowed(role, "dataset.a_new_one") for role in Role)


def test_without_an_account_syft_opens_what_nodes_ask_each_other_and_nothing_else(
    registry: Any,
) -> None:
    assert set(registry["domain"]["GUEST"]) == methods.PEER
    assert set(registry["network"]["GUEST"]) == (methods.PEER | methods.ASSOCIATION | methods.PEER_OF_NETWORK)
    # syft's own answer.
    open_to_guests = [path for path, roles in registry["syft"].items() if "GUEST" in roles]
    assert len(open_to_guests) > 40
    # What strangers try on every node.
    assert set(open_to_guests) <= set(attacks.EVERY_METHOD)


def test_guests_read_the_catalogue_and_do_nothing_else(registry: Any) -> None:
    catalogue = {"dataset.get_all", "dataset.search", "action.get_mock"}
    who_am_i = {"metadata.get_metadata", "user.get_current_user"}
    assert set(registry["guests"]["GUEST"]) == catalogue | who_am_i | methods.PEER
    assert {path for path in METHODS if methods.allowed(Role.GUEST, path)} == catalogue | who_am_i


def test_nobody_calls_a_function_of_numpy_by_its_path(registry: Any) -> None:
    assert registry["lib"] == 0
    assert registry["syft's lib"] > 500


@pytest.mark.parametrize(
    "path",
    [
        # They run what the caller names, connect where the caller says, or write what the caller sends.
        "action.execute",
        "attestation.get_cpu_attestation",
        "blob_storage.mount_azure",
        "migration.apply_migration_data",
        "migration.get_migration_data",
        "network.add_route",
        "network.update_route_priority",
        "policy.add",
        "project.sync",
        "queue",
        "worker_image.build",
        "worker_pool.launch",
    ],
)
def test_what_connects_runs_or_writes_at_a_callers_word_is_open_to_nobody(path: str) -> None:
    assert not any(methods.allowed(role, path) for role in Role)
