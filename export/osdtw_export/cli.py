"""The door ``osdtw-export``.

Torch and ONNX are imported when it has something to do: ``--help`` answers at once, and a missing extra is one sentence
instead of a traceback.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from osdtw_export.door import DEFAULT_SOURCE, EXTRA, origin_of, run_door, source_name
from osdtw_export.options import chosen_variant, export_parser

if TYPE_CHECKING:
    from osdtw_export.metadata import Metadata


def main(argv: list[str] | None = None) -> int:
    """``osdtw-export``: write a trained network as an ONNX file.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code, as `osdtw_models.doors.run_door` gives it.
    """
    return run_door(export_parser(), _export, argv)


def _export(options: argparse.Namespace) -> None:
    """Load, export, tell."""
    variant = chosen_variant(options)
    from osdtw_models.doors import need

    need("export", *EXTRA)
    from osdtw_export.accuracy import read_data
    from osdtw_export.describe import describe
    from osdtw_export.export import export_onnx
    from osdtw_export.telling import file_lines, network_lines
    from osdtw_export.tune import candidates, tune
    from osdtw_models.load import load_model

    source = options.source
    if source is None:
        source = DEFAULT_SOURCE
        print(f"No SOURCE given: exporting the packaged {source} with its pretrained weights.")
    name = source_name(source)
    model = load_model(source)
    origin = origin_of(source)
    described = describe(model, origin)
    print(f"Source   {source}", *network_lines(described, model.num_blocks), sep="\n", flush=True)
    data = read_data(described, options.data, options.data_dir) if options.data else None
    output = _place(options, name, variant.precision)
    if options.tune:
        tried = candidates(variant, options.pack, options.precision, data)
        file = tune(model, output, tried, source=origin, data=data, debug=options.debug)
    else:
        file = export_onnx(model, output, source=origin, variant=variant, data=data, debug=options.debug)
    print(*file_lines(file, variant, data), sep="\n")
    for path in (file.path, *_beside(options, name, file.metadata)):
        print(f"Wrote    {path}")


def _place(options: argparse.Namespace, name: str, precision: str) -> Path:
    """Where the file goes; the folders that a Hub repository and Triton prescribe are made."""
    if not (options.hub or options.triton):
        return options.output or Path(f"{name}.onnx")
    from osdtw_export.hub import hub_file
    from osdtw_export.triton import triton_file

    path = hub_file(options.hub, precision) if options.hub else triton_file(options.triton, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _beside(options: argparse.Namespace, name: str, metadata: Metadata) -> list[Path]:
    """What a Hub repository and Triton want beside the file."""
    if options.hub:
        from osdtw_export.hub import write_preprocessing

        return [write_preprocessing(options.hub, metadata)]
    if options.triton:
        from osdtw_export.triton import write_triton

        return [write_triton(options.triton, name, metadata, options.instances)]
    return []


if __name__ == "__main__":
    sys.exit(main())
