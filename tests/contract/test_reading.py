"""What the engine answers where a state is read through it.

The fake one serves the tests of that; this keeps it honest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gridup.settings import BACKEND, Settings
from gridup.state import EngineBackend
from gridup_infra.paths import Home
from gridup_infra.spec import DeploySpec
from support.checkpoints import deployment, outputs_for, write_checkpoint
from support.fake_pulumi import FakePulumi
from support.pulumi_cloud import ACCOUNT, PulumiCloud

SPEC = DeploySpec("Inst", stack_id="0123456789abcdef")
HELD = deployment(SPEC, outputs=outputs_for(SPEC).exports())
EMPTY = {**HELD, "resources": []}

CLOUDS = {
    f"{ACCOUNT}/gridup/inst": HELD,
    f"{ACCOUNT}/website/inst": EMPTY,
    "acme/gridup/inst": EMPTY,
    "acme/gridup/lab": HELD,
}

real = pytest.param("real", marks=pytest.mark.engine)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's own project is where it is run."""
    (tmp_path / "Pulumi.yaml").write_text("name: website\nruntime: python\n")
    monkeypatch.chdir(tmp_path)


def engine_of(request: pytest.FixtureRequest) -> Path:
    from gridup.setup.engine import ensure_engine

    request.getfixturevalue("engine")
    cache: Path = request.getfixturevalue("cache")
    return ensure_engine(Home(cache), lambda _text: None).root


@pytest.fixture(params=["fake", real])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> EngineBackend:
    """A self-managed backend."""
    settings = Settings(Home(tmp_path / "a home"), dict(os.environ))
    settings.ensure_state()
    if request.param == "fake":
        pulumi = FakePulumi(tmp_path / "engine")
        pulumi.hold({"organization/gridup/inst": HELD, "organization/website/inst": EMPTY})
        return EngineBackend(settings, lambda: pulumi.root)
    root = settings.file_backend
    assert root is not None
    (root / ".pulumi").mkdir()
    (root / ".pulumi" / "meta.yaml").write_text("version: 1\n")
    ours = write_checkpoint(root, "inst", HELD)
    theirs = root / ".pulumi" / "stacks" / "website" / "inst.json"
    theirs.parent.mkdir()
    theirs.write_text(ours.read_text().replace("::gridup::", "::website::"))
    found = engine_of(request)
    return EngineBackend(settings, lambda: found)


@pytest.fixture(params=["fake", real])
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], EngineBackend]]:
    """Pulumi Cloud, where a default organization is set; none where that is empty."""
    with ExitStack() as stack:
        own = {"PULUMI_ACCESS_TOKEN": "pul-x", "PULUMI_HOME": str(tmp_path / "pulumi home")}
        if request.param == "fake":
            pulumi = FakePulumi(tmp_path / "engine", account=ACCOUNT)
            pulumi.hold(CLOUDS)
            root, url = pulumi.root, "https://api.pulumi.example"
        else:
            root, url = engine_of(request), stack.enter_context(PulumiCloud(CLOUDS)).url

        def made(organization: str) -> EngineBackend:
            default = {"PULUMI_DEFAULT_ORGANIZATION": organization} if organization else {}
            environment = {**os.environ, **own, BACKEND: url, **default}
            return EngineBackend(Settings(Home(tmp_path / "a home"), environment), lambda: root)

        yield made


def test_the_stacks_are_those_of_our_project_by_their_own_names(folder: EngineBackend) -> None:
    assert folder.stacks() == ["inst"]


def resources(backend: EngineBackend, stack: str) -> list[str] | None:
    held = backend.deployment(stack)
    return None if held is None else [row["urn"] for row in held.get("resources") or ()]


OURS = [row["urn"] for row in HELD["resources"]]


def test_a_stack_is_read_by_its_own_name_and_one_that_is_not_there_is_none(folder: EngineBackend) -> None:
    assert resources(folder, "inst") == OURS
    assert folder.deployment("none") is None


def test_on_pulumi_cloud_they_are_those_of_the_default_organization(
    cloud: Callable[[str], EngineBackend],
) -> None:
    own, company, empty = cloud(""), cloud("acme"), cloud("moon")
    assert (own.stacks(), company.stacks(), empty.stacks()) == (["inst"], ["inst", "lab"], [])
    assert (resources(own, "inst"), resources(company, "inst")) == (OURS, [])
    assert (resources(own, "lab"), resources(company, "lab")) == (None, OURS)
