"""A node on a machine that really boots, whichever cloud it may stand for: from its first boot to its end.

The machine is told what a cloud would tell it, and has nothing beforehand but the image that the node's own
is built from. All that happens to it then comes by the command line, over ssh.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gridup_infra.outputs import NodeOutputs
from gridup_infra.processes import run, wait_until
from gridup_infra.spec import DeploySpec
from gridup_infra.vm import keys
from gridup_infra.vm.node import host
from gridup_node.vm import first_boot
from gridup_node.vm.docker import NODE
from gridup_node.vm.user_data import Host, user_data
from support.booted import ADDRESS_VARIABLE, ID_VARIABLE, PUBLIC_KEY, BootedCli
from support.breaking import all_end, engine_of, kill_run
from support.cache import shared_home
from support.containers import another_version
from support.local_node import HER, HERS, client
from support.pebble_rig import pebble
from support.registry import publish
from support.vm_network import GATEWAY
from support.vm_rig import Machine, Rig

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine, pytest.mark.node, pytest.mark.vm]

DEVICE = "/dev/disk/by-id/nvme-data"

DOMAIN = "node.inst.example"

DATA = {"datasets": ["Census"], "data": 600_000.0, "users": [HER, "admin@example.org"]}
"""What the real client lays down, and finds after whatever happens to the machine."""

BOOM = """
if __name__ == "__main__":
    import sys

    sys.stderr.write("boom\\n")
    sys.exit(3)
"""


@dataclass
class Inst:
    """The node that the tests share, on its machine."""

    cli: BootedCli
    machine: Machine
    ca: Path

    def containers(self) -> dict[str, str]:
        """Each container's id, by its name."""
        told = self.machine.run("docker", "ps", "--all", "--no-trunc", "--format", "{{.Names}} {{.ID}}")
        return dict(line.split() for line in told.splitlines())


def settle(machine: Machine) -> first_boot.State:
    """How its first boot ends."""

    def state() -> first_boot.State:
        return first_boot.parse(machine.try_run(*first_boot.READ).stdout)

    assert wait_until(lambda: state().settled, timeout=900, every=0.5), machine.console[-2000:]
    return state()


def outputs_of(cli: BootedCli, stack: str = "inst") -> NodeOutputs:
    """What a stack exports, as its state has it."""
    outputs = NodeOutputs.from_exports(stack_resource(cli, stack)["outputs"])
    assert outputs is not None
    return outputs


def stack_resource(cli: BootedCli, stack: str = "inst") -> Any:
    state = json.loads((cli.home / f"state/.pulumi/stacks/gridup/{stack}.json").read_text())
    rows = state["checkpoint"]["latest"]["resources"]
    return next(row for row in rows if row["type"] == "pulumi:pulumi:Stack")


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, cache: Path, engine: Path) -> Iterator[BootedCli]:
    yield BootedCli(shared_home(tmp_path_factory.mktemp("vm") / "home", cache))


def hosted(cli: BootedCli, machine: Machine, name: str, **told: Any) -> bytes:
    """Deploy as far as the machine's own key, and tell what a cloud would hand to the machine."""
    cli.environment |= {ADDRESS_VARIABLE: machine.address, ID_VARIABLE: f"{name}-1"}
    words = ("--cloud", "booted", "--allow-cidr", "0.0.0.0/0", "--no-node", "--no-wait")
    cli.deploy(name, *words)
    outputs = outputs_of(cli, DeploySpec(name=name).stack)
    plan: Host = host(outputs.spec, outputs.facts[PUBLIC_KEY], [DEVICE])
    return user_data(replace(plan, **told))


@pytest.fixture(scope="module")
def inst(cli: BootedCli, vm_rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inst]:
    machine = vm_rig.machine()
    machine.boot(hosted(cli, machine, "Inst"), {DEVICE: vm_rig.disk(1024)})
    ended = cli("deploy", "--name", "Inst").ok()
    for row in ("host", "UI", "api", "ssh", "jupyter"):
        assert any(row in line and "✅" in line for line in ended.out.splitlines()), ended.out
    ca = tmp_path_factory.mktemp("ca") / "inst-ca.pem"
    ca.write_text(cli("outputs", "Inst", "--ca").ok().out)
    yield Inst(cli, machine, ca)


def test_all_is_https_and_its_own_ca_vouches_for_it(inst: Inst) -> None:
    found = inst.cli("outputs", "Inst", "--json").ok().json
    address = inst.machine.address
    assert found["ui_url"] == f"https://{address}/login"
    assert found["api_url"] == f"https://{address}/api/v2"
    assert found["jupyter_url"] == f"https://{address}:8888"
    fetch = ["curl", "--noproxy", "*", "--silent", "--show-error", "--cacert", str(inst.ca)]
    page = subprocess.run([*fetch, found["ui_url"]], capture_output=True, text=True, timeout=30)
    assert "Gridup portal" in page.stdout, page.stderr
    moved = subprocess.run([*fetch, "--head", f"http://{address}/x"], capture_output=True, text=True)
    assert f"https://{address}/x" in moved.stdout
    assert inst.cli("check", "Inst").ok()


def test_the_real_client_logs_in_and_works_where_it_trusts_the_ca(inst: Inst, runtime: Path) -> None:
    seen = client(inst.cli, runtime, "set_up.py", trusted=inst.ca, her=HER, hers=HERS)
    assert (seen["mock"], seen["data"]) == (300_000.0, "refused")
    # Beside a job of hers that goes on.
    assert data(inst, runtime) == DATA


def data(inst: Inst, runtime: Path) -> Any:
    """What the administrator finds there."""
    return client(inst.cli, runtime, "list_data.py", trusted=inst.ca)


def test_the_key_is_nowhere_in_plain(inst: Inst) -> None:
    files = [
        path
        for path in inst.cli.home.rglob("*")
        if path.is_file() and not path.is_relative_to(inst.cli.home / "engine")
    ]
    inst.cli("ssh", "Inst", "--", "true").ok()
    own = inst.cli.home / "stacks/inst/keys/client_ed25519"
    assert own.stat().st_mode & 0o777 == 0o600
    secret = own.read_text().splitlines()[2]
    assert not [path for path in files if secret in path.read_text(errors="replace") and path != own]


def test_a_person_gets_in_and_reads_every_log(inst: Inst) -> None:
    ended = inst.cli("ssh", "Inst", "--", "sh", "-c", "id -un; exit 7")
    assert (ended.code, ended.out) == (7, "gridup\n")
    for service in ("api", "proxy", "jupyter", "ssh"):
        lines = inst.cli("logs", "Inst", service, "--lines", "5").ok().out
        assert service == "proxy" or lines, service
    assert "Accepted publickey for gridup" in inst.cli("logs", "Inst", "ssh", "--lines", "50").ok().out


def test_the_same_again_changes_nothing(inst: Inst) -> None:
    before = inst.containers()
    assert set(before) == {"gridup-proxy", "gridup-api", "gridup-jupyter"}
    again = inst.cli("deploy", "--name", "Inst").ok()
    assert "Nothing changed" in again.err
    assert inst.containers() == before
    assert inst.cli("preview", "--name", "Inst").ok().out == "No change.\n"


def test_what_was_changed_by_hand_is_seen_and_put_right(inst: Inst) -> None:
    inst.machine.run("docker", "rm", "--force", "gridup-jupyter")
    inst.machine.run("sh", "-c", "echo 'ssh-ed25519 EVIL x' >>/home/gridup/.ssh/authorized_keys")
    assert "node: changed" in inst.cli("refresh", "Inst").ok().err
    inst.cli("deploy", "--name", "Inst").ok()
    assert "gridup-jupyter" in inst.containers()
    assert b"EVIL" not in inst.machine.read("/home/gridup/.ssh/authorized_keys")


def test_a_persons_key_opens_the_machine_without_anything_being_replaced(inst: Inst, tmp_path: Path) -> None:
    private, public = keys.new_key()
    (tmp_path / "ada.pub").write_text(f"{public}\n")
    (tmp_path / "ada").touch(mode=0o600)
    (tmp_path / "ada").write_text(private)
    before = inst.containers()
    inst.cli("deploy", "--name", "Inst", "--ssh-key", str(tmp_path / "ada.pub")).ok()
    assert inst.containers() == before
    known = inst.cli.home / "stacks/inst/keys/known_hosts"
    options = ("-F", "none", "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes")
    argv = [
        "ssh",
        *options,
        "-i",
        str(tmp_path / "ada"),
        f"gridup@{inst.machine.address}",
        "docker",
        "ps",
        "-q",
    ]
    entered = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert len(entered.stdout.split()) == 3, entered.stderr


def test_a_new_version_is_brought_up_in_place_and_keeps_the_data(
    inst: Inst, runtime: Path, tmp_path: Path
) -> None:
    before, ca = inst.containers(), inst.ca.read_text()
    newer = another_version(tmp_path, facts="ANOTHER = 1")
    inst.cli("deploy", "--name", "Inst", env=newer).ok()
    assert not set(before.values()) & set(inst.containers().values())
    assert inst.cli("outputs", "Inst", "--ca").ok().out == ca
    assert data(inst, runtime) == DATA


def test_a_version_that_cannot_become_healthy_gives_way_to_the_one_before(inst: Inst, tmp_path: Path) -> None:
    inst.cli("deploy", "--name", "Inst").ok()
    image = inst.machine.run("docker", "inspect", "--format", "{{.Config.Image}}", "gridup-api")
    failed = inst.cli("deploy", "--name", "Inst", env=another_version(tmp_path, container=BOOM))
    assert failed.code == 4, failed.err
    assert "ended with exit code 3" in failed.err
    assert "boom" in failed.err
    assert "The former release runs again." in failed.err
    assert inst.machine.run("docker", "inspect", "--format", "{{.Config.Image}}", "gridup-api") == image
    inst.cli("check", "Inst", "--wait", "--timeout", "60").ok()
    # And the next deploy finds all as it was.
    inst.cli("deploy", "--name", "Inst").ok()
    images = inst.machine.run("docker", "images", "--format", "{{.Repository}}", "gridup-node").split()
    assert len(images) <= 3


def test_a_deploy_that_is_killed_is_finished_by_the_next(inst: Inst, tmp_path: Path) -> None:
    newer = another_version(tmp_path, facts="KILLED = 1")
    run = inst.cli.start("deploy", "--name", "Inst", env=newer)
    busy = ("pgrep", "--full", "release-.*pyz apply")
    assert wait_until(lambda: inst.machine.try_run(*busy).ok, timeout=120, every=0.1)
    engine = engine_of(run)
    kill_run(run, providers=True)
    all_end([engine])
    # What it began there goes on to its end, and the next one waits for that.
    assert inst.machine.try_run(*busy).ok
    inst.cli("deploy", "--name", "Inst", env=newer).ok()
    inst.cli("deploy", "--name", "Inst").ok()


def test_after_a_reboot_all_is_back_and_the_data_is_there(inst: Inst, runtime: Path) -> None:
    ca = inst.machine.read(f"{NODE}/proxy/caddy/pki/authorities/local/root.crt")
    inst.machine.reboot()
    inst.cli("check", "Inst", "--wait", "--timeout", "120").ok()
    assert inst.machine.read(f"{NODE}/proxy/caddy/pki/authorities/local/root.crt") == ca
    assert "Nothing changed" in inst.cli("deploy", "--name", "Inst").ok().err
    assert data(inst, runtime) == DATA


@pytest.mark.tier("deep")
def test_without_the_node_the_machine_stays_a_host_and_the_data_is_kept(inst: Inst) -> None:
    inst.cli("deploy", "--name", "Inst", "--no-node").ok()
    assert inst.containers() == {}
    assert inst.machine.try_run("test", "-e", f"{NODE}/secrets/admin_password").ok
    inst.cli("deploy", "--name", "Inst").ok()
    assert inst.cli("check", "Inst").ok()


def test_another_host_key_at_its_address_is_refused(inst: Inst) -> None:
    keep = "for f in /etc/ssh/ssh_host_ed25519_key*; do"
    inst.machine.run("sh", "-c", f'{keep} mv "$f" "$f.kept"; done; ssh-keygen -A; systemctl restart ssh')
    refused = inst.cli("ssh", "Inst", "--", "true")
    assert refused.code != 0
    deploy = inst.cli("deploy", "--name", "Inst", "--admin-email", "b@inst.example")
    assert deploy.code == 4, deploy.err
    assert "is not the one that was pinned at first contact" in deploy.err
    inst.machine.run(
        "sh", "-c", 'for f in /etc/ssh/*.kept; do mv "$f" "${f%.kept}"; done; systemctl restart ssh'
    )
    inst.cli("deploy", "--name", "Inst").ok()


@pytest.mark.tier("deep")
def test_a_published_image_is_pulled_by_its_digest(inst: Inst) -> None:
    built = inst.machine.run("docker", "inspect", "--format", "{{.Config.Image}}", "gridup-api").strip()
    image = publish(inst.machine, built)
    inst.cli("deploy", "--name", "Inst", "--image", image).ok()
    used = inst.machine.run("docker", "inspect", "--format", "{{.Config.Image}}", "gridup-api").strip()
    assert used == image
    lost = image.replace("@sha256:", "@sha256:" + "0" * 8)[: len(image)]
    failed = inst.cli("deploy", "--name", "Inst", "--image", lost)
    assert failed.code == 4
    assert f"The image {lost} could not be pulled" in failed.err
    inst.cli("check", "Inst").ok()


@pytest.mark.tier("deep")
def test_a_domain_name_gets_its_certificate_by_acme_in_place(inst: Inst, cache: Path, tmp_path: Path) -> None:
    address = inst.machine.address
    with pebble(cache, tmp_path, find=lambda _: address, http=80, https=443, host=GATEWAY) as authority:
        env = {"GRIDUP_ACME_URL": authority.url, "GRIDUP_ACME_CA": str(authority.ca)}
        # Nobody here knows the name, so that its rows could not be proven.
        inst.cli("deploy", "--name", "Inst", "--domain-name", DOMAIN, "--no-wait", env=env).ok()
        ca = tmp_path / "told.pem"
        ca.write_text(inst.cli("outputs", "Inst", "--ca").ok().out)
        where = ["--resolve", f"{DOMAIN}:443:{address}", "--noproxy", "*"]
        fetch = ["curl", "--silent", "--show-error", "--cacert", str(ca), *where, f"https://{DOMAIN}/login"]
        served = wait_until(lambda: "Gridup portal" in run(fetch, timeout=20).stdout, timeout=60, every=1)
        assert served, inst.machine.run("docker", "logs", "--tail=20", "gridup-proxy")
    assert ca.read_text().strip() == authority.ca.read_text().strip()


def test_its_end_needs_no_machine(inst: Inst) -> None:
    inst.machine.poweroff()
    inst.cli("destroy", "Inst", "--yes", timeout=150).ok()


@pytest.mark.tier("deep")
def test_a_first_boot_that_fails_ends_the_deploy_with_its_log_and_the_next_one_tries_again(
    cli: BootedCli, vm_rig: Rig, cache: Path
) -> None:
    machine = vm_rig.machine()
    machine.boot(hosted(cli, machine, "Broken", disk_seconds=3))
    failed = cli("deploy", "--name", "Broken")
    assert failed.code == 4, failed.err
    assert "The first boot failed at step disk: the data disk did not appear within 3 s" in failed.err
    assert "failed at step disk" in failed.err
    again = cli("deploy", "--name", "Broken", "--no-node")
    assert again.code == 4, again.err
    assert "did not appear" in again.err
    cli("destroy", "Broken", "--yes").ok()
