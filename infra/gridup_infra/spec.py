"""The spec of one node: a frozen, validated description, and its form in a stack's configuration.

This module does no I/O. Each field is a key of Pulumi's stack configuration (`gridup:port: "8080"`), so
`pulumi config` shows and sets the same values as `gridup deploy`.
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
"""The name of the Pulumi project, and the namespace of the configuration's keys."""

NODE_TYPES = ("domain", "network")
DEFAULT_ADMIN_EMAIL = "admin@example.org"
LATEST = "latest"
HTTP, HTTPS = "http", "https"

NEW_DATA = "new"
"""The value of `DeploySpec.adopted` for a node that adopts no retained data. The data stay where they are."""

_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9._/:-]*(@sha256:[0-9a-f]{64})?")
"""An image reference: a repository, optionally with its registry and port, a tag or a digest."""

_DOMAIN = re.compile(
    r"(?=.{1,253}$)([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z][a-zA-Z0-9-]{0,61}[a-zA-Z0-9]"
)
"""A name by RFC 1123, with a dot: a certificate needs a full name. Other scripts need the form xn--…"""

LONGEST_ORGANIZATION, LONGEST_DESCRIPTION = 200, 1000
"""The longest texts, in characters."""

STANDARD, UNLIMITED = CREDITS = ("standard", "unlimited")
"""The effect of used-up credits. standard: the VM gets slower. unlimited: the VM stays as fast, and the cloud
bills the use above its share."""

_HOUR = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")

_EMAIL = re.compile(r"[^@\s,;<>\"']+@[^@\s,;<>\"']+\.[^@\s,;<>\"'.]+")


@dataclass(frozen=True)
class DeploySpec:
    """The spec of one node. Empty text, 0 and () mean "not asked for: the target decides".

    Attributes:
        name: the node's name as the user typed it.
        target: the name of the target, as in the registry.
        stack_id: the random ownership mark of every resource of this stack.
        node_type: `domain` or `network`.
        port: the port of the reverse proxy; 0 = the default or the next free one.
        bind: the address that services listen on, if the target has a choice.
        scheme: `https` with the node's own CA, or plain `http`, if the target has a choice.
        admin_email: the e-mail address of the syft root account.
        tag: the syft version, or `latest`.
        keep_data: whether `destroy` retains the node's data.
        allow_cidr, web_cidr: the networks that may reach ssh and jupyter; those that may reach api and UI.
        ssh_keys: public keys of users, one per line; on a machine these users get no rights there.
        admin_ssh_keys: public keys of users who administer the machine.
        reboot_at: when the VM's own updates may restart it, as `HH:MM` by its clock; empty for never.
        disk_size: the size of the data disk, in GB.
        cpu_credits: what a VM with a share of a processor does when its credits are used up, see `CREDITS`.
        host: the address of the Docker daemon or machine that the target works on; stored, so that later
            commands need only the node's name.
        host_key: the host key that the node's machine must show; empty to pin the first one that it shows.
        key_from: the networks from which the management key gives access to that machine; empty for all.
        base_image: the image that the node's image is built from.
        image: a published image of the node, which is pulled instead of building one.
        subnet_id: an existing subnet of the cloud; empty to create a network for the stack.
        resource_group: an existing group of the cloud, which Gridup never deletes; empty to create one.
        private: whether the node has no public address.
        max_upload: the largest call of a data owner or administrator, in MB; 0 for 2 GB.
        guests: whether a key without an account may read the catalogue of datasets.
        trusted_proxies: networks of the site's own reverse proxies. The node believes what these report about
            the client.
        host_names: more names that users open the node by, such as the name of such a proxy.
        allow_egress: whether notebooks and jobs may connect to addresses outside of the node.
        machine_revision: the revision of the VM; a higher one replaces the VM and keeps its data disk.
        rebuilt: when a rebuild of the image or environment was last requested; differs for each request.
        rotated: when a rotation of the secrets was last requested (ISO 8601, UTC); later for each request.
        rotating: whether a rotation is under way: until it ends, the former secrets still give access.
        adopted: the target's id of the retained data that the node adopts; `NEW_DATA` if the user chose to
            begin without.
        adopting: whether the adoption is not final yet: the node has not been healthy with the adopted data.
            Until then every delete retains them.
        organization: the organization that runs the node, as its visitors read it; empty to show none. None
            if not asked for: then the value that the node's administrator has set stays.
        description: the purpose of the node, in a line; empty and None as for `organization`.
        packages: packages that the data owner adds to the node's own, as lines of a requirements file.
        packages_lock: the lock of these packages, see `requirements`; a deploy creates it.
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
        """Whether the data are retained when the node is deleted."""
        return self.keep_data or self.adopting

    @property
    def adopts(self) -> dict[str, str]:
        """The input for the resource that adopts retained data; empty if nothing was chosen."""
        return {"adopt": self.adopted} if self.adopted else {}

    @property
    def took_over(self) -> str:
        """The target's id of the retained data that the node adopts or has adopted; empty for none."""
        return "" if self.adopted == NEW_DATA else self.adopted

    @property
    def leaves(self) -> dict[str, str]:
        """The inputs for the resource that retains the data; empty if nothing is retained.

        They are stored next to the data, so that the next node of that name can use the same values.
        """
        return {"admin_email": self.admin_email, "node_type": self.node_type} if self.keeps else {}

    @property
    def stack(self) -> str:
        """The name of the node's Pulumi stack."""
        return stack_name(self.name)

    def with_new_id(self) -> DeploySpec:
        """Return the same spec with a new stack id. It must exist before any resource is created."""
        return replace(self, stack_id=secrets.token_hex(8))

    @classmethod
    def config_keys(cls) -> tuple[str, ...]:
        """Return the keys of the configuration, without the namespace."""
        return tuple(_key(spec_field.name) for spec_field in fields(cls))

    def to_config(self) -> dict[str, str]:
        """Return the stack's configuration: name, target, stack id, and all values that are not defaults."""
        config: dict[str, str] = {}
        for spec_field in fields(self):
            value = getattr(self, spec_field.name)
            if spec_field.name in ("name", "target", "stack_id") or value != spec_field.default:
                config[_key(spec_field.name)] = _to_text(value)
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, str]) -> DeploySpec:
        """Read a spec from a stack's configuration.

        Args:
            config: its keys may have the `gridup:` namespace. Unknown keys are refused, so that a mistyped
                `pulumi config set` is noticed.

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
        # Not splitlines: the comment of an ssh key may contain other line ends of Unicode.
        return tuple(line for line in text.split("\n") if line)
    return text


def urn(stack: str, type_: str, name: str) -> str:
    """Return the URN that the engine gives to a resource of one of Gridup's stacks.

    Args:
        stack: the stack's name.
        type_: the resource's type, such as `azure-native:network:Subnet`.
        name: the resource's name in the program.
    """
    return f"urn:pulumi:{stack}::{PROJECT}::{type_}::{name}"
