"""Runs the Pulumi engine through the Automation API, with inline programs. No other module uses that API.

The engine's events go to a `Reporter`. Its errors become Gridup's errors. Every wait has a limit. Ctrl-C ends
the engine and its providers in limited time and leaves no lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pulumi import automation as auto
from pulumi.automation._stack import StackInitMode
from semver import VersionInfo

from gridup import attributes, engine_locks, pending
from gridup.engine_api import Report
from gridup.engine_events import EventTranslator, watching
from gridup.foreign import foreign, is_older
from gridup.reporter import Reporter
from gridup.settings import BACKEND, Settings, stack_file
from gridup.setup.engine import Engine as Binary
from gridup.state import PARSE_ERRORS, State, wrong_passphrase
from gridup_infra.errors import (
    BusyError,
    CredentialsError,
    GridupError,
    ResourceError,
    StateError,
    StoppedError,
)
from gridup_infra.layout import older
from gridup_infra.naming import typed
from gridup_infra.paths import Home, ensure_private, write_private
from gridup_infra.processes import EngineProcess
from gridup_infra.spec import PROJECT, DeploySpec

Made = TypeVar("Made")

BUSY_SECONDS = 1.0
"""Seconds between two checks whether another update has ended."""

GRACE = 5.0
"""Seconds that a running create may take to end by itself after Ctrl-C."""


class PulumiEngine:
    """The implementation of `Engine` that runs Pulumi.

    Args:
        binary: the engine that set-up found, downloaded or built.
        wait: seconds to wait for another update of a stack to end, on this machine or elsewhere.
    """

    def __init__(self, settings: Settings, binary: Binary, wait: float = 0) -> None:
        self._settings = settings
        self._wait = wait
        self._home: Home = settings.home
        self._command = _Command(Path(binary.root), binary.version)

    def up(self, spec: DeploySpec, reporter: Reporter, *, refresh: bool = True) -> Report:
        stack = self._open(spec.stack, spec)
        with watching(reporter) as watch:
            return self._do(
                spec.stack,
                watch,
                # The refresh turns drift into a change, so this update repairs it.
                lambda: stack.up(on_event=watch.event, refresh=refresh, show_secrets=False),
            )

    def preview(self, spec: DeploySpec, reporter: Reporter, *, new: bool) -> Report:
        with (
            # A preview's settings are deleted with this folder: else a later deploy or `pulumi up` uses them.
            tempfile.TemporaryDirectory(prefix="gridup-preview-") as folder,
            watching(reporter) as watch,
        ):
            work = ensure_private(Path(folder) / "work")
            if not new:
                self._copy_settings(spec.stack, work)
            # Only a deploy creates a stack: a preview of a new stack uses a temporary backend.
            stack = self._open(spec.stack, spec, work, Path(folder) / "state" if new else None)
            return self._do(spec.stack, watch, lambda: stack.preview(on_event=watch.event, refresh=not new))

    def refresh(self, stack: str, reporter: Reporter) -> Report:
        opened = self._open(stack)
        with watching(reporter) as watch:
            return self._do(
                stack,
                watch,
                lambda: opened.refresh(on_event=watch.event, show_secrets=False, clear_pending_creates=True),
            )

    def import_existing(self, stack: str, ids: Mapping[str, str], reporter: Reporter) -> Report:
        opened = self._open(stack)
        # A killed run leaves its lock, and an import fails while there is a lock.
        self.unlock(stack)
        asked = self._edited(opened, lambda deployment: pending.import_pending(deployment, ids))
        report = self.refresh(stack, reporter)
        self._edited(opened, lambda deployment: pending.reset_inputs(deployment, asked))
        return report

    def destroy(self, stack: str, reporter: Reporter) -> Report:
        opened = self._open(stack)
        with watching(reporter) as watch:
            return self._do(stack, watch, lambda: opened.destroy(on_event=watch.event, show_secrets=False))

    def remove_stack(self, stack: str) -> None:
        import shutil

        folder = self._home.stack(stack)
        workspace = self._workspace(folder)
        attributes.mend(self._settings.file_backend, stack)
        with _errors():
            # The Automation API can't remove the backups, and they contain the whole state.
            words = ["stack", "rm", stack, "--yes", "--remove-backups"]
            self._command.run(words, str(folder), workspace.env_vars)
        # Another run may create its lock in this folder right now: ignore errors.
        shutil.rmtree(folder, ignore_errors=True)

    def unlock(self, stack: str) -> bool:
        folder = self._home.stack(stack)
        locks = engine_locks.held(self._settings.file_backend, stack)
        found = [lock for lock in locks if engine_locks.is_dead(lock, folder)]
        for lock in found:
            engine_locks.forget(lock, folder)
        return bool(found)

    def _do(self, stack: str, watch: EventTranslator, work: Callable[[], object]) -> Report:
        try:
            with _errors(watch.report, stack):
                self._once_free(stack, work)
        except KeyboardInterrupt:
            self.unlock(stack)
            raise self._interrupted(stack) from None
        return watch.report

    def _once_free(self, stack: str, work: Callable[[], object]) -> None:
        end = time.monotonic() + self._wait
        while True:
            try:
                work()
                return
            except auto.ConcurrentUpdateError:
                # A killed run leaves its lock: remove it. If the holder is alive, wait.
                if not self.unlock(stack):
                    if time.monotonic() >= end:
                        raise
                    time.sleep(BUSY_SECONDS)

    def _interrupted(self, stack: str) -> StoppedError:
        record = State.of(self._settings).read(stack)
        name = record.name if record else stack
        exists = ", ".join(record.resources) if record and record.resources else "nothing"
        half = f"; interrupted: {', '.join(record.pending)}" if record and record.pending else ""
        return StoppedError(
            f'Stopped. What exists of "{name}": {exists}{half}.',
            f"Run the same command again to go on, or `{typed('destroy', name)}` to delete it.",
        )

    @staticmethod
    def _edited(opened: auto.Stack, edit: Callable[[dict[str, Any]], Made]) -> Made:
        with _errors():
            state = opened.export_stack()
            deployment = dict(state.deployment or {})
            made = edit(deployment)
            opened.import_stack(auto.Deployment(state.version, deployment))
        return made

    def _open(
        self,
        stack: str,
        spec: DeploySpec | None = None,
        work: Path | None = None,
        backend: Path | None = None,
    ) -> auto.Stack:
        """Open a stack. With a spec: create the stack if needed, and write the spec into its settings.

        Args:
            work: the folder for the settings; None for the stack's own folder.
            backend: the folder of a temporary backend that replaces the real one; None for the real one.

        Raises:
            StateError: the stack's state contains something that the engine must not run.
        """
        folder = work or self._home.stack(stack)
        workspace = self._workspace(folder, backend)
        attributes.mend(self._settings.file_backend, stack)
        workspace.mend(stack)
        with _errors():
            opened = _Stack(stack, workspace)
            try:
                # Export instead of select: one process returns whether the stack exists and what it contains.
                held = self._command.run(
                    ["stack", "export", "--stack", stack], str(folder), workspace.env_vars
                )
            except auto.StackNotFoundError:
                if not spec:
                    raise
                workspace.create_stack(stack)
            else:
                _refuse_foreign(stack, json.loads(held.stdout).get("deployment") or {})
            if spec:
                from gridup_infra.program import main

                workspace.program = main
                fresh = workspace.stack_settings(stack)
                fresh.config = {f"{PROJECT}:{key}": value for key, value in spec.to_config().items()}
                workspace.save_stack_settings(stack, fresh)
        return opened

    def _copy_settings(self, stack: str, work: Path) -> None:
        """Copy a stack's settings into another folder, and link the notes about its running engines there."""
        folder = self._home.stack(stack)
        settings = stack_file(folder, stack)
        if settings.exists():
            write_private(stack_file(work, stack), settings.read_bytes())
        # A killed preview leaves its lock. To remove it, later runs need the note in the stack's own folder.
        (work / engine_locks.FOLDER).symlink_to(ensure_private(folder / engine_locks.FOLDER))

    def _workspace(self, folder: Path, backend: Path | None = None) -> _Workspace:
        ensure_private(folder)
        environment = self._settings.pulumi_environment()
        if backend:
            ensure_private(backend)
            environment |= {BACKEND: f"file://{backend}", "PULUMI_CONFIG_PASSPHRASE": "preview"}
        environment[BACKEND] = attributes.without(environment[BACKEND])
        return _Workspace(
            work_dir=str(folder),
            pulumi_command=self._command,
            env_vars=environment,
            project_settings=auto.ProjectSettings(name=PROJECT, runtime="python"),
        )


class _Workspace(auto.LocalWorkspace):
    """A workspace that writes the settings of a stack atomically and tolerates damaged ones."""

    def stack_settings(self, stack_name: str) -> auto.StackSettings:
        told = self._settings_of(stack_name)
        return auto.StackSettings._deserialize(told) if told else auto.StackSettings()

    def save_stack_settings(self, stack_name: str, settings: auto.StackSettings) -> None:
        import yaml

        told = settings._serialize()  # type: ignore[no-untyped-call]
        write_private(self._file(stack_name), yaml.safe_dump(told).encode())

    def mend(self, stack_name: str) -> None:
        """Delete a damaged settings file.

        Gridup writes the settings again, and the state has the encryption salt too.
        """
        path = self._file(stack_name)
        if path.exists() and self._settings_of(stack_name) is None:
            path.unlink()

    def _file(self, stack_name: str) -> Path:
        return stack_file(Path(self.work_dir), stack_name)

    def _settings_of(self, stack_name: str) -> dict[str, Any] | None:
        """Read the settings file. Returns None if it is missing or damaged."""
        import yaml

        try:
            found = yaml.safe_load(self._file(stack_name).read_text(encoding="utf-8"))
        except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError):
            return None
        return found if isinstance(found, dict) else None


class _Stack(auto.Stack):
    """A stack that starts no processes to select it, or to read outputs and history after each operation.

    The checkpoint and the events have the same information.
    """

    def __init__(self, name: str, workspace: auto.LocalWorkspace) -> None:
        # The base's `__init__` would start the processes that select the stack, and does nothing else.
        self.name, self.workspace, self._mode = name, workspace, StackInitMode.SELECT

    def outputs(self) -> Any:
        return {}

    def info(self, show_secrets: bool = False) -> Any:  # noqa: ARG002 - the signature is the base's
        return _NO_SUMMARY


_NO_SUMMARY = object()


class _Command(auto.PulumiCommand):
    """Runs the engine in a separate session: Ctrl-C reaches only Gridup, which then stops the engine."""

    def __init__(self, root: Path, version: str) -> None:
        # The base class would start a process to read the version, which set-up already knows.
        self.command = str(root / "bin" / "pulumi")
        self.version = VersionInfo.parse(version)

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,
        on_error: Callable[[str], Any] | None = None,
    ) -> auto.CommandResult:
        path = os.pathsep.join([str(Path(self.command).parent), os.environ.get("PATH", os.defpath)])
        environment = {**os.environ, "PATH": path, **additional_env, "PULUMI_AUTOMATION_API": "true"}
        process = EngineProcess([self.command, "--non-interactive", *args], cwd=Path(cwd), env=environment)
        with engine_locks.noted(Path(cwd), process.pid):
            try:
                code, out, err = process.wait()
            except BaseException:
                process.stop(grace=GRACE)
                raise
        for text, callback in ((out, on_output), (err, on_error)):
            if callback:
                for line in text.splitlines():
                    callback(line)
        result = auto.CommandResult(stdout=out, stderr=err, code=code)
        if code != 0:
            raise auto.errors.create_command_error(result)
        return result


def _refuse_foreign(stack: str, held: Mapping[str, Any]) -> None:
    try:
        found = foreign(held)
    except PARSE_ERRORS as error:
        raise StateError(f"The state of {stack} is damaged: {error!r}.") from error
    if found and is_older(held):
        raise older(f"The stack {stack}")
    if found:
        some = ", ".join(found[:3]) + (", …" if found[3:] else "")
        raise StateError(
            f"The state of {stack} has what this Gridup did not write: {some}. Nothing was run.",
            "If a newer Gridup deployed it, use that one. Else somebody changed the state: restore a backup.",
        )


@contextlib.contextmanager
def _errors(report: Report | None = None, stack: str = "") -> Iterator[None]:
    """Translate errors of the Automation API into Gridup's errors.

    Args:
        report: the operation's report, with the failures of its resources.
        stack: the stack that the operation works on.
    """
    try:
        yield
    except auto.ConcurrentUpdateError as error:
        raise _busy(str(error), stack) from error
    except auto.CommandError as error:
        raise _translate(str(error), report or Report()) from error


def _translate(text: str, report: Report) -> GridupError:
    if wrong := wrong_passphrase(text):
        return wrong
    failures = report.failures
    if report.refused:
        # The credentials are the cause of all other failures too, and each resource reports the same.
        head, *rest = failures[min(report.refused)].splitlines()
        return CredentialsError(head, "", tuple(rest))
    named = {name: reason for name, reason in failures.items() if name and name != "gridup"}
    reasons = named or dict(failures)
    if reasons:
        name, reason = next(iter(reasons.items()))
        head, *rest = reason.splitlines()
        others = [f"{other}: {text.splitlines()[0]}" for other, text in list(reasons.items())[1:]]
        where = f"{name}: " if name in named else ""
        return ResourceError(f"{where}{head}", "", tuple(rest + others))
    lines = [line.strip() for line in text.splitlines()]
    errors = [line.partition("error: ")[2] for line in lines if "error: " in line]
    return StateError(f"The engine stopped: {errors[0] if errors else lines[-1]}")


_HELD = re.compile(r"created by (\S+) \(pid (\d+)\) at (\S+)")


def _busy(text: str, stack: str) -> BusyError:
    found = _HELD.search(text)
    detail = f": held by {found[1]}, process {found[2]}, since {found[3]}" if found else ""
    asked = typed("env", "--stack", stack)
    cancel = f'pulumi -C "$GRIDUP_PROJECT" cancel -s {shlex.quote(stack)} --yes'
    return BusyError(
        f"Another update holds this deployment{detail}.",
        "Wait for it to end, or give --wait-lock SECONDS. Where it is gone, such as with its container or "
        f'another machine: `eval "$({asked})" && {cancel}` frees the deployment.',
    )
