"""Runs on a machine as its user: what is released there, and how one release takes the place of another.

    missing   which of these files (hashes) are not here
    take      keep these files (a tar)
    apply     make this plan the release; the former one serves on where that fails
    look      what is released, and how it is
    down      stop the node and remove its containers

What a command needs comes on stdin; its output is lines of JSON: `say` for each step, at last `done`
or `failed`. It goes on where whoever called it went away, and what was cut short is put right by the
next run. `MODULES` are sent as one file; they need nothing but the standard library of Debian 13.
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
"""Of the package `gridup_node`, what is sent."""

ASKED = ("authorized_keys", "users", "reboot_at", "doors", "counted")
"""What `State` keeps of the last `Plan`: how the machine itself is set."""

LOCK_SECONDS = 2400.0
"""For another run to end: it may be building."""

CA_SECONDS = 20.0
"""Until Caddy, which is healthy, must have written its CA's certificate."""

CERTIFICATE_END = "-----END CERTIFICATE-----"


@dataclass(frozen=True)
class Plan:
    """What is to be released.

    Attributes:
        image: its reference; for one that is built its tag says what it is built from.
        pull: whether it is pulled; else it is built.
        base_image: what it is built from.
        files: of the build, by path: their hashes. They are here.
        arguments: what the build's steps have in their environment. They may hold passwords, and are kept
            nowhere.
        project: compose's name for the node.
        compose: the compose file.
        first: services that must have proven themselves before the others are touched.
        authorized_keys: public keys of who may enter the machine as its user, who may use sudo, a line each,
            the deployer's own first.
        users: those of who may enter it as a user without any rights; see `people`.
        reboot_at: when the machine's own updates may restart it: `HH:MM`, empty for never; None where that is
            not the node's to set.
        ca_file: where the node's own CA has its certificate, as `SERVICE:PATH` in the container; empty where
            it has none.
        data: the folder of the node's data on the machine.
        uid: of the node's programs, and of all that they keep there; by default the image's own, as every
            release had it once.
        health_seconds: until each program must have proven itself.
        shared: whether Docker is not the node's alone; what it keeps of builds is then left as it is.
        doors: ports of the machine that not everybody reaches, see `shield.Doors`.
        counted: those at which one address has so many connections and no more, see `shield.Counted`.
        rebuilt: when the image was last asked to be made anew; empty for never.
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
        """From what the deployer sends."""
        return cls(**_fields(cls, told))


@dataclass(frozen=True)
class Release:
    """What was released, as it is kept: enough to bring it back.

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
        current: the one that has proven itself last.
        former: the one before it, which could be brought back.
        images: all that were brought here and not removed.
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
        """As it was saved; nothing where there is none yet."""
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        current, previous = (_release(told[name]) for name in ("current", "previous"))
        return cls(**{**_fields(cls, told), "current": current, "previous": previous})

    def save(self, path: Path) -> None:
        write(path, json.dumps(asdict(self), indent=1).encode())


def _release(told: dict[str, Any] | None) -> Release | None:
    if told is None:
        return None
    return Release(**_fields(Release, told))


def _fields(kind: type[Plan] | type[Release] | type[State], told: Mapping[str, Any]) -> dict[str, Any]:
    """What of `told` is a field: another version may have told more."""
    own = {one.name for one in fields(kind)}
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in told.items() if key in own
    }


def marked(compose: str) -> str:
    """A compose file in which each service has a label that says what its container is made by."""
    whole = json.loads(compose)
    for made in whole["services"].values():
        digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
        made["labels"] = {**made.get("labels", {}), MADE: digest}
    return json.dumps(whole, indent=1)


def _limits_altered(
    made: Mapping[str, Any], container: Mapping[str, Any], machine: Mapping[str, Any]
) -> bool:
    """Whether a container has other limits than its service in a compose file has there."""
    return SHARE in made and altered(limits(made[SHARE], machine), container["HostConfig"])


class ReleaseManager:
    """The releases of this machine.

    Args:
        folder: where all is kept that is needed to bring one back.
        user_home: of the user whose `authorized_keys` are kept.
        say: hears what is being done.
        end_logins: ends all logins of the user's but this program's.
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
        """Make `plan` the release. The same once more changes nothing.

        Raises:
            Failed: it could not be; the former release serves, if there was one.
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
                # Of releases that failed.
                state = self._forget_images(state, {plan.image}, shared=plan.shared)
                # Noted before it is there: one whose build goes on without us is ours too.
                images = tuple(sorted({*state.images, plan.image}))
                state = replace(state, images=images)
                state.save(self._saved)
                self._have_image(plan)
                self._shield.lay(plan.doors, plan.counted)
                if same and (unbound := self._unbound(wanted)):
                    # Compose looks at what it has made them with, and not at what they have by now.
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
        """What is released and how it is.

        Returns:
            `release`: its id, empty for none. `problems`: what is not as it was made, a line each. `dead`:
            programs that crashed and are not restarted, each with its exit code. `ca`: the certificate (PEM)
            of the node's own CA. `built`: when the image was made (ISO 8601), empty where it is not there.
        """
        return self._report(State.load(self._saved))

    def down(self) -> dict[str, Any]:
        """Stop the node and remove its containers; the data and the image stay.

        Raises:
            Failed: compose would not.
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
            # A digest has but one. Without a way to a tag's registry the one that is there serves.
            if "@" not in plan.base_image:
                self._say(f"looking for a newer {plan.base_image}")
                with contextlib.suppress(Failed):
                    self._engine.pull(plan.base_image)
        self._engine.build(plan.image, context, arguments, plan.arguments, self._say)

    def _unbound(self, release: Release) -> list[str]:
        """The containers that have other limits than their share of the machine as it is now."""
        names = {service: f"{release.project}-{service}" for service in release.services}
        machine, found = self._engine.facts(), self._engine.find(list(names.values()))
        return [
            name
            for service, name in names.items()
            if name in found and _limits_altered(release.services[service], found[name], machine)
        ]

    def _change(self, wanted: Release, seconds: float, former: Release | None) -> None:
        """Bring a release up, or the former one back.

        Raises:
            Failed: it did not become healthy.
        """
        try:
            if former and former.uid != wanted.uid:
                # What is the one user's no program of the other's could read or write.
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
                    # By the program of the new one: the former may have none.
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
        # A release that fails must fail before more of the node is touched than need be.
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
        """What is not as it was set on the machine itself."""
        found = [*self._authorized_keys_drift(state), *self._people.problems(state.users)]
        return [*found, *self._updates.problems(state.reboot_at)]

    def _states(self, state: State) -> tuple[list[str], list[str]]:
        """The drift, and what crashed."""
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
            # Which of the keys a login came with cannot be told; whoever may, comes back.
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
        """The certificate of the node's own CA.

        Raises:
            Failed: there is none `seconds` after the reverse proxy was found healthy.
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
        """Remove the images that neither the current nor the former release needs, nor one that is wanted."""
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
    """The program: exit code 0 where the command could be carried out."""
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
        # Of other versions, which send theirs again.
        if path.name != Path(sys.argv[0]).name and command == "apply":
            path.unlink(missing_ok=True)
    return 0


def carry_out(releases: ReleaseManager, command: str) -> dict[str, Any]:
    """One command, with what it needs from stdin.

    Raises:
        Failed: it could not be carried out.
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
