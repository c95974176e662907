"""Turns an existing machine into a container host of a node, and removes the node again.

    inspect      report what prevents a node here; change nothing and write no file
    provision    create the user, Docker if there is none, and the node's folder; keep what exists
    deprovision  delete the node; delete its data unless it is to be retained

The program runs as root. It is sent with each call (`user_data.zipapp`) and is not stored. A command's input
follows the program on stdin. Its output is lines of JSON: `say` for each step, and at the end `done`,
`problems` or `failed`. It continues if its caller goes away. It uses only the standard library, from Python
3.10 on.

The ownership mark is created first and deleted last: everything created next to the stack's mark belongs to
the stack.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import ipaddress
import json
import os
import platform
import pwd
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridup_node import kept
from gridup_node.confines import MACHINE_UID
from gridup_node.vm import firewall, host, packages, people, shield
from gridup_node.vm.docker import NODE, ensure_docker, ensure_node_folder
from gridup_node.vm.docker_cli import run
from gridup_node.vm.ipc import emit, exclusive
from gridup_node.vm.machine import (
    LOG,
    MOUNT,
    STATE,
    UID,
    USER,
    Config,
    Failed,
    Machine,
    last_lines,
    parse_env_file,
)

_OWN = (
    "machine",
    "disk",
    "packages",
    "docker",
    "docker_cli",
    "host",
    "ipc",
    "people",
    "shield",
    "firewall",
    "existing_host",
)
MODULES = ("confines", "kept", "piping", *(f"vm/{name}" for name in _OWN))
"""The modules of the package `gridup_node` that are sent."""

LOADER = (
    "import os,runpy,sys;n=int(sys.argv[1]);f=os.memfd_create('gridup');"
    "os.write(f,sys.stdin.buffer.read(n));p=f'/proc/self/fd/{f}';sys.path.insert(0,p);"
    "sys.argv[0:2]=['gridup'];runpy.run_path(p,run_name='__main__')"
)
"""Code for `python3 -c`. Its arguments are the size of the program, which comes on stdin, and the command. No
file is written.
"""

PLACE = str(Path(LOG).parent)
MARK = f"{PLACE}/owner.json"
SUDOERS = f"/etc/sudoers.d/{USER}"
SUDO = f"# A node made by Gridup is run by this user.\n{USER} ALL=(ALL) NOPASSWD:ALL\n"
HOME = f"/home/{USER}"
LOCK = "/run/gridup-existing-host.lock"
"""Only root can write to this folder. In a public folder, another user could create a link of this name."""
LOCK_SECONDS = 1500.0

RELEASES = ".gridup"
"""Relative to the user's home; see `gridup_node.vm.release`."""

KNOWN: Mapping[str, tuple[float, tuple[str, ...]]] = {
    "debian": (
        12,
        ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "apparmor", "ca-certificates"),
    ),
    "ubuntu": (22.04, ("docker.io", "docker-compose-v2", "docker-buildx", "apparmor", "ca-certificates")),
}
"""Supported systems by their ID: the first supported version, and its packages of Docker with compose v2."""

NO_COMPOSE = {("debian", 12.0)}
"""Systems without such packages. Docker must already be installed there."""

MACHINES = ("x86_64", "aarch64")
"""The processors for which the node's environment has packages."""

BUILD_BYTES, NODE_BYTES = 5_000_000_000, 500_000_000
"""Free disk space that a node needs: if its image is built here, and if it needs no build."""

LABEL = "com.docker.compose.project"
STOP_SECONDS = 20

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """The deployer's request.

    Attributes:
        stack, stack_id, name: the node that is to own the machine.
        project: compose's name for the node.
        ports: the ports that the node listens on.
        public_key: the deployer's own.
        build: whether the node's image is built here.
        keep_data: whether `deprovision` retains the data.
        must_be_ours: refuse a machine that does not hold the node.
        key_from: networks (CIDR) from which the deployer's key gives access, as in `public_key`; empty for
            all.
        admin_email, node_type: stored with retained data, for the next node of this name.
        adopted: the retained data that the node adopts, identified by the time of its note; empty for none.
        adopting: whether this data is not the node's own yet, see `DeploySpec`.
        new_data: whether the node begins without data although some is retained.
    """

    stack: str
    stack_id: str
    name: str
    project: str
    ports: tuple[int, ...] = ()
    public_key: str = ""
    build: bool = True
    keep_data: bool = False
    must_be_ours: bool = False
    key_from: tuple[str, ...] = ()
    admin_email: str = ""
    node_type: str = ""
    adopted: str = ""
    adopting: bool = False
    new_data: bool = False

    @property
    def whose(self) -> dict[str, str]:
        """The fields of the note next to retained data that describe the node."""
        told = {"admin_email": self.admin_email, "node_type": self.node_type}
        return {"stack": self.stack, "name": self.name, **{key: text for key, text in told.items() if text}}

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Request:
        words: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in told.items()
        }
        return cls(**words)


@dataclass(frozen=True)
class Problem:
    """A reason against a node here, and what to do."""

    message: str
    suggestion: str = ""


class HostFacts:
    """The machine as `inspect` sees it. Reading changes nothing.

    Args:
        root: `/`, or a test's own folder.
        run: see `docker_cli.run`; tests pass their own.
    """

    def __init__(self, root: Path = Path("/"), run: Callable[..., Any] = run) -> None:
        self.root, self._run = root, run

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def said(self, *argv: str) -> str | None:
        """Return the output of a program; None if it failed or is not installed."""
        done = self._run(argv, timeout=30)
        return done.text.strip() if done.code == 0 else None

    def json(self, name: str) -> dict[str, Any] | None:
        try:
            told = json.loads(self.path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return told if isinstance(told, dict) else None

    @property
    def system(self) -> tuple[str, float, str]:
        """The system's ID, version and display name, from os-release."""
        try:
            told = parse_env_file(self.path("/etc/os-release").read_text(encoding="utf-8"))
        except OSError:
            told = {}
        version = told.get("VERSION_ID", "")
        number = float(version) if re.fullmatch(r"\d+(\.\d+)?", version) else 0.0
        return told.get("ID", ""), number, told.get("PRETTY_NAME", "an unknown system")

    @property
    def machine(self) -> str:
        """An id that identifies the machine. It is a hash, as systemd calls the machine id confidential."""
        try:
            own = self.path("/etc/machine-id").read_text().strip()
        except OSError:
            own = platform.node()
        return hashlib.sha256(f"gridup {own}".encode()).hexdigest()[:16]

    def came_from(self) -> str:
        """Return the address from which the user of this run logged in; empty if it is unknown."""
        pid = os.getpid()
        with contextlib.suppress(OSError, ValueError, IndexError):
            while pid > 1:  # sudo hides SSH_CONNECTION from its child but has it itself.
                folder = self.path(f"/proc/{pid}")
                for word in (folder / "environ").read_bytes().split(b"\0"):
                    name, _, value = word.partition(b"=")
                    if name == b"SSH_CONNECTION":
                        return value.split()[0].decode()
                pid = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        return ""

    def host_keys(self) -> list[str]:
        """Return the public halves of sshd's ed25519 keys, as lines without comments."""
        told = self.said("/usr/sbin/sshd", "-T") or ""
        found = []
        for line in told.splitlines():
            name, _, value = line.partition(" ")
            if name == "hostkey":
                with contextlib.suppress(OSError):
                    words = self.path(f"{value}.pub").read_text().split()[:2]
                    found.append(" ".join(words))
        return [line for line in found if line.startswith("ssh-ed25519 ")]


def inspect(here: HostFacts, told: Request) -> dict[str, Any]:
    """Inspect the machine.

    Returns:
        `problems`: the reasons against the node, the most serious first.
        `mark`: the ownership mark.
        `machine`, `host_keys`: see `HostFacts`.
        `state`: of `provision`, as it publishes it; None before the first run.
        `kept`: the note next to data that an earlier node of exactly this name left, see `kept.read`; None
            for none.
        `firewall`: the firewall that denies by default there, and that Docker's ports bypass; empty for none.
    """
    mark = here.json(MARK)
    problems = [_plain(one) for one in _problems(here, told, mark)]
    return {
        "problems": problems,
        "mark": mark,
        "machine": here.machine,
        "host_keys": here.host_keys(),
        "state": here.json(STATE),
        "kept": _own(kept.read(here.path(MOUNT)), told),
        "firewall": firewall.denying(here.said),
    }


def _own(note: dict[str, Any] | None, told: Request) -> dict[str, Any] | None:
    """Return the note next to retained data if the data belongs to exactly this node."""
    # The stack's name is not enough: another user's node may have a different name with the same slug.
    return note if note and (note.get("stack"), note.get("name")) == (told.stack, told.name) else None


def _plain(one: Problem) -> dict[str, str]:
    return {"message": one.message, "suggestion": one.suggestion}


def _problems(here: HostFacts, told: Request, mark: Mapping[str, Any] | None) -> Iterator[Problem]:
    yield from _system(here)
    ours = mark is not None and mark.get("stack_id") == told.stack_id
    if mark and not ours:
        yield Problem(
            f'the machine already has a node of Gridup\'s, "{mark.get("name")}" (stack {mark.get("stack")}).',
            "One machine takes one node. Destroy that one first, or name another machine.",
        )
        return
    if told.must_be_ours and not ours:
        yield Problem(
            f'the machine does not hold the node "{told.name}".',
            "--host may only follow a node's own machine to another address. "
            "Deploy it there under another name, or destroy it first.",
        )
        return
    yield from _key(here, told)
    yield from _users(ours=ours)
    if not ours:
        yield from _conflicts(here, told)
    yield from _docker(here, told, mark)
    yield from _taken(here, told)
    yield from _room(here, told, ours=ours)
    yield from _login(here)


def _system(here: HostFacts) -> Iterator[Problem]:
    if not here.path("/run/systemd/system").is_dir():
        try:
            first = here.path("/proc/1/comm").read_text().strip()
        except OSError:
            first = "unknown"
        yield Problem(
            f"systemd does not run the machine (its first process is {first}).",
            "A container or a machine without systemd can't be a node's. `--cloud docker` needs none.",
        )
    name, version, pretty = here.system
    first_known = KNOWN.get(name, (0.0, ()))[0]
    if name not in KNOWN or version < first_known:
        yield Problem(
            f"its system is {pretty}, which Gridup does not know.",
            "It knows Debian from 12 and Ubuntu from 22.04 on. Where Docker runs, `--cloud docker` does too.",
        )
    if (kind := platform.machine()) not in MACHINES:
        yield Problem(f"its processor is of the kind {kind}.", f"A node runs on {' and '.join(MACHINES)}.")


def _key(here: HostFacts, told: Request) -> Iterator[Problem]:
    """Report if `--key-from` would lock out the user who deploys."""
    came_from = here.came_from()
    if told.key_from and came_from and not within(came_from, told.key_from):
        yield Problem(
            f"--key-from keeps out who deploys: to the machine, you come from {came_from}.",
            f"Name that too, or deploy from elsewhere: --key-from {came_from}",
        )


def within(address: str, networks: Iterable[str]) -> bool:
    """Return whether one of these networks (CIDR) contains the address."""
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(one) for one in networks)


def _users(*, ours: bool) -> Iterator[Problem]:
    """Report each user id that the node needs and another user has."""
    for uid in (MACHINE_UID,) if ours else (UID, MACHINE_UID, people.UID):
        with contextlib.suppress(KeyError):
            yield Problem(
                f"the user id {uid} is {pwd.getpwuid(uid).pw_name}'s, and the node needs it.",
                "Give that user another id, or name another machine.",
            )


def _conflicts(here: HostFacts, told: Request) -> Iterator[Problem]:
    """Report existing objects with the names of the node's own. They belong to somebody else and stay."""
    for what, exists in (
        (f"a user {USER}", _is_name(pwd.getpwnam)),
        (f"a group {USER}", _is_name(grp.getgrnam)),
        (f"a file {SUDOERS}", here.path(SUDOERS).exists()),
        (f"a folder {HOME}", here.path(HOME).exists()),
        (f"a user {people.USER}", _is_name(pwd.getpwnam, people.USER)),
        (f"a folder {people.HOME}", here.path(people.HOME).exists()),
    ):
        if exists:
            yield Problem(
                f"the machine has {what} that no node of Gridup's there made.",
                "Remove it if nobody needs it, or name another machine.",
            )
    yield from _data(here, told)
    if shutil.which("docker"):
        rows = here.said(
            "docker", "ps", "--all", "--format", "{{.Names}}", f"--filter=label={LABEL}={told.project}"
        )
        if rows:
            yield Problem(
                f"a compose project {told.project} that is not Gridup's has containers there: "
                f"{', '.join(rows.split())}.",
                "Give that project another name, or name another machine.",
            )


def _data(here: HostFacts, told: Request) -> Iterator[Problem]:
    """Report existing data if the user did not choose to adopt it or to leave it."""
    folder = here.path(MOUNT)
    rest = [path for path in folder.iterdir() if path.name != "lost+found"] if folder.is_dir() else []
    note = kept.read(folder)
    own = _own(note, told)
    if not rest or (own and own["since"] == told.adopted):
        return
    if own is None:
        whose = f'the data of "{note.get("name")}", which was kept' if note else "files"
        yield Problem(
            f"{MOUNT} holds {whose}.",
            "Deploy under that name, or move them away." if note else "Move them away.",
        )
    elif not told.new_data:
        yield Problem(
            f'{MOUNT} holds the data that an earlier "{told.name}" has left.',
            "Deploy with --adopt to take them over, or with --new-data to begin with none and leave them.",
        )
    elif folder.is_mount():
        yield Problem(
            f'{MOUNT} is a disk of its own, with the data that an earlier "{told.name}" has left.',
            "Move them away, or take them over with --adopt.",
        )


def _docker(here: HostFacts, told: Request, mark: Mapping[str, Any] | None) -> Iterator[Problem]:
    name, version, pretty = here.system
    if not shutil.which("docker"):
        if (name, version) in NO_COMPOSE and name in KNOWN:
            yield Problem(
                f"{pretty} has no Docker with compose v2 among its packages.",
                "Install Docker's own (https://docs.docker.com/engine/install/debian/), and deploy again.",
            )
        return
    if mark and mark.get("docker") == "ours" and not mark.get("made"):
        return  # An interrupted deploy was installing Docker; provisioning continues that.
    how = "Gridup uses the machine's own Docker as it is, and changes nothing of it."
    told_by = run(["docker", "version", "--format", "{{.Server.Version}}"], timeout=30)
    if told_by.code != 0:
        yield Problem(f"its Docker does not answer: {told_by.line}.", f"{how} Start it, and deploy again.")
        return
    if "name=userns" in (here.said("docker", "info", "--format", "{{json .SecurityOptions}}") or ""):
        # Then a container's user is a different user on the machine, with different rights to its folders.
        yield Problem(
            "its Docker has user namespaces (userns-remap), in which the node can't use its data.",
            f"{how} Name another machine, or have the node in that Docker: DOCKER_HOST=ssh://user@host with "
            "--cloud docker.",
        )
    plugins = [("compose", "docker compose")] + [("buildx", "docker build")] * told.build
    for plugin, use in plugins:
        if here.said("docker", plugin, "version") is None:
            yield Problem(
                f"its Docker has no {plugin} plugin, which `{use}` needs.",
                f"{how} Install the plugin (https://docs.docker.com/engine/install/), and deploy again.",
            )
    if not _is_name(grp.getgrnam, "docker"):
        yield Problem(
            "there is no group docker on the machine, so that nobody but root may use its Docker.",
            f"{how} `sudo groupadd docker` and a restart of Docker make it one.",
        )


def _taken(here: HostFacts, told: Request) -> Iterator[Problem]:
    """Report ports that a program other than the node's listens on."""
    listening = listeners(here.path("/proc"))
    for port in told.ports:
        names = ""
        if shutil.which("docker"):
            # Docker can publish a port without a process that listens on it.
            names = here.said("docker", "ps", f"--filter=publish={port}", "--format", "{{.Names}}") or ""
        containers = [one for one in names.split() if not one.startswith(f"{told.project}-")]
        if containers:
            who = f"the container {containers[0]}"
        elif port in listening and not names:
            who = program_of(here.path("/proc"), listening[port])
        else:
            continue
        yield Problem(
            f"port {port} is taken by {who}.",
            "The node needs it. Stop that, or have it listen elsewhere. A web server of yours can stand in "
            "front of the node: --bind, --port.",
        )


def _room(here: HostFacts, told: Request, *, ours: bool) -> Iterator[Problem]:
    needed = NODE_BYTES if ours or not told.build else BUILD_BYTES
    for folder in ("/var/lib/docker", "/var/lib"):
        path = here.path(folder)
        if path.is_dir():
            free = shutil.disk_usage(path).free
            if free < needed:
                yield Problem(
                    f"its disk has {free / 1e9:.1f} GB free at {folder}; {needed / 1e9:.1f} GB are needed.",
                    "Make room; `docker system df` tells what Docker takes.",
                )
            return


def _login(here: HostFacts) -> Iterator[Problem]:
    """Report if sshd would refuse the node's user."""
    text = here.said("/usr/sbin/sshd", "-T", "-C", f"user={USER},host=localhost,addr=127.0.0.1") or ""
    if in_its_way := people.in_the_way(text, USER, {USER, "docker"}):
        yield Problem(
            f"its sshd would not let the node's user {USER} in by key: {in_its_way}.",
            f"Gridup changes nothing of sshd. Have it let {USER} in, and deploy again.",
        )


def _is_name(find: Callable[[str], object], name: str = USER) -> bool:
    try:
        find(name)
    except KeyError:
        return False
    return True


def listeners(proc: Path) -> dict[int, str]:
    """Return the TCP ports that are listened on, each with the inode of its socket."""
    found: dict[int, str] = {}
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A":
                    found[int(words[1].rpartition(":")[2], 16)] = words[9]
    return found


def program_of(proc: Path, inode: str) -> str:
    """Return the name of the program that has a socket open."""
    for folder in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(os.readlink(link) == f"socket:[{inode}]" for link in (folder / "fd").iterdir()):  # noqa: PTH115
                return f"{(folder / 'comm').read_text().strip()} (process {folder.name})"
    return "another program"


class Guest(Machine):
    """The machine that the steps work on. Their messages also go to the deployer."""

    def log(self, text: str) -> None:
        emit(say=text)
        with contextlib.suppress(OSError), self.path(LOG).open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")


def provision(told: Request) -> dict[str, Any]:
    """Create all that a node needs. What exists is checked, and is kept if it is right.

    Raises:
        Problems: something prevents the node; nothing was changed.
        Failed: a step failed.
    """
    here = HostFacts()
    # Check again: the machine may have changed since `inspect`.
    if found := list(_problems(here, told, here.json(MARK))):
        raise Problems(found)
    machine = Guest(Config(disk=()))
    machine.path(PLACE).mkdir(mode=0o755, exist_ok=True)
    # Write the mark before anything else: from here on all that is created belongs to the stack.
    mark = lay_mark(here, machine, told)
    steps: list[host.Step] = [("user", lambda machine: ensure_user(machine, told.public_key))]
    if mark["docker"] == "ours":
        wanted = KNOWN[here.system[0]][1]
        steps.append(("packages", lambda machine: packages.ensure(machine, wanted)))
        steps.append(("docker", ensure_docker))
    else:
        steps.append(("docker", let_use_docker))
    # Once the machine was provisioned, the data there is the node's own, even if a destroy that was to retain
    # it was interrupted.
    aside = told.new_data and not mark["made"]
    steps.append(("folder", lambda machine: ensure_folder(machine, aside=aside, adopting=told.adopting)))
    steps.append(("node folder", ensure_node_folder))
    if not host.make(machine, steps):
        state = here.json(STATE) or {}
        raise Failed(f"step {state.get('step')}: {state.get('message')}")
    machine.write(MARK, _text({**mark, "made": True}))
    return inspect(here, told)


def lay_mark(here: HostFacts, machine: Machine, told: Request) -> dict[str, Any]:
    """Write the ownership mark and return it. An earlier mark's facts about the original machine stay."""
    before = here.json(MARK) or {}
    mark = {
        "stack_id": told.stack_id,
        "stack": told.stack,
        "name": told.name,
        "docker": before.get("docker") or ("theirs" if shutil.which("docker") else "ours"),
        "images": before.get("images", _images()),
        "made": before.get("made", False),
    }
    machine.write(MARK, _text(mark))
    return mark


def _text(mark: Mapping[str, Any]) -> str:
    return json.dumps(mark, indent=1, ensure_ascii=False) + "\n"


def _images() -> list[str]:
    """Return the references of the images on this machine."""
    done = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"], timeout=30)
    return sorted(set(done.text.split())) if done.code == 0 else []


def ensure_user(machine: Machine, public_key: str) -> None:
    """Create the user that runs the node, with access by key and with sudo: Docker makes it root anyway."""
    if not _is_name(grp.getgrnam):
        machine.check_run("groupadd", f"--gid={UID}", USER)
    if not _is_name(pwd.getpwnam):
        words = (f"--uid={UID}", f"--gid={USER}", f"--home-dir={HOME}", "--create-home", "--shell=/bin/bash")
        # No password at all: sshd without PAM treats an account with a locked password as closed.
        machine.check_run("useradd", *words, "--password=*", "--comment=Gridup", USER)
    machine.path(HOME).chmod(0o700)
    folder = machine.path(f"{HOME}/.ssh")
    folder.mkdir(mode=0o700, exist_ok=True)
    keys_file = folder / "authorized_keys"
    had = keys_file.read_text(encoding="utf-8").splitlines() if keys_file.exists() else []
    if public_key not in had:
        # An earlier line may allow the same key from other networks.
        others = [line for line in had if bare(line) != bare(public_key)]
        text = "".join(f"{line}\n" for line in [*others, public_key])
        machine.write(f"{HOME}/.ssh/authorized_keys", text, 0o600)
    for path in (folder, keys_file):
        os.chown(path, UID, UID)
    machine.write(SUDOERS, SUDO, 0o440)
    os.chown(machine.path(LOG), 0, UID)
    machine.path(LOG).chmod(0o640)


def bare(line: str) -> str:
    """Return a line of authorized_keys without the `from=` option that `key_from` puts before the key."""
    return re.sub(r'^from="[^"]*" ', "", line)


def let_use_docker(machine: Machine) -> None:
    """Let the node's user use the machine's own Docker. Docker itself is not changed."""
    machine.check_run("usermod", "--append", "--groups", "docker", USER)


def ensure_folder(machine: Machine, *, aside: bool, adopting: bool) -> None:
    """Create the folder for the node's data on the machine's own disk. Adopted data is already there.

    Args:
        aside: whether to move retained data away, so that the node does not use it.
        adopting: whether retained data stays marked as such, as the node may never become healthy with it.
    """
    if aside:
        kept.set_aside(machine.path(MOUNT))
    machine.path(MOUNT).mkdir(mode=0o755, exist_ok=True)
    if not adopting:
        kept.settle(machine.path(MOUNT))


def deprovision(told: Request, say: Say) -> dict[str, Any]:
    """Delete everything that bears the stack's ownership mark.

    Raises:
        Failed: something could not be deleted; the mark stays.
    """
    here = HostFacts()
    mark = here.json(MARK)
    if mark is None or mark.get("stack_id") != told.stack_id:
        return {"there": False}
    say("taking the node away")
    home = here.path(HOME)
    _end_releases()
    _lift_shield(here)
    if shutil.which("docker"):
        _empty_docker(told.project, home, mark)
    _leave_data(Guest(Config(disk=())), told)
    _end_processes(people.UID)
    for user in (people.USER, USER):
        if _is_name(pwd.getpwnam, user):
            # By force: the deployer may be logged in as this user.
            done = run(["userdel", "--force", "--remove", user], timeout=60)
            if _is_name(pwd.getpwnam, user):
                raise Failed(f"The user {user} could not be removed: {done.line}.")
        if _is_name(grp.getgrnam, user):
            run(["groupdel", user], timeout=60)
    for folder in (home, here.path(people.HOME)):
        shutil.rmtree(folder, ignore_errors=True)
    # Delete the sudo right last, with the mark: until the user is gone, it gives access for another try.
    here.path(SUDOERS).unlink(missing_ok=True)
    shutil.rmtree(here.path(PLACE))
    return {"there": True}


def _leave_data(machine: Machine, told: Request) -> None:
    """Retain or delete the node's data. Adopted data is also retained if it never made a healthy node."""
    folder = machine.path(MOUNT)
    noted = kept.read(folder)
    if not (told.keep_data or noted) or not machine.path(NODE).exists():
        _remove_folder(folder)
    elif not noted:
        note = {**told.whose, "since": kept.now(), "size": kept.size(folder)}
        machine.write(f"{MOUNT}/{kept.NOTE}", _text(note), 0o600)


def _lift_shield(here: HostFacts) -> None:
    """Delete what releases created outside of Docker. Any of it may be gone already."""
    for argv in shield.removal():
        run(argv, timeout=60)
    here.path(shield.PATH).unlink(missing_ok=True)
    run(["systemctl", "daemon-reload"], timeout=60)


def _empty_docker(project: str, home: Path, mark: Mapping[str, Any]) -> None:
    """Delete the node's containers, network and images, and nothing else in Docker."""
    label = f"--filter=label={LABEL}={project}"
    listed = run(["docker", "ps", "--all", "--quiet", label], timeout=60)
    if listed.code != 0:
        raise Failed(
            f"Docker does not answer, so the node's containers are left: {listed.line}. Start it first."
        )
    if containers := listed.text.split():
        run(["docker", "stop", f"--time={STOP_SECONDS}", *containers], timeout=120)
        _must("the node's containers", ["docker", "rm", "--force", *containers])
    if networks := run(["docker", "network", "ls", "--quiet", label], timeout=60).text.split():
        _must("the node's network", ["docker", "network", "rm", *networks])
    try:
        known = json.loads((home / RELEASES / "releases.json").read_text(encoding="utf-8"))["images"]
    except (OSError, ValueError, KeyError):
        known = []
    before = set(mark.get("images") or ())
    for image in known:
        if image not in before:
            # Docker refuses to remove an image that another container uses, so such an image stays.
            run(["docker", "image", "rm", image], timeout=120)


def _must(what: str, argv: list[str]) -> None:
    done = run(argv, timeout=120)
    if done.code != 0:
        raise Failed(f"{what} could not be removed: {done.line}.")


def _end_releases() -> None:
    """End what still runs of an earlier deploy, such as a build: it would recreate what is deleted here."""
    table: dict[int, tuple[int, int, str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            table[int(folder.name)] = (folder.stat().st_uid, parent, line)
    doomed = {pid for pid, (uid, _, line) in table.items() if uid == UID and f"{RELEASES}/release-" in line}
    while more := {pid for pid, (_, parent, _) in table.items() if parent in doomed} - doomed:
        doomed |= more
    for pid in doomed - {os.getpid()}:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _end_processes(uid: int) -> None:
    """End all processes of a user, such as logins with a key that gives no access any more."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == uid:
                os.kill(int(folder.name), signal.SIGKILL)


def _remove_folder(folder: Path) -> None:
    """Delete a folder. If it is a mounted disk of the machine's owner, delete only its content."""
    if folder.is_mount():
        for path in folder.iterdir():
            if path.name != "lost+found":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


class Problems(Exception):
    """The reasons against a node here."""

    def __init__(self, found: Iterable[Problem]) -> None:
        super().__init__()
        self.found = tuple(found)


def main() -> int:
    """Run the program. Return exit code 0 if the command succeeded."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.umask(0o022)
    told = Request.parse(json.load(sys.stdin))

    def say(text: str) -> None:
        emit(say=text)

    try:
        if sys.argv[1] == "inspect":
            emit(done=inspect(HostFacts(), told))
        else:
            with exclusive(Path(LOCK), LOCK_SECONDS, say, Failed):
                emit(done=provision(told) if sys.argv[1] == "provision" else deprovision(told, say))
    except Problems as error:
        emit(problems=[_plain(one) for one in error.found])
        return 1
    except Failed as error:
        tail: list[str] = []
        with contextlib.suppress(OSError):
            tail = Path(LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-30:]
        emit(failed={"message": last_lines(str(error)), "tail": tail})
        return 1
    return 0
