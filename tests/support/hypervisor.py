"""Plays a cloud's hypervisor: what the cloud's API says should run is booted, with exactly its user-data.

It knows a cloud only by `Cloud`. A machine gets what a real one would get and nothing else: the bytes of
user-data, its disks, its address. Nothing of this repository is mounted in it.

    with Hypervisor(rig, cloud) as hypervisor:
        ...                                         # gridup deploy --cloud …
        hypervisor.only().machine.reboot()
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from support.vm_rig import Disk, Machine, Rig

POLL_SECONDS = 1.0
DISK_MEGABYTES = 2048
"""Of a disk, whatever the cloud was asked for: a sparse file of this machine's."""


class Power(Enum):
    """What the cloud's API says of a machine."""

    ON = "on"
    OFF = "off"
    GONE = "gone"


@dataclass(frozen=True)
class Wanted:
    """A machine as the cloud's API tells of it.

    Attributes:
        identity: the cloud's own id.
        address: what it is reached at; empty as long as it has none: it boots when it has.
        user_data: as the cloud would hand it to the machine.
        disks: the data disks' ids by the path of the device that the machine has each at.
    """

    identity: str
    power: Power
    address: str
    user_data: bytes
    disks: Mapping[str, str] = field(default_factory=dict)


class Cloud(Protocol):
    """What the hypervisor asks of a cloud."""

    def wanted(self) -> Sequence[Wanted]:
        """Every machine there is or was."""
        ...

    def printed(self, identity: str, text: str) -> None:
        """Take what a machine has written to its console so far."""
        ...


@dataclass
class Booted:
    """A machine that was booted for the cloud.

    Attributes:
        sent: the SHA-256 of the user-data that it was booted with.
    """

    identity: str
    machine: Machine
    sent: str


class Hypervisor:
    """Makes the machines be what the cloud says, until its end.

    Args:
        rig: makes the machines.
        cloud: is asked all the time.
    """

    def __init__(self, rig: Rig, cloud: Cloud) -> None:
        self._rig = rig
        self._cloud = cloud
        self._disks: dict[str, Disk] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hypervisor", daemon=True)
        self._failure: BaseException | None = None
        # Tests reboot a machine while the cloud still wants it to run.
        self.lock = threading.RLock()
        self.booted: dict[str, Booted] = {}
        self.retold: Callable[[str], str] = lambda text: text
        """What the cloud tells of a console, made of what was printed there."""

    def __enter__(self) -> Hypervisor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(timeout=180)
        for one in self.booted.values():
            one.machine.destroy()
        self.check()

    def check(self) -> None:
        """Nothing, when it has had no trouble of its own."""
        if self._failure is not None:
            raise RuntimeError("the hypervisor failed") from self._failure

    def only(self) -> Booted:
        """The one machine that is there."""
        self.check()
        assert len(self.booted) == 1, list(self.booted)
        return next(iter(self.booted.values()))

    def settle(self) -> None:
        """Bring every machine to what the cloud says by now, and return when it is there."""
        with self.lock:
            for one in self._cloud.wanted():
                self._bring(one)
            for booted in self.booted.values():
                self._cloud.printed(booted.identity, self.retold(booted.machine.console))

    def reboot(self) -> None:
        """Restart the one machine from within."""
        with self.lock:
            self.only().machine.reboot()

    def _run(self) -> None:
        while not self._ending.wait(POLL_SECONDS):
            try:
                self.settle()
            except BaseException as error:  # noqa: BLE001 - told by `check`, in the test's own thread
                self._failure = error
                return

    def _bring(self, wanted: Wanted) -> None:
        """Make one machine what it should be."""
        known = self.booted.get(wanted.identity)
        if wanted.power is Power.GONE:
            if known:
                del self.booted[wanted.identity]
                if known.machine.running:
                    # A cloud presses the button, too, before it takes a machine away.
                    known.machine.poweroff()
                known.machine.destroy()
            return
        if known is None:
            if wanted.power is Power.ON and wanted.address:
                self._boot(wanted)
            return
        if wanted.power is Power.OFF:
            if known.machine.running:
                known.machine.poweroff()
            self._plug(known.machine, wanted)
            return
        self._plug(known.machine, wanted)
        if not known.machine.running:
            known.machine.start()

    def _boot(self, wanted: Wanted) -> None:
        machine = self._rig.machine(wanted.address)
        sent = hashlib.sha256(wanted.user_data).hexdigest()
        self.booted[wanted.identity] = Booted(wanted.identity, machine, sent)
        machine.boot(wanted.user_data, self._disks_of(wanted))

    def _plug(self, machine: Machine, wanted: Wanted) -> None:
        disks = self._disks_of(wanted)
        for path in set(machine.disks) - set(disks):
            if not machine.running:
                machine.detach(path)
        for path in set(disks) - set(machine.disks):
            machine.attach(path, disks[path])

    def _disks_of(self, wanted: Wanted) -> dict[str, Disk]:
        for identity in wanted.disks.values():
            if identity not in self._disks:
                self._disks[identity] = self._rig.disk(DISK_MEGABYTES)
        return {path: self._disks[identity] for path, identity in wanted.disks.items()}
