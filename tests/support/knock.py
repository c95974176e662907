"""`python -m support.knock`: which of a node's secrets open it, by raw requests at its reverse proxy.

Stdin holds JSON, see `main`; a process of its own, for a node may be reached from some networks alone.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests
from nacl.signing import SigningKey

from gridup_node.guard import wire
from support import frames
from support.attacker import said
from support.cli import Cli

SECONDS = 60


class SshEndpoint:
    """A node's addresses, and what a browser or client brings to them.

    Args:
        ca: the file of the only CA to trust; empty for plain http.
    """

    def __init__(self, url: str, jupyter: str, ca: str) -> None:
        self.url, self.jupyter, self.ca = url, jupyter, ca

    def browser(self, cookies: dict[str, str] | None = None) -> requests.Session:
        made = requests.Session()
        made.trust_env = False
        made.verify = self.ca or True
        made.cookies.update(cookies or {})
        return made

    def portal(self, cookies: dict[str, str]) -> bool:
        """Whether a browser with these cookies is signed in."""
        page = self.browser(cookies).get(f"{self.url}/", allow_redirects=False, timeout=SECONDS)
        return page.status_code == 200

    def sign_in(self, email: str, password: str) -> dict[str, str]:
        """The cookies of a browser that signs in at the portal."""
        browser = self.browser()
        form = browser.get(f"{self.url}/login", timeout=SECONDS).text
        token = re.search(r'name="token" value="([^"]+)"', form)
        assert token
        fields = {"token": token[1], "email": email, "password": password}
        headers = {"Origin": self.url, "Sec-Fetch-Site": "same-origin"}
        browser.post(f"{self.url}/login", fields, headers=headers, allow_redirects=False, timeout=SECONDS)
        return dict(browser.cookies)

    def notebook(self, token: str) -> dict[str, str]:
        """The cookies of a browser that opens Jupyter with its token."""
        browser = self.browser()
        browser.get(f"{self.jupyter}/lab", params={"token": token}, timeout=SECONDS)
        return dict(browser.cookies)

    def files(self, token: str = "", cookies: dict[str, str] | None = None) -> bool:
        """Whether Jupyter shows its files."""
        headers = {"Authorization": f"token {token}"} if token else {}
        where = f"{self.jupyter}/api/contents"
        return self.browser(cookies).get(where, headers=headers, timeout=SECONDS).status_code == 200

    def key_of(self, email: str, password: str) -> str:
        """The private key that the api hands to who has the password; empty for nobody."""
        body = {"email": email, "password": password}
        answer = self.browser().post(f"{self.url}/api/v2/login", json=body, timeout=SECONDS)
        value = wire.read(answer.content) if answer.status_code == 200 else None
        if value is None or value.name != "UserPrivateKey":
            return ""
        key = wire.read(dict(value.fields)["signing_key"])
        return bytes(wire.read(dict(key.fields)["signing_key"]).blob).hex()

    def call(self, key: str) -> bool:
        """Whether a call that is signed with the key is carried out."""
        browser = self.browser()
        node = browser.get(f"{self.url}/api/v2/metadata", timeout=SECONDS).json()["id"]
        asked = frames.call(bytes.fromhex(node), "user.get_current_user")
        signed = frames.signed(SigningKey(bytes.fromhex(key)), asked)
        answer = browser.post(f"{self.url}/api/v2/api_call", data=signed, timeout=SECONDS)
        return answer.status_code == 200 and not said(answer.content).startswith("SyftError")


def main(told: dict[str, Any]) -> dict[str, Any]:
    """With `begin`, sign in by the password and token first, and tell what that leaves; then try all of it.

    Args:
        told: `url`, `jupyter`, `ca`, `email`, `password`, `token`; `others`, passwords by e-mail address; and
            as an earlier run told them `portal` and `notebook`, cookies, and `keys`.
    """
    door = SshEndpoint(told["url"], told["jupyter"], told["ca"])
    accounts = {told["email"]: told["password"], **told["others"]}
    if told.get("begin"):
        told |= {
            "portal": door.sign_in(told["email"], told["password"]),
            "notebook": door.notebook(told["token"]),
            "keys": [door.key_of(*account) for account in accounts.items()],
        }
    opens = {
        **{email: bool(door.key_of(email, password)) for email, password in accounts.items()},
        "token": door.files(told["token"]),
        "portal": door.portal(told["portal"]),
        "notebook": door.files(cookies=told["notebook"]),
        "keys": [door.call(key) for key in told["keys"] if key],
    }
    return {**told, "opens": opens}


def knock(node: Cli, told: dict[str, Any]) -> dict[str, Any]:
    """Run it from where a node's deployer is."""
    tests = Path(__file__).parents[1]
    ended = subprocess.run(
        [*node.around, sys.executable, "-m", "support.knock"],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=300,
        env={**node.env(), "PYTHONPATH": f"{tests}:{tests.parent / 'infra'}:{tests.parent / 'cli'}"},
    )
    assert ended.returncode == 0, ended.stderr
    seen: dict[str, Any] = json.loads(ended.stdout)
    return seen


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
