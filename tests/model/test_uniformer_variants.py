"""Convolution stem and layer scale against the same network written out in plain functions, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_network import TINY, VARIANTS, images, tiny
from torch import Tensor

from uniformer_pose.model.uniformer import UniFormer

Entries = dict[str, Tensor]


def backbone_with_random_entries(**arguments: Any) -> UniFormer:
    """In float64, every weight and statistic drawn: none has a value at which it would not matter."""
    network = tiny(**arguments).backbone.double()
    for name, entry in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "running_var")) or "gamma" in name:
            entry.uniform_(0.5, 1.5)
        else:
            entry.normal_(std=0.3)
    return network


# The reference: entries by released name, images -> features; BatchNorm from the batch in training.


def reference_features(entries: Entries, x: Tensor, *, training: bool, depths: list[int]) -> Tensor:
    for stage, depth in enumerate(depths, start=1):
        x = reference_embedding(entries, f"patch_embed{stage}", x, training, stride=4 if stage == 1 else 2)
        for index in range(depth):
            block = reference_convolution_block if stage <= 2 else reference_attention_block
            x = block(entries, f"blocks{stage}.{index}", x, training)
    return reference_layer_norm(entries, "norm4", x, eps=1e-6)


def reference_embedding(e: Entries, name: str, x: Tensor, training: bool, stride: int) -> Tensor:
    if f"{name}.norm.weight" in e:
        x = F.conv2d(x, e[f"{name}.proj.weight"], e[f"{name}.proj.bias"], stride=stride)
        return reference_layer_norm(e, f"{name}.norm", x, eps=1e-5)
    x = F.conv2d(x, e[f"{name}.proj.0.weight"], e[f"{name}.proj.0.bias"], stride=2, padding=1)
    x = reference_batch_norm(e, f"{name}.proj.1", x, training)
    if stride == 4:
        x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
        x = F.conv2d(x, e[f"{name}.proj.3.weight"], e[f"{name}.proj.3.bias"], stride=2, padding=1)
        x = reference_batch_norm(e, f"{name}.proj.4", x, training)
    return x


def reference_convolution_block(e: Entries, name: str, x: Tensor, training: bool) -> Tensor:
    x = x + reference_convolution(e, f"{name}.pos_embed", x)
    branch = reference_batch_norm(e, f"{name}.norm1", x, training)
    for part in ("conv1", "attn", "conv2"):
        branch = reference_convolution(e, f"{name}.{part}", branch)
    x = x + e.get(f"{name}.gamma_1", 1) * branch
    branch = reference_convolution(e, f"{name}.mlp.fc1", reference_batch_norm(e, f"{name}.norm2", x, training))
    branch = reference_convolution(e, f"{name}.mlp.fc2", F.gelu(branch))
    return x + e.get(f"{name}.gamma_2", 1) * branch


def reference_attention_block(e: Entries, name: str, x: Tensor, training: bool) -> Tensor:
    x = x + reference_convolution(e, f"{name}.pos_embed", x)
    branch = reference_layer_norm(e, f"{name}.norm1", x, eps=1e-6)
    tokens = branch.flatten(2).transpose(1, 2)
    query, key, value = (tokens @ e[f"{name}.attn.qkv.weight"].T + e[f"{name}.attn.qkv.bias"]).chunk(3, dim=2)
    heads = []
    for start in range(0, query.shape[2], TINY["head_dim"]):
        head = slice(start, start + TINY["head_dim"])
        affinity = query[..., head] @ key[..., head].transpose(1, 2) / TINY["head_dim"] ** 0.5
        heads.append(affinity.softmax(2) @ value[..., head])
    attended = torch.cat(heads, 2) @ e[f"{name}.attn.proj.weight"].T + e[f"{name}.attn.proj.bias"]
    x = x + reference_scale(e, f"{name}.gamma_1") * attended.transpose(1, 2).reshape(x.shape)
    tokens = reference_layer_norm(e, f"{name}.norm2", x, eps=1e-6).flatten(2).transpose(1, 2)
    tokens = F.gelu(tokens @ e[f"{name}.mlp.fc1.weight"].T + e[f"{name}.mlp.fc1.bias"])
    tokens = tokens @ e[f"{name}.mlp.fc2.weight"].T + e[f"{name}.mlp.fc2.bias"]
    return x + reference_scale(e, f"{name}.gamma_2") * tokens.transpose(1, 2).reshape(x.shape)


def reference_scale(e: Entries, name: str) -> Tensor | int:
    return e[name].view(1, -1, 1, 1) if name in e else 1


def reference_convolution(e: Entries, name: str, x: Tensor) -> Tensor:
    weight = e[f"{name}.weight"]
    return F.conv2d(x, weight, e[f"{name}.bias"], padding=weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])


def reference_batch_norm(e: Entries, name: str, x: Tensor, training: bool) -> Tensor:
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    else:
        mean, variance = e[f"{name}.running_mean"], e[f"{name}.running_var"]
    scale = e[f"{name}.weight"] / (variance + 1e-5).sqrt()
    return (x - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + e[f"{name}.bias"].view(1, -1, 1, 1)


def reference_layer_norm(e: Entries, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    normalised = centred / (centred.square().mean(1, keepdim=True) + eps).sqrt()
    return normalised * e[f"{name}.weight"].view(1, -1, 1, 1) + e[f"{name}.bias"].view(1, -1, 1, 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_features_in_eval_mode_equal_the_reference(variant: str) -> None:
    network = backbone_with_random_entries(**VARIANTS[variant]).eval()
    with torch.inference_mode():
        expected = reference_features(
            network.state_dict(), images(2, 64, 96).double(), training=False, depths=TINY["depths"]
        )
        torch.testing.assert_close(network(images(2, 64, 96).double()), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_features_and_gradients_in_train_mode_equal_the_reference(variant: str) -> None:
    network = backbone_with_random_entries(**VARIANTS[variant]).train()
    copies = {name: entry.detach().clone().requires_grad_() for name, entry in network.named_parameters()}
    expected = reference_features(copies, images(2, 64, 96).double(), training=True, depths=TINY["depths"])
    features = network(images(2, 64, 96).double())
    torch.testing.assert_close(features, expected, atol=1e-10, rtol=1e-10)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (features * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, copies[name].grad, atol=1e-8, rtol=1e-8, msg=name)


# Names


def test_a_convolution_stem_has_the_released_names_and_shapes() -> None:
    patch, convolution = tiny().backbone.state_dict(), tiny(stem="convolution").backbone.state_dict()
    stem = {name: list(entry.shape) for name, entry in convolution.items() if name.startswith("patch_embed")}
    expected = {}
    for convolution_name, norm_name, shape in [
        ("patch_embed1.proj.0", "patch_embed1.proj.1", [4, 3, 3, 3]),
        ("patch_embed1.proj.3", "patch_embed1.proj.4", [8, 4, 3, 3]),
        ("patch_embed2.proj.0", "patch_embed2.proj.1", [12, 8, 3, 3]),
        ("patch_embed3.proj.0", "patch_embed3.proj.1", [16, 12, 3, 3]),
        ("patch_embed4.proj.0", "patch_embed4.proj.1", [24, 16, 3, 3]),
    ]:
        expected |= {f"{convolution_name}.weight": shape, f"{convolution_name}.bias": shape[:1]}
        expected |= {f"{norm_name}.{part}": shape[:1] for part in ("weight", "bias", "running_mean", "running_var")}
        expected[f"{norm_name}.num_batches_tracked"] = []
    assert stem == expected
    assert [n for n in convolution if n not in stem] == [n for n in patch if not n.startswith("patch_embed")]


OF_ATTENTION = {**{f"blocks3.{index}": [16] for index in range(4)}, "blocks4.0": [24]}
OF_CONVOLUTION = {"blocks1.0": [1, 8, 1, 1], "blocks1.1": [1, 8, 1, 1], "blocks2.0": [1, 12, 1, 1]}


@pytest.mark.parametrize(
    ("blocks", "expected"), [("attention", OF_ATTENTION), ("all", {**OF_CONVOLUTION, **OF_ATTENTION})]
)
def test_layer_scale_adds_two_entries_to_its_blocks_and_nothing_else(blocks: str, expected: dict[str, Any]) -> None:
    without = tiny().backbone.state_dict()
    entries = tiny(layer_scale=0.5, layer_scale_blocks=blocks).backbone.state_dict()
    added = {name: list(entry.shape) for name, entry in entries.items() if name not in without}
    assert added == {f"{block}.{gamma}": shape for block, shape in expected.items() for gamma in ("gamma_1", "gamma_2")}


# What holds for every variant


@pytest.mark.parametrize("stem", ["patch", "convolution"])
def test_features_come_out_channels_last_whatever_the_memory_order_of_images_or_weights(stem: str) -> None:
    network = tiny(stem=stem).backbone.eval()
    channels_last = images().contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        features = network(images())
        assert features.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(network(channels_last), features, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            network.to(memory_format=torch.channels_last)(channels_last), features, atol=1e-5, rtol=0
        )
