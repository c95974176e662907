"""Pulumi's protocol, as pulumi-azure-native 3 speaks it: what it asks of ARM for each call, and what it says.

What it does was read in its source: it looks before it creates, reads after it wrote, compares inputs with
inputs, writes into them at a refresh only what has changed since, and keeps lists that are resources of their
own.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from support.azure_native import kinds, shapes
from support.azure_native.client import ENDPOINT, AcceptedError, Arm, ArmError, Cancelled
from support.azure_native.credentials import Credential, CredentialsError
from support.azure_native.differing import REPLACE, carried_over, differences
from support.azure_native.kinds import Kind
from support.azure_native.values import UNKNOWN, Object, plain, struct

VERSION = "3.29.0"

LONGEST = 7200.0
"""Seconds that an operation may take where the program says nothing."""

MADE_UP = "__createBeforeDelete"
"""Among the inputs: the name was made up, so that another thing can be made beside it."""

API_VERSION = "azureApiVersion"
"""An input and an output of every type."""


class HalfMade(Exception):
    """ARM took it, and then failed: there is something, which the engine must know."""

    def __init__(self, id_: str, error: AcceptedError, state: Object, inputs: Struct) -> None:
        super().__init__(str(error))
        self.status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
        detail = provider_pb2.ErrorResourceInitFailed(
            id=id_, properties=struct(state), reasons=[str(error)], inputs=inputs
        )
        self.status.details.add().Pack(detail)


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """Serves one engine.

    Attributes:
        busy: how many calls are under way.
    """

    def __init__(self) -> None:
        self.busy = 0
        self._lock = threading.Lock()
        self._config: dict[str, str] = {}
        self._places: dict[str, str] = {}
        self._cancelled = threading.Event()
        self._connected: Arm | None = None

    # The provider's own.

    def Attach(self, request, context):
        return Empty()

    def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo(version=VERSION)

    def CheckConfig(self, request, context):
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request, context):
        return provider_pb2.DiffResponse()

    def Configure(self, request, context):
        with self._answering(context):
            prefix = "azure-native:config:"
            self._config = {key.removeprefix(prefix): value for key, value in request.variables.items()}
            endpoint = os.environ.get(ENDPOINT)
            if not endpoint:
                raise CredentialsError(f"{ENDPOINT} is not set: this provider knows no cloud of its own")
            credential = Credential(self._config, os.environ, endpoint.rstrip("/"))
            self._connected = Arm(endpoint, credential, self._cancelled)
            return provider_pb2.ConfigureResponse(
                supportsPreview=True, supports_autonaming_configuration=True
            )

    def Cancel(self, request, context):
        self._cancelled.set()
        return Empty()

    @property
    def _arm(self) -> Arm:
        if self._connected is None:
            raise CredentialsError("the provider is not configured")
        return self._connected

    @contextmanager
    def _answering(self, context: grpc.ServicerContext) -> Iterator[None]:
        """A call under way, whose errors are told to the engine."""
        with self._lock:
            self.busy += 1
        try:
            yield
        except HalfMade as error:
            context.set_trailing_metadata((("grpc-status-details-bin", error.status.SerializeToString()),))
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except (ArmError, Cancelled, LookupError, CredentialsError, OSError, ValueError) as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        finally:
            with self._lock:
                self.busy -= 1

    def _unknown(self, request, context):
        """As the base class has it, but without a traceback in the engine's output."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "This provider makes resources, and does nothing else.")

    Handshake = Parameterize = GetSchema = Invoke = Call = Construct = List = _unknown
    GetMapping = GetMappings = _unknown

    # A resource's inputs.

    def Check(self, request, context):
        with self._answering(context):
            kind = kinds.of(request.urn)
            olds, news = plain(request.olds), plain(request.news)
            if kind.named not in news:
                self._name(kind, request, olds, news)
            if "location" not in news and "location" in shapes.properties(kind.shape):
                news |= self._location(olds, news)
            news.setdefault(API_VERSION, kind.api_version)
            faults = [f"missing required property '{place}'" for place in kind.places if place not in news]
            faults += shapes.faults(kind.shape, news)
            return provider_pb2.CheckResponse(
                inputs=struct(news), failures=[provider_pb2.CheckFailure(reason=fault) for fault in faults]
            )

    def _name(self, kind: Kind, request: provider_pb2.CheckRequest, olds: Object, news: Object) -> None:
        """The name that it had; else one with the resource's own name in it."""
        modes = provider_pb2.CheckRequest.AutonamingOptions
        wish = request.autonaming if request.HasField("autonaming") else None
        if kind.named in olds:
            news[kind.named] = olds[kind.named]
            if olds.get(MADE_UP):
                news[MADE_UP] = True
        elif wish is None:
            end = hashlib.sha256(request.randomSeed or os.urandom(32)).hexdigest()[:8]
            news |= {kind.named: request.urn.rpartition("::")[2] + end, MADE_UP: True}
        elif wish.mode != modes.DISABLE:
            news |= {kind.named: wish.proposed_name, MADE_UP: True}

    def _location(self, olds: Object, news: Object) -> Object:
        """Where it was; else where the configuration says; else where its group is."""
        if place := olds.get("location") or self._config.get("location"):
            return {"location": place}
        group = news.get("resourceGroupName")
        if group is UNKNOWN:
            return {"location": UNKNOWN}
        if isinstance(group, str) and group not in self._places:
            id_ = kinds.group_id(self._arm.credential.subscription, group)
            try:
                self._places[group] = self._arm.get(id_, kinds.RESOURCES)["location"]
            except ArmError:
                return {}
        return {"location": self._places[group]} if isinstance(group, str) else {}

    def Diff(self, request, context):
        with self._answering(context):
            kind = kinds.of(request.urn)
            state, olds, news = plain(request.olds), plain(request.old_inputs), plain(request.news)
            if API_VERSION not in olds and API_VERSION in state:
                olds[API_VERSION] = state[API_VERSION]
            found = differences(olds, news, {*kind.places, *kind.replaced})
            for path, how in found.items():
                if how == "ADD_REPLACE" and path in state and state[path] == news.get(path):
                    found[path] = "ADD"  # It was so all the time, and only now it is said.
            replaces = [path for path, how in found.items() if how.endswith(REPLACE)]
            return provider_pb2.DiffResponse(
                changes=provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE,
                diffs=sorted({path.partition(".")[0].partition("[")[0] for path in found}),
                replaces=replaces,
                deleteBeforeReplace=not olds[MADE_UP] if MADE_UP in olds else bool(replaces),
                detailedDiff={
                    path: provider_pb2.PropertyDiff(kind=how, inputDiff=True) for path, how in found.items()
                },
                hasDetailedDiff=True,
            )

    # The resource itself.

    def Create(self, request, context):
        with self._answering(context):
            kind, inputs = kinds.of(request.urn), plain(request.properties)
            if request.preview:
                return provider_pb2.CreateResponse(
                    properties=struct(shapes.expected(kind.shape, inputs) | {API_VERSION: kind.api_version})
                )
            id_ = kind.id(self._arm.credential.subscription, inputs)
            self._must_not_exist(kind, id_)
            body = shapes.body(kind.shape, inputs)
            for name in kind.kept:
                body.setdefault("properties", {}).setdefault(name, [])
            made = self._written(kind, id_, body, request, request.properties)
            return provider_pb2.CreateResponse(id=made.get("id", id_), properties=self._state(kind, made))

    def _must_not_exist(self, kind: Kind, id_: str) -> None:
        try:
            there = self._arm.get(id_, kind.api_version)
        except ArmError as error:
            if error.status == 404:
                return
            raise ValueError(f"cannot check existence of resource '{id_}': {error}") from None
        if there:
            raise ValueError(f"cannot create already existing resource '{id_}'")

    def Update(self, request, context):
        with self._answering(context):
            kind, inputs = kinds.of(request.urn), plain(request.news)
            if request.preview:
                state = plain(request.olds)
                stable = {name: state[name] for name in ("name", "location") if name in state}
                return provider_pb2.UpdateResponse(
                    properties=struct(
                        shapes.expected(kind.shape, inputs) | stable | {API_VERSION: kind.api_version}
                    )
                )
            id_ = kind.id(self._arm.credential.subscription, inputs)
            body = shapes.body(kind.shape, inputs)
            missing = [name for name in kind.kept if name not in body.get("properties", {})]
            if missing:
                there = self._arm.get(id_, kind.api_version)
                kept = {name: shapes.sent_back(kind.shape, name, there) for name in missing}
                properties = body.setdefault("properties", {})
                properties |= {name: value for name, value in kept.items() if value is not None}
            made = self._written(kind, id_, body, request, request.news)
            return provider_pb2.UpdateResponse(properties=self._state(kind, made))

    def _written(self, kind: Kind, id_: str, body: Object, request: Any, inputs: Struct) -> Object:
        """The thing as it is after the PUT, read again: what a PUT answers may differ."""
        try:
            made = self._arm.put(id_, kind.api_version, body, _deadline(request))
        except AcceptedError as error:
            try:
                state = shapes.outputs(kind.shape, self._arm.get(id_, kind.api_version))
            except (ArmError, Cancelled, OSError):
                state = {}
            raise HalfMade(id_, error, state, inputs) from None
        return self._arm.get(made.get("id", id_), kind.api_version)

    def _state(self, kind: Kind, answer: Object) -> Struct:
        return struct(shapes.outputs(kind.shape, answer) | {API_VERSION: kind.api_version})

    def Read(self, request, context):
        with self._answering(context):
            kind, old = kinds.of(request.urn), plain(request.properties)
            try:
                answer = self._arm.get(request.id, kind.api_version)
            except ArmError as error:
                if error.status != 404:
                    raise
                return provider_pb2.ReadResponse()
            now = shapes.outputs(kind.shape, answer)
            if request.HasField("inputs"):
                inputs = self._refreshed(kind, plain(request.inputs), old, now)
            else:
                inputs = shapes.without_empty(shapes.inputs(kind.shape, now)) or {}
                inputs |= kind.parts(request.id)
            return provider_pb2.ReadResponse(
                id=request.id, properties=self._state(kind, answer), inputs=struct(inputs)
            )

    def _refreshed(self, kind: Kind, inputs: Object, old: Object, now: Object) -> Object:
        theirs = [name for name in kind.kept if name not in inputs]
        now = {name: value for name, value in now.items() if name not in theirs}
        return carried_over(inputs, shapes.inputs(kind.shape, old), shapes.inputs(kind.shape, now))

    def Delete(self, request, context):
        with self._answering(context):
            kind = kinds.of(request.urn)
            self._arm.delete(request.id, kind.api_version, _deadline(request))
            return Empty()


def _deadline(request: Any) -> float:
    return time.monotonic() + (request.timeout or LONGEST)
