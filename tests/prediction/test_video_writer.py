from __future__ import annotations

import errno
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from video_files import HEIGHT, WIDTH, cut_off, make_video, number_of, numbered_picture

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.video import VideoReader
from uniformer_pose.prediction.video_writer import VideoWriter

RATE = Fraction(30_000, 1001)


def writer_of(path: Path, **arguments: Any) -> VideoWriter:
    return VideoWriter(
        path, **({"height": HEIGHT, "width": WIDTH, "frame_rate": RATE, "segment_frames": 10} | arguments)
    )


def times_of(num_frames: int) -> list[float]:
    return [float(number / RATE) for number in range(num_frames)]


def write(writer: VideoWriter, times: Sequence[float], *, until: int | None = None) -> None:
    """Writes what is missing of the numbered pictures; at ``until`` something goes wrong."""
    with writer:
        for number in range(writer.resumed_frames, len(times)):
            if number == until:
                raise KeyboardInterrupt
            writer.write(numbered_picture(number, height=writer.height, width=writer.width), times[number])


def write_half(writer: VideoWriter, times: Sequence[float], *, until: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(writer, times, until=until)


def frames_of(path: Path) -> list[Any]:
    with VideoReader(path) as reader:
        return list(reader)


def test_the_frames_come_back_with_their_pictures_times_and_rate(tmp_path: Path) -> None:
    path = tmp_path / "walk.mp4"
    write(writer_of(path), times_of(35))
    with VideoReader(path) as reader:
        frames = list(reader)
        assert (reader.frame_rate, reader.num_frames, reader.remarks()) == (RATE, 35, [])
    assert [frame.seconds for frame in frames] == times_of(35)  # a constant rate exactly
    for number, frame in enumerate(frames):
        assert np.abs(frame.image.astype(int) - numbered_picture(number).astype(int)).mean() < 3


def test_it_is_h264_that_every_player_knows_and_tells_its_colours(tmp_path: Path) -> None:
    write(writer_of(tmp_path / "walk.mp4"), times_of(3))
    with av.open(str(tmp_path / "walk.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.start_time) == ("h264", "yuv420p", 0)
        assert (stream.colorspace, stream.color_primaries, stream.color_trc, stream.color_range) == (1, 1, 1, 1)


@given(
    steps=st.lists(st.floats(0.001, 2.0), min_size=1, max_size=12),
    rate=st.sampled_from(
        [Fraction(25), Fraction(24_000, 1001), Fraction(3_937_500, 202_099), 29.97, 12.5, 1000, 1 / 60]
    ),
)
@settings(max_examples=12, deadline=None)
def test_a_variable_frame_rate_keeps_its_times_across_segments(
    tmp_path_factory: pytest.TempPathFactory, steps: list[float], rate: float
) -> None:
    path = tmp_path_factory.mktemp("variable") / "walk.mp4"
    times = np.cumsum([0.0, *steps]).tolist()
    write(writer_of(path, frame_rate=rate, segment_frames=4), times)
    np.testing.assert_allclose([frame.seconds for frame in frames_of(path)], times, atol=6e-6)


@pytest.mark.parametrize(("height", "width"), [(47, 63), (48, 63), (47, 64), (1, 1), (2, 2), (301, 17)])
def test_odd_and_tiny_sizes_repeat_their_last_row_and_column(tmp_path: Path, height: int, width: int) -> None:
    write(writer_of(tmp_path / "odd.mp4", height=height, width=width), times_of(2))
    image = frames_of(tmp_path / "odd.mp4")[0].image
    assert image.shape == (height + height % 2, width + width % 2, 3)
    if height > 2:
        assert np.abs(image[-1].astype(int) - numbered_picture(0)[-1, -1]).max() <= 6
        assert np.abs(image[:height, :width].astype(int) - numbered_picture(0, height=height, width=width)).mean() < 4


def test_pixels_that_are_not_square_stay_so(tmp_path: Path) -> None:
    write(writer_of(tmp_path / "wide.mp4", pixel_aspect_ratio=Fraction(4, 3)), times_of(2))
    with VideoReader(tmp_path / "wide.mp4") as reader:
        assert reader.pixel_aspect_ratio == Fraction(4, 3)


def test_nothing_lies_under_the_name_until_the_video_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "walk.mp4"
    with writer_of(path) as writer:
        for number, seconds in enumerate(times_of(25)):
            writer.write(numbered_picture(number), seconds)
            assert not path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["walk.mp4"]


def test_an_image_of_another_size_is_the_callers_mistake(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"\(48, 64, 3\) uint8 is needed, not \(48, 60, 3\)"),
        writer_of(tmp_path / "walk.mp4") as writer,
    ):
        writer.write(numbered_picture(0, width=60), 0.0)


# --- sound ---


def samples_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "aac"), ("mkv", "libopus"), ("ts", "aac"), ("avi", "libmp3lame")]
)
def test_the_sound_of_the_source_is_copied(tmp_path: Path, container: str, codec: str) -> None:
    source = make_video(tmp_path / f"source.{container}", 60, audio=codec)
    path = tmp_path / "walk.mp4"
    with VideoReader(source) as reader, writer_of(path, frame_rate=reader.frame_rate, audio_from=source) as writer:
        for frame in reader:
            writer.write(frame.image, frame.seconds)
    assert writer.remarks() == []
    samples = samples_of(path)
    assert len(samples) / 48_000 == pytest.approx(2.0, abs=0.1)
    loudness = np.abs(samples[4800:-9600].astype(np.float64))
    assert loudness.max() > 0
    with VideoReader(path) as reader:
        assert reader.start_seconds == 0
        assert [number_of(frame.image) for frame in reader] == [number % 16 for number in range(60)]


def first_sound_behind_first_frame(path: Path) -> float:
    with av.open(str(path)) as container:
        frames = {kind: next(container.decode(**{kind: 0})) for kind in ("video",)}
        container.seek(0)
        return float(next(container.decode(audio=0)).time - frames["video"].time)


def test_sound_and_picture_stay_together_where_the_source_begins_late(tmp_path: Path) -> None:
    # Pictures begin a second behind the sound; in the result both begin with the first picture.
    source = make_video(tmp_path / "late.mp4", times=[1 + number / 30 for number in range(60)], audio="aac")
    with VideoReader(source) as reader, writer_of(tmp_path / "walk.mp4", frame_rate=30, audio_from=source) as writer:
        assert float(reader.start_seconds) == pytest.approx(1.0)
        for frame in reader:
            writer.write(frame.image, frame.seconds)
    assert 0 <= first_sound_behind_first_frame(tmp_path / "walk.mp4") < 1024 / 48_000
    assert len(samples_of(tmp_path / "walk.mp4")) / 48_000 == pytest.approx(2.0, abs=0.1)


def test_the_sound_ends_with_the_last_frame(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", 90, audio="aac")
    write(writer_of(tmp_path / "walk.mp4", frame_rate=30, audio_from=source), [number / 30 for number in range(30)])
    assert len(samples_of(tmp_path / "walk.mp4")) / 48_000 == pytest.approx(1.0, abs=0.05)


def test_sound_that_mp4_players_do_not_play_is_left_out_and_said(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.avi", 10, audio="pcm_s16le")
    writer = writer_of(tmp_path / "walk.mp4", audio_from=source)
    write(writer, times_of(10))
    assert writer.remarks() == [
        f"{tmp_path / 'walk.mp4'}: written without sound, because mp4 players do not play pcm_s16le"
    ]
    with VideoReader(tmp_path / "walk.mp4") as reader:
        assert (reader.num_frames, reader.has_audio) == (10, False)


def test_a_source_without_sound_is_nothing_to_remark(tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "walk.mp4", audio_from=make_video(tmp_path / "mute.mp4", 3))
    write(writer, times_of(3))
    assert writer.remarks() == []


def test_a_source_that_went_away_costs_the_sound_and_not_the_video(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", 10, audio="aac")
    writer = writer_of(tmp_path / "walk.mp4", audio_from=source)
    source.unlink()
    write(writer, times_of(10))
    assert "written without the sound of" in writer.remarks()[0]
    assert len(frames_of(tmp_path / "walk.mp4")) == 10


# --- interruptions ---

KILLED_RUN = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_video_writer import *
state = {{}}
writer = writer_of(Path({path!r}), state=lambda: state)
for number, seconds in enumerate(times_of(70)):
    state["behind"] = number
    if number == 47:
        os.kill(os.getpid(), signal.SIGKILL)
    writer.write(numbered_picture(number), seconds)
"""


def test_a_run_that_was_killed_and_continued_gives_the_same_file(tmp_path: Path) -> None:
    write(writer_of(tmp_path / "whole.mp4", state=lambda: 0), times_of(70))
    path = tmp_path / "killed.mp4"
    script = KILLED_RUN.format(tests=str(Path(__file__).parent), path=str(path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    assert not path.exists()
    assert len(frames_of(tmp_path / "killed.mp4.segments" / "000003.mp4")) == 10  # what is complete plays

    writer = writer_of(path, resume=True, state=lambda: 0)
    assert (writer.resumed_frames, writer.resumed_state) == (40, {"behind": 39})
    assert writer.resumed_seconds == times_of(70)[39]
    write(writer, times_of(70))
    assert path.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert {entry.name for entry in tmp_path.iterdir()} == {"killed.mp4", "whole.mp4"}


@pytest.mark.parametrize("until", [1, 9, 10, 11, 25, 34])
def test_an_abandoned_video_plays_so_far_and_gives_the_same_file_when_continued(tmp_path: Path, until: int) -> None:
    times = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.1, 35)).tolist()
    write(writer_of(tmp_path / "whole.mp4"), times)
    path = tmp_path / "walk.mp4"
    write_half(writer_of(path), times, until=until)
    so_far = frames_of(tmp_path / "walk.mp4.segments" / "so_far.mp4")
    assert [number_of(frame.image) for frame in so_far] == [number % 16 for number in range(until)]
    assert not path.exists()
    write(writer_of(path, resume=True), times)
    assert path.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_what_was_written_so_far_has_its_sound(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", 60, audio="aac")
    writer = writer_of(tmp_path / "walk.mp4", frame_rate=30, audio_from=source)
    write_half(writer, [number / 30 for number in range(60)], until=30)
    assert len(samples_of(tmp_path / "walk.mp4.segments" / "so_far.mp4")) / 48_000 == pytest.approx(1.0, abs=0.05)


def test_killed_again_and_again_it_still_gives_the_same_file(tmp_path: Path) -> None:
    write(writer_of(tmp_path / "whole.mp4"), times_of(45))
    for until in (13, 24, 25, 44):
        write_half(writer_of(tmp_path / "walk.mp4", resume=True), times_of(45), until=until)
    write(writer_of(tmp_path / "walk.mp4", resume=True), times_of(45))
    assert (tmp_path / "walk.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_run_killed_while_joining_joins_when_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(writer_of(tmp_path / "whole.mp4"), times_of(25))
    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "_join", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write(writer_of(tmp_path / "walk.mp4"), times_of(25))
    writer = writer_of(tmp_path / "walk.mp4", resume=True)
    assert writer.resumed_frames == 25
    writer.close()
    assert (tmp_path / "walk.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_reader_and_writer_together_go_on_where_they_stopped(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mkv", 60, audio="aac")

    def copy(path: Path, *, until: int | None = None) -> None:
        with (
            VideoReader(source) as reader,
            writer_of(path, frame_rate=reader.frame_rate, audio_from=source, resume=True) as writer,
        ):
            reader.start_at(writer.resumed_frames, after_seconds=writer.resumed_seconds)
            for frame in reader:
                if frame.index == until:
                    raise KeyboardInterrupt
                writer.write(frame.image, frame.seconds)

    copy(tmp_path / "whole.mp4")
    with pytest.raises(KeyboardInterrupt):
        copy(tmp_path / "walk.mp4", until=38)
    copy(tmp_path / "walk.mp4")
    assert (tmp_path / "walk.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


# --- what is there already ---


def test_an_existing_video_is_not_overwritten_unless_one_says_so(tmp_path: Path) -> None:
    path = tmp_path / "walk.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"walk\.mp4 exists; say overwrite=true"):
        writer_of(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["walk.mp4"]
    writer = writer_of(path, overwrite=True)
    write_half(writer, times_of(20), until=15)
    assert path.read_bytes() == b"precious"  # until the new one is complete
    write(writer_of(path, overwrite=True), times_of(20))
    assert len(frames_of(path)) == 20


def test_a_begun_video_is_neither_continued_nor_removed_silently(tmp_path: Path) -> None:
    write_half(writer_of(tmp_path / "walk.mp4"), times_of(30), until=25)
    with pytest.raises(InputError, match="holds the begun video of an earlier run; continue it with resume=true"):
        writer_of(tmp_path / "walk.mp4")
    writer = writer_of(tmp_path / "walk.mp4", overwrite=True)
    assert writer.resumed_frames == 0
    writer.abandon()


@pytest.mark.parametrize("other", [{"height": 50}, {"frame_rate": 25}, {"segment_frames": 20}])
def test_a_video_begun_with_other_settings_is_not_continued(tmp_path: Path, other: dict[str, Any]) -> None:
    write_half(writer_of(tmp_path / "walk.mp4"), times_of(30), until=25)
    with pytest.raises(InputError, match="begun with other settings"):
        writer_of(tmp_path / "walk.mp4", resume=True, **other)
    writer = writer_of(tmp_path / "walk.mp4", resume=True, overwrite=True, **other)
    assert writer.resumed_frames == 0
    writer.abandon()


@pytest.mark.parametrize("damage", ["cut off", "no record", "half a record", "missing", "empty"])
def test_a_damaged_segment_and_all_behind_it_are_written_again(tmp_path: Path, damage: str) -> None:
    write(writer_of(tmp_path / "whole.mp4"), times_of(40))
    write_half(writer_of(tmp_path / "walk.mp4"), times_of(40), until=35)
    segment = tmp_path / "walk.mp4.segments" / "000001.mp4"
    record = segment.with_suffix(".json")
    {
        "cut off": lambda: cut_off(segment, at=0.7),
        "no record": record.unlink,
        "half a record": lambda: cut_off(record, at=0.5),
        "missing": segment.unlink,
        "empty": lambda: segment.write_bytes(b""),
    }[damage]()
    writer = writer_of(tmp_path / "walk.mp4", resume=True)
    assert writer.resumed_frames == 10
    write(writer, times_of(40))
    assert (tmp_path / "walk.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_segments_whose_settings_are_unknown_are_not_continued(tmp_path: Path) -> None:
    write_half(writer_of(tmp_path / "walk.mp4"), times_of(30), until=25)
    (tmp_path / "walk.mp4.segments" / "settings.json").write_text("{")
    with pytest.raises(InputError, match="begun with other settings"):
        writer_of(tmp_path / "walk.mp4", resume=True)


def test_two_writers_of_one_video_are_refused(tmp_path: Path) -> None:
    first = writer_of(tmp_path / "walk.mp4")
    first.write(numbered_picture(0), 0.0)
    with pytest.raises(InputError, match="another process is writing it"):
        writer_of(tmp_path / "walk.mp4", resume=True)
    first.close()
    assert len(frames_of(tmp_path / "walk.mp4")) == 1


def test_files_of_others_in_the_folder_stay(tmp_path: Path) -> None:
    folder = tmp_path / "walk.mp4.segments"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    write(writer_of(tmp_path / "walk.mp4", overwrite=True), times_of(12))
    assert [entry.name for entry in folder.iterdir()] == ["notes.txt"]


def test_closing_twice_is_as_good_as_once(tmp_path: Path) -> None:
    with writer_of(tmp_path / "walk.mp4") as writer:
        writer.write(numbered_picture(0), 0.0)
        writer.close()
    assert len(frames_of(tmp_path / "walk.mp4")) == 1


def test_a_video_without_frames_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no frame was written"), writer_of(tmp_path / "walk.mp4"):
        pass
    with pytest.raises(KeyboardInterrupt), writer_of(tmp_path / "walk.mp4"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


# --- what cannot be written ---


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("walk.avi", {}, r"videos are written as \.mp4"),
        ("walk.mp4", {"frame_rate": 0}, "a frame rate of 0 cannot be"),
        ("walk.mp4", {"frame_rate": -5.0}, "a frame rate of -5.0 cannot be"),
        ("file/walk.mp4", {}, r"cannot be written \(.*(Not a directory|File exists)"),
    ],
)
def test_a_target_that_cannot_be_is_one_line(
    tmp_path: Path, name: str, arguments: dict[str, Any], message: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=message) as caught:
        writer_of(tmp_path / name, **arguments)
    assert "\n" not in str(caught.value)


def test_a_size_that_h264_cannot_hold_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"walk\.mp4: cannot be written"):
        write(writer_of(tmp_path / "walk.mp4", height=2, width=20_000), times_of(1))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_what_is_complete_can_be_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(writer_of(tmp_path / "whole.mp4"), times_of(30))
    path = tmp_path / "walk.mp4"
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "000002.mp4":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(InputError, match=r"No space left on device\); free some space and continue"):
            write(writer_of(path), times_of(30))
    writer = writer_of(path, resume=True)
    assert writer.resumed_frames == 20
    write(writer, times_of(30))
    assert path.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_disk_that_is_full_in_the_middle_of_a_segment_is_one_line(tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "walk.mp4")
    (tmp_path / "walk.mp4.segments" / "000000.part.mp4").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"walk\.mp4: cannot be written \(No space left on device\)"):
        write(writer, times_of(30))


def test_the_state_is_taken_right_behind_the_last_frame_of_a_segment(tmp_path: Path) -> None:
    written: list[int] = []
    asked: list[int] = []
    writer = writer_of(tmp_path / "walk.mp4", state=lambda: asked.append(len(written)) or {"frames": len(written)})
    for number, seconds in enumerate(times_of(27)):
        written.append(number)
        writer.write(numbered_picture(number), seconds)
    writer.abandon()
    assert asked == [10, 20]
    record = json.loads((tmp_path / "walk.mp4.segments" / "000001.json").read_text())
    assert (record["num_frames"], record["state"]) == (20, {"frames": 20})


@pytest.mark.slow
@pytest.mark.long
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    peaks = {}
    with writer_of(tmp_path / "long.mp4", height=120, width=160, segment_frames=250) as writer:
        for number in range(5_000):
            writer.write(numbered_picture(number, height=120, width=160), number / 30)
            if number in (1000, 4_999):
                peaks[number] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peaks[4_999] - peaks[1000] < 20_000  # KiB
    before_reading = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert before_reading - peaks[4_999] < 20_000  # joining
    with VideoReader(tmp_path / "long.mp4") as reader:
        assert sum(1 for _ in reader) == 5_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_reading < 20_000
