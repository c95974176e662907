"""The management key, with which the deployer enters a machine, and the type of a machine's host key.

Each stack has one management key, as a secret.
"""

from __future__ import annotations

from collections.abc import Sequence

COMMENT = "gridup"

HOST_KEY_TYPE = "ssh-ed25519"
"""The type of the host key that is pinned; every sshd has one of this type."""


def let_in_from(networks: Sequence[str], key: str) -> str:
    """Return a line of authorized_keys that accepts a key only from these networks (CIDR).

    Without networks, the line accepts the key from everywhere. See sshd(8), AUTHORIZED_KEYS FILE FORMAT.
    """
    return f'from="{",".join(networks)}" {key}' if networks and key else key


def new_key() -> tuple[str, str]:
    """Create an ed25519 key pair. Returns (private key in OpenSSH's format, public key as a line)."""
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519", comment=COMMENT)
    private, public = key.export_private_key("openssh"), key.export_public_key("openssh")
    return private.decode(), public.decode().strip()
