"""Frames with their times -> an H.264 video, which survives being interrupted.

Why a video is written in segments: what must hold is that a run that was killed and continued gives the same video as
one that was not. An encoder cannot be stopped and continued in the middle of a stream, because what it has seen decides
how it codes what follows. So a new encoder starts every few seconds, at the same frames in every run, and each segment
is a file of its own until all are joined, without coding anything anew, and the result appears under its name in one
step. Drawing the video anew from stored poses would need no segments, but repeats the decoding, drawing and encoding of
everything that was done; one fragmented file can be continued too, but not with the same bytes.
"""

from __future__ import annotations

import errno
import heapq
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import cv2
import numpy as np
from filelock import FileLock, Timeout

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.video import BT709, Image, VideoReader, open_container, reason

# isort: split
# Behind the module that says what to do where the package is missing.
import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

# Sound that plays from an mp4 file in browsers and players alike.
_AUDIO_CODECS = {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}

_AnyPacket: TypeAlias = "Packet[VideoStream] | Packet[AudioStream]"
_MIN_TICKS_PER_SECOND = 90_000
_LIMITED_RANGE = 1

# In the folder of segments: all of them in one file, for a while or for good.
_SO_FAR = "so_far.mp4"
_OWN_FILE = re.compile(r"\d{6,}(\.part)?\.mp4|\d{6,}\.json(\.part)?|settings\.json\.part|so_far\.mp4")


@dataclass(frozen=True)
class _Segment:
    """A file of the segments' folder, with the times of its first and last frame in ticks of the whole video."""

    path: Path
    first_tick: int
    last_tick: int


class VideoWriter:
    """Writes frames to an H.264 mp4 file, which appears under its name when it is complete.

    Images are (height, width, 3) uint8 RGB; H.264 stores even sizes, so an odd one repeats its last row or column.
    Each frame keeps its time to 6 microseconds, and exactly at a constant ``frame_rate``. The (first) sound of
    ``audio_from`` is copied as it is, from that video's first frame to the last written; if it cannot be, ``remarks()``
    says so.

    Until then the folder ``<name>.segments`` beside it holds segments of ``segment_frames`` frames, complete or in
    progress, each of which plays. ``close()`` joins them and removes the folder. ``abandon()``, which leaving the
    context with an exception calls, joins what is there to ``so_far.mp4`` in the folder, and keeps the segments.

    With ``resume`` complete segments are kept: ``resumed_frames`` in all, the last of them at ``resumed_seconds``.
    Whoever writes goes on with frame number ``resumed_frames`` (``VideoReader.start_at``) and with ``resumed_state``:
    what ``state`` returned when it was called, right behind the last frame of the last of them. That must be data which
    JSON holds, such as the states of tracker and smoother after exactly that frame. Then the video is the same, to the
    byte, as that of a run without interruption on the same machine.

    Raises InputError for a file that exists, unless ``overwrite``; segments of an earlier run, unless ``resume`` or
    ``overwrite``; segments with other settings; a second writer; and a disk that is full or not to be written to.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        height: int,
        width: int,
        frame_rate: Fraction | float,
        audio_from: str | Path | None = None,
        pixel_aspect_ratio: Fraction = Fraction(1),
        overwrite: bool = False,
        resume: bool = False,
        state: Callable[[], Any] | None = None,
        segment_frames: int = 250,
        constant_rate_factor: int = 20,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise InputError(f"{self.path}: videos are written as .mp4; give a name that ends so")
        if self.path.exists() and not overwrite:
            raise InputError(f"{self.path} exists; say overwrite=true, or give another folder")
        if "libx264" not in av.codecs_available:
            raise InputError("this build of FFmpeg has no libx264 to write H.264; install av from PyPI: pip install av")
        self.height, self.width = height, width
        self.frame_rate = max(Fraction(frame_rate).limit_denominator(1001), Fraction(1, 1001))
        if frame_rate <= 0:
            raise InputError(f"{self.path}: a frame rate of {frame_rate} cannot be; it must be above 0")
        # A whole number of ticks per frame, so that constant rates stay constant, and many, so that others survive.
        numerator = self.frame_rate.numerator
        self._tick = Fraction(1, numerator * -(-_MIN_TICKS_PER_SECOND // numerator))
        self._audio_from = None if audio_from is None else Path(audio_from)
        self._state = state
        self._segment_frames = segment_frames
        self._settings = {
            "height": height,
            "width": width,
            "frame_rate": str(self.frame_rate),
            "pixel_aspect_ratio": str(pixel_aspect_ratio),
            "segment_frames": segment_frames,
            "constant_rate_factor": constant_rate_factor,
            "av": av.__version__,
        }
        self._pixel_aspect_ratio = pixel_aspect_ratio
        self._crf = constant_rate_factor
        self._segment: OutputContainer | None = None
        self._audio_remark: str | None = None
        self._last_tick = -1
        self.num_frames = 0
        self.resumed_frames = 0
        self.resumed_seconds: float | None = None
        self.resumed_state: Any = None
        self._folder = self.path.with_name(f"{self.path.name}.segments")
        self._lock = FileLock(self._folder / "lock")
        self._look_at_audio()
        with self._one_line_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise InputError(f"{self.path}: another process is writing it; wait for its end") from error
            try:
                self._begin(overwrite=overwrite, resume=resume)
            except BaseException:
                self._lock.release()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(InputError):  # the first error is the one to hear of
                self.abandon()

    def write(self, image: Image, seconds: float) -> None:
        """Adds a frame, shown from ``seconds`` (since the first frame of the video) until the next one."""
        if image.shape != (self.height, self.width, 3) or image.dtype != np.uint8:
            raise ValueError(f"({self.height}, {self.width}, 3) uint8 is needed, not {image.shape} {image.dtype}")
        with self._one_line_errors():
            self._last_tick = max(self._last_tick + 1, round(Fraction(seconds) / self._tick))
            if self._segment is None:
                self._segment = self._new_segment(first_tick=self._last_tick)
            even = cv2.copyMakeBorder(image, 0, self.height % 2, 0, self.width % 2, cv2.BORDER_REPLICATE)
            picture = VideoFrame.from_ndarray(np.ascontiguousarray(even, dtype=np.uint8), format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=_LIMITED_RANGE)
            picture.pts, picture.time_base = self._last_tick - self._first_tick, self._tick
            self._segment.mux(self._encoder.encode(picture))
            self.num_frames += 1
            self._last_seconds = seconds
            if self.num_frames % self._segment_frames == 0:
                self._finish_segment()

    def close(self) -> None:
        """Completes the video: joins the segments under the video's name. Twice is as good as once."""
        if not self._lock.is_locked:
            return
        with self._one_line_errors(last=True):
            self._finish_segment()
            if not self._segments:
                self._clear()
                raise InputError(f"{self.path}: no frame was written, and a video without frames cannot be")
            self._join(self._segments)
            (self._folder / _SO_FAR).replace(self.path)
            self._clear()

    def abandon(self) -> None:
        """Stops half-way: what was written so far plays as ``so_far.mp4``, and can be continued with ``resume``."""
        with self._one_line_errors(last=True):
            segments = list(self._segments)
            with suppress(av.FFmpegError, OSError):  # what broke the writing may break its end too
                if self._close_segment():
                    segments.append(_Segment(self._part_of(len(segments)), self._first_tick, self._last_tick))
            if segments:
                self._join(segments)
            else:
                self._clear()

    def remarks(self) -> list[str]:
        """What could not be kept, one sentence each."""
        return [] if self._audio_remark is None else [self._audio_remark]

    def _begin(self, *, overwrite: bool, resume: bool) -> None:
        """Finds the complete segments of an earlier run, or makes room for new ones."""
        settings = self._folder / "settings.json"
        self._segments: list[_Segment] = []
        begun = [path for path in self._folder.iterdir() if path.name != "lock"]
        if begun and not (resume or overwrite):
            raise InputError(
                f"{self._folder} holds the begun video of an earlier run; continue it with resume=true, start anew "
                "with overwrite=true, or give another folder"
            )
        if begun and resume and settings.exists():
            if _read_json(settings) == self._settings:
                self._take_up_segments()
                return
            if not overwrite:
                raise InputError(
                    f"{self._folder} holds a video that was begun with other settings; continue it with the same, or "
                    "start anew with overwrite=true"
                )
        self._remove_segments(but=[])
        _write_json(settings, self._settings)

    def _take_up_segments(self) -> None:
        """All segments up to the first that is not there or damaged; from there on they are written again."""
        while True:
            path = self._folder / f"{len(self._segments):06d}.mp4"
            record = _read_json(path.with_suffix(".json"))
            if record is None or _count_packets(path) != record["num_frames"] - self.num_frames:
                break
            self._segments.append(_Segment(path, record["first_tick"], record["last_tick"]))
            self.num_frames = self.resumed_frames = record["num_frames"]
            self.resumed_seconds = record["last_seconds"]
            self.resumed_state = record["state"]
            self._last_tick = record["last_tick"]
        self._remove_segments(but=[path for s in self._segments for path in (s.path, s.path.with_suffix(".json"))])

    def _new_segment(self, *, first_tick: int) -> OutputContainer:
        segment = av.open(
            f"file:{self._part_of(len(self._segments)).absolute()}",
            "w",
            format="mp4",
            # In fragments of a second, so that a segment plays as far as it came.
            options={
                "movflags": "empty_moov+default_base_moof",
                "frag_duration": "1000000",
                "video_track_timescale": str(self._tick.denominator),
            },
        )
        encoder = segment.add_stream(
            "libx264",
            rate=self.frame_rate,
            # Without B-frames decoding order is display order: segments can be set end to end, and the first frame of
            # the video is at time 0 for every player.
            options={"preset": "veryfast", "crf": str(self._crf), "bf": "0"},
        )
        encoder.width, encoder.height = self.width + self.width % 2, self.height + self.height % 2
        encoder.pix_fmt = "yuv420p"
        context = encoder.codec_context
        encoder.time_base = context.time_base = self._tick
        context.gop_size = self._segment_frames
        context.sample_aspect_ratio = self._pixel_aspect_ratio
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = _LIMITED_RANGE
        self._encoder, self._first_tick = encoder, first_tick
        return segment

    def _finish_segment(self) -> None:
        """The segment in progress, if any, is complete; with its record it can be taken up from now on."""
        if not self._close_segment():
            return
        path = self._folder / f"{len(self._segments):06d}.mp4"
        record = {
            "num_frames": self.num_frames,
            "first_tick": self._first_tick,
            "last_tick": self._last_tick,
            "last_seconds": self._last_seconds,
            "state": None if self._state is None else self._state(),
        }
        _write_json(path.with_suffix(".json"), record)
        self._part_of(len(self._segments)).replace(path)
        self._segments.append(_Segment(path, self._first_tick, self._last_tick))

    def _close_segment(self) -> bool:
        """Whether there was a segment in progress."""
        if self._segment is None:
            return False
        segment, self._segment = self._segment, None
        try:
            segment.mux(self._encoder.encode(None))
        finally:
            segment.close()
        return True

    def _part_of(self, number: int) -> Path:
        return self._folder / f"{number:06d}.part.mp4"

    def _join(self, segments: list[_Segment]) -> None:
        """Writes ``so_far.mp4``: the segments end to end, and the sound if it can be kept."""
        if self._audio_from is not None:
            try:
                self._join_with(segments, self._audio_from)
            except (InputError, av.FFmpegError) as error:
                # Rather a video without sound than none, after what may have been hours.
                self._audio_remark = f"{self.path}: written without the sound of {self._audio_from} ({reason(error)})"
            else:
                return
        self._join_with(segments, None)

    def _join_with(self, segments: list[_Segment], audio_from: Path | None) -> None:
        one_frame = round(1 / self.frame_rate / self._tick)
        end = (segments[-1].last_tick + one_frame) * self._tick
        with ExitStack() as files:
            # The index of the frames before the frames, so that it plays while it is fetched.
            options = {"movflags": "faststart", "video_track_timescale": str(self._tick.denominator)}
            target = files.enter_context(
                av.open(f"file:{(self._folder / _SO_FAR).absolute()}", "w", format="mp4", options=options)
            )
            with open_container(str(segments[0].path), str(self.path)) as first:
                video = target.add_stream_from_template(first.streams.video[0])
            video.time_base = self._tick
            packets = _video_packets(segments, video, self._tick)
            if audio_from is not None:
                source = files.enter_context(open_container(str(audio_from), str(audio_from)))
                audio = target.add_stream_from_template(source.streams.audio[0])
                sound = _audio_packets(source, audio, begin=self._audio_start, end=self._audio_start + end)
                # By their times, so that neither waits in memory for the other.
                packets = heapq.merge(packets, sound, key=itemgetter(0))
            for _, packet in packets:
                target.mux_one(packet)

    def _look_at_audio(self) -> None:
        """Before the first frame, whether there is sound that can be copied."""
        if self._audio_from is None:
            return
        with VideoReader(self._audio_from) as reader:
            self._audio_start = reader.start_seconds
            codec = reader.audio_codec
        if codec is not None and codec not in _AUDIO_CODECS:
            self._audio_remark = f"{self.path}: written without sound, because mp4 players do not play {codec}"
        if codec not in _AUDIO_CODECS:
            self._audio_from = None

    def _remove_segments(self, *, but: list[Path]) -> None:
        """Removes what writers leave of segments, but these; nothing else."""
        for path in self._folder.iterdir():
            if _OWN_FILE.fullmatch(path.name) and path not in but:
                path.unlink()

    def _clear(self) -> None:
        self._remove_segments(but=[])
        (self._folder / "settings.json").unlink(missing_ok=True)
        # In this order: a lock that is removed after its release may be another process's by then.
        (self._folder / "lock").unlink(missing_ok=True)
        with suppress(OSError):  # somebody else's file lies in it
            self._folder.rmdir()
        self._lock.release()

    @contextmanager
    def _one_line_errors(self, *, last: bool = False) -> Iterator[None]:
        """Errors of disk and FFmpeg as InputError; after what is done last, another process may take over."""
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
            hint = "free some space and continue with resume=true" if full else "give another folder, or another size"
            raise InputError(f"{self.path}: cannot be written ({reason(error)}); {hint}") from error
        finally:
            if last:
                self._lock.release()


def _video_packets(
    segments: list[_Segment], stream: VideoStream, tick: Fraction
) -> Iterator[tuple[Fraction, _AnyPacket]]:
    """The packets of the segments with their times in the joined video."""
    for segment in segments:
        with open_container(str(segment.path), str(segment.path)) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.pts is None:  # the one that marks the end
                    continue
                # Segments begin at 0, and count in the same ticks.
                packet.pts = packet.dts = packet.pts + segment.first_tick
                packet.stream = stream
                yield packet.pts * tick, packet


def _audio_packets(
    source: InputContainer, stream: AudioStream, *, begin: Fraction, end: Fraction
) -> Iterator[tuple[Fraction, _AnyPacket]]:
    """The packets of the source's sound from ``begin`` to ``end`` on its clock, with times since ``begin``."""
    audio = source.streams.audio[0]
    for other in source.streams:
        if other is not audio:
            other.discard = Discard.all  # spares reading the pictures
    for packet in source.demux(audio):
        if packet.pts is None or packet.time_base is None:
            continue
        seconds = packet.pts * packet.time_base
        if seconds >= end:
            return
        if seconds >= begin:
            packet.pts = packet.dts = packet.pts - round(begin / packet.time_base)
            packet.stream = stream
            yield seconds - begin, packet


def _write_json(path: Path, content: Any) -> None:
    """In one step: there is the whole file or none."""
    part = path.with_suffix(".json.part")
    part.write_text(json.dumps(content), encoding="utf-8")
    part.replace(path)


def _read_json(path: Path) -> Any:
    """What the file holds, None where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _count_packets(path: Path) -> int:
    """How many frames lie in the file, without decoding them; 0 where it is no video."""
    try:
        with open_container(str(path), str(path)) as container:
            return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))
    except (InputError, av.FFmpegError, IndexError):
        return 0
