"""Which samples a process reads, in which order: shuffled people for training, packed images for evaluation.

Both know the number of processes, so the trainer must not wrap them in its own distributed sampler.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from itertools import repeat

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from uniformer_pose.errors import InputError


class EpochSampler(Sampler[tuple[int, int]]):
    """(index, epoch) pairs of one epoch, in an order that depends on the seed and the epoch only.

    The epoch travels with the index, so that the data set can draw its augmentation from both, whatever
    worker process reads the sample. Process ``rank`` of ``world_size`` takes every ``world_size``-th sample
    of the common order; where the number does not divide, samples from the order's beginning are taken once
    more, so that every process has the same number of training steps.
    """

    def __init__(self, num_samples: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__()
        self.num_samples = num_samples
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._resumed_at = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def resume_at(self, epoch: int, position: int) -> None:
        """Continue in ``epoch`` after the first ``position`` samples of this process.

        Tied to the epoch rather than to the next iteration: Lightning may start an iterator and throw it
        away. Other epochs start at their beginning.
        """
        if not 0 <= position <= len(self):
            raise InputError(
                f"cannot resume at sample {position} of an epoch of {len(self)} samples per process; "
                "resume with the data and the number of processes of the interrupted run"
            )
        self.epoch = epoch
        self._resumed_at = (epoch, position)

    def __len__(self) -> int:
        """Samples per process and epoch; the full number also in an epoch resumed half-way."""
        return -(-self.num_samples // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
        own = np.resize(order, len(self) * self.world_size)[self.rank :: self.world_size]
        resumed_epoch, position = self._resumed_at
        start = position if epoch == resumed_epoch else 0
        return zip(map(int, own[start:]), repeat(epoch))  # not a list: of ten million people it would take 1 GB


def pack_images(
    num_boxes_per_image: Sequence[int] | npt.NDArray[np.integer],
    boxes_per_batch: int,
    rank: int = 0,
    world_size: int = 1,
) -> list[list[int]]:
    """Batches of image indices for one process: whole images that together fill ``boxes_per_batch`` as well as can be.

    An image with more boxes than that needs several rounds of the network, and shares the last of them with other
    images. Filling is by best fit, largest images first: of 5,000 images with 21 boxes on average, batches of 64 are
    99.9 % full, where images taken in order fill 77 %. Within a batch images are in their order.

    Over all processes every image with a box is in exactly one batch: nothing is repeated to even out the processes,
    whose numbers of batches may differ by one.
    """
    numbers = np.asarray(num_boxes_per_image, dtype=np.int64)
    batches: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (boxes that still fit, batch), sorted
    for image in np.argsort(-numbers, kind="stable").tolist():
        boxes = int(numbers[image])
        if boxes == 0:
            continue
        tightest = bisect.bisect_left(rooms, (boxes, -1))
        if tightest < len(rooms):
            room, batch = rooms.pop(tightest)
            room -= boxes
        else:
            room, batch = -boxes % boxes_per_batch, len(batches)
            batches.append([])
        batches[batch].append(image)
        if room:
            bisect.insort(rooms, (room, batch))
    return [sorted(batch) for batch in batches[rank::world_size]]
