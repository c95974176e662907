"""What all of our dynamic providers share: errors in one line, comparable inputs, a watch on the engine.

Pulumi pickles a provider into the state by reference: the module path of each class is a promise
to every stack that is deployed. A provider holds nothing, least of all a credential.
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
"""The output in which `read` says what is not as defined; `diff` makes an update of it."""

ENGINE_POLL = 0.2
"""Seconds between two looks at whether the engine still lives."""


class ProviderError(Exception):
    """What the engine is told: one line, the suggestion with it."""


class CredentialsProviderError(ProviderError):
    """The same, where credentials are the cause: by this name the deployer knows it again."""


class Provider(ResourceProvider):
    """A provider whose inputs stand in its outputs as they were when last applied.

    What a preview can't know is no change, but for what `sure` and `shaped` say: it is what another resource
    tells after it is changed, and that is mostly the same as before.

    Attributes:
        computed: outputs that are no inputs.
        ignored: inputs whose change changes nothing that is there.
        sure: inputs that do change where they can't be known.
        shaped: inputs that change, where they can't be known, as `SHAPE` does.
    """

    computed: ClassVar[tuple[str, ...]] = ()
    ignored: ClassVar[frozenset[str]] = frozenset()
    sure: ClassVar[frozenset[str]] = frozenset()
    shaped: ClassVar[frozenset[str]] = frozenset()

    # Nothing in it is secret, and an encrypted one would differ at every run.
    serialize_as_secret_always = False

    def configure(self, req: ConfigureRequest) -> None:  # noqa: ARG002 - the signature is the base's
        """Called once in each provider process, before all else."""
        _watch_engine()

    def diff(self, _id: str, olds: Properties, news: Properties) -> DiffResult:
        return DiffResult(changes=bool(self.changed(olds, news) or olds.get(DRIFT)))

    def changed(self, olds: Properties, news: Properties) -> list[str]:
        """The inputs that matter and differ."""
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
        """What an update leaves as it was told."""
        return {key: olds.get(key) for key in self.computed}


SHAPE = "shape"
"""The input that stands for those which a preview can't know: a hash of what is known of them."""


def shape(known: Any) -> str:
    """The value of `SHAPE` for what is known."""
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


PROTOCOLS = (4, 5)
"""In which a provider is pickled, by the Python that ran the program; for ours they differ in one byte."""


@functools.cache
def serialized(module: str) -> frozenset[str]:
    """All that the providers of a module are written as in a state."""
    held = vars(importlib.import_module(module)).values()
    found = set()
    for kind in held:
        if isinstance(kind, type) and issubclass(kind, Provider) and kind.__module__ == module:
            raw = base64.b64decode(serialize_provider(kind()))
            found |= {base64.b64encode(raw[:1] + bytes([n]) + raw[2:]).decode() for n in PROTOCOLS}
    return frozenset(found)


class OwnedResource(Resource, module="gridup", name="OwnedResource"):
    """A resource whose URN is among its inputs: its provider puts it on what it makes.

    Attributes:
        provider_class: its provider.
    """

    provider_class: ClassVar[type[Provider]]

    def __init__(self, name: str, props: Properties, opts: pulumi.ResourceOptions | None = None) -> None:
        # What is told is declared as an input that has no value yet.
        told = dict.fromkeys(self.provider_class.computed)
        own = urn(pulumi.get_stack(), f"pulumi-python:{self._resource_type_name}", name)
        super().__init__(self.provider_class(), name, {**props, **told, "urn": own}, opts)


def changed_inputs(olds: Mapping[str, Any], news: Mapping[str, Any]) -> list[str]:
    """The inputs that differ from those last applied."""
    return sorted(
        key
        for key in news
        if not key.startswith("__") and normalize_numbers(news[key]) != normalize_numbers(olds.get(key))
    )


def unknown(value: Any) -> bool:
    """Whether something in it is only known once others are made."""
    if isinstance(value, Mapping):
        return any(map(unknown, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(unknown, value))
    return isinstance(value, Unknown)


def normalize_numbers(value: Any) -> Any:
    """Pulumi's wire has one kind of number: 8080.0 and 8080 are the same."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: normalize_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [normalize_numbers(item) for item in value]
    return value


def translate_errors(work: Callable[[], T]) -> T:
    """Do a provider's work, with our errors in one line.

    Raises:
        ProviderError: the work failed for a reason that a person can act on.
    """
    try:
        made = work()
        _hold(work)
        return made
    except GridupError as error:
        text = " ".join(part for part in (error.message, error.suggestion) if part)
        # A blank line would be taken for the end; the engine puts one after what we say.
        tail = [line.rstrip() for detail in error.details for line in detail.splitlines() if line.strip()]
        # `from None`: the engine prints the whole chain.
        kind = CredentialsProviderError if isinstance(error, CredentialsError) else ProviderError
        raise kind("\n".join([text, *tail])) from None


FAULT_POINT = "GRIDUP_TEST_HOLD"
"""For our test suite alone: `NodeProvider.create=FILE` makes that work, once done, create FILE and wait
until it is gone before the engine hears of it. So a run can be interrupted at a known moment."""


def _hold(work: Callable[[], object]) -> None:
    fault_point(getattr(work, "__qualname__", "").partition(".<")[0])


def fault_point(name: str) -> None:
    """A known moment within a provider's work, such as "the daemon has made it": see `FAULT_POINT`."""
    wanted, _, file = os.environ.get(FAULT_POINT, "").partition("=")
    if wanted and wanted == name:
        Path(file).touch()
        wait_until(lambda: not Path(file).exists(), timeout=600)


_watching = threading.Lock()


def _watch_engine() -> None:
    """End this process when its engine has ended.

    A provider outlives a killed engine and would go on making things that no state knows of,
    behind the back of a `destroy` that runs meanwhile.
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
    """Whether the engine is no more: our nearest ancestor of that name, for a shell may stand between.

    One of another name, or that ended before this was called, is known by the address that we were told.
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
