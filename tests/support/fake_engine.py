"""An engine without Pulumi: the same protocol, checkpoints of the same form, nothing really made.

For tests of what commands print and how they end. `tests/contract/test_engine.py` runs one suite
against it and the real one, so that it can't drift into a fiction.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gridup.engine_api import Change, Report
from gridup.reporter import Phase, Reporter, ResourceEvent
from gridup.settings import Settings
from gridup.state import State
from gridup_infra.errors import ResourceError, StateError
from gridup_infra.spec import DeploySpec
from support.checkpoints import RESOURCES, checkpoint_path, deployment, outputs_for, write_checkpoint


class FakeEngine:
    """In the place of `gridup.engine.PulumiEngine`.

    Attributes:
        fail_at: the resource whose operation fails, with the reason.
        calls: what was asked of it, in order.
    """

    def __init__(self, settings: Settings, fail_at: tuple[str, str] | None = None) -> None:
        root = settings.file_backend
        assert root is not None
        self._root = root
        self._settings = settings
        self.fail_at = fail_at
        self.calls: list[str] = []

    def up(self, spec: DeploySpec, reporter: Reporter, *, refresh: bool = True) -> Report:
        self.calls.append("up")
        before = self._spec(spec.stack)
        report = Report()
        there = set(self._there(spec.stack))
        for name in RESOURCES:
            if name in there and before == spec:
                continue
            operation = "update" if name in there else "create"
            if not self._do(report, reporter, name, operation):
                made = [other for other in RESOURCES if other in there]
                self._write(spec, made, pending=[("creating", name)] if operation == "create" else [])
                raise self._failed(name)
            there.add(name)
        self._write(
            spec, RESOURCES, outputs=outputs_for(spec, self._settings.home.node(spec.stack)).exports()
        )
        return report

    def preview(self, spec: DeploySpec, reporter: Reporter, *, new: bool) -> Report:
        self.calls.append("preview")
        same = not new and self._spec(spec.stack) == spec
        operation = "create" if new else "update"
        return Report([] if same else [Change(name, operation) for name in RESOURCES])

    def refresh(self, stack: str, reporter: Reporter) -> Report:
        self.calls.append("refresh")
        self._known(stack)
        if self.fail_at:
            raise self._failed(self.fail_at[0])
        return Report()

    def import_existing(self, stack: str, ids: Mapping[str, str], reporter: Reporter) -> Report:
        self.calls.append("import_existing")
        self._known(stack)
        return Report()

    def destroy(self, stack: str, reporter: Reporter) -> Report:
        self.calls.append("destroy")
        self._known(stack)
        spec = self._spec(stack)
        report = Report()
        left = list(self._there(stack))
        for name in reversed(list(left)):
            if not self._do(report, reporter, name, "delete"):
                self._write(spec or self._identity(stack), left)
                raise self._failed(name)
            left.remove(name)
        self._write(spec or self._identity(stack), [])
        return report

    def remove_stack(self, stack: str) -> None:
        self.calls.append("remove_stack")
        self._known(stack)
        checkpoint_path(self._root, stack).unlink()
        shutil.rmtree(self._settings.home.stack(stack), ignore_errors=True)

    def unlock(self, stack: str) -> bool:
        self.calls.append("unlock")
        return False

    def _do(self, report: Report, reporter: Reporter, name: str, operation: str) -> bool:
        reporter.resource(ResourceEvent(name, operation, Phase.STARTED))
        failed = self.fail_at is not None and self.fail_at[0] == name
        reporter.resource(ResourceEvent(name, operation, Phase.FAILED if failed else Phase.DONE))
        if not failed:
            report.changes.append(Change(name, operation))
        return not failed

    def _failed(self, name: str) -> ResourceError:
        assert self.fail_at is not None
        return ResourceError(f"{name}: {self.fail_at[1]}")

    def _known(self, stack: str) -> None:
        if stack not in State.of(self._settings).stacks():
            raise StateError(f"The engine stopped: no stack named '{stack}' found")

    def _there(self, stack: str) -> tuple[str, ...]:
        record = State.of(self._settings).read(stack)
        return record.resources if record else ()

    def _spec(self, stack: str) -> DeploySpec | None:
        record = State.of(self._settings).read(stack)
        return record.outputs.spec if record and record.outputs else None

    def _identity(self, stack: str) -> DeploySpec:
        record = State.of(self._settings).read(stack)
        found = record.identity if record else None
        if found is None:
            return DeploySpec(name=stack)
        return replace(DeploySpec(name=found.name, target=found.target), stack_id=found.stack_id)

    def _write(
        self,
        spec: DeploySpec,
        resources: Sequence[str],
        *,
        outputs: dict[str, Any] | None = None,
        pending: Sequence[tuple[str, str]] = (),
    ) -> Path:
        latest = deployment(spec, resources, outputs=outputs, pending=pending)
        return write_checkpoint(self._root, spec.stack, latest)
