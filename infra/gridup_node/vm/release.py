"""Manages the releases on a machine, as its user: applies a new one, or rolls back to the previous one.

    missing   return which of these files (hashes) are not here
    upload    store these files (a tar)
    apply     make this plan the release; roll back to the previous one if that fails
    look      report what is released and its state
    down      stop the node and remove its containers

A command's input comes on stdin. Its output is lines of JSON: `say` for each step, and at the end `done` or
`failed`. A run continues if its caller goes away. The next run repairs what an interrupted run left.
`MODULES` are sent as one file; they need only the standard library of Debian 13.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gridup_node.confines import IMAGE_UID, SHARE, altered, limits
from gridup_node.image import REBUILT, archive
from gridup_node.vm.docker_cli import BASE, MADE, Engine, Failed, Say, crash_of
from gridup_node.vm.ipc import emit, exclusive
from gridup_node.vm.logins import end_others
from gridup_node.vm.people import People
from gridup_node.vm.shield import Shield
from gridup_node.vm.store import Store, write
from gridup_node.vm.updates import Updates

MODULES = (
    "catalog",
    "confines",
    "image/__init__",
    "piping",
    *(
        f"vm/{name}"
        for name in ("ipc", "docker_cli", "logins", "people", "shield", "store", "updates", "release")
    ),
)
"""The modules of the package `gridup_node` that are sent."""

ASKED = ("authorized_keys", "users", "reboot_at", "doors", "counted")
"""The fields of the last `Plan` that `State` stores: the settings of the machine itself."""

LOCK_SECONDS = 2400.0
"""How long to wait for another run: it may be building."""

CA_SECONDS = 20.0
"""How long a healthy Caddy may take to write its CA's certificate."""

CERTIFICATE_END = "-----END CERTIFICATE-----"


@dataclass(frozen=True)
class Plan:
    """What to release.

    Attributes:
        image: the image's reference. The tag of a built image is a hash of what it is built from.
        pull: whether to pull the image; else it is built.
        base_image: the image that it is built from.
        files: the hashes of the build's files, by path. The files are already on the machine.
        arguments: environment variables of the build's steps. They may contain passwords, and are not stored.
        project: compose's name for the node.
        compose: the compose file.
        start_first: services that must be healthy before the others are changed.
        authorized_keys: public keys that give access as the machine's user, who may use sudo; a line each,
            the deployer's own first.
        users: public keys that give access as a user without rights; see `people`.
        reboot_at: when the machine's own updates may restart it: `HH:MM`, empty for never; None if this is
            not the node's to set.
        ca_file: the certificate of the node's own CA, as `SERVICE:PATH` in the container; empty if there is
            none.
        data: the folder of the node's data on the machine.
        uid: the user of the node's programs, who owns all their data. The default is the image's own, which
            all older releases used.
        health_seconds: how long each service may take to become healthy.
        shared: whether Docker has other users than the node; then its build cache is left as it is.
        doors: the machine's ports that not everybody may reach, see `shield.Doors`.
        counted: the ports that limit the connections of one address, see `shield.Counted`.
        rebuilt: when a rebuild of the image was last requested; empty for never.
    """

    image: str
    pull: bool
    base_image: str
    project: str
    compose: str
    start_first: tuple[str, ...]
    authorized_keys: tuple[str, ...]
    ca_file: str
    health_seconds: float
    data: str
    shared: bool = False
    rebuilt: str = ""
    uid: int = IMAGE_UID
    users: tuple[str, ...] = ()
    reboot_at: str | None = None
    doors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    counted: Mapping[str, Sequence[str]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Plan:
        """Return the plan that the deployer sent."""
        return cls(**_fields(cls, told))


@dataclass(frozen=True)
class Release:
    """A stored release: enough to bring it back.

    Attributes:
        id: a hash of the image's reference and the compose file.
    """

    id: str
    image: str
    project: str
    compose: str
    first: tuple[str, ...]
    ca_file: str
    files: tuple[str, ...]
    data: str = ""
    uid: int = IMAGE_UID

    @classmethod
    def of(cls, plan: Plan) -> Release:
        made = hashlib.sha256(f"{plan.image}\0{plan.compose}".encode()).hexdigest()[:12]
        hashes = tuple(sorted(set(plan.files.values())))
        compose = marked(plan.compose)
        told = (
            plan.image,
            plan.project,
            compose,
            plan.start_first,
            plan.ca_file,
            hashes,
            plan.data,
            plan.uid,
        )
        return cls(made, *told)

    @property
    def services(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.compose)["services"]
        return found


@dataclass(frozen=True)
class State:
    """What this machine knows of its releases.

    Attributes:
        current: the last one that became healthy.
        previous: the one before it, for a rollback.
        images: all images that were brought here and not removed.
        authorized_keys, users, reboot_at, doors, counted: see `Plan`.
    """

    current: Release | None = None
    previous: Release | None = None
    images: tuple[str, ...] = ()
    authorized_keys: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    reboot_at: str | None = None
    doors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    counted: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> State:
        """Return the saved state; an empty one if none was saved."""
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        current, previous = (_release(told.get(name)) for name in ("current", "previous"))
        return cls(**{**_fields(cls, told), "current": current, "previous": previous})

    def save(self, path: Path) -> None:
        write(path, json.dumps(asdict(self), indent=1).encode())


def _release(told: dict[str, Any] | None) -> Release | None:
    if told is None:
        return None
    return Release(**_fields(Release, told))


def _fields(kind: type[Plan] | type[Release] | type[State], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `told` that are fields. Another version may have sent more."""
    own = {one.name for one in fields(kind)}
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in told.items() if key in own
    }


def marked(compose: str) -> str:
    """Return a compose file in which each service has a label with the hash of its definition."""
    whole = json.loads(compose)
    for made in whole["services"].values():
        digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
        made["labels"] = {**made.get("labels", {}), MADE: digest}
    return json.dumps(whole, indent=1)


def _limits_altered(
    made: Mapping[str, Any], container: Mapping[str, Any], machine: Mapping[str, Any]
) -> bool:
    """Return whether a container's limits differ from those of its service on this machine."""
    return SHARE in made and altered(limits(made[SHARE], machine), container["HostConfig"])


class ReleaseManager:
    """The releases of this machine.

    Args:
        folder: stores all that is needed to bring a release back.
        user_home: the home of the user whose `authorized_keys` are managed.
        say: receives a message for each step.
        end_logins: ends all logins of the user except this program's.
    """

    def __init__(
        self,
        folder: Path,
        user_home: Path,
        say: Say,
        engine: Engine | None = None,
        sleep: Callable[[float], None] = time.sleep,
        shield: Shield | None = None,
        people: People | None = None,
        updates: Updates | None = None,
        end_logins: Callable[[], None] = end_others,
    ) -> None:
        self._end_logins = end_logins
        self._shield = shield or Shield()
        self._people = people or People()
        self._updates = updates or Updates()
        self._folder = folder
        self._keys = user_home / ".ssh" / "authorized_keys"
        self._say = say
        self._engine = engine or Engine()
        self._sleep = sleep
        self._saved = folder / "releases.json"
        self.store = Store(folder / "files")

    def apply(self, plan: Plan) -> dict[str, Any]:
        """Make `plan` the release. Repeating it changes nothing.

        Raises:
            Failed: the release failed; if there was a previous release, it runs again.
        """
        with self._alone():
            state = State.load(self._saved)
            self._let_in(plan.authorized_keys)
            asked = {name: getattr(plan, name) for name in ASKED}
            state = replace(state, **asked)
            state.save(self._saved)
            self._people.lay(plan.users)
            self._updates.lay(plan.reboot_at)
            wanted = Release.of(plan)
            same = state.current is not None and state.current.id == wanted.id
            if not same or self._problems(state):
                # Remove the images of releases that failed.
                state = self._forget_images(state, {plan.image}, shared=plan.shared)
                # Record the image before it exists: its build may finish after this program was interrupted,
                # and the image is Gridup's then too.
                images = tuple(sorted({*state.images, plan.image}))
                state = replace(state, images=images)
                state.save(self._saved)
                self._have_image(plan)
                self._shield.lay(plan.doors, plan.counted)
                if same and (unbound := self._unbound(wanted)):
                    # Compose compares containers with the definition it created them from, not with their
                    # current limits. So remove them first.
                    self._engine.remove(unbound)
                self._change(wanted, plan.health_seconds, None if same else state.current)
            former = state.previous if same else state.current
            state = replace(state, current=wanted, previous=former)
            state.save(self._saved)
            kept = [release for release in (wanted, former) if release]
            self.store.retain_only(name for release in kept for name in release.files)
            state = self._forget_images(state, set(), shared=plan.shared)
            self._engine.forget_networks(plan.project)
            return self._report(state, CA_SECONDS)

    def look(self) -> dict[str, Any]:
        """Report what is released and its state.

        Returns:
            `release`: its id, empty for none.
            `problems`: the drift, a line each.
            `dead`: programs that crashed and are not restarted, each with its exit code.
            `ca`: the certificate (PEM) of the node's own CA.
            `built`: when the image was built (ISO 8601), empty if it does not exist.
        """
        return self._report(State.load(self._saved))

    def down(self) -> dict[str, Any]:
        """Stop the node and remove its containers; the data and the image stay.

        Raises:
            Failed: compose failed.
        """
        with self._alone():
            current = State.load(self._saved).current
            if current is not None:
                self._say("stopping the node")
                self._engine.down(current.project, self._lay(current))
            return {}

    def _have_image(self, plan: Plan) -> None:
        if self._engine.has(plan.image):
            return
        if plan.pull:
            self._say(f"pulling {plan.image}")
            self._engine.pull(plan.image)
            return
        self._say("building the node's image")
        context = archive({name: self.store.read(digest) for name, digest in plan.files.items()})
        arguments = {BASE: plan.base_image}
        if plan.rebuilt:
            arguments[REBUILT] = plan.rebuilt
            # A digest always means the same image. If a tag's registry can't be reached, the local image is
            # used.
            if "@" not in plan.base_image:
                self._say(f"looking for a newer {plan.base_image}")
                with contextlib.suppress(Failed):
                    self._engine.pull(plan.base_image)
        self._engine.build(plan.image, context, arguments, plan.arguments, self._say)

    def _unbound(self, release: Release) -> list[str]:
        """Return the containers whose limits differ from their share of the machine as it is now."""
        names = {service: f"{release.project}-{service}" for service in release.services}
        machine, found = self._engine.facts(), self._engine.find(list(names.values()))
        return [
            name
            for service, name in names.items()
            if name in found and _limits_altered(release.services[service], found[name], machine)
        ]

    def _change(self, wanted: Release, seconds: float, former: Release | None) -> None:
        """Start a release. If it fails, roll back to the former one.

        Raises:
            Failed: the release did not become healthy.
        """
        try:
            if former and former.uid != wanted.uid:
                # The old and the new uid can't use each other's files, so stop the programs of the old one
                # first.
                self._engine.stop(wanted.project)
            self._engine.prepare(wanted.image, wanted.data, wanted.uid)
            self._bring_up(wanted, seconds)
        except Failed as error:
            if former is None:
                raise
            self._say("going back to the former release")
            try:
                if former.uid != wanted.uid:
                    self._engine.stop(wanted.project)
                    # Use the program of the new image: the former one may not have it.
                    self._engine.prepare(wanted.image, wanted.data, former.uid)
                self._bring_up(former, seconds)
                what = "The former release runs again."
            except Failed as worse:
                what = f"The former release does not run either: {worse.message}"
            raise Failed(error.message, f"{error.suggestion} {what}".strip(), error.details) from error

    def _bring_up(self, release: Release, seconds: float) -> None:
        file = self._lay(release)
        first = [name for name in release.services if name in release.first]
        rest = [name for name in release.services if name not in release.first]
        # A release that fails must do so before more of the node is changed than needed.
        if first and rest:
            self._say(f"starting {', '.join(first)}")
            self._engine.up(release.project, file, first)
            self._say(f"waiting for {', '.join(first)} to prove itself")
            self._engine.prove(release.project, first, seconds)
        self._say(f"starting {', '.join(rest or first)}")
        self._engine.up(release.project, file)
        self._say("waiting for all to prove themselves")
        self._engine.prove(release.project, list(release.services), seconds)

    def _lay(self, release: Release) -> str:
        path = self._folder / "compose.json"
        whole, machine = json.loads(release.compose), self._engine.facts()
        for made in whole["services"].values():
            made.update(limits(made[SHARE], machine) if SHARE in made else {})
        write(path, json.dumps(whole, indent=1).encode())
        return str(path)

    def _problems(self, state: State) -> list[str]:
        return [*self._states(state)[0], *self._settings(state), *self._unshielded(state)]

    def _unshielded(self, state: State) -> list[str]:
        return self._shield.problems(state.doors, state.counted)

    def _settings(self, state: State) -> list[str]:
        """Return the drift of the machine's own settings."""
        found = [*self._authorized_keys_drift(state), *self._people.problems(state.users)]
        return [*found, *self._updates.problems(state.reboot_at)]

    def _states(self, state: State) -> tuple[list[str], list[str]]:
        """Return the drift, and the programs that crashed."""
        current = state.current
        if current is None:
            return ["nothing is released on the machine"], []
        names = {service: f"{current.project}-{service}" for service in current.services}
        try:
            found = self._engine.find(list(names.values()))
        except Failed as error:
            return [error.message.rstrip(".")], []
        problems, dead, machine = [], [], self._engine.facts()
        for service, name in names.items():
            container = found.get(name)
            if container is None:
                problems.append(f"{service}: the container {name} is gone")
                continue
            told = container["State"]
            if container["Config"]["Labels"].get(MADE) != current.services[service]["labels"][MADE]:
                problems.append(f"{service}: the container differs from its definition")
            elif how := crash_of(container):
                problems.append(f"{service} {how}")
            elif told["Paused"]:
                problems.append(f"{service}: the container is paused")
            elif not told["Running"] and not told["Restarting"]:
                problems.append(f"{service}: the container does not run (exit code {told['ExitCode']})")
            elif _limits_altered(current.services[service], container, machine):
                problems.append(f"{service}: the container's limits were changed")
            if how := crash_of(container):
                dead.append(f"{service} {how}")
        return problems, dead

    def _authorized_keys_drift(self, state: State) -> list[str]:
        same = set(self._let_in_now()) == set(state.authorized_keys)
        return [] if same else ["ssh: the keys of who may enter the machine were changed"]

    def _let_in_now(self) -> list[str]:
        try:
            return self._keys.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def _let_in(self, people: Sequence[str]) -> None:
        if not people:
            raise Failed("Without a public key nobody could enter the machine any more.")
        self._keys.parent.mkdir(mode=0o700, exist_ok=True)
        former = set(self._let_in_now())
        write(self._keys, "".join(f"{line}\n" for line in people).encode())
        if former - set(people):
            # It is unknown which key a login used, so all logins end. Users with a valid key can log in
            # again.
            self._end_logins()

    def _report(self, state: State, ca_seconds: float = 0) -> dict[str, Any]:
        problems, dead = self._states(state)
        current = state.current
        unshielded = self._unshielded(state) if current else ()
        return {
            "release": current.id if current else "",
            "problems": [*problems, *self._settings(state), *unshielded],
            "dead": dead,
            "ca": self._ca(current, ca_seconds) if current and not problems else "",
            "built": self._engine.built(current.image) if current else "",
        }

    def _ca(self, release: Release, seconds: float) -> str:
        """Return the certificate of the node's own CA.

        Raises:
            Failed: `seconds` after the reverse proxy became healthy there is no certificate.
        """
        waited = 0.0
        service, _, path = release.ca_file.partition(":")
        while path:
            if CERTIFICATE_END in (text := self._engine.read(f"{release.project}-{service}", path)):
                return text
            if waited >= seconds:
                if seconds:
                    raise Failed(f"The node's CA has no certificate at {release.ca_file}.")
                break
            self._sleep(0.25)
            waited += 0.25
        return ""

    def _forget_images(self, state: State, wanted: set[str], *, shared: bool) -> State:
        """Remove all images except those of the current and the previous release, and the wanted ones."""
        kept = wanted | {release.image for release in (state.current, state.previous) if release}
        if gone := [image for image in state.images if image not in kept]:
            for image in gone:
                self._engine.forget(image)
            if not shared:
                self._engine.prune_build_cache()
            images = tuple(image for image in state.images if image in kept)
            state = replace(state, images=images)
            state.save(self._saved)
        return state

    def _alone(self) -> AbstractContextManager[None]:
        def failed(text: str) -> Failed:
            return Failed(f"{text.capitalize()}.")

        return exclusive(self._folder / "lock", LOCK_SECONDS, self._say, failed, self._sleep)


def main() -> int:
    """Run the program. Return exit code 0 if the command succeeded."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o077)
    command, folder = sys.argv[1], Path(sys.argv[0]).absolute().parent
    releases = ReleaseManager(folder, Path.home(), lambda text: emit(say=text))
    try:
        emit(done=carry_out(releases, command))
    except Failed as error:
        emit(failed={"message": error.message, "suggestion": error.suggestion, "details": error.details})
        return 1
    for path in folder.glob("release-*.pyz"):
        # Programs of other Gridup versions, which send theirs again.
        if path.name != Path(sys.argv[0]).name and command == "apply":
            path.unlink(missing_ok=True)
    return 0


def carry_out(releases: ReleaseManager, command: str) -> dict[str, Any]:
    """Run one command with its input from stdin.

    Raises:
        Failed: the command failed.
    """
    if command == "upload":
        try:
            return {"taken": releases.store.upload(sys.stdin.buffer)}
        except ValueError as error:
            raise Failed(f"The copy to the machine broke off: {error}.", "Run the same again.") from None
    told = json.load(sys.stdin)
    if command == "missing":
        return {"missing": releases.store.missing(told)}
    if command == "apply":
        return releases.apply(Plan.parse(told))
    if command == "look":
        return releases.look()
    if command == "down":
        return releases.down()
    raise Failed(f"The machine's program has no command {command!r}.")
