"""Hostile values, names and bytes, drawn from a seed: what the attacks put into files."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

# What names of files, classes and runs may be: the Hub's unsafe names, Windows' own, and what prints badly.
NAMES = (
    *("../secret", "..\\secret", "a/../../secret", "/etc/passwd", "\\\\server\\share", "C:\\secret", "~/secret", "."),
    *("..", "CON", "NUL.txt", "trailing.", "trailing ", " ", "", "\0", "a\nb", "a\rb", "\u202egnp.exe", "e\u0301"),
    *("-rf", "--help", "$(touch secret)", "`touch secret`", "=1+1", "<script>", "%s%n", "{0.__class__}", "\ud800"),
    *("a" * 300, "b" * 5000, "é" * 200, ".hidden", "file:///etc/passwd", "http://127.0.0.1:9/x", "pipe:touch secret"),
)
NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 255, 65_536, 10**6, 10**9, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400),
    *(0.0, -0.0, 0.5, 1.0, 1.5, 1e-308, 1e308, -1e308, float("inf"), float("-inf"), float("nan")),
)
TRAPS: tuple[Any, ...] = (
    {"_target_": "os.system", "_args_": ["touch secret"]},
    {"__class__": "os.system", "__reduce__": ["touch secret"]},
    {"checkpoint_path": "trap.pth"},
    {"trust_remote_code": True, "auto_map": {"AutoModel": "evil.Model"}},
)


def value(stream: Random) -> Any:
    """Any odd value that JSON can hold."""
    kind = stream.randrange(8)
    if kind < 3:
        return stream.choice(NUMBERS)
    if kind == 3:
        return stream.choice(NAMES)
    if kind == 4:
        return stream.choice((None, True, False, [], {}, [[]], [[[]]], "none", "osdtw_resnet20", "1"))
    if kind == 5:
        return [stream.choice(NUMBERS) for _ in range(stream.choice((1, 2, 3, 4, 1000)))]
    if kind == 6:
        return copy.deepcopy(stream.choice(TRAPS))
    deep: Any = stream.choice(NUMBERS)
    for _ in range(stream.choice((3, 50, 150))):
        deep = [deep] if stream.random() < 0.5 else {"a": deep}
    return deep


def changed(tree: Any, stream: Random, times: int = 1) -> Any:
    """A tree of JSON values with some of its nodes replaced, removed, repeated or added."""
    tree = copy.deepcopy(tree)
    for _ in range(times):
        parents = [node for node in _nodes(tree) if isinstance(node, dict | list) and node]
        if not parents:
            return value(stream)
        # Deep inside are hundreds of like numbers: half of the time only names are looked at.
        named = [node for node in parents if isinstance(node, dict)]
        parent = stream.choice(named if named and stream.random() < 0.5 else parents)
        _change(parent, stream)
    return tree


def _change(parent: dict[str, Any] | list[Any], stream: Random) -> None:
    key: Any = stream.choice(list(parent)) if isinstance(parent, dict) else stream.randrange(len(parent))
    act = stream.randrange(6)
    if act < 3:
        parent[key] = value(stream)
    elif act == 3:
        del parent[key]
    elif act == 4:
        if isinstance(parent, dict):
            parent[stream.choice((*NAMES, "device", "dtype", "features_only", "checkpoint_path", "pruned"))] = value(
                stream
            )
        else:
            parent.insert(key, copy.deepcopy(parent[stream.randrange(len(parent))]))
    elif isinstance(parent[key], int | float):
        parent[key] = stream.choice(
            (-parent[key], parent[key] + 1, parent[key] * 1000, str(parent[key]), [parent[key]])
        )
    else:
        parent[key] = [parent[key]]


def _nodes(tree: Any) -> list[Any]:
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if isinstance(node, dict):
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return found


def spoilt(content: bytes, stream: Random, reach: int | None = None) -> bytes:
    """Bytes with some of them flipped, cut, repeated or replaced, all within the first ``reach`` of them."""
    spoilt = bytearray(content)
    for _ in range(stream.choice((1, 1, 1, 2, 4, 16))):
        if not spoilt:
            break
        at = stream.randrange(min(len(spoilt), reach or len(spoilt)))
        act = stream.randrange(6)
        if act < 2:
            spoilt[at] ^= 1 << stream.randrange(8)
        elif act == 2:
            spoilt[at : at + 1] = bytes([stream.choice((0, 1, 10, 34, 92, 123, 127, 128, 255))])
        elif act == 3:
            del spoilt[at : at + stream.choice((1, 2, 4, 8, 100))]
        elif act == 4:
            spoilt[at:at] = spoilt[at : at + stream.choice((1, 4, 8, 100))] * stream.choice((1, 2, 10))
        else:
            number = stream.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1))
            width = stream.choice((2, 4, 8))
            spoilt[at : at + width] = (number % 256**width).to_bytes(width, stream.choice(("little", "big")))
    return bytes(spoilt[: stream.randrange(len(spoilt) + 1)] if stream.random() < 0.2 else spoilt)
