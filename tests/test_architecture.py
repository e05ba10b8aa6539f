"""The walls of the house: which package may import which, read from the source, lazy imports included."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOMES = {
    "osdtw_models": ROOT / "osdtw_models",
    "osdtw_training": ROOT / "training" / "osdtw_training",
    "osdtw_export": ROOT / "export" / "osdtw_export",
}
MAY_IMPORT = {"osdtw_models": set(), "osdtw_training": {"osdtw_models"}, "osdtw_export": {"osdtw_models"}}
MODEL_LIBRARIES = {"torch", "timm", "safetensors", "huggingface_hub", "numpy", "PIL", "tqdm"}
# Inside training a room imports only from the columns to its right.
TRAINING_COLUMNS = [
    {"cli", "demo", "benchmark"},
    {"pipeline", "options", "checking"},
    {"report"},
    {"stages", "methods", "figures", "benchmark_figures", "checks", "results", "verdict"},
    {"planning", "engine", "calibration", "budget", "provenance", "inventory", "mistakes", "class_rows", "comparison"}
    | {"benchmark_table", "commands"},
    {"networks", "search", "selection", "steps"},
    {"proxy", "schur", "store"},
    {"fisher", "responses", "terms"},
    {"observer", "kronecker", "secants", "sampling", "class_weights"},
    {"layers"},
    {"gradients", "structures"},
    {"data", "runs", "batch_norm"},
    {"batches", "subsets", "locks", "checkpoints"},
    {"photo_batches", "auto_augment", "cutmix", "objectives", "distributed"},
    {"preparation", "recipe_files", "seeding"},
    {"recipe", "benchmark_list"},
    {"recipe_checks"},
    {"recipe_fields"},
    {"recipe_tables", "values"},
    {"toml_files"},
]


def modules(package):
    """Every module of a package by its dotted name."""
    home = HOMES[package]
    for path in sorted(home.rglob("*.py")):
        parts = path.relative_to(home.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(tree, module="", is_package=False):
    """Dotted names that a syntax tree imports; ``from a import b`` counts as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                base = ".".join([*parts[: len(parts) + is_package - node.level], *filter(None, [base])])
            yield from (f"{base}.{name.name}" for name in node.names)


def read(module, path):
    return set(imports(ast.parse(path.read_text()), module, path.stem == "__init__"))


def at_import_time(tree):
    """The tree without the bodies of its functions: what runs when the module is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
    return tree


def graph(package):
    """Imports between the modules of one package."""
    names = dict(modules(package))
    edges = {}
    for module, path in names.items():
        found = read(module, path)
        edges[module] = {name if name in names else name.rpartition(".")[0] for name in found} & names.keys()
    return edges


def test_reader_sees_every_form_of_import():
    source = "import a.b, c as d\nfrom e.f import g\nfrom . import h\nfrom ..i import j\ndef k():\n    import l\n"
    seen = set(imports(ast.parse(source), "p.q.r"))
    assert seen == {"a.b", "c", "e.f.g", "p.q.h", "p.i.j", "l"}
    assert set(imports(ast.parse("from . import h"), "p.q", is_package=True)) == {"p.q.h"}
    assert "l" not in set(imports(at_import_time(ast.parse(source)), "p.q.r"))


@pytest.mark.parametrize("package", HOMES)
def test_packages_import_only_what_the_arrows_allow(package):
    forbidden = HOMES.keys() - MAY_IMPORT[package] - {package}
    through = {
        f"{module} imports {name}"
        for module, path in modules(package)
        for name in read(module, path)
        if name.partition(".")[0] in forbidden
    }
    assert not through


def test_models_import_no_library_but_their_own():
    allowed = MODEL_LIBRARIES | set(sys.stdlib_module_names) | {"osdtw_models"}
    strangers = {
        f"{module} imports {name}"
        for module, path in modules("osdtw_models")
        for name in imports(at_import_time(ast.parse(path.read_text())), module, path.stem == "__init__")
        if name.partition(".")[0] not in allowed
    }
    assert not strangers


def test_training_imports_only_to_the_right():
    column = {room: i for i, rooms in enumerate(TRAINING_COLUMNS) for room in rooms}

    def room(module):
        return f"{module}.".split(".")[1]

    backwards = {
        f"{importer} imports {imported}"
        for importer, found in graph("osdtw_training").items()
        for imported in found
        if {room(importer), room(imported)} <= column.keys()
        and room(importer) != room(imported)
        and column[room(importer)] >= column[room(imported)]
    }
    assert not backwards


@pytest.mark.parametrize("package", HOMES)
def test_no_package_imports_in_circles(package):
    graphlib.TopologicalSorter(graph(package)).prepare()


def test_only_the_three_packages_are_importable():
    roofs = ["training", "export", "model_cards", "tests"]
    assert not [roof for roof in roofs if list((ROOT / roof).glob("__init__.py"))]
    assert all((home / "py.typed").is_file() for home in HOMES.values())
