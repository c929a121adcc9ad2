"""Frames with their times -> an mp4 video that is like the one they come from: its size, rate and sound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from uniformer_pose.errors import InputError
from uniformer_pose.files import write_whole
from uniformer_pose.prediction.video import BT709, Image, VideoReader, as_fraction, reason

# isort: split
# Behind the module that says what to do where the package is missing.
import av
from av.container import OutputContainer
from av.video.frame import VideoFrame

# Sound that plays from an mp4 file in browsers and players alike.
_AUDIO_CODECS = {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}
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
    """Writes frames of the size of ``source``, and its sound as it is, if it has been read and mp4 players know it.

    H.264 stores even sizes, so an odd one repeats its last row or column. Each frame keeps its time to 6 microseconds,
    and exactly at a constant frame rate. ``remarks`` says what could not be kept.
    """

    def __init__(self, container: OutputContainer, source: VideoReader) -> None:
        self.remarks: list[str] = []
        self._container, self._source = container, source
        rate = max(source.frame_rate.limit_denominator(1001), Fraction(1, 1001))
        # A whole number of ticks per frame, so that constant rates stay constant, and many, so that others survive.
        self._tick = Fraction(1, rate.numerator * -(-_MIN_TICKS_PER_SECOND // rate.numerator))
        self._last_tick, self._one_frame = -1, 1 / rate
        self._encoder = container.add_stream("libx264", rate=rate, options=_ENCODER_OPTIONS)
        self._encoder.width, self._encoder.height = source.width + source.width % 2, source.height + source.height % 2
        self._encoder.pix_fmt = "yuv420p"
        context = self._encoder.codec_context
        self._encoder.time_base = context.time_base = self._tick
        context.sample_aspect_ratio = source.pixel_aspect_ratio
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = _LIMITED_RANGE
        codec = getattr(source.sound, "codec", None)  # PyAV has none for one that FFmpeg does not know
        self._sound = None
        if source.sound is not None and codec is not None and codec.canonical_name in _AUDIO_CODECS:
            self._sound = container.add_stream_from_template(source.sound)
        elif source.sound is not None:
            name = "its codec" if codec is None else codec.canonical_name
            self.remarks.append(f"{source.name}: drawn without its sound, because mp4 players do not play {name}")

    def write(self, image: Image, seconds: float) -> None:
        """Adds an RGB uint8 frame, shown from ``seconds`` (since the first of the video) until the next one."""
        height, width = self._source.height, self._source.width
        self._last_tick = max(self._last_tick + 1, round(Fraction(seconds) / self._tick))
        even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        picture = VideoFrame.from_ndarray(np.ascontiguousarray(even, dtype=np.uint8), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=_LIMITED_RANGE)
        picture.pts, picture.time_base = self._last_tick, self._tick
        self._write_sound(until=self._last_tick * self._tick)
        self._container.mux(self._encoder.encode(picture))

    def finish(self) -> None:
        """Writes what the encoder holds back, and the sound up to the end of the last frame."""
        self._container.mux(self._encoder.encode(None))
        self._write_sound(until=self._last_tick * self._tick + self._one_frame)

    def _write_sound(self, *, until: Fraction) -> None:
        waiting, begin = self._source.sound_packets, self._source.start_seconds
        while waiting:
            tick = as_fraction(waiting[0].time_base)
            seconds = (waiting[0].pts or 0) * tick - begin
            if seconds >= until:
                return
            packet = waiting.popleft()
            if self._sound is not None and seconds >= 0:
                packet.pts = packet.dts = (packet.pts or 0) - round(begin / tick)
                packet.stream = self._sound
                self._container.mux(packet)
