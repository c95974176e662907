"""Waiting for a node: until all of it is up, not a moment longer than was allowed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace

import pytest

from gridup.probes import Endpoint, ProbeResult, ProbeState, all_up, endpoints_for_host, wait_for
from gridup_node.services import ProbeKind
from support import http_rig as rig

pytestmark = pytest.mark.timeout(60)

UP, DOWN, TIMEOUT = ProbeState.UP, ProbeState.DOWN, ProbeState.TIMEOUT

HOST = Endpoint("proxy", "host", "h", ProbeKind.ANY, "h", 80)
UI = Endpoint("ui", "UI", "http://h/login", ProbeKind.LOGIN_PAGE, "h", 80)
SSH = Endpoint("ssh", "ssh", "h:22", ProbeKind.SSH_BANNER, "h", 22)
ABSENT = replace(SSH, offered=False, reason="none")


@dataclass
class World:
    """A clock that only sleeping and probing move, and services that change state at set times."""

    changes: dict[str, list[tuple[float, ProbeState]]]
    cost: float = 0.01
    now: float = 0.0
    rounds: list[tuple[float, float, tuple[str, ...]]] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds

    def state(self, endpoint: Endpoint) -> ProbeState:
        past = [state for when, state in self.changes[endpoint.service] if when <= self.now]
        return past[-1]

    def probe(self, endpoints, timeout):
        assert timeout > 0
        self.rounds.append((self.now, timeout, tuple(e.service for e in endpoints)))
        states = [ProbeState.NOT_OFFERED if not e.offered else self.state(e) for e in endpoints]
        self.now += timeout if TIMEOUT in states else self.cost
        return [ProbeResult(e, s) for e, s in zip(endpoints, states, strict=True)]

    def wait(self, endpoints, timeout, **more):
        more = {"clock": lambda: self.now, "sleep": self.sleep, "jitter": lambda: 0.5, **more}
        return wait_for(endpoints, timeout, probe=self.probe, **more)


def test_a_node_that_is_up_costs_one_round():
    world = World({"ui": [(0, UP)], "ssh": [(0, UP)]})
    assert all_up(world.wait([UI, SSH], 60))
    assert len(world.rounds) == 1


def test_what_is_proven_is_left_in_peace_and_the_report_is_one_last_round_of_all():
    world = World({"ui": [(0, DOWN), (5, UP)], "ssh": [(0, UP)]})
    results = world.wait([UI, SSH], 60)
    assert all_up(results)
    asked_for_ssh = [services for _, _, services in world.rounds if "ssh" in services]
    assert len(asked_for_ssh) == 2
    assert world.rounds[-1][2] == ("ui", "ssh")
    assert len(world.rounds) > 10


def test_what_falls_over_again_is_seen_and_waited_for():
    world = World({"ui": [(0, DOWN), (5, UP)], "ssh": [(0, UP), (3, DOWN), (9, UP)]})
    assert all_up(world.wait([UI, SSH], 60))
    assert world.now >= 9


def test_the_host_row_follows_from_the_others_in_every_round():
    world = World({"ui": [(0, DOWN), (2, UP)], "ssh": [(0, DOWN), (4, UP)], "proxy": [(0, DOWN), (4, UP)]})
    seen = []
    world.wait([HOST, UI, SSH], 60, on_round=lambda results: seen.append([r.state for r in results]))
    assert [UP, UP, DOWN] in seen, "up as soon as one service is"
    assert seen[-1] == [UP, UP, UP]
    assert all("proxy" not in services for _, _, services in world.rounds[1:-1])


@pytest.mark.parametrize("seconds", [3, 20, 100, 500])
def test_the_pauses_grow_but_overshoot_little(seconds):
    world = World({"ui": [(0, DOWN), (seconds, UP)]})
    world.wait([UI], 10_000)
    assert seconds <= world.now <= seconds * 1.06 + 0.3
    assert len(world.rounds) < 250


def test_pauses_are_jittered():
    ends = set()
    for jitter in (0.0, 0.5, 1.0):
        world = World({"ui": [(0, DOWN), (3, UP)]})
        world.wait([UI], 60, jitter=lambda jitter=jitter: jitter)
        ends.add(round(world.rounds[1][0], 3))
    assert len(ends) == 3


@pytest.mark.parametrize("state", [DOWN, TIMEOUT])
@pytest.mark.parametrize("timeout", [0, 0.3, 5, 60, 301.7])
@pytest.mark.parametrize("probe_timeout", [0.5, 5, 30])
def test_the_wait_ends_after_its_time_and_soon_after(state, timeout, probe_timeout):
    world = World({"ui": [(0, state)], "ssh": [(0, UP)]})
    results = world.wait([UI, SSH, ABSENT], timeout, probe_timeout=probe_timeout)
    assert timeout <= world.now <= timeout + 2.1
    assert [r.state for r in results] == [state, UP, ProbeState.NOT_OFFERED]
    assert set(world.rounds[-1][2]) >= {"ui", "ssh"}, "the last round looked at all"


def test_a_round_near_the_end_has_time_enough_to_be_believed():
    world = World({"ui": [(0, TIMEOUT)]})
    world.wait([UI], 5, probe_timeout=3)
    assert all(timeout >= 0.5 for _, timeout, _ in world.rounds)


def test_the_wait_stops_early_with_what_is_known():
    world = World({"ui": [(0, DOWN)], "ssh": [(0, UP)]})
    results = world.wait([UI, SSH], 60, stop_early=lambda: "the api died" if world.now > 3 else None)
    assert world.now < 4
    assert [r.state for r in results] == [DOWN, UP]


def test_what_is_closed_to_us_is_not_waited_for():
    world = World({"ui": [(0, DOWN), (3, UP)], "ssh": [(0, ProbeState.RESTRICTED)]})
    results = world.wait([UI, SSH], 60)
    assert [r.state for r in results] == [UP, ProbeState.RESTRICTED]
    assert world.now < 4


# With real sockets and the real clock (case G03): each ends by itself, see the limit of this file.


@pytest.mark.parametrize("several", [False, True])
def test_a_wait_for_nothing_ends_by_itself(several):
    endpoints = endpoints_for_host(f"127.0.0.1:{rig.free_port()}")[1:3]
    results = wait_for(endpoints if several else endpoints[:1], 1)
    assert {(r.state, r.detail) for r in results} == {(DOWN, "connection refused")}


def test_a_wait_for_a_silent_server_ends_by_itself():
    with rig.serve(rig.silent) as server:
        results = wait_for(endpoints_for_host(f"127.0.0.1:{server.port}")[1:3], 1, probe_timeout=600)
    assert {r.state for r in results} == {TIMEOUT}


def test_a_service_that_comes_up_later_is_a_success():
    port, over = rig.free_port(), threading.Event()

    def later():
        time.sleep(1)
        with rig.serve(rig.node(), port=port):
            over.wait(30)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        results = wait_for(endpoints_for_host(f"127.0.0.1:{port}")[1:3], 600)
    finally:
        over.set()
        thread.join()
    assert all_up(results)
