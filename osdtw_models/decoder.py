"""A task's own part of the network."""

from __future__ import annotations

from torch import Tensor, nn


class Decoder(nn.Module):
    """A task's own blocks, norm, neck and classifier.

    Args:
        blocks: Blocks d+1 .. L by name; empty when everything is shared.
        norm: What follows the last block before pooling.
        neck: What follows pooling.
        classifier: From pooled features to the task's classes and "none".
    """

    norm: nn.Module
    neck: nn.Module
    classifier: nn.Module

    def __init__(self, blocks: dict[str, nn.Module], norm: nn.Module, neck: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.block_names = list(blocks)
        for name, block in blocks.items():
            self.add_module(name, block)
        self.norm = norm
        self.neck = neck
        self.classifier = classifier

    def block_list(self) -> list[nn.Module]:
        """The blocks in order."""
        return [self.get_submodule(name) for name in self.block_names]

    def keep_blocks(self, number: int) -> None:
        """Drop all blocks but the first ones."""
        for name in self.block_names[number:]:
            delattr(self, name)
        self.block_names = self.block_names[:number]

    def forward_features(self, x: Tensor) -> Tensor:
        """Feature maps after the last block and the norm."""
        for block in self.block_list():
            x = block(x)
        return self.norm(x)
