"""Waiting for a machine's first boot, over ssh."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from gridup_infra.errors import DeadlineError, FirstBootError, ResourceError
from gridup_infra.vm.ssh import HostKeyError, Session, SshEndpoint, SshUnreachableError, ssh_session
from gridup_node.vm import first_boot
from gridup_node.vm.first_boot import State

SSH_SECONDS = 600.0
"""Until a new machine must be open to ssh. The slowest of the clouds' takes some three minutes."""

BOOT_SECONDS = 1800.0
"""Until its first boot must be done: packages, Docker, the data disk. It takes half a minute to three."""

READ_SECONDS = 30.0
AGAIN_SECONDS = 1200.0

SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 3.0

OLD_SECONDS = 60.0
"""A failure that is older than this when we come was another deploy's: something may be mended by now."""


@dataclass(frozen=True)
class Limits:
    """Seconds; see the constants of these names."""

    ssh: float = SSH_SECONDS
    boot: float = BOOT_SECONDS


def wait_for_host(door: SshEndpoint, say: Callable[[str], None], limits: Limits | None = None) -> str:
    """Wait until a machine is a container host. Returns its host key, which is then to be pinned.

    Raises:
        FirstBootError: its first boot failed; the end of its log is in the details.
        DeadlineError: it took too long.
        SshUnreachableError: it could not be entered.
    """
    limits = limits or Limits()
    say("waiting for ssh")
    end = time.monotonic() + limits.boot
    pinned, tried = door.host_key, False
    while True:
        here = replace(door, host_key=pinned)
        try:
            with ssh_session(here, timeout=limits.ssh, say=say) as session:
                pinned = session.host_key
                if not tried and _is_stale_failure(session):
                    tried = True
                    say("trying the first boot again")
                    session.run(first_boot.AGAIN, timeout=AGAIN_SECONDS)
                _wait(session, door.address, end, say)
                return pinned
        except HostKeyError:
            raise
        except SshUnreachableError:
            # The connection may break off as the machine settles: sshd is restarted, the network set up anew.
            if not pinned or time.monotonic() >= end:
                raise


def read_state(session: Session) -> State:
    """How far the first boot is.

    Raises:
        ResourceError: what the machine tells can't be understood.
    """
    told = session.run(first_boot.READ, timeout=READ_SECONDS).stdout
    try:
        return first_boot.parse(told)
    except ValueError as error:
        raise ResourceError(f"The machine's first boot can't be followed: {error}.") from None


def read_tail(session: Session) -> tuple[str, ...]:
    """The last lines of its log."""
    text = session.run(first_boot.TAIL, timeout=READ_SECONDS).stdout
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())


def failure(state: State, tail: tuple[str, ...]) -> FirstBootError:
    """What a person is told of a first boot that failed."""
    text = str(state)
    return FirstBootError(
        f"{text[:1].upper()}{text[1:]}.",
        "Remove what was in the way and deploy again: the machine then tries again.",
        tail,
    )


def _wait(session: Session, address: str, end: float, say: Callable[[str], None]) -> None:
    said = ""
    while True:
        state = read_state(session)
        if state.done:
            return
        if state.failed:
            raise failure(state, read_tail(session))
        if str(state) != said:
            said = str(state)
            say(said)
        if time.monotonic() >= end:
            raise DeadlineError(
                f"The machine at {address} was not ready in time: {state}.", "", read_tail(session)
            )
        time.sleep(random.uniform(SHORTEST_PAUSE, LONGEST_PAUSE))  # noqa: S311


def _is_stale_failure(session: Session) -> bool:
    state = read_state(session)
    if not state.failed or not state.ended:
        return False
    # By the machine's own clock, which ours need not agree with.
    argv = ["sh", "-c", 'echo $(($(date +%s) - $(date -d "$1" +%s)))', "age", state.ended]
    told = session.run(argv, timeout=READ_SECONDS).stdout.strip()
    return told.isdecimal() and int(told) >= OLD_SECONDS
