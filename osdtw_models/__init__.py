"""OSDTW networks for long-tailed recognition, as timm models.

Importing this package registers its architectures with timm; ``create_model`` is timm's own, re-exported so
that one import is enough.
"""

from timm import create_model

from osdtw_models import zoo as _zoo  # noqa: F401  (registers the architectures)
from osdtw_models.complexity import cost, costs
from osdtw_models.decouple import decouple
from osdtw_models.fusion import FUSION_RULES, fuse
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_models.predict import Predictor

__version__ = "0.1.0"
__all__ = [
    "FUSION_RULES",
    "ClassPartition",
    "OsdtwNet",
    "Predictor",
    "cost",
    "costs",
    "create_model",
    "decouple",
    "fuse",
]
