"""What goes into a file and comes out of it: names, shapes, types, as its metadata tell. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from osdtw_export.metadata import Metadata

if TYPE_CHECKING:
    import onnxruntime as ort
    from numpy.typing import NDArray

INPUT = "pixel_values"


def image_shape(metadata: Metadata) -> tuple[int, ...]:
    """Shape of one image as the graph takes it."""
    channels, height, width = metadata.input_size
    return (height, width, channels) if metadata.uint8 else (channels, height, width)


def prepared(images: NDArray[Any], metadata: Metadata) -> NDArray[Any]:
    """Images as the graph takes them.

    Args:
        images: Pixels (B, H, W, C), uint8; or normalised floats (B, C, H, W).
        metadata: What the file says about itself.

    Returns:
        The images; pixels are normalised, unless the graph does it.

    Raises:
        ValueError: If the images have another shape or type, or hold what is not a finite number.
    """
    kind = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
    if kind not in (np.float32, np.uint8) or (metadata.uint8 and kind != np.uint8):
        floats, cast = ("", "") if metadata.uint8 else ("float32 (normalised), or of ", "; use astype(np.float32)")
        raise ValueError(f"The images must be a numpy array of {floats}uint8 (pixels), not {kind}{cast}.")
    channels, height, width = metadata.input_size
    size = (height, width, channels) if kind == np.uint8 else (channels, height, width)
    if images.ndim != 4 or images.shape[1:] != size:
        wanted = ", ".join(map(str, size))
        raise ValueError(f"The images have shape {images.shape}, but this network takes (batch, {wanted}).")
    if kind == np.uint8:
        return images if metadata.uint8 else _normalised(images, metadata)
    if not np.isfinite(images).all():
        first = int(np.flatnonzero(~np.isfinite(images).all((1, 2, 3)))[0])
        raise ValueError(f"Image {first} of the batch holds NaN or infinite values; check how it was normalised.")
    return images


def check_interface(session: ort.InferenceSession, metadata: Metadata) -> None:
    """Refuse a graph whose inputs and outputs are not those that its metadata tell.

    Args:
        session: The open file.
        metadata: What it says about itself.

    Raises:
        ValueError: If it is another graph; the message completes "it ...".
    """
    batch = metadata.batch
    image = (INPUT, "tensor(uint8)" if metadata.uint8 else "tensor(float)", [batch, *image_shape(metadata)])
    wanted = [image, *((name, "tensor(float)", [batch, width]) for name, width in metadata.output_sizes.items())]
    given = session.get_inputs() + session.get_outputs()
    found = [(v.name, v.type, _sizes(v.shape)) for v in given]
    for ours, theirs in zip(wanted, found, strict=False):
        if ours != theirs:
            raise ValueError(f"has {_words(theirs)} where its metadata tell of {_words(ours)}")
    if len(wanted) != len(found):
        raise ValueError(f"has {len(found)} inputs and outputs where its metadata tell of {len(wanted)}")


def _sizes(shape: list[Any]) -> list[Any]:
    """A shape, with None for a batch that is free; scalars and sequences have none."""
    return [shape[0] if isinstance(shape[0], int) else None, *shape[1:]] if shape else []


def _normalised(pixels: NDArray[np.uint8], metadata: Metadata) -> NDArray[np.float32]:
    mean, std = (np.asarray(values, dtype=np.float32) for values in (metadata.mean, metadata.std))
    floats = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(floats.transpose(0, 3, 1, 2))


def _words(value: tuple[str, str, list[int | None]]) -> str:
    """One input or output, as an error says it."""
    name, kind, shape = value
    return f"{name} {kind} ({', '.join('any' if size is None else str(size) for size in shape)})"
