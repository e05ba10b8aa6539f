"""Plain values, as TOML and JSON have them, <-> frozen dataclasses; strict about keys and types."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal


def from_values(cls: type[Any], values: dict[str, Any], where: str = "") -> Any:
    """Build a dataclass from plain values, strictly.

    Args:
        cls: The dataclass.
        values: Values by field name; tables are dictionaries.
        where: Name of the table, for messages.

    Returns:
        An instance of ``cls``.

    Raises:
        ValueError: If a key is unknown or a value has the wrong type.
    """
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            raise ValueError(f"unknown key {where + key!r}; known keys are {', '.join(hints)}.")
        arguments[key] = _checked(hints[key], value, where + key)
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
            raise ValueError(f"{name!r} must be a table, not {value!r}.")
        return from_values(kind, value, f"{name}.")
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in options:
            raise ValueError(f"{name!r} is {value!r}; choose one of {', '.join(map(repr, options))}.")
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _checked(options[0], value, name)
    if origin is tuple:
        length = None if options[-1] is Ellipsis else len(options)
        if not isinstance(value, list | tuple) or (length is not None and len(value) != length):
            raise ValueError(f"{name!r} must be a list of {length or 'some'} numbers, not {value!r}.")
        return tuple(_checked(options[0], item, name) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name!r} must be of type {kind.__name__}, not {value!r}.")
    return value
