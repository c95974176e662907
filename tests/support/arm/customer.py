"""A customer who sends raw requests, and no library's idea of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import requests

from support.arm.server import PRINCIPAL, SUBSCRIPTION, Arm

DEFAULT_VERSIONS = {"microsoft.network": "2024-05-01", "microsoft.compute": "2024-11-01"}
DISKS = "2024-03-02"
ARM_VERSION = "2024-03-01"
GIVE_UP = 20.0


@dataclass
class Reply:
    """An answer."""

    status: int
    body: Any
    headers: dict[str, str] = field(repr=False)

    @property
    def code(self) -> str:
        """Of the error that it is."""
        return str((self.body or {}).get("error", {}).get("code", ""))

    @property
    def message(self) -> str:
        return str((self.body or {}).get("error", {}).get("message", ""))


class Customer:
    """One, with a token of their own: `with Customer(arm) as customer:`."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(arm.ca_file)
        self.token = self.log_in().body["access_token"]

    def __enter__(self) -> Customer:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @property
    def root(self) -> str:
        return f"/subscriptions/{SUBSCRIPTION}"

    def log_in(self, tenant: str = PRINCIPAL.tenant, **how: str) -> Reply:
        """https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow"""
        form = {
            "grant_type": "client_credentials",
            "client_id": PRINCIPAL.client,
            "client_secret": PRINCIPAL.secret,
            "scope": "https://management.azure.com/.default",
            **how,
        }
        url = f"{self.arm.url}/{tenant}/oauth2/v2.0/token"
        return _reply(self._session.post(url, data=form, timeout=30))

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        version: str | None = None,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Reply:
        """One request. A path that begins with neither `/subscriptions` nor `https` is the subscription's."""
        if path.startswith("https:"):
            url, query = path, query or {}
        else:
            if not path.startswith("/subscriptions"):
                path = f"/subscriptions/{SUBSCRIPTION}/{path}".rstrip("/")
            version = version_of(path) if version is None else version
            url = self.arm.url + path
            query = {**(query or {}), **({"api-version": version} if version else {})}
        return _reply(
            self._session.request(
                method,
                url,
                params=query,
                json=body if raw is None else None,
                data=raw,
                headers={"Authorization": f"Bearer {self.token}", **(headers or {})},
                timeout=60,
            )
        )

    def get(self, path: str, **how: Any) -> Reply:
        return self.send("GET", path, **how)

    def done(self, reply: Reply) -> Reply:
        """Wait for the end of an operation that a reply began: the operation's own last answer."""
        url = reply.headers.get("Azure-AsyncOperation") or reply.headers.get("Location")
        assert url, reply
        deadline = time.monotonic() + GIVE_UP
        while time.monotonic() < deadline:
            told = self.get(url)
            if told.status != 202 and (told.body or {}).get("status") != "InProgress":
                return told
            time.sleep(0.01)
        raise AssertionError(f"{url} goes on and on")

    def make(self, path: str, body: dict[str, Any], **how: Any) -> dict[str, Any]:
        """PUT, and wait: what is there then."""
        reply = self.send("PUT", path, body, **how)
        assert reply.status in (200, 201, 202), reply
        if "Azure-AsyncOperation" in reply.headers:
            ended = self.done(reply)
            assert ended.body["status"] == "Succeeded", ended
        made = self.get(path)
        assert made.status == 200, made
        return dict(made.body)

    def drop(self, path: str) -> None:
        """DELETE, and wait."""
        reply = self.send("DELETE", path)
        assert reply.status == 202, reply
        ended = self.done(reply)
        assert (ended.body or {}).get("status", "Succeeded") == "Succeeded", ended
        assert self.get(path).status == 404


def version_of(path: str) -> str:
    """An api-version that suits a path."""
    lower = path.lower()
    if "/microsoft.compute/disks" in lower:
        return DISKS
    if "/microsoft.compute/skus" in lower:
        return "2021-07-01"
    for namespace, version in DEFAULT_VERSIONS.items():
        if f"/providers/{namespace}/" in lower and not lower.endswith("/register"):
            return version
    return ARM_VERSION


def _reply(answer: requests.Response) -> Reply:
    kind = answer.headers.get("Content-Type", "")
    body = answer.json() if answer.content and "json" in kind else answer.content or None
    return Reply(answer.status_code, body, dict(answer.headers))
