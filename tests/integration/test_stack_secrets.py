"""A secret that a stack exports: the real engine keeps it, and only who has the passphrase reads it."""

from __future__ import annotations

from pathlib import Path

import pulumi
import pytest

from gridup.engine import PulumiEngine
from gridup.settings import Settings
from gridup.setup.engine import ensure_engine
from gridup.state import State
from gridup_infra.errors import PassphraseError, StateError
from gridup_infra.outputs import MANAGEMENT_KEY, NodeOutputs
from gridup_infra.paths import Home
from gridup_infra.spec import DeploySpec
from support.checkpoints import outputs_for

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine]

SECRET = "-----BEGIN OPENSSH PRIVATE KEY-----\nS3cret!x9Qz\n-----END OPENSSH PRIVATE KEY-----\n"
SPEC = DeploySpec(name="My Lab_2", stack_id="0123456789abcdef")


@pytest.fixture
def settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with one stack in it, which exports a secret."""
    monkeypatch.setenv("GRIDUP_HOME", str(home))
    monkeypatch.setenv("PULUMI_AUTOMATION_API", "true")
    settings = Settings.load()
    settings.ensure_state()

    def program() -> None:
        for key, value in outputs_for(SPEC).exports().items():
            pulumi.export(key, value)
        pulumi.export(MANAGEMENT_KEY, pulumi.Output.secret(SECRET))

    engine = PulumiEngine(settings, ensure_engine(Home(home), lambda _text: None))
    stack = engine._open(SPEC.stack, SPEC)
    stack.workspace.program = program
    stack.up()
    return settings


def files(settings: Settings) -> str:
    root = settings.home.root
    kept = [p for p in root.rglob("*") if p.is_file() and not {"engine", "runtimes"} & set(p.parts)]
    assert any("inst" in path.name or "my-lab" in path.name for path in kept)
    return "".join(path.read_text(errors="replace") for path in kept)


def test_it_is_read_back_whole_and_lies_nowhere_in_plain(settings: Settings) -> None:
    state = State.of(settings)
    assert state.secret(SPEC.stack, MANAGEMENT_KEY) == SECRET
    assert "S3cret" not in files(settings)
    record = state.read(SPEC.stack)
    if record:  # a stack without resources holds nothing, but its outputs are read all the same
        assert isinstance(record.outputs, NodeOutputs)


def test_without_the_passphrase_it_is_read_by_nobody_and_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "another one")
    with pytest.raises(PassphraseError) as caught:
        State.of(Settings.load()).secret(SPEC.stack, MANAGEMENT_KEY)
    assert "The passphrase does not open this state." in caught.value.message
    assert "PULUMI_CONFIG_PASSPHRASE" in caught.value.suggestion


@pytest.mark.parametrize("export", ["no-such", "urls"])
def test_what_is_not_exported_is_an_error_that_names_it(settings: Settings, export: str) -> None:
    with pytest.raises(StateError, match=f"{SPEC.stack} has no output {export}"):
        State.of(settings).secret(SPEC.stack, export)


def test_a_stack_that_is_none_is_an_error(settings: Settings) -> None:
    with pytest.raises(StateError, match="no-such"):
        State.of(settings).secret("no-such", MANAGEMENT_KEY)
