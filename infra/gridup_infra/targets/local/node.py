"""The folder of a local node: its keys, configuration, secrets and data.

config/   what `gridup_node.render` makes; anything changed by hand is put right
secrets/  made by the node itself, 0600
keys/     the ssh host key, the key to enter with, who may enter
proxy/    the node's own CA, where it speaks https
jobs/     the sandbox's socket
data/     the database, blobs and notebooks: kept by --keep-data, with secrets/, keys/ and proxy/
logs/     a file a service
app/      gridup_node as it was when the node was deployed
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridup_infra import __version__
from gridup_infra.errors import ResourceError
from gridup_infra.locking import locked
from gridup_infra.naming import typed
from gridup_infra.node_facts import asked_facts
from gridup_infra.outputs import NodeOutputs
from gridup_infra.paths import ensure_private, write_private
from gridup_infra.processes import run, wait_until
from gridup_infra.spec import NEW_DATA, DeploySpec
from gridup_infra.targets import fronting
from gridup_infra.targets import ports as port_choice
from gridup_infra.targets.base import Retained
from gridup_node import kept, keys
from gridup_node import secrets as node_secrets
from gridup_node.image import PACKAGE, bundle_digest, bundle_files
from gridup_node.render import Context, Tls, fingerprints, render
from gridup_node.services import (
    PROXY,
    SERVICES,
    Service,
    machine_fronted,
    ports_outside,
    programs,
)

FOLDERS = ("config", "secrets", "keys", "data", "data/notebooks", "logs", "app", "proxy", "jupyter", "jobs")
KEPT = ("data", "secrets", "keys", "proxy")
"""What --keep-data keeps."""

TOLD = ("name", "admin_email", "node_type")
"""What of node.json is in the note beside them too: the next node of the name goes on with it."""

BEHIND, BEHIND_FROM = "-behind", 10_000
"""What a port's key ends in, and how far from the service's own it is looked for, where the reverse proxy
speaks https at that one."""

CA_FILE = "proxy/caddy/pki/authorities/local/root.crt"
CERTIFICATE_END = "-----END CERTIFICATE-----\n"
CA_SECONDS = 30.0

PORTS_WAIT = 30
"""Seconds to wait for another node that is choosing its ports."""


@dataclass(frozen=True)
class Plan:
    """What a node's folder should hold.

    Attributes:
        folder: where.
        spec: what was asked for.
        bin: the programs of the node's environment.
        bundle: the digest of the `gridup_node` to be run.
        tools: paths of the machine's programs that services need.
        user: who runs the services.
        syft_version: of the environment.
        names: with https, the names and addresses of this machine that its certificates are for.
        address: what people connect to, where that is not told by the address that it listens on.
    """

    folder: Path
    spec: DeploySpec
    bin: str
    bundle: str
    tools: Mapping[str, str]
    user: str
    syft_version: str
    names: tuple[str, ...] = ()
    address: str = ""

    @property
    def bind(self) -> str:
        return self.spec.bind or "127.0.0.1"

    @property
    def reached(self) -> str:
        return self.address or port_choice.reachable(self.bind)

    @property
    def tls(self) -> Tls | None:
        return fronting.tls(self.spec, self.reached, self.names)


def write_node_dir(
    plan: Plan, current_ports: Mapping[str, int], table: Sequence[Service] = SERVICES
) -> dict[str, Any]:
    """Make the folder what it should be; every step may be repeated. Returns the resource's outputs.

    Raises:
        ResourceError: a port is in use, or the folder belongs to another stack.
    """
    _acquire(plan)
    for name in FOLDERS:
        ensure_private(plan.folder / name)
    _ensure_keys(plan)
    for path in node_secrets.ensure(plan.folder / "secrets").values():
        path.chmod(0o600)
    _copy_bundle(plan)
    with locked(
        plan.folder.parent / ".ports.lock",
        "choosing ports",
        wait=PORTS_WAIT,
        busy="The ports are being chosen",
    ):
        chosen = _choose_ports(plan, current_ports, table)
        context = make_context(plan, chosen)
        stale = _write_config(plan, render(context, table))
    return {
        "ports": chosen,
        "fingerprints": fingerprints(context, table),
        "restart_tokens": _restart_tokens(stale, table),
        "not_offered": not_offered(plan.tools, table),
        "drift": [],
    }


def foreseen(plan: Plan, table: Sequence[Service] = SERVICES) -> dict[str, Any]:
    """The outputs of `lay`, where it would leave the node's ports and its programs' files as they are; else
    none of them. Reads files and changes nothing."""
    known = ports_of(plan.folder, plan.spec.stack_id)
    if known.keys() != {*ports_outside(table), *_ports_behind(plan, table)}:
        return {}
    if plan.spec.port not in (0, known[PROXY]):
        return {}
    context = make_context(plan, known)
    stale = [name for name, text in render(context, table).items() if not _stands(plan, name, text)]
    if _restart_tokens(stale, table):
        return {}
    return {"ports": known, "fingerprints": fingerprints(context, table)}


def make_context(plan: Plan, chosen: Mapping[str, int]) -> Context:
    """What the service table's placeholders mean on this node."""
    outputs = node_outputs(plan, chosen)
    facts = {
        "name": plan.spec.name,
        "stack": plan.spec.stack,
        "stack_id": plan.spec.stack_id,
        "node_type": plan.spec.node_type,
        "bind": plan.bind,
        "ports": dict(chosen),
        "endpoints": {
            name: typed("ssh", plan.spec.name) if name == "ssh" else endpoint.url
            for name, endpoint in outputs.endpoints().items()
            if name != PROXY and not endpoint.reason
        },
        "admin_email": plan.spec.admin_email,
        "gridup_version": __version__,
        "syft_version": plan.syft_version,
        "bundle": plan.bundle,
        **asked_facts(plan.spec, plan.names),
    }
    return Context(
        home=str(plan.folder),
        bin=plan.bin,
        bind=plan.bind,
        ports={**chosen, **{name: chosen[f"{name}{BEHIND}"] for name in _behind(plan)}},
        user=plan.user,
        tools=plan.tools,
        facts=facts,
        tls=plan.tls,
        fronted={name: chosen[name] for name in (PROXY, *_behind(plan))} if plan.tls else {},
    )


def _behind(plan: Plan) -> tuple[str, ...]:
    """The services with a port of their own that the reverse proxy speaks https for."""
    return tuple(row.name for row in machine_fronted()) if plan.tls else ()


def _ports_behind(plan: Plan, table: Sequence[Service]) -> dict[str, int]:
    return {f"{name}{BEHIND}": ports_outside(table)[name] + BEHIND_FROM for name in _behind(plan)}


def ca_of(folder: Path) -> str:
    """The certificate of the node's own CA, which its reverse proxy makes when it starts first.

    Raises:
        ResourceError: there is none after a while.
    """
    found: list[str] = []

    def made() -> bool:
        with contextlib.suppress(OSError):
            found[:] = [(folder / CA_FILE).read_text(encoding="ascii")]
        return bool(found) and found[0].endswith(CERTIFICATE_END)

    if not wait_until(made, timeout=CA_SECONDS):
        raise ResourceError(f"The reverse proxy has made no certificate in {folder / CA_FILE}.")
    return found[0]


def node_outputs(
    plan: Plan, chosen: Mapping[str, int], table: Sequence[Service] = SERVICES, ca: str = ""
) -> NodeOutputs:
    """What the stack exports of this node; `ca` is that of `ca_of`."""
    names = {"names": " ".join(plan.names)} if plan.names else {}
    return NodeOutputs(
        spec=plan.spec,
        address=plan.reached,
        ports=dict(chosen),
        tls=plan.tls is not None,
        ca=ca,
        ssh_user=plan.user,
        not_offered=not_offered(plan.tools, table),
        facts={"folder": str(plan.folder), "bin": plan.bin, "bundle": plan.bundle, **names},
    )


def not_offered(tools: Mapping[str, str], table: Sequence[Service] = SERVICES) -> dict[str, str]:
    """The services whose program this machine lacks, with the reason."""
    return {
        row.name: f"no {row.requires_tool} on this machine"
        for row in programs(table)
        if row.requires_tool and row.requires_tool not in tools
    }


def drift(plan: Plan, chosen: Mapping[str, int], table: Sequence[Service] = SERVICES) -> list[str]:
    """The drift, a line each. Reads files and changes nothing."""
    problems = []
    for name, text in render(make_context(plan, chosen), table).items():
        path = plan.folder / "config" / name
        try:
            if path.read_text(encoding="utf-8") != text:
                problems.append(f"config/{name} was changed")
        except OSError:
            problems.append(f"config/{name} is missing")
    problems += node_secrets.problems(plan.folder / "secrets")
    for path in _private_keys(plan.folder):
        if path.exists() and path.stat().st_mode & 0o077:
            problems.append(f"keys/{path.name} can be read by others")
        elif not path.exists() and "sshd" in plan.tools:
            problems.append(f"keys/{path.name} is missing")
    if not (plan.folder / "app" / "gridup_node").is_dir() or (
        bundle_digest(plan.folder / "app" / "gridup_node") != plan.bundle
    ):
        problems.append("app/ was changed")
    return problems


def remove(folder: Path, *, keep_data: bool) -> None:
    """Take the folder away, or with `keep_data` all of it but what that keeps. What the node has taken over
    from an earlier one, and was never healthy with, is kept too.

    Raises:
        ResourceError: something could not be removed.
    """
    if not folder.exists():
        return
    told = _told_of(folder)
    try:
        if not (keep_data or (folder / kept.NOTE).exists()) or not (folder / "data").exists():
            shutil.rmtree(folder)
            return
        for path in folder.iterdir():
            if path.name in (*KEPT, kept.NOTE):
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if not (folder / kept.NOTE).exists():
            note = {"kept": list(KEPT), "since": kept.now(), **told}
            write_private(folder / kept.NOTE, json.dumps(note).encode())
    except OSError as error:
        raise ResourceError(
            f"{folder} could not be removed: {error.strerror}.", "Remove it by hand."
        ) from error


def owner_of(folder: Path) -> str | None:
    """The stack id in a folder's configuration; None when nothing was laid there yet."""
    try:
        return str(json.loads((folder / "config" / "node.json").read_text(encoding="utf-8"))["stack_id"])
    except (OSError, ValueError, KeyError):
        return None


def ports_of(folder: Path, stack_id: str) -> dict[str, int]:
    """The ports in a folder's configuration, when it is that stack's; else none."""
    if owner_of(folder) != stack_id:
        return {}
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        found = json.loads((folder / "config" / "node.json").read_text(encoding="utf-8"))["ports"]
        return {str(key): int(port) for key, port in found.items()}
    return {}


def _told_of(folder: Path) -> dict[str, str]:
    """What a note tells of the node whose folder it is, as far as that is known."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        had = json.loads((folder / "config" / "node.json").read_text(encoding="utf-8"))
        return {key: str(had[key]) for key in TOLD if had.get(key)}
    return {}


def retained(folder: Path) -> Retained | None:
    """What an earlier node of this stack's name has left in its folder."""
    told = kept.read(folder)
    if told is None:
        return None
    since = str(told["since"])
    name, email, kind = (str(told.get(key) or "") for key in TOLD)
    whose = f' of "{name}"' if name else ""
    return Retained(since, f"the folder {folder}{whose}", since, kept.size(folder), email, kind)


def _acquire(plan: Plan) -> None:
    owner = owner_of(plan.folder)
    if (found := retained(plan.folder)) and owner is None and found.id != plan.spec.adopted:
        if plan.spec.adopted != NEW_DATA:
            raise ResourceError(
                f"{found.what} was kept when that node was destroyed.",
                f"`{typed('deploy', plan.spec.name, '--adopt')}` takes it over, `--new-data` begins anew and "
                "moves it aside.",
            )
        kept.set_aside(plan.folder)
    if owner not in (None, plan.spec.stack_id):
        raise ResourceError(
            f"{plan.folder} belongs to another stack.",
            "Destroy that node first, or deploy under another name.",
        )
    ensure_private(plan.folder)
    if not plan.spec.adopting:
        kept.settle(plan.folder)


def _choose_ports(plan: Plan, current: Mapping[str, int], table: Sequence[Service]) -> dict[str, int]:
    # A create that was interrupted has chosen already: what it wrote is this node's.
    known = dict(current) or ports_of(plan.folder, plan.spec.stack_id)
    asked = {PROXY: plan.spec.port} if plan.spec.port else {}
    taken = port_choice.reserved_by_others(plan.folder.parent, plan.folder)
    # What is behind the reverse proxy's https listens beside it, on the loopback.
    behind = _ports_behind(plan, table)
    front = {}
    if plan.tls and PROXY not in known:
        front = {PROXY: fronting.first_port(taken, lambda port: port_choice.free(plan.bind, port))}
    inner = [row.name for row in table if row.inner]
    return port_choice.allocate(
        {**ports_outside(table), **behind, **front},
        asked,
        known,
        plan.bind,
        taken,
        [*inner, *behind],
        hold=port_choice.hold,
    )


def _write_config(plan: Plan, files: Mapping[str, str]) -> list[str]:
    """Write what differs; returns those that stood there changed or were missing."""
    stale = []
    for name, text in files.items():
        if not _stands(plan, name, text):
            write_private(plan.folder / "config" / name, text.encode())
            stale.append(name)
    for path in (plan.folder / "config").iterdir():
        if path.name not in files:
            path.unlink()
    return stale


def _stands(plan: Plan, name: str, text: str) -> bool:
    """Whether a file of the configuration is as it should be, and its owner's alone."""
    path = plan.folder / "config" / name
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8") == text and not path.stat().st_mode & 0o077
    return False


def _restart_tokens(stale: Sequence[str], table: Sequence[Service]) -> dict[str, str]:
    """For each service whose own file was just rewritten a fresh mark, so that it restarts."""
    return {
        row.name: os.urandom(4).hex() for row in programs(table) if any(name in stale for name in row.files)
    }


def _copy_bundle(plan: Plan) -> None:
    target = plan.folder / "app" / "gridup_node"
    if target.is_dir() and bundle_digest(target) == plan.bundle:
        return
    source = PACKAGE
    fresh = plan.folder / "app" / ".new"
    shutil.rmtree(fresh, ignore_errors=True)
    for path in bundle_files(source):
        copy = fresh / path.relative_to(source)
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(copy, path.read_bytes())
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _private_keys(folder: Path) -> list[Path]:
    return [folder / "keys" / name for name in keys.PRIVATE]


def _ensure_keys(plan: Plan) -> None:
    """The host's key and the key to enter with; an existing one is never overwritten."""
    if "sshd" not in plan.tools:
        return
    try:
        keys.ensure(plan.folder / "keys", f"gridup {plan.spec.stack}", plan.spec.ssh_keys, _keygen)
    except OSError as error:
        raise ResourceError(f"The node's ssh keys could not be made: {error}.") from error


def _keygen(argv: Sequence[str]) -> None:
    made = run(argv, timeout=keys.KEYGEN_SECONDS)
    if not made.ok:
        raise OSError(f"{argv[0]}: {' '.join(made.tail(1))}")
