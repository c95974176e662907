"""The folder of a local node: its keys, configuration, secrets and data.

config/   files from `gridup_node.render`; a deploy repairs manual changes
secrets/  the node's secrets, mode 0600
keys/     the ssh host key, the client key, and the authorized keys
proxy/    the node's own CA, if the node uses https
jobs/     the sandbox's socket
data/     the database, blobs and notebooks; --keep-data retains it, with secrets/, keys/ and proxy/
logs/     one file per service
app/      gridup_node, copied when the node was deployed
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
"""The folders that --keep-data retains."""

TOLD = ("name", "admin_email", "node_type")
"""The fields of node.json that the note next to retained data repeats, for the next node of this name."""

BEHIND, BEHIND_FROM = "-behind", 10_000
"""With https, the reverse proxy takes a service's own port, and the service listens on an inner port.
BEHIND is the suffix of the inner port's key. The search for it starts BEHIND_FROM above the service's default
port."""

CA_FILE = "proxy/caddy/pki/authorities/local/root.crt"
CERTIFICATE_END = "-----END CERTIFICATE-----\n"
CA_SECONDS = 30.0

PORTS_WAIT = 30
"""Seconds to wait for another node that is choosing its ports."""


@dataclass(frozen=True)
class Plan:
    """The desired content of a node's folder.

    Attributes:
        folder: the path of the folder.
        spec: the node's spec.
        bin: the folder with the programs of the node's environment.
        bundle: the digest of the `gridup_node` to run.
        tools: {name: path} of the machine's programs that services need.
        user: the account that runs the services.
        syft_version: the version of syft in the environment.
        names: with https, the names and addresses of this machine for the certificates.
        address: the address that users connect to; empty if it follows from the bind address.
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
    """Create or repair the folder. Every step may be repeated. Returns the resource's outputs.

    Raises:
        ResourceError: a port is in use, or the folder belongs to another stack or holds retained data that
            the user neither adopts nor refuses.
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
    """Return outputs of `write_node_dir` that are known in advance: ports and fingerprints.

    Empty if `write_node_dir` would change the node's ports or its services' files. Reads files and changes
    nothing.
    """
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
    """Return the values of the service table's placeholders on this node."""
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
    """Return the services for whose own port the reverse proxy speaks https; none for plain http."""
    return tuple(row.name for row in machine_fronted()) if plan.tls else ()


def _ports_behind(plan: Plan, table: Sequence[Service]) -> dict[str, int]:
    return {f"{name}{BEHIND}": ports_outside(table)[name] + BEHIND_FROM for name in _behind(plan)}


def ca_of(folder: Path) -> str:
    """Wait for the certificate of the node's own CA, and return it.

    The reverse proxy creates it at its first start.

    Raises:
        ResourceError: there is none after `CA_SECONDS`.
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
    """Return the stack's outputs for this node; `ca` is the certificate from `ca_of`."""
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
    """Return {service: reason} for services whose program this machine does not have."""
    return {
        row.name: f"no {row.requires_tool} on this machine"
        for row in programs(table)
        if row.requires_tool and row.requires_tool not in tools
    }


def drift(plan: Plan, chosen: Mapping[str, int], table: Sequence[Service] = SERVICES) -> list[str]:
    """Return the drift of the folder, a line each. Reads files and changes nothing."""
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
    """Delete the folder, or with `keep_data` all of it but `KEPT`.

    Retains the data also if the node has adopted it and was never healthy with it.

    Raises:
        ResourceError: a file could not be deleted.
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
    """Return the stack id in a folder's configuration; None if there is no configuration yet."""
    try:
        return str(json.loads((folder / "config" / "node.json").read_text(encoding="utf-8"))["stack_id"])
    except (OSError, ValueError, KeyError):
        return None


def ports_of(folder: Path, stack_id: str) -> dict[str, int]:
    """Return the ports in a folder's configuration; none if the folder is not that stack's."""
    if owner_of(folder) != stack_id:
        return {}
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        found = json.loads((folder / "config" / "node.json").read_text(encoding="utf-8"))["ports"]
        return {str(key): int(port) for key, port in found.items()}
    return {}


def _told_of(folder: Path) -> dict[str, str]:
    """Return the fields for the note of retained data from the folder's node.json, as far as known."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        had = json.loads((folder / "config" / "node.json").read_text(encoding="utf-8"))
        return {key: str(had[key]) for key in TOLD if had.get(key)}
    return {}


def retained(folder: Path) -> Retained | None:
    """Return the retained data in this stack's folder, from an earlier node; None if there is none."""
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
    # An interrupted create has already chosen ports: those that it wrote are this node's.
    known = dict(current) or ports_of(plan.folder, plan.spec.stack_id)
    asked = {PROXY: plan.spec.port} if plan.spec.port else {}
    taken = port_choice.reserved_by_others(plan.folder.parent, plan.folder)
    # Services behind the reverse proxy's https listen on ports of their own, on the loopback.
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
    """Write the files that differ or are missing, and return their names. Delete all other files."""
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
    """Return whether a configuration file has this text, and only its owner can access it."""
    path = plan.folder / "config" / name
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8") == text and not path.stat().st_mode & 0o077
    return False


def _restart_tokens(stale: Sequence[str], table: Sequence[Service]) -> dict[str, str]:
    """Return a new token for each service whose own file was rewritten, so that the service restarts."""
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
    """Create the host key and the client key. Never overwrites an existing key."""
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
