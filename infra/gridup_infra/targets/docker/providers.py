"""The dynamic providers of a Docker node. Pulumi's engine calls them to create, change and delete it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pulumi.dynamic import CreateResult, ReadResult, UpdateResult

from gridup_infra.progress import report
from gridup_infra.targets.docker import (
    cleanup,
    container_lifecycle,
    images,
    node_labels,
    port_allocation,
    volumes,
)
from gridup_infra.targets.docker.client import connected, daemon_id, same_daemon
from gridup_infra.targets.dynamic import (
    DRIFT,
    Properties,
    Provider,
    normalize_numbers,
    translate_errors,
)

if TYPE_CHECKING:
    import docker


class OwnerProvider(Provider):
    """Provider of the owner resource: its delete removes all that is left of the stack; see `resources`."""

    computed = ("daemon",)

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            with connected(props["host"]) as client:
                return CreateResult(
                    props["stack_id"], {**normalize_numbers(props), "daemon": daemon_id(client.info())}
                )

        return translate_errors(create)

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with connected(props["host"]) as client:
                same_daemon(client.info(), props.get("daemon", ""), props["host"])
            return ReadResult(id_, props)

        return translate_errors(read)

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            with connected(news["host"]) as client:
                told = client.info()
                same_daemon(told, olds.get("daemon", ""), news["host"])
                return UpdateResult({**normalize_numbers(news), "daemon": daemon_id(told)})

        return translate_errors(update)

    def delete(self, _id: str, props: Properties) -> None:
        def delete() -> None:
            with connected(props["host"]) as client:
                same_daemon(client.info(), props.get("daemon", ""), props["host"])
                cleanup.delete_all(
                    client,
                    props["stack"],
                    props["name"],
                    props["stack_id"],
                    keep_data=bool(props["keep_data"]),
                )

        translate_errors(delete)


class ImageProvider(Provider):
    """Provider of the node's image with the stack's ownership labels."""

    computed = ("image_id", "built")

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(lambda: CreateResult(props["project"], self._ensure(props)))

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return translate_errors(lambda: UpdateResult(self._ensure(news)))

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with connected(props["host"]) as client:
                return ReadResult(id_, {**props, DRIFT: images.drift(client, props)})

        return translate_errors(read)

    def delete(self, _id: str, props: Properties) -> None:
        def delete() -> None:
            with connected(props["host"]) as client:
                images.remove(client, props["stack_id"])

        translate_errors(delete)

    def _ensure(self, props: Properties) -> Properties:
        with connected(props["host"]) as client:
            made = images.ensure(client, props, lambda text: report("image", text))
            # Remove images of former versions that no container uses.
            images.remove(client, props["stack_id"], but=props["image"])
            built = images.built(client, props)
        return {**normalize_numbers(props), "image_id": made, "built": built, DRIFT: []}


class NetworkProvider(Provider):
    """Provider of the node's private networks and published ports."""

    computed = ("ports",)

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(lambda: CreateResult(props["project"], self._ensure(props, {})))

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        return translate_errors(lambda: UpdateResult(self._ensure(news, normalize_numbers(olds["ports"]))))

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with connected(props["host"]) as client:
                if not node_labels.networks(client, props["stack_id"]):
                    return ReadResult("", {})
                problems = port_allocation.problems(client, props, normalize_numbers(props["ports"]))
                return ReadResult(id_, {**props, DRIFT: problems})

        return translate_errors(read)

    def delete(self, _id: str, props: Properties) -> None:
        def delete() -> None:
            with connected(props["host"]) as client:
                if _left_to_owner(client, props):
                    return
                for network in node_labels.networks(client, props["stack_id"]):
                    client.api.remove_network(network["Id"])

        translate_errors(delete)

    def _ensure(self, props: Properties, current: Mapping[str, int]) -> Properties:
        with connected(props["host"]) as client:
            chosen = port_allocation.ensure(client, props, current)
        return {**normalize_numbers(props), "ports": chosen, DRIFT: []}


class VolumeProvider(Provider):
    """Provider of the node's data volume. With `keep_data`, its delete retains the volume."""

    computed = ("volume",)

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(lambda: CreateResult(props["project"], self._ensure(props)))

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return translate_errors(lambda: UpdateResult(self._ensure(news)))

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with connected(props["host"]) as client:
                found = volumes.find(client, props["stack_id"])
            return ReadResult(id_, {**props, "volume": found}) if found else ReadResult("", {})

        return translate_errors(read)

    def delete(self, _id: str, props: Properties) -> None:
        def delete() -> None:
            with connected(props["host"]) as client:
                if props["keep_data"]:
                    volumes.keep(client, props)
                elif not _left_to_owner(client, props):
                    volumes.remove(client, props["stack_id"])

        translate_errors(delete)

    def _ensure(self, props: Properties) -> Properties:
        with connected(props["host"]) as client:
            return {**normalize_numbers(props), "volume": volumes.ensure(client, props), DRIFT: []}


class ContainerProvider(Provider):
    """Provider of a container with one program of the node."""

    computed = ("config", "ca")
    shaped = frozenset({"environment", "published", "fronts"})

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(
            lambda: CreateResult(container_lifecycle.name_of(props), self._converge(props))
        )

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return translate_errors(lambda: UpdateResult(self._converge(news)))

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with connected(props["host"]) as client:
                found, machine = container_lifecycle.find(client, id_), client.api.info()
            if found is None:
                return ReadResult("", {})
            return ReadResult(id_, {**props, DRIFT: container_lifecycle.drift(found, props, machine)})

        return translate_errors(read)

    def delete(self, id_: str, props: Properties) -> None:
        def delete() -> None:
            with connected(props["host"]) as client:
                container_lifecycle.remove(client, id_, props["stack_id"], int(props["stop_seconds"]))

        translate_errors(delete)

    def _converge(self, props: Properties) -> Properties:
        with connected(props["host"]) as client:
            container_lifecycle.converge(client, props, lambda text: report(props["service"], text))
            ca = container_lifecycle.ca_of(client, props)
        return {
            **normalize_numbers(props),
            "config": container_lifecycle.config_hash(props),
            "ca": ca,
            DRIFT: [],
        }


def _left_to_owner(client: docker.DockerClient, props: Properties) -> bool:
    """Return whether the stack still has containers, which use the network or volume to delete.

    The owner's delete then removes both, the containers first. The engine does not know such a container,
    because its create was interrupted. (Or the engine knows it, and the user replaces the network or volume
    by hand: then what running containers use must stay all the more.)
    """
    return bool(node_labels.containers(client, props["stack_id"]))
