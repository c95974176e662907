"""The benchmark of a host on Azure: on the tests' ARM and their provider, with 200 ms of delay per call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_kit import ROOT, Bench, ratio, seconds
from support import azure_native
from support.arm import Arm, Call

DELAY = 0.2
NAME, REGION, STAFF = "Bench", "westeurope", "203.0.113.7/32"
CLOUD = ("--cloud", "azure", "--region", REGION, "--allow-cidr", STAFF)
DEPLOY = ("deploy", "--name", NAME, *CLOUD, "--no-node", "--no-wait", "--yes")

PREVIEW = """
import sys
from pulumi import automation as auto
from gridup_infra.program import build
from gridup_infra.spec import DeploySpec
spec = DeploySpec.from_config(dict(word.split("=", 1) for word in sys.argv[2:]))
auto.create_or_select_stack(spec.stack, "gridup", lambda: build(spec), opts=auto.LocalWorkspaceOptions(
    pulumi_command=auto.PulumiCommand(sys.argv[1]))).preview()
"""
"""A script as a user would write it, to preview the same program."""

SCRIPT = """
import json, sys
import requests
told = json.load(sys.stdin)
session = requests.Session()
form = {"grant_type": "client_credentials", "scope": "https://management.azure.com/.default", **told["login"]}
token = session.post(told["url"] + told["token"], data=form, timeout=60).json()["access_token"]
session.headers["Authorization"] = "Bearer " + token
operations, known = [], {}
for call in told["calls"]:
    url, params = told["url"] + call["path"], call["query"]
    if call["operation"]:
        if call["path"] not in known:
            place = url.rpartition("/")[0].lower()
            known[call["path"]] = next(one for one in operations if one.lower().startswith(place))
            operations.remove(known[call["path"]])
        url, params = known[call["path"]], {}
    answer = session.request(call["method"], url, params=params, json=call["body"], timeout=60)
    assert answer.status_code == call["status"], (call, answer.text)
    followed = answer.headers.get("Azure-AsyncOperation") or answer.headers.get("Location")
    if followed and not call["operation"]:
        operations.append(followed)
"""
"""The calls of a deploy, one after the other, over one connection and with one token."""


def bench_azure(bench: Bench) -> dict[str, Any]:
    """Measure a host on Azure."""
    plugins = bench.folder / "plugins"
    plugins.mkdir()
    azure_native.install(plugins)
    with Arm(bench.folder / "arm") as arm:
        path = os.pathsep.join([str(plugins), bench.env["PATH"]])
        env = {**arm.environment, "PATH": path}
        bare = bare_preview(bench, env)
        return {
            "preview_seconds": bench_preview(bench, env, bare),
            "deploy_seconds": bench_deploy(bench, arm, env, bare),
        }


def bare_preview(bench: Bench, env: dict[str, str]) -> Callable[[], float]:
    """Return a function that measures an inline preview of the program, including the interpreter's start.

    This preview makes no calls to Azure.
    """
    from gridup_infra import targets
    from gridup_infra.spec import DeploySpec

    asked = DeploySpec(name=NAME, target="azure", region=REGION, allow_cidr=(STAFF,)).with_new_id()
    spec = targets.target("azure").resolve(asked, None)
    words = [f"{key}={value}" for key, value in spec.to_config().items()]
    argv = [sys.executable, "-c", PREVIEW, str(bench.engine), *words]

    def bare() -> float:
        with tempfile.TemporaryDirectory(dir=bench.folder) as state:
            settings = {
                "PULUMI_BACKEND_URL": f"file://{state}",
                "PULUMI_CONFIG_PASSPHRASE": "bare",
                "PULUMI_SKIP_UPDATE_CHECK": "1",
                "PULUMI_PYTHON_CMD": sys.executable,
            }
            return seconds(argv, {**bench.env, **env, **settings}, Path(state))

    return bare


def bench_preview(bench: Bench, env: dict[str, str], bare: Callable[[], float]) -> dict[str, Any]:
    """Compare a preview with a bare inline preview of the same program."""
    found = bench.in_turns(preview=lambda: bench.run("preview", "--name", NAME, *CLOUD, **env), bare=bare)
    return ratio(found, "preview", found["bare"], 1.3)


def bench_deploy(bench: Bench, arm: Arm, env: dict[str, str], bare: Callable[[], float]) -> dict[str, Any]:
    """Compare a deploy, without the engine's start for this program, with the same calls one by one."""
    calls: dict[str, list[Call]] = {}

    def ours() -> float:
        arm.reset()
        arm.delay = DELAY
        took = bench.run(*DEPLOY, **env)
        calls["deploy"] = list(arm.calls)
        arm.delay = 0
        bench.run("destroy", NAME, "--yes", **env)
        return took

    def script() -> float:
        arm.reset()
        arm.delay = DELAY
        took = straight(bench, arm, env, calls["deploy"])
        calls["script"] = list(arm.calls)
        arm.delay = 0
        return took

    found = bench.in_turns(deploy=ours, bare_preview=bare, script=script)
    found["deploy_without_engine"] = round(found["deploy"] - found["bare_preview"], 3)
    return {
        **ratio(found, "deploy_without_engine", found["script"], 0.8),
        "ratio_with_engine": round(found["deploy"] / found["script"], 3),
        "calls": len(asked(calls["deploy"])),
        "same_calls": actions(calls["deploy"]) == actions(calls["script"]),
        "made_at_the_same_time": at_once(calls["deploy"]),
    }


def asked(calls: list[Call]) -> list[Call]:
    """Return the calls except those for tokens. A script needs only one token."""
    return [call for call in calls if call.action != "token"]


def actions(calls: list[Call]) -> Counter[str]:
    return Counter(call.action for call in asked(calls))


def at_once(calls: list[Call]) -> list[str]:
    """Return the most resource kinds that were being created at one moment, from the cloud's log."""
    made = [call for call in calls if call.method == "PUT"]
    moments = [[one for one in made if one.began <= each.began < one.ended] for each in made]
    return sorted(call.action.split("/")[-2] for call in max(moments, key=len))


def straight(bench: Bench, arm: Arm, env: dict[str, str], calls: list[Call]) -> float:
    """Return the seconds that the plain script takes."""
    told = {
        "url": arm.url,
        "token": f"/{env['AZURE_TENANT_ID']}/oauth2/v2.0/token",
        "login": {"client_id": env["AZURE_CLIENT_ID"], "client_secret": env["AZURE_CLIENT_SECRET"]},
        "calls": [
            {
                "method": call.method,
                "path": call.path,
                "query": dict(call.query),
                "body": call.body,
                "status": call.status,
                "operation": "operation" in call.action.split("/")[-2].lower(),
            }
            for call in asked(calls)
        ],
    }
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(told).encode(),
        env={**bench.env, **env},
        check=True,
        timeout=180,
        cwd=ROOT,
    )
    return time.perf_counter() - began
