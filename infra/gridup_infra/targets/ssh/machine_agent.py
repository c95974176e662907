"""Calls the program on the machine, `gridup_node.vm.existing_host`.

There are two ways to run it: the user's own ssh, and the management key.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Protocol

from gridup_infra.errors import FirstBootError, GridupError, PreflightError, ResourceError
from gridup_infra.processes import Result
from gridup_infra.spec import NEW_DATA, DeploySpec
from gridup_infra.targets.base import Retained, StackRef
from gridup_infra.targets.ssh.user_ssh import UserSsh, unheard, verify_host
from gridup_infra.vm.node import PROJECT, doors, is_fronted
from gridup_infra.vm.ssh import HostKeyError, Session, SshEndpoint, ssh_session
from gridup_node.services import machine_doors
from gridup_node.vm import existing_host, user_data
from gridup_node.vm.machine import MOUNT

Say = Callable[[str], None]

LOOK_SECONDS, DELETE_TIMEOUT = 60.0, 300.0
MAKE_SECONDS = 2400.0
"""Long enough to install Docker's packages, and to wait for another run on the machine."""

ANSWER = re.compile(r'\{"')
"""How an answer of the program begins."""

SAID_LINES = 200
"""How many lines of other output are stored, to explain why there is no answer."""

RunAsRoot = Callable[[Sequence[str], bytes, Say, float], Result]


class RootRunner(Protocol):
    """A way to run a program on the machine as root."""

    @property
    def host(self) -> str: ...

    def run(self, argv: Sequence[str], input: bytes, on_line: Say, timeout: float) -> Result: ...

    def refused(self, said: Sequence[str], what: str, code: int) -> GridupError: ...


class KeyRunner:
    """The way with the management key."""

    def __init__(self, session: Session, host: str) -> None:
        self._session, self.host = session, host

    def run(self, argv: Sequence[str], input: bytes, on_line: Say, timeout: float) -> Result:
        """See `UserSsh.run`."""
        return self._session.stream(["sudo", "-n", *argv], on_line, timeout=timeout, input=input)

    def refused(self, said: Sequence[str], what: str, code: int) -> GridupError:
        """See `UserSsh.refused`."""
        return unheard(self.host, [*said, what] if what else said, code)


@contextmanager
def managed(door: SshEndpoint, host: str, seconds: float) -> Any:
    """Log in with the management key. Raises as `ssh.ssh_session` does, `AuthenticationError` at once."""
    with ssh_session(door, timeout=seconds, retry_auth=False) as session:
        yield KeyRunner(session, host)


def look(spec: DeploySpec, *, pinned: str, must_be_ours: bool) -> dict[str, Any]:
    """Check, by the user's own ssh, that the machine can take the node; return the report of `seen`.

    Raises:
        PreflightError: something prevents it, or the machine can't be reached.
        CredentialsError: the machine does not let the user in, or the user is not allowed to run the program.
    """
    found = _looked(spec, pinned, told(spec, must_be_ours=must_be_ours))
    if found["problems"]:
        raise in_the_way(spec.host, found["problems"])
    return found


def retained(spec: DeploySpec) -> Retained | None:
    """Return the retained data of an earlier node of this name, read by the user's own ssh; None for none.

    Raises:
        PreflightError, CredentialsError: the machine can't be inspected, see `look`.
    """
    note = _looked(spec, spec.host_key, told(spec))["kept"]
    if note is None:
        return None
    since, size = str(note["since"]), int(note.get("size") or 0)
    noted = {key: str(note.get(key) or "") for key in ("admin_email", "node_type")}
    return Retained(since, f"the folder {MOUNT} on {spec.host}", since, size, **noted)


def bypassed(spec: DeploySpec) -> str:
    """Return a warning if the machine's own firewall does not protect the node's ports; else empty.

    Raises:
        PreflightError, CredentialsError: the machine can't be inspected, see `look`.
    """
    if spec.no_node or (spec.bind and ipaddress.ip_address(spec.bind).is_loopback):
        return ""
    left = [str(port) for port in ports(spec) if str(port) not in doors(spec)]
    found = _looked(spec, spec.host_key, told(spec))["firewall"] if left else ""
    if not found:
        return ""
    return (
        f"{spec.host} has a firewall ({found}), and what Docker publishes goes past it: whoever reaches the "
        f"machine reaches the node's ports {', '.join(left)}. --web-cidr says who may reach UI and api, "
        "--allow-cidr who jupyter."
    )


def _looked(spec: DeploySpec, pinned: str, asked: existing_host.Request) -> dict[str, Any]:
    try:
        return seen(verify_host(spec.host, pinned), asked)
    except HostKeyError as error:
        raise PreflightError(error.message, error.suggestion) from None


def seen(way: RootRunner, asked: existing_host.Request) -> dict[str, Any]:
    """Return the report of `existing_host.inspect`.

    Raises:
        HostKeyError: the host key that is to be pinned is not one of the machine's own.
    """
    found = call(way, "inspect", asked, lambda _text: None, LOOK_SECONDS)
    if isinstance(way, UserSsh) and way.trusted_by_known_hosts and way.host_key not in found["host_keys"]:
        raise HostKeyError(
            f"{way.host} shows a host key that is not the machine's own: somebody is in between.",
            "Give the right one with --host-key.",
        )
    return found


def ports(spec: DeploySpec) -> tuple[int, ...]:
    """Return the ports that the node listens on; not that of ssh, which is the machine's own."""
    return tuple(sorted(machine_doors(spec.port, fronted=is_fronted(spec))))


def told(spec: DeploySpec, *, public_key: str = "", must_be_ours: bool = False) -> existing_host.Request:
    """Return the request to the program on the machine for a node."""
    return existing_host.Request(
        stack=spec.stack,
        stack_id=spec.stack_id,
        name=spec.name,
        project=PROJECT,
        ports=() if spec.no_node else ports(spec),
        public_key=public_key,
        build=not (spec.image or spec.no_node),
        must_be_ours=must_be_ours,
        key_from=spec.key_from,
        **choice(spec.adopted, adopting=spec.adopting),
    )


def choice(adopted: str, *, adopting: bool) -> dict[str, Any]:
    """Return the fields of `existing_host.Request` for a spec's fields `adopted` and `adopting`."""
    new = adopted == NEW_DATA
    return {"adopted": "" if new else adopted, "adopting": adopting, "new_data": new}


def make(way: RootRunner, asked: existing_host.Request, say: Say) -> dict[str, Any]:
    """See `existing_host.provision`."""
    return call(way, "provision", asked, say, MAKE_SECONDS)


def leave(way: RootRunner, asked: existing_host.Request, say: Say = lambda _text: None) -> bool:
    """See `existing_host.deprovision`. Returns whether the machine had the stack's ownership mark."""
    return bool(call(way, "deprovision", asked, say, DELETE_TIMEOUT)["there"])


def person_of(identity: StackRef) -> UserSsh:
    """Return the user's own ssh to a stack's machine.

    Raises:
        ResourceError: it is not known which machine the stack is on.
    """
    host = identity.facts.get("host", "")
    if not host:
        raise ResourceError(f"Which machine {identity.name} is on is not known.")
    return verify_host(host, identity.facts.get("host_key", ""))


def told_of(identity: StackRef) -> existing_host.Request:
    """Return the request to the program on the machine for a stack of which little is known."""
    return existing_host.Request(identity.stack, identity.stack_id, identity.name, PROJECT)


def holds(identity: StackRef) -> bool:
    """Return whether the stack's machine has the stack's ownership mark."""
    mark = seen(person_of(identity), told_of(identity))["mark"] or {}
    return bool(mark.get("stack_id") == identity.stack_id)


def call(
    way: RootRunner, command: str, asked: existing_host.Request, say: Say, timeout: float
) -> dict[str, Any]:
    """Run the program on the machine; return its result.

    The program writes lines of JSON: one for each step, and the result at the end.

    Raises:
        PreflightError: something prevents the command; nothing was changed.
        FirstBootError: a step failed; the end of its log is in the details.
        GridupError: the machine can't be accessed, or does not finish in time.
    """
    program = user_data.zipapp("gridup_node.vm.existing_host", existing_host.MODULES)
    argv = ["python3", "-I", "-B", "-c", existing_host.LOADER, str(len(program)), command]
    ended: dict[str, Any] = {}
    said: list[str] = []

    def hear(line: str) -> None:
        one = answer(line)
        if one is None:
            said.append(line)
            del said[:-SAID_LINES]
        elif "say" in one:
            say(str(one["say"]))
        else:
            ended.update(one)

    try:
        ran = way.run(argv, program + json.dumps(asdict(asked)).encode(), hear, timeout)
    except TimeoutError as error:
        raise ResourceError(f"{way.host} did not finish in time: {error}.") from None
    if "done" in ended:
        done: dict[str, Any] = ended["done"]
        return done
    if "problems" in ended:
        raise in_the_way(way.host, ended["problems"])
    if failed := ended.get("failed"):
        aim = "cleaned up" if command == "deprovision" else "made a container host"
        raise FirstBootError(
            f"{way.host} could not be {aim}: {failed['message']}.",
            "Remove what was in the way, and run the same again.",
            tuple(line for line in failed["tail"] if line.strip()),
        )
    raise way.refused(said, str(ended.get("refused", "")), ran.code)


def answer(line: str) -> dict[str, Any] | None:
    """Return an answer of the program; None for a line that the user's shell or ssh has written.

    A shell may write text without an end of line, such as a terminal title. It comes before the answer.
    """
    for found in ANSWER.finditer(line):
        with contextlib.suppress(ValueError):
            told = json.loads(line[found.start() :])
            return told if isinstance(told, dict) else None
    return None


def in_the_way(host: str, problems: Sequence[Mapping[str, str]]) -> PreflightError:
    """Return the error for a machine that can't take the node."""
    first, *more = problems
    return PreflightError(
        f"{host} can't take the node: {first['message']}",
        first["suggestion"],
        tuple(f"also: {one['message']} {one['suggestion']}".strip() for one in more),
    )
