"""Verifies that the service itself answers. A server that answers 200 to everything proves nothing."""

from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from gridup.probes.model import Endpoint, ProbeState
from gridup.probes.web import MAX_BODY, Location, Page, Route, fetch
from gridup.probes.wire import Deadline, DeadlineReader, Phase, connect
from gridup_infra import openssh
from gridup_infra.processes import Passage
from gridup_node.services import PORTAL_MARK, PROBLEM, ProbeKind

_NOT_YET = {404, 502, 503, 504}
_LONGEST_PROBLEM = 300
"""Maximum characters of the problem that a node reports about itself."""
FORMER_API = "/api/v1"
FORMER_PATH = f"{FORMER_API}/openapi.json"
FORMER, FORMER_NOTE = "former", "deployed by HAGrid"
"""The facts key that marks a node deployed by HAGrid, and the note that users see."""

_BANNER = b"SSH-2.0-"
_SHUT_OUT = (b"Not allowed at this time", b"Exceeded MaxStartups")
"""What OpenSSH sends instead of its banner, to an address that connected too often or when it is too busy."""
_NOT_OURS = "answered, but this is not a Gridup login page"
_BANNER_LINES = 50
_BANNER_LINE = 1024


@dataclass(frozen=True)
class Finding:
    """The outcome of one attempt. `reached`: whether something accepted the connection."""

    state: ProbeState
    detail: str = ""
    note: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    reached: bool = True


def verify(endpoint: Endpoint, route: Route, budget: Deadline) -> Finding:
    """Probe an endpoint once, through one address.

    Raises:
        Failure, TimeoutError, OSError, http.client.HTTPException: see `web.fetch`.
    """
    if endpoint.proof is ProbeKind.SSH_BANNER:
        return _ssh(endpoint, route, budget)
    enough, judge = _WEB[endpoint.proof]
    location = Location(endpoint.tls, endpoint.host, endpoint.port, endpoint.path)
    page = fetch(location, route, budget, enough)
    if page.status == 404 and endpoint.proof is ProbeKind.SYFT_METADATA and endpoint.expected is None:
        former = fetch(replace(location, path=FORMER_PATH), route, budget, _whole)
        return _former_api(former) or _unproven(endpoint, page)
    if page.status != 200:
        return _unproven(endpoint, page)
    return judge(endpoint, page)


def _unproven(endpoint: Endpoint, page: Page) -> Finding:
    if page.status == 403 and endpoint.restricted:
        return Finding(ProbeState.RESTRICTED, endpoint.restricted, page.note)
    if told := _json(page).get(PROBLEM):
        return Finding(ProbeState.DOWN, str(told)[:_LONGEST_PROBLEM], page.note)
    if page.status not in _NOT_YET:
        return Finding(ProbeState.DOWN, f"answers {page.status}", page.note)
    if page.status == 404:
        return Finding(ProbeState.NOT_READY, f"404: the {endpoint.title} is not there (yet)", page.note)
    if page.proxy:
        why = f"no way to the node, or the {endpoint.title} is still starting"
        return Finding(
            ProbeState.NOT_READY, f"the proxy {page.proxy} answers {page.status}: {why}", page.note
        )
    who = "" if page.status == 503 else " from the proxy"
    detail = f"{page.status}{who}: the {endpoint.title} is still starting"
    return Finding(ProbeState.NOT_READY, detail, page.note)


def _login_page(endpoint: Endpoint, page: Page) -> Finding:
    html = page.content_type.partition(";")[0].strip().lower() == "text/html"
    if html and PORTAL_MARK.encode() in page.body:
        return Finding(ProbeState.UP, note=page.note)
    if html and endpoint.expected is None and not endpoint.node:
        # It may be the UI of a node that HAGrid deployed. The result of the api decides that.
        return Finding(ProbeState.DOWN, _NOT_OURS, page.note, {FORMER: "maybe"})
    return Finding(ProbeState.DOWN, _NOT_OURS, page.note)


def _syft_metadata(endpoint: Endpoint, page: Page) -> Finding:
    wanted = ("name", "server_type", "syft_version")
    data = _json(page)
    facts = {key: value for key in wanted if isinstance(value := data.get(key), str)}
    if not all(facts.get(key) for key in wanted) or not re.match(r"\d+\.\d", facts["syft_version"]):
        return Finding(ProbeState.DOWN, "answered, but not with syft's metadata", page.note)
    for key, value in (endpoint.expected or {}).items():
        said = str(data.get(key, ""))
        if said != value:
            what = "it is" if key == "name" else f"its {key.replace('_', ' ')} is"
            detail = f"the {endpoint.title} says {what} '{said[:80]}', not '{value}'"
            return Finding(ProbeState.DOWN, detail, page.note, facts)
    return Finding(ProbeState.UP, note=page.note, facts=facts)


def _former_api(page: Page) -> Finding | None:
    """Return UP if the page is the OpenAPI document of a HAGrid node (syft 0.7 and earlier), else None."""
    paths = _json(page).get("paths") if page.status == 200 else None
    if not isinstance(paths, dict) or not any(str(path).startswith(f"{FORMER_API}/syft") for path in paths):
        return None
    return Finding(ProbeState.UP, note=join_notes(FORMER_NOTE, page.note), facts={FORMER: "HAGrid"})


def join_notes(*notes: str) -> str:
    """Join notes into one line; empty ones are left out."""
    return ", ".join(filter(None, notes))


def _jupyter_api(_: Endpoint, page: Page) -> Finding:
    data = _json(page)
    version = data.get("version")
    # Without a token, Jupyter reports only its version. An answer with more keys is not from Jupyter.
    if set(data) == {"version"} and isinstance(version, str) and re.fullmatch(r"\d+(\.\d+)+", version, re.A):
        return Finding(ProbeState.UP, note=page.note, facts={"jupyter_version": version})
    return Finding(ProbeState.DOWN, "answered, but not as Jupyter does", page.note)


def _json(page: Page) -> Mapping[str, object]:
    if len(page.body) >= MAX_BODY or "json" not in page.content_type.lower():
        return {}
    try:
        data = json.loads(page.body)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _ssh(endpoint: Endpoint, route: Route, budget: Deadline) -> Finding:
    with connect(route.target, endpoint.port, budget) as sock:
        return _greeting(sock, budget)


def by_way(endpoint: Endpoint, budget: Deadline) -> Finding:
    """Probe an ssh server through the ProxyJump or ProxyCommand of the user's ssh (`Endpoint.way`)."""
    passage = Passage(endpoint.way)
    try:
        budget.phase = Phase.ANSWER
        return _greeting(passage.socket, budget)
    except OSError:  # This includes TimeoutError.
        said = passage.said()
        # "open failed": the last jump host could not connect to the machine. Other errors concern the way
        # there, and say nothing about the machine.
        state = ProbeState.DOWN if any("open failed" in line for line in said) else ProbeState.RESTRICTED
        why, _ = openssh.diagnose(said, "", "")
        return Finding(state, f"on the way there: {why or 'no answer'}", reached=False)
    finally:
        passage.close()


def _greeting(sock: socket.socket, budget: Deadline) -> Finding:
    """Read up to the server's identification line. Other lines may come before it (RFC 4253, 4.2)."""
    with DeadlineReader(sock, budget) as raw, io.BufferedReader(raw) as lines:
        line = b""
        for number in range(_BANNER_LINES):
            line = lines.readline(_BANNER_LINE)
            if line.startswith(_BANNER) and line.endswith(b"\n"):
                banner = line.decode(errors="replace").strip()
                return Finding(ProbeState.UP, facts={"banner": banner})
            if line.startswith(_SHUT_OUT):
                return Finding(ProbeState.NOT_READY, f"sshd says: {line.decode(errors='replace').strip()}")
            if not line.endswith(b"\n"):
                if number == 0 and not line:
                    raise ConnectionResetError
                break
    return Finding(ProbeState.DOWN, "answered, but not as an ssh server does")


def _whole(_: bytes) -> bool:
    return False


def _has_mark(body: bytes) -> bool:
    return PORTAL_MARK.encode() in body


_WEB: Mapping[ProbeKind, tuple[Callable[[bytes], bool], Callable[[Endpoint, Page], Finding]]] = {
    ProbeKind.LOGIN_PAGE: (_has_mark, _login_page),
    ProbeKind.SYFT_METADATA: (_whole, _syft_metadata),
    ProbeKind.JUPYTER_API: (_whole, _jupyter_api),
}
"""For each http proof: a function that says when enough of the body is read, and one that judges the page."""


def socket_error(error: OSError) -> str:
    """Describe a socket error in a few words."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        temporary = error.errno == socket.EAI_AGAIN
        return "the name can't be looked up just now" if temporary else "there is no host of this name"
    return (error.strerror or str(error) or type(error).__name__).lower()
