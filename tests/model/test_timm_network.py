"""Backbones of timm under the pose heads: which run, what they count, what is trained, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.models import group_parameters
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from uniformer_pose.errors import InputError
from uniformer_pose.model.timm_network import TimmPoseNetwork
from uniformer_pose.training.compiled_step import CompiledStep

REFERENCE = Path(__file__).parents[1] / "reference" / "timm_backbones.json"
HEIGHT, WIDTH = 256, 192
KNOWN: dict[str, dict[str, Any]] = json.loads(REFERENCE.read_text())["models"]
RUNNING = [name for name, known in KNOWN.items() if "refused" not in known]
# Names of the norm behind the last block, where timm's counted models are without it.
LAST_NORM = re.compile(r"(norm|fc_norm|norm[1-4]|norm_?head|head\.norm)\.(weight|bias)")
# Of as many families as there are lines; the first ones take no time.
SAMPLE = ["resnet18", "cspnext_tiny", "fasternet_t1", "convnext_nano", "vit_small_patch16_224"]
SLOWER = [
    "hrnet_w32",
    "swin_tiny_patch4_window7_224",
    "vit_small_patch16_dinov3",
    "caformer_s18",
    "mobilenetv4_conv_small",
]
SLOWER += ["pvt_v2_b2", "efficientvit_b1", "maxvit_tiny_rw_224", "beit_base_patch16_224", "twins_svt_small"]
NO_LAYERS = {"convformer_s18", "caformer_s18", "caformer_s36", "poolformerv2_s12"}
# timm's own models for tests.
SMALL = ("test_vit", "test_resnet", "test_convnext", "test_efficientnet", "test_maxvit")


def network(backbone: str, height: int = HEIGHT, width: int = WIDTH, **changes: Any) -> TimmPoseNetwork:
    torch.manual_seed(0)
    return TimmPoseNetwork(17, backbone, height, width, **changes)


def of_shapes(backbone: str, **changes: Any) -> TimmPoseNetwork:
    with torch.device("meta"):
        return network(backbone, **changes)


def slow(names: list[str], *marks: pytest.MarkDecorator) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow, *marks]) for name in names]


@pytest.mark.parametrize("backbone", [*SAMPLE, *slow(SLOWER)])
def test_parameters_and_multiplications_are_those_counted_elsewhere(backbone: str) -> None:
    known, made = KNOWN[backbone], of_shapes(backbone)
    counted = {name: weight.numel() for name, weight in made.backbone.named_parameters()}
    last_norm = sum(count for name, count in counted.items() if LAST_NORM.fullmatch(name))
    assert last_norm in (0, 2 * known["channels"])
    # The last norm is ours: a ViT's features are not to be had in this file without.
    assert sum(counted.values()) - known["backbone_parameters"] in (0, last_norm)
    assert sum(weight.numel() for weight in made.head.parameters()) == known["head_parameters"]
    with FlopCounterMode(display=False) as counter:
        assert made.eval()(torch.empty(1, 3, HEIGHT, WIDTH, device="meta")).shape == (1, 17, 64, 48)
    macs = known["backbone_macs_256x192"] + known["head_macs_256x192"]
    assert counter.get_total_flops() == 2 * macs


@pytest.mark.parametrize("backbone", slow([name for name in RUNNING if name in SAMPLE + SLOWER]))
def test_a_sample_of_families_runs_and_what_no_gradient_reaches_is_known(backbone: str) -> None:
    check_training(backbone)


@pytest.mark.parametrize("backbone", slow([n for n in RUNNING if n not in SAMPLE + SLOWER], pytest.mark.long))
def test_all_others_run_too(backbone: str) -> None:
    check_training(backbone)


def check_training(backbone: str) -> None:
    """It gives heatmaps of real numbers, its frozen tensors are those counted elsewhere, and so are its layers."""
    made, known = network(backbone), KNOWN[backbone]
    before = {name: value.clone() for name, value in made.state_dict().items()}
    frozen = made.freeze_unused((64, 48))
    assert (len(frozen), made.training) == (known["unused"]["tensors"], True)
    assert all(weight.grad is None for weight in made.parameters())
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    if known["drop_path"]:
        # MobileNets and EfficientNets grow it to (n - 1) / n of the rate.
        assert 0.09 < drops(of_shapes(backbone, drop_path_rate=0.1)) < 0.1001
    else:
        with pytest.raises(InputError, match=r"drop_path_rate=0.1: \w+ has no stochastic depth"):
            of_shapes(backbone, drop_path_rate=0.1)
    if backbone not in NO_LAYERS:
        check_layers(made)


def drops(made: nn.Module) -> float:
    return max(part.drop_prob for part in made.modules() if isinstance(part, DropPath))


def check_layers(made: TimmPoseNetwork) -> None:
    """Each parameter of the backbone is in the layer where timm has it in the classifier; the head is behind them."""
    plain = timm.create_model(made.arguments["backbone"])
    theirs = group_parameters(plain, plain.group_matcher(coarse=False), reverse=True)
    ours = group_parameters(made, made.group_matcher(), reverse=True)
    layers = {name.removeprefix("backbone."): layer for name, layer in ours.items() if name.startswith("backbone.")}
    # XCiT's class attention, which stands between its blocks and the last norm, goes with the classifier.
    assert layers == {name: min(theirs[name], max(layers.values())) for name in layers}
    heads = {layer for name, layer in ours.items() if name.startswith("head.")}
    assert heads == {max(layers.values()) + 1}
    is_whole = plain.num_classes and max(layers.values()) + 1 >= max(theirs[name] for name in layers)
    assert not is_whole or heads == {max(theirs.values())}


@pytest.mark.parametrize("backbone", SMALL)
def test_layers_are_timms_and_position_embeddings_are_named(backbone: str) -> None:
    made = network(backbone, 64, 96)
    check_layers(made)
    plain = timm.create_model(backbone)
    names = plain.no_weight_decay() if hasattr(plain, "no_weight_decay") else set()
    assert made.no_weight_decay() == {f"backbone.{name}" for name in names}


def test_layers_that_timm_does_not_know_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"layer_decay: timm does not say what the layers of caformer_s18 are"):
        of_shapes("caformer_s18").group_matcher()
    made = network("test_resnet", 64, 64)
    monkeypatch.setattr(made.backbone, "group_matcher", lambda coarse: {"stem": "^conv1", "blocks": r"^layer(\d+)"})
    with pytest.raises(InputError, match=r"does not say to which layer of test_resnet bn1.weight belongs"):
        made.group_matcher()


def test_hrnets_last_fusion_is_frozen_so_that_every_trained_parameter_has_a_gradient() -> None:
    made = network("hrnet_w18_small", 64, 64)
    frozen = made.freeze_unused((16, 16))
    assert frozen
    assert all(re.match(r"backbone\.stage4\.\d\.fuse_layers\.[123]\.", name) for name in frozen)
    made(torch.randn(2, 3, 64, 64)).sum().backward()
    without = {name for name, weight in made.named_parameters() if weight.grad is None}
    assert without == set(frozen) == {name for name, weight in made.named_parameters() if not weight.requires_grad}


def test_two_steps_on_several_processes_need_no_search_for_unused_parameters() -> None:
    """Its check of the last step's gradients is the same whatever the number of processes."""
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    try:
        for frozen in (False, True):
            made = network("hrnet_w18_small", 64, 64)
            if frozen:
                made.freeze_unused((16, 16))
            parallel = nn.parallel.DistributedDataParallel(made)
            parallel(torch.randn(2, 3, 64, 64)).sum().backward()
            if frozen:
                parallel(torch.randn(2, 3, 64, 64)).sum().backward()
                continue
            with pytest.raises(RuntimeError, match="finished reduction"):
                parallel(torch.randn(2, 3, 64, 64))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("backbone", SMALL)
def test_recomputed_activations_change_no_gradient_and_are_fewer(backbone: str) -> None:
    images = torch.randn(2, 3, 64, 96)
    gradients, kept = [], []
    for checkpointed in (False, True):
        made, elements = network(backbone, 64, 96, checkpointed=checkpointed), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, to=elements: (to.append(x.numel()), x)[1], lambda x: x):
            loss = made(images).square().sum()
        loss.backward()
        gradients.append([weight.grad for weight in made.parameters()])
        kept.append(sum(elements))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-7)
    assert kept[1] < kept[0]


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet", "hrnet_w18_small"])  # of stride 16, 32, 4
@pytest.mark.parametrize(
    ("head", "shape"),
    [
        ({"kind": "heatmap", "visibility": True}, (16, 24)),
        ({"kind": "simcc"}, (320,)),
        ({"kind": "simcc", "deconvolutions": False}, (320,)),
        ({"kind": "rtmcc"}, (320,)),
    ],
)
def test_every_head_takes_every_stride(backbone: str, head: dict[str, Any], shape: tuple[int, ...]) -> None:
    made = network(backbone, 64, 96, head=head)
    made.freeze_unused(shape)
    output = made.eval()(torch.zeros(2, 3, 64, 96))
    assert (output[0] if "visibility" in head else output).shape == (2, 17, *shape)
    assert TimmPoseNetwork(**made.arguments).state_dict().keys() == made.state_dict().keys()


@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext"])
def test_the_last_norm_is_taken_where_the_classifier_has_it_on_the_map(backbone: str) -> None:
    made, plain = network(backbone, 160, 160).eval(), timm.create_model(backbone, img_size=None).eval()
    images = torch.randn(1, 3, 160, 160)
    plain.load_state_dict(made.backbone.state_dict(), strict=False)
    with torch.no_grad():
        features: list[torch.Tensor] = []
        made.head.register_forward_pre_hook(lambda _, given: features.append(given[0]))
        made(images)
        theirs = plain.forward_features(images)
    if backbone == "test_vit":  # behind the class token
        theirs = theirs[:, plain.num_prefix_tokens :].transpose(1, 2).unflatten(2, (10, 10))
    torch.testing.assert_close(features[0], theirs)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "resnet5o"}, "timm has no such model; did you mean resnet50?"),
        ({"backbone": "resnet50.a1_in1"}, "timm has no such weights; did you mean resnet50.a1_in1k?"),
        ({"backbone": "hf-hub:owner/model"}, "timm has no such model"),
        ({"backbone": "local-dir:/tmp"}, "timm has no such model"),
        ({"backbone": ""}, "backbone=''"),
        ({"backbone": ["resnet50"]}, "must be a valid string"),
        ({"backbone": "vit_small_patch14_dinov2"}, "vit_small_patch14_dinov2: a backbone of stride 14"),
        ({"backbone": "eva02_small_patch14_224"}, "eva02_small_patch14_224: a backbone of stride 14"),
        ({"backbone": "mvitv2_tiny"}, "mvitv2_tiny: cannot be built for crops of 256x192"),
        ({"backbone": "hrnet_w32", "drop_path_rate": 0.1}, "hrnet_w32 has no stochastic depth"),
        ({"backbone": "efficientvit_b1", "drop_path_rate": 0.1}, "efficientvit_b1 has no stochastic depth"),
        ({"backbone": "hrnet_w32", "checkpointed": True}, "checkpointed=true"),
        ({"backbone": "twins_svt_small", "checkpointed": True}, "checkpointed=true"),
        ({"backbone": "resnet18", "crop_height": 10**9}, "crop_height=1000000000"),
        ({"backbone": "resnet18", "drop_path_rate": 1.0}, "drop_path_rate=1.0"),
    ],
)
def test_what_a_model_cannot_do_is_one_line(settings: dict[str, Any], words: str) -> None:
    with torch.device("meta"), pytest.raises(InputError) as refused:
        TimmPoseNetwork(**{"num_keypoints": 17, "crop_height": HEIGHT, "crop_width": WIDTH, **settings})
    assert words in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 500


def test_a_crop_size_for_which_a_backbone_fails_is_refused_before_training() -> None:
    with pytest.raises(InputError, match=r"test_convnext: gives \(32, 48\), not \(25, 37\) for crops of 128x192"):
        network("test_convnext", 128, 192).freeze_unused((25, 37))
    made = network("test_coatnet", 64, 64)
    made.arguments["crop_width"] = 96
    with pytest.raises(InputError, match=r"test_coatnet: fails for crops of 64x96"):
        made.freeze_unused((16, 24))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [*SMALL, "test_mambaout", "hrnet_w18_small", "test_byobnet"])
def test_a_training_step_is_one_graph_and_openvino_computes_the_same(backbone: str) -> None:
    made = network(backbone, 64, 64)
    step = CompiledStep(lambda images: made(images).square().mean())
    step._step = torch.compile(step._plain, fullgraph=True, dynamic=False, backend="aot_eager")
    images = torch.randn(2, 3, 64, 64)
    assert step(images).item() == pytest.approx(step._plain(images).item(), rel=1e-3)
    assert step._step is not step._plain  # what cannot be compiled would be computed as it stands
    pytest.importorskip("openvino")
    from uniformer_pose.prediction.engines import OpenVinoNetwork

    nn.init.normal_(made.head.final_layer.weight, std=0.1)
    with torch.no_grad():
        expected = made.eval()(images)
    torch.testing.assert_close(OpenVinoNetwork(made, height=64, width=64)(images), expected, rtol=1e-3, atol=1e-4)
