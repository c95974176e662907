"""Translates the engine's events, failures and the messages of its providers for a `Reporter`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gridup.engine_api import Change, Report
from gridup.reporter import Phase, Reporter, ResourceEvent
from gridup.state import resource_name
from gridup_infra import progress


class EventTranslator:
    """Translates the engine's events (`pulumi.automation.EngineEvent`) for a reporter and a `Report`."""

    def __init__(self, reporter: Reporter) -> None:
        self.report = Report()
        self.failures: dict[str, str] = self.report.failures
        self._reporter = reporter
        self._since: dict[str, float] = {}

    def event(self, event: Any) -> None:
        if event.resource_pre_event:
            self._began(event.resource_pre_event.metadata)
        elif event.res_outputs_event:
            self._ended(event.res_outputs_event.metadata, Phase.DONE)
        elif event.res_op_failed_event:
            self._ended(event.res_op_failed_event.metadata, Phase.FAILED)
        elif event.diagnostic_event and event.diagnostic_event.severity == "error":
            diagnostic = event.diagnostic_event
            name = resource_name(diagnostic.urn) if diagnostic.urn else ""
            reason = _reason(diagnostic.message)
            if reason:
                self.failures.setdefault(name, reason)
                if _CREDENTIALS.search(diagnostic.message):
                    self.report.refused.add(name)

    def _began(self, metadata: Any) -> None:
        name, operation = resource_name(metadata.urn), _operation(metadata.op)
        if _is_ours(metadata) and operation != "same":
            self._since[name] = time.monotonic()
            self._reporter.resource(ResourceEvent(name, operation, Phase.STARTED, changed=_changed(metadata)))

    def _ended(self, metadata: Any, phase: Phase) -> None:
        name, operation = resource_name(metadata.urn), _operation(metadata.op)
        if not _is_ours(metadata) or operation == "same":
            return
        changed = _changed(metadata)
        took = time.monotonic() - self._since.pop(name, time.monotonic())
        self._reporter.resource(ResourceEvent(name, operation, phase, took, changed))
        if phase is Phase.DONE and (operation not in ("refresh", "read") or changed):
            self.report.changes.append(Change(name, operation, changed))


def _is_ours(metadata: Any) -> bool:
    return not metadata.type.startswith("pulumi:")


def _operation(op: Any) -> str:
    return str(getattr(op, "value", op))


def _changed(metadata: Any) -> tuple[str, ...]:
    return tuple(key for key in (metadata.diffs or ()) if not key.startswith("__"))


@contextlib.contextmanager
def watching(reporter: Reporter) -> Iterator[EventTranslator]:
    """Provide a translator for the engine's events, and report messages of providers meanwhile."""
    with tempfile.NamedTemporaryFile(prefix="gridup-progress-") as file:
        os.environ[progress.VARIABLE] = file.name
        done = threading.Event()
        thread = threading.Thread(target=_follow, args=(Path(file.name), reporter, done), daemon=True)
        thread.start()
        try:
            yield EventTranslator(reporter)
        finally:
            done.set()
            thread.join(timeout=2)
            os.environ.pop(progress.VARIABLE, None)


def _follow(path: Path, reporter: Reporter, done: threading.Event) -> None:
    with path.open(encoding="utf-8") as file:
        while not done.wait(0.1):
            for line in file:
                with contextlib.suppress(ValueError, KeyError):
                    told = json.loads(line)
                    reporter.detail(told["resource"], told["text"])


_FAILED = re.compile(r"ProviderError: (.*)", re.DOTALL)
_CREDENTIALS = re.compile(r"\b(CredentialsProviderError|gridup_infra\.errors\.CredentialsError): ")
_OURS = re.compile(r"gridup_infra\.errors\.(\w+): (.*)", re.DOTALL)
_NOISE = re.compile(r"^(update|preview|refresh|destroy|deletion) failed$|^resource .* has a problem")


def _reason(message: str) -> str:
    """Extract the reason of a failure from a diagnostic, which may contain a provider's traceback."""
    text = re.sub(r"<\{%[^%]*%\}>", "", message).strip()
    for pattern, group in ((_FAILED, 1), (_OURS, 2)):
        if found := pattern.search(text):
            return found.group(group).strip().rstrip("\n").split("\n\n")[0].strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or (_NOISE.search(lines[0]) and len(lines) == 1):
        return ""
    return lines[-1] if "Traceback" in text else lines[0].removeprefix("error: ")
