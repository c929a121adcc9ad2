"""Person instances to crops: one augmented person for training, all boxes of one image for evaluation.

Crops stay uint8 (height, width, 3) RGB up to the device, where they are normalised: a quarter of the memory
traffic of floats.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from typing import Literal, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, get_worker_info

from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.crop_geometry import CropGeometry, CropSpec
from uniformer_pose.data.images import ImageFiles, ImageSource
from uniformer_pose.data.photometric import PhotometricAugmentation
from uniformer_pose.data.worker_failures import begin_reading, end_reading
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

# So many unusable images without a good one between them is a wrong folder, not a few broken downloads.
_MOST_BAD_IMAGES_IN_A_ROW = 100

BadImagePolicy = Literal["error", "skip"]


class TrainingSample(TypedDict):
    """One person; after collation each field has a batch axis in front.

    ``crops`` (height, width, 3) RGB. ``keypoints_in_crop`` (K, 2): x, y in crop pixels, also outside the
    crop, and without meaning where not labelled. ``visibility`` (K,): 0 not labelled, 1 labelled but hidden,
    2 visible. Where the crop is mirrored, both are those of the mirrored person: left and right have changed
    places. ``instance_index`` () the person shown. ``replaced`` () 1 where the person asked for could not be
    read and another one took its place, else 0.
    """

    crops: npt.NDArray[np.uint8]
    keypoints_in_crop: npt.NDArray[np.float32]
    visibility: npt.NDArray[np.uint8]
    instance_index: np.int64
    replaced: np.uint8


class EvaluationBatch(TypedDict):
    """All boxes of some images, one image after the other (n of them).

    ``crops`` (n, height, width, 3) uint8 RGB. ``centers_in_image`` (n, 2) x, y and ``extents_in_image`` (n, 2)
    width, height of the regions that the crops show, in image pixels. ``instance_index`` (n,).
    ``unreadable_images``: indices of the images that could not be read, of which there are no crops and whose
    people are missed.
    """

    crops: torch.Tensor
    centers_in_image: torch.Tensor
    extents_in_image: torch.Tensor
    instance_index: torch.Tensor
    unreadable_images: torch.Tensor


class TrainingCrops(Dataset[TrainingSample]):
    """The augmented crop of one person, for an (index, epoch) pair as ``EpochSampler`` gives it.

    A sample depends on ``seed``, epoch and index only: not on the worker that reads it, on the number of
    processes, or on what was read before. ``geometric`` None: upright crops of the padded boxes;
    ``photometric`` None: the pixels as they are.

    ``on_bad_image``: an image that cannot be used is an InputError with its path and the annotation's id, or
    (``skip``) the next person with a good image takes the place, which shows in the sample's ``replaced``.

    ``images``: where the crops are taken from: the image files (None), or ``PreparedImages``, which give the same
    pixels in less time.
    """

    def __init__(
        self,
        instances: PersonInstances,
        skeleton: Skeleton,
        spec: CropSpec,
        *,
        seed: int = 0,
        geometric: GeometricAugmentation | None = None,
        photometric: PhotometricAugmentation | None = None,
        on_bad_image: BadImagePolicy = "error",
        images: ImageSource | None = None,
    ) -> None:
        if len(instances) == 0:
            raise InputError(f"nobody to train on. {instances.summary()}; give a file with annotated people")
        if instances.keypoints_in_image.shape[1] != skeleton.num_keypoints:
            raise InputError(
                f"{instances.source_file} was read with {instances.keypoints_in_image.shape[1]} keypoints, "
                "skeleton "
                f"{skeleton.name} has {skeleton.num_keypoints}; use one skeleton for both"
            )
        if seed < 0:
            raise InputError(f"seed {seed} is negative; use a whole number from 0 on")
        _check_policy(on_bad_image)
        self.instances = instances
        self.skeleton = skeleton
        self.spec = spec
        self.seed = seed
        self.geometric = geometric
        self.photometric = photometric
        self.on_bad_image = on_bad_image
        self.images = ImageFiles(instances) if images is None else images
        self._mirror_permutation = skeleton.mirror_permutation

    def __len__(self) -> int:
        return len(self.instances)

    def __getitem__(self, index_and_epoch: tuple[int, int]) -> TrainingSample:
        """The sample of one visit; see ``TrainingSample`` for its fields."""
        requested, epoch = index_and_epoch
        index, geometry, crop, rng = self._first_good(requested, epoch)
        keypoints = self.instances.keypoints_in_image[index]
        visibility = self.instances.visibility[index]
        if self.photometric is not None:
            crop = self.photometric(crop, rng)
        end_reading()
        keypoints_in_crop = geometry.to_crop(keypoints)
        if geometry.mirrored:
            keypoints_in_crop = keypoints_in_crop[self._mirror_permutation]
            visibility = visibility[self._mirror_permutation]
        return {
            "crops": crop,
            "keypoints_in_crop": keypoints_in_crop.astype(np.float32),
            "visibility": visibility.copy(),
            "instance_index": np.int64(index),
            "replaced": np.uint8(index != requested),
        }

    def _choose_geometry(self, rng: np.random.Generator, index: int) -> CropGeometry:
        box = self.instances.boxes_xywh[index]
        if self.geometric is None:
            return self.spec.around(box)
        return self.geometric(
            rng,
            box,
            self.instances.keypoints_in_image[index],
            self.instances.visibility[index],
            self.skeleton,
            self.spec,
        )

    def _first_good(
        self, requested: int, epoch: int
    ) -> tuple[int, CropGeometry, npt.NDArray[np.uint8], np.random.Generator]:
        """The requested instance, or the next one of another image that can be read; and its crop."""
        bad_images: dict[int, InputError] = {}
        for step in range(len(self.instances)):
            index = (requested + step) % len(self.instances)
            image_index = int(self.instances.image_of_instance[index])
            if image_index in bad_images:
                continue
            begin_reading(index)
            rng = np.random.default_rng([self.seed, epoch, requested])
            geometry = self._choose_geometry(rng, index)
            try:
                return index, geometry, self.images.crop(image_index, geometry), rng
            except InputError as error:
                bad_images[image_index] = _with_instance(error, self.instances, index)
                if self.on_bad_image == "error":
                    raise bad_images[image_index] from error
                end_reading()
                if len(bad_images) == _MOST_BAD_IMAGES_IN_A_ROW:
                    break
        first = next(iter(bad_images.values()))
        raise InputError(f"{len(bad_images)} images in a row cannot be used, the first: {first}") from first


class EvaluationImages(Dataset[EvaluationBatch]):
    """All upright crops of some images, each of which is decoded once; for image indices as ``pack_images`` gives them.

    ``on_bad_image``: an image that cannot be used is an InputError with its path, or (``skip``) has no crops
    and is named in ``unreadable_images``.

    A DataLoader asks for a whole batch at a time, which needs no further collation: ``collate_fn=as_it_is``.
    """

    def __init__(
        self,
        instances: PersonInstances,
        spec: CropSpec,
        *,
        on_bad_image: BadImagePolicy = "error",
        images: ImageFiles | None = None,
    ) -> None:
        _check_policy(on_bad_image)
        self.instances = instances
        self.images = ImageFiles(instances) if images is None else images
        self.on_bad_image = on_bad_image
        self._crops = spec.around(instances.boxes_xywh)
        self._by_image = np.argsort(instances.image_of_instance, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(instances.boxes_per_image)])

    def __len__(self) -> int:
        return self.instances.num_images

    def __getitem__(self, image_index: int) -> EvaluationBatch:
        """The boxes of one image."""
        return self.__getitems__([image_index])

    def __getitems__(self, image_indices: Sequence[int]) -> EvaluationBatch:
        """The boxes of several images; of none, an empty batch."""
        for image_index in image_indices:
            if not 0 <= image_index < len(self):
                raise IndexError(f"image {image_index} of {len(self)}")
        of_image = [self._by_image[self._starts[image] : self._starts[image + 1]] for image in image_indices]
        crops = _batch_memory(sum(map(len, of_image)), self._crops.spec)
        # Every crop is made where the batch will have it; that copies nothing afterwards.
        places = crops.numpy()
        kept: list[npt.NDArray[np.intp]] = []
        unreadable: list[int] = []
        filled = 0
        for image_index, indices in zip(image_indices, of_image, strict=True):
            begin_reading(int(indices[0]))
            try:
                image = self.images.pixels(image_index)
            except InputError as error:
                if self.on_bad_image == "error":
                    raise _with_instance(error, self.instances, int(indices[0])) from error
                unreadable.append(image_index)
                end_reading()
                continue
            self._crops[indices].crop(image, into=places[filled : filled + len(indices)])
            filled += len(indices)
            kept.append(indices)
        end_reading()
        instance_index = np.concatenate([*kept, np.zeros(0, dtype=np.intp)]).astype(np.int64)
        return {
            "crops": crops[:filled],
            "centers_in_image": torch.from_numpy(self._crops.center[instance_index]),
            "extents_in_image": torch.from_numpy(self._crops.extent[instance_index]),
            "instance_index": torch.from_numpy(instance_index),
            "unreadable_images": torch.tensor(unreadable, dtype=torch.int64),
        }


def as_it_is(batch: EvaluationBatch) -> EvaluationBatch:
    """What ``EvaluationImages`` gives a DataLoader is a batch already. A ``collate_fn``."""
    return batch


def _batch_memory(num_crops: int, spec: CropSpec) -> torch.Tensor:
    """(n, height, width, 3) uint8, not filled; in a DataLoader's worker, in memory that the main process sees too."""
    shape = (num_crops, spec.height, spec.width, 3)
    if get_worker_info() is None or num_crops == 0:
        return torch.empty(shape, dtype=torch.uint8)
    # As torch's own collation does it: otherwise each batch would be copied there once more.
    shared = torch.UntypedStorage._new_shared(math.prod(shape))  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)


def use_one_opencv_thread(_worker_id: int) -> None:
    """Keep a DataLoader worker to one thread: the workers are the parallelism. A ``worker_init_fn``.

    What the worker has inherited is also taken out of its garbage collection: a full one, which may come after an hour,
    writes into every inherited object and so copies 40 MB and more that were shared with the main process.
    """
    cv2.setNumThreads(0)
    if get_worker_info() is not None:
        gc.freeze()


def _with_instance(error: InputError, instances: PersonInstances, index: int) -> InputError:
    return InputError(f"{error} ({instances.describe(index)})")


def _check_policy(on_bad_image: str) -> None:
    if on_bad_image not in ("error", "skip"):
        raise InputError(f"on_bad_image {on_bad_image!r}: choose error or skip")
