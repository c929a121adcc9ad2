"""Pictures and videos -> the poses of their people, written and drawn into an output folder."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco import ImageOrientation
from uniformer_pose.data.images import DecodedImage, Remark, decode_photo, remark_line
from uniformer_pose.errors import InputError
from uniformer_pose.pictures.drawing import save_picture
from uniformer_pose.prediction.boxes import BoxFinder
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.prediction.listed_boxes import ListedBoxes
from uniformer_pose.prediction.output import PosedFrame, PoseOutput
from uniformer_pose.prediction.people import People
from uniformer_pose.prediction.smoothing import KeypointSmoother
from uniformer_pose.prediction.sources import SourceItem
from uniformer_pose.prediction.tracking import Tracker
from uniformer_pose.progress import progress_bar

if TYPE_CHECKING:
    from uniformer_pose.prediction.video import Frame, VideoReader

T = TypeVar("T")
Image = npt.NDArray[np.uint8]
Failures = dict[str, str]
"""Name of a picture or video -> why it could not be read."""

_PICTURE_READERS = 4
_FRAMES_TOGETHER = 16
# Of one group: 200 MB as pixels, whatever the size of the pictures.
_MOST_PIXELS_TOGETHER = 64_000_000


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


# -- pictures ---------------------------------------------------------------------------------------------------------


def pose_pictures(
    items: Sequence[SourceItem],
    find_poses: PoseFinder,
    output: PoseOutput,
    *,
    orientation: ImageOrientation | None = None,
) -> tuple[Failures, list[str]]:
    """Pose pictures into ``output``; returns those that could not be read, and remarks on others.

    ``orientation`` says how pictures are read that EXIF turns; None: upright, or as the file of the boxes says.
    """
    failed: Failures = {}
    remarkable: dict[Remark, list[str]] = {}
    listed = find_poses.find_boxes if isinstance(find_poses.find_boxes, ListedBoxes) else None
    reads = (partial(_read, item, listed, orientation) for item in items)
    pictures = closing(read_ahead(reads, threads=_PICTURE_READERS, waiting=_PICTURE_READERS + 1))
    assumed: ImageOrientation = "displayed" if listed is None else listed.assumed
    frame = orientation or (listed and listed.orientation) or assumed
    done = 0
    with pictures as read, progress_bar("pictures") as progress:
        for group in in_groups(read, pixels_of=_pixels, most=find_poses.estimator.batch_size):
            readable = [(item, image) for item, image in group if isinstance(image, DecodedImage)]
            failed |= {item.name: str(error) for item, error in group if isinstance(error, InputError)}
            found = find_poses([item.name for item, _ in readable], [image.pixels for _, image in readable])
            for (item, image), people in zip(readable, found, strict=True):
                for remark in image.remarks:
                    remarkable.setdefault(remark, []).append(item.name)
                if output.draw:
                    save_picture(output.drawing_of(item), output.drawn(image.pixels, people))
                output.write_poses(item, [PosedFrame(people, picture=_about(image, frame))])
            progress(done := done + len(group), len(items))
    return failed, [
        remark_line(remark, names[0], len(names), assumed=assumed, option="image_orientation")
        for remark, names in remarkable.items()
    ]


def _read(
    item: SourceItem, listed: ListedBoxes | None, orientation: ImageOrientation | None
) -> tuple[SourceItem, DecodedImage | InputError]:
    """A picture in the frame that its boxes refer to, or why it cannot be read."""
    try:
        if listed is None:
            return item, decode_photo(item.path, orientation=orientation or "displayed")
        height, width = listed.sizes.get(item.name, (None, None))
        frame = orientation or listed.orientation
        return item, decode_photo(item.path, height=height, width=width, orientation=frame, assumed=listed.assumed)
    except InputError as error:
        return item, error


def _about(image: DecodedImage, frame: ImageOrientation) -> dict[str, Any]:
    """Height and width of a picture, and of one that EXIF turns, what they and its poses refer to."""
    height, width = image.pixels.shape[:2]
    turned = {} if image.exif == 1 else {"image_orientation": frame}
    return {"image_height": height, "image_width": width, **turned}


def _pixels(picture: tuple[SourceItem, DecodedImage | InputError]) -> int:
    return picture[1].pixels[..., 0].size if isinstance(picture[1], DecodedImage) else 0


# -- videos -----------------------------------------------------------------------------------------------------------


def pose_videos(
    items: Sequence[SourceItem], find_poses: PoseFinder, output: PoseOutput, *, smooth: bool
) -> tuple[Failures, list[str]]:
    """Pose videos into ``output``; returns those that could not be read, and remarks on others.

    People are numbered through a video. ``smooth`` steadies their keypoints. A video that is interrupted begins again.
    """
    failed: Failures = {}
    remarks: list[str] = []
    for item in items:
        try:
            from uniformer_pose.prediction.video import VideoReader  # needs a package that pictures do not

            # Whatever happens, nobody reads any more when the file is closed.
            with (
                VideoReader(item.path) as reader,
                closing(_posed_frames(item.name, reader, find_poses, smooth)) as posed,
                closing(_drawn_frames(item, reader, posed, output)) as drawn,
            ):
                output.write_poses(item, drawn)
                remarks += reader.remarks()
        except InputError as error:
            failed[item.name] = str(error)
    return failed, remarks


def _posed_frames(
    name: str, reader: VideoReader, find_poses: PoseFinder, smooth: bool
) -> Generator[tuple[Frame, People]]:
    """Each frame with its people, who have numbers, and steadied keypoints where that is wanted."""
    tracker, smoother = Tracker(find_poses.estimator.skeleton.oks_sigmas), KeypointSmoother()
    pixels = reader.height * reader.width
    waiting = max(1, min(_FRAMES_TOGETHER, _MOST_PIXELS_TOGETHER // pixels))
    reads = itertools.repeat(partial(next, iter(reader), None))
    with (
        closing(read_ahead(reads, threads=1, waiting=waiting)) as frames,
        progress_bar(f"frames of {name}") as progress,
    ):
        for group in in_groups(frames, pixels_of=lambda _: pixels, most=_FRAMES_TOGETHER):
            found = find_poses([name] * len(group), [frame.image for frame in group])
            for frame, people in zip(group, found, strict=True):
                given = (people.keypoints, people.scores, people.boxes, people.areas)
                ids = tracker.update(*given, seconds=frame.seconds)
                keypoints = people.keypoints
                if smooth:
                    keypoints = smoother.smooth(ids, keypoints, people.areas, seconds=frame.seconds)
                yield frame, replace(people, ids=ids, keypoints=keypoints)
            progress(group[-1].index + 1, reader.num_frames)


def _drawn_frames(
    item: SourceItem, reader: VideoReader, posed: Iterator[tuple[Frame, People]], output: PoseOutput
) -> Generator[PosedFrame]:
    """The same frames, drawn on the way into the video of ``output``, which is complete when they end."""
    from uniformer_pose.prediction.video_writer import video_writer

    with video_writer(output.drawing_of(item), reader) if output.draw else nullcontext() as writer:
        for frame, people in posed:
            if writer is not None:
                writer.write(output.drawn(frame.image, people), frame.seconds)
            yield PosedFrame(people, frame.index, frame.seconds)


# -- both -------------------------------------------------------------------------------------------------------------


def read_ahead(reads: Iterable[Callable[[], T | None]], *, threads: int, waiting: int) -> Generator[T]:
    """What the calls return, in order, up to the first None; so many results wait at most.

    Who stops before the end closes it, after which no call is running.
    """
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[T | None]] = deque()
        calls = iter(reads)
        try:
            while True:
                while len(ahead) < waiting and (read := next(calls, None)) is not None:
                    ahead.append(pool.submit(read))
                if not ahead or (result := ahead.popleft().result()) is None:
                    return
                yield result
        finally:
            for future in ahead:
                future.cancel()


def in_groups(things: Iterable[T], *, pixels_of: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """The things in groups of at most ``most``, and fewer where the pixels of so many would be too much memory."""
    group: list[T] = []
    pixels = 0
    for thing in things:
        size = pixels_of(thing)
        if group and (len(group) >= most or pixels + size > _MOST_PIXELS_TOGETHER):
            yield group
            group, pixels = [], 0
        group.append(thing)
        pixels += size
    if group:
        yield group
