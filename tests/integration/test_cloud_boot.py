"""`gridup deploy --cloud …` to its end on each cloud, on machines that really boot.

The cloud is an emulator. What it is told to run is booted by a hypervisor of the tests', with exactly the
user-data that the API holds; nothing of this repository is mounted there. All that is one cloud's alone is
its `CloudRig`. test_vm_node shows what is the same on every machine, and test_first_boot the first boot of a
bare system.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gridup_infra.processes import run
from gridup_node.vm.docker import NODE
from support.argvs import Argvs
from support.aws_cloud import aws_tenancy
from support.azure_cloud import azure_tenancy
from support.cache import shared_home
from support.cli import REPOSITORY, Cli
from support.containers import another_version
from support.deep import deep
from support.hypervisor import Hypervisor
from support.local_node import HER, HERS, client
from support.rotated import check_replaced, opened
from support.tenancy import CloudRig
from support.vm_rig import Machine, Rig

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine, pytest.mark.node, pytest.mark.vm]

TENANCIES = {"aws": aws_tenancy, "azure": azure_tenancy}

OPTIONS = ("--allow-cidr", "0.0.0.0/0", "--timeout", "600")

DATA = {"datasets": ["Census"], "data": 600_000.0, "users": [HER, "admin@example.org"]}

PASSWORD = "S3cret!x9Qz"

OTHERS = "C3NzaC1lZDI1NTE5AAAAI" + "A" * 43
"""Of a key that is not the machine's."""

BOOM = """
if __name__ == "__main__":
    import sys

    sys.stderr.write("boom\\n")
    sys.exit(3)
"""


@dataclass
class Cloud:
    """Where machines boot, and a command line that is its customer.

    Attributes:
        said: what the first deploy wrote.
        argvs: what all processes were started with meanwhile.
    """

    tenancy: CloudRig
    hypervisor: Hypervisor
    cli: Cli
    said: str = ""
    argvs: frozenset[str] = frozenset()

    @property
    def machine(self) -> Machine:
        return self.hypervisor.only().machine

    def words(self, name: str = "Inst") -> tuple[str, ...]:
        """Of a deploy."""
        return ("deploy", "--name", name, *self.tenancy.words, *OPTIONS)


on_one = pytest.mark.parametrize("cloud", ["aws", deep("azure")], indirect=True)
"""For what is the same code on both: on one of them in the gate."""


@pytest.fixture(scope="module", params=TENANCIES)
def cloud(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    cache: Path,
    engine: Path,
    vm_rig: Rig,
) -> Iterator[Cloud]:
    home = shared_home(tmp_path_factory.mktemp("cloud") / "home", cache)
    with TENANCIES[request.param](tmp_path_factory.mktemp(request.param), cache) as tenancy:
        cli = tenancy.cli(home)
        with Hypervisor(vm_rig, tenancy.machines) as hypervisor:
            tenancy.obey(hypervisor)
            yield Cloud(tenancy, hypervisor, cli)
            cli.destroy_all()


@pytest.fixture(scope="module")
def inst(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    """The node that the tests share."""
    password = tmp_path_factory.mktemp("password") / "password"
    password.write_text(PASSWORD)
    with Argvs() as seen:
        ended = cloud.cli(*cloud.words(), "--admin-password-file", str(password), timeout=1200)
    cloud.hypervisor.check()
    assert ended.code == 0, f"{ended.err}\n{console(cloud)}"
    all_green(ended.out)
    assert "the host key is the one on its console: SHA256:" in ended.err
    cloud.said, cloud.argvs = ended.out + ended.err, frozenset(seen.lines)
    return cloud


def console(cloud: Cloud) -> str:
    return "\n".join(one.machine.console[-3000:] for one in cloud.hypervisor.booted.values())


def all_green(table: str) -> None:
    for row in ("host", "UI", "api", "ssh", "jupyter"):
        assert any(row in line and "✅" in line for line in table.splitlines()), table


def ca_of(cloud: Cloud, folder: Path) -> Path:
    path = folder / "inst-ca.pem"
    path.write_text(cloud.cli("outputs", "Inst", "--ca").ok().out)
    return path


def test_the_machine_was_told_what_the_api_holds_and_nothing_else(inst: Cloud) -> None:
    booted = inst.hypervisor.only()
    held = inst.tenancy.user_data(booted.identity)
    assert hashlib.sha256(held).hexdigest() == booted.sent
    assert booted.machine.read("/var/lib/cloud/instance/user-data.txt") == held
    mounts = booted.machine.run("cat", "/proc/self/mountinfo")
    assert str(REPOSITORY) not in mounts
    assert inst.tenancy.address() == booted.machine.address
    assert inst.cli("outputs", "Inst", "--json").ok().json["address"] == inst.tenancy.name()


@pytest.mark.tier("deep")
def test_no_secret_is_said_or_kept_in_plain(inst: Cloud) -> None:
    """Case G12: the password that was given, the key that opens the machine, and the customer's own."""
    shown = inst.cli("outputs", "Inst", "--show-secrets", "--json").ok().json
    assert shown["admin_password"] == PASSWORD
    inst.cli("ssh", "Inst", "--", "true").ok()
    own = inst.cli.home / "stacks/inst/keys/client_ed25519"
    assert (own.stat().st_mode & 0o777, own.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    secrets = (PASSWORD, shown["jupyter_token"], own.read_text().splitlines()[2], *inst.tenancy.secrets)
    masked, logs = inst.cli("outputs", "Inst").ok(), inst.cli("logs", "Inst", "--lines", "1000").ok()
    told = inst.tenancy.user_data(inst.hypervisor.only().identity).decode("latin-1")
    files = [
        path.read_text(errors="replace")
        for path in inst.cli.home.rglob("*")
        if path.is_file() and path != own and not path.is_relative_to(inst.cli.home / "engine")
    ]
    said = (inst.said, masked.out, masked.err, logs.out, logs.err, told, inst.tenancy.said())
    assert any("pulumi" in line for line in inst.argvs)
    for secret in secrets:
        assert not [text for text in (*said, *inst.argvs, *files) if secret in text]


def test_its_certificate_is_from_whom_the_cloud_can_have_vouch_for_it(inst: Cloud, tmp_path: Path) -> None:
    name, trusted = inst.tenancy.name(), ca_of(inst, tmp_path)
    fetch = ["curl", "--noproxy", "*", "--silent", "--verbose", "--cacert", str(trusted)]
    page = run([*inst.cli.around, *fetch, f"https://{name}/login"], timeout=30)
    assert "Gridup portal" in page.stdout, page.stderr
    [issuer] = [line for line in page.stderr.splitlines() if "issuer:" in line]
    assert inst.tenancy.issuer in issuer


@pytest.mark.tier("deep")
def test_a_command_runs_on_it(inst: Cloud) -> None:
    ended = inst.cli("ssh", "Inst", "--", "sh", "-c", "id -un; exit 7")
    assert (ended.code, ended.out) == (7, "gridup\n")


@pytest.mark.tier("deep")
def test_the_real_client_logs_in_with_the_account_of_the_outputs(
    inst: Cloud, runtime: Path, tmp_path: Path
) -> None:
    trusted = ca_of(inst, tmp_path)
    seen = client(inst.cli, runtime, "set_up.py", trusted=trusted, her=HER, hers=HERS)
    assert (seen["mock"], seen["data"]) == (300_000.0, "refused")
    assert data(inst, runtime, trusted) == DATA


def data(cloud: Cloud, runtime: Path, trusted: Path) -> Any:
    return client(cloud.cli, runtime, "list_data.py", trusted=trusted)


@pytest.mark.tier("deep")
def test_after_a_reboot_all_five_are_green_and_the_data_is_there(
    inst: Cloud, runtime: Path, tmp_path: Path
) -> None:
    inst.hypervisor.reboot()
    all_green(inst.cli("check", "Inst", "--wait").ok().out)
    assert data(inst, runtime, ca_of(inst, tmp_path)) == DATA


def test_stop_and_start_are_the_clouds_own_and_keep_the_address(inst: Cloud) -> None:
    address = inst.machine.address
    inst.cli("stop", "Inst").ok()
    assert state(inst) == "stopped"
    assert not inst.machine.running
    all_green(inst.cli("start", "Inst").ok().out)
    assert inst.machine.address == address


@pytest.mark.tier("deep")
def test_a_machine_that_was_stopped_elsewhere_is_started_by_a_deploy(inst: Cloud) -> None:
    """Case G37."""
    identity = inst.hypervisor.only().identity
    inst.tenancy.stop(identity)
    inst.hypervisor.settle()
    assert state(inst) == "stopped"
    all_green(inst.cli(*inst.words()).ok().out)
    assert inst.hypervisor.only().identity == identity


def state(inst: Cloud) -> str:
    """What `gridup status` says of it."""
    return str(inst.cli("status", "Inst", "--no-probe", "--json").ok().json[0]["state"])


@pytest.mark.tier("deep")
def test_a_new_version_is_brought_up_in_place_and_one_that_fails_gives_way_to_it(
    inst: Cloud, tmp_path: Path
) -> None:
    identity = inst.hypervisor.only().identity
    newer = another_version(tmp_path / "newer", facts="ANOTHER = 1")
    all_green(inst.cli(*inst.words(), env=newer).ok().out)
    image = ("docker", "inspect", "--format", "{{.Config.Image}}", "gridup-api")
    runs = inst.machine.run(*image)
    failed = inst.cli(*inst.words(), env=another_version(tmp_path / "broken", entrypoint=BOOM))
    assert failed.code == 4, failed.err
    assert "boom" in failed.err
    assert inst.machine.run(*image) == runs
    all_green(inst.cli("check", "Inst", "--wait").ok().out)
    assert inst.hypervisor.only().identity == identity


@on_one
def test_another_machine_on_the_same_disk_has_the_data(inst: Cloud, tmp_path: Path) -> None:
    identity, trusted = inst.hypervisor.only().identity, ca_of(inst, tmp_path)
    before = inst.machine.read(f"{NODE}/secrets/server_uid")
    refused = inst.cli(*inst.words(), "--new-machine")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert inst.hypervisor.only().identity == identity
    # Somebody stands between us and the new machine, from the first contact on.
    inst.hypervisor.retold = lambda text: re.sub(r"(ssh-ed25519 AAAA)[^ ]{64}", rf"\1{OTHERS}", text)
    betrayed = inst.cli(*inst.words(), "--new-machine", "--yes", timeout=1200)
    assert betrayed.code == 4, betrayed.err
    assert "has printed another one on its console" in betrayed.err
    assert inst.hypervisor.only().identity != identity
    assert inst.machine.run("docker", "ps", "--all", "--quiet") == ""
    inst.hypervisor.retold = lambda text: text
    # From now on, not from its next look on.
    inst.hypervisor.settle()
    all_green(inst.cli(*inst.words(), timeout=1200).ok().out)
    assert inst.machine.read(f"{NODE}/secrets/server_uid") == before
    # Its CA is with the data too, so that whoever trusts it need not do anything.
    assert ca_of(inst, tmp_path).read_text() == trusted.read_text()
    assert inst.cli("ssh", "Inst", "--", "true").ok()


@pytest.mark.tier("deep")
def test_the_real_client_finds_all_of_it_on_another_machine(
    inst: Cloud, runtime: Path, tmp_path: Path
) -> None:
    all_green(inst.cli(*inst.words(), "--new-machine", "--yes", timeout=1200).ok().out)
    assert data(inst, runtime, ca_of(inst, tmp_path)) == DATA


@pytest.mark.tier("deep")
def test_every_secret_is_replaced_and_the_machine_too(inst: Cloud, runtime: Path, tmp_path: Path) -> None:
    identity, keys = inst.hypervisor.only().identity, inst.cli.home / "stacks/inst/keys"
    with opened(inst.cli, tmp_path, keys=keys, tls=True, runtime=runtime) as before:
        inst.cli("rotate", "Inst", "--yes", timeout=1200).ok()
        assert inst.hypervisor.only().identity != identity
        check_replaced(before, own_ca=inst.tenancy.issuer.startswith("Caddy"))


@on_one
def test_a_machine_that_was_deleted_elsewhere_is_made_anew_and_its_end_leaves_nothing(inst: Cloud) -> None:
    """Case G37."""
    booted = inst.hypervisor.only()
    inst.tenancy.delete(booted.identity)
    inst.hypervisor.settle()
    assert state(inst) == "missing"
    inst.cli(*inst.words(), "--no-node", "--no-wait").ok()
    inst.hypervisor.settle()
    another = inst.hypervisor.only()
    assert another.identity != booted.identity
    assert list(another.machine.disks.values()) == list(booted.machine.disks.values())
    inst.cli("destroy", "Inst", "--yes").ok()
    assert inst.tenancy.marked() == []


@pytest.mark.tier("deep")
def test_a_first_boot_that_fails_ends_the_deploy_with_its_log(cloud: Cloud, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    env = another_version(broken)
    packages = broken / "infra/gridup_node/vm/packages.py"
    text = packages.read_text()
    assert '"docker.io",' in text
    packages.write_text(text.replace('"docker.io",', '"docker.io", "no-such-package",', 1))
    # Another test's node may be there.
    before = cloud.tenancy.marked()
    failed = cloud.cli(*cloud.words("Broken"), env=env, timeout=900)
    cloud.hypervisor.check()
    assert failed.code == 4, failed.err
    assert "first boot failed at step packages" in failed.err
    assert "Unable to locate package no-such-package" in failed.err
    waited = cloud.cli("check", "Broken", "--wait", "--timeout", "60", env=env)
    assert waited.code in (4, 6), os.linesep.join([waited.out, waited.err])
    printed = cloud.cli("logs", "Broken", "--boot")
    assert cloud.tenancy.boot_log in printed.out, printed.err
    cloud.cli("destroy", "Broken", "--yes").ok()
    assert cloud.tenancy.marked() == before
