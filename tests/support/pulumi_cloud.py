"""What of Pulumi Cloud the engine asks as it lists and exports stacks, for organizations of ours.

What it asks was read off the engine itself; what is answered has the form of `sdk/go/common/apitype`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.listening import Listening

ACCOUNT = "ada"


class PulumiCloud:
    """One on this machine: `with PulumiCloud(stacks) as cloud:`.

    Args:
        stacks: deployments by `organization/project/stack`.
        delay: seconds before each answer.
    """

    def __init__(self, stacks: Mapping[str, Mapping[str, Any]], delay: float = 0) -> None:
        self.stacks, self.delay = stacks, delay

    def __enter__(self) -> PulumiCloud:
        handler = type("Handler", (_Handler,), {"cloud": self})
        self._listening = Listening(handler)
        self.url = self._listening.url
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def answer(self, path: str, project: str) -> dict[str, Any] | None:
        """What is at a path; None where nothing is."""
        owners = sorted({ACCOUNT, *(whole.partition("/")[0] for whole in self.stacks)})
        fixed: dict[str, dict[str, Any]] = {
            "/api/user": {"githubLogin": ACCOUNT, "organizations": [{"githubLogin": one} for one in owners]},
            "/api/user/organizations/default": {"gitHubLogin": ACCOUNT},
            "/api/capabilities": {"capabilities": []},
            "/api/user/stacks": {
                "stacks": [_summary(whole) for whole in self.stacks if whole.split("/")[1] == project]
            },
        }
        if path in fixed:
            return fixed[path]
        whole = path.removeprefix("/api/stacks/").removesuffix("/export")
        if whole not in self.stacks:
            return None
        if path.endswith("/export"):
            return {"version": 3, "deployment": self.stacks[whole]}
        return {**_summary(whole), "id": whole, "tags": {}, "version": 1}


def _summary(whole: str) -> dict[str, str]:
    owner, project, stack = whole.split("/")
    return {"orgName": owner, "projectName": project, "stackName": stack}


class _Handler(BaseHTTPRequestHandler):
    cloud: PulumiCloud

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        at = urlsplit(self.path)
        project = parse_qs(at.query).get("project", [""])[0]
        time.sleep(self.cloud.delay)
        found = self.cloud.answer(at.path, project)
        text = json.dumps({"code": 404, "message": "Not Found"} if found is None else found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
