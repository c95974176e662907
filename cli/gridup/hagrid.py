"""Translates the flags of HAGrid's `launch` into Gridup's flags. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gridup_infra.errors import UsageError

NEEDLESS: Mapping[str, str] = {
    "--build": "the image is built where it is missing or old",
    "--dev": "a node runs in production mode",
    "--release": "a node runs in production mode",
    "--headless": "the UI is part of the node's one server",
    "--no-headless": "the UI is part of the node's one server",
    "--jupyter": "a node has Jupyter",
    "--vpn": "there is no VPN",
    "--no-vpn": "there is no VPN",
    "--no-health-checks": "give --no-wait to `gridup deploy`",
    "--health-checks": "a launch waits until the node answers",
    "--no-warnings": "there are none of HAGrid's",
    "--enable-warnings": "there are none of HAGrid's",
    "--no-provision": "what is there already is not made again",
    "--verbose": "give -v",
    "--oblv": "there is no enclave",
    "--render": "no template is rendered here",
    "--in-mem-workers": "workers run beside the node's server",
    "--trace": "there is no tracing",
    "--cpus": "what a node may use is a share of its machine",
    "--platform": "the image is built for the machine that it runs on",
    "--deployment-type": "what a node is made of is chosen by its target",
    "--azure-key-path": "a key is made for the node",
    "--azure-username": "the user is Gridup's own",
    "--image-name": "the image is named after what it is made of",
}
"""Flags that change nothing in Gridup -> the reason."""

RENAMED: Mapping[str, str] = {
    "--set-root-email": "--admin-email",
    "--azure-location": "--region",
    "--azure-size": "--size",
    "--azure-resource-group": "--resource-group",
    "--set-volume-size-limit-mb": "--max-upload",
}
"""HAGrid's name of a flag -> Gridup's name."""

REFUSED: Mapping[str, str] = {
    "--set-root-password": "Put the password into a file: gridup deploy --admin-password-file FILE",
    "--password": "A machine is entered by keys alone: gridup deploy --cloud ssh --host USER@ADDRESS",
    "--username": "Name the user with the machine: gridup deploy --cloud ssh --host USER@ADDRESS",
    "--key-path": "Your own ssh configuration names the key: gridup deploy --cloud ssh --host USER@ADDRESS",
    "--auth-type": "A machine is entered by keys alone.",
    "--repo": "Give a published image: gridup deploy --image REF",
    "--branch": "Give a published version: --tag VERSION",
    "--azure-repo": "Give a published image: gridup deploy --image REF",
    "--azure-branch": "Give a published version: --tag VERSION",
    "--template": "What a node is made of can't be replaced.",
    "--template-overwrite": "What a node is made of can't be replaced.",
    "--ansible-extras": "Ansible is not used.",
    "--cmd": "`gridup preview` shows what would be done.",
    "--tls": "On clouds https is the default; on this machine: gridup deploy --bind ADDRESS",
    "--test": "Give a host name of yours: gridup deploy --domain-name FQDN",
    "--cert-store-path": "On clouds https is the default: gridup deploy --domain-name FQDN",
    "--upload-tls-cert": "On clouds https is the default: gridup deploy --domain-name FQDN",
    "--upload-tls-key": "On clouds https is the default: gridup deploy --domain-name FQDN",
    "--no-blob-storage": "A node keeps its objects itself.",
    "--from-rathole": "Gridup's nodes need no tunnel.",
}
"""Flags that Gridup refuses -> what to do instead, or why there is no such flag."""

SWITCHES = frozenset(
    flag
    for flag in NEEDLESS
    if flag
    not in (
        "--cpus",
        "--platform",
        "--deployment-type",
        "--azure-key-path",
        "--azure-username",
        "--image-name",
        "--build",
        "--headless",
    )
)
"""The flags of `NEEDLESS` that never have a value."""

TRUTHS = frozenset({"true", "false", "yes", "no", "1", "0"})
"""The values that some versions of HAGrid allow after `--build` and `--headless`."""


def translated(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the words of a `launch` in Gridup's form, and a remark on each flag that changes nothing.

    Raises:
        UsageError: a flag is in `REFUSED`; the suggestion names what to do instead.
    """
    made: list[str] = []
    remarks: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, has_value, value = word.partition("=")
        # HAGrid writes some flags with an underscore.
        flag = flag.replace("_", "-")
        if flag in REFUSED:
            raise UsageError(f"{flag} of HAGrid is no flag here.", REFUSED[flag])
        if flag in RENAMED:
            made.append(RENAMED[flag] + has_value + value)
        elif flag in NEEDLESS:
            remarks.append(f"{flag} changes nothing: {NEEDLESS[flag]}.")
            takes = flag not in SWITCHES
            if (
                takes
                and not has_value
                and rest
                and (rest[0].casefold() in TRUTHS or flag not in ("--build", "--headless"))
            ):
                rest.pop(0)
        else:
            made.append(word)
    return made, remarks
