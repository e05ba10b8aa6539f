"""The door ``osdtw-publish``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from osdtw_export.door import EXTRA, Parser, run_door

if TYPE_CHECKING:
    from osdtw_export.upload import Published

EXAMPLES = """\
examples:
  osdtw-publish runs/birds --repo me/birds --dry-run upload    writes the folder upload/, uploads nothing
  osdtw-publish runs/birds --repo me/birds                     uploads that folder; again, and nothing changes
  osdtw-publish upload --repo me/birds                         the same after you have edited upload/README.md
  osdtw-publish osdtw_resnet32 --repo org/name --private       a packaged checkpoint, not for everybody
  osdtw-publish demo --space --repo me/birds-demo              a folder of static pages, as a Space

The folder holds model.safetensors, config.json, onnx/model.onnx, preprocessor_config.json, README.md (the card),
figures, results.json and the recipe. What your folder has of it is taken, such as onnx/model_fp16.onnx written by
'osdtw-export --onnx runs/birds --precision fp16 --hub runs/birds'; what it lacks is made. It goes to the Hub only if
weights load, ONNX and PyTorch agree, and the card states the figures of results.json. Afterwards, anywhere:

  timm.create_model("hf-hub:me/birds", pretrained=True)        # after import osdtw_models
  osdtw-predict --model hf-hub:me/birds photo.jpg
"""


def main(argv: list[str] | None = None) -> int:
    """``osdtw-publish``: upload a trained network to the Hugging Face Hub.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code, as `osdtw_models.doors.run_door` gives it.
    """
    return run_door(_parser(), _publish, argv)


def _parser() -> Parser:
    parser = Parser(
        "osdtw-publish", "Upload a trained network to the Hugging Face Hub as one checked folder.", EXAMPLES
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", help="a released name, a run folder, a folder of --dry-run, or that of a Space")
    add("--repo", required=True, metavar="ORG/NAME", help="the repository; made if there is none")
    add(
        "--license",
        default="apache-2.0",
        metavar="NAME",
        help="licence of the weights as the Hub spells it, for a card that is made (default: apache-2.0)",
    )
    add("--private", action="store_true", help="only the organisation may see it")
    add(
        "--dry-run",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="DIR",
        help="check, write the folder DIR (default: the repository's name), upload nothing",
    )
    add("--space", action="store_true", help="SOURCE is a folder of static pages; upload it as it is, as a Space")
    return parser


def _publish(options: argparse.Namespace) -> None:
    """Check, assemble, upload, tell."""
    from osdtw_export.upload import check_name, check_repo, check_uploadable, upload
    from osdtw_models.doors import need

    if options.dry_run is None:
        check_repo(options.repo)
    check_name(options.repo)
    if options.space:
        if options.dry_run is not None:
            check_uploadable(Path(options.source), "space")
            print(f"Nothing to write: {options.source} is uploaded as it is.")
            return
        _tell(upload(Path(options.source), options.repo, "space", options.private))
        return
    need("export", *EXTRA)
    from osdtw_export.publish import assembled, check_free, keep

    target = options.dry_run
    if target is not None:
        target = target if target.parts else Path(options.repo.partition("/")[2])
        check_free(target)
    with assembled(options.source, options.repo, options.license) as (folder, checked):
        print(*(f"Checked  {line}" for line in checked), sep="\n", flush=True)
        if target is None:
            _tell(upload(folder, options.repo, "model", options.private))
        else:
            print(*(f"Wrote    {file}" for file in keep(folder, target)), sep="\n")


def _tell(published: Published) -> None:
    print(f"{'Uploaded' if published.changed else 'Nothing new:'} {published.url} is at {published.revision}")


if __name__ == "__main__":
    sys.exit(main())
