"""A saved network -> the names that a network of another shared depth expects."""

from __future__ import annotations

from torch import Tensor

from osdtw_models.backbone import block_number
from osdtw_models.network import OsdtwNet


def convert_checkpoint(state_dict: dict[str, Tensor], model: OsdtwNet) -> dict[str, Tensor]:
    """Fit a saved network to the model's shared depth.

    A shallower model gets the shared blocks copied into each decoder: the same function. A deeper one would
    have to merge decoders that differ, which no renaming can do. Whether the tasks have the same classes is looked
    at by the network itself, whichever way weights come in.

    Args:
        state_dict: Saved tensors.
        model: The network that will load them.

    Returns:
        Tensors under the model's names; unchanged where the depths agree.

    Raises:
        ValueError: If the checkpoint shares fewer blocks than the model, or has another number of tasks.
    """
    saved_tasks = {int(key.split(".")[1]) for key in state_dict if key.startswith("decoders.")}
    tasks = len(model.decoders)
    if len(saved_tasks) != tasks:
        raise ValueError(
            f"The checkpoint has {len(saved_tasks)} tasks but the model has {tasks}; create the model with the "
            "checkpoint's task_classes (see its config.json)."
        )
    position = state_dict.get("class_position")
    if position is not None and len(position) != model.num_classes:
        # New classes: their place is the model's, and no classifier of the old ones may slip in by its shape.
        kept = {key: value for key, value in state_dict.items() if ".classifier." not in key}
        state_dict = {**kept, **model.places}
    shared = max((block_number(key) for key in state_dict if key.startswith("encoder.")), default=0)
    if shared < model.shared_depth and tasks > 1:
        raise ValueError(
            f"The checkpoint shares {shared} blocks but the model {model.shared_depth}; decoders that differ cannot "
            f"be merged, so choose shared_depth of at most {shared}."
        )
    converted = {}
    for key, value in state_dict.items():
        number = block_number(key)
        tail = key.split(".", 1 if key.startswith("encoder.") else 2)[-1]
        if key.startswith("encoder.") and number > model.shared_depth:
            converted.update({f"decoders.{k}.{tail}": value.clone() for k in range(tasks)})
        elif key.startswith("decoders.") and 0 < number <= model.shared_depth:
            converted[f"encoder.{tail}"] = value  # one task only: its decoder's blocks are the encoder's
        else:
            converted[key] = value
    return converted
