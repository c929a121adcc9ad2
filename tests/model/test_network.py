from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from tiny_network import TINY, VARIANTS, gradients, images, tiny
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from uniformer_pose.errors import InputError
from uniformer_pose.model.arguments import NetworkArguments
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.model.uniformer import AttentionBlock

SIZES: dict[str, dict[str, Any]] = {
    "S": {"depths": [3, 4, 8, 3]},
    "S-dagger": {"depths": [3, 5, 9, 3], "stem": "convolution", "head_dim": 32},
    "B": {"depths": [5, 8, 20, 7]},
    "B-LS": {"depths": [5, 8, 20, 7], "layer_scale": 1e-6},
    "L-LS": {
        "depths": [5, 10, 24, 7],
        "embed_dims": [128, 192, 448, 640],
        "layer_scale": 1e-6,
        "layer_scale_blocks": "all",
    },
}

# Sizes


def on_meta(size: str) -> PoseNetwork:
    with torch.device("meta"):
        return PoseNetwork(17, **SIZES[size]).eval()


def million_parameters(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def giga_multiply_accumulates(module: nn.Module, *shape: int) -> float:
    # One kernel choice for all devices: what the fused ones do is not counted on every one of them.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        module(torch.empty(shape, device="meta"))
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize(
    ("size", "parameters", "height", "width", "multiply_accumulates"),
    [("S", 25.2, 256, 192, 4.67), ("S", 25.2, 448, 320, 14.73), ("B", 53.5, 384, 288, 22.05)],
)
def test_the_published_models_have_their_published_size_and_cost(
    size: str, parameters: float, height: int, width: int, multiply_accumulates: float
) -> None:
    network = on_meta(size)
    assert million_parameters(network) == pytest.approx(parameters, abs=0.05)
    assert giga_multiply_accumulates(network, 1, 3, height, width) == pytest.approx(multiply_accumulates, abs=0.006)


# The table of the original's image_classification/README.md: millions of parameters with one linear classifier, with
# two where it is trained by token labelling, and billions of multiply-accumulates, those of the norms included. Of L it
# says 12.6, which its 5, 10, 24 and 7 blocks of 128 to 640 channels exceed by far; here stands what they take.
@pytest.mark.parametrize(
    ("size", "classifiers", "parameters", "multiply_accumulates"),
    [
        ("S", 1, 22, 3.6),
        ("S-dagger", 1, 24, 4.2),
        ("B", 1, 50, 8.3),
        ("B-LS", 1, 50, 8.3),
        ("L-LS", 2, 100, 19.7),
    ],
)
def test_the_backbones_have_the_size_and_cost_published_for_their_classifiers(
    size: str, classifiers: int, parameters: float, multiply_accumulates: float
) -> None:
    backbone = on_meta(size).backbone
    of_classifiers = classifiers * (backbone.norm4.weight.numel() + 1) * 1000 / 1e6
    assert million_parameters(backbone) + of_classifiers == pytest.approx(parameters, abs=0.5)
    assert giga_multiply_accumulates(backbone, 1, 3, 224, 224) == pytest.approx(multiply_accumulates, abs=0.1)


# Arguments


def test_arguments_rebuild_the_network_after_a_weights_only_round_trip() -> None:
    network = tiny(
        mlp_ratio=2.0,
        drop_path_rate=0.1,
        stage3_attention="hybrid",
        window_size=3,
        checkpointed_blocks=(1, 0, 1, 0),
        layer_norm_eps=1e-5,
        frozen_batchnorm=True,
        stem="convolution",
        layer_scale=0.1,
        layer_scale_blocks="all",
    ).eval()
    buffer = io.BytesIO()
    torch.save({"arguments": network.arguments, "state_dict": network.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    rebuilt = PoseNetwork(**saved["arguments"]).eval()
    rebuilt.load_state_dict(saved["state_dict"])
    assert rebuilt.arguments == network.arguments
    with torch.inference_mode():
        assert torch.equal(rebuilt(images()), network(images()))


def test_arguments_written_before_others_existed_rebuild_the_network() -> None:
    later = {"stem", "layer_scale", "layer_scale_blocks", "head", "crop_height", "crop_width"}
    old = {name: value for name, value in tiny().arguments.items() if name not in later}
    assert len(old) == 12
    assert PoseNetwork(**old).arguments == tiny().arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_keypoints": 0}, "num_keypoints=0: must be"),
        ({"depths": [1, 1, 1]}, "depths.*4"),
        ({"embed_dims": [8, 8, 20, 16]}, r"embed_dims=\[8, 8, 20, 16\].*multiples of head_dim=8"),
        ({"mlp_ratio": 0.0}, "mlp_ratio=0.0: must be"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0: must be"),
        ({"stage3_attention": "local"}, "stage3_attention=.*global.*window.*hybrid"),
        ({"checkpointed_blocks": [0, 0, 5, 0]}, r"give at most depths=\[2, 1, 4, 1\]"),
        ({"stem": "convolution", "embed_dims": [7, 8, 16, 16]}, r"embed_dims=\[7, 8, 16, 16\].*even first number"),
        ({"layer_scale": float("inf")}, "layer_scale=inf"),
    ],
)
def test_a_wrong_number_is_named_with_what_is_allowed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        tiny(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("height", "width"), [(250, 192), (16, 16)])
def test_an_image_size_off_the_stride_is_refused_by_its_numbers(height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"height {height} and width {width}.*multiples of 32"):
        tiny()(images(1, height, width))


# What is computed


@pytest.mark.parametrize("stage3_attention", ["global", "window", "hybrid"])
def test_a_batch_gives_what_single_images_give(stage3_attention: str) -> None:
    network = tiny(stage3_attention=stage3_attention, window_size=3).eval()
    nn.init.normal_(network.head.final_layer.weight)
    batch = images(3, 96, 64)
    with torch.inference_mode():
        heatmaps = network(batch)
        assert heatmaps.shape == (3, 5, 24, 16)
        singly = torch.cat([network(image[None]) for image in batch])
    torch.testing.assert_close(heatmaps, singly, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["S and B", "everything"])
def test_every_parameter_receives_a_gradient(variant: str) -> None:
    network = tiny(stage3_attention="hybrid", window_size=3, drop_path_rate=0.2, **VARIANTS[variant])
    got = gradients(network, images(8))
    assert [name for name, _ in network.named_parameters() if name not in got or not got[name].abs().sum() > 0] == []


def test_stochastic_depth_grows_linearly_over_all_blocks_and_is_off_in_eval_mode() -> None:
    network = tiny(drop_path_rate=0.4)
    rates = [module.drop_path_rate for module in network.modules() if hasattr(module, "drop_path_rate")]
    assert rates == pytest.approx([0.4 / 7 * index for index in range(8)], abs=1e-7)
    with torch.inference_mode():
        assert torch.equal(network.eval()(images()), tiny().eval()(images()))


# Attention modes of stage 3


def test_hybrid_makes_every_fourth_block_global() -> None:
    backbone = tiny(depths=[1, 1, 9, 1], stage3_attention="hybrid", window_size=14).backbone
    assert [block.window_size for block in backbone.blocks3] == [14, 14, 14, None, 14, 14, 14, None, 14]
    assert [block.window_size for block in backbone.blocks4] == [None]


def test_window_attention_is_attention_within_zero_filled_windows() -> None:
    torch.manual_seed(0)
    windowed = AttentionBlock(16, 0.0, 3, NetworkArguments(**TINY)).eval()
    cells = torch.randn(2, 4, 5, 16)
    expected = torch.zeros_like(cells)
    with torch.inference_mode():
        windowed.attn.qkv.bias.normal_()
        for top in (0, 3):
            for left in (0, 3):
                piece = cells[:, top : top + 3, left : left + 3]
                window = torch.zeros(2, 3, 3, 16)
                window[:, : piece.shape[1], : piece.shape[2]] = piece
                attended = windowed.attn(window.flatten(1, 2)).view(window.shape)
                expected[:, top : top + 3, left : left + 3] = attended[:, : piece.shape[1], : piece.shape[2]]
        torch.testing.assert_close(windowed._attend(cells), expected, atol=1e-5, rtol=0)


# Switches of training


@pytest.mark.parametrize("variant", ["S and B", "everything"])
def test_checkpointed_gradients_equal_plain_ones(variant: str) -> None:
    plain = gradients(tiny(drop_path_rate=0.3, **VARIANTS[variant]), images(6))
    every = TINY["depths"]
    checkpointed = gradients(tiny(drop_path_rate=0.3, checkpointed_blocks=every, **VARIANTS[variant]), images(6))
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-7, rtol=1e-4, msg=name)


def test_checkpointing_updates_batchnorm_statistics_once() -> None:
    plain, checkpointed = tiny(), tiny(checkpointed_blocks=(2, 1, 0, 0))
    for step in (1, 2):
        gradients(plain, images())
        gradients(checkpointed, images())
        assert int(checkpointed.backbone.blocks1[0].norm1.num_batches_tracked) == step
        for (name, expected), value in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
            assert torch.equal(value, expected), name


def test_recomputing_the_gelu_changes_no_gradient_and_keeps_less() -> None:
    found, kept_bytes = [], []
    for recompute in (False, True):
        backbone = tiny().backbone
        for module in backbone.modules():
            if hasattr(module, "recompute_gelu"):
                module.recompute_gelu = recompute
        kept = []

        def keep(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = backbone(images()).sum()
        loss.backward()
        found.append([parameter.grad for parameter in backbone.parameters() if parameter.grad is not None])
        kept_bytes.append(sum(kept))
    assert all(torch.equal(plain, recomputed) for plain, recomputed in zip(*found, strict=True))
    assert kept_bytes[1] < 0.9 * kept_bytes[0]


def test_frozen_batchnorm_keeps_the_backbone_s_statistics_and_weights_and_leaves_the_head_s_learning() -> None:
    network = tiny(frozen_batchnorm=True, checkpointed_blocks=(1, 0, 0, 0)).train()
    frozen = [m for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    in_head = [m for m in network.head.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [{name: entry.clone() for name, entry in norm.state_dict().items()} for norm in frozen]
    optimizer = torch.optim.AdamW((p for p in network.parameters() if p.requires_grad), lr=0.1)
    gradients(network, images())
    optimizer.step()
    for norm, entries in zip(frozen, before, strict=True):
        assert not norm.training
        assert all(torch.equal(norm.state_dict()[name], entry) for name, entry in entries.items())
    assert all(int(norm.num_batches_tracked) == 1 and norm.weight.requires_grad for norm in in_head)
