"""Turns a spec into the plan for a machine's release program. Pure, but reads the code's own files."""

from __future__ import annotations

from typing import Any

from gridup_infra.spec import DeploySpec
from gridup_infra.vm import node
from gridup_infra.vm.acme import AcmeConfig
from gridup_infra.vm.keys import let_in_from
from gridup_infra.vm.release_client import context
from gridup_node import catalog, image
from gridup_node.confines import MACHINE_UID
from gridup_node.containers import CA_FILE, compose, machine_containers
from gridup_node.services import PROXY
from gridup_node.vm.docker import NODE

REPOSITORY = "gridup-node"
"""Repository name of images that are built on the machine."""

HEALTH_SECONDS = 240.0
"""Time limit for a release to become healthy. The first start on the smallest machine takes a minute."""


def version_of(spec: DeploySpec) -> str:
    """Return the syft version that the node runs."""
    return catalog.resolve(spec.tag)


def plan(
    spec: DeploySpec,
    address: str,
    public_key: str,
    acme: AcmeConfig,
    *,
    shared: bool = False,
    former_key: str = "",
) -> dict[str, Any]:
    """Return the fields of `release.Plan` that are known here. They contain no secret.

    Args:
        address: the machine's IP address, or its name.
        public_key: the public half of the management key, which always has access.
        shared: see `release.Plan`.
        former_key: the key that `public_key` replaces, while the node's secrets are being replaced.
    """
    base = spec.base_image or image.PINNED_BASE
    version = version_of(spec)
    files = context(version, spec.packages_lock)
    built = f"{REPOSITORY}:{version}-{image.digest(files, base, spec.rebuilt)}"
    tls = node.tls(spec, address, acme.url, acme.ca)
    known = node.known(spec, address, version, image.bundle_digest(), tls)
    fronted = node.is_fronted(spec)
    parts = machine_containers(known, egress=spec.allow_egress, port=spec.port, fronted=fronted)
    name = spec.image or built
    own = [public_key, *([former_key] if former_key else [])]
    return {
        "image": name,
        "pull": bool(spec.image),
        "base_image": base,
        "project": node.PROJECT,
        "compose": compose(node.PROJECT, name, parts, {}, spec.bind, NODE),
        "data": NODE,
        "uid": MACHINE_UID,
        "start_first": [part.service for part in parts if not part.depends_on],
        "authorized_keys": [*(let_in_from(spec.key_from, key) for key in own), *spec.admin_ssh_keys],
        "ca_file": "" if tls.acme else f"{PROXY}:{CA_FILE}",
        "health_seconds": HEALTH_SECONDS,
        # Another VM size changes the containers' limits, although the release is the same.
        **({"size": spec.size} if spec.size else {}),
        **({"users": list(spec.ssh_keys)} if spec.ssh_keys else {}),
        **({"shared": True} if shared else {"reboot_at": spec.reboot_at}),
        # Not for a cloud's machine: it has the cloud's firewall in front of it.
        **({"doors": doors} if shared and (doors := node.doors(spec)) else {}),
        **({"counted": counted} if (counted := node.counted(spec)) else {}),
        **({"rebuilt": spec.rebuilt} if spec.rebuilt else {}),
    }
