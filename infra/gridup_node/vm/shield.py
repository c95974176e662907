"""Firewall rules for the node's containers and ports on a machine.

They close the cloud's metadata service: whoever takes over a container must not get the machine's own
identity. The same holds for users who log in without rights (`people`). Such a user can't bypass the reverse
proxy to reach the containers either.

A systemd unit creates the rules before Docker starts, at every boot, in a table that Docker does not change.
They apply only to the node's own networks, whose bridges have names that begin with `BRIDGE`. Other
containers in the machine's Docker are not the node's.

On a user's own machine the rules can also limit who reaches the node's ports: ports that Docker publishes
bypass the machine's own firewall.

The rules also count the connections of one address to the node's ports, which the reverse proxy can't do.
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
(https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16).
"""

CLOSED_V6 = ("fd00:ec2::/32",)
"""Amazon's services for instances; fd00:ec2::254 is the metadata service."""

_USER = f"OUTPUT --match owner --uid-owner {people.UID}"
JUMPS = (
    f"PREROUTING --in-interface {BRIDGE}+ --jump {CHAIN}",
    f"{_USER} --jump {CHAIN}",
    f"{_USER} --out-interface {BRIDGE}+ --jump DROP",
)
"""The rules that jump to `CHAIN`: for packets from the node's networks, and from users without rights. A
packet of such a user to a port that Docker publishes passes: at this point it does not have the container's
address yet.
"""

DOORS = "GRIDUP-DOORS"
COUNTS = "GRIDUP-COUNTS"
DOCKER_USER = "DOCKER-USER"
"""Docker's chain for others' rules. Docker creates it at its start if needed, and does not change it."""


def _ways(chain: str) -> tuple[str, str]:
    """Return the rules that jump to `chain`.

    One is for packets that Docker forwards to the node's containers. The other is for connections that a
    program of Docker's accepts for them, as it does if a network has no IPv6. The rules never allow anything,
    whatever other rules exist.
    """
    return (f"{DOCKER_USER} --out-interface {BRIDGE}+ --jump {chain}", f"INPUT --jump {chain}")


Doors = Mapping[str, Sequence[str]]
"""Ports of the machine, each with the networks (CIDR) that may reach it. Other ports are open to all."""

Counted = Mapping[str, Sequence[str]]
"""Ports of the machine whose connections are counted by address, each with the networks (CIDR) that are not
counted. For example, a site's own reverse proxy has the connections of all the site's users.
"""

MOST_CONNECTIONS = 500
"""Connections that one address may have at once. Of IPv6 the first 64 bits count: they are a site's.

A whole institution may share one address, and an older browser opens six connections. Each connection costs
the reverse proxy some 50 kB and one open file; it may have many times as many files.
"""

NAMES = 53
"""The DNS port stays open: on Azure, and by choice on Amazon, a closed address is the name server's."""


def unit(doors: Doors | None = None, counted: Counted | None = None) -> str:
    """Return the text of the unit's file."""
    lines = [
        "[Unit]",
        "Description=Gridup: the node's containers do not reach the cloud's metadata service",
        "Before=docker.service",
        # Each of these services may remove all rules when it starts.
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
        # Not every kernel can count connections.
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
    """Return unit lines that create one of Gridup's chains again, and the rules that jump to it."""
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
    """Return lines that may fail: the unit then starts without their rules."""
    return [line.replace("ExecStart=/", "ExecStart=-/") for line in lines]


def _doors(program: str, version: int, doors: Doors) -> list[str]:
    """Return lines that limit who reaches the ports.

    As Docker documents it, they match the original port of a connection, before Docker replaces it with the
    container's.
    """
    if not doors:
        return []
    return _at_the_ports(program, DOORS, version, doors, "", "--jump DROP")


def _counts(program: str, version: int, counted: Counted) -> list[str]:
    """Return lines that refuse new connections beyond `MOST_CONNECTIONS` immediately, and check only new
    ones.
    """
    if not counted:
        return []
    sites = 32 if version == 4 else 64
    above = f"--match connlimit --connlimit-above {MOST_CONNECTIONS} --connlimit-mask {sites}"
    refused = f"{above} --jump REJECT --reject-with tcp-reset"
    return _at_the_ports(program, COUNTS, version, counted, "--syn ", refused)


def _at_the_ports(
    program: str, chain: str, version: int, ports: Mapping[str, Sequence[str]], which: str, then: str
) -> list[str]:
    """Return lines that create `chain`.

    The chain applies `then` to packets `which` for the ports. Packets from a port's networks pass.
    """
    table = f"{program} --wait"
    # The machine itself and the node's own containers always have access.
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
    """Return commands for root that delete the rules for the node's ports. Any rule may be gone already."""
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
    """Return commands for root that delete the unit's rules. Any of them may be gone already."""
    off = ["systemctl", "disable", "--now", UNIT]
    return [off, *_without(CHAIN, JUMPS, "--table", "raw"), *opening(DOORS), *opening(COUNTS)]


class Shield:
    """The unit on this machine, managed with the rights of the user with sudo.

    Args:
        file: the path of the unit; tests pass their own.
        run: see `docker_cli.run`.
    """

    def __init__(self, file: Path = Path(PATH), run: Callable[..., Completed] = run) -> None:
        self._file, self._run = file, run

    def problems(self, doors: Doors | None = None, counted: Counted | None = None) -> list[str]:
        """Return the differences from what `lay` writes, a line each."""
        if self._laid() != unit(doors, counted):
            return ["the rules that close the cloud's metadata service to the containers are not laid"]
        if self._run(["systemctl", "is-active", "--quiet", UNIT]).code != 0:
            return [f"the rules that close the cloud's metadata service are off: {UNIT} is not active"]
        return []

    def lay(self, doors: Doors | None = None, counted: Counted | None = None) -> None:
        """Activate the rules now and at every boot. Do nothing if they are active.

        Raises:
            Failed: the rules can't be activated.
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
