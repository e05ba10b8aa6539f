"""The door ``osdtw-demo``: a network as static pages that run it in the visitor's browser."""

from __future__ import annotations

import argparse
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from osdtw_export.door import DEFAULT_SOURCE, EXTRA, Parser, origin_of, run_door, source_name

if TYPE_CHECKING:
    from osdtw_export.metadata import Metadata

EXAMPLES = """\
examples:
  osdtw-demo --open                            the packaged osdtw_resnet32, to the folder demo; opens a browser
  osdtw-demo runs/birds -o birds-demo          your own training
  osdtw-demo birds.onnx --samples photos/      an exported file, with pictures that visitors can pick
  osdtw-demo runs/birds --title "Which bird is it?" --license cc-by-4.0
  osdtw-demo --runtime onnxruntime-web-1.30.0.tgz      without network: what `npm pack` gave elsewhere

The folder is the whole demo: put it on any static host, or, with its README.md, on the Hugging Face Hub as a static
Space. Everything runs in the visitor's browser; nothing is uploaded and nothing is loaded from elsewhere. It needs a
web server all the same: browsers do not load WebAssembly from file://, and --serve starts one for this machine.

The first call fetches ONNX Runtime for browsers from npm (33 MB, digests checked, nothing of it is executed) and keeps
it; later calls need no network.
"""
DRAWN = "Or pick a drawing (they were drawn for this page, the network was trained on photographs):"
PICKED = "Or pick one of these:"


def main(argv: list[str] | None = None) -> int:
    """``osdtw-demo``: write a network as a folder of static pages.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code, as `osdtw_models.doors.run_door` gives it.
    """
    return run_door(_parser(), _demo, argv)


def _parser() -> Parser:
    parser = Parser("osdtw-demo", "Write a network as static pages that run it in the visitor's browser.", EXAMPLES)
    add = parser.add_argument
    add(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="an .onnx file, a model name, a run or checkpoint folder, or hf-hub:org/name "
        f"(default: {DEFAULT_SOURCE}, with drawings to pick)",
    )
    add("-o", "--output", type=Path, default=Path("demo"), metavar="FOLDER", help="where the pages go (default: demo)")
    add("--samples", nargs="+", type=Path, default=[], metavar="FILE", help="pictures to pick: files, or folders")
    add("--title", help="title of the page (default: the name of the network)")
    add("--license", metavar="ID", help="licence of the network, as the Hub calls it, for README.md")
    add("--runtime", type=Path, metavar="PATH", help="onnxruntime-web from here: its folder dist, or its .tgz file")
    add("--serve", type=int, metavar="PORT", help="then serve the folder to this machine, until Ctrl-C")
    add("--open", action="store_true", help="the same, and open it in a browser")
    return parser


def _demo(options: argparse.Namespace) -> None:
    """Check, export, write, serve."""
    from osdtw_models.doors import need

    need("export", *EXTRA)
    from osdtw_export.demo.folder import check_folder, write_folder
    from osdtw_export.demo.samples import drawings, read_samples
    from osdtw_export.demo.web_runtime import runtime_files
    from osdtw_export.demo.words import Words

    packaged = options.source is None
    source = DEFAULT_SOURCE if packaged else options.source
    check_folder(options.output)
    runtime = runtime_files(options.runtime)
    with tempfile.TemporaryDirectory() as folder:
        file, known = _onnx_file(source, Path(folder))
        words = Words(
            options.title or f"OSDTW demo: {source_name(source).removesuffix('.onnx')}",
            PICKED if options.samples else DRAWN,
            options.license or ("apache-2.0" if packaged else None),
        )
        samples = drawings() if packaged else []
        if options.samples:
            samples = read_samples(options.samples, known.input_size[-1])
        write_folder(options.output, file, known, words, samples=samples, runtime=runtime)
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    print(f"Wrote    {options.output}: {size / 1e6:.1f} MB, index.html and all that it needs")
    if options.open or options.serve is not None:
        _serve(options)
    else:
        print(f"Look     python -m http.server -d {options.output}, then http://localhost:8000")


def _onnx_file(source: str, folder: Path) -> tuple[Path, Metadata]:
    """The file, checked, and what it says about itself; networks are exported first."""
    if source.endswith(".onnx"):
        from osdtw_export.runtime import OnnxClassifier

        return Path(source), OnnxClassifier(source, "cpu").metadata
    from osdtw_export.export import export_onnx
    from osdtw_models.load import load_model

    print(f"Source   {source}", flush=True)
    file = export_onnx(load_model(source), folder / "model.onnx", source=origin_of(source))
    return file.path, file.metadata


def _serve(options: argparse.Namespace) -> None:
    """Until Ctrl-C, which is how one leaves and no error."""
    from osdtw_export.demo.serving import address, server

    with server(options.output, options.serve or 0) as running:
        print(f"Look     {address(running)} (Ctrl-C ends it)", flush=True)
        if options.open:
            webbrowser.open(address(running))
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    sys.exit(main())
