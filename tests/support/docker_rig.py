"""A Docker daemon that belongs to the tests, and the base image where no image can be pulled.

The daemon leaves the machine as it is, with another dockerd on it or none: its folders, its bridge and its
addresses are its own, and the machine's firewall and routing are not handed to it (`--iptables=false`,
`--ip-forward=false`). What that means for a test:

- Containers of one network reach each other by name; those of two networks do not.
- A port published on any address of the machine, 127.0.0.2 among them, is served by docker-proxy.
- Containers reach nothing beyond the machine. A build does, with `network_mode="host"`.

Debian's packages: docker.io (with containerd and runc), iptables, iproute2, mount, debootstrap, tar, and
debian-archive-keyring where the machine is not Debian.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

import docker
import psutil
import pytest
import requests

from gridup_infra.errors import BusyError
from gridup_infra.locking import locked
from gridup_infra.paths import ensure_private
from gridup_infra.processes import run, wait_until, which
from gridup_infra.targets.docker.node_labels import STACK_ID
from gridup_node.image import BASE_IMAGE
from support import node_layers
from support.debian import apt_settings, apt_sources
from support.system import attempt, lacking, must, program

START_SECONDS = 60.0
"""Until dockerd must answer; it takes 1 to 3 s."""

STOP_SECONDS = 45.0
"""Until dockerd must have ended by itself: it gives its containers 15 s."""

BUSY_SECONDS = 10.0
"""For another run to end, which is then about to."""

BOOTSTRAP_SECONDS = 900.0

BUILT_IN = ("bridge", "host", "none")
"""The networks that every daemon has."""

NETWORKS = ipaddress.IPv4Network("198.18.0.0/15")
"""Set aside by RFC 2544 for tests of network devices: no machine or VPN of a person's should be there."""

POOL_PREFIX = 20
"""Of the part of it that one daemon has: fifteen networks of 254 containers, and the default bridge."""

ADDRESSES_LOCK = Path("/run/gridup-tests/lock")

PROGRAMS = {
    "dockerd": "docker.io",
    "containerd": "containerd",
    "iptables": "iptables",
    "ip": "iproute2",
    "mount": "mount",
    "umount": "mount",
}
"""Program -> Debian's package of it."""


class Daemon:
    """A dockerd below `folder`, where its images outlive it; one at a time.

    Attributes:
        folder: holds its data, its log and the lock.
        log: what the present run's daemons wrote.
        data_root: images, containers and volumes. May be removed whenever no daemon runs.
        host: its address, as DOCKER_HOST takes it; the same after a restart.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = ensure_private(folder.resolve())
        self.log = self.folder / "dockerd.log"
        self.data_root = self.folder / "data"
        self._id = hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]
        # Sockets lie below it, and a socket's path may have no more than 107 bytes. Only root can write here.
        self._run = Path(f"/run/gridup-{self._id}")
        self._bridge = f"gridup-{self._id}"
        self._chain = f"GRIDUP-{self._id}"
        self._pool: ipaddress.IPv4Network | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._containerd: subprocess.Popen[bytes] | None = None
        self._held = ExitStack()
        self._claimed = False

    @property
    def host(self) -> str:
        return f"unix://{self._run}/docker.sock"

    def client(self) -> docker.DockerClient:
        """A client of this daemon, to be closed by the caller (`contextlib.closing`)."""
        return docker.DockerClient(base_url=self.host, timeout=int(START_SECONDS))

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it and wait until it answers; nothing when it runs.

        The first time, what an earlier run left is removed: its processes, containers, networks and volumes.
        Skips the test where a daemon can't be had, and fails it where it should have come up.
        """
        if self._process is not None and self._process.poll() is None:
            return
        if self._claimed:
            if not self._launch():
                self._fail()
            return
        if reason := lacking(PROGRAMS):
            pytest.skip(f"no Docker daemon: {reason}")
        with ExitStack() as stack:
            try:
                stack.enter_context(
                    locked(self.folder / "lock", "tests", wait=BUSY_SECONDS, busy="The daemon is in use")
                )
            except BusyError as error:
                pytest.skip(f"no Docker daemon: {error.message}")
            self._kill_all()
            self._remove_network()
            stack.callback(self._remove_network)
            stack.callback(self.stop)
            with locked(ADDRESSES_LOCK, "tests", wait=BUSY_SECONDS, busy="Addresses are being chosen"):
                self._pool = self._free_pool()
                self._make_network(self._pool)
            self.log.unlink(missing_ok=True)
            # The networks of an earlier run had that one's addresses, and dockerd would put them back.
            shutil.rmtree(self.data_root / "network", ignore_errors=True)
            self._launch_or_begin_anew()
            self._sweep()
            self._held = stack.pop_all()
        self._claimed = True

    def stop(self) -> None:
        """Stop it in order, as a machine that is shut down; it can be started again."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=STOP_SECONDS)
        self._kill_all()

    def kill(self) -> None:
        """End it and its containers at once, as a loss of power; it can be started again."""
        self._kill_all()

    def restart(self) -> None:
        """Stop it and start it; containers with a restart policy come back."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it for good: its network goes, its images stay, and another run may have them."""
        self._claimed = False
        self._held.close()

    def _launch_or_begin_anew(self) -> None:
        had_data = self.data_root.exists()
        if self._launch():
            return
        # An older run may have been killed in mid-write; without its data there is nothing to trip over.
        # One that hangs instead of ending would do so again.
        if not had_data or self._process is None or self._process.poll() is None:
            self._fail()
        self._kill_all()
        shutil.rmtree(self.data_root)
        if not self._launch():
            self._fail()

    def _launch(self) -> bool:
        """Whether dockerd came up."""
        shutil.rmtree(self._run, ignore_errors=True)
        ensure_private(self._run)
        self._configure(live_restore=True)
        with self.log.open("ab") as log:
            self._containerd, self._process = (
                subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                for argv in (self._containerd_argv(), self._argv())
            )
        process = self._process
        wait_until(lambda: process.poll() is not None or self._answers(), timeout=START_SECONDS)
        if not self._answers():
            return False
        self._configure(live_restore=False)
        process.send_signal(signal.SIGHUP)
        return wait_until(lambda: not self._restores_live(), timeout=START_SECONDS)

    def _configure(self, *, live_restore: bool) -> None:
        """Write its daemon.json; the machine's own is not meant for it.

        A dockerd with address pools of its own and data of an earlier start deletes the interface docker0,
        which is another dockerd's. With live-restore it does not, but would then leave its containers
        running when it stops: so that is on while it starts, and off from then.
        """
        (self._run / "daemon.json").write_text(json.dumps({"live-restore": live_restore}))

    def _restores_live(self) -> bool:
        with closing(self.client()) as client:
            return bool(client.info()["LiveRestoreEnabled"])

    def _containerd_argv(self) -> list[str]:
        # dockerd starts one by itself only where the machine's own does not run, and else uses that one.
        config = self._run / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        return [
            program("containerd"),
            *("--config", str(config)),
            *("--root", str(self.data_root / "containerd")),
            *("--state", str(self._run / "containerd")),
            *("--address", str(self._run / "containerd.sock")),
        ]

    def _argv(self) -> list[str]:
        return [
            program("dockerd"),
            *("--config-file", str(self._run / "daemon.json")),
            *("--data-root", str(self.data_root)),
            *("--exec-root", str(self._run / "exec")),
            *("--pidfile", str(self._run / "dockerd.pid")),
            *("--host", self.host),
            *("--storage-driver", _storage_driver(self.folder)),
            *("--bridge", self._bridge),
            *("--default-address-pool", f"base={self._pool},size=24"),
            *("--containerd", str(self._run / "containerd.sock")),
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--userland-proxy=true",
        ]

    def _answers(self) -> bool:
        if not (self._run / "docker.sock").exists():
            return False
        try:
            with closing(self.client()) as client:
                return bool(client.ping())
        except (docker.errors.DockerException, requests.RequestException):
            return False

    def _fail(self) -> None:
        self.stop()
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
        pytest.fail(f"dockerd did not come up. The end of {self.log}:\n{tail}", pytrace=False)

    def _sweep(self) -> None:
        """Remove what an earlier run left: the daemon is the tests' own, and so is all that is on it.

        Images stay, for they are what the next build goes faster by, but those of a stack.
        """
        with closing(self.client()) as client:
            api = client.api
            for container in api.containers(all=True):
                api.remove_container(container["Id"], force=True, v=True)
            for network in api.networks():
                if network["Name"] not in BUILT_IN:
                    api.remove_network(network["Id"])
            for volume in api.volumes()["Volumes"] or ():
                api.remove_volume(volume["Name"], force=True)
            for image in api.images(filters={"label": STACK_ID}):
                for name in image["RepoTags"] or [image["Id"]]:
                    api.remove_image(name, force=True)

    def _kill_all(self) -> None:
        """End dockerd and whatever it started, of this run or one that was killed; undo its mounts."""
        if not wait_until(lambda: not self._kill_once(), timeout=120):
            pytest.fail(f"processes of an earlier dockerd of {self.folder} can't be ended", pytrace=False)
        for process in (self._process, self._containerd):
            if process is not None:
                # Without it the process would stay as a zombie.
                process.wait(timeout=120)
        unmount_below(self.data_root)
        unmount_below(self._run)

    def _kill_once(self) -> bool:
        """Kill all there are. Returns whether there were any."""
        found = self._processes()
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return bool(found)

    def _processes(self) -> list[psutil.Process]:
        """dockerd, its containerd, and each container's shim with what runs in it.

        They are known by what they were started with, not by a pid file: a shim is nobody's child once
        dockerd has ended, and a pid may be another's by now.
        """
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = any(f"{self._run}/" in word for word in process.cmdline())
                if ours and process.name().startswith(("dockerd", "containerd")):
                    for one in (process, *process.children(recursive=True)):
                        if one.status() != psutil.STATUS_ZOMBIE:
                            found.setdefault(one.pid, one)
        return list(found.values())

    def _free_pool(self) -> ipaddress.IPv4Network:
        """Addresses for the containers that no other run has; those of the last time if they are free."""
        pools = list(NETWORKS.subnets(new_prefix=POOL_PREFIX))
        first = int(self._id, 16) % len(pools)
        taken = list(_addresses().values())
        for pool in pools[first:] + pools[:first]:
            if not any(address in pool for address in taken):
                return pool
        pytest.skip(f"no Docker daemon: every network of {NETWORKS} is in use")

    def _make_network(self, pool: ipaddress.IPv4Network) -> None:
        must("ip", "link", "add", self._bridge, "type", "bridge")
        must("ip", "addr", "add", f"{pool[1]}/24", "dev", self._bridge)
        must("ip", "link", "set", self._bridge, "up")
        # Where another dockerd has the kernel show bridged packets to iptables, its rules would drop ours.
        # Between two networks nothing passes, as with a daemon that keeps the firewall itself.
        must("iptables", "-w", "-N", self._chain)
        if Path("/proc/sys/net/bridge").exists():
            rule = ("-m", "physdev", "--physdev-is-bridged", "-j", "ACCEPT")
            must("iptables", "-w", "-A", self._chain, *rule)
        must("iptables", "-w", "-A", self._chain, "-j", "DROP")
        must("iptables", "-w", "-I", "FORWARD", "-s", str(pool), "-d", str(pool), "-j", self._chain)

    def _remove_network(self) -> None:
        """Remove the rules, the containers' bridges and ours, whichever run made them."""
        for line in must("iptables", "-w", "-S", "FORWARD").stdout.splitlines():
            if line.endswith(f" -j {self._chain}"):
                must("iptables", "-w", "-D", *line.split()[1:])
        attempt("iptables", "-w", "-F", self._chain)
        attempt("iptables", "-w", "-X", self._chain)
        bridges = _addresses()
        if self._bridge in bridges:
            pool = ipaddress.IPv4Network((bridges[self._bridge], POOL_PREFIX), strict=False)
            for name in (name for name, address in bridges.items() if address in pool):
                attempt("ip", "link", "delete", name)


def base_image(daemon: Daemon, cache: Path) -> None:
    """Have the node's base image on the daemon, made of Debian's packages where it is not there.

    And the layers of the node's image that its locks make (`support.node_layers`).

    It is `python:3.11-slim-bookworm` as far as the node's Dockerfile goes, and has this machine's way to its
    package sources in it. Kept in `cache` as a tar; made anew when the machine's settings are others.
    Skips the test where it can't be made.
    """
    recipe = _Recipe.of_this_machine()
    with closing(daemon.client()) as client:
        client.api.timeout = int(BOOTSTRAP_SECONDS)
        if recipe.wanted(client):
            tar = _base_tar(recipe, cache)
            repository, tag = BASE_IMAGE.split(":")
            client.api.import_image(str(tar), repository=repository, tag=tag, changes=recipe.changes)
            client.images.get(BASE_IMAGE)
        node_layers.keep(client)


def base_archive(cache: Path) -> tuple[Path, list[str]]:
    """The same image as a tar, and what `docker import` must add to it, for a daemon elsewhere."""
    recipe = _Recipe.of_this_machine()
    return _base_tar(recipe, cache), recipe.changes


def _base_tar(recipe: _Recipe, cache: Path) -> Path:
    folder = ensure_private(cache / "docker")
    tar = folder / f"base-{recipe.digest}.tar"
    with locked(folder / "base.lock", "a bootstrap", wait=BOOTSTRAP_SECONDS, busy="The image is made"):
        if not tar.exists():
            recipe.make(tar)
    return tar


BUNDLE = "etc/ssl/certs/ca-certificates.crt"

RECIPE_LABEL = "gridup.tests.recipe"

SETTINGS = ("etc/pip.conf", "etc/uv/uv.toml")
"""Of the machine, below /."""

OWN_SETTINGS = (".config/pip/pip.conf", ".config/uv/uv.toml")
"""Of the person, below their home; root's in the image."""

SLIM = b"""path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
"""
"""As in Debian's slim images: what is installed later brings no documentation either."""

NO_SERVICES = b"#!/bin/sh\nexit 101\n"
"""policy-rc.d of Debian's images: a build on the host's network must not start the sshd it installs."""

STRIPPED = ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man", "var/cache", "var/log")
"""Folders that are emptied."""


class _Recipe:
    """What the image is made of: Debian's packages and files of this machine.

    Attributes:
        mirror: where the packages come from; empty for debootstrap's own choice.
        files: path below / -> content.
    """

    def __init__(self, mirror: str, files: dict[str, bytes]) -> None:
        self.mirror = mirror
        self.files = files
        hashed = hashlib.sha256(b"1" + mirror.encode())
        for path, content in sorted(files.items()):
            hashed.update(path.encode() + hashlib.sha256(content).digest())
        self.digest = hashed.hexdigest()[:12]

    @classmethod
    def of_this_machine(cls) -> _Recipe:
        mirror, sources = apt_sources("bookworm")
        given = Path(os.environ.get("SSL_CERT_FILE") or f"/{BUNDLE}")
        copied = {BUNDLE: given, **{path: Path("/", path) for path in SETTINGS}}
        copied |= {f"root/{path}": Path.home() / path for path in OWN_SETTINGS}
        # An update of the package ca-certificates makes the bundle anew from these.
        local = Path("/usr/local/share/ca-certificates")
        copied |= {str(path.relative_to("/")): path for path in sorted(local.rglob("*.crt"))}
        files = {path: source.read_bytes() for path, source in copied.items() if source.is_file()}
        files |= {
            "etc/apt/apt.conf.d/90machine": apt_settings(),
            "etc/dpkg/dpkg.cfg.d/slim": SLIM,
            "usr/sbin/policy-rc.d": NO_SERVICES,
        }
        if sources:
            files["etc/apt/sources.list"] = sources.encode()
        return cls(mirror, files)

    @property
    def changes(self) -> list[str]:
        """What `docker import` adds to the files."""
        bundle = " ".join(f"{name}=/{BUNDLE}" for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"))
        return [
            "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            f"ENV {bundle}",
            f"LABEL {RECIPE_LABEL}={self.digest}",
            'CMD ["python3"]',
        ]

    def wanted(self, client: docker.DockerClient) -> bool:
        """Whether the daemon has no such image, or one that was made for other settings."""
        try:
            found = client.images.get(BASE_IMAGE)
        except docker.errors.ImageNotFound:
            return True
        return bool(found.labels.get(RECIPE_LABEL, self.digest) != self.digest)

    def make(self, tar: Path) -> None:
        """Make the image's root file system and write it to `tar`, whole or not at all."""
        program = which("debootstrap")
        if program is None:
            pytest.skip("no base image: debootstrap is not installed (Debian's package debootstrap)")
        root = Path(tempfile.mkdtemp(dir=tar.parent, prefix="base."))
        temporary = tar.with_suffix(".part")
        try:
            root.chmod(0o755)
            include = "--include=python3,python3-venv,ca-certificates"
            argv = [program, "--variant=minbase", include, "bookworm", str(root)]
            made = run(argv + [self.mirror] * bool(self.mirror), timeout=BOOTSTRAP_SECONDS)
            if not made.ok:
                pytest.fail("\n".join(("debootstrap failed:", *made.tail(15))), pytrace=False)
            self._finish(root)
            # Docker makes /dev itself.
            must("tar", "--numeric-owner", "--exclude=./dev/*", "-C", str(root), "-cf", str(temporary), ".")
            temporary.replace(tar)
        finally:
            temporary.unlink(missing_ok=True)
            unmount_below(root)
            shutil.rmtree(root)

    def _finish(self, root: Path) -> None:
        """Make of Debian's system what the official image is."""
        for folder in STRIPPED:
            for path in (root / folder).glob("**/*"):
                if not path.is_dir() and path.name != "copyright":
                    path.unlink()
        for path in (*(root / "var/lib/apt/lists").glob("*_*"), *root.glob("usr/**/*.pyc")):
            path.unlink()
        for name in ("python", "python3"):
            (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
        for name, content in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o755 if content is NO_SERVICES else 0o644)


def unmount_below(folder: Path) -> None:
    """Undo each mount at `folder` or below it, the innermost first."""
    points = (Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines())
    for point in sorted((point for point in points if point.is_relative_to(folder)), reverse=True):
        attempt("umount", "--lazy", str(point))


def _addresses() -> dict[str, ipaddress.IPv4Address]:
    """This machine's bridges, each with its first address."""
    shown = json.loads(must("ip", "-json", "-4", "addr", "show", "type", "bridge").stdout or "[]")
    found = ((link.get("ifname"), link.get("addr_info")) for link in shown)
    return {name: ipaddress.IPv4Address(rows[0]["local"]) for name, rows in found if rows}


def _storage_driver(folder: Path) -> str:
    """overlay2 where the file system of `folder` takes it; vfs else, which copies each layer in full."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="overlay.") as name:
        lower, upper, work, merged = (Path(name, part) for part in ("lower", "upper", "work", "merged"))
        for path in (lower, upper, work, merged):
            path.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        if not attempt("mount", "-t", "overlay", "overlay", "-o", options, str(merged)).ok:
            return "vfs"
        must("umount", str(merged))
    return "overlay2"
