"""What a stack exports: where its node is and how to reach it. Never a secret."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from gridup_infra import __version__
from gridup_infra.errors import StateError, UsageError
from gridup_infra.layout import is_older_config, older
from gridup_infra.spec import DeploySpec
from gridup_node.services import PROXY, SERVICES, Service, probed

EXPORT = "node"
"""The export that carries the whole of `NodeOutputs`; the others are conveniences for plain Pulumi."""

BUILT, PACKAGES = "built", "packages"
"""Keys of `NodeOutputs.facts` for every target: when the image or the environment that the node runs on was
made (ISO 8601), and the packages in it, as `name==version` with a space between. Either may be missing."""

BEHIND = "behind"
"""The key of `NodeOutputs.facts`, of what ssh to the node's machine goes by way of. Others have none."""

PEOPLE = "people"
"""The key of `NodeOutputs.facts`, for a node on a machine, of who `--ssh-key` lets in there. A node that was
deployed before there was such a user has none."""

DNS_NAME = "dns_name"
"""The key of `NodeOutputs.facts` of the name that the cloud gave to the node's address, where the node is
known by that one. One that was deployed before this key has it in its spec, like a person's own."""

NOT_COMPLETED = "its deploy was not completed"
"""Why a node that was only begun does not offer a service."""

MANAGEMENT_KEY = "management-key"
"""The secret export of a stack whose node is entered by ssh: the private key, as OpenSSH writes it."""


@dataclass(frozen=True)
class Endpoint:
    """Where one service is reached.

    Attributes:
        service: its key in the service table.
        host, port: what to connect to.
        url: for people; for a service that is not http, `host:port`.
        reason: why it is not offered here; empty when it is.
    """

    service: str
    host: str
    port: int
    url: str
    reason: str = ""


@dataclass(frozen=True)
class NodeOutputs:
    """A deployed node.

    Attributes:
        spec: what was asked for, so that every command needs only the name.
        address: the address people connect to.
        ports: as chosen, by service.
        tls: whether what people open in a browser speaks https.
        ca: the node's own CA (PEM), the only one to trust for it; empty where a public one vouches.
        ssh_user: who to log in as.
        not_offered: services that this node does not have, with the reason.
        facts: what its own target wants to find again, such as a folder or an instance id.
        written_by: the version of Gridup that wrote the state; empty where that is not known.
    """

    EXPORTS: ClassVar[tuple[str, ...]] = ("name", "urls", EXPORT)

    spec: DeploySpec
    address: str
    ports: Mapping[str, int]
    tls: bool = False
    ca: str = ""
    ssh_user: str = ""
    not_offered: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    written_by: str = __version__

    def endpoint(self, row: Service) -> Endpoint:
        """Where `row` is reached on this node."""
        reason = self.not_offered.get(row.name, "")
        port = self.ports[PROXY if row.front_path else row.name]
        host = url_host(self.address)
        if row.name == PROXY:
            url = self.address
        elif row.front_path:
            url = f"{self._scheme}://{host}{self._suffix(port)}{row.front_path}"
        elif row.speaks_http:
            url = f"{self._scheme}://{host}:{port}"
        else:
            url = f"{host}:{port}"
        return Endpoint(row.name, self.address, port, url, reason)

    def endpoints(self, table: Sequence[Service] = SERVICES) -> dict[str, Endpoint]:
        """Every service that is probed, in the table's order."""
        return {row.name: self.endpoint(row) for row in probed(table)}

    @property
    def named(self) -> bool:
        """Whether people connect to a name that certificate authorities vouch for."""
        return bool(self.spec.domain_name or self.facts.get(DNS_NAME))

    @property
    def _scheme(self) -> str:
        return "https" if self.tls else "http"

    def _suffix(self, port: int) -> str:
        return "" if port == (443 if self.tls else 80) else f":{port}"

    def exports(self) -> dict[str, Any]:
        """As the stack exports it; the keys are `EXPORTS`."""
        whole = {**asdict(self), "spec": self.spec.to_config()}
        urls = {name: end.url for name, end in self.endpoints().items() if not end.reason}
        return {"name": self.spec.name, "urls": urls, EXPORT: json.dumps(whole, sort_keys=True)}

    @classmethod
    def from_exports(cls, exports: Mapping[str, Any]) -> NodeOutputs | None:
        """Read it back from a stack's outputs; None when the stack has not got so far.

        Raises:
            StateError: it is there, but not in this form, or in that of an older Gridup.
        """
        text = exports.get(EXPORT)
        if text is None:
            return None
        try:
            whole = {"written_by": "", **json.loads(text)}
            if is_older_config(whole["spec"]):
                raise older()
            whole["spec"] = DeploySpec.from_config(whole["spec"])
            dict(whole["ports"])
            return cls(**whole)
        # UsageError: a spec that we refuse here was not typed by whoever only asks for the status.
        except (ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
            raise StateError(f"The stack's output {EXPORT!r} can't be read: {error}.") from error


def url_host(address: str) -> str:
    """An address as it stands in a URL: IPv6 in brackets (RFC 3986, section 3.2.2)."""
    return f"[{address}]" if ":" in address else address
