"""One step of the optimiser: micro-batches, precision, the sum over processes, the running average of the weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from osdtw_training import distributed
from osdtw_training.batch_norm import global_batch_norm
from osdtw_training.recipe import Recipe

Loss = Callable[[Tensor, Tensor], Tensor]
BLOCK = re.compile(r"(.*\.)?block\d+")


class Stepper:
    """Takes steps, and keeps what they need besides weights and the optimiser.

    Args:
        parts: What is trained.
        optimizer: Its optimiser.
        recipe: Precision, decay of the average.
    """

    def __init__(self, parts: nn.ModuleList, optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
        self.parts, self.optimizer, self.recipe = parts, optimizer, recipe
        kind = torch.device(recipe.device).type
        self.scaler = torch.amp.GradScaler(kind, enabled=recipe.amp == "float16")
        self.average = ModelEmaV3(parts, decay=recipe.ema) if recipe.ema else None

    def step(self, loss: Loss, batches: Iterable[tuple[Tensor, Tensor]], batch_size: int) -> Tensor:
        """One step.

        Args:
            loss: From images and labels to their mean loss.
            batches: This process's part of each micro-batch.
            batch_size: Images of the step, in all processes and micro-batches.

        Returns:
            This process's part of the mean loss of the batch: a scalar.
        """
        self.optimizer.zero_grad()
        parts = []
        for images, labels in batches:
            with autocast(self.recipe):
                part = loss(images, labels) * (len(labels) / batch_size)
            with _buffers_kept(self.parts, self.recipe.grad_checkpointing):
                self.scaler.scale(part).backward()
            parts.append(part.detach())
        distributed.sum_gradients(self.parts.parameters())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.parts)
        return torch.stack(parts).sum()

    def take_average(self) -> None:
        """End with the average of the weights, where there is one."""
        if self.average is not None:
            self.parts.load_state_dict(self.average.module.state_dict())

    def tensors(self) -> dict[str, Tensor]:
        """Tensors for the checkpoint."""
        state = {} if self.average is None else self.average.module.state_dict()
        return {f"average.{key}": value for key, value in state.items()}

    def values(self) -> dict[str, Any]:
        """Numbers for the checkpoint."""
        state = self.scaler.state_dict()
        return {"scaler": state} if state else {}

    def load(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Take back what a checkpoint holds of `tensors` and `values`."""
        if self.average is not None:
            start = "average."
            own = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
            self.average.module.load_state_dict(own)
        if "scaler" in values:
            self.scaler.load_state_dict(values["scaler"])


@contextmanager
def training_ways(network: nn.Module, recipe: Recipe) -> Iterator[None]:
    """While it is open, a network runs as the recipe wants it in training; afterwards as it did before.

    Args:
        network: The network; its parameters keep their names.
        recipe: Whether to recompute blocks in the backward pass, and to compile them.

    Yields:
        Nothing.
    """
    # Stages run a network through many methods, but always block by block; blocks are small to compile.
    blocks = [module for name, module in network.named_modules() if BLOCK.fullmatch(name)] if recipe.compile else []
    with ExitStack() as ways:
        ways.enter_context(global_batch_norm(network))
        if recipe.grad_checkpointing:
            network.set_grad_checkpointing(True)  # type: ignore[operator]
            ways.callback(network.set_grad_checkpointing, False)  # type: ignore[arg-type]
        for block in blocks:
            block.compile()
            ways.callback(setattr, block, "_compiled_call_impl", None)
        yield


def autocast(recipe: Recipe) -> AbstractContextManager[object]:
    """The forward pass's precision: half of the bits where the recipe says so."""
    kind = torch.device(recipe.device).type
    dtype = torch.float16 if recipe.amp == "float16" else torch.bfloat16
    return torch.autocast(kind, dtype=dtype, enabled=recipe.amp != "none")


def has_bfloat16() -> bool:
    """Whether this machine's processor has bfloat16 instructions; others emulate them. True where torch cannot tell."""
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch
    return not known or any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


@contextmanager
def _buffers_kept(parts: nn.Module, wanted: bool) -> Iterator[None]:
    """Put a network's buffers back at the end: blocks that run again would count a batch twice in batch norm."""
    kept = [(buffer, buffer.clone()) for buffer in parts.buffers()] if wanted else []
    yield
    for buffer, value in kept:
        buffer.copy_(value)
