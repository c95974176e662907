"""A role whose profile asks for a code (`mfa_serial`): asked for once, and the session handed on to all that
this run starts, in their environment alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gridup_infra.errors import CredentialsError
from gridup_infra.targets.aws import client

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def needed(environment: Mapping[str, str]) -> str:
    """Which device's code the environment's profile asks for; empty where it asks for none."""
    if environment.get(KEYS[0]):
        return ""  # These come before any profile.
    found = client.profile(environment)
    return found.get("mfa_serial", "") if found.get("role_arn") else ""


def sign_in(environment: Mapping[str, str], ask: Callable[[str], str | None]) -> dict[str, str]:
    """The variables of a session of the role; none where no code is asked for.

    Args:
        ask: asks the person for a line; None where there is nobody to ask.

    Raises:
        CredentialsError: there is nobody to ask, or AWS does not take the code.
        GridupError: see `client.translated`.
    """
    device = needed(environment)
    if not device:
        return {}
    name = client.profile_name(environment)
    region = client.configured_region(environment)
    with client.map_errors(region or "us-east-1"):
        import botocore.session

        def code(_prompt: str) -> str:
            told = ask(f"The code of {device} for the AWS profile {name}")
            if told is None:
                raise CredentialsError(
                    f"The AWS profile {name} asks for an MFA code of {device}, and there is no terminal to "
                    "ask for it.",
                    f"Make a session yourself (`aws sts get-session-token --serial-number {device} "
                    f"--token-code CODE`), and set {KEYS[0]}, {KEYS[1]} and {KEYS[2]}.",
                )
            return told

        session = botocore.session.Session()
        chain = session.get_component("credential_provider")
        # botocore has no public way to have another one ask; its own would ask where nobody sees it.
        chain.get_provider("assume-role")._prompter = code
        found = session.get_credentials()
        if found is None:
            return {}
        frozen = found.get_frozen_credentials()
    return dict(zip(KEYS, (frozen.access_key, frozen.secret_key, frozen.token or ""), strict=True))
