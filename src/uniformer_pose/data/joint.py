"""Training on several data sets at once, whose people have other keypoints each.

Every set is read by its own rules (``PersonCrops``). Its people are given the keypoints of one skeleton, the model's;
those that a set does not label weigh nothing in the loss. It is evaluated in its own keypoints, with its own metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from uniformer_pose.config import check_changes
from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.crop_dataset import TrainingCrops, TrainingSample, batch_memory, batch_of
from uniformer_pose.data.crop_loaders import CropLoaders, already_read
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.data.images import BadImagePolicy
from uniformer_pose.data.photometric import Photometric
from uniformer_pose.data.sampling import JointEpochSampler, first_samples
from uniformer_pose.data.stages import Stage
from uniformer_pose.errors import InputError, named_set
from uniformer_pose.keypoint_mapping import union_of
from uniformer_pose.keypoints.codec import Codec
from uniformer_pose.ranges import Count, CountOrNone, Deviation, Mean, NotNegative, Positive, Seed
from uniformer_pose.skeleton import Skeleton, load_skeleton

_OF_ALL = {"codec", "mean", "std", "box_padding", "batch_size", "eval_batch_size", "num_workers", "prefetch", "seed"}
_OF_ALL |= {"worker_timeout", "on_bad_image"}
_BY_PROGRAM = {"name", "model_skeleton"}

Sampling = Literal["size", "balanced"] | dict[str, Positive]


class JointCrops(CropLoaders):
    """Training crops of several data sets, mixed in every batch, and evaluation crops of each.

    ``sets``: arguments of ``PersonCrops`` by the sets' names; what is not given there is taken from here. ``skeleton``
    is the model's: that of the first set if None, ``"union"`` of all, or another's name or path. ``sampling`` is how
    often an epoch visits people: all once (``size``), each set as often as the others (``balanced``: as many visits in
    all as there are people), or the people of a set so many times (1 where a set is not named; 0.5: every other person,
    the rest in the next epoch). The first set is the one that a training is judged by. One without a split for training
    is evaluated only.

    Raises InputError where a set has none of the model's keypoints, or contradicts it on left and right.
    """

    def __init__(
        self,
        sets: dict[str, dict[str, Any]],
        codec: Codec,
        mean: Mean,
        std: Deviation,
        skeleton: str | None = None,
        sampling: Sampling = "size",
        box_padding: Positive = 1.25,
        batch_size: Count = 32,
        eval_batch_size: Count = 64,
        num_workers: CountOrNone | Literal["auto"] = "auto",
        prefetch: Count = 2,
        on_bad_image: BadImagePolicy = "error",
        max_images: Count | None = None,
        seed: Seed = 0,
        geometric: GeometricAugmentation | None = None,
        photometric: Photometric | None = None,
        prepared_cache_gb: NotNegative = 100.0,
        worker_timeout: NotNegative = 300.0,
        stages: Mapping[str, Stage | None] | None = None,
    ) -> None:
        shared: dict[str, Any] = {
            "batch_size": batch_size,
            "eval_batch_size": eval_batch_size,
            "num_workers": num_workers,
            "prefetch": prefetch,
            "worker_timeout": worker_timeout,
            "on_bad_image": on_bad_image,
            "seed": seed,
        }
        super().__init__(**shared)
        self.codec, self.mean, self.std, self.box_padding = codec, tuple(mean), tuple(std), box_padding
        self.sampling = sampling
        self.skeleton = _model_skeleton(skeleton, sets)
        shared |= {"codec": codec, "mean": mean, "std": std, "box_padding": box_padding}
        defaults: dict[str, Any] = {"geometric": geometric, "photometric": photometric, "stages": stages}
        defaults |= {"max_images": max_images, "prepared_cache_gb": prepared_cache_gb}
        self.sets = {
            name: PersonCrops(**(defaults | _given(name, arguments) | shared), name=name, model_skeleton=self.skeleton)
            for name, arguments in sets.items()
        }
        self.trained = {name: each for name, each in self.sets.items() if each.has_training_split}
        if not self.trained:
            raise InputError(f"data.sets=[{','.join(sets)}]: no split for training; name a set that has one as well")
        self._visits: list[int] = []
        self._visits_of(dict.fromkeys(self.trained, 1))  # which refuses wrong names

    @property
    def val_sets(self) -> Sequence[PersonCrops]:
        """All of them."""
        return [*self.sets.values()]

    @property
    def prepared(self) -> bool:
        """Whether all sets are read from prepared folders."""
        return all(each.prepared for each in self.trained.values())

    @property
    def train_poses(self) -> str | None:  # type: ignore[override]
        """The first file of predicted poses that is a label of some set."""
        return next((each.train_poses for each in self.trained.values() if each.train_poses), None)

    @property
    def num_visits(self) -> int:
        """What an epoch shows of all sets."""
        return sum(self._visits)

    def setup(self, stage: str) -> None:
        """Read what the stage needs of every set; what is wrong with any ends a training here."""
        for name, each in self.sets.items():
            each.trainer = self.trainer
            with named_set(name):
                each.read(for_training=stage == "fit" and name in self.trained)
        if stage == "fit":
            is_first = not self._visits
            sizes = {name: each.num_visits for name, each in self.trained.items()}
            self._visits = self._visits_of(sizes)
            self.require_a_batch(", ".join(self.trained))
            if is_first:
                rank_zero_info(self._composition(sizes))

    def _visits_of(self, sizes: Mapping[str, int]) -> list[int]:
        if self.sampling == "size":
            return [*sizes.values()]
        if self.sampling == "balanced":
            return [-(-sum(sizes.values()) // len(sizes))] * len(sizes)
        unknown = sorted(set(self.sampling) - set(sizes))
        if unknown:
            raise InputError(f"data.sampling: {unknown[0]} is no set to train on; those are {', '.join(sizes)}")
        return [max(1, round(size * self.sampling.get(name, 1))) for name, size in sizes.items()]

    def _composition(self, sizes: Mapping[str, int]) -> str:
        """One line: how much of a batch, and of each set in an epoch."""
        parts = [
            f"{self.batch_size * visits / self.num_visits:.1f} of {name} ({visits} visits to {size} people an epoch, "
            f"{len(self.sets[name].scored_places)} of {self.skeleton.num_keypoints} keypoints)"
            for (name, size), visits in zip(sizes.items(), self._visits, strict=True)
        ]
        others = ", ".join(self.sets.keys() - self.trained.keys())
        evaluated = f"; evaluated only: {others}" if others else ""
        return f"a batch of {self.batch_size} holds on average {', '.join(parts)}{evaluated}"

    def describe_person(self, instance_index: int) -> str:
        """Set, picture and annotation of a person of a training batch."""
        for name, each in self.trained.items():
            if instance_index < each.num_visits:
                return f"{name}: {each.describe_person(instance_index)}"
            instance_index -= each.num_visits
        raise IndexError(instance_index)

    def training_samples(self) -> JointTrainingCrops:
        """All sets' crops, each drawn as its set says."""
        _weigh_all_or_none([*self.trained.values()])
        first = first_samples([each.num_visits for each in self.trained.values()], self._visits)
        sets = [each.training_samples(int(number)) for number, each in zip(first, self.trained.values(), strict=True)]
        return JointTrainingCrops(sets)

    def epoch_sampler(self, rank: int, world_size: int) -> JointEpochSampler:
        """The order of a process's training samples."""
        sizes = [each.num_visits for each in self.trained.values()]
        return JointEpochSampler(sizes, self._visits, seed=self.seed, rank=rank, world_size=world_size)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """A loader for each set; those of one set's workers go before the next one's come."""
        return [each.evaluation_loader(already_read(each.val_people), stays=False) for each in self.sets.values()]


class JointTrainingCrops(Dataset[TrainingSample]):
    """Crops of several data sets, for the (number, epoch) pairs of ``JointEpochSampler``.

    ``instance_index`` counts the people of all sets, one set after the other.
    """

    def __init__(self, sets: Sequence[TrainingCrops]) -> None:
        self.sets = sets
        self._first_samples = np.array([each.first_sample for each in sets])
        self._first_people = np.cumsum([0, *map(len, sets)])[:-1]

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def __getitems__(self, visits: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        """The samples of several visits, as a batch."""
        crops = batch_memory(len(visits), self.sets[0].spec)
        pixels = crops.numpy()
        set_of_visit = np.searchsorted(self._first_samples, [number for number, _ in visits], side="right") - 1
        samples: dict[int, TrainingSample] = {}
        for place in np.unique(set_of_visit).tolist():
            own = np.flatnonzero(set_of_visit == place).tolist()
            of_set = [(visits[at][0] - int(self._first_samples[place]), visits[at][1]) for at in own]
            for at, sample in zip(own, self.sets[place].samples(of_set, [pixels[at] for at in own]), strict=True):
                sample["instance_index"] = np.int64(sample["instance_index"] + self._first_people[place])
                samples[at] = sample
        return batch_of([samples[at] for at in range(len(visits))], crops)


def _model_skeleton(wanted: str | None, sets: Mapping[str, Mapping[str, Any]]) -> Skeleton:
    if not sets:
        raise InputError("data.sets=[]: name the sets to train on, such as data.sets=[coco,aic,mpii]")
    if wanted not in (None, "union"):
        return load_skeleton(wanted)
    own = [load_skeleton(arguments.get("skeleton", "coco_17")) for arguments in sets.values()]
    given = [arguments.get("keypoint_mapping") for arguments in sets.values()]
    return own[0] if wanted is None else union_of(own, given)


def _given(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A set's own arguments; InputError for one that ``PersonCrops`` does not have, or that all sets share."""
    key = f"data.sets.{name}"
    for own in sorted(_OF_ALL & set(arguments)):
        raise InputError(f"{key}.{own}: is the same for all sets; give data.{own}=..., or seed=... for the seed")
    for own in sorted(_BY_PROGRAM & set(arguments)):
        raise InputError(f"{key}.{own}: the program sets it; leave it out")
    made = {"geometric", "photometric", "stages"}  # objects by now
    check_changes(PersonCrops, {own: value for own, value in arguments.items() if own not in made}, key)
    for needed in ("root", "train_annotations", "train_images", "val_annotations", "val_images"):
        if needed not in arguments:
            raise InputError(f"{key}.{needed} is required: give {key}.{needed}=..., or {name} in data.sets=[...]")
    return {"val_boxes": "gt", "skeleton": "coco_17"} | dict(arguments)


def _weigh_all_or_none(sets: Sequence[PersonCrops]) -> None:
    """Where one set's keypoints have weights, those of the others weigh 1: a batch has them for all of its people."""
    people = [already_read(each.train_people) for each in sets]
    if all(each.keypoint_weights is None for each in people):
        return
    for each, own in zip(sets, people, strict=True):
        if own.keypoint_weights is None:
            each.train_people = replace(own, keypoint_weights=np.ones(own.visibility.shape, dtype=np.float32))
