"""A package index of a few small packages, on the loopback: real wheels by the simple API (PEP 503)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import pytest


@dataclass
class PackageIndex:
    """Who asks must come with the password, as an organisation's mirror has it.

    Attributes:
        folder: what it serves.
        port: where.
        asked: the packages that were asked for.
    """

    folder: Path
    port: int = 0
    asked: list[str] = field(default_factory=list)

    PASSWORD = "s3cret-of-the-index"

    @property
    def url(self) -> str:
        """With the password in it."""
        return f"http://ada:{self.PASSWORD}@127.0.0.1:{self.port}/simple"

    def add(
        self,
        name: str,
        version: str,
        *,
        tags: Sequence[str] = ("py3-none-any",),
        needs: Sequence[str] = (),
        python: str = "",
    ) -> dict[str, str]:
        """A version of a package, whose module tells it. Returns the hash of each wheel, by its tag.

        Args:
            needs: what it requires.
            python: which Pythons it is for.
        """
        place = self.folder / "simple" / name
        place.mkdir(parents=True, exist_ok=True)
        made = {}
        for tag in tags:
            content = _wheel(name, version, tag, needs, python)
            (place / f"{name}-{version}-{tag}.whl").write_bytes(content)
            made[tag] = hashlib.sha256(content).hexdigest()
        self._list(place)
        return made

    def add_source(self, name: str, version: str) -> None:
        """One that is there as source alone, which a build would have to run."""
        place = self.folder / "simple" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}-{version}.tar.gz").write_bytes(b"no archive")
        self._list(place)

    @staticmethod
    def _list(place: Path) -> None:
        files = sorted(path for path in place.iterdir() if path.suffix != ".html")
        hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        lines = (f'<a href="{quote(name)}#sha256={digest}">{name}</a>\n' for name, digest in hashes.items())
        (place / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(lines)}</body></html>")


def _wheel(name: str, version: str, tag: str, needs: Sequence[str], python: str) -> bytes:
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Python: {python}\n" if python else ""
    metadata += "".join(f"Requires-Dist: {need}\n" for need in needs)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: gridup-tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    rows = [f"{path},sha256={_digest(text)},{len(text)}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join((*rows, f"{info}/RECORD,,")) + "\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return buffer.getvalue()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[PackageIndex]:
    """Serve one until the block ends."""
    index = PackageIndex(folder)
    expected = "Basic " + base64.b64encode(f"ada:{index.PASSWORD}".encode()).decode()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="index"')
                self.end_headers()
                return
            index.asked.append(self.path.removeprefix("/simple/").partition("/")[0])
            super().do_GET()

        def log_message(self, *_words: object) -> None:
            pass

    (folder / "simple").mkdir(parents=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        index.port = server.server_address[1]
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    """One that uv asks, and no other."""
    with serving(tmp_path / "index") as index:
        for name in ("UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_FIND_LINKS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        # What another test has served at the same port is not asked of a cache.
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
        yield index
