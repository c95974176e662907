"""Where this run of the command line reads its settings, and what plain `pulumi` needs for the same.

A command's own options come from: flag > environment (`GRIDUP_DEPLOY_PORT`) > `config.yaml` in
GRIDUP_HOME > default; Typer does that. Here are the settings that no command owns.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from gridup_infra.errors import StateError, UsageError
from gridup_infra.paths import Home, ensure_private, write_private

BACKEND = "PULUMI_BACKEND_URL"
PASSPHRASE = "PULUMI_CONFIG_PASSPHRASE"  # noqa: S105 - the variable's name
PASSPHRASE_FILE = "PULUMI_CONFIG_PASSPHRASE_FILE"  # noqa: S105
ORGANIZATION = "organization"
"""The one organization of Pulumi's self-managed backends."""


@dataclass(frozen=True)
class Settings:
    """The surroundings of one run.

    Attributes:
        home: the tree of GRIDUP_HOME.
        environment: the process's environment.
    """

    home: Home
    environment: Mapping[str, str]

    @classmethod
    def load(cls) -> Settings:
        return cls(Home.default(), dict(os.environ))

    @property
    def backend_url(self) -> str:
        """Where Pulumi keeps its state: the person's choice, else a folder of ours."""
        given = self.environment.get(BACKEND)
        if not given:
            return f"file://{quote(str(self.home.state))}"
        # A path as typed, such as file:///tmp/my state #1: Pulumi would take the end for a fragment.
        return given.replace(" ", "%20").replace("#", "%23") if given.startswith("file://") else given

    @property
    def file_backend(self) -> Path | None:
        """The folder of a file backend; None for any other."""
        url = self.backend_url
        if not url.startswith("file://"):
            return None
        path = unquote(url.removeprefix("file://").partition("?")[0])
        return Path(path).expanduser() if path.startswith("~") else Path(path).absolute()

    def pulumi_environment(self) -> dict[str, str]:
        """The variables that make plain `pulumi` see what we see. No secret is among them."""
        made = {
            BACKEND: self.backend_url,
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_PYTHON_CMD": sys.executable,
            "GRIDUP_HOME": str(self.home.root),
        }
        if PASSPHRASE not in self.environment:
            made[PASSPHRASE_FILE] = self.environment.get(PASSPHRASE_FILE) or str(self.home.passphrase)
        return made

    def stored_config(self, stack: str) -> dict[str, str]:
        """The stack's configuration as this machine last wrote it; empty when it never did."""
        path = self.stack_file(stack)
        if not path.exists():
            return {}
        import yaml

        try:
            found = (yaml.safe_load(path.read_text()) or {}).get("config") or {}
            return {str(key): str(value) for key, value in found.items()}
        except (OSError, yaml.YAMLError, AttributeError) as error:
            raise StateError(f"{path} can't be read: {str(error).splitlines()[0]}.") from error

    def stack_file(self, stack: str) -> Path:
        """Pulumi's configuration file of a stack."""
        return self.home.stack(stack) / f"Pulumi.{stack}.yaml"

    def ensure_state(self) -> None:
        """Make what a first use needs: the folder of the state and a passphrase of its own.

        Raises:
            StateError: the folder can't be made.
        """
        try:
            ensure_private(self.home.root)
            backend = self.file_backend
            # The person's own folder may be a team's: its mode is not ours to change.
            if backend and not (self.environment.get(BACKEND) and backend.exists()):
                ensure_private(backend)
            if PASSPHRASE not in self.environment and not self.environment.get(PASSPHRASE_FILE):
                self._ensure_passphrase()
        except OSError as error:
            raise StateError(
                f"{error.filename or self.home.root} can't be made: {error.strerror}.",
                "Set GRIDUP_HOME to a folder that you may write.",
            ) from error

    def _ensure_passphrase(self) -> None:
        path = self.home.passphrase
        if path.exists():
            return
        fresh = path.with_name(f".passphrase.{os.getpid()}")
        write_private(fresh, secrets.token_urlsafe(32).encode())
        try:
            # A link, unlike a rename, never replaces the one that another run has just made.
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()


def file_defaults(home: Home) -> dict[str, Any]:
    """The defaults in GRIDUP_HOME/config.yaml, by command, such as `deploy: {port: 9000}`.

    Raises:
        UsageError: the file is not of that form.
    """
    path = home.root / "config.yaml"
    if not path.exists():
        return {}
    import yaml

    try:
        found = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} can't be read: {str(error).splitlines()[0]}.") from error
    if not _is_by_command(found):
        raise UsageError(f"{path} must hold options by command.", "For example: deploy: {port: 9000}")
    return {
        command: {option.replace("-", "_"): value for option, value in options.items()}
        for command, options in found.items()
    }


def _is_by_command(found: object) -> bool:
    return isinstance(found, dict) and all(
        isinstance(command, str)
        and isinstance(options, dict)
        and all(isinstance(key, str) for key in options)
        for command, options in found.items()
    )
