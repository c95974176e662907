"""Between the node's containers and what a cloud tells its machines.

Who takes over a container must not get the machine's own identity there, nor who enters the machine without
rights (`people`): such a user does not get past the reverse proxy to the containers either.

A systemd unit lays the rules before Docker starts, at every boot, in a table that Docker leaves alone. They
concern the node's own networks only, whose bridges are called by `BRIDGE`: what else runs in the machine's
Docker is not the node's.

On a machine of somebody else's it also says who reaches the node's ports, where that was asked for: what
Docker publishes goes past the machine's own firewall.

And it counts the connections of one address to the node's ports, which its reverse proxy can't.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gridup_node.confines import BRIDGE
from gridup_node.vm import people
from gridup_node.vm.docker_cli import Completed, Failed, run

UNIT = "gridup-shield.service"
PATH = f"/etc/systemd/system/{UNIT}"

CHAIN = "GRIDUP"

CLOSED = ("169.254.0.0/16", "168.63.129.16")
"""Link-local, where clouds have their metadata service, credentials and clock; and Azure's own address
(https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16)."""

CLOSED_V6 = ("fd00:ec2::/32",)
"""Amazon's services for instances, of which fd00:ec2::254 is the metadata service."""

_USER = f"OUTPUT --match owner --uid-owner {people.UID}"
JUMPS = (
    f"PREROUTING --in-interface {BRIDGE}+ --jump {CHAIN}",
    f"{_USER} --jump {CHAIN}",
    f"{_USER} --out-interface {BRIDGE}+ --jump DROP",
)
"""The rules that lead there: for what comes from the node's networks, and from people without rights. What
these send to a port that Docker publishes is not known here as the container's yet, and goes on."""

DOORS = "GRIDUP-DOORS"
COUNTS = "GRIDUP-COUNTS"
DOCKER_USER = "DOCKER-USER"
"""Docker's chain for rules of others, which it makes at its start where there is none, and leaves alone."""


def _ways(chain: str) -> tuple[str, str]:
    """The rules that lead there.

    For what Docker passes on to the node's containers, and for what a program of Docker's takes for them, as
    it does where a network has no IPv6. They open nothing, whatever else is there.
    """
    return (f"{DOCKER_USER} --out-interface {BRIDGE}+ --jump {chain}", f"INPUT --jump {chain}")


Doors = Mapping[str, Sequence[str]]
"""Ports of the machine, each with the networks (CIDR) that reach it. Others are open to everybody."""

Counted = Mapping[str, Sequence[str]]
"""Ports of the machine whose connections are counted by address, each with the networks (CIDR) whose are not.
A site's own reverse proxy has those of all its people."""

MOST_CONNECTIONS = 500
"""At once, of one address, or of the first 64 bits of an IPv6 one, which are a site's.

A whole institution may be behind one address, and an older browser has six. In the reverse proxy each costs a
file, of which it may have many times as many, and some 50 kB.
"""

NAMES = 53
"""What a machine's name server may be asked at: on Azure, and on Amazon by choice, that is one of these."""


def unit(doors: Doors | None = None, counted: Counted | None = None) -> str:
    """The unit's file."""
    lines = [
        "[Unit]",
        "Description=Gridup: the node's containers do not reach the cloud's metadata service",
        "Before=docker.service",
        # Each of them may begin by removing all rules.
        "After=nftables.service netfilter-persistent.service firewalld.service ufw.service",
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        *_rules("/usr/sbin/iptables", CLOSED),
        # A kernel without IPv6 has nothing to close.
        *_where_it_can(_rules("/usr/sbin/ip6tables", CLOSED_V6)),
        *_doors("/usr/sbin/iptables", 4, doors or {}),
        *_where_it_can(_doors("/usr/sbin/ip6tables", 6, doors or {})),
        # Not every kernel can count.
        *_where_it_can(_counts("/usr/sbin/iptables", 4, counted or {})),
        *_where_it_can(_counts("/usr/sbin/ip6tables", 6, counted or {})),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "".join(f"{line}\n" for line in lines)


def _rules(program: str, closed: tuple[str, ...]) -> list[str]:
    table = f"{program} --wait --table raw"
    rules = [f"--protocol {name} --dport {NAMES} --jump RETURN" for name in ("udp", "tcp")]
    rules += [f"--destination {network} --jump DROP" for network in closed]
    return _chain(table, CHAIN, rules, JUMPS)


def _chain(table: str, chain: str, rules: Sequence[str], ways: Sequence[str]) -> list[str]:
    """Lines that lay a chain of ours anew, and the ways that lead there."""
    return [
        f"ExecStart=-{table} --new-chain {chain}",
        f"ExecStart={table} --flush {chain}",
        *(f"ExecStart={table} --append {chain} {rule}" for rule in rules),
        *(
            line
            for way in ways
            for line in (f"ExecStart=-{table} --delete {way}", f"ExecStart={table} --insert {way}")
        ),
    ]


def _where_it_can(lines: Sequence[str]) -> list[str]:
    """What fails there is left out, and the unit is at work all the same."""
    return [line.replace("ExecStart=/", "ExecStart=-/") for line in lines]


def _doors(program: str, version: int, doors: Doors) -> list[str]:
    """As Docker documents it: by the port that was asked for, before it became the container's."""
    if not doors:
        return []
    return _at_the_ports(program, DOORS, version, doors, "", "--jump DROP")


def _counts(program: str, version: int, counted: Counted) -> list[str]:
    """A new connection beyond `MOST_CONNECTIONS` is told so at once, and no other is looked at."""
    if not counted:
        return []
    sites = 32 if version == 4 else 64
    above = f"--match connlimit --connlimit-above {MOST_CONNECTIONS} --connlimit-mask {sites}"
    refused = f"{above} --jump REJECT --reject-with tcp-reset"
    return _at_the_ports(program, COUNTS, version, counted, "--syn ", refused)


def _at_the_ports(
    program: str, chain: str, version: int, ports: Mapping[str, Sequence[str]], which: str, then: str
) -> list[str]:
    """Lines that lay `chain` for packets `which` to the ports; those of a port's networks go on."""
    table = f"{program} --wait"
    # The machine itself and the node's own containers are not kept out.
    rules = [f"--in-interface {name} --jump RETURN" for name in ("lo", f"{BRIDGE}+")]
    for port, networks in sorted(ports.items()):
        asked = f"--protocol tcp {which}--match conntrack --ctdir ORIGINAL --ctorigdstport {port}"
        own = [one for one in networks if ipaddress.ip_network(one).version == version]
        rules += [*(f"{asked} --source {network} --jump RETURN" for network in own), f"{asked} {then}"]
    return [
        f"ExecStart=-{table} --new-chain {DOCKER_USER}",
        *_chain(table, chain, rules, _ways(chain)),
    ]


def opening(chain: str) -> list[list[str]]:
    """What takes the rules about the node's ports away again, for root; any of it may be gone."""
    return _without(chain, _ways(chain))


def _without(chain: str, ways: Sequence[str], *table: str) -> list[list[str]]:
    made = []
    for program in ("iptables", "ip6tables"):
        begin = [program, "--wait", *table]
        made += [
            *([*begin, "--delete", *way.split()] for way in ways),
            [*begin, "--flush", chain],
            [*begin, "--delete-chain", chain],
        ]
    return made


def removal() -> list[list[str]]:
    """What takes it away again, for root; any of it may be gone."""
    off = ["systemctl", "disable", "--now", UNIT]
    return [off, *_without(CHAIN, JUMPS, "--table", "raw"), *opening(DOORS), *opening(COUNTS)]


class Shield:
    """The unit on this machine, as a user sees it who may use sudo.

    Args:
        file: where it lies; tests have a place of their own.
        run: see `docker_cli.run`.
    """

    def __init__(self, file: Path = Path(PATH), run: Callable[..., Completed] = run) -> None:
        self._file, self._run = file, run

    def problems(self, doors: Doors | None = None, counted: Counted | None = None) -> list[str]:
        """What is not as it was laid, a line each."""
        if self._laid() != unit(doors, counted):
            return ["the rules that close the cloud's metadata service to the containers are not laid"]
        if self._run(["systemctl", "is-active", "--quiet", UNIT]).code != 0:
            return [f"the rules that close the cloud's metadata service are off: {UNIT} is not active"]
        return []

    def lay(self, doors: Doors | None = None, counted: Counted | None = None) -> None:
        """Have it at work now and after every boot; nothing is done where it is.

        Raises:
            Failed: it can't be.
        """
        if not self.problems(doors, counted):
            return
        had = self._laid()
        self._must(
            ["install", "--mode=0644", "/dev/stdin", str(self._file)], input=unit(doors, counted).encode()
        )
        self._must(["systemctl", "daemon-reload"])
        self._must(["systemctl", "enable", "--quiet", UNIT])
        self._must(["systemctl", "restart", UNIT])
        for chain, ports in ((DOORS, doors), (COUNTS, counted)):
            for argv in opening(chain) if chain in had and not ports else ():
                self._run(["sudo", "--non-interactive", *argv])

    def _laid(self) -> str:
        try:
            return self._file.read_text(encoding="utf-8")
        except OSError:
            return ""

    def _must(self, argv: list[str], **more: Any) -> None:
        done = self._run(["sudo", "--non-interactive", *argv], **more)
        if done.code != 0:
            raise Failed(
                f"The cloud's metadata service could not be closed to the containers: {done.line}.",
                f"`journalctl --unit={UNIT}` on the machine tells more.",
            )
