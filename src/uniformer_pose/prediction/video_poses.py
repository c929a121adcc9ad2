"""A video -> the poses of its frames, and the video with skeletons."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.ahead import MOST_PIXELS_TOGETHER, in_groups, read_ahead
from uniformer_pose.prediction.output import PosedFrame, PoseOutput, write_poses
from uniformer_pose.prediction.people import People
from uniformer_pose.prediction.picture_poses import PoseFinder
from uniformer_pose.prediction.smoothing import KeypointSmoother
from uniformer_pose.prediction.sources import SourceItem
from uniformer_pose.prediction.tracking import Tracker
from uniformer_pose.progress import progress_bar

if TYPE_CHECKING:
    from uniformer_pose.prediction.video import Frame, VideoReader

_FRAMES_TOGETHER = 16


def pose_videos(
    items: Sequence[SourceItem], find_poses: PoseFinder, output: PoseOutput, *, track: bool, smooth: bool
) -> tuple[dict[str, str], list[str]]:
    """Pose videos into ``output``; returns those that could not be read with the reasons, and remarks on others.

    ``track`` numbers the people through a video. ``smooth`` steadies their keypoints, which needs the numbers. A video
    that is interrupted begins again.
    """
    failed: dict[str, str] = {}
    remarks: list[str] = []
    for item in items:
        try:
            # Videos need a package that pictures do not.
            from uniformer_pose.prediction.video import VideoReader

            # Whatever happens, nobody reads any more when the file is closed.
            with (
                VideoReader(item.path, with_sound=output.draw) as reader,
                closing(_posed_frames(item.name, reader, find_poses, track or smooth, smooth)) as posed,
                closing(_drawn_frames(item, reader, posed, output, remarks)) as drawn,
            ):
                write_poses(output.poses_of(item), drawn)
                remarks += reader.remarks()
        except InputError as error:
            failed[item.name] = str(error)
    return failed, remarks


def _posed_frames(
    name: str, reader: VideoReader, find_poses: PoseFinder, track: bool, smooth: bool
) -> Generator[tuple[Frame, People]]:
    """Each frame with its people, who have numbers and steadied keypoints where that is wanted."""
    skeleton = find_poses.estimator.skeleton
    tracker, smoother = Tracker(skeleton.oks_sigmas), KeypointSmoother(skeleton.num_keypoints)
    pixels = reader.height * reader.width
    waiting = max(1, min(_FRAMES_TOGETHER, MOST_PIXELS_TOGETHER // pixels))
    reads = itertools.repeat(partial(next, iter(reader), None))
    with (
        closing(read_ahead(reads, threads=1, waiting=waiting)) as frames,
        progress_bar(f"frames of {name}") as progress,
    ):
        for group in in_groups(frames, pixels_of=lambda _: pixels, most=_FRAMES_TOGETHER):
            found = find_poses([name] * len(group), [frame.image for frame in group])
            for frame, people in zip(group, found, strict=True):
                if track:
                    given = (people.keypoints, people.scores, people.boxes, people.areas)
                    people = replace(people, ids=tracker.update(*given, seconds=frame.seconds))
                if smooth and people.ids is not None:
                    steady = smoother.smooth(people.ids, people.keypoints, people.areas, seconds=frame.seconds)
                    people = replace(people, keypoints=steady)
                yield frame, people
            progress(group[-1].index + 1, reader.num_frames)


def _drawn_frames(
    item: SourceItem,
    reader: VideoReader,
    posed: Iterator[tuple[Frame, People]],
    output: PoseOutput,
    remarks: list[str],
) -> Generator[PosedFrame]:
    """The same frames, drawn on the way into the video of ``output``, which is complete when they end."""
    from uniformer_pose.prediction.video_writer import video_writer

    with ExitStack() as stack:
        writer = stack.enter_context(video_writer(output.drawing_of(item), reader)) if output.draw else None
        for frame, people in posed:
            if writer is not None:
                writer.write(output.drawn(frame.image, people), frame.seconds)
            yield PosedFrame(people, frame.index, frame.seconds)
        remarks += [] if writer is None else writer.remarks
