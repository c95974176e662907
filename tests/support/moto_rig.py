"""An AWS of the tests' own: moto's server as a process; before it a proxy that can fail, wait, lose answers.

moto (https://docs.getmoto.org) keeps accounts in memory and speaks AWS's own protocols. It knows no image of
Debian's, so it is given some (`MOTO_AMIS_PATH`): two of each architecture, of which the newer must be taken,
among others that must not.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import boto3
import pytest
from botocore.config import Config

from gridup_infra.processes import wait_until
from gridup_infra.targets.aws import kinds, tags
from gridup_infra.targets.aws.placement import DEBIAN_OWNER
from support import aws_sso
from support.delayed_response import Held
from support.listening import Listening
from support.workers import free_port

START_SECONDS = 60.0

ACCOUNT = "123456789012"
"""moto's own."""

REGION = "eu-west-1"

CONSOLE_BYTES = 64 * 1024
"""The latest of what a machine printed, which EC2 keeps
(https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html)."""

NEWEST = {"x86_64": "ami-0d13a0000000000a2", "arm64": "ami-0d13b0000000000b2"}
"""By architecture, the image that a new machine must have."""

IMAGES = (
    (NEWEST["x86_64"], "debian-13-amd64-20250814-2204", DEBIAN_OWNER, "x86_64"),
    ("ami-0d13a0000000000a1", "debian-13-amd64-20250701-1999", DEBIAN_OWNER, "x86_64"),
    (NEWEST["arm64"], "debian-13-arm64-20250814-2204", DEBIAN_OWNER, "arm64"),
    ("ami-0d13b0000000000b1", "debian-13-arm64-20250701-1999", DEBIAN_OWNER, "arm64"),
    ("ami-0d12a0000000000a9", "debian-12-amd64-20251201-2100", DEBIAN_OWNER, "x86_64"),
    # Anybody may give an image of theirs such a name.
    ("ami-0bad00000000000a9", "debian-13-amd64-20991231-9999", "999999999999", "x86_64"),
)


SERVER = """\
import itertools, sys, threading
from support.workers import AWS_NETWORK, public_address
from moto.ec2.models import elastic_ip_addresses
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import main

turn, answer = threading.RLock(), DomainDispatcherApplication.__call__

def one_at_a_time(self, environ, start_response):
    with turn:
        return list(answer(self, environ, start_response))

DomainDispatcherApplication.__call__ = one_at_a_time
numbers = itertools.count()
elastic_ip_addresses.random_ip = lambda: public_address(AWS_NETWORK, next(numbers))
main(sys.argv[1:])
"""
"""moto gives out loopback addresses as public ones, where this machine's own services would answer.
And it takes one call at a time: of two at once, one may meet what the other changes, and fail with 500."""


def images() -> list[dict[str, Any]]:
    """As MOTO_AMIS_PATH takes them."""
    return [
        {
            "ami_id": id_,
            "name": name,
            "description": name,
            "owner_id": owner,
            "public": True,
            "virtualization_type": "hvm",
            "architecture": architecture,
            "state": "available",
            "platform": None,
            "image_type": "machine",
            "hypervisor": "xen",
            "root_device_name": "/dev/xvda",
            "root_device_type": "ebs",
            "sriov": "simple",
            "creation_date": f"{date[:4]}-{date[4:6]}-{date[6:]}T22:04:00.000Z",
        }
        for id_, name, owner, architecture in IMAGES
        for date in [name.split("-")[3]]
    ]


@dataclass(frozen=True)
class Call:
    """One call that came by.

    Attributes:
        began, ended: on `time.monotonic`'s clock.
        status: of the answer; 0 when it got none.
    """

    action: str
    region: str
    params: Mapping[str, str]
    began: float
    ended: float
    status: int


@dataclass
class Fault:
    """An error that the proxy answers in moto's place."""

    action: str
    code: str
    message: str = "It was made to fail."
    count: int = 1_000_000
    status: int = 400
    when: Callable[[Mapping[str, str]], bool] = lambda _params: True
    met: int = 0


@dataclass
class Proxy:
    """What the proxy does to calls, and those that came by.

    Attributes:
        delay: seconds that each call takes longer.
    """

    upstream: int
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    holds: list[Held] = field(default_factory=list)
    delay: float = 0.0
    consoles: dict[str, bytes] = field(default_factory=dict)
    """What machines that boot have printed, by their id: moto has one text for all."""
    credits: dict[str, str] = field(default_factory=dict)
    """Machines' modes of CPU credits, by their id: moto knows none."""
    portal: aws_sso.Portal = field(default_factory=aws_sso.Portal)
    """Where profiles of SSO have their keys from: moto has none."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    after: Callable[[str], None] = lambda _action: None
    """Called once moto has done an action, before anybody is told."""
    judge: Callable[[str, Mapping[str, str]], Fault | None] = lambda _action, _params: None
    """Asked before moto is: the error that a call gets in its place, if any."""

    def clear(self) -> None:
        for hold in self.holds:
            hold.drop()
        self.calls.clear()
        self.faults.clear()
        self.holds.clear()
        self.consoles.clear()
        self.credits.clear()
        self.portal = aws_sso.Portal()
        self.delay = 0.0

    def fail(self, action: str, code: str, **how: Any) -> Fault:
        """Have the next calls of an action fail: `count` of them, or all."""
        fault = Fault(action, code, **how)
        self.faults.append(fault)
        return fault

    def hold(self, action: str) -> Held:
        held = Held(action)
        self.holds.append(held)
        return held

    def actions(self) -> Counter[str]:
        """How often each action was called."""
        return Counter(call.action for call in list(self.calls))

    def fault_for(self, action: str, params: Mapping[str, str]) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.action == action and fault.met < fault.count and fault.when(params):
                    fault.met += 1
                    return fault
        return None

    def hold_for(self, action: str) -> Held | None:
        with self.lock:
            for held in self.holds:
                if held.action == action and not held.accepted.is_set():
                    # Taken: a second call of the action goes through.
                    held.accepted.set()
                    return held
        return None


OUR_OWN = ("content-length", "connection", "transfer-encoding", "date", "server")
"""Headers of an answer that the proxy sets itself."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        proxy, began = self.proxy, time.monotonic()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        params = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        target = self.headers.get("X-Amz-Target", "")
        action = params.get("Action") or target.rpartition(".")[2] or self.path
        scope = re.search(r"Credential=[^/]*/\d+/([^/]+)/([^/]+)/", self.headers.get("Authorization", ""))
        region, service = (scope[1], scope[2]) if scope else ("", "")
        time.sleep(proxy.delay)
        fault = proxy.fault_for(action, params) or proxy.judge(action, params)
        if fault:
            status, headers, answer = fault.status, [("Content-Type", "text/xml")], _error(fault, service)
        elif self.path.startswith(aws_sso.PATH):
            status, headers, answer = proxy.portal.answer(self.path, self.headers)
        else:
            status, headers, answer = self._upstream(body)
            console = proxy.consoles.get(params.get("InstanceId", ""))
            if action == "GetConsoleOutput" and status == 200 and console is not None:
                text = base64.b64encode(console[-CONSOLE_BYTES:])
                answer = re.sub(rb"(?s)(<output>).*(</output>)", rb"\g<1>" + text + rb"\g<2>", answer)
            status, answer = _with_credits(proxy, action, params, status, answer)
            proxy.after(action)
            if held := proxy.hold_for(action):
                held.over.wait(600)
                status = 0
        proxy.calls.append(Call(action, region, params, began, time.monotonic(), status))
        if status == 0:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in OUR_OWN:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    do_GET = do_POST

    def _upstream(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


def _with_credits(
    proxy: Proxy, action: str, params: Mapping[str, str], status: int, answer: bytes
) -> tuple[int, bytes]:
    """An answer of moto's with the modes of CPU credits: a t3 or t4g that was told none has no limit.

    The source is EC2's User Guide, "Unlimited mode concepts".
    """
    if action == "RunInstances" and status == 200:
        made = re.search(rb"<instanceId>(i-[0-9a-f]+)<", answer)
        if made and (mode := params.get("CreditSpecification.CpuCredits")):
            proxy.credits.setdefault(made[1].decode(), mode)
    if action == "DescribeInstanceCreditSpecifications" and status == 200:
        mode = proxy.credits.get(params["InstanceId.1"], "unlimited")
        answer = re.sub(rb"(<cpuCredits>)[^<]*", rb"\g<1>" + mode.encode(), answer)
    if action == "ModifyInstanceCreditSpecification" and status != 403:
        place = "InstanceCreditSpecification.1"
        proxy.credits[params[f"{place}.InstanceId"]] = params[f"{place}.CpuCredits"]
        return 200, f"<{action}Response><requestId>0-0</requestId></{action}Response>".encode()
    return status, answer


def _error(fault: Fault, service: str) -> bytes:
    """An error in the service's own form."""
    told = f"<Error><Code>{escape(fault.code)}</Code><Message>{escape(fault.message)}</Message></Error>"
    if service == "ec2":
        return f"<Response><Errors>{told}</Errors><RequestID>0-0</RequestID></Response>".encode()
    return f"<ErrorResponse>{told}<RequestId>0-0</RequestId></ErrorResponse>".encode()


class Moto:
    """moto's server and the proxy before it.

    Attributes:
        url: of the proxy, for AWS_ENDPOINT_URL.
        proxy: what it does.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._environment = dict(environment or {})
        self._clients: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> Moto:
        amis = self._folder / "amis.json"
        amis.write_text(json.dumps(images()))
        port = free_port()
        self._log = (self._folder / "moto.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, "-H", "127.0.0.1", "-p", str(port)],
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
                "MOTO_AMIS_PATH": str(amis),
                **self._environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self.direct = f"http://127.0.0.1:{port}"
        if not wait_until(lambda: self._answers(port), timeout=START_SECONDS):
            self._process.kill()
            pytest.fail(f"moto's server did not start: {(self._folder / 'moto.log').read_text()[-2000:]}")
        self.proxy = Proxy(port)
        handler = type("Handler", (_Handler,), {"proxy": self.proxy})
        self._listening = Listening(handler)
        self.url = self._listening.url
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.clear()
        self._listening.close()
        self._process.terminate()
        self._process.wait(timeout=120)
        self._log.close()

    def _answers(self, port: int) -> bool:
        assert self._process.poll() is None, (self._folder / "moto.log").read_text()[-2000:]
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        return False

    def reset(self) -> None:
        """An account with nothing in it, and a proxy that only passes on."""
        self.proxy.clear()
        self.post("/moto-api/reset")

    def post(self, path: str, body: str = "") -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream, timeout=60)
        try:
            connection.request("POST", path, body)
            assert connection.getresponse().status == 200, path
        finally:
            connection.close()

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process a customer of this AWS, and of no other."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "AKIAGRIDUPTESTS00000",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self._folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self._folder / "no-credentials"),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def client(self, service: str = "ec2", region: str = REGION) -> Any:
        """A client that goes past the proxy."""
        if (service, region) not in self._clients:
            self._clients[service, region] = self._client(service, region)
        return self._clients[service, region]

    def _client(self, service: str, region: str) -> Any:
        return boto3.session.Session().client(
            service,
            region_name=region,
            endpoint_url=self.direct,
            aws_access_key_id="AKIAGRIDUPTESTS00000",
            aws_secret_access_key="not-a-secret",
            config=Config(proxies={}, retries={"total_max_attempts": 1}),
        )

    def things(self, region: str = REGION) -> Things:
        return Things(self.client(region=region))


KINDS = (
    kinds.VPC,
    kinds.SUBNET,
    kinds.GATEWAY,
    kinds.ROUTES,
    kinds.GROUP,
    kinds.KEY,
    kinds.ADDRESS,
    kinds.VOLUME,
    kinds.INSTANCE,
    kinds.INTERFACE,
)


class Things:
    """What there is in a region, seen past Gridup."""

    def __init__(self, ec2: Any) -> None:
        self.ec2 = ec2

    def all(self, kind: kinds.ResourceKind) -> list[dict[str, Any]]:
        rows = getattr(self.ec2, kind.operation)().get(kind.key) or []
        if kind is kinds.INSTANCE:
            rows = list(itertools.chain.from_iterable(row["Instances"] for row in rows))
        return [row for row in rows if kinds.state_of(row) not in kind.dead]

    def snapshot(self) -> dict[str, list[str]]:
        """All there is, ours or not, by kind."""
        return {kind.title: sorted(row[kind.id] for row in self.all(kind)) for kind in KINDS}

    def marked(self, stack_id: str = "") -> list[tuple[str, dict[str, Any]]]:
        """All that bears a stack's id (of all stacks), as (kind, thing)."""
        return [
            (kind.title, row)
            for kind in KINDS
            for row in self.all(kind)
            if (tags.of(row).get(tags.STACK_ID) == stack_id if stack_id else tags.STACK_ID in tags.of(row))
        ]

    def count(self, stack_id: str = "") -> Counter[str]:
        """How many of each kind bear it; root disks and interfaces, which are the instance's own, apart."""
        return Counter(
            title
            for title, row in self.marked(stack_id)
            if title != kinds.INTERFACE.title
            and not (title == kinds.VOLUME.title and ":Instance::" in tags.of(row).get(tags.URN, ""))
        )

    def one(self, kind: kinds.ResourceKind, stack_id: str = "") -> dict[str, Any]:
        """The only thing of a kind that bears it."""
        found = [
            row
            for title, row in self.marked(stack_id)
            if title == kind.title and ":Instance::" not in tags.of(row).get(tags.URN, "")
        ]
        if kind is kinds.INSTANCE:
            found = [row for title, row in self.marked(stack_id) if title == kind.title]
        assert len(found) == 1, found
        return found[0]

    def user_data(self, instance: str) -> bytes:
        answer = self.ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
        return base64.b64decode(answer["UserData"]["Value"])


ONE_OF_EACH = Counter(
    {
        kind.title: 1
        for kind in (
            kinds.VPC,
            kinds.SUBNET,
            kinds.GATEWAY,
            kinds.ROUTES,
            kinds.GROUP,
            kinds.KEY,
            kinds.ADDRESS,
            kinds.VOLUME,
            kinds.INSTANCE,
        )
    }
)
"""What a node with a network of its own consists of."""


@contextlib.contextmanager
def running(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Moto]:
    """moto's server, as long as the block lasts."""
    with Moto(folder, environment) as moto:
        yield moto
