"""The grammar that people remember from HAGrid."""

from __future__ import annotations

import pytest

from gridup.commands.launch import Launch, parse, truth
from gridup_infra import targets
from gridup_infra.errors import UsageError


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("Inst to local", Launch("Inst", None, "local", 0)),
        ("My Institution Name to local:80", Launch("My Institution Name", None, "local", 80)),
        ("Inst domain to local:8080", Launch("Inst", "domain", "local", 8080)),
        ("My Hub network to local", Launch("My Hub", "network", "local", 0)),
        ("stoic_to_from to local", Launch("stoic_to_from", None, "local", 0)),
        ("Toronto to local", Launch("Toronto", None, "local", 0)),
        ("Road to Rome to local", Launch("Road to Rome", None, "local", 0)),
        ("domain to local", Launch("domain", None, "local", 0)),
        ("domain domain to local", Launch("domain", "domain", "local", 0)),
        ("to to local", Launch("to", None, "local", 0)),
        ("all to local:65535", Launch("all", None, "local", 65535)),
    ],
)
def test_a_line_is_read_as_it_is_meant(line: str, asked: Launch) -> None:
    assert parse(line.split()) == asked


def test_words_quoted_together_are_one_name() -> None:
    assert parse(["Way to go", "to", "local"]).name == "Way to go"


def test_the_tutorials_own_line_says_whether_its_target_is_there() -> None:
    words = ["My", "Institution", "Name", "to", "docker:80"]
    if "docker" in targets.names():
        assert parse(words) == Launch("My Institution Name", None, "docker", 80)
    else:
        with pytest.raises(UsageError, match="'docker' is not there yet"):
            parse(words)


@pytest.mark.parametrize(
    "line",
    [
        "Inst",
        "Inst local",
        "to local",
        "Inst to",
        "to",
        "Inst to local now",
        "Inst TO local",
        "Inst to local to",
    ],
)
def test_a_line_of_another_form_is_refused_with_the_form(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    assert "launch NAME... [domain|network] to TARGET[:PORT]" in caught.value.suggestion


@pytest.mark.parametrize(
    "where", ["local:0", "local:65536", "local:http", "local:-1", "local:80:90", "local:8 0"]
)
def test_a_port_that_is_none_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match="a port is a number from 1 to 65535"):
        parse(["Inst", "to", where])


@pytest.mark.parametrize("where", ["moon", ":80", "Local"])
def test_an_unknown_target_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match="is unknown"):
        parse(["Inst", "to", where])


def test_the_truth_in_hagrids_words() -> None:
    assert [truth("--tail", text) for text in ("true", "True", "yes", "1")] == [True] * 4
    assert [truth("--tail", text) for text in ("false", "FALSE", "no", "0")] == [False] * 4
    with pytest.raises(UsageError, match="--tail=maybe: it is true or false"):
        truth("--tail", "maybe")
