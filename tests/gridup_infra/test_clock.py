"""A clock that is wrong, told from credentials that are."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from gridup_infra import clock
from gridup_infra.errors import CredentialsError
from gridup_infra.targets.aws import client

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("their", "found"), [(0, 0), (299, 0), (-299, 0), (10_800, -10_800), (-10_800, 10_800)]
)
def test_it_is_off_from_five_minutes_on(their: float, found: float) -> None:
    headers = {"date": formatdate(NOW + their, usegmt=True)}
    assert clock.off(headers, lambda: NOW) == found


@pytest.mark.parametrize("headers", [{}, {"Date": ""}, {"Date": "yesterday"}])
def test_who_does_not_tell_the_time_says_nothing(headers: dict[str, str]) -> None:
    assert clock.off(headers, lambda: NOW) == 0


@pytest.mark.parametrize(
    "code", ["RequestExpired", "AuthFailure", "SignatureDoesNotMatch", "RequestTimeTooSkewed"]
)
def test_aws_refuses_by_the_clock_or_for_the_credentials(code: str) -> None:
    exceptions = pytest.importorskip("botocore.exceptions")

    def refused(their: float) -> CredentialsError:
        headers = {"date": formatdate(time.time() + their, usegmt=True)}
        answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPHeaders": headers}}
        found = client.map_client_error(exceptions.ClientError(answer, "RunInstances"), "eu-west-1")
        assert isinstance(found, CredentialsError)
        return found

    wrong = refused(3 * 3600 + 5)
    assert "this machine's clock is 3 h 0 min behind its own" in wrong.message
    assert "timedatectl" in wrong.suggestion
    assert "clock" not in refused(10).message
