"""Small video files with known frames, for the tests of reading and writing videos."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH = 48, 64
TICK = Fraction(1, 90_000)


def numbered_picture(number: int, *, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Grey of 16 shades that tell the number modulo 16, with a red square in the upper left corner."""
    picture = np.full((height, width, 3), 8 + 15 * (number % 16), np.uint8)
    picture[: height // 3, : width // 4] = (230, 20, 20)
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number modulo 16 that a picture shows, wherever its red corner is."""
    return round((float(np.median(picture)) - 8) / 15) % 16


def make_video(
    path: Path,
    num_frames: int = 30,
    *,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    display_matrix: Sequence[int] | None = None,
    audio: str | None = None,
    b_frames: int = 2,
    gop_size: int = 10,
    height: int = HEIGHT,
    width: int = WIDTH,
    options: dict[str, str] | None = None,
) -> Path:
    """Numbered pictures at 30 frames per second, or at ``times``; sound is a sine of the same length."""
    times = [number / 30 for number in range(num_frames)] if times is None else times
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(codec, rate=30)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.time_base = Fraction(1, 30) if path.suffix == ".avi" else TICK
        video.codec_context.gop_size = gop_size
        video.codec_context.max_b_frames = b_frames
        if display_matrix is not None:
            video.set_display_matrix(display_matrix)
        sound = None if audio is None else container.add_stream(audio, rate=48_000, layout="mono")
        for number, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number, height=height, width=width), format="rgb24")
            frame.time_base = video.codec_context.time_base
            frame.pts = round(Fraction(seconds) / frame.time_base)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            sine = np.sin(np.arange(int(48_000 * (times[-1] + 1 / 30))) * (2 * np.pi * 440 / 48_000))
            frame = av.AudioFrame.from_ndarray((8000 * sine).astype(np.int16)[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 48_000, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def packets_in(path: Path) -> list[tuple[int, int]]:
    """Place and size in bytes of each video packet of a file, as they lie in it."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def cut_off(path: Path, *, at: float) -> Path:
    """The file without what lies behind this part of it."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * at)])
    return path
