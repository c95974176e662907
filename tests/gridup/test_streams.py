"""Who reads the output may go, or may never have been there: the work and its exit code stay the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import REPOSITORY, Cli
from support.inside import Inside

FAKED = f"{sys.executable} -m support.faked"


def shell(
    inside: Inside, script: str, unbuffered: str = "unset PYTHONUNBUFFERED; "
) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `gridup` works over the fake engine."""
    cli = Cli(inside.home.root)
    paths = os.pathsep.join([cli.env()["PYTHONPATH"], str(REPOSITORY / "tests")])
    return subprocess.run(
        ["bash", "-c", f'{unbuffered}gridup() {{ {FAKED} "$@"; }}\n{script}'],
        env=cli.env({"PYTHONPATH": paths}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def names(inside: Inside) -> list[str]:
    return [row["name"] for row in inside("status", "--no-probe", "--json").ok().json]


@pytest.mark.parametrize(
    "reader",
    ["2>&1 | true", "2>&1 | head -n1 >&2", "| true", "2> >(true)", ">&-", "2>&-", ">&- 2>&-", "2>/dev/full"],
)
def test_a_destroy_ends_its_work_whoever_reads(inside: Inside, reader: str) -> None:
    inside.lay("Inst")
    # The reader has gone before the first line is written.
    ended = shell(inside, f"(sleep 0.3; gridup destroy Inst --yes) {reader}\necho ${{PIPESTATUS[0]}}")
    assert ended.stdout.splitlines()[-1] == "0", ended
    assert "Traceback" not in ended.stderr
    assert names(inside) == []


def test_a_deploy_that_fails_says_so_by_its_exit_code_though_nobody_reads(inside: Inside) -> None:
    inside.lay("Lab One")
    ended = shell(inside, "gridup deploy --name lab-one --no-wait 2>&1 | true\necho ${PIPESTATUS[0]}")
    assert ended.stdout == "2\n"


def test_an_unbuffered_python_is_no_exception(inside: Inside) -> None:
    inside.lay("Inst")
    line = "(sleep 0.3; gridup destroy Inst --yes) 2>&1 | true\necho ${PIPESTATUS[0]}"
    assert shell(inside, line, "export PYTHONUNBUFFERED=1; ").stdout == "0\n"
    assert names(inside) == []


def test_a_listing_whose_reader_has_gone_ends_quietly(inside: Inside) -> None:
    inside.lay("Inst")
    ended = shell(inside, "gridup status --no-probe | true\necho ${PIPESTATUS[0]}; gridup --help | head -n1")
    assert ended.stdout.splitlines()[0] == "0"
    assert ended.stderr == ""


def test_a_result_that_can_not_be_written_is_one_line_and_no_success(inside: Inside) -> None:
    inside.lay("Inst")
    ended = shell(inside, "gridup status --no-probe --json >/dev/full")
    assert (ended.returncode, ended.stderr) == (
        1,
        "Error: The result can't be written: No space left on device.\n",
    )


def test_with_a_closed_stream_nothing_else_is_written_to(inside: Inside, tmp_path: Path) -> None:
    inside.lay("Inst")
    before = {path: path.read_bytes() for path in inside.home.root.rglob("*") if path.is_file()}
    ended = shell(inside, "gridup status --no-probe >&- 2>&-")
    assert ended.returncode == 0
    assert {path: path.read_bytes() for path in inside.home.root.rglob("*") if path.is_file()} == before


def test_the_logs_that_are_followed_end_with_their_reader(tmp_path: Path) -> None:
    script = """
import itertools
from gridup import streams
from gridup.commands.logs import show_lines
from gridup.ui import Ui

class Endless:
    def logs(self, chosen, *, lines, follow):
        return (("api", str(n)) for n in itertools.count())

streams.guard()
show_lines(Ui(), Endless(), ["api"], lines=1, follow=True)
"""
    ended = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" | head -n2; exit ${PIPESTATUS[0]}', sys.executable, script],
        env=Cli(tmp_path).env(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0\n1\n", "")
