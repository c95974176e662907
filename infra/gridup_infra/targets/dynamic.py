"""The shared base of Gridup's dynamic providers: short errors, comparable inputs, a watch on the engine.

Pulumi pickles a provider into the state by reference. So the module path of a provider class must never
change: every deployed stack refers to it. A provider object stores no data, and above all no credentials.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import importlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import psutil
import pulumi
from pulumi.dynamic import ConfigureRequest, DiffResult, Resource, ResourceProvider
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.output import Unknown

from gridup_infra.errors import CredentialsError, GridupError
from gridup_infra.processes import end_descendants, wait_until
from gridup_infra.spec import urn

Properties = dict[str, Any]
T = TypeVar("T")

DRIFT = "drift"
"""The output in which `read` reports drift. If it is not empty, `diff` requests an update."""

ENGINE_POLL = 0.2
"""Seconds between two checks of whether the engine still runs."""


class ProviderError(Exception):
    """The error that the engine gets: message and suggestion in one line, then the details."""


class CredentialsProviderError(ProviderError):
    """A `ProviderError` caused by credentials. The deployer recognises it by this class name."""


class Provider(ResourceProvider):
    """Base class of providers whose outputs include the inputs as they were last applied.

    A preview does not know an input that comes from a resource which will change. Mostly its value stays the
    same, so an unknown input does not count as a change, except for those in `sure` and `shaped`.

    Attributes:
        computed: outputs that are not inputs.
        ignored: inputs whose change does not affect the real resource.
        sure: inputs that count as changed if they are unknown.
        shaped: inputs that count as changed if they are unknown and `SHAPE` changes.
    """

    computed: ClassVar[tuple[str, ...]] = ()
    ignored: ClassVar[frozenset[str]] = frozenset()
    sure: ClassVar[frozenset[str]] = frozenset()
    shaped: ClassVar[frozenset[str]] = frozenset()

    # A provider holds no secret, and an encrypted one would differ at every run.
    serialize_as_secret_always = False

    def configure(self, req: ConfigureRequest) -> None:  # noqa: ARG002 - the signature is the base's
        """Start the watch on the engine. Pulumi calls this once in each provider process, before all else."""
        _watch_engine()

    def diff(self, _id: str, olds: Properties, news: Properties) -> DiffResult:
        return DiffResult(changes=bool(self.changed(olds, news) or olds.get(DRIFT)))

    def changed(self, olds: Properties, news: Properties) -> list[str]:
        """Return the inputs whose change requires an update."""
        changing = self.sure
        if normalize_numbers(olds.get(SHAPE)) != normalize_numbers(news.get(SHAPE)):
            changing |= self.shaped
        passed_over = {SHAPE, *self.ignored, *self.computed}
        return [
            key
            for key in changed_inputs(olds, news)
            if key not in passed_over and (key in changing or not unknown(news[key]))
        ]

    def carry_over_computed(self, olds: Properties) -> Properties:
        """Return the computed outputs, which an update carries over unchanged."""
        return {key: olds.get(key) for key in self.computed}


SHAPE = "shape"
"""The input that represents the inputs that a preview does not know: a hash of the known part of them."""


def shape(known: Any) -> str:
    """Return the value of `SHAPE` for the known part of the inputs."""
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


PROTOCOLS = (4, 5)
"""The pickle protocols of providers in a state; they depend on the Python that ran the program. For Gridup's
providers the results differ in one byte."""


@functools.cache
def serialized(module: str) -> frozenset[str]:
    """Return all serialized forms that the providers of a module can have in a state."""
    held = vars(importlib.import_module(module)).values()
    found = set()
    for kind in held:
        if isinstance(kind, type) and issubclass(kind, Provider) and kind.__module__ == module:
            raw = base64.b64decode(serialize_provider(kind()))
            found |= {base64.b64encode(raw[:1] + bytes([n]) + raw[2:]).decode() for n in PROTOCOLS}
    return frozenset(found)


class OwnedResource(Resource, module="gridup", name="OwnedResource"):
    """A resource with its URN as an input, so that its provider can write the URN on what it creates.

    Attributes:
        provider_class: the class of its provider.
    """

    provider_class: ClassVar[type[Provider]]

    def __init__(self, name: str, props: Properties, opts: pulumi.ResourceOptions | None = None) -> None:
        # Pulumi needs each computed output declared as an input without a value.
        told = dict.fromkeys(self.provider_class.computed)
        own = urn(pulumi.get_stack(), f"pulumi-python:{self._resource_type_name}", name)
        super().__init__(self.provider_class(), name, {**props, **told, "urn": own}, opts)


def changed_inputs(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """Return the inputs that differ from those last applied."""
    return sorted(
        key
        for key in news
        if not key.startswith("__") and normalize_numbers(news[key]) != normalize_numbers(olds.get(key))
    )


def unknown(value: Any) -> bool:
    """Return whether a part of a value is known only after other resources are created."""
    if isinstance(value, Mapping):
        return any(map(unknown, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(unknown, value))
    return isinstance(value, Unknown)


def normalize_numbers(value: Any) -> Any:
    """Return a value with whole floats as ints: Pulumi's protocol has one number type, so 8080.0 is 8080."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: normalize_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [normalize_numbers(item) for item in value]
    return value


def translate_errors(work: Callable[[], T]) -> T:
    """Run a provider's work and return its result; translate Gridup's errors for the engine.

    Raises:
        ProviderError: the work failed for a reason that a user can act on.
    """
    try:
        made = work()
        _hold(work)
        return made
    except GridupError as error:
        text = " ".join(part for part in (error.message, error.suggestion) if part)
        # The engine adds a blank line after the message, so a blank line inside would be taken for its end.
        tail = [line.rstrip() for detail in error.details for line in detail.splitlines() if line.strip()]
        # `from None`: the engine prints the whole chain.
        kind = CredentialsProviderError if isinstance(error, CredentialsError) else ProviderError
        raise kind("\n".join([text, *tail])) from None


FAULT_POINT = "GRIDUP_TEST_HOLD"
"""Only for the tests. With `NodeProvider.create=FILE`, that method creates FILE once its work is done, and
waits until FILE is deleted. Only then does the engine get the result. So a test can interrupt a run at a
known moment."""


def _hold(work: Callable[[], object]) -> None:
    fault_point(getattr(work, "__qualname__", "").partition(".<")[0])


def fault_point(name: str) -> None:
    """Wait here if a test asks for it: a named moment in a provider's work, see `FAULT_POINT`."""
    wanted, _, file = os.environ.get(FAULT_POINT, "").partition("=")
    if wanted and wanted == name:
        Path(file).touch()
        wait_until(lambda: not Path(file).exists(), timeout=600)


_watching = threading.Lock()


def _watch_engine() -> None:
    """End this process when its engine has ended.

    A provider outlives a killed engine. It would go on to create resources that are in no state, even while a
    `destroy` runs.
    """
    if not _watching.acquire(blocking=False):
        return
    ended = _engine_ended()

    def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while not ended():
                time.sleep(ENGINE_POLL)
        end_descendants(os.getpid())
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="engine-watch").start()


def _engine_ended() -> Callable[[], bool]:
    """Return a function that checks whether the engine has ended.

    The engine is the nearest ancestor process named `pulumi`; a shell may be between. If there is none (the
    engine has another name, or ended before this call), check the address in this process's last argument.
    """
    above = psutil.Process().parents()
    named = next((process for process in above if process.name() == "pulumi"), None)
    address = _ADDRESS.fullmatch(sys.argv[-1])
    if named is None and address:
        place = (address["host"], int(address["port"]))
        return lambda: not _listens(place)
    engine = named or above[0]
    return lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE


_ADDRESS = re.compile(r"(?P<host>[\w.-]+):(?P<port>\d+)")


def _listens(place: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(place, timeout=1):
            return True
    except OSError:
        return False
