"""All errors that a user can see, in one tree.

    GridupError              exit 1   anything that has no class of its own
    ├── UsageError                2   a wrong option or argument
    │   └── InvalidNameError      2   a name that can't become a deployment
    ├── CredentialsError          3   missing, expired or refused credentials
    │   └── PassphraseError       3   the passphrase doesn't open this state
    ├── ResourceError             4   a resource could not be created, changed or deleted
    │   └── FirstBootError        4   the machine started, but its first boot failed
    ├── NotFoundError             6   no such deployment
    ├── NotOfferedError           7   the node does not have that service
    ├── DeclinedError             8   the user said no, or could not be asked
    ├── DeadlineError             9   a wait took longer than its time limit
    ├── UnhealthyError           10   the node does not answer as it should
    ├── StoppedError            130   Ctrl-C
    ├── PreflightError            1   a problem was found before anything was created
    ├── SetupError                1   the tools that Gridup needs could not be prepared
    ├── BusyError                 1   another update holds this deployment
    └── StateError                1   the state can't be read or written

Each error has a `message` (what happened, to which resource), a `suggestion` (what to do next) and an
`exit_code`. A test compares the exit codes of the classes with the table above.
"""

from __future__ import annotations

from typing import ClassVar


class GridupError(Exception):
    """An error that a user can act on.

    Args:
        message: what happened and to which resource, in one line.
        suggestion: what to do next, in one line; empty if there is no advice.
        details: more lines, such as the end of a log.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, suggestion: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.suggestion = suggestion
        self.details = details

    def __reduce__(self) -> tuple[type[GridupError], tuple[str, str, tuple[str, ...]]]:
        return type(self), (self.message, self.suggestion, self.details)


class UsageError(GridupError):
    """A wrong option or argument."""

    exit_code = 2


class InvalidNameError(UsageError):
    """A name that can't become a deployment."""


class CredentialsError(GridupError):
    """Credentials are missing, expired or refused."""

    exit_code = 3


class PassphraseError(CredentialsError):
    """The passphrase doesn't open this state."""


class ResourceError(GridupError):
    """A resource could not be created, changed or deleted."""

    exit_code = 4


class FirstBootError(ResourceError):
    """The machine started, but its first boot failed."""


class NotFoundError(GridupError):
    """No such deployment."""

    exit_code = 6


class NotOfferedError(GridupError):
    """The node does not have that service."""

    exit_code = 7


class DeclinedError(GridupError):
    """The user said no, or could not be asked."""

    exit_code = 8


class DeadlineError(GridupError):
    """A wait took longer than its time limit."""

    exit_code = 9


class UnhealthyError(GridupError):
    """The node does not answer as it should."""

    exit_code = 10


class StoppedError(GridupError):
    """The user pressed Ctrl-C."""

    exit_code = 130


class PreflightError(GridupError):
    """A problem was found before anything was created."""


class SetupError(GridupError):
    """The tools that Gridup needs could not be prepared."""


class BusyError(GridupError):
    """Another update holds this deployment."""


class StateError(GridupError):
    """The state can't be read or written."""
