"""The Debian part of the host: package sources, packages and their updates."""

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
"""Packages of every host. From Debian 13 on, compose is the v2 plugin; `docker build` needs buildx."""

APT_SECONDS = 1200.0
LOCK_SECONDS = 900.0
"""How long another program may hold the package lock. A new machine's first own update takes minutes."""
TRIES = 5
"""Attempts of apt if the network fails. With the pauses between them they take some two minutes."""

FOR_GOOD = ("Unable to locate package", "no installation candidate", "unmet dependencies")
"""Errors of apt for which another attempt is pointless."""

SOURCES = "/etc/apt/sources.list.d/gridup.sources"

UPDATES = """\
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
"""


def ensure_sources(machine: Machine) -> None:
    """Configure the package sources, the proxy and the trusted certificates."""
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
    """Return apt's settings for a proxy."""
    kinds = ("http", "https")
    lines = [f'Acquire::{kind}::Proxy "{proxy}";' for kind in kinds]
    lines += [f'Acquire::{kind}::Proxy::{host} "DIRECT";' for host in no_proxy for kind in kinds]
    return "".join(f"{line}\n" for line in lines)


def mirrored(mirror: str, codename: str) -> str:
    """Return Debian's package sources on another server."""
    return "".join(
        f"Types: deb\nURIs: {mirror.rstrip('/')}/{path}\nSuites: {suites}\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n"
        for path, suites in (
            ("debian", f"{codename} {codename}-updates"),
            ("debian-security", f"{codename}-security"),
        )
    )


def ensure_packages(machine: Machine) -> None:
    """Install Docker and the host's other packages. If all are installed, no server is contacted."""
    ensure(machine, (*PACKAGES, *machine.config.packages))


def ensure(machine: Machine, wanted: Sequence[str]) -> None:
    """Install these packages. If all are installed, no server is contacted."""
    _, text = machine.run("dpkg-query", "--show", "--showformat=${Package}=${db:Status-Status}\n", *wanted)
    there = parse_env_file(text)
    missing = [name for name in wanted if there.get(name) != "installed"]
    if missing:
        apt(machine, "update", "--error-on=any")
        apt(machine, "install", "--yes", "--no-install-recommends", *missing)


def apt(machine: Machine, *words: str) -> None:
    """Run apt-get. Wait while another program holds its locks, and try again if the network fails.

    Raises:
        Failed: an error that another attempt can't fix, or too many attempts or too long a wait.
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
        # `apt-get update` itself does not wait for the lock of the package lists.
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
            # An earlier run was interrupted.
            machine.run("dpkg", "--configure", "-a", "--force-confold", timeout=APT_SECONDS)
        pause = 5 * 2**tried * random.uniform(0.5, 1)  # noqa: S311
        machine.log(f"apt-get {words[0]} failed, once more in {pause:.0f} s: {why}")
        machine.sleep(pause)


def ensure_updates(machine: Machine) -> None:
    """Enable Debian's automatic daily security updates."""
    machine.write("/etc/apt/apt.conf.d/20auto-upgrades", UPDATES)
    units = ("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service")
    machine.check_run("systemctl", "enable", "--now", "--quiet", *units)
