"""Rules that hold for every resource: names, tags, regions, bodies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from support.arm import models, refusals
from support.arm.catalogue import LOCATIONS
from support.arm.errors import Refusal


@dataclass(frozen=True)
class Names:
    """What a kind's names may be.

    Attributes:
        pattern: for the whole name.
        told: in words.
    """

    pattern: str
    told: str
    refusal: Refusal = refusals.BAD_NAME

    def check(self, name: str) -> None:
        """Raises:
        ArmError: it is none.
        """
        if not re.fullmatch(self.pattern, name):
            raise self.refusal(f"Resource name {name} is invalid. The name {self.told}.")


GROUP_NAMES = Names(
    r"[\w().-]{0,89}[\w()-]",
    "can be up to 90 of letters, digits, underscores, parentheses, hyphens and periods; it can't end with "
    "a period",
    refusals.BAD_GROUP_NAME,
)


def network_names(shortest: int = 1, longest: int = 80) -> Names:
    """Those of most kinds of Microsoft.Network."""
    body = rf"[A-Za-z0-9](?:[A-Za-z0-9_.-]{{{max(shortest - 2, 0)},{longest - 2}}}[A-Za-z0-9_])"
    return Names(
        body if shortest > 1 else body + "?",
        f"can be {shortest} to {longest} characters, must begin with a word character, and it must end with "
        "a word character or with '_'. The name may contain word characters or '.', '-', '_'",
    )


DISK_NAMES = Names(
    r"[A-Za-z0-9_-]{1,80}",
    "can be up to 80 characters long and may have a-z, A-Z, 0-9, hyphens and underscores",
)

VM_NAMES = Names(
    r"(?!_)[^\\/\"\[\]:|<>+=;,?*@&\s#%]{0,63}[^\\/\"\[\]:|<>+=;,?*@&\s#%.-]",
    "can be up to 64 characters; it can't have spaces or \\ / \" [ ] : | < > + = ; , ? * @ &, start with "
    "an underscore, or end with a period or hyphen",
)

TAGS_MOST, TAG_NAME_MOST, TAG_VALUE_MOST = 50, 512, 256
TAG_FORBIDDEN = "<>%&\\?/"


def check_tags(tags: Mapping[str, str] | None) -> None:
    """https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources#limitations"""
    tags = tags or {}
    if len(tags) > TAGS_MOST:
        raise refusals.TOO_MANY_TAGS(
            f"The number of tags '{len(tags)}' is too many: a resource can have at most '{TAGS_MOST}'."
        )
    seen: set[str] = set()
    for name, value in tags.items():
        if not 1 <= len(name) <= TAG_NAME_MOST:
            raise refusals.LONG_TAG_NAME(
                f"The tag name '{name[:40]}' has {len(name)} characters; it must have 1 to {TAG_NAME_MOST}."
            )
        if len(value) > TAG_VALUE_MOST:
            raise refusals.LONG_TAG_VALUE(
                f"The value of the tag '{name}' has {len(value)} characters; it can have {TAG_VALUE_MOST}."
            )
        if set(name) & set(TAG_FORBIDDEN):
            raise refusals.BAD_TAG_NAME(
                f"The tag name '{name}' has reserved characters: '{','.join(TAG_FORBIDDEN)}' can't be used."
            )
        if name.lower() in seen:
            raise refusals.SAME_TAGS(
                f"The tag name '{name}' is there twice; names are compared without case."
            )
        seen.add(name.lower())


def region(text: str) -> str:
    """A region's name as ARM writes it: `West Europe` is `westeurope`."""
    return text.replace(" ", "").lower()


def check_region(location: str, type_: str) -> None:
    if region(location) not in LOCATIONS:
        known = ",".join(LOCATIONS)
        raise refusals.BAD_LOCATION(
            f"The provided location '{location}' is not available for resource type '{type_}'. List of "
            f"available regions for the resource type is '{known}'."
        )


def check_body(body: Any, model: type, dialect: Refusal) -> None:
    """Hold it against Microsoft's model."""
    try:
        models.check(body, model)
    except models.Wrong as wrong:
        if dialect is refusals.BAD_BODY_OF_NETWORK:
            raise dialect("Cannot parse the request.", wrong.path, [("InvalidJson", wrong.message)]) from None
        if dialect is refusals.BAD_JSON:
            message = f"The request content was invalid and could not be deserialized: '{wrong.message}'."
            raise dialect(message) from None
        raise dialect(wrong.message, wrong.path) from None
