"""The benchmark of a node in containers, on the tests' daemon: deploy, image, and a rebuild of the image."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from bench_kit import ROOT, Bench, bare_up, free_port, ratio
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.docker import naming
from gridup_node import containers, image
from support.docker_rig import Daemon, base_image

SPEC = DeploySpec("Bench", target="docker", bind="127.0.0.1", stack_id="b" * 16, base_image=image.BASE_IMAGE)
"""The node that the plain script creates. A deploy creates the same node with another stack id."""

PLAIN = f"bare-{SPEC.stack}"
"""The name of the plain script's network and volume, and the prefix of its containers' names."""

SCRIPT = """
import json, sys, time, urllib.request
import docker
told = json.load(sys.stdin)
client = docker.from_env(timeout=120)
client.networks.create(told["name"])
client.volumes.create(told["name"])
for part in told["containers"]:
    ports = {port: tuple(where) for port, where in part.pop("ports").items()}
    reached = {told["name"]: client.api.create_endpoint_config(aliases=[part["hostname"]])}
    client.containers.run(detach=True, ports=ports, networking_config=reached, **part)
while True:
    try:
        with urllib.request.urlopen(told["url"], timeout=2) as answer:
            if answer.status == 200:
                break
    except OSError:
        pass
    time.sleep(0.05)
"""
"""A script as a user would write it if the containers only have to run."""

ENSURE = """
import json, sys
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.docker import images, naming
from gridup_infra.targets.docker.client import connected
spec = DeploySpec(**json.loads(sys.argv[1]))
with connected(spec.host) as client:
    wanted = {**naming.image_of(spec), "urn": "bench"}
    images.ensure(client, wanted, lambda line: None)
print(wanted["image"], wanted["shared"])
"""
"""A script that builds the node's image with the code on PYTHONPATH."""

UNWANTED = r"""
import json, re, shutil
from pathlib import Path
TOOLS = "gcc g++ cc c++ clang ld as make cmake cargo rustc go git uv".split()
CACHES = ("/root/.cache", "/home/*/.cache", "/var/lib/apt/lists", "/var/cache/apt", "/tmp", "/var/tmp")
pythons = {
    str(path.resolve())
    for top in Path("/").iterdir() if top.name not in ("proc", "sys", "dev")
    for path in top.rglob("*python[0-9]*")
    if re.fullmatch(r"(lib)?python[0-9.]+t?(\.so[0-9.]*)?", path.name) and path.is_file()
    and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF"
}
print(json.dumps({
    "build_tools": [tool for tool in TOOLS if shutil.which(tool)],
    "caches": [str(path) for folder in CACHES for top in Path("/").glob(folder[1:])
               for path in top.rglob("*") if path.is_file()],
    "second_python": sorted(pythons)[1:],
}))
"""
"""A script that runs as root in a container of the image. It lists files that the image should not have."""

LAYERS = {"/opt/gridup": "own", "/opt/node": "environment", "apt-get": "packages"}
"""Text in a layer's command -> the kind of the layer."""


def bench_docker(bench: Bench) -> dict[str, Any]:
    """Measure a node in containers, on a daemon of the tests."""
    try:
        with Daemon(bench.cache / "docker") as daemon, closing(daemon.client()) as client:
            base_image(daemon, bench.cache)
            build(bench, daemon.host, ROOT / "infra")
            return {
                "deploy_seconds": bench_deploy(bench, client, daemon.host),
                "image": bench_image(client),
                "rebuild_seconds": bench_rebuild(bench, client, daemon.host),
            }
    except pytest.skip.Exception as reason:
        return {"skipped": str(reason)}


def bench_deploy(bench: Bench, client: docker.DockerClient, host: str) -> dict[str, Any]:
    """Compare a whole deploy, until all endpoints answer, with plain calls of the SDK plus a bare inline up.

    The image exists already.
    """

    def ours() -> float:
        took = bench.run("deploy", "--cloud", "docker", "--name", SPEC.name, DOCKER_HOST=host)
        bench.run("destroy", SPEC.name, "--yes", DOCKER_HOST=host)
        return took

    found = bench.in_turns(
        deploy=ours,
        plain_containers=lambda: plain_containers(bench, client, host),
        bare_up=lambda: bare_up(bench, new=True),
    )
    return ratio(found, "deploy", found["plain_containers"] + found["bare_up"], 1.3)


def plain_containers(bench: Bench, client: docker.DockerClient, host: str) -> float:
    """Return the seconds until the API answers through the proxy, with containers from a plain script."""
    wanted = naming.image_of(SPEC)
    ports = {service: free_port() for service in naming.published()}
    known = naming.known(SPEC, ports, wanted["version"], image.bundle_digest())
    told = {
        "name": PLAIN,
        "url": f"http://127.0.0.1:{ports['proxy']}/api/v2/metadata",
        "containers": [
            {
                "image": wanted["shared"],
                "command": list(part.command),
                "name": f"{PLAIN}-{part.service}",
                "hostname": part.service,
                "environment": dict(part.environment),
                "network": PLAIN,
                "volumes": [f"{PLAIN}:{containers.VOLUME_PATH}"],
                "ports": {part.port: (SPEC.bind, ports[part.service])} if part.published else {},
                "restart_policy": {"Name": containers.RESTART},
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges:true"],
                "init": True,
                "shm_size": containers.MEMORY_FOR_SHARED,
            }
            for part in containers.containers(known)
        ],
    }
    with nothing_left(client):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            input=json.dumps(told).encode(),
            env={**bench.env, "DOCKER_HOST": host},
            check=True,
            timeout=180,
        )
        return time.perf_counter() - began


@contextmanager
def nothing_left(client: docker.DockerClient) -> Iterator[None]:
    """Delete the resources of the plain script at the end."""
    try:
        yield
    finally:
        for container in client.containers.list(all=True, filters={"name": f"^/{PLAIN}-"}):
            container.remove(force=True)
        for network in client.networks.list(filters={"name": f"^{PLAIN}$"}):
            network.remove()
        client.api.remove_volume(PLAIN, force=True)


def bench_image(client: docker.DockerClient) -> dict[str, Any]:
    """Return the image's size by kind of layer, and files in the image that a running node does not need."""
    shared = naming.image_of(SPEC)["shared"]
    base = client.api.inspect_image(image.BASE_IMAGE)["Size"]
    made = dict.fromkeys(("base", *reversed(LAYERS.values()), "other"), 0)
    made["base"] = base
    layers = client.api.history(shared)
    for layer in layers[: len(layers) - len(client.api.history(image.BASE_IMAGE))]:
        kind = next((kind for text, kind in LAYERS.items() if text in layer["CreatedBy"]), "other")
        made[kind] += layer["Size"]
    unwanted = client.containers.run(
        shared, ["-c", UNWANTED], entrypoint="python", user="0", network_mode="none", remove=True
    )
    return {
        "total_mb": round(client.api.inspect_image(shared)["Size"] / 1e6, 1),
        **{f"{kind}_mb": round(size / 1e6, 1) for kind, size in made.items()},
        "unwanted": json.loads(unwanted),
    }


def bench_rebuild(bench: Bench, client: docker.DockerClient, host: str) -> dict[str, Any]:
    """Measure a build of the image after a change of a portal page, including the interpreter's start."""
    copy = bench.folder / "infra"
    shutil.copytree(ROOT / "infra", copy, ignore=shutil.ignore_patterns("__pycache__"))
    page = copy / "gridup_node" / "portal" / "templates" / "login.html"

    def changed() -> float:
        with page.open("a") as file:
            file.write(f"<!-- {uuid.uuid4()} -->\n")
        began = time.perf_counter()
        names = build(bench, host, copy)
        took = time.perf_counter() - began
        for name in names:
            client.api.remove_image(name)
        return took

    return {**bench.in_turns(rebuild=changed), "limit": 5.0}


def build(bench: Bench, host: str, infra: Path) -> list[str]:
    """Build the node's image with the code in `infra`. Returns the stack's and the shared image's name."""
    spec = {"name": SPEC.name, "target": SPEC.target, "stack_id": SPEC.stack_id, "host": host}
    argv = [sys.executable, "-c", ENSURE, json.dumps(spec)]
    made = subprocess.run(
        argv, env={**bench.env, "PYTHONPATH": str(infra)}, check=True, stdout=subprocess.PIPE, text=True
    )
    return made.stdout.split()
