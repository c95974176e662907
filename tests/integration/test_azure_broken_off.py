"""Deploys to Azure, interrupted just when ARM has accepted a call: nothing is orphaned, or made twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support import language_host
from support.arm import Arm
from support.azure_node import COMPUTE, DEPLOY, NETWORK, Account
from support.cli import Cli
from support.deep import deep
from support.interrupts import interrupt, killed, locks
from support.plain_pulumi import Plain

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine]

GROUP = "Microsoft.Resources/subscriptions/resourceGroups/write"
STEPS = (
    (GROUP,),
    (
        f"{NETWORK}/virtualNetworks/write",
        f"{NETWORK}/networkSecurityGroups/write",
        f"{NETWORK}/publicIPAddresses/write",
        f"{COMPUTE}/disks/write",
    ),
    (f"{NETWORK}/virtualNetworks/subnets/write",),
    (f"{NETWORK}/networkInterfaces/write",),
    (f"{COMPUTE}/virtualMachines/write", f"{NETWORK}/networkSecurityGroups/securityRules/write"),
)
"""All creating calls; those of a step are under way at the same time, so one kill breaks all of them off."""

WAYS = ("engine", "all", "all", "provider", "all")
"""Who is killed at each step, see `killed`. The engine alone only where each provider was called before: one
that was started and never called is Pulumi's own program, does nothing, and does not notice."""

KILLS = [
    (pytest.param if gate else deep)(
        step, how, plain, id=f"{step[-1].split('/')[-2]}-{how}-{'plain' if plain else 'ours'}"
    )
    for step in STEPS
    for how, plain, gate in (
        ("provider", False, True),
        ("all", True, f"{COMPUTE}/virtualMachines/write" in step),
    )
]
"""The gate has each step once with a destroy of ours, and one with a plain one."""


@pytest.fixture(params=["", deep("existing")], ids=["own group", "existing group"])
def account(request: pytest.FixtureRequest, arm: Arm) -> Account:
    return Account(arm, request.param)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_host.install(tmp_path_factory.mktemp("language host"))


def words(account: Account) -> tuple[str, ...]:
    return (*DEPLOY, *(("--resource-group", account.group) if account.group else ()))


def broken_off(cli: Cli, account: Account, actions: tuple[str, ...], how: str) -> None:
    """A deploy that was killed when ARM had accepted these calls and answered none."""
    held: list[Any] = [account.arm.hold(action) for action in actions]
    killed(cli.start(*words(account), "--no-preflight"), held, how)


@pytest.mark.tier("deep")
def test_a_deploy_after_each_kill_goes_on_and_makes_one_of_everything(
    azure_cli: Cli, account: Account
) -> None:
    for actions, how in zip(STEPS, WAYS, strict=True):
        if account.group and GROUP in actions:
            continue
        broken_off(azure_cli, account, actions, how)
    azure_cli(*words(account)).ok()
    account.one_of_everything()
    assert locks(azure_cli.home) == []
    assert "Nothing changed" in azure_cli(*words(account)).ok().err


@pytest.mark.parametrize(("actions", "how", "plain"), KILLS)
def test_destroy_after_a_kill_leaves_nothing(
    azure_cli: Cli, account: Account, host: Path, actions: tuple[str, ...], how: str, plain: bool
) -> None:
    if account.group and GROUP in actions:
        return
    broken_off(azure_cli, account, actions, how)
    if plain:
        environment = {**account.arm.environment, "PATH": azure_cli.environment["PATH"]}
        environment["PATH"] = f"{host}:{environment['PATH']}"
        Plain(azure_cli, host)("destroy", "-s", "inst", "--yes", env=environment).ok()
    else:
        azure_cli("destroy", "Inst", "--yes").ok()
        assert azure_cli("status", "--json").ok().json == []
    account.as_before()


def test_answers_that_get_lost_make_nothing_twice(azure_cli: Cli, account: Account) -> None:
    for action in (step[0] for step in STEPS):
        account.arm.hold(action).drop()
    ended = azure_cli(*words(account))
    if ended.code:
        # The provider may have given up on one: what exists is taken over by the next run.
        azure_cli(*words(account)).ok()
    account.one_of_everything()


def test_one_ctrl_c_ends_a_deploy_in_order_and_the_next_goes_on(azure_cli: Cli, account: Account) -> None:
    held = account.arm.hold(f"{NETWORK}/networkInterfaces/write")
    run = azure_cli.start(*words(account))
    held.wait(run)
    interrupt(run)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert 'Stopped. What exists of "Inst": ' in err
    assert "Traceback" not in err
    assert locks(azure_cli.home) == []
    held.drop()
    azure_cli(*words(account)).ok()
    account.one_of_everything()
