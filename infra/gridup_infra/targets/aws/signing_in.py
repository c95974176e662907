"""Sign-in to a role whose profile asks for an MFA code (`mfa_serial`).

The user is asked for the code once. The session is passed to all processes that this run starts, only in
their environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gridup_infra.errors import CredentialsError
from gridup_infra.targets.aws import client

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def needed(environment: Mapping[str, str]) -> str:
    """Return the MFA device whose code the environment's profile asks for; empty if it asks for none."""
    if environment.get(KEYS[0]):
        return ""  # Keys in the environment take precedence over any profile.
    found = client.profile(environment)
    return found.get("mfa_serial", "") if found.get("role_arn") else ""


def sign_in(environment: Mapping[str, str], ask: Callable[[str], str | None]) -> dict[str, str]:
    """Return the environment variables of a session of the role; empty if no code is needed.

    Args:
        ask: asks the user for a line; returns None if there is nobody to ask.

    Raises:
        CredentialsError: there is nobody to ask, or AWS does not accept the code.
        GridupError: see `client.map_errors`.
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
        # botocore has no public way to replace its prompt, and the user would not see that prompt.
        chain.get_provider("assume-role")._prompter = code
        found = session.get_credentials()
        if found is None:
            return {}
        frozen = found.get_frozen_credentials()
    return dict(zip(KEYS, (frozen.access_key, frozen.secret_key, frozen.token or ""), strict=True))
