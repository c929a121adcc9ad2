"""Detector boxes -> every defect in them, and whether they belong to these images at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.checking.annotation_check import CheckedPeople
from uniformer_pose.data.checking.defects import Example, Findings
from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.coco_json import DetectionRecord, boxes_of, each_record, scores_of

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_COVERING_IOU = 0.5


def check_detections(records: Sequence[Any], ground_truth: CheckedPeople, findings: Findings) -> dict[str, int]:
    """Check the entries of a detection file against the images of its annotation file; counts by name.

    ``detections``, those that are ``boxes of people`` and can be used, ``images without a box``, and, where people are
    annotated, ``people with a box``: of IoU 0.5 or more.
    """

    typed, problems = each_record(records, DetectionRecord)
    for index, problem in problems.items():
        kind = "detection_box_malformed" if "in 'bbox'" in problem else "detection_entry_invalid"
        findings.add(kind, f"detection number {index} {problem}")
    read = {index: record for index, record in enumerate(typed) if record is not None}
    places, entries = list(read), list(read.values())
    scores, odd_scores = scores_of(entries)
    boxes, odd_boxes = boxes_of(entries)
    for index, problem in odd_scores.items():
        findings.add("detection_entry_invalid", f"detection number {places[index]} {problem}")
    for index in odd_boxes.keys() - odd_scores.keys():
        findings.add("detection_box_malformed", f"detection number {places[index]} {odd_boxes[index]}")
    usable = [index for index in range(len(entries)) if index not in odd_scores and index not in odd_boxes]
    sound = [entries[index] for index in usable]
    places, scores, boxes = [places[index] for index in usable], scores[usable], boxes[usable]
    counts = {"detections": len(records)}
    if ground_truth.images is None or not sound:
        return {**counts, "boxes of people": 0}

    image_ids = np.array([record.image_id for record in sound], dtype=np.int64)
    category_ids = np.array([record.category_id for record in sound], dtype=np.int64)
    by_id = np.argsort(ground_truth.images.ids)
    sorted_ids = ground_truth.images.ids[by_id]
    position = np.minimum(np.searchsorted(sorted_ids, image_ids), len(sorted_ids) - 1)
    known = sorted_ids[position] == image_ids
    image = by_id[position]
    size = np.stack([ground_truth.images.widths, ground_truth.images.heights], axis=1)[image].astype(np.float64)

    def example(detail: str) -> Any:
        def of(index: int) -> Example:
            name = str(ground_truth.images.file_names[image[index]]) if known[index] and ground_truth.images else None
            values = {"image": image_ids[index], "category": category_ids[index], "score": scores[index]}
            values["box"] = ", ".join(f"{side:g}" for side in boxes[index])
            return Example(f"detection number {places[index]} has {detail} {values[detail]}", name)

        return of

    findings.add_where("detection_of_unknown_image", ~known, example("image"))
    person = np.isin(category_ids, list(ground_truth.categories))
    findings.add_where("detection_of_other_category", known & ~person, example("category"))
    findings.add_where("detection_score_out_of_range", known & ((scores < 0) | (scores > 1)), example("score"))
    flat = (boxes[:, 2:] <= 0).any(axis=1)
    findings.add_where("detection_box_without_area", known & flat, example("box"))
    outside = ((boxes[:, :2] >= size) | (boxes[:, :2] + boxes[:, 2:] <= 0)).any(axis=1)
    findings.add_where("detection_box_outside_image", known & ~flat & outside, example("box"))
    used = known & person & ~flat & ~outside
    _first, place = np.unique(np.column_stack([image_ids, category_ids, boxes]), axis=0, return_index=True)
    again = np.ones(len(sound), dtype=np.bool_)
    again[place] = False
    findings.add_where("detection_repeated", used & again, example("box"))

    counts["boxes of people"] = int(used.sum())
    counts["images without a box"] = len(sorted_ids) - len(np.unique(image[used]))
    people = ground_truth.people
    if people is not None and len(people):
        covered = _covered(people, image_ids[used], boxes[used])
        counts["people with a box"] = covered
        if covered < len(people) / 2:
            findings.add(
                "detections_miss_most_people",
                f"{covered} of {len(people)} people have one; is the file of these images?",
            )
    return counts


def _covered(people: PersonInstances, image_ids: IntArray, boxes: FloatArray) -> int:
    """How many people have a box of IoU 0.5 or more in their image; image_ids (D,), boxes (D, 4)."""
    order = np.argsort(image_ids, kind="stable")
    image_ids, boxes = image_ids[order], boxes[order]
    own = people.image_ids[people.image_of_instance]
    first, last = np.searchsorted(image_ids, own), np.searchsorted(image_ids, own, side="right")
    number = last - first
    person = np.repeat(np.arange(len(people)), number)
    # Of every person the detections first, first + 1, ... last - 1.
    detection = np.arange(len(person)) - np.repeat(np.cumsum(number) - number, number) + np.repeat(first, number)
    ours, theirs = people.boxes_xywh[person], boxes[detection]
    low = np.maximum(ours[:, :2], theirs[:, :2])
    high = np.minimum(ours[:, :2] + ours[:, 2:], theirs[:, :2] + theirs[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    together = np.prod(ours[:, 2:], axis=1) + np.prod(theirs[:, 2:], axis=1) - shared
    return len(np.unique(person[shared >= _COVERING_IOU * together]))
