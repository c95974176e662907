"""The key that the deployer enters a machine with: made once for each stack, kept in it as a secret; and
the machine's own."""

from __future__ import annotations

from collections.abc import Sequence

COMMENT = "gridup"

HOST_KEY_TYPE = "ssh-ed25519"
"""Of a machine's host key that is pinned; every sshd has one."""


def let_in_from(networks: Sequence[str], key: str) -> str:
    """A line of authorized_keys that lets a key in from these networks (CIDR) alone; for none, from all.

    See sshd(8), AUTHORIZED_KEYS FILE FORMAT.
    """
    return f'from="{",".join(networks)}" {key}' if networks and key else key


def new_key() -> tuple[str, str]:
    """A new ed25519 key: the private half as OpenSSH writes it, and the public one as a line."""
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519", comment=COMMENT)
    private, public = key.export_private_key("openssh"), key.export_public_key("openssh")
    return private.decode(), public.decode().strip()
