"""What in an AWS account belongs to a stack: that which bears its id. Nothing else is ever touched.

Tags are set in the call that makes a thing, so that there is no moment at which it is nobody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "gridup:"
STACK_ID = f"{PREFIX}stack-id"
URN = f"{PREFIX}urn"
STACK = f"{PREFIX}stack"
NAME = f"{PREFIX}name"
HAS_DATA = f"{PREFIX}used"
"""On a data disk that a machine has had: it may hold data."""
RETAINED_AT = f"{PREFIX}kept"
"""On a data disk that outlived its stack (`--keep-data`): since when."""
NOTED = {"admin_email": f"{PREFIX}admin-email", "node_type": f"{PREFIX}node-type"}
"""On such a disk: of the node that had it, by the names of a spec."""
UNOWNED = "kept"
"""The stack id of such a disk: it is of no stack any more."""

VALUE_MAX = 256
"""Characters of a tag's value (EC2 User Guide, "Tag restrictions"); we count as UTF-16 does, to be safe."""


def value(text: str) -> str:
    """A text as a tag's value: all characters are allowed, but not AWS's own prefix, nor any length."""
    if text.lower().startswith("aws:"):
        text = f"_{text}"
    while len(text.encode("utf-16-le")) // 2 > VALUE_MAX:
        text = text[:-1]
    return text


def tags(props: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a resource with these inputs."""
    return {
        STACK_ID: props["stack_id"],
        URN: value(props["urn"]),
        STACK: props["stack"],
        NAME: value(props["name"]),
        "Name": props["project"],
    }


def to_api(wanted: Mapping[str, str]) -> list[dict[str, str]]:
    """As the API takes them."""
    return [{"Key": key, "Value": text} for key, text in wanted.items()]


def tag_spec(props: Mapping[str, Any], *kinds: str) -> list[dict[str, Any]]:
    """`TagSpecifications` for what a call makes."""
    return [{"ResourceType": kind, "Tags": to_api(tags(props))} for kind in kinds]


def of(thing: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a thing as the API lists it."""
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags") or ()}


def by_stack(stack_id: str) -> list[dict[str, Any]]:
    """`Filters` for all that is a stack's."""
    return [{"Name": f"tag:{STACK_ID}", "Values": [escape_filter(stack_id)]}]


def by_urn(props: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`Filters` for one resource of a stack."""
    return [
        *by_stack(props["stack_id"]),
        {"Name": f"tag:{URN}", "Values": [escape_filter(value(props["urn"]))]},
    ]


def escape_filter(text: str) -> str:
    """A filter's value that means just that text: `*` and `?` are patterns to the API."""
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")
