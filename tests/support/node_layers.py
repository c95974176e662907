"""The layers of the node's image that its locks and its Dockerfile alone make: minutes, the same for all."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

import docker

from gridup_infra.build_env import build_arguments
from gridup_node import image
from gridup_node.image import BASE_IMAGE

NAME = "gridup-tests"
"""Of images that only keep those layers."""


def context(whole: Mapping[str, bytes] | None = None) -> bytes:
    """A build's context, without the code of our own: what is made of the rest does not depend on it.

    Args:
        whole: a machine's; else a daemon's.
    """
    files = {name: data for name, data in (whole or image.context("latest")).items() if "/" not in name}
    return image.archive({**files, "gridup_node/__init__.py": b""})


def keep(client: docker.DockerClient) -> None:
    """Have the layers on a daemon, under names that nothing of the product's removes.

    A builder finds them there, whatever images a test removes.
    """
    made, arguments = context(), build_arguments()
    tag = hashlib.sha256(made + repr(sorted(arguments.items())).encode()).hexdigest()[:12]
    for stage in ("environment", ""):
        name = f"{NAME}/{stage or 'node'}:{tag}"
        if not client.api.images(name=name):
            _build(client, made, name, stage, {"BASE_IMAGE": BASE_IMAGE, **arguments})


def _build(
    client: docker.DockerClient, made: bytes, name: str, stage: str, arguments: Mapping[str, str]
) -> None:
    lines = client.api.build(
        fileobj=io.BytesIO(made),
        custom_context=True,
        tag=name,
        target=stage,
        buildargs=dict(arguments),
        rm=True,
        network_mode="host",
        decode=True,
    )
    for line in lines:
        assert "error" not in line, line
