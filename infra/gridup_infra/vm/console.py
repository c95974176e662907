"""Compares the host key that a machine shows to ssh with the host keys that it printed on its console.

An attacker between the deployer and the machine can show another key to ssh, but the console's text comes
from the cloud's API. cloud-init prints the keys at the end of a machine's first boot (its module
`keys_to_console`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

from gridup_infra.errors import GridupError, ResourceError
from gridup_infra.naming import typed
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.vm.keys import HOST_KEY_TYPE
from gridup_infra.vm.ssh import HostKeyError, fingerprint

WAIT_SECONDS = 120.0
"""Time limit for the keys to appear on the console. A cloud shows printed text seconds to minutes later."""

POLL_SECONDS = 5.0

_BLOCK = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
_KEY = re.compile(rf"{HOST_KEY_TYPE} AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]{{43}}(?![A-Za-z0-9+/=])")
"""A complete key of that type. A key with another message printed in its middle does not match."""


def printed(text: str) -> frozenset[str]:
    """Return the host keys of `HOST_KEY_TYPE` on a console, as lines without their comments."""
    return frozenset(key for block in _BLOCK.findall(text) for key in _KEY.findall(block))


def reader(console: Mapping[str, str], stack_id: str, name: str) -> Callable[[], str]:
    """Return a function that reads a machine's console from its cloud and raises as `Target.boot_log` does.

    Args:
        console: the target's name as `target`, and the facts by which that target finds the machine.
        stack_id: the id of the node's stack.
        name: the node's name.
    """
    from gridup_infra import targets

    facts = {key: str(value) for key, value in console.items() if key != "target"}
    target = targets.target(str(console["target"]))
    spec = DeploySpec(name=name, target=target.name, stack_id=stack_id)
    outputs = NodeOutputs(spec=spec, address="", ports={}, facts=facts)
    return lambda: target.boot_log(outputs)


def compare(
    name: str,
    shown: str,
    address: str,
    read: Callable[[], str],
    say: Callable[[str], None],
    *,
    seconds: float = WAIT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Check that the host key shown at first contact is one that the console has.

    Accepts the key, and reports this, if the console can't be read or shows no key in time.

    Args:
        name: the node's name.
        shown: the key that was shown, as a line.
        address: the address that showed it.
        read: reads the console, see `reader`.
        say: called with the result, for the user.
        seconds: how long to wait for keys on the console.

    Raises:
        HostKeyError: the console has other keys.
    """
    say("comparing the host key with the console's")
    end = clock() + seconds
    while True:
        try:
            keys, why = printed(read()), "it has not printed it"
        except ResourceError as error:
            keys, why = frozenset(), error.message  # May be temporary, such as a store that does not answer.
        except GridupError as error:
            say(_unknown(shown, error.message))
            return
        if shown in keys:
            say(f"the host key is the one on its console: {fingerprint(shown)}")
            return
        if keys:
            own = ", ".join(sorted(map(fingerprint, keys)))
            raise HostKeyError(
                f"Who answers at {address} shows the host key {fingerprint(shown)}, and the machine has "
                f"printed another one on its console: {own}. Somebody is in between; they were sent nothing "
                "of the node.",
                f"Deploy again from another network. `{typed('logs', name, '--boot')}` shows the console.",
            )
        if clock() >= end:
            say(_unknown(shown, why))
            return
        sleep(POLL_SECONDS)


def _unknown(shown: str, why: str) -> str:
    told = f"its host key {fingerprint(shown)} is believed at first contact"
    return f"{told}, for the console can't be read: {why.rstrip('.')}"
