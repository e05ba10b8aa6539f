"""Plain values, as TOML and JSON have them, <-> frozen dataclasses; strict about keys and types."""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from typing import Any, Literal

LARGEST = 2**63


def from_values(cls: type[Any], values: dict[str, Any], where: str = "") -> Any:
    """Build a dataclass from plain values, strictly.

    Args:
        cls: The dataclass.
        values: Values by field name; tables are dictionaries.
        where: Name of the table, for messages.

    Returns:
        An instance of ``cls``.

    Raises:
        ValueError: If a key is unknown or missing, or a value has the wrong type.
    """
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            raise ValueError(f"unknown key {_shown(where + key)}; known keys are {', '.join(hints)}.")
        arguments[key] = _checked(hints[key], value, where + key)
    for field in dataclasses.fields(cls):
        if field.name not in arguments and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where + field.name!r} is missing.")
    return cls(**arguments)


def to_values(recipe: Any) -> dict[str, Any]:
    """A dataclass as plain values that `from_values` and JSON take; fields that are None are left out."""
    return {
        key: to_values(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        for key in (f.name for f in dataclasses.fields(recipe))
        if (value := getattr(recipe, key)) is not None
    }


def _checked(kind: Any, value: Any, name: str) -> Any:
    """The value, if it is of the annotated type."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ValueError(f"{name!r} must be a table, not {_shown(value)}.")
        return from_values(kind, value, f"{name}.")
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in options:
            raise ValueError(f"{name!r} is {_shown(value)}; choose one of {', '.join(map(repr, options))}.")
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _checked(options[0], value, name)
    if origin is tuple:
        length = None if options[-1] is Ellipsis else len(options)
        if not isinstance(value, list | tuple) or (length is not None and len(value) != length):
            raise ValueError(f"{name!r} must be a list of {length or 'some'} numbers, not {_shown(value)}.")
        return tuple(_checked(options[0], item, name) for item in value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (isinstance(value, kind) or (kind is float and number)) or (kind is int and not number):
        raise ValueError(f"{name!r} must be of type {kind.__name__}, not {_shown(value)}.")
    if number and not abs(value) < LARGEST:  # not a number is not smaller, either
        raise ValueError(f"{name!r} is {_shown(value)}; give a finite number, below 2^63.")
    return float(value) if kind is float else value


def _shown(value: Any) -> str:
    """A value as an error says it, however long or deep."""
    return reprlib.repr(value)
