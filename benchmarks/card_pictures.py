"""Results of released checkpoints -> the pictures beside their model cards.

``python benchmarks/card_pictures.py`` draws ``model_cards/<release>/*.png`` from the committed results files; the
picture of the proxy, which needs the statistics of the run, is the run's own ``proxy_depth.png``. Then
``python -m osdtw_export.documents`` writes the cards that show them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from osdtw_training.figures import of_results, save

ROOT = Path(__file__).parents[1]


def pictures() -> Iterator[tuple[Path, Figure]]:
    """Every picture that the released results have the numbers for, with the path where it belongs."""
    for file in sorted((ROOT / "osdtw_models" / "weights").glob("*/results.json")):
        for name, figure in of_results(json.loads(file.read_text(encoding="utf-8"))):
            yield ROOT / "model_cards" / file.parent.name / name, figure


def main() -> None:
    """Draw all of them."""
    for path, figure in pictures():
        path.parent.mkdir(exist_ok=True)
        print(f"wrote: {save(figure, path)}")


if __name__ == "__main__":
    main()
