"""What one node should be: a frozen, validated description, to and from a stack's configuration.

No I/O happens here. A field's text form is its form in Pulumi's stack configuration
(`gridup:port: "8080"`), so `pulumi config` shows and sets what `gridup deploy` does.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from gridup_infra.errors import UsageError
from gridup_infra.naming import check_name, stack_name
from gridup_infra.requirements import check, check_lock

PROJECT = "gridup"
"""Pulumi's project name, and the namespace of the configuration's keys."""

NODE_TYPES = ("domain", "network")
DEFAULT_ADMIN_EMAIL = "admin@example.org"
LATEST = "latest"
HTTP, HTTPS = "http", "https"

NEW_DATA = "new"
"""In the place of an earlier node's data: none of them, and they stay where they are."""

_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9._/:-]*(@sha256:[0-9a-f]{64})?")
"""An image's reference: a repository, maybe with its registry and port, a tag or a digest."""

_DOMAIN = re.compile(
    r"(?=.{1,253}$)([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z][a-zA-Z0-9-]{0,61}[a-zA-Z0-9]"
)
"""RFC 1123, with a dot in it: a certificate is for a whole name. A name in other letters is given as xn--…"""

LONGEST_ORGANIZATION, LONGEST_DESCRIPTION = 200, 1000
"""Characters."""

STANDARD, UNLIMITED = CREDITS = ("standard", "unlimited")
"""Without credits a VM gets slower; or it is as fast, and the cloud bills what is above its share."""

_HOUR = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")

_EMAIL = re.compile(r"[^@\s,;<>\"']+@[^@\s,;<>\"']+\.[^@\s,;<>\"'.]+")


@dataclass(frozen=True)
class DeploySpec:
    """One node, as asked for. Empty text, 0 and () mean "not asked for: the target decides".

    Attributes:
        name: as typed.
        target: the registry's name of where it runs.
        stack_id: the random mark that every resource of this stack bears.
        node_type: `domain` or `network`.
        port: of the reverse proxy; 0 = the default or the next free one.
        bind: the address that services listen on where the target has a choice.
        scheme: `https` by the node's own CA or plain `http`, where the target has a choice.
        admin_email: the syft root account.
        tag: the syft version, or `latest`.
        keep_data: `destroy` keeps the node's data.
        allow_cidr, web_cidr: who may reach ssh and jupyter; who may reach api and UI.
        ssh_keys: public keys of people, a line each; on a machine they get no rights there.
        admin_ssh_keys: those of people who administer the machine.
        reboot_at: when the VM's own updates may restart it, as `HH:MM` by its clock; empty for never.
        disk_size: of the data disk, in GB.
        cpu_credits: what a VM with a share of a processor does when its credits are used up, see `CREDITS`.
        host: of what the target drives, such as a Docker daemon or a machine; remembered, so that later
            commands need only the name.
        host_key: that the node's machine must show; empty to pin the one it shows first.
        key_from: from where the stack's own key lets in to that machine; empty for everywhere.
        base_image: what the node's image is built from.
        image: a published image of the node, pulled instead of one being built.
        subnet_id: an existing subnet of the cloud's; empty for a network of the stack's own.
        resource_group: an existing group of the cloud's, never ours to delete; empty for one of our own.
        private: no public address.
        max_upload: of one call of a data owner or administrator, in MB; 0 for 2 GB.
        guests: whether a key without an account may read the catalogue of datasets.
        trusted_proxies: networks of a site's own reverse proxies, whose word on who asks is taken.
        host_names: further names that people open the node by, such as that of such a proxy.
        allow_egress: notebooks and jobs may connect to what is outside of the node.
        machine_revision: of the VM: one more replaces it, and its data disk stays.
        rebuilt: when the image or environment was last asked to be made anew; another one for each such time.
        rotated: when its secrets were last asked to be replaced (ISO 8601, UTC); a later one each such time.
        rotating: whether that is under way: what opened the node before still may.
        adopted: the data of an earlier node that it takes over, as its target calls them; `NEW_DATA` where
            the person chose to begin with none.
        adopting: whether they are not its own yet: it has not been healthy with them, and whatever ends it
            keeps them.
        organization: that runs the node, as its visitors read it; empty to tell none, None where nobody said:
            it is then as its administrator has set it.
        description: what it is for, in a line; likewise.
        packages: that its data owner adds to those it runs on, as lines of a requirements file.
        packages_lock: what was found for them, see `requirements`; a deploy makes it.
    """

    name: str
    target: str = "local"
    stack_id: str = ""
    node_type: str = "domain"
    port: int = 0
    bind: str = ""
    scheme: str = ""
    admin_email: str = DEFAULT_ADMIN_EMAIL
    tag: str = LATEST
    keep_data: bool = False
    region: str = ""
    size: str = ""
    disk_size: int = 0
    cpu_credits: str = ""
    domain_name: str = ""
    allow_cidr: tuple[str, ...] = ()
    web_cidr: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    admin_ssh_keys: tuple[str, ...] = ()
    reboot_at: str = ""
    no_node: bool = False
    host: str = ""
    host_key: str = ""
    key_from: tuple[str, ...] = ()
    base_image: str = ""
    image: str = ""
    subnet_id: str = ""
    resource_group: str = ""
    private: bool = False
    max_upload: int = 0
    guests: bool = False
    trusted_proxies: tuple[str, ...] = ()
    host_names: tuple[str, ...] = ()
    allow_egress: bool = False
    machine_revision: int = 0
    rebuilt: str = ""
    rotated: str = ""
    rotating: bool = False
    adopted: str = ""
    adopting: bool = False
    organization: str | None = None
    description: str | None = None
    packages: tuple[str, ...] = ()
    packages_lock: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.node_type not in NODE_TYPES:
            raise UsageError(f"--type {self.node_type}: a node is a {' or a '.join(NODE_TYPES)}.")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port {self.port}: a port is a number from 1 to 65535.")
        if not _EMAIL.fullmatch(self.admin_email):
            raise UsageError(f"--admin-email {self.admin_email!r} is not an e-mail address.")
        if self.bind:
            try:
                ipaddress.ip_address(self.bind)
            except ValueError:
                raise UsageError(
                    f"--bind {self.bind!r} is not an IP address.",
                    "127.0.0.1 is this machine alone, 0.0.0.0 every IPv4 address it has.",
                ) from None
        if self.scheme not in ("", HTTP, HTTPS):
            raise UsageError(f"A node speaks {HTTP} or {HTTPS}, not {self.scheme!r}.")
        for flag, cidrs in (
            ("--allow-cidr", self.allow_cidr),
            ("--web-cidr", self.web_cidr),
            ("--trusted-proxy", self.trusted_proxies),
            ("--key-from", self.key_from),
        ):
            for cidr in cidrs:
                try:
                    ipaddress.ip_network(cidr)
                except ValueError as error:
                    raise UsageError(f"{flag} {cidr!r} is not a network: {error}.") from None
        if self.image and not _IMAGE.fullmatch(self.image):
            raise UsageError(
                f"--image {self.image!r} is not an image's reference.",
                "For example ghcr.io/inst/gridup-node@sha256:…, with the 64 digits of its digest.",
            )
        if self.domain_name and not _DOMAIN.fullmatch(self.domain_name):
            raise UsageError(
                f"--domain-name {self.domain_name!r} is not a whole DNS name.",
                "For example node.inst.example.",
            )
        for name in self.host_names:
            if not _DOMAIN.fullmatch(name):
                raise UsageError(
                    f"--host-name {name!r} is not a whole DNS name.", "For example node.inst.example."
                )
        if self.reboot_at and not _HOUR.fullmatch(self.reboot_at):
            raise UsageError(
                f"--reboot-at {self.reboot_at!r} is not an hour of the day.",
                'It has the form HH:MM, such as 03:30; "never" is the default.',
            )
        for flag, text, longest in (
            ("--organization", self.organization, LONGEST_ORGANIZATION),
            ("--description", self.description, LONGEST_DESCRIPTION),
        ):
            if text and (len(text) > longest or not text.isprintable()):
                raise UsageError(f"{flag}: a line of at most {longest} characters.")
        try:
            for line in self.packages:
                check(line)
            if self.packages_lock:
                check_lock(self.packages_lock)
        except ValueError as error:
            raise UsageError(f"--packages: a line {error}.") from None
        if self.max_upload < 0:
            raise UsageError(f"--max-upload {self.max_upload}: a size is a positive number of MB.")
        if self.cpu_credits not in ("", *CREDITS):
            raise UsageError(f"--cpu-credits {self.cpu_credits!r}: it is {' or '.join(CREDITS)}.")
        if self.disk_size < 0:
            raise UsageError(f"--disk-size {self.disk_size}: a size is a positive number of GB.")

    @property
    def keeps(self) -> bool:
        """Whether its data stays when it goes."""
        return self.keep_data or self.adopting

    @property
    def adopts(self) -> dict[str, str]:
        """The input of what takes over an earlier node's data; none where nothing was chosen."""
        return {"adopt": self.adopted} if self.adopted else {}

    @property
    def took_over(self) -> str:
        """The data of an earlier node that it has, as its target calls them; empty for none."""
        return "" if self.adopted == NEW_DATA else self.adopted

    @property
    def leaves(self) -> dict[str, str]:
        """The inputs of what keeps its data: what the next node of its name goes on with, which a note beside
        the data tells. None where nothing is kept."""
        return {"admin_email": self.admin_email, "node_type": self.node_type} if self.keeps else {}

    @property
    def stack(self) -> str:
        """The name of its Pulumi stack."""
        return stack_name(self.name)

    def with_new_id(self) -> DeploySpec:
        """The same with a fresh stack id, made before anything is created."""
        return replace(self, stack_id=secrets.token_hex(8))

    @classmethod
    def config_keys(cls) -> tuple[str, ...]:
        """The configuration's keys, without the namespace."""
        return tuple(_key(spec_field.name) for spec_field in fields(cls))

    def to_config(self) -> dict[str, str]:
        """Its form in a stack's configuration: only what differs from the defaults, and the identity."""
        config: dict[str, str] = {}
        for spec_field in fields(self):
            value = getattr(self, spec_field.name)
            if spec_field.name in ("name", "target", "stack_id") or value != spec_field.default:
                config[_key(spec_field.name)] = _to_text(value)
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, str]) -> DeploySpec:
        """Read it back.

        Args:
            config: with or without the `gridup:` namespace on its keys; unknown keys are refused,
                so that a mistyped `pulumi config set` is noticed.

        Raises:
            UsageError: a key is unknown or missing, or a value is not valid.
        """
        known = {_key(spec_field.name): spec_field for spec_field in fields(cls)}
        values: dict[str, Any] = {}
        for raw_key, text in config.items():
            key = raw_key.removeprefix(f"{PROJECT}:")
            if key not in known:
                raise UsageError(
                    f"The stack's configuration has an unknown key {PROJECT}:{key}.",
                    f"Known are: {', '.join(sorted(known))}.",
                )
            spec_field = known[key]
            values[spec_field.name] = _from_text(key, text, spec_field.default)
        if "name" not in values:
            raise UsageError(
                f"The stack's configuration has no {PROJECT}:name.",
                f"For example: pulumi config set {PROJECT}:name Inst",
            )
        return cls(**values)


def _key(name: str) -> str:
    return name.replace("_", "-")


def _to_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "\n".join(value)
    return str(value)


def _from_text(key: str, text: str, like: object) -> object:
    if isinstance(like, bool):
        if text not in ("true", "false"):
            raise UsageError(f"{PROJECT}:{key} is {text!r}; it must be true or false.")
        return text == "true"
    if isinstance(like, int):
        if not text.isdecimal():
            raise UsageError(f"{PROJECT}:{key} is {text!r}; it must be a whole number.")
        return int(text)
    if isinstance(like, tuple):
        # Not splitlines: a key's comment may hold what Unicode calls a line's end.
        return tuple(line for line in text.split("\n") if line)
    return text


def urn(stack: str, type_: str, name: str) -> str:
    """The URN of a resource of one of our stacks, as the engine makes it.

    Args:
        type_: such as `azure-native:network:Subnet`.
        name: in the program.
    """
    return f"urn:pulumi:{stack}::{PROJECT}::{type_}::{name}"
