"""gridup doctor: check that this machine has what Gridup needs."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator

import typer

from gridup.commands.options import Json
from gridup.session import Session, needs
from gridup.settings import Settings
from gridup.state import State
from gridup_infra import room, targets
from gridup_infra.errors import GridupError
from gridup_infra.processes import which
from gridup_infra.room import Need
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.base import DoctorCheck, Target

EPILOG = """\b
Examples:
  gridup doctor

Exit code 1 when something that is needed is missing."""


def main(context: typer.Context, json: Json = False) -> None:
    """Check what this machine has for running Gridup."""
    session = Session.of(context, json=json)
    findings = [look(session.settings) for look in LOOKS]
    for target in map(targets.target, targets.names()):
        findings += [*_sdk(target), *target.doctor()]
    marks = {True: "✅", False: "❌", None: "➖"}

    def human() -> None:
        session.ui.table(["", "What", "Found"], [[marks[f.ok], f.name, f.detail] for f in findings])

    session.ui.result([{"name": f.name, "ok": f.ok, "detail": f.detail} for f in findings], human)
    bad = [f.name for f in findings if f.ok is False]
    if bad:
        raise GridupError(f"Not ready: {', '.join(bad)}.")


def _system(_settings: Settings) -> DoctorCheck:
    known = sys.platform in ("linux", "darwin")
    return DoctorCheck("system", known, platform.platform() if known else "use Linux, macOS or WSL")


def _home(settings: Settings) -> DoctorCheck:
    try:
        settings.ensure_state(State.of(settings).stacks)
    except GridupError as error:
        return DoctorCheck("GRIDUP_HOME", False, error.message)
    return DoctorCheck("GRIDUP_HOME", True, str(settings.home.root))


def _disk(settings: Settings) -> DoctorCheck:
    wanted = first_deploy(settings)
    if lack := room.lacking(wanted):
        return DoctorCheck("disk", False, lack)
    return DoctorCheck(
        "disk", True, f"room for the {room.total(wanted) / 1e9:.1f} GB of a node on this machine"
    )


def first_deploy(settings: Settings) -> tuple[Need, ...]:
    """Return the disk space that a new node on this machine needs: engine, Python environment, node."""
    spec = DeploySpec(name="new", target=targets.DEFAULT)
    return needs(settings, spec, targets.target(spec.target))


def _engine(settings: Settings) -> DoctorCheck:
    from gridup.setup.engine import ENGINE_VERSION, find_engine

    found = find_engine(settings.home)
    if found:
        return DoctorCheck("Pulumi engine", True, f"{found.version} in {found.root} ({found.source})")
    return DoctorCheck("Pulumi engine", None, f"none yet; the first deploy gets {ENGINE_VERSION}")


def _node_python(_settings: Settings) -> DoctorCheck:
    from gridup_infra.targets.local.runtime import find_python

    try:
        path, version = find_python()
    except GridupError as error:
        return DoctorCheck("Python for nodes", False, f"{error.message} {error.suggestion}")
    return DoctorCheck("Python for nodes", True, f"{version} at {path}")


def _sdk(target: Target) -> Iterator[DoctorCheck]:
    from gridup.setup import extras

    if target.extra:
        there = extras.installed(target.extra)
        detail = "installed" if there else "none yet; the first use installs it"
        yield DoctorCheck(f"SDK of {target.title}", there or None, detail)


def _tool(name: str, role: str) -> Callable[[Settings], DoctorCheck]:
    def look(_settings: Settings) -> DoctorCheck:
        path = which(name)
        return DoctorCheck(role, True if path else None, path or f"no {name}: the node will have no ssh")

    return look


LOOKS: tuple[Callable[[Settings], DoctorCheck], ...] = (
    _system,
    _home,
    _disk,
    _engine,
    _node_python,
    _tool("ssh", "ssh client"),
    _tool("sshd", "ssh server"),
)
