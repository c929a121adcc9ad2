"""A data set as a data config describes it -> a report of what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pycocotools import mask

from uniformer_pose.data.checking.annotations import check_annotations, without_file
from uniformer_pose.data.checking.images import check_images
from uniformer_pose.data.checking.report import Split
from uniformer_pose.data.coco import AreaSource, ImageOrientation, PersonInstances, existing_folder, read_detections
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton

_COVERING_IOU = 0.5


def check_dataset(
    splits: Sequence[Split],
    skeleton: Skeleton,
    *,
    read_images: bool = True,
    workers: int = 4,
    categories: Sequence[str | int] | None = None,
    max_images: int | None = None,
    image_orientation: ImageOrientation | None = None,
    area: AreaSource = "annotated",
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Fill in what is found in training and validation split, in this order, without stopping at a defect.

    ``read_images`` decodes every image with people or detector boxes, in ``workers`` threads; ``on_progress`` is called
    with images done and images in all. ``categories``, ``max_images``, ``image_orientation`` and ``area``: as in
    ``PersonCrops``. Raises InputError for files that are absent or no JSON of the kind.
    """
    for split in splits:  # all of them before the first is checked: that may take an hour
        existing_folder(split.images)
        for path in filter(None, (split.annotations, split.boxes)):
            if not path.is_file():
                raise InputError(f"{path}: no such file; check data.root and the paths below it")
    lone_sides = skeleton.sides_without_partner()
    if lone_sides is not None:
        splits[0].add("side_without_partner", lone_sides)
    for split in splits:
        check_annotations(split, skeleton, categories=categories, area=area, max_images=max_images)
        if split.people is not None:
            split.people = split.people.with_orientation(image_orientation)
            if split.boxes is not None and not split.number_of("error"):
                _check_detections(split, split.boxes, split.people, skeleton, categories, max_images)
    if read_images:
        check_images(splits, workers, on_progress)


def _check_detections(
    split: Split,
    file: Path,
    people: PersonInstances,
    skeleton: Skeleton,
    categories: Sequence[str | int] | None,
    max_images: int | None,
) -> None:
    """The detector's boxes by the reader; they must be of these images."""
    try:
        boxes = read_detections(file, split.annotations, split.images, skeleton, categories=categories)
    except InputError as error:
        split.add("entry_invalid", f"{file.name}: {without_file(error, file)}")
        return
    boxes = boxes if max_images is None else boxes.first_images(max_images)
    split.detections = boxes.with_orientation(people.image_orientation)
    covered = _covered(people, boxes)
    if covered < len(people) / 2:
        detail = f"{covered} of {len(people)} people have one; is {file.name} of these images?"
        split.add("detections_miss_most_people", detail)


def _covered(people: PersonInstances, detections: PersonInstances) -> int:
    """How many people have a detector's box of IoU 0.5 or more in their image."""
    places = {image_id: place for place, image_id in enumerate(detections.image_ids.tolist())}
    covered = 0
    for index, image_id in enumerate(people.image_ids.tolist()):
        if image_id in places:
            boxes = detections.boxes_xywh[detections.image_of_instance == places[image_id]]
            own = people.boxes_xywh[people.image_of_instance == index]
            covered += int((mask.iou(boxes, own, [False] * len(own)).max(axis=0) >= _COVERING_IOU).sum())
    return covered


def splits_of(data: Mapping[str, Any], names: Sequence[str]) -> list[Split]:
    """Where the splits of a data config lie that are asked for, by the rules of ``PersonCrops``; training first."""
    root = Path(data["root"]).expanduser()
    found: list[Split] = []
    every: tuple[Literal["train", "val"], ...] = ("train", "val")
    for name in (name for name in every if name in names):
        if data[f"{name}_annotations"] is None:
            raise InputError(f"data.{name}_annotations=null: no annotations to check; leave {name} out of splits")
        annotations, images = root / data[f"{name}_annotations"], root / data[f"{name}_images"]
        for path in (annotations, images):
            if not path.exists():
                raise InputError(f"{path} does not exist; {data.get('if_missing') or 'set data.root=<folder>'}")
        boxes = data["val_boxes"] if name == "val" else "gt"
        own = Path(boxes).expanduser()
        found.append(
            Split(name, annotations, images, None if boxes == "gt" else own if own.is_file() else root / boxes)
        )
    if not found:
        raise InputError("splits=[]: name train, val or both: splits=[train,val]")
    return found
