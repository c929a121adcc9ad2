"""A dataset as a data config describes it -> a report of what is wrong with it and what it is like."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from uniformer_pose.data.checking.annotation_check import CheckedPeople, check_annotations, without_file
from uniformer_pose.data.checking.defects import Findings
from uniformer_pose.data.checking.detection_check import check_detections
from uniformer_pose.data.checking.image_check import ExaminedImage, examine_images
from uniformer_pose.data.coco import (
    AreaSource,
    ImageOrientation,
    PersonInstances,
    existing_folder,
    ground_truth_of,
    read_detections,
    read_ground_truth,
)
from uniformer_pose.data.coco_json import read_annotation_file, read_json
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.skeleton import Skeleton

SplitName = Literal["train", "val"]
Progress = Callable[[int, int], None]

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_SMALL, _MEDIUM = 32**2, 96**2  # square pixels: COCO's bounds of small, medium and large people


@dataclass(frozen=True)
class SplitFiles:
    """Where one split lies; ``boxes`` None: annotated boxes are evaluated."""

    name: SplitName
    annotations: Path
    images: Path
    boxes: Path | None = None


@dataclass(eq=False)
class SplitReport:
    """One split: its defects, its numbers, and the people that can be drawn.

    ``max_images``: only so many images were checked; None: all.
    """

    files: SplitFiles
    findings: Findings
    counts: dict[str, int] = field(default_factory=dict)
    detection_counts: dict[str, int] = field(default_factory=dict)
    distributions: dict[str, Any] = field(default_factory=dict)
    people: PersonInstances | None = None
    suspects: dict[int, str] = field(default_factory=dict)
    bad_images: set[str] = field(default_factory=set)
    max_images: int | None = None


@dataclass(eq=False)
class DatasetReport:
    """The splits that were checked; ``images_read`` False: no picture was opened."""

    skeleton: Skeleton
    splits: list[SplitReport]
    images_read: bool

    @property
    def num_errors(self) -> int:
        """Errors in all splits together."""
        return sum(split.findings.num_errors for split in self.splits)

    @property
    def num_remarks(self) -> int:
        """Remarks on all splits together."""
        return sum(split.findings.num_remarks for split in self.splits)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, strings and numbers."""
        return {
            "errors": self.num_errors,
            "remarks": self.num_remarks,
            "skeleton": self.skeleton.name,
            "images_read": self.images_read,
            "splits": {
                split.files.name: {
                    "annotations": str(split.files.annotations),
                    "images": str(split.files.images),
                    "boxes": None if split.files.boxes is None else str(split.files.boxes),
                    "max_images": split.max_images,
                    "counts": split.counts,
                    "detection_counts": split.detection_counts,
                    "defects": [found.to_dict() for found in split.findings.found],
                    "distributions": split.distributions,
                }
                for split in self.splits
            },
        }


def check_dataset(
    splits: Sequence[SplitFiles],
    skeleton: Skeleton,
    *,
    batch_size: int = 1,
    read_images: bool = True,
    workers: int = 4,
    max_examples: int = 10,
    categories: Sequence[str | int] | None = None,
    max_images: int | None = None,
    image_orientation: ImageOrientation | None = None,
    area: AreaSource = "annotated",
    on_progress: Progress | None = None,
) -> DatasetReport:
    """Check training and validation split, in this order, without stopping at a defect.

    ``read_images`` decodes every image with people or detector boxes, in ``workers`` threads; ``on_progress`` is called
    with images done and images in all. ``batch_size``: the people that training needs at least. ``categories``
    and ``area``: as in ``PersonCrops``. ``max_images``: only what training or evaluation would use with that limit.
    ``image_orientation``: what coordinates refer to, None for what the files say. Raises
    InputError for files that are absent or no JSON of the kind: nothing can be said about those.
    """
    for files in splits:  # all of them before the first is checked: that may take an hour
        existing_folder(files.images)
        for path in filter(None, (files.annotations, files.boxes)):
            if not path.is_file():
                raise InputError(f"{path}: no such file; check data.root and the paths below it")
    reports: list[SplitReport] = []
    images_to_read: list[_ImagesInUse] = []
    for files in splits:
        report, in_use = _check_files(
            files,
            skeleton,
            batch_size=batch_size,
            max_examples=max_examples,
            categories=categories,
            max_images=max_images,
            area=area,
        )
        lone_sides = skeleton.sides_without_partner()
        if lone_sides is not None and not reports:  # once, not for each split
            report.findings.add("side_without_partner", lone_sides)
        report.people = report.people and report.people.with_orientation(image_orientation)
        reports.append(report)
        images_to_read.append(in_use)
    if read_images:
        total, done = sum(len(in_use.names) for in_use in images_to_read), 0

        def one_more() -> None:
            nonlocal done
            done += 1
            if on_progress is not None:
                on_progress(done, total)

        in_training: dict[bytes, str] = {}
        for report, in_use in zip(reports, images_to_read, strict=True):
            folder = existing_folder(report.files.images)
            examined = examine_images(
                folder,
                in_use.names,
                in_use.heights,
                in_use.widths,
                workers=workers,
                on_image=one_more,
                orientation=None if report.people is None else report.people.image_orientation,
            )
            digests = _record_images(report, in_use.names, examined, in_training)
            if report.files.name == "train":
                in_training = digests
    return DatasetReport(skeleton, reports, read_images)


@dataclass(frozen=True)
class _ImagesInUse:
    names: list[str]
    heights: list[int]
    widths: list[int]  # of the three lists, one element an image


def _check_files(
    files: SplitFiles,
    skeleton: Skeleton,
    *,
    batch_size: int,
    max_examples: int,
    categories: Sequence[str | int] | None,
    max_images: int | None,
    area: AreaSource,
) -> tuple[SplitReport, _ImagesInUse]:
    """Everything that the JSON files of a split say; and the images that training or evaluation will open."""
    report = SplitReport(files, Findings(max_examples))
    scored = files.name == "val"
    content = read_json(files.annotations)
    if not isinstance(content, dict):
        raise InputError(f"{files.annotations}: an annotation file is an object with images, not {content!r:.40}")
    records = None if files.boxes is None else read_json(files.boxes)
    if records is not None and not isinstance(records, list):
        raise InputError(f"{files.boxes}: a detection file is a list of boxes, not {records!r:.20}")
    if records == []:
        raise InputError(f"{files.boxes}: holds no detections; give a file with at least one box")
    image_ids = None if max_images is None else _first_images(max_images, files, skeleton, categories)
    if image_ids is not None:
        report.max_images = max_images
        content["images"] = [entry for entry in content["images"] if entry["id"] in image_ids]
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in image_ids]
        records = None if records is None else [record for record in records if record["image_id"] in image_ids]
    checked = check_annotations(
        content,
        files.annotations,
        files.images,
        skeleton,
        report.findings,
        scored=scored,
        categories=categories,
        area=area,
    )
    report.counts, report.people, report.suspects = checked.counts, checked.people, checked.suspects
    people = checked.people
    if people is not None and len(people):
        report.distributions = distributions(people, skeleton)
        if files.name == "train" and len(people) < batch_size:
            report.findings.add("fewer_people_than_a_batch", f"{len(people)} people, batches of {batch_size}")
    if not report.findings.num_errors:
        _ask_the_readers(files, skeleton, report.findings, scored=scored, categories=categories, area=area)
    del content
    in_use: set[int] = set() if people is None else set(people.image_ids.tolist())
    if files.boxes is not None and records is not None:
        report.detection_counts = check_detections(records, checked, report.findings)
        named = (record.get("image_id") for record in records if isinstance(record, dict))
        in_use |= {image_id for image_id in named if type(image_id) is int}
    return report, _images_in_use(checked, in_use)


def _first_images(
    num_images: int,
    files: SplitFiles,
    skeleton: Skeleton,
    categories: Sequence[str | int] | None,
) -> set[int] | None:
    """The images that training or evaluation would use with ``max_images``; None where it would stop at the files."""
    try:
        if files.boxes is None:
            people = read_ground_truth(files.annotations, files.images, skeleton, categories=categories)
        else:
            people = read_detections(files.boxes, files.annotations, files.images, skeleton, categories=categories)
    except InputError:
        return None  # the check is about to find the reason
    return set(people.first_images(num_images).image_ids.tolist())


def _ask_the_readers(
    files: SplitFiles,
    skeleton: Skeleton,
    findings: Findings,
    *,
    scored: bool,
    categories: Sequence[str | int] | None,
    area: AreaSource,
) -> None:
    """No error must be overlooked for which training or evaluation would stop, so they have the last word."""
    try:
        content = read_annotation_file(files.annotations)
        ground_truth_of(content, files.annotations, files.images, skeleton, categories=categories)
        if scored:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say is counted already
                CocoGroundTruth.of(content, files.annotations, skeleton, categories=categories, area=area)
    except InputError as error:
        findings.add("refused_by_the_reader", without_file(error, files.annotations))


def _images_in_use(checked: CheckedPeople, image_ids: set[int]) -> _ImagesInUse:
    """Each file once, even if two entries name it."""
    if checked.images is None:
        return _ImagesInUse([], [], [])
    images = checked.images
    chosen: dict[str, tuple[int, int]] = {}
    for image_id, name, height, width in zip(
        images.ids.tolist(), images.file_names.tolist(), images.heights.tolist(), images.widths.tolist(), strict=True
    ):
        if image_id in image_ids:
            chosen.setdefault(name, (height, width))
    heights, widths = [height for height, _ in chosen.values()], [width for _, width in chosen.values()]
    return _ImagesInUse(list(chosen), heights, widths)


def _record_images(
    report: SplitReport, names: Sequence[str], examined: Sequence[ExaminedImage], in_training: dict[bytes, str]
) -> dict[bytes, str]:
    """Count the defects of a split's images; returns the first name of every digest."""
    first_names: dict[bytes, str] = {}
    for name, image in zip(names, examined, strict=True):
        if image.kind is not None:
            report.findings.add(image.kind, image.detail, file_name=name)
            report.bad_images.add(name)
        if image.digest is None:
            continue
        for kind, detail in image.remarks:
            report.findings.add(kind, detail, file_name=name)
        first = first_names.setdefault(image.digest, name)
        if first != name:
            report.findings.add("image_content_repeated", f"shows what {first} shows", file_name=name)
        elif image.digest in in_training:
            detail = f"shows what {in_training[image.digest]} of the training split shows"
            report.findings.add("image_also_in_training", detail, file_name=name)
    report.counts["images read"] = len(examined)
    return first_names


def distributions(people: PersonInstances, skeleton: Skeleton) -> dict[str, Any]:
    """What the people are like, as plain numbers: how many an image, which keypoints they show, how large they are."""
    per_image = np.bincount(people.boxes_per_image)
    box_areas = np.prod(people.boxes_xywh[:, 2:], axis=1)
    sizes = {
        "small (below 32x32 pixels)": int((box_areas < _SMALL).sum()),
        "medium (to 96x96)": int(((box_areas >= _SMALL) & (box_areas < _MEDIUM)).sum()),
        "large": int((box_areas >= _MEDIUM).sum()),
    }
    low = people.boxes_xywh[:, None, :2]
    high = low + people.boxes_xywh[:, None, 2:]
    points, labelled = people.keypoints_in_image, people.visibility > 0
    outside_box = ((points < low - 1) | (points > high + 1)).any(axis=2) & labelled
    return {
        "people per image": {str(n): int(images) for n, images in enumerate(per_image) if images},
        "labelled keypoints per person": _quantiles(labelled.sum(axis=1)),
        "visibility by keypoint": {
            name: {
                "not labelled": int((column == 0).sum()),
                "hidden": int((column == 1).sum()),
                "visible": int((column == 2).sum()),
            }
            for name, column in zip(skeleton.keypoint_names, people.visibility.T, strict=True)
        },
        "box height": _quantiles(people.boxes_xywh[:, 3]),
        "box width": _quantiles(people.boxes_xywh[:, 2]),
        "box area": sizes,
        "labelled keypoints": int(labelled.sum()),
        "labelled keypoints outside their box": int(outside_box.sum()),
        "image height": _quantiles(people.image_heights),
        "image width": _quantiles(people.image_widths),
    }


def _quantiles(values: Any) -> dict[str, float]:
    found = np.quantile(np.asarray(values, dtype=np.float64), _QUANTILES)
    return {f"{100 * q:g} %": round(float(value), 2) for q, value in zip(_QUANTILES, found, strict=True)}
