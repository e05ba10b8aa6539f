"""Released checkpoints: one folder each in ``weights/``, and where each was published.

A folder is named ``architecture.tag`` and holds ``config.json``, ``model.safetensors`` and ``results.json``. Once it is
on the Hub it also holds ``hub.json``, which ``make release`` writes: repository, commit and SHA-256 of the weights.
Weights too large for the package may then be left out of it: they are fetched at that commit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

RELEASES = Path(__file__).parent / "weights"
CONFIG, WEIGHTS, RECORD = "config.json", "model.safetensors", "hub.json"


class Record(NamedTuple):
    """Where a release was published.

    Args:
        hf_hub_id: The repository, "org/name".
        revision: The commit.
        sha256: Of ``model.safetensors``, in hexadecimal digits.
    """

    hf_hub_id: str
    revision: str
    sha256: str

    @property
    def pinned(self) -> str:
        """The repository at this commit, as timm writes it."""
        return f"{self.hf_hub_id}@{self.revision}"


def record(release: str) -> Record | None:
    """Where a release was published, or None if it is not on the Hub yet."""
    file = RELEASES / release / RECORD
    return Record(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def records() -> list[Record]:
    """Where all releases were published that were."""
    return [found for file in RELEASES.glob(f"*/{RECORD}") if (found := record(file.parent.name))]


def weight_sources(release: str) -> dict[str, str]:
    """Where timm finds a release's weights: the packaged file, which comes first, and the Hub at one commit."""
    file, published = RELEASES / release / WEIGHTS, record(release)
    packaged = {"file": str(file)} if file.is_file() or not published else {}
    return {**packaged, **({"hf_hub_id": published.pinned} if published else {})}


def released_args(release: str) -> dict[str, Any] | None:
    """Model arguments of a released checkpoint (its plan), or None if there is none of that name."""
    config = RELEASES / release / CONFIG
    if not config.is_file():
        return None
    args: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))["model_args"]
    return args
