"""Drawn videos keep the times, sizes and colours of what they were drawn from."""

from __future__ import annotations

import errno
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from video_files import make_video, numbered_picture

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.video import VideoReader
from uniformer_pose.prediction.video_writer import VideoWriter, video_writer


def copied(source: Path, target: Path, *, change: Callable[..., Any] | None = None) -> None:
    """Write the frames of a video into another, as drawing does."""
    with VideoReader(source) as reader:
        if change is not None:
            change(reader)
        with video_writer(target, reader) as writer:
            for frame in reader:
                picture = numbered_picture(frame.index, height=reader.height, width=reader.width)
                writer.write(picture, frame.seconds)


def frames_of(path: Path) -> list[Any]:
    with VideoReader(path) as reader:
        return list(reader)


def test_the_frames_come_back_with_their_pictures_times_and_rate_as_h264_that_tells_its_colours(tmp_path: Path) -> None:
    copied(make_video(tmp_path / "source.mp4", 35), tmp_path / "walk.mp4")
    with VideoReader(tmp_path / "walk.mp4") as reader:
        frames = list(reader)
        assert (reader.frame_rate, reader.num_frames, reader.remarks()) == (30, 35, [])
    assert [frame.seconds for frame in frames] == [number / 30 for number in range(35)]  # a constant rate exactly
    for number, frame in enumerate(frames):
        assert np.abs(frame.image.astype(int) - numbered_picture(number).astype(int)).mean() < 3
    with av.open(str(tmp_path / "walk.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.start_time) == ("h264", "yuv420p", 0)
        assert (stream.colorspace, stream.color_primaries, stream.color_trc, stream.color_range) == (1, 1, 1, 1)


@given(
    steps=st.lists(st.floats(0.001, 2.0), min_size=1, max_size=12),
    rate=st.sampled_from([Fraction(25), Fraction(24_000, 1001), Fraction(3_937_500, 202_099), Fraction(1, 60)]),
)
@settings(max_examples=12, deadline=None)
def test_a_variable_frame_rate_keeps_its_times(
    tmp_path_factory: pytest.TempPathFactory, steps: list[float], rate: Fraction
) -> None:
    folder = tmp_path_factory.mktemp("variable")
    times = np.cumsum([0.0, *steps]).tolist()
    with VideoReader(make_video(folder / "source.mp4", 1)) as reader:
        reader.frame_rate = rate
        with video_writer(folder / "walk.mp4", reader) as writer:
            for number, seconds in enumerate(times):
                writer.write(numbered_picture(number), seconds)
    np.testing.assert_allclose([frame.seconds for frame in frames_of(folder / "walk.mp4")], times, atol=6e-6)


@pytest.mark.parametrize(("height", "width"), [(47, 63), (48, 63), (47, 64), (1, 1), (301, 17)])
def test_odd_and_tiny_sizes_repeat_their_last_row_and_column(tmp_path: Path, height: int, width: int) -> None:
    def odd(reader: VideoReader) -> None:
        reader.height, reader.width = height, width

    copied(make_video(tmp_path / "source.mp4", 2), tmp_path / "odd.mp4", change=odd)
    image = frames_of(tmp_path / "odd.mp4")[0].image
    assert image.shape == (height + height % 2, width + width % 2, 3)
    if height > 2:
        assert np.abs(image[-1].astype(int) - numbered_picture(0)[-1, -1]).max() <= 6
        assert np.abs(image[:height, :width].astype(int) - numbered_picture(0, height=height, width=width)).mean() < 4


def test_pixels_that_are_not_square_stay_so(tmp_path: Path) -> None:
    def wide(reader: VideoReader) -> None:
        reader.pixel_aspect_ratio = Fraction(4, 3)

    copied(make_video(tmp_path / "source.mp4", 2), tmp_path / "wide.mp4", change=wide)
    with VideoReader(tmp_path / "wide.mp4") as reader:
        assert reader.pixel_aspect_ratio == Fraction(4, 3)


def test_nothing_lies_under_the_name_until_the_video_is_complete(tmp_path: Path) -> None:
    source, target = make_video(tmp_path / "source.mp4", 25), tmp_path / "walk.mp4"

    def write(interrupted: bool) -> None:
        with VideoReader(source) as reader, video_writer(target, reader) as writer:
            for frame in reader:
                writer.write(frame.image, frame.seconds)
                assert not target.exists()
            if interrupted:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["source.mp4"]
    write(False)
    assert target.exists()


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), av.error.ExternalError(1, "No space left on device")]
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object) -> None:
        raise error

    source = make_video(tmp_path / "source.mp4", 3)
    monkeypatch.setattr(VideoWriter, "finish", full)
    with pytest.raises(InputError, match=r"walk.mp4: cannot be written \(No space"):
        copied(source, tmp_path / "walk.mp4")
    assert [entry.name for entry in tmp_path.iterdir()] == ["source.mp4"]
