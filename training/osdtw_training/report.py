"""Run folder -> ``report.html``, one page that asks nobody for anything, with ``results.csv`` and pictures beside it.

Everything comes from the folder, and the runs beside it: no image is read, no network runs. Names of classes and all
else that files say is text to the template, never markup.
"""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import jinja2

from osdtw_models.files import write_text
from osdtw_models.tables import write_table
from osdtw_training import figures, mistakes
from osdtw_training.class_rows import Row, rows_of
from osdtw_training.comparison import beside
from osdtw_training.runs import Run
from osdtw_training.verdict import GROUP_WORDS, plan_sentences, sentences

PAGE, TABLE = "report.html", "results.csv"
PNG = b"\x89PNG\r\n\x1a\n"


def write(run: Run) -> list[Path]:
    """Draw all pictures of a finished run anew, and write its table and its page.

    Args:
        run: Run folder with ``results.json``.

    Returns:
        The files written, the page last.

    Raises:
        FileNotFoundError: If the run is not finished.
        ValueError: If there are no figures in its results.
    """
    results = run.read_json("results.json")
    split = next((name for name in ("test", "holdout") if name in results), None)
    if split is None:
        raise ValueError(f"{run.folder} has no figures to report: its data had neither test nor held-out images.")
    names = run.read_json("config.json")["label_names"]
    rows = rows_of(names, results["class_counts"], results[split], mistakes.read_confusion(run.folder))
    write_table(run.folder / TABLE, [dict(row) for row in rows])
    pictures = figures.draw(run)
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    ).get_template(PAGE)
    values = _values(run, results, split, rows)
    page = template.render(pictures={path.stem: _data_uri(path) for path in pictures}, **values)
    write_text(run.folder / PAGE, page)
    return [*pictures, run.folder / TABLE, run.folder / PAGE]


def _values(run: Run, results: dict[str, Any], split: str, rows: list[Row]) -> dict[str, Any]:
    """What the template shows."""
    found = results[split]
    classes = [row for row in rows if row["of"] == "class"]
    worst = mistakes.worst_classes(found["per_class"], [row["images"] or 0 for row in classes])
    compared = beside(run.folder, results, split)
    plan = run.read_json("plan.json") if "plan" in results else None
    return {
        "results": results,
        "split": split,
        "figures": found,
        "groups": [row for row in rows if row["of"] == "group"],
        "group_words": GROUP_WORDS,
        "classes": sorted(classes, key=lambda row: -row["training_images"]),
        "worst": [(classes[c], _shown(run.folder, found, c, classes)) for c in worst],
        "compared": compared,
        "verdict": list(sentences(found, rows, worst, compared, split)),
        "plan": list(plan_sentences(results, plan)) if plan is not None else [],
        "before": results.get("calibration", {}).get("before", {}).get(split),
    }


def _shown(folder: Path, found: dict[str, Any], label: int, classes: list[Row]) -> list[dict[str, Any]]:
    """The mistakes of a class that have a picture."""
    shown = []
    for number, mistake in enumerate(found.get("mistakes", [])):
        path = mistakes.picture(folder, number)
        if mistake["label"] == label and path.is_file():
            taken = classes[mistake["predicted"]]["name"]
            shown.append({"picture": _data_uri(path), "taken_for": taken, **mistake})
    return shown


def _data_uri(path: Path) -> str:
    content = path.read_bytes()
    if not content.startswith(PNG):
        raise ValueError(f"{path} is no PNG picture; delete it and train with --resume to have it drawn again.")
    return f"data:image/png;base64,{b64encode(content).decode()}"
