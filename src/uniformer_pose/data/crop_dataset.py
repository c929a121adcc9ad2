"""Person instances to crops: one augmented person for training, all boxes of one image for evaluation.

Crops stay uint8 (height, width, 3) RGB up to the device, where they are normalised: a quarter of the memory
traffic of floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.coco_annotations import PersonInstances
from uniformer_pose.data.crop_geometry import CropGeometry, fit_boxes
from uniformer_pose.data.images import read_image
from uniformer_pose.data.photometric import PhotometricAugmentation
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


class EvaluationSample(TypedDict):
    """All boxes of one image (n of them).

    ``crops`` (n, height, width, 3) RGB. ``centers_in_image`` (n, 2) x, y and ``extents_in_image`` (n, 2)
    width, height of the regions that the crops show, in image pixels. ``instance_index`` (n,).
    ``unreadable_images``: index of the image if it could not be read, which leaves n = 0 and its people
    missed, else empty.
    """

    crops: npt.NDArray[np.uint8]
    centers_in_image: npt.NDArray[np.float64]
    extents_in_image: npt.NDArray[np.float64]
    instance_index: npt.NDArray[np.int64]
    unreadable_images: npt.NDArray[np.int64]


class EvaluationBatch(TypedDict):
    """The boxes of several images one after the other; the fields of ``EvaluationSample`` as tensors."""

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
    """

    def __init__(
        self,
        instances: PersonInstances,
        skeleton: Skeleton,
        *,
        height: int,
        width: int,
        padding: float = 1.25,
        unbiased: bool = False,
        seed: int = 0,
        geometric: GeometricAugmentation | None = None,
        photometric: PhotometricAugmentation | None = None,
        on_bad_image: BadImagePolicy = "error",
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
        self.height = height
        self.width = width
        self.padding = padding
        self.unbiased = unbiased
        self.seed = seed
        self.geometric = geometric
        self.photometric = photometric
        self.on_bad_image = on_bad_image
        self._mirror_permutation = skeleton.mirror_permutation

    def __len__(self) -> int:
        return len(self.instances)

    def __getitem__(self, index_and_epoch: tuple[int, int]) -> TrainingSample:
        """The sample of one visit; see ``TrainingSample`` for its fields."""
        requested, epoch = index_and_epoch
        rng = np.random.default_rng([self.seed, epoch, requested])
        index, image = self._read(requested)
        keypoints = self.instances.keypoints_in_image[index]
        visibility = self.instances.visibility[index]
        geometry = self._choose_geometry(rng, index)
        crop = geometry.crop(image)
        if self.photometric is not None:
            crop = self.photometric(crop, rng)
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
            return CropGeometry.from_box(
                box, height=self.height, width=self.width, padding=self.padding, unbiased=self.unbiased
            )
        return self.geometric(
            rng,
            box,
            self.instances.keypoints_in_image[index],
            self.instances.visibility[index],
            self.skeleton,
            height=self.height,
            width=self.width,
            padding=self.padding,
            unbiased=self.unbiased,
        )

    def _read(self, requested: int) -> tuple[int, npt.NDArray[np.uint8]]:
        """The requested instance and its image, or the next instance of another image that can be read."""
        bad_images: dict[int, InputError] = {}
        for step in range(len(self.instances)):
            index = (requested + step) % len(self.instances)
            image_index = int(self.instances.image_of_instance[index])
            if image_index in bad_images:
                continue
            try:
                return index, _read_image(self.instances, image_index, index)
            except InputError as error:
                if self.on_bad_image == "error":
                    raise
                bad_images[image_index] = error
                if len(bad_images) == _MOST_BAD_IMAGES_IN_A_ROW:
                    break
        first = next(iter(bad_images.values()))
        raise InputError(f"{len(bad_images)} images in a row cannot be used, the first: {first}") from first


class EvaluationImages(Dataset[EvaluationSample]):
    """All upright crops of one image, which is decoded once; for an image index as ``pack_images`` gives it.

    ``on_bad_image``: an image that cannot be used is an InputError with its path, or (``skip``) a sample
    without crops that names the image in ``unreadable_images``.
    """

    def __init__(
        self,
        instances: PersonInstances,
        *,
        height: int,
        width: int,
        padding: float = 1.25,
        unbiased: bool = False,
        on_bad_image: BadImagePolicy = "error",
    ) -> None:
        _check_policy(on_bad_image)
        self.instances = instances
        self.height = height
        self.width = width
        self.unbiased = unbiased
        self.on_bad_image = on_bad_image
        self._centers, self._extents = fit_boxes(instances.boxes_xywh, height=height, width=width, padding=padding)
        self._by_image = np.argsort(instances.image_of_instance, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(instances.boxes_per_image)])

    def __len__(self) -> int:
        return self.instances.num_images

    def __getitem__(self, image_index: int) -> EvaluationSample:
        """The sample of one image; see ``EvaluationSample`` for its fields."""
        if not 0 <= image_index < len(self):
            raise IndexError(f"image {image_index} of {len(self)}")
        indices = self._by_image[self._starts[image_index] : self._starts[image_index + 1]]
        unreadable: list[int] = []
        try:
            image = _read_image(self.instances, image_index, int(indices[0]))
        except InputError:
            if self.on_bad_image == "error":
                raise
            image = np.zeros((1, 1, 3), dtype=np.uint8)
            indices, unreadable = indices[:0], [image_index]
        crops = np.empty((len(indices), self.height, self.width, 3), dtype=np.uint8)
        for crop, center, extent in zip(crops, self._centers[indices], self._extents[indices], strict=True):
            geometry = CropGeometry(
                center_x=float(center[0]),
                center_y=float(center[1]),
                extent_width=float(extent[0]),
                extent_height=float(extent[1]),
                height=self.height,
                width=self.width,
                unbiased=self.unbiased,
            )
            crop[:] = geometry.crop(image)
        return {
            "crops": crops,
            "centers_in_image": self._centers[indices],
            "extents_in_image": self._extents[indices],
            "instance_index": indices.astype(np.int64),
            "unreadable_images": np.array(unreadable, dtype=np.int64),
        }


def collate_images(samples: Sequence[EvaluationSample]) -> EvaluationBatch:
    """One batch from the samples of several images: their boxes one after the other. No samples give an empty batch."""
    if not samples:
        nowhere, nobody = torch.zeros((0, 2), dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
        return {
            "crops": torch.zeros((0, 0, 0, 3), dtype=torch.uint8),
            "centers_in_image": nowhere,
            "extents_in_image": nowhere,
            "instance_index": nobody,
            "unreadable_images": nobody,
        }
    return {
        "crops": torch.from_numpy(np.concatenate([sample["crops"] for sample in samples])),
        "centers_in_image": torch.from_numpy(np.concatenate([s["centers_in_image"] for s in samples])),
        "extents_in_image": torch.from_numpy(np.concatenate([s["extents_in_image"] for s in samples])),
        "instance_index": torch.from_numpy(np.concatenate([s["instance_index"] for s in samples])),
        "unreadable_images": torch.from_numpy(np.concatenate([s["unreadable_images"] for s in samples])),
    }


def use_one_opencv_thread(_worker_id: int) -> None:
    """Keep a DataLoader worker to one thread: the workers are the parallelism. A ``worker_init_fn``."""
    cv2.setNumThreads(0)


def _read_image(instances: PersonInstances, image_index: int, instance_index: int) -> npt.NDArray[np.uint8]:
    try:
        return read_image(
            instances.image_path(image_index),
            height=int(instances.image_heights[image_index]),
            width=int(instances.image_widths[image_index]),
        )
    except InputError as error:
        raise InputError(f"{error} ({instances.describe(instance_index)})") from error


def _check_policy(on_bad_image: str) -> None:
    if on_bad_image not in ("error", "skip"):
        raise InputError(f"on_bad_image {on_bad_image!r}: choose error or skip")
