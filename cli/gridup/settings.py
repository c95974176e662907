"""Settings that are common to all commands, and the environment for plain `pulumi` with the same stacks.

Typer reads the options of a command, in this order: flag > environment (`GRIDUP_DEPLOY_PORT`) > `config.yaml`
in GRIDUP_HOME > default.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from gridup_infra.errors import PassphraseError, StateError, UsageError
from gridup_infra.paths import Home, check_owner, check_usable, ensure_home, ensure_private, write_private
from gridup_infra.spec import PROJECT
from gridup_node import durable

BACKEND = "PULUMI_BACKEND_URL"
PASSPHRASE = "PULUMI_CONFIG_PASSPHRASE"  # noqa: S105 - the variable's name
PASSPHRASE_FILE = "PULUMI_CONFIG_PASSPHRASE_FILE"  # noqa: S105
PROJECT_FILES = {
    "Pulumi.yaml": f"name: {PROJECT}\nruntime: python\n",
    "__main__.py": "import gridup_infra.__main__  # noqa: F401\n",
}
"""The files that make a folder a Pulumi project. The program itself is in the package."""
CONFIG = "config.yaml"
"""Name of the file in GRIDUP_HOME with the defaults of options."""
ORGANIZATION = "organization"
"""The name of the only organization in Pulumi's self-managed backends."""


def stack_file(folder: Path, stack: str) -> Path:
    """Return the path of Pulumi's configuration file of a stack.

    Args:
        folder: the engine's working folder.
    """
    return folder / f"Pulumi.{stack}.yaml"


@dataclass(frozen=True)
class Settings:
    """The settings of one run.

    Attributes:
        home: the paths in GRIDUP_HOME.
        environment: the environment variables of the process.
    """

    home: Home
    environment: Mapping[str, str]

    @classmethod
    def load(cls) -> Settings:
        """Load the settings of this run.

        Raises:
            StateError: GRIDUP_HOME belongs to another account, or is not a folder and can't be created.
        """
        home = Home.default()
        check_usable(home)
        check_owner(home)
        return cls(home, dict(os.environ))

    @property
    def backend_url(self) -> str:
        """The URL of Pulumi's backend: the one that the user set, else a folder in GRIDUP_HOME."""
        given = self.environment.get(BACKEND)
        if not given:
            return f"file://{quote(str(self.home.state))}"
        # The user may type a path such as file:///tmp/my state #1. Pulumi would read `#1` as a fragment.
        return given.replace(" ", "%20").replace("#", "%23") if given.startswith("file://") else given

    @property
    def file_backend(self) -> Path | None:
        """The folder of a file backend; None for any other backend."""
        url = self.backend_url
        if not url.startswith("file://"):
            return None
        path = unquote(url.removeprefix("file://").partition("?")[0])
        return Path(path).expanduser() if path.startswith("~") else Path(path).absolute()

    def pulumi_environment(self) -> dict[str, str]:
        """Return the variables with which plain `pulumi` uses the same state. They contain no secret."""
        made = {
            BACKEND: self.backend_url,
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_PYTHON_CMD": sys.executable,
            "GRIDUP_HOME": str(self.home.root),
        }
        if PASSPHRASE not in self.environment:
            made[PASSPHRASE_FILE] = self.environment.get(PASSPHRASE_FILE) or str(self.home.passphrase)
        return made

    def ensure_project(self) -> Path:
        """Create the folder in which users run plain `pulumi`, and return it.

        A checkout has such a folder; an installed Gridup has none.
        """
        folder = ensure_private(self.home.project)
        for name, text in PROJECT_FILES.items():
            path = folder / name
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                write_private(path, text.encode())
        return folder

    def stored_config(self, stack: str) -> dict[str, str]:
        """Return the stack's configuration as this machine last wrote it; empty if it never wrote one.

        Raises:
            StateError: the file can't be read.
        """
        path = self.stack_file(stack)
        if not path.exists():
            return {}
        import yaml

        try:
            found = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("config") or {}
            return {str(key): str(value) for key, value in found.items()}
        except (OSError, yaml.YAMLError, AttributeError) as error:
            raise StateError(
                f"{path} can't be read: {str(error).splitlines()[0]}.",
                "Put it back from a copy, or remove it: the state knows the rest of what was deployed.",
            ) from error

    def stack_file(self, stack: str) -> Path:
        """Return the path of Pulumi's configuration file of a stack."""
        return stack_file(self.home.stack(stack), stack)

    def ensure_state(self, stacks: Callable[[], Sequence[str]] = lambda: ()) -> None:
        """Create what a first use needs: the folder of the state and a passphrase.

        Args:
            stacks: returns the names of the stacks in the state; called only if there is no passphrase.

        Raises:
            StateError: the folder can't be created.
            PassphraseError: the passphrase file is empty; or it is missing, and there are stacks that were
                encrypted with it.
        """
        try:
            ensure_home(self.home)
            backend = self.file_backend
            # The user's own folder may be shared by a team: don't change its mode.
            if backend and not (self.environment.get(BACKEND) and backend.exists()):
                ensure_private(backend)
            if PASSPHRASE not in self.environment and not self.environment.get(PASSPHRASE_FILE):
                self._ensure_passphrase(stacks)
        except OSError as error:
            raise StateError(
                f"{error.filename or self.home.root} can't be made: {error.strerror}.",
                "Set GRIDUP_HOME to a folder that you may write.",
            ) from error

    def _ensure_passphrase(self, stacks: Callable[[], Sequence[str]]) -> None:
        path = self.home.passphrase
        if path.exists():
            if not path.read_bytes().strip():
                raise PassphraseError(
                    f"The passphrase in {path} is empty: a full disk or a power cut may have done that.",
                    "Put it back from a copy. Where nothing is deployed yet, remove it: a new one is made.",
                )
            return
        there = stacks()
        # Another run may have created a passphrase and these stacks meanwhile: check the file again.
        if there and not path.exists():
            some = ", ".join(there[:3]) + (", …" if there[3:] else "")
            raise PassphraseError(
                f"The passphrase {path} is missing, and the state has stacks made with it: {some}.",
                f"Put it back from a copy, or set {PASSPHRASE} or {PASSPHRASE_FILE}. No other opens them.",
            )
        fresh = path.with_name(f".passphrase.{os.getpid()}")
        write_private(fresh, secrets.token_urlsafe(32).encode())
        try:
            # Unlike a rename, a link never replaces a passphrase that another run has just created.
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
        durable.sync(path.parent)


def file_defaults(home: Home) -> dict[str, Any]:
    """Return the defaults in GRIDUP_HOME/config.yaml by command, such as `deploy: {port: 9000}`.

    Raises:
        UsageError: the file can't be read or does not have this form.
    """
    path = home.root / CONFIG
    # Not `Path.exists`: it raises an error if a folder on the way may not be entered.
    if not os.path.exists(path):  # noqa: PTH110
        return {}
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} can't be read: {str(error).splitlines()[0]}.") from error
    for where, key in _keys(found):
        if isinstance(key, bool):
            word = "yes, on or true" if key else "no, off or false"
            raise UsageError(
                f"{path}: {where} has the key {word}, which YAML reads as a truth value, not as a word.",
                "A key is an option's name, as in deploy: {port: 9000}; a yes is for the command line alone.",
            )
    if not _is_by_command(found):
        raise UsageError(f"{path} must hold options by command.", "For example: deploy: {port: 9000}")
    return {
        command: {option.replace("-", "_"): value for option, value in options.items()}
        for command, options in found.items()
    }


def _keys(found: object) -> Iterator[tuple[str, object]]:
    """Yield (section, key) for every key of the file."""
    if isinstance(found, dict):
        yield from (("the file", command) for command in found)
        for command, options in found.items():
            if isinstance(options, dict):
                yield from ((str(command), option) for option in options)


def _is_by_command(found: object) -> bool:
    return isinstance(found, dict) and all(
        isinstance(command, str)
        and isinstance(options, dict)
        and all(isinstance(key, str) for key in options)
        for command, options in found.items()
    )
