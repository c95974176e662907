"""The portal's pages and their routes."""

from __future__ import annotations

import contextlib
import logging
import platform
import secrets
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from gridup_node import facts
from gridup_node.account import Account, Refused, password_mark, sign_in
from gridup_node.guard.slots import network
from gridup_node.guard.throttle import Throttle
from gridup_node.portal.sessions import (
    DEVICE_SECONDS,
    LIFE_SECONDS,
    Session,
    Sessions,
    cookie_name,
    device_token,
    form_token,
    is_device_of,
    is_ours,
)
from gridup_node.secrets import is_own_password
from gridup_node.services import PORTAL_MARK, SERVICES, Audience

HERE = Path(__file__).parent
LARGEST_FORM = 16 * 1024
"""In bytes."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""The headers of every page. The guard adds the headers of all answers (`guard.headers`)."""

ERRORS: Mapping[int, tuple[str, str]] = {
    404: ("There is no such page", "The address may be mistyped, or the page has moved."),
    405: ("That can't be done here", "The page was asked for something it does not do."),
    413: ("Too much was sent", "The form was larger than any of ours."),
    500: (
        "Something went wrong",
        "The node met an error it did not expect; its log says more (gridup logs, api).",
    ),
}

ROLES: Mapping[str, str] = {
    "ADMIN": "an administrator",
    "DATA_OWNER": "a data owner",
    "DATA_SCIENTIST": "a data scientist",
    "GUEST": "a guest",
}
"""syft's roles, worded for a sentence."""
STAFF = ("ADMIN", "DATA_OWNER")

log = logging.getLogger(__name__)


def portal(server: Any, folder: facts.NodeDir, session_key: bytes, throttle: Throttle) -> Starlette:
    """Create the portal of `server`, as an ASGI app.

    Args:
        server: syft's server in this process.
        folder: the node's folder. Each page reads its node.json again, so a changed port needs no restart.
        session_key: the key that signs forms.
        throttle: counts failed sign-ins, including the API's.
    """
    pages = _Portal(server, folder, session_key, throttle)
    return Starlette(
        routes=[
            Route("/", pages.overview, methods=["GET"]),
            Route("/login", pages.login_page, methods=["GET"]),
            Route("/login", pages.login, methods=["POST"]),
            Route("/logout", pages.logout, methods=["POST"]),
            Route("/portal.css", _file("portal.css", "text/css"), methods=["GET"]),
            Route("/portal.svg", _file("portal.svg", "image/svg+xml"), methods=["GET"]),
        ],
        middleware=[Middleware(_SecurityHeaders)],
        exception_handlers={HTTPException: pages.error, 500: pages.error},
    )


class _Portal:
    def __init__(self, server: Any, folder: facts.NodeDir, key: bytes, throttle: Throttle) -> None:
        self._server = server
        self._folder = folder
        self._key = key
        self._sessions = Sessions()
        self._throttle = throttle
        self._last_facts = facts.load(folder.facts)
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def overview(self, request: Request) -> Response:
        identity = self._cookie(request, "session")
        session = await self._session(identity)
        if session is None:
            return RedirectResponse("/login", status_code=303)
        try:
            seen = await run_in_threadpool(_look, session.account)
        except Refused:
            # The account was deleted, or the server refuses its calls now.
            self._sessions.end(identity)
            return RedirectResponse("/login", status_code=303)
        return self._page(
            "overview.html",
            **seen,
            token=form_token(self._key, identity),
            versions=self._versions(),
            packages=self._packages(),
            endpoints=self._endpoints(staff=seen["staff"]),
        )

    async def login_page(self, request: Request) -> Response:
        if await self._session(self._cookie(request, "session")) is not None:
            return RedirectResponse("/", status_code=303)
        return self._login_form(request)

    async def _session(self, identity: str) -> Session | None:
        """Return the live session with this id; None if there is none.

        Ends the session if the account has another password by now, or is deleted.
        """
        session = self._sessions.find(identity)
        if session is None:
            return None
        mark = await run_in_threadpool(password_mark, self._server, session.account.key)
        if mark is None or mark != session.mark:
            self._sessions.end(identity)
            return None
        return session

    async def login(self, request: Request) -> Response:
        form = await _form(request)
        email, password = form.get("email", "").strip(), form.get("password", "")
        if not is_ours(self._key, self._cookie(request, "form"), form.get("token", "")):
            return self._login_form(request, 403, "This form is too old. Please try again.", email)
        address = request.client.host if request.client else ""
        device = self._cookie(request, "device")
        # Failed sign-ins of others at the same address must not lock out a browser that signed in before.
        known = is_device_of(self._key, device, email)
        caller = device if known else network(address)
        wait = self._throttle.wait(caller, email, known)
        if wait and not is_own_password(self._folder.secrets, password):
            answer = self._login_form(
                request, 429, f"Too many failed tries. Please wait {_duration(wait)} and try again.", email
            )
            answer.headers["Retry-After"] = str(wait)
            return answer
        # Count the try before the slow password check, so that many tries at once don't bypass the throttle.
        self._throttle.failed(caller, email, known)
        try:
            account = await run_in_threadpool(sign_in, self._server, email, password)
        except Refused as error:
            log.info("a sign-in from %s was refused", address)
            return self._login_form(request, 401, str(error), email)
        await run_in_threadpool(self._throttle.succeeded, caller, email)
        self._sessions.end(self._cookie(request, "session"))
        mark = await run_in_threadpool(password_mark, self._server, account.key)
        response = RedirectResponse("/", status_code=303)
        begun = self._sessions.begin(account, mark or b"")
        self._set_cookie(request, response, "session", begun, LIFE_SECONDS)
        self._set_cookie(request, response, "device", device_token(self._key, email), DEVICE_SECONDS)
        self._set_cookie(request, response, "form", "", 0)
        return response

    async def logout(self, request: Request) -> Response:
        identity = self._cookie(request, "session")
        form = await _form(request)
        if self._sessions.find(identity) is not None and not is_ours(
            self._key, identity, form.get("token", "")
        ):
            return self._error_page(403, "That did not come from our own page", "Nothing was done.")
        self._sessions.end(identity)
        response = RedirectResponse("/login", status_code=303)
        self._set_cookie(request, response, "session", "", 0)
        return response

    async def error(self, _request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        title, text = ERRORS.get(status, ERRORS[500] if status >= 500 else ("That did not work", ""))
        return self._error_page(status, title, text)

    def _login_form(
        self, request: Request, status: int = 200, problem: str = "", email: str = ""
    ) -> Response:
        cookie = self._cookie(request, "form") or secrets.token_urlsafe(32)
        token = form_token(self._key, cookie)
        response = self._page("login.html", status, problem=problem, email=email[:254], token=token)
        self._set_cookie(request, response, "form", cookie, LIFE_SECONDS)
        return response

    def _error_page(self, status: int, title: str, text: str) -> Response:
        return self._page("error.html", status, title=title, text=text, code=status)

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        html = self._templates.get_template(template).render(mark=PORTAL_MARK, node=self._facts(), **values)
        # A page is only for the user who is signed in now, so browsers must not store it.
        return HTMLResponse(html, status, headers={"Cache-Control": "no-store"})

    def _facts(self) -> facts.Facts:
        try:
            self._last_facts = facts.load(self._folder.facts)
        except facts.FactsError as error:
            log.warning("%s", error)
        return self._last_facts

    def _versions(self) -> dict[str, str]:
        import syft

        return {
            "PySyft": syft.__version__,
            "Gridup": self._facts().gridup_version or "not told",
            "Python": platform.python_version(),
        }

    def _packages(self) -> dict[str, str]:
        """Return {name: version} of the data owner's packages, without those that a marker excludes here."""
        found = {}
        for name in self._facts().packages:
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[name] = metadata.version(name)
        return found

    def _endpoints(self, staff: bool) -> list[dict[str, Any]]:
        """Return the endpoints of the services that the user may use. Only staff see those for staff."""
        told = self._facts().endpoints
        return [
            {"title": row.title, "name": row.name, "target": told[row.name], "link": _is_link(told[row.name])}
            for row in SERVICES
            if row.name in told and (staff or row.audience is not Audience.STAFF)
        ]

    def _cookie(self, request: Request, name: str) -> str:
        return str(request.cookies.get(self._cookie_name(request, name), ""))

    def _cookie_name(self, request: Request, name: str) -> str:
        return cookie_name(self._key, name, request.url.scheme == "https")

    def _set_cookie(self, request: Request, response: Response, name: str, value: str, seconds: int) -> None:
        response.set_cookie(
            self._cookie_name(request, name),
            value,
            max_age=seconds,
            httponly=True,
            samesite="lax",
            # The guard sets the scheme from the reverse proxy's X-Forwarded-Proto.
            secure=request.url.scheme == "https",
        )


def _look(account: Account) -> dict[str, Any]:
    """Return the overview page's values from syft. A count is None if the account may not see it.

    Raises:
        Refused: the account may not call the server at all.
    """
    user = account.call("user.get_current_user")
    counts: dict[str, int | None] = {}
    for title, path in (("Users", "user.get_all"), ("Datasets", "dataset.get_all")):
        try:
            counts[title] = len(account.call(path))
        except Refused:
            counts[title] = None
    role = getattr(user.role, "name", "GUEST")
    named = ROLES.get(role, role.replace("_", " ").lower())
    return {"user": user, "role": named, "staff": role in STAFF, "counts": counts}


async def _form(request: Request) -> dict[str, str]:
    """Return the text fields of a form.

    Raises:
        HTTPException: the form is larger than any form of the portal, or has invalid text.
    """
    # Refuse a body without a length (chunked), whose size is unknown in advance. Browsers always send one.
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > LARGEST_FORM:
        raise HTTPException(413)
    try:
        form = await request.form(max_files=0)
        found = {key: value for key, value in form.items() if isinstance(value, str)}
        # The sender chooses the encoding, and some encodings can produce half of a surrogate pair.
        "".join(found.values()).encode()
    except UnicodeError:
        raise HTTPException(400) from None
    return found


def _file(name: str, kind: str) -> Any:
    async def answer(_request: Request) -> Response:
        return FileResponse(
            HERE / "static" / name, media_type=kind, headers={"Cache-Control": "max-age=3600"}
        )

    return answer


def _is_link(target: str) -> bool:
    return target.startswith(("http://", "https://"))


def _duration(seconds: int) -> str:
    if seconds < 90:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    return f"{-(-seconds // 60)} minutes"


class _SecurityHeaders:
    """Middleware that adds `HEADERS` to every answer.

    It is plain ASGI, because Starlette's base class creates a task for each request.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)
