"""A trained network -> the folder that the Hub shows, checked.

What the source's folder lacks is made: the ONNX file, the preprocessing, the card. What it has is taken: files of other
precisions, figures, a card that somebody has edited. Either way the folder is published only if its weights load, every
ONNX file was made from them and agrees with them, and the card's figures are those of ``results.json``.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from huggingface_hub import ModelCard

from osdtw_export.card import Release, card, metadata, template
from osdtw_export.card_fields import results_table
from osdtw_export.describe import describe
from osdtw_export.export import export_onnx
from osdtw_export.hub import SUFFIXES, hub_file, write_preprocessing
from osdtw_export.parity import check_parity
from osdtw_export.results import Results, incomplete, read, read_all
from osdtw_export.runtime import OnnxClassifier
from osdtw_models import OsdtwNet
from osdtw_models.doors import first_line
from osdtw_models.files import write_text
from osdtw_models.load import folder_of, load_model
from osdtw_models.releases import CONFIG, RELEASES, WEIGHTS
from osdtw_models.saved_files import read_config

CARD, RESULTS, RECIPES = "README.md", "results.json", ("recipe.json", "recipe.toml")
LICENSE = "apache-2.0"
REPOSITORY = Path(__file__).parents[2]


@contextmanager
def assembled(source: str, repo: str, license_: str = LICENSE) -> Iterator[tuple[Path, list[str]]]:
    """A folder that can be published, for as long as it is needed.

    Args:
        source: What is published: a released name, a run folder, or a folder of this form.
        repo: "org/name", which card and ONNX file name.
        license_: The weights' licence, as the Hub spells it, for a card that is made.

    Yields:
        The folder, and what was checked, in words.

    Raises:
        OSError: If the source, or a file of it that cannot be made, is missing.
        ValueError: If a file is damaged, or does not pass its check.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "published"
        assemble(source, repo, folder, license_)
        yield folder, check(folder)


def assemble(source: str, repo: str, folder: Path, license_: str = LICENSE) -> None:
    """Write the folder, unchecked.

    Args:
        source: See `assembled`.
        repo: See `assembled`.
        folder: Where to write; made if missing.
        license_: See `assembled`.

    Raises:
        FileNotFoundError: If the source has no results or no recipe.
        ValueError: If the network cannot be exported or described.
    """
    origin = folder_of(source)
    if not (origin / RESULTS).is_file():
        raise FileNotFoundError(
            f"{source} has no {RESULTS}, which its card states; give a folder that osdtw-train wrote."
        )
    model, results = load_model(source), without_places(read(origin / RESULTS))
    for name in (CONFIG, WEIGHTS):
        _copy(origin / name, folder / name)
    write_text(folder / RESULTS, json.dumps(results, indent=2) + "\n")
    _write_recipe(origin, folder, results)
    pictures = [origin, origin / "figures"]
    if origin.parent == RELEASES:  # the repository keeps them with the cards
        pictures.append(REPOSITORY / "model_cards" / origin.name)
    for figure in (file for place in pictures for file in place.glob("*.png")):
        _copy(figure, folder / "figures" / figure.name)
    _write_onnx(model, origin, folder, f"hf-hub:{repo}")
    if (origin / CARD).is_file():
        _copy(origin / CARD, folder / CARD)
    else:
        write_text(folder / CARD, _card(origin, folder, repo, results, license_))


def keep(folder: Path, target: Path) -> list[Path]:
    """Move an assembled folder to where its user wants to look at it.

    Args:
        folder: The folder.
        target: Its new place; a folder that is there must be empty.

    Returns:
        The files.

    Raises:
        FileExistsError: If something is there already.
    """
    check_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target.rmdir()
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        shutil.copytree(folder, draft / target.name).replace(target)
    finally:
        shutil.rmtree(draft)
    return sorted(path for path in target.rglob("*") if path.is_file())


def check_free(target: Path) -> None:
    """Refuse a place that something else takes already."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(f"{target} is there already; name a folder that is empty or does not exist.")


def check(folder: Path) -> list[str]:
    """Check what is published, as it will be.

    Args:
        folder: The folder.

    Returns:
        What was found, in words.

    Raises:
        OSError: If a file is missing.
        ValueError: If the weights do not load, an ONNX file is not theirs, or the card states other figures.
    """
    model, results = load_model(folder), read(folder / RESULTS)
    digest = describe(model, "").weights_sha256
    lines = [f"{WEIGHTS} loads: {sum(p.numel() for p in model.parameters()):,} parameters"]
    for file in sorted((folder / "onnx").glob("*.onnx")):
        name = file.relative_to(folder).as_posix()
        if OnnxClassifier(file, "cpu").metadata.weights_sha256 != digest:
            raise ValueError(f"{name} was made from other weights; delete it to have it made anew.")
        worst = check_parity(model, file).worst()
        lines.append(f"{name} agrees with PyTorch: largest difference {worst.difference:.1e} in {worst.output}")
    check_card((folder / CARD).read_text(encoding="utf-8"), results)
    return [*lines, f"{CARD} states the figures of {RESULTS}"]


def check_card(text: str, results: Results) -> None:
    """Refuse a card whose figures are not those of the results.

    Args:
        text: The card.
        results: Content of ``results.json``.

    Raises:
        ValueError: If the table of figures is missing or another, or the metadata state another figure.
    """
    try:
        table, true = results_table(results), metadata(Release(""), results).eval_results or []
    except (KeyError, TypeError) as error:
        raise ValueError(incomplete(RESULTS, error)) from error
    if table not in text:
        raise ValueError(
            f"{CARD} does not show the figures of {RESULTS}; its table of them must be as in a card made anew."
        )
    try:
        stated = getattr(ModelCard(text).data, "eval_results", None) or []
    except Exception as error:  # YAML has errors of its own
        raise ValueError(f"The header of {CARD} is not what the Hub reads: {first_line(error)}.") from error
    for each in stated:
        if (each.metric_type, each.metric_value) not in [(one.metric_type, one.metric_value) for one in true]:
            raise ValueError(f"The header of {CARD} states {each.metric_type} {each.metric_value}; {RESULTS} does not.")


def without_places(value: Any) -> Any:
    """JSON in which absolute paths are cut to their last part: where files lie is their owner's own affair."""
    if isinstance(value, dict):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or PureWindowsPath(value).is_absolute()):
        return (PureWindowsPath(value) if "\\" in value else PurePath(value)).name
    return value


def _write_onnx(model: OsdtwNet, origin: Path, folder: Path, source: str) -> None:
    """Take the ONNX files that are there, export what must be, and say how images are prepared."""
    for precision in SUFFIXES:
        made, target = hub_file(origin, precision), hub_file(folder, precision)
        target.parent.mkdir(parents=True, exist_ok=True)
        if made.is_file():
            _copy(made, target)
        elif precision == "fp32":
            export_onnx(model, target, source=source)
    write_preprocessing(folder, describe(model, source))


def _write_recipe(origin: Path, folder: Path, results: Results) -> None:
    """The recipe as it ran, or the packaged one that a release was trained by."""
    as_it_ran, toml = (origin / name for name in RECIPES)
    if as_it_ran.is_file():
        write_text(folder / as_it_ran.name, json.dumps(without_places(read(as_it_ran)), indent=2) + "\n")
        return
    if not toml.is_file():
        training = find_spec("osdtw_training")  # its recipes are files like any other; nothing of it is imported
        places = training.submodule_search_locations if training else None
        toml = Path(next(iter(places or []), ".")) / "recipes" / f"{results.get('recipe')}.toml"
    if not toml.is_file():
        raise FileNotFoundError(f"{origin} has no {RECIPES[0]}; give a folder that osdtw-train wrote.")
    _copy(toml, folder / RECIPES[1])


def _card(origin: Path, folder: Path, repo: str, results: Results, license_: str) -> str:
    """The card, made from the results."""
    released = origin.parent == RELEASES
    study = REPOSITORY / "benchmarks" / "results"
    others = read_all(study) if released and study.is_dir() else None
    figures = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.glob("figures/*.png")))
    name = origin.name if released else repo.partition("/")[2]
    arguments = read_config(folder / CONFIG).get("model_args", {})
    return card(Release(name, f"hf-hub:{repo}", license_, figures, arguments), results, template(), others)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
