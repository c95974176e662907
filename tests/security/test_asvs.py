"""docs/asvs.md has each requirement of the ASVS, and names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

from support.claims import names_of_tests

DOCS = Path(__file__).parents[2] / "docs"
ROW = re.compile(r"\| (?P<id>[\d.]+\*?) \| (?P<level>[12, ]+) \| (?P<asked>[^|]+) \| (?P<shown>[^|]+) \|")
REASONS = ("Does not apply: ", "Not met: ", "Said in ")

SECTIONS = {
    "1.1": "1-2",
    "1.2": "1-9",
    "1.3": "1-11",
    "1.4": "1-3",
    "1.5": "1-2",
    "2.1": "1-3",
    "2.2": "1-3",
    "2.3": "1-4",
    "2.4": "1",
    "3.2": "1-2",
    "3.3": "1-4",
    "3.4": "1-6",
    "3.5": "1-5",
    "3.7": "1-2",
    "4.1": "1-3",
    "4.2": "1",
    "4.3": "1-2",
    "4.4": "1-4",
    "5.1": "1",
    "5.2": "1-3",
    "5.3": "1-2",
    "5.4": "1-3",
    "6.1": "1-3",
    "6.2": "1-12",
    "6.3": "1-4",
    "6.4": "1-4",
    "6.5": "1-5",
    "6.6": "1-3",
    "6.8": "1-4",
    "7.1": "1-3",
    "7.2": "1-4",
    "7.3": "1-2",
    "7.4": "1-5",
    "7.5": "1-2",
    "7.6": "1-2",
    "8.1": "1-2",
    "8.2": "1-3",
    "8.3": "1",
    "8.4": "1",
    "9.1": "1-3",
    "9.2": "1-4",
    "10.1": "1-2",
    "10.2": "1-2",
    "10.3": "1-4",
    "10.4": "1-11",
    "10.5": "1-5",
    "10.6": "1-2",
    "10.7": "1-3",
    "11.1": "1-2",
    "11.2": "1-3",
    "11.3": "1-3",
    "11.4": "1-4",
    "11.5": "1",
    "11.6": "1",
    "12.1": "1-3",
    "12.2": "1-2",
    "12.3": "1-4",
    "13.1": "1",
    "13.2": "1-5",
    "13.3": "1-2",
    "13.4": "1-5",
    "14.1": "1-2",
    "14.2": "1-4",
    "14.3": "1-3",
    "15.1": "1-3",
    "15.2": "1-3",
    "15.3": "1-7",
    "16.1": "1",
    "16.2": "1-5",
    "16.3": "1-4",
    "16.4": "1-3",
    "16.5": "1-3",
    "17.1": "1",
    "17.2": "1-4",
    "17.3": "1-2",
}
"""The requirements of levels 1 and 2 of version 5.0.0, by section."""


def requirements() -> list[str]:
    found = []
    for section, ranges in SECTIONS.items():
        for part in ranges.split():
            first, _, last = part.partition("-")
            found += [f"{section}.{number}" for number in range(int(first), int(last or first) + 1)]
    return found


def rows() -> list[re.Match[str]]:
    lines = (DOCS / "asvs.md").read_text(encoding="utf-8").splitlines()
    told = [line for line in lines if re.match(r"\| \d", line)]
    found = [match for line in told if (match := ROW.fullmatch(line))]
    assert len(found) == len(told)
    return found


def test_every_requirement_of_levels_one_and_two_is_there_once() -> None:
    left = requirements()
    assert len(left) == 253
    for row in rows():
        here = row["id"]
        told = [one for one in left if one == here or (here.endswith("*") and one.startswith(here[:-1]))]
        assert told, f"{here} is none of theirs, or there twice"
        left = [one for one in left if one not in told]
    assert left == []


def test_each_row_names_tests_that_are_there_or_says_why_it_names_none() -> None:
    tests = names_of_tests()
    for row in rows():
        named = [name for name in re.findall(r"`([^`]+)`", row["shown"]) if "::" in name]
        assert [name for name in named if name not in tests] == [], row["id"]
        if row["shown"].startswith("`"):
            assert named, row["id"]
        else:
            assert row["shown"].startswith(REASONS) and len(row["shown"]) > 20, row["id"]


def test_where_it_is_said_is_there() -> None:
    for row in rows():
        links = re.findall(r"\]\(([\w.]+)(?:#([\w-]+))?\)", row["shown"])
        assert links or not row["shown"].startswith("Said in "), row["id"]
        for file, anchor in links:
            titles = re.findall(r"^#+ (.+)$", (DOCS / file).read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert not anchor or anchor in anchors, row["id"]
