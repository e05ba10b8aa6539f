"""What cards say of public data sets."""

from __future__ import annotations

from typing import NamedTuple


class DataSet(NamedTuple):
    """A public data set: its name, its place on the Hub, its source, and what readers of figures must know of it."""

    title: str
    hub: str
    citation: str
    note: str


OWN_SAMPLE = (
    "The long-tailed set has the literature's class sizes but not its images: they are drawn from the order of their "
    "SHA-256, which is the same for every copy of the data."
)
LOOKED_AT = (
    "Recipes were compared on these test images, so the figures are not a fresh estimate: `docs/experiments.md` in the "
    "repository tells which, and how the released one was arrived at."
)
TINY_IMAGES = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
DATA_SETS = {
    "cifar10": DataSet("CIFAR-10", "uoft-cs/cifar10", f"{TINY_IMAGES} (CIFAR-10).", OWN_SAMPLE),
    "cifar100": DataSet("CIFAR-100", "uoft-cs/cifar100", f"{TINY_IMAGES} (CIFAR-100).", f"{OWN_SAMPLE} {LOOKED_AT}"),
}
