"""Frames with their times -> an mp4 video of the size and rate of the one they come from, without its sound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from uniformer_pose.errors import InputError
from uniformer_pose.files import write_whole
from uniformer_pose.prediction.video import BT709, Image, VideoReader, reason

# isort: split
# Behind the module that says what to do where the package is missing.
import av
from av.container import OutputContainer
from av.video.frame import VideoFrame

_MIN_TICKS_PER_SECOND = 90_000
_LIMITED_RANGE = 1
# H.264, because every browser and player has it. Without B-frames the first frame is at time 0 for all of them.
_ENCODER_OPTIONS = {"preset": "veryfast", "crf": "20", "bf": "0"}


@contextmanager
def video_writer(path: Path, source: VideoReader) -> Iterator[VideoWriter]:
    """A writer of an mp4 file, which appears under its name when the context ends without an error.

    Raises InputError for a disk that is full or not to be written to.
    """
    try:
        with write_whole(path, advice="give output=") as part:
            # The index of the frames before the frames, so that it plays while it is fetched.
            options = {"movflags": "faststart"}
            with closing(av.open(f"file:{part.absolute()}", "w", format="mp4", options=options)) as container:
                writer = VideoWriter(container, source)
                yield writer
                writer.finish()
    except av.FFmpegError as error:
        raise InputError(f"{path}: cannot be written ({reason(error)}); give output=") from error


class VideoWriter:
    """Writes frames of the size of ``source``.

    H.264 stores even sizes, so an odd one repeats its last row or column. Each frame keeps its time to 6 microseconds,
    and exactly at a constant frame rate.
    """

    def __init__(self, container: OutputContainer, source: VideoReader) -> None:
        self._container, self._source = container, source
        rate = max(source.frame_rate.limit_denominator(1001), Fraction(1, 1001))
        # A whole number of ticks per frame, so that constant rates stay constant, and many, so that others survive.
        self._tick = Fraction(1, rate.numerator * -(-_MIN_TICKS_PER_SECOND // rate.numerator))
        self._last_tick = -1
        self._encoder = container.add_stream("libx264", rate=rate, options=_ENCODER_OPTIONS)
        self._encoder.width, self._encoder.height = source.width + source.width % 2, source.height + source.height % 2
        self._encoder.pix_fmt = "yuv420p"
        context = self._encoder.codec_context
        self._encoder.time_base = context.time_base = self._tick
        context.sample_aspect_ratio = source.pixel_aspect_ratio
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = _LIMITED_RANGE

    def write(self, image: Image, seconds: float) -> None:
        """Adds an RGB uint8 frame, shown from ``seconds`` (since the first of the video) until the next one."""
        height, width = self._source.height, self._source.width
        self._last_tick = max(self._last_tick + 1, round(Fraction(seconds) / self._tick))
        even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        picture = VideoFrame.from_ndarray(np.ascontiguousarray(even, dtype=np.uint8), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=_LIMITED_RANGE)
        picture.pts, picture.time_base = self._last_tick, self._tick
        self._container.mux(self._encoder.encode(picture))

    def finish(self) -> None:
        """Writes what the encoder holds back."""
        self._container.mux(self._encoder.encode(None))
