"""The outputs of a stack: where its node is and how to reach it. They never contain a secret."""

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
"""The export with the whole of `NodeOutputs`. The other exports are for users of plain Pulumi."""

BUILT, PACKAGES = "built", "packages"
"""Keys of `NodeOutputs.facts` on every target: when the node's image or environment was built (ISO 8601), and
the packages in it, as `name==version` separated by spaces. Either may be missing."""

BEHIND = "behind"
"""The key of `NodeOutputs.facts` for the ProxyJump or ProxyCommand that leads to the node's machine. It is
missing if ssh connects directly."""

PEOPLE = "people"
"""The key of `NodeOutputs.facts`, for a node on a machine, for the user that keys of `--ssh-key` log in as. A
node that was deployed before that user existed has none."""

DNS_NAME = "dns_name"
"""The key of `NodeOutputs.facts` for the name that the cloud gave to the node's address, if users connect to
that name. A node that was deployed before this key existed has it in its spec, like a name of the user's."""

NOT_COMPLETED = "its deploy was not completed"
"""The reason why a node with an interrupted deploy does not offer a service."""

MANAGEMENT_KEY = "management-key"
"""The secret export of a stack whose node is accessed by ssh: the private key, in OpenSSH's format."""


@dataclass(frozen=True)
class Endpoint:
    """The address of one service.

    Attributes:
        service: the service's key in the service table.
        host, port: the address to connect to.
        url: the address for users; `host:port` if the service does not speak http.
        reason: why the node does not offer the service; empty if it does.
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
        spec: the spec of the deploy, so that every command needs only the node's name.
        address: the address that users connect to.
        ports: the chosen ports, by service.
        tls: whether the pages that users open in a browser are served by https.
        ca: the node's own CA (PEM), the only one to trust for this node; empty if a public CA signs for it.
        ssh_user: the user to log in as.
        not_offered: the services that this node does not have, each with the reason.
        facts: values that the target needs later, such as a folder or an instance id.
        written_by: the version of Gridup that wrote the state; empty if that is not known.
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
        """Return the endpoint of the service `row` on this node."""
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
        """Return the endpoint of each service that is probed, in the order of the table."""
        return {row.name: self.endpoint(row) for row in probed(table)}

    @property
    def named(self) -> bool:
        """Whether users connect to a DNS name, which public certificate authorities can sign for."""
        return bool(self.spec.domain_name or self.facts.get(DNS_NAME))

    @property
    def _scheme(self) -> str:
        return "https" if self.tls else "http"

    def _suffix(self, port: int) -> str:
        return "" if port == (443 if self.tls else 80) else f":{port}"

    def exports(self) -> dict[str, Any]:
        """Return the stack's exports; the keys are `EXPORTS`."""
        whole = {**asdict(self), "spec": self.spec.to_config()}
        urls = {name: end.url for name, end in self.endpoints().items() if not end.reason}
        return {"name": self.spec.name, "urls": urls, EXPORT: json.dumps(whole, sort_keys=True)}

    @classmethod
    def from_exports(cls, exports: Mapping[str, Any]) -> NodeOutputs | None:
        """Read the outputs back from a stack's exports; None if the stack has not exported them yet.

        Raises:
            StateError: the export has another form, or that of an older Gridup.
        """
        text = exports.get(EXPORT)
        if text is None:
            return None
        try:
            whole = {"written_by": "", **json.loads(text)}
            if is_older_config(whole["spec"]):
                raise older(f'The node "{whole["spec"].get("name", "")}"')
            whole["spec"] = DeploySpec.from_config(whole["spec"])
            dict(whole["ports"])
            return cls(**whole)
        # UsageError: a user who only asks for the status did not type the invalid spec.
        except (ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
            raise StateError(f"The stack's output {EXPORT!r} can't be read: {error}.") from error


def url_host(address: str) -> str:
    """Return an address in the form for a URL: IPv6 in brackets (RFC 3986, section 3.2.2)."""
    return f"[{address}]" if ":" in address else address
