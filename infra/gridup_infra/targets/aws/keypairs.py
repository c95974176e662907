"""The EC2 key pair with the public half of the management key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gridup_infra.targets.aws import kinds, tags
from gridup_infra.targets.aws.client import Cloud
from gridup_infra.targets.aws.kinds import Thing


def ensure(cloud: Cloud, props: Mapping[str, Any]) -> Thing:
    """Return the stack's key pair; import it if needed.

    EC2 takes ed25519 and RSA keys; Gridup's is ed25519.
    """

    def make(ec2: Any) -> Thing:
        made: Thing = ec2.import_key_pair(
            KeyName=props["project"],
            PublicKeyMaterial=props["public_key"].encode(),
            TagSpecifications=tags.tag_spec(props, "key-pair"),
        )
        return made

    return cloud.create_once(lambda: kinds.find(cloud, kinds.KEY, props), make)
