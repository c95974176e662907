"""The node's image on a daemon: built once for all nodes of the same code, and marked for each of them.

The shared image (`gridup-node:SYFT-DIGEST`) belongs to no stack; `gridup prune` removes those that no
node uses. Each stack has an image of its own on top of it, which is nothing but the stack's marks.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gridup_infra.building import build_arguments
from gridup_infra.errors import ResourceError
from gridup_infra.locking import locked
from gridup_infra.paths import Home
from gridup_infra.targets.docker import marks
from gridup_infra.targets.docker.client import BUILD_SECONDS, CALL_SECONDS, reason
from gridup_node import image as node_image

if TYPE_CHECKING:
    import docker

REPOSITORY = "gridup-node"
"""Of the shared images."""

Say = Callable[[str], None]


def reference(version: str, base_image: str) -> tuple[str, dict[str, bytes]]:
    """The shared image's name for this code and syft version, and what it is built from."""
    files = node_image.context(version)
    digest = node_image.digest(files, base_image or node_image.BASE_IMAGE)
    return f"{REPOSITORY}:{version}-{digest}", files


def ensure(client: docker.DockerClient, props: Mapping[str, Any], say: Say) -> str:
    """The stack's image, built and marked where it is not there. Returns its id.

    Raises:
        ResourceError: the build failed; the end of its output is in the details.
    """
    shared, files = reference(props["version"], props["base_image"])
    own = props["image"]
    found = _find(client, own)
    if found and _is_of(found, props):
        return str(found["Id"])
    with locked(
        Home.default().root / "docker-build.lock",
        "a build of the node's image",
        wait=BUILD_SECONDS,
        busy="The node's image is being built",
    ):
        if _find(client, shared) is None:
            arguments = {**build_arguments(), "BASE_IMAGE": props["base_image"] or node_image.BASE_IMAGE}
            _build(client, node_image.archive(files), shared, arguments, {marks.SHARED: shared}, say)
    # The marks are a layer of no bytes on top of the shared image: all in one step, where the builder's own
    # labels are a step each.
    pairs = " ".join(f"{key}={_quoted(value)}" for key, value in marks.labels(props).items())
    mark = {"Dockerfile": f"FROM {shared}\nLABEL {pairs}\n".encode()}
    _build(client, node_image.archive(mark), own, {}, {}, lambda _line: None)
    made = _find(client, own)
    if made is None:
        raise ResourceError(f"The image {own} is not there right after its making.")
    return str(made["Id"])


def drift(client: docker.DockerClient, props: Mapping[str, Any]) -> list[str]:
    """What is not as it was made: that it is gone, or is another one."""
    found = _find(client, props["image"])
    if found is None:
        return [f"the image {props['image']} is gone"]
    return [] if _is_of(found, props) else [f"the image {props['image']} is another one"]


def _is_of(image: Mapping[str, Any], props: Mapping[str, Any]) -> bool:
    """Whether it bears the stack's marks and stands on the shared image of this code."""
    labels = image["Config"].get("Labels") or {}
    return bool(
        labels.get(marks.STACK_ID) == props["stack_id"] and labels.get(marks.SHARED) == props["shared"]
    )


def remove(client: docker.DockerClient, stack_id: str, *, but: str = "") -> None:
    """Remove the stack's images that no container uses any more.

    Args:
        but: the reference of one to leave.

    Raises:
        ResourceError: the daemon would not.
    """
    import docker

    for image in marks.images(client, stack_id):
        references = [tag for tag in image.get("RepoTags") or () if tag != "<none>:<none>"]
        used = {container["ImageID"] for container in marks.containers(client, stack_id)}
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
    """The shared images that no stack's image stands on."""
    users = _users(client)
    for image in client.api.images(filters={"label": marks.SHARED}):
        if not marks.label(image, marks.STACK_ID):
            tags = (tag for tag in image.get("RepoTags") or () if tag.startswith(f"{REPOSITORY}:"))
            yield from (tag for tag in tags if tag not in users)


def _users(client: docker.DockerClient) -> dict[str, str]:
    """The shared images that stacks' images stand on, each with a node that does."""
    # A stack's image has its labels and those of what it stands on.
    return {
        marks.label(image, marks.SHARED): marks.label(image, marks.NAME)
        for image in client.api.images(filters={"label": marks.SHARED})
        if marks.label(image, marks.STACK_ID)
    }


def exists(client: docker.DockerClient, name: str) -> bool:
    """Whether the daemon has an image of that name."""
    return _find(client, name) is not None


def remove_shared(client: docker.DockerClient, name: str) -> None:
    """Remove a shared image, and the stage that its environment was made in.

    Raises:
        ResourceError: a node uses it.
    """
    import docker

    if user := _users(client).get(name):
        # The daemon would take its name away and leave the rest.
        raise ResourceError(f'The image {name} is used by the node "{user}".')
    try:
        client.api.remove_image(name)
        for image in client.api.images(filters={"label": marks.STAGE, "dangling": True}):
            client.api.remove_image(image["Id"])
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        raise ResourceError(f"The image {name} could not be removed: {reason(error)}.") from error


def _find(client: docker.DockerClient, name: str) -> dict[str, Any] | None:
    import docker

    try:
        found: dict[str, Any] = client.api.inspect_image(name)
    except docker.errors.NotFound:
        return None
    return found


def _build(
    client: docker.DockerClient,
    context: bytes,
    tag: str,
    arguments: Mapping[str, str],
    labels: Mapping[str, str],
    say: Say,
) -> None:
    """Build with the daemon's own builder: the SDK speaks no other, and it is the same on all of them."""
    # Only a build may be silent for so long.
    client.api.timeout = BUILD_SECONDS
    last: list[str] = []
    try:
        for event in client.api.build(
            fileobj=io.BytesIO(context),
            custom_context=True,
            tag=tag,
            buildargs=dict(arguments),
            labels=dict(labels),
            rm=True,
            forcerm=True,
            # A mirror or proxy that the daemon's machine reaches is reached by the build as well.
            network_mode="host",
            decode=True,
        ):
            if "error" in event:
                raise _build_error(str(event["error"]), last)
            for line in _lines(str(event.get("stream") or event.get("status") or "")):
                last.append(line)
                del last[:-40]
                say(line)
    finally:
        client.api.timeout = CALL_SECONDS


def _quoted(text: str) -> str:
    """A value as a Dockerfile has it, where a dollar sign would be a variable's."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", text) + '"'


def _lines(text: str) -> list[str]:
    """The lines of a build's output, without the colours that its builder gives to errors."""
    return [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]


def _build_error(text: str, last: list[str]) -> ResourceError:
    line = " ".join(text.split()).rstrip(".")
    if "no space left" in text.lower():
        return ResourceError(
            "The disk of the Docker daemon is full.", "`docker system df` tells what fills it."
        )
    if "pull access denied" in text or "manifest" in text or "registry" in text or "lookup" in text:
        return ResourceError(
            f"The base image could not be had: {line}.",
            "Is the registry reachable? GRIDUP_BASE_IMAGE names another image of Python 3.10 to 3.12.",
        )
    return ResourceError(
        f"The node's image could not be built: {line}.",
        "HTTPS_PROXY, PIP_INDEX_URL and UV_INDEX_URL are handed to the build.",
        tuple(last[-8:]),
    )
