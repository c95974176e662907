"""What targets share whose node has a machine of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from gridup_infra.building import BASE_IMAGE_VARIABLE
from gridup_infra.errors import ResourceError, UsageError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.base import LOG_LINES, Capability, Identity, Target, WayIn, check_tag
from gridup_node.services import Audience, openings
from gridup_node.vm import user_data

GLANCE_SECONDS = 8.0
"""For a look at a machine that may not answer; whoever asks does so again and again."""

_BY_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


class MachineTarget(Target):
    """A cloud's VM. A target of this kind puts `node.MACHINE` among the facts of its outputs."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.POWER,
            Capability.KEEP_DATA,
            Capability.REGION,
            Capability.FIREWALL,
            Capability.DOMAIN_NAME,
            Capability.SSH_KEYS,
            Capability.HOST_ONLY,
            Capability.PRIVATE,
            Capability.IMAGE,
            Capability.NEW_MACHINE,
        }
    )

    key_types: ClassVar[tuple[str, ...]] = ("ssh-ed25519", "ssh-rsa")
    """What every cloud's own machines take; others would be refused there in the middle, or never let in."""

    def resolve(self, spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:  # noqa: ARG002
        """See `Target.resolve`. A cloud calls this first and fills in what is its own."""
        check_tag(spec)
        if spec.image and not _BY_DIGEST.fullmatch(spec.image):
            raise UsageError(
                f"--image {spec.image!r} has no digest, and what a tag means may change.",
                "Give it as NAME@sha256:DIGEST; `docker image inspect` tells it in RepoDigests.",
            )
        keys = tuple(_public_key(line) for line in spec.ssh_keys)
        base = os.environ.get(BASE_IMAGE_VARIABLE) or spec.base_image
        return replace(spec, domain_name=spec.domain_name.lower(), ssh_keys=keys, base_image=base)

    def kept(self, spec: DeploySpec) -> tuple[str, ...]:
        return ("the disk with the node's data, secrets and keys (--keep-data)",) if spec.keep_data else ()

    def way_in(self, outputs: NodeOutputs) -> WayIn:
        from gridup_infra.vm.way_in import VmWayIn

        return VmWayIn(outputs, self.secret)

    def given_up(self, outputs: NodeOutputs) -> ResourceError | None:
        from gridup_infra.vm import booting
        from gridup_infra.vm.bundle import Releases
        from gridup_infra.vm.ssh import HostKeyError
        from gridup_infra.vm.way_in import VmWayIn

        way_in = VmWayIn(outputs, self.secret, GLANCE_SECONDS)
        try:
            with way_in.session() as session:
                state = booting.read_state(session)
                if state.failed:
                    return booting.failure(state, booting.read_tail(session))
                if not state.done or outputs.spec.no_node:
                    return None
                dead = Releases(session).look()["dead"]
        except HostKeyError as error:
            return error
        except (ResourceError, TimeoutError):
            return None  # It may answer the next time.
        if not dead:
            return None
        lines = way_in.logs([dead[0].split()[0]], lines=LOG_LINES, follow=False)
        hint = f'The whole log: gridup logs "{outputs.spec.name}"'
        return ResourceError(dead[0], hint, tuple(line for _, line in lines))

    def ready(self, outputs: NodeOutputs) -> bool:
        from gridup_infra.vm.way_in import VmWayIn

        if not outputs.spec.no_node:
            return True  # The engine waited for the first boot, and for the node.
        try:
            return VmWayIn(outputs, self.secret, GLANCE_SECONDS).boot_state().done
        except (ResourceError, TimeoutError):
            return False


def begun(identity: Identity, facts: Mapping[str, str]) -> NodeOutputs:
    """What `Target.begun` tells, with what the cloud's `boot_log` looks for among the facts."""
    spec = DeploySpec(name=identity.name, target=identity.target, stack_id=identity.stack_id)
    return NodeOutputs(spec=spec, address="", ports={}, facts=dict(facts))


def let_in(spec: DeploySpec) -> str:
    """Whom a machine's firewall lets in, and to which ports; for the summary."""
    who = {
        Audience.WEB: ", ".join(spec.web_cidr) or "everybody",
        Audience.STAFF: ", ".join(spec.allow_cidr) or "nobody",
    }
    ports = {
        audience: ", ".join(str(port) for port, its in openings() if its is audience) for audience in who
    }
    return "open to " + "; to ".join(f"{who[audience]}: {ports[audience]}" for audience in who)


def _public_key(line: str) -> str:
    try:
        return user_data.public_key(line)
    except ValueError as error:
        raise UsageError(f"--ssh-key: {error}.") from None
