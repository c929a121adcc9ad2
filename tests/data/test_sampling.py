import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformer_pose.data.sampling import EpochSampler, pack_images
from uniformer_pose.errors import InputError


def test_an_epoch_holds_every_sample_once_and_says_its_epoch():
    sampler = EpochSampler(10, seed=3)
    sampler.set_epoch(4)
    samples = list(sampler)
    assert sorted(samples) == [(index, 4) for index in range(10)]
    assert all(type(number) is int for sample in samples for number in sample)


def test_the_order_depends_on_seed_and_epoch_only():
    first, again, other_seed = (EpochSampler(100, seed=seed) for seed in (1, 1, 2))
    assert list(first) == list(again) == list(first)
    assert [i for i, _ in first] != [i for i, _ in other_seed]
    order_of_epoch_0 = [i for i, _ in first]
    first.set_epoch(1)
    assert [i for i, _ in first] != order_of_epoch_0


@settings(max_examples=60, deadline=None)
@given(num_samples=st.integers(1, 40), world_size=st.integers(1, 7), epoch=st.integers(0, 3))
def test_processes_share_an_epoch_evenly(num_samples, world_size, epoch):
    parts = []
    for rank in range(world_size):
        sampler = EpochSampler(num_samples, seed=5, rank=rank, world_size=world_size)
        sampler.set_epoch(epoch)
        parts.append([index for index, _ in sampler])
        assert len(parts[-1]) == len(sampler)
    together = [index for samples in zip(*parts, strict=True) for index in samples]
    assert set(together) == set(range(num_samples))
    # What one process reads in this epoch, then its beginning once more to even out the processes.
    alone = EpochSampler(num_samples, seed=5)
    alone.set_epoch(epoch)
    order = [index for index, _ in alone]
    assert together == (order * world_size)[: len(together)]
    assert len(together) < num_samples + world_size


def test_a_resumed_epoch_continues_at_its_position_and_the_next_is_whole():
    sampler = EpochSampler(10, seed=1, rank=1, world_size=2)
    sampler.set_epoch(2)
    whole = list(sampler)
    resumed = EpochSampler(10, seed=1, rank=1, world_size=2)
    resumed.resume_at(2, 3)
    assert list(resumed) == whole[3:]
    assert list(resumed) == whole[3:], "an iterator that was thrown away changes nothing"
    assert len(resumed) == 5
    resumed.set_epoch(3)
    assert len(list(resumed)) == 5


@pytest.mark.parametrize("position", [-1, 6])
def test_a_position_outside_the_epoch_is_refused(position):
    with pytest.raises(InputError, match=f"cannot resume at sample {position} of an epoch of 5 samples"):
        EpochSampler(10, seed=0, world_size=2).resume_at(0, position)


@settings(max_examples=100, deadline=None)
@given(
    boxes=st.lists(st.integers(0, 12), max_size=40),
    boxes_per_batch=st.integers(1, 16),
    world_size=st.integers(1, 5),
)
def test_packed_images_are_evaluated_exactly_once(boxes, boxes_per_batch, world_size):
    parts = [pack_images(boxes, boxes_per_batch, rank, world_size) for rank in range(world_size)]
    batches = [batch for part in parts for batch in part]
    assert sorted(image for batch in batches for image in batch) == [i for i, n in enumerate(boxes) if n]
    for batch in batches:
        assert batch
        assert batch == sorted(batch)
        largest = max(boxes[image] for image in batch)
        assert sum(boxes[image] for image in batch) <= -(-largest // boxes_per_batch) * boxes_per_batch
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


def test_batches_of_images_like_cocos_are_full():
    numbers = np.clip(np.random.default_rng(0).gamma(2.2, 9.5, 5000).astype(int), 1, 100)
    rounds = sum(-(-int(numbers[batch].sum()) // 64) for batch in pack_images(numbers, 64))
    assert numbers.sum() / (64 * rounds) > 0.999
