"""Network -> what its file computes: rewritten for inference, every output at once."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from osdtw_export.folding import fold_batch_norm
from osdtw_export.metadata import Metadata
from osdtw_export.pack import pack
from osdtw_export.shortcuts import convolve_shortcuts
from osdtw_export.variant import Variant
from osdtw_models import OsdtwNet


def evaluated(model: OsdtwNet) -> OsdtwNet:
    """A copy of a network as it is exported: on the CPU, in float32 and evaluation mode."""
    model = copy.deepcopy(model).cpu().float().to(memory_format=torch.contiguous_format).eval()
    model.set_grad_checkpointing(False)
    return model


class InferenceGraph(nn.Module):
    """What the file computes: every output as one tuple.

    Args:
        network: The network; its rule of fusion is used.
        task_logits: From normalised images to the logits of every task.
        metadata: Tells which inputs and outputs are wanted.
    """

    def __init__(self, network: OsdtwNet, task_logits: nn.Module, metadata: Metadata) -> None:
        super().__init__()
        self.task_logits = task_logits
        # All but the modules: a packed graph has decoders of its own.
        self.fusion = copy.copy(network)
        self.fusion._modules = {}
        self.uint8, self.softmax = metadata.uint8, metadata.softmax
        std = torch.tensor(metadata.std)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", (1 / (255 * std)).view(1, -1, 1, 1))
        self.register_buffer("shift", (-torch.tensor(metadata.mean) / std).view(1, -1, 1, 1))

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:  # the argument names the graph's input
        """Images -> fused logits, each task's, probabilities if wanted."""
        if self.uint8:
            # Channels-last strides, which ONNX does not have, would be written out in nodes of their own.
            floats = pixel_values.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
            pixel_values = floats * self.scale + self.shift
        each = self.task_logits(pixel_values)
        fused = self.fusion.fuse(each)
        probabilities = (fused.softmax(-1),) if self.softmax else ()
        return (fused, *self.fusion.calibrated(each), *probabilities)


def inference_graph(model: OsdtwNet, metadata: Metadata, variant: Variant) -> tuple[InferenceGraph, Metadata, str]:
    """Rewrite a network for inference: batch norms folded, shortcuts convolved, decoders packed.

    Args:
        model: The network as `evaluated` makes it; it is left as it is.
        metadata: What its file says about itself.
        variant: The form of the file.

    Returns:
        What the file computes, the metadata with the form that it got, and why it is not packed, or "".
    """
    rewritten = copy.deepcopy(model)
    images = torch.randn(2, *metadata.input_size, generator=torch.Generator().manual_seed(0))
    fold_batch_norm(rewritten, images)
    convolve_shortcuts(rewritten)
    task_logits, packing, reason = pack(rewritten, variant.packing, images)
    metadata = replace(
        metadata,
        packing=packing,
        precision=variant.precision,
        batch=variant.batch,
        uint8=variant.uint8,
        softmax=variant.softmax,
    )
    return InferenceGraph(rewritten, task_logits, metadata).eval(), metadata, reason
