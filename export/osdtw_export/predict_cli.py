"""The door ``osdtw-predict``; it stands here because only this package reaches networks and ONNX files alike."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osdtw_export.door import DEFAULT_SOURCE, Parser, run_door

if TYPE_CHECKING:
    from osdtw_models.predict import Prediction, Predictor

EXAMPLES = """\
examples:
  osdtw-predict photo.jpg                                the packaged osdtw_resnet32
  osdtw-predict --model runs/birds photos/ -o seen.csv   your own training on a folder of images
  osdtw-predict --model birds.onnx --json a.jpg          an exported file, machine-readable
  osdtw-predict --model runs/birds --prior training a.jpg      where rare classes are as rare as in training
  osdtw-predict --data cifar100 -o seen.parquet          a whole test set, true labels beside the predictions
  osdtw-predict --model runs/birds --data test.csv --data-dir birds    a list of images below birds, likewise
"""


def main(argv: list[str] | None = None) -> int:
    """``osdtw-predict``: classify images with a network or an ONNX file.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code, as `osdtw_models.doors.run_door` gives it.
    """
    return run_door(_parser(), _predict, argv)


def _parser() -> Parser:
    parser = Parser(
        "osdtw-predict",
        "Classify images: the most probable classes, the task that each belongs to, and each task's 'none'.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("paths", nargs="*", metavar="FILE", help="image files, or folders of them")
    add(
        "--model",
        default=DEFAULT_SOURCE,
        metavar="SOURCE",
        help=f"an .onnx file, a model name, a run folder, or hf-hub:org/name (default: {DEFAULT_SOURCE})",
    )
    add("--data", metavar="NAME", help="instead of files a data set: a folder, a list (.txt, .csv) or a name")
    add("--data-dir", metavar="DIR", help="for CIFAR, lists and timm's names: the folder of the images")
    add("--test-list", metavar="FILE", help="for lists: the test images")
    add("--val-list", metavar="FILE", help="for lists: the validation images")
    splits = ("test", "val", "train")
    add("--split", default="test", choices=splits, help="which images of --data (default: test)")
    add(
        "--prior",
        default="balanced",
        metavar="PRIOR",
        help="how frequent the classes are: balanced, training, or a file of weights (default: balanced)",
    )
    add("--topk", type=int, default=5, metavar="K", help="classes per image (default: 5)")
    add("--batch-size", type=int, default=64, metavar="N", help="images per pass (default: 64)")
    add(
        "--provider",
        choices=("tensorrt", "cuda", "cpu"),
        help="what runs an .onnx file (default: cuda where it is installed, else cpu)",
    )
    add("-o", "--output", type=Path, metavar="FILE", help="write .csv, .json, .jsonl or .parquet instead of printing")
    add("--json", action="store_true", help="print one JSON object per image")
    return parser


def _predict(options: argparse.Namespace) -> None:
    """Load, classify, print or write."""
    from osdtw_models.tables import check_table, write_table

    if options.paths and options.data:
        raise ValueError("Both files and --data are given; choose one.")
    if not (options.paths or options.data):
        raise ValueError("Nothing to classify; give image files, folders or --data NAME.")
    if not options.data and (options.data_dir or options.test_list or options.val_list):
        raise ValueError("--data-dir, --test-list and --val-list go with a data set; give --data, or leave them out.")
    if options.output:
        check_table(options.output)
    predictor, rows = _predictor(options), []
    for found, label in _watched(_classified(predictor, options)):
        if options.output:
            rows.append(found.row() if label is None else {"label": label, **found.row()})
        elif options.json:
            print(json.dumps(asdict(found) if label is None else {"label": label, **asdict(found)}))
        else:
            _tell(found, label)
    if options.output:
        write_table(options.output, rows)
        print(f"Wrote {options.output}: {len(rows)} images")


def _predictor(options: argparse.Namespace) -> Predictor:
    from osdtw_models.doors import need
    from osdtw_models.predict import Classifier, Predictor

    source: str | Classifier = options.model
    if options.model.endswith(".onnx"):
        need("export", "onnxruntime", "onnx")
        from osdtw_export.runtime import OnnxClassifier

        source = OnnxClassifier(options.model, options.provider, batch_size=options.batch_size)
    elif options.provider:
        raise ValueError(f"--provider is for .onnx files, and {options.model} is none; export it first.")
    return Predictor(source, options.prior, options.topk, options.batch_size)


def _classified(predictor: Predictor, options: argparse.Namespace) -> Iterator[tuple[Prediction, str | None, int]]:
    """Predictions, the true label where there is one, and the number of images in all."""
    from osdtw_models.datasets import read_images
    from osdtw_models.predict import image_files
    from osdtw_models.sources.lists import Lists

    if not options.data:
        files = image_files(options.paths)
        for found in predictor.stream(files):
            yield found, None, len(files)
        return
    known = predictor.classifier
    fitting = (known.input_size[-1], options.data_dir, known.crop_pct, known.interpolation)
    lists = Lists(options.test_list, options.val_list)
    images = read_images(options.data, options.split, *fitting, lazy=True, lists=lists, class_names=known.label_names)
    labels, start = images.labels.tolist(), 0
    for batch in images.images.split(predictor.batch_size):
        names = images.names[start : start + len(batch)]
        predictions = predictor.from_pixels(batch.permute(0, 2, 3, 1).numpy(), names)
        for found, label in zip(predictions, labels[start:], strict=False):
            yield found, images.class_names[label], len(images)
        start += len(batch)


def _watched(found: Iterator[tuple[Prediction, str | None, int]]) -> Iterator[tuple[Prediction, str | None]]:
    """The same with a progress bar where somebody watches and tqdm is installed."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        yield from ((prediction, label) for prediction, label, _ in found)
        return
    bar: Any = None
    for prediction, label, total in found:
        bar = bar or tqdm(total=total, leave=False, disable=None, unit=" images")
        bar.update()
        yield prediction, label
    if bar is not None:
        bar.close()


def _tell(found: Prediction, label: str | None) -> None:
    none = "".join(f"  none{k} {value:.2f}" for k, value in enumerate(found.none))
    best = "  ".join(f"{name} {p:.2f}" for name, p in zip(found.labels, found.probabilities, strict=True))
    true = "" if label is None else f" ({label})"
    print(f"{found.name}{true}: {best}   [task {found.tasks[0]}{none}]")


if __name__ == "__main__":
    sys.exit(main())
