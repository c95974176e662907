"""What any process of this machine, or of one that it has booted, was started with."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

EVERY_SECONDS = 0.1


class Argvs:
    """Looks all the time: `with Argvs() as seen: ...; seen.lines`."""

    def __init__(self) -> None:
        self.lines: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="argvs", daemon=True)

    def __enter__(self) -> Argvs:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                # Many end meanwhile.
                with contextlib.suppress(OSError):
                    self.lines.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
