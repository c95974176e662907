"""Downloads the official release of the engine, compares it with the release's checksums and unpacks it."""

from __future__ import annotations

import hashlib
import os
import platform
import queue
import re
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError as Urllib3Error

from gridup.setup.binary import ENGINE_VERSION, Engine, SourceError, check_room, publish, staging
from gridup_infra import uv
from gridup_infra.errors import SetupError
from gridup_infra.loopback import is_loopback

BASE_VARIABLE = "GRIDUP_ENGINE_URL"
"""Variable with the URL of a folder that has a release's archive and checksums: a mirror, for networks where
the official addresses can't be reached."""

OFFICIAL = (
    "https://get.pulumi.com/releases/sdk",
    f"https://github.com/pulumi/pulumi/releases/download/v{ENGINE_VERSION}",
)

NEEDED_BYTES = 1_000_000_000
"""Disk space for the archive and its content, which exist at the same time during unpacking."""

CHECKSUM_LIMIT = 1_000_000
CHUNK = 1 << 16


@dataclass(frozen=True)
class Limits:
    """Limits of a download; times are in seconds.

    Attributes:
        connect: time to open a connection.
        first: time to get the checksums, including name resolution. A network that drops packets fails here.
        stall: time in which at least `stall_bytes` must arrive.
        stall_bytes: see `stall`.
        total: time to get the archive (about 150 MB).
        attempts: how often to try the archive. After a broken connection, the next attempt resumes.
    """

    connect: float = 5
    first: float = 15
    stall: float = 30
    stall_bytes: int = 500_000
    total: float = 1200
    attempts: int = 4


LIMITS = Limits()


class _Broken(Exception):
    """The connection ended too early. The download can resume."""


def get(target: Path, progress: Callable[[str], None], limits: Limits = LIMITS) -> Engine:
    """Download the release's engine into `target`.

    Raises:
        SourceError: there is no release for this machine, or no address provided it.
        SetupError: there is not enough disk space, or the user's mirror has a plain http URL.
        OSError: a file can't be written.
    """
    archive = f"pulumi-v{ENGINE_VERSION}-{_platform()}.tar.gz"
    reasons = []
    for base in bases():
        try:
            digest = _published_digest(f"{base}/pulumi-{ENGINE_VERSION}-checksums.txt", archive, limits)
            check_room(target.parent, NEEDED_BYTES, "The Pulumi engine")
            with staging(target.parent) as folder:
                _fetch(f"{base}/{archive}", folder / archive, digest, progress, limits)
                progress("unpacking the Pulumi engine")
                _unpack(folder / archive, folder / "bin")
                (folder / archive).unlink()
                return publish(folder, target, "download")
        except SourceError as error:
            reasons.append(f"{_host(base)}: {error.message}")
    raise SourceError(f"no download ({'; '.join(reasons)})")


def bases() -> tuple[str, ...]:
    """Return the base URLs of releases: only the user's mirror if one is set, else the official ones.

    Raises:
        SetupError: the mirror has a plain http URL that is not on this machine.
    """
    given = os.environ.get(BASE_VARIABLE, "").strip().rstrip("/")
    if given.lower().startswith("http://") and not _is_near(given):
        raise SetupError(
            f"{BASE_VARIABLE} names {_host(given)}: the engine is not downloaded over plain http.",
            "Give an address with https://; http:// is for this machine alone.",
        )
    return (given,) if given else OFFICIAL


def _is_near(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _platform() -> str:
    system = {"linux": "linux", "darwin": "darwin"}.get(sys.platform)
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine().lower()
    )
    if system is None or machine is None:
        raise SourceError(f"there is no release for {sys.platform} on {platform.machine()}")
    return f"{system}-{machine}"


class _NearOnly(HTTPAdapter):
    """Allows plain http to this machine only. On a network, an attacker could replace the engine.

    Redirects to plain http also use this adapter.
    """

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        if not _is_near(request.url or ""):
            raise SourceError(f"it leads on to {_host(request.url or '')} over plain http")
        # Never use a proxy: "localhost" would then be the proxy's machine.
        return super().send(request, *args, **{**kwargs, "proxies": {}})


def _session() -> requests.Session:
    session = requests.Session()
    session.mount("http://", _NearOnly())
    # requests reads REQUESTS_CA_BUNDLE (it takes precedence), but not SSL_CERT_FILE, which all else reads.
    session.verify = os.environ.get("SSL_CERT_FILE") or uv.store() or True
    return session


def _published_digest(url: str, archive: str, limits: Limits) -> str:
    text = _within(limits.first, lambda: _small(url, limits))
    found = re.search(rf"^([0-9a-fA-F]{{64}})[ \t]+\*?{re.escape(archive)}\s*$", text, re.MULTILINE)
    if not found:
        raise SourceError(f"its checksums do not name {archive}")
    return found[1].lower()


def _small(url: str, limits: Limits) -> str:
    try:
        with (
            _session() as session,
            session.get(url, timeout=(limits.connect, limits.first), stream=True) as answer,
        ):
            if answer.status_code != 200:
                raise SourceError(f"HTTP {answer.status_code}")
            body = b""
            for chunk in answer.iter_content(CHUNK):
                body += chunk
                if len(body) > CHECKSUM_LIMIT:
                    raise SourceError("what it calls checksums is too long")
            return body.decode(errors="replace")
    except (requests.RequestException, Urllib3Error, OSError, ValueError) as error:
        raise SourceError(_reason(error)) from None


def _within(seconds: float, work: Callable[[], str]) -> str:
    """Return the result of `work`, with a time limit: the limits of requests don't cover name resolution.

    Raises:
        SourceError: `work` raises it, or does not return in time.
    """
    results: queue.Queue[str | SourceError] = queue.Queue()

    def target() -> None:
        try:
            results.put(work())
        except SourceError as error:
            results.put(error)

    threading.Thread(target=target, daemon=True).start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        raise SourceError(f"no answer within {seconds:g} s") from None
    if isinstance(result, SourceError):
        raise result
    return result


def _fetch(url: str, path: Path, digest: str, progress: Callable[[str], None], limits: Limits) -> None:
    """Download to `path` and verify the checksum. After a broken connection, resume where it broke."""
    progress(f"downloading the Pulumi engine {ENGINE_VERSION} from {_host(url)}")
    end = time.monotonic() + limits.total
    with path.open("w+b") as file:
        for attempt in range(1, limits.attempts + 1):
            try:
                _append(url, file, end, progress, limits)
                break
            except _Broken as error:
                if attempt == limits.attempts:
                    raise SourceError(f"the connection broke {attempt} times ({error})") from None
                progress(f"the connection broke ({error}); going on")
                time.sleep(min(attempt * 0.5, limits.stall))
        file.seek(0)
        actual = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            actual.update(block)
    if actual.hexdigest() != digest:
        raise SourceError("what came does not match the release's checksum")


def _append(url: str, file: BinaryIO, end: float, progress: Callable[[str], None], limits: Limits) -> None:
    have = file.seek(0, os.SEEK_END)
    # Ask for the archive as it is: a proxy must not compress it again.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with (
            _session() as session,
            session.get(url, timeout=(limits.connect, limits.stall), stream=True, headers=headers) as answer,
        ):
            if answer.status_code not in (200, 206):
                raise SourceError(f"HTTP {answer.status_code} for the archive")
            if answer.status_code == 200:
                file.seek(0)
                file.truncate()
                have = 0
            size = have + int(answer.headers.get("Content-Length") or 0)
            _copy(answer, file, size, end, progress, limits)
            if file.tell() < size:
                raise _Broken(f"at {file.tell() / 1e6:.0f} of {size / 1e6:.0f} MB")
    except (requests.RequestException, Urllib3Error) as error:
        raise _Broken(_reason(error)) from None


def _copy(
    answer: requests.Response,
    file: BinaryIO,
    size: int,
    end: float,
    progress: Callable[[str], None],
    limits: Limits,
) -> None:
    # `read1` returns the available bytes, so a slow connection is noticed. `read` waits for a full chunk.
    read = getattr(answer.raw, "read1", answer.raw.read)
    window, got, told = time.monotonic() + limits.stall, 0, time.monotonic()
    while chunk := read(CHUNK):
        file.write(chunk)
        got += len(chunk)
        now = time.monotonic()
        if now > end:
            raise SourceError(f"not done within {limits.total:g} s")
        if now > window:
            if got < limits.stall_bytes:
                raise SourceError("too slow")
            window, got = now + limits.stall, 0
        if now - told > 5:
            told = now
            progress(f"downloading the Pulumi engine: {file.tell() / 1e6:.0f} of {size / 1e6:.0f} MB")


def _unpack(archive: Path, folder: Path) -> None:
    """Extract only the programs: regular files `pulumi/pulumi…`. Ignore everything else in the archive."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                parts = member.name.removeprefix("./").split("/")
                if not member.isfile() or len(parts) != 2 or not re.fullmatch(r"pulumi[\w.-]*", parts[1]):
                    continue
                source = tar.extractfile(member)
                if source is None:
                    continue
                with source, (folder / parts[1]).open("wb") as program:
                    while block := source.read(1 << 20):
                        program.write(block)
                    os.fchmod(program.fileno(), 0o755)
    except (tarfile.TarError, EOFError) as error:
        raise SourceError(f"the archive is damaged ({error})") from None


def _host(url: str) -> str:
    """Return the host (and port) of a URL, without a user name and password."""
    return re.sub(r"^https?://", "", url, flags=re.IGNORECASE).split("/", 1)[0].rpartition("@")[2]


def _reason(error: Exception) -> str:
    """Describe a network error in a few words."""
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted (put a private CA in the system's store, or in SSL_CERT_FILE)"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refused"
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ConnectionError):
        text = str(error)
        if "resolve" in text or "getaddrinfo" in text or "Name or service" in text:
            return "its name can't be looked up"
        return "connection refused" if "refused" in text else "no connection"
    if isinstance(error, Urllib3Error):
        # A bare urllib3 error occurs only while the answer is read; requests wraps all others.
        return "cut off"
    return type(error).__name__
