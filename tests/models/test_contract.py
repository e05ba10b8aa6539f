"""timm's whole contract, for one small network of every family; every registered name in `make test-all`."""

import copy
import io

import pytest
import timm
import torch
from families import SIZE, ZOO, plain, zoo
from timm.models import save_for_hf
from timm.optim import create_optimizer_v2
from torch.utils.flop_counter import FlopCounterMode

from osdtw_models import cost, costs, create_model

TASKS = [[4, 1], [5, 0, 3, 2]]


def whole(name, **arguments):
    """A registered network as it is registered, for small images."""
    size = {"img_size": SIZE} if "vit" in name else {}
    return create_model(name, **{"num_classes": 6, **size, **arguments}).eval()


NAMES = [pytest.param(name, whole, marks=pytest.mark.slow, id=name) for name in timm.list_models("osdtw_*")]
SMALL = [pytest.param(name, zoo, id=f"small {name}") for name in ZOO]
every_name = pytest.mark.parametrize(("name", "make"), SMALL + NAMES)
every_family = pytest.mark.parametrize("name", ZOO)


def counted(model):
    """Multiply-adds of one image by torch's counter; on the meta device, where attention is counted, too."""
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).to("meta")(torch.zeros(1, 3, SIZE, SIZE, device="meta"))
    return counter.get_total_flops() // 2


@pytest.fixture
def images():
    return torch.randn(2, 3, SIZE, SIZE)


@every_name
def test_forward_backward_and_new_heads(name, make, images):
    net = make(name, task_classes=TASKS)
    logits = net(images)
    assert logits.shape == (2, 6)
    features = net.forward_features(images)
    torch.testing.assert_close(net.forward_head(features), logits)
    assert net.forward_head(features, pre_logits=True).shape == (2, net.head_hidden_size)
    net.train()(images).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.eval().reset_classifier(9)
    assert net(images).shape == (2, 9)
    net.reset_classifier(0)
    assert net(images).shape == (2, net.head_hidden_size)
    net.reset_classifier(0, "")
    assert torch.equal(net(images), net.forward_features(images))


@every_name
def test_names_of_first_convolution_and_classifiers_are_true(name, make, images):
    net = make(name, shared_depth=2)
    state = net.state_dict()
    assert f"{net._traits['first_conv']}.weight" in state
    assert all(f"{classifier}.weight" in state for classifier in net.pretrained_cfg["classifier"])
    assert make(name, in_chans=1)(images[:, :1]).shape == (2, 6)


@every_name
def test_levels_come_alone_all_together_and_cut_off(name, make, images):
    net = make(name, shared_depth=2, num_classes=0)
    final, levels = net.forward_intermediates(images)
    torch.testing.assert_close(final, net.forward_features(images))
    for level, info in zip(levels, net.feature_info, strict=True):
        assert level.shape[1:] == (info["num_chs"], SIZE // info["reduction"], SIZE // info["reduction"])
    assert len(levels) >= 3
    pruned = copy.deepcopy(net)
    pruned.prune_intermediate_layers([1], prune_norm=True)
    kept = pruned.forward_intermediates(images, [1], intermediates_only=True)[0]
    torch.testing.assert_close(kept, levels[1])
    assert len(list(pruned.parameters())) < len(list(net.parameters()))
    getter = make(name, features_only=True, shared_depth=2)
    assert [each.shape[1] for each in getter(images)] == getter.feature_info.channels()


@every_name
def test_it_compiles_and_converts(name, make, images):
    net = make(name, task_classes=TASKS)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(net, backend="eager", fullgraph=True)(images), net(images))
    exported = torch.export.export(net, (images,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}}).module()
    more = torch.randn(3, 3, SIZE, SIZE)
    torch.testing.assert_close(exported(more), net(more))


@every_name
@pytest.mark.filterwarnings("ignore")  # torch deprecates TorchScript, and its traced graphs warn of themselves
def test_torch_script_and_torch_fx_take_it(name, make, images):
    net = make(name, task_classes=TASKS)
    torch.testing.assert_close(torch.fx.symbolic_trace(net)(images), net(images))
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(net), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(images), net(images))


@every_name
def test_it_runs_on_meta_in_low_precision_and_channels_last(name, make, images):
    net = make(name)
    for dtype in (torch.half, torch.bfloat16):
        # In training mode: with the first statistics of batch norm, values double with every block of a fresh network.
        low = copy.deepcopy(net).to(dtype).train()(images.to(dtype))
        assert low.dtype == dtype
        assert low.isfinite().all()
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(images.to(memory_format=torch.channels_last)), net(images), rtol=1e-4, atol=1e-4)
    meta = create_model(name, device="meta") if make is whole else copy.deepcopy(net).to("meta")
    size = meta.pretrained_cfg["input_size"][1:] if make is whole else (SIZE, SIZE)
    assert meta(torch.empty(1, 3, *size, device="meta")).shape[0] == 1


@every_name
def test_recomputing_blocks_changes_nothing(name, make, images):
    net = make(name, shared_depth=2).train()
    for module in net.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    again = copy.deepcopy(net)
    again.set_grad_checkpointing()
    for each in (net, again):
        each(images).square().sum().backward()
    for p, q in zip(net.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-3 * max(1, float(p.grad.abs().max())))


@every_name
def test_layer_decay_gives_blocks_of_one_depth_one_rate(name, make):
    net = make(name, shared_depth=2)
    optimizer = create_optimizer_v2(net, "sgd", lr=1, weight_decay=0.1, layer_decay=0.5)
    names = {id(p): n for n, p in net.named_parameters()}
    groups = [(names[id(p)], group) for group in optimizer.param_groups for p in group["params"]]
    assert {n for n, _ in groups} == set(names.values())
    for n, group in groups:
        block = int(n.split("block")[1].split(".")[0]) if ".block" in n else net.num_blocks + 1
        assert group["lr_scale"] == pytest.approx(0.5 ** (net.num_blocks + 1 - block))
        assert group["weight_decay"] == 0 or n not in net.no_weight_decay()


@every_name
def test_its_plan_travels_in_config_json(name, make, images, tmp_path):
    net = make(name, shared_depth=3, task_classes=TASKS, fusion="valid")
    save_for_hf(net, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert (again.shared_depth, again.fusion, again.partition) == (3, "valid", net.partition)
    assert torch.equal(again(images), net(images))


@every_name
def test_costs_are_those_of_the_whole_network(name, make):
    net = make(name, task_classes=TASKS)
    found = cost(net, img_size=SIZE)
    if "vit" in name:
        assert found == cost(net)  # of one image size, which it was built for
    assert found["multiply_adds"]["total"] == counted(net)
    assert found["parameters"]["total"] == sum(p.numel() for p in net.parameters())
    assert [row["shared_depth"] for row in costs(net, SIZE)] == list(range(net.num_blocks + 1))


@every_family
def test_a_plain_network_costs_what_timms_own_costs(name):
    net, model = zoo(name, task_classes=[list(range(6))]), plain(name)
    assert cost(net, img_size=SIZE)["multiply_adds"]["total"] == counted(model)
    assert cost(net, img_size=SIZE)["parameters"]["total"] == sum(p.numel() for p in model.parameters())


@every_name
def test_an_unknown_argument_is_an_error(name, make):
    with pytest.raises(TypeError, match="shared_dept"):
        make(name, shared_dept=3)


@every_family
def test_pooling_is_the_backbones_own_or_another(name, images):
    own = "token" if "vit" in name else "avg"
    net = zoo(name)
    assert net.global_pool.pool_type == own
    other = zoo(name, global_pool="max")
    assert other(images).shape == (2, 6)
    with pytest.raises(ValueError, match="global_pool is 'map'; choose"):
        zoo(name, global_pool="map")


@pytest.mark.parametrize("name", timm.list_models("osdtw_*"))
def test_its_words_state_the_default_depth(name):
    if name == "osdtw_timm":
        return
    net = create_model(name, device="meta")
    words = timm.model_entrypoint(name).__doc__
    assert f"{net.num_blocks} blocks, {net.shared_depth} shared by default" in words
    assert net.fusion == "raw"


def test_maps_of_padded_images_have_the_sides_that_timm_gives_them():
    sizes = {"dynamic_img_size": True, "dynamic_img_pad": True, "depth": 3}
    ours = create_model("osdtw_timm", backbone="vit_tiny_patch16_224", features_only=True, backbone_args=sizes).eval()
    theirs = timm.create_model("vit_tiny_patch16_224", features_only=True, **sizes).eval()
    images = torch.randn(1, 3, 70, 100)
    assert ours(images)[-1].shape[-2:] == theirs(images)[-1].shape[-2:] == (5, 7)
