"""Docker on a machine, through its own programs: the node's image, and its containers by compose."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gridup_node import piping

CALL_SECONDS = 120.0
PULL_SECONDS = BUILD_SECONDS = 1800.0
UP_SECONDS = 300.0
"""For compose to stop what runs and start what shall: its programs have some 20 s to stop."""

PREPARE_SECONDS = 900.0
"""For the node's data to be made ready, each file of which may have to be given to another user."""

DATA_PATH = "/var/lib/gridup"
"""Where the node's image looks for the data: its GRIDUP_NODE_DATA."""

EXEC_SECONDS = 20.0
"""For one asking of a program's health, which gives up by itself after 8 s for each of its services."""

CRASH_LOOP = 2
"""So many restarts by Docker, and a program is not worth waiting for."""

LOG_LINES = 15
BUILD_LINES = 12
STEP_LENGTH = 90
"""Characters of a build's step that are told: its number and how its command begins."""

BUILD = ("docker", "build", "--network=host", "--progress=plain")
BASE = "BASE_IMAGE"
"""The build's argument that names what it begins with."""

SECRETS_STEP = re.compile(r"RUN (--mount=\S+ )+for secret in .*? done\s+(\\\s+)?&& ")
"""How a step begins that has secrets, see `image.with_secrets`."""

MADE = "org.gridup.made"
"""The label that holds a hash of what a container was made by."""

Say = Callable[[str], None]


class Failed(Exception):
    """It could not be done.

    Attributes:
        suggestion, details: what to do; the end of a log. As of the deployer's own errors.
    """

    def __init__(self, message: str, suggestion: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message, self.suggestion, self.details = message, suggestion, tuple(details)


@dataclass(frozen=True)
class Completed:
    """How a program ended, and what it wrote, errors and all."""

    code: int
    text: str

    @property
    def line(self) -> str:
        """Its last words."""
        return " ".join(" ".join(self.text.splitlines()[-3:]).split()) or f"exit code {self.code}"


def run(
    argv: Sequence[str],
    *,
    timeout: float = CALL_SECONDS,
    input: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Completed:
    """Run a program to its end; it is killed after `timeout` seconds, with exit code 124."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
        )
    except FileNotFoundError:
        return Completed(127, f"{argv[0]} is not installed")
    end = time.monotonic() + timeout
    feeder = threading.Thread(target=_feed, args=(process, input or b""), daemon=True)
    feeder.start()
    lines = []
    try:
        for line in piping.lines(process, end):
            lines.append(line)
            if on_line:
                on_line(line)
        code = piping.wait(process, end)
    except TimeoutError:
        return Completed(124, f"{argv[0]} did not end within {timeout:g} s")
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    return Completed(code, "\n".join(lines))


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    if process.stdin is not None:
        # One that ends without reading it all is told of by its exit code.
        with contextlib.suppress(OSError):
            process.stdin.write(data)
        with contextlib.suppress(OSError):
            process.stdin.close()


Run = Callable[..., Completed]


class Engine:
    """Docker, as the machine's user may use it.

    Args:
        run: see `run`; tests have one of their own.
    """

    def __init__(
        self,
        run: Run = run,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._run, self._clock, self._sleep = run, clock, sleep

    def facts(self) -> dict[str, Any]:
        """What `docker info` tells of the machine; nothing where Docker does not answer."""
        done = self._run(["docker", "info", "--format", "{{json .}}"])
        lines = [line for line in done.text.splitlines() if line.startswith("{")]
        found: dict[str, Any] = json.loads(lines[0]) if lines else {}
        return found

    def has(self, image: str) -> bool:
        return bool(self._run(["docker", "image", "inspect", "--format", "{{.Id}}", image]).code == 0)

    def built(self, image: str) -> str:
        """When an image was made (ISO 8601); empty where it is not there."""
        done = self._run(["docker", "image", "inspect", "--format", "{{.Created}}", image])
        return str(done.text.strip()) if done.code == 0 else ""

    def pull(self, image: str) -> None:
        """Have a published image.

        Raises:
            Failed: it can't be had.
        """
        done = self._run(["docker", "pull", "--quiet", image], timeout=PULL_SECONDS)
        if done.code != 0:
            raise Failed(
                f"The image {image} could not be pulled: {done.line}.",
                "Can the machine reach its registry, and is it public?",
            )

    def build(
        self,
        image: str,
        context: bytes,
        arguments: Mapping[str, str],
        secrets: Mapping[str, str],
        say: Say,
    ) -> None:
        """Build an image from a tar.

        Args:
            arguments: the build's.
            secrets: what its steps have in their environment: in no argv, no output and no builder's cache.

        Raises:
            Failed: the build failed; the end of its output is in the details.
        """
        last: list[str] = []

        def hear(line: str) -> None:
            if text := told(line, secrets):
                last.append(text)
                del last[:-BUILD_LINES]
                # The steps alone: what each of them writes is hundreds of lines.
                if text.startswith("["):
                    say(" ".join(text.split())[:STEP_LENGTH])

        argv = [*BUILD, f"--tag={image}", *handed(arguments, secrets), "-"]
        # A Docker of before 23 has another builder by itself, which knows no secrets.
        environment = {**secrets, "DOCKER_BUILDKIT": "1"}
        done = self._run(argv, timeout=BUILD_SECONDS, input=context, environment=environment, on_line=hear)
        if done.code == 0:
            return
        if "no space left" in done.text.lower():
            raise Failed("The machine's disk is full.", "`docker system df` on it tells what fills it.")
        words = ("pull access denied", "failed to resolve source metadata", "manifest unknown")
        if any(word in done.text for word in words):
            raise Failed(
                f"The base image {arguments.get(BASE, '')} could not be had.",
                "Can the machine reach its registry? GRIDUP_BASE_IMAGE names another one.",
                last,
            )
        raise Failed(
            f"The node's image could not be built (exit code {done.code}).",
            "HTTPS_PROXY, PIP_INDEX_URL and UV_INDEX_URL are handed to the build.",
            last,
        )

    def forget(self, image: str) -> None:
        """Remove an image that nothing runs on, if it is there."""
        self._run(["docker", "image", "rm", image])

    def prune_build_cache(self) -> None:
        """Remove what builds keep to be faster, where none has used it for a week."""
        self._run(["docker", "builder", "prune", "--force", "--filter=until=168h"])

    def prepare(self, image: str, data: str, uid: int) -> None:
        """Have the folders of the node's data where its containers look for them, all of it `uid`'s.

        Args:
            image: the node's; it has the program for it, `gridup_node.folders`.
            data: the folder on the machine.

        Raises:
            Failed: that program failed.
        """
        rights = [f"--cap-add={name}" for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER")]
        closed = ["--rm", "--network=none", "--user=0:0", "--cap-drop=ALL", *rights]
        program = ["--entrypoint=python", image, "-m", "gridup_node.folders", str(uid)]
        argv = ["docker", "run", *closed, f"--volume={data}:{DATA_PATH}", *program]
        done = self._run(argv, timeout=PREPARE_SECONDS)
        if done.code != 0:
            raise Failed(f"The node's data could not be made ready: {done.line}.")

    def stop(self, project: str) -> None:
        """Stop whatever runs of a project; what compose brings up again is not changed by it."""
        rows = self._run(["docker", "ps", "--quiet", f"--filter=label=com.docker.compose.project={project}"])
        if containers := rows.text.split():
            self._run(["docker", "stop", *containers])

    def remove(self, containers: Sequence[str]) -> None:
        """Stop containers, and remove them."""
        self._run(["docker", "stop", *containers])
        self._run(["docker", "rm", "--force", *containers])

    def read(self, container: str, path: str) -> str:
        """A text file of a container that runs; nothing where it is not there."""
        done = self._run(["docker", "exec", container, "cat", path], timeout=EXEC_SECONDS)
        return f"{done.text}\n" if done.code == 0 else ""

    def forget_networks(self, project: str) -> None:
        """Remove a project's networks that nothing is in: those of a former release."""
        label = f"--filter=label=com.docker.compose.project={project}"
        self._run(["docker", "network", "prune", "--force", label])

    def up(self, project: str, file: str, services: Sequence[str] = ()) -> None:
        """Have what a compose file says, all of it or some services; what it does not say is removed.

        Raises:
            Failed: compose failed.
        """
        words = ["up", "--detach", "--no-build", "--pull=never", "--remove-orphans"]
        argv = ["docker", "compose", f"--project-name={project}", f"--file={file}"]
        done = self._run([*argv, *words, *services], timeout=UP_SECONDS)
        if done.code != 0:
            raise Failed(f"The node's containers could not be started: {done.line}.")

    def down(self, project: str, file: str) -> None:
        """Stop all that a compose file says, and remove the containers.

        Raises:
            Failed: compose failed.
        """
        argv = ["docker", "compose", f"--project-name={project}", f"--file={file}", "down"]
        done = self._run([*argv, "--remove-orphans"], timeout=UP_SECONDS)
        if done.code != 0:
            raise Failed(f"The node's containers could not be removed: {done.line}.")

    def find(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Containers as Docker describes them, by their name; without those that are not there.

        Raises:
            Failed: Docker does not answer.
        """
        # As lines: without one that is not there it prints the others, and an error after them.
        done = self._run(["docker", "container", "inspect", "--format", "{{json .}}", *names])
        found = [json.loads(line) for line in done.text.splitlines() if line.startswith("{")]
        if done.code != 0 and not found and "no such container" not in done.text.lower():
            raise Failed(f"Docker does not answer on the machine: {done.line}.")
        return {row["Name"].lstrip("/"): row for row in found}

    def prove(self, project: str, services: Sequence[str], seconds: float) -> None:
        """Wait until each program does what it is there for.

        Raises:
            Failed: one did not within `seconds`, or crashed; the end of its log is in the details.
        """
        deadline = self._clock() + seconds
        waiting = {name: f"{project}-{name}" for name in services}
        while waiting:
            states = self.find(list(waiting.values()))
            for service, container in list(waiting.items()):
                if container not in states:
                    raise Failed(f"{service}: the container {container} is gone.")
                if how := crash_of(states[container]):
                    raise Failed(f"{service}: {how}.", "", self.log(container))
                asked = ["docker", "exec", container, "python", "-m", "gridup_node.health"]
                done = self._run(asked, timeout=EXEC_SECONDS)
                if done.code == 0:
                    del waiting[service]
                elif self._clock() >= deadline:
                    why = done.line.removeprefix(f"{service}: ")
                    raise Failed(
                        f"{service}: it did not become healthy within {seconds:g} s: {why}.",
                        "",
                        self.log(container),
                    )
            if waiting:
                self._sleep(1)

    def log(self, container: str) -> list[str]:
        """The last lines that a container wrote."""
        text = self._run(["docker", "logs", f"--tail={LOG_LINES}", container]).text
        return [line for line in text.splitlines() if line.strip()]


def crash_of(container: Mapping[str, Any]) -> str:
    """How the program ended, when there is no hope that it will run; else empty."""
    state = container["State"]
    failing = state["Restarting"] and container["RestartCount"] >= CRASH_LOOP
    ended = not state["Running"] and not state["Restarting"] and state["ExitCode"] not in (0, 137, 143)
    if failing or ended:
        return f"crashed (exit {state['ExitCode']}), not restarting"
    return ""


def handed(arguments: Mapping[str, str], secrets: Iterable[str]) -> list[str]:
    """The words by which `docker build` hands a build what it needs: of secrets the names alone, for it takes
    their values from its environment. The steps find them as files (see `image.with_secrets`).
    """
    words = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    return words + [word for name in sorted(secrets) for word in ("--secret", f"id={name},env={name}")]


def told(line: str, arguments: Mapping[str, str]) -> str:
    """What a line of BuildKit's output tells, without its numbers, and without anybody's password."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
    text = re.sub(r"^#\d+ (\d+\.\d+ )?", "", text)
    text = SECRETS_STEP.sub("RUN ", text)
    for value in arguments.values():
        for word in value.split():
            account, at, _ = word.partition("://")[2].rpartition("@")
            if at:
                text = text.replace(account, "***")
                for part in account.split(":", 1)[1:]:
                    text = text.replace(part, "***") if part else text
    return text
