"""Mutants of pure modules: does a test of the module fail when one operator, constant or return of it is wrong?

    python benchmarks/reliability/mutation.py [MODULE ...]

Each mutant lives in a forked process that runs the module's own tests until the first one fails. Survived means that
a test failed. The study prints the mutants that no test sees. Those that compute the same as the module, or choose
otherwise where it is free to, are no faults: `NO_FAULTS` says of each why, and they do not count. With modules named,
the rows of the others stay.
"""

from __future__ import annotations

import ast
import copy
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from rows import Row, rows_before, tried, write_study

ROOT = Path(__file__).parents[2]
TESTS = {
    "osdtw_models.fusion": ("tests/models/test_fusion.py",),
    "osdtw_models.partition": ("tests/models/test_partition.py",),
    "osdtw_models.class_counts": ("tests/models/test_partition.py",),
    "osdtw_training.proxy": ("tests/training/test_proxy.py",),
    "osdtw_export.pack": ("tests/export/test_pack.py",),
}
SECONDS = 300
FAULT = "one operator, constant, condition or return is wrong"
PAIR, PARTS = "index * (above.max() + 1)", "a choice: other parts show the scatter, too"
BOUND = "not (ours - theirs).abs().max() {} TOLERANCE * max(1.0, ours.abs().max().item())"
NO_FAULTS = {  # mutants by module, and why
    "osdtw_models.fusion": {
        "dim=-1 -> dim=+1": "all tensors are matrices, their last dimension is 1",
    },
    "osdtw_models.partition": {
        "[1] * num_classes -> [2] * num_classes": "all classes have as many images as one another, one or two",
    },
    "osdtw_models.class_counts": {},
    "osdtw_training.proxy": {
        "16 -> 17": PARTS,
        "64 -> 65": PARTS,
        f"{PAIR} + above -> {PAIR} - above": "still one number a pair",
        f"{PAIR} + above -> index * (above.max() + 2) + above": "still one number a pair",
    },
    "osdtw_export.pack": {
        "modules[0] -> modules[1]": "all are of one kind, or refused",
        "1.0 -> 2.0": "a choice: from which logits on a difference is relative",
        "own[0] -> own[1]": "all are of one kind, or refused",
        "children[0] -> children[1]": "all are of one kind, or refused",
        "not children[0] -> not children[1]": "all are of one kind, or refused",
        "convs[0] -> convs[1]": "all are of one kind, or refused",
        "norms[0] -> norms[1]": "all are of one kind, or refused",
        "strict=True -> strict=False": "both lists have one entry a task",
        f"{BOUND.format('<=')} -> {BOUND.format('<')}": "rounding errors are far below the bound, others far above",
    },
}
COMPLEMENTS = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)  # swapped, they negate their condition
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Every mutant of a module: what is wrong with it, and its source."""
    tree = ast.parse(source)
    words = _words(tree)
    for place, node in enumerate(ast.walk(tree)):
        for number in range(len(_changes(node)) * (node not in words)):
            wrong = copy.deepcopy(tree)
            target = list(ast.walk(wrong))[place]
            shown = _shown(target, wrong)
            before = ast.unparse(shown)
            _changes(target)[number](target)
            after = ast.unparse(shown)
            if before != after:
                what = " -> ".join(each.splitlines()[0] for each in (before, after))
                yield f"line {getattr(node, 'lineno', 0)}: {what}", ast.unparse(ast.fix_missing_locations(wrong))


def _words(tree: ast.Module) -> set[ast.AST]:
    """Nodes that only say something: parts of messages, and annotations."""
    parts = [part for part in ast.walk(tree) if isinstance(part, ast.JoinedStr | ast.arg | ast.AnnAssign)]
    return {inner for part in parts for inner in ast.walk(part)}


def _shown(node: ast.AST, tree: ast.Module) -> ast.AST:
    """A number with its sum, its list, whose index it is and the argument that it is: "2" alone says little."""
    for parent in ast.walk(tree):
        wider = isinstance(parent, ast.UnaryOp | ast.keyword | ast.List | ast.BinOp | ast.Subscript)
        if wider and node in ast.iter_child_nodes(parent):
            return _shown(parent, tree)
    return node


def _changes(node: ast.AST) -> list[Callable[[Any], None]]:
    """What can be wrong at a node: functions that change it in place."""
    found: list[Callable[[Any], None]] = []
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        found.append(lambda n: setattr(n, "op", SWAPS[type(n.op)]()))
    if isinstance(node, ast.BoolOp):
        found.append(lambda n: setattr(n, "op", SWAPS[type(n.op)]()))
    if isinstance(node, ast.Compare):
        for k, op in enumerate(node.ops):
            if type(op) in SWAPS:
                found.append(lambda n, k=k, op=op: n.ops.__setitem__(k, SWAPS[type(op)]()))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        found.append(lambda n: setattr(n, "op", ast.UAdd()))
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        found.append(lambda n: setattr(n, "value", not n.value))
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        found.append(lambda n: setattr(n, "value", n.value + 1))
    if isinstance(node, ast.Return) and node.value is not None:
        found.append(lambda n: setattr(n, "value", ast.Constant(None)))
    if isinstance(node, ast.If | ast.IfExp) and not _is_complemented(node.test):
        found.append(lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test)))
    return found


def _is_complemented(test: ast.expr) -> bool:
    """Whether a mutant of the condition itself is its negation already."""
    return isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], COMPLEMENTS)


# The first example that fails is enough: none is made small, none is kept for the next mutant.
FIRST = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
hypothesis.settings.register_profile("first", phases=FIRST, database=None)


def killed(module: str, source: str) -> bool:
    """Whether a test of the module fails on a mutant."""
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)  # a mutant that hangs is killed, too
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        code = 1
        hypothesis.settings.load_profile("first")
        try:
            _put_in_place(module, source)
            quiet = "ignore::pytest.PytestAssertRewriteWarning"  # what the parent imported is no plug-in of tests
            words = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", quiet]
            code = int(pytest.main([*words, *(str(ROOT / test) for test in TESTS[module])]))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def _put_in_place(module: str, source: str) -> None:
    """Run a mutant's source as the module, for those who imported names from it, too."""
    own = vars(importlib.import_module(module))
    before = {name: value for name, value in own.items() if getattr(value, "__module__", None) == module}
    exec(compile(source, f"<mutant of {module}>", "exec"), own)
    for other in [loaded for name, loaded in sys.modules.items() if name.startswith("osdtw_")]:
        for name, value in list(vars(other).items()):
            for known in (known for known, old in before.items() if value is old):
                setattr(other, name, own[known])


def study(modules: list[str]) -> list[Row]:
    """A row a module."""
    rows = []
    for module in modules:
        file = Path(str(importlib.import_module(module).__file__))
        source = file.read_text(encoding="utf-8")
        if killed(module, source):
            raise RuntimeError(f"The tests of {module} fail on the module as it is.")
        found, right = [], []
        for what, wrong in mutants(source):
            if what.partition(": ")[2] in NO_FAULTS[module]:
                right.append(what)
                continue
            found.append(killed(module, wrong))
            if not found[-1]:
                print(f"{module}, {what}: no test fails", flush=True)
        rows.append(tried(FAULT, f"`{module}`", found, "a test fails" + _said(module, right)))
        print(rows[-1], flush=True)
    return rows


def _said(module: str, right: list[str]) -> str:
    """Which mutants are no faults, and why."""
    if not right:
        return ""
    lines: dict[str, list[str]] = {}
    for line, _, what in (each.removeprefix("line ").partition(": ") for each in right):
        lines.setdefault(what, []).append(line)
    each = [f"`{what}` in line {', '.join(where)} ({NO_FAULTS[module][what]})" for what, where in lines.items()]
    return f"; not counted, as no faults: {'; '.join(each)}"


def main() -> int:
    """Run the study and write its file."""
    torch.set_num_threads(1)
    modules = sys.argv[1:] or list(TESTS)

    def joined(_: int) -> list[Row]:
        found = {row.where: row for row in (*rows_before("mutation"), *study(modules))}
        return [found[where] for where in (f"`{module}`" for module in TESTS) if where in found]

    return write_study("mutation", "Mutants that the tests must see", 0, joined, partial=bool(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
