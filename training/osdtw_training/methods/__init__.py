"""The peers, one idea a file, on the same engine: what OSDTW is compared with."""

from __future__ import annotations

from collections.abc import Callable

from osdtw_models.network import OsdtwNet
from osdtw_training.data import LongTailedData
from osdtw_training.methods import (
    bags,
    balanced_softmax,
    class_balanced,
    cross_entropy,
    decoupled,
    focal,
    ldam,
    logit_adjustment,
    mfm,
    mislas,
    nbn,
    ride,
    sade,
)
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run

Method = Callable[[Recipe, LongTailedData, Run], OsdtwNet]
PEERS: dict[str, Method] = {
    "cross_entropy": cross_entropy.train,
    "focal": focal.train,
    "class_balanced": class_balanced.train,
    "balanced_softmax": balanced_softmax.train,
    "logit_adjustment": logit_adjustment.train,
    "logit_adjustment_post_hoc": logit_adjustment.train_post_hoc,
    "ldam_drw": ldam.train,
    "crt": decoupled.train_crt,
    "lws": decoupled.train_lws,
    "tau_norm": decoupled.train_tau_norm,
    "ncm": decoupled.train_ncm,
    "mislas": mislas.train,
    "bags": bags.train,
    "ride": ride.train,
    "sade": sade.train,
    "nbn": nbn.train,
    "mfm": mfm.train,
}
