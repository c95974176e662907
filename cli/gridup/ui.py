"""`Ui`, the one object that owns the terminal: colour, tables, progress, prompts.

Results go to standard output, everything else goes to standard error. In a pipe there are no escape codes and
no spinner, and no line is broken. With --json standard output has only JSON.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gridup.reporter import Phase, Reporter, ResourceEvent, Silent
from gridup_infra.errors import DeclinedError, GridupError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

VERBS = {
    "create": ("creating", "created"),
    "update": ("changing", "changed"),
    "delete": ("deleting", "deleted"),
    "keep": ("keeping", "kept"),
    "refresh": ("looking at", "looked at"),
    "read": ("reading", "read"),
    "replace": ("replacing", "replaced"),
    "create-replacement": ("replacing", "replaced"),
    "delete-replaced": ("deleting the old", "deleted the old"),
}


MOVING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)
"""Characters that control a terminal or hide text: control characters except newline and tab, characters that
change the direction of text, and invisible ones."""


def still(text: str) -> str:
    """Escape the characters of `MOVING`: untrusted text, such as a log, must not control the terminal."""
    return MOVING.sub(
        lambda found: f"\\x{ord(found[0]):02x}" if found[0] < "\x9f" else f"\\u{ord(found[0]):04x}", text
    )


@dataclass
class Ui:
    """The terminal: output and prompts of a command.

    Attributes:
        json: whether standard output has only JSON.
        quiet: whether to show no progress.
        verbose: whether to show more progress.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False

    @property
    def interactive(self) -> bool:
        """Whether there is a terminal, and so a user to ask."""
        return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()

    def result(self, data: Any, show: Callable[[], None]) -> None:
        """Print the result of a command: `data` as JSON with --json, else by calling `show`."""
        if self.json:
            text = json.dumps(data, indent=2, ensure_ascii=False)
            # In JSON an escape stands for the character itself: the reader gets the original text.
            sys.stdout.write(MOVING.sub(lambda found: json.dumps(found[0])[1:-1], text) + "\n")
        else:
            show()

    def line(self, text: str = "") -> None:
        """Print a line of the result."""
        sys.stdout.write(still(text) + "\n")

    def say(self, text: str) -> None:
        """Print a line of progress; not with --quiet."""
        if not self.quiet:
            self._tell(text)

    def warn(self, text: str) -> None:
        """Print a warning, even with --quiet."""
        self._tell(f"Warning: {text}")

    def error(self, error: GridupError) -> None:
        """Print an error: what went wrong and what to do next."""
        self._tell(f"Error: {error.message}")
        for detail in error.details:
            self._tell(f"  | {detail}")
        if error.suggestion:
            self._tell(error.suggestion)

    @staticmethod
    def _tell(text: str) -> None:
        # If both streams go to one file, this keeps the order of their lines.
        sys.stdout.flush()
        sys.stderr.write(still(text) + "\n")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table on standard output. Words are never cut or broken, so that users can copy a URL.

        On a terminal the table fits the width: cells wrap between words. If that is not enough, each row
        becomes several lines. In a pipe no line is broken.
        """
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        lines = [[still(cell) for cell in row] for row in (head, *rows)]
        width = _width(sys.stdout)
        least = [max(map(_longest_word, cells)) for cells in zip(*lines, strict=True)]
        if width is not None and sum(least) + FRAME * len(least) + 1 > width:
            self._stacked(lines, width)
            return
        columns = _fitted(lines, least, width)
        table = Table(box=box.HEAVY_HEAD)
        for title, wide in zip(lines[0], columns, strict=True):
            # `Text` prevents that rich reads brackets in a name as markup.
            table.add_column(Text(title), width=wide, no_wrap=width is None, overflow="fold")
        for row in lines[1:]:
            table.add_row(*map(Text, row))
        console = Console(
            file=sys.stdout, width=width or 10_000, highlight=False, emoji=False, **_terminal(sys.stdout)
        )
        with console.capture() as capture:
            console.print(table)
        # The console pads each line with spaces: remove them.
        for text in capture.get().splitlines():
            sys.stdout.write(text.rstrip() + "\n")

    def _stacked(self, lines: Sequence[Sequence[str]], width: int) -> None:
        head, *rows = lines
        if title := head[0] or head[1]:
            self._wrapped(title, "", width)
        for row in rows:
            # The name of the row comes first, after its mark. The column of a mark has no title.
            names = 1 if head[0] else 2
            marks = [cell for title, cell in zip(head, row, strict=True) if not title and len(cell) <= 2]
            self._wrapped(" ".join([*marks, row[names - 1]]), "", width)
            for title, cell in list(zip(head, row, strict=True))[names:]:
                if cell and cell not in marks:
                    self._wrapped(f"{title}: {cell}" if title else cell, "  ", width)

    def _wrapped(self, text: str, indent: str, width: int) -> None:
        import textwrap

        more = indent + "  "
        for line in textwrap.wrap(
            text,
            width,
            initial_indent=indent,
            subsequent_indent=more,
            break_long_words=False,
            break_on_hyphens=False,
        ):
            self.line(line)

    def confirm(self, question: str, *, yes: bool, flag: str = "--yes", about: Sequence[str] = ()) -> None:
        """Ask the user to confirm; the default is No.

        Args:
            yes: whether the flag was given: then don't ask.
            flag: the option that replaces the answer, for messages.
            about: lines to show before the question, even with --quiet.

        Raises:
            UsageError: there is no terminal to ask and the flag was not given.
            DeclinedError: the answer was not yes.
        """
        if yes:
            for line in about:
                self.say(line)
            return
        if not self.interactive:
            raise UsageError(
                f"{question.splitlines()[0]} There is no terminal to ask.",
                f"Give {flag} to go on.",
                tuple(about),
            )
        for line in about:
            self._tell(line)
        sys.stderr.write(f"{still(question)} [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().casefold() not in ("y", "yes"):
            raise DeclinedError("Nothing was done.")

    def ask(self, question: str, flag: str) -> str:
        """Ask the user for a line of text.

        Args:
            flag: the option that replaces the answer, for the message.

        Raises:
            UsageError: there is no terminal to ask.
        """
        answer = self.ask_for(question)
        if answer is None:
            raise UsageError(f"{flag} is missing.", f'For example {flag} "Inst".')
        return answer

    def ask_for(self, what: str) -> str | None:
        """Ask the user for a line of text. Returns None if there is no terminal to ask."""
        if not self.interactive:
            return None
        sys.stderr.write(f"{still(what)}: ")
        sys.stderr.flush()
        return sys.stdin.readline().strip()

    @contextmanager
    def progress(self) -> Iterator[Reporter]:
        """Provide a reporter for long work: with live output on a terminal, with plain lines elsewhere."""
        if self.quiet:
            yield _Warnings()
        elif _colour(sys.stderr) and os.environ.get("TERM") != "dumb":
            from rich.console import Console

            console = Console(file=sys.stderr, highlight=False, **_terminal(sys.stderr))
            with _Live(console) as live:
                yield live
        else:
            yield _Lines(self.verbose)


FRAME = 3
"""Width of a table's frame for each column, in characters."""


def _width(stream: Any) -> int | None:
    """Return the width of the terminal; None if the stream is not a terminal."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def _fitted(lines: Sequence[Sequence[str]], least: Sequence[int], width: int | None) -> list[int]:
    """Return the width of each column: that of its longest cell, or less if needed, but at least `least`."""
    from rich.cells import cell_len

    columns = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    room = (width or 10_000) - FRAME * len(columns) - 1
    while sum(columns) > room and any(wide > small for wide, small in zip(columns, least, strict=True)):
        # Take one character from the widest column that can still shrink.
        at = max(range(len(columns)), key=lambda i: (columns[i] > least[i], columns[i]))
        columns[at] -= 1
    return columns


def _longest_word(text: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, text.split()), default=0)


def _colour(stream: Any) -> bool:
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR")


def _terminal(stream: Any) -> dict[str, Any]:
    """Return rich's options for the stream. Without colour there are no escape codes, not even for bold.

    Without these options rich writes escape codes into a pipe if FORCE_COLOR is set. Some CI services set it.
    """
    return {} if _colour(stream) else {"force_terminal": False, "color_system": None}


class _Warnings(Silent):
    """The reporter for --quiet: shows only warnings."""

    def warn(self, text: str) -> None:
        sys.stderr.write(f"Warning: {still(text)}\n")


class _Lines:
    """The reporter for a pipe or a log: one line for each event, and nothing is erased."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._last: dict[str, str] = {}

    def step(self, text: str) -> None:
        self._write(text)

    def resource(self, event: ResourceEvent) -> None:
        quiet = event.operation in ("refresh", "read") and not event.changed
        if quiet and event.phase is not Phase.FAILED and not self._verbose:
            return
        self._write(f"  {describe(event)}")

    def detail(self, resource: str, text: str) -> None:
        # uv prints a line for each package, which would fill a log. The steps themselves are shown.
        if self._verbose or not text.startswith(("+ ", "Resolved", "Prepared", "Installed", "Bytecode")):
            self._write(f"  {resource}: {text}")

    def note(self, text: str) -> None:
        self._write(text)

    def warn(self, text: str) -> None:
        self._write(f"Warning: {text}")

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(still(text) + "\n")
        sys.stderr.flush()


FRAME_SECONDS = 0.1
"""Seconds between two updates of the live output."""


class _Live:
    """The reporter for a terminal: one line with a clock for each resource that the engine works on.

    The lock `_turn` lets one thread at a time write to the terminal. rich's own refresh thread does not wait
    for such a lock: it would count lines that are not written yet, and erase the lines above instead.
    """

    def __init__(self, console: Console) -> None:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = console
        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            auto_refresh=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._turn = threading.RLock()
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True, name="progress")

    def __enter__(self) -> _Live:
        self._progress.start()
        self._clock.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._clock.join()
        self._progress.stop()

    def _tick(self) -> None:
        while not self._over.wait(FRAME_SECONDS):
            with self._turn:
                self._progress.refresh()

    def step(self, text: str) -> None:
        with self._turn:
            for task in self._tasks.values():
                self._progress.remove_task(task)
            self._tasks.clear()
            self._task("", text)

    def resource(self, event: ResourceEvent) -> None:
        with self._turn:
            self._resource(event)

    def _resource(self, event: ResourceEvent) -> None:
        if event.phase is Phase.STARTED:
            self._task(event.name, f"  {describe(event)}")
            return
        task = self._tasks.pop(event.name, None)
        if task is not None:
            self._progress.remove_task(task)
        if event.operation not in ("refresh", "read") or event.changed or event.phase is Phase.FAILED:
            mark = "❌" if event.phase is Phase.FAILED else "✔"
            self.note(f"{mark} {describe(event)}")

    def detail(self, resource: str, text: str) -> None:
        width = max(self._console.width - 20, 20)
        with self._turn:
            if resource in self._tasks:
                self._task(resource, f"  {resource}: {text}"[:width])

    def note(self, text: str) -> None:
        with self._turn:
            self._console.print(still(text), markup=False)

    def warn(self, text: str) -> None:
        self.note(f"Warning: {text}")

    def _task(self, key: str, text: str) -> None:
        text = still(text)
        if key in self._tasks:
            self._progress.update(self._tasks[key], description=text)
        else:
            self._tasks[key] = self._progress.add_task(text, total=None)


def describe(event: ResourceEvent) -> str:
    """Return a text for one operation on a resource."""
    doing, done = VERBS.get(event.operation, (event.operation, event.operation))
    if event.phase is Phase.STARTED:
        return f"{event.name}: {doing}"
    if event.phase is Phase.FAILED:
        return f"{event.name}: {doing} failed"
    took = f" ({event.seconds:.1f} s)" if event.seconds >= 0.1 else ""
    why = f": {', '.join(event.changed)}" if event.changed else ""
    return f"{event.name}: {done}{took}{why}"


def plural(count: int, what: str) -> str:
    """Return a count with its noun: `1 resource`, `2 resources`."""
    return f"{count} {what}{'' if count == 1 else 's'}"
