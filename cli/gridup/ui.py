"""The one object that owns the terminal: colour, tables, progress, prompts.

Results go to standard output, everything else to standard error. In a pipe there is no escape
code, no spinner and no line broken; with --json standard output holds JSON and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
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
    "refresh": ("looking at", "looked at"),
    "read": ("reading", "read"),
    "replace": ("replacing", "replaced"),
    "create-replacement": ("replacing", "replaced"),
    "delete-replaced": ("deleting the old", "deleted the old"),
}


@dataclass
class Ui:
    """What a command shows and asks.

    Attributes:
        json: only JSON on standard output.
        quiet: no progress.
        verbose: more progress.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False

    @property
    def interactive(self) -> bool:
        """Whether there is a person to ask."""
        return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()

    def result(self, data: Any, show: Callable[[], None]) -> None:
        """The result of a command: `data` as JSON, or what `show` prints for people."""
        if self.json:
            sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        else:
            show()

    def line(self, text: str = "") -> None:
        """A line of the result."""
        sys.stdout.write(text + "\n")

    def say(self, text: str) -> None:
        """A line of progress."""
        if not self.quiet:
            self._tell(text)

    def warn(self, text: str) -> None:
        """A line that should not be missed, even with --quiet."""
        self._tell(f"Warning: {text}")

    def error(self, error: GridupError) -> None:
        """What went wrong and what to do next."""
        self._tell(f"Error: {error.message}")
        for detail in error.details:
            self._tell(f"  | {detail}")
        if error.suggestion:
            self._tell(error.suggestion)

    @staticmethod
    def _tell(text: str) -> None:
        # Where both streams end in one file, what was shown before must stand before.
        sys.stdout.flush()
        sys.stderr.write(text + "\n")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table on standard output. No cell is ever cut or broken: a URL can be copied."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.HEAVY_HEAD)
        for title in head:
            # Text: a name is no markup, whatever brackets stand in it.
            table.add_column(Text(title), no_wrap=True, overflow="ignore")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console = Console(
            file=sys.stdout, width=10_000, highlight=False, emoji=False, **_terminal(sys.stdout)
        )
        with console.capture() as capture:
            console.print(table)
        # The console was as wide as the longest line needs; what pads it is not the table's.
        for text in capture.get().splitlines():
            self.line(text.rstrip())

    def confirm(self, question: str, *, yes: bool, flag: str = "--yes", about: Sequence[str] = ()) -> None:
        """Go on only when the person says so; the default is No.

        Args:
            about: lines that who answers must have read, even with --quiet.

        Raises:
            UsageError: there is nobody to ask and the flag was not given.
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
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().casefold() not in ("y", "yes"):
            raise DeclinedError("Nothing was done.")

    def ask(self, question: str, flag: str) -> str:
        """A line of text from the person.

        Raises:
            UsageError: there is nobody to ask; names the flag.
        """
        if not self.interactive:
            raise UsageError(f"{flag} is missing.", f'For example {flag} "Inst".')
        sys.stderr.write(f"{question}: ")
        sys.stderr.flush()
        return sys.stdin.readline().strip()

    @contextmanager
    def progress(self) -> Iterator[Reporter]:
        """A reporter for long work: live on a terminal, plain lines elsewhere."""
        if self.quiet:
            yield _Warnings()
        elif _colour(sys.stderr) and os.environ.get("TERM") != "dumb":
            from rich.console import Console

            console = Console(file=sys.stderr, highlight=False, **_terminal(sys.stderr))
            with _Live(console) as live:
                yield live
        else:
            yield _Lines(self.verbose)


def _colour(stream: Any) -> bool:
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR")


def _terminal(stream: Any) -> dict[str, Any]:
    """How rich sees the stream: without colour there is no escape code at all, not even for bold.

    Left to itself rich would send them into a pipe where FORCE_COLOR is set, as some CI services do.
    """
    return {} if _colour(stream) else {"force_terminal": False, "color_system": None}


class _Warnings(Silent):
    """--quiet: nothing but warnings."""

    def warn(self, text: str) -> None:
        sys.stderr.write(f"Warning: {text}\n")


class _Lines:
    """Progress in a pipe or a log: a line an event, with nothing to erase."""

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
        # A package a line would fill a log; the steps themselves are worth one.
        if self._verbose or not text.startswith(("+ ", "Resolved", "Prepared", "Installed", "Bytecode")):
            self._write(f"  {resource}: {text}")

    def note(self, text: str) -> None:
        self._write(text)

    def warn(self, text: str) -> None:
        self._write(f"Warning: {text}")

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


class _Live:
    """Progress on a terminal: a line a resource, with a clock, for as long as it is worked on."""

    def __init__(self, console: Console) -> None:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = console
        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Live:
        self._progress.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._progress.stop()

    def step(self, text: str) -> None:
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()
        self._task("", text)

    def resource(self, event: ResourceEvent) -> None:
        if event.phase is Phase.STARTED:
            self._task(event.name, f"  {describe(event)}")
            return
        task = self._tasks.pop(event.name, None)
        if task is not None:
            self._progress.remove_task(task)
        if event.operation not in ("refresh", "read") or event.changed or event.phase is Phase.FAILED:
            mark = "❌" if event.phase is Phase.FAILED else "✔"
            self._console.print(f"{mark} {describe(event)}", markup=False)

    def detail(self, resource: str, text: str) -> None:
        if resource in self._tasks:
            width = max(self._console.width - 20, 20)
            self._progress.update(self._tasks[resource], description=f"  {resource}: {text}"[:width])

    def note(self, text: str) -> None:
        self._console.print(text, markup=False)

    def warn(self, text: str) -> None:
        self._console.print(f"Warning: {text}", markup=False)

    def _task(self, key: str, text: str) -> None:
        if key in self._tasks:
            self._progress.update(self._tasks[key], description=text)
        else:
            self._tasks[key] = self._progress.add_task(text, total=None)


def describe(event: ResourceEvent) -> str:
    """One operation on a resource, in words."""
    doing, done = VERBS.get(event.operation, (event.operation, event.operation))
    if event.phase is Phase.STARTED:
        return f"{event.name}: {doing}"
    if event.phase is Phase.FAILED:
        return f"{event.name}: {doing} failed"
    took = f" ({event.seconds:.1f} s)" if event.seconds >= 0.1 else ""
    why = f": {', '.join(event.changed)}" if event.changed else ""
    return f"{event.name}: {done}{took}{why}"


def plural(count: int, what: str) -> str:
    """`1 resource`, `2 resources`."""
    return f"{count} {what}{'' if count == 1 else 's'}"
