"""The kinds of defect that a data set can have, and the report: how often each was found, and the first examples."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from uniformer_pose.data.coco import PersonInstances

Severity = Literal["error", "remark"]

# An error: training or evaluation stops at it, loses people to it, or learns and measures something wrong.
KINDS: dict[str, tuple[Severity, str]] = {
    "entry_invalid": ("error", "an entry of a JSON file that the reader refuses: training or evaluation would stop"),
    "no_people": ("error", "nobody to train on or to evaluate"),
    "image_unusable": ("error", "no whole image of the annotated size in the image folder under this name"),
    "image_with_exif_rotation": ("remark", "EXIF turns or mirrors the picture, which is read as stored"),
    "image_content_repeated": ("remark", "the same pixels as an earlier image of this split"),
    "image_also_in_training": ("error", "the same pixels as an image of the training split: scores prove nothing"),
    "category_keypoints_differ": ("error", "the category's keypoints are not the skeleton's; nobody was checked"),
    "annotation_of_unknown_category": ("error", "a category_id that 'categories' does not list: left out"),
    "annotation_repeated": ("remark", "the same box and keypoints in the same image as an earlier annotation"),
    "box_unusable": ("error", "a box without area, or outside its image: its labelled person is left out"),
    "keypoint_outside_image": ("error", "labelled keypoints outside the image"),
    "keypoint_outside_box": ("remark", "labelled keypoints outside their box by a fifth of its larger side"),
    "num_keypoints_wrong": ("remark", "num_keypoints says who is scored, and contradicts the keypoints"),
    "part_flag_wrong": ("remark", "a flag (face_valid, ...) contradicts a part's visibilities, which count"),
    "area_unusable": ("remark", "no area, or one that no segment in this box has: AP depends on it; try data.area=box"),
    "area_is_box": ("remark", "areas are those of the boxes: by the set's definition, or for want of segments"),
    "side_without_partner": ("remark", "a keypoint with a side but no mirror partner: mirrored crops teach it wrongly"),
    "left_right_swapped": ("remark", "suspicion: a left-right pair, or all of them, exchanged in most people"),
    "keypoint_never_labelled": ("remark", "a keypoint that no person of this split has labelled"),
    "detections_miss_most_people": ("error", "fewer than half of the people have a detector box of IoU 0.5 or more"),
}
_MOST_EXAMPLES = 10


@dataclass
class Found:
    """One kind of defect in one split, and words on the first examples."""

    kind: str
    severity: Severity
    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Split:
    """Where one split lies (``boxes`` None: annotated boxes are evaluated), and what the check found.

    ``people`` are those that can be read, ``detections`` the detector's boxes; None where there are none. ``suspects``:
    the first kind of defect by annotation id. ``unusable``: the file names of images that cannot be read.
    """

    name: Literal["train", "val"]
    annotations: Path
    images: Path
    boxes: Path | None = None
    people: PersonInstances | None = None
    detections: PersonInstances | None = None
    suspects: dict[int, str] = field(default_factory=dict)
    unusable: set[str] = field(default_factory=set)
    _found: dict[tuple[str, Severity], Found] = field(default_factory=dict)

    def add(
        self, kind: str, detail: str, *, annotation_id: int | None = None, severity: Severity | None = None
    ) -> None:
        """Count one defect, and keep the first examples; ``severity`` replaces the kind's own."""
        severity = severity or KINDS[kind][0]
        found = self._found.setdefault((kind, severity), Found(kind, severity))
        found.count += 1
        if len(found.examples) < _MOST_EXAMPLES:
            found.examples.append(detail)
        if annotation_id is not None:
            self.suspects.setdefault(annotation_id, kind)

    @property
    def found(self) -> list[Found]:
        """Errors first, then remarks, each with the most frequent kind first."""
        return sorted(self._found.values(), key=lambda f: (f.severity != "error", -f.count, f.kind))

    def number_of(self, severity: Severity) -> int:
        """How many errors, or remarks, there are of all kinds together."""
        return sum(found.count for found in self.found if found.severity == severity)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON report."""
        return {
            "people": None if self.people is None else self.people.counts,
            "detections": None if self.detections is None else self.detections.counts,
            "defects": [{**asdict(found), "meaning": KINDS[found.kind][1]} for found in self.found],
        }

    def lines(self) -> list[str]:
        """What it holds, then its kinds of defect, errors first, each with its first example."""
        lines = [f"{self.name}: {self.annotations}"]
        lines += [f"  {found.summary()}" for found in (self.people, self.detections) if found is not None]
        if self.people is not None:
            low, middle, high = np.quantile(self.people.boxes_xywh[:, 3], (0.05, 0.5, 0.95))
            labelled = np.median((self.people.visibility > 0).sum(axis=1))
            lines.append(
                f"  boxes {low:.0f} to {high:.0f} pixels high (5 to 95 %), median {middle:.0f}; {labelled:g} labelled "
                "keypoints per person (median)"
            )
        lines += [f"  {one.severity:<6} {one.count:>6}  {one.kind}: {one.examples[0]}" for one in self.found]
        return lines if self.found else [*lines, "  nothing wrong"]
