"""The portal of a running node, as a browser and as somebody with bad intentions meet it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import requests

from gridup_infra import processes
from gridup_node.guard.remembered import Remembered
from gridup_node.guard.throttle import FREE_TRIES
from gridup_node.services import PORTAL_MARK

pytestmark = [pytest.mark.tier("gate"), pytest.mark.node]

EMAIL = "admin@inst.example"
NAME = "<b>Inst & Söhne</b>"


def token_of(page: requests.Response) -> str:
    found = re.search(r'name="token" value="([^"]+)"', page.text)
    assert found, page.text
    return found.group(1)


def sign_in(
    session: requests.Session, url: str, email: str, password: str, headers: dict[str, str] | None = None
) -> requests.Response:
    form = {"token": token_of(session.get(f"{url}/login", timeout=20)), "email": email, "password": password}
    return session.post(f"{url}/login", data=form, headers=headers, timeout=30, allow_redirects=False)


def caller(number: int) -> dict[str, str]:
    """As the proxy tells who it is for: each test is a caller of its own to the throttle."""
    return {"X-Forwarded-For": f"192.0.2.{number}"}


def test_every_page_is_marked_and_guarded_and_shows_the_name_as_text(node: Any) -> None:
    with requests.Session() as browser:
        pages = [browser.get(f"{node.url}/login", timeout=20), browser.get(f"{node.url}/nowhere", timeout=20)]
        assert sign_in(browser, node.url, EMAIL, node.secret("admin_password"), caller(1)).status_code == 303
        pages.append(browser.get(f"{node.url}/", timeout=20))
    assert [page.status_code for page in pages] == [200, 404, 200]
    for page in pages:
        assert PORTAL_MARK in page.text
        assert html.escape(NAME) in page.text
        assert NAME not in page.text
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["X-Frame-Options"] == "DENY"
        assert "access-control-allow-origin" not in page.headers
        assert "<script" not in page.text


def test_the_overview_is_for_those_signed_in_and_the_administrator_sees_all(node: Any) -> None:
    with requests.Session() as browser:
        away = browser.get(f"{node.url}/", timeout=20, allow_redirects=False)
        assert (away.status_code, away.headers["Location"]) == (303, "/login")
        done = sign_in(browser, node.url, EMAIL, node.secret("admin_password"), caller(2))
        assert (done.status_code, done.headers["Location"]) == (303, "/")
        page = browser.get(f"{node.url}/", timeout=20).text
        for shown in ("Domain node", EMAIL, "0.9.5", "0.1.0", "http://127.0.0.1:8888", "Users", "Datasets"):
            assert shown in page
        assert "Not visible" not in page
        assert browser.post(f"{node.url}/logout", timeout=20).status_code == 403
        assert browser.get(f"{node.url}/login", timeout=20, allow_redirects=False).headers["Location"] == "/"

        cookies = browser.cookies.copy()
        form = {"token": token_of(browser.get(f"{node.url}/", timeout=20))}
        assert browser.post(f"{node.url}/logout", data=form, timeout=20).url == f"{node.url}/login"
        # The server has forgotten it too, not the browser alone.
        again = requests.get(f"{node.url}/", cookies=cookies, timeout=20, allow_redirects=False)
        assert again.status_code == 303


def test_a_data_scientist_sees_what_syft_lets_her(node: Any) -> None:
    node.client("add_user.py", her="grace@inst.example", hers="Comp1ler-Pioneer")
    with requests.Session() as browser:
        assert (
            sign_in(browser, node.url, "grace@inst.example", "Comp1ler-Pioneer", caller(3)).status_code == 303
        )
        page = browser.get(f"{node.url}/", timeout=20).text
    assert "data scientist" in page
    # What her code may import beside what every node has.
    assert re.search(r"Further packages</h2>\s*<dl class=\"rows\">\s*<div><dt>starlette</dt><dd>1\.", page)
    assert "only-elsewhere" not in page
    # How to enter by ssh, and the notebooks, are the data owner's people's affair.
    assert "http://127.0.0.1:8080/api/v2" in page
    assert "http://127.0.0.1:8888" not in page and "gridup ssh" not in page
    assert page.count("Not visible to your role") == 1


def test_cookies_are_out_of_scripts_reach_and_secure_behind_https(node: Any) -> None:
    with requests.Session() as browser:
        plain = sign_in(browser, node.url, EMAIL, node.secret("admin_password"), caller(4))
    cookie = plain.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    https = requests.get(f"{node.url}/login", headers={"X-Forwarded-Proto": "https"}, timeout=20)
    assert "Secure" in https.headers["Set-Cookie"]


@pytest.mark.parametrize(
    ("email", "password"),
    [
        (EMAIL, "changethis"),
        ("info@openmined.org", "changethis"),
        ("nobody@gridup.invalid", "changethis"),
        (EMAIL, "x" * 73),
        (EMAIL, "a\0b"),
        (EMAIL, ""),
        ("not an address", "changethis"),
        ("", ""),
    ],
)
def test_a_wrong_sign_in_is_refused_in_the_same_words(node: Any, email: str, password: str) -> None:
    with requests.Session() as browser:
        answer = sign_in(browser, node.url, email, password, caller(10 + len(email) + len(password)))
    assert answer.status_code == 401
    assert "Wrong e-mail address or password." in answer.text


def test_a_form_that_is_not_ours_is_refused(node: Any) -> None:
    form = {"email": EMAIL, "password": node.secret("admin_password"), "token": "0" * 64}
    assert requests.post(f"{node.url}/login", data=form, timeout=20).status_code == 403
    with requests.Session() as theirs, requests.Session() as ours:
        form["token"] = token_of(theirs.get(f"{node.url}/login", timeout=20))
        ours.get(f"{node.url}/login", timeout=20)
        answer = ours.post(f"{node.url}/login", data=form, timeout=20, allow_redirects=False)
    assert answer.status_code == 403
    assert PORTAL_MARK in answer.text


def test_guessing_is_slowed_down_and_an_oversized_form_not_read(node: Any) -> None:
    with requests.Session() as browser:

        def guess(number: int) -> int:
            return sign_in(browser, node.url, EMAIL, f"guess {number}", caller(5)).status_code

        assert [guess(number) for number in range(FREE_TRIES)] == [401] * FREE_TRIES
        # The waits double: however slow this machine is, one try falls into one of them.
        assert 429 in (guess(number) for number in range(20))
    with requests.Session() as another:
        other = sign_in(another, node.url, EMAIL, node.secret("admin_password"), caller(6))
        assert other.status_code == 303
    assert requests.post(f"{node.url}/login", data={"email": "x" * 20_000}, timeout=20).status_code == 413
    assert requests.put(f"{node.url}/login", timeout=20).status_code == 405


def test_nothing_listens_off_the_loopback_and_the_queue_not_even_there(node: Any) -> None:
    whole = psutil.Process(node.process.pid)
    listening = [
        row.laddr
        for one in (whole, *whole.children(recursive=True))
        for row in one.net_connections(kind="inet")
        if row.status == psutil.CONN_LISTEN
    ]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", node.port)]
    assert (node.home / "run" / "queue").is_socket()
    assert (node.home / "run").stat().st_mode & 0o077 == 0


def test_no_secret_is_in_argv_environment_or_log(node: Any) -> None:
    process = psutil.Process(node.process.pid)
    told = "\n".join([*process.cmdline(), *process.environ().values(), node.log.read_text()])
    for path in (node.home / "secrets").iterdir():
        assert path.read_text().strip() not in told
    for path in (*node.home.rglob("*"), node.home):
        if path.relative_to(node.home).parts[:1] not in ((), ("config",), ("logs",)):
            assert path.stat().st_mode & 0o077 == 0, path


def test_the_api_answers_any_origin_and_hides_its_docs(node: Any) -> None:
    assert node.get_json("/api/v2/metadata")["name"] == NAME
    assert requests.get(f"{node.url}/docs", timeout=20).status_code == 404
    # Only what is below the prefix is syft's.
    assert requests.get(f"{node.url}/api/v2extra", timeout=20).status_code == 404


def test_a_second_server_ends_at_once_saying_what_is_in_the_way(node: Any) -> None:
    second = processes.run([node.python, "-m", "gridup_node.serve"], env=node.environment, timeout=30)
    assert second.code == 1
    assert f"can't listen on 127.0.0.1, port {node.port}: Address already in use" in second.stderr
    assert node.get_json("/api/v2/metadata")["name"] == NAME


def test_a_password_change_ends_the_sessions_of_that_account_alone(make_node: Callable[..., Any]) -> None:
    node = make_node()
    node.start()
    node.client("add_user.py", her="grace@inst.example", hers="Comp1ler-Pioneer")
    with requests.Session() as hers, requests.Session() as admins:
        sign_in(hers, node.url, "grace@inst.example", "Comp1ler-Pioneer")
        sign_in(admins, node.url, EMAIL, node.secret("admin_password"))
        done = node.admin("set-password", json.dumps({"password": "An0ther-One!"}))
        assert done.code == 0, done.stderr
        seen = [
            one.get(f"{node.url}/", timeout=20, allow_redirects=False).status_code for one in (hers, admins)
        ]
        assert seen == [200, 303]
    node.stop()


def test_a_new_sign_in_ends_the_session_before_it(node: Any) -> None:
    password = node.secret("admin_password")
    with requests.Session() as browser:
        sign_in(browser, node.url, EMAIL, password, caller(8))
        before = browser.cookies.copy()
        # A page that was opened before has a form of its own, of nobody who is signed in.
        with requests.Session() as earlier:
            form = {"token": token_of(earlier.get(f"{node.url}/login", timeout=20))}
            both = {**before.get_dict(), **earlier.cookies.get_dict()}
        form |= {"email": EMAIL, "password": password}
        done = requests.post(f"{node.url}/login", data=form, cookies=both, timeout=30, allow_redirects=False)
    assert done.status_code == 303
    for cookies, code in ((before, 303), (done.cookies, 200)):
        seen = requests.get(f"{node.url}/", cookies=cookies, timeout=20, allow_redirects=False)
        assert seen.status_code == code


def test_a_device_that_has_signed_in_before_is_not_kept_out_by_others_at_its_address(node: Any) -> None:
    password = node.secret("admin_password")
    with requests.Session() as admins:
        assert sign_in(admins, node.url, EMAIL, password, caller(7)).status_code == 303
        # What outlives a restart.
        assert Remembered(node.home / "data/signed_in.json", node.secret("session_key").encode()).has(
            "192.0.2.7", EMAIL
        )
        admins.post(f"{node.url}/logout", data={"token": token_of(admins.get(f"{node.url}/"))}, timeout=20)
        # The waits double: however slow this machine is, one try falls into one of them.
        for number in range(FREE_TRIES + 20):
            with requests.Session() as others:
                last = sign_in(others, node.url, EMAIL, f"guess {number}", caller(7))
            if last.status_code == 429:
                break
        assert last.status_code == 429
        assert sign_in(admins, node.url, EMAIL, password, caller(7)).status_code == 303
    # Nor is a browser that has not, where the password is the one that the node has made.
    with requests.Session() as new:
        assert sign_in(new, node.url, EMAIL, password, caller(7)).status_code == 303


def test_over_https_cookies_are_of_this_host_alone(node: Any) -> None:
    https = {"X-Forwarded-Proto": "https"}
    with requests.Session() as browser:
        page = browser.get(f"{node.url}/login", headers=https, timeout=20)
    (cookie,) = [part for part in page.headers["Set-Cookie"].split(", ") if "form" in part]
    assert cookie.startswith("__Host-gridup_form_")
    assert "Path=/" in cookie and "Domain" not in cookie
