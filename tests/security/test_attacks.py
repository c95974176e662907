"""A real node, attacked by raw requests: by strangers, by accounts, and by many at once."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from gridup_infra.processes import wait_until
from support import attacks, frames
from support.attacker import Attacker, said
from support.attacks import HER, HERS, Scene, Target, create, role_of, uid_of
from support.node_process import EMAIL, ROOT
from support.syft_client import run_script

pytestmark = pytest.mark.node

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/nonexistent",
    "PYTHONPATH": f"{ROOT / 'infra'}:{ROOT / 'tests'}",
}
"""Of scripts with syft alone, without a node."""


@pytest.fixture(scope="module")
def scene(node: Any) -> Iterator[Scene]:
    """The node's api alone; these tests are its reverse proxy, and so say who asks."""
    target = Target(node.port, EMAIL, node.secret("admin_password"), lambda: {"api": node.process.pid})
    with attacks.scene(target) as made:
        yield made


@pytest.fixture(scope="module")
def admin(scene: Scene) -> Attacker:
    return scene.admin


@pytest.fixture(scope="module")
def eve(scene: Scene) -> Attacker:
    return scene.scientist


@pytest.fixture(scope="module")
def owen(scene: Scene) -> Attacker:
    return scene.owner


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A command that leaves a file when it runs, and the file."""
    file = tmp_path / "ran"
    yield f"touch {file}", file
    assert not file.exists(), "the node ran a command that a caller named"


def test_no_body_runs_a_command_whoever_sends_it(scene: Scene) -> None:
    attacks.play(scene, attacks.bodies_run_no_command)


def test_who_is_refused_may_send_the_rest(scene: Scene) -> None:
    """The reverse proxy sends a body after its headers. Cut off at that, it would pass on no refusal."""

    def stays() -> bool:
        """Whether the node waits for the rest, and hangs up after it."""
        with contextlib.closing(scene.target.caller().dial()) as one:
            one.sendall(b"POST /api/v2/none HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 8\r\n\r\n")
            assert b" 404 " in one.recv(4096)
            one.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                while (more := one.recv(4096)) != b"":
                    assert b"HTTP/" not in more
                return False
            one.settimeout(60)
            with contextlib.suppress(ConnectionError):
                one.sendall(b"the rest")
                return one.recv(4096) == b""
            return False

    # It waits for some seconds: on a busy machine a try may come too late.
    assert any(stays() for _ in range(5)), "the node has hung up"


def test_a_stranger_may_call_nothing(scene: Scene) -> None:
    attacks.play(scene, attacks.strangers_call_nothing)


def test_only_the_metadata_is_anybodys(scene: Scene) -> None:
    attacks.play(scene, attacks.nothing_else_is_there)


def test_ping_signs_sixteen_bytes_and_no_call(scene: Scene) -> None:
    attacks.play(scene, attacks.ping_signs_no_call)


def test_an_account_gets_no_further_than_its_role(scene: Scene) -> None:
    attacks.play(scene, attacks.accounts_keep_to_their_role)


def test_a_call_that_was_signed_for_another_is_refused(scene: Scene) -> None:
    attacks.play(scene, attacks.signatures_count_for_their_own_call)


def test_another_name_that_leads_to_the_node_is_refused(scene: Scene) -> None:
    attacks.play(scene, attacks.rebound_names_are_not_the_nodes)


def test_a_page_of_another_site_reads_nothing(scene: Scene) -> None:
    attacks.play(scene, attacks.pages_of_other_sites_read_nothing)


def test_a_form_of_another_site_logs_nobody_in_or_out(scene: Scene) -> None:
    attacks.play(scene, attacks.forms_of_other_sites_do_nothing)


def test_what_is_no_request_is_refused(scene: Scene) -> None:
    attacks.play(scene, attacks.requests_that_are_none_are_refused)


def test_a_thousand_unfinished_requests_keep_nobody_out(scene: Scene) -> None:
    attacks.play(scene, attacks.unfinished_requests_keep_nobody_out)


def test_a_large_body_of_a_stranger_costs_no_memory(scene: Scene) -> None:
    attacks.play(scene, attacks.large_bodies_cost_no_memory)


def test_many_slow_strangers_do_not_make_an_account_wait(scene: Scene) -> None:
    attacks.play(scene, attacks.slow_strangers_make_no_account_wait)


def test_what_runs_a_command_in_syft_does_so_without_the_guard(
    node_python: Path, trap: tuple[str, Path]
) -> None:
    """So that the tests above would see it. With the holes closed it does not, whatever the guard does."""
    command, file = trap
    body = frames.runs(command).data
    env = {**ENVIRONMENT, "HOME": str(file.parent)}
    for state, ran in (("closed", False), ("open", True)):
        run_script(node_python, "build.py", state, env=env, timeout=240, told=body)
        assert file.exists() == ran
    file.unlink()


def test_a_small_message_is_built_to_nothing_huge(node_python: Path) -> None:
    """The first layer lets these through: it does not look into what numpy and pandas read."""
    seen = {}
    for state in ("open", "closed"):
        done = run_script(node_python, "expand.py", state, env=ENVIRONMENT, timeout=240)
        assert done.ok, done.stderr[-2000:]
        seen[state] = json.loads(done.stdout.strip().splitlines()[-1])
    assert "ValueError" not in seen["open"]["evil"].values()
    assert set(seen["closed"]["evil"].values()) == {"ValueError"}
    assert set(seen["closed"]["fine"].values()) == {True}


def test_a_data_scientist_gets_at_nothing_of_others_by_syfts_own_methods(
    node_python: Path, tmp_path: Path
) -> None:
    """syft's own server and client, in one process: all of these come through without the holes closed."""
    seen = {}
    for state in ("open", "closed"):
        env = {**ENVIRONMENT, "TMPDIR": str(tmp_path)}
        done = run_script(node_python, "rights.py", state, env=env, timeout=240)
        assert done.ok, done.stderr[-2000:]
        seen[state] = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(seen["open"].values()) == {True}, seen["open"]
    assert set(seen["closed"].values()) == {False}, seen["closed"]


def test_whose_key_it_is_makes_no_difference_to_who_has_not_signed_in(
    node: Any, owen: Attacker, eve: Attacker, admin: Attacker
) -> None:
    answers = set()
    for who in (owen, eve, Attacker(node.port)):
        query = f"verify_key={bytes(who.key.verify_key).hex()}&communication_protocol=6"
        # From the address, too, that it has signed in and made calls from.
        for address in (who.address, "192.0.2.67"):
            answers.add(Attacker(node.port, address).ask("GET", f"/api/v2/api?{query}"))
    assert {status for status, _ in answers} == {403}
    assert len(answers) == 1
    # The node's own, which is its administrator's, is in the metadata: of it everybody is told how to ask a
    # node for a proof of who it is.
    query = f"verify_key={bytes(admin.key.verify_key).hex()}&communication_protocol=6"
    status, answer = Attacker(node.port, "192.0.2.67").ask("GET", f"/api/v2/api?{query}")
    assert (status, b"network.ping" in answer, b"user.get_all" in answer) == (200, True, False)


def test_a_blob_holds_only_what_callers_may_send(eve: Attacker, trap: tuple[str, Path]) -> None:
    """Whoever reads it, the data owner's own client too, builds what it holds."""
    command, _ = trap
    uid = frames.uid(b"\xab" * 15 + b"\x60")
    entry = {
        "id": uid.data,
        "file_size": frames.value(1000),
        "mimetype": frames.value("bytes"),
        "type_": frames.blob("type", b"str:1"),
        "extensions": frames.value([]),
    }
    made = eve.call("blob_storage.allocate", obj=frames.Raw(frames.fields("CreateBlobStorageEntry", entry)))
    assert "SyftSuccess" in made
    evil = frames.runs(command).data
    deep = frames.value([{"x": frames.runs(command)}])
    for data in (evil, deep, b"", b"no message at all", evil + bytes(8)):
        for given in ({"data": data, "uid": uid}, {"uid": uid, "x": 1, "data": data}):
            assert "does not take this call" in eve.call("blob_storage.write_to_disk", **given)
        assert "does not take this call" in eve.call("blob_storage.write_to_disk", uid, data)
    for data in ("text", [evil], uid):
        assert "SyftError" in eve.call("blob_storage.write_to_disk", uid=uid, data=data)
    fine = frames.value("what it says")
    assert "SyftSuccess" in eve.call("blob_storage.write_to_disk", uid=uid, data=fine)


def test_a_request_and_a_link_that_only_the_server_makes_are_not_for_callers_to_send(eve: Attacker) -> None:
    for name in ("ObjectMutation", "EnumMutation", "UserCodeStatusChange", "ActionDataLink"):
        thing = frames.Raw(frames.fields(name, {}))
        named = frames.Raw(frames.blob("type", f"{name}:1".encode()))
        assert "not for callers to send" in eve.call("request.submit", request=thing)
        assert "not for callers to name" in eve.call("request.submit", request=named)


def key_of(caller: Attacker) -> frames.Raw:
    key = frames.blob("nacl_verify_key", bytes(caller.key.verify_key))
    return frames.Raw(frames.fields("SyftVerifyKey", {"verify_key": key}))


def test_nobody_makes_themselves_more_than_they_are(eve: Attacker, owen: Attacker, admin: Attacker) -> None:
    assert "SyftError" in eve.call("user.update", uid=uid_of(eve), role=role_of("ADMIN"))
    for caller in (eve, admin):
        # With it syft runs code that nobody has approved, on whatever the sender calls a mock.
        assert "SyftError" in caller.call("user.update", uid=uid_of(eve), mock_execution_permission=True)
    assert "SyftError" in eve.call("user.update", uid=uid_of(eve), verify_key=key_of(admin))
    assert "SyftError" in owen.call("user.update", uid=uid_of(owen), role=role_of("ADMIN"))
    more = {"name": "Y", "password": HERS, "password_verify": HERS}
    for which in ("ADMIN", "DATA_OWNER"):
        made = owen.call("user.create", email=f"{which.lower()}@evil.example", role=role_of(which), **more)
        assert "Only an administrator may make such an account" in made
    assert "SyftSuccess" in owen.call(
        "user.create", email="fine@inst.example", role=role_of("DATA_SCIENTIST"), **more
    )


def test_an_account_is_not_taken_over_by_a_lower_one(node: Any, owen: Attacker, admin: Attacker) -> None:
    for wanted in ({"password": "Taken-0ver!"}, {"email": "mine@evil.example"}):
        answer = owen.call("user.update", uid=uid_of(admin), **wanted)
        assert "Only an administrator may change this account" in answer
    assert Attacker(node.port, "192.0.2.4").sign_in(EMAIL, node.secret("admin_password")) is not None


def test_a_new_password_leaves_the_key_that_an_account_signs_with(node: Any, admin: Attacker) -> None:
    """As docs/security.md says: `gridup rotate` gives each account another."""
    email, another = "joan@inst.example", "An0ther-Engine"
    create(admin, email, "DATA_SCIENTIST")
    joan = Attacker(node.port, "192.0.2.11").sign_in(email, HERS)
    assert joan is not None
    assert "SyftSuccess" in joan.call("user.update", uid=uid_of(joan), password=another)
    assert Attacker(node.port, "192.0.2.11").sign_in(email, HERS) is None
    again = Attacker(node.port, "192.0.2.11").sign_in(email, another)
    assert again is not None
    assert bytes(again.key) == bytes(joan.key)
    assert "SyftSuccess" in joan.call("dataset.get_all")


def test_nobody_looks_up_the_account_of_another_with_its_key(eve: Attacker, owen: Attacker) -> None:
    """syft lets everybody read all of everybody's account."""
    link = {
        "id": frames.uid(b"\xab" * 16).data,
        "server_uid": frames.uid(eve.server()).data,
        "service_type": frames.blob("type", b"UserService:1"),
        "object_type": frames.blob("type", b"UserView:1"),
        "object_uid": uid_of(owen).data,
    }
    linked = frames.Raw(frames.fields("LinkedObject", link))
    for caller in (eve, owen):
        call = frames.call(caller.server(), "notifications.resolve_object", linked_obj=linked)
        status, answer = caller.post(frames.signed(caller.key, call))
        assert status == 200
        assert "SyftError" in said(answer)
        assert b"nacl_signing_key" not in answer
        assert bytes(owen.key) not in answer


def test_what_a_job_was_given_is_nobodys_to_read(eve: Attacker, admin: Attacker) -> None:
    """The node's own key is in it, and syft tells whose job failed where to find it."""
    for caller in (eve, admin):
        assert "you may not call queue" in caller.call("queue", uid=frames.uid(b"\xab" * 16))


@pytest.mark.parametrize("what", ["another's", "own"])
def test_no_answer_holds_anothers_key_whatever_a_method_returns(node_python: Path, what: str) -> None:
    done = run_script(node_python, "answer_with_key.py", what, env=ENVIRONMENT, timeout=240)
    assert f"held {what == 'own'} True" in done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("state", "scientist", "admin"),
    [("open", ["asked", "user.update"], ["asked", "user.update"]), ("closed", [], ["asked"])],
)
def test_no_server_makes_the_node_sign_a_call_to_itself(
    node_python: Path, state: str, scientist: list[str], admin: list[str]
) -> None:
    """syft's client calls what the other side tells it to, and signs that with the administrator's key.

    A data scientist names a server when making a project.
    """
    done = run_script(node_python, "lure.py", state, env=ENVIRONMENT, timeout=240)
    assert done.ok, done.stderr[-2000:]
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    assert (seen["DATA_SCIENTIST"], seen["ADMIN"]) == (scientist, admin)
    # What it answers expands to no more than a stranger's message.
    assert ("ndarray" in seen["large"], set(seen["large"]) == {"ValueError"}) == (
        state == "open",
        state == "closed",
    )
    # It leads the node nowhere: not by a redirect, which the client follows thirty times, nor by a name.
    assert (seen["redirects"] > 0, seen["by name"] > 0) == (state == "open", state == "open")


def test_a_blob_is_written_in_the_folder_of_blobs_alone(node: Any, eve: Attacker, tmp_path: Path) -> None:
    def entry(extensions: list[str], number: int) -> frames.Raw:
        values = {
            "id": frames.uid(b"\xab" * 15 + bytes([number])).data,
            "file_size": frames.value(4),
            "mimetype": frames.value("bytes"),
            "type_": frames.blob("type", b"bytes:1"),
            "extensions": frames.value(extensions),
        }
        return frames.Raw(frames.fields("CreateBlobStorageEntry", values))

    for number, extensions in enumerate(
        (["/../../x"], [f"/../../../../../..{tmp_path}/x"], ["x/y"]), start=40
    ):
        assert "That is no name of a blob" in eve.call("blob_storage.allocate", obj=entry(extensions, number))
    assert not list(tmp_path.iterdir())
    fine = eve.call("blob_storage.allocate", obj=entry([".txt"], 50))
    assert "SyftSuccess" in fine, fine


def test_a_sign_in_tells_nothing_of_which_accounts_there_are(node: Any, admin: Attacker) -> None:
    answers = set()
    for email in (EMAIL, HER, "nobody@inst.example", "info@openmined.org", "x", ""):
        caller = Attacker(node.port, f"192.0.2.{100 + len(email)}")
        body = json.dumps({"email": email, "password": "wrong"}).encode()
        answers.add(caller.ask("POST", "/api/v2/login", body, {"Content-Type": "application/json"}))
    assert len({status for status, _ in answers}) == 1
    texts = {b"Wrong e-mail address or password." in answer for _, answer in answers}
    assert texts == {True}


def test_a_deleted_accounts_session_is_of_no_use(node: Any, admin: Attacker) -> None:
    create(admin, "mary@inst.example", "DATA_SCIENTIST")
    mary = Attacker(node.port, "192.0.2.9").sign_in("mary@inst.example", HERS)
    assert mary is not None
    with requests.Session() as browser:
        browser.headers["X-Forwarded-For"] = "192.0.2.9"
        page = browser.get(f"{node.url}/login", timeout=30).text
        (token,) = re.findall(r'name="token" value="([^"]+)"', page)
        form = {"token": token, "email": "mary@inst.example", "password": HERS}
        assert browser.post(f"{node.url}/login", data=form, timeout=30).url == f"{node.url}/"
        assert admin.call("user.delete", uid=uid_of(mary)).startswith("SyftSuccess")
        assert browser.get(f"{node.url}/", timeout=30).url == f"{node.url}/login"
    assert Attacker(node.port, "192.0.2.9").sign_in("mary@inst.example", HERS) is None
    # The guard looks again after two seconds; what comes meanwhile syft refuses.
    assert "Success" not in mary.call("user.get_current_user")
    assert wait_until(lambda: mary.call("user.get_current_user").startswith("403"), timeout=60, every=0.5)


def test_passwords_are_kept_by_bcrypt(node: Any, admin: Attacker, eve: Attacker) -> None:
    database = b"".join(path.read_bytes() for path in node.home.joinpath("data").rglob("*.db*"))
    hashes = re.findall(rb"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", database)
    assert len(hashes) >= 3 and {int(cost) >= 12 for cost in hashes} == {True}
    assert not [one for one in (HERS, node.secret("admin_password")) if one.encode() in database]


def test_a_form_of_no_text_is_no_error_of_the_nodes(node: Any) -> None:
    before = node.log.stat().st_size
    for encoding, value in (("unicode_escape", "\\ud800"), ("undefined", "x"), ("nonsense", "x")):
        body = f'--b\r\nContent-Disposition: form-data; name="email"\r\n\r\n{value}\r\n--b--\r\n'
        kind = {"Content-Type": f"multipart/form-data; boundary=b; charset={encoding}"}
        status, _ = Attacker(node.port, "192.0.2.150").ask("POST", "/login", body.encode(), kind)
        assert status in (400, 403), encoding
    assert b"Traceback" not in node.log.read_bytes()[before:]


def test_both_ways_to_sign_in_share_one_limit(node: Any, admin: Attacker) -> None:
    guesser = Attacker(node.port, "198.51.100.1")
    guess = json.dumps({"email": HER, "password": "wrong"}).encode()

    def waits() -> bool:
        return b"Too many failed sign-ins" in guesser.ask("POST", "/api/v2/login", guess, attacks.JSON)[1]

    # The waits double: on a slow machine too, one try falls into one.
    assert any(waits() for _ in range(20))
    page = guesser.ask("GET", "/login")[1].decode()
    assert 'name="token"' in page
    elsewhere = Attacker(node.port, "198.51.100.2")
    assert elsewhere.sign_in(HER, HERS) is not None


def test_the_log_tells_of_refusals_in_few_lines(node: Any, scene: Scene) -> None:
    stranger, before = Attacker(node.port, "192.0.2.69"), node.log.stat().st_size
    for _ in range(30):
        stranger.post(b"x" * 100)
        stranger.ask("GET", "/login", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        attacks.answer_to(scene.target, b"no request\r\n\r\n")
    grown = node.log.read_bytes()[before:]
    assert grown.count(b"\n") <= 3
    assert b"Traceback" not in grown
