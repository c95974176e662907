"""Calls the Azure tests' provider as the engine does, in this process."""

from __future__ import annotations

from typing import Any

import grpc
from pulumi.runtime.proto import provider_pb2

from support.azure_native.server import Provider
from support.azure_native.values import struct


class Refused(Exception):
    """What the engine would get."""


class Context:
    """As gRPC hands one to a servicer."""

    def __init__(self) -> None:
        self.metadata: tuple[tuple[str, bytes], ...] = ()

    def set_trailing_metadata(self, metadata: tuple[tuple[str, bytes], ...]) -> None:
        self.metadata = metadata

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Refused(details)


class Caller:
    """Calls the provider as the engine does."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.context: Any = Context()

    def configure(self, **variables: str) -> provider_pb2.ConfigureResponse:
        return self.provider.Configure(
            provider_pb2.ConfigureRequest(
                variables={f"azure-native:config:{name}": value for name, value in variables.items()}
            ),
            self.context,
        )

    def check(self, type_: str, news: Any, olds: Any = None, **more: Any) -> provider_pb2.CheckResponse:
        return self.provider.Check(
            provider_pb2.CheckRequest(urn=urn(type_), news=struct(news), olds=struct(olds or {}), **more),
            self.context,
        )

    def create(self, type_: str, inputs: Any, preview: bool = False) -> provider_pb2.CreateResponse:
        return self.provider.Create(
            provider_pb2.CreateRequest(urn=urn(type_), properties=struct(inputs), preview=preview),
            self.context,
        )

    def update(self, type_: str, state: Any, olds: Any, news: Any, preview: bool = False) -> Any:
        return self.provider.Update(
            provider_pb2.UpdateRequest(
                urn=urn(type_),
                olds=struct(state),
                old_inputs=struct(olds),
                news=struct(news),
                preview=preview,
            ),
            self.context,
        )

    def diff(self, type_: str, olds: Any, news: Any, state: Any = None) -> provider_pb2.DiffResponse:
        return self.provider.Diff(
            provider_pb2.DiffRequest(
                urn=urn(type_), olds=struct(state or {}), old_inputs=struct(olds), news=struct(news)
            ),
            self.context,
        )

    def read(self, type_: str, id_: str, state: Any = None, inputs: Any = None) -> provider_pb2.ReadResponse:
        request = provider_pb2.ReadRequest(urn=urn(type_), id=id_, properties=struct(state or {}))
        if inputs is not None:
            request.inputs.CopyFrom(struct(inputs))
        return self.provider.Read(request, self.context)

    def delete(self, type_: str, id_: str) -> None:
        self.provider.Delete(provider_pb2.DeleteRequest(urn=urn(type_), id=id_), self.context)


def urn(type_: str, name: str = "thing") -> str:
    return f"urn:pulumi:inst::gridup::{type_}::{name}"
