"""The kinds of defect a dataset can have, and what was found of each: how often, and the first examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError

Severity = Literal["error", "remark"]


@dataclass(frozen=True)
class DefectKind:
    """``error``: training or evaluation stops at it, loses people to it, or learns and measures something wrong."""

    severity: Severity
    meaning: str


def _error(meaning: str) -> DefectKind:
    return DefectKind("error", meaning)


def _remark(meaning: str) -> DefectKind:
    return DefectKind("remark", meaning)


DEFECT_KINDS: dict[str, DefectKind] = {
    # image files
    "image_missing": _error("no file of this name in the image folder"),
    "image_empty": _error("the image file has zero bytes"),
    "image_cut_off": _error("the image file ends before its pixels do, or is damaged"),
    "image_is_a_web_page": _error("a web page or XML under the name of an image"),
    "image_not_decodable": _error("not an image, or of a kind that OpenCV does not read"),
    "image_unreadable": _error("the file cannot be opened"),
    "image_outside_folder": _error("a link that leads out of the image folder"),
    "image_size_differs": _error("the file's height and width are not those of the annotation file"),
    "image_size_of_turned_picture": _error(
        "EXIF turns the picture by a quarter, and the annotation file has the size of the other frame; set "
        "data.image_orientation=displayed, or =stored"
    ),
    "image_with_exif_rotation": _remark(
        "EXIF turns or mirrors the picture, which is read as stored, since the annotation file does not say "
        "info.image_orientation; if its coordinates refer to pictures as displayed, set "
        "data.image_orientation=displayed, else =stored"
    ),
    "image_of_few_bits": _remark("the picture uses a part of its bits, such as 12 of 16; those that it uses are read"),
    "image_content_repeated": _remark("the same pixels as an earlier image of this split"),
    "image_also_in_training": _error("the same pixels as an image of the training split: scores on it prove nothing"),
    # image entries
    "image_entry_invalid": _error("an entry of 'images' without a usable id, file_name, height or width"),
    "file_name_leaves_folder": _error("a file_name that is absolute or climbs out of the image folder"),
    "image_id_repeated": _error("an image id that an earlier image has too"),
    "file_name_repeated": _remark("a file_name that an earlier image entry has too: its people are in two images"),
    # categories
    "category_keypoints_differ": _error("the category's keypoints are not the skeleton's; nobody was checked further"),
    "several_categories": _remark("more than one category counts: they are trained on and scored as one class"),
    "annotation_of_unknown_category": _error("a category_id that 'categories' does not list: the person is left out"),
    "annotation_of_other_category": _remark("of a category that does not count: left out"),
    # annotations
    "annotation_entry_invalid": _error("an entry of 'annotations' without a usable id, image_id or category_id"),
    "annotation_id_not_positive": _error("an annotation id below 1, which COCO's evaluation takes for no annotation"),
    "annotation_id_repeated": _error("an annotation id that an earlier annotation has too"),
    "annotation_of_unknown_image": _error("an image_id that 'images' does not list"),
    "annotation_repeated": _remark("the same box and keypoints in the same image as an earlier annotation"),
    "box_missing": _error("a person without a box"),
    "box_malformed": _error("a box that is not four numbers"),
    "box_not_finite": _error("a box with NaN, infinity or something that is no number"),
    "box_without_area": _error("a box of zero or negative width or height: its labelled person is left out"),
    "box_outside_image": _error("a box that does not meet its image: its labelled person is left out"),
    "box_partly_outside": _remark("a box more than a pixel over the image's edge; it is clipped"),
    "keypoints_missing": _error("a person without a list of keypoints"),
    "keypoints_of_wrong_number": _error("not three numbers for each keypoint of the skeleton"),
    "keypoints_not_finite": _error("a keypoint with NaN, infinity or something that is no number"),
    "visibility_invalid": _error("a visibility other than 0 (not labelled), 1 (hidden) and 2 (visible)"),
    "unlabelled_with_coordinates": _remark("keypoints of visibility 0 that have coordinates; they are not trained on"),
    "keypoint_outside_image": _error("labelled keypoints outside the image"),
    "keypoint_outside_box": _remark("labelled keypoints outside their box by more than a fifth of its larger side"),
    "num_keypoints_wrong": _remark("num_keypoints is not how many keypoints are labelled"),
    "area_missing": _error("no usable area, which evaluation on this file needs; data.area=box takes one from the box"),
    "area_zero": _error("area 0: evaluation can only count the person as missed"),
    "area_implausible": _remark(
        "an area that no segment in this box has (below a twentieth of it, or all of it): AP depends on it; "
        "data.area=box takes 0.53 x width x height instead"
    ),
    # left and right: skeleton.py says which names have a side, left_right.py defines the suspicions
    "side_without_partner": _remark(
        "names with a side but no mirror partner: mirrored crops teach them the wrong side"
    ),
    "left_right_swapped_in_face": _remark(
        "suspicion: nose and both eyes are visible, but the left eye stands where the right one belongs"
    ),
    "left_right_swapped_in_person": _remark(
        "suspicion: a left-right pair points against the person's other pairs, which it rarely does in this data set"
    ),
    "left_right_swapped_throughout": _remark(
        "suspicion: a left-right pair points against the other pairs in most people: its names may be exchanged"
    ),
    # whole files
    "no_people": _error("nobody to train on or to evaluate"),
    "fewer_people_than_a_batch": _error("the people do not fill one training batch; lower data.batch_size"),
    "keypoint_never_labelled": _remark("a keypoint that no person of this split has labelled"),
    "refused_by_the_reader": _error("what training or evaluation itself says when it reads this file"),
    # detector boxes
    "detection_entry_invalid": _error("a detection without a usable image_id, category_id or score"),
    "detection_of_unknown_image": _error("a detection in an image that the annotation file does not list"),
    "detection_box_malformed": _error("a detection whose box is not four finite numbers"),
    "detection_box_without_area": _remark("a detection of zero or negative width or height: left out"),
    "detection_box_outside_image": _remark("a detection that does not meet its image: left out"),
    "detection_score_out_of_range": _remark("a score that is not from 0 to 1"),
    "detection_of_other_category": _remark("a detection of a category that does not count: left out"),
    "detection_repeated": _remark("the same box in the same image as an earlier detection"),
    "detections_miss_most_people": _error(
        "fewer than half of the annotated people have a detector box of IoU 0.5 or more"
    ),
}


@dataclass(frozen=True)
class Example:
    """Where a defect stands: an image's file name, an annotation id or position, as far as known, and in words."""

    detail: str
    file_name: str | None = None
    annotation_id: int | None = None


@dataclass
class Found:
    """One kind of defect in one split."""

    kind: str
    severity: Severity
    count: int
    examples: list[Example]

    @property
    def meaning(self) -> str:
        """What this kind of defect is."""
        return DEFECT_KINDS[self.kind].meaning

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON report."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "meaning": self.meaning,
            "count": self.count,
            "examples": [asdict(example) for example in self.examples],
        }


class Findings:
    """Collects defects; keeps the first ``max_examples`` (at least 1) of each kind and counts all."""

    def __init__(self, max_examples: int = 10) -> None:
        if max_examples < 1:
            raise InputError(f"max_examples={max_examples}: keep at least 1 of each kind of defect")
        self.max_examples = max_examples
        self._found: dict[tuple[str, Severity], Found] = {}

    def add(
        self,
        kind: str,
        detail: str,
        *,
        file_name: str | None = None,
        annotation_id: int | None = None,
        severity: Severity | None = None,
    ) -> None:
        """One defect; ``severity`` replaces the kind's own."""
        self._count(kind, 1, severity, lambda _: Example(detail, file_name, annotation_id))

    def add_where(
        self,
        kind: str,
        condition: npt.NDArray[np.bool_],
        example: Callable[[int], Example],
        *,
        severity: Severity | None = None,
    ) -> None:
        """One defect for every true element of a one-dimensional condition; ``example`` is given its index."""
        where = np.flatnonzero(condition)
        if len(where):
            self._count(kind, len(where), severity, lambda nth: example(int(where[nth])))

    @property
    def found(self) -> list[Found]:
        """Errors first, then remarks, each with the most frequent kind first."""
        return sorted(self._found.values(), key=lambda f: (f.severity != "error", -f.count, f.kind))

    @property
    def num_errors(self) -> int:
        """How many errors there are, of all kinds together."""
        return sum(found.count for found in self._found.values() if found.severity == "error")

    @property
    def num_remarks(self) -> int:
        """How many remarks there are, of all kinds together."""
        return sum(found.count for found in self._found.values() if found.severity == "remark")

    def _count(self, kind: str, count: int, severity: Severity | None, example: Callable[[int], Example]) -> None:
        graded = severity or DEFECT_KINDS[kind].severity
        found = self._found.setdefault((kind, graded), Found(kind, graded, 0, []))
        found.count += count
        room = self.max_examples - len(found.examples)
        found.examples += [example(nth) for nth in range(min(room, count))]


def refusals(check: Callable[[Sequence[Any], int], object], records: Sequence[Any]) -> dict[int, str]:
    """Index of every record that a reader's function refuses, with what it says.

    ``check`` is given some consecutive records and the index of the first; it raises InputError for one that it
    refuses, whatever the others are. Halving finds all of them: a file without a defect costs one call.
    """
    refused: dict[int, str] = {}
    waiting = [(0, len(records))]
    while waiting:
        start, stop = waiting.pop()
        if start == stop:
            continue
        try:
            check(records[start:stop], start)
        except InputError as error:
            if stop - start == 1:
                refused[start] = str(error)
            else:
                middle = (start + stop) // 2
                waiting += [(middle, stop), (start, middle)]
    return refused
