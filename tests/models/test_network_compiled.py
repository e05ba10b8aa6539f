"""Whatever compiles or converts a timm model does so with these, and the answers stay the same."""

import copy
import io

import pytest
import torch

from osdtw_models import create_model

VARIANTS = {
    "as it comes": {},
    "nothing shared": {"shared_depth": 0},
    "all shared": {"shared_depth": 7},
    "valid": {"fusion": "valid"},
    "pool": {"fusion": "pool"},
    "offsets": {"logit_offsets": [[0.1, 0.2, 0.3, 0.4]] * 2},
    "one task": {"task_classes": [[0, 1, 2, 3, 4, 5]]},
    "three tasks": {"task_classes": [[0, 5], [1], [2, 3, 4]]},
    "pooled features": {"num_classes": 0},
    "feature maps": {"num_classes": 0, "global_pool": ""},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def network(request):
    return create_model("osdtw_resnet14", **{"num_classes": 6, **request.param}).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 16, 16)


@pytest.mark.filterwarnings("ignore")  # torch deprecates TorchScript, and its traced graphs warn of themselves
def test_torch_script_compiles_saves_and_trains_it(network, images):
    scripted = torch.jit.script(network)
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(images), network(images))
    torch.testing.assert_close(scripted(images[:1]), network(images[:1]))
    other = copy.deepcopy(network)
    torch.jit.script(network).train()(images).square().sum().backward()
    other.train()(images).square().sum().backward()
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_torch_fx_traces_it(network, images):
    assert torch.equal(torch.fx.symbolic_trace(network)(images), network(images))


def test_torch_export_takes_any_batch(network, images):
    batch = {"x": {0: torch.export.Dim("batch")}}
    exported = torch.export.export(network, (images,), dynamic_shapes=batch).module()
    more = torch.randn(5, 3, 16, 16)
    torch.testing.assert_close(exported(more), network(more))


def test_torch_compile_finds_one_graph(network, images):
    torch.compiler.reset()  # every variant counts as a recompilation of one class
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), network(images))


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_it_runs_in_low_precision(network, images, dtype):
    logits = copy.deepcopy(network).to(dtype)(images.to(dtype))
    assert logits.dtype == dtype
    assert logits.isfinite().all()


def test_channels_last_changes_nothing(network, images):
    other = copy.deepcopy(network).to(memory_format=torch.channels_last)
    torch.testing.assert_close(other(images.to(memory_format=torch.channels_last)), network(images))


def test_on_the_meta_device_shapes_are_known(network, images):
    assert copy.deepcopy(network).to("meta")(images.to("meta")).shape == network(images).shape


@pytest.mark.filterwarnings("ignore")  # see above
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("osdtw_resnet14", {"drop_rate": 0.5}),
        ("osdtw_timm", {"backbone": "regnetx_002"}),
        ("osdtw_timm", {"backbone": "mobilenetv2_050", "drop_path_rate": 0.5}),
    ],
)
def test_a_script_made_before_eval_evaluates_after_it(name, arguments, images):
    network = create_model(name, num_classes=6, **arguments)
    scripted = torch.jit.script(network)
    torch.testing.assert_close(scripted.eval()(images), network.eval()(images))
