"""Which process this is, and how processes sum; a process that is alone pays for none of it.

``torchrun`` starts N processes of one training. They share every batch, and all that they exchange is a sum: own rows
among zeros make a sum a concatenation. So one collective is enough, over gloo on CPUs and over nccl on GPUs.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# What the first process does alone takes minutes: it hashes the images' files and writes. Whoever waits longer than
# this waits for a process that hangs; one that fails ends the others through torchrun, at once.
PATIENCE = timedelta(minutes=30)
_together = False  # of the process, not of a thread: the backward pass on a GPU has threads of its own


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Belong to the processes that ``torchrun`` started, if it did; all but the first are then silent.

    Outside of it every process is alone. The connections stay until the process ends: torch cannot make them anew.

    Args:
        device: Torch device of the run; on "cuda" every process takes the GPU of its number on this machine.

    Yields:
        Nothing.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    if not dist.is_initialized():
        on_gpu = torch.device(device).type == "cuda"
        if on_gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    global _together
    before, _together = _together, True
    try:
        with Path(os.devnull).open("w") as nowhere, nullcontext() if first() else redirect_stdout(nowhere):
            yield
    finally:
        _together = before


def processes() -> int:
    """Number of processes of this training, 1 without ``torchrun``."""
    return dist.get_world_size() if _together else 1


def processes_here() -> int:
    """How many of them run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if processes() > 1 else 1


def number() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if _together else 0


def first() -> bool:
    """Whether this is the process that writes, prints and draws."""
    return not dist.is_torchelastic_launched() or os.environ["RANK"] == "0"


def share(total: int) -> slice:
    """This process's part of ``total`` things in a row: as many for each, the first ones taking the rest."""
    each, rest = divmod(total, processes())
    start = number() * each + min(number(), rest)
    return slice(start, start + each + (number() < rest))


def summed(own: Tensor) -> Tensor:
    """The sum over processes, without gradients; a tensor of its own where there are several."""
    if processes() == 1:
        return own
    total = own.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def stacked(own: Tensor) -> Tensor:
    """The tensors of all processes, which must be of one shape, in a new first dimension; without gradients."""
    every = own.new_zeros(processes(), *own.shape)
    every[number()] = own.detach()
    return summed(every)


def gathered(own: Tensor) -> Tensor:
    """The rows of all processes, in the order of the processes; gradients find their way back.

    A loss that needs the whole batch, because it divides by something of the batch or mixes its images, is computed on
    gathered rows by every process. What the processes' losses, weighed by their share of the batch, add up to is then
    the loss of the whole batch, as it is for a mean over images.

    Args:
        own: Rows of this process, shape (n, ...).

    Returns:
        Shape (sum of all n, ...).
    """
    if processes() == 1:
        return own
    ends = stacked(torch.tensor(len(own))).cumsum(0).tolist()
    rows: Tensor = _Gathered.apply(own, slice(ends[number()] - len(own), ends[number()]), ends[-1])
    return rows


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, own: Tensor, place: slice, total: int) -> Tensor:
        context.place = place
        rows = own.new_zeros(total, *own.shape[1:])
        rows[place] = own
        return summed(rows)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return summed(gradient)[context.place], None, None


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add up the gradients of all processes, in place.

    DistributedDataParallel would do it during the backward pass, but wraps a module's ``forward``; stages train parts
    of a network through other methods of it. One sum afterwards is as exact, and plain.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if processes() == 1 or not gradients:
        return
    flat = summed(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def take_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of the first process."""
    if processes() > 1:
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            dist.broadcast(whole, 0)
            tensor.detach().copy_(whole)


def of_first(value: int) -> int:
    """The first process's value of something that all must agree on."""
    known = torch.tensor(value)
    take_from_first([known])
    return int(known)


@contextmanager
def file_of_first(path: Path) -> Iterator[Path]:
    """A file as the first process sees it: where folders are not shared, the others get a copy.

    Args:
        path: The file; it need not exist.

    Yields:
        Where to read it; there is no file where the first process has none.
    """
    if processes() == 1:
        yield path
        return
    content = path.read_bytes() if first() and path.is_file() else None
    length = of_first(-1 if content is None else len(content))
    sent = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.zeros(max(length, 0)).byte()
    if length > 0:
        take_from_first([sent])
    if first():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        if length >= 0:
            copy.write_bytes(sent.numpy().tobytes())
        yield copy
