"""What is tried on a node from outside, by raw requests at its reverse proxy: the same on every target.

Each attack asserts that it failed. What must be true after each of them is in `withstood`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import resource
import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode, urlsplit

from gridup_infra.processes import run, wait_until
from gridup_node.guard import methods, wire
from support import frames
from support.attacker import Attacker, said, value_of
from support.cli import Cli

HER, OWNER = "eve@inst.example", "owen@inst.example"
HERS = "Ana1ytical-Engine"
"""The password of both."""

ROLES = {"DATA_SCIENTIST": 2, "DATA_OWNER": 32, "ADMIN": 128}

PORTS = {"http": 80, "https": 443}

MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
CALL = "/api/v2/api_call"
EVIL = "https://evil.example"

EVERY_METHOD = (
    *methods.METHODS,
    *methods.ASSOCIATION,
    *methods.PEER_OF_NETWORK,
    # What syft opens to any key or answers itself, and our table to nobody.
    "action.execute",
    "attestation.get_cpu_attestation",
    "attestation.get_gpu_attestation",
    "metadata.get_env",
    "network.add_route",
    "network.delete_route",
    "network.update_route_priority",
    "project.sync",
    "queue",
)


def shell(line: str) -> str:
    """Run a line of a shell's on this machine; what it says."""
    return run(["sh", "-c", line], timeout=60).stdout


@dataclass(frozen=True)
class Target:
    """Where a node is.

    Attributes:
        port, host, ca: of its reverse proxy, as `Attacker` takes them.
        email, password: its administrator's.
        processes: the ids of what answers there, by service.
        shell: runs a line where these are, as who may look into them.
        believed: whether its callers are where they say they are, as behind a proxy of the site's. Else all,
            the administrator too, are at one address for it.
        connections: how many an attacker opens.
    """

    port: int
    email: str
    password: str
    processes: Callable[[], Mapping[str, int]]
    shell: Callable[[str], str] = shell
    host: str = "127.0.0.1"
    ca: str = ""
    believed: bool = True
    connections: int = 1100

    @classmethod
    def of(cls, cli: Cli, processes: Callable[[], Mapping[str, int]], **more: Any) -> Target:
        """Of what is deployed as "Inst"."""
        shown = cli("outputs", "Inst", "--show-secrets", "--json").ok().json
        where = urlsplit(shown["api_url"])
        port = where.port or PORTS[where.scheme]
        account = (shown["admin_email"], shown["admin_password"])
        return cls(port, *account, processes, host=str(where.hostname), **more)

    @property
    def url(self) -> str:
        """As a browser names where a page of it is from: without the scheme's own port."""
        scheme = "https" if self.ca else "http"
        own = "" if self.port == PORTS[scheme] else f":{self.port}"
        return f"{scheme}://{self.host}{own}"

    def caller(self, address: str = "192.0.2.66") -> Attacker:
        """Somebody without an account."""
        return Attacker(self.port, address, host=self.host, ca=self.ca)


@dataclass(frozen=True)
class Scene:
    """A node, and the accounts on it.

    Attributes:
        trap: a file that is there when the node ran a command of an attacker's.
    """

    target: Target
    admin: Attacker
    owner: Attacker
    scientist: Attacker
    trap: str = field(default_factory=lambda: f"/tmp/trap-{secrets.token_hex(8)}")

    @property
    def evil(self) -> frames.Raw:
        """What runs the command where syft builds it."""
        return frames.runs(f"touch {self.trap}")

    def works(self) -> bool:
        """Whether the login page and a signed call are answered."""
        page = self.target.caller("192.0.2.200").ask("GET", "/login")
        return page[0] == 200 and "SyftSuccess" in self.scientist.call("user.get_current_user")

    def sprung(self) -> bool:
        """Whether the node ran the command."""
        looks = (f"ls /proc/{pid}/root{self.trap}" for pid in self.target.processes().values())
        return any(self.target.shell(f"{look} 2>/dev/null") for look in looks)


@contextlib.contextmanager
def scene(target: Target) -> Iterator[Scene]:
    """With accounts on it that are gone afterwards."""
    admin = target.caller("192.0.2.1").sign_in(target.email, target.password)
    assert admin is not None
    made = {}
    for number, (email, role) in enumerate(((HER, "DATA_SCIENTIST"), (OWNER, "DATA_OWNER")), start=2):
        create(admin, email, role)
        found = target.caller(f"192.0.2.{number}").sign_in(email, HERS)
        assert found is not None
        made[role] = found
    try:
        yield Scene(target, admin, made["DATA_OWNER"], made["DATA_SCIENTIST"])
    finally:
        for caller in made.values():
            assert admin.call("user.delete", uid=uid_of(caller)).startswith("SyftSuccess")


def create(admin: Attacker, email: str, role: str) -> None:
    """An account with `HERS` for its password."""
    made = admin.call(
        "user.create", email=email, name="X", password=HERS, password_verify=HERS, role=role_of(role)
    )
    assert made.startswith("SyftSuccess"), made


def role_of(name: str) -> frames.Raw:
    return frames.Raw(frames.fields("ServiceRole", {"value": frames.value(ROLES[name])}))


def uid_of(caller: Attacker) -> frames.Raw:
    """The id of a caller's account."""
    status, answer = caller.post(
        frames.signed(caller.key, frames.call(caller.server(), "user.get_current_user"))
    )
    assert status == 200
    return frames.Raw(dict(value_of(answer).fields)["id"])


@contextlib.contextmanager
def withstood(scene: Scene) -> Iterator[None]:
    """What is tried in the block leaves a node that works, ran nothing, and was not started anew."""
    before = scene.target.processes()
    yield
    assert scene.works()
    assert scene.target.processes() == before
    assert not scene.sprung(), "the node ran a command that a caller named"


def play(scene: Scene, *attacks: Callable[[Scene], None]) -> None:
    """Try each, and look at the node after it."""
    for attack in attacks:
        with withstood(scene):
            attack(scene)


# Requests.


def bodies_run_no_command(scene: Scene) -> None:
    stranger, evil, account = scene.target.caller(), scene.evil, scene.scientist
    server = stranger.server()
    for path in (CALL, "/api/v2/register", "/api/v2/login"):
        for body in (
            evil.data,
            frames.signed(stranger.key, evil.data),
            frames.signed(stranger.key, frames.call(server, "metadata", x=evil)),
            frames.signed(account.key, evil.data),
            frames.fields("UserCreate", {"email": evil.data}),
        ):
            status, _ = stranger.ask("POST", path, body)
            assert status in (200, 400, 403, 404, 422)
    assert "SyftError" in account.call("dataset.get_all", x=evil)
    assert "SyftError" in account.call("dataset.get_all", {evil: 1})


def strangers_call_nothing(scene: Scene) -> None:
    """Each method that any key may call in syft is among these."""
    stranger = scene.target.caller("192.0.2.65")
    server = stranger.server()

    with contextlib.closing(stranger.connection()) as connection:

        def refused(path: str) -> bool:
            body = frames.signed(stranger.key, frames.call(server, path))
            answer = stranger.ask_on(connection, "POST", CALL, body)
            answer.read()
            assert answer.status in (403, 429), path
            return answer.status == 403

        for path in EVERY_METHOD:
            # Too many at once are not looked at.
            assert wait_until(lambda path=path: refused(path), timeout=60), path


def nothing_else_is_there(scene: Scene) -> None:
    # All of one address are told to wait where others there have asked before.
    stranger, gone = (
        scene.target.caller("192.0.2.68"),
        (404, 405) if scene.target.believed else (404, 405, 429),
    )
    metadata = json.loads(stranger.ask("GET", "/api/v2/metadata")[1])
    assert set(metadata) >= {"name", "server_type", "syft_version"}
    for method, path in (
        ("GET", "/api/v2/"),
        ("GET", "/api/v2/docs"),
        ("GET", "/api/v2/metadata_capnp"),
        ("GET", "/api/v2%2Fmetadata_capnp"),
        ("GET", "/login/../api/v2/metadata_capnp"),
        ("GET", "//api/v2/metadata_capnp"),
        ("GET", "/API/V2/metadata_capnp"),
        ("GET", "/openapi.json"),
        ("GET", "/secrets/server_key"),
        ("GET", "/..%2fsecrets/server_key"),
        ("POST", "/api/v2/forgot_password"),
        ("POST", "/api/v2/reset_password"),
        ("POST", "/api/v2/register"),
        ("GET", "/api/v2/stream/0/0/"),
        ("PUT", "/api/v2/stream/0/0/"),
        ("OPTIONS", CALL),
        ("TRACE", "/login"),
    ):
        assert stranger.ask(method, path, b"")[0] in gone, (method, path)


def ping_signs_no_call(scene: Scene) -> None:
    account = scene.scientist
    forged = frames.call(account.server(), "user.get_all")
    for challenge in (forged, b"x" * 17, b"", "x" * 16, list(b"x" * 16)):
        assert "SyftError" in account.call("network.ping", challenge=challenge)
    assert "SyftSuccess" in account.call("network.ping", challenge=b"x" * 16)


def accounts_keep_to_their_role(scene: Scene) -> None:
    for caller, role in (
        (scene.scientist, methods.Role.DATA_SCIENTIST),
        (scene.owner, methods.Role.DATA_OWNER),
    ):
        for path, least in methods.METHODS.items():
            if least > role:
                answer = caller.call(path)
                assert f"you may not call {path}" in answer, answer


def signatures_count_for_their_own_call(scene: Scene) -> None:
    account, admin = scene.scientist, scene.admin
    elsewhere = uuid.uuid4().bytes
    _, answer = account.post(frames.signed(account.key, frames.call(elsewhere, "user.get_current_user")))
    assert "This call is for another node." in said(answer)
    assert "another node" not in account.call("user.get_current_user")
    wanted = frames.call(account.server(), "user.get_all")
    other = admin.key.sign(frames.call(account.server(), "dataset.get_all")).signature
    for body in (
        frames.signed(account.key, wanted, sender=bytes(admin.key.verify_key)),
        frames.signed(admin.key, wanted, signature=other),
        frames.signed(admin.key, wanted, signature=bytes(64)),
    ):
        assert account.post(body)[0] == 403


def rebound_names_are_not_the_nodes(scene: Scene) -> None:
    """A page of one's own leads its name to the node's address: the browser then asks with that name."""
    for caller in (scene.target.caller("192.0.2.70"), scene.scientist):
        for host in (
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
        ):
            for method, path in (("GET", "/login"), ("GET", "/api/v2/metadata"), ("POST", CALL)):
                status, answer = caller.ask(method, path, b"", {"Host": host})
                # Where it speaks https the reverse proxy has nothing at all of that name.
                assert status in (400, 421) or (scene.target.ca and answer == b""), (host, path, status)


def pages_of_other_sites_read_nothing(scene: Scene) -> None:
    caller = scene.target.caller("192.0.2.71")
    asked = {"Origin": EVIL, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
    for method, path in (
        ("OPTIONS", CALL),
        ("OPTIONS", "/login"),
        ("GET", "/api/v2/metadata"),
        ("GET", "/login"),
    ):
        connection = caller.connection()
        with contextlib.closing(connection):
            answer = caller.ask_on(connection, method, path, None, asked)
            assert (answer.status == 200) == (method == "GET"), (method, path)
            shared = [name for name in answer.headers if name.lower().startswith("access-control-")]
            assert shared == [], (method, path)


class Browser:
    """One at the portal, which keeps what it is told."""

    def __init__(self, target: Target) -> None:
        self._caller, self._target = target.caller("192.0.2.72"), target
        self._cookies: SimpleCookie = SimpleCookie()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        """A request with its cookies; the status and the page."""
        sent = "; ".join(f"{name}={one.value}" for name, one in self._cookies.items() if one.value)
        given = {"Cookie": sent, **{name.replace("_", "-"): value for name, value in headers.items()}}
        with contextlib.closing(self._caller.connection()) as connection:
            answer = self._caller.ask_on(connection, method, path, body, given)
            for line in answer.headers.get_all("Set-Cookie") or ():
                self._cookies.load(line)
            return answer.status, answer.read().decode()

    def send(self, path: str, page: str, fields: Mapping[str, str], **headers: str) -> int:
        """Send the form of a page; the answer's status."""
        (token,) = re.findall(r'name="token" value="([^"]+)"', page)
        body = urlencode({**fields, "token": token}).encode()
        return self.ask("POST", path, body, **FORM, **headers)[0]


def forms_of_other_sites_do_nothing(scene: Scene) -> None:
    """They have the form's own token, and the cookies come along: the browser says where they are from."""
    browser, target = Browser(scene.target), scene.target
    foreign: tuple[dict[str, str], ...] = (
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": target.url},
    )
    page = browser.ask("GET", "/login")[1]
    account = {"email": target.email, "password": target.password}
    for headers in foreign:
        assert browser.send("/login", page, account, **headers) == 403
    assert browser.ask("GET", "/")[0] == 303
    assert browser.send("/login", page, account, Origin=target.url) == 303
    for headers in foreign:
        assert browser.send("/logout", browser.ask("GET", "/")[1], {}, **headers) == 403
    status, page = browser.ask("GET", "/")
    assert status == 200
    for headers in foreign:
        told = json.dumps(account).encode()
        assert browser.ask("POST", "/api/v2/login", told, **headers)[0] == 403
        call = frames.signed(scene.admin.key, frames.call(scene.admin.server(), "user.get_all"))
        assert browser.ask("POST", CALL, call, **headers)[0] == 403
    assert browser.send("/logout", page, {}, Origin=target.url) == 303
    assert browser.ask("GET", "/")[0] == 303


def requests_that_are_none_are_refused(scene: Scene) -> None:
    """Whatever one program takes for the end of a request, and the next one for its middle."""
    host = f"Host: {scene.target.host}"
    smuggled = "GET /api/v2/stream/0/0/ HTTP/1.1\r\nX: "
    chunked = "Transfer-Encoding: chunked"
    for text in (
        f"POST {CALL} HTTP/1.1\r\n{host}\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\n{smuggled}",
        f"POST {CALL} HTTP/1.1\r\n{host}\r\nContent-Length: 4\r\n{chunked}\r\n\r\n0\r\n\r\n{smuggled}",
        f"POST {CALL} HTTP/1.1\r\n{host}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}",
        f"POST {CALL} HTTP/1.1\r\n{host}\r\n{chunked}\r\n\r\nffffffffffffffffff\r\nx",
        f"POST {CALL} HTTP/1.1\r\n{host}\r\nContent-Length: -1\r\n\r\nx",
        f"POST {CALL} HTTP/1.1\r\n{host}\r\nContent-Length: +1\r\n\r\nx",
        "GET /login HTTP/1.1\r\n\r\n",
        f"GET /login HTTP/1.1\r\n{host}\r\nHost: evil.example\r\n\r\n",
        f"GET /login HTTP/1.1\r\n{host}\r\nX-Long: {'x' * 100_000}\r\n\r\n",
        f"GET /login HTTP/1.1\r\n{host}\r\nX\0: x\r\n\r\n",
        "\0" * 200 + "\r\n\r\n",
    ):
        status = answer_to(scene.target, text.encode())
        assert status is None or (status >= 400 and status != 500), (status, text[:120])


def answer_to(target: Target, data: bytes) -> int | None:
    """The status that comes for some bytes; None where it hangs up."""
    with contextlib.closing(target.caller().dial()) as one:
        with contextlib.suppress(OSError):
            one.sendall(data)
        found = http.client.HTTPResponse(one)
        try:
            found.begin()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            found.close()
        return found.status


REQUESTS = (
    bodies_run_no_command,
    strangers_call_nothing,
    nothing_else_is_there,
    ping_signs_no_call,
    accounts_keep_to_their_role,
    signatures_count_for_their_own_call,
    rebound_names_are_not_the_nodes,
    pages_of_other_sites_read_nothing,
    forms_of_other_sites_do_nothing,
    requests_that_are_none_are_refused,
)


# Very many, very large, very slow.


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """This process may open as many connections as an attacker does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def unfinished(
    target: Target, count: int, each: int = 10, path: str = CALL, head: bool = False
) -> Iterator[None]:
    """Connections with a body that does not end, `each` from one address; with `head` the headers do not."""
    with many_files(), contextlib.ExitStack() as made:
        for number in range(count):
            one = target.caller().dial()
            made.callback(one.close)
            text = f"POST {path} HTTP/1.1\r\nHost: {target.host}\r\n"
            text += f"X-Forwarded-For: 203.0.113.{number // each % 250}\r\nContent-Length: 2000\r\n"
            with contextlib.suppress(OSError):
                one.sendall((text if head else f"{text}\r\nx").encode())
        yield


def unfinished_requests_keep_nobody_out(scene: Scene) -> None:
    target = scene.target
    every: tuple[dict[str, Any], ...] = ({"each": 10}, {"each": 1100}, {"path": "/login"}, {"head": True})
    # At one address the number of each makes no difference.
    for how in every if target.believed else every[1:]:
        with unfinished(target, target.connections, **how):
            assert scene.works(), how
        assert scene.works(), how


def large_bodies_cost_no_memory(scene: Scene) -> None:
    target, before = scene.target, {}
    for pid in target.processes().values():
        # Forgets the most that it ever had (proc(5), clear_refs).
        target.shell(f"echo 5 >/proc/{pid}/clear_refs")
        before[pid] = memory(target, pid, "VmRSS")
    for end, chunk in (
        (f"Content-Length: {300 * MIB}\r\n\r\n", b""),
        ("Transfer-Encoding: chunked\r\n\r\n", b"100000\r\n"),
        ("X-Large: ", b""),
    ):
        with contextlib.closing(target.caller().dial()) as one:
            one.sendall(f"POST {CALL} HTTP/1.1\r\nHost: {target.host}\r\n{end}".encode())
            with contextlib.suppress(OSError):
                for _ in range(300):
                    one.sendall(chunk + b"x" * MIB + (b"\r\n" if chunk else b""))
            with contextlib.suppress(OSError):
                assert b" 200 " not in one.recv(64)
    for pid, had in before.items():
        assert memory(target, pid, "VmHWM") - had < 60 * MIB, target.processes()


def memory(target: Target, pid: int, what: str) -> int:
    """Bytes that a process has (proc(5), status)."""
    return int(target.shell(f"grep {what}: /proc/{pid}/status").split()[1]) * 1024


def slow_strangers_make_no_account_wait(scene: Scene) -> None:
    """Passwords to hash, what syft makes of its whole api, and what never ends."""
    target = scene.target
    query = f"verify_key={bytes(scene.admin.key.verify_key).hex()}&communication_protocol=6"
    # More failures of one address would make others wait who sign in there.
    guesses = 24 if target.believed else 8

    def guess(number: int) -> int:
        body = json.dumps({"email": f"{number}@x.example", "password": "wrong"}).encode()
        return hammer(number, "POST", "/api/v2/login", body)

    def describe(number: int) -> int:
        return hammer(number, "GET", f"/api/v2/api?{query}")

    def hammer(number: int, method: str, path: str, body: bytes | None = None) -> int:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return target.caller(f"203.0.113.{number % 200}").ask(method, path, body, JSON)[0]
        return 0

    with unfinished(target, 300, 5, "/api/v2/login"), ThreadPoolExecutor(30) as pool:
        running = [pool.submit(guess, number) for number in range(guesses)]
        running += [pool.submit(describe, number) for number in range(8)]
        assert scene.works()
        assert {one.result() for one in running} <= {0, 200, 429, 503}


FLOODS = (
    unfinished_requests_keep_nobody_out,
    large_bodies_cost_no_memory,
    slow_strangers_make_no_account_wait,
)


# Messages that were changed on their way.


def changed_frames_reach_nothing(scene: Scene, seed: int = 1, count: int = 300) -> None:
    """An account's: a stranger's are refused whatever they are. syft would say no such thing of them."""
    rng, account = random.Random(seed), scene.scientist
    server, key = account.server(), account.key
    calls = [
        frames.call(server, "user.get_current_user"),
        frames.call(server, "dataset.get_all", 1, "two", [b"three" * 100, None, {"four": True}]),
        frames.call(server, "dataset.get_all", x=scene.evil),
    ]
    whole = [frames.signed(key, call) for call in calls]
    refused = 0
    connection = account.connection()
    with contextlib.closing(connection):
        for _ in range(count):
            body = frames.mutate(rng, rng.choice(whole))
            found = account.ask_on(connection, "POST", CALL, body)
            answer = found.read()
            if found.status == 200:
                # The changed bytes are none that count.
                message = wire.frame(body).message
                assert message in calls[:2] or (message == calls[2] and "does not take" in said(answer))
                continue
            why = json.loads(answer)["detail"]
            assert found.status in (400, 403), (found.status, why)
            assert why.startswith(("that is no signed call", "the signature is not")), why
            refused += 1
    assert refused > count / 2
