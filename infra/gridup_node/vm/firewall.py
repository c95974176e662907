"""Finds a firewall on a user's machine that denies by default. Docker's published ports bypass it.

Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Said = Callable[..., "str | None"]
"""Returns the output of a program; None if it failed or is not installed."""

INPUT = re.compile(r"hook input priority [^;]*; policy (\w+);(.*?)\n\t}", re.DOTALL)
"""A base chain of nftables: its policy and its rules."""


def denying(said: Said) -> str:
    """Return the name of the firewall that denies by default; empty for none."""
    ufw = said("ufw", "status", "verbose") or ""
    if "Status: active" in ufw and re.search(r"Default: (deny|reject) \(incoming\)", ufw):
        return "ufw"
    if said("firewall-cmd", "--state") == "running":
        return "firewalld"
    rules = (said("iptables", "--list-rules", "INPUT") or "").splitlines()
    if "-P INPUT DROP" in rules or (rules and re.match(r"-A INPUT -j (DROP|REJECT)", rules[-1])):
        return "iptables' chain INPUT"
    for policy, chain in INPUT.findall(said("nft", "list", "ruleset") or ""):
        last = chain.strip().splitlines()[-1:] or [""]
        if policy == "drop" or re.match(
            r"(counter (packets \d+ bytes \d+ )?)?(drop|reject)\b", last[0].strip()
        ):
            return "nftables"
    return ""
