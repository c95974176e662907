"""Reading stacks without the engine's SDK: from the file backend's checkpoints, else with `pulumi stack`.

Nothing here changes a state or makes a stack by looking.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import re
import shlex
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gridup.settings import Settings
from gridup_infra.errors import InvalidNameError, NotFoundError, PassphraseError, StateError, UsageError
from gridup_infra.naming import stack_name, typed
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import PROJECT, DeploySpec
from gridup_infra.targets.base import ReadSecret, StackRef, secrets_unavailable

if TYPE_CHECKING:
    from gridup_infra.processes import Result

READ_SECONDS = 60
"""How long one `pulumi stack` may take against a remote backend."""

AT_ONCE = 8
"""Stacks of a remote backend that are read at once, each by a process."""

_NO_STACK = re.compile(r"no stack named '.*' found")

Made = TypeVar("Made")


@dataclass(frozen=True)
class Record:
    """What the state says of one stack.

    Attributes:
        stack: its name.
        outputs: of the node; None while no deploy has succeeded.
        identity: enough to find leftovers; None for a stack that holds nothing of ours.
        resources: the names of what exists, as in the program.
        pending: operations that were interrupted, as "creating node".
        problem: why it can't be read; empty when it can.
        remedy: what can be done about the problem, for people; empty where nothing is known.
        known: the URNs of what exists, each with its id; empty for a create that was interrupted.
        states: the URNs of what exists, each with its outputs as the state has them, and its id as `id`.
    """

    stack: str
    outputs: NodeOutputs | None
    identity: StackRef | None
    resources: tuple[str, ...]
    pending: tuple[str, ...]
    problem: str = ""
    remedy: str = ""
    resource_ids: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

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
    def incomplete(self) -> bool:
        """Whether a create was interrupted."""
        return self.outputs is None or bool(self.pending)

    @property
    def way_on(self) -> str:
        """What makes it whole, for people; empty where nothing does that is known."""
        if self.problem:
            return self.remedy
        return f"`{typed('deploy', self.name)}` {'repairs' if self.outputs else 'completes'} it."

    def previous_spec(self, stored: Mapping[str, str]) -> DeploySpec | None:
        """What is known of the spec: as last deployed; of a interrupted first deploy as it was asked for.

        Args:
            stored: the stack's configuration on this machine; empty where it has none.
        """
        if self.outputs:
            return self.outputs.spec
        if self.identity is None:
            return None
        found = self.identity
        if stored.get(f"{PROJECT}:stack-id") == found.stack_id:
            return DeploySpec.from_config(stored)
        # Elsewhere its mark still tells where it was being made.
        where: dict[str, Any] = {
            key: found.facts[key] for key in ("region", "host", "resource_group") if found.facts.get(key)
        }
        return DeploySpec(name=found.name, target=found.target, stack_id=found.stack_id, **where)


PARSE_ERRORS = (ValueError, KeyError, TypeError, AttributeError)
"""What reading a thing meets that is not of the form it should have."""


class Backend(Protocol):
    """Where checkpoints are."""

    def stacks(self) -> list[str]: ...

    def deployment(self, stack: str) -> Mapping[str, Any] | None:
        """The stack's latest deployment ({} when it never had one); None when there is no such stack."""
        ...

    def each(self, read: Callable[[str], Made], stacks: Iterable[str]) -> list[Made]:
        """What `read` makes of each stack, in their order; at once where each takes a process."""
        ...

    def remedy(self, stack: str) -> str:
        """What a person can do about a damaged stack; empty where nothing is known."""
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
        for path in self._paths(stack):
            try:
                raw = path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StateError(f"The state {path} can't be read: {error.strerror}.") from error
            try:
                return _latest(raw, zipped=path.suffix == ".gz")
            except (*PARSE_ERRORS, OSError, EOFError, zlib.error) as error:
                raise StateError(f"The state {path} is damaged: {error}.", self.remedy(stack)) from error
        return None

    def each(self, read: Callable[[str], Made], stacks: Iterable[str]) -> list[Made]:
        return [read(stack) for stack in stacks]

    def remedy(self, stack: str) -> str:
        """See `Backend.remedy`: the engine keeps the checkpoint before the last one beside it."""
        for path in self._paths(stack):
            backup = path.with_name(f"{path.name}.bak")
            with contextlib.suppress(*PARSE_ERRORS, OSError, EOFError, zlib.error):
                # One that holds no node would lose what the damaged one knew.
                whole = _record(stack, _latest(backup.read_bytes(), zipped=path.suffix == ".gz"))
                if path.exists() and (whole.resources or whole.pending):
                    command = shlex.join(["cp", "-p", str(backup), str(path)])
                    return f"`{command}` puts back the engine's own backup of it."
        return ""

    def _paths(self, stack: str) -> tuple[Path, Path]:
        return self._folder / f"{stack}.json", self._folder / f"{stack}.json.gz"


def _latest(raw: bytes, *, zipped: bool) -> dict[str, Any]:
    """The latest deployment in a checkpoint."""
    data = json.loads(gzip.decompress(raw) if zipped else raw)
    return dict(data["checkpoint"].get("latest") or {})


def _is_checkpoint(name: str) -> bool:
    return name.endswith((".json", ".json.gz"))


class EngineBackend:
    """Any other backend, asked through `pulumi stack`.

    That runs in a folder of our project: there a stack is known by its own name alone, in every backend
    (https://www.pulumi.com/docs/iac/concepts/stacks/). On Pulumi Cloud it is the one of the default
    organization; the engine lists those of others as `organization/stack`.

    Args:
        engine: the folder of the engine, which it may first have to get.
    """

    def __init__(self, settings: Settings, engine: Callable[[], Path]) -> None:
        self._settings = settings
        self._engine = engine
        self._given_up = threading.Event()

    def stacks(self) -> list[str]:
        found = json.loads(self._pulumi("ls", "--json", "--project", PROJECT))
        return sorted(row["name"] for row in found if "/" not in row["name"])

    def deployment(self, stack: str) -> Mapping[str, Any] | None:
        result = self._run("export", "--stack", stack)
        if _NO_STACK.search(result.stderr):
            return None
        deployment: Mapping[str, Any] = json.loads(self._told(result)).get("deployment") or {}
        return deployment

    def each(self, read: Callable[[str], Made], stacks: Iterable[str]) -> list[Made]:
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            try:
                return list(pool.map(read, stacks))
            except BaseException:
                # Nobody waits for those that are still being read.
                self._given_up.set()
                raise

    def remedy(self, stack: str) -> str:  # noqa: ARG002
        """See `Backend.remedy`: nothing is known of what a backend elsewhere keeps."""
        return ""

    def secret(self, stack: str, export: str) -> str:
        """See `State.secret`."""
        stack_words = ("--stack", stack)
        found = json.loads(self._pulumi("output", "--json", "--show-secrets", *stack_words))
        if isinstance(found.get(export), str):
            return str(found[export])
        # A deploy that was interrupted has exported nothing; what it made is in the state all the same.
        whole = json.loads(self._pulumi("export", "--show-secrets", *stack_words))
        try:
            made = _private_key(whole["deployment"].get("resources") or [], export)
        except PARSE_ERRORS as error:
            raise StateError(f"The state of {stack} is damaged: {error!r}.") from error
        if not made:
            raise StateError(f"The stack {stack} has no output {export}.")
        return made

    def _pulumi(self, *words: str) -> str:
        return self._told(self._run(*words))

    def _run(self, *words: str) -> Result:
        from gridup_infra.processes import run

        environment = {**self._settings.environment, **self._settings.pulumi_environment()}
        try:
            return run(
                [self._engine() / "bin" / "pulumi", "stack", *words, "--non-interactive"],
                timeout=READ_SECONDS,
                cwd=self._settings.ensure_project(),
                env=environment,
                stop=self._given_up,
            )
        except TimeoutError as error:
            raise StateError(f"The backend {self._settings.backend_url} did not answer: {error}.") from None

    def _told(self, result: Result) -> str:
        if not result.ok:
            if wrong := wrong_passphrase(result.stderr):
                raise wrong
            raise StateError(
                f"The backend {self._settings.backend_url} can't be read: {' '.join(result.tail(1))}",
                "Is PULUMI_BACKEND_URL right, and are you logged in?",
            )
        return result.stdout


def _private_key(resources: Iterable[Mapping[str, Any]], name: str) -> str:
    """The secret `private_key` of the resource of a name, in a deployment with its secrets in the clear."""
    for resource in resources:
        if resource_name(resource["urn"]) == name:
            value = (resource.get("outputs") or {}).get("private_key")
            # As the engine writes a secret: its JSON, beside a signature.
            return str(json.loads(value["plaintext"]) if isinstance(value, Mapping) else value or "")
    return ""


def wrong_passphrase(text: str) -> PassphraseError | None:
    """The error, where that is what the engine complains of."""
    if "incorrect passphrase" not in text and "passphrase must be set" not in text:
        return None
    return PassphraseError(
        "The passphrase does not open this state.",
        "Set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE to the one it was made with.",
    )


class State:
    """The stacks of one backend."""

    def __init__(self, backend: Backend, secret: ReadSecret = secrets_unavailable) -> None:
        self._backend = backend
        self._secret = secret

    @classmethod
    def of(cls, settings: Settings, say: Callable[[str], None] = lambda _text: None) -> State:
        """The state that the settings name.

        Args:
            say: told what is done where an engine must first be had to read it.
        """

        @functools.cache
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
        return [record for record in self._backend.each(self._read_or_tell, self.stacks()) if record]

    def _read_or_tell(self, stack: str) -> Record | None:
        try:
            return self.read(stack)
        except StateError as error:
            return Record(stack, None, None, (), (), problem=error.message, remedy=error.suggestion)

    def read(self, stack: str) -> Record | None:
        """One stack; None when there is none of that name, or it holds nothing (any more)."""
        deployment = self._backend.deployment(stack)
        try:
            record = _record(stack, deployment) if deployment else None
        except PARSE_ERRORS as error:
            remedy = self._backend.remedy(stack)
            raise StateError(f"The state of {stack} is damaged: {error!r}.", remedy) from error
        return record if record and (record.resources or record.pending) else None

    def secret(self, stack: str, export: str) -> str:
        """A secret that a stack exports, decrypted by the engine.

        Raises:
            StateError: there is none of that name, or the backend or passphrase is in the way.
        """
        return self._secret(stack, export)

    def find(self, name: str) -> Record:
        """The node of that very name. A name of the same slug is another node's, and a stack's is no node's.

        Raises:
            NotFoundError: there is none; near names are in the suggestion.
        """
        record = None
        # A name without a slug belongs to no stack; a damaged stack is not known by a name.
        with contextlib.suppress(InvalidNameError):
            record = self.read(stack_name(name))
        if record and record.name == name:
            return record
        records = self.records()
        renamed = _holding(name, records)
        if len(renamed) == 1:
            return renamed[0]
        if renamed:
            stacks = " and ".join(other.stack for other in renamed)
            raise UsageError(
                f'Several stacks hold a node called "{name}": {stacks}.', "Say which: --stack STACK"
            )
        raise NotFoundError(f'There is no deployment called "{name}".', self._near(name, record, records))

    def renamed(self, name: str) -> tuple[str, ...]:
        """The stacks that hold a node of that very name and are not called after it. It reads every stack."""
        return tuple(
            other.stack for other in _holding(name, self.records()) if other.stack != stack_name(name)
        )

    def find_stack(self, stack: str) -> Record:
        """The node of a stack, by the stack's own name.

        Raises:
            NotFoundError: there is no such stack.
        """
        if stack in self.stacks() and (record := self.read(stack)):
            return record
        raise NotFoundError(f'There is no stack called "{stack}".', "`gridup status --json` names them all.")

    @staticmethod
    def _near(text: str, same_stack: Record | None, records: Iterable[Record]) -> str:
        import difflib

        if same_stack:
            return f'Did you mean "{same_stack.name}"? (Its stack is {same_stack.stack}.)'
        # Only for a hint: another, damaged stack is not what was asked about.
        names = {record.name: record.stack for record in records if not record.problem}
        if not names:
            return "There are no deployments yet; `gridup deploy --name NAME` makes one."
        folded = {name.casefold(): name for name in names}
        near = [folded[key] for key in difflib.get_close_matches(text.casefold(), folded, n=3, cutoff=0.5)]
        if near:
            return "Did you mean " + " or ".join(f'"{name}"' for name in near) + "?"
        return "`gridup status` lists all deployments."


def _holding(name: str, records: Iterable[Record]) -> list[Record]:
    """Those of a node of that very name: a stack that was renamed still holds it."""
    return [record for record in records if record.name == name and not record.problem]


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
        # The very first create may be what was interrupted: then its owner stands there alone.
        identity=_identity(stack, [*own, *(item["resource"] for item in pending)], outputs),
        resources=tuple(resource_name(resource["urn"]) for resource in own),
        # A destroy keeps what was pending before it for ever. With no resource left, not even the
        # stack's own, there is nothing that it could have made: the owner's delete has seen to that.
        pending=operations if resources else (),
        resource_ids={
            **{item["resource"]["urn"]: "" for item in pending if item["type"] == "creating"},
            **{resource["urn"]: str(resource.get("id") or "") for resource in own},
        },
        states={
            resource["urn"]: {**(resource.get("outputs") or {}), "id": str(resource.get("id") or "")}
            for resource in own
            # What is only to be deleted yet, is not what there is.
            if not resource.get("delete")
        },
    )


def _identity(
    stack: str, resources: Iterable[Mapping[str, Any]], outputs: NodeOutputs | None
) -> StackRef | None:
    """Who the stack is: from its owner, the first resource, else from what it exports."""
    for resource in resources:
        inputs = resource.get("inputs") or {}
        if {"stack_id", "name", "target"} <= inputs.keys():
            facts = {k: v for k, v in inputs.items() if isinstance(v, str) and not k.startswith("__")}
            return StackRef(stack, inputs["stack_id"], inputs["name"], inputs["target"], facts)
    if outputs:
        spec: DeploySpec = outputs.spec
        return StackRef(stack, spec.stack_id, spec.name, spec.target, dict(outputs.facts))
    return None


def resource_name(urn: str) -> str:
    """The last part of a URN: the resource's name in the program."""
    return urn.rpartition("::")[2]
