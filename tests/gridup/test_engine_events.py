"""What a provider's failure becomes, on its way through the engine."""

from __future__ import annotations

import traceback
from types import SimpleNamespace

import pytest

from gridup.engine import _translate
from gridup.engine_events import EventTranslator
from gridup.reporter import Silent
from gridup_infra.errors import CredentialsError, FirstBootError, ResourceError
from gridup_infra.targets.dynamic import ProviderError, translate_errors


def told(error: Exception) -> EventTranslator:
    """A watch that was told of a provider's error."""
    watch = EventTranslator(Silent())
    tell(watch, error, "host")
    return watch


def tell(watch: EventTranslator, error: BaseException, name: str) -> None:
    """As the engine tells of an error with a resource: a traceback, and a blank line."""
    text = "".join(traceback.format_exception(error))
    diagnostic = SimpleNamespace(
        severity="error",
        urn=f"urn:pulumi:inst::gridup::t::{name}",
        message=f"<{{%reset%}}>{text}<{{%reset%}}>\n\n",
    )
    event = SimpleNamespace(
        resource_pre_event=None, res_outputs_event=None, res_op_failed_event=None, diagnostic_event=diagnostic
    )
    watch.event(event)


def test_the_tail_of_a_first_boots_log_arrives_whole() -> None:
    tail = (
        "E: Unable to locate package docker.oi",
        "",
        "gridup-host: packages failed\n\nafter 3 tries",
        "  end",
    )

    def boot() -> None:
        raise FirstBootError("The first boot of Inst failed.", "gridup logs Inst --boot shows all.", tail)

    with pytest.raises(ProviderError) as caught:
        translate_errors(boot)
    error = _translate("", told(caught.value).report)
    assert isinstance(error, ResourceError)
    assert error.exit_code == 4
    assert error.message == "host: The first boot of Inst failed. gridup logs Inst --boot shows all."
    assert error.details == (
        "E: Unable to locate package docker.oi",
        "gridup-host: packages failed",
        "after 3 tries",
        "  end",
    )


def test_one_without_a_log_is_one_line() -> None:
    def make() -> None:
        raise ResourceError("There is no room.", "Make some.")

    with pytest.raises(ProviderError) as caught:
        translate_errors(make)
    error = _translate("", told(caught.value).report)
    assert (error.message, error.details) == ("host: There is no room. Make some.", ())


def test_credentials_are_the_cause_once_whatever_else_failed_for_it() -> None:
    watch = told(ResourceError("There is no room."))
    for name in ("vpc", "volume"):
        with pytest.raises(ProviderError) as caught:
            translate_errors(_refuse)
        tell(watch, caught.value, name)
    error = _translate("", watch.report)
    assert isinstance(error, CredentialsError)
    assert (error.exit_code, error.details) == (3, ())
    assert error.message == "The AWS credentials have expired. Log in again."


def _refuse() -> None:
    raise CredentialsError("The AWS credentials have expired.", "Log in again.")
