"""Mutants of pure modules: does a test of the module fail when one operator, constant or return of it is wrong?

    python benchmarks/reliability/mutation.py [MODULE ...]

Each mutant lives in a forked process that runs the module's own tests until the first one fails. Survived means that
the tests stand: a mutant was killed. A mutant that is lost changes nothing that a test sees; the study prints it.
"""

from __future__ import annotations

import ast
import copy
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rows import Row, write_study

ROOT = Path(__file__).parents[2]
TESTS = {
    "osdtw_models.fusion": ("tests/models/test_fusion.py",),
    "osdtw_models.partition": ("tests/models/test_partition.py",),
    "osdtw_training.proxy": ("tests/training/test_proxy.py",),
    "osdtw_export.pack": ("tests/export/test_pack.py",),
}
SECONDS = 300
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
    for place, node in enumerate(ast.walk(tree)):
        for change in _changes(node):
            wrong = copy.deepcopy(tree)
            target = next(each for number, each in enumerate(ast.walk(wrong)) if number == place)
            before = ast.unparse(target)
            change(target)
            after = ast.unparse(target)
            if before != after and not _is_word(node, tree):
                yield (
                    f"line {getattr(node, 'lineno', 0)}: {before} -> {after}"[:200],
                    ast.unparse(ast.fix_missing_locations(wrong)),
                )


def _is_word(node: ast.AST, tree: ast.Module) -> bool:
    """Whether a node only says something: annotations, defaults of dataclasses' fields stay in."""
    words = [part for part in ast.walk(tree) if isinstance(part, ast.JoinedStr | ast.arg | ast.AnnAssign)]
    return any(node is inner for part in words for inner in ast.walk(part))


def _changes(node: ast.AST) -> list[object]:
    """What can be wrong at a node: functions that change it in place."""
    found: list[object] = []
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        found.append(lambda n: setattr(n, "op", SWAPS[type(n.op)]()))
    if isinstance(node, ast.BoolOp):
        found.append(lambda n: setattr(n, "op", SWAPS[type(n.op)]()))
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        found.append(lambda n: n.ops.__setitem__(0, SWAPS[type(n.ops[0])]()))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        found.append(lambda n: setattr(n, "op", ast.UAdd()))
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        found.append(lambda n: setattr(n, "value", not n.value))
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        found.append(lambda n: setattr(n, "value", n.value + 1))
    if isinstance(node, ast.Return) and node.value is not None:
        found.append(lambda n: setattr(n, "value", ast.Constant(None)))
    if isinstance(node, ast.If | ast.IfExp):
        found.append(lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test)))
    return found


def killed(module: str, source: str) -> bool:
    """Whether a test of the module fails on a mutant."""
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)  # a mutant that hangs is killed, too
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        code = 1
        try:
            exec(compile(source, f"<mutant of {module}>", "exec"), importlib.import_module(module).__dict__)
            words = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:randomly"]
            code = int(pytest.main([*words, *(str(ROOT / test) for test in TESTS[module])]))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def study(modules: list[str]) -> list[Row]:
    """A row a module."""
    rows = []
    for module in modules:
        file = Path(str(importlib.import_module(module).__file__))
        source = file.read_text(encoding="utf-8")
        if killed(module, source):
            raise RuntimeError(f"The tests of {module} fail on the module as it is.")
        found = []
        for what, wrong in mutants(source):
            found.append(killed(module, wrong))
            if not found[-1]:
                print(f"{module}, {what}: no test fails", flush=True)
        note = "a test fails; the others change what no test can see"
        rows.append(
            Row("one operator, constant, condition or return is wrong", f"`{module}`", len(found), sum(found), note)
        )
        print(rows[-1], flush=True)
    return rows


def main() -> int:
    """Run the study and write its file."""
    torch.set_num_threads(1)
    modules = sys.argv[1:] or list(TESTS)
    return write_study("mutation", "Mutants that the tests must see", 0, lambda _: study(modules))


if __name__ == "__main__":
    sys.exit(main())
