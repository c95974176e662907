"""What the tools of others see where nobody has made anything safe: so they would see it at a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import audits
from support import http_rig as rig
from support.ssh_rig import HERE, Machine
from support.vm_rig import Rig

pytestmark = pytest.mark.tier("deep")


@pytest.mark.vm
def test_what_lynis_finds_before_the_machine_is_a_nodes_is_more(vm_rig: Rig) -> None:
    machine = vm_rig.machine()
    machine.boot(b"#cloud-config\n{}\n")
    machine.run("cloud-init", "status", "--wait", timeout=120)
    found = audits.lynis(machine)
    assert set(audits.LYNIS["gone"]) <= set(found) & set(audits.LYNIS["before"])


def test_a_certificate_that_nobody_vouches_for_is_seen(tmp_path: Path) -> None:
    for name in ("server", "other"):
        (tmp_path / name).mkdir()
    made, other = (rig.self_signed(tmp_path / name) for name in ("server", "other"))
    with rig.serve(rig.node(), tls=made.context) as server:
        found = audits.tls("127.0.0.1", server.port, other.cert)["findings"]
    assert {"mozilla: certificate_path_validation", "not vouched for by its ca"} <= set(found)


def test_what_openssh_offers_of_itself_is_seen(tmp_path: Path) -> None:
    with Machine(tmp_path) as machine:
        found = {row["algorithm"] for row in audits.ssh(HERE, machine.port)}
    assert {"hmac-sha1", "ecdh-sha2-nistp256", "umac-64@openssh.com"} <= found
