"""The machine's program (`gridup_node.vm.guest`) as it is called from here, by either way in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Protocol

from gridup_infra.errors import FirstBootError, GridupError, PreflightError, ResourceError
from gridup_infra.processes import Result
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.base import Identity
from gridup_infra.targets.ssh.person import Person, meet
from gridup_infra.vm.node import PROJECT
from gridup_infra.vm.ssh import Door, HostKeyError, Session, entered
from gridup_node.services import openings, service
from gridup_node.vm import guest, user_data

Say = Callable[[str], None]

SSH = service("ssh")
PORTS = tuple(port for port, _ in openings() if port != SSH.machine_port)
"""What the node listens on there; ssh is the machine's own."""

LOOK_SECONDS, LEAVE_SECONDS = 60.0, 300.0
MAKE_SECONDS = 2400.0
"""For Docker's packages, and for another run there."""

RunAsRoot = Callable[[Sequence[str], bytes, Say, float], Result]


class Way(Protocol):
    """A way to run a program on the machine as root."""

    @property
    def host(self) -> str: ...

    def run(self, argv: Sequence[str], input: bytes, on_line: Say, timeout: float) -> Result: ...

    def refused(self, said: Sequence[str], what: str = "") -> GridupError: ...


class Managed:
    """The way by the node's own key."""

    def __init__(self, session: Session, host: str) -> None:
        self._session, self.host = session, host

    def run(self, argv: Sequence[str], input: bytes, on_line: Say, timeout: float) -> Result:
        """See `Person.run`."""
        return self._session.stream(["sudo", "-n", *argv], on_line, timeout=timeout, input=input)

    def refused(self, said: Sequence[str], what: str = "") -> GridupError:
        """See `Person.refused`."""
        return ResourceError(
            f"The machine's program on {self.host} ended without a word: {what} {said[-3:]}."
        )


@contextmanager
def managed(door: Door, host: str, seconds: float) -> Any:
    """The way by the node's own key. Raises as `ssh.entered` does, `DeniedError` at once."""
    with entered(door, timeout=seconds, until_let_in=False) as session:
        yield Managed(session, host)


def look(spec: DeploySpec, *, pinned: str, must_be_ours: bool) -> dict[str, Any]:
    """Look, by the person's own ssh, for what speaks against the node.

    Raises:
        PreflightError: something does; or the machine can't be reached.
        CredentialsError: it does not let the person in, or not to do this.
    """
    try:
        person = meet(spec.host, pinned)
        found = seen(person, told(spec, must_be_ours=must_be_ours))
    except HostKeyError as error:
        raise PreflightError(error.message, error.suggestion) from None
    if found["problems"]:
        raise in_the_way(spec.host, found["problems"])
    return found


def seen(way: Way, asked: guest.Told) -> dict[str, Any]:
    """What `guest.look` reports.

    Raises:
        HostKeyError: nobody vouches for the key that is to be pinned.
    """
    found = call(way, "look", asked, lambda _text: None, LOOK_SECONDS)
    if isinstance(way, Person) and way.theirs and way.host_key not in found["host_keys"]:
        raise HostKeyError(
            f"{way.host} shows a host key that is not the machine's own: somebody is in between.",
            "Give the right one with --host-key.",
        )
    return found


def told(spec: DeploySpec, *, public_key: str = "", must_be_ours: bool = False) -> guest.Told:
    """What the machine's program is told of a node."""
    return guest.Told(
        stack=spec.stack,
        stack_id=spec.stack_id,
        name=spec.name,
        project=PROJECT,
        ports=() if spec.no_node else PORTS,
        public_key=public_key,
        build=not (spec.image or spec.no_node),
        must_be_ours=must_be_ours,
    )


def make(way: Way, asked: guest.Told, say: Say) -> dict[str, Any]:
    """See `guest.make`."""
    return call(way, "make", asked, say, MAKE_SECONDS)


def leave(
    way: Way, stack: str, stack_id: str, name: str, *, keep_data: bool = False, say: Say | None = None
) -> bool:
    """See `guest.leave`. Returns whether there was anything."""
    asked = guest.Told(stack=stack, stack_id=stack_id, name=name, project=PROJECT, keep_data=keep_data)
    return bool(call(way, "leave", asked, say or (lambda _text: None), LEAVE_SECONDS)["there"])


def person_of(identity: Identity) -> Person:
    """The person's own way to a stack's machine.

    Raises:
        ResourceError: which machine that is, is not known.
    """
    host = identity.facts.get("host", "")
    if not host:
        raise ResourceError(f"Which machine {identity.name} is on is not known.")
    return meet(host, identity.facts.get("host_key", ""))


def holds(identity: Identity) -> bool:
    """Whether the stack's machine bears its mark."""
    asked = guest.Told(identity.stack, identity.stack_id, identity.name, PROJECT)
    mark = seen(person_of(identity), asked)["mark"] or {}
    return bool(mark.get("stack_id") == identity.stack_id)


def call(way: Way, command: str, asked: guest.Told, say: Say, timeout: float) -> dict[str, Any]:
    """Run the machine's program, whose output is lines of JSON: what it does, and at last what came of it.

    Raises:
        PreflightError: something is in the way; nothing was changed.
        FirstBootError: a step failed; the end of its log is in the details.
        GridupError: the machine can't be entered.
    """
    program = user_data.packed("gridup_node.vm.guest", [f"vm/{name}" for name in guest.MODULES])
    argv = ["python3", "-I", "-B", "-c", guest.LOADER, str(len(program)), command]
    ended: dict[str, Any] = {}
    said: list[str] = []

    def hear(line: str) -> None:
        try:
            one = json.loads(line)
        except ValueError:
            one = None
        if not isinstance(one, dict):
            said.append(line)
        elif "say" in one:
            say(str(one["say"]))
        else:
            ended.update(one)

    try:
        way.run(argv, program + json.dumps(asdict(asked)).encode(), hear, timeout)
    except TimeoutError as error:
        raise ResourceError(f"{way.host} did not finish in time: {error}.") from None
    if "done" in ended:
        done: dict[str, Any] = ended["done"]
        return done
    if "problems" in ended:
        raise in_the_way(way.host, ended["problems"])
    if failed := ended.get("failed"):
        raise FirstBootError(
            f"{way.host} could not be {'left' if command == 'leave' else 'made a container host'}: "
            f"{failed['message']}.",
            "Remove what was in the way, and run the same again.",
            tuple(line for line in failed["tail"] if line.strip()),
        )
    raise way.refused(said, str(ended.get("refused", "")))


def in_the_way(host: str, problems: Sequence[Mapping[str, str]]) -> PreflightError:
    """What a person is told of a machine that can't be a node's."""
    first, *more = problems
    return PreflightError(
        f"{host} can't take the node: {first['message']}",
        first["suggestion"],
        tuple(f"also: {one['message']} {one['suggestion']}".strip() for one in more),
    )
