"""Gradients of every image's loss in every layer: one forward pass, then one backward pass per set of labels.

A layer's gradient for one image follows from what went into the layer and what came back to its output, so nothing
needs to be differentiated image by image. Layout: images B, sets of labels R, a layer's parameters as a matrix of
``rows`` (output channels) by ``columns`` (everything else): gradients have shape (R, B, rows, columns).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap


class Recorder:
    """Keeps what goes into layers and what comes out while it is open; a context manager.

    Args:
        layers: The layers to record; each must run once.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layers = layers
        self._kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def __enter__(self) -> Recorder:
        """Start to record."""
        self._hooks = [layer.register_forward_hook(self._keep) for layer in self.layers]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop to record."""
        for hook in self._hooks:
            hook.remove()

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # The next layer may work in place: a copy goes on, the original is kept.
        self._kept[layer] = (inputs[0].detach(), output)
        return output.clone()

    def inputs(self) -> list[Tensor]:
        """What went into each layer, shape (B, ...)."""
        return [self._kept[layer][0] for layer in self.layers]

    def arriving(self, losses: Sequence[Tensor]) -> list[Tensor]:
        """Gradients of losses at each layer's output.

        Args:
            losses: R losses of each image, each of shape (B,), made of what was recorded.

        Returns:
            Per layer shape (R, B, ...).
        """
        outputs = [self._kept[layer][1] for layer in self.layers]
        last = len(losses) - 1
        found = [torch.autograd.grad(each.sum(), outputs, retain_graph=r < last) for r, each in enumerate(losses)]
        return [torch.stack(gradients) for gradients in zip(*found, strict=True)]


def per_image(layer: nn.Module, inputs: Tensor, arriving: Tensor) -> Tensor:
    """Gradient of each image's losses in a layer's parameters.

    Args:
        layer: The layer.
        inputs: What went in, shape (B, ...).
        arriving: Gradients at its output, shape (R, B, ...).

    Returns:
        Shape (R, B, rows, columns), columns in the order of `matrix`.
    """
    if multiplies_patches(layer):
        read, back = patches(layer, inputs), positions(layer, arriving)
        sets, images, rows = back.shape[:3]
        stacked = back.transpose(0, 1).reshape(images, sets * rows, -1)
        return torch.bmm(stacked, read.mT).view(images, sets, rows, -1).transpose(0, 1)
    if type(layer) is nn.BatchNorm2d and not layer.training:  # timm's subclass has an activation inside
        assert layer.running_mean is not None
        assert layer.running_var is not None
        mean, variance = layer.running_mean.view(-1, 1, 1), layer.running_var.view(-1, 1, 1)
        centred = (inputs - mean) / (variance + layer.eps).sqrt()
        return torch.stack([(arriving * centred).sum((3, 4)), arriving.sum((3, 4))], -1)
    return _of_any(layer, inputs, arriving)


def matrix(layer: nn.Module, values: dict[str, Tensor], leading: int = 0) -> Tensor:
    """A layer's parameters, or values for each of them, as a matrix: a row is one output channel, its bias last.

    Args:
        layer: The layer; says which parameters there are.
        values: One tensor per parameter, by name, shape (*leading, *parameter).
        leading: Number of leading dimensions.

    Returns:
        Shape (*leading, rows, columns).
    """
    parts = [values[name] for name, _ in layer.named_parameters(recurse=False)]
    return torch.cat([p.flatten(leading + 1) if p.ndim > leading + 1 else p.unsqueeze(-1) for p in parts], -1)


def multiplies_patches(layer: nn.Module) -> bool:
    """Whether a layer multiplies what it reads at each position by one matrix: linear layers, plain convolutions."""
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


def patches(layer: nn.Module, inputs: Tensor) -> Tensor:
    """What a convolution or linear layer reads at each of Q positions, a one for the bias last: (B, columns, Q)."""
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str)
        read = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    else:
        read = inputs.flatten(1, -2).mT if inputs.ndim > 2 else inputs[..., None]
    return read if layer.bias is None else torch.cat([read, torch.ones_like(read[:, :1])], 1)


def positions(layer: nn.Module, arriving: Tensor) -> Tensor:
    """Gradients at the output of a convolution or linear layer by position: shape (R, B, rows, Q)."""
    if isinstance(layer, nn.Conv2d):
        return arriving.flatten(3)
    return arriving.flatten(2, -2).mT if arriving.ndim > 3 else arriving[..., None]


def _of_any(layer: nn.Module, inputs: Tensor, arriving: Tensor) -> Tensor:
    """The same for a layer of any kind, by torch.func: slower."""
    parameters = {name: value.detach() for name, value in layer.named_parameters(recurse=False)}

    def of_one(image: Tensor, back: Tensor) -> Tensor:
        def run(values: dict[str, Tensor]) -> Tensor:
            output: Tensor = functional_call(layer, values, (image[None],))
            return output

        pull = vjp(run, parameters)[1]
        return matrix(layer, vmap(pull)(back[:, None])[0], leading=1)

    return vmap(of_one, in_dims=(0, 1), out_dims=1)(inputs, arriving)
