"""As JupyterLab does: start a kernel, and run code by its websocket; then ask for that as others would."""

import json
import os
import sys
import uuid

import requests
import websocket

told = json.loads(sys.stdin.read())
base = told["jupyter"]
trusted = {"ca_certs": os.environ["SSL_CERT_FILE"]} if base.startswith("https:") else {}
browser = requests.Session()
# As a browser: the token in an address once, the cookie from then on.
browser.get(f"{base}/lab", params={"token": told["token"]}, timeout=120).raise_for_status()
xsrf = {"X-XSRFToken": browser.cookies["_xsrf"]}
cookies = "; ".join(f"{one.name}={one.value}" for one in browser.cookies)
started = browser.post(f"{base}/api/kernels", json={}, headers=xsrf, timeout=120)
started.raise_for_status()
kernel = f"{base}/api/kernels/{started.json()['id']}"


def connect(cookies: str, origin: str) -> websocket.WebSocket:
    where = f"ws{kernel.removeprefix('http')}/channels?session_id={uuid.uuid4().hex}"
    return websocket.create_connection(where, timeout=120, cookie=cookies, origin=origin, sslopt=trusted)


def refused(cookies: str, origin: str) -> int:
    try:
        connect(cookies, origin).close()
    except websocket.WebSocketBadStatusException as error:
        return error.status_code
    return 101


def run(code: str) -> str:
    """What it gives, as text."""
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
    asked = {"header": {**header, "session": uuid.uuid4().hex, "username": ""}, "parent_header": {}}
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
    connection = connect(cookies, base)
    connection.send(json.dumps({**asked, "metadata": {}, "content": content, "channel": "shell"}))
    while True:
        message = json.loads(connection.recv())
        if message["parent_header"].get("msg_id") != header["msg_id"]:
            continue
        if message["msg_type"] == "execute_result":
            connection.close()
            return message["content"]["data"]["text/plain"]
        # The two come by ways of their own.
        if message["msg_type"] == "execute_reply":
            assert message["content"]["status"] == "ok", message["content"]


try:
    seen = {
        "result": run("1+1"),
        "nobody": refused("", base),
        "another site": refused(cookies, "https://evil.example"),
    }
finally:
    browser.delete(kernel, headers=xsrf, timeout=60)
print(json.dumps(seen))
