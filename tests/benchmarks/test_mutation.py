"""Mutants of a few lines, against a list by hand."""

from mutation import mutants

SOURCE = '''
def f(a: int = 2, *, dim=-1):
    """Of a + 1."""
    if a == 1 or not a:
        raise ValueError(f"{a + 1} is odd")
    return a[:dim] if 0 <= a < 3 else sum(a, start=-1)
'''
CHANGES = {
    "line 2: 2 -> 3",
    "line 2: -1 -> +1",
    "line 2: -1 -> -2",
    "line 4: if a == 1 or not a: -> if not (a == 1 or not a):",
    "line 4: a == 1 or not a -> a == 1 and (not a)",
    "line 4: a == 1 -> a != 1",
    "line 4: 1 -> 2",
    "line 6: return a[:dim] if 0 <= a < 3 else sum(a, start=-1) -> return None",
    "line 6: a[:dim] if 0 <= a < 3 else sum(a, start=-1) -> a[:dim] if not 0 <= a < 3 else sum(a, start=-1)",
    "line 6: 0 <= a < 3 -> 0 < a < 3",
    "line 6: 0 <= a < 3 -> 0 <= a <= 3",
    "line 6: 0 -> 1",
    "line 6: 3 -> 4",
    "line 6: start=-1 -> start=+1",
    "line 6: start=-1 -> start=-2",
}


def test_every_operator_constant_condition_and_return_is_changed_once_and_no_message():
    found = list(mutants(SOURCE))
    assert len(found) == len(CHANGES)
    assert {what for what, _ in found} == CHANGES
    assert len({source for _, source in found}) == len(CHANGES)
    for _, source in found:
        compile(source, "mutant", "exec")
