"""Docker on a machine, driven by its command line: the node's image, and its containers by compose."""

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
"""For compose to stop old containers and start new ones. The node's programs have some 20 s to stop."""

PREPARE_SECONDS = 900.0
"""For preparing the node's data. The owner of each file may have to change."""

DATA_PATH = "/var/lib/gridup"
"""The data folder in the node's image: its GRIDUP_NODE_DATA."""

EXEC_SECONDS = 20.0
"""For one health check of a program. The check itself gives up after 8 s for each service."""

CRASH_LOOP = 2
"""After this many restarts by Docker, waiting for a program is pointless."""

LOG_LINES = 15
BUILD_LINES = 12
STEP_LENGTH = 90
"""Characters to report of a build step: its number and the beginning of its command."""

BUILD = ("docker", "build", "--network=host", "--progress=plain")
BASE = "BASE_IMAGE"
"""The build argument that names the base image."""

SECRETS_STEP = re.compile(r"RUN (--mount=\S+ )+for secret in .*? done\s+(\\\s+)?&& ")
"""The beginning of a build step that has secrets, see `image.with_secrets`."""

MADE = "org.gridup.made"
"""The label that holds a hash of a container's definition."""

Say = Callable[[str], None]


class Failed(Exception):
    """A command failed.

    Attributes:
        suggestion, details: what to do; the end of a log. As in the deployer's own errors.
    """

    def __init__(self, message: str, suggestion: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message, self.suggestion, self.details = message, suggestion, tuple(details)


@dataclass(frozen=True)
class Completed:
    """A program's exit code and output, errors included."""

    code: int
    text: str

    @property
    def line(self) -> str:
        """The last lines of the output, in one line."""
        return " ".join(" ".join(self.text.splitlines()[-3:]).split()) or f"exit code {self.code}"


def run(
    argv: Sequence[str],
    *,
    timeout: float = CALL_SECONDS,
    input: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Completed:
    """Run a program to its end. It is killed after `timeout` seconds, with exit code 124."""
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
        # A program may end before it reads all input. Its exit code reports that.
        with contextlib.suppress(OSError):
            process.stdin.write(data)
        with contextlib.suppress(OSError):
            process.stdin.close()


Run = Callable[..., Completed]


class Engine:
    """Docker, with the rights of the machine's user.

    Args:
        run: see `run`; tests pass their own.
    """

    def __init__(
        self,
        run: Run = run,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._run, self._clock, self._sleep = run, clock, sleep

    def facts(self) -> dict[str, Any]:
        """Return what `docker info` reports about the machine; empty if Docker does not answer."""
        done = self._run(["docker", "info", "--format", "{{json .}}"])
        lines = [line for line in done.text.splitlines() if line.startswith("{")]
        found: dict[str, Any] = json.loads(lines[0]) if lines else {}
        return found

    def has(self, image: str) -> bool:
        return bool(self._run(["docker", "image", "inspect", "--format", "{{.Id}}", image]).code == 0)

    def built(self, image: str) -> str:
        """Return when an image was built (ISO 8601); empty if it does not exist."""
        done = self._run(["docker", "image", "inspect", "--format", "{{.Created}}", image])
        return str(done.text.strip()) if done.code == 0 else ""

    def pull(self, image: str) -> None:
        """Pull a published image.

        Raises:
            Failed: the image can't be pulled.
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
            arguments: the build arguments.
            secrets: environment variables of the build steps. They appear in no argv, no output and no build
                cache.

        Raises:
            Failed: the build failed; the end of its output is in the details.
        """
        last: list[str] = []

        def hear(line: str) -> None:
            if text := told(line, secrets):
                last.append(text)
                del last[:-BUILD_LINES]
                # Report only the steps: the output of each is hundreds of lines.
                if text.startswith("["):
                    say(" ".join(text.split())[:STEP_LENGTH])

        argv = [*BUILD, f"--tag={image}", *handed(arguments, secrets), "-"]
        # By default Docker before 23 uses another builder, which does not support secrets.
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
        """Remove an image if it exists and no container uses it."""
        self._run(["docker", "image", "rm", image])

    def prune_build_cache(self) -> None:
        """Remove build cache that no build has used for a week."""
        self._run(["docker", "builder", "prune", "--force", "--filter=until=168h"])

    def prepare(self, image: str, data: str, uid: int) -> None:
        """Create the node's data folders where its containers expect them, and let `uid` own all the data.

        Args:
            image: the node's image; it contains the program for this, `gridup_node.folders`.
            data: the data folder on the machine.

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
        """Stop all running containers of a project. Compose can start them again unchanged."""
        rows = self._run(["docker", "ps", "--quiet", f"--filter=label=com.docker.compose.project={project}"])
        if containers := rows.text.split():
            self._run(["docker", "stop", *containers])

    def remove(self, containers: Sequence[str]) -> None:
        """Stop and remove containers."""
        self._run(["docker", "stop", *containers])
        self._run(["docker", "rm", "--force", *containers])

    def read(self, container: str, path: str) -> str:
        """Return a text file of a running container; empty if the file does not exist."""
        done = self._run(["docker", "exec", container, "cat", path], timeout=EXEC_SECONDS)
        return f"{done.text}\n" if done.code == 0 else ""

    def forget_networks(self, project: str) -> None:
        """Remove a project's unused networks: those of earlier releases."""
        label = f"--filter=label=com.docker.compose.project={project}"
        self._run(["docker", "network", "prune", "--force", label])

    def up(self, project: str, file: str, services: Sequence[str] = ()) -> None:
        """Start the services of a compose file, all or some. Remove containers that the file does not define.

        Raises:
            Failed: compose failed.
        """
        words = ["up", "--detach", "--no-build", "--pull=never", "--remove-orphans"]
        argv = ["docker", "compose", f"--project-name={project}", f"--file={file}"]
        done = self._run([*argv, *words, *services], timeout=UP_SECONDS)
        if done.code != 0:
            raise Failed(f"The node's containers could not be started: {done.line}.")

    def down(self, project: str, file: str) -> None:
        """Stop all services of a compose file, and remove their containers.

        Raises:
            Failed: compose failed.
        """
        argv = ["docker", "compose", f"--project-name={project}", f"--file={file}", "down"]
        done = self._run([*argv, "--remove-orphans"], timeout=UP_SECONDS)
        if done.code != 0:
            raise Failed(f"The node's containers could not be removed: {done.line}.")

    def find(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return containers by name, as Docker describes them; containers that do not exist are left out.

        Raises:
            Failed: Docker does not answer.
        """
        # One JSON line per container: if one does not exist, Docker prints the others, then an error.
        done = self._run(["docker", "container", "inspect", "--format", "{{json .}}", *names])
        found = [json.loads(line) for line in done.text.splitlines() if line.startswith("{")]
        if done.code != 0 and not found and "no such container" not in done.text.lower():
            raise Failed(f"Docker does not answer on the machine: {done.line}.")
        return {row["Name"].lstrip("/"): row for row in found}

    def prove(self, project: str, services: Sequence[str], seconds: float) -> None:
        """Wait until each service is healthy.

        Raises:
            Failed: a service is not healthy within `seconds`, crashed, or its container is gone; the end of
                its log is in the details.
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
        """Return the last lines that a container wrote."""
        text = self._run(["docker", "logs", f"--tail={LOG_LINES}", container]).text
        return [line for line in text.splitlines() if line.strip()]


def crash_of(container: Mapping[str, Any]) -> str:
    """Describe how the program crashed, if it keeps crashing or does not run again; else empty."""
    state = container["State"]
    failing = state["Restarting"] and container["RestartCount"] >= CRASH_LOOP
    ended = not state["Running"] and not state["Restarting"] and state["ExitCode"] not in (0, 137, 143)
    if failing:
        return f"keeps crashing (exit {state['ExitCode']})"
    return f"crashed (exit {state['ExitCode']}), not restarting" if ended else ""


def handed(arguments: Mapping[str, str], secrets: Iterable[str]) -> list[str]:
    """Return the options that pass arguments and secrets to `docker build`.

    Secrets are passed by name only: Docker takes their values from its environment. The steps find them as
    files (see `image.with_secrets`).
    """
    words = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    return words + [word for name in sorted(secrets) for word in ("--secret", f"id={name},env={name}")]


def told(line: str, arguments: Mapping[str, str]) -> str:
    """Return the text of a line of BuildKit's output, without its numbers and without passwords."""
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
