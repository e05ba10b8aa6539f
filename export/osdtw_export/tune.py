"""Which form of a file is fastest here: every packing, precision and number of threads, timed in turns.

In turns, because machines are shared: what slows one candidate slows all of them in that round.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from osdtw_export.accuracy import Data
from osdtw_export.export import OnnxFile, check_target, export_onnx
from osdtw_export.metadata import Metadata
from osdtw_export.providers import CPU, wanted_providers
from osdtw_export.runtime import OnnxClassifier
from osdtw_export.variant import PACKINGS, Variant
from osdtw_models import OsdtwNet
from osdtw_models.files import write_whole

ROUNDS = 15
SECONDS = 20.0  # after that long no new round begins


def candidates(variant: Variant, pack: str | None, precision: str | None, data: Data | None) -> list[Variant]:
    """The forms to try: what the user left open is varied.

    Args:
        variant: All other choices.
        pack: The user's packing, or None.
        precision: The user's precision, or None.
        data: Images; without them there is no int8.

    Returns:
        The candidates. 16 bits are for GPUs: on a CPU, ONNX Runtime turns them back into 32.
    """
    on_cpu = wanted_providers(None) == [CPU]
    precisions = ["fp32", *([] if on_cpu else ["fp16"]), *(["int8"] if data else [])]
    return [
        replace(variant, pack=packing, precision=bits)
        for bits in ([precision] if precision else precisions)
        for packing in ([pack] if pack else PACKINGS)
    ]


def tune(
    model: OsdtwNet,
    path: Path,
    variants: Sequence[Variant],
    *,
    source: str,
    data: Data | None = None,
    debug: bool = False,
) -> OnnxFile:
    """Export every candidate, time all of them on this device, keep the fastest.

    Args:
        model: The network.
        path: The file to write.
        variants: The candidates.
        source: See `export_onnx`.
        data: Likewise.
        debug: Likewise.

    Returns:
        The fastest; its metadata hold the table and the number of threads.
    """
    check_target(path)
    with tempfile.TemporaryDirectory() as folder:
        files: dict[tuple[str, str], tuple[OnnxFile, Variant]] = {}
        unmeasured = replace(data, test=None) if data else None
        for number, variant in enumerate(variants):
            draft = Path(folder) / f"{number}.onnx"
            file = export_onnx(model, draft, source=source, variant=variant, data=unmeasured, debug=debug)
            key = file.metadata.packing, file.metadata.precision
            if key not in files or file.unpacked_because:  # of equal files the one that says why it is not packed
                files[key] = (file, variant)
        runs = {(*key, threads): file for key, (file, _) in files.items() for threads in thread_counts()}
        batch = variants[0].batch or 1
        times = timed({key: OnnxClassifier(file.path, threads=key[-1]) for key, file in runs.items()}, batch)
        best = min(times, key=lambda key: times[key])
        table = [
            {"packing": key[0], "precision": key[1], "threads": key[2], "batch": batch, "milliseconds": round(ms, 3)}
            for key, ms in sorted(times.items(), key=lambda item: item[1])
        ]
        fastest, variant = files[best[:2]]
        if data and variant.precision != "fp32":  # what it costs is measured of the winner alone
            draft = Path(folder) / "fastest.onnx"
            fastest = export_onnx(model, draft, source=source, variant=variant, data=data, debug=debug)
        return _kept(fastest, path, replace(fastest.metadata, threads=best[-1], tuning=table))


def _kept(file: OnnxFile, path: Path, metadata: Metadata) -> OnnxFile:
    """The fastest under its final name, with what was found in its metadata."""

    def write(draft: Path) -> None:
        content = onnx.load(os.fspath(file.path))
        onnx.helper.set_model_props(content, metadata.to_props())
        onnx.save(content, os.fspath(draft))
        OnnxClassifier(draft)  # it can be read again

    write_whole(path, write)
    return replace(file, path=path, num_bytes=path.stat().st_size, metadata=metadata)


def thread_counts() -> list[int]:
    """1, 2, 4, ... and as many threads as this process may use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({available, *(2**i for i in range(available.bit_length()) if 2**i <= available)})


def timed(classifiers: Mapping[Any, OnnxClassifier], batch: int, rounds: int = ROUNDS) -> dict[Any, float]:
    """Time classifiers in turns on noise.

    Args:
        classifiers: The open files, by name.
        batch: Images per run.
        rounds: Times that each of them is run, unless that takes too long.

    Returns:
        Median milliseconds per run, by name.
    """
    images = {name: _noise(each, batch) for name, each in classifiers.items()}
    times: dict[Any, list[float]] = {name: [] for name in classifiers}
    start = time.perf_counter()
    for number in range(1 + rounds):
        for name, classifier in classifiers.items():
            began = time.perf_counter()
            classifier.logits(images[name])
            if number:  # the first run of each allocates
                times[name].append(1000 * (time.perf_counter() - began))
        if number and time.perf_counter() - start > SECONDS:
            break
    return {name: statistics.median(values) for name, values in times.items()}


def _noise(classifier: OnnxClassifier, batch: int) -> np.ndarray[Any, Any]:
    channels, height, width = classifier.input_size
    noise = np.random.default_rng(0)
    if classifier.metadata.uint8:
        return noise.integers(0, 256, (batch, height, width, channels), dtype=np.uint8)
    return noise.normal(size=(batch, channels, height, width)).astype(np.float32)


def table_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The table of candidates as text, fastest first."""
    lines = ["packing   precision  threads  batch        ms"]
    for row in rows:
        cells = f"{row['packing']:<9} {row['precision']:<9} {row['threads']:>8} {row['batch']:>6}"
        lines.append(f"{cells} {row['milliseconds']:>9.2f}")
    return lines
