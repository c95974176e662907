"""Runs on a machine, as its user: the node's releases there. Standard library of Debian 13 only.

Bodies follow."""

from __future__ import annotations


def program() -> bytes:
    """The program as one file."""
    raise NotImplementedError
