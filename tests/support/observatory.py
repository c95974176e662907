"""The rules of Mozilla's HTTP Observatory, held against a real answer.

After https://github.com/mdn/mdn-http-observatory, version 5 of its scoring: a result has the name that it has
there. `Seen` is what the Observatory itself would fetch: the page, the same asked by another site's page, and
where plain http leads to.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

SIX_MONTHS = 15_552_000
FOREIGN = "https://elsewhere.example"

BROAD = frozenset(
    {"ftp:", "http:", "https:", "*", "http://*", "http://*.*", "https://*", "https://*.*"},
)
INLINE = frozenset({"'unsafe-inline'", "data:"})
GOOD_REFERRERS = frozenset(
    {"no-referrer", "same-origin", "strict-origin", "strict-origin-when-cross-origin"},
)


@dataclass(frozen=True)
class Answer:
    """One answer. The names of its headers are in small letters."""

    url: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def every(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def first(self, name: str) -> str:
        return next(iter(self.every(name)), "")


@dataclass(frozen=True)
class Seen:
    """What the Observatory fetches of a page.

    Attributes:
        page: the answer itself, without following where it leads to.
        crossed: the same, asked by another site's page.
        plain: the answer at the same host by plain http; None where nobody answers there.
        public: whether a CA that all browsers trust vouches for it.
    """

    page: Answer
    crossed: Answer
    plain: Answer | None = None
    public: bool = False


def get(
    url: str, ca: str = "", *, method: str = "GET", body: str = "", headers: Mapping[str, str] | None = None
) -> Answer:
    """One request, as a client that trusts `ca` alone.

    Args:
        ca: the path of a file of certificates.
    """
    parts = urlsplit(url)
    where, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca or None)
        connection = http.client.HTTPSConnection(where, port, timeout=30, context=context)
    else:
        connection = http.client.HTTPConnection(where, port, timeout=30)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body.encode() or None, dict(headers or {}))
        told = connection.getresponse()
        pairs = tuple((name.lower(), value) for name, value in told.getheaders())
        return Answer(url, told.status, pairs, told.read())
    finally:
        connection.close()


def policy(answer: Answer) -> dict[str, frozenset[str]]:
    """What a page's Content-Security-Policy allows, by directive; the first of one name counts."""
    found: dict[str, frozenset[str]] = {}
    for part in answer.first("content-security-policy").split(";"):
        name, *values = part.lower().split()
        found.setdefault(name, frozenset(values))
    return found


def content_security_policy(seen: Seen) -> str:
    if not seen.page.first("content-security-policy"):
        return "csp-not-implemented"
    told = policy(seen.page)
    fallback = told.get("default-src", frozenset("*"))
    script, style, objects = (told.get(f"{name}-src", fallback) for name in ("script", "style", "object"))
    every = frozenset().union(*told.values())
    if script & (BROAD | INLINE) or objects & BROAD:
        return "csp-implemented-with-unsafe-inline"
    if any(one.startswith(("http:", "ftp:")) for one in every):
        return "csp-implemented-with-insecure-scheme"
    if "'unsafe-eval'" in script | style:
        return "csp-implemented-with-unsafe-eval"
    if style & (BROAD | INLINE):
        return "csp-implemented-with-unsafe-inline-in-style-src-only"
    if told.get("default-src") == {"'none'"}:
        return "csp-implemented-with-no-unsafe-default-src-none"
    return "csp-implemented-with-no-unsafe"


def policy_of_frames(seen: Seen) -> str:
    """Of the Observatory's own table of a policy: who may frame it, where its base and its forms lead to."""
    told = policy(seen.page) if seen.page.first("content-security-policy") else {}
    anything = frozenset("*")
    open_to = [
        name
        for name in ("frame-ancestors", "base-uri", "form-action")
        if told.get(name, anything) & (BROAD | (INLINE if name == "base-uri" else frozenset()))
    ]
    return f"open: {', '.join(open_to)}" if open_to else ""


def cookies(seen: Seen) -> str:
    for line in seen.page.every("set-cookie"):
        for name, one in SimpleCookie(line).items():
            what = name.lower()
            session = any(word in what for word in ("login", "sess"))
            if one["samesite"].lower() not in ("", "lax", "strict", "none"):
                return "cookies-samesite-flag-invalid"
            if not one["secure"]:
                return f"cookies-{'session-' * session}without-secure-flag"
            if "csrf" in what and not one["samesite"]:
                return "cookies-anticsrf-without-samesite-flag"
            if session and not one["httponly"]:
                return "cookies-session-without-httponly-flag"
            if not one["samesite"]:
                return "cookies-secure-with-httponly-sessions"
    return ""


def cross_origin_resource_sharing(seen: Seen) -> str:
    allowed = seen.crossed.first("access-control-allow-origin")
    if not allowed:
        return ""
    kind = "public-access" if allowed == "*" else "restricted-access"
    if allowed == FOREIGN and seen.crossed.first("access-control-allow-credentials") == "true":
        kind = "universal-access"
    return f"cross-origin-resource-sharing-implemented-with-{kind}"


def redirection(seen: Seen) -> str:
    if seen.plain is None:
        return ""
    here, there = urlsplit(seen.plain.url), urlsplit(seen.plain.first("location"))
    if not 300 <= seen.plain.status < 400:
        return "redirection-missing"
    if there.scheme != "https":
        return "redirection-not-to-https-on-initial-redirection"
    return "" if there.hostname == here.hostname else "redirection-off-host-from-http"


def referrer_policy(seen: Seen) -> str:
    told = [one.strip().lower() for one in seen.page.first("referrer-policy").split(",") if one.strip()]
    if not told:
        return "referrer-policy-not-implemented"
    return "" if told[-1] in GOOD_REFERRERS else "referrer-policy-unsafe"


def strict_transport_security(seen: Seen) -> str:
    told = seen.page.first("strict-transport-security")
    if not told:
        return "hsts-not-implemented"
    found = re.search(r"max-age=(\d+)", told)
    if not found or len(seen.page.every("strict-transport-security")) > 1:
        return "hsts-header-invalid"
    if int(found[1]) < SIX_MONTHS:
        return "hsts-implemented-max-age-less-than-six-months"
    return "" if seen.public else "hsts-invalid-cert"


class _Scripts(HTMLParser):
    """The scripts and style sheets that a page loads, each with its integrity."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        source = told.get("src", "") if tag == "script" else ""
        if tag == "link" and told.get("rel") == "stylesheet":
            source = told.get("href", "")
        if source:
            self.found.append((source, told.get("integrity", "")))


def subresource_integrity(seen: Seen) -> str:
    if not seen.page.first("content-type").startswith("text/html"):
        return ""
    page = _Scripts()
    page.feed(seen.page.body.decode("utf-8", "replace"))
    outside = [one for one in page.found if one[0].startswith(("//", "http:", "https:"))]
    if any(not source.startswith("https:") for source, _ in outside):
        return "sri-not-implemented-and-external-scripts-not-loaded-securely"
    if any(not integrity for _, integrity in outside):
        return "sri-not-implemented-but-external-scripts-loaded-securely"
    return ""


def x_content_type_options(seen: Seen) -> str:
    told = seen.page.first("x-content-type-options").lower()
    return "" if told == "nosniff" else "x-content-type-options-not-implemented"


def x_frame_options(seen: Seen) -> str:
    if "frame-ancestors" in seen.page.first("content-security-policy"):
        return ""
    told = seen.page.first("x-frame-options").lower()
    return "" if told in ("deny", "sameorigin") else "x-frame-options-not-implemented"


def cross_origin_resource_policy(seen: Seen) -> str:
    told = seen.page.first("cross-origin-resource-policy").lower()
    return "" if told in ("same-origin", "same-site") else f"cross-origin-resource-policy: {told or 'none'}"


def content_type(seen: Seen) -> str:
    """Not the Observatory's, but what nosniff is worth nothing without."""
    told = seen.page.first("content-type")
    if not seen.page.body:
        return ""
    if not told:
        return "content-type-not-sent"
    return "content-type-without-charset" if told.startswith("text/") and "charset=" not in told else ""


BEST = "csp-implemented-with-no-unsafe-default-src-none"

RULES: Mapping[str, Callable[[Seen], str]] = {
    "content-security-policy": lambda seen: content_security_policy(seen).replace(BEST, ""),
    "content-security-policy: frames, base, forms": policy_of_frames,
    "cookies": cookies,
    "cross-origin-resource-sharing": cross_origin_resource_sharing,
    "redirection": redirection,
    "referrer-policy": referrer_policy,
    "strict-transport-security": strict_transport_security,
    "subresource-integrity": subresource_integrity,
    "x-content-type-options": x_content_type_options,
    "x-frame-options": x_frame_options,
    "cross-origin-resource-policy": cross_origin_resource_policy,
    "content-type": content_type,
}
"""Each rule says what is wrong; nothing where an answer is as good as the Observatory can tell."""


def findings(seen: Seen) -> dict[str, str]:
    """What is wrong with a page, by rule."""
    found = {name: rule(seen) for name, rule in RULES.items()}
    return {name: what for name, what in found.items() if what}


@dataclass
class Visitor:
    """Looks at the pages of one site.

    Attributes:
        ca: the path of the certificates that it is trusted by.
        headers: of every request, such as the cookie of who is signed in.
    """

    base: str
    ca: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def see(self, path: str, *, method: str = "GET", body: str = "", more: Mapping[str, str] = {}) -> Seen:
        """A page, and what else the rules ask of it."""
        own = {**self.headers, **more}

        def ask(**added: str) -> Answer:
            return get(self.base + path, self.ca, method=method, body=body, headers={**own, **added})

        return Seen(ask(), ask(Origin=FOREIGN), self._plain(path))

    def _plain(self, path: str) -> Answer | None:
        try:
            # Where https has a port of its own, so has plain http: 80.
            host = urlsplit(self.base).hostname or ""
            return get(f"http://{host}{path}")
        except OSError:
            return None
