"""AWS's access portal, which a profile of IAM Identity Center (SSO) has its keys from.

One call, as the Portal API Reference describes it (GetRoleCredentials): the token that somebody has logged in
with, against keys of a role that hold for a while.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

PATH = "/federation/credentials"
SESSION, ACCOUNT, ROLE = "inst", "123456789012", "deployer"

Answer = tuple[int, list[tuple[str, str]], bytes]


@dataclass
class Portal:
    """The portal.

    Attributes:
        token: of who is logged in; another one is refused.
        seconds: how long the keys hold that it gives out.
        asked: each (account, role) that keys were asked of.
    """

    token: str = "a-token"
    seconds: float = 3600
    asked: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        query = dict(parse_qsl(urlsplit(path).query))
        json_ = ("Content-Type", "application/json")
        if headers.get("x-amz-sso_bearer_token") != self.token:
            kind = ("x-amzn-ErrorType", "UnauthorizedException:http://internal.amazon.com/coral/")
            return 401, [json_, kind], json.dumps({"message": "Session token not found or invalid"}).encode()
        self.asked.append((query["account_id"], query["role_name"]))
        keys = {
            "accessKeyId": "ASIAGRIDUPTESTS00000",
            "secretAccessKey": "not-a-secret",
            "sessionToken": "a-session",
            "expiration": int((time.time() + self.seconds) * 1000),
        }
        return 200, [json_], json.dumps({"roleCredentials": keys}).encode()


def profile(home: Path, region: str, token: str = "a-token", seconds: float = 3600) -> dict[str, str]:
    """Lay what `aws configure sso` and `aws sso login` leave in a home; the variables that name it."""
    config = home / ".aws/config"
    cache = home / ".aws/sso/cache"
    cache.mkdir(parents=True)
    config.write_text(
        f"[profile lab]\nsso_session = {SESSION}\nsso_account_id = {ACCOUNT}\nsso_role_name = {ROLE}\n"
        f"region = {region}\n"
        f"[sso-session {SESSION}]\nsso_start_url = https://inst.example/start\nsso_region = eu-central-1\n"
        "sso_registration_scopes = sso:account:access\n"
    )
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
    told = {"startUrl": "https://inst.example/start", "region": "eu-central-1", "accessToken": token}
    file = cache / f"{hashlib.sha1(SESSION.encode()).hexdigest()}.json"
    file.write_text(json.dumps({**told, "expiresAt": until}))
    return {"HOME": str(home), "AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "lab"}
