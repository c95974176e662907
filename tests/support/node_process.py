"""A real node for the tests marked `node`: syft's server in an environment built from the lock we ship."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gridup_infra import processes
from gridup_node import facts, own_api
from support.syft_client import run_script
from support.workers import free_port

ROOT = Path(__file__).parents[2]
EMAIL = "admin@inst.example"
NAME = "<b>Inst & Söhne</b>"


@pytest.fixture(scope="session")
def node_python(request: pytest.FixtureRequest) -> Path:
    """The Python of a node's environment: GRIDUP_TEST_RUNTIME's, where set, else the suite's own."""
    given = os.environ.get("GRIDUP_TEST_RUNTIME")
    # Asked for by name: where an environment is given, none is built.
    folder = Path(given) if given else Path(request.getfixturevalue("runtime"))
    return folder / "bin" / "python"


@dataclass
class Node:
    """One node's api and its sandbox on a folder of its own."""

    home: Path
    python: Path
    port: int = field(default_factory=free_port)
    name: str = NAME
    node_type: str = "domain"
    more: dict[str, Any] = field(default_factory=dict)
    program: tuple[str, ...] = ("-m", "gridup_node.serve")
    by_socket: bool = False
    sandbox: tuple[str, ...] = ("-m", "gridup_node.sandbox")
    process: subprocess.Popen[bytes] | None = None
    jobs: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def temporary(self) -> Path:
        """What the node has for /tmp, so that a test can wipe it as a reboot does."""
        return self.home.parent / f"{self.home.name}-tmp"

    @property
    def log(self) -> Path:
        return self.home / "logs" / "api.log"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home.parent),
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.temporary),
            "GRIDUP_NODE_HOME": str(self.home),
            # The tests are the reverse proxy, and so say who asks.
            **({} if self.by_socket else {"GRIDUP_PROXY": "127.0.0.1"}),
            "PYTHONPATH": str(ROOT / "infra"),
        }

    def configure(self) -> None:
        for folder in (self.home / "config", self.home / "logs", self.temporary):
            folder.mkdir(parents=True, exist_ok=True)
        told = {
            "name": self.name,
            "stack": "inst",
            "stack_id": "0",
            "node_type": self.node_type,
            "bind": "127.0.0.1",
            "ports": {
                "proxy": 8080,
                **({} if self.by_socket else {"api": self.port}),
                "ssh": 2222,
                "jupyter": 8888,
            },
            "endpoints": {
                "ui": "http://127.0.0.1:8080/login",
                "api": "http://127.0.0.1:8080/api/v2",
                "jupyter": "http://127.0.0.1:8888",
                "ssh": "gridup ssh '<b>Inst & Söhne</b>'",
            },
            "admin_email": EMAIL,
            "gridup_version": "0.1.0",
            # One that is there, and one that a marker has left out.
            "packages": ["starlette", "only-elsewhere"],
            **self.more,
        }
        (self.home / "config" / "node.json").write_text(json.dumps(told))

    def start(self) -> None:
        # Of a node whose api alone was killed.
        self.kill()
        self.configure()
        with self.log.open("ab") as log:
            self.process, self.jobs = (
                subprocess.Popen(
                    [self.python, *program],
                    env=self.environment,
                    cwd=self.home,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                for program in (self.program, self.sandbox)
            )
        assert processes.wait_until(self._answers, timeout=600, every=0.1), self.log.read_text()[-3000:]

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        with contextlib.suppress(OSError, http.client.HTTPException):
            folder = facts.NodeDir(self.home)
            connection = own_api.connection(folder, facts.load(folder.facts), 5)
            try:
                connection.request("GET", "/api/v2/metadata")
                return connection.getresponse().status == 200
            finally:
                connection.close()
        return False

    def stop(self) -> None:
        """Stop it as the supervisor does. It ends by itself."""
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(timeout=120)
        finally:
            self.kill()

    def kill(self) -> None:
        for one in (self.process, self.jobs):
            if one is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.pid, signal.SIGKILL)
                one.wait()
        self.process = self.jobs = None

    def get_json(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def secret(self, name: str) -> str:
        return (self.home / "secrets" / name).read_text().strip()

    def admin(self, command: str, stdin: str = "") -> processes.Result:
        argv = [self.python, "-m", "gridup_node.admin", command]
        return processes.run(argv, timeout=180, env=self.environment, input=stdin.encode())

    @property
    def peak(self) -> int:
        """Bytes: the most memory that the process ever had."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def client(self, script: str, limit: int = 600, **told: Any) -> Any:
        """Run one of our scripts with the real syft client; returns the JSON of its last line.

        Args:
            limit: seconds that it may take.
        """
        given = {
            "url": self.url,
            "email": EMAIL,
            "password": self.secret("admin_password"),
            **told,
        }
        # The client keeps things in the temporary folder too.
        env = {**self.environment, "TMPDIR": tempfile.gettempdir()}
        done = run_script(self.python, script, env=env, timeout=limit, told=json.dumps(given).encode())
        assert done.ok, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}\n{self.log.read_text()[-2000:]}"
        return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def make_node(node_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Node]]:
    """Makes nodes that are not started yet; what still runs at the end is killed."""
    made: list[Node] = []

    def make(**options: Any) -> Node:
        # A folder's name that breaks an address, a shell and a configuration file that are careless.
        node = Node(home=tmp_path_factory.mktemp("nodes") / "my node #1%20", python=node_python, **options)
        made.append(node)
        return node

    yield make
    for node in made:
        node.kill()


@pytest.fixture(scope="session")
def node(make_node: Callable[..., Node]) -> Node:
    """One running node for all tests that leave it as it was."""
    made = make_node()
    made.start()
    return made
