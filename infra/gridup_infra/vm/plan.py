"""From a spec to what a machine's program is to make of it. Pure, but for the code's own files."""

from __future__ import annotations

from typing import Any

from gridup_infra.spec import DeploySpec
from gridup_infra.vm import node
from gridup_infra.vm.settings import Acme
from gridup_node import catalog, image
from gridup_node.containers import compose, machine_containers
from gridup_node.vm.docker import NODE

REPOSITORY = "gridup-node"
"""Of images that are built on the machine."""

CA_FILE = f"{NODE}/proxy/caddy/pki/authorities/local/root.crt"
"""Where Caddy, as the node's front door, keeps the certificate of its own CA, as the machine sees it."""

HEALTH_SECONDS = 240.0
"""Until a release must have proven itself; the first start of the smallest machine takes a minute."""


def version_of(spec: DeploySpec) -> str:
    """The syft version that the node runs."""
    return catalog.resolve(spec.tag)


def plan(
    spec: DeploySpec, address: str, public_key: str, acme: Acme, *, shared: bool = False
) -> dict[str, Any]:
    """The inputs of `release.Plan` that can be known here; they hold no secret.

    Args:
        address: the machine's IP address, or its name.
        public_key: the deployer's own, which always may enter.
        shared: see `release.Plan`.
    """
    base = spec.base_image or image.BASE_IMAGE
    version = version_of(spec)
    built = f"{REPOSITORY}:{version}-{image.digest(image.context(version), base)}"
    tls = node.tls(spec, address, acme.url, acme.ca)
    known = node.known(spec, address, version, image.bundle_digest(), tls)
    parts = machine_containers(known)
    name = spec.image or built
    return {
        "image": name,
        "pull": bool(spec.image),
        "base_image": base,
        "project": node.PROJECT,
        "compose": compose(node.PROJECT, name, parts, {}, "", NODE),
        "first": [part.service for part in parts if not part.after],
        "people": [public_key, *spec.ssh_keys],
        "ca_file": "" if tls.acme else CA_FILE,
        "health_seconds": HEALTH_SECONDS,
        **({"shared": True} if shared else {}),
    }
