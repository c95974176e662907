"""ARM over HTTPS: a token, calls with an api-version, and long-running operations followed to their end.

The rules of the operations: https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import requests

from support.azure_native.credentials import Credential, authorities
from support.azure_native.values import Object

ENDPOINT = "GRIDUP_TEST_ARM_ENDPOINT"
"""The variable with ARM's address; the real provider has its own list of clouds."""

CALL_SECONDS = 600.0
TIMES = 4
AT_ONCE = 64
LOOK_SECONDS = 0.05
WAIT_SECONDS = 0.1
"""Between two looks at an operation that says no `Retry-After`. The real provider waits ten."""

MAY_PASS = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that are worth asking again."""

ENDED = frozenset({"succeeded", "failed", "canceled"})


class ArmError(Exception):
    """ARM said no, in the words of the real provider."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f'Status={status} Code="{code}" Message="{message}"' if code else message)
        self.status = status
        self.code = code


class AcceptedError(Exception):
    """What it comes to was no success, but ARM had said yes at first: there is a thing, if half made."""


class Cancelled(Exception):
    """The engine gave up."""

    def __init__(self) -> None:
        super().__init__("context canceled")


@dataclass
class Arm:
    """ARM, for one subscription.

    Attributes:
        cancelled: set when nothing must be waited for any more.
    """

    endpoint: str
    credential: Credential
    cancelled: threading.Event = field(default_factory=threading.Event)
    _sessions: threading.local = field(default_factory=threading.local)
    _calls: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AT_ONCE))

    def get(self, id_: str, api_version: str) -> Object:
        """A thing that is there.

        Raises:
            ArmError: It is not (404), or it can't be read.
        """
        return _body(_checked(self._call("GET", self._url(id_, api_version))))

    def put(self, id_: str, api_version: str, body: Object, deadline: float) -> Object:
        """The thing as it is when the operation has ended.

        Raises:
            ArmError: It was refused.
            AcceptedError: It was not, and then it failed, or was not waited for.
        """
        url = self._url(id_, api_version)
        answer = _checked(self._call("PUT", url, body))
        try:
            return self._followed(answer, url, deadline)
        except (ArmError, Cancelled, requests.RequestException) as error:
            raise AcceptedError(str(error)) from error

    def delete(self, id_: str, api_version: str, deadline: float) -> None:
        """Does away with it; that it was gone already is as well."""
        answer = self._call("DELETE", self._url(id_, api_version))
        if answer.status_code == 404:
            return
        _checked(answer)
        if answer.status_code == 202:
            self._followed(answer, None, deadline)

    def _url(self, id_: str, api_version: str) -> str:
        return f"{self.endpoint.rstrip('/')}{id_}?api-version={api_version}"

    def _followed(self, answer: requests.Response, url: str | None, deadline: float) -> Object:
        """What an operation comes to. `url` is the thing's, which is then read."""
        if operation := answer.headers.get("Azure-AsyncOperation"):

            def state(body: Object) -> str:
                return body.get("status", "")

            self._until_ended(operation, state, answer, deadline)
            return self.get_url(url) if url else {}
        if location := answer.headers.get("Location"):
            while answer.status_code == 202:
                self._wait(answer, deadline)
                answer = _checked(self._call("GET", location))
            return _body(answer) or (self.get_url(url) if url else {})
        if url is None:
            return {}

        def provisioning(body: Object) -> str:
            return (body.get("properties") or {}).get("provisioningState") or "Succeeded"

        body = _body(answer)
        if provisioning(body).lower() == "succeeded":
            return body
        return self._until_ended(url, provisioning, answer, deadline)

    def _until_ended(
        self, url: str, state: Callable[[Object], str], answer: requests.Response, deadline: float
    ) -> Object:
        while True:
            self._wait(answer, deadline)
            answer = _checked(self._call("GET", url))
            body = _body(answer)
            now = state(body).lower()
            if now == "succeeded":
                return body
            if now in ENDED:
                raise _error(answer)

    def get_url(self, url: str) -> Object:
        return _body(_checked(self._call("GET", url)))

    def _wait(self, answer: requests.Response, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise ArmError(0, "", "operation timed out")
        self._pause(_after(answer))

    def _pause(self, seconds: float) -> None:
        if self.cancelled.wait(seconds):
            raise Cancelled

    def _call(self, method: str, url: str, body: Object | None = None) -> requests.Response:
        """One call, made again where that may help: a PUT says the whole, so twice is as once."""
        for left in reversed(range(TIMES)):
            if self.cancelled.is_set():
                raise Cancelled
            try:
                answer = self._sent(method, url, body)
            except requests.ConnectionError:
                if not left:
                    raise
                self._pause(WAIT_SECONDS)
                continue
            again = answer.status_code in MAY_PASS or (
                answer.status_code == 409 and _error(answer).code == "AnotherOperationInProgress"
            )
            if not again or not left:
                return answer
            self._pause(_after(answer))
        raise AssertionError("unreachable")

    def _sent(self, method: str, url: str, body: Object | None) -> requests.Response:
        """An answer; a call that is given up is no longer waited for."""
        call = self._calls.submit(
            lambda: self._session().request(
                method,
                url,
                json=body,
                headers={
                    "Authorization": f"Bearer {self.credential.token()}",
                    "Accept": "application/json",
                    "User-Agent": "pulumi-azure-native/3.29.0",
                },
                timeout=CALL_SECONDS,
                verify=authorities(),
                allow_redirects=False,
            )
        )
        while not wait([call], timeout=LOOK_SECONDS).done:
            if self.cancelled.is_set():
                raise Cancelled
        return call.result()

    def _session(self) -> requests.Session:
        """A thread's own, whose connection is kept."""
        if not hasattr(self._sessions, "kept"):
            self._sessions.kept = requests.Session()
        return self._sessions.kept


def _after(answer: requests.Response) -> float:
    """Seconds to wait before the next call."""
    return max(float(answer.headers.get("Retry-After") or WAIT_SECONDS), LOOK_SECONDS)


def _checked(answer: requests.Response) -> requests.Response:
    if answer.status_code >= 400:
        raise _error(answer)
    return answer


def _body(answer: requests.Response) -> Object:
    return answer.json() if answer.content else {}


def _error(answer: requests.Response) -> ArmError:
    """ARM's error, which is an object under `error`; else the text, as it is."""
    try:
        error = answer.json().get("error") or {}
    except ValueError:
        error = {}
    return ArmError(answer.status_code, error.get("code", ""), error.get("message", answer.text))
