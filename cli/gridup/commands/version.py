"""gridup version: show the installed versions."""

from __future__ import annotations

import platform

import typer

from gridup.commands.options import Json
from gridup.session import Session
from gridup_infra import __version__


def main(context: typer.Context, json: Json = False) -> None:
    """Show the versions of Gridup, the engine and syft."""
    from gridup.setup.engine import ENGINE_VERSION, find_engine
    from gridup_node import catalog

    session = Session.of(context, json=json)
    engine = find_engine(session.settings.home)
    data = {
        "gridup": __version__,
        "python": platform.python_version(),
        "engine": engine.version if engine else None,
        "engine_wanted": ENGINE_VERSION,
        "syft": catalog.resolve("latest"),
    }

    def human() -> None:
        there = engine.version if engine else f"none yet; {ENGINE_VERSION} will be set up at the first deploy"
        session.ui.line(f"gridup  {data['gridup']}")
        session.ui.line(f"engine  {there}")
        session.ui.line(f"syft    {data['syft']}")
        session.ui.line(f"python  {data['python']}")

    session.ui.result(data, human)
