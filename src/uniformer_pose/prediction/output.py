"""The output folder of a run of poses: what is finished, what was drawn, and the results of all.

settings.json       what the poses depend on; a run with the same settings continues
poses/              the poses of each picture and video as COCO results, one line a frame; there when it is finished
drawn/              the pictures and videos with skeletons, in the folders of the source
poses.json          COCO results of all pictures and frames
poses.csv           one row per keypoint; of a network with a visibility head with its two probabilities
"""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.categories import DEFAULT_PERSON_CATEGORY
from uniformer_pose.errors import InputError
from uniformer_pose.files import write_json, write_whole
from uniformer_pose.prediction.listed_boxes import ListedBoxes
from uniformer_pose.prediction.people import People
from uniformer_pose.prediction.sources import SourceItem, number_in_name
from uniformer_pose.skeleton import Skeleton

Image = npt.NDArray[np.uint8]

COLUMNS = ("file", "frame", "seconds", "person", "track", "keypoint", "x", "y", "score", "pose_score")
_OF_VISIBILITY = ("labelled", "visible")
_KEPT_ENDINGS = {"picture": (".jpg", ".jpeg", ".png"), "video": (".mp4",)}
_ADVICE = "give output=<another folder>"


@dataclass(frozen=True)
class PosedFrame:
    """The people of one frame of a video, with its number and time, or of a picture, with what is known of it."""

    people: People
    frame: int | None = None
    seconds: float | None = None
    picture: Mapping[str, Any] = field(default_factory=dict)


class PoseOutput:
    """The folder that the poses of a source's ``items`` go to.

    ``settings`` are what the poses depend on: a folder of the same is continued. InputError for one with others, or
    with files that no run wrote, unless ``overwrite``, which poses everything again. ``draw``: pictures and videos are
    drawn, with the keypoints that score at least ``score_threshold``.
    """

    def __init__(
        self,
        folder: Path,
        items: Sequence[SourceItem],
        settings: Mapping[str, Any],
        *,
        overwrite: bool = False,
        draw: bool = True,
        score_threshold: float = 0.2,
    ) -> None:
        self.folder, self.items = folder, items
        self.draw, self.score_threshold = draw, score_threshold
        drawings = (folder / "drawn").resolve()
        for item in items:
            if item.path.resolve().is_relative_to(drawings):
                raise InputError(f"{item.path}: the source lies in the output folder; {_ADVICE}")
        self._begin(json.loads(json.dumps(settings)), overwrite)

    def unfinished(self, kind: str) -> list[SourceItem]:
        """The pictures, or videos, that have no poses yet."""
        return [item for item in self.items if item.kind == kind and not self._poses_of(item).exists()]

    def drawing_of(self, item: SourceItem) -> Path:
        """The file of an item with skeletons."""
        is_kept = Path(item.name).suffix.lower() in _KEPT_ENDINGS[item.kind]
        ending = "" if is_kept else ".png" if item.kind == "picture" else ".mp4"
        return self.folder / "drawn" / f"{item.name}{ending}"

    def drawn(self, image: Image, people: People) -> Image:
        """The image with skeletons."""
        return people.plot(image, score_threshold=self.score_threshold)

    def write_poses(self, item: SourceItem, frames: Iterable[PosedFrame]) -> None:
        """Write the poses of a picture or video, one line a frame, as they come; behind the last it is finished."""
        path = self._poses_of(item)
        with write_whole(path, advice=_ADVICE) as part, part.open("w", encoding="utf-8") as lines:
            for posed in frames:
                place = {} if posed.frame is None else {"frame": posed.frame, "seconds": posed.seconds}
                poses = [pose | place | dict(posed.picture) for pose in posed.people.to_coco(0)]
                lines.write(json.dumps(poses, allow_nan=False) + "\n")

    def write_results(self, skeleton: Skeleton, listed: ListedBoxes | None = None) -> list[str]:
        """Write ``poses.json`` and ``poses.csv`` of all finished items; returns lines that say what was written.

        Pictures have the image id that ``listed`` gives them; others whose name is a number have that, as in COCO. The
        rest, and the frames of videos, have the numbers from 1 on that are left. A single category of ``listed`` is
        that of the results. Beside COCO's entries, which its tools read, each pose has ``file_name``, of pictures
        ``image_height`` and ``image_width``, and of videos ``frame`` and ``seconds``.
        """
        names = [item.name for item in self.items if item.kind == "picture" and self._poses_of(item).exists()]
        ids, doubles = _image_ids(names, {} if listed is None else listed.ids)
        categories = [] if listed is None else list(listed.categories)
        category_id = categories[0] if len(categories) == 1 else DEFAULT_PERSON_CATEGORY
        results, table = self.folder / "poses.json", self.folder / "poses.csv"
        count = 0
        with (
            write_whole(results, advice=_ADVICE) as json_part,
            write_whole(table, advice=_ADVICE) as csv_part,
            json_part.open("w", encoding="utf-8") as file,
            csv_part.open("w", encoding="utf-8", newline="") as csv_file,
        ):
            rows = csv.writer(csv_file)
            file.write("[")
            for name, image_id, poses in self._posed(ids, doubles):
                own = {"image_id": image_id, "category_id": category_id, "file_name": name}
                for person, pose in enumerate(poses):
                    if count == 0:
                        rows.writerow([*COLUMNS, *(_OF_VISIBILITY if "visibility" in pose else ())])
                    rows.writerows(_rows(name, person, pose, skeleton))
                    file.write(("," if count else "") + "\n" + json.dumps(pose | own))
                    count += 1
            file.write("\n]\n")
            if count == 0:
                rows.writerow(COLUMNS)
        lines = [f"poses               {results} ({count} people)", f"table               {table}"]
        if doubles:
            lines.append(
                f"image ids           {len(doubles)} pictures, first {doubles[0]}, share the number in their name with "
                "another, and have a number of their own instead"
            )
        return lines + ([f"drawn               {self.folder / 'drawn'}"] if self.draw else [])

    def _poses_of(self, item: SourceItem) -> Path:
        return self.folder / "poses" / f"{item.name}.jsonl"

    def _begin(self, settings: dict[str, Any], overwrite: bool) -> None:
        file = self.folder / "settings.json"
        try:
            finished = list((self.folder / "poses").rglob("*.jsonl"))
            if overwrite:
                for poses in finished:
                    poses.unlink()
            elif file.exists():
                before = json.loads(file.read_text(encoding="utf-8"))
                if finished:
                    self._refuse_others(before, settings)
            elif self.folder.exists() and any(self.folder.iterdir()):
                raise InputError(
                    f"{self.folder}: holds files that no such run wrote; {_ADVICE}, or overwrite=true to write there"
                )
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(f"{self.folder}: cannot be read ({error}); {_ADVICE}") from error
        write_json(file, settings, advice=_ADVICE)

    def _refuse_others(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if differing:
            changes = ", ".join(f"{key} was {before.get(key)} and is {now.get(key)}" for key in differing)
            raise InputError(
                f"{self.folder}: holds poses of a run with other settings ({changes}); {_ADVICE}, or overwrite=true to "
                "pose everything again"
            )

    def _posed(self, ids: Mapping[str, int], doubles: Sequence[str]) -> Iterator[tuple[str, int, list[Any]]]:
        """Name, image id and poses of each picture and frame; an id that is made up is in nobody's name."""
        taken = {*ids.values(), *map(number_in_name, doubles)}
        left = (number for number in itertools.count(1) if number not in taken)
        for item in self.items:
            if self._poses_of(item).exists():
                with self._poses_of(item).open(encoding="utf-8") as lines:
                    for line in lines:
                        yield item.name, ids[item.name] if item.name in ids else next(left), json.loads(line)


def _image_ids(names: Sequence[str], numbers: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
    """The ids that pictures have from ``numbers`` or from their names; and those whose number another has too."""
    ids = {name: numbers[name] for name in names if name in numbers}
    in_names = {name: number for name in names if name not in ids and (number := number_in_name(name)) is not None}
    times = Counter([*ids.values(), *in_names.values()])
    doubles = [name for name, number in in_names.items() if times[number] > 1]
    return ids | {name: number for name, number in in_names.items() if times[number] == 1}, doubles


def _rows(name: str, person: int, pose: Mapping[str, Any], skeleton: Skeleton) -> Iterator[list[Any]]:
    """Rows of ``COLUMNS``, one per keypoint, in image pixels; what does not apply is empty."""
    place = [name, pose.get("frame"), pose.get("seconds"), person, pose.get("track_id")]
    triplets = zip(*[iter(pose["keypoints"])] * 3, strict=True)
    probabilities = pose.get("visibility", [()] * skeleton.num_keypoints)
    for keypoint, (x, y, score), known in zip(skeleton.keypoint_names, triplets, probabilities, strict=True):
        scores = (round(value, 6) for value in (score, pose["score"], *known))
        yield [*place, keypoint, round(x, 3), round(y, 3), *scores]
