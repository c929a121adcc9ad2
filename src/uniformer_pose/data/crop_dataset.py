"""Person instances to crops: augmented people for training, all boxes of some images for evaluation.

Crops stay uint8 (height, width, 3) RGB up to the device, where they are normalised: a quarter of the memory traffic of
floats. Both data sets make a whole batch at a time, each crop where the batch will have it, so a DataLoader needs no
collation: ``collate_fn=as_it_is``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, get_worker_info

from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.crop_geometry import CropGeometry, CropSpec, Pixels
from uniformer_pose.data.images import ImageSource, SkippedImage
from uniformer_pose.data.photometric import Photometric
from uniformer_pose.data.stages import Pipeline
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

# So many unusable images without a good one between them is a wrong folder, not a few broken downloads.
_MOST_BAD_IMAGES_IN_A_ROW = 100
_Batch = TypeVar("_Batch")


class TrainingSample(TypedDict):
    """One person; in a batch, each field is a tensor with a batch axis in front.

    ``crops`` (height, width, 3) RGB. ``keypoints_in_crop`` (K, 2): x, y in crop pixels, without meaning where not
    labelled. ``visibility`` (K,): 0 not labelled, 1 labelled but hidden, 2 visible. Where the crop is mirrored, left
    and right have changed places in both. ``keypoint_weights`` (K,), where people have them, in the same order;
    ``in_set`` (K,), among several sets, whether the person's own has the keypoint at all.
    ``instance_index`` () the person shown. ``replaced`` () 1 where the person
    asked for could not be read and the next one with a good image took its place, else 0.
    """

    crops: Pixels
    keypoints_in_crop: npt.NDArray[np.float32]
    visibility: npt.NDArray[np.uint8]
    keypoint_weights: NotRequired[npt.NDArray[np.float32]]
    in_set: NotRequired[npt.NDArray[np.bool_]]
    instance_index: np.int64
    replaced: np.uint8


class EvaluationBatch(TypedDict):
    """All n boxes of some images, one image after the other.

    ``crops`` (n, height, width, 3) uint8 RGB. ``centers_in_image`` (n, 2) x, y and ``extents_in_image`` (n, 2) width,
    height of the regions that they show. ``instance_index`` (n,). ``unreadable_images``: indices of the images that
    could not be read, of which there are no crops and whose people are missed.
    """

    crops: torch.Tensor
    centers_in_image: torch.Tensor
    extents_in_image: torch.Tensor
    instance_index: torch.Tensor
    unreadable_images: torch.Tensor


class TrainingCrops(Dataset[TrainingSample]):
    """Augmented crops of people, for (index, epoch) pairs as ``EpochSampler`` gives them.

    A sample depends on ``seed``, epoch and index only: not on the worker that reads it, on the number of processes, or
    on what was read before. ``geometric`` None: upright crops of the padded boxes; ``photometric`` None: the pixels as
    they are. ``stages``, by rising first epochs, take the place of both from theirs on.

    An index beyond the last person visits them once more, with other draws. ``first_sample`` is the number of the first
    among several sets' samples, which is what is drawn from, and ``in_set`` (K,) says which keypoints this one has.
    """

    def __init__(
        self,
        images: ImageSource,
        skeleton: Skeleton,
        spec: CropSpec,
        *,
        seed: int = 0,
        geometric: GeometricAugmentation | None = None,
        photometric: Photometric | None = None,
        stages: Sequence[Pipeline] = (),
        first_sample: int = 0,
        in_set: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        people = images.people
        if len(people) == 0:
            raise InputError(f"nobody to train on. {people.summary()}; give a file with annotated people")
        if people.keypoints_in_image.shape[1] != skeleton.num_keypoints:
            raise InputError(
                f"{people.source_file} was read with {people.keypoints_in_image.shape[1]} keypoints, skeleton "
                f"{skeleton.name} has {skeleton.num_keypoints}; use one skeleton for both"
            )
        self.images = images
        self.people = people
        self.skeleton = skeleton
        self.spec = spec
        self.seed, self.first_sample, self._in_set = seed, first_sample, in_set
        self._pipelines = [*reversed(stages), Pipeline("first", 0, geometric, photometric)]
        self._mirrored = skeleton.mirror_permutation

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, index_and_epoch: tuple[int, int]) -> TrainingSample:
        """The sample of one visit; see ``TrainingSample`` for its fields."""
        crop = np.empty((self.spec.height, self.spec.width, 3), dtype=np.uint8)
        return self.samples([index_and_epoch], [crop])[0]

    def __getitems__(self, visits: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        """The samples of several visits, as a batch."""
        crops = batch_memory(len(visits), self.spec)
        return batch_of(self.samples(visits, crops.numpy()), crops)

    def samples(self, visits: Sequence[tuple[int, int]], crops: Sequence[Pixels] | Pixels) -> list[TrainingSample]:
        """The samples of several visits, their pixels put into ``crops``."""
        # One kind of work after the other: each image that is decoded pushes code and numbers out of the cache.
        drawn = [self._draw(index % len(self), index, epoch) for index, epoch in visits]
        self.images.expect(
            (index % len(self), geometry) for (index, _), (geometry, _rng) in zip(visits, drawn, strict=True)
        )
        shown = [self._show(*visit, draw, crop) for visit, draw, crop in zip(visits, drawn, crops, strict=True)]
        return [
            self._sample(index % len(self), *what, crop)
            for (index, _), what, crop in zip(visits, shown, crops, strict=True)
        ]

    def _pipeline(self, epoch: int) -> Pipeline:
        return next(pipeline for pipeline in self._pipelines if pipeline.first_epoch <= epoch)

    def _draw(self, index: int, requested: int, epoch: int) -> tuple[CropGeometry, np.random.Generator]:
        """What to show of a person on the visit to ``requested``; the generator goes on for the looks."""
        rng = np.random.default_rng([self.seed, epoch, self.first_sample + requested])
        box = self.people.boxes_xywh[index]
        geometric = self._pipeline(epoch).geometric
        if geometric is None:
            geometry = self.spec.around(box)
        else:
            keypoints, visibility = self.people.keypoints_in_image[index], self.people.visibility[index]
            geometry = geometric(rng, box, keypoints, visibility, self.skeleton, self.spec)
        _ = geometry.matrix  # computed here and kept: see __getitems__
        return geometry, rng

    def _show(
        self, requested: int, epoch: int, drawn: tuple[CropGeometry, np.random.Generator], crop: Pixels
    ) -> tuple[int, CropGeometry]:
        """Put the requested person into ``crop``, or the next one of another image that can be read; returns which."""
        bad_images: dict[int, SkippedImage] = {}
        for step in range(len(self)):
            index = (requested + step) % len(self)
            image_index = int(self.people.image_of_instance[index])
            if image_index in bad_images:
                continue
            geometry, rng = drawn if step == 0 else self._draw(index, requested, epoch)
            try:
                self.images.crop(index, geometry, into=crop)
            except SkippedImage as problem:
                bad_images[image_index] = problem
                if len(bad_images) == _MOST_BAD_IMAGES_IN_A_ROW:
                    break
            else:
                photometric = self._pipeline(epoch).photometric
                if photometric is not None:
                    crop[...] = photometric(crop, rng)
                return index, geometry
        first = next(iter(bad_images.values()))
        raise InputError(f"{len(bad_images)} images in a row cannot be used, the first: {first}") from first

    def _sample(self, requested: int, index: int, geometry: CropGeometry, crop: Pixels) -> TrainingSample:
        """Where the keypoints of a person are in its crop, in the order that the crop shows them."""
        keypoints_in_crop = geometry.to_crop(self.people.keypoints_in_image[index]).astype(np.float32)
        visibility = self.people.visibility[index]
        order = self._mirrored if geometry.mirrored else slice(None)
        weights = self.people.keypoint_weights
        sample: TrainingSample = {
            "crops": crop,
            "keypoints_in_crop": keypoints_in_crop[order],
            "visibility": visibility[order].copy(),
            "instance_index": np.int64(index),
            "replaced": np.uint8(index != requested),
        }
        if weights is not None:
            sample["keypoint_weights"] = weights[index][order]
        if self._in_set is not None:
            sample["in_set"] = self._in_set[order]
        return sample


class EvaluationImages(Dataset[EvaluationBatch]):
    """All upright crops of some images, each of which is decoded once; for image indices as ``pack_images`` gives them.

    Images that ``images`` skips have no crops and are named in ``unreadable_images``.
    """

    def __init__(self, images: ImageSource, spec: CropSpec) -> None:
        people = images.people
        self.images = images
        self._crops = spec.around(people.boxes_xywh)
        self._by_image = np.argsort(people.image_of_instance, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(people.boxes_per_image)])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, image_index: int) -> EvaluationBatch:
        """The boxes of one image."""
        return self.__getitems__([image_index])

    def __getitems__(self, image_indices: Sequence[int]) -> EvaluationBatch:
        """The boxes of several images; of none, an empty batch."""
        of_image = [self._by_image[self._starts[image] : self._starts[image + 1]] for image in image_indices]
        crops = batch_memory(sum(map(len, of_image)), self._crops.spec)
        places = crops.numpy()
        kept: list[npt.NDArray[np.intp]] = [np.zeros(0, dtype=np.intp)]
        unreadable: list[int] = []
        filled = 0
        for image_index, indices in zip(image_indices, of_image, strict=True):
            place = places[filled : filled + len(indices)]
            try:
                self.images.crop(int(indices[0]), self._crops[indices], into=place)
            except SkippedImage:
                unreadable.append(image_index)
                continue
            kept.append(indices)
            filled += len(indices)
        instance_index = np.concatenate(kept).astype(np.int64)
        return {
            "crops": crops[:filled],
            "centers_in_image": torch.from_numpy(self._crops.center[instance_index]),
            "extents_in_image": torch.from_numpy(self._crops.extent[instance_index]),
            "instance_index": torch.from_numpy(instance_index),
            "unreadable_images": torch.tensor(unreadable, dtype=torch.int64),
        }


def as_it_is(batch: _Batch) -> _Batch:
    """What the data sets give a DataLoader is a batch already. A ``collate_fn``."""
    return batch


def batch_of(samples: Sequence[TrainingSample], crops: torch.Tensor) -> dict[str, torch.Tensor]:
    """Samples as a batch, around the memory that their crops are in."""
    first: Any = samples[0]
    names = [name for name in first if name != "crops"]
    columns: Any = {name: np.stack([sample[name] for sample in samples]) for name in names}  # type: ignore[literal-required]
    return {"crops": crops, **{name: torch.from_numpy(column) for name, column in columns.items()}}


def batch_memory(num_crops: int, spec: CropSpec) -> torch.Tensor:
    """(n, height, width, 3) uint8, not filled; in a DataLoader's worker, in memory that the main process sees too."""
    shape = (num_crops, spec.height, spec.width, 3)
    if get_worker_info() is None or num_crops == 0:
        return torch.empty(shape, dtype=torch.uint8)
    # As torch's own collation does it: otherwise each batch would be copied there once more.
    shared = torch.UntypedStorage._new_shared(math.prod(shape))  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)
