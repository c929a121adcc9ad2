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
    batch_size: int = 1,
    read_images: bool = True,
    workers: int = 4,
    categories: Sequence[str | int] | None = None,
    max_images: int | None = None,
    image_orientation: ImageOrientation | None = None,
    area: AreaSource = "annotated",
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Fill in what is found in training and validation split, in this order, without stopping at a defect.

    ``read_images`` decodes every image with people or detector boxes, in ``workers`` threads; ``on_progress`` is called
    with images done and images in all. ``batch_size``: the people that training needs at least. ``categories``,
    ``max_images``, ``image_orientation`` and ``area``: as in ``PersonCrops``. Raises InputError for files that are
    absent or no JSON of the kind: nothing can be said about those.
    """
    for split in splits:  # all of them before the first is checked: that may take an hour
        existing_folder(split.images)
        for path in filter(None, (split.annotations, split.boxes)):
            if not path.is_file():
                raise InputError(f"{path}: no such file; check data.root and the paths below it")
    lone_sides = skeleton.sides_without_partner()
    if lone_sides is not None:
        splits[0].findings.add("side_without_partner", lone_sides)
    for split in splits:
        people = check_annotations(split, skeleton, categories=categories, area=area, max_images=max_images)
        split.people = people and people.with_orientation(image_orientation)
        if people is not None and split.name == "train" and len(people) < batch_size:
            split.findings.add("fewer_people_than_a_batch", f"{len(people)} people, batches of {batch_size}")
        if split.boxes is not None and people is not None and not split.findings.number_of("error"):
            boxes = _check_detections(split, split.boxes, people, skeleton, categories, max_images)
            split.detections = boxes and boxes.with_orientation(image_orientation)
    if read_images:
        check_images(splits, workers, on_progress or (lambda *_: None))


def _check_detections(
    split: Split,
    file: Path,
    people: PersonInstances,
    skeleton: Skeleton,
    categories: Sequence[str | int] | None,
    max_images: int | None,
) -> PersonInstances | None:
    """The detector's boxes by the reader; they must be of these images."""
    try:
        detections = read_detections(file, split.annotations, split.images, skeleton, categories=categories)
    except InputError as error:
        split.findings.add("entry_invalid", f"{file.name}: {without_file(error, file)}")
        return None
    detections = detections if max_images is None else detections.first_images(max_images)
    covered = _covered(people, detections)
    if covered < len(people) / 2:
        detail = f"{covered} of {len(people)} people have one; is {file.name} of these images?"
        split.findings.add("detections_miss_most_people", detail)
    return detections


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
