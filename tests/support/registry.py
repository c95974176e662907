"""A registry of images (OCI distribution, read only) on a machine, whose Docker trusts its own loopback.

It serves what `docker save` writes, which has been a layout of OCI since Docker 25.
"""

from __future__ import annotations

import json
from pathlib import Path

from support.vm_rig import Machine

FOLDER = "/srv/registry"
PORT = 5000

PROGRAM = f"""\
import http.server
from pathlib import Path

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = self.path.rpartition("sha256:")[2]
        file = Path("{FOLDER}/blobs/sha256") / name
        found = self.path == "/v2/" or file.is_file()
        self.send_response(200 if found else 404)
        kind = "vnd.oci.image.manifest.v1+json" if "/manifests/" in self.path else "octet-stream"
        self.send_header("Content-Type", "application/" + kind)
        self.send_header("Docker-Content-Digest", "sha256:" + name)
        self.send_header("Content-Length", str(file.stat().st_size if file.is_file() else 0))
        self.end_headers()
        if self.command == "GET" and file.is_file():
            with file.open("rb") as opened:
                while part := opened.read(1 << 20):
                    self.wfile.write(part)

    do_HEAD = do_GET

http.server.ThreadingHTTPServer(("127.0.0.1", {PORT}), Handler).serve_forever()
"""


def publish(machine: Machine, image: str) -> str:
    """Have one of the machine's images published there. Returns its reference, with the digest."""
    machine.run("mkdir", "-p", FOLDER)
    machine.run("sh", "-c", f"docker save {image} | tar -C {FOLDER} -x", timeout=300)
    Path(machine.root / FOLDER.lstrip("/") / "serve.py").write_text(PROGRAM)
    machine.run("systemd-run", "--unit=registry", "python3", f"{FOLDER}/serve.py")
    (manifest,) = json.loads(machine.read(f"{FOLDER}/index.json"))["manifests"]
    return f"127.0.0.1:{PORT}/node@{manifest['digest']}"
