"""Access to EC2 and STS: clients with deadlines, calls that survive throttling, errors that help the user.

boto3 is imported where it is used: `gridup --help` and a local node do not need it.
"""

from __future__ import annotations

import functools
import os
import random
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gridup_infra import __version__, clock
from gridup_infra.errors import CredentialsError, GridupError, PreflightError, ResourceError

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

Made = TypeVar("Made")

CONNECT_SECONDS = 10
READ_SECONDS = 60
"""RunInstances has taken 20 s in practice."""

ATTEMPTS = 9
"""Attempts of a call that is throttled, or whose answer is lost: about 90 s in all."""

PAUSE_MAX = 20.0

CONSISTENCY_TIMEOUT = 60.0
"""How long to wait until EC2 knows a new resource ("eventual consistency" in its API reference)."""

POLL_SECONDS = 2.0

THROTTLED = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "PriorRequestNotComplete",
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
    }
)
"""AWS did not accept the call. The codes are those of botocore's own table."""

AMBIGUOUS_ERRORS = frozenset(
    {"InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable", "RequestTimeout", "500"}
)
"""AWS may or may not have accepted the call, as when no answer arrives."""

EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
UNSIGNED = frozenset(
    {"AuthFailure", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "InvalidSignatureException"}
)
UNKNOWN = UNSIGNED | {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "MissingAuthenticationToken",
}
BY_THE_CLOCK = UNSIGNED | {"RequestExpired"}
"""Codes that AWS also returns if the time in a signature is wrong."""
DENIED = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})

LIMITS = frozenset({"VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded"})
"""A limit of the account is reached: another zone does not help."""

CAPACITY_ERRORS = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientCapacity",
        "InsufficientReservedInstanceCapacity",
        "Unsupported",
        "UnsupportedOperation",
        "InstanceTypeNotSupported",
    }
)
"""A zone has no capacity: another zone may have it."""

LOG_IN = "Log in to AWS (`aws configure`, `aws sso login`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)."
NO_SDK = "`gridup deploy --cloud aws` installs it at its first use."


@dataclass(frozen=True)
class Cloud:
    """One region of AWS, accessed with this machine's credentials.

    Attributes:
        ec2: boto3's client for calls that are safe to repeat: it retries by itself.
        once: boto3's client without retries, for calls that create a resource: a blind retry could create
            a second one. See `create_once`.
    """

    region: str
    ec2: Any
    once: Any

    def create_once(
        self, find: Callable[[], Made | None], make: Callable[[Any], Made], *, looked: bool = False
    ) -> Made:
        """Return what `find` finds, else create it with `make`: only once, even if an answer is lost.

        A throttled call is repeated. If it is unclear whether AWS accepted the call, or if EC2 does not know
        yet a new resource that the call refers to, `find` runs before the next attempt.

        Args:
            make: creates the resource with the client that it receives.
            looked: whether the caller already knows that `find` finds nothing.
        """
        found = None if looked else find()
        for attempt in range(1, ATTEMPTS + 1):
            if found is not None:
                return found
            try:
                return make(self.once)
            except Exception as error:
                if attempt == ATTEMPTS or not _worth_another(error):
                    raise
                pause(attempt)
                if not is_throttled(error):
                    found = find()
        raise AssertionError("unreachable")

    def retry_not_found(self, call: Callable[[], Made]) -> Made:
        """Run `call`; retry while EC2 does not know yet a new resource that the call refers to."""
        end = time.monotonic() + CONSISTENCY_TIMEOUT
        while True:
            try:
                return call()
            except Exception as error:
                if not is_missing(error) or time.monotonic() > end:
                    raise
                time.sleep(POLL_SECONDS)


def pause(attempt: int) -> None:
    """Sleep before the next attempt: longer each time, with jitter."""
    time.sleep(min(PAUSE_MAX, 2.0 ** (attempt - 1)) * (0.5 + random.random() / 2))  # noqa: S311


def code_of(error: Exception) -> str:
    """Return AWS's code of an error; empty if the error is not an answer of AWS."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, Mapping) else ""


def is_throttled(error: Exception) -> bool:
    return code_of(error) in THROTTLED


def is_missing(error: Exception) -> bool:
    """Return whether EC2 reports that a resource does not exist, for example with InvalidVpcID.NotFound."""
    return code_of(error).endswith(".NotFound")


def _worth_another(error: Exception) -> bool:
    from botocore.exceptions import HTTPClientError

    code = code_of(error)
    # If no answer arrives, `response` exists and is None.
    response = getattr(error, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return (
        isinstance(error, HTTPClientError)
        or code in THROTTLED | AMBIGUOUS_ERRORS
        or (code.endswith((".NotFound", ".Duplicate")) and not code.startswith("InvalidAMIID"))
        or (status >= 500 and code not in CAPACITY_ERRORS)
    )


_lock = threading.Lock()


@functools.lru_cache(maxsize=8)
def _session(_environment: tuple[tuple[str, str], ...]) -> Any:
    import boto3

    return boto3.session.Session()


@functools.lru_cache(maxsize=16)
def _client(service: str, region: str, once: bool, environment: tuple[tuple[str, str], ...]) -> Any:
    from botocore.config import Config

    retries: dict[str, Any] = {"mode": "standard", "total_max_attempts": 1}
    if not once:
        retries = {"mode": "adaptive", "total_max_attempts": ATTEMPTS}
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries=retries,
        user_agent_extra=f"gridup/{__version__}",
        max_pool_connections=16,
    )
    return _session(environment).client(service, region_name=region or None, config=config)


def client(service: str, region: str, *, once: bool = False) -> Any:
    """Return a boto3 client, cached in this process: creating one takes 0.2 s.

    boto3's own chain finds and refreshes the credentials.
    """
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    with _lock:  # Threads must not create clients from the same session at the same time.
        return _client(service, region, once, environment)


@contextmanager
def map_errors(region: str) -> Iterator[None]:
    """Translate botocore's errors into Gridup's.

    Raises:
        CredentialsError: AWS does not accept the credentials, or they do not permit the call.
        ResourceError: AWS refuses the call for another reason, or does not answer.
        PreflightError: boto3 is not installed, or the region's name is not valid.
    """
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise PreflightError("Python's AWS library (boto3) is not installed.", NO_SDK) from None
    try:
        yield
    except ClientError as error:
        raise map_client_error(error, region) from error
    except BotoCoreError as error:
        raise _map_botocore_error(error, region) from error


@contextmanager
def connected(region: str, account: str = "") -> Iterator[Cloud]:
    """Connect to the region `region`.

    Args:
        account: the id of the expected account, if it is known.

    Raises:
        GridupError: see `map_errors`; or the credentials belong to another account.
    """
    with map_errors(region):
        cloud = Cloud(region, client("ec2", region), client("ec2", region, once=True))
        if account:
            same_account(region, account)
        yield cloud


@functools.lru_cache(maxsize=16)
def _identity(region: str, _environment: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    answer = client("sts", region).get_caller_identity()
    return str(answer["Account"]), str(answer["Arn"])


def identity(region: str) -> tuple[str, str]:
    """Return the account id and the ARN of the credentials. AWS is asked once in each process."""
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    with map_errors(region):
        return _identity(region, environment)


def clear_caches() -> None:
    """Drop this process's cached sessions, clients and identities."""
    for kept in (_client, _session, _identity):
        kept.cache_clear()


def same_account(region: str, account: str) -> None:
    """Check that the credentials belong to the node's account.

    In another account the node's resources are not visible, and the state would take them for gone.

    Raises:
        CredentialsError: the credentials belong to another account.
    """
    ours, _ = identity(region)
    if ours != account:
        raise CredentialsError(
            f"The node is in the AWS account {account}, and the credentials are of {ours}.",
            "Choose the other ones, for example with AWS_PROFILE.",
        )


def is_there() -> bool:
    """Return whether boto3 can be imported, without importing it."""
    import importlib.util

    return importlib.util.find_spec("boto3") is not None


def configured_region(environment: Mapping[str, str]) -> str:
    """Return the region that this machine is configured for: by the environment, else by the profile.

    Does not use boto3, which may not be installed yet when a spec is resolved.
    """
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if environment.get(name):
            return environment[name]
    return profile(environment).get("region", "")


def profile_name(environment: Mapping[str, str]) -> str:
    """Return the name of the profile that the environment selects."""
    return environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE") or "default"


def profile(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the selected profile from ~/.aws/config and ~/.aws/credentials.

    As in boto3, the second file takes precedence. Empty if neither file has the profile.
    """
    import configparser

    name = profile_name(environment)
    found: dict[str, str] = {}
    for variable, usual, section in (
        ("AWS_CONFIG_FILE", "~/.aws/config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", name),
    ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(Path(environment.get(variable) or usual).expanduser(), encoding="utf-8")
        except (OSError, RuntimeError, UnicodeDecodeError, configparser.Error):
            continue
        if parser.has_section(section):
            found |= {key: value.strip() for key, value in parser.items(section)}
    return found


def map_client_error(error: ClientError, region: str) -> GridupError:
    """Translate a refusal of AWS into an error that a user can act on."""
    code, operation = code_of(error), str(getattr(error, "operation_name", ""))
    message = str(error.response.get("Error", {}).get("Message", "")).strip()
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders") or {}
    if code in BY_THE_CLOCK and (wrong := clock.explained("AWS", code, headers)):
        return wrong
    if code in EXPIRED:
        return CredentialsError(
            "The AWS credentials have expired.", "Log in again, and run the same command again."
        )
    if code in UNKNOWN:
        return CredentialsError(f"AWS does not accept these credentials ({code}).", LOG_IN)
    if code in DENIED:
        return CredentialsError(
            f"AWS does not allow {action_of(error)} to these credentials.",
            "The rights that Gridup needs are in docs/aws.md; ask whoever manages the account.",
        )
    if code == "OptInRequired":
        return CredentialsError(
            f"This AWS account is not subscribed to what {operation} needs in {region}: {message}",
            "Finish its registration, enable the region, or choose another --region.",
        )
    if code in THROTTLED:
        return ResourceError(
            f"AWS limits this account's calls right now ({operation}: {code}).",
            "Run the same command again in some minutes.",
        )
    if code.endswith("LimitExceeded"):
        return ResourceError(
            f"{region}: {_sentence(message)} ({code})",
            "Remove what is not needed, ask AWS for more (Service Quotas), or choose another --region.",
        )
    return ResourceError(f"{operation} in {region}: {_sentence(message)} ({code})")


def action_of(error: ClientError) -> str:
    """Return the missing permission as a policy names it: `ec2:RunInstances`."""
    import re

    # The call itself may be permitted: if it sets tags, it also needs ec2:CreateTags.
    message = str(error.response.get("Error", {}).get("Message", ""))
    if found := re.search(r"perform: ?([a-z0-9-]+:[A-Za-z]+)", message):
        return found[1]
    operation = error.operation_name
    service = "sts" if operation == "GetCallerIdentity" else "ec2"
    return f"{service}:{operation}"


def _sentence(text: str) -> str:
    """Return a message in one line, without the encoded part that only an administrator can read."""
    return " ".join(text.partition("Encoded authorization failure message")[0].split())


def _map_botocore_error(error: BotoCoreError, region: str) -> GridupError:
    from botocore import exceptions as known

    text = " ".join(str(error).split())
    if isinstance(error, (known.NoCredentialsError, known.PartialCredentialsError)):
        return CredentialsError(f"There are no AWS credentials here: {text}.", LOG_IN)
    if isinstance(error, known.ProfileNotFound):
        return CredentialsError(f"{text}.", "AWS_PROFILE names a profile of ~/.aws/config.")
    if isinstance(
        error,
        (
            known.SSOError,
            known.SSOTokenLoadError,
            known.UnauthorizedSSOTokenError,
            known.TokenRetrievalError,
            known.CredentialRetrievalError,
        ),
    ):
        named = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
        login = shlex.join(["aws", "sso", "login", *(("--profile", named) if named else ())])
        return CredentialsError(f"The AWS credentials can't be had: {text}", f"Log in again: `{login}`.")
    if isinstance(error, (known.InvalidRegionError, known.NoRegionError)):
        return PreflightError(f"{region!r} is not a region of AWS.", "For example --region eu-west-1.")
    return ResourceError(
        f"AWS in {region} can't be reached: {text}",
        "Is the region's name right, and does this machine reach the internet (HTTPS_PROXY)?",
    )


def whoami(region: str, seconds: float) -> tuple[str, str]:
    """Return the account id and the ARN of the credentials.

    Args:
        seconds: the limit to connect, and the limit to wait for the answer.

    Raises:
        GridupError: see `map_errors`.
    """
    with map_errors(region or "us-east-1"):
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1})
        sts = boto3.session.Session().client("sts", region_name=region or "us-east-1", config=config)
        answer = sts.get_caller_identity()
    return str(answer["Account"]), str(answer["Arn"])
