"""Annotated people to score against: the annotations that count (``data.coco``), with the areas that OKS needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco import (
    AREA_IS_BOX,
    AreaSource,
    annotations_of,
    areas_of,
    areas_that_are_boxes,
    categories_of,
    implausible_areas,
)
from uniformer_pose.data.coco_json import AnnotationFile, read_annotation_file
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton

_PER_PERSON = (
    "ids",
    "image_ids",
    "boxes_xywh",
    "areas",
    "keypoints_in_image",
    "visibility",
    "labelled_counts",
    "is_crowd",
    "category_ids",
    "head_sizes",
)


@dataclass(frozen=True, eq=False)
class CocoGroundTruth:
    """The people of a COCO keypoint file, read and checked once; evaluate against it as often as you like.

    Row g of the arrays is one annotation of the evaluated categories, crowds and people without labelled
    keypoints included: COCO ignores what matches those instead of counting it as wrong.
    """

    file: Path
    skeleton: Skeleton
    category_id: int
    """The id that results have: that of the one category that counts, or the first of several."""
    listed_image_ids: npt.NDArray[np.int64]
    """All images of the file; a prediction on one without people is a false positive."""
    ids: npt.NDArray[np.int64]
    image_ids: npt.NDArray[np.int64]
    boxes_xywh: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]
    """(G,) area of the person's segment in square pixels (smaller than the box)."""
    keypoints_in_image: npt.NDArray[np.float64]
    """(G, K, 2)"""
    visibility: npt.NDArray[np.float64]
    """(G, K) COCO's v; above 0 is labelled."""
    labelled_counts: npt.NDArray[np.int64]
    """(G,) the file's num_keypoints, or the count of labelled keypoints where the file leaves it out."""
    is_crowd: npt.NDArray[np.bool_]
    category_ids: npt.NDArray[np.int64]
    """(G,) as in the file."""
    crowd_indices: npt.NDArray[np.float64]
    """CrowdPose's crowdIndex of each of the ``listed_image_ids``, 0 to 1; NaN where the file has none."""
    categories: Mapping[int, str] = field(default_factory=dict)
    """Ids and names of those whose annotations are scored, as one class."""
    area: AreaSource = "annotated"
    """Where ``areas`` are from."""
    images_in_file: int = 0
    """How many images the whole file lists, also where this is the ground truth of some of them."""
    head_sizes: npt.NDArray[np.float64] | None = None
    """(G,) pixels, of MPII's people; None where nobody has told them."""

    @property
    def is_scored(self) -> npt.NDArray[np.bool_]:
        """(G,) whether missing this person costs recall."""
        return np.asarray((self.labelled_counts > 0) & ~self.is_crowd)

    @classmethod
    def load(
        cls,
        annotation_file: str | Path,
        skeleton: Skeleton | None = None,
        *,
        categories: Sequence[str | int] | None = None,
        area: AreaSource = "annotated",
        content: AnnotationFile[Any] | None = None,
    ) -> CocoGroundTruth:
        """Ground truth from a COCO keypoint JSON; ``content`` is what the file holds, where it has been read.

        ``skeleton`` (``coco_17`` by default) says how many keypoints a person has and their OKS sigmas; ``categories``
        which annotations are scored, all of them as one class (``counted_categories``); what COCO and AP-10K state for
        several is the mean over them, each scored alone. ``area`` ``"box"`` takes 0.53 of the box for everybody's area.

        ``InputError`` names file and annotation for what the loader refuses, and for a missing area. A missing
        ``num_keypoints`` is counted from the keypoints, a missing ``iscrowd`` is 0. What is odd and no error is said by
        ``doubts``.
        """
        file = Path(annotation_file)
        content = content or read_annotation_file(file)
        skeleton = skeleton or load_skeleton("coco_17")
        counted = categories_of(content, file, skeleton, categories)
        found = annotations_of(content, file, skeleton, counted)
        image_ids = np.array([image.id for image in content.images], dtype=np.int64)
        crowd_indices = np.array([image.crowd_index for image in content.images], dtype=np.float64)
        labelled = (found.keypoints[..., 2] > 0).sum(axis=1)
        return cls(
            file=file,
            skeleton=skeleton,
            category_id=next(iter(counted)),
            listed_image_ids=np.sort(image_ids),
            ids=found.ids,
            image_ids=image_ids[found.image_of_record],
            boxes_xywh=found.boxes_xywh,
            areas=areas_of(found, area, file),
            keypoints_in_image=found.keypoints[..., :2],
            visibility=found.keypoints[..., 2],
            labelled_counts=np.where(found.num_keypoints < 0, labelled, found.num_keypoints),
            is_crowd=found.is_crowd,
            category_ids=found.category_ids,
            crowd_indices=crowd_indices[np.argsort(image_ids)],
            categories=counted,
            area=area,
            images_in_file=len(image_ids),
        )

    def doubts(self) -> list[str]:
        """A line each on counts that contradict the keypoints, and areas that do not fit their boxes or are these."""
        doubtful = self.ids[(self.labelled_counts > 0) != (self.visibility > 0).any(axis=1)]
        found = []
        if len(doubtful):
            found.append(
                f"{self.file}: num_keypoints contradicts the keypoints' v in {len(doubtful)} annotations, first "
                f"{doubtful[0]}; who has 0 is not scored, which CrowdPose (all hidden) and Halpe (no body) mean so; "
                "else leave it out or correct it"
            )
        if self.area == "box":
            return found
        scored = np.flatnonzero(self.is_scored)
        defined = int(areas_that_are_boxes(self.areas[scored], self.boxes_xywh[scored]).sum())
        if defined:
            found.append(f"{self.file}: the area of {defined} of {len(scored)} people is {AREA_IS_BOX}")
        for who, effect in implausible_areas(self.areas[scored], self.boxes_xywh[scored]):
            first = scored[who][0]
            width, height = self.boxes_xywh[first, 2:]
            found.append(
                f"{self.file}: {int(who.sum())} of {len(scored)} people have an implausible area, first "
                f"annotation {self.ids[first]} with {self.areas[first]:g} in a box of {width:g} x {height:g}: "
                f"{effect}; correct area, or set data.area=box"
            )
        return found

    def require_images(self, image_ids: npt.NDArray[np.int64]) -> None:
        """InputError naming those of the ids that are none of this file's images."""
        unknown = np.setdiff1d(image_ids, self.listed_image_ids)
        if len(unknown):
            shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
            raise InputError(
                f"{self.file} does not list {len(unknown)} of the images (ids {shown}); evaluate against the file that "
                "the boxes were made for"
            )

    def restricted_to(self, image_ids: Iterable[int]) -> CocoGroundTruth:
        """The ground truth of some of the file's images alone; ``InputError`` for images that the file lacks."""
        chosen = np.unique(np.asarray(list(image_ids), dtype=np.int64))
        self.require_images(chosen)
        people = self.people_at(np.isin(self.image_ids, chosen))
        crowd_indices = self.crowd_indices[np.isin(self.listed_image_ids, chosen)]
        return replace(people, listed_image_ids=chosen, crowd_indices=crowd_indices)

    def people_at(self, indices: npt.NDArray[Any]) -> CocoGroundTruth:
        """All the images with some of the people, by position or a boolean mask."""
        known = {name: getattr(self, name) for name in _PER_PERSON}
        return replace(self, **{name: values[indices] for name, values in known.items() if values is not None})

    def of_keypoints(self, chosen: slice | Sequence[int]) -> CocoGroundTruth:
        """As if people had these keypoints only: whoever has none of them labelled is not scored."""
        visibility = self.visibility[:, chosen]
        return replace(
            self,
            keypoints_in_image=self.keypoints_in_image[:, chosen],
            visibility=visibility,
            labelled_counts=(visibility > 0).sum(axis=1),
        )
