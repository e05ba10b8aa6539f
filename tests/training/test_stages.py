"""The stages one by one: what each starts from, what it trains, which decoders the assembled network gets."""

from dataclasses import replace

import pytest
import torch

from osdtw_models.fusion import fuse
from osdtw_training import stages
from osdtw_training.batches import Batches
from osdtw_training.data import load_data
from osdtw_training.engine import fit
from osdtw_training.networks import new_network
from osdtw_training.planning import Choice
from osdtw_training.recipe_tables import Joint, Refit, Schedule, Search, Warmup
from osdtw_training.runs import Run

PLAN = Choice(3, (0.3, 0.7))
ONCE = Schedule(1, 0.02)


@pytest.fixture(scope="module")
def data(tiny):
    return load_data(tiny())


@pytest.fixture
def prepare(tiny, data, tmp_path):
    def prepare(**changes):
        return stages.prepare(tiny(**changes), data, Run(tmp_path / "run", resume=True))

    return prepare


@pytest.fixture
def fitted(monkeypatch):
    """Every stage that is fitted: name, first epoch, and the network's tensors before and after."""
    kept = []

    def spy(stage, network, trained, loss, batches, schedule, recipe, run, first_epoch=0, **options):
        before = {key: value.clone() for key, value in network.state_dict().items()}
        fit(stage, network, trained, loss, batches, schedule, recipe, run, first_epoch, **options)
        after = {key: value.clone() for key, value in network.state_dict().items()}
        kept.append((stage, first_epoch, before, after))

    monkeypatch.setattr(stages, "fit", spy)
    return kept


def changed(before, after):
    """Names of the tensors that a stage changed, up to the first two parts."""
    return {".".join(key.split(".")[:2]) for key, value in after.items() if not torch.equal(value, before[key])}


def networks(stage, depth=3):
    """Two networks of random weights that stand for trained tasks and for a jointly trained network."""
    tasks = new_network(stage.recipe, stage.partition, 0)
    joint = new_network(stage.recipe, stage.partition, depth)
    with torch.no_grad():
        for parameter in joint.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return tasks, joint


def test_tasks_are_trained_alone_from_the_common_start_on_the_same_images(prepare, fitted):
    stage = prepare(tasks=ONCE, warmup=Warmup(epochs=5))
    start = new_network(stage.recipe, stage.partition)
    stages.train_tasks(stage, start)
    for k, (name, first, before, after) in enumerate(fitted):
        assert (name, first) == (f"task{k}", 5)
        assert changed(before, after) == {f"decoders.{k}"}
        block = "block4.conv1.weight"
        assert torch.equal(before[f"decoders.{k}.{block}"], start.state_dict()[f"encoder.{block}"])
    assert len(fitted) == 2


@pytest.mark.parametrize("fusion", ["raw", "pool"])
def test_the_fused_objective_is_the_prior_corrected_error_of_the_fused_scores(prepare, monkeypatch, fusion):
    """Decoders get its gradient as it is, the encoder what comes through each decoder times K w."""
    stage, losses = prepare(joint=Joint(2, 0.02, objective="fused"), fusion=fusion), []
    monkeypatch.setattr(stages, "fit", lambda *args, **_: losses.append(args[3]))
    network = stages.train_jointly(stage, networks(stage)[0], PLAN).eval()
    images, labels = next(stage.batches.plain())
    prior = torch.tensor(stage.counts, dtype=torch.float64)

    def by_hand(logits):
        scores = fuse(logits, fusion).index_select(1, network.class_position)
        return torch.nn.functional.cross_entropy(scores.double() + (prior / prior.sum()).log(), labels)

    shared = network.forward_encoder(images)
    ways = [shared.detach().clone().requires_grad_() for _ in range(2)]
    value = by_hand([network.forward_decoder(way, k) for k, way in enumerate(ways)])
    *through, own = torch.autograd.grad(value, [*ways, network.decoders[1].block4.conv1.weight])
    encoder = torch.autograd.grad(shared, list(network.encoder.parameters()), 0.6 * through[0] + 1.4 * through[1])
    found = losses[0](images, labels)
    assert found.item() == pytest.approx(value.item(), rel=1e-5)
    found.backward()
    torch.testing.assert_close(network.decoders[1].block4.conv1.weight.grad, own, rtol=1e-4, atol=1e-6)
    for parameter, expected in zip(network.encoder.parameters(), encoder, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


def test_refit_decoders_follow_the_objective_of_joint_training(prepare):
    stage = prepare(joint=Joint(1, 0.02, objective="fused"), refit=Refit(1, 0.02))
    tasks, joint = networks(stage)
    images, labels = next(stage.batches.plain())
    loss = stages.refit_loss(joint.eval(), tasks, stage)(images, labels)
    torch.testing.assert_close(loss, stage.whole(joint(images), labels))
    loss.backward()
    assert all(parameter.grad is None for parameter in joint.encoder.parameters())
    assert all(parameter.grad is not None for parameter in joint.decoders.parameters())


OPEN = {"open_none": True, "fusion": "mean", "shared_depth": 3, "task_weights": (0.3, 0.7)}
SCRATCH = {"joint": Joint(1, 0.02, start="scratch"), "warmup": Warmup(), "tasks": Schedule()}


def test_joint_training_from_scratch_starts_decoders_apart(prepare, fitted):
    stage = prepare(**SCRATCH, **OPEN)
    stages.train_jointly(stage, networks(stage)[0], PLAN)
    ((_, _, before, _),) = fitted
    block = "block5.conv1.weight"
    assert not torch.equal(before[f"decoders.0.{block}"], before[f"decoders.1.{block}"])
    fresh = new_network(stage.recipe, stage.partition, 3).state_dict()
    assert all(torch.equal(before[key], fresh[key]) for key in fresh)


@pytest.mark.parametrize("start", ["tasks", "scratch"])
def test_joint_training_reads_the_weights_of_the_backbone_only_to_begin_with_them(prepare, start):
    stage = prepare(**{**SCRATCH, "joint": Joint(1, 0.02, start=start)}, backbone_weights="timm", **OPEN)
    tasks, _ = networks(stage)
    if start == "scratch":
        with pytest.raises(ValueError, match="no weights of the backbone"):
            stages.train_jointly(stage, tasks, PLAN)
        begun = replace(stage, recipe=replace(stage.recipe, backbone_weights="none"))
        stages.train_jointly(begun, tasks, PLAN)
    stages.train_jointly(stage, tasks, PLAN)


def test_an_open_none_splits_the_plain_classifier_row_by_row(prepare):
    stage = prepare(warmup=Warmup(), **OPEN)
    start = stages.warm_up(stage)
    images, _ = next(stage.batches.plain())
    plain = new_network(stage.recipe, type(stage.partition).single(10)).eval()
    torch.testing.assert_close(start.eval()(images), plain(images))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"open_none": True}, "belong together"),
        ({"fusion": "mean"}, "belong together"),
        ({"fusion": "mean", "method": "balanced_softmax"}, "belong together"),
        ({**OPEN, "num_tasks": 1}, "give two or more"),
        ({"open_none": True, "fusion": "mean"}, "give shared_depth and task_weights"),
        ({**OPEN, "open_share": 1.5}, "it is a part, 0 to 1"),
    ],
)
def test_what_does_not_go_with_an_open_none_is_refused(tiny, changes, said):
    with pytest.raises(ValueError, match=said):
        tiny(**changes)


@pytest.mark.parametrize("stage", ["warmup", "tasks"])
def test_stages_whose_networks_nothing_uses_are_refused(tiny, stage):
    trained = {**SCRATCH, stage: Warmup(2) if stage == "warmup" else Schedule(2)}
    with pytest.raises(ValueError, match=r"train networks that nothing uses.*set both to 0"):
        tiny(**trained, **OPEN)
    tiny(**trained)  # the search measures them
    tiny(**trained, **OPEN, refit=Refit(1, distill=0.5))
    tiny(**trained, **OPEN, refit=Refit(decoders="tasks"))
    tiny(**trained, **OPEN, method="balanced_softmax")


def test_one_loss_has_no_weights_of_its_own():
    with pytest.raises(ValueError, match="it has no weights of its own"):
        Joint(1, 0.02, objective="fused", weigh="losses")


def test_joint_training_starts_from_the_average_and_trains_everything(prepare, fitted):
    stage = prepare(joint=Joint(1, 0.02))
    tasks, _ = networks(stage)
    with torch.no_grad():
        tasks.decoders[1].block2.conv1.weight.add_(1)
    network = stages.train_jointly(stage, tasks, PLAN)
    ((name, first, before, after),) = fitted
    assert (name, first) == ("joint", stage.recipe.warmup.epochs + stage.recipe.tasks.epochs)
    first, second = (decoder.block2.conv1.weight for decoder in tasks.decoders)
    torch.testing.assert_close(before["encoder.block2.conv1.weight"], 0.3 * first + 0.7 * second)
    assert changed(before, after) == {f"encoder.block{i}" for i in (1, 2, 3)} | {"decoders.0", "decoders.1"}
    assert network.shared_depth == 3


@pytest.mark.parametrize("weigh", ["encoder", "losses"])
def test_the_task_weights_act_on_the_encoder_or_on_the_losses(prepare, monkeypatch, weigh):
    """The encoder's gradient is the weighted sum of the tasks' either way; a decoder's is its task's, or weighted."""
    stage, losses = prepare(joint=Joint(2, 0.02, weigh=weigh)), []
    monkeypatch.setattr(stages, "fit", lambda *args, **_: losses.append(args[3]))
    network = stages.train_jointly(stage, networks(stage)[0], PLAN).eval()
    images, labels = next(stage.batches.plain())
    each = [stage.objectives[k](network.forward_task(images, k), labels) for k in range(2)]
    encoder = [torch.autograd.grad(value, list(network.encoder.parameters()), retain_graph=True) for value in each]
    own = [
        torch.autograd.grad(value, list(network.decoders[k].parameters()), retain_graph=True)
        for k, value in enumerate(each)
    ]
    losses[0](images, labels).backward()
    for parameter, head, tail in zip(network.encoder.parameters(), *encoder, strict=True):
        torch.testing.assert_close(parameter.grad, 0.3 * head + 0.7 * tail, rtol=1e-4, atol=1e-6)
    for k, weight in enumerate((0.3, 0.7)):
        scale = weight if weigh == "losses" else 1
        for parameter, expected in zip(network.decoders[k].parameters(), own[k], strict=True):
            torch.testing.assert_close(parameter.grad, scale * expected, rtol=1e-4, atol=1e-6)


def test_replicates_are_trained_on_disjoint_halves_in_half_the_batches(prepare, fitted):
    stage = prepare()
    start = new_network(stage.recipe, stage.partition)
    seen = []
    epoch = Batches.epoch

    def spy(batches, number):
        seen.append((set(batches.indices), batches.batch_size, batches.steps))
        return epoch(batches, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "epoch", spy)
        replicates = stages.train_replicates(stage, start)
    assert [name for name, *_ in fitted] == ["half0_task0", "half0_task1", "half1_task0", "half1_task1"]
    first, second = seen[0], seen[-1]
    assert not first[0] & second[0]
    assert first[0] | second[0] == set(stage.batches.indices)
    assert {size for _, size, _ in seen} == {stage.batches.batch_size // 2}
    assert abs(first[2] - stage.batches.steps) <= 1
    assert len(replicates) == 2


def test_without_replicates_none_are_trained(prepare, fitted):
    stage = prepare(search=Search(structure="diagonal", replicates=False))
    assert stages.train_replicates(stage, new_network(stage.recipe, stage.partition)) == []
    assert fitted == []


@pytest.mark.parametrize("decoders", ["refit", "joint", "tasks"])
def test_the_recipe_decides_the_decoders(prepare, fitted, decoders):
    stage = prepare(refit=Refit(epochs=1, lr=0.1, decoders=decoders))
    tasks, joint = networks(stage)
    sources = {"joint": joint, "refit": joint, "tasks": tasks}
    source = {key: value.clone() for key, value in sources[decoders].named_parameters()}
    encoder = {key: value.clone() for key, value in joint.encoder.named_parameters()}
    network = stages.assemble(stage, tasks, joint)
    assert all(torch.equal(value, encoder[key]) for key, value in network.encoder.named_parameters())
    kept = {key: torch.equal(p, source[f"decoders.{key}"]) for key, p in network.decoders.named_parameters()}
    assert set(kept.values()) == {decoders != "refit"}
    if decoders == "refit":
        ((_, _, before, after),) = fitted
        assert changed(before, after) == {"decoders.0", "decoders.1"}  # the encoder's batch norm stays, too
    else:
        assert fitted == []


def test_batch_norm_is_recalibrated_at_the_end(prepare):
    stage = prepare(refit=Refit(decoders="joint"))
    tasks, joint = networks(stage)
    recipe = stage.recipe
    last = recipe.warmup.epochs + recipe.tasks.epochs + recipe.joint.epochs + recipe.refit.epochs
    means = [joint.encoder.block1.conv1(images).mean((0, 2, 3)) for images, _ in stage.batches.epoch(last)]
    expected = torch.stack(means).mean(0)
    network = stages.assemble(stage, tasks, joint)
    torch.testing.assert_close(network.encoder.block1.bn1.running_mean, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_refit_loss_mixes_labels_and_teachers(prepare, monkeypatch, share):
    stage, losses = prepare(refit=Refit(epochs=1, distill=share)), []
    monkeypatch.setattr(stages, "fit", lambda *args, **_: losses.append(args[3]))
    tasks, joint = (network.eval() for network in networks(stage))
    images, labels = next(stage.batches.plain())
    expected = 0
    for k, objective in enumerate(stage.objectives):
        student, teacher = joint.forward_task(images, k).log_softmax(1), tasks.forward_task(images, k).log_softmax(1)
        divergence = (teacher.exp() * (teacher - student)).sum(1).mean()
        expected = expected + (1 - share) * objective(joint.forward_task(images, k), labels) + share * divergence
    monkeypatch.setattr(stages, "recalibrate_batch_norm", lambda *args: None)
    stages.assemble(stage, tasks, joint)
    loss = losses[0](images, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    assert all(parameter.grad is None for parameter in [*joint.encoder.parameters(), *tasks.parameters()])
    assert all(parameter.grad is not None for parameter in joint.decoders.parameters())


@pytest.mark.parametrize("objective", ["balanced_softmax", "tasks"])
def test_the_warm_up_shares_every_block(prepare, fitted, objective):
    stage = prepare(warmup=Warmup(epochs=1, objective=objective))
    network = stages.warm_up(stage)
    assert network.shared_depth == 7
    ((name, first, _, after),) = fitted
    assert (name, first) == ("warmup", 0)
    assert torch.equal(network.encoder.block7.conv2.weight, after["encoder.block7.conv2.weight"])
    assert {key.split(".")[1] for key in after if key.startswith("decoders")} == (
        {"0"} if objective == "balanced_softmax" else {"0", "1"}
    )


def test_without_none_weights_the_offsets_are_applied_at_test_time(prepare):
    stage = prepare(none_weights=False, warmup=Warmup(), tasks=Schedule(), joint=Joint(), refit=Refit())
    tasks = stages.train_tasks(stage, stages.warm_up(stage))
    network = stages.assemble(stage, tasks, stages.train_jointly(stage, tasks, PLAN))
    offsets = [objective.offsets for objective in stage.objectives]
    for one in (tasks, network):
        assert all(torch.equal(a, b) for a, b in zip(one.logit_offsets, offsets, strict=True))
    images, _ = next(stage.batches.plain(8))
    expected = fuse(network.forward_tasks(images), "raw", offsets)[:, stage.partition.class_position]
    torch.testing.assert_close(network(images), expected)
    assert prepare().objectives[1].class_weights.unique().numel() > 1
    assert new_network(prepare().recipe, stage.partition).logit_offsets is None
