"""The layers of the task networks side by side, in coordinates in which they can be compared.

A filter before batch norm may have any length without changing the network, so lengths say nothing, yet they enter a
diagonal Fisher and a displacement. Each such filter is brought to one length in all networks, its mean over the tasks;
gradients change by the inverse factor (theory.md section 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from osdtw_models.network import OsdtwNet
from osdtw_training.gradients import matrix, per_image
from osdtw_training.structures import Coordinates


@dataclass
class Layer:
    """One layer in all task networks.

    Args:
        name: Its name in each decoder, ``block3.conv1``.
        modules: The layer in each task's network, length K.
        length: Common length of its filters, shape (rows, 1); none where the length matters.
        coordinates: Coordinates of its parameters.
    """

    name: str
    modules: list[nn.Module]
    length: Tensor | None
    coordinates: Coordinates = field(default_factory=Coordinates)

    @property
    def block(self) -> int:
        """Number of its block, the stem being 1."""
        return int(self.name.split(".", 1)[0].removeprefix("block"))

    def parameters(self, modules: Sequence[nn.Module]) -> Tensor:
        """Parameters of this layer in K networks, shape (K, P).

        Args:
            modules: The layer in each network.

        Returns:
            The parameters in the layer's coordinates, filters at their common length.
        """
        values = torch.stack([own_matrix(module) for module in modules])
        if self.length is not None:
            values = values * (self.length / values.norm(dim=-1, keepdim=True))
        return self.coordinates.turn(values).flatten(1)

    def own(self, task: int) -> Tensor:
        """One task's parameters as a matrix, shape (rows, columns), filters at their common length."""
        values = own_matrix(self.modules[task])
        return values if self.length is None else values * (self.length / values.norm(dim=-1, keepdim=True))

    def gradients(self, task: int, inputs: Tensor, arriving: Tensor) -> Tensor:
        """Gradients of one task by image.

        Args:
            task: Number of the task.
            inputs: What went into the layer, shape (B, ...).
            arriving: Gradients at its output, shape (R, B, ...).

        Returns:
            Shape (R, B, P), in the layer's coordinates.
        """
        found = per_image(self.modules[task], inputs, arriving)
        if self.length is not None:
            found = found * (own_matrix(self.modules[task]).norm(dim=-1, keepdim=True) / self.length)
        return self.coordinates.turn(found).flatten(2)


def block_layers(network: OsdtwNet) -> list[Layer]:
    """All layers with parameters in the blocks of task networks, in the order of their registration.

    Args:
        network: Network that shares nothing: decoder k is the whole network of task k.

    Returns:
        The layers.
    """
    each = [dict(_layers_of(network, k)) for k in network.tasks]
    layers = []
    for name in each[0]:
        modules = [found[name] for found in each]
        lengths = torch.stack([own_matrix(module).norm(dim=-1, keepdim=True) for module in modules])
        free = _before_batch_norm(list(each[0].values()), modules[0])
        layers.append(Layer(name, modules, lengths.mean(0) if free else None))
    return layers


def same_layers(layers: Sequence[Layer], network: OsdtwNet) -> list[list[nn.Module]]:
    """The modules of another network that shares nothing, in the order of the layers: one list of K per layer."""
    each = [dict(_layers_of(network, k)) for k in network.tasks]
    return [[found[layer.name] for found in each] for layer in layers]


def own_matrix(module: nn.Module) -> Tensor:
    """A module's own parameters as a matrix, shape (rows, columns), detached."""
    return matrix(module, {name: value.detach() for name, value in module.named_parameters(recurse=False)})


def assign(module: nn.Module, values: Tensor) -> None:
    """Set a module's own parameters to a matrix of the form of `own_matrix`."""
    start = 0
    with torch.no_grad():
        for _, parameter in module.named_parameters(recurse=False):
            columns = parameter[0].numel()
            parameter.copy_(values[:, start : start + columns].view_as(parameter))
            start += columns


def _layers_of(network: OsdtwNet, task: int) -> list[tuple[str, nn.Module]]:
    decoder = network.decoders[task]
    return [
        (name, module)
        for name, module in decoder.named_modules()
        if name.startswith("block") and next(module.parameters(recurse=False), None) is not None
    ]


def _before_batch_norm(modules: Sequence[nn.Module], module: nn.Module) -> bool:
    """Whether a convolution without bias is registered right before a batch norm of its channels."""
    if not isinstance(module, nn.Conv2d) or module.bias is not None:
        return False
    following = modules[modules.index(module) + 1 :][:1]
    return any(isinstance(norm, nn.BatchNorm2d) and norm.num_features == module.out_channels for norm in following)
