"""Reading stacks without the engine's SDK: from the file backend's checkpoints, else with `pulumi stack`.

Nothing here changes a state or makes a stack by looking.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gridup.settings import Settings
from gridup_infra.errors import NameError_, NotFoundError, PassphraseError, StateError
from gridup_infra.naming import stack_name
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import PROJECT, DeploySpec
from gridup_infra.targets.base import Identity, Secret, no_secret

READ_SECONDS = 60
"""How long one `pulumi stack` may take against a remote backend."""


@dataclass(frozen=True)
class Record:
    """What the state says of one stack.

    Attributes:
        stack: its name.
        outputs: of the node; None while no deploy has succeeded.
        identity: enough to find leftovers; None for a stack that holds nothing of ours.
        resources: the names of what exists, as in the program.
        pending: operations that were broken off, as "creating node".
        problem: why it can't be read; empty when it can.
        known: the URNs of what exists, each with its id; empty for a create that was broken off.
    """

    stack: str
    outputs: NodeOutputs | None
    identity: Identity | None
    resources: tuple[str, ...]
    pending: tuple[str, ...]
    problem: str = ""
    known: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As typed by the person; the stack's own name where that is not known."""
        if self.outputs:
            return self.outputs.spec.name
        return self.identity.name if self.identity else self.stack

    @property
    def target(self) -> str:
        """Where it runs; empty where that is not known."""
        return self.identity.target if self.identity else ""

    @property
    def half_made(self) -> bool:
        """Whether a create was broken off."""
        return self.outputs is None or bool(self.pending)


DAMAGE = (ValueError, KeyError, TypeError, AttributeError)
"""What reading a thing meets that is not of the form it should have."""


class Backend(Protocol):
    """Where checkpoints are."""

    def stacks(self) -> list[str]: ...

    def deployment(self, stack: str) -> Mapping[str, Any] | None:
        """The stack's latest deployment ({} when it never had one); None when there is no such stack."""
        ...


class FileBackend:
    """Pulumi's file backend, read as it lies on the disk: no process, some milliseconds."""

    def __init__(self, root: Path) -> None:
        self._folder = root / ".pulumi" / "stacks" / PROJECT

    def stacks(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        names = {path.name for path in self._folder.iterdir()}
        return sorted({n.removesuffix(".gz").removesuffix(".json") for n in names if _is_checkpoint(n)})

    def deployment(self, stack: str) -> Mapping[str, Any] | None:
        for path in (self._folder / f"{stack}.json", self._folder / f"{stack}.json.gz"):
            try:
                raw = path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StateError(f"The state {path} can't be read: {error.strerror}.") from error
            try:
                data = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
                return dict(data["checkpoint"].get("latest") or {})
            except (*DAMAGE, OSError, EOFError, zlib.error) as error:
                raise StateError(f"The state {path} is damaged: {error}.") from error
        return None


def _is_checkpoint(name: str) -> bool:
    return name.endswith((".json", ".json.gz"))


class EngineBackend:
    """Any other backend, asked through `pulumi stack`."""

    def __init__(self, settings: Settings, engine: Callable[[], Path]) -> None:
        self._settings = settings
        self._engine = engine

    def stacks(self) -> list[str]:
        found = json.loads(self._pulumi("ls", "--json", "--project", PROJECT))
        return sorted(row["name"].rpartition("/")[2] for row in found)

    def deployment(self, stack: str) -> Mapping[str, Any] | None:
        if stack not in self.stacks():
            return None
        exported = json.loads(self._pulumi("export", "--stack", f"{ORGANIZATION_PREFIX}{stack}"))
        deployment: Mapping[str, Any] = exported.get("deployment") or {}
        return deployment

    def secret(self, stack: str, export: str) -> str:
        """See `State.secret`."""
        stack_words = ("--stack", f"{ORGANIZATION_PREFIX}{stack}")
        found = json.loads(self._pulumi("output", "--json", "--show-secrets", *stack_words))
        if not isinstance(found.get(export), str):
            raise StateError(f"The stack {stack} has no output {export}.")
        return str(found[export])

    def _pulumi(self, *words: str) -> str:
        from gridup_infra.processes import run

        environment = {**self._settings.environment, **self._settings.pulumi_environment()}
        try:
            result = run(
                [self._engine() / "bin" / "pulumi", "stack", *words, "--non-interactive"],
                timeout=READ_SECONDS,
                env=environment,
            )
        except TimeoutError as error:
            raise StateError(f"The backend {self._settings.backend_url} did not answer: {error}.") from None
        if not result.ok:
            if wrong := wrong_passphrase(result.stderr):
                raise wrong
            raise StateError(
                f"The backend {self._settings.backend_url} can't be read: {' '.join(result.tail(1))}",
                "Is PULUMI_BACKEND_URL right, and are you logged in?",
            )
        return result.stdout


def wrong_passphrase(text: str) -> PassphraseError | None:
    """The error, where that is what the engine complains of."""
    if "incorrect passphrase" not in text and "passphrase must be set" not in text:
        return None
    return PassphraseError(
        "The passphrase does not open this state.",
        "Set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE to the one it was made with.",
    )


ORGANIZATION_PREFIX = f"organization/{PROJECT}/"


class State:
    """The stacks of one backend."""

    def __init__(self, backend: Backend, secret: Secret = no_secret) -> None:
        self._backend = backend
        self._secret = secret

    @classmethod
    def of(cls, settings: Settings, say: Callable[[str], None] = lambda _text: None) -> State:
        """The state that the settings name.

        Args:
            say: told what is done where an engine must first be had to read it.
        """

        def engine() -> Path:
            from gridup.setup.engine import ensure_engine

            return Path(ensure_engine(settings.home, say).root)

        asked = EngineBackend(settings, engine)
        root = settings.file_backend
        return cls(asked if root is None else FileBackend(root), asked.secret)

    def stacks(self) -> list[str]:
        """The names of all stacks of our project."""
        return self._backend.stacks()

    def records(self) -> list[Record]:
        """Every stack, in the order of the names; a damaged one with its problem, for it hides no other."""
        return [record for record in map(self._read_or_tell, self.stacks()) if record]

    def _read_or_tell(self, stack: str) -> Record | None:
        try:
            return self.read(stack)
        except StateError as error:
            return Record(stack, None, None, (), (), problem=error.message)

    def read(self, stack: str) -> Record | None:
        """One stack; None when there is none of that name, or it holds nothing (any more)."""
        deployment = self._backend.deployment(stack)
        try:
            record = _record(stack, deployment) if deployment else None
        except DAMAGE as error:
            raise StateError(f"The state of {stack} is damaged: {error!r}.") from error
        return record if record and (record.resources or record.pending) else None

    def secret(self, stack: str, export: str) -> str:
        """A secret that a stack exports, decrypted by the engine.

        Raises:
            StateError: there is none of that name, or the backend or passphrase is in the way.
        """
        return self._secret(stack, export)

    def find(self, text: str) -> Record:
        """The stack of a node's name, else the stack of that very name.

        Raises:
            NotFoundError: there is none; near names are in the suggestion.
        """
        try:
            record = self.read(stack_name(text))
        except NameError_:
            record = None
        # Only the name as typed, or the stack's own: a name of the same slug is another node's.
        if record and text in (record.name, record.stack):
            return record
        raise NotFoundError(f"There is no deployment called {text!r}.", self._near(text))

    def _near(self, text: str) -> str:
        import difflib

        names = {}
        for stack in self.stacks():
            # Only for a hint: another, damaged stack is not what was asked about.
            with contextlib.suppress(StateError):
                if record := self.read(stack):
                    names[record.name] = record.stack
        if not names:
            return "There are no deployments yet; `gridup deploy --name NAME` makes one."
        folded = {name.casefold(): name for name in names}
        near = [folded[key] for key in difflib.get_close_matches(text.casefold(), folded, n=3, cutoff=0.5)]
        if near:
            return "Did you mean " + " or ".join(f'"{name}"' for name in near) + "?"
        return "`gridup status` lists all deployments."


def _record(stack: str, deployment: Mapping[str, Any]) -> Record:
    resources: list[Mapping[str, Any]] = deployment.get("resources") or []
    outputs = None
    for resource in resources:
        if resource["type"] == "pulumi:pulumi:Stack":
            outputs = NodeOutputs.from_exports(resource.get("outputs") or {})
    own = [resource for resource in resources if not resource["type"].startswith("pulumi:")]
    pending = deployment.get("pending_operations") or []
    operations = tuple(f"{item['type']} {resource_name(item['resource']['urn'])}" for item in pending)
    return Record(
        stack=stack,
        outputs=outputs,
        # The very first create may be what was broken off: then its owner stands there alone.
        identity=_identity(stack, [*own, *(item["resource"] for item in pending)], outputs),
        resources=tuple(resource_name(resource["urn"]) for resource in own),
        # A destroy keeps what was pending before it for ever. With no resource left, not even the
        # stack's own, there is nothing that it could have made: the owner's delete has seen to that.
        pending=operations if resources else (),
        known={
            **{item["resource"]["urn"]: "" for item in pending if item["type"] == "creating"},
            **{resource["urn"]: str(resource.get("id") or "") for resource in own},
        },
    )


def _identity(
    stack: str, resources: Iterable[Mapping[str, Any]], outputs: NodeOutputs | None
) -> Identity | None:
    """Who the stack is: from its owner, the first resource, else from what it exports."""
    for resource in resources:
        inputs = resource.get("inputs") or {}
        if {"stack_id", "name", "target"} <= inputs.keys():
            facts = {k: v for k, v in inputs.items() if isinstance(v, str) and not k.startswith("__")}
            return Identity(stack, inputs["stack_id"], inputs["name"], inputs["target"], facts)
    if outputs:
        spec: DeploySpec = outputs.spec
        return Identity(stack, spec.stack_id, spec.name, spec.target, dict(outputs.facts))
    return None


def resource_name(urn: str) -> str:
    """The last part of a URN: the resource's name in the program."""
    return urn.rpartition("::")[2]
