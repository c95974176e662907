"""Makes syft run the code that it receives in the sandbox, and nowhere else.

syft itself compiles and runs code in the node's process, in three places:
- `execute_byte_code`, for a function that a data owner has approved, as a job or at once: replaced here.
- policies that a caller wrote: no caller may send one (`guard.types`), and one in the database is not loaded.
- `UserCode.run`, which is for a client; a server never calls it.

An administrator's own endpoints (`api.add`) run in the node: they get the node's clients and may use them
freely.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gridup_node.sandbox import client, values
from gridup_node.sandbox.client import Failed, Refused, Request
from gridup_node.sandbox.outcome import Failure, Reason, line

log = logging.getLogger(__name__)

MODES = ("call", "mock", "private")


def install(folder: Path, seconds: float) -> None:
    """Make syft run approved code in the sandbox. Call it before a server is created.

    Args:
        folder: see `client.run`.
        seconds: the time limit of a job.

    Raises:
        LookupError: this syft runs code in other places.
    """
    from syft.service.action import action_service
    from syft.service.code import user_code, user_code_service
    from syft.service.policy import policy
    from syft.types.errors import SyftException

    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise SyftException(public_message="On this node policies are syft's own: no others are run.")

    def not_here(_self: Any) -> Any:
        raise SyftException(public_message="Code is run by calling it.")

    run = partial(execute, folder, seconds)
    replaced = (
        (action_service, "execute_byte_code", run),
        (user_code, "execute_byte_code", run),
        (user_code_service, "load_approved_policy_code", lambda *_args, **_kwargs: None),
        (user_code, "load_approved_policy_code", lambda *_args, **_kwargs: None),
        *(
            (module, name, refuse)
            for module in (policy, user_code)
            for name in ("load_policy_code", "init_policy")
        ),
        (policy, "execute_policy_code", refuse),
        (user_code.UserCode, "run", property(not_here)),
    )
    for place, name, ours in replaced:
        if not hasattr(place, name):
            raise LookupError(f"{place.__name__}.{name}")
        setattr(place, name, ours)


def execute(folder: Path, seconds: float, code_item: Any, kwargs: Mapping[str, Any], context: Any) -> Any:
    """Run approved code for syft. Return its result, or the error in syft's form."""
    from syft.service.action.action_endpoint import CustomEndpointActionObject
    from syft.service.code.user_code import UserCodeExecutionOutput
    from syft.service.response import SyftError

    hears = _Hears(context, kwargs, code_item.service_func_name)
    endpoints = [name for name, one in kwargs.items() if isinstance(one, CustomEndpointActionObject)]
    request = Request(
        source=code_item.parsed_code,
        function=code_item.unique_func_name,
        arguments={name: one for name, one in kwargs.items() if name not in endpoints},
        endpoints=endpoints,
        nested=sorted(code_item.nested_codes or ()),
        datasite=bool(code_item.uses_datasite),
    )
    result, message = None, ""
    try:
        result = client.run(folder, request, hears, seconds=seconds, unwrap=_unwrapped)
    except Failed as error:
        message = _told(error.failure, code_item.service_func_name, hears)
    except values.Unfit as error:
        message = f"{code_item.service_func_name} can't be run: {error} can't be handed to it."
        hears.log(new_str=f"{message}\n")
    return UserCodeExecutionOutput(
        user_code_id=code_item.id,
        stdout="",
        stderr="",
        result=SyftError(message=message) if message else result,
        errored=bool(message),
        safe_error_message=message,
    )


def _told(failure: Failure, name: str, hears: _Hears) -> str:
    """Return the message for everybody. The code's own error goes to the log's half for administrators."""
    log.warning("approved code %s has no result: %s", line(name), failure.reason.value)
    if failure.trace:
        hears.log(new_err=f"\nEncountered while executing {name}:\n{failure.trace}\n")
    if failure.reason is Reason.RAISED:
        return f"Exception encountered while running {name}, please contact the Server Admin for more info."
    message = f"{name} was not completed. {failure.sentence}"
    hears.log(new_str=f"{message}\n")
    return message


def _unwrapped(value: Any) -> Any:
    """Return the plain value of one of syft's objects."""
    from syft.service.action.action_object import ActionObject
    from syft.types.uid import UID

    if isinstance(value, ActionObject):
        return value.syft_action_data
    return str(value) if isinstance(value, UID) else value


def _numbers(said: Mapping[str, Any]) -> dict[str, int]:
    try:
        return {key: int(said[key]) for key in ("of", "to", "by") if key in said}
    except (ValueError, TypeError, OverflowError):
        raise Refused("progress is told in whole numbers") from None


class _Hears:
    """Passes a job's output and requests to syft: see `client.Hears`."""

    def __init__(self, context: Any, kwargs: Mapping[str, Any], name: str) -> None:
        self._context, self._kwargs, self._name = context, kwargs, name
        self._noted: set[str] = set()

    def log(self, **new: str) -> None:
        """Append to the job's log, if this is a job."""
        try:
            job = self._context.job
            if job is None or self._context.server is None or job.log_id is None:
                return
            self._context.server.services.log.append(context=self._context, uid=job.log_id, **new)
        except Exception as error:  # noqa: BLE001
            # The job's result is more important.
            self._note("its log could not be written", error)

    def printed(self, text: str) -> None:
        self.log(new_str=text)

    def asked(self, what: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        from syft.types.errors import SyftException

        try:
            if what == "progress":
                return self._progress(**_numbers(kwargs))
            if what == "endpoint":
                return self._endpoint(*args)
        except SyftException as error:
            raise Refused(error.public_message) from None
        except Refused:
            raise
        except Exception as error:  # noqa: BLE001 - an untrusted request may cause any error
            self._note("it has asked for what failed", error)
        raise Refused("the node could not do that")

    def _note(self, what: str, error: Exception) -> None:
        """Log a kind of problem once per job: code can cause the same one any number of times."""
        if what not in self._noted:
            self._noted.add(what)
            told = line(f"{type(error).__name__}: {error}")
            log.warning("approved code %s: %s: %s", line(self._name), what, told)

    def _progress(self, of: int | None = None, to: int | None = None, by: int = 0) -> None:
        job = self._context.job
        if job is None:
            return
        if of is not None:
            job.n_iters = of
        job.current_iter = to if to is not None else job.current_iter + by
        self._context.server.services.job.update(self._context, job)

    def _endpoint(self, name: str, mode: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        from syft.service.action.action_endpoint import CustomEndpointActionObject

        found = self._kwargs.get(name)
        if not isinstance(found, CustomEndpointActionObject) or mode not in MODES:
            raise Refused("there is no such endpoint")
        job = self._context.job
        ready = found.add_context(context=self._context, log_id=job.log_id if job else None)
        return (ready if mode == "call" else getattr(ready, mode))(*args, **kwargs)
