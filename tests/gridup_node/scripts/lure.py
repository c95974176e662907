"""A node that is made to connect to somebody else's server; prints what that one gets signed."""

import contextlib
import http.server
import inspect
import json
import socket
import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
from syft.client.api import APIEndpoint, SyftAPI, SyftAPICall
from syft.client.client import HTTPConnection
from syft.serde.deserialize import _deserialize
from syft.serde.serialize import _serialize
from syft.server.credentials import SyftSigningKey
from syft.service.metadata.server_metadata import ServerMetadataJSON
from syft.service.network.routes import HTTPServerRoute
from syft.service.user.user_roles import ServiceRole
from syft.types.uid import UID

from gridup_node.guard import holes

key, node = SyftSigningKey.generate(), UID()
got: list[Any] = []
large = away = False


ARRAY = _serialize(np.zeros(9 * 1024 * 1024, dtype=np.int8), to_bytes=True)
"""More than a node has to say."""


def api() -> bytes:
    """Calls `ping` what makes an account an administrator's, at the node that asks."""
    ping = APIEndpoint(
        id=UID(),
        service_path="user.update",
        module_path="network.ping",
        name="ping",
        description="",
        doc_string="",
        signature=inspect.Signature(),
        has_self=False,
        pre_kwargs={"role": ServiceRole.ADMIN},
    )
    made = SyftAPI(server_uid=node, endpoints={"network.ping": ping}, communication_protocol="dev")
    return _serialize(made, to_bytes=True)


class Elsewhere(http.server.BaseHTTPRequestHandler):
    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        got.append("asked")
        if away:
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{port}/elsewhere")
            self.end_headers()
            return
        if large:
            self.answer(ARRAY)
            return
        self.answer(json.dumps(metadata).encode() if "metadata" in self.path else api())

    def do_POST(self) -> None:
        sent = _deserialize(self.rfile.read(int(self.headers["Content-Length"])), from_bytes=True)
        if sent.is_valid and sent.credentials == key.verify_key and sent.message.server_uid == node:
            got.append(sent.message.path)
        self.answer(ARRAY if sent.message.path == "network.ping" and large else b"")

    def log_message(self, *_: Any) -> None:
        pass


metadata = ServerMetadataJSON(
    metadata_version=1, name="x", id=node.no_dash, verify_key=str(key.verify_key), syft_version="0.9.5",
    lowest_object_version=1, highest_object_version=1, show_warnings=False, server_type="datasite",
    server_side_type="high", min_size_blob_storage_mb=1,
).model_dump(mode="json")  # fmt: skip
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
threading.Thread(target=server.serve_forever, daemon=True).start()
if sys.argv[1] == "closed":
    holes.close(False, False, str(node))
port = server.server_address[1]
route = HTTPServerRoute(host_or_ip="127.0.0.1", port=port, protocol="http")
asks = SimpleNamespace(signing_key=key, verify_key=key.verify_key)
context = SimpleNamespace(server=asks, credentials=key.verify_key)


def seen(role: ServiceRole) -> list[Any]:
    got.clear()
    asks.get_role_for_credentials = lambda _credentials: role
    try:
        route.validate_with_context(context)
    except Exception as error:  # noqa: BLE001 - whatever becomes of it, it counts what was sent
        print(type(error).__name__, error, file=sys.stderr)
    return sorted(set(got))


told = {role.name: seen(role) for role in (ServiceRole.DATA_SCIENTIST, ServiceRole.ADMIN)}
large, other = True, HTTPConnection(url=f"http://127.0.0.1:{port}")
ping = SyftAPICall(server_uid=UID(), path="network.ping", args=[], kwargs={}).sign(key)


def read(ask: Any) -> str:
    try:
        return type(ask()).__name__
    except Exception as error:  # noqa: BLE001 - as above
        return type(error).__name__


told["large"] = [read(lambda: other.make_call(ping)), read(lambda: other.get_api(key, 6))]


def asked(url: str) -> int:
    got.clear()
    with contextlib.suppress(Exception):
        HTTPConnection(url=url).get_server_metadata(key)
    return got.count("asked")


# By a redirect, and by a name of its own that leads to the node's machine.
away, lookup = True, socket.getaddrinfo
told["redirects"] = asked(f"http://127.0.0.1:{port}") - 1
away = False
socket.getaddrinfo = lambda host, *more, **kwargs: lookup("127.0.0.1", *more, **kwargs)
told["by name"] = asked(f"http://lab.example:{port}")
print(json.dumps(told))
