"""Sends releases to a machine: copies the files that changed, and calls a program there that does the rest.

The program is `gridup_node.vm.release`, sent as one file. No secret is in an argv or stays on the machine:
the deployer's mirrors and proxies, which a build needs, are sent with each call.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gridup_infra.build_env import NAMES, portable_build_args
from gridup_infra.errors import ResourceError
from gridup_infra.vm.ssh import Session, SshEndpoint, ssh_session
from gridup_node import image
from gridup_node.vm import release, user_data

FOLDER = ".gridup"
"""The folder in the user's home on the machine that holds the program and its data."""

COPY_SECONDS = 300.0
LOOK_SECONDS = 60.0
DOWN_SECONDS = 120.0

APPLY_SECONDS = 3600.0
"""Time limit for a build, the health of both versions, and the wait for another run. Each step on the machine
has a shorter limit."""

Say = Callable[[str], None]


def context(version: str, added: str = "") -> dict[str, bytes]:
    """Return the files of a build on a machine, by their path; see `image.context`."""
    return image.with_secrets(image.context(version, added), NAMES)


@contextmanager
def connect(door: SshEndpoint, *, timeout: float, say: Say | None = None) -> Iterator[ReleaseClient]:
    """Log in to a machine and yield a client for its releases. Raises as `ssh.ssh_session` does."""
    with ssh_session(door, timeout=timeout, say=say) as session:
        yield ReleaseClient(session)


class ReleaseClient:
    """A client for the releases on a machine. Created by `connect`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        program = user_data.zipapp("gridup_node.vm.release", release.MODULES)
        self._program = f"{FOLDER}/release-{hashlib.sha256(program).hexdigest()[:12]}.pyz"
        self._content = program

    def apply(self, plan: Mapping[str, Any], version: str, say: Say, added: str = "") -> dict[str, Any]:
        """Make `plan` the release. On failure, the former release continues to serve.

        Args:
            plan: see `release.Plan`.
            version: the syft version, which determines the files of the build.
            say: called with each step.
            added: see `image.context`.

        Returns:
            `release.look`'s report of the machine after the release.

        Raises:
            ResourceError: the release can't be built, or does not become healthy.
        """
        self._send_program()
        files = {} if plan["pull"] else context(version, added)
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        if files:
            say("comparing files")
            self._send(dict(zip(hashes.values(), files.values(), strict=True)), say)
        told = {**plan, "files": hashes, "arguments": {} if plan["pull"] else portable_build_args()}
        return self._call("apply", told, say, timeout=APPLY_SECONDS)

    def look(self) -> dict[str, Any]:
        """Return `release.look`'s report: the current release and its health."""
        self._send_program()
        return self._call("look", {}, lambda _text: None, timeout=LOOK_SECONDS)

    def down(self) -> None:
        """Stop the node and remove its containers. The data stays."""
        self._send_program()
        self._call("down", {}, lambda _text: None, timeout=DOWN_SECONDS)

    def _send_program(self) -> None:
        there = self._session.run(["test", "-s", self._program], timeout=LOOK_SECONDS)
        if not there.ok:
            self._session.put(self._program, self._content, timeout=COPY_SECONDS)

    def _send(self, content: Mapping[str, bytes], say: Say) -> None:
        """Send the files that the machine does not have yet.

        Args:
            content: the files by their hash.
        """
        missing = self._call("missing", sorted(content), say, timeout=LOOK_SECONDS)["missing"]
        if not missing:
            return
        size = sum(len(content[name]) for name in missing)
        say(f"copying {len(missing)} files ({size / 1e3:.0f} kB)")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name in missing:
                info = tarfile.TarInfo(name)
                info.size = len(content[name])
                tar.addfile(info, io.BytesIO(content[name]))
        self._run("upload", buffer.getvalue(), say, timeout=COPY_SECONDS)

    def _call(self, command: str, told: object, say: Say, *, timeout: float) -> dict[str, Any]:
        return self._run(command, json.dumps(told).encode(), say, timeout=timeout)

    def _run(self, command: str, input: bytes, say: Say, *, timeout: float) -> dict[str, Any]:
        """Run the program, and return its result. Its output is lines of JSON: its steps, then the result.

        Raises:
            ResourceError: the program reports a failure, ends without a result, or does not end in time.
        """
        ended: dict[str, Any] = {}

        def hear(line: str) -> None:
            try:
                told = json.loads(line)
            except ValueError:
                return
            if isinstance(told, dict):
                if "say" in told:
                    say(str(told["say"]))
                else:
                    ended.update(told)

        argv = ["python3", self._program, command]
        try:
            result = self._session.stream(argv, hear, timeout=timeout, input=input)
        except TimeoutError as error:
            raise ResourceError(f"The machine did not finish in time: {error}.") from None
        if "done" in ended:
            done: dict[str, Any] = ended["done"]
            return done
        if failed := ended.get("failed"):
            raise ResourceError(failed["message"], failed["suggestion"], tuple(failed["details"]))
        why = " ".join(result.tail(3)) or f"exit code {result.code}"
        raise ResourceError(f"The node's program on the machine ended without a word: {why}.")
