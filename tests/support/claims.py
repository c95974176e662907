"""Documents whose every sentence a test shows: what their sentences are, and which tests there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]

NO_TEST = "no test:"
"""Begins the reason why no test can show a sentence."""

_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_ITEM = re.compile(r"\s*([-*]|\d+\.)\s+")
_RULE = re.compile(r"[|:\s-]+")
_END = re.compile(r"""(?<=[.!?])[)"*]*\s+(?=["'(`*\[]*[A-Z0-9`])""")
"""Between two sentences: the next one begins with a capital, a digit or a command."""


@dataclass(frozen=True)
class Shown:
    """What shows a sentence: tests, or else the reason why none can."""

    tests: tuple[str, ...] = ()
    reason: str = ""


def sentences(text: str) -> list[str]:
    """The sentences of a document (Markdown), without its marks; a table's row is one.

    Headings, the first row of each table and blocks of code claim nothing.
    """
    return [plain(one) for block in _blocks(text) for one in _END.split(block)]


def plain(text: str) -> str:
    """Words without Markdown's marks, with one space between them."""
    return " ".join(_LINK.sub(r"\1", text).replace("`", "").replace("*", "").split())


def _blocks(text: str) -> Iterator[str]:
    """The paragraphs, items of lists, and rows of tables."""
    lines: list[str] = []
    fenced, row = False, 0
    for line in [*text.splitlines(), ""]:
        if line.startswith("```"):
            fenced = not fenced
            continue
        begins = _ITEM.match(line)
        row = row + 1 if line.startswith("|") else 0
        code = line.startswith("    ") and not lines
        if lines and (not line.strip() or begins or row or line.startswith("#")):
            yield " ".join(lines)
            lines = []
        if fenced or code or not line.strip() or line.startswith("#"):
            continue
        if row:
            # Of each table the first row says what is in the columns.
            if row > 1 and not _RULE.fullmatch(line):
                yield ": ".join(cell.strip() for cell in line.strip("| ").split(" | "))
            continue
        lines.append(line[begins.end() :] if begins else line.strip())


def read(text: str) -> dict[str, Shown]:
    """What shows each sentence, by the sentence.

    Args:
        text: of blocks: a sentence, over as many lines as it needs; below it, indented, a test in each line,
            or `no test:` and the reason.

    Raises:
        ValueError: a block has no sentence, nothing that shows it, or is there twice.
    """
    found: dict[str, Shown] = {}
    words: list[str] = []
    told: list[str] = []

    def keep() -> None:
        sentence = plain(" ".join(words))
        if words or told:
            if not words or not told or sentence in found:
                raise ValueError(f"a sentence, and below it what shows it, once: {sentence or told}")
            found[sentence] = _shown(told)
        words.clear()
        told.clear()

    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith(" "):
            told.append(line.strip())
            continue
        if told:
            keep()
        words.append(line)
    keep()
    return found


def _shown(told: Iterable[str]) -> Shown:
    tests: list[str] = []
    reason: list[str] = []
    for line in told:
        (reason if reason or line.startswith(NO_TEST) else tests).append(line)
    return Shown(tuple(tests), " ".join(reason).removeprefix(NO_TEST).strip())


def names_of_tests(folder: Path = TESTS) -> frozenset[str]:
    """The names of all tests, as `folder/test_file.py::test_name`, without parameters."""
    found: set[str] = set()
    for path in folder.rglob("test_*.py"):
        where = path.relative_to(folder).as_posix()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            found.update(f"{where}::{name}" for name in _named(node))
    return frozenset(found)


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
        yield node.name
    if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
        for inner in node.body:
            yield from (f"{node.name}::{name}" for name in _named(inner))
