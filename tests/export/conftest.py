import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hub_server import Hub
from huggingface_hub import constants
from timm.models import save_for_hf
from torch import nn

from osdtw_export.export import OnnxFile, export_onnx
from osdtw_models import OsdtwNet, create_model

LABELS = [f"animal {c}" for c in range(10)]


def network(**kwargs) -> OsdtwNet:
    """A network whose batch norms do something: fresh ones are the identity and would hide a wrong fold."""
    torch.manual_seed(0)
    model = create_model(kwargs.pop("name", "osdtw_resnet14"), **{"num_classes": 10, **kwargs})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


class Exported(NamedTuple):
    model: OsdtwNet
    run: Path  # the folder that training would have written
    file: OnnxFile

    @property
    def weights_sha256(self) -> str:
        return hashlib.sha256((self.run / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def make_network():
    return network


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Exported:
    """Two tasks that part in the middle, with labels: one export for every test that only reads."""
    folder = tmp_path_factory.mktemp("exported")
    model = network(task_classes=[[7, 0, 2, 9], [1, 3, 4, 5, 6, 8]])
    save_for_hf(model, folder / "my_run", model_config={"label_names": LABELS}, safe_serialization=True)
    file = export_onnx(model, folder / "model.onnx", source="my_run", label_names=LABELS)
    return Exported(model, folder / "my_run", file)


RESULTS = {
    "recipe": "birds",
    "method": "osdtw",
    "model": "osdtw_resnet14",
    "data": "/home/someone/birds",
    "imbalance_factor": None,
    "seed": 3,
    "passes": 61,
    "training_hours": 0.53,
    "parameters": 100,
    "hardware": {"processor": "a processor", "threads": 1, "device": "cpu", "amp": "none"},
    "versions": {"torch": "2.99.0"},
    "date": "2026-11-01",
    "class_counts": [900, 400, 300, 200, 100, 50, 40, 30, 10, 4],
    "training_counts": [855, 380, 290, 190, 95, 48, 38, 29, 10, 4],
    "test_images": 10,
    "plan": {"source": "search", "shared_depth": 5, "task_weights": [0.25, 0.75]},
    "test": {
        name: 40.0 + i / 7 for i, name in enumerate("overall head tail task_right many medium few nll ece".split())
    },
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory, exported) -> Path:
    """A run folder as training leaves it, its ONNX file already made."""
    run = tmp_path_factory.mktemp("runs") / "birds"
    (run / "onnx").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (run / name).write_bytes((exported.run / name).read_bytes())
    (run / "onnx" / "model.onnx").write_bytes(exported.file.path.read_bytes())
    (run / "results.json").write_text(json.dumps(RESULTS))
    (run / "recipe.json").write_text(json.dumps({"name": "birds", "data": "/home/someone/birds", "data_dir": "~/x"}))
    (run / "plan.png").write_bytes(b"a picture")
    (run / "checkpoints").mkdir()
    return run


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub for this process's client."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", "writer")
    with Hub() as server:
        for name, value in server.settings(tmp_path).items():
            monkeypatch.setattr(constants, name, value)
        yield server
