"""Reads stacks without the engine's SDK: from the file backend's checkpoints, else with `pulumi stack`.

Nothing here changes a state or creates a stack.
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
"""Limit in seconds for one `pulumi stack` command with a remote backend."""

AT_ONCE = 8
"""How many stacks of a remote backend are read in parallel, each by a process."""

_NO_STACK = re.compile(r"no stack named '.*' found")

Made = TypeVar("Made")


@dataclass(frozen=True)
class Record:
    """The state of one stack.

    Attributes:
        stack: name of the stack.
        outputs: outputs of the node; None while no deploy has succeeded.
        identity: the data to find leftovers; None for a stack that has nothing of Gridup's.
        resources: names of the existing resources, as in the program.
        pending: interrupted operations, such as "creating node".
        problem: why the state can't be read; empty if it can.
        remedy: what the user can do about the problem; empty if unknown.
        resource_ids: URN -> id of each existing resource; an empty id for an interrupted create.
        states: URN -> outputs of each existing resource, as the state has them, with its id as `id`.
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
        """The node's name as the user typed it; the stack's name if that is unknown."""
        if self.outputs:
            return self.outputs.spec.name
        return self.identity.name if self.identity else self.stack

    @property
    def target(self) -> str:
        """Name of the target; empty if unknown."""
        return self.identity.target if self.identity else ""

    @property
    def incomplete(self) -> bool:
        """Whether the first deploy has not succeeded, or an operation was interrupted."""
        return self.outputs is None or bool(self.pending)

    @property
    def way_on(self) -> str:
        """The suggestion for the user how to complete or repair the node; empty if unknown."""
        if self.problem:
            return self.remedy
        return f"`{typed('deploy', self.name)}` {'repairs' if self.outputs else 'completes'} it."

    def previous_spec(self, stored: Mapping[str, str]) -> DeploySpec | None:
        """Return the spec as last deployed; after an interrupted first deploy as it was asked for.

        Returns None if nothing is known of the spec.

        Args:
            stored: the stack's configuration on this machine; empty if there is none.
        """
        if self.outputs:
            return self.outputs.spec
        if self.identity is None:
            return None
        found = self.identity
        if stored.get(f"{PROJECT}:stack-id") == found.stack_id:
            return DeploySpec.from_config(stored)
        # On another machine there is no configuration. The inputs of the owner still have the place.
        where: dict[str, Any] = {
            key: found.facts[key] for key in ("region", "host", "resource_group") if found.facts.get(key)
        }
        return DeploySpec(name=found.name, target=found.target, stack_id=found.stack_id, **where)


PARSE_ERRORS = (ValueError, KeyError, TypeError, AttributeError)
"""The errors that occur when data does not have the expected form."""


class Backend(Protocol):
    """The place where Pulumi stores the stacks' checkpoints."""

    def stacks(self) -> list[str]: ...

    def deployment(self, stack: str) -> Mapping[str, Any] | None:
        """Return the stack's latest deployment ({} if it never had one); None if there is no such stack."""
        ...

    def each(self, read: Callable[[str], Made], stacks: Iterable[str]) -> list[Made]:
        """Return `read(stack)` for each stack, in the same order; in parallel if each needs a process."""
        ...

    def remedy(self, stack: str) -> str:
        """Return what the user can do about a damaged stack; empty if unknown."""
        ...


class FileBackend:
    """Pulumi's file backend. Its files are read directly: this needs no process and takes milliseconds."""

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
        """See `Backend.remedy`. The engine keeps the previous checkpoint next to the current one (`.bak`)."""
        for path in self._paths(stack):
            backup = path.with_name(f"{path.name}.bak")
            with contextlib.suppress(*PARSE_ERRORS, OSError, EOFError, zlib.error):
                # A backup without resources would lose the information of the damaged checkpoint.
                whole = _record(stack, _latest(backup.read_bytes(), zipped=path.suffix == ".gz"))
                if path.exists() and (whole.resources or whole.pending):
                    command = shlex.join(["cp", "-p", str(backup), str(path)])
                    return f"`{command}` puts back the engine's own backup of it."
        return ""

    def _paths(self, stack: str) -> tuple[Path, Path]:
        return self._folder / f"{stack}.json", self._folder / f"{stack}.json.gz"


def _latest(raw: bytes, *, zipped: bool) -> dict[str, Any]:
    """Return the latest deployment in a checkpoint."""
    data = json.loads(gzip.decompress(raw) if zipped else raw)
    return dict(data["checkpoint"].get("latest") or {})


def _is_checkpoint(name: str) -> bool:
    return name.endswith((".json", ".json.gz"))


class EngineBackend:
    """Any other backend, read with `pulumi stack`.

    The command runs in a project folder of Gridup's. There every backend accepts the stack's short name
    (https://www.pulumi.com/docs/iac/concepts/stacks/). On Pulumi Cloud the short name means the stack of the
    default organization; the engine lists stacks of other organizations as `organization/stack`.

    Args:
        engine: returns the folder of the engine; may have to download or build it first.
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
                # Nobody needs the other results any more: stop the processes that still run.
                self._given_up.set()
                raise

    def remedy(self, stack: str) -> str:  # noqa: ARG002
        """See `Backend.remedy`. Gridup does not know the backups of a remote backend."""
        return ""

    def secret(self, stack: str, export: str) -> str:
        """See `State.secret`."""
        stack_words = ("--stack", stack)
        found = json.loads(self._pulumi("output", "--json", "--show-secrets", *stack_words))
        if isinstance(found.get(export), str):
            return str(found[export])
        # An interrupted deploy has exported nothing, but the resources that it created are in the state.
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
    """Return a resource's secret `private_key` from a deployment with decrypted secrets; empty if missing."""
    for resource in resources:
        if resource_name(resource["urn"]) == name:
            value = (resource.get("outputs") or {}).get("private_key")
            # The engine writes a secret as JSON text, next to a signature.
            return str(json.loads(value["plaintext"]) if isinstance(value, Mapping) else value or "")
    return ""


def wrong_passphrase(text: str) -> PassphraseError | None:
    """Return the error for a wrong or missing passphrase, if the engine's message says so; else None."""
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
        """Return the state in the backend that the settings name.

        Args:
            say: gets messages if an engine must be downloaded or built first.
        """

        @functools.cache
        def engine() -> Path:
            from gridup.setup.engine import ensure_engine

            return Path(ensure_engine(settings.home, say).root)

        asked = EngineBackend(settings, engine)
        root = settings.file_backend
        return cls(asked if root is None else FileBackend(root), asked.secret)

    def stacks(self) -> list[str]:
        """Return the names of all stacks of Gridup's project."""
        return self._backend.stacks()

    def records(self) -> list[Record]:
        """Return every stack, sorted by name. A damaged one has a `problem`, so that it hides no other."""
        return [record for record in self._backend.each(self._read_or_tell, self.stacks()) if record]

    def _read_or_tell(self, stack: str) -> Record | None:
        try:
            return self.read(stack)
        except StateError as error:
            return Record(stack, None, None, (), (), problem=error.message, remedy=error.suggestion)

    def read(self, stack: str) -> Record | None:
        """Read one stack. Returns None if there is no stack of that name, or if it has no resources.

        Raises:
            StateError: the state is damaged.
        """
        deployment = self._backend.deployment(stack)
        try:
            record = _record(stack, deployment) if deployment else None
        except PARSE_ERRORS as error:
            remedy = self._backend.remedy(stack)
            raise StateError(f"The state of {stack} is damaged: {error!r}.", remedy) from error
        return record if record and (record.resources or record.pending) else None

    def secret(self, stack: str, export: str) -> str:
        """Return a secret that a stack exports, decrypted by the engine.

        Raises:
            StateError: there is no such export, or the backend can't be read.
            PassphraseError: the passphrase is wrong or missing.
        """
        return self._secret(stack, export)

    def find(self, name: str) -> Record:
        """Return the node with exactly this name. The same slug or the stack's name is not enough.

        Raises:
            NotFoundError: there is no such node; the suggestion has similar names.
            StateError: the state of the node's stack is damaged.
            UsageError: several stacks hold a node of this name.
        """
        record = None
        # An invalid name has no slug, so no stack can belong to it. Errors of a damaged stack get through.
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
        """Return the stacks that hold a node of this name but have another name. Reads every stack."""
        return tuple(
            other.stack for other in _holding(name, self.records()) if other.stack != stack_name(name)
        )

    def find_stack(self, stack: str) -> Record:
        """Return the node of a stack, by the stack's name.

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
        # This is only for a hint, so ignore damaged stacks.
        names = {record.name: record.stack for record in records if not record.problem}
        if not names:
            return "There are no deployments yet; `gridup deploy --name NAME` makes one."
        folded = {name.casefold(): name for name in names}
        near = [folded[key] for key in difflib.get_close_matches(text.casefold(), folded, n=3, cutoff=0.5)]
        if near:
            return "Did you mean " + " or ".join(f'"{name}"' for name in near) + "?"
        return "`gridup status` lists all deployments."


def _holding(name: str, records: Iterable[Record]) -> list[Record]:
    """Return the records of nodes with exactly this name; a renamed stack still has the node's name."""
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
        # If the very first create was interrupted, the owner is only among the pending operations.
        identity=_identity(stack, [*own, *(item["resource"] for item in pending)], outputs),
        resources=tuple(resource_name(resource["urn"]) for resource in own),
        # A destroy never removes operations that were pending before it. If no resource is left, not even
        # the stack's own, these operations left nothing: the owner's delete has removed it.
        pending=operations if resources else (),
        resource_ids={
            **{item["resource"]["urn"]: "" for item in pending if item["type"] == "creating"},
            **{resource["urn"]: str(resource.get("id") or "") for resource in own},
        },
        states={
            resource["urn"]: {**(resource.get("outputs") or {}), "id": str(resource.get("id") or "")}
            for resource in own
            # Skip replaced resources that only wait for their delete.
            if not resource.get("delete")
        },
    )


def _identity(
    stack: str, resources: Iterable[Mapping[str, Any]], outputs: NodeOutputs | None
) -> StackRef | None:
    """Return the stack's identity from its owner, the first resource, else from its exports."""
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
    """Return the last part of a URN: the resource's name in the program."""
    return urn.rpartition("::")[2]
