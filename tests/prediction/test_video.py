from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import HEIGHT, WIDTH, cut_off, make_video, number_of, numbered_picture, packets_in

from uniformer_pose.errors import InputError
from uniformer_pose.prediction import video
from uniformer_pose.prediction.video import VideoReader

CONTAINERS = ("mp4", "mkv", "ts", "avi")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same 60 frames, and a sound, in each container."""
    folder = tmp_path_factory.mktemp("videos")
    for container in CONTAINERS:
        make_video(folder / f"video.{container}", 60, audio="libmp3lame")
    return folder


@pytest.mark.parametrize("container", CONTAINERS)
def test_frames_come_in_the_order_they_are_shown_with_their_numbers_and_times(videos: Path, container: str) -> None:
    with VideoReader(videos / f"video.{container}") as reader:
        assert (reader.height, reader.width) == (HEIGHT, WIDTH)
        assert (reader.frame_rate, reader.num_frames) == (30, 60 if container in ("mp4", "avi") else None)
        frames = list(reader)
        assert reader.remarks() == []
    assert [frame.index for frame in frames] == list(range(60))
    assert [number_of(frame.image) for frame in frames] == [number % 16 for number in range(60)]
    # Matroska keeps milliseconds.
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(60) / 30, atol=1e-3)


@pytest.mark.parametrize("start", [0.0, 5.0])
def test_a_variable_frame_rate_keeps_its_times_from_0_on(tmp_path: Path, start: float) -> None:
    times = np.cumsum([0, 0.01, 0.2, 0.03, 0.5, 0.04, 0.04, 1.0])
    with VideoReader(make_video(tmp_path / "variable.mp4", times=(start + times).tolist())) as reader:
        np.testing.assert_allclose([frame.seconds for frame in reader], times, atol=1e-5)


ONE = 65536
# How each of the eight ways to hold a camera shows a picture, in terms of NumPy; (x, y) is shown at (ax + cy, bx + dy).
TURNS = {
    "upright": ((1, 0, 0, 1), lambda image: image),
    "quarter turn left": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "upside down": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "quarter turn right": ((0, 1, -1, 0), lambda image: np.rot90(image, 3)),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "mirrored upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("turn", TURNS)
def test_rotation_and_mirroring_of_the_file_are_applied(tmp_path: Path, turn: str) -> None:
    (a, b, c, d), expected = TURNS[turn]
    matrix = [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]
    path = make_video(tmp_path / "turned.mp4", 2, display_matrix=matrix)
    with VideoReader(path) as reader:
        image = next(iter(reader)).image
        assert image.shape == (reader.height, reader.width, 3)
        assert np.abs(image.astype(int) - expected(numbered_picture(0)).astype(int)).mean() < 4


@pytest.mark.parametrize("entries", [(1, 0, 0, 0), (0, 0, 0, 0), (0.7, 0.7, -0.7, 0.7)])
def test_a_matrix_that_is_no_quarter_turn_counts_as_none(tmp_path: Path, entries: tuple[float, ...]) -> None:
    a, b, c, d = (int(entry * ONE) for entry in entries)
    path = make_video(tmp_path / "odd.mp4", 2, display_matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30])
    with VideoReader(path) as reader:
        assert next(iter(reader)).image.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("damage", ["zeros", "noise"])
def test_behind_broken_packets_decoding_goes_on_and_they_are_counted(tmp_path: Path, damage: str) -> None:
    path = make_video(tmp_path / "broken.mp4", 60, b_frames=0)
    data = bytearray(path.read_bytes())
    for place, size in packets_in(path)[22:25]:
        noise = np.random.default_rng(0).integers(0, 256, size - 5, dtype=np.uint8).tobytes()
        data[place + 5 : place + size] = bytes(size - 5) if damage == "zeros" else noise
    path.write_bytes(data)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert 1 <= reader.broken_places <= 3
        assert f"broken in {reader.broken_places} places" in reader.remarks()[0]
        assert not reader.ended_early
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert 50 <= len(frames) < 60
    # What follows has its own times and pictures: nothing has moved up.
    assert [number_of(frame.image) for frame in frames[-20:]] == [number % 16 for number in range(40, 60)]
    np.testing.assert_allclose([frame.seconds for frame in frames[-20:]], np.arange(40, 60) / 30, atol=1e-4)


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi"])
def test_a_video_that_ends_early_gives_what_is_there_and_says_so(tmp_path: Path, container: str) -> None:
    options = {"movflags": "faststart"} if container == "mp4" else None
    path = cut_off(make_video(tmp_path / f"cut.{container}", 150, options=options), at=0.6)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert reader.ended_early
        assert f"the video ends early, after {len(frames)}" in reader.remarks()[-1]
    assert 40 < len(frames) < 120
    assert [number_of(frame.image) for frame in frames[:20]] == [number % 16 for number in range(20)]


def test_frames_that_change_their_size_are_scaled_to_the_first(tmp_path: Path) -> None:
    small, large = tmp_path / "small.ts", tmp_path / "large.ts"
    make_video(small, 10, b_frames=0)
    make_video(large, times=[number / 30 for number in range(10, 20)], b_frames=0, height=96, width=128)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with VideoReader(joined) as reader:
        frames = list(reader)
        assert {frame.image.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
        assert "10 frames had another size and were scaled to 48x64" in " ".join(reader.remarks())
    seconds = [frame.seconds for frame in frames]
    assert len(seconds) == 20
    assert all(np.diff(seconds) > 0)


def test_time_goes_on_where_the_clock_of_a_file_jumps_back(tmp_path: Path) -> None:
    once = make_video(tmp_path / "once.ts", 10, b_frames=0).read_bytes()
    twice = tmp_path / "twice.ts"
    twice.write_bytes(once + once)
    with VideoReader(twice) as reader:
        seconds = [frame.seconds for frame in reader]
        assert "10 frames were out of order in time" in reader.remarks()[0]
    np.testing.assert_allclose(seconds, np.arange(20) / 30, atol=1e-3)


def write_sound_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_zero_frames(path: Path) -> None:
    """A header that promises pictures, with packets none of which can be decoded."""
    make_video(path, 5)
    data = bytearray(path.read_bytes())
    for place, size in packets_in(path):
        data[place : place + size] = bytes(size)
    path.write_bytes(data)


BAD_FILES = {
    "web page": (lambda path: path.write_text("<html>not found</html>"), "no video that can be read"),
    "empty": (lambda path: path.write_bytes(b""), "no video that can be read"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "no video that can be read"),
    "sound only": (write_sound_only, "there is no video in it"),
    "zero frames": (write_zero_frames, r"no frame of it can be decoded \(Invalid data"),
    "a folder": (lambda path: path.mkdir(), "no such file"),
    "a pipe": (lambda path: os.mkfifo(path), "no such file"),
    "missing": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_what_is_no_video_is_one_line_that_names_the_file(tmp_path: Path, kind: str) -> None:
    write, message = BAD_FILES[kind]
    path = tmp_path / "bad.mp4"
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        VideoReader(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/a.mp4", "https://example.org/a.mp4", "rtsp://camera/1", "tcp://127.0.0.1:9"]
)
def test_addresses_are_refused(address: str) -> None:
    with pytest.raises(InputError, match="addresses are not opened"):
        VideoReader(address)


@pytest.mark.parametrize("name", ["concat:a.mp4", "a%03d.mp4", "subfile,,start,0,end,9,,:a.mp4", "-i.mp4"])
def test_a_name_that_means_something_to_ffmpeg_is_just_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make_video(tmp_path / "video.mp4", 3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with VideoReader(name) as reader:
        assert len(list(reader)) == 3


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{video}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{video}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_that_names_other_files_is_refused(tmp_path: Path, kind: str) -> None:
    other = make_video(tmp_path / "other.ts", 3)
    playlist = tmp_path / "playlist.mp4"
    playlist.write_text(PLAYLISTS[kind].format(video=other))
    with pytest.raises(InputError, match="no video that can be read"):
        VideoReader(playlist)


def test_a_codec_that_nobody_knows_is_one_line(tmp_path: Path) -> None:
    path = make_video(tmp_path / "odd.mp4", 3)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9"))
    with pytest.raises(InputError, match=r"odd\.mp4: the video has a codec that FFmpeg does not know"):
        VideoReader(path)


def test_frames_with_too_many_pixels_are_refused_before_they_are_decoded(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match=r"frames of 48x64 pixels \(height x width\) are more than the 1000 "):
        VideoReader(videos / "video.mp4")


def test_without_pyav_one_line_says_what_to_install() -> None:
    script = "import sys; sys.modules['av'] = None\nimport uniformer_pose.prediction.video"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "InputError: videos need the package av; install it with: pip install 'uniformer-pose[video]'" in done.stderr


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    path = make_video(tmp_path / "long.mp4", 600, height=240, width=320)
    with VideoReader(path) as reader:
        peaks = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss for _ in reader]
    # In KiB; the frames between, had they been kept, are 90,000.
    assert peaks[599] - peaks[200] < 8000
