"""The door ``osdtw-eval``."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence

from osdtw_models.doors import Parser, run_door

EXAMPLES = """\
examples:
  osdtw-eval osdtw_resnet32 --data cifar100                          the released weights, data from the Hub
  osdtw-eval osdtw_resnet32 --data cifar100 --data-dir ~/cifar100    data from a folder of parquet files
  osdtw-eval runs/birds --data birds                                 your own run on birds/test or birds/val
  osdtw-eval runs/birds --data test.csv --data-dir birds             on a list of images below birds
  osdtw-eval runs/x --data imagenet_lt --data-dir ~/imagenet         on a published list that lies in the folder
"""


def evaluate(argv: Sequence[str] | None = None) -> int:
    """``osdtw-eval``: accuracy of a network on a test set, by class frequency, with calibration.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code.
    """
    return run_door("osdtw-eval", _evaluate, argv)


def _evaluate(argv: list[str]) -> None:
    parser = Parser(
        "osdtw-eval",
        "Evaluate a trained network on a test set: overall, head and tail, many / medium / few, calibration.",
        EXAMPLES,
    )
    parser.add_argument("source", metavar="SOURCE", help="a released name, a run folder, or hf-hub:org/name")
    parser.add_argument("--data", required=True, help="a folder, a list (.txt, .csv) or a data set's name")
    parser.add_argument("--data-dir", metavar="DIR", help="for CIFAR, lists and timm's names: the folder of the images")
    parser.add_argument("--test-list", metavar="FILE", help="for lists: the test images")
    parser.add_argument("--val-list", metavar="FILE", help="for lists: the validation images")
    splits = ("test", "val", "train")
    parser.add_argument("--split", default="test", choices=splits, help="which images of the data set (default: test)")
    parser.add_argument(
        "--prior",
        default="balanced",
        metavar="PRIOR",
        help="class prior of the predictions: balanced, training, or a file of weights (default: balanced)",
    )
    parser.add_argument("--batch-size", type=int, default=100, metavar="N", help="images per pass (default: 100)")
    parser.add_argument(
        "--broken",
        default="leave_out",
        choices=("leave_out", "error"),
        help="images that cannot be read: left out and named, or an error (default: leave_out, as in training)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(argv)
    if options.batch_size < 1:
        raise ValueError(f"--batch-size is {options.batch_size}; it must be at least 1.")

    import torch

    from osdtw_models.datasets import read_images
    from osdtw_models.evaluation import evaluate_logits, predict_images
    from osdtw_models.load import load_model
    from osdtw_models.predict import preparation
    from osdtw_models.prior import resolve_prior, under_prior
    from osdtw_models.soundness import named
    from osdtw_models.sources.lists import Lists

    model = load_model(options.source)
    cfg = preparation(model)
    labels = model.pretrained_cfg.get("label_names")
    fitting = (cfg["input_size"][-1], options.data_dir, cfg["crop_pct"], cfg["interpolation"])
    known = {"broken": options.broken, "lists": Lists(options.test_list, options.val_list), "class_names": labels}
    images = read_images(options.data, options.split, *fitting, lazy=True, **known)
    if images.left_out:
        print(f"{len(images.left_out)} broken images are left out: {named(images.left_out)}", file=sys.stderr)
    if len(images.class_names) != model.num_classes:
        raise ValueError(
            f"{options.data} has {len(images.class_names)} classes but {options.source} knows {model.num_classes}; "
            "evaluate on the classes it was trained on."
        )
    if labels and tuple(labels) != images.class_names:
        odd = next(pair for pair in zip(labels, images.class_names, strict=True) if pair[0] != pair[1])
        raise ValueError(
            f"{options.data} has the class {odd[1]!r} where {options.source} knows {odd[0]!r}; evaluate on the classes "
            "it was trained on, under the same names."
        )
    prior = resolve_prior(options.prior, model.class_counts, labels)
    logits = predict_images(model, images.images, options.batch_size)
    logits = torch.from_numpy(under_prior(logits.numpy(), prior))
    figures = dict(evaluate_logits(logits, images.labels, model.partition, model.class_counts))
    if options.json:
        known = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        read = {"images": len(images), "broken_images_left_out": len(images.left_out)}
        print(json.dumps({"source": options.source, "data": options.data, **read, **known}))
        return
    print(f"{options.source} on {len(images)} {options.split} images of {options.data}")
    for name, value in figures.items():
        unit = "nats" if name == "nll" else "%"
        print(f"  {name:<12}{'       -' if math.isnan(value) else f'{value:8.2f} {unit}'}")  # a group without classes


if __name__ == "__main__":
    sys.exit(evaluate())
