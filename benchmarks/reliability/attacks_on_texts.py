"""Hostile texts: recipes, lists of runs, class weights, priors, class names."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import odd
from osdtw_models.prior import resolve_prior, under_prior
from osdtw_models.sources.lists import read_class_names
from osdtw_training.benchmark_list import read_list
from osdtw_training.class_weights import read_weights
from osdtw_training.recipe_files import packaged_recipes, read_recipe
from osdtw_training.values import to_values
from sandbox import Attack

CLASSES = ["cat", "dog", "owl"]


def toml(table: dict[str, Any], name: str = "") -> str:
    """A TOML document of nested tables; what TOML cannot hold is written as text."""
    lines = [f"[{name}]"] if name else []
    inner = []
    for key, value in table.items():
        if isinstance(value, dict) and not name:
            inner.append(toml(value, json.dumps(key)))
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value) and not name:
            inner.extend(toml(each, json.dumps(key)).replace("[", "[[", 1).replace("]", "]]", 1) for each in value)
        else:
            lines.append(f"{json.dumps(key)} = {_toml_value(value)}")
    return "\n".join([*lines, *inner]) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return '"none"' if value is None else json.dumps(value)


def _begin(folder: Path) -> dict[str, dict[str, Any]]:
    return {name: to_values(read_recipe(name)) for name in packaged_recipes()}


def _bomb(stream: Random) -> str:
    """Texts whose size or depth is the attack."""
    number = stream.choice((100, 10_000, 300_000))
    return stream.choice(
        (
            "a = " + "[" * number,
            "a = " + "{a=" * number,
            "[" + ".".join("a" * number) + "]",
            "\n".join(f"k{i} = {i}" for i in range(number)),
            "a = " + "9" * number,
            'a = "' + "x" * number,
            "\n".join(f"[t{i}]" for i in range(number // 10)),
            ".".join("a" * min(number, 10_000)) + " = 1\n" * 2,
            "a = 1\na = 1\n",
            "[" * number + "]" * number,
        )
    )


def _recipe(stream: Random, folder: Path, recipes: dict[str, dict[str, Any]]) -> Callable[[], object]:
    kind, file = stream.randrange(10), folder / stream.choice(("recipe.toml", "a b.toml", "é.toml"))
    if kind == 0:
        text = _bomb(stream)
    else:
        values = recipes[stream.choice(list(recipes))]
        if kind < 5:  # one field
            values = json.loads(json.dumps(values))
            table = stream.choice([values, *(each for each in values.values() if isinstance(each, dict))])
            table[stream.choice(list(table))] = odd.value(stream)
        else:
            values = odd.changed(values, stream, stream.choice((1, 2, 5)))
        text = toml(values)
    content = text.encode("utf-8", "surrogatepass")
    file.write_bytes(odd.spoilt(content, stream) if kind == 9 else content)
    return lambda: read_recipe(file)


def _runs(stream: Random, folder: Path, state: object) -> Callable[[], object]:
    published = {"source": "a paper", "base": 38.3, "accuracy": 42.1}
    run = {"name": "one", "recipe": "digits_lt", "options": ["--seed", "1"], "published": [published]}
    values = {"title": "Runs", "run": [run, {"name": "two", "recipe": "digits_lt", "begin_with": "one"}]}
    text = _bomb(stream) if stream.random() < 0.1 else toml(odd.changed(values, stream, stream.choice((1, 1, 3))))
    file = folder / "runs.toml"
    content = text.encode("utf-8", "surrogatepass")
    file.write_bytes(odd.spoilt(content, stream) if stream.random() < 0.1 else content)
    return lambda: read_list(file)


def _number(stream: Random) -> str:
    return stream.choice(
        ("1", "0.5", "nan", "-inf", "1e999", "-1", "0", "x", "", "9" * 5000, "\uff11", "1_0", "0x1", "null")
    )


def _table(stream: Random, classes: list[str]) -> tuple[str, str]:
    """A file of names and numbers, and its suffix."""
    names = list(classes)
    for _ in range(stream.choice((0, 0, 1, 2))):
        names[stream.randrange(len(names))] = stream.choice((*odd.NAMES, *classes))
    if stream.random() < 0.2:
        names.append(stream.choice((*odd.NAMES, *classes)))
    kind = stream.randrange(5)
    if kind == 0:
        return json.dumps({name: odd.value(stream) if stream.random() < 0.3 else 1.5 for name in names}), ".json"
    if kind == 1:
        return json.dumps([odd.value(stream) if stream.random() < 0.3 else 1.5 for name in names]), ".json"
    if kind == 2:
        return "\n".join(_number(stream) for _ in names), ".txt"
    rows = [f"{name},{_number(stream) if stream.random() < 0.3 else '2'}" for name in names]
    lines = [*(["class,weight"] if stream.random() < 0.5 else []), *rows]
    if kind == 3:
        lines.insert(
            stream.randrange(len(lines)), stream.choice(('"open', "a,b,c", "\0", "x" * 200_000, '"a""', "[", "{"))
        )
    return stream.choice(("\n", "\r\n", "\r")).join(lines), ".csv"


def _weights(stream: Random, folder: Path, state: object) -> Callable[[], object]:
    text, suffix = _table(stream, CLASSES)
    file = folder / f"weights{suffix}"
    content = text.encode("utf-8", "surrogatepass")
    file.write_bytes(odd.spoilt(content, stream) if stream.random() < 0.2 else content)
    return lambda: read_weights(file, CLASSES)


def _prior(stream: Random, folder: Path, state: object) -> Callable[[], object]:
    import numpy as np

    text, suffix = _table(stream, CLASSES)
    file = folder / f"prior{suffix}"
    content = text.encode("utf-8", "surrogatepass")
    file.write_bytes(odd.spoilt(content, stream) if stream.random() < 0.2 else content)
    return lambda: under_prior(np.zeros((2, 3), np.float32), resolve_prior(str(file), [3, 2, 1], CLASSES))


def _names(stream: Random, folder: Path, state: object) -> Callable[[], object]:
    names = [stream.choice((*odd.NAMES, *CLASSES, f"class {stream.random()}")) for _ in range(stream.randrange(6))]
    file = folder / "classes.txt"
    content = "\n".join(names).encode("utf-8", "surrogatepass")
    file.write_bytes(odd.spoilt(content, stream) if stream.random() < 0.3 else content)
    return lambda: read_class_names(file)


ATTACKS = (
    Attack("recipe (TOML)", "read_recipe", 600, _begin, _recipe),
    Attack("list of runs (TOML)", "osdtw_training.benchmark_list", 300, _begin, _runs),
    Attack("class weights (CSV, JSON)", "read_weights", 1500, _begin, _weights),
    Attack("class prior (CSV, JSON, text)", "resolve_prior", 1500, _begin, _prior),
    Attack("class names", "read_class_names", 1000, _begin, _names),
)
