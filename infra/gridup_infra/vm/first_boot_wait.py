"""Waits for a machine's first boot, over ssh."""

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
"""Time limit for a new machine to accept ssh. On the slowest cloud it takes about three minutes."""

BOOT_SECONDS = 1800.0
"""Time limit for the first boot: packages, Docker, the data disk. It takes half a minute to three minutes."""

READ_SECONDS = 30.0
AGAIN_SECONDS = 1200.0

SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 3.0

OLD_SECONDS = 60.0
"""A failure that is older than this belongs to an earlier deploy. Its cause may be fixed by now, so the first
boot is tried again."""


@dataclass(frozen=True)
class Limits:
    """Time limits in seconds; see `SSH_SECONDS` and `BOOT_SECONDS`."""

    ssh: float = SSH_SECONDS
    boot: float = BOOT_SECONDS


def wait_for_host(door: SshEndpoint, say: Callable[[str], None], limits: Limits | None = None) -> str:
    """Wait until a machine is a container host. Returns its host key, for the caller to pin.

    Raises:
        FirstBootError: the first boot failed; the end of its log is in the details.
        DeadlineError: the first boot takes too long.
        SshUnreachableError: the machine can't be entered.
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
            # The connection may break during the first boot: sshd restarts, and the network is set up again.
            if not pinned or time.monotonic() >= end:
                raise


def read_state(session: Session) -> State:
    """Return the progress of the first boot.

    Raises:
        ResourceError: the machine's report can't be parsed.
    """
    told = session.run(first_boot.READ, timeout=READ_SECONDS).stdout
    try:
        return first_boot.parse(told)
    except ValueError as error:
        raise ResourceError(f"The machine's first boot can't be followed: {error}.") from None


def read_tail(session: Session) -> tuple[str, ...]:
    """Return the last lines of the first boot's log, without blank ones."""
    text = session.run(first_boot.TAIL, timeout=READ_SECONDS).stdout
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())


def failure(state: State, tail: tuple[str, ...]) -> FirstBootError:
    """Return the error for a failed first boot.

    Args:
        tail: the last lines of its log.
    """
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
    # Use the machine's own clock, because the deployer's clock may differ.
    argv = ["sh", "-c", 'echo $(($(date +%s) - $(date -d "$1" +%s)))', "age", state.ended]
    told = session.run(argv, timeout=READ_SECONDS).stdout.strip()
    return told.isdecimal() and int(told) >= OLD_SECONDS
