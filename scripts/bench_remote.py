"""The benchmark of a remote state: on the tests' own Pulumi Cloud, with 200 ms of delay per call."""

from __future__ import annotations

from typing import Any

from bench_kit import Bench, ratio, seconds
from gridup_infra.spec import DeploySpec
from support.checkpoints import deployment, outputs_for
from support.pulumi_cloud import ACCOUNT, PulumiCloud

DELAY = 0.2
NODES = 12


def held(name: str) -> dict[str, Any]:
    spec = DeploySpec(name, stack_id=f"{len(name):016x}")
    return deployment(spec, outputs=outputs_for(spec).exports())


def bench_remote(bench: Bench) -> dict[str, Any]:
    """Compare `gridup status` of many nodes, without probes, with the engine's list and exports."""
    stacks = {f"{ACCOUNT}/gridup/n{number}": held(f"n{number}") for number in range(NODES)}
    project = bench.folder / "project"
    project.mkdir()
    (project / "Pulumi.yaml").write_text("name: gridup\nruntime: python\n")
    with PulumiCloud(stacks, DELAY) as cloud:
        own = {
            "PULUMI_BACKEND_URL": cloud.url,
            "PULUMI_ACCESS_TOKEN": "pul-bench",
            "PULUMI_HOME": str(bench.folder / "pulumi"),
            "PULUMI_SKIP_UPDATE_CHECK": "1",
        }
        stack = [str(bench.engine / "bin" / "pulumi"), "--non-interactive", "stack"]
        found = bench.in_turns(
            status=lambda: bench.run("status", "--no-probe", **own),
            list=lambda: seconds([*stack, "ls", "--json"], {**bench.env, **own}, project),
            export=lambda: seconds([*stack, "export", "-s", "n1"], {**bench.env, **own}, project),
        )
    straight = found["list"] + NODES * found["export"]
    return {"nodes": NODES, "status_seconds": ratio(found, "status", straight, 0.6)}
