"""Where the provider's tokens come from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any

import requests

PUBLIC_AUTHORITY = "https://login.microsoftonline.com"

SECONDS = 60.0
"""For a token, and before its end that it is asked for anew."""


class CredentialsError(Exception):
    """There are none, or they are refused."""


def authorities() -> str | bool:
    """The authorities that Go programs trust, as the real provider is one."""
    return os.environ.get("SSL_CERT_FILE") or True


class Credential:
    """Where tokens come from: what the real provider takes from its configuration or from the ARM_ variables.

    The AZURE_ variables count only where ARM_USE_DEFAULT_AZURE_CREDENTIAL says so, and else the Azure CLI is
    asked: https://www.pulumi.com/registry/packages/azure-native/installation-configuration/
    """

    def __init__(self, config: Mapping[str, str], environment: Mapping[str, str], resource: str) -> None:
        self._resource = resource
        self._environment = environment
        self._lock = threading.Lock()
        self._token, self._until = "", 0.0

        def setting(name: str, variable: str) -> str:
            return config.get(name) or environment.get(variable, "")

        self.subscription = setting("subscriptionId", "ARM_SUBSCRIPTION_ID")
        self._tenant = setting("tenantId", "ARM_TENANT_ID")
        self._client = setting("clientId", "ARM_CLIENT_ID")
        self._secret = setting("clientSecret", "ARM_CLIENT_SECRET")
        by_default = setting("useDefaultAzureCredential", "ARM_USE_DEFAULT_AZURE_CREDENTIAL") == "true"
        if by_default:
            self._demand("the Default Azure Credential", Subscription=self.subscription)
            self._tenant = environment.get("AZURE_TENANT_ID") or self._tenant
            self._client = environment.get("AZURE_CLIENT_ID", "")
            self._secret = environment.get("AZURE_CLIENT_SECRET", "")
        elif self._secret:
            self._demand(
                "a Service Principal using a Client Secret",
                Subscription=self.subscription,
                Tenant=self._tenant,
                Client=self._client,
            )
        if not self._secret and not by_default:
            self.subscription = self._az("account", "show", *self._of_subscription())["id"]

    def _demand(self, method: str, **ids: str) -> None:
        for name, value in ids.items():
            if not value:
                raise CredentialsError(f"A {name} ID must be configured when authenticating as {method}.")

    def token(self) -> str:
        with self._lock:
            if time.time() > self._until - SECONDS:
                self._token, seconds = self._ask() if self._secret else self._ask_az()
                self._until = time.time() + seconds
            return self._token

    def _ask(self) -> tuple[str, float]:
        authority = self._environment.get("AZURE_AUTHORITY_HOST") or PUBLIC_AUTHORITY
        if "://" not in authority:
            authority = f"https://{authority}"
        answer = requests.post(
            f"{authority.rstrip('/')}/{self._tenant}/oauth2/v2.0/token",
            data={
                "grant_type": "client_credentials",
                "client_id": self._client,
                "client_secret": self._secret,
                "scope": f"{self._resource}/.default",
            },
            timeout=SECONDS,
            verify=authorities(),
        )
        told = answer.json()
        if answer.status_code != 200:
            raise CredentialsError(f"authentication failed: {told.get('error_description', answer.text)}")
        return told["access_token"], float(told.get("expires_in", 3600))

    def _ask_az(self) -> tuple[str, float]:
        told = self._az("account", "get-access-token", "--resource", self._resource, *self._of_subscription())
        return told["accessToken"], float(told["expires_on"]) - time.time()

    def _of_subscription(self) -> list[str]:
        return ["--subscription", self.subscription] if self.subscription else []

    def _az(self, *words: str) -> Any:
        az = shutil.which("az", path=self._environment.get("PATH"))
        if az is None:
            raise CredentialsError("could not get an access token: Azure CLI not found on path")
        words = (az, *words, "--output", "json")
        ended = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS)
        if ended.returncode:
            raise CredentialsError(f"could not get an access token: {ended.stderr.strip()}")
        return json.loads(ended.stdout)
