"""Entra's side: the addresses that azure-identity asks for a token, and the tokens.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from support.arm import refusals
from support.arm.requests import Answer


@dataclass(frozen=True)
class Principal:
    """Who may come.

    Attributes:
        object: its id in the directory, which errors name.
    """

    tenant: str
    client: str
    secret: str
    object: str


class Tokens:
    """Gives tokens, and knows its own again.

    Attributes:
        lasts: seconds that one is good for.
    """

    def __init__(self, principal: Principal, clock: Callable[[], float] = time.time) -> None:
        self.principal = principal
        self.clock = clock
        self.lasts = 3600.0
        self._given: dict[str, float] = {}

    def answer(self, base: str, path: list[str], raw: bytes) -> Answer | None:
        """What one of Entra's addresses answers; None where the path is none of them."""
        match path:
            case [tenant, "v2.0", ".well-known", "openid-configuration"]:
                return self._configuration(base, tenant)
            case ["common", "discovery", "instance"]:
                return Answer(
                    200, {"tenant_discovery_endpoint": f"{base}/common/v2.0/.well-known/openid-configuration"}
                )
            case [tenant, "oauth2", "v2.0", "token"]:
                return self._token(
                    tenant, {name: values[0] for name, values in parse_qs(raw.decode()).items()}
                )
        return None

    def _configuration(self, base: str, tenant: str) -> Answer:
        """https://learn.microsoft.com/entra/identity-platform/v2-protocols-oidc"""
        if tenant not in (self.principal.tenant, "common", "organizations"):
            return self._unknown_tenant(tenant)
        place = f"{base}/{tenant}"
        return Answer(
            200,
            {
                "token_endpoint": f"{place}/oauth2/v2.0/token",
                "authorization_endpoint": f"{place}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{place}/oauth2/v2.0/devicecode",
                "jwks_uri": f"{place}/discovery/v2.0/keys",
                "issuer": f"{place}/v2.0",
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
                "response_types_supported": ["code", "token"],
                "id_token_signing_alg_values_supported": ["RS256"],
            },
        )

    def _token(self, tenant: str, asked: Mapping[str, str]) -> Answer:
        who = self.principal
        if tenant != who.tenant:
            return self._unknown_tenant(tenant)
        if asked.get("grant_type") != "client_credentials":
            return _refused(
                400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type."
            )
        if asked.get("client_id") != who.client:
            app = asked.get("client_id")
            told = f"Application with identifier '{app}' was not found in the directory '{tenant}'."
            return _refused(400, "unauthorized_client", 700016, told)
        if asked.get("client_secret") != who.secret:
            told = f"Invalid client secret provided. Ensure that it is valid for the app '{who.client}'."
            return _refused(401, "invalid_client", 7000215, told)
        if not asked.get("scope", "").endswith("/.default"):
            told = f"The value of the input parameter 'scope' is not valid: '{asked.get('scope', '')}'."
            return _refused(400, "invalid_scope", 1002012, told)
        token = self.give()
        return Answer(
            200,
            {
                "token_type": "Bearer",
                "expires_in": int(self.lasts),
                "ext_expires_in": int(self.lasts),
                "access_token": token,
            },
        )

    def give(self) -> str:
        """A token. It has a JWT's form, and its signature is noise."""
        now = self.clock()
        claims = {
            "aud": "https://management.azure.com",
            "tid": self.principal.tenant,
            "appid": self.principal.client,
            "oid": self.principal.object,
            "iat": int(now),
            "exp": int(now + self.lasts),
        }
        token = ".".join((_coded({"typ": "JWT", "alg": "RS256"}), _coded(claims), uuid.uuid4().hex))
        self._given[token] = now + self.lasts
        return token

    def check(self, header: str | None) -> None:
        """Raises:
        ArmError: there is no token in it that is good.
        """
        if not header:
            raise refusals.NO_TOKEN(
                "Authentication failed. The 'Authorization' header is missing.",
                WWW_Authenticate=f'Bearer authorization_uri="/{self.principal.tenant}"',
            )
        ends = self._given.get(header.removeprefix("Bearer "))
        if ends is None:
            raise refusals.BAD_TOKEN("The access token is invalid.")
        if ends <= self.clock():
            raise refusals.OLD_TOKEN("The access token expiry UTC time is earlier than current UTC time.")

    @staticmethod
    def _unknown_tenant(tenant: str) -> Answer:
        return _refused(400, "invalid_tenant", 90002, f"Tenant '{tenant}' not found.")


def _refused(status: int, error: str, number: int, told: str) -> Answer:
    """https://learn.microsoft.com/entra/identity-platform/reference-error-codes"""
    body: dict[str, Any] = {
        "error": error,
        "error_description": f"AADSTS{number}: {told}",
        "error_codes": [number],
    }
    return Answer(status, body)


def _coded(claims: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
