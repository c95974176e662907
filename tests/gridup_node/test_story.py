"""A node's life with the real syft client: data goes in, the node dies, all of it is still there."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from gridup_infra import processes

pytestmark = [pytest.mark.tier("gate"), pytest.mark.node]

HER, HERS = "ada@inst.example", "Ana1ytical-Engine"
NEW = "S3cret!x9Qz"


@pytest.mark.tier("deep")
def test_data_outlives_a_kill_and_a_wiped_temporary_folder(make_node: Callable[..., Any]) -> None:
    node = make_node()
    node.start()

    seen = node.client("set_up.py", her=HER, hers=HERS)
    assert seen["stock"] == "SyftException"
    assert seen["guest sign-up"] == "ConnectionError"
    assert (seen["mock"], seen["data"], seen["before approval"]) == (300_000.0, "refused", "refused")
    assert seen["job"] == 600_000.0

    assert seen["running"] == "PROCESSING"

    # The process alone, not its jobs: as when the system is short of memory.
    (job,) = psutil.Process(node.process.pid).children()
    # A copy in the job would keep open what the server has closed, and the reverse proxy would wait for it.
    assert [one for one in job.net_connections() if one.laddr.port == node.port] == []
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait()
    assert processes.wait_until(lambda: not job.is_running(), timeout=10), "a job outlived its node"
    shutil.rmtree(node.temporary)
    node.start()
    kept = node.client("look_again.py", her=HER, hers=HERS, slow=seen["slow"])
    assert kept["datasets"] == ["Census"]
    assert (kept["data"], kept["mock"], kept["hers"]) == (600_000.0, 300_000.0, "refused")
    assert kept["lost"][0] == "INTERRUPTED"
    assert "The node was restarted" in kept["lost"][1]
    # syft alone leaves the default pool without a consumer after a restart: the job would never run.
    assert kept["job"] == 600_000.0
    # A job's process ends some seconds after its result is there.
    assert kept["workers"] in (["Idle"], ["Consuming"])

    node.stop()


@pytest.mark.tier("deep")
def test_the_password_is_changed_before_and_after_the_first_start(make_node: Callable[..., Any]) -> None:
    node = make_node()
    node.configure()
    first = node.admin("set-password", json.dumps({"password": "First-Pass1"}))
    assert (first.code, first.stderr) == (0, "the administrator's password is set\n")

    node.start()
    before = node.client("sign_in.py", tries=["First-Pass1", "changethis"])
    assert before == [True, False]
    done = node.admin("set-password", json.dumps({"password": NEW}))
    assert done.code == 0, done.stderr
    again = node.admin("set-password", json.dumps({"password": NEW}))
    assert (again.code, again.stderr) == (0, "the administrator already has this password\n")
    assert node.client("sign_in.py", tries=[NEW, "First-Pass1"]) == [True, False]
    assert json.loads(node.admin("secrets").stdout)["admin_password"] == NEW

    log = node.log.read_text()
    for secret in ("First-Pass1", NEW, node.secret("server_key")):
        assert secret not in log + done.stdout + done.stderr + first.stderr


def test_a_network_node_is_syfts_gateway(make_node: Callable[..., Any]) -> None:
    node = make_node(node_type="network", name="Net")
    node.start()
    metadata = node.get_json("/api/v2/metadata")
    assert (metadata["name"], metadata["server_type"]) == ("Net", "gateway")


def test_what_a_node_tells_of_itself_is_its_owners(make_node: Callable[..., Any]) -> None:
    def told() -> list[str]:
        metadata = node.get_json("/api/v2/metadata")
        return [metadata["organization"], metadata["description"]]

    node = make_node(name="Inst")
    node.start()
    assert told() == ["Inst", ""], "syft's own are nobody's"
    node.more = {"organization": "Lab of Inst", "description": "Cohorts of 2026"}
    node.start()
    theirs = {"organization": "Theirs", "description": "Set by the administrator"}
    assert told() == node.client("about.py", sets=theirs) == ["Lab of Inst", "Cohorts of 2026"]
    node.more = {}
    node.start()
    assert told() == ["Theirs", "Set by the administrator"], "nobody has said anything else"
    node.more = {"organization": "", "description": ""}
    node.start()
    assert told() == ["Inst", ""]


@pytest.mark.tier("deep")
@pytest.mark.timeout(3600)
def test_a_gigabyte_is_uploaded_and_comes_back(make_node: Callable[..., Any]) -> None:
    """syft's client packs it into itself a dozen times, twice: nearly all of the time is the client's."""
    node = make_node()
    node.start()
    before, size = node.peak, 1024**3
    assert node.client("upload_large.py", limit=3000, bytes=size) == {"same": True, "bytes": size}
    # As it comes, what was signed, what syft makes of it: without the guard it was fourteen times the size.
    assert node.peak - before < 7 * size
    node.stop()


def test_guests_see_the_catalogue_where_the_node_is_set_to_it_and_nothing_more(
    make_node: Callable[..., Any],
) -> None:
    node = make_node(more={"guests": True})
    node.start()
    seen = node.client("as_guest.py")
    assert seen == {"datasets": ["Census"], "mock": 300_000.0, "data": "refused", "users": "refused"}
    node.stop()


def test_a_domain_is_associated_with_a_network_node_and_a_project_begins(
    make_node: Callable[..., Any],
) -> None:
    domain, network = make_node(name="Dom"), make_node(node_type="network", name="Net")
    domain.start()
    network.start()
    seen = domain.client(
        "associate.py",
        network=network.url,
        network_password=network.secret("admin_password"),
        her=HER,
        hers=HERS,
    )
    assert seen["first"] == "Request"
    assert "Routes Exchanged" in seen["after approval"]
    assert (seen["known there"], seen["known here"]) == (["Dom"], ["Net"])
    assert "successfully added to 'P'" in seen["project"]
    assert seen["requests"] == 1
    assert seen["health"] == "ACTIVE"
    domain.stop()
    network.stop()
