import pytest
import torch

from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.training.collapse import CollapseWatch
from uniformer_pose.training.step_loss import keypoint_mse

CODEC = HeatmapCodec(64, 64, sigma=2.0)


def watch(share, batches=20, seed=0, labelled=True):
    """A watch that has seen losses of heatmaps which are this share of their targets."""
    generator = torch.Generator().manual_seed(seed)
    result = CollapseWatch()
    for _ in range(batches):
        keypoints = torch.rand(4, 17, 2, generator=generator) * 64.0
        visibility = torch.full((4, 17), 2 if labelled else 0, dtype=torch.uint8)
        targets, weights = CODEC.encode(keypoints, visibility)
        result.add(keypoint_mse(share * targets, targets, weights), CODEC, keypoints, visibility)
    return result


def test_heatmaps_of_zeros_are_named():
    line = watch(0.0).verdict(past_warmup=True)

    assert line.startswith("the network has collapsed: the loss is 100% of what heatmaps of zeros have, so it finds no")


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_heatmaps_with_the_least_of_a_peak_are_no_collapse(share):
    assert watch(share).verdict(past_warmup=True) is None


def test_a_network_that_warms_up_is_given_time():
    assert watch(0.0).verdict(past_warmup=False) is None


def test_a_few_losses_are_no_verdict():
    assert watch(0.0, batches=19).verdict(past_warmup=True) is None


def test_people_without_labels_and_losses_that_are_not_finite_are_no_collapse():
    assert watch(0.0, labelled=False).verdict(past_warmup=True) is None
    assert watch(float("nan")).verdict(past_warmup=True) is None


def test_each_verdict_is_about_what_came_since_the_last():
    losses = watch(0.0)
    assert losses.verdict(past_warmup=True) is not None
    assert losses.verdict(past_warmup=True) is None


def test_a_training_that_finds_nothing_is_told_so_at_the_end_of_the_epoch(tiny):
    tiny.write_people([2] * 20)
    module = tiny.module(learning_rate_per_256=1e-9, warmup_steps=0)
    with torch.no_grad():
        module.network.head.final_layer.weight.zero_()
        module.network.head.final_layer.bias.zero_()

    with pytest.warns(UserWarning, match="epoch 0: the network has collapsed: the loss is 100% of what heatmaps of"):
        tiny.trainer(limit_val_batches=0).fit(module, datamodule=tiny.data())
