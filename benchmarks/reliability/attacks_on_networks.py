"""Hostile networks: their two files, the arguments that build them, the folders they lie in."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from timm.models import save_for_hf

import odd
from osdtw_models import ClassPartition, create_model
from osdtw_models.evaluation import evaluate_logits
from osdtw_models.load import load_model
from osdtw_models.predict import Predictor
from sandbox import Attack

TASKS = [[3, 0, 2], [1, 4, 5]]
LABELS = ["cat", "dog", "owl", "eel", "elk", "ape"]
NETWORKS: dict[str, dict[str, Any]] = {
    "osdtw_resnet14": {"widths": (4, 8, 16), "task_classes": TASKS, "class_counts": [90, 40, 20, 100, 5, 2]},
    "osdtw_vit_small_patch16_224": {
        "backbone_args": {"depth": 2, "embed_dim": 8, "num_heads": 2, "patch_size": 16},
        "img_size": 32,
        "calibration": [[1.5, 0.1], [0.9, -0.2]],
    },
    "osdtw_timm": {
        "backbone": "resnet26d",
        "backbone_args": {"layers": [1, 1, 1, 1], "stem_width": 4, "channels": [4, 4, 8, 8]},
        "logit_offsets": [[0.1, 0.2, 0.3, 0.0], [0.5, 0.4, 0.3, 0.2]],
    },
}


class _Trap:
    """Pickled: what would run if anybody opened it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch secret",)


def _saved(folder: Path) -> dict[str, tuple[dict[str, Any], bytes]]:
    """Config and weights of a few small networks."""
    found = {}
    for name, arguments in NETWORKS.items():
        model = create_model(name, num_classes=6, **arguments).eval()
        save_for_hf(model, folder / "sound", model_config={"label_names": LABELS}, safe_serialization=True)
        config = json.loads((folder / "sound" / "config.json").read_text())
        found[name] = config, (folder / "sound" / "model.safetensors").read_bytes()
    (folder / "net").mkdir()
    for name in ("trap.pth", "net/trap.bin"):
        (folder / name).write_bytes(pickle.dumps(_Trap()))
    os.chdir(folder)
    return found


def _predicted(folder: Path) -> Callable[[], object]:
    """Load and use: what is accepted must also work, or say why not."""

    def act() -> None:
        predictor = Predictor(folder / "net", topk=2)
        predictor(np.zeros((40, 50, 3), np.uint8))

    return act


def _config(stream: Random, folder: Path, state: dict[str, Any]) -> Callable[[], object]:
    config, weights = state[stream.choice(list(state))]
    hostile = odd.changed(config, stream, stream.choice((1, 1, 2, 5)))
    (folder / "net" / "model.safetensors").write_bytes(weights)
    text = json.dumps(hostile)
    if stream.random() < 0.1:
        text = text.replace("{", f'{{"architecture": {json.dumps(odd.value(stream))}, ', 1)  # a key twice
    content = text.encode("utf-8", "surrogatepass")
    (folder / "net" / "config.json").write_bytes(odd.spoilt(content, stream) if stream.random() < 0.1 else content)
    return _predicted(folder)


def _argument(stream: Random, folder: Path, state: dict[str, Any]) -> Callable[[], object]:
    """One field at a time, so that nothing else is refused before it."""
    config, weights = state[stream.choice(list(state))]
    config = json.loads(json.dumps(config))
    inner = config["model_args"]
    table = stream.choice([config, inner, config["pretrained_cfg"], inner.get("backbone_args", inner)])
    names = [*table, "img_size", "in_chans", "checkpoint_path", "pretrained", "features_only", "device", "cache_dir"]
    table[stream.choice(names)] = odd.value(stream)
    (folder / "net" / "model.safetensors").write_bytes(weights)
    (folder / "net" / "config.json").write_bytes(json.dumps(config).encode("utf-8", "surrogatepass"))
    return _predicted(folder)


def _weights(stream: Random, folder: Path, state: dict[str, Any]) -> Callable[[], object]:
    config, content = state[stream.choice(list(state))]
    (folder / "net" / "config.json").write_text(json.dumps(config))
    hostile = _hostile_weights(stream, content)
    (folder / "net" / "model.safetensors").write_bytes(hostile)
    return _predicted(folder)


def _hostile_weights(stream: Random, content: bytes) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    kind = stream.randrange(8)
    if kind == 0:
        return odd.spoilt(content, stream, 8 + size)
    if kind == 1:
        return content[: stream.randrange(len(content))]
    if kind == 2:
        return pickle.dumps(_Trap()) + content
    if kind == 3:  # the length of the header
        wrong = stream.choice((0, 1, size - 1, size + 1, len(content), 10**8, 10**8 + 1, 2**63, 2**64 - 1))
        return wrong.to_bytes(8, "little") + content[8:]
    name = stream.choice([key for key in header if key != "__metadata__"])
    tensor = header[name]
    if kind == 4:
        tensor["dtype"] = stream.choice(("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "X", "", None))
    elif kind == 5:
        tensor["shape"] = stream.choice(
            (tensor["shape"][::-1], [], [0], [-1], [2**63], [2**40, 2**40], [1] * 80, [0, 2**62], "6", [1.5], [None])
        )
    elif kind == 6:  # overlapping, with holes, outside
        start, end = tensor["data_offsets"]
        tensor["data_offsets"] = stream.choice(
            ([0, end - start], [start + 4, end + 4], [end, start], [start, end + 4], [2**63, 2**64 - 1], [-4, 0], [])
        )
    else:
        header = odd.changed(header, stream, stream.choice((1, 2)))
    text = json.dumps(header)
    if stream.random() < 0.2:  # a name twice, more names, a long header
        more = stream.choice((name, "decoders.9.classifier.weight", "x" * 1000, "__metadata__"))
        text = text.replace("{", f"{{{json.dumps(more)}: {json.dumps(tensor)}, ", 1)
    if stream.random() < 0.02:
        text += " " * stream.choice((10**6, 10**8 - len(text), 10**8))
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw).to_bytes(8, "little") + raw + data


def _placed(stream: Random, folder: Path, state: dict[str, Any]) -> Callable[[], object]:
    """Links, folders, pipes and traps where the two files should be, under odd names."""
    config, weights = state[stream.choice(list(state))]
    name = stream.choice(odd.NAMES)
    home = folder / f"hub{stream.randrange(10**9)}"
    home.mkdir()
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": weights}
    for file, content in files.items():
        place, kind = home / file, stream.randrange(8)
        if kind == 0:
            place.symlink_to(
                stream.choice(("/etc/passwd", "/dev/zero", "/proc/self/mem", file, "../trap.pth", "/none"))
            )
        elif kind == 1:
            place.mkdir()
        elif kind == 2:
            os.mkfifo(place)
        elif kind != 3:
            place.write_bytes(content)
    source = stream.choice(
        (home, str(home), f"local-dir:{home}", f"{home}/{name}", name, f"hf-hub:{name}", f"./{name}")
    )
    return lambda: load_model(source)


def _classes(stream: Random, folder: Path, state: object) -> Callable[[], object]:
    """Arguments of classes: no class, one, all in one task, counts of zero, labels out of range."""
    classes = stream.choice((0, 1, 2, 3, 6, -1))
    odd_count = stream.choice((0, -1, 1, 10**12, 2**63, 2**70))
    arguments: dict[str, Any] = {}
    if stream.random() < 0.7:
        arguments["class_counts"] = [stream.choice((1, 5, 100, odd_count)) for _ in range(max(classes, 0))]
    if stream.random() < 0.6:
        order = list(range(max(classes, 0)))
        stream.shuffle(order)
        cut = stream.randrange(len(order) + 1)
        tasks = stream.choice(([order], [order[:cut], order[cut:]], [order, order], [order, []], [], [order[:cut]]))
        arguments["task_classes"] = odd.changed(tasks, stream) if stream.random() < 0.5 else tasks
    if stream.random() < 0.7:
        arguments["num_classes"] = classes
    arguments["fusion"] = stream.choice(("raw", "valid", "pool", "mean", "x"))

    def act() -> None:
        model = create_model("osdtw_resnet14", widths=(4, 8, 16), **arguments).eval()
        if model.num_classes:
            logits = model(torch.zeros(4, 3, 8, 8)).detach()
            labels = torch.tensor([stream.choice((0, 0, 1, model.num_classes - 1)) for _ in range(4)])
            evaluate_logits(logits, labels, model.partition, model.class_counts)

    return act


def _partitions(stream: Random, folder: Path, state: object) -> Callable[[], object]:
    counts = [stream.choice((0, 1, 1, 2, 3, 50, 10**6, -1)) for _ in range(stream.choice((0, 1, 2, 5, 40)))]
    number, threshold = stream.choice((-1, 0, 1, 2, 3, 41)), stream.choice((None, 0, 1, 2, 50, 10**9))
    bounds = [stream.choice((0, 1, 2, 50, 100)) for _ in range(stream.randrange(4))]
    return stream.choice(
        (
            lambda: ClassPartition.from_counts(counts, number, threshold),
            lambda: ClassPartition.from_bins(counts, bounds),
            lambda: ClassPartition.resolve(len(counts), None, counts, number),
        )
    )


ATTACKS = (
    Attack("config.json, any of its nodes", "load_model, Predictor", 400, _saved, _config),
    Attack("config.json, one field", "load_model, Predictor", 400, _saved, _argument),
    Attack("model.safetensors", "load_model, Predictor", 800, _saved, _weights),
    Attack("links, pipes, traps and odd names for files", "load_model", 200, _saved, _placed),
    Attack("class counts, tasks, labels", "create_model, evaluate_logits", 300, _saved, _classes),
    Attack("counts, bounds, thresholds", "ClassPartition", 2000, lambda folder: None, _partitions),
)
