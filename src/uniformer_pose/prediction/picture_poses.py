"""Pictures -> the poses of their people, and the pictures with skeletons."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco import ImageOrientation
from uniformer_pose.data.images import DecodedImage, Remark, decode_photo, remark_line
from uniformer_pose.errors import InputError
from uniformer_pose.pictures.drawing import save_picture
from uniformer_pose.prediction.ahead import in_groups, read_ahead
from uniformer_pose.prediction.boxes import BoxFinder
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.prediction.listed_boxes import ListedBoxes
from uniformer_pose.prediction.output import PosedFrame, PoseOutput, write_poses
from uniformer_pose.prediction.people import People
from uniformer_pose.prediction.sources import SourceItem
from uniformer_pose.progress import progress_bar

Image = npt.NDArray[np.uint8]

_READERS = 4


@dataclass(frozen=True)
class PoseFinder:
    """Names and RGB pixels of pictures -> the people of each: boxes, then poses."""

    estimator: PoseEstimator
    find_boxes: BoxFinder
    flip_test: bool = False

    def __call__(self, names: Sequence[str], images: Sequence[Image]) -> list[People]:
        """The people of each picture, in order; the network's batches are filled across pictures."""
        found = self.find_boxes(names, images)
        boxes, scores = [box.boxes_xywh for box in found], [box.scores for box in found]
        return self.estimator.predict_batch(images, boxes, box_scores=scores, flip_test=self.flip_test)


@dataclass(frozen=True)
class _Picture:
    item: SourceItem
    image: DecodedImage | None
    error: str = ""

    @property
    def pixels(self) -> int:
        return 0 if self.image is None else self.image.pixels.shape[0] * self.image.pixels.shape[1]


def pose_pictures(
    items: Sequence[SourceItem],
    find_poses: PoseFinder,
    output: PoseOutput,
    *,
    orientation: ImageOrientation | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Pose pictures into ``output``; returns those that could not be read with the reasons, and remarks on others.

    ``orientation`` says how pictures are read that EXIF turns; None: upright, or as the file of the boxes says.
    """
    failed: dict[str, str] = {}
    remarkable: dict[Remark, list[str]] = {}
    listed = find_poses.find_boxes if isinstance(find_poses.find_boxes, ListedBoxes) else None
    reads = (partial(_read, item, listed, orientation) for item in items)
    done = 0
    with (
        closing(read_ahead(reads, threads=_READERS, waiting=_READERS + 1)) as pictures,
        progress_bar("pictures") as progress,
    ):
        for group in in_groups(pictures, pixels_of=lambda p: p.pixels, most=find_poses.estimator.batch_size):
            failed |= {picture.item.name: picture.error for picture in group if picture.image is None}
            readable = [(picture.item, picture.image) for picture in group if picture.image is not None]
            found = find_poses([item.name for item, _ in readable], [image.pixels for _, image in readable])
            for (item, image), people in zip(readable, found, strict=True):
                for remark in image.remarks:
                    remarkable.setdefault(remark, []).append(item.name)
                if output.draw:
                    save_picture(output.drawing_of(item), output.drawn(image.pixels, people))
                write_poses(output.poses_of(item), [PosedFrame(people)])
            done += len(group)
            progress(done, len(items))
    assumed: ImageOrientation = "displayed" if listed is None else listed.assumed
    return failed, [
        remark_line(remark, names[0], len(names), assumed=assumed, option="image_orientation")
        for remark, names in remarkable.items()
    ]


def _read(item: SourceItem, listed: ListedBoxes | None, orientation: ImageOrientation | None) -> _Picture:
    """A picture in the frame that its boxes refer to, or why it cannot be read."""
    try:
        if listed is None:
            return _Picture(item, decode_photo(item.path, orientation=orientation or "displayed"))
        height, width = listed.size_of(item.name)
        frame = orientation or listed.orientation
        image = decode_photo(item.path, height=height, width=width, orientation=frame, assumed=listed.assumed)
        return _Picture(item, image)
    except InputError as error:
        return _Picture(item, None, str(error))
