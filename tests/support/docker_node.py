"""What must be true of a Docker daemon after a run was interrupted, and after the next one."""

from __future__ import annotations

from collections import Counter
from typing import Any

from gridup_infra.targets.docker.naming import networks
from support import interrupts
from support.cli import Cli
from support.containers import SERVICES, STACK_ID, Things, ids, stack_id

ONE_OF_EACH = Counter(container=len(SERVICES), network=len(networks("inst")), volume=1, image=1)


class Made:
    """What a test has made on a daemon: whatever bears the id of a stack that was not there before."""

    def __init__(self, things: Things) -> None:
        self.things = things
        self._before = {labels[STACK_ID] for _, labels in things.marked()}

    def all(self) -> list[tuple[str, dict[str, Any]]]:
        """Each as (what, labels)."""
        return [row for row in self.things.marked() if row[1][STACK_ID] not in self._before]

    def count(self) -> Counter[str]:
        """How many containers, networks, volumes and images."""
        return Counter(what for what, _ in self.all())

    def one_of_everything(self, cli: Cli, stack: str = "inst") -> None:
        """One of each, of the stack as it is now, with all containers running."""
        own = stack_id(cli, stack)
        assert self.count() == ONE_OF_EACH, self.all()
        assert {labels[STACK_ID] for _, labels in self.all()} == {own}
        assert sorted(ids(self.things, own)) == sorted(SERVICES)
        states = {name: one["State"]["Status"] for name, one in self.things.containers(own).items()}
        assert states == dict.fromkeys(SERVICES, "running")

    def nothing_left(self, cli: Cli, stack: str = "inst") -> None:
        """Nothing on the daemon, no process, no lock, and no word of it in `status`."""
        assert self.all() == []
        interrupts.nothing_left(cli, stack=stack)
