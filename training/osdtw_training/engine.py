"""One training loop, readable top to bottom. It knows no method: a stage hands it a network and a loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from tqdm import tqdm

from osdtw_training import distributed
from osdtw_training.batches import Batches
from osdtw_training.recipe import Recipe
from osdtw_training.recipe_tables import Schedule
from osdtw_training.runs import Run, pack_state, unpack_state
from osdtw_training.selection import LAST, LastEpoch
from osdtw_training.steps import Loss, Stepper, training_ways


def fit(
    stage: str,
    network: nn.Module,
    trained: Sequence[nn.Module],
    loss: Loss,
    batches: Batches,
    schedule: Schedule,
    recipe: Recipe,
    run: Run,
    first_epoch: int = 0,
    before_epoch: Callable[[int], None] | None = None,
    selection: LastEpoch = LAST,
) -> None:
    """Train parts of a network, one checkpoint per epoch; goes on from the stage's checkpoint if there is one.

    Args:
        stage: Name of the stage: of its checkpoint, its metrics and its progress bar.
        network: The network; all of it is saved.
        trained: The parts of it to train; the rest stays in evaluation mode and unchanged.
        loss: From normalised images (B, C, H, W) and labels (B,) to a scalar: a mean over the images, or, where it is
            not, the loss of `distributed.gathered` rows.
        batches: Training images.
        schedule: Epochs and learning rates.
        recipe: Optimiser settings.
        run: Run folder.
        first_epoch: Number of the stage's first epoch in the whole run; decides order and augmentation.
        before_epoch: Called with the number of each epoch of the stage before it begins.
        selection: Which epoch's weights the network ends with.

    Raises:
        FloatingPointError: If the loss or a weight is not finite; the last checkpoint stays.
    """
    parts = nn.ModuleList(trained)
    optimizer = create_optimizer_v2(
        parts, opt=recipe.optimizer, lr=schedule.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum
    )
    steps = batches.steps
    rise = round(schedule.rise_epochs * steps)
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=max((schedule.anneal_epochs or schedule.epochs) * steps, 2),
        lr_min=schedule.final_lr,
        warmup_t=rise,
        warmup_lr_init=schedule.lr / max(rise, 1),
        t_in_epochs=False,
    )
    distributed.take_from_first(network.state_dict().values())
    stepper = Stepper(parts, optimizer, recipe)
    done = restore(stage, network, run, optimizer, stepper, selection)
    run.forget(stage, done)
    for epoch in range(done, schedule.epochs):
        started = time.perf_counter()
        if before_epoch is not None:
            before_epoch(epoch)
        network.eval()
        parts.train()
        title = f"{stage} {epoch + 1}/{schedule.epochs}"
        # disable=None: no bar where nobody watches (a log file, CI); the line per epoch is always printed.
        bar = tqdm(range(steps), title, leave=False, disable=None if distributed.first() else True)
        shown, values = batches.epoch(first_epoch + epoch), []
        with training_ways(network, recipe):
            for step in bar:
                scheduler.step_update(epoch * steps + step)
                values.append(stepper.step(loss, islice(shown, recipe.accumulate), batches.batch_size))
        # Losses stay where they are until the epoch is over: to look at one makes a GPU wait.
        losses = distributed.summed(torch.stack(values).cpu().double())
        check_finite(losses, parts, stage, epoch)
        mean = losses.mean().item()
        figures = selection.look(network, epoch)
        seconds = time.perf_counter() - started
        run.log(stage, epoch, loss=mean, lr=optimizer.param_groups[0]["lr"], seconds=round(seconds, 2), **figures)
        tensors = {**pack_state(network.state_dict(), optimizer), **stepper.tensors(), **selection.tensors()}
        run.save_checkpoint(stage, tensors, {"epoch": epoch + 1, **stepper.values(), **selection.state()})
        said = "".join(f"  {name} {value:.2f}" for name, value in figures.items())
        print(f"{stage:>16} {epoch + 1:3d}/{schedule.epochs}  loss {mean:.4f}{said}  {seconds:.1f} s", flush=True)
    stepper.take_average()
    selection.finish(network)
    network.eval()


def check_finite(losses: Tensor, trained: nn.Module, stage: str, epoch: int) -> None:
    """Stop where numbers have left their range, before they are saved.

    Args:
        losses: Loss of every step of an epoch.
        trained: What was trained: a last step that went wrong shows in its parameters alone.
        stage: The stage, for the message.
        epoch: Its epoch, from 0.

    Raises:
        FloatingPointError: If a loss or a parameter is infinite or not a number; names the first such step.
    """
    bad = (~losses.isfinite()).nonzero().flatten().tolist()
    spoilt = [name for name, value in trained.named_parameters() if not value.isfinite().all()]
    if bad or spoilt:
        step = bad[0] if bad else len(losses) - 1
        what = f"The loss of stage {stage} is {losses[step]:g}" if bad else f"Stage {stage} spoilt {spoilt[0]}"
        raise FloatingPointError(
            f"{what} in epoch {epoch + 1}, batch {step + 1} of {len(losses)}; train again with a lower learning rate "
            "and another --output. The last good checkpoint is kept."
        )


def restore(
    stage: str,
    network: nn.Module,
    run: Run,
    optimizer: torch.optim.Optimizer,
    stepper: Stepper,
    selection: LastEpoch = LAST,
) -> int:
    """Load a stage's checkpoint, if there is one, into the network, what trains it and what chooses the epoch.

    Returns:
        The number of epochs already done.
    """
    saved = run.load_checkpoint(stage)
    if saved is None:
        return 0
    tensors, state = saved
    network.load_state_dict(unpack_state(tensors, optimizer))
    stepper.load(tensors, state)
    selection.restore(tensors, state)
    return int(state["epoch"])
