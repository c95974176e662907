"""The grammar that people remember from HAGrid."""

from __future__ import annotations

import pytest

from gridup.commands import launch
from gridup.commands.launch import Launch, parse, parse_bool
from gridup.hagrid import NEEDLESS, REFUSED, RENAMED, SWITCHES, translated
from gridup_infra import targets
from gridup_infra.errors import UsageError
from support.inside import Inside


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


def test_no_name_is_made_up_for_a_line_that_is_refused(inside: Inside) -> None:
    for words in (["to", "docker:80x"], ["to", "bogus"], ["to", "local", "--tail", "perhaps"]):
        ended = inside("launch", *words)
        assert (ended.code, "is called" in ended.err) == (2, False), words


@pytest.mark.parametrize("where", ["moon", ":80", "Local"])
def test_an_unknown_target_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match="is unknown"):
        parse(["Inst", "to", where])


def test_the_truth_in_hagrids_words() -> None:
    assert [parse_bool("--tail", text) for text in ("true", "True", "yes", "1")] == [True] * 4
    assert [parse_bool("--tail", text) for text in ("false", "FALSE", "no", "0")] == [False] * 4
    with pytest.raises(UsageError, match="--tail=maybe: it is true or false"):
        parse_bool("--tail", "maybe")


class TestHagridsFlags:
    """Each is taken, or refused by its name with what there is in its place."""

    @pytest.mark.parametrize(
        ("line", "made", "remarks"),
        [
            ("Inst to local --build", "Inst to local", ["--build"]),
            ("Inst to local --build=false --dev", "Inst to local", ["--build", "--dev"]),
            ("Inst to local --build false --no-vpn", "Inst to local", ["--build", "--no-vpn"]),
            ("--headless Inst to local", "Inst to local", ["--headless"]),
            ("Inst --jupyter to local --tail=false", "Inst to local --tail=false", ["--jupyter"]),
            ("Inst to docker --cpus 2 --platform linux/amd64", "Inst to docker", ["--cpus", "--platform"]),
            ("Inst to azure --azure_location westeurope", "Inst to azure --region westeurope", []),
            ("Inst to local --set-root-email=a@b.example", "Inst to local --admin-email=a@b.example", []),
        ],
    )
    def test_what_changes_nothing_is_said_and_what_has_another_name_is_translated(
        self, line: str, made: str, remarks: list[str]
    ) -> None:
        words, said = translated(line.split())
        assert words == made.split()
        assert [remark.split()[0] for remark in said] == remarks

    @pytest.mark.parametrize("flag", sorted(REFUSED))
    def test_what_has_another_way_here_is_refused_with_that(self, inside: Inside, flag: str) -> None:
        ended = inside("launch", "Inst", "to", "local", flag, "secret")
        assert (ended.code, ended.out, inside.engine.calls) == (2, "", [])
        assert f"{flag} of HAGrid is no flag here." in ended.err and REFUSED[flag] in ended.err
        assert "secret" not in ended.err

    def test_no_flag_is_in_two_tables(self) -> None:
        assert len({*NEEDLESS, *RENAMED, *REFUSED}) == len(NEEDLESS) + len(RENAMED) + len(REFUSED)
        assert set(NEEDLESS) >= SWITCHES

    def test_what_is_renamed_is_an_option_of_launch(self, inside: Inside) -> None:
        shown = inside("launch", "--help").ok().out
        assert all(name in shown for name in RENAMED.values())


def test_a_name_is_made_up_where_none_was_given(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(launch, "deploy", lambda _session, name, *_rest: seen.append(name))
    for _ in range(3):
        ended = inside("launch", "to", "local").ok()
        assert f'The node is called "{seen[-1]}".' in ended.err
        inside.lay(seen[-1])
    assert len(set(seen)) == 3


class TestLandAll:
    """Every node, in HAGrid's word."""

    def test_it_lists_what_it_would_destroy_and_asks_once(self, inside: Inside, person: list[str]) -> None:
        for name in ("Inst", "My Lab"):
            inside.lay(name)
        person.append("no")
        ended = inside("land", "all")
        assert ended.code == 8
        assert '"Inst" (local)' in ended.err and '"My Lab" (local)' in ended.err
        assert inside.engine.calls == []
        assert inside("land", "all", "--json", "--yes").ok().json[1]["name"] == "My Lab"
        assert inside("status", "--json").ok().json == []
        assert inside("land", "all", "--yes").code == 6

    def test_in_a_pipe_it_asks_nobody(self, inside: Inside) -> None:
        inside.lay("Inst")
        assert inside("land", "all").code == 2
        assert inside.engine.calls == []

    def test_a_node_of_that_name_comes_first(self, inside: Inside) -> None:
        for name in ("Inst", "all"):
            inside.lay(name)
        inside("land", "all", "--yes").ok()
        assert [row["name"] for row in inside("status", "--json").ok().json] == ["Inst"]
