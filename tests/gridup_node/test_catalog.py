"""The locks we ship."""

from __future__ import annotations

import re

import pytest

from gridup_node import catalog


@pytest.mark.parametrize("tag", [*catalog.TAGS, "latest"])
def test_a_shipped_lock_pins_and_hashes_everything_and_names_no_index(tag: str) -> None:
    text = catalog.lock_for(tag).read_text()
    entries = re.split(
        r"\n(?=\S)", "\n".join(line for line in text.splitlines() if not line.strip().startswith("#"))
    )
    assert all(
        re.match(r"[a-z0-9.-]+(\[[a-z,]+\])?==\S+", entry) and "--hash=sha256:" in entry for entry in entries
    )
    assert f"syft=={catalog.resolve(tag)} " in text
    assert "://" not in text
    assert "/tmp" not in text


def test_every_lock_has_what_it_was_made_from() -> None:
    for tag in catalog.TAGS:
        wanted = catalog.lock_for(tag).with_suffix(".in").read_text()
        assert f"syft=={tag}" in wanted


@pytest.mark.parametrize("tag", ["0.8.0", "", "Latest", "../0.9.5"])
def test_another_version_is_refused_naming_those_shipped(tag: str) -> None:
    with pytest.raises(ValueError, match=re.escape("latest, 0.9.5")):
        catalog.lock_for(tag)
