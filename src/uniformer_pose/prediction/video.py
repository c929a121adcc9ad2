"""A video file or camera -> frames with their times.

FFmpeg does the decoding, through PyAV. Images are (H, W, 3) uint8 RGB, as they are meant to be seen: the
rotation that telephones write beside the pixels is applied. Times are seconds since the first frame of the video, and
every frame has its own, so a variable frame rate comes out as it went in. Memory does not grow with the length.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError

try:
    import av
    from av.container import InputContainer
    from av.packet import Packet
    from av.sidedata.sidedata import SideDataContainer
    from av.sidedata.sidedata import Type as SideDataType
    from av.stream import Disposition
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
except ModuleNotFoundError as error:
    raise InputError("videos need the package av; install it with: pip install 'uniformer-pose[video]'") from error

Image = npt.NDArray[np.uint8]

# 8K (7680x4320) is 33 million; a header that promises more is more likely to be a bomb than a video.
MAX_PIXELS = 50_000_000

# What FFmpeg may take a file for. Left out on purpose: playlists (hls, dash, concat, sdp), which make it open further
# files and addresses, and single pictures.
_FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,gif,ivf,mxf,nut,wtv,dv,yuv4mpegpipe"
_OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}

# Behind a seek decoding starts this much earlier, because a frame that is marked as a starting point may need those
# before it (recovery points instead of key frames).
_SECONDS_BEFORE_SEEK = 5

# Errors of the container, one behind the other, after which the rest of a file is given up.
_MOST_READ_ERRORS = 100

_UNKNOWN_FRAME_RATE = Fraction(30)
BT709 = 1  # the number of its primaries, transfer and matrix in H.273
_UNSPECIFIED_MATRIX = 2


@dataclass(frozen=True)
class Frame:
    """One picture of a video: its number from 0, its time since frame 0, and (H, W, 3) uint8 RGB pixels."""

    index: int
    seconds: float
    image: Image


class VideoReader:
    """The frames of a video file, in the order in which they are shown.

    An iterator to go through once, and a context manager. ``height`` and ``width`` are those of its images, with the
    rotation and mirroring of the file applied. Pixels count as square (``pixel_aspect_ratio`` says where they are not).
    ``start_seconds`` is the time of frame 0 on the file's own clock, which sound and picture share.
    ``frame_rate`` is the mean one, 30 where the file does not say; ``num_frames`` what the header promises, None where
    it does not. Times strictly increase: a frame that has none, or one not after its predecessor's, follows at the mean
    rate. Frames of another size than the first are scaled to it.

    What cannot be decoded is left out, and all behind it kept: ``broken_frames`` counts the places. ``ended_early`` is
    known at the end. ``remarks()`` says all that in sentences. HDR is not tone-mapped, and
    interlaced pictures stay so.

    Raises InputError for what is not there, an address, no video that can be decoded, and more than ``max_pixels``
    pixels in a frame.
    """

    def __init__(self, path: str | Path, *, max_pixels: int = MAX_PIXELS, camera: bool = False) -> None:
        self.name = str(path)
        self.camera = camera
        self.broken_frames = 0
        self.ended_early = False
        self._max_pixels = max_pixels
        self._retimed_frames = 0
        self._rescaled_frames = 0
        self._trouble = ""
        self._file = str(path)
        self._next_index = 0
        self._last_seconds: float | None = None
        self._last_duration = 0.0
        self._pending: VideoFrame | None = None
        self._open()
        try:
            self._describe()
        except BaseException:
            self.close()
            raise

    @classmethod
    def of_camera(cls, index: int, *, max_pixels: int = MAX_PIXELS) -> VideoReader:
        """The frames of a camera that Linux knows as /dev/video<index>, without end; at times since the first."""
        device = Path(f"/dev/video{index}")
        if not device.exists():
            found = ", ".join(sorted(p.name.removeprefix("video") for p in Path("/dev").glob("video*"))) or "none"
            raise InputError(f"no camera {index} ({device}); cameras found: {found}")
        return cls(device, max_pixels=max_pixels, camera=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        seconds, picture = self._next_picture()
        image = self._to_image(picture)
        self._next_index += 1
        return Frame(self._next_index - 1, seconds, image)

    def close(self) -> None:
        """Frees the file; nothing can be read any more."""
        self._pending = None
        self._pictures.close()
        self._container.close()

    def start_at(self, index: int, *, after_seconds: float | None = None) -> None:
        """Makes frame ``index`` the next one, exactly; behind the last frame there is then nothing.

        By itself this decodes all frames up to it, because only that tells how many there are. With the time of the
        frame before it (``Frame.seconds``) it seeks, and decodes all only where that frame is not found again.
        """
        if index < self._next_index:
            raise ValueError(f"{self.name}: frame {index} lies behind; open the video again")
        if after_seconds is not None and index > self._next_index and not self.camera:
            if self._seek_behind(after_seconds):
                self._next_index = index
                return
            self.close()
            self.broken_frames = 0
            self._open()
            self._pending = self._first_picture()
            self._next_index, self._last_seconds = 0, None
            self._retimed_frames = 0
        while self._next_index < index:
            try:
                self._next_picture()
            except StopIteration:
                break
            self._next_index += 1

    def remarks(self) -> list[str]:
        """What was not as it should be so far, one sentence each; empty for a sound video."""
        found = []
        if self.broken_frames:
            found.append(f"{self.name}: broken in {self.broken_frames} places; the frames there were left out")
        if self._rescaled_frames:
            size = f"{self.height}x{self.width}"
            found.append(f"{self.name}: {self._rescaled_frames} frames had another size and were scaled to {size}")
        if self._retimed_frames:
            found.append(
                f"{self.name}: {self._retimed_frames} frames were out of order in time and follow at the mean rate"
            )
        if self.ended_early:
            promised = f" of {self.num_frames}" if self.num_frames else ""
            found.append(f"{self.name}: the video ends early, after {self._next_index}{promised} frames{self._trouble}")
        return found

    def _open(self) -> None:
        self._container = open_container(self._file, self.name, camera=self.camera)
        videos = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if not videos:
            self._container.close()
            raise InputError(f"{self.name}: there is no video in it, only other streams; give a file with pictures")
        self._stream: VideoStream = videos[0]
        if getattr(self._stream, "codec_context", None) is None:  # not said by PyAV's declarations
            self._container.close()
            raise InputError(f"{self.name}: the video has a codec that FFmpeg does not know; convert it")
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.options = {"max_pixels": str(self._max_pixels)}
        self._pictures = self._decoded()

    def _describe(self) -> None:
        """Everything that is known before the second frame."""
        stream = self._stream
        self._refuse_size(stream.height, stream.width)
        # Of the stream, because the sound may be longer; of the file, because an edit list may cut the stream.
        ends = [Fraction(stream.duration) * (stream.time_base or 0)] if stream.duration else []
        if self._container.duration:
            ends.append(Fraction(self._container.duration, av.time_base))
        tagged = _seconds_of_tag(stream.metadata.get("DURATION", ""))
        self._promised_seconds = tagged or (min(ends) if stream.duration else None)
        self.frame_rate = stream.average_rate or stream.guessed_rate or _UNKNOWN_FRAME_RATE
        self.num_frames: int | None = stream.frames or None
        sounds = self._container.streams.audio
        self.has_audio = bool(sounds)
        codec = getattr(sounds[0], "codec", None) if sounds else None  # PyAV has none for one that FFmpeg does not know
        self.audio_codec: str | None = None if codec is None else codec.canonical_name
        first = self._pending = self._first_picture()
        self._first_stamp = self._stamp(first)
        start = stream.start_time if self._container.format.name == "avi" else self._first_stamp
        self.start_seconds = (start or 0) * (first.time_base or Fraction(1))
        self._refuse_size(first.height, first.width)
        self._stored_size = (first.height, first.width)
        self._turn = _display_matrix(first)
        ratio = stream.sample_aspect_ratio or Fraction(1)
        self.pixel_aspect_ratio = ratio if ratio > 0 else Fraction(1)
        self.height, self.width = self._stored_size
        if self._turn[0] == 0:
            self.height, self.width = self.width, self.height
            self.pixel_aspect_ratio = 1 / self.pixel_aspect_ratio

    def _refuse_size(self, height: int, width: int) -> None:
        if height * width > self._max_pixels:
            raise InputError(
                f"{self.name}: frames of {height}x{width} pixels (height x width) are more than the "
                f"{self._max_pixels} pixels allowed; scale the video down"
            )

    def _first_picture(self) -> VideoFrame:
        picture = next(self._pictures, None)
        if picture is None:
            raise InputError(f"{self.name}: no frame of it can be decoded{self._trouble}; convert or fetch it again")
        return picture

    def _decoded(self) -> Generator[VideoFrame]:
        """All pictures that can be decoded; counts what cannot."""
        for packet in self._packets():
            try:
                yield from packet.decode()
            except av.error.EOFError:  # told twice that nothing follows
                return
            except av.FFmpegError as error:
                self.broken_frames += 1
                self._trouble = f" ({reason(error)})"

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        errors = 0
        while errors < _MOST_READ_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    errors = 0
                    yield packet
                return
            except av.FFmpegError as error:
                errors += 1
                self._trouble = f" ({reason(error)})"
        self.ended_early = True

    def _next_picture(self) -> tuple[float, VideoFrame]:
        """The next picture and its time; says at the end whether that comes early."""
        picture, self._pending = self._pending, None
        if picture is None:
            picture = next(self._pictures, None)
        if picture is None:
            self._look_at_end()
            raise StopIteration
        seconds = self._seconds(picture)
        if self._last_seconds is not None and (seconds is None or seconds <= self._last_seconds):
            self._retimed_frames += seconds is not None
            seconds = self._last_seconds + float(1 / self.frame_rate)
        self._last_seconds = seconds or 0.0
        self._last_duration = (picture.duration or 0) * float(picture.time_base or 0)
        return self._last_seconds, picture

    def _seconds(self, picture: VideoFrame) -> float | None:
        stamp = self._stamp(picture)
        if stamp is None or self._first_stamp is None or picture.time_base is None:
            return None
        return float((stamp - self._first_stamp) * picture.time_base)

    def _stamp(self, picture: VideoFrame) -> int | None:
        """When the picture is shown, in the stream's ticks."""
        # AVI files do not know in which order frames are shown; decoders do, and give the times of decoding in it.
        return picture.dts if self._container.format.name == "avi" else picture.pts

    def _look_at_end(self) -> None:
        if self._promised_seconds is None or self._last_seconds is None:
            return
        one_frame = float(1 / self.frame_rate)
        end = self._last_seconds + max(self._last_duration, one_frame)
        self.ended_early |= end + one_frame + 0.1 < float(self._promised_seconds)

    def _seek_behind(self, seconds: float) -> bool:
        """Whether the next picture is now the one behind that at ``seconds``."""
        tick = self._stream.time_base
        if tick is None or self._container.format.name == "avi":
            return False
        wanted = Fraction(seconds) + self.start_seconds
        try:
            self._container.seek(round((wanted - _SECONDS_BEFORE_SEEK) / tick), stream=self._stream)
        except av.FFmpegError:
            return False
        self._pending = None
        broken, self._pictures = self.broken_frames, self._decoded()
        for picture in self._pictures:
            found = self._seconds(picture)
            if found is None or found > seconds:
                break
            if found == seconds:
                self._last_seconds, self._last_duration = seconds, 0.0
                self.broken_frames = broken
                return True
        self.broken_frames = broken
        return False

    def _to_image(self, picture: VideoFrame) -> Image:
        height, width = self._stored_size
        if (picture.height, picture.width) != (height, width):
            self._rescaled_frames += 1
        matrix = picture.colorspace
        if matrix == _UNSPECIFIED_MATRIX and (picture.width >= 1280 or picture.height > 576):
            matrix = BT709  # what players assume of high definition; swscale would take the matrix of television
        rgb = picture.to_ndarray(format="rgb24", width=width, height=height, src_colorspace=matrix)
        return _turned(np.asarray(rgb, dtype=np.uint8), self._turn)


def _refuse_what_is_no_file(path: str) -> None:
    """Addresses too are refused, so that nobody is made to ask a server."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)) and not Path(path).exists():
        raise InputError(f"{path}: addresses are not opened; download the video and give its path")
    if not Path(path).exists():
        raise InputError(f"{path}: no such video; check the path")
    if not Path(path).is_file():
        raise InputError(f"{path}: not a file; give the path of a video")
    if Path(path).stat().st_size == 0:
        raise InputError(f"{path}: the video file is empty; fetch it again")


def open_container(path: str, name: str, *, camera: bool = False) -> InputContainer:
    """A video file opened by FFmpeg, or InputError naming it; nothing that the file refers to is opened."""
    try:
        if camera:
            return av.open(path, "r", format="v4l2")
        _refuse_what_is_no_file(path)
        # "file:" keeps FFmpeg from reading a name such as "concat:a" as an address.
        return av.open(f"file:{Path(path).absolute()}", "r", options=_OPEN_OPTIONS, metadata_errors="replace")
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        if camera:
            raise InputError(
                f"{name}: the camera cannot be opened ({reason(error)}); is another program using it?"
            ) from error
        raise InputError(f"{name}: no video that can be read ({reason(error)}); convert or fetch it again") from error


def _display_matrix(picture: VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the quarter turn and mirroring to show a picture with, each -1, 0 or 1; (1, 0, 0, 1) for none.

    A pixel at (x, y) is to be shown at (a x + c y, b x + d y), up to a shift. Other angles count as none.
    """
    side_data: object = picture.side_data  # PyAV declares a narrower type than it has
    for data in side_data if isinstance(side_data, SideDataContainer) else ():
        if data.type == SideDataType.DISPLAYMATRIX:
            numbers = np.frombuffer(bytes(data), dtype=np.int32)[[0, 1, 3, 4]] / 65536
            a, b, c, d = (int(number) for number in np.sign(np.where(np.abs(numbers) < 0.01, 0, numbers)))
            if (a and d and not b and not c) or (b and c and not a and not d):
                return a, b, c, d
    return 1, 0, 0, 1


def _turned(image: Image, turn: tuple[int, int, int, int]) -> Image:
    a, b, c, d = turn
    if a == 0:
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[::d, ::a])


def _seconds_of_tag(text: str) -> Fraction | None:
    """The duration that Matroska files give as ``01:02:03.456``, in seconds; None for anything else."""
    if not (match := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text)):
        return None
    return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3])


def reason(error: BaseException) -> str:
    """What an error of FFmpeg or of the operating system says, in one line without the path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
