"""What may be in a VM's `osProfile`: names, passwords, keys, custom data."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from support.arm import refusals
from support.arm.errors import ArmError

DISALLOWED_NAMES = frozenset(
    [
        "administrator",
        "admin",
        "user",
        "user1",
        "test",
        "user2",
        "test1",
        "user3",
        "admin1",
        "1",
        "123",
        "a",
        "actuser",
        "adm",
        "admin2",
        "aspnet",
        "backup",
        "console",
        "david",
        "guest",
        "john",
        "owner",
        "root",
        "server",
        "sql",
        "support",
        "support_388945a0",
        "sys",
        "test2",
        "test3",
        "user4",
        "user5",
    ]
)
"""https://learn.microsoft.com/rest/api/compute/virtual-machines/create-or-update#osprofile"""

DISALLOWED_PASSWORDS = frozenset(
    [
        "abc@123",
        "P@$$w0rd",
        "P@ssw0rd",
        "P@ssword123",
        "Pa$$word",
        "pass@word1",
        "Password!",
        "Password1",
        "Password22",
        "iloveyou!",
    ]
)
"""The same page."""

NAME_MOST, PASSWORD_LEAST, PASSWORD_MOST, HOST_MOST = 64, 6, 72, 64

CUSTOM_DATA_MOST = 87380
"""Base64 characters: 65,535 bytes. https://learn.microsoft.com/azure/virtual-machines/custom-data"""

HOST_FORBIDDEN = "`~!@#$%^&*()=+_[]{}\\|;:'\",<>/?"

RSA_LEAST = 2048
"""https://learn.microsoft.com/azure/virtual-machines/linux/create-ssh-keys-detailed#supported-ssh-key-formats"""


def check(profile: Mapping[str, Any], default_host: str) -> None:
    """Of a machine with Linux."""
    host = profile.get("computerName") or default_host
    if len(host) > HOST_MOST or set(host) & set(HOST_FORBIDDEN) or host.endswith((".", "-")) or " " in host:
        raise refusals.BAD_HOST_NAME(
            f"Linux host name cannot exceed {HOST_MOST} characters in length or contain the following "
            f"characters: {' '.join(HOST_FORBIDDEN)}.",
            "computerName",
        )
    _user(profile.get("adminUsername"))
    linux = profile.get("linuxConfiguration") or {}
    keys = (linux.get("ssh") or {}).get("publicKeys") or []
    for key in keys:
        _key(key, str(profile["adminUsername"]))
    if linux.get("disablePasswordAuthentication"):
        if not keys:
            raise refusals.NO_WAY_IN(
                "At least one ssh key must be specified if disablePasswordAuthentication is set to true.",
                "linuxConfiguration.ssh.publicKeys",
            )
    else:
        _password(profile.get("adminPassword"))
    if profile.get("customData") is not None:
        _custom_data(profile["customData"])


def _user(name: str | None) -> None:
    if not name:
        raise refusals.MISSING_PARAMETER(
            "Required parameter 'osProfile.adminUsername' is missing (null).", "osProfile.adminUsername"
        )
    if len(name) > NAME_MOST or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
        raise refusals.BAD_ADMIN(
            f"The Admin Username specified is not valid: it has 1 to {NAME_MOST} letters, digits, hyphens "
            "and underscores, and does not start with a hyphen or a digit.",
            "adminUsername",
        )
    if name.lower() in DISALLOWED_NAMES:
        raise refusals.BAD_ADMIN("The Admin Username specified is not allowed.", "adminUsername")


def _password(password: str | None) -> None:
    if not password:
        raise refusals.MISSING_PARAMETER(
            "Required parameter 'osProfile.adminPassword' is missing (null).", "osProfile.adminPassword"
        )
    classes = (r"[a-z]", r"[A-Z]", r"[0-9]", r"[\W_]")
    if (
        not PASSWORD_LEAST <= len(password) <= PASSWORD_MOST
        or sum(bool(re.search(one, password)) for one in classes) < 3
    ):
        raise refusals.BAD_PASSWORD(
            f"The supplied password must be between {PASSWORD_LEAST}-{PASSWORD_MOST} characters long and "
            "must satisfy at least 3 of password complexity requirements from the following: Contains an "
            "uppercase character, Contains a lowercase character, Contains a numeric digit, Contains a "
            "special character, Control characters are not allowed",
            "adminPassword",
        )
    if password in DISALLOWED_PASSWORDS:
        raise refusals.BAD_PASSWORD("The supplied password is not allowed.", "adminPassword")


def _key(key: Mapping[str, Any], user: str) -> None:
    wanted = f"/home/{user}/.ssh/authorized_keys"
    if key.get("path") != wanted:
        raise refusals.BAD_KEY_PATH(
            f"Destination path for SSH public keys is currently limited to its default value {wanted} due "
            "to a known issue in Linux provisioning agent.",
            "linuxConfiguration.ssh.publicKeys.path",
        )
    if not key_is_supported(str(key.get("keyData", ""))):
        raise _wrong_key()


def _wrong_key() -> ArmError:
    where = "linuxConfiguration.ssh.publicKeys.keyData"
    return refusals.BAD_KEY(f"The value of parameter {where} is invalid.", where)


def key_is_supported(line: str) -> bool:
    """Whether it is a public key of a kind that Azure takes: RSA from 2048 bits on, or ed25519."""
    parts = line.split()
    if len(parts) < 2 or "\n" in line.strip() or parts[0] not in ("ssh-rsa", "ssh-ed25519"):
        return False
    try:
        fields = _fields(base64.b64decode(parts[1], validate=True))
    except (binascii.Error, ValueError):
        return False
    if not fields or fields[0] != parts[0].encode():
        return False
    if parts[0] == "ssh-ed25519":
        return len(fields) == 2 and len(fields[1]) == 32
    return len(fields) == 3 and int.from_bytes(fields[2], "big").bit_length() >= RSA_LEAST


def _fields(blob: bytes) -> list[bytes]:
    """Of the wire's form (RFC 4253, section 6.6): each has its length before it."""
    fields = []
    while blob:
        length = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + length:
            raise ValueError("cut off")
        fields.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return fields


def _custom_data(text: str) -> None:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        whole = False
    else:
        whole = len(text) <= CUSTOM_DATA_MOST
    if not whole:
        raise refusals.BAD_CUSTOM_DATA(
            "Custom data in OSProfile must be in Base64 encoding and with a maximum length of "
            f"{CUSTOM_DATA_MOST} characters.",
            "customData",
        )
