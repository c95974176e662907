"""What a data owner may ask for, and the form of its lock."""

from __future__ import annotations

import pytest

from gridup_infra import requirements
from gridup_infra.errors import UsageError
from gridup_infra.requirements import Pin
from gridup_infra.spec import DeploySpec

OWN = b"syft==0.9.5 \\\n    --hash=sha256:00\n"
PINS = [
    Pin("humanize", "4.9.0", "", ("a" * 64, "b" * 64)),
    Pin("tomli", "2.0", "sys_platform == 'linux'", ("c" * 64,)),
]
LOCK = requirements.lock_text(("humanize",), OWN, PINS)


def test_a_file_of_packages_is_read_as_pip_reads_it() -> None:
    text = """\
# For the cohort of 2026.

humanize
  opendp >= 0.9, < 1   # differential privacy
transformers[sentencepiece,torch]==4.41.*
tomli ; python_version < "3.11" and sys_platform != 'win32'
"""
    assert requirements.parse(text) == (
        "humanize",
        "opendp >= 0.9, < 1",
        "transformers[sentencepiece,torch]==4.41.*",
        "tomli ; python_version < \"3.11\" and sys_platform != 'win32'",
    )
    assert requirements.named(("Humanize", "a.b_c[x]>=1", "humanize<5")) == ["humanize", "a-b-c"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-r other.txt", "is an option"),
        ("-e .", "is an option"),
        ("--index-url https://ada:s3cret@mirror.example/simple", "is an option"),
        ("--extra-index-url=https://ada:s3cret@mirror.example/simple", "is an option"),
        ("https://ada:s3cret@wheels.example/a-1-py3-none-any.whl", "is an address"),
        ("git+https://ada:s3cret@code.example/a", "is an address"),
        ("a @ https://ada:s3cret@wheels.example/a.whl", "is an address"),
        ("a@file:/s3cret", "is an address"),
        ("./s3cret", "is a path"),
        ("/srv/s3cret", "is a path"),
        ("~/s3cret", "is a path"),
        ("s3cret\\a", "is a path"),
        ("s3cret-1-py3-none-any.whl", "is a path"),
        ("humanize==4.9.0 --hash=sha256:00", "has hashes"),
        ("humanize 4.9", "is 'humanize 4.9', which is no package"),
        ("$HOME", "is no package such as"),
        ("humanize==${VERSION}", "which is no package"),
        ("humanize>=4,", "which is no package"),
        ("x" * 501, "which is no package"),
        ("Syft==0.9.4", "asks for Syft, which a node has of itself: --tag chooses its version"),
        ('humanize ; python_versio < "3"', "Expected a marker"),
    ],
)
def test_what_is_no_package_of_the_index_is_refused_by_its_line(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^line 3 ") as caught:
        requirements.parse(f"# one\nhumanize\n{line}\n")
    assert said.removeprefix("is no package") in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_file_may_ask_for_so_many() -> None:
    many = "".join(f"p{number}\n" for number in range(requirements.MOST))
    assert len(requirements.parse(many)) == requirements.MOST
    with pytest.raises(ValueError, match="line 201 is one too many"):
        requirements.parse(f"{many}one-more\n")


def test_a_lock_is_of_what_it_was_made_of() -> None:
    requirements.check_lock(LOCK)
    assert requirements.is_of(LOCK, ("humanize",), OWN)
    assert not requirements.is_of(LOCK, ("humanize<5",), OWN)
    assert not requirements.is_of(LOCK, ("humanize",), OWN + b"\n"), "syft has another lock now"
    assert not requirements.is_of("", ("humanize",), OWN)
    requirements.check_lock(requirements.lock_text(("pandas",), OWN, []))


@pytest.mark.parametrize(
    "text",
    [
        "humanize==4.9.0 \\\n    --hash=sha256:" + "a" * 64,
        f"{LOCK}--index-url https://evil.example/simple\n",
        f"{LOCK}evil @ https://evil.example/a.whl \\\n    --hash=sha256:{'a' * 64}\n",
        f"{LOCK}evil==1\n",
        f"{LOCK}-r /etc/passwd\n",
        LOCK.replace("humanize==", "humanize>="),
        LOCK + "#" * requirements.LONGEST_LOCK,
    ],
)
def test_a_lock_that_was_tampered_with_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="their lock"):
        requirements.check_lock(text)
    with pytest.raises(UsageError, match="their lock"):
        DeploySpec(name="Inst", packages=("humanize",), packages_lock=text)


def test_a_spec_refuses_what_a_file_may_not_have() -> None:
    with pytest.raises(UsageError, match="is an option"):
        DeploySpec(name="Inst", packages=("humanize", "-r x"))


def test_of_what_is_installed_those_are_told_that_were_asked_for() -> None:
    pins = ["numpy==1.24.4", "Polars==1", "polars==2", "rich==13", "numpy==1.24.4"]
    assert requirements.chosen(("polars>=1", "numpy"), pins) == ["Polars==1", "polars==2", "numpy==1.24.4"]
