"""OSDTW networks as ONNX files.

``export`` writes the file, ``parity`` holds it against PyTorch, ``runtime`` runs it without PyTorch, ``metadata``
is what it says about itself. Nothing is imported before it is used: the runtime must start without torch, the commands
without onnxruntime.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from osdtw_export.runtime import OnnxClassifier

__all__ = ["OnnxClassifier"]


def __getattr__(name: str) -> Any:
    if name == "OnnxClassifier":
        from osdtw_export.runtime import OnnxClassifier

        return OnnxClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
