"""Turns the words of the command line into values without pydantic.

Typer 0.29 converts every value, flags included, through a pydantic adapter, and importing pydantic
would double the time that `status` takes. Each of its parameters keeps its converter in an
attribute that is filled on first use; here it is filled beforehand with a plain one. Should a later
Typer name that attribute otherwise, everything still works, only slower, and the test of the
imports fails.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import typer

_SIMPLE: dict[Any, str] = {
    bool: "a switch",
    str: "a word",
    int: "a whole number",
    float: "a number",
    Path: "a path",
}


class PlainValue:
    """Converts the values of one parameter to bool, str, int, float, Path, or a list of them."""

    def __init__(self, annotation: Any, least: float | None) -> None:
        self._many = get_origin(annotation) is list
        self._type: Any = get_args(annotation)[0] if self._many else annotation
        self._least = least

    @property
    def is_known(self) -> bool:
        """Whether this converter can do the parameter's type."""
        return self._type in _SIMPLE

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value of the right type, as Typer asks for it.

        Raises:
            typer.BadParameter: It is none, or below the least one allowed.
        """
        if value is None:
            return None
        try:
            return [self._one(item) for item in value] if self._many else self._one(value)
        except ValueError as exc:
            raise typer.BadParameter(str(exc), ctx=ctx, param=param) from None

    def _one(self, value: Any) -> Any:
        try:
            converted = self._type(value)
        except ValueError:
            raise ValueError(f"{value} is not {_SIMPLE[self._type]}.") from None
        # `not >=` instead of `<`: NaN is refused as well.
        if self._least is not None and not converted >= self._least:
            raise ValueError(f"{value} is less than {self._least:g}.")
        return converted


def use_plain_values(command: Any, help_names: Sequence[str]) -> None:
    """Give every parameter of a Typer command and its subcommands a plain converter.

    Args:
        command: The command or group.
        help_names: The names of the help option, which a command makes when it is first asked.
    """
    context = typer.Context(command, help_option_names=list(help_names))
    for parameter in (*command.params, command.get_help_option(context)):
        descriptor = parameter.type_descriptor
        value = PlainValue(descriptor.annotation, descriptor.parameter_info.min)
        if value.is_known:
            parameter._runtime_param = value
    for below in getattr(command, "commands", {}).values():
        use_plain_values(below, help_names)
