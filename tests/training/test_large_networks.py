"""One real step of every stage at 224 pixels, for networks of the size that photographs are taken to."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from osdtw_training.recipe import Recipe
from osdtw_training.recipe_tables import Joint, Refit, Schedule, Search, Warmup
from osdtw_training.values import to_values

GIGABYTES = 24


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("model", ["osdtw_vit_small_patch16_224", "osdtw_resnet50"])
def test_every_stage_takes_a_step_within_24_gigabytes(model, tmp_path):
    stream = np.random.default_rng(0)
    for label, name in enumerate(("ant", "bee", "cow", "dog")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(5 - label):
            pixels = stream.integers(0, 256, (240, 250, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.jpg")
    one = Schedule(epochs=1, lr=0.001)
    recipe = Recipe(
        model=model,
        data=str(tmp_path / "data"),
        crop="resized",
        holdout=0.2,
        batch_size=8,
        warmup=Warmup(**dataclasses.asdict(one)),
        tasks=one,
        search=Search(structure="diagonal", samples=8, weights=5),
        joint=Joint(**dataclasses.asdict(one)),
        refit=Refit(**dataclasses.asdict(one)),
    )
    # A process of its own: the peak of this one may be another test's.
    run = tmp_path / "run"
    code = f"""
import json, resource
from osdtw_training.pipeline import run_recipe
from osdtw_training.recipe import Recipe
from osdtw_training.values import from_values
run_recipe(from_values(Recipe, json.loads({json.dumps(to_values(recipe))!r})), {str(run)!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    stages = {json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()}
    peak = float(out.stdout.splitlines()[-1])
    halves = [f"half{h}_task{k}" for h in (0, 1) for k in (0, 1)]
    assert stages == {"warmup", "task0", "task1", *halves, "joint", "refit"}
    assert 0.1 < peak < GIGABYTES, f"{peak:.1f} GB"
