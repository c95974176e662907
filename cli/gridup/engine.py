"""The Pulumi engine, over the Automation API with inline programs. The only module that knows it.

Its events go to a `Reporter`, its errors become ours. Every wait is bounded, and a Ctrl-C ends the
engine and its providers in bounded time with no lock left.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pulumi import automation as auto
from semver import VersionInfo

from gridup import pending
from gridup.engine_api import Report
from gridup.engine_events import Watch, watching
from gridup.reporter import Reporter
from gridup.settings import Settings
from gridup.setup.engine import Engine as Binary
from gridup.state import State, wrong_passphrase
from gridup_infra.errors import (
    BusyError,
    GridupError,
    InterruptedError_,
    ResourceError,
    StateError,
)
from gridup_infra.locking import locked
from gridup_infra.paths import Home, ensure_private
from gridup_infra.processes import EngineProcess
from gridup_infra.spec import PROJECT, DeploySpec

Made = TypeVar("Made")

GRACE = 5.0
"""Seconds that a create under way may take to end by itself after Ctrl-C."""


class PulumiEngine:
    """The real one.

    Args:
        binary: the engine that set-up found or made.
    """

    def __init__(self, settings: Settings, binary: Binary) -> None:
        self._settings = settings
        self._home: Home = settings.home
        self._command = _Command(Path(binary.root), binary.version)

    def up(self, spec: DeploySpec, reporter: Reporter, *, refresh: bool = True) -> Report:
        stack = self._open(spec.stack, spec)
        with watching(reporter) as watch:
            return self._do(
                spec.stack,
                watch,
                # What was found changed becomes a change of ours, and so is put right.
                lambda: stack.up(on_event=watch.event, refresh=refresh, show_secrets=False),
            )

    def preview(self, spec: DeploySpec, reporter: Reporter, *, new: bool) -> Report:
        with contextlib.ExitStack() as cleanup:
            if new:
                # A stack is made by deploying, not by looking: this one lives in a folder of its own.
                folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="gridup-preview-")))
                stack = self._open(spec.stack, spec, elsewhere=folder)
            else:
                stack = self._open(spec.stack, spec)
            watch = cleanup.enter_context(watching(reporter))
            return self._do(spec.stack, watch, lambda: stack.preview(on_event=watch.event, refresh=not new))

    def refresh(self, stack: str, reporter: Reporter) -> Report:
        opened = self._open(stack)
        with watching(reporter) as watch:
            return self._do(
                stack,
                watch,
                lambda: opened.refresh(on_event=watch.event, show_secrets=False, clear_pending_creates=True),
            )

    def adopt(self, stack: str, ids: Mapping[str, str], reporter: Reporter) -> Report:
        opened = self._open(stack)
        # A killed run leaves its lock, and an import respects it.
        self.unlock(stack)
        asked = self._edited(opened, lambda deployment: pending.take(deployment, ids))
        report = self.refresh(stack, reporter)
        self._edited(opened, lambda deployment: pending.restore(deployment, asked))
        return report

    def destroy(self, stack: str, reporter: Reporter) -> Report:
        opened = self._open(stack)
        with watching(reporter) as watch:
            return self._do(stack, watch, lambda: opened.destroy(on_event=watch.event, show_secrets=False))

    def forget(self, stack: str) -> None:
        import shutil

        folder = self._home.stack(stack)
        workspace = self._workspace(folder)
        with _errors({}):
            # The Automation API has no word for the backups, which hold the whole state.
            words = ["stack", "rm", stack, "--yes", "--remove-backups"]
            self._command.run(words, str(folder), workspace.env_vars)
        # Another run may be opening its lock in it right now.
        shutil.rmtree(folder, ignore_errors=True)

    def unlock(self, stack: str) -> bool:
        found = [lock for lock in self._locks(stack) if _is_dead(lock)]
        for lock in found:
            lock.path.unlink(missing_ok=True)
        return bool(found)

    def lock(self, stack: str, name: str, what: str, wait: float) -> contextlib.AbstractContextManager[None]:
        return locked(self._home.stack(stack) / "lock", what, wait=wait, busy=f"{name} is busy")

    def _do(self, stack: str, watch: Watch, work: Callable[[], object]) -> Report:
        try:
            with _errors(watch.failures):
                try:
                    work()
                except auto.ConcurrentUpdateError:
                    # A killed run leaves its lock; one whose holder lives is respected.
                    if not self.unlock(stack):
                        raise
                    work()
        except KeyboardInterrupt:
            self.unlock(stack)
            raise self._interrupted(stack) from None
        return watch.report

    def _interrupted(self, stack: str) -> InterruptedError_:
        record = State.of(self._settings).read(stack)
        name = record.name if record else stack
        exists = ", ".join(record.resources) if record and record.resources else "nothing"
        half = f"; broken off: {', '.join(record.pending)}" if record and record.pending else ""
        return InterruptedError_(
            f"Stopped. What exists of {name}: {exists}{half}.",
            f'Run the same command again to go on, or `gridup destroy "{name}"` to take it away.',
        )

    @staticmethod
    def _edited(opened: auto.Stack, edit: Callable[[dict[str, Any]], Made]) -> Made:
        with _errors({}):
            state = opened.export_stack()
            deployment = dict(state.deployment or {})
            made = edit(deployment)
            opened.import_stack(auto.Deployment(state.version, deployment))
        return made

    def _open(self, stack: str, spec: DeploySpec | None = None, elsewhere: Path | None = None) -> auto.Stack:
        """The stack, made when there is a spec for it; `elsewhere` in a backend that is thrown away."""
        folder = elsewhere / "work" if elsewhere else self._home.stack(stack)
        workspace = self._workspace(folder, elsewhere)
        with _errors({}):
            opened = (_Stack.create_or_select if spec else _Stack.select)(stack, workspace)
            if spec:
                from gridup_infra.program import main

                workspace.program = main
                known = workspace.stack_settings(stack) if self._has_settings(folder, stack) else None
                fresh = known or auto.StackSettings()
                fresh.config = {f"{PROJECT}:{key}": value for key, value in spec.to_config().items()}
                workspace.save_stack_settings(stack, fresh)
        return opened

    @staticmethod
    def _has_settings(folder: Path, stack: str) -> bool:
        return (folder / f"Pulumi.{stack}.yaml").exists()

    def _workspace(self, folder: Path, elsewhere: Path | None = None) -> auto.LocalWorkspace:
        ensure_private(folder)
        environment = self._settings.pulumi_environment()
        if elsewhere:
            backend = ensure_private(elsewhere / "state")
            environment |= {"PULUMI_BACKEND_URL": f"file://{backend}", "PULUMI_CONFIG_PASSPHRASE": "preview"}
        return auto.LocalWorkspace(
            work_dir=str(folder),
            pulumi_command=self._command,
            env_vars=environment,
            project_settings=auto.ProjectSettings(name=PROJECT, runtime="python"),
        )

    def _locks(self, stack: str) -> Iterator[_Lock]:
        root = self._settings.file_backend
        if root is None:
            return
        for path in (root / ".pulumi" / "locks" / "organization" / PROJECT / stack).glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                content = json.loads(path.read_text())
                yield _Lock(path, int(content["pid"]), content["hostname"])


@dataclass(frozen=True)
class _Lock:
    path: Path
    pid: int
    hostname: str


def _is_dead(lock: _Lock) -> bool:
    import psutil

    if lock.hostname != socket.gethostname():
        return False
    try:
        holder = psutil.Process(lock.pid)
        # One that was killed a moment ago may not have been buried yet.
        return "pulumi" not in holder.name() or holder.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


class _Stack(auto.Stack):
    """Without the three processes that ask for outputs and history after each operation.

    The checkpoint and the events tell the same.
    """

    def outputs(self) -> Any:
        return {}

    def info(self, show_secrets: bool = False) -> Any:  # noqa: ARG002 - the signature is the base's
        return _NO_SUMMARY


_NO_SUMMARY = object()


class _Command(auto.PulumiCommand):
    """Runs the engine in a session of its own, so that a Ctrl-C reaches it in our order."""

    def __init__(self, root: Path, version: str) -> None:
        # The base would start a process to ask for the version that set-up knows.
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


@contextlib.contextmanager
def _errors(failures: Mapping[str, str]) -> Iterator[None]:
    """Our errors in place of the Automation API's."""
    try:
        yield
    except auto.ConcurrentUpdateError as error:
        raise _busy(str(error)) from error
    except auto.CommandError as error:
        raise _translate(str(error), failures) from error


def _translate(text: str, failures: Mapping[str, str]) -> GridupError:
    if wrong := wrong_passphrase(text):
        return wrong
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


def _busy(text: str) -> BusyError:
    found = _HELD.search(text)
    detail = f": held by {found[1]}, process {found[2]}, since {found[3]}" if found else ""
    return BusyError(
        f"Another update holds this deployment{detail}.",
        "Wait for it to end, or give --wait-lock SECONDS.",
    )
