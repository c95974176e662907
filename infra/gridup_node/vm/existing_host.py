"""Makes a machine that exists the container host of a node, and takes that away again.

    look    what speaks against a node here; changes nothing, writes no file
    make    user, Docker where there is none, the node's folder; what is there is left as it is
    leave   take all of the node away, data only where it is not kept

It is run as root, travels with each call (`packed`) and is kept nowhere. What a command needs comes on stdin
after the program; its output is lines of JSON: `say` for each step, at last `done` or `failed`. It goes on
where whoever called it went away. Standard library only, from Python 3.10 on.

The mark comes first and goes last: what is here beside a mark of the stack's is the stack's.
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
"""Of the package `gridup_node`, what is sent."""

LOADER = (
    "import os,runpy,sys;n=int(sys.argv[1]);f=os.memfd_create('gridup');"
    "os.write(f,sys.stdin.buffer.read(n));p=f'/proc/self/fd/{f}';sys.path.insert(0,p);"
    "sys.argv[0:2]=['gridup'];runpy.run_path(p,run_name='__main__')"
)
"""For `python3 -c`, with the size of the program that comes on stdin, and the command: no file is written."""

PLACE = str(Path(LOG).parent)
MARK = f"{PLACE}/owner.json"
SUDOERS = f"/etc/sudoers.d/{USER}"
SUDO = f"# A node made by Gridup is run by this user.\n{USER} ALL=(ALL) NOPASSWD:ALL\n"
HOME = f"/home/{USER}"
LOCK = "/run/gridup-existing-host.lock"
"""Where root alone may write: in a folder of everybody's another user could have laid a link of that name."""
LOCK_SECONDS = 1500.0

RELEASES = ".gridup"
"""Below the user's home; see `gridup_node.vm.release`."""

KNOWN: Mapping[str, tuple[float, tuple[str, ...]]] = {
    "debian": (
        12,
        ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "apparmor", "ca-certificates"),
    ),
    "ubuntu": (22.04, ("docker.io", "docker-compose-v2", "docker-buildx", "apparmor", "ca-certificates")),
}
"""Systems by their ID: the first version that is known, and its packages of Docker with compose v2."""

NO_COMPOSE = {("debian", 12.0)}
"""Which have no such packages: there Docker must be there already."""

MACHINES = ("x86_64", "aarch64")
"""What the node's environment has packages for."""

BUILD_BYTES, NODE_BYTES = 5_000_000_000, 500_000_000
"""Free disk for a node whose image is built here, and for one that needs no build any more."""

LABEL = "com.docker.compose.project"
STOP_SECONDS = 20

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What the deployer tells.

    Attributes:
        stack, stack_id, name: whose the machine is to be.
        project: compose's name for the node.
        ports: that the node listens on.
        public_key: the deployer's own.
        build: whether the node's image is built here.
        keep_data: whether `leave` leaves the data.
        must_be_ours: refuse a machine that does not hold the node.
        key_from: networks (CIDR) that the deployer's key lets in from, as `public_key` says; empty for all.
        admin_email, node_type: what the next node of its name goes on with where the data are left.
        adopted: which kept data the node takes over, by when they were kept; empty for none.
        adopting: whether these are not its own yet, see `DeploySpec`.
        new_data: whether it begins with none where some are kept.
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
        """What a note beside data that are left tells of the node."""
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
    """What speaks against a node here, and what to do."""

    message: str
    suggestion: str = ""


class HostFacts:
    """The machine as `look` sees it; every answer changes nothing.

    Args:
        root: `/`, or what a test has in its place.
        run: see `docker_cli.run`; tests have one of their own.
    """

    def __init__(self, root: Path = Path("/"), run: Callable[..., Any] = run) -> None:
        self.root, self._run = root, run

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def said(self, *argv: str) -> str | None:
        """What a program wrote; None where it failed or is not there."""
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
        """Of os-release: its ID, its version, and how it calls itself."""
        try:
            told = parse_env_file(self.path("/etc/os-release").read_text(encoding="utf-8"))
        except OSError:
            told = {}
        version = told.get("VERSION_ID", "")
        number = float(version) if re.fullmatch(r"\d+(\.\d+)?", version) else 0.0
        return told.get("ID", ""), number, told.get("PRETTY_NAME", "an unknown system")

    @property
    def machine(self) -> str:
        """An id that is another for another machine; what systemd calls confidential is not shown."""
        try:
            own = self.path("/etc/machine-id").read_text().strip()
        except OSError:
            own = platform.node()
        return hashlib.sha256(f"gridup {own}".encode()).hexdigest()[:16]

    def came_from(self) -> str:
        """The address that the login of this run comes from; empty where that can't be told."""
        pid = os.getpid()
        with contextlib.suppress(OSError, ValueError, IndexError):
            while pid > 1:  # sudo keeps it from what it runs, and was told itself.
                folder = self.path(f"/proc/{pid}")
                for word in (folder / "environ").read_bytes().split(b"\0"):
                    name, _, value = word.partition(b"=")
                    if name == b"SSH_CONNECTION":
                        return value.split()[0].decode()
                pid = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        return ""

    def host_keys(self) -> list[str]:
        """The public halves of sshd's ed25519 keys, as lines without their comments."""
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
    """What is here.

    Returns:
        `problems`: what speaks against the node, the gravest first. `mark`: whose the machine is. `machine`,
        `host_keys`: see `Here`. `state`: of `make`, as it publishes it; None before there was one. `kept`:
        the data that an earlier node of this very name has left, see `kept.read`; None for none.
        `firewall`: what keeps others out by default there, which Docker goes past; empty for none.
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
    """The note beside kept data, where these are of the very node."""
    # The stack's name alone could be another person's node, whose name only looks alike.
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
    """Whether the deployer's key would keep out who deploys."""
    came_from = here.came_from()
    if told.key_from and came_from and not within(came_from, told.key_from):
        yield Problem(
            f"--key-from keeps out who deploys: to the machine, you come from {came_from}.",
            f"Name that too, or deploy from elsewhere: --key-from {came_from}",
        )


def within(address: str, networks: Iterable[str]) -> bool:
    """Whether one of these networks (CIDR) has the address."""
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(one) for one in networks)


def _users(*, ours: bool) -> Iterator[Problem]:
    """Of the ids that the node's users and its programs have, those that are somebody else's."""
    for uid in (MACHINE_UID,) if ours else (UID, MACHINE_UID, people.UID):
        with contextlib.suppress(KeyError):
            yield Problem(
                f"the user id {uid} is {pwd.getpwuid(uid).pw_name}'s, and the node needs it.",
                "Give that user another id, or name another machine.",
            )


def _conflicts(here: HostFacts, told: Request) -> Iterator[Problem]:
    """What stands where the node's own would: it is somebody's, and stays."""
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
    """Data that are there and that nobody has said the node takes over, or leaves."""
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
        return  # A deploy was interrupted in the middle of its installation, which goes on.
    how = "Gridup uses the machine's own Docker as it is, and changes nothing of it."
    told_by = run(["docker", "version", "--format", "{{.Server.Version}}"], timeout=30)
    if told_by.code != 0:
        yield Problem(f"its Docker does not answer: {told_by.line}.", f"{how} Start it, and deploy again.")
        return
    if "name=userns" in (here.said("docker", "info", "--format", "{{json .SecurityOptions}}") or ""):
        # What a container's user may do with a folder of the machine's is then another user's right.
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
    """Ports that somebody listens on who is not of the node."""
    listening = listeners(here.path("/proc"))
    for port in told.ports:
        names = ""
        if shutil.which("docker"):
            # Docker's own way to a container may be no process of its own.
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
    """Whether sshd would let the node's user in."""
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
    """The TCP ports that are listened on, each with its socket's inode."""
    found: dict[int, str] = {}
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A":
                    found[int(words[1].rpartition(":")[2], 16)] = words[9]
    return found


def program_of(proc: Path, inode: str) -> str:
    """Who has a socket open."""
    for folder in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(os.readlink(link) == f"socket:[{inode}]" for link in (folder / "fd").iterdir()):  # noqa: PTH115
                return f"{(folder / 'comm').read_text().strip()} (process {folder.name})"
    return "another program"


class Guest(Machine):
    """The machine as the steps see it; what they say goes to the deployer too."""

    def say(self, text: str) -> None:
        emit(say=text)
        with contextlib.suppress(OSError), self.path(LOG).open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")


def provision(told: Request) -> dict[str, Any]:
    """Have all that a node needs; what is there is looked at, and what is right is left.

    Raises:
        Problems: something is in the way; nothing was changed.
        Failed: a step failed.
    """
    here = HostFacts()
    # Once more: between the look and now something may have come in the way.
    if found := list(_problems(here, told, here.json(MARK))):
        raise Problems(found)
    machine = Guest(Config(disk=()))
    machine.path(PLACE).mkdir(mode=0o755, exist_ok=True)
    # Before anything else: from here on all that is made is the stack's.
    mark = lay_mark(here, machine, told)
    steps: list[host.Step] = [("user", lambda machine: ensure_user(machine, told.public_key))]
    if mark["docker"] == "ours":
        wanted = KNOWN[here.system[0]][1]
        steps.append(("packages", lambda machine: packages.ensure(machine, wanted)))
        steps.append(("docker", ensure_docker))
    else:
        steps.append(("docker", let_use_docker))
    # Of a machine that was made once, what lies there is the node's own by now, also where a destroy that
    # was to keep it was interrupted.
    aside = told.new_data and not mark["made"]
    steps.append(("folder", lambda machine: ensure_folder(machine, aside=aside, adopting=told.adopting)))
    steps.append(("node folder", ensure_node_folder))
    if not host.make(machine, steps):
        state = here.json(STATE) or {}
        raise Failed(f"step {state.get('step')}: {state.get('message')}")
    machine.write(MARK, _text({**mark, "made": True}))
    return inspect(here, told)


def lay_mark(here: HostFacts, machine: Machine, told: Request) -> dict[str, Any]:
    """The mark; what an earlier one noted of the machine as it was before stays."""
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
    """The references of the images that are here."""
    done = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"], timeout=30)
    return sorted(set(done.text.split())) if done.code == 0 else []


def ensure_user(machine: Machine, public_key: str) -> None:
    """The user that the node is run by: let in by key, and root by sudo, as whoever may use Docker is."""
    if not _is_name(grp.getgrnam):
        machine.check_run("groupadd", f"--gid={UID}", USER)
    if not _is_name(pwd.getpwnam):
        words = (f"--uid={UID}", f"--gid={USER}", f"--home-dir={HOME}", "--create-home", "--shell=/bin/bash")
        # No password at all: sshd without PAM takes one that is locked for a closed account.
        machine.check_run("useradd", *words, "--password=*", "--comment=Gridup", USER)
    machine.path(HOME).chmod(0o700)
    folder = machine.path(f"{HOME}/.ssh")
    folder.mkdir(mode=0o700, exist_ok=True)
    keys_file = folder / "authorized_keys"
    had = keys_file.read_text(encoding="utf-8").splitlines() if keys_file.exists() else []
    if public_key not in had:
        # The same key may have been let in from elsewhere.
        others = [line for line in had if bare(line) != bare(public_key)]
        text = "".join(f"{line}\n" for line in [*others, public_key])
        machine.write(f"{HOME}/.ssh/authorized_keys", text, 0o600)
    for path in (folder, keys_file):
        os.chown(path, UID, UID)
    machine.write(SUDOERS, SUDO, 0o440)
    os.chown(machine.path(LOG), 0, UID)
    machine.path(LOG).chmod(0o640)


def bare(line: str) -> str:
    """A line of authorized_keys without what `key_from` has put before the key."""
    return re.sub(r'^from="[^"]*" ', "", line)


def let_use_docker(machine: Machine) -> None:
    """The machine's own Docker, of which nothing is changed."""
    machine.check_run("usermod", "--append", "--groups", "docker", USER)


def ensure_folder(machine: Machine, *, aside: bool, adopting: bool) -> None:
    """The place for the node's data, on the machine's own disk; those that it takes over are there.

    Args:
        aside: whether what is kept there is not to be the node's.
        adopting: whether what is kept there stays so, for the node may never be healthy with it.
    """
    if aside:
        kept.set_aside(machine.path(MOUNT))
    machine.path(MOUNT).mkdir(mode=0o755, exist_ok=True)
    if not adopting:
        kept.settle(machine.path(MOUNT))


def deprovision(told: Request, say: Say) -> dict[str, Any]:
    """Take away all that bears the stack's mark.

    Raises:
        Failed: something could not be removed; the mark stays.
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
            # By force: the deployer may be logged in as that very user.
            done = run(["userdel", "--force", "--remove", user], timeout=60)
            if _is_name(pwd.getpwnam, user):
                raise Failed(f"The user {user} could not be removed: {done.line}.")
        if _is_name(grp.getgrnam, user):
            run(["groupdel", user], timeout=60)
    for folder in (home, here.path(people.HOME)):
        shutil.rmtree(folder, ignore_errors=True)
    # Last, with the mark: until the user is gone its right to use sudo is the way back in.
    here.path(SUDOERS).unlink(missing_ok=True)
    shutil.rmtree(here.path(PLACE))
    return {"there": True}


def _leave_data(machine: Machine, told: Request) -> None:
    """Keep the node's data or remove them. What it has taken over and was never healthy with is kept too."""
    folder = machine.path(MOUNT)
    noted = kept.read(folder)
    if not (told.keep_data or noted) or not machine.path(NODE).exists():
        _remove_folder(folder)
    elif not noted:
        note = {**told.whose, "since": kept.now(), "size": kept.size(folder)}
        machine.write(f"{MOUNT}/{kept.NOTE}", _text(note), 0o600)


def _lift_shield(here: HostFacts) -> None:
    """Take away what the releases have laid outside of Docker; any of it may be gone."""
    for argv in shield.removal():
        run(argv, timeout=60)
    here.path(shield.PATH).unlink(missing_ok=True)
    run(["systemctl", "daemon-reload"], timeout=60)


def _empty_docker(project: str, home: Path, mark: Mapping[str, Any]) -> None:
    """Remove the node's containers, network and images, and nothing else of Docker's."""
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
            # One that somebody's container runs on by now stays.
            run(["docker", "image", "rm", image], timeout=120)


def _must(what: str, argv: list[str]) -> None:
    done = run(argv, timeout=120)
    if done.code != 0:
        raise Failed(f"{what} could not be removed: {done.line}.")


def _end_releases() -> None:
    """End what an earlier deploy left running, such as a build: it would bring back what is removed here."""
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
    """End what a user has running: whoever is logged in with a key that is let in no more."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == uid:
                os.kill(int(folder.name), signal.SIGKILL)


def _remove_folder(folder: Path) -> None:
    """Remove a folder; of a disk that the machine's owner has mounted there what is in it."""
    if folder.is_mount():
        for path in folder.iterdir():
            if path.name != "lost+found":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


class Problems(Exception):
    """What speaks against a node here."""

    def __init__(self, found: Iterable[Problem]) -> None:
        super().__init__()
        self.found = tuple(found)


def main() -> int:
    """The program: exit code 0 where the command could be carried out."""
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
