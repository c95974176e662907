"""A machine's own network: a namespace with one interface, an address that this machine reaches, and NAT.

Everything bears a tag, by which it is found and removed even when the run that made it was killed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import random
import shlex
from pathlib import Path

from support.system import attempt, must

ADDRESSES = ipaddress.IPv4Network("198.51.100.0/24")
"""Set aside by RFC 5737 for documentation: nobody's own."""

GATEWAY = "192.0.0.8"
"""The same for every machine: each has a link of its own. Not link-local: a node closes that to its
containers, which find the tests' certificate authority here. RFC 7600 sets it aside: no machine has it."""

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class Network:
    """One machine's network; made at once, `remove` undoes it.

    Attributes:
        namespace: of `ip netns`.
        address: the machine's, reached from here on every port. No other machine's port is in its way.
    """

    def __init__(self, tag: str, number: int, address: str = "") -> None:
        self._tag = f"{tag}-{number}"
        self.namespace = self._tag
        # An interface's name has at most 15 characters.
        self._link = f"gvm{tag[-6:]}{number}"
        try:
            self._make(address)
        except BaseException:
            self.remove()
            raise

    def _make(self, address: str) -> None:
        inside = ("-n", self.namespace)
        mtu = ("mtu", str(_mtu()))
        must("ip", "netns", "add", self.namespace)
        peer = ("peer", "name", "host0", "netns", self.namespace)
        must("ip", "link", "add", self._link, *mtu, "type", "veth", *peer)
        must("ip", "addr", "add", f"{GATEWAY}/32", "dev", self._link)
        must("ip", "link", "set", self._link, "up")
        self.address = self._route(address)
        must("ip", *inside, "link", "set", "lo", "up")
        must("ip", *inside, "link", "set", "host0", *mtu, "up")
        must("ip", *inside, "addr", "add", f"{self.address}/32", "dev", "host0")
        must("ip", *inside, "route", "add", "default", "via", GATEWAY, "dev", "host0", "onlink")
        mark = ("-m", "comment", "--comment", self._tag)
        for way in ("-i", "-o"):
            # Before the rules of a Docker daemon, which drop what they do not know.
            must("iptables", "-w", "-I", "FORWARD", way, self._link, *mark, "-j", "ACCEPT")
        out = ("-s", f"{self.address}/32", "!", "-o", self._link)
        must("iptables", "-w", "-t", "nat", "-I", "POSTROUTING", *out, *mark, "-j", "MASQUERADE")

    def _route(self, address: str) -> str:
        """Route an address to the machine: the one that is asked for, or one that is free."""
        hosts = [str(host) for host in ADDRESSES.hosts()]
        for one in [address] if address else random.sample(hosts, len(hosts)):
            added = attempt("ip", "route", "add", f"{one}/32", "dev", self._link)
            if added.ok:
                return one
            if address or "exists" not in added.stderr:
                raise RuntimeError(f"no route to {one}: {' '.join(added.tail())}")
        raise RuntimeError("every address for machines is taken")

    def remove(self) -> None:
        """Remove all of it, as far as it is there."""
        attempt("ip", "link", "delete", self._link)
        attempt("ip", "netns", "delete", self.namespace)
        _remove_rules(self._tag)


def sweep(tag: str) -> None:
    """Remove the networks of every machine of a run."""
    for row in json.loads(attempt("ip", "-json", "netns", "list").stdout or "[]"):
        if row["name"].startswith(f"{tag}-"):
            attempt("ip", "netns", "delete", row["name"])
    for row in json.loads(attempt("ip", "-json", "link", "show", "type", "veth").stdout or "[]"):
        if row["ifname"].startswith(f"gvm{tag[-6:]}"):
            attempt("ip", "link", "delete", row["ifname"])
    _remove_rules(tag)


def _remove_rules(tag: str) -> None:
    for table, chain in (("filter", "FORWARD"), ("nat", "POSTROUTING")):
        for line in attempt("iptables", "-w", "-t", table, "-S", chain).stdout.splitlines():
            words = shlex.split(line)
            if any(word == tag or word.startswith(f"{tag}-") for word in words):
                attempt("iptables", "-w", "-t", table, "-D", *words[1:])


def forward() -> bool:
    """Have this machine pass packets on. Returns whether it did not before."""
    if FORWARDING.read_text().strip() != "0":
        return False
    FORWARDING.write_text("1")
    return True


def stop_forwarding() -> None:
    with contextlib.suppress(OSError):
        FORWARDING.write_text("0")


def name_servers() -> str:
    """This machine's resolv.conf, or what is behind it where it names a program of the machine itself."""
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        text = path.read_text() if path.exists() else ""
        lines = [line for line in text.splitlines() if not line.startswith("nameserver 127.")]
        if any(line.startswith("nameserver") for line in lines):
            return "".join(f"{line}\n" for line in lines)
    return ""


def _mtu() -> int:
    """Of the interface that leads outside: a larger one on the way to it may lose packets."""
    routes = json.loads(attempt("ip", "-json", "route", "show", "default").stdout or "[]")
    if not routes:
        return 1500
    links = json.loads(must("ip", "-json", "link", "show", "dev", routes[0]["dev"]).stdout)
    return int(links[0]["mtu"])
