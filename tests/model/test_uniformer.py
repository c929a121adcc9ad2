from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from uniformer_pose.errors import InputError
from uniformer_pose.model.uniformer import (
    AttentionBlock,
    ConvolutionBlock,
    UniFormer,
    drop_path,
    from_windows,
    to_windows,
)

TINY: dict[str, Any] = {"depths": [2, 2, 4, 1], "embed_dims": [8, 8, 16, 16], "head_dim": 8}


def tiny(seed: int = 0, **arguments: Any) -> UniFormer:
    torch.manual_seed(seed)
    return UniFormer(**{**TINY, **arguments})


def images(count: int = 2, height: int = 64, width: int = 64, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def gradients(network: nn.Module, inputs: torch.Tensor, seed: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)  # the draws of stochastic depth
    network(inputs).square().mean().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_features_have_a_32nd_of_the_image_s_height_and_width() -> None:
    assert tiny()(images(height=96, width=64)).shape == (2, 16, 3, 2)


@pytest.mark.parametrize("stage3_attention", ["global", "window", "hybrid"])
def test_every_parameter_receives_a_gradient(stage3_attention: str) -> None:
    network = tiny(stage3_attention=stage3_attention, window_size=3, drop_path_rate=0.2)
    got = gradients(network, images(8))
    without = [name for name, _ in network.named_parameters() if name not in got or not got[name].abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("stage3_attention", ["global", "window", "hybrid"])
def test_a_batch_gives_what_single_images_give(stage3_attention: str) -> None:
    network = tiny(stage3_attention=stage3_attention, window_size=3).eval()
    batch = images(3)
    with torch.inference_mode():
        singly = torch.cat([network(image[None]) for image in batch])
        torch.testing.assert_close(network(batch), singly, atol=1e-5, rtol=0)


def test_stochastic_depth_grows_linearly_over_all_blocks() -> None:
    network = tiny(drop_path_rate=0.4)
    rates = [m.drop_path_rate for m in network.modules() if isinstance(m, (ConvolutionBlock, AttentionBlock))]
    assert rates == pytest.approx([0.05 * index for index in range(9)], abs=1e-7)


def test_stochastic_depth_drops_whole_samples_and_scales_the_rest() -> None:
    torch.manual_seed(0)
    branch = torch.ones(4000, 2, 3, 3)
    dropped = drop_path(branch, 0.25)
    per_sample = dropped.flatten(1)
    assert torch.equal(per_sample.amin(1), per_sample.amax(1))
    kept = per_sample[:, 0][per_sample[:, 0] != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 4 / 3))
    assert float(dropped.mean()) == pytest.approx(1, abs=0.03)


def test_stochastic_depth_is_off_in_eval_mode() -> None:
    with torch.inference_mode():
        with_rate, without = tiny(drop_path_rate=0.5).eval(), tiny().eval()
        assert torch.equal(with_rate(images()), without(images()))


def test_linear_layers_start_small_and_without_bias() -> None:
    for module in tiny().modules():
        if isinstance(module, nn.Linear):
            assert 0.01 < float(module.weight.detach().std()) < 0.03
            assert not module.bias.any()


@pytest.mark.parametrize(("height", "width"), [(250, 192), (256, 190), (16, 16)])
def test_an_image_size_off_the_stride_is_refused_by_its_numbers(height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"height {height} and width {width}.*multiples of 32"):
        tiny()(images(1, height, width))


def test_features_do_not_depend_on_the_memory_order_of_images_or_weights() -> None:
    network = tiny().eval()
    with torch.inference_mode():
        expected = network(images())
        channels_last = images().contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(network(channels_last), expected, atol=1e-5, rtol=0)
        network.to(memory_format=torch.channels_last)
        features = network(channels_last)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    assert features.is_contiguous(memory_format=torch.channels_last)


# Attention modes of stage 3


def test_a_window_of_the_whole_map_is_global_attention() -> None:
    # 224 x 224 gives stage 3 a map of 14 x 14: one window of the original size.
    with torch.inference_mode():
        whole = tiny(stage3_attention="global").eval()(images(1, 224, 224))
        windowed = tiny(stage3_attention="window", window_size=14).eval()(images(1, 224, 224))
        smaller = tiny(stage3_attention="window", window_size=7).eval()(images(1, 224, 224))
    torch.testing.assert_close(windowed, whole, atol=1e-5, rtol=0)
    assert float((smaller - whole).abs().max()) > 1e-3


def test_hybrid_makes_every_fourth_block_global() -> None:
    network = tiny(depths=[1, 1, 9, 1], stage3_attention="hybrid", window_size=14)
    sizes = [block.window_size for block in network.blocks3]
    assert sizes == [14, 14, 14, None, 14, 14, 14, None, 14]
    assert [block.window_size for block in network.blocks4] == [None]


def test_attention_modes_share_names_and_shapes() -> None:
    shapes = [
        {name: entry.shape for name, entry in tiny(stage3_attention=mode).state_dict().items()}
        for mode in ("global", "window", "hybrid")
    ]
    assert shapes[0] == shapes[1] == shapes[2]


def test_window_attention_is_attention_within_zero_filled_windows() -> None:
    torch.manual_seed(0)
    block = AttentionBlock(16, 8, 4.0, 0.0, 1e-6, window_size=3).eval()
    cells = torch.randn(2, 4, 5, 16)
    query_weight, key_weight, value_weight = block.attn.qkv.weight.chunk(3)
    expected = torch.zeros_like(cells)
    with torch.inference_mode():
        block.attn.qkv.bias.normal_()
        query_bias, key_bias, value_bias = block.attn.qkv.bias.chunk(3)
        for person in range(2):
            for top in (0, 3):
                for left in (0, 3):
                    window = torch.zeros(3, 3, 16)
                    piece = cells[person, top : top + 3, left : left + 3]
                    window[: piece.shape[0], : piece.shape[1]] = piece
                    tokens = window.reshape(9, 16)
                    query = tokens @ query_weight.T + query_bias
                    key = tokens @ key_weight.T + key_bias
                    value = tokens @ value_weight.T + value_bias
                    heads = []
                    for head in (slice(0, 8), slice(8, 16)):
                        affinity = (query[:, head] @ key[:, head].T / 8**0.5).softmax(1)
                        heads.append(affinity @ value[:, head])
                    attended = block.attn.proj(torch.cat(heads, 1)).reshape(3, 3, 16)
                    expected[person, top : top + 3, left : left + 3] = attended[: piece.shape[0], : piece.shape[1]]
        torch.testing.assert_close(block._attend(cells), expected, atol=1e-5, rtol=0)


@given(height=st.integers(1, 20), width=st.integers(1, 20), size=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_windows_put_back_give_the_map_with_zeros_around(height: int, width: int, size: int) -> None:
    cells = torch.randn(2, height, width, 3)
    windows, rows, columns = to_windows(cells, size)
    assert windows.shape == (2 * rows * columns, size, size, 3)
    filled = F.pad(cells, (0, 0, 0, columns * size - width, 0, rows * size - height))
    assert torch.equal(from_windows(windows, rows, columns), filled)
    assert columns * size - width < size
    assert rows * size - height < size


# Activation checkpointing


@pytest.mark.parametrize("checkpointed_blocks", [(0, 0, 2, 0), (2, 2, 4, 1)])
def test_checkpointed_gradients_equal_plain_ones(checkpointed_blocks: tuple[int, ...]) -> None:
    plain = gradients(tiny(drop_path_rate=0.3), images(6))
    network = tiny(drop_path_rate=0.3, checkpointed_blocks=checkpointed_blocks)
    checkpointed = gradients(network, images(6))
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-7, rtol=1e-4, msg=name)


def test_checkpointing_updates_batchnorm_statistics_once() -> None:
    plain, checkpointed = tiny(), tiny(checkpointed_blocks=(2, 2, 0, 0))
    gradients(plain, images())
    gradients(checkpointed, images())
    assert int(checkpointed.blocks1[0].norm1.num_batches_tracked) == 1
    for (name, expected), value in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(value, expected), name
    # and the norms go on counting at the next step
    gradients(checkpointed, images())
    assert int(checkpointed.blocks1[0].norm1.num_batches_tracked) == 2


def test_only_the_first_blocks_of_a_stage_are_recomputed() -> None:
    network = tiny(checkpointed_blocks=(0, 0, 2, 0))
    calls = dict.fromkeys(range(4), 0)
    for index, block in enumerate(network.blocks3):
        block.norm1.register_forward_hook(lambda *_, index=index: calls.update({index: calls[index] + 1}))
    gradients(network, images())
    assert calls == {0: 2, 1: 2, 2: 1, 3: 1}


# Frozen BatchNorm


def test_frozen_batchnorm_keeps_statistics_and_weights_in_train_mode() -> None:
    network = tiny(frozen_batchnorm=True, checkpointed_blocks=(1, 0, 0, 0))
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [{name: entry.clone() for name, entry in norm.state_dict().items()} for norm in norms]
    network.train()
    optimizer = torch.optim.AdamW((p for p in network.parameters() if p.requires_grad), lr=0.1)
    network(images()).sum().backward()
    optimizer.step()
    for norm, entries in zip(norms, before, strict=True):
        assert not norm.training
        assert all(torch.equal(norm.state_dict()[name], entry) for name, entry in entries.items())
    assert network.norm4.training


def test_batchnorm_follows_the_batch_when_not_frozen() -> None:
    network = tiny().train()
    network(images())
    assert network.blocks1[0].norm1.training
    assert int(network.blocks1[0].norm1.num_batches_tracked) == 1


# Mistakes in the arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"depths": [1, 1, 1]},
            r"depths=\[1, 1, 1\]: give four whole numbers, one per stage, each at least 1",
        ),
        ({"depths": [1, 0, 1, 1]}, r"depths=\[1, 0, 1, 1\].*at least 1"),
        ({"embed_dims": [8, 8, 16]}, r"embed_dims=\[8, 8, 16\]: give four"),
        ({"embed_dims": [8, 8, 20, 16]}, r"embed_dims=\[8, 8, 20, 16\].*multiples of head_dim=8"),
        ({"head_dim": 0}, "head_dim=0"),
        ({"mlp_ratio": 0.0}, "mlp_ratio=0.0: must be above 0"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0: must be at least 0 and below 1"),
        ({"drop_path_rate": float("nan")}, "drop_path_rate=nan"),
        ({"stage3_attention": "local"}, "stage3_attention='local': must be one of global, window, hybrid"),
        ({"window_size": 0}, "window_size=0: must be at least 1"),
        (
            {"checkpointed_blocks": [0, 0, 5, 0]},
            r"stage 3 has only 4 blocks; give at most depths=\[2, 2, 4, 1\]",
        ),
        ({"checkpointed_blocks": [0, 0, -1, 0]}, r"checkpointed_blocks=\[0, 0, -1, 0\].*at least 0"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps=0.0: must be above 0"),
        ({"stem": "conv"}, "stem='conv': must be one of patch, convolution"),
        ({"stem": "convolution", "embed_dims": [7, 8, 16, 16]}, r"embed_dims=\[7, 8, 16, 16\].*even first number"),
        ({"layer_scale": 0.0}, "layer_scale=0.0: must be above 0, or null"),
        ({"layer_scale": float("nan")}, "layer_scale=nan"),
        ({"layer_scale": float("inf")}, "layer_scale=inf"),
        ({"layer_scale_blocks": "none"}, "layer_scale_blocks='none': must be one of attention, all"),
    ],
)
def test_a_wrong_number_is_named_with_what_is_allowed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        tiny(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointed_blocks", [(0, 0, 0, 0), (0, 0, 2, 0)])
def test_the_network_compiles_into_one_graph(checkpointed_blocks: tuple[int, ...]) -> None:
    network = tiny(stage3_attention="hybrid", window_size=3, checkpointed_blocks=checkpointed_blocks)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images()), network(images()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels_last", [False, True])
def test_recomputing_the_gelu_changes_no_gradient_and_keeps_less(channels_last: bool) -> None:
    gradients, kept_bytes = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        backbone = UniFormer([1, 1, 1, 1], embed_dims=(8, 8, 16, 16), head_dim=8)
        for module in backbone.modules():
            if hasattr(module, "recompute_gelu"):
                module.recompute_gelu = recompute
        images = torch.randn(2, 3, 64, 32)
        kept = []

        def keep(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = backbone(images.contiguous(memory_format=torch.channels_last) if channels_last else images).sum()
        loss.backward()
        gradients.append([parameter.grad for parameter in backbone.parameters() if parameter.grad is not None])
        kept_bytes.append(sum(kept))
    assert all(torch.equal(plain, recomputed) for plain, recomputed in zip(*gradients, strict=True))
    assert kept_bytes[1] < 0.9 * kept_bytes[0]
