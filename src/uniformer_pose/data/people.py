"""Person instances: all boxes and keypoints of a data set in flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.categories import category_names
from uniformer_pose.data.coco_json import FloatArray, ImageOrientation, IntArray
from uniformer_pose.errors import InputError

PER_IMAGE = ("image_ids", "file_names", "image_heights", "image_widths")
PER_INSTANCE = (
    "image_of_instance",
    "instance_ids",
    "boxes_xywh",
    "box_scores",
    "keypoints_in_image",
    "visibility",
    "keypoint_weights",
)
"""Names of the arrays of images, and of those of instances; the last need not be there."""

_FIRST_IMAGES = 10  # that a file of the same set would not lack all of


@dataclass(frozen=True, eq=False)
class PersonInstances:
    """N person boxes, with their keypoints where annotated, in M images; only images with a box are held.

    Everything is a flat numpy array, so that worker processes share the memory: Python objects would be
    copied page by page as their reference counts change. Instances are sorted by image, within an image in
    the file's order.

    ``image_folder`` is absolute, its links followed. ``image_ids`` (M,), ``file_names`` (M,) relative to the
    folder, ``image_heights`` and ``image_widths`` (M,) in pixels. ``image_of_instance`` (N,) indexes these.
    ``instance_ids`` (N,) are annotation ids, or positions in the detection file from 0. ``boxes_xywh`` (N,
    4): left, top, width, height in image pixels, width and height positive. ``box_scores`` (N,), 1 for
    annotated boxes. ``keypoints_in_image`` (N, K, 2) are (x, y) in image pixels. ``visibility`` (N, K): 0 not
    labelled, 1 labelled but hidden, 2 visible; 0 throughout for detections. ``keypoint_weights`` (N, K) are how much
    each counts in the loss, None where all that are labelled count alike. ``counts``: the entries ``read`` and
    ``kept``, then how many were left out for each reason. ``categories``: ids and names of those that count
    (``counted_categories``). ``record`` and ``source_file`` say where an instance stands, for messages; behind the
    first ``num_annotated``, unless that is None, they are poses of ``poses_file``.
    ``image_orientation``: whether all of this refers to the pictures as they are ``stored`` or as they are
    ``displayed``, turned as their EXIF says; None where nobody said so, which is COCO's ``stored``.
    """

    image_folder: Path
    image_ids: IntArray
    file_names: npt.NDArray[np.str_]
    image_heights: npt.NDArray[np.int32]
    image_widths: npt.NDArray[np.int32]
    image_of_instance: npt.NDArray[np.int32]
    instance_ids: IntArray
    boxes_xywh: FloatArray
    box_scores: npt.NDArray[np.float32]
    keypoints_in_image: npt.NDArray[np.float32]
    visibility: npt.NDArray[np.uint8]
    keypoint_weights: npt.NDArray[np.float32] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    categories: Mapping[int, str] = field(default_factory=dict)
    record: Literal["annotation", "detection", "pose"] = "annotation"
    source_file: Path = Path()
    num_annotated: int | None = None
    poses_file: Path = Path()
    image_orientation: ImageOrientation | None = None

    def __len__(self) -> int:
        return len(self.instance_ids)

    @property
    def num_images(self) -> int:
        """How many images hold at least one instance (M)."""
        return len(self.image_ids)

    @property
    def boxes_per_image(self) -> IntArray:
        """(M,) how many instances each image holds."""
        return np.bincount(self.image_of_instance, minlength=self.num_images).astype(np.int64)

    def first_images(self, num_images: int) -> PersonInstances:
        """The instances of the first ``num_images`` images; the others are counted as left out."""
        if num_images < 1:
            raise InputError(f"the first {num_images} images; use at least 1")
        return self._those(self.image_of_instance < num_images, f"after the first {num_images} images")

    def with_keypoints_at(self, places: Sequence[int | None], num_keypoints: int) -> PersonInstances:
        """The same people in a skeleton of ``num_keypoints``, where ``places`` (``places_in_target``) has theirs.

        A keypoint without a place is dropped; one that nobody labels is at (0, 0), and has visibility and weight 0.
        """
        own = [index for index, place in enumerate(places) if place is not None]
        theirs = [place for place in places if place is not None]
        moved: dict[str, Any] = {}
        for name, array in self.arrays(("keypoints_in_image", "visibility", "keypoint_weights")).items():
            moved[name] = np.zeros((len(self), num_keypoints, *array.shape[2:]), array.dtype)
            moved[name][:, theirs] = array[:, own]
        return replace(self, **moved)

    def with_a_label(self, reason: str) -> PersonInstances:
        """The instances with a labelled keypoint; the others are counted as left out for a reason."""
        return self._those(np.asarray((self.visibility > 0).any(axis=1)), reason)

    def _those(self, kept: npt.NDArray[np.bool_], reason: str) -> PersonInstances:
        """The instances that are ``kept`` (N,), and their images; the others are counted under ``reason``."""
        if kept.all():
            return self
        images, image_of_instance = np.unique(self.image_of_instance[kept], return_inverse=True)
        instances = {name: array[kept] for name, array in self.arrays(PER_INSTANCE).items()}
        instances["image_of_instance"] = image_of_instance.astype(np.int32)
        annotated = None if self.num_annotated is None else int(kept[: self.num_annotated].sum())
        counts = {**self.counts, "kept": int(kept.sum()), reason: int((~kept).sum())}
        of_images = {name: getattr(self, name)[images] for name in PER_IMAGE}
        return replace(self, counts=counts, num_annotated=annotated, **of_images, **instances)

    def arrays(self, names: Sequence[str]) -> dict[str, Any]:
        """Those of the arrays of these names that are there."""
        return {name: array for name in names if (array := getattr(self, name)) is not None}

    def with_orientation(self, orientation: ImageOrientation | None) -> PersonInstances:
        """The same people, with another word on what their coordinates refer to; None changes nothing."""
        return self if orientation is None else replace(self, image_orientation=orientation)

    def image_path(self, image_index: int) -> Path:
        """Where one image lies; InputError if a link leads out of the image folder.

        The check is made here, as an image is opened, because following the links of every image of a large
        set at the start would take minutes on a network file system.
        """
        path = self.image_folder / str(self.file_names[image_index])
        if not path.resolve().is_relative_to(self.image_folder):
            raise InputError(
                f"{path}: links to a file outside the image folder; put a copy of the image into the folder"
            )
        return path

    def require_pictures(self) -> None:
        """InputError where not one of the first images lies in the folder: they are another data set's."""
        first = [self.image_folder / str(name) for name in self.file_names[:_FIRST_IMAGES]]
        if first and not any(path.is_file() for path in first):
            raise InputError(
                f"{first[0]}: no such image file, nor any of the first {len(first)} of {self.source_file}; give the "
                "folder of the images that it annotates"
            )

    def describe(self, instance_index: int) -> str:
        """Words that lead to one instance's entry: ``annotation 12 of train.json``."""
        record, file = self.record, self.source_file
        if self.num_annotated is not None and instance_index >= self.num_annotated:
            record, file = "pose", self.poses_file
        return f"{record} {self.instance_ids[instance_index]} of {file.name}"

    def summary(self) -> str:
        """One line: which categories count, how many entries were kept of how many, and why the others were not."""
        left_out = [f"{n} {reason}" for reason, n in self.counts.items() if n and reason not in ("read", "kept")]
        because = f" (left out: {', '.join(left_out)})" if left_out else ""
        files = self.source_file.name + (f", {category_names(self.categories)}" if self.categories else "")
        records = f"{self.record}s"
        if self.num_annotated is not None:
            files, records = f"{files}, and {self.poses_file.name}", f"{records} and poses"
        return (
            f"{files}: kept {len(self)} of {self.counts.get('read', len(self))} {records} in {self.num_images} images"
            f"{because}"
        )
