"""Deploys to AWS, interrupted just when AWS has accepted a call: nothing is orphaned, or made twice."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from support import language_host
from support.aws_node import DEPLOY, Account, deploy
from support.cli import Cli
from support.containers import stack_id
from support.deep import deep
from support.interrupts import interrupt, killed, locks
from support.moto_rig import ONE_OF_EACH, Moto
from support.plain_pulumi import Plain

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine]

STEPS = (
    ("CreateVpc", "AllocateAddress", "ImportKeyPair", "CreateVolume"),
    ("CreateSecurityGroup", "CreateInternetGateway", "CreateSubnet"),
    ("CreateRouteTable",),
    ("RunInstances",),
    ("AttachVolume", "AssociateAddress"),
)
"""All creating calls; those of a step are under way at the same time, so one kill breaks all of them off."""

WAYS = ("engine", "all", "provider", "all", "all")
"""Who is killed at each step, see `killed`. The engine of a later run also starts a provider that it asks
nothing, and that then does not know of us: left alone it outlives the engine, and makes nothing."""

KILLED = ("all", "provider", "engine", "all", "provider")
"""Who is killed at each step before a destroy."""


def kills(gate: Collection[str]) -> list[Any]:
    """Each step with who is killed at it: of the deep tier where its first call is not in `gate`."""
    steps = zip(STEPS, KILLED, strict=True)
    return [
        (pytest.param if step[0] in gate else deep)(step, how, id=f"{step[0]}-{how}") for step, how in steps
    ]


@pytest.fixture
def account(moto: Moto) -> Account:
    return Account(moto)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_host.install(tmp_path_factory.mktemp("language host"))


def broken_off(cli: Cli, moto: Moto, actions: tuple[str, ...], how: str) -> None:
    """A deploy that was killed when AWS had accepted these calls and answered none."""
    held = [moto.proxy.hold(action) for action in actions]
    killed(cli.start(*DEPLOY, "--no-preflight"), held, how)
    assert how == "provider" or locks(cli.home)


def test_a_deploy_after_each_kill_goes_on_and_makes_one_of_everything(
    aws_cli: Cli, moto: Moto, account: Account
) -> None:
    for actions, how in zip(STEPS, WAYS, strict=True):
        broken_off(aws_cli, moto, actions, how)
        # Of nothing more than one, ever.
        assert account.things.count() <= ONE_OF_EACH, (actions, account.things.count())
    deploy(aws_cli)
    account.one_of_everything(stack_id(aws_cli))
    called = moto.proxy.actions()
    once = [action for step in STEPS for action in step if action not in ("AttachVolume", "AssociateAddress")]
    assert {action: called[action] for action in once} == dict.fromkeys(once, 1)
    assert locks(aws_cli.home) == []
    assert "Nothing changed" in deploy(aws_cli).err


@pytest.mark.parametrize(("actions", "how"), kills([step[0] for step in STEPS]))
def test_destroy_after_a_kill_leaves_nothing(
    aws_cli: Cli, moto: Moto, account: Account, actions: tuple[str, ...], how: str
) -> None:
    broken_off(aws_cli, moto, actions, how)
    aws_cli("destroy", "Inst", "--yes").ok()
    account.as_before()
    assert aws_cli("status", "--json").ok().json == []


@pytest.mark.parametrize(("actions", "how"), kills(["RunInstances"]))
def test_plain_destroy_after_a_kill_leaves_nothing(
    aws_cli: Cli, moto: Moto, account: Account, host: Path, actions: tuple[str, ...], how: str
) -> None:
    broken_off(aws_cli, moto, actions, how)
    Plain(aws_cli, host)("destroy", "-s", "inst", "--yes", env=moto.environment).ok()
    account.as_before()


def test_answers_that_get_lost_make_nothing_twice(aws_cli: Cli, moto: Moto, account: Account) -> None:
    actions = ("CreateVpc", "AllocateAddress", "CreateVolume", "RunInstances")
    held = [moto.proxy.hold(action) for action in actions]
    for one in held:
        one.drop()
    deploy(aws_cli)
    account.one_of_everything(stack_id(aws_cli))
    assert {action: moto.proxy.actions()[action] for action in actions} == dict.fromkeys(actions, 1)


def test_one_ctrl_c_ends_a_deploy_in_order_and_the_next_goes_on(
    aws_cli: Cli, moto: Moto, account: Account
) -> None:
    held = moto.proxy.hold("CreateSubnet")
    run = aws_cli.start(*DEPLOY)
    held.wait(run)
    interrupt(run)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert 'Stopped. What exists of "Inst": ' in err
    assert "Traceback" not in err
    assert locks(aws_cli.home) == []
    held.drop()
    deploy(aws_cli)
    account.one_of_everything(stack_id(aws_cli))
