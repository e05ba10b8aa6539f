"""How long a prediction takes, as ratios to the plain backbone, everything in turns in one run.

    python benchmarks/inference.py [--data-dir CIFAR100]    -> benchmarks/studies/inference.json
    python benchmarks/inference.py --provider cuda          -> benchmarks/studies/inference_cuda.json

The networks are CIFAR ResNet-32 of 100 classes, not trained: time depends on shapes. With the data, the released
network is also measured in fewer bits: its accuracy, overall and where images are few. With one thread the clock is the
thread's own processor time, which other work on the machine disturbs little; with more, and on a GPU, it is the wall's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch

from osdtw_export.accuracy import Data, accuracies, read_data
from osdtw_export.export import export_onnx
from osdtw_export.runtime import OnnxClassifier
from osdtw_export.variant import Variant
from osdtw_models import OsdtwNet, cost, create_model
from osdtw_models.files import write_text
from osdtw_models.image_set import ImageSet
from osdtw_models.load import load_model
from osdtw_training.provenance import processor

STUDIES = Path(__file__).parent / "studies"
NAME, CLASSES, RELEASED = "osdtw_resnet32", 100, "osdtw_resnet32"
DEPTHS = (1, 6, 8, 11, 13, 16)
COMPILED_DEPTH = 11
EXPERTS_DEPTH = 6  # RIDE's experts share the stem and the first stage
BATCHES = (1, 8, 64)
ROUNDS = 30
FORMS = {"unpacked": "none", "packed": "grouped", "dense": "dense"}


class Contender(NamedTuple):
    """Something that predicts: its name, its shared depth if it has one, and one run on a batch."""

    name: str
    depth: int | None
    run: Callable[[np.ndarray[Any, Any]], object]


def network(**arguments: Any) -> OsdtwNet:
    """A network as it comes from its first values."""
    torch.manual_seed(0)
    return create_model(NAME, num_classes=CLASSES, **arguments).eval()


def plain_network() -> OsdtwNet:
    """The plain backbone: one task with all classes."""
    return network(task_classes=[list(range(CLASSES))])


def three_experts() -> OsdtwNet:
    """RIDE's three experts: branches above the first stage, three quarters as wide there."""
    every = [list(range(CLASSES))] * 3
    return network(task_classes=every, fusion="mean", widths=(16, 24, 48), shared_depth=EXPERTS_DEPTH)


def export_all(folder: Path, depths: Sequence[int], gpu: bool) -> dict[tuple[str, int | None], Path]:
    """Every file that is timed, by name and depth; those of one batch size are named after it."""
    images = ImageSet(
        torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8), torch.arange(64), ("",) * CLASSES, ("",) * 64
    )
    noise = Data(images, None, True)
    files: dict[tuple[str, int | None], Path] = {}

    def export(model: OsdtwNet, name: str, depth: int | None, **variant: Any) -> None:
        path = folder / f"{name}_{depth}.onnx"
        data = noise if variant.get("precision") == "int8" else None
        export_onnx(model, path, source="benchmark", variant=Variant(**variant), data=data)
        files[name, depth] = path

    contenders = [("plain", None, plain_network()), ("experts", EXPERTS_DEPTH, three_experts())]
    contenders += [("", depth, network(shared_depth=depth)) for depth in depths]
    for name, depth, model in contenders:
        for form, pack in {"": "none"}.items() if name == "plain" else FORMS.items():
            told = " ".join(filter(None, [name, form]))
            export(model, told, depth, pack=pack)
            if gpu:
                export(model, f"{told} fp16", depth, pack=pack, precision="fp16")
                for batch in BATCHES:
                    export(model, f"{told} graph {batch}", depth, pack=pack, batch=batch)
        if not gpu and name != "experts":
            export(model, f"{name} int8".strip(), depth, pack="none", precision="int8")
    return files


def open_all(
    files: dict[tuple[str, int | None], Path], provider: str, threads: int, batch: int, compiled: bool
) -> list[Contender]:
    """Everything that is timed at one batch size with one number of threads."""
    contenders = []
    for (name, depth), path in files.items():
        title, _, size = name.partition(" graph ")
        if size and int(size) != batch:
            continue
        classifier = OnnxClassifier(path, provider, threads, batch_size=batch)
        contenders.append(Contender(f"{title} graph" if size else name, depth, classifier.logits))
    twins = [OnnxClassifier(files["plain", None], provider, threads, batch_size=batch) for _ in range(2)]
    contenders.append(Contender("two networks", None, lambda images: [twin.logits(images) for twin in twins]))
    device = torch.device("cpu" if provider == "cpu" else "cuda")
    torch.set_num_threads(threads)
    depths = sorted({depth for name, depth in files if name == "packed" and depth is not None})
    for depth in [None, *depths]:
        model = (plain_network() if depth is None else network(shared_depth=depth)).to(device)
        prefix = "plain " if depth is None else ""
        contenders.append(Contender(f"{prefix}eager", depth, torch_runner(model, device)))
        if compiled and depth in (None, COMPILED_DEPTH):
            contenders.append(Contender(f"{prefix}compiled", depth, torch_runner(torch.compile(model), device)))
    return contenders


def torch_runner(model: Any, device: torch.device) -> Callable[[np.ndarray[Any, Any]], object]:
    """One run of a network in PyTorch, from numpy to numpy as the others."""

    @torch.inference_mode()
    def run(images: np.ndarray[Any, Any]) -> object:
        return model(torch.from_numpy(images).to(device)).cpu().numpy()

    return run


def time_all(contenders: Sequence[Contender], batch: int, rounds: int, own_clock: bool) -> list[dict[str, Any]]:
    """Median milliseconds of every contender, one run of each per round."""
    clock = time.thread_time if own_clock else time.perf_counter
    images = np.random.default_rng(0).normal(size=(batch, 3, 32, 32)).astype(np.float32)
    times: list[list[float]] = [[] for _ in contenders]
    order = np.random.default_rng(0)  # whoever always followed a large one would find the caches cold
    for number in range(rounds + 2):
        for index in order.permutation(len(contenders)):
            start = clock()
            contenders[index].run(images)
            if number > 1:  # the first runs allocate and compile
                times[index].append(1000 * (clock() - start))
    return [
        {"name": each.name, "depth": each.depth, "batch": batch, "milliseconds": round(statistics.median(spent), 4)}
        for each, spent in zip(contenders, times, strict=True)
    ]


def count_nodes(files: dict[tuple[str, int | None], Path], folder: Path) -> list[dict[str, Any]]:
    """Nodes that remain when ONNX Runtime has fused what it can, layout aside: about a GPU's kernels."""
    rows = []
    for (name, depth), path in files.items():
        if "graph" in name or "int8" in name or "fp16" in name:
            continue
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = os.fspath(folder / "fused.onnx")
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        rows.append({"name": name, "depth": depth, "nodes": len(onnx.load(folder / "fused.onnx").graph.node)})
    return rows


def fewer_bits(folder: Path, data_dir: str) -> dict[str, dict[str, float]]:
    """Accuracies in percent of the released network's files on CIFAR-100's test images."""
    model, found = load_model(RELEASED), {}
    file = export_onnx(model, folder / "released.onnx", source=RELEASED)
    data = read_data(file.metadata, "cifar100", data_dir)
    found["fp32"] = accuracies(file.path, data.test)
    for precision in ("fp16", "int8"):
        calibration = replace(data, test=None)
        export_onnx(model, file.path, source=RELEASED, variant=Variant(precision=precision), data=calibration)
        found[precision] = accuracies(file.path, data.test)
    return found


def main() -> None:
    """Export, time, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", default="cpu", choices=("cpu", "cuda", "tensorrt"))
    parser.add_argument("--depths", type=int, nargs="+", default=list(DEPTHS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"runs of each contender (default: {ROUNDS})")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--data-dir", metavar="DIR", help="CIFAR-100, for the accuracy in fewer bits")
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    gpu = options.provider != "cpu"
    threads = [1] if gpu else options.threads
    load, rows = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = export_all(folder, options.depths, gpu)
        for number in threads:
            for batch in BATCHES:
                contenders = open_all(files, options.provider, number, batch, not options.no_compile)
                own_clock = number == 1 and not gpu
                found = time_all(contenders, batch, options.rounds, own_clock)
                rows += [{"threads": number, "clock": "thread" if own_clock else "wall", **row} for row in found]
                print(f"{number} thread(s), batch {batch}: done", flush=True)
        study = {
            "command": command(options),
            "network": NAME,
            "provider": options.provider,
            "hardware": torch.cuda.get_device_name() if gpu else processor(),
            "load": round(load, 1),
            "rounds": options.rounds,
            "date": time.strftime("%Y-%m-%d"),
            "versions": {name: version(name) for name in ("torch", "onnx")} | {"onnxruntime": onnxruntime.__version__},
            "multiply_adds": ratios(options.depths),
            "nodes": count_nodes(files, folder),
            "times": rows,
            "accuracy": fewer_bits(folder, options.data_dir) if options.data_dir else None,
        }
    output = options.output or STUDIES / ("inference.json" if not gpu else f"inference_{options.provider}.json")
    write_text(output, json.dumps(study, indent=1) + "\n")
    print(f"Wrote {output}")


def command(options: argparse.Namespace) -> str:
    """How this run can be repeated; a folder's path tells about the machine and stays out."""
    words = ["python benchmarks/inference.py"]
    words += [f"--provider {options.provider}"] if options.provider != "cpu" else []
    words += ["--depths " + " ".join(map(str, options.depths))] if tuple(options.depths) != DEPTHS else []
    words += ["--threads " + " ".join(map(str, options.threads))] if options.threads != [1, 2] else []
    words += [f"--rounds {options.rounds}"] if options.rounds != ROUNDS else []
    words += ["--no-compile"] if options.no_compile else []
    words += ["--data-dir CIFAR100"] if options.data_dir else []
    return " ".join(words)


def ratios(depths: Sequence[int]) -> list[dict[str, Any]]:
    """Multiply-adds at every depth, and of the three experts, to those of the plain backbone."""
    model = network()
    rows = [{"name": "", "depth": depth, "ratio": cost(model, depth)["ratio"]} for depth in depths]
    experts, plain = (cost(each)["multiply_adds"]["total"] for each in (three_experts(), plain_network()))
    return [*rows, {"name": "experts", "depth": EXPERTS_DEPTH, "ratio": experts / plain}]


if __name__ == "__main__":
    main()
