"""The paths in the node's folder, and the node's facts in `config/node.json`. Standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOME_VARIABLE = "GRIDUP_NODE_HOME"

SERVER_TYPES: Mapping[str, str] = {"domain": "datasite", "network": "gateway"}
"""Gridup's node types -> syft's names for them."""


MAX_UPLOAD = 2 * 1024**3
"""The default of `Facts.max_upload`, in bytes."""
JOB_SECONDS = 24 * 60 * 60
"""The default of `Facts.job_seconds`."""


class FactsError(Exception):
    """node.json is missing or invalid; the message is one line."""


@dataclass(frozen=True)
class NodeDir:
    """The paths in one node's folder. Reading a path here creates nothing."""

    root: Path

    @classmethod
    def from_env(cls) -> NodeDir:
        """Return the folder that `GRIDUP_NODE_HOME` names.

        Raises:
            FactsError: the variable is not set.
        """
        given = os.environ.get(HOME_VARIABLE)
        if not given:
            raise FactsError(f"{HOME_VARIABLE} is not set: it names the node's folder")
        return cls(Path(given).absolute())

    @property
    def facts(self) -> Path:
        return self.root / "config" / "node.json"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def database(self) -> Path:
        return self.data / "node.db"

    @property
    def signed_in(self) -> Path:
        """The file that records which callers have signed in before, see `guard.remembered`."""
        return self.data / "signed_in.json"

    @property
    def objects(self) -> Path:
        """The folder of the objects that syft stores outside its database: those of more than a megabyte."""
        return self.data / "objects"

    @property
    def run(self) -> Path:
        """The folder of sockets and locks, which are useless once the node has stopped."""
        return self.root / "run"


@dataclass(frozen=True)
class Facts:
    """The facts that a node may publish about itself. None of them is secret.

    Attributes:
        name: the node's name as the user typed it.
        node_type: `domain` or `network`.
        ports: the ports, by service.
        endpoints: the endpoint of each service: an address or, for ssh, a command.
        admin_email: the administrator's account.
        gridup_version: the Gridup version that deployed the node last; empty if unknown.
        max_upload: the largest call of a data owner or administrator, in bytes.
        guests: whether a key without an account may read the catalogue.
        host_names: host names of the node in addition to those of the endpoints.
        organization, description: texts that the node shows to visitors; empty to show none, None if the
            deployer set none.
        job_seconds: how long approved code may run.
        packages: the names of the packages that the data owner has added.
    """

    name: str
    node_type: str
    ports: Mapping[str, int]
    endpoints: Mapping[str, str]
    admin_email: str
    gridup_version: str = ""
    max_upload: int = MAX_UPLOAD
    guests: bool = False
    host_names: tuple[str, ...] = ()
    organization: str | None = None
    description: str | None = None
    job_seconds: int = JOB_SECONDS
    packages: tuple[str, ...] = ()

    @property
    def server_type(self) -> str:
        """syft's name for the node's type."""
        return SERVER_TYPES[self.node_type]


def load(path: Path) -> Facts:
    """Read node.json.

    Raises:
        FactsError: the file is missing or invalid, or a required value is missing.
    """
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FactsError(f"{path} is missing: `gridup deploy` writes it") from None
    except ValueError as error:
        raise FactsError(f"{path} is not JSON: {error}") from None
    try:
        facts = Facts(
            name=str(raw["name"]),
            node_type=str(raw["node_type"]),
            ports={str(key): int(port) for key, port in raw["ports"].items()},
            endpoints={str(key): str(value) for key, value in raw.get("endpoints", {}).items()},
            admin_email=str(raw["admin_email"]),
            gridup_version=str(raw.get("gridup_version", "")),
            max_upload=int(raw.get("max_upload", MAX_UPLOAD)),
            guests=raw.get("guests", False) is True,
            job_seconds=int(raw.get("job_seconds", JOB_SECONDS)),
            organization=_text(raw, "organization"),
            description=_text(raw, "description"),
            host_names=tuple(str(name) for name in raw.get("host_names", ())),
            packages=tuple(str(name) for name in raw.get("packages", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FactsError(f"{path} lacks something or has it wrong: {error!r}") from None
    if facts.node_type not in SERVER_TYPES:
        raise FactsError(f"{path}: no node type {facts.node_type!r}; there is {', '.join(SERVER_TYPES)}")
    return facts


def _text(raw: Mapping[str, Any], key: str) -> str | None:
    return str(raw[key]) if key in raw else None
