"""Argument parsing for all commands: an option without its value must not take the next option as value."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from gridup_infra.errors import UsageError

FREE_TEXT = ("organization", "description")
"""Options whose value is a text that may begin with dashes."""


class Command(TyperCommand):
    """The base class of Gridup's commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            self._check_values(ctx, args)
        return super().parse_args(ctx, args)

    def _check_values(self, ctx: Any, args: list[str]) -> None:
        parameters: list[Any] = self.get_params(ctx)
        known = {word: one for one in parameters for word in (*one.opts, *one.secondary_opts)}
        at = 0
        while at < len(args) and args[at] != "--":
            word = args[at]
            option = known.get(word) if word.startswith("-") else None
            if option is None and not word.startswith("-") and not ctx.allow_interspersed_args:
                return
            at += 1
            if option is None or option.is_flag or option.count:
                continue
            value = args[at] if at < len(args) else ""
            dashed = value.startswith("--") and option.name not in FREE_TEXT
            if value.startswith("-") and (value in known or dashed):
                raise UsageError(
                    f"{word} has no value before {value}.",
                    f"Give it one, or write `{word}={value}` if that is the value.",
                )
            at += 1
