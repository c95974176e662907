"""`gridup` in a process of its own, over the fake engine: for what only a process shows, as its streams."""

from __future__ import annotations

from gridup.__main__ import main
from gridup.session import Session
from gridup.settings import Settings
from support.fake_engine import FakeEngine

if __name__ == "__main__":
    Session.engine = lambda _session, _reporter, _wait=0: FakeEngine(Settings.load())  # type: ignore[assignment, method-assign]
    main()
