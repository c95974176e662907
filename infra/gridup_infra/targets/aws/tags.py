"""The tags that show which AWS resources belong to a stack: those with its id. Gridup touches no others.

The call that creates a resource also sets its tags, so that the resource is never without an owner.
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
"""On a data disk that an instance has used: it may hold data."""
RETAINED_AT = f"{PREFIX}kept"
"""On a retained disk (`--keep-data`): the time since which it is retained."""
NOTED = {"admin_email": f"{PREFIX}admin-email", "node_type": f"{PREFIX}node-type"}
"""On a retained disk: facts about its former node. The keys are names of fields of a spec."""
UNOWNED = "kept"
"""The stack id of a retained disk: it belongs to no stack any more."""

VALUE_MAX = 256
"""Most characters of a tag's value (EC2 User Guide, "Tag restrictions"). Counted in UTF-16, to be safe."""


def value(text: str) -> str:
    """Return a text as a valid tag value: AWS's own prefix gets a `_` before it, and a long text is cut."""
    if text.lower().startswith("aws:"):
        text = f"_{text}"
    while len(text.encode("utf-16-le")) // 2 > VALUE_MAX:
        text = text[:-1]
    return text


def tags(props: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a resource with these inputs."""
    return {
        STACK_ID: props["stack_id"],
        URN: value(props["urn"]),
        STACK: props["stack"],
        NAME: value(props["name"]),
        "Name": props["project"],
    }


def to_api(wanted: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags in the API's format."""
    return [{"Key": key, "Value": text} for key, text in wanted.items()]


def tag_spec(props: Mapping[str, Any], *kinds: str) -> list[dict[str, Any]]:
    """Return `TagSpecifications` for the resources that a call creates."""
    return [{"ResourceType": kind, "Tags": to_api(tags(props))} for kind in kinds]


def of(thing: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a resource in the form in which the API lists it."""
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags") or ()}


def by_stack(stack_id: str) -> list[dict[str, Any]]:
    """Return `Filters` for all resources of a stack."""
    return [{"Name": f"tag:{STACK_ID}", "Values": [escape_filter(stack_id)]}]


def by_urn(props: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return `Filters` for one resource of a stack."""
    return [
        *by_stack(props["stack_id"]),
        {"Name": f"tag:{URN}", "Values": [escape_filter(value(props["urn"]))]},
    ]


def escape_filter(text: str) -> str:
    """Return a filter value that matches exactly this text: the API takes `*` and `?` for patterns."""
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")
