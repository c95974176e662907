"""What the engine's file backend keeps beside each file, and what a killed engine leaves of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from gridup.attributes import mend, without

WHOLE = '{"user.content_type": "text/plain"}'


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"user.content_type": "te'])
def test_those_that_an_engine_would_stumble_over_go_and_others_stay(tmp_path: Path, broken: str) -> None:
    pulumi = tmp_path / ".pulumi"
    own = [
        pulumi / name
        for name in (
            "meta.yaml.attrs",
            "stacks/gridup/inst.json.attrs",
            "stacks/gridup/inst.json.bak.attrs",
            "stacks/gridup/inst.json.gz.attrs",
            "locks/organization/gridup/inst/1.json.attrs",
        )
    ]
    others = [pulumi / name for name in ("stacks/gridup/inst-two.json.attrs", "stacks/gridup/inst.json")]
    for path in (*own, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
    for text in (WHOLE, broken):
        for path in (*own, *others):
            path.write_text(text)
        mend(tmp_path, "inst")
        assert [path.exists() for path in own] == [text == WHOLE] * len(own)
        assert all(path.read_text() == text for path in others)
    mend(tmp_path, "inst")
    mend(tmp_path / "nowhere", "inst")
    mend(None, "inst")


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("file:///home/a", "file:///home/a?metadata=skip"),
        ("file://~", "file://~?metadata=skip"),
        ("file:///a%20b?no_tmp_dir=true", "file:///a%20b?no_tmp_dir=true&metadata=skip"),
        ("file:///a?metadata=", "file:///a?metadata="),
        ("s3://bucket?region=eu-west-1", "s3://bucket?region=eu-west-1"),
        ("https://api.pulumi.com", "https://api.pulumi.com"),
    ],
)
def test_an_engine_of_ours_writes_none(url: str, asked: str) -> None:
    assert without(url) == asked
