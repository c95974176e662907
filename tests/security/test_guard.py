"""The guard alone, in this process: what it lets through to those behind it, and what not."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from nacl.signing import SigningKey

from gridup_node.guard import asgi, budget, routes
from gridup_node.guard.asgi import Caller, Guard, Limits
from gridup_node.guard.headers import HEADERS
from gridup_node.guard.known import DESCRIPTION_SECONDS, Known
from gridup_node.guard.methods import Role
from gridup_node.guard.origins import Origins
from gridup_node.guard.quotas import FULL, MOST_ASSOCIATIONS
from gridup_node.guard.slots import Busy, Crowd, Rate, Slots, network
from gridup_node.guard.throttle import FREE_TRIES, TRIES_OF_ACCOUNT, Throttle
from gridup_node.portal.sessions import cookie_name, device_token
from gridup_node.sandbox.approved import _numbers
from gridup_node.sandbox.client import Refused
from support import frames

SERVER, OTHER = b"\xa1" * 16, b"\xa2" * 16
PROXY = "127.0.0.1"
NODE_KEY = b"the node's own"
KEYS = {role: SigningKey.generate() for role in (Role.DATA_SCIENTIST, Role.DATA_OWNER, Role.ADMIN)}
STRANGER, PEER, OWN = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()


@dataclass
class FakeSyft:
    """Answers the guard's questions from tables."""

    is_network: bool = False
    sign_up: bool = False
    passwords: dict[str, str] = field(default_factory=lambda: {"ada@inst.example": "right"})
    tried: list[str] = field(default_factory=list)
    peers: bool = False
    remembered: bool = True
    own: str = ""
    room: bool = True

    server = SERVER
    own_key = bytes(OWN.verify_key)

    def caller(self, key: bytes) -> Caller:
        roles = {bytes(one.verify_key): role for role, one in KEYS.items()}
        return Caller(roles.get(key, Role.NOBODY), peer=key == bytes(PEER.verify_key))

    def is_remembered(self, _key: bytes) -> bool:
        return self.remembered

    def open_to_sign_up(self) -> bool:
        return self.sign_up

    def signed_refusal(self, message: str) -> bytes:
        return b"signed:" + message.encode()

    def refusal(self, message: str) -> bytes:
        return b"refused:" + message.encode()

    def sign_in(self, email: str, password: str) -> tuple[bytes, bytes] | None:
        self.tried.append(email)
        key = bytes(KEYS[Role.ADMIN].verify_key)
        return (key, b"key") if self.passwords.get(email) == password else None

    def is_own_password(self, password: str) -> bool:
        return bool(self.own) and password == self.own

    def has_peers(self) -> bool:
        return self.peers

    def has_room(self) -> bool:
        return self.room


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Behind:
    """What is behind the guard; keeps what reaches it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes, Any]] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.built: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert not message.get("more_body")
        self.seen.append((scope["method"], scope["path"], message["body"], scope))
        self.built.append(budget.current().left)
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"through"})


class Site:
    """A guard with something behind it."""

    def __init__(
        self,
        syft: FakeSyft | None = None,
        limits: Limits | None = None,
        names: Sequence[str] = (),
        proxies: Sequence[str] = (PROXY,),
    ) -> None:
        self.syft, self.now = syft or FakeSyft(), 0.0
        self.api, self.rest = Behind(), Behind()
        clock: Callable[[], float] = lambda: self.now  # noqa: E731
        self.guard = Guard(
            api=self.api,
            rest=self.rest,
            syft=self.syft,
            limits=limits or Limits(max_upload=1024 * 1024),
            origins=Origins(proxies, lambda: frozenset(names), clock),
            throttle=Throttle(clock),
            known=Known(NODE_KEY, clock),
            clock=clock,
        )

    def ask(self, *request: Any, **more: Any) -> Answer:
        """As `send`, from outside an event loop."""
        return asyncio.run(self.send(*request, **more))

    async def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Sequence[tuple[str, str]] = (),
        client: str = "192.0.2.1",
        chunks: Sequence[bytes] | None = None,
        query: str = "",
    ) -> Answer:
        given = {name.lower(): value for name, value in headers}
        sent = [("host", given.pop("host", "127.0.0.1")), *given.items()]
        if (body or method == "POST") and not {"content-length", "transfer-encoding"} & set(given):
            sent.append(("content-length", str(len(body))))
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in sent],
            "client": (client, 4711) if client else None,
            "scheme": "http",
        }
        parts = list(chunks if chunks is not None else [body])
        got: list[Any] = []
        answered = asyncio.Event()

        async def receive() -> Any:
            if not parts:
                await answered.wait()
                return {"type": "http.disconnect"}
            part = parts.pop(0)
            # A body that is told in chunks ends when its caller gives no more, which may be never.
            return {"type": "http.request", "body": part, "more_body": bool(parts) or chunks is not None}

        async def send(message: Any) -> None:
            got.append(message)
            if message["type"] == "http.response.body":
                answered.set()

        await asyncio.wait_for(self.guard(scope, receive, send), timeout=120)
        start = next(one for one in got if one["type"] == "http.response.start")
        text = b"".join(one.get("body", b"") for one in got if one["type"] == "http.response.body")
        return Answer(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, text)

    def call(self, key: SigningKey, path: str, server: bytes = SERVER, **more: Any) -> Answer:
        body = frames.signed(key, frames.call(server, path, **more))
        return self.ask("POST", "/api/v2/api_call", body)


@pytest.fixture
def site() -> Site:
    return Site()


def test_what_is_not_in_the_table_is_refused_and_reaches_nothing(site: Site) -> None:
    for method, path in [
        ("GET", "/api/v2/"),
        ("GET", "/api/v2/metadata_capnp"),
        ("GET", "/api/v2/stream/x/y/"),
        ("PUT", "/api/v2/stream/x/y/"),
        ("POST", "/api/v2/forgot_password"),
        ("POST", "/api/v2/reset_password"),
        ("GET", "/api/v2/api_call"),
        ("POST", "/api/v2/api_call/"),
        ("POST", "/api/v2/metadata"),
        ("PUT", "/login"),
        ("DELETE", "/"),
    ]:
        assert site.ask(method, path).status in (404, 405), (method, path)
    assert site.api.seen == site.rest.seen == []


def test_every_route_of_the_table_is_reached_by_whom_it_is_for(site: Site) -> None:
    assert site.ask("GET", "/api/v2/metadata").status == 200
    assert site.ask("HEAD", "/api/v2/metadata").status == 200
    assert site.ask("GET", "/login").status == 200
    assert site.ask("POST", "/login", b"email=x").status == 200
    assert site.ask("GET", "/anything").status == 200
    assert [path for _, path, _, _ in site.api.seen] == ["/api/v2/metadata"] * 2
    assert site.rest.seen[1][2] == b"email=x"


def test_every_answer_tells_browsers_to_keep_it_to_itself(site: Site) -> None:
    wanted = {name.decode(): value.decode() for name, value in HEADERS.items()}
    answers = [
        site.ask("GET", "/login"),
        site.ask("GET", "/api/v2/metadata"),
        site.ask("GET", "/api/v2/nowhere"),
        site.ask("GET", "/", headers=[("Host", "rebound.example")]),
        site.call(STRANGER, "metadata"),
        site.call(KEYS[Role.ADMIN], "dataset.get_all"),
    ]
    assert [answer.status for answer in answers] == [200, 200, 404, 421, 403, 200]
    for answer in answers:
        assert wanted.items() <= answer.headers.items()
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_what_an_answer_says_itself_stays(site: Site) -> None:
    site.rest.headers = [(b"Cache-Control", b"max-age=60"), (b"content-security-policy", b"img-src 'self'")]
    told = site.ask("GET", "/portal.css").headers
    assert (told["Cache-Control"], told["content-security-policy"]) == ("max-age=60", "img-src 'self'")
    assert "cache-control" not in told


@pytest.mark.parametrize("role", list(KEYS))
def test_a_signed_call_of_an_account_arrives_as_it_was_sent(site: Site, role: Role) -> None:
    body = frames.signed(KEYS[role], frames.call(SERVER, "dataset.get_all", page=3))
    assert site.ask("POST", "/api/v2/api_call", body).body == b"through"
    assert site.api.seen[0][2] == body


def test_a_role_may_call_what_the_table_says_and_is_told_otherwise(site: Site) -> None:
    told = site.call(KEYS[Role.DATA_SCIENTIST], "dataset.add")
    assert (told.status, told.body) == (200, b"signed:As a data scientist you may not call dataset.add.")
    assert b"signed:" in site.call(KEYS[Role.ADMIN], "action.execute").body
    assert b"signed:" in site.call(KEYS[Role.ADMIN], "no.such_method").body
    assert site.api.seen == []
    assert site.call(KEYS[Role.DATA_OWNER], "dataset.add").body == b"through"


def test_nothing_becomes_a_job_but_code(site: Site) -> None:
    """The worker of a job does not look at roles."""
    key = KEYS[Role.DATA_SCIENTIST]
    assert b"without waiting" in site.call(key, "user.view", blocking=False).body
    assert b"without waiting" in site.call(key, "log.get", blocking=False).body
    assert site.call(key, "code.call", blocking=False).body == b"through"


def test_a_stranger_gets_nothing_whatever_they_sign(site: Site) -> None:
    for path in ("dataset.get_all", "network.ping", "metadata", "queue", "user.get_current_user"):
        assert site.call(STRANGER, path).status == 403
    assert site.api.seen == []


def test_a_signature_counts_for_its_own_bytes_and_key_alone(site: Site) -> None:
    admin, message = KEYS[Role.ADMIN], frames.call(SERVER, "user.get_all")
    other = frames.call(SERVER, "dataset.get_all")
    stolen = admin.sign(other).signature
    for body in (
        frames.signed(STRANGER, message, sender=bytes(admin.verify_key)),
        frames.signed(admin, message, signature=stolen),
        frames.signed(admin, message, signature=b"\0" * 64),
    ):
        assert site.ask("POST", "/api/v2/api_call", body).status == 403
    assert site.api.seen == []


def test_a_call_for_another_node_is_passed_on_by_a_network_node_for_its_accounts_alone() -> None:
    site = Site()
    assert site.call(KEYS[Role.ADMIN], "dataset.get_all", server=OTHER).body.startswith(b"signed:")
    gateway = Site(FakeSyft(is_network=True))
    assert gateway.call(KEYS[Role.DATA_SCIENTIST], "dataset.get_all", server=OTHER).body == b"through"
    assert gateway.call(STRANGER, "dataset.get_all", server=OTHER).status == 403


def test_nodes_may_ask_each_other_for_what_an_association_needs() -> None:
    domain, gateway = Site(), Site(FakeSyft(is_network=True))
    assert domain.call(PEER, "network.ping").body == b"through"
    assert domain.call(PEER, "network.check_peer_association").body == b"through"
    assert domain.call(PEER, "network.add_peer").status == 403
    assert domain.call(PEER, "dataset.get_all").status == 403
    for path in ("network.add_peer", "network.get_peer_by_name", "network.ping"):
        assert gateway.call(STRANGER, path).body == b"through"
    assert gateway.call(STRANGER, "network.update_peer").status == 403
    assert gateway.call(PEER, "network.update_peer").body == b"through"
    assert gateway.call(STRANGER, "dataset.get_all").status == 403


def test_guests_read_the_catalogue_where_the_node_is_set_to_it() -> None:
    site = Site(limits=Limits(max_upload=1024, guests=True))
    assert site.call(STRANGER, "dataset.get_all").body == b"through"
    assert site.call(STRANGER, "blob_storage.allocate").status == 403
    key = bytes(STRANGER.verify_key).hex()
    assert site.ask("GET", "/api/v2/api", query=f"verify_key={key}&communication_protocol=6").status == 200


def described(
    site: Site, key: SigningKey, cookie: str = "", client: str = "192.0.2.1", more: str = ""
) -> Answer:
    query = f"verify_key={bytes(key.verify_key).hex()}&communication_protocol=6{more}"
    headers = [("cookie", cookie)] if cookie else []
    return site.ask("GET", "/api/v2/api", query=query, headers=headers, client=client)


def test_the_api_is_described_to_who_has_signed_in_wherever_they_are(site: Site) -> None:
    cookie = sign_in(site).headers["set-cookie"]
    assert "HttpOnly; SameSite=Strict" in cookie
    assert "Path=/api/v2/api;" in cookie
    for client in ("192.0.2.1", "198.51.100.7"):
        assert described(site, KEYS[Role.ADMIN], cookie.split(";")[0], client).status == 200
    # Of the key that has signed in, and of no other.
    assert described(site, KEYS[Role.DATA_OWNER], cookie.split(";")[0]).status == 403
    site.now += DESCRIPTION_SECONDS + 1
    assert described(site, KEYS[Role.ADMIN], cookie.split(";")[0]).status == 403
    assert len(site.api.seen) == 2


def test_without_a_sign_in_all_keys_get_the_same_answer(site: Site) -> None:
    """Whether there is such an account, what it may call and what its code is called: nobody is told."""
    answers = {
        (one.status, one.body) for one in (described(site, key) for key in (*KEYS.values(), STRANGER, PEER))
    }
    assert len(answers) == 1
    assert answers.pop()[0] == 403
    assert site.api.seen == []
    # The node's own is in the metadata.
    assert described(site, OWN).status == 200
    assert bytes(OWN.verify_key).hex().encode() not in site.api.seen[0][3]["query_string"]
    for open_ in (Site(FakeSyft(is_network=True)), Site(FakeSyft(peers=True))):
        for key in (*KEYS.values(), STRANGER, PEER):
            assert described(open_, key).status == 200
        asked = {scope["query_string"] for *_, scope in open_.api.seen}
        assert len(asked) == 1
        assert not any(bytes(key.verify_key).hex().encode() in asked.pop() for key in (STRANGER,))


def test_a_cookie_that_somebody_made_up_opens_nothing(site: Site) -> None:
    name = sign_in(site).headers["set-cookie"].split("=")[0]
    for value in ("", "ffffffff.", "ffffffff." + "0" * 32, "x.y", "\xff.\xff", "-1." + "0" * 32):
        assert described(site, KEYS[Role.ADMIN], f"{name}={value}").status == 403


def test_what_is_no_key_is_told_so(site: Site) -> None:
    for query in ("verify_key=zz", "", "verify_key=" + "0" * 62):
        assert site.ask("GET", "/api/v2/api", query=query).status == 403
    assert site.api.seen == []


def test_a_protocol_that_is_no_number_is_no_error_of_syfts(site: Site) -> None:
    key = bytes(KEYS[Role.ADMIN].verify_key).hex()
    for said in ("dev", "%00x", "6&communication_protocol=x", "9" * 5000):
        query = f"verify_key={key}&communication_protocol={said}"
        assert site.ask("GET", "/api/v2/api", query=query).status == 422
    assert site.api.seen == []


def test_a_sign_in_is_answered_by_the_guard_and_counted(site: Site) -> None:
    def sign_in(email: str, password: str, client: str) -> bytes:
        body = json.dumps({"email": email, "password": password}).encode()
        return site.ask("POST", "/api/v2/login", body, client=client).body

    assert sign_in("ada@inst.example", "right", "192.0.2.1") == b"key"
    wrong = {sign_in(email, "wrong", "192.0.2.9") for email in ("ada@inst.example", "nobody@inst.example")}
    assert wrong == {b"refused:Wrong e-mail address or password."}
    for _ in range(FREE_TRIES):
        sign_in("ada@inst.example", "wrong", "2001:db8::1")
    # Another address of the same /64, and the right password: too many have failed.
    assert b"Too many failed sign-ins" in sign_in("ada@inst.example", "right", "2001:db8::2")
    assert sign_in("ada@inst.example", "right", "2001:db8:0:1::1") == b"key"
    assert site.api.seen == []


@pytest.mark.parametrize(
    "body",
    [
        *[b"", b"[]", b"{}", b'{"email": 1, "password": "x"}', b"\xff", b"[" * 4000],
        *[b'{"email": "x", "password": "\\ud800"}', b'{"email": "\\ud800", "password": "x"}'],
    ],
)
def test_a_sign_in_that_is_none_is_refused(site: Site, body: bytes) -> None:
    assert site.ask("POST", "/api/v2/login", body).status == 422
    assert site.syft.tried == []


def test_what_a_message_expands_to_is_little_but_for_an_account() -> None:
    site = Site(FakeSyft(is_network=True, sign_up=True))
    assert site.call(STRANGER, "network.add_peer").status == 200
    assert site.call(PEER, "network.update_peer").status == 200
    assert described(site, STRANGER).status == 200
    sign_up = frames.fields("UserCreate", {"email": frames.value("eve@inst.example")})
    assert site.ask("POST", "/api/v2/register", sign_up).status == 200
    assert set(site.api.built) == {budget.STRANGERS}
    assert len(site.api.built) == 4
    site.call(KEYS[Role.DATA_SCIENTIST], "dataset.get_all")
    assert site.api.built[-1] >= 256 * 1024 * 1024


def test_a_sign_up_is_not_there_while_it_is_off(site: Site) -> None:
    body = frames.fields("UserCreate", {"email": frames.value("eve@inst.example")})
    assert site.ask("POST", "/api/v2/register", body).status == 404
    open_ = Site(FakeSyft(sign_up=True))
    assert open_.ask("POST", "/api/v2/register", body).status == 200
    for evil in (
        frames.runs("id").data,
        b"",
        frames.value("x"),
        frames.fields("UserCreate", {"a": frames.runs("id").data}),
        frames.fields("UserCreate", {"name": frames.blob("pandas_dataframe", b"PAR1")}),
        frames.fields("UserCreate", {"name": frames.value(["x"] * 9)}),
    ):
        assert open_.ask("POST", "/api/v2/register", evil).status == 400
        # Few come from one address.
        open_.now += 10
    assert len(open_.api.seen) == 1


def test_bodies_are_as_large_as_the_caller_may_send() -> None:
    site = Site(limits=replace(Limits(max_upload=0), max_upload=200_000))
    admin, data = KEYS[Role.ADMIN], b"x" * 100_000
    assert site.call(admin, "action.set", data=data).body == b"through"
    assert site.call(admin, "action.set", data=data * 3).status == 413
    # A stranger who names an administrator's key gets no further than the signature.
    forged = frames.signed(
        STRANGER, frames.call(SERVER, "action.set", data=data), sender=bytes(admin.verify_key)
    )
    assert site.ask("POST", "/api/v2/api_call", forged).status == 403
    assert site.call(STRANGER, "action.set", data=data).status == 403
    assert site.ask("POST", "/login", b"x" * (routes.FORM + 1)).status == 413
    assert len(site.api.seen) == 1


def test_a_large_body_of_a_stranger_is_not_read(site: Site) -> None:
    body = frames.signed(STRANGER, frames.call(SERVER, "action.set", data=b"x" * 900_000))
    size = asgi.STRANGER_BODY
    read: list[int] = []

    async def ask() -> Answer:
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        taken = iter(parts)

        async def receive() -> Any:
            if got:
                return {"type": "http.disconnect"}
            part = next(taken)
            read.append(len(part))
            return {"type": "http.request", "body": part, "more_body": True}

        got: list[Any] = []

        async def send(message: Any) -> None:
            got.append(message)

        headers = [(b"host", b"127.0.0.1"), (b"content-length", str(len(body)).encode())]
        scope = {"type": "http", "method": "POST", "path": "/api/v2/api_call", "headers": headers}
        await site.guard({**scope, "client": ("192.0.2.1", 1), "query_string": b""}, receive, send)
        return Answer(got[0]["status"], {}, b"")

    assert asyncio.run(ask()).status == 403
    assert sum(read) == size


def test_what_comes_after_a_refusal_is_taken_for_a_while_and_dropped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the reverse proxy, which still sends it, fails at that and does not pass the refusal on."""
    for never_ends in (False, True):
        monkeypatch.setattr(asgi, "LINGER_SECONDS", 0.2 if never_ends else 60)
        events: list[str] = []

        async def receive(events: list[str] = events, never_ends: bool = never_ends) -> Any:
            assert events[:2] == ["http.response.start", "all of it"]
            events.append("read")
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"x", "more_body": never_ends or events.count("read") < 3}

        async def send(message: Any, events: list[str] = events) -> None:
            if message["type"] == "http.response.body":
                events.append("all of it" if message["body"] else "end")
                assert message.get("more_body", False) == bool(message["body"])
            else:
                events.append(message["type"])

        headers = [(b"host", b"127.0.0.1"), (b"content-length", b"100")]
        scope = {"type": "http", "method": "POST", "path": "/api/v2/none", "query_string": b""}
        guarded = site.guard({**scope, "headers": headers, "client": ("192.0.2.1", 1)}, receive, send)
        asyncio.run(asyncio.wait_for(guarded, 120))
        assert events[-1] == "end"
        assert never_ends or events.count("read") == 3


def sign_in(site: Site, email: str = "ada@inst.example", password: str = "right") -> Answer:
    return site.ask("POST", "/api/v2/login", json.dumps({"email": email, "password": password}).encode())


def guess(site: Site, times: int, client: str = "192.0.2.1") -> Answer:
    """Wrong passwords of the administrator, one after the other; the last answer."""
    body = json.dumps({"email": "ada@inst.example", "password": "wrong"}).encode()
    return [site.ask("POST", "/api/v2/login", body, client=client) for _ in range(times)][-1]


def test_a_password_that_the_node_has_made_is_never_made_to_wait(site: Site) -> None:
    """Whoever guesses at the same address, by either way, and however fast."""
    site.syft.own = site.syft.passwords["ada@inst.example"] = "generated"
    for _ in range(3):
        assert guess(site, 100).status == 429
        assert sign_in(site, password="generated").body == b"key"


def test_who_has_signed_in_from_here_waits_seconds_and_others_minutes() -> None:
    sites = {"remembered": Site(), "new": Site()}
    assert sign_in(sites["remembered"]).body == b"key"
    for site in sites.values():
        # A guesser who keeps at it, for an hour.
        for _ in range(400):
            guess(site, 1)
            site.now += 9
    waits = {name: sign_in(site).body for name, site in sites.items()}
    assert b"Try again in" in waits["new"]
    for site in sites.values():
        site.now += 11
    assert sign_in(sites["remembered"]).body == b"key"
    assert b"Too many failed" in sign_in(sites["new"]).body


def test_those_at_a_remembered_address_guess_no_faster_than_six_times_a_minute(site: Site) -> None:
    assert sign_in(site).body == b"key"
    tried = len(site.syft.tried)
    for _ in range(600):
        guess(site, 1)
        site.now += 1
    assert len(site.syft.tried) - tried <= FREE_TRIES + 4 + 600 / 10


def test_guesses_from_many_addresses_are_slowed_and_who_has_signed_in_before_is_not(site: Site) -> None:
    assert sign_in(site).body == b"key"
    answers = {guess(site, 1, client=f"10.0.{number // 250}.{number % 250}").body for number in range(100)}
    assert len(site.syft.tried) == TRIES_OF_ACCOUNT
    assert b"refused:Too many failed sign-ins. Try again in 10 seconds." in answers
    assert sign_in(site).body == b"key"


def test_the_queue_of_sign_ins_has_a_place_for_who_has_signed_in_before() -> None:
    async def attack() -> tuple[list[int], set[int]]:
        site, stay = Site(), asyncio.Event()
        ada = json.dumps({"email": "ada@inst.example", "password": "right"}).encode()
        assert (await site.send("POST", "/api/v2/login", ada, client="192.0.2.9")).body == b"key"
        hash_ = site.guard._hash

        async def slow(what: Any, email: str, password: str) -> Any:
            if email != "ada@inst.example":
                await stay.wait()
            return await hash_(what, email, password)

        site.guard._hash = slow  # type: ignore[method-assign]
        others = [json.dumps({"email": f"{n}@x.example", "password": "x"}).encode() for n in range(8)]
        flood = [
            asyncio.ensure_future(site.send("POST", "/api/v2/login", body, client=f"198.51.100.{number}"))
            for number in range(40)
            for body in others
        ]
        await asyncio.sleep(0.5)
        mine = [(await site.send("POST", "/api/v2/login", ada, client="192.0.2.9")).status for _ in range(3)]
        stay.set()
        return mine, {one.status for one in await asyncio.gather(*flood)}

    mine, theirs = asyncio.run(attack())
    assert mine == [200, 200, 200]
    assert theirs <= {200, 429}


def test_a_browser_that_signed_in_before_has_a_rate_and_a_place_of_its_own(site: Site) -> None:
    token = device_token(NODE_KEY, "ada@inst.example")
    cookie = [("cookie", f"{cookie_name(NODE_KEY, 'device', False)}={token}")]
    forged = [("cookie", f"{cookie_name(NODE_KEY, 'device', False)}={token[:-1]}x")]
    statuses = [site.ask("POST", "/login", b"email=x").status for _ in range(60)]
    assert statuses[-1] == 429
    assert site.ask("POST", "/login", b"email=x", forged).status == 429
    assert site.ask("POST", "/login", b"email=x", cookie).status == 200
    more = [site.ask("POST", "/login", b"email=x", cookie).status for _ in range(asgi.KNOWN_BURST + 5)]
    assert more[-1] == 429


def test_who_only_names_an_accounts_key_sends_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The administrator's key is in the metadata, for everybody."""
    monkeypatch.setattr(asgi, "SCIENTIST_BODY", 200_000)
    site = Site(limits=Limits(max_upload=8 * 1024 * 1024))
    key = KEYS[Role.ADMIN]
    for size, status in ((100_000, 200), (400_000, 200)):
        # The first proves the address.
        assert site.call(key, "action.set", data=b"x" * size).status == status
    site = Site(limits=Limits(max_upload=8 * 1024 * 1024))
    assert site.call(key, "action.set", data=b"x" * 400_000).status == 403
    forged = frames.signed(key, frames.call(SERVER, "action.set", data=b"x" * 100_000), signature=bytes(64))
    assert site.ask("POST", "/api/v2/api_call", forged).status == 403
    assert site.call(key, "action.set", data=b"x" * 400_000).status == 403
    assert sign_in(site).body == b"key"
    assert site.call(key, "action.set", data=b"x" * 400_000).status == 200


def test_who_only_names_an_accounts_key_takes_none_of_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.5)
    key = KEYS[Role.ADMIN]
    large = frames.signed(key, frames.call(SERVER, "action.set", data=b"x" * 300_000))

    async def attack() -> list[Any]:
        site = Site()
        small = frames.signed(key, frames.call(SERVER, "user.get_all"))
        await site.send("POST", "/api/v2/api_call", small)
        length = [("content-length", str(len(large)))]
        slow = [
            asyncio.ensure_future(
                site.send(
                    "POST", "/api/v2/api_call", b"", length, f"198.51.100.{number}", [large[: 64 * 1024]]
                )
            )
            for number in range(20)
        ]
        await asyncio.sleep(0.1)
        mine = [await site.send("POST", "/api/v2/api_call", large) for _ in range(3)]
        return [one.status for one in (*mine, *await asyncio.gather(*slow))]

    statuses = asyncio.run(attack())
    assert statuses[:3] == [200, 200, 200]
    assert set(statuses[3:]) <= {408, 429}


def test_unfinished_requests_keep_nobody_out_at_their_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    # None of those that are let in ends by itself.
    monkeypatch.setattr(asgi, "BODY_SECONDS", 3600)

    async def attack() -> tuple[list[int], set[int]]:
        site = Site()
        length = [("content-length", "100")]
        slow = [
            asyncio.ensure_future(site.send("POST", "/api/v2/api_call", b"", length, chunks=[b"x"]))
            for _ in range(asgi.OPEN_OF_ADDRESS + 10)
        ]
        await asyncio.sleep(0.1)
        call = frames.signed(KEYS[Role.ADMIN], frames.call(SERVER, "user.get_all"))
        mine = [
            await site.send("POST", "/api/v2/api_call", call),
            await site.send("POST", "/login", b"email=x"),
        ]
        ended = {one.result().status for one in slow if one.done()}
        for one in slow:
            one.cancel()
        return [one.status for one in mine], ended

    assert asyncio.run(attack()) == ([200, 200], {503})


def test_a_large_body_keeps_its_place_until_it_is_checked() -> None:
    """Else those that wait for it hold as much memory as a caller likes."""
    site, held = Site(), []
    examine = site.guard._examine
    key = KEYS[Role.DATA_SCIENTIST]
    site.call(key, "user.view")

    def watched(raw: bytes) -> Any:
        held.append(dict(site.guard._uploads._held))
        return examine(raw)

    site.guard._examine = watched  # type: ignore[method-assign]
    assert site.call(key, "action.set", data=b"x" * 100_000).status == 200
    assert held == [{bytes(key.verify_key): 1}]


def test_strangers_who_sign_are_counted_before_they_are_looked_up(site: Site) -> None:
    statuses = [site.call(STRANGER, "user.get_all").status for _ in range(asgi.UNPROVED_BURST + 5)]
    assert statuses[-1] == 429
    elsewhere = frames.signed(KEYS[Role.ADMIN], frames.call(SERVER, "user.get_all"))
    assert site.ask("POST", "/api/v2/api_call", elsewhere, client="198.51.100.9").status == 200


def test_a_network_node_takes_few_requests_of_strangers() -> None:
    site = Site(FakeSyft(is_network=True))
    statuses = [site.call(STRANGER, "network.ping").status for _ in range(asgi.STRANGER_BURST + 5)]
    assert (statuses[0], statuses[-1]) == (200, 429)
    assert site.call(PEER, "network.ping").status == 200


def test_one_address_asks_for_fewer_associations_in_a_day_than_wait_for_an_answer() -> None:
    site, asked = Site(FakeSyft(is_network=True)), 0
    for _ in range(24 * 60):
        asked += site.call(STRANGER, "network.add_peer").status == 200
        site.now += 60
    assert asgi.ASKING_BURST < asked < MOST_ASSOCIATIONS
    # What else nodes ask is not counted so, nor those that are associated.
    assert site.call(STRANGER, "network.ping").status == 200
    assert [site.call(PEER, "network.add_peer").status for _ in range(asgi.ASKING_BURST + 2)][-1] == 200


def test_what_is_left_of_a_full_disk_is_for_staff() -> None:
    site = Site(FakeSyft(room=False))
    data = b"x" * asgi.SMALL
    told = site.call(KEYS[Role.DATA_SCIENTIST], "action.set", data=data)
    assert (told.status, told.body) == (200, b"signed:" + FULL.encode())
    for key, given in ((Role.DATA_SCIENTIST, b""), (Role.DATA_OWNER, data), (Role.ADMIN, data)):
        assert site.call(KEYS[key], "action.set", data=given).body == b"through"


def test_a_sign_in_that_finds_no_room_does_not_count(site: Site) -> None:
    for _ in range(FREE_TRIES + 5):
        site.guard._sign_ins = Slots(0, 8, 0.01)
        assert sign_in(site).status == 429
    site.guard._sign_ins = Slots(2, 8, 1)
    assert sign_in(site).body == b"key"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("transfer-encoding", "chunked")], 411),
        ([("content-length", "-1")], 400),
        ([("content-length", "1e3")], 400),
        ([("content-length", "9" * 30)], 400),
        ([("content-length", "99999999")], 413),
    ],
)
def test_a_body_says_its_length(site: Site, headers: list[tuple[str, str]], status: int) -> None:
    assert site.ask("POST", "/api/v2/api_call", b"", headers).status == status


@pytest.mark.parametrize("chunks", [[b"x" * 99], [b"x" * 50, b"x" * 60]])
def test_a_body_is_as_long_as_it_says(site: Site, chunks: list[bytes]) -> None:
    answer = site.ask("POST", "/login", headers=[("content-length", "10")], chunks=chunks)
    assert answer.status == 400


def test_a_body_that_does_not_come_ends_by_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.05)
    for path in ("/api/v2/api_call", "/api/v2/login", "/login"):
        answer = site.ask("POST", path, headers=[("content-length", "100")], chunks=[b"x"])
        assert answer.status == 408
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "a b", "evil.example:80", "[::1"]
)
def test_another_name_is_refused_as_a_rebound_one_would_send_it(site: Site, host: str) -> None:
    assert site.ask("GET", "/api/v2/metadata", headers=[("host", host)]).status == 421
    assert site.api.seen == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8080",
        "localhost",
        "LOCALHOST:1",
        "[::1]:8080",
        "192.0.2.7",
        "node.inst.example:443",
        "node.inst.example.",
    ],
)
def test_its_own_names_and_every_address_are_answered(host: str) -> None:
    site = Site(names=["node.inst.example"])
    assert site.ask("GET", "/api/v2/metadata", headers=[("host", host)]).status == 200


def test_what_a_browser_sends_at_another_sites_wish_is_refused(site: Site) -> None:
    body = frames.signed(KEYS[Role.ADMIN], frames.call(SERVER, "user.get_all"))
    for path, sent in (
        ("/api/v2/api_call", body),
        ("/login", b"x"),
        ("/logout", b"x"),
        ("/api/v2/login", b"{}"),
    ):
        for header in (
            ("origin", "https://evil.example"),
            ("sec-fetch-site", "cross-site"),
            ("origin", "null"),
        ):
            assert site.ask("POST", path, sent, [header]).status == 403
    assert site.ask("POST", "/login", b"x", [("origin", "http://127.0.0.1")]).status == 200
    own = [("origin", "null"), ("sec-fetch-site", "same-origin")]
    assert site.ask("POST", "/login", b"x", own).status == 200
    assert site.api.seen == []


def test_the_word_of_the_reverse_proxy_counts_and_no_others(site: Site) -> None:
    told = [("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")]
    site.ask("GET", "/login", headers=told, client=PROXY)
    site.ask("GET", "/login", headers=told, client="192.0.2.1")
    believed, not_believed = (scope for *_, scope in site.rest.seen)
    assert (believed["client"][0], believed["scheme"]) == ("198.51.100.7", "https")
    assert (not_believed["client"][0], not_believed["scheme"]) == ("192.0.2.1", "http")


def test_what_comes_by_the_nodes_own_socket_is_the_proxys_word() -> None:
    told = [("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")]
    site = Site(proxies=[])
    site.ask("GET", "/login", headers=told, client="")
    site.ask("GET", "/login", client="")
    site.ask("GET", "/login", headers=told, client="127.0.0.1")
    assert [(scope["client"] or ("",))[0] for *_, scope in site.rest.seen] == [
        "198.51.100.7",
        "",
        "127.0.0.1",
    ]


def test_a_caller_who_asks_too_often_is_told_to_wait_and_others_are_not(site: Site) -> None:
    row = routes.find("GET", "/api/v2/metadata")
    assert isinstance(row, routes.Route)
    for _ in range(row.burst):
        assert site.ask("GET", "/api/v2/metadata").status == 200
    refused = site.ask("GET", "/api/v2/metadata")
    assert (refused.status, refused.headers["retry-after"]) == (429, "5")
    assert site.ask("GET", "/api/v2/metadata", client="192.0.2.2").status == 200
    site.now += 1
    assert site.ask("GET", "/api/v2/metadata").status == 200


def test_strangers_do_not_fill_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(50):
        site.ask("GET", "/api/v2/nothing")
    assert len(caplog.records) == 1
    site.now += 61
    site.ask("GET", "/api/v2/nothing")
    assert "refused 50 requests" in caplog.records[1].getMessage()


@pytest.mark.parametrize("what", ["origin", "query", "failure"])
def test_what_can_not_be_read_or_fails_does_not_fill_the_log(
    site: Site, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
        raise ZeroDivisionError

    if what == "failure":
        site.guard._rest = broken
    statuses = set()
    for number in range(200):
        client = f"192.0.2.{number}"
        if what == "origin":
            headers = [("origin", "http://[")]
            answer = site.ask("POST", "/login", b"x", headers, client=client)
        elif what == "query":
            answer = site.ask("GET", "/api/v2/api", query="&" * 9, client=client)
        else:
            answer = site.ask("GET", "/login", client=client)
        statuses.add(answer.status)
    assert statuses == ({500} if what == "failure" else {403})
    assert len(caplog.records) <= 3
    assert ("Traceback" in caplog.text) == (what == "failure")


def test_pages_of_others_are_counted_before_they_are_looked_at(site: Site) -> None:
    headers = [("origin", "https://evil.example")]
    statuses = [site.ask("POST", "/login", b"x", headers).status for _ in range(60)]
    assert (statuses[0], statuses[-1]) == (403, 429)


def test_progress_that_is_no_number_is_refused() -> None:
    for said in ("x", None, float("inf"), "9" * 5000):
        with pytest.raises(Refused, match="whole numbers"):
            _numbers({"of": said})
    assert _numbers({"of": "3", "by": 2, "more": "x"}) == {"of": 3, "by": 2}


def test_a_websocket_is_closed(site: Site) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(site.guard({"type": "websocket"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


class TestSlots:
    def test_one_caller_has_so_many_and_who_waits_too_long_is_told(self) -> None:
        async def run() -> None:
            slots = Slots(total=2, each=1, seconds=0.02)
            async with slots.hold("a"), slots.hold("b"):
                with pytest.raises(Busy):
                    async with slots.hold("a"):
                        pass
                with pytest.raises(Busy):
                    async with slots.hold("c"):
                        pass
            async with slots.hold("c"), slots.hold("a"):
                pass

        asyncio.run(run())

    def test_callers_take_turns_however_many_each_has_waiting(self) -> None:
        async def run() -> list[str]:
            slots, order = Slots(total=1, each=100, seconds=60), []

            async def one(who: str) -> None:
                async with slots.hold(who):
                    order.append(who)
                    await asyncio.sleep(0)

            first = slots.hold("first")
            await first.__aenter__()
            waiting = [asyncio.ensure_future(one(who)) for who in ["a"] * 50 + ["b"] * 50 + ["late"]]
            await asyncio.sleep(0)
            await first.__aexit__(None, None, None)
            await asyncio.gather(*waiting)
            return order

        order = asyncio.run(run())
        assert (order.index("late"), len(order)) == (2, 101)

    def test_who_gives_up_leaves_its_turn_to_the_next(self) -> None:
        async def run() -> None:
            slots = Slots(total=1, each=5, seconds=0.05)
            async with slots.hold("a"):
                lost = [asyncio.ensure_future(hold(slots, "b")) for _ in range(3)]
                gone = asyncio.ensure_future(hold(slots, "c"))
                await asyncio.sleep(0)
                gone.cancel()
                assert await asyncio.gather(*lost) == [False] * 3
            assert await hold(slots, "d")
            assert not slots._waiting
            assert not slots._held

        async def hold(slots: Slots, who: str) -> bool:
            try:
                async with slots.hold(who):
                    return True
            except Busy:
                return False

        asyncio.run(run())

    def test_in_a_crowd_the_oldest_gives_way_and_one_caller_has_so_many(self) -> None:
        crowd, gone = Crowd(total=3, each=2), []
        tokens = [crowd.enter(who, lambda who=who: gone.append(who)) for who in ("a", "a", "b")]
        # The address's own oldest, not the newest, and not another's.
        crowd.enter("a", lambda: gone.append("third"))
        assert (gone, len(crowd)) == (["a"], 3)
        crowd.enter("c", list)
        assert (gone, len(crowd)) == (["a", "a"], 3)
        crowd.leave(tokens[0])
        crowd.leave(tokens[2])
        assert len(crowd) == 2
        crowd.enter("a", list)
        crowd.enter("a", list)
        assert gone == ["a", "a", "third"]

    def test_a_rate_allows_a_burst_and_then_so_many_a_second(self) -> None:
        now = [0.0]
        rate = Rate(each_second=2, burst=3, clock=lambda: now[0])
        for _ in range(3):
            rate.take("a")
        with pytest.raises(Busy):
            rate.take("a")
        now[0] = 0.5
        rate.take("a")

    @pytest.mark.parametrize(
        ("address", "caller"),
        [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::"),
            ("testclient", "testclient"),
        ],
    )
    def test_an_ipv6_site_is_one_caller(self, address: str, caller: str) -> None:
        assert network(address) == caller


class TestANameServer:
    """The one that tells the reverse proxy's addresses, where that is known by a name."""

    def test_one_that_is_silent_stops_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        silent = threading.Event()
        monkeypatch.setattr("socket.getaddrinfo", lambda *_a, **_k: silent.wait(60) and [])
        site = Site()
        site.guard._origins = Origins(["proxy"], frozenset)

        async def many() -> list[Answer]:
            try:
                return await asyncio.gather(
                    *(site.send("GET", "/api/v2/metadata", client=f"192.0.2.{n}") for n in range(8))
                )
            finally:
                silent.set()

        assert {answer.status for answer in asyncio.run(many())} == {200}

    def test_what_it_says_is_believed_from_the_first_request_on(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = [(0, 0, 0, "", ("192.0.2.9", 0))]
        monkeypatch.setattr("socket.getaddrinfo", lambda *_a, **_k: told)
        site = Site()
        site.guard._origins = Origins(["proxy"], frozenset)
        forwarded = [("X-Forwarded-For", "198.51.100.7")]
        site.ask("GET", "/login", headers=forwarded, client="192.0.2.9")
        site.ask("GET", "/login", headers=forwarded, client="192.0.2.8")
        assert [row[3]["client"][0] for row in site.rest.seen] == ["198.51.100.7", "192.0.2.8"]


class TestWhatFailsBehindIt:
    """Nothing that the reverse proxy would pass another person's request to is closed without a word."""

    @pytest.mark.parametrize(("started", "whole"), [(False, False), (True, True)])
    def test_an_answer_that_is_whole_or_not_begun_ends_in_order(
        self, started: bool, whole: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def broken(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            if started:
                await send({"type": "http.response.start", "status": 500, "headers": []})
                await send({"type": "http.response.body", "body": b"error", "more_body": not whole})
            raise ZeroDivisionError("what a pity")

        site = Site()
        site.guard._rest = broken
        answer = site.ask("GET", "/login")
        assert answer.status == 500
        assert answer.body == (b"error" if started else b'{"detail":"the node failed"}')
        assert b"pity" not in answer.body and "what a pity" in caplog.text

    def test_half_an_answer_is_broken_off(self) -> None:
        async def broken(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise ZeroDivisionError

        site = Site()
        site.guard._rest = broken
        with pytest.raises(ZeroDivisionError):
            site.ask("GET", "/login")
