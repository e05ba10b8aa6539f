"""What may be wrong with a recipe's values, before any data is read."""

from __future__ import annotations

import re

from osdtw_training.recipe_fields import RecipeFields

MIXES = ("osdtw", "cross_entropy", "balanced_softmax", "logit_adjustment", "logit_adjustment_post_hoc", "tau_norm")
SET_CLASS_WEIGHTS = ("class_balanced", "ldam_drw", "ride")


def check_fields(recipe: RecipeFields) -> None:
    """Refuse values that are out of range or do not go together.

    Args:
        recipe: The recipe.

    Raises:
        ValueError: If there is one; says what to give instead.
    """
    check_name(recipe.name)
    _check_least(recipe)
    _check_images(recipe)
    _check_tasks(recipe)
    _check_optimisation(recipe)
    _check_decisions(recipe)
    _check_method(recipe)


def check_name(name: str) -> None:
    """Refuse a run's name that is none of a folder in the folder of runs.

    Args:
        name: The name.

    Raises:
        ValueError: If it is empty, leads elsewhere or holds control characters.
    """
    if name in ("", ".", "..") or re.search(r"[/\\\x00-\x1f]", name):
        raise ValueError(f"name is {name!r}; it names a folder: leave out slashes and control characters.")


def _check_least(recipe: RecipeFields) -> None:
    least = {
        "batch_size": 1,
        "img_size": 1,
        "num_tasks": 1,
        "crop_pad": 0,
        "cutout": 0,
        "seed": 0,
        "accumulate": 1,
        "holdout_least": 0,
        "threads": 0,
        "workers": 0,
    }
    for name, bound in least.items():
        value = getattr(recipe, name)
        if value is not None and value < bound:
            raise ValueError(f"{name} is {value}; it must be at least {bound}.")


def _check_images(recipe: RecipeFields) -> None:
    if recipe.imbalance_factor is not None and recipe.imbalance_factor < 1:
        raise ValueError(f"imbalance_factor is {recipe.imbalance_factor}; it is largest over smallest class, >= 1.")
    if not 0 <= recipe.holdout < 1:
        raise ValueError(f"holdout is {recipe.holdout}; give the part of the training images to keep, 0 to below 1.")
    if (recipe.std is not None and min(recipe.std) <= 0) or recipe.none_clip <= 0:
        raise ValueError(f"std {recipe.std} and none_clip {recipe.none_clip} must be positive.")
    if recipe.cutmix != "none" and (recipe.crop == "resized" or recipe.method not in MIXES):
        raise ValueError(
            f'cutmix is {recipe.cutmix}; it needs small images in memory (crop = "padded") and one of the methods '
            f"{', '.join(MIXES)}."
        )
    if not 0 < recipe.cutmix_part <= 1:
        raise ValueError(f"cutmix_part is {recipe.cutmix_part}; give the part of the images that are mixed, to 1.")
    if not 0 <= recipe.color_jitter <= 1 or (recipe.color_jitter and recipe.crop != "resized"):
        raise ValueError(f'color_jitter is {recipe.color_jitter}; give 0 to 1, above 0 only with crop = "resized".')
    if not 0 < recipe.crop_scale[0] <= recipe.crop_scale[1] <= 1:
        raise ValueError(f"crop_scale is {list(recipe.crop_scale)}; give two rising parts of the image, 0 to 1.")


def _check_tasks(recipe: RecipeFields) -> None:
    if not 0 <= recipe.open_share <= 1:
        raise ValueError(f"open_share is {recipe.open_share}; it is a part, 0 to 1.")
    if (recipe.fusion == "mean") != recipe.open_none:
        raise ValueError('open_none and fusion "mean" belong together; give both or neither.')
    if recipe.open_none and recipe.num_tasks < 2:
        raise ValueError(f"open_none opens nothing with num_tasks {recipe.num_tasks}; give two or more.")
    if recipe.open_none and recipe.searched:
        raise ValueError(
            'The search knows a closed "none" only; to train with open_none give shared_depth and task_weights.'
        )
    alone = recipe.method == "osdtw" and recipe.joint.start == "scratch" and not recipe.searched
    follows = recipe.refit.decoders == "tasks" or (recipe.refit.decoders == "refit" and recipe.refit.distill > 0)
    if alone and not follows and recipe.warmup.epochs + recipe.tasks.epochs:
        raise ValueError(
            f"warmup.epochs {recipe.warmup.epochs} and tasks.epochs {recipe.tasks.epochs} train networks that nothing "
            'uses: joint.start is "scratch" and the plan is given; set both to 0.'
        )
    if recipe.task_weights is not None and (abs(sum(recipe.task_weights) - 1) > 1e-6 or min(recipe.task_weights) <= 0):
        raise ValueError(f"task_weights {list(recipe.task_weights)} must be positive and sum to 1.")
    if recipe.head_threshold is not None and recipe.num_tasks != 2:
        raise ValueError(f"head_threshold makes 2 tasks, but num_tasks is {recipe.num_tasks}; leave one of them out.")


def _check_optimisation(recipe: RecipeFields) -> None:
    if not 0 <= recipe.momentum < 1:
        raise ValueError(f"momentum is {recipe.momentum}; it must be at least 0 and below 1.")
    if not 0 <= recipe.ema < 1:
        raise ValueError(f"ema is {recipe.ema}; give the decay of the average, 0 (none) to below 1.")
    if recipe.amp == "float16" and not recipe.device.startswith("cuda"):
        raise ValueError(f'amp "float16" needs a GPU, but device is {recipe.device}; choose "bfloat16" or "none".')
    if recipe.searched and recipe.optimizer != "sgd":
        raise ValueError(
            f"optimizer is {recipe.optimizer}, but the search takes its damping from the learning rates of sgd; give "
            "shared_depth and task_weights, or keep sgd."
        )
    stages = {"train": recipe.train, "warmup": recipe.warmup, "tasks": recipe.tasks, "joint": recipe.joint}
    for name, stage in {**stages, "refit": recipe.refit}.items():
        if min(stage.epochs, stage.lr, stage.final_lr, stage.rise_epochs) < 0:
            raise ValueError(
                f"{name} has epochs {stage.epochs}, lr {stage.lr}, final_lr {stage.final_lr} and rise_epochs "
                f"{stage.rise_epochs}; none may be negative."
            )
        if stage.anneal_epochs is not None and stage.anneal_epochs < stage.epochs:
            raise ValueError(f"{name} has epochs {stage.epochs} but anneal_epochs {stage.anneal_epochs}; raise it.")


def _check_decisions(recipe: RecipeFields) -> None:
    wants = {
        "eval_metric chooses the epoch on": recipe.eval_metric != "last",
        "tau_norm chooses its power on": recipe.method == "tau_norm",
        "calibrate needs": recipe.calibrate,
    }
    for what, wanted in wants.items():
        if wanted and not recipe.holds_out:
            raise ValueError(f"{what} held-out images; set holdout above 0.")
    if recipe.eval_metric != "last":
        if recipe.method == "osdtw" and recipe.refit.decoders == "tasks":
            raise ValueError(
                'eval_metric judges epochs of the final network, but refit.decoders "tasks" puts it together after '
                'them; choose "refit" or "joint".'
            )
        if recipe.ema:
            raise ValueError("eval_metric keeps one epoch, ema the average of all; choose one of the two.")
        if not getattr(recipe, recipe.result_stage()).epochs:
            raise ValueError(f"eval_metric chooses among epochs; set epochs in [{recipe.result_stage()}].")


def _check_method(recipe: RecipeFields) -> None:
    if recipe.method in SET_CLASS_WEIGHTS and recipe.class_weights != "none":
        raise ValueError(
            f'{recipe.method} sets class weights itself; leave class_weights at "none", or choose the method '
            '"cross_entropy".'
        )
    if recipe.method == "nbn" and recipe.grad_checkpointing:
        raise ValueError("nbn runs on exchanged parameters, which grad_checkpointing would not see; leave it off.")
    if recipe.method == "mfm" and recipe.accumulate > 1:
        raise ValueError("mfm takes its virtual step on whole batches; leave accumulate at 1.")
