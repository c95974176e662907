"""A profile of AWS that asks for a code: asked for once, or told why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore import credentials, tokens

from gridup_infra.errors import CredentialsError
from gridup_infra.targets.aws import client, kinds, signing_in
from support import aws_sso
from support.aws_node import DEPLOY
from support.cli import Cli
from support.moto_rig import REGION, Moto

DEVICE = "arn:aws:iam::123456789012:mfa/ada"
ROLE = "arn:aws:iam::123456789012:role/deployer"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The variables of a machine that is set up with such a profile."""
    return role_files(tmp_path)


def role_files(tmp_path: Path) -> dict[str, str]:
    config, secrets = tmp_path / "config", tmp_path / "credentials"
    config.write_text(
        f"[profile lab]\nrole_arn = {ROLE}\nsource_profile = base\nmfa_serial = {DEVICE}\n"
        "region = eu-west-1\n"
        f"[profile plain]\nrole_arn = {ROLE}\nsource_profile = base\n"
    )
    secrets.write_text(
        "[base]\naws_access_key_id = AKIAGRIDUPTESTS00000\naws_secret_access_key = not-a-secret\n"
    )
    return {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(secrets), "AWS_PROFILE": "lab"}


def nobody(_question: str) -> None:
    pytest.fail("asked")


def test_only_a_role_with_a_device_asks(files: dict[str, str]) -> None:
    assert signing_in.needed(files) == DEVICE
    for other in ({"AWS_PROFILE": "plain"}, {"AWS_PROFILE": "base"}, {"AWS_PROFILE": "none"}):
        assert signing_in.sign_in({**files, **other}, nobody) == {}
    # What the environment has comes before any profile.
    assert signing_in.sign_in({**files, "AWS_ACCESS_KEY_ID": "AKIA"}, nobody) == {}
    assert signing_in.sign_in({}, nobody) == {}


@pytest.mark.tier("gate")
class TestRole:
    """With the cloud's own protocol for it."""

    @pytest.fixture(autouse=True)
    def _set_up(self, aws: Moto, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name, value in files.items():
            monkeypatch.setenv(name, value)
        client.clear_caches()

    def test_one_answer_is_a_session_for_all_that_the_run_starts(
        self, aws: Moto, files: dict[str, str]
    ) -> None:
        asked: list[str] = []

        def answer(question: str) -> str:
            asked.append(question)
            return "123456"

        made = signing_in.sign_in({**files, "AWS_ENDPOINT_URL": aws.url}, answer)
        assert asked == [f"The code of {DEVICE} for the AWS profile lab"]
        assert set(made) == set(signing_in.KEYS)
        assert all(made.values())
        assert made["AWS_ACCESS_KEY_ID"] != "AKIAGRIDUPTESTS00000"

    def test_without_a_terminal_the_way_is_told_and_nothing_is_made(
        self, aws: Moto, files: dict[str, str]
    ) -> None:
        with pytest.raises(CredentialsError, match=f"asks for an MFA code of {DEVICE}") as caught:
            signing_in.sign_in(files, lambda _question: None)
        assert caught.value.exit_code == 3
        assert f"aws sts get-session-token --serial-number {DEVICE}" in caught.value.suggestion
        assert "AWS_SESSION_TOKEN" in caught.value.suggestion
        assert aws.things().marked() == []


@pytest.mark.tier("gate")
class TestSso:
    """A profile of IAM Identity Center, after `aws sso login`."""

    @pytest.fixture(autouse=True)
    def _set_up(self, aws: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name, value in aws_sso.profile(tmp_path, REGION).items():
            monkeypatch.setenv(name, value)
        # botocore has looked for the home when it was imported.
        cache = str(tmp_path / ".aws/sso/cache")
        for provider in (credentials.SSOProvider, tokens.SSOTokenProvider):
            monkeypatch.setattr(provider, "_SSO_TOKEN_CACHE_DIR", cache)
        client.clear_caches()

    def test_its_keys_are_had_from_the_portal_and_anew_before_they_end(self, aws: Moto) -> None:
        aws.proxy.portal.seconds = 3600
        assert client.identity(REGION)[0] == aws_sso.ACCOUNT
        with client.connected(REGION) as cloud:
            cloud.ec2.describe_vpcs()
        assert aws.proxy.portal.asked == [(aws_sso.ACCOUNT, aws_sso.ROLE)]
        # As in a run that takes longer than they hold.
        client.clear_caches()
        aws.proxy.portal.seconds = 30
        with client.connected(REGION) as cloud:
            cloud.ec2.describe_vpcs()
            aws.proxy.portal.seconds = 3600
            cloud.ec2.describe_vpcs()
            cloud.ec2.describe_vpcs()
        assert len(aws.proxy.portal.asked) == 3

    def test_a_login_that_has_ended_is_told_as_that(self, aws: Moto) -> None:
        aws.proxy.portal.token = "another"
        with pytest.raises(CredentialsError, match="The AWS credentials can't be had") as caught:
            client.identity(REGION)
        assert caught.value.exit_code == 3
        assert caught.value.suggestion == "Log in again: `aws sso login --profile lab`."


@pytest.mark.tier("gate")
@pytest.mark.engine
@pytest.mark.parametrize("kind", ["sso", pytest.param("role", marks=pytest.mark.tier("deep"))])
def test_the_engines_providers_work_with_a_profile_too(
    kind: str, aws_cli: Cli, moto: Moto, tmp_path: Path
) -> None:
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "")
    if kind == "sso":
        more = aws_sso.profile(tmp_path, REGION)
    else:
        more = {**role_files(tmp_path), "AWS_PROFILE": "plain"}
    aws_cli.environment.update(keys | more)
    aws_cli(*DEPLOY).ok()
    assert len(moto.things().all(kinds.INSTANCE)) == 1
    assert moto.proxy.portal.asked if kind == "sso" else moto.proxy.actions()["AssumeRole"]
    aws_cli("destroy", "Inst", "--yes").ok()
    assert moto.things().marked() == []
