"""The items of a source -> an output folder: drawn pictures and videos, COCO results, a table, and a journal.

journal.jsonl       what is done; with it an interrupted run continues
poses.json          COCO results of all pictures and frames
poses.csv           one row per keypoint (or poses.parquet)
drawn/              the pictures and videos with skeletons, in the folders of the source
frames/             the poses of each video, one line a frame
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.images import Remark
from uniformer_pose.errors import InputError
from uniformer_pose.pictures.drawing import save_picture
from uniformer_pose.prediction.boxes import BoxFinder
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.prediction.journal import Journal
from uniformer_pose.prediction.people import PERSON_CATEGORY_ID, People
from uniformer_pose.prediction.pictures import ReadPicture, posed_pictures, upright
from uniformer_pose.prediction.sources import SourceItem, number_in_name
from uniformer_pose.prediction.videos import VideoSettings, frame_poses, open_video, pose_video
from uniformer_pose.prediction.writers import TABLES, PosedPicture, write_coco_results
from uniformer_pose.progress import progress_bar
from uniformer_pose.skeleton import Skeleton

Image = npt.NDArray[np.uint8]
Show = Callable[[Image], None]

_KEPT_SUFFIXES = (".jpg", ".jpeg", ".png")


class PoseRun:
    """Poses the items of a source one after the other, and writes what of them is done.

    ``score_threshold`` is the least score of a keypoint that is drawn; ``draw`` false writes numbers only. ``show`` is
    called with every drawn picture. ``read`` reads a picture. Existing files that neither this run nor the one it
    continues has written stop it, unless ``overwrite``.
    """

    def __init__(
        self,
        estimator: PoseEstimator,
        find_boxes: BoxFinder,
        output: Path,
        journal: Journal,
        *,
        flip_test: bool,
        draw: bool = True,
        score_threshold: float = 0.2,
        overwrite: bool = False,
        show: Show | None = None,
        read: ReadPicture = upright,
    ) -> None:
        self.estimator, self.find_boxes = estimator, find_boxes
        self.output, self.journal = output, journal
        self.flip_test, self.draw, self.score_threshold = flip_test, draw, score_threshold
        self.overwrite, self.show, self.read = overwrite, show, read
        self.remarks: list[str] = []
        """What was not as it should be in the videos posed so far, one sentence each."""
        self.remarkable: dict[Remark, list[str]] = {}
        """The pictures posed so far by what is remarkable about them, see ``remark_line``."""

    def pictures(self, items: Sequence[SourceItem]) -> dict[str, str]:
        """Pose pictures; returns those that could not be read, with the reason."""
        failed: dict[str, str] = {}
        if not items:
            return failed
        targets = {item.name: self._target(item, _drawn_picture_name(item.name)) for item in items}
        with progress_bar("pictures") as progress:
            all_posed = posed_pictures(items, self.find_boxes, self.estimator, flip_test=self.flip_test, read=self.read)
            for done, posed in enumerate(all_posed, start=1):
                name = posed.item.name
                for kind in posed.remarks:
                    self.remarkable.setdefault(kind, []).append(name)
                if posed.image is None or posed.people is None:
                    failed[name] = str(posed.error)
                else:
                    if self.draw or self.show:
                        drawn = posed.people.plot(posed.image, score_threshold=self.score_threshold)
                        if self.draw:
                            self.journal.begin([name])
                            save_picture(targets[name], drawn)
                        if self.show:
                            self.show(drawn)
                    height, width = posed.image.shape[:2]
                    self.journal.add(name, {"height": height, "width": width, "people": posed.people.to_dict()})
                progress(done, len(items))
        return failed

    def videos(self, items: Sequence[SourceItem], settings: VideoSettings) -> dict[str, str]:
        """Pose videos and cameras; returns those that could not be read, with the reason."""
        failed: dict[str, str] = {}
        for item in items:
            drawn = self._target(item, f"{item.name}.mp4" if not item.name.endswith(".mp4") else item.name)
            frames = self.output / "frames" / f"{item.name}.jsonl"
            try:
                # Opened first: what cannot be read leaves nothing behind.
                with open_video(item) as reader:
                    self.journal.begin([item.name])
                    record = pose_video(
                        reader,
                        self.find_boxes,
                        self.estimator,
                        frames,
                        settings,
                        name=item.name,
                        drawn=drawn if self.draw else None,
                        flip_test=self.flip_test,
                        score_threshold=self.score_threshold,
                        show=self.show,
                    )
            except InputError as error:
                failed[item.name] = str(error)
                continue
            self.remarks += record["remarks"]
            self.journal.add(item.name, {"frames": frames.relative_to(self.output).as_posix(), **record})
        return failed

    def _target(self, item: SourceItem, name: str) -> Path:
        target = self.output / "drawn" / name
        if target.exists():
            if target.resolve() == item.path.resolve():
                raise InputError(f"{target}: is the source itself; give output=<another folder>")
            if self.draw and not self.overwrite and not self.journal.has_begun(item.name):
                raise InputError(
                    f"{target} exists already; give output=<another folder>, or overwrite=true to replace it"
                )
        return target


def write_results(
    output: Path,
    journal: Journal,
    skeleton: Skeleton,
    *,
    table: str | None,
    numbers: Mapping[str, int] | None = None,
    category_id: int = PERSON_CATEGORY_ID,
) -> list[str]:
    """Write ``poses.json`` and the table from the journal; returns lines that say what was written.

    ``numbers`` gives pictures their image id, where a file of boxes did; other pictures whose name is a number have
    that, as in COCO. The rest, and the frames of videos, have the numbers from 1 on that are left.
    """
    names = [record["name"] for record in journal.records() if "people" in record]
    ids, doubles = _image_ids(names, numbers or {})
    doubtful = {number_in_name(name) for name in doubles}
    records = output / "poses.json"
    count = write_coco_results(records, _posed(output, journal, skeleton, ids, doubtful), category_id)
    lines = [f"poses               {records} ({count} people)"]
    if doubles:
        lines.append(
            f"image ids           {len(doubles)} pictures, first {doubles[0]}, share the number in their name with "
            "another, and have a number of their own instead"
        )
    if table is not None:
        path = output / f"poses.{table}"
        TABLES[table](path, _posed(output, journal, skeleton, ids, doubtful))
        lines.append(f"table               {path}")
    return lines


def _posed(
    output: Path, journal: Journal, skeleton: Skeleton, ids: Mapping[str, int], doubtful: Collection[int | None]
) -> Iterator[PosedPicture]:
    """Everything in the journal; what has no id gets one that is neither another's nor ``doubtful``."""
    taken = {*ids.values(), *doubtful}
    left = (number for number in itertools.count(1) if number not in taken)
    for record in journal.records():
        name = record["name"]
        if "people" in record:
            people = People.from_dict(record["people"], skeleton)
            yield PosedPicture(name, ids[name] if name in ids else next(left), people)
            continue
        for frame, seconds, people in frame_poses(output / record["frames"], skeleton):
            yield PosedPicture(name, next(left), people, frame, seconds)


def _image_ids(names: Sequence[str], numbers: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
    """The ids that pictures have from ``numbers`` or from their names; and those whose number another has too."""
    ids = {name: numbers[name] for name in names if name in numbers}
    in_names = {name: number for name in names if name not in ids and (number := number_in_name(name)) is not None}
    times = Counter([*ids.values(), *in_names.values()])
    doubles = [name for name, number in in_names.items() if times[number] > 1]
    return ids | {name: number for name, number in in_names.items() if times[number] == 1}, doubles


def _drawn_picture_name(name: str) -> str:
    return name if Path(name).suffix.lower() in _KEPT_SUFFIXES else f"{name}.png"
