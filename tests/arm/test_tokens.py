"""Entra's side: who gets a token, and what is said to those who don't."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request

import pytest
import requests

from support.arm import PRINCIPAL, Arm
from support.arm.customer import Customer

pytestmark = pytest.mark.tier("deep", proves=("arm",))


def test_a_token_has_the_form_of_entras(customer: Customer) -> None:
    reply = customer.log_in()
    assert (reply.status, reply.body["token_type"], reply.body["expires_in"]) == (200, "Bearer", 3600)
    claims = reply.body["access_token"].split(".")[1]
    told = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert (told["tid"], told["appid"]) == (PRINCIPAL.tenant, PRINCIPAL.client)
    assert told["exp"] - told["iat"] == 3600


@pytest.mark.parametrize(
    ("how", "status", "error", "number"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client", "AADSTS7000215"),
        ({"client_id": "nobody"}, 400, "unauthorized_client", "AADSTS700016"),
        ({"tenant": "nowhere"}, 400, "invalid_tenant", "AADSTS90002"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", "AADSTS70003"),
        ({"scope": "https://management.azure.com/"}, 400, "invalid_scope", "AADSTS1002012"),
    ],
)
def test_nobody_else_gets_one(
    customer: Customer, how: dict[str, str], status: int, error: str, number: str
) -> None:
    reply = customer.log_in(**how)
    assert (reply.status, reply.body["error"]) == (status, error)
    assert reply.body["error_description"].startswith(number)


def test_a_secret_is_in_no_record(customer: Customer, arm: Arm) -> None:
    customer.log_in()
    assert PRINCIPAL.secret not in repr(arm.calls)


def test_the_directory_says_where_tokens_are(arm: Arm) -> None:
    url = f"{arm.url}/{PRINCIPAL.tenant}/v2.0/.well-known/openid-configuration"
    told = requests.get(url, verify=str(arm.ca_file), timeout=10).json()
    assert told["token_endpoint"] == f"{arm.url}/{PRINCIPAL.tenant}/oauth2/v2.0/token"
    assert told["issuer"] == f"{arm.url}/{PRINCIPAL.tenant}/v2.0"


def test_nobody_else_trusts_its_certificate(arm: Arm) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(arm.url, verify=True, timeout=10)
    trusted = ssl.create_default_context(cafile=str(arm.bundle))
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trusted))
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(f"{arm.url}/subscriptions?api-version=2022-12-01", timeout=10)
    assert refused.value.code == 401
    refused.value.close()
