"""What the host is made of, from Debian: package sources, packages, and their updates."""

from __future__ import annotations

import random
from collections.abc import Sequence

from gridup_node.vm.machine import Failed, Machine, last_lines, parse_env_file

PACKAGES = (
    "docker.io",
    "docker-cli",
    "docker-compose",
    "docker-buildx",
    "apparmor",
    "ca-certificates",
    "unattended-upgrades",
)
"""What the host is made of. Compose is the v2 plugin from Debian 13 on; `docker build` needs buildx."""

APT_SECONDS = 1200.0
LOCK_SECONDS = 900.0
"""For whoever holds the package lock. A machine's first own update takes minutes."""
TRIES = 5
"""Of apt, where the network is in trouble: with the pauses between them some two minutes."""

FOR_GOOD = ("Unable to locate package", "no installation candidate", "unmet dependencies")
"""In apt's errors: trying again would not help."""

SOURCES = "/etc/apt/sources.list.d/gridup.sources"

UPDATES = """\
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
"""


def ensure_sources(machine: Machine) -> None:
    """Where packages come from and what is trusted on the way."""
    config = machine.config
    if config.ca and machine.write("/usr/local/share/ca-certificates/gridup.crt", config.ca):
        machine.check_run("update-ca-certificates")
    if config.proxy:
        machine.write("/etc/apt/apt.conf.d/95gridup", apt_proxy(config.proxy, config.no_proxy))
    if config.mirror:
        release = parse_env_file(machine.path("/etc/os-release").read_text(encoding="utf-8"))
        machine.write(SOURCES, mirrored(config.mirror, release["VERSION_CODENAME"]))
        ours = machine.path(SOURCES)
        for other in (*ours.parent.iterdir(), machine.path("/etc/apt/sources.list")):
            if other.suffix in (".list", ".sources") and other != ours and other.exists():
                other.rename(f"{other}.off")


def apt_proxy(proxy: str, no_proxy: Sequence[str]) -> str:
    """Apt's settings for a proxy."""
    kinds = ("http", "https")
    lines = [f'Acquire::{kind}::Proxy "{proxy}";' for kind in kinds]
    lines += [f'Acquire::{kind}::Proxy::{host} "DIRECT";' for host in no_proxy for kind in kinds]
    return "".join(f"{line}\n" for line in lines)


def mirrored(mirror: str, codename: str) -> str:
    """Debian's package sources on another server."""
    return "".join(
        f"Types: deb\nURIs: {mirror.rstrip('/')}/{path}\nSuites: {suites}\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n"
        for path, suites in (
            ("debian", f"{codename} {codename}-updates"),
            ("debian-security", f"{codename}-security"),
        )
    )


def ensure_packages(machine: Machine) -> None:
    """Docker and what else the host needs, from Debian. A boot that finds all installed asks nobody."""
    ensure(machine, (*PACKAGES, *machine.config.packages))


def ensure(machine: Machine, wanted: Sequence[str]) -> None:
    """These packages installed; asks nobody where they are."""
    _, text = machine.run("dpkg-query", "--show", "--showformat=${Package}=${db:Status-Status}\n", *wanted)
    there = parse_env_file(text)
    missing = [name for name in wanted if there.get(name) != "installed"]
    if missing:
        apt(machine, "update", "--error-on=any")
        apt(machine, "install", "--yes", "--no-install-recommends", *missing)


def apt(machine: Machine, *words: str) -> None:
    """Run apt-get; wait for whoever holds its locks, and try again when the network is in trouble.

    Raises:
        Failed: it failed for good, or the limits of waiting are reached.
    """
    deadline = machine.clock() + LOCK_SECONDS
    options = [
        f"DPkg::Lock::Timeout={LOCK_SECONDS:.0f}",
        "Acquire::Retries=3",
        "Dpkg::Options::=--force-confold",
    ]
    argv = ["apt-get", "-q", *(word for option in options for word in ("-o", option)), *words]
    tried = 0
    while True:
        code, text = machine.run(*argv, timeout=APT_SECONDS + LOCK_SECONDS)
        if code == 0:
            return
        errors = [line[3:] for line in text.splitlines() if line.startswith("E: ")]
        why = "; ".join(errors) or last_lines(text)
        # `apt-get update` does not wait for the lock of the lists by itself.
        if "Could not get lock" in why:
            if machine.clock() >= deadline:
                raise Failed(f"the package lock was still held after {LOCK_SECONDS:g} s: {why}")
            machine.log(f"the package lock is held, waiting: {why}")
            machine.sleep(2)
            continue
        tried += 1
        if tried >= TRIES or any(phrase in why for phrase in FOR_GOOD):
            raise Failed(f"apt-get {words[0]}: {why}")
        if "dpkg --configure -a" in why:
            # An earlier run was cut off.
            machine.run("dpkg", "--configure", "-a", "--force-confold", timeout=APT_SECONDS)
        pause = 5 * 2**tried * random.uniform(0.5, 1)  # noqa: S311
        machine.log(f"apt-get {words[0]} failed, once more in {pause:.0f} s: {why}")
        machine.sleep(pause)


def ensure_updates(machine: Machine) -> None:
    """Debian's security updates, each day and by themselves."""
    machine.write("/etc/apt/apt.conf.d/20auto-upgrades", UPDATES)
    units = ("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service")
    machine.check_run("systemctl", "enable", "--now", "--quiet", *units)
