"""What form a file takes: the choices of whoever exports. No torch."""

from __future__ import annotations

from dataclasses import dataclass

OPSET = 20
OPSETS = range(18, 24)  # what torch's exporter writes
PACKINGS = ("none", "grouped", "dense")
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Variant:
    """One form of a file.

    Args:
        pack: How the decoders run: "none", one after another; "grouped" or "dense", as one; "auto", as is usually
            fastest.
        precision: "fp32", "fp16" or "int8"; inputs and outputs stay as they are.
        batch: Images per run, or None for any number.
        uint8: Whether the file takes pixels (batch, H, W, channels), uint8, and normalises them itself.
        opset: Version of the ONNX operators.
        softmax: Whether there is a last output "probabilities".

    Raises:
        ValueError: If a choice does not exist.
    """

    pack: str = "auto"
    precision: str = "fp32"
    batch: int | None = None
    uint8: bool = False
    opset: int = OPSET
    softmax: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("packing", self.pack, (*PACKINGS, "auto")),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise ValueError(f"There is no {name} {value!r}; choose one of {', '.join(known)}.")
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"A batch of {self.batch} images cannot be run; choose 1 or more, or leave it free.")
        if self.opset not in OPSETS:
            raise ValueError(
                f"Opset {self.opset} cannot be written; choose one of {OPSETS.start} to {OPSETS.stop - 1}."
            )

    @property
    def packing(self) -> str:
        """The packing that "auto" means: grouped, but none for int8, whose grouped convolutions are slow on CPUs."""
        if self.pack != "auto":
            return self.pack
        return "none" if self.precision == "int8" else "grouped"
