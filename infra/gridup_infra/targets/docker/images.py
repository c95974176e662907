"""The node's image on a daemon: a shared image per version of the code, and a labelled image per stack.

The shared image (`gridup-node:SYFT-DIGEST`) belongs to no stack. `gridup prune` removes shared images that no
node uses. Each stack has its own image on top of the shared one. It only adds the stack's ownership labels.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gridup_infra.build_env import build_arguments
from gridup_infra.errors import BusyError, ResourceError
from gridup_infra.locking import locked
from gridup_infra.paths import Home
from gridup_infra.targets.docker import node_labels
from gridup_infra.targets.docker.client import BUILD_SECONDS, CALL_SECONDS, reason
from gridup_node import image as node_image
from gridup_node.vm.existing_host import MACHINES

if TYPE_CHECKING:
    import docker

LOCK = "docker-build.lock"
"""Lock file in GRIDUP_HOME. A process holds it while it builds or removes shared images."""

REPOSITORY = "gridup-node"
"""Repository name of the shared images."""

NOBODYS = "registry.invalid"
"""Name of a registry that can't exist (RFC 2606)."""

SYSTEM = "linux"
"""The operating system of a node's containers, by the daemon's name for it."""

ALSO_CALLED = {"amd64": "x86_64", "arm64": "aarch64"}
"""Some daemons' names for processor architectures -> the names in `MACHINES`."""

Say = Callable[[str], None]


def reference(
    version: str, base_image: str, rebuilt: str = "", added: str = ""
) -> tuple[str, dict[str, bytes]]:
    """Return the shared image's reference for this code and syft version, and the files of its build context.

    Args:
        version: the syft version.
        base_image: the base image; empty for the pinned one.
        rebuilt: when the last rebuild was requested; empty for never.
        added: see `image.context`.
    """
    files = node_image.context(version, added)
    digest = node_image.digest(files, base_image or node_image.PINNED_BASE, rebuilt)
    return f"{REPOSITORY}:{version}-{digest}", files


def ensure(client: docker.DockerClient, props: Mapping[str, Any], say: Say) -> str:
    """Build the shared image and the stack's labelled image where they are missing. Returns the latter's id.

    Raises:
        ResourceError: the build fails; the end of its output is in the details.
        BusyError: another process holds the lock for too long.
    """
    rebuilt = props.get("rebuilt", "")
    shared, files = reference(props["version"], props["base_image"], rebuilt, props.get("packages", ""))
    own = props["image"]
    found = _find(client, own)
    if found and _is_of(found, props):
        return str(found["Id"])
    with _alone("a build of the node's image", wait=BUILD_SECONDS):
        if _find(client, shared) is None:
            base = props["base_image"] or node_image.PINNED_BASE
            arguments = {**build_arguments(), "BASE_IMAGE": base}
            if rebuilt:
                arguments[node_image.REBUILT] = rebuilt
                _refresh(client, base, say)
            try:
                # The host's network: the build then reaches every mirror or proxy that the daemon's machine
                # reaches.
                network = None if _remaps_users(client) else "host"
                labels = {node_labels.SHARED: shared}
                _build(client, node_image.archive(files), shared, say, arguments, labels, network)
            finally:
                if holds_password(arguments.values()):
                    # The history of a build stage holds the build arguments, so also a password in them.
                    # Without a password, the stage is kept for later builds.
                    forget_stages(client)
        # The ownership labels are an empty layer on top of the shared image. A LABEL instruction is a single
        # build step; labels passed to the builder are a step each.
        pairs = " ".join(f"{key}={_quoted(value)}" for key, value in node_labels.labels(props).items())
        mark = {"Dockerfile": f"FROM {shared}\nLABEL {pairs}\n".encode()}
        _build(client, node_image.archive(mark), own, lambda _line: None)
    made = _find(client, own)
    if made is None:
        raise ResourceError(f"The image {own} is not there right after its making.")
    return str(made["Id"])


def _alone(what: str, wait: float) -> AbstractContextManager[None]:
    """Return the lock that keeps builds and removals of shared images apart.

    A shared image looks unused until the stack's image is built on it, so a removal must not run meanwhile.

    Args:
        what: what the holder does, for a message.
        wait: seconds to wait for another holder.

    Raises:
        BusyError: another process builds or removes a shared image.
    """
    return locked(Home.default().root / LOCK, what, wait=wait, busy="The node's image is in use")


def built(client: docker.DockerClient, props: Mapping[str, Any]) -> str:
    """Return when the shared image was created (ISO 8601, from the daemon); empty if it does not exist."""
    return str((_find(client, props["shared"]) or {}).get("Created", ""))


def drift(client: docker.DockerClient, props: Mapping[str, Any]) -> list[str]:
    """Return a line if the stack's image is gone or is another one; else an empty list."""
    found = _find(client, props["image"])
    if found is None:
        return [f"the image {props['image']} is gone"]
    return [] if _is_of(found, props) else [f"the image {props['image']} is another one"]


def _is_of(image: Mapping[str, Any], props: Mapping[str, Any]) -> bool:
    """Return whether the image has the stack's ownership label and is based on this code's shared image."""
    labels = image["Config"].get("Labels") or {}
    return bool(
        labels.get(node_labels.STACK_ID) == props["stack_id"]
        and labels.get(node_labels.SHARED) == props["shared"]
    )


def remove(client: docker.DockerClient, stack_id: str, *, but: str = "") -> None:
    """Remove the stack's images that none of its containers uses.

    Args:
        but: the reference of an image to leave.

    Raises:
        ResourceError: the daemon refuses.
    """
    import docker

    for image in node_labels.images(client, stack_id):
        references = [tag for tag in image.get("RepoTags") or () if tag != "<none>:<none>"]
        used = {container["ImageID"] for container in node_labels.containers(client, stack_id)}
        if but in references or image["Id"] in used:
            continue
        try:
            for name in references or [image["Id"]]:
                client.api.remove_image(name)
        except docker.errors.NotFound:
            continue
        except docker.errors.APIError as error:
            raise ResourceError(f"The image {image['Id']} could not be removed: {reason(error)}.") from error


def unused(client: docker.DockerClient) -> Iterator[str]:
    """Yield the references of shared images that no stack's image is based on."""
    users = _users(client)
    for image in client.api.images(filters={"label": node_labels.SHARED}):
        if not node_labels.label(image, node_labels.STACK_ID):
            tags = (tag for tag in image.get("RepoTags") or () if tag.startswith(f"{REPOSITORY}:"))
            yield from (tag for tag in tags if tag not in users)


def _users(client: docker.DockerClient) -> dict[str, str]:
    """Return {shared image: name of a node whose image is based on it}."""
    # A stack's image inherits the labels of its base, so it also has the shared image's label.
    return {
        node_labels.label(image, node_labels.SHARED): node_labels.label(image, node_labels.NAME)
        for image in client.api.images(filters={"label": node_labels.SHARED})
        if node_labels.label(image, node_labels.STACK_ID)
    }


def exists(client: docker.DockerClient, name: str) -> bool:
    """Return whether the daemon has an image of that name."""
    return _find(client, name) is not None


def remove_shared(client: docker.DockerClient, name: str) -> None:
    """Remove a shared image, and the build stages of environments.

    Raises:
        ResourceError: a node uses the image, or the daemon refuses.
        BusyError: another process builds or removes a shared image.
    """
    try:
        with _alone("a removal of the node's image", wait=0):
            _remove_shared(client, name)
    except BusyError as error:
        raise BusyError(error.message, "Run `gridup prune` again when that has ended.") from None


def _remove_shared(client: docker.DockerClient, name: str) -> None:
    import docker

    if user := _users(client).get(name):
        # The daemon would only remove the image's name, and leave the image.
        raise ResourceError(f'The image {name} is used by the node "{user}".')
    try:
        client.api.remove_image(name)
        forget_stages(client)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        raise ResourceError(f"The image {name} could not be removed: {reason(error)}.") from error


def forget_stages(client: docker.DockerClient) -> None:
    """Remove the build stages in which environments were created."""
    for image in client.api.images(filters={"label": node_labels.STAGE, "dangling": True}):
        client.api.remove_image(image["Id"])


def holds_password(values: Iterable[str]) -> bool:
    """Return whether a URL in a build's arguments holds a password or token (a part before `@`)."""
    for value in values:
        for address in value.split():
            with contextlib.suppress(ValueError):
                if "@" in urlsplit(address).netloc:
                    return True
    return False


def _find(client: docker.DockerClient, name: str) -> dict[str, Any] | None:
    import docker

    try:
        found: dict[str, Any] = client.api.inspect_image(name)
    except docker.errors.NotFound:
        return None
    return found


def _refresh(client: docker.DockerClient, base: str, say: Say) -> None:
    """Pull the newest image of the base image's tag. Does nothing for a digest, which names only one image.

    If the registry can't be reached, reports it and leaves the existing image.
    """
    import docker

    if "@" in base:
        return
    say(f"looking for a newer {base}")
    _forget_credentials(client)
    try:
        client.images.pull(base)
    except docker.errors.DockerException as error:
        say(f"no newer {base} could be had, the one that is there is used: {reason(error)}")


def _build(
    client: docker.DockerClient,
    context: bytes,
    tag: str,
    say: Say,
    arguments: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    network: str | None = None,
) -> None:
    """Build with the daemon's classic builder: the SDK supports no other, and it is the same on all daemons.

    The user's registry credentials are only read if the base image can't be pulled without them: their
    credential helper may be gone, for example after a change from Docker Desktop.
    """
    built = functools.partial(
        _built,
        client,
        context,
        say,
        tag=tag,
        buildargs=dict(arguments or {}),
        labels=dict(labels or {}),
        network_mode=network,
    )
    # Only a build may print nothing for so long.
    client.api.timeout = BUILD_SECONDS
    _forget_credentials(client)
    try:
        try:
            built()
        except AuthenticationError:
            with _store_errors():
                client.api.reload_config()
                built()
    finally:
        client.api.timeout = CALL_SECONDS


def _forget_credentials(client: docker.DockerClient) -> None:
    """Make the SDK ignore the user's registry credentials.

    The configuration names a registry that can't exist: with an empty one, the SDK would read the user's.
    """
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="gridup-", suffix=".json") as file:
        json.dump({"auths": {NOBODYS: {}}}, file)
        file.flush()
        client.api.reload_config(file.name)


class AuthenticationError(ResourceError):
    """A registry refuses the base image without credentials."""


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    """Translate errors of a credential helper.

    Raises:
        ResourceError: the credentials can't be read. The suggestion names the file that configures the
            helper.
    """
    import docker
    from docker.credentials import StoreError

    try:
        with warnings.catch_warnings():
            # The SDK's warning has the same text as the error that it then raises.
            warnings.simplefilter("ignore")
            yield
    except (StoreError, docker.errors.DockerException) as error:
        if not isinstance(error, StoreError) and "Credentials store error" not in str(error):
            raise
        file = Path(os.environ.get("DOCKER_CONFIG") or "~/.docker").expanduser() / "config.json"
        raise ResourceError(
            f"The base image needs credentials, and they can't be had: {' '.join(str(error).split())}.",
            f"{file} names that helper: install it, or take it out of there and log in with `docker login`.",
        ) from error


def _built(client: docker.DockerClient, context: bytes, say: Say, **options: Any) -> None:
    last: list[str] = []
    for event in client.api.build(
        fileobj=io.BytesIO(context),
        custom_context=True,
        **options,
        rm=True,
        forcerm=True,
        decode=True,
    ):
        if "error" in event:
            raise _build_error(str(event["error"]), last)
        for line in _lines(str(event.get("stream") or event.get("status") or "")):
            last.append(line)
            del last[:-40]
            say(line)


def check(told: Mapping[str, Any]) -> None:
    """Check that the daemon can build and run a node's image.

    Args:
        told: the result of `docker info`.

    Raises:
        ResourceError: its containers are not Linux, or its processor architecture is not supported.
    """
    system, kind = str(told.get("OSType") or SYSTEM), str(told.get("Architecture") or MACHINES[0])
    kind = ALSO_CALLED.get(kind, kind)
    if system != SYSTEM:
        raise ResourceError(
            f"The Docker daemon runs containers of {system.capitalize()}, and a node's are of Linux.",
            "In Docker Desktop: Switch to Linux containers. Or set DOCKER_HOST to another daemon.",
        )
    if kind not in MACHINES:
        raise ResourceError(
            f"The Docker daemon's machine has a processor of the kind {kind}, and a node runs on "
            f"{' and '.join(MACHINES)}.",
            "Set DOCKER_HOST to another daemon.",
        )


def _remaps_users(client: docker.DockerClient) -> bool:
    """Return whether the daemon uses user namespaces. It then refuses builds in its machine's network."""
    options = client.info().get("SecurityOptions") or ()
    return any("name=userns" in option for option in options)


def _quoted(text: str) -> str:
    """Return a value in quotes for a Dockerfile. Escapes the dollar sign, which would begin a variable."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", text) + '"'


def _lines(text: str) -> list[str]:
    """Return the lines of a build's output, without blank ones and without the colour codes of errors."""
    return [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]


def _build_error(text: str, last: list[str]) -> ResourceError:
    line = " ".join(text.split()).rstrip(".")
    if "no space left" in text.lower():
        return ResourceError(
            "The disk of the Docker daemon is full.", "`docker system df` tells what fills it."
        )
    denied = any(word in text for word in ("pull access denied", "unauthorized", "authentication required"))
    if denied or "manifest" in text or "registry" in text or "lookup" in text:
        return (AuthenticationError if denied else ResourceError)(
            f"The base image could not be had: {line}.",
            "Is the registry reachable? GRIDUP_BASE_IMAGE names another image of Python 3.10 to 3.12.",
        )
    return ResourceError(
        f"The node's image could not be built: {line}.",
        "HTTPS_PROXY, PIP_INDEX_URL and UV_INDEX_URL are handed to the build.",
        tuple(last[-8:]),
    )
