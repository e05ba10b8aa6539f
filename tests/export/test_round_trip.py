"""Run folder -> Hub -> another machine: the same tensors and the same answers."""

import os
import subprocess
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from osdtw_export import OnnxClassifier
from osdtw_export.cli import main as export
from osdtw_export.predict_cli import main as predict
from osdtw_export.publish_cli import main as publish

THERE = """
import sys, timm, osdtw_models
from osdtw_export.predict_cli import main as predict
from safetensors.torch import save_file
repository, weights, photo = sys.argv[1:]
save_file(timm.create_model(repository, pretrained=True).state_dict(), weights)
sys.exit(predict(["--model", repository, "--json", photo]))
"""


def test_what_comes_back_is_what_was_published(hub, trained, tmp_path, capsys, monkeypatch):
    photo, weights, onnx = tmp_path / "photo.png", tmp_path / "weights.safetensors", tmp_path / "model.onnx"
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(photo)
    assert publish([str(trained), "--repo", "org/birds"]) == 0

    # Another process, which reads its settings as every user's does.
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    environment = {**os.environ, **settings, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", THERE, "hf-hub:org/birds", weights, photo]
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert there.returncode == 0, there.stderr
    ours, theirs = load_file(trained / "model.safetensors"), load_file(weights)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    capsys.readouterr()
    assert predict(["--model", str(trained), "--json", str(photo)]) == 0
    assert there.stdout == capsys.readouterr().out

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "fresh"))
    assert export(["--onnx", "hf-hub:org/birds", "-o", str(onnx)]) == 0
    published, exported = (OnnxClassifier(file, "cpu") for file in (trained / "onnx" / "model.onnx", onnx))
    assert exported.metadata.source == "hf-hub:org/birds"
    assert exported.metadata.label_names == published.metadata.label_names
    for one, other in zip(published.outputs(pixels), exported.outputs(pixels), strict=True):
        np.testing.assert_array_equal(one, other)
