"""Every sentence of docs/security.md and SECURITY.md is the name of a test: claims.txt says of which.

Who adds a sentence adds a block to claims.txt; a failure here prints it, but for the test's name.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.claims import Shown, names_of_tests, read, sentences

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DOCUMENTS = ("docs/security.md", "SECURITY.md")
CLAIMS = HERE / "claims.txt"


def test_every_sentence_has_what_shows_it_and_nothing_is_shown_that_is_not_said() -> None:
    said = [one for name in DOCUMENTS for one in sentences((ROOT / name).read_text(encoding="utf-8"))]
    shown = read(CLAIMS.read_text(encoding="utf-8"))
    new = [one for one in said if one not in shown]
    assert not new, "add to tests/security/claims.txt:\n\n" + "\n\n".join(
        f"{one}\n    folder/test_file.py::test_name" for one in new
    )
    assert [one for one in shown if one not in said] == [], "no document says that"
    assert [one for one in set(said) if said.count(one) > 1] == []


def test_every_test_that_is_named_is_there_and_what_has_none_has_a_reason() -> None:
    shown, tests = read(CLAIMS.read_text(encoding="utf-8")), names_of_tests()
    assert [name for row in shown.values() for name in row.tests if name not in tests] == []
    assert [one for one, row in shown.items() if not row.tests and len(row.reason) < 10] == []


TEXT = """\
# A title says nothing

One thing ([a link](x.md)). `gridup status`
tells another! It ends.

| who | what |
| --- | --- |
| anybody | a **row** |

1. An item
   of two lines:
   - within it.
2. Its next.

    $ no sentence

```
None. At all.
```
"""


def test_a_documents_sentences() -> None:
    assert sentences(TEXT) == [
        "One thing (a link).",
        "gridup status tells another!",
        "It ends.",
        "anybody: a row",
        "An item of two lines:",
        "within it.",
        "Its next.",
    ]


def test_what_shows_a_sentence() -> None:
    found = read(
        "# how\nOne `thing`\nof two lines.\n  a.py::test_b\n  c.py::test_d\n\nTwo.\n  no test: as\n  it is\n"
    )
    assert found == {
        "One thing of two lines.": Shown(("a.py::test_b", "c.py::test_d")),
        "Two.": Shown(reason="as it is"),
    }
    for wrong in ("Nothing shows it.\n", "  a.py::test_b\n", "Twice.\n  a\nTwice.\n  b\n"):
        with pytest.raises(ValueError, match="a sentence"):
            read(wrong)


def test_the_names_of_tests() -> None:
    found = names_of_tests()
    assert "security/test_claims.py::test_the_names_of_tests" in found
    assert "gridup_node/test_release.py::TestShield::test_the_unit_comes_before_docker_at_every_boot" in found
