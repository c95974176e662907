"""Client of Azure Resource Manager (ARM): plain REST with a token from azure-identity, deadlines, and errors
that users can act on.

It does only what Pulumi's provider does not: inspect, start and stop VMs, read the boot log, and delete
resources that are in no state. Functions import azure-identity when they use it.
"""

from __future__ import annotations

import configparser
import functools
import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gridup_infra import __version__, clock
from gridup_infra.errors import CredentialsError, DeadlineError, GridupError, PreflightError, ResourceError

if TYPE_CHECKING:
    import requests

ENDPOINT = "AZURE_RESOURCE_MANAGER_URL"
"""Environment variable with the URL of ARM in a non-public cloud: Azure Government, China, Azure Stack."""

PUBLIC = "https://management.azure.com"

ENVIRONMENTS = {
    "management.azure.com": "public",
    "management.usgovcloudapi.net": "usgovernment",
    "management.chinacloudapi.cn": "china",
}
"""The name in Pulumi's provider of the cloud with that ARM host."""

SUBSCRIPTIONS, RESOURCES, NETWORK, COMPUTE, DISKS, SKUS = (
    "2022-12-01",
    "2021-04-01",
    "2024-05-01",
    "2024-11-01",
    "2024-03-02",
    "2021-07-01",
)
"""API versions; where Pulumi's provider makes the same requests, its versions."""

CONNECT_SECONDS = 10
READ_SECONDS = 60

ATTEMPTS = 6
"""How often to try a call that is throttled, fails in Azure (5xx) or gets no response. All calls here may be
repeated: they only read, or they end in the same state."""

PAUSE_MAX = 20.0
POLL_SECONDS = 2.0

OPERATION_SECONDS = 1200.0
"""How long an operation may take. Deleting a group with a VM takes about five minutes."""

HELD_SECONDS = 240.0
"""How long to retry the delete of a resource that another one still uses. After a VM failed, its interface
stays reserved for 180 s
(https://learn.microsoft.com/troubleshoot/azure/virtual-network/nic-reserved-for-another-vm)."""

HELD = frozenset(
    {
        "AnotherOperationInProgress",
        "InUseNetworkSecurityGroupCannotBeDeleted",
        "InUseSubnetCannotBeDeleted",
        "NicInUse",
        "NicReservedForAnotherVm",
        "OperationPreempted",
        "PublicIPAddressCannotBeDeleted",
        "RetryableError",
        "RetryableErrorDueToAnotherOperation",
    }
)

LOG_IN = (
    "Log in to Azure (`az login`), or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET "
    "of a service principal."
)
A_SIZE = "Is that --size one for a Debian of x64 in that --region? The preflight tells (no --no-preflight)."
A_REGION = "Choose another --region; `az account list-locations` names them."
NO_SDK = "`gridup deploy --cloud azure` installs it at its first use."

_UNREACHED = re.compile(
    r"(Failed to (resolve|establish a new connection)|Max retries exceeded|Connection (aborted|refused)|"
    r"Read timed out|Unable to connect to proxy|Network is unreachable|CERTIFICATE_VERIFY_FAILED)[^()]*"
)
"""Matches errors of azure-identity when it can't reach Azure's login, so nobody checked the credentials."""

_DENIED_ACTION = re.compile(r"perform action(?:\(s\))? '([^']+)'")


class ArmError(ResourceError):
    """A request that ARM refused.

    Attributes:
        code: ARM's error code, such as `SkuNotAvailable`.
    """

    code: str = ""


@dataclass(frozen=True)
class Arm:
    """ARM client for one subscription.

    Attributes:
        endpoint: the URL of ARM, such as `https://management.azure.com`.
    """

    subscription: str
    endpoint: str

    @property
    def root(self) -> str:
        return f"/subscriptions/{self.subscription}"

    def group(self, name: str) -> str:
        return f"{self.root}/resourceGroups/{name}"

    def get(self, path: str, api: str, **query: str) -> dict[str, Any] | None:
        """Return the resource at a path; None if there is none."""
        try:
            return self._call("GET", path, api, query).body
        except ArmError as error:
            if is_missing(error):
                return None
            raise

    def every(self, path: str, api: str, **query: str) -> list[dict[str, Any]]:
        """Return all items of a collection, from all pages; none if the collection does not exist."""
        rows: list[dict[str, Any]] = []
        page = self.get(path, api, **query)
        while page is not None:
            rows += page.get("value") or []
            after = page.get("nextLink")
            page = self._call("GET", after, "", {}).body if after else None
        return rows

    def patch(self, path: str, api: str, body: Mapping[str, Any]) -> None:
        """Change a resource, and wait until Azure is done."""
        self._wait(self._call("PATCH", path, api, {}, body))

    def post(self, path: str, api: str) -> dict[str, Any]:
        """Start an action, and wait until Azure is done."""
        answer = self._call("POST", path, api, {})
        self._wait(answer)
        return answer.body or {}

    def delete(self, path: str, api: str) -> None:
        """Delete a resource, and wait until it is gone. Succeeds if it does not exist.

        Another resource may still use it but be about to go: retries for `HELD_SECONDS`.
        """
        end = time.monotonic() + HELD_SECONDS
        while True:
            try:
                self._wait(self._call("DELETE", path, api, {}))
            except ArmError as error:
                if is_missing(error):
                    return
                if error.code not in HELD or time.monotonic() > end:
                    raise
                time.sleep(POLL_SECONDS)
            else:
                return

    def _wait(self, answer: _Answer) -> None:
        end = time.monotonic() + OPERATION_SECONDS
        headers = answer.headers
        status_url, location = headers.get("Azure-AsyncOperation"), headers.get("Location")
        if answer.status not in (200, 201, 202) or not (status_url or location):
            return
        while time.monotonic() < end:
            time.sleep(_pause_of(headers))
            if status_url:
                told = self._call("GET", status_url, "", {})
                state = str((told.body or {}).get("status") or "")
                if state in ("Failed", "Canceled"):
                    raise map_error(200, told.body or {}, self.subscription)
                if state == "Succeeded":
                    return
            else:
                told = self._call("GET", location or "", "", {})
                if told.status != 202:
                    return
                location = told.headers.get("Location") or location
            headers = told.headers
        raise DeadlineError(
            f"Azure has not ended an operation within {OPERATION_SECONDS / 60:g} minutes.",
            "Run the same command again.",
        )

    def _call(
        self,
        method: str,
        path: str,
        api: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
    ) -> _Answer:
        import requests

        url = path if path.startswith("https://") else f"{self.endpoint}{path}"
        if urlsplit(url).netloc != urlsplit(self.endpoint).netloc:
            raise ResourceError(f"ARM sends us to another host: {urlsplit(url).netloc}.")
        params = {**query, **({"api-version": api} if api else {})}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = _session().request(
                    method,
                    url,
                    params=params,
                    json=body,
                    headers={"Authorization": f"Bearer {token(self.endpoint)}"},
                    timeout=(CONNECT_SECONDS, READ_SECONDS),
                    verify=verify(),
                )
            except requests.RequestException as error:
                if attempt == ATTEMPTS:
                    raise ResourceError(
                        f"Azure ({urlsplit(url).netloc}) can't be reached: {_reason(error)}.",
                        "Does this machine reach the internet (HTTPS_PROXY, REQUESTS_CA_BUNDLE)?",
                    ) from None
                pause(attempt)
                continue
            if attempt == 1 and answer.status_code == 401:
                # A token can be revoked before it expires: try once with a new one.
                _credential.cache_clear()
                continue
            if attempt < ATTEMPTS and (answer.status_code == 429 or answer.status_code >= 500):
                told = answer.headers.get("Retry-After", "")
                pause(attempt, float(told) if told.isdecimal() else 0.0)
                continue
            return _read(answer, self.subscription)
        raise AssertionError("unreachable")


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: dict[str, Any] | None


def _read(answer: requests.Response, subscription: str) -> _Answer:
    try:
        body = answer.json() if answer.content else None
    except ValueError:
        body = None
    if answer.status_code >= 400:
        raise map_error(answer.status_code, body if isinstance(body, dict) else {}, subscription)
    return _Answer(answer.status_code, answer.headers, body if isinstance(body, dict) else None)


def pause(attempt: int, told: float = 0.0) -> None:
    """Sleep before the next attempt: `told` seconds if given, else longer each time, with jitter."""
    time.sleep(min(told, 60.0) or min(PAUSE_MAX, 2.0 ** (attempt - 1)) * (0.5 + random.random() / 2))  # noqa: S311


def _pause_of(headers: Mapping[str, str]) -> float:
    told = headers.get("Retry-After", "")
    return min(float(told), PAUSE_MAX) if told.isdecimal() else POLL_SECONDS


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    found = re.search(r"\((?:Caused by )?(\w+Error)\(.*?[:,] ?'?([^'\"]+)['\")]", text)
    return found[2].strip() if found else text[:200]


def is_missing(error: Exception) -> bool:
    """Return whether ARM reports that the resource does not exist."""
    return isinstance(error, ArmError) and error.code in (
        "ResourceNotFound",
        "ResourceGroupNotFound",
        "NotFound",
        "ParentResourceNotFound",
    )


def endpoint(environment: Mapping[str, str] = os.environ) -> str:
    """Return the URL of ARM.

    Raises:
        PreflightError: the environment variable is not an https URL.
    """
    url = environment.get(ENDPOINT, "").rstrip("/") or PUBLIC
    if urlsplit(url).scheme != "https" or not urlsplit(url).hostname:
        raise PreflightError(f"{ENDPOINT} is {url!r}; it must be an https address.", f"For example {PUBLIC}.")
    return url


def endpoint_host(environment: Mapping[str, str] = os.environ) -> str:
    """Return the host of ARM. Never raises: for callers that only choose a name by the host."""
    return urlsplit(environment.get(ENDPOINT, "") or PUBLIC).hostname or ""


def metadata_host(environment: Mapping[str, str] = os.environ) -> str:
    """Return the host that Pulumi's provider asks for the endpoints of a cloud that it does not know.

    This is ARM itself, with the port if the URL has one.
    """
    return urlsplit(environment.get(ENDPOINT, "") or PUBLIC).netloc.rpartition("@")[2]


def verify() -> str | bool:
    """Return the CA file from the user's environment; True for the default of requests."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or True


_lock = threading.Lock()


@functools.lru_cache(maxsize=1)
def _session() -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter

    made = requests.Session()
    made.mount("https://", HTTPAdapter(pool_maxsize=16))
    made.headers["User-Agent"] = f"gridup/{__version__}"
    return made


def uses_arm_variables(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a service principal is set in Terraform's and Pulumi's variables, and not in Azure's."""
    names = ("CLIENT_ID", "CLIENT_SECRET", "TENANT_ID")
    return all(environment.get(f"ARM_{name}") for name in names) and not environment.get("AZURE_CLIENT_ID")


@functools.lru_cache(maxsize=4)
def _credential(_environment: tuple[tuple[str, str], ...]) -> Any:
    from azure.identity import ClientSecretCredential, DefaultAzureCredential

    # azure-identity logs a warning per missing credential, and Python prints log records without a handler.
    logging.getLogger("azure").addHandler(logging.NullHandler())
    how: dict[str, Any] = {"connection_verify": verify()}
    if endpoint_host() not in ENVIRONMENTS:
        # Microsoft's list of authorities contains only its own clouds.
        how["disable_instance_discovery"] = True
    if uses_arm_variables():
        names = ("ARM_TENANT_ID", "ARM_CLIENT_ID", "ARM_CLIENT_SECRET")
        return ClientSecretCredential(*(os.environ[name] for name in names), **how)
    return DefaultAzureCredential(**how)


def _environment() -> tuple[tuple[str, str], ...]:
    own = ("AZURE_", "ARM_", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
    return tuple(sorted(item for item in os.environ.items() if item[0].startswith(own)))


def token(endpoint: str) -> str:
    """Return a token for ARM; azure-identity caches it until shortly before it expires.

    Raises:
        CredentialsError: there are no credentials, or Azure refuses them.
        ResourceError: Azure's login can't be reached.
        PreflightError: azure-identity is not installed.
    """
    try:
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.identity import CredentialUnavailableError
    except ImportError:
        raise PreflightError("Python's Azure library (azure-identity) is not installed.", NO_SDK) from None
    try:
        with _lock:
            return str(_credential(_environment()).get_token(f"{endpoint}/.default").token)
    except CredentialUnavailableError:
        raise CredentialsError("There are no Azure credentials here.", LOG_IN) from None
    except ClientAuthenticationError as error:
        headers = getattr(getattr(error, "response", None), "headers", None) or {}
        raise not_let_in(str(error.message), headers) from None
    except (AzureError, ValueError) as error:
        raise CredentialsError(f"The Azure credentials can't be had: {_reason(error)}.", LOG_IN) from None


def not_let_in(said: str, headers: Mapping[str, str]) -> GridupError:
    """Return the error for a login without a token.

    Args:
        said: the message of azure-identity or of azure-native's provider.
        headers: the headers of the login's response; empty if unknown.
    """
    text = " ".join(said.split())
    if "AADSTS" not in text and (found := _UNREACHED.search(text)):
        return ResourceError(
            f"Azure's login can't be reached: {found[0][:200]}.",
            "Does this machine reach the internet (HTTPS_PROXY, REQUESTS_CA_BUNDLE)?",
        )
    if "AADSTS700024" in text and (wrong := clock.explained("Azure", "AADSTS700024", headers)):
        return wrong
    if "AADSTS" not in text and "Attempted credentials" in text:
        return CredentialsError("There are no Azure credentials here.", LOG_IN)
    found = re.search(r"AADSTS\d+[^.]*\.?", text)
    why = found[0] if found else text[:200]
    expired = any(f"AADSTS{code}" in text for code in (50173, 70008, 700082, 7000222, 50078, 70043))
    what = "have expired" if expired else "are not accepted"
    return CredentialsError(f"The Azure credentials {what}: {why}", LOG_IN)


def clear_caches() -> None:
    """Drop the credential and the session that this process caches."""
    for kept in (_credential, _session):
        kept.cache_clear()


@contextmanager
def connected(subscription: str = "") -> Iterator[Arm]:
    """Yield an ARM client for the given subscription, else for the one that this machine is set up for.

    Raises:
        GridupError: the subscription is ambiguous, or the login fails.
    """
    own = endpoint()
    token(own)  # Log in once, before parallel calls need a token.
    yield Arm(subscription or configured_subscription(os.environ) or _only_subscription(own), own)


def _only_subscription(own: str) -> str:
    """Return the only subscription that the credentials can see.

    Raises:
        CredentialsError: they see none or several.
    """
    rows = [
        row for row in Arm("", own).every("/subscriptions", SUBSCRIPTIONS) if row.get("state") == "Enabled"
    ]
    if len(rows) == 1:
        return str(rows[0]["subscriptionId"])
    if not rows:
        raise CredentialsError("These Azure credentials see no subscription.", LOG_IN)
    some = ", ".join(f"{row.get('displayName')} ({row['subscriptionId']})" for row in rows[:4])
    raise CredentialsError(
        f"Which Azure subscription? There are {len(rows)}: {some}.", "Set AZURE_SUBSCRIPTION_ID."
    )


def configured_subscription(environment: Mapping[str, str]) -> str:
    """Return the subscription that this machine is set up for: by the environment, else the default of `az`.

    Empty if neither is set.
    """
    for name in ("AZURE_SUBSCRIPTION_ID", "ARM_SUBSCRIPTION_ID"):
        if environment.get(name):
            return environment[name].strip().lower()
    try:
        told = json.loads((_az_folder(environment) / "azureProfile.json").read_text(encoding="utf-8-sig"))
        return next((str(row["id"]) for row in told["subscriptions"] if row.get("isDefault")), "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def configured_region(environment: Mapping[str, str]) -> str:
    """Return the region set in the environment, else by `az configure`; empty if neither is set."""
    for name in ("AZURE_LOCATION", "AZURE_DEFAULTS_LOCATION", "ARM_LOCATION"):
        if environment.get(name):
            return environment[name]
    parser = configparser.RawConfigParser()
    try:
        parser.read(_az_folder(environment) / "config", encoding="utf-8")
    except (OSError, UnicodeDecodeError, configparser.Error):
        return ""
    return parser.get("defaults", "location", fallback="").strip()


def _az_folder(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("AZURE_CONFIG_DIR") or "~/.azure").expanduser()


def is_there() -> bool:
    """Return whether azure-identity is installed, without importing it."""
    import importlib.util

    try:
        return importlib.util.find_spec("azure.identity") is not None
    except ModuleNotFoundError:
        return False


def map_error(status: int, body: Mapping[str, Any], subscription: str) -> GridupError:
    """Return the error for a refused ARM request, with a suggestion for the user."""
    error = body.get("error") if isinstance(body.get("error"), Mapping) else body
    code, message = innermost(error or {})
    return error_of_code(code or f"HTTP {status}", message, subscription)


def innermost(error: Mapping[str, Any]) -> tuple[str, str]:
    """Return (code, message) of an ARM error: of the innermost one, because it says most."""
    code, message = str(error.get("code") or ""), " ".join(str(error.get("message") or "").split())
    details = error.get("details")
    if isinstance(details, list) and details and isinstance(details[0], Mapping):
        inner = innermost(details[0])
        if inner[0] and inner[1]:
            return inner
    return code, message


def error_of_code(code: str, message: str, subscription: str = "") -> GridupError:
    """Return the error for an ARM error code, with a suggestion for the user."""
    if code in ("ExpiredAuthenticationToken",):
        return CredentialsError(
            "The Azure credentials have expired.", "Log in again, and run the same command again."
        )
    if code in ("AuthenticationFailed", "InvalidAuthenticationToken", "InvalidAuthenticationTokenTenant"):
        return CredentialsError(f"Azure does not accept these credentials ({code}).", LOG_IN)
    if code in ("AuthorizationFailed", "LinkedAuthorizationFailed"):
        # For a linked scope, ARM names the allowed action first and the denied one last.
        found = _DENIED_ACTION.findall(message)
        what = found[-1] if found else "this"
        return CredentialsError(
            f"Azure does not allow {what} to these credentials.",
            "The rights that Gridup needs are in docs/azure.md; ask whoever manages the subscription.",
        )
    if code in ("SubscriptionNotFound", "InvalidSubscriptionId"):
        return CredentialsError(
            f"There is no Azure subscription {subscription or 'of that id'} for these credentials.",
            "Set AZURE_SUBSCRIPTION_ID, or `az account set`.",
        )
    hints = {
        "SkuNotAvailable": "Choose another --size, or another --region.",
        "AllocationFailed": "Choose another --size, another --region, or try again later.",
        "ZonalAllocationFailed": "Choose another --size, another --region, or try again later.",
        "OverconstrainedAllocationRequest": "Choose another --size, or another --region.",
        "QuotaExceeded": "Choose a smaller --size or another --region, or ask Azure for more (Quotas).",
        "OperationNotAllowed": "Choose another --size or --region, or ask Azure for more (Quotas).",
        "InvalidParameter": A_SIZE,
        "BadRequest": A_SIZE,
        "LocationNotAvailableForResourceGroup": A_REGION,
        "LocationNotAvailableForResourceType": A_REGION,
        "ResourceGroupNotFound": "--resource-group takes one that exists; without it the node gets its own.",
        "ResourceGroupBeingDeleted": "Run the same command again once it is gone.",
        "ResourceGroupDeletionBlocked": "Others use what is in it: see what Azure names, then run it again.",
        "InvalidResourceReference": "Is it there, and in that region? See --subnet-id and --region.",
        "SubnetIsFull": "Free an address in it, or give another --subnet-id.",
        "PublicIPCountLimitReached": "Release one, ask Azure for more (Quotas), or give --private.",
        "MissingSubscriptionRegistration": "Register it: `az provider register --namespace NAME`.",
        "RequestDisallowedByPolicy": "A policy of the subscription forbids it; ask whoever manages that.",
        "ScopeLocked": "It is locked in Azure; take the lock away.",
        "DnsRecordInUse": "Another customer has that DNS label; deploy under another name.",
        "TooManyRequests": "Run the same command again in some minutes.",
    }
    made = ArmError(f"Azure: {message or 'no reason was given'} ({code})", hints.get(code, ""))
    made.code = code
    return made
