"""The output folder of a run of poses: what is finished, what was drawn, and the results of all.

settings.json       what the poses depend on; a run with the same settings continues
poses/              the poses of each picture and video, one line a frame; a file is there when its item is finished
drawn/              the pictures and videos with skeletons, in the folders of the source
poses.json          COCO results of all pictures and frames
poses.csv           one row per keypoint (or poses.parquet)
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from uniformer_pose.prediction.writers import TABLES, PosedPicture, write_coco_results
from uniformer_pose.skeleton import Skeleton

Image = npt.NDArray[np.uint8]

_KEPT_ENDINGS = {"picture": (".jpg", ".jpeg", ".png"), "video": (".mp4",)}


@dataclass(frozen=True)
class PosedFrame:
    """The people of one frame of a video, with its number and time, or of a picture, which has neither."""

    people: People
    frame: int | None = None
    seconds: float | None = None


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
                raise InputError(f"{item.path}: the source lies in the output folder; give output=<another folder>")
        self._begin(json.loads(json.dumps(settings)), overwrite)

    def unfinished(self, kind: str) -> list[SourceItem]:
        """The pictures, or videos, that have no poses yet."""
        return [item for item in self.items if item.kind == kind and not self.poses_of(item).exists()]

    def poses_of(self, item: SourceItem) -> Path:
        """The file with the poses of an item."""
        return self.folder / "poses" / f"{item.name}.jsonl"

    def drawing_of(self, item: SourceItem) -> Path:
        """The file of an item with skeletons."""
        is_kept = Path(item.name).suffix.lower() in _KEPT_ENDINGS[item.kind]
        ending = "" if is_kept else ".png" if item.kind == "picture" else ".mp4"
        return self.folder / "drawn" / f"{item.name}{ending}"

    def drawn(self, image: Image, people: People) -> Image:
        """The image with skeletons."""
        return people.plot(image, score_threshold=self.score_threshold)

    def write_results(self, skeleton: Skeleton, *, table: str | None, listed: ListedBoxes | None = None) -> list[str]:
        """Write ``poses.json`` and the table of all finished items; returns lines that say what was written.

        Pictures have the image id that ``listed`` gives them; others whose name is a number have that, as in COCO. The
        rest, and the frames of videos, have the numbers from 1 on that are left. A single category of ``listed`` is
        that of the results.
        """
        names = [item.name for item in self.items if item.kind == "picture" and self.poses_of(item).exists()]
        ids, doubles = _image_ids(names, {} if listed is None else listed.numbers(names))
        categories = [] if listed is None else list(listed.categories)
        category_id = categories[0] if len(categories) == 1 else DEFAULT_PERSON_CATEGORY
        results = self.folder / "poses.json"
        count = write_coco_results(results, self._posed(skeleton, ids, doubles), category_id)
        lines = [f"poses               {results} ({count} people)"]
        if doubles:
            lines.append(
                f"image ids           {len(doubles)} pictures, first {doubles[0]}, share the number in their name with "
                "another, and have a number of their own instead"
            )
        if table is not None:
            path = self.folder / f"poses.{table}"
            TABLES[table](path, self._posed(skeleton, ids, doubles))
            lines.append(f"table               {path}")
        return lines + ([f"drawn               {self.folder / 'drawn'}"] if self.draw else [])

    def _begin(self, settings: dict[str, Any], overwrite: bool) -> None:
        file = self.folder / "settings.json"
        try:
            finished = list((self.folder / "poses").rglob("*.jsonl"))
            if overwrite:
                for poses in finished:
                    poses.unlink()
            elif file.exists():
                before = json.loads(file.read_text(encoding="utf-8"))
                _refuse_other_settings(self.folder, before, settings if finished else before)
            elif self.folder.exists() and any(self.folder.iterdir()):
                raise InputError(
                    f"{self.folder}: holds files that are not of such a run; give output=<another folder>, or "
                    "overwrite=true to write there"
                )
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(f"{self.folder}: cannot be read ({error}); give output=<another folder>") from error
        write_json(file, settings, advice="give output=<another folder>")

    def _posed(self, skeleton: Skeleton, ids: Mapping[str, int], doubles: Sequence[str]) -> Iterator[PosedPicture]:
        """Everything that is finished; what has no id gets one that is neither another's nor in another's name."""
        taken = {*ids.values(), *map(number_in_name, doubles)}
        left = (number for number in itertools.count(1) if number not in taken)
        for item in self.items:
            if self.poses_of(item).exists():
                for posed in read_poses(self.poses_of(item), skeleton):
                    number = ids[item.name] if item.name in ids else next(left)
                    yield PosedPicture(item.name, number, posed.people, posed.frame, posed.seconds)


def write_poses(path: Path, frames: Iterable[PosedFrame]) -> None:
    """Write the poses of a picture or video, one line a frame, as they come; the file appears behind the last."""
    with write_whole(path, advice="give output=<another folder>") as part, part.open("w", encoding="utf-8") as lines:
        for posed in frames:
            content = {"frame": posed.frame, "seconds": posed.seconds, "people": posed.people.to_dict()}
            lines.write(json.dumps(content) + "\n")


def read_poses(path: Path, skeleton: Skeleton) -> Iterator[PosedFrame]:
    """What ``write_poses`` wrote."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            content = json.loads(line)
            yield PosedFrame(People.from_dict(content["people"], skeleton), content["frame"], content["seconds"])


def _refuse_other_settings(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        changes = (f"{key} was {before.get(key)} and is {now.get(key)}" for key in differing)
        raise InputError(
            f"{folder}: holds poses of a run with other settings ({', '.join(changes)}); give output=<another folder>, "
            "or overwrite=true to pose everything again"
        )


def _image_ids(names: Sequence[str], numbers: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
    """The ids that pictures have from ``numbers`` or from their names; and those whose number another has too."""
    ids = {name: numbers[name] for name in names if name in numbers}
    in_names = {name: number for name in names if name not in ids and (number := number_in_name(name)) is not None}
    times = Counter([*ids.values(), *in_names.values()])
    doubles = [name for name, number in in_names.items() if times[number] > 1]
    return ids | {name: number for name, number in in_names.items() if times[number] == 1}, doubles
