"""The socket of a node's api: whose it is, and the way to it from a folder with a long path."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

import pytest

from gridup_node import own_api, serve
from gridup_node.facts import Facts, NodeDir
from gridup_node.own_api import SOCKET

NODE = Facts("Inst", "domain", {"proxy": 8080}, {}, "admin@inst.example")


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(self.path).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's folder, in which the api's process works; longer than the path of a socket may be."""
    made = tmp_path / ("a node's folder " * 8)
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def test_it_is_its_users_alone_and_what_a_killed_server_left_is_in_nobodys_way(root: Path) -> None:
    for _ in range(2):
        own_api.claim()
        for path, wanted in ((root / SOCKET, 0o600), ((root / SOCKET).parent, 0o700)):
            assert stat.S_IMODE(path.stat().st_mode) == wanted
    assert (root / SOCKET).is_socket()


def test_a_second_server_does_not_take_it(root: Path) -> None:
    (root / SOCKET).parent.mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(SOCKET)
        other.listen()
        with pytest.raises(OSError, match="in use"):
            own_api.claim()


def test_it_is_found_from_any_folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_api.claim()
    (root / SOCKET).unlink()
    with UnixStreamServer(SOCKET, Answers) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.chdir(tmp_path)
        asking = own_api.connection(NodeDir(root), NODE, 30)
        asking.request("GET", "/x")
        assert json.loads(asking.getresponse().read()) == "/x"
        assert Path.cwd() == tmp_path
        asking.close()
        thread.join(30)


def test_where_nobody_listens_is_an_error_that_leaves_the_working_folder(root: Path) -> None:
    before = os.getcwd()
    with pytest.raises(OSError, match="No such file"):
        own_api.connection(NodeDir(root), NODE, 5).request("GET", "/")
    assert os.getcwd() == before


@pytest.mark.parametrize("by", ["a port", "its path"])
def test_a_job_that_was_forked_holds_no_connection_of_the_servers(root: Path, by: str) -> None:
    """Else who is at its other end takes it for open when the server has closed it."""
    server: socket.socket
    if by == "a port":
        server = socket.create_server(("127.0.0.1", 0))
        own = server.getsockname()[1]
    else:
        own_api.claim()
        (root / SOCKET).unlink()
        server, own = socket.socket(socket.AF_UNIX), SOCKET
        server.bind(SOCKET)
        server.listen()
    with server, socket.socket(server.family) as person:
        person.settimeout(60)
        person.connect(server.getsockname())
        served = server.accept()[0]
        told, tell = os.pipe()
        job = os.fork()
        if job == 0:
            os.close(tell)
            serve._let_go(own)
            os.read(told, 1)
            os._exit(0)
        try:
            served.close()
            assert person.recv(1) == b""
        finally:
            os.close(tell)
            os.close(told)
            assert os.waitpid(job, 0)[1] == 0


def test_in_a_container_it_is_a_port() -> None:
    node = Facts("Inst", "domain", {"api": 18080}, {}, "admin@inst.example")
    assert own_api.where(node) == "127.0.0.1:18080"
    assert own_api.connection(NodeDir(Path("/srv/node")), node, 5).port == 18080
