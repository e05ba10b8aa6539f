"""One small network of every family that timm's models are cut from, for the tests that hold for all of them."""

import timm
import torch

from osdtw_models import create_model

SIZE = 64
VIT = {"depth": 4, "embed_dim": 24, "num_heads": 2, "patch_size": 16}
SWIN = {"embed_dim": 12, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2), "window_size": 4}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
# By registered name: timm's name, arguments of timm's model, and whether the model has one image size.
ZOO = {
    "osdtw_resnet10": ("resnet18", {"layers": (1, 1, 1, 1)}, False),
    "osdtw_resnet50": ("resnet50", {"layers": (1, 2, 1, 1)}, False),
    "osdtw_convnext_tiny": ("convnext_tiny", CONVNEXT, False),
    "osdtw_vit_small_patch16_224": ("vit_small_patch16_224", VIT, True),
}
FOREIGN = {
    "regnet": ("regnety_002", {}, False),
    "efficientnet": ("efficientnet_b0", {}, False),
    "swin": ("swin_tiny_patch4_window7_224", SWIN, True),
    "mixer": ("mixer_s32_224", {}, True),
    "resnet-d": ("resnet26d", {"layers": (1, 1, 1, 1)}, False),
    "averaging vit": ("vit_base_patch16_rpn_224", VIT, True),
}


def plain(family, **arguments):
    """timm's own model of a family, with random values wherever timm begins with zeros and ones."""
    name, args, sized = {**ZOO, **FOREIGN}[family]
    arguments = {"num_classes": 6, **({"img_size": SIZE} if sized else {}), **args, **arguments}
    return randomise(timm.create_model(name, **arguments)).eval()


def zoo(name, random=True, **arguments):
    """A registered network of a family, likewise, or its values left alone."""
    _, args, sized = ZOO[name]
    given = {} if name == "osdtw_resnet10" else {"backbone_args": args}
    arguments = {"num_classes": 6, **({"img_size": SIZE} if sized else {}), **given, **arguments}
    model = create_model(name, **arguments).eval()
    return randomise(model) if random else model


@torch.no_grad()
def randomise(model):
    """Random values of a size at which nothing overflows."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.is_floating_point() and value.numel() and value.ndim < 2 and "logit" not in name:
            value.add_(0.1 * torch.randn_like(value))
    return model
