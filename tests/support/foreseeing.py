"""Pulumi's engine in little: what a deploy changes of a node that is there, and what a preview of it shows.

Each resource is diffed by its own provider. As in the engine, a preview knows of what is changed only its
inputs, and its id unless it is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pulumi
from pulumi.dynamic import Resource, ResourceProvider

from gridup_infra import targets
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.dynamic import Provider
from support.declaring import declared
from support.state_format import ANSWERS

Outs = dict[str, Any]


class Native(Provider):
    """Stands for the providers that are not ours: another one that tells something else takes its place."""


@dataclass
class Stack(pulumi.runtime.Mocks):
    """What is deployed, by the names of the resources.

    Attributes:
        tells: what a resource tells otherwise once it is changed.
        ids, outs: as in the state.
        changed: what the last run changed.
    """

    tells: Mapping[str, Outs] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    outs: dict[str, Outs] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    _preview: bool = False
    _providers: dict[str, ResourceProvider] = field(default_factory=dict)

    def run(self, spec: DeploySpec, *, preview: bool = False) -> set[str]:
        """Deploy the spec, or preview it; the resources that are made or changed."""
        self.changed, self._preview, self._providers = set(), preview, {}
        begin = Resource.__init__

        def noted(
            resource: Resource,
            provider: ResourceProvider,
            name: str,
            props: Outs,
            opts: pulumi.ResourceOptions | None = None,
        ) -> None:
            self._providers[name] = provider
            begin(resource, provider, name, props, opts)

        with patch.object(Resource, "__init__", noted):
            declared(self, lambda: targets.target(spec.target).build(spec), spec.stack, preview=preview)
        return self.changed

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, Outs]:
        name, provider = args.name, self._providers.get(args.name, Native())
        # Pulumi's mocks read what is not known as None; what is told later is not there at all.
        news = {key: _unknown(value) for key, value in args.inputs.items()}
        news = provider.check({}, news).inputs
        had = self.outs.get(name)
        if had is not None:
            found = provider.diff(self.ids[name], had, news)
            if not found.changes:
                return self.ids[name], had
            replaced = bool(found.replaces) or (isinstance(provider, Native) and name in self.tells)
        self.changed.add(name)
        if self._preview:
            known = {key: value for key, value in args.inputs.items() if value is not None}
            return "" if had is None or replaced else self.ids[name], known
        told = provider.computed if isinstance(provider, Provider) else ()
        before = had or {key: ANSWERS.get(key, "x") for key in (*told, "vmId", "ipAddress", "name")}
        kept = {key: value for key, value in before.items() if key not in news}
        self.outs[name] = {**news, **kept, **(self.tells.get(name, {}) if had else {})}
        if had is None or replaced:
            self.ids[name] = f"{self.ids.get(name, '')}1"
        return self.ids[name], self.outs[name]

    def call(self, args: pulumi.runtime.MockCallArgs) -> Outs:
        raise AssertionError(args.token)


def _unknown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unknown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unknown(item) for item in value]
    return pulumi.UNKNOWN if value is None else value
