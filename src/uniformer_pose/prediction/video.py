"""A video file -> frames with their times, as they are meant to be seen. FFmpeg decodes, through PyAV."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError

try:
    import av
    from av.sidedata.sidedata import Type as SideDataType
    from av.stream import Disposition
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
except ModuleNotFoundError as error:
    raise InputError("videos need the package av; install it with: pip install 'uniformer-pose[video]'") from error

Image = npt.NDArray[np.uint8]

# 8K (7680x4320) is 33 million; a header that promises more is more likely to be a bomb than a video.
MAX_PIXELS = 50_000_000
BT709 = 1  # the number of its primaries, transfer and matrix in H.273
_UNSPECIFIED_MATRIX = 2

# What FFmpeg may take a file for. Left out on purpose: playlists (hls, dash, concat, sdp), which make it open further
# files and addresses, and single pictures.
_FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,gif,ivf,mxf,nut,wtv,dv,yuv4mpegpipe"
_OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}

_MOST_ERRORS_TOGETHER = 1000  # without a frame between them, after which the rest of a file is given up
_UNKNOWN_FRAME_RATE = Fraction(30)


@dataclass(frozen=True)
class Frame:
    """One picture of a video: its number from 0, its time since frame 0, and (H, W, 3) uint8 RGB pixels."""

    index: int
    seconds: float
    image: Image


class VideoReader:
    """The frames of a video file in the order in which they are shown; to go through once, and a context manager.

    ``height`` and ``width`` are those of its images, with the rotation and mirroring of the file applied. Pixels count
    as square (``pixel_aspect_ratio`` says where they are not). ``frame_rate`` is the mean one; ``num_frames`` what the
    header promises, or None. Times begin at 0 and strictly increase: a frame that has none, or one not after its
    predecessor's, follows at the mean rate. Frames of another size than the first are scaled to it. What cannot be
    decoded is left out; ``remarks()`` says so. HDR is not tone-mapped. Memory does not grow with the length.

    Raises InputError for what is not there, an address, no video that can be decoded, and more than ``MAX_PIXELS``
    pixels in a frame.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self.broken_places = self._retimed = self._rescaled = self._count = 0
        self.ended_early = False
        self._trouble = ""
        self._container = _open(self.name)
        try:
            self._stream = self._video_stream()
            self._refuse_size(self._stream.height, self._stream.width)
            self._stream.codec_context.thread_type = "AUTO"
            self._stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            self._pictures = self._decoded()
            first = next(self._pictures, None)
            if first is None:
                raise InputError(f"{path}: no frame of it can be decoded{self._trouble}; convert or fetch it again")
            self._waiting: VideoFrame | None = first
            self._refuse_size(first.height, first.width)
            self._describe(first)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        last = None
        while picture := self._waiting or next(self._pictures, None):
            seconds, self._waiting = self._seconds(picture), None
            if last is not None and (seconds is None or seconds <= last):
                self._retimed += seconds is not None
                seconds = last + float(1 / self.frame_rate)
            last = seconds or 0.0
            self._count += 1
            yield Frame(self._count - 1, last, self._image(picture))
        one_frame = float(1 / self.frame_rate)
        self.ended_early |= bool(last is not None and last + 2 * one_frame + 0.1 < self._promised_seconds)

    def close(self) -> None:
        """Frees the file; nothing can be read any more."""
        self._container.close()

    def remarks(self) -> list[str]:
        """What was not as it should be so far, one sentence each; empty for a sound video."""
        promised = f" of {self.num_frames}" if self.num_frames else ""
        found = {
            f"broken in {self.broken_places} places; the frames there were left out": self.broken_places,
            f"{self._rescaled} frames had another size and were scaled to {self.height}x{self.width}": self._rescaled,
            f"{self._retimed} frames were out of order in time and follow at the mean rate": self._retimed,
            f"the video ends early, after {self._count}{promised} frames{self._trouble}": self.ended_early,
        }
        return [f"{self.name}: {sentence}" for sentence, applies in found.items() if applies]

    def _video_stream(self) -> VideoStream:
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise InputError(f"{self.name}: there is no video in it, only other streams; give a file with pictures")
        if getattr(streams[0], "codec_context", None) is None:  # not said by PyAV's declarations
            raise InputError(f"{self.name}: the video has a codec that FFmpeg does not know; convert it")
        stream: VideoStream = streams[0]
        return stream

    def _refuse_size(self, height: int, width: int) -> None:
        if height * width > MAX_PIXELS:
            raise InputError(
                f"{self.name}: frames of {height}x{width} pixels (height x width) are more than the {MAX_PIXELS} "
                "pixels allowed; scale the video down"
            )

    def _describe(self, first: VideoFrame) -> None:
        """Everything that is known before the second frame."""
        stream = self._stream
        self._is_avi = self._container.format.name == "avi"
        self.frame_rate: Fraction = stream.average_rate or stream.guessed_rate or _UNKNOWN_FRAME_RATE
        self.num_frames: int | None = stream.frames or None
        self._promised_seconds = _seconds_of_tag(stream.metadata.get("DURATION", ""))
        if stream.duration:
            # Of the stream, because the sound may be longer; of the file, because an edit list may cut the stream.
            of_file = Fraction(self._container.duration or 0, av.time_base)
            of_stream = stream.duration * (stream.time_base or Fraction(0))
            self._promised_seconds = float(min(of_stream, of_file or of_stream))
        self._first_stamp = self._stamp(first)
        self._turn = _display_matrix(first)
        self._stored_size = self.height, self.width = first.height, first.width
        self.pixel_aspect_ratio: Fraction = stream.sample_aspect_ratio or Fraction(1)
        if self._turn[0] == 0:
            self.height, self.width = self.width, self.height
            self.pixel_aspect_ratio = 1 / self.pixel_aspect_ratio

    def _decoded(self) -> Iterator[Any]:
        """All pictures that can be decoded; counts what cannot."""
        errors_together = 0
        while errors_together < _MOST_ERRORS_TOGETHER:
            try:
                for picture in self._container.decode(self._stream):
                    errors_together = 0
                    yield picture
                return
            except av.error.EOFError:  # told twice that nothing follows
                return
            except av.FFmpegError as error:
                self.broken_places += 1
                errors_together += 1
                self._trouble = f" ({reason(error)})"
        self.ended_early = True

    def _seconds(self, picture: VideoFrame) -> float | None:
        stamp = self._stamp(picture)
        if stamp is None or self._first_stamp is None:
            return None
        return float((stamp - self._first_stamp) * (picture.time_base or Fraction(0)))

    def _stamp(self, picture: VideoFrame) -> int | None:
        """When the picture is shown, in the stream's ticks."""
        # AVI files do not know in which order frames are shown; decoders do, and give the times of decoding in it.
        return picture.dts if self._is_avi else picture.pts

    def _image(self, picture: VideoFrame) -> Image:
        height, width = self._stored_size
        self._rescaled += (picture.height, picture.width) != (height, width)
        matrix = picture.colorspace
        if matrix == _UNSPECIFIED_MATRIX and (picture.width >= 1280 or picture.height > 576):
            matrix = BT709  # what players assume of high definition; swscale would take the matrix of television
        rgb = picture.to_ndarray(format="rgb24", width=width, height=height, src_colorspace=matrix)
        a, b, c, d = self._turn
        image = np.asarray(rgb, dtype=np.uint8)
        return np.ascontiguousarray(image[::d, ::a] if a else image.swapaxes(0, 1)[::b, ::c])


def _open(path: str) -> Any:
    """A video file opened by FFmpeg, or InputError naming it; nothing that the file refers to is opened."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path) and not Path(path).exists():
        raise InputError(f"{path}: addresses are not opened; download the video and give its path")
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; give the path of a video")
    try:
        # "file:" keeps FFmpeg from reading a name such as "concat:a" as an address.
        return av.open(f"file:{Path(path).absolute()}", "r", options=_OPEN_OPTIONS, metadata_errors="surrogateescape")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: no video that can be read ({reason(error)}); convert or fetch it again") from error


def reason(error: BaseException) -> str:
    """What an error of FFmpeg or of the operating system says, in one line without the path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def _display_matrix(picture: VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the quarter turn and mirroring to show a picture with, each -1, 0 or 1; (1, 0, 0, 1) for none.

    A pixel at (x, y) is to be shown at (a x + c y, b x + d y), up to a shift. Other angles count as none.
    """
    side_data: Any = picture.side_data  # PyAV declares a narrower type than it has
    matrix = side_data.get(SideDataType.DISPLAYMATRIX)
    if matrix is not None:
        numbers = np.frombuffer(bytes(matrix), dtype=np.int32)[[0, 1, 3, 4]] / 65536
        a, b, c, d = (int(number) for number in np.sign(np.where(np.abs(numbers) < 0.01, 0, numbers)))
        if (a and d and not b and not c) or (b and c and not a and not d):
            return a, b, c, d
    return 1, 0, 0, 1


def _seconds_of_tag(text: str) -> float:
    """The duration that Matroska files give as ``01:02:03.456``, in seconds; 0 for anything else."""
    if not (match := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text)):
        return 0.0
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
