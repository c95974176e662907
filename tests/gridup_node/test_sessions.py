"""Sessions, form tokens and the wait of those who guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gridup_node import durable
from gridup_node.account import Account
from gridup_node.guard.remembered import MOST_OF_ACCOUNT, REMEMBERED_SECONDS, WRITTEN_SECONDS, Remembered
from gridup_node.guard.throttle import (
    FREE_TRIES,
    FREE_TRIES_OF_CALLER,
    LONGEST_WAIT,
    MOST_ENTRIES,
    NEWCOMERS_A_SECOND,
    TRIES_A_SECOND,
    TRIES_OF_ACCOUNT,
    TRIES_OF_NETWORK,
    Throttle,
)
from gridup_node.portal.sessions import IDLE_SECONDS, LIFE_SECONDS, Sessions, form_token, is_ours

ACCOUNT = Account(server=None, key=None)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_session_ends_when_unused_when_old_and_when_ended() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    unused, used = sessions.begin(ACCOUNT), sessions.begin(ACCOUNT)
    for _ in range(int(LIFE_SECONDS / IDLE_SECONDS * 2) - 1):
        clock.now += IDLE_SECONDS / 2
        assert sessions.find(used) is not None
    assert sessions.find(unused) is None
    clock.now += IDLE_SECONDS
    assert sessions.find(used) is None
    ended = sessions.begin(ACCOUNT)
    sessions.end(ended)
    assert sessions.find(ended) is None
    assert sessions.find("") is None
    assert len(sessions) == 0


def test_the_number_of_sessions_is_bounded_and_the_one_unused_longest_goes() -> None:
    clock = Clock()
    sessions = Sessions(clock, most=3)
    first, second, third = (sessions.begin(ACCOUNT) for _ in range(3))
    clock.now += 1
    assert sessions.find(first)
    assert sessions.find(third)
    sessions.begin(ACCOUNT)
    assert len(sessions) == 3
    assert sessions.find(second) is None


def test_only_our_token_for_this_browser_is_accepted() -> None:
    token = form_token(b"key", "cookie")
    assert is_ours(b"key", "cookie", token)
    for key, cookie, given in (
        (b"other", "cookie", token),
        (b"key", "other", token),
        (b"key", "cookie", "é"),
    ):
        assert not is_ours(key, cookie, given)
    assert not is_ours(b"key", "", form_token(b"key", ""))


def _failures(throttle: Any, count: int, caller: str, account: str) -> None:
    for _ in range(count):
        throttle.failed(caller, account)


def test_the_wait_doubles_is_bounded_and_is_the_callers_own() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    _failures(throttle, FREE_TRIES - 1, "1.2.3.4", "A@b.c")
    assert throttle.wait("1.2.3.4", "a@b.c") == 0
    waits = []
    for _ in range(12):
        throttle.failed("1.2.3.4", "a@b.c")
        waits.append(throttle.wait("1.2.3.4", "a@B.c"))
    assert waits == [min(2**n, LONGEST_WAIT) for n in range(12)]
    assert throttle.wait("5.6.7.8", "a@b.c") == 0
    clock.now += LONGEST_WAIT
    assert throttle.wait("1.2.3.4", "a@b.c") == 0
    throttle.succeeded("1.2.3.4", "a@b.c")
    throttle.failed("1.2.3.4", "a@b.c")
    assert throttle.wait("1.2.3.4", "a@b.c") == 0


def test_an_office_behind_one_address_may_sign_in_as_often_as_it_likes() -> None:
    throttle = Throttle(Clock())
    for number in range(FREE_TRIES_OF_CALLER * 3):
        account = f"{number}@b.c"
        assert throttle.wait("1.2.3.4", account) == 0
        throttle.failed("1.2.3.4", account)
        throttle.succeeded("1.2.3.4", account)


def test_many_accounts_tried_by_one_caller_are_slowed_too_and_memory_is_bounded() -> None:
    throttle = Throttle(Clock())
    for number in range(FREE_TRIES_OF_CALLER):
        throttle.failed("1.2.3.4", f"{number}@b.c")
    assert throttle.wait("1.2.3.4", "new@b.c") > 0
    for number in range(MOST_ENTRIES * 2):
        throttle.failed(f"caller {number}", "a@b.c")
    assert len(throttle._tries) <= MOST_ENTRIES


def _attacked(throttle: Throttle, clock: Clock, seconds: int, networks: int) -> int:
    """Each second 10 of 10,000 addresses guess at one account; how many of them were let try."""
    tried = 0
    for number in range(seconds * 10):
        host = number % 10_000
        caller = f"10.{host % networks}.{host // 250}.{host % 250}"
        if not throttle.wait(caller, "ada@b.c"):
            throttle.failed(caller, "ada@b.c")
            tried += 1
        clock.now += 0.1
    return tried


def test_all_strangers_together_have_few_tries_of_one_account_however_many_addresses_they_have() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    tried = _attacked(throttle, clock, 1200, networks=250)
    most = 2 * TRIES_OF_ACCOUNT + 1200 * (TRIES_A_SECOND + NEWCOMERS_A_SECOND)
    assert TRIES_OF_ACCOUNT < tried <= most + 1
    # Those at other accounts are not slowed.
    assert throttle.wait("10.1.1.1", "bob@b.c") == 0


def test_no_attack_keeps_out_who_has_signed_in_before_or_comes_from_another_network() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    throttle.failed("192.0.2.1", "ada@b.c")
    throttle.succeeded("192.0.2.1", "ada@b.c")
    _attacked(throttle, clock, 300, networks=20)
    assert throttle.wait("10.1.250.1", "Ada@b.c") > 0
    # The address, a device, and an address that nobody knows.
    assert throttle.wait("192.0.2.1", "ada@b.c") == throttle.wait("device", "ada@b.c", known=True) == 0
    for _ in range(TRIES_OF_NETWORK):
        assert throttle.wait("198.51.100.1", "ada@b.c") == throttle.wait("2001:db8::", "ada@b.c") == 0
        throttle.failed("198.51.100.1", "ada@b.c")
        throttle.failed("2001:db8::", "ada@b.c")
    assert throttle.wait("198.51.100.2", "ada@b.c") > 0
    # Who is no stranger takes nothing from who is one.
    left = throttle.wait("203.0.113.1", "ada@b.c")
    for _ in range(TRIES_OF_ACCOUNT * 2):
        throttle.failed("device", "ada@b.c", known=True)
        throttle.failed("192.0.2.1", "ada@b.c")
    assert throttle.wait("203.0.113.1", "ada@b.c") == left == 0


def test_after_an_attack_the_account_is_as_before() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    _attacked(throttle, clock, 60, networks=1)
    assert throttle.wait("10.0.200.200", "ada@b.c") > 0
    clock.now += 60
    assert throttle.wait("10.0.200.200", "ada@b.c") == 0


class TestRemembered:
    def test_who_has_signed_in_is_no_stranger_after_a_restart(self, tmp_path: Path) -> None:
        clock, file = Clock(), tmp_path / "signed_in.json"
        throttle = Throttle(clock, Remembered(file, b"key", clock))
        throttle.failed("192.0.2.1", "Ada@b.c")
        throttle.succeeded("192.0.2.1", "Ada@b.c")
        again = Throttle(clock, Remembered(file, b"key", clock))
        _attacked(again, clock, 60, networks=20)
        assert again.wait("10.0.200.200", "ada@b.c") > 0
        assert again.remembers("192.0.2.1", "ada@b.c") and again.wait("192.0.2.1", "ada@b.c") == 0
        assert not again.remembers("192.0.2.1", "bob@b.c") and not again.remembers("192.0.2.2", "ada@b.c")
        # It is for nobody else to read, and tells nobody who it was.
        assert file.stat().st_mode & 0o777 == 0o600
        assert set(file.read_text()) <= set('{}": ,0123456789abcdef')
        assert not Remembered(file, b"another key", clock).has("192.0.2.1", "ada@b.c")
        clock.now += REMEMBERED_SECONDS
        assert not Remembered(file, b"key", clock).has("192.0.2.1", "ada@b.c")

    def test_who_signs_in_from_everywhere_has_nobody_else_forgotten(self, tmp_path: Path) -> None:
        clock, file = Clock(), tmp_path / "signed_in.json"
        remembered = Remembered(file, b"key", clock)
        remembered.add("192.0.2.1", "ada@b.c")
        for number in range(MOST_OF_ACCOUNT * 2):
            clock.now += 1
            remembered.add(f"10.0.0.{number}", "eve@b.c")
        for found in (remembered, Remembered(file, b"key", clock)):
            assert found.has("192.0.2.1", "ada@b.c")
            kept = [
                number for number in range(MOST_OF_ACCOUNT * 2) if found.has(f"10.0.0.{number}", "eve@b.c")
            ]
            assert kept == list(range(MOST_OF_ACCOUNT, MOST_OF_ACCOUNT * 2))

    def test_it_is_written_once_a_day_for_each_and_an_error_loses_nothing_yet(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock, written = Clock(), 0

        def write(*_: Any) -> None:
            nonlocal written
            written += 1
            raise OSError("No space left on device")

        monkeypatch.setattr(durable, "write", write)
        remembered = Remembered(tmp_path / "signed_in.json", b"key", clock)
        for _ in range(3):
            remembered.add("192.0.2.1", "ada@b.c")
        assert written == 1 and remembered.has("192.0.2.1", "ada@b.c")
        assert "No space left on device" in caplog.text
        clock.now += WRITTEN_SECONDS
        remembered.add("192.0.2.1", "ada@b.c")
        assert written == 2

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"a": "b"}', '{"a": 1}', '{"a": null}', "\xff"])
    def test_a_file_that_is_not_ours_counts_as_empty(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "signed_in.json"
        file.write_bytes(text.encode("latin-1"))
        remembered = Remembered(file, b"key", Clock())
        assert not remembered.has("192.0.2.1", "ada@b.c")
        remembered.add("192.0.2.1", "ada@b.c")
        assert Remembered(file, b"key", Clock()).has("192.0.2.1", "ada@b.c")
