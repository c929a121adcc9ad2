"""A video or camera -> the poses of its frames, on disk as they are found, and the video with skeletons."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError
from uniformer_pose.files import write_json
from uniformer_pose.prediction.boxes import BoxFinder
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.prediction.people import People
from uniformer_pose.prediction.smoothing import KeypointSmoother
from uniformer_pose.prediction.sources import SourceItem
from uniformer_pose.prediction.tracking import Tracker
from uniformer_pose.progress import progress_bar
from uniformer_pose.skeleton import Skeleton

if TYPE_CHECKING:
    from uniformer_pose.prediction.video import Frame, VideoReader

Image = npt.NDArray[np.uint8]

# Of frames that are posed together: 200 MB as pixels, whatever their size.
_MOST_PIXELS_TOGETHER = 64_000_000
_MOST_FRAMES_TOGETHER = 16
_FRAMES_BETWEEN_STATES = 250


@dataclass(frozen=True)
class VideoSettings:
    """What of a video's frames belongs together: ``track`` numbers the people, ``smooth`` steadies their keypoints.

    Smoothing needs the numbers, so it includes ``track``.
    """

    track: bool = True
    smooth: bool = False


def open_video(item: SourceItem) -> VideoReader:
    """The reader of a video file or camera; InputError for what cannot be read."""
    # Videos need a package that pictures do not.
    from uniformer_pose.prediction.video import VideoReader

    return VideoReader.of_camera(int(str(item.path))) if item.kind == "camera" else VideoReader(item.path)


def pose_video(
    reader: VideoReader,
    find_boxes: BoxFinder,
    estimator: PoseEstimator,
    frames_file: Path,
    settings: VideoSettings,
    *,
    name: str,
    drawn: Path | None = None,
    flip_test: bool = False,
    score_threshold: float = 0.2,
    show: Callable[[Image], None] | None = None,
) -> dict[str, Any]:
    """Pose every frame, one line of ``frames_file`` each, and draw them into the video ``drawn``.

    An interrupted call is continued by the next one with the same arguments: from the last complete segment of the
    drawn video, or without one from the last state beside ``frames_file``. Then poses, numbers and video are those of a
    call without interruption. Ctrl-C ends a camera's video properly. Returns what the journal keeps.
    """
    run = _VideoRun(estimator.skeleton, frames_file, settings, reader)
    with ExitStack() as stack:
        writer = None
        if drawn is not None:
            from uniformer_pose.prediction.video_writer import VideoWriter

            writer = stack.enter_context(
                VideoWriter(
                    drawn,
                    height=reader.height,
                    width=reader.width,
                    frame_rate=reader.frame_rate,
                    audio_from=None if reader.camera else reader.name,
                    pixel_aspect_ratio=reader.pixel_aspect_ratio,
                    overwrite=True,  # the run has made sure that it is its own
                    resume=not reader.camera,
                    state=run.state,
                )
            )
            run.restore(writer.resumed_state)
        elif not reader.camera:
            run.restore(run.saved_state())
        if run.frames:
            reader.start_at(run.frames, after_seconds=run.seconds)
        stack.enter_context(run)
        progress = stack.enter_context(progress_bar(f"frames of {name}"))
        groups = _read_ahead(_groups(reader), stack)
        try:
            for group in groups:
                images = [frame.image for frame in group]
                boxes = find_boxes([name] * len(images), images)
                found = estimator.predict_batch(
                    images,
                    [box.boxes_xywh for box in boxes],
                    box_scores=[box.scores for box in boxes],
                    flip_test=flip_test,
                )
                for frame, people in zip(group, found, strict=True):
                    posed = run.add(frame, people)
                    if writer is not None or show is not None:
                        picture = posed.plot(frame.image, score_threshold=score_threshold)
                        if writer is not None:
                            writer.write(picture, frame.seconds)
                        if show is not None:
                            show(picture)
                    if writer is None and run.frames % _FRAMES_BETWEEN_STATES == 0:
                        run.save_state()
                progress(run.frames, reader.num_frames)
        except KeyboardInterrupt:
            if not reader.camera:
                raise
    run.remove_state()
    return {
        "height": reader.height,
        "width": reader.width,
        "num_frames": run.frames,
        "remarks": [*run.remarks(), *(writer.remarks() if writer is not None else [])],
    }


def frame_poses(frames_file: Path, skeleton: Skeleton) -> Iterator[tuple[int, float, People]]:
    """Frame number, seconds and people of every line that ``pose_video`` wrote."""
    with frames_file.open(encoding="utf-8") as lines:
        for line in lines:
            content = json.loads(line)
            yield content["frame"], content["seconds"], People.from_dict(content["people"], skeleton)


class _VideoRun:
    """What grows from frame to frame: the lines on disk, and what tracker and smoother remember."""

    def __init__(self, skeleton: Skeleton, frames_file: Path, settings: VideoSettings, reader: VideoReader) -> None:
        self.frames_file = frames_file
        self._reader = reader
        self.frames = 0
        self.seconds: float | None = None
        self._earlier_remarks: list[str] = []
        self._tracker = Tracker(skeleton.oks_sigmas) if settings.track or settings.smooth else None
        self._smoother = KeypointSmoother(skeleton.num_keypoints) if settings.smooth else None
        self._state_file = frames_file.with_suffix(".state.json")

    def __enter__(self) -> _VideoRun:
        """Open the file of lines, cut back to the frames that are done."""
        try:
            self.frames_file.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.frames_file.open("a+", encoding="utf-8")
            self._stream.seek(0)
            for _ in range(self.frames):
                self._stream.readline()
            self._stream.truncate(self._stream.tell())
        except OSError as error:
            raise InputError(f"{self.frames_file}: cannot be written ({error.strerror}); give output=") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def add(self, frame: Frame, people: People) -> People:
        """The people with their numbers and steadied keypoints, written down."""
        if self._tracker is not None:
            ids = self._tracker.update(
                people.keypoints, people.scores, people.boxes, people.areas, seconds=frame.seconds
            )
            people = replace(people, ids=ids)
            if self._smoother is not None:
                keypoints = self._smoother.smooth(ids, people.keypoints, people.areas, seconds=frame.seconds)
                people = replace(people, keypoints=keypoints)
        content = {"frame": frame.index, "seconds": frame.seconds, "people": people.to_dict()}
        self._stream.write(json.dumps(content) + "\n")
        self._stream.flush()
        self.frames, self.seconds = frame.index + 1, frame.seconds
        return people

    def remarks(self) -> list[str]:
        """What was not as it should be, in this call and in those that it continues."""
        return list(dict.fromkeys([*self._earlier_remarks, *self._reader.remarks()]))

    def state(self) -> dict[str, Any]:
        """All that the next frame depends on, as plain data."""
        return {
            "frames": self.frames,
            "seconds": self.seconds,
            "remarks": self.remarks(),
            "tracker": None if self._tracker is None else self._tracker.state(),
            "smoother": None if self._smoother is None else self._smoother.state(),
        }

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go on behind the frame at which ``state`` was taken."""
        if state is None:
            return
        self.frames, self.seconds = state["frames"], state["seconds"]
        self._earlier_remarks = state["remarks"]
        if self._tracker is not None:
            self._tracker.restore(state["tracker"])
        if self._smoother is not None:
            self._smoother.restore(state["smoother"])

    def saved_state(self) -> dict[str, Any] | None:
        """The last state on disk; None where there is none, or it is damaged: then the video begins anew."""
        try:
            content: dict[str, Any] = json.loads(self._state_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content

    def save_state(self) -> None:
        """Write the state down, for a video that is not drawn."""
        write_json(self._state_file, self.state())

    def remove_state(self) -> None:
        """There is nothing to continue any more."""
        self._state_file.unlink(missing_ok=True)


def _groups(reader: VideoReader) -> Iterator[list[Frame]]:
    together = max(1, min(_MOST_FRAMES_TOGETHER, _MOST_PIXELS_TOGETHER // (reader.height * reader.width)))
    if reader.camera:
        together = 1  # a picture that waits for others is late
    group: list[Frame] = []
    for frame in reader:
        group.append(frame)
        if len(group) >= together:
            yield group
            group = []
    if group:
        yield group


def _read_ahead(groups: Iterator[list[Frame]], stack: ExitStack) -> Iterator[list[Frame]]:
    """The same groups, the next one always read while the last one is posed."""
    reading = stack.enter_context(ThreadPoolExecutor(1))
    following = reading.submit(next, groups, None)
    while (group := following.result()) is not None:
        following = reading.submit(next, groups, None)
        yield group
