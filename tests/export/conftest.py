import hashlib
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
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
