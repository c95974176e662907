"""The key that the deployer enters a machine with: made once for each stack, kept in it as a secret."""

from __future__ import annotations

COMMENT = "gridup"


def new_key() -> tuple[str, str]:
    """A new ed25519 key: the private half as OpenSSH writes it, and the public one as a line."""
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519", comment=COMMENT)
    private, public = key.export_private_key("openssh"), key.export_public_key("openssh")
    return private.decode(), public.decode().strip()
