"""The peers' defining formulas against hand-computed cases, and a short run of each."""

import copy
import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from osdtw_models import create_model
from osdtw_models.load import load_model
from osdtw_models.partition import ClassPartition
from osdtw_training.batches import Batches
from osdtw_training.data import LongTailedData, load_data
from osdtw_training.methods import PEERS
from osdtw_training.methods.bags import group_loss, groups
from osdtw_training.methods.class_balanced import effective_weights, weighted_loss
from osdtw_training.methods.cosine import cosines, fold_scale
from osdtw_training.methods.decoupled import nearest_mean, tau_normalised
from osdtw_training.methods.experts import new_experts
from osdtw_training.methods.focal import focal_loss
from osdtw_training.methods.ldam import ldam_loss, margins
from osdtw_training.methods.logit_adjustment import adjustment
from osdtw_training.methods.mfm import Modulator, balanced_batches, meta_step, repeated, unseen_features
from osdtw_training.methods.mislas import label_aware_loss, smoothing
from osdtw_training.methods.nbn import Normalisation, closing_norms, fold_normalisation, of_length, rectified_logits
from osdtw_training.methods.ride import divergence, temperatures
from osdtw_training.methods.sade import shifts
from osdtw_training.methods.single import Draws
from osdtw_training.networks import new_network
from osdtw_training.pipeline import run_recipe
from osdtw_training.recipe import Recipe
from osdtw_training.recipe_fields import TWO_STAGES
from osdtw_training.recipe_tables import Peer, Schedule
from osdtw_training.recipe_tables import Refit as RefitSchedule

LOGITS = torch.tensor([[math.log(1.0), math.log(3.0)], [math.log(4.0), math.log(1.0)]])  # odds 1 : 3 and 4 : 1
LABELS = torch.tensor([0, 0])  # of chances 1/4 and 4/5


def test_focal_loss_weighs_by_what_is_missing():
    expected = (0.75**2 * math.log(4) + 0.2**2 * math.log(1.25)) / 2
    assert float(focal_loss(LOGITS, LABELS, 2.0).mean()) == pytest.approx(expected, rel=1e-5)
    assert float(focal_loss(LOGITS, LABELS, 0.0).mean()) == pytest.approx((math.log(4) + math.log(1.25)) / 2, rel=1e-5)


def test_focal_loss_of_a_sure_answer_has_a_gradient():
    logits = torch.tensor([[120.0, 0.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([0]), 0.5).sum().backward()
    assert logits.grad.isfinite().all()


def test_effective_numbers_of_one_and_two_images():
    # beta = 1/2: effective numbers 1 and 1 + 1/2, so weights in the ratio 3 : 2 with mean 1.
    assert effective_weights([1, 2], 0.5).tolist() == pytest.approx([1.2, 0.8])
    assert effective_weights([7, 1, 3], 0.0).tolist() == [1, 1, 1]
    inverse = torch.tensor([1 / 7, 1, 1 / 3])
    assert effective_weights([7, 1, 3], 1 - 1e-9).tolist() == pytest.approx((3 * inverse / inverse.sum()).tolist())
    labels = torch.tensor([0, 1])
    expected = (2 * math.log(4) + 5 * math.log(5)) / 7  # a weighted mean: divided by the weights of the batch
    assert float(weighted_loss(LOGITS, labels, torch.tensor([2.0, 5.0])).mean()) == pytest.approx(expected, rel=1e-5)


def test_the_adjustment_is_the_log_frequency_times_tau():
    assert adjustment([1, 3], 2.0).tolist() == pytest.approx([2 * math.log(0.25), 2 * math.log(0.75)])


def test_margins_fall_with_the_fourth_root():
    assert margins([16, 1, 81], 0.6).tolist() == pytest.approx([0.3, 0.6, 0.2])


def test_ldam_takes_the_margin_off_the_true_class_only():
    cosines, margin = torch.tensor([[0.5, 0.1], [0.2, 0.9]]), torch.tensor([0.3, 0.4])
    # Scaled by 10: 2 against 1, and 5 against 2.
    each = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(-3))]
    assert float(ldam_loss(cosines, torch.tensor([0, 1]), margin, 10.0).mean()) == pytest.approx(
        sum(each) / 2, rel=1e-5
    )
    weighted = (each[0] * 1 + each[1] * 3) / 4
    found = ldam_loss(cosines, torch.tensor([0, 1]), margin, 10.0, torch.tensor([1.0, 3.0]))
    assert float(found.mean()) == pytest.approx(weighted, rel=1e-5)


def test_rows_are_divided_by_a_power_of_their_length():
    rows = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    assert tau_normalised(rows, 2.0).tolist() == [pytest.approx([0.12, 0.16]), pytest.approx([0.0, 0.5])]
    assert torch.equal(tau_normalised(rows, 0.0), rows)


def test_the_nearest_mean_has_the_largest_logit():
    features = torch.randn(60, 4)
    labels = torch.arange(3).repeat(20)
    weight, bias = nearest_mean(features, labels, 3)
    means = torch.stack([features[labels == c].mean(0) for c in range(3)])
    queries = torch.randn(50, 4)
    expected = torch.cdist(queries, means).argmin(1)
    assert torch.equal((queries @ weight.T + bias).argmax(1), expected)


def test_smoothing_rises_along_a_sine_from_the_rarest_class():
    found = smoothing([1, 101, 51], 0.4, 0.1).tolist()
    assert found == pytest.approx([0.1, 0.4, 0.1 + 0.3 * math.sin(math.pi / 4)])


def test_label_aware_loss_spreads_what_it_takes_from_the_true_class():
    logits = torch.tensor([[0.0, math.log(2.0), math.log(5.0)]])  # chances 1/8, 2/8, 5/8
    expected = 0.7 * math.log(8) + 0.3 * (math.log(4) + math.log(8 / 5)) / 2
    assert float(label_aware_loss(logits, torch.tensor([0]), torch.tensor([0.3, 0.0, 0.0]))) == pytest.approx(expected)
    own = -math.log(1 / 4)
    assert float(label_aware_loss(logits, torch.tensor([1]), torch.tensor([0.3, 0.0, 0.0]))) == pytest.approx(own)


def test_cosines_of_experts_are_folded_into_their_mean(tiny):
    network = new_experts(tiny(method="ride"), 10).eval()
    images = torch.randn(4, 3, 16, 16)
    features = network.forward_head(network.forward_features(images), pre_logits=True)
    found = cosines(network, images)
    for k in range(3):
        own = features[:, 48 * k : 48 * (k + 1)]
        expected = F.cosine_similarity(own[:, None], network.get_classifier()[k].weight[None], dim=-1)
        torch.testing.assert_close(found[k], expected)
    fold_scale(network, 30.0)
    torch.testing.assert_close(network(images), 10 * (found[0] + found[1] + found[2]), rtol=1e-4, atol=1e-4)


def test_rare_classes_have_lower_temperatures():
    # Frequencies 3/4 and 1/4 of two classes: 0.8 + 0.2 * 2 pi = 1.1 and 0.9.
    assert temperatures([3, 1], 0.2).tolist() == pytest.approx([1, 9 / 11])
    assert temperatures([3, 1], 0.0).tolist() == [1, 1]


def test_divergence_of_an_expert_from_the_mean():
    mean = torch.tensor([[0.0, 0.0]], requires_grad=True)
    expert = torch.tensor([[0.0, math.log(3.0)]], requires_grad=True)  # chances 1/4 and 3/4
    kl = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    found = divergence(expert, mean, torch.ones(2))
    found.backward()
    assert found.item() == pytest.approx(kl)
    assert mean.grad is None
    assert expert.grad is not None
    # Temperatures 1 and 1/2: the second logit doubles, chances 1/10 and 9/10; the mean temperature is 3/4.
    kl = 0.5 * math.log(0.5 / 0.1) + 0.5 * math.log(0.5 / 0.9)
    assert divergence(expert, mean, torch.tensor([1.0, 0.5])).item() == pytest.approx(0.75**2 * kl, rel=1e-5)


def test_each_of_sades_experts_has_a_prior_of_its_own():
    frequency = torch.tensor([0.5, 0.125, 0.375]).log()
    found = shifts([4, 1, 3], 2.0)
    assert found[0].tolist() == [0, 0, 0]
    torch.testing.assert_close(found[1], frequency)
    torch.testing.assert_close(found[2], frequency - 2 * torch.tensor([0.125, 0.5, 0.375]).log())


def test_a_batch_norm_of_nbn_has_the_shared_length():
    values = of_length(torch.tensor([3.0, 4.0]), torch.tensor(10.0))
    assert values.tolist() == pytest.approx([6, 8], rel=1e-6)
    assert of_length(torch.zeros(2), torch.tensor(10.0)).tolist() == [0, 0]


def test_nbn_holds_the_norms_that_end_a_branch_of_the_last_stage(tiny):
    assert closing_norms(new_network(tiny(), ClassPartition.single(10))) == ["encoder.block6.bn2", "encoder.block7.bn2"]
    photo = new_network(tiny(model="osdtw_resnet50", img_size=32), ClassPartition.single(10))
    assert [name.removeprefix("encoder.") for name in closing_norms(photo)] == [
        *("block15.bn3", "block15.downsample.1", "block16.bn3", "block17.bn3")
    ]
    with pytest.raises(ValueError, match="needs blocks that end in batch norm"):
        closing_norms(create_model("osdtw_convnext_tiny", task_classes=[[0, 1]], shared_depth=-1))


def test_nbn_is_folded_into_an_ordinary_network(tiny):
    network, images = new_network(tiny(), ClassPartition.single(10)), torch.randn(6, 3, 16, 16)
    network.add_module("normalisation", Normalisation(10))
    nn.init.constant_(network.normalisation.length, 3.0)
    for name in closing_norms(network):
        nn.init.normal_(network.get_submodule(name).weight)
        nn.init.normal_(network.get_submodule(name).bias)
    batch = rectified_logits(network.train(), images)
    torch.testing.assert_close(batch.mean(0), torch.zeros(10), atol=1e-5, rtol=0)  # rectified: no class is ahead
    torch.testing.assert_close(batch.std(0, correction=0), torch.ones(10), atol=1e-2, rtol=0)
    expected = rectified_logits(network.eval(), images)
    fold_normalisation(network)
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)
    assert not [name for name in network.state_dict() if "normalisation" in name]
    for name in closing_norms(network):
        for values in network.get_submodule(name).parameters():
            assert values.norm().item() == pytest.approx(3, rel=1e-5)


def test_a_fresh_modulator_changes_nothing_and_an_old_one_stays_in_bounds():
    modulator, features, labels = Modulator(5, 3), torch.rand(7, 5), torch.arange(7) % 3
    assert not torch.stack(modulator(features, labels)).any()
    nn.init.normal_(modulator.modulation.weight, std=9)
    assert torch.stack(modulator(features, labels)).abs().max() <= 1


def test_the_modulator_goes_down_the_balanced_loss_of_a_virtual_step():
    modulator, classifier = Modulator(4, 3).double(), nn.Linear(4, 3).double()
    for parameter in modulator.parameters():
        nn.init.normal_(parameter, std=0.3)
    seen = torch.rand(6, 4, dtype=torch.float64), torch.tensor([0, 0, 0, 0, 1, 2])
    balanced = torch.rand(3, 4, dtype=torch.float64), torch.arange(3)
    step, before = 0.7, copy.deepcopy(modulator)
    weights = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)

    def balanced_loss():
        """By hand: softmax regression's gradient is (p - y) f^T / B."""
        scale, shift = before(*seen)
        modulated = (1 + scale) * seen[0] + shift
        error = (modulated @ classifier.weight.T + classifier.bias).softmax(1) - F.one_hot(seen[1], 3)
        error = weights[seen[1]][:, None] * error
        weight = classifier.weight - step * error.T @ modulated / 6
        moved = balanced[0] @ weight.T + classifier.bias - step * error.mean(0)
        return -moved.log_softmax(1).diagonal().mean().item()

    plain = copy.deepcopy(classifier)
    meta_step(modulator, classifier, seen, balanced, weights, step, rate=0.1)
    assert torch.equal(classifier.weight, plain.weight)
    nudge = 1e-5
    with torch.no_grad():
        for own, moved in zip(before.parameters(), modulator.parameters(), strict=True):
            place = int((moved - own).abs().argmax())
            flat, was = own.view(-1), own.view(-1)[place].item()
            sides = []
            for sign in (1, -1):
                flat[place] = was + sign * nudge
                sides.append(balanced_loss())
            flat[place] = was
            slope = (sides[0] - sides[1]) / (2 * nudge)
            assert moved.view(-1)[place].item() - was == pytest.approx(-0.1 * slope, rel=1e-4)


def test_batch_norm_does_not_remember_the_balanced_batch(tiny):
    network, images = new_network(tiny(), ClassPartition.single(10)).train(), torch.randn(5, 3, 16, 16)
    before = copy.deepcopy(network)
    found = unseen_features(network, images)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before.state_dict()[name])
    assert torch.equal(found, before.forward_head(before.forward_features(images), pre_logits=True))


def test_the_balanced_set_has_as_many_images_of_each_class_as_the_smallest(noise, tiny):
    labels = [0] * 9 + [1] * 5 + [2] * 3
    images = noise(labels)
    data = LongTailedData(images, images.subset([]), None, list(range(17)), [])
    found = balanced_batches(tiny(), data)
    assert found.images.counts() == [3, 3, 3]
    assert torch.equal(found.images.images, images.images[found.indices])
    assert balanced_batches(tiny(peer=Peer(meta=2)), data).images.counts() == [2, 2, 2]
    draws = list(itertools.islice(repeated(found, 4, steps=5), 5))
    assert all(sorted(y.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2] for _, y in draws)
    again = next(repeated(found, 4, steps=5))
    assert torch.equal(again[0], draws[0][0])
    assert not torch.equal(draws[1][1], draws[0][1])


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([500, 100, 99, 10, 9, 1], ((0, 1), (2, 3), (4, 5))),
        ([5000, 99, 3], ((0,), (1,), (2,))),
        ([50, 20, 30], ((0, 1, 2),)),
        ([2000, 9], ((0,), (1,))),
    ],
)
def test_groups_part_at_ten_a_hundred_and_a_thousand_images(counts, expected):
    assert groups(counts).tasks == expected


def test_a_group_learns_from_the_images_that_are_kept():
    kept = torch.tensor([True, False])
    assert float(group_loss(LOGITS, LABELS, kept, torch.tensor([3.0, 2.0]))) == pytest.approx(3 * math.log(4))
    assert float(group_loss(LOGITS, LABELS, ~kept & False, torch.ones(2))) == 0


def test_draws_repeat_with_their_epoch_and_never_take_too_many(tiny):
    draws, among = Draws(tiny()), torch.tensor([True] * 9 + [False] * 5)
    draws.begin(3)
    first = draws.beta(0.2), draws.permutation(5).tolist(), draws.some(among, 4).tolist()
    draws.begin(3)
    assert (draws.beta(0.2), draws.permutation(5).tolist(), draws.some(among, 4).tolist()) == first
    assert sum(first[2]) == 4
    assert not any(first[2][9:])
    assert draws.some(among, 40).tolist() == among.tolist()


def test_balanced_batches_show_every_class_alike(noise, tiny):
    labels = [0] * 90 + [1] * 9 + [2]
    batches = Batches(noise(labels), list(range(100)), tiny(sampler="balanced", batch_size=100))
    shown = torch.cat([y for epoch in range(30) for _, y in batches.epoch(epoch)])
    shares = torch.bincount(shown).double() / len(shown)
    assert (shares - 1 / 3).abs().max() < 4 * math.sqrt(2 / 9 / 3000)
    again = torch.cat([y for _, y in batches.epoch(3)])
    assert torch.equal(again, shown[300:400])


def test_a_recipe_knows_every_peer():
    names = set(Recipe.__dataclass_fields__["method"].type.replace("\n", "").split("'")) | set(
        Recipe.__dataclass_fields__["method"].type.split('"')
    )
    assert set(PEERS) <= names
    assert set(TWO_STAGES) <= set(PEERS)


@pytest.mark.parametrize("method", PEERS)
def test_a_short_run_of_each_learns_and_loads_as_a_plain_network(method, tiny, tmp_path, no_figures):
    stages = {"train": Schedule(epochs=4, lr=0.05), "refit": RefitSchedule(epochs=2, lr=0.05)}
    recipe = dataclasses.replace(tiny(method=method, imbalance_factor=10), **stages)
    result = run_recipe(recipe, tmp_path / "run")
    assert result.results["passes"] == (6 if method in TWO_STAGES else 4)
    assert result.results["test"]["overall"] > 20  # ten classes: twice what guessing gives
    network = load_model(tmp_path / "run")
    images = load_data(recipe).test.images[:8].float() / 255
    torch.testing.assert_close(network(images), result.network(images))
    assert network.partition.num_tasks == 1 or method in ("bags", "ride", "sade")
    assert result.results["inference_ratio"] == pytest.approx(1, abs=0.01) or network.partition.experts


def test_bags_fuses_raw_whatever_the_recipe_says(tiny, tmp_path, no_figures):
    stages = {"train": Schedule(epochs=1, lr=0.05), "refit": RefitSchedule(epochs=1, lr=0.05)}
    recipe = dataclasses.replace(tiny(method="bags", fusion="valid", imbalance_factor=10), **stages)
    assert run_recipe(recipe, tmp_path / "run").network.fusion == "raw"


def test_a_two_stage_peer_is_resumed_in_its_second_stage(tiny, tmp_path, no_figures):
    stages = {"train": Schedule(epochs=1, lr=0.05), "refit": RefitSchedule(epochs=2, lr=0.05)}
    recipe = dataclasses.replace(tiny(method="lws"), **stages)
    whole = run_recipe(recipe, tmp_path / "whole")
    run_recipe(recipe, tmp_path / "again")
    (tmp_path / "again" / "results.json").unlink()
    resumed = run_recipe(recipe, tmp_path / "again", resume=True)
    for one, other in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(one, other)
