"""The kept index of large annotation files: never out of date, never in the way."""

import json
import logging
import multiprocessing
import os
import stat
import time
from pathlib import Path

import numpy as np
import pytest

from uniformer_pose.data import annotation_cache, coco
from uniformer_pose.data.annotation_cache import digest_of, remembered_arrays
from uniformer_pose.data.coco import PersonInstances, read_detections, read_ground_truth
from uniformer_pose.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, in which the smallest file is worth an entry."""
    monkeypatch.setenv("UNIFORMER_POSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(coco, "WORTH_KEEPING", 0)
    return tmp_path / "cache" / "annotations"


@pytest.fixture
def parsed(monkeypatch):
    """How many files have been parsed so far."""
    files: list[Path] = []
    original = coco._needed_fields

    def counted(data, file, fields):
        files.append(file)
        return original(data, file, fields)

    monkeypatch.setattr(coco, "_needed_fields", counted)
    return files


def assert_same(one: PersonInstances, other: PersonInstances) -> None:
    assert vars(one).keys() == vars(other).keys()
    for name, value in vars(one).items():
        if isinstance(value, np.ndarray):
            assert value.dtype == getattr(other, name).dtype
            assert np.array_equal(value, getattr(other, name)), name
        else:
            assert value == getattr(other, name), name


def entry_of(cache: Path) -> Path:
    (entry,) = cache.glob("*.npz")
    return entry


def test_people_and_detections_from_the_index_are_those_from_the_file(tiny_coco, parsed):
    tiny_coco.annotation(12)["iscrowd"] = 1
    tiny_coco.content["info"] = {"image_orientation": "displayed"}
    people, boxes = tiny_coco.read(), tiny_coco.read_detections(score_threshold=0.1)
    assert people.image_orientation == boxes.image_orientation == "displayed"
    assert len(parsed) == 3
    assert_same(tiny_coco.read(), people)
    assert_same(tiny_coco.read_detections(score_threshold=0.1), boxes)
    assert len(parsed) == 3
    assert people.summary() == "people.json, category person: kept 3 of 4 annotations in 3 images (left out: 1 crowd)"


def test_a_file_changed_without_another_size_or_time_is_read_anew(tiny_coco, parsed):
    tiny_coco.read()
    before = tiny_coco.annotation_file.stat()
    tiny_coco.annotation(11)["bbox"][0] = 7.0
    tiny_coco.write()
    os.utime(tiny_coco.annotation_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert tiny_coco.annotation_file.stat().st_size == before.st_size
    people = read_ground_truth(tiny_coco.annotation_file, tiny_coco.images, tiny_coco.skeleton)
    assert people.boxes_xywh[0, 0] == 7
    assert len(parsed) == 2


def test_other_settings_have_an_index_of_their_own(tiny_coco):
    tiny_coco.annotation(11)["bbox"] = [-10, -5, 200, 30]
    assert tiny_coco.read().boxes_xywh[0].tolist() == [0, 0, 79, 25]
    assert tiny_coco.read(clip_boxes=False).boxes_xywh[0].tolist() == [-10, -5, 200, 30]
    assert len(tiny_coco.read_detections(score_threshold=0.5)) == 4
    assert len(tiny_coco.read_detections(score_threshold=0.6)) == 0


def test_changed_rules_of_reading_have_an_index_of_their_own(tiny_coco, parsed, monkeypatch, tmp_path):
    tiny_coco.read()
    other = tmp_path / "coco.py"
    other.write_text("the rules of tomorrow")
    monkeypatch.setattr(coco, "__file__", str(other))
    tiny_coco.read()
    assert len(parsed) == 2


def test_a_copy_of_the_annotations_in_another_folder_shares_the_index_but_not_the_paths(tiny_coco, parsed, tmp_path):
    tiny_coco.read()
    copy = tmp_path / "copy" / "same.json"
    copy.parent.mkdir()
    copy.write_bytes(tiny_coco.annotation_file.read_bytes())
    people = read_ground_truth(copy, tmp_path / "copy", tiny_coco.skeleton)
    assert len(parsed) == 1
    assert (people.source_file, people.image_folder) == (copy, tmp_path / "copy")
    with pytest.raises(InputError, match=r"image folder .*nowhere does not exist"):
        read_ground_truth(copy, tmp_path / "nowhere", tiny_coco.skeleton)


def test_a_defective_file_leaves_no_index_and_is_refused_each_time(tiny_coco, cache):
    del tiny_coco.annotation(12)["bbox"]
    for _ in range(2):
        with pytest.raises(InputError, match="annotation 12 has no 'bbox'"):
            tiny_coco.read()
    assert not list(cache.glob("*.npz"))


def test_small_files_are_read_without_an_index(tiny_coco, cache, monkeypatch):
    monkeypatch.setattr(coco, "WORTH_KEEPING", 10_000_000)
    assert len(tiny_coco.read()) == 4
    assert not cache.exists()


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 2]


def one_number_changed(content: bytes) -> bytes:
    at = content.index(b"boxes_xywh") + 250
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES = {
    "cut off": cut_off,
    "one number changed": one_number_changed,
    "empty": lambda content: b"",
    "no archive": lambda content: b"\x93NUMPY, perhaps",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_made_anew_with_a_line(tiny_coco, cache, parsed, caplog, damage):
    people = tiny_coco.read()
    entry = entry_of(cache)
    entry.write_bytes(DAMAGES[damage](entry.read_bytes()))
    assert_same(tiny_coco.read(), people)
    assert len(parsed) == 2
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [f"{entry}: damaged"]
    assert "\n" not in caplog.text.strip()
    assert_same(tiny_coco.read(), people)
    assert len(parsed) == 2


def test_no_byte_of_an_index_can_change_unnoticed_into_other_people(tiny_coco, cache):
    people = tiny_coco.read()
    entry = entry_of(cache)
    content = entry.read_bytes()
    for at in np.random.default_rng(0).choice(len(content), 60, replace=False).tolist():
        entry.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        assert_same(tiny_coco.read(), people)


class Trap:
    """Unpickling it is noticed."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize(
    "arrays",
    [
        {"image_ids": np.array([Trap()], dtype=object)},
        {"image_ids": np.arange(2)},
        {"boxes_xywh": np.zeros((4, 3))},
        {"boxes_xywh": np.zeros((3, 4))},
        {"visibility": np.zeros((4, 16), np.uint8)},
        {"instance_ids": np.arange(4.0)},
        {"extra": np.zeros(1)},
    ],
    ids=[
        "pickle",
        "fewer images than sizes",
        "three numbers a box",
        "too few boxes",
        "too few keypoints",
        "type",
        "more",
    ],
)
def test_an_index_that_holds_something_else_is_not_believed(tiny_coco, cache, caplog, arrays):
    people = tiny_coco.read()
    entry = entry_of(cache)
    with np.load(entry) as content:
        held = dict(content)
    np.savez(entry, allow_pickle=True, **{**held, **arrays})
    assert_same(tiny_coco.read(), people)
    assert "damaged" in caplog.text


@pytest.mark.parametrize("obstacle", ["a file in its place", "a cache variable nobody can use"])
def test_without_a_usable_cache_folder_files_are_read_anew_with_a_line(tiny_coco, caplog, parsed, tmp_path, obstacle):
    if obstacle == "a file in its place":
        (tmp_path / "cache").write_text("")
    else:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "annotations").symlink_to("/proc/nowhere")
    assert len(tiny_coco.read()) == len(tiny_coco.read()) == 4
    assert len(parsed) == 2
    assert "nothing can be kept" in caplog.text
    assert "set UNIFORMER_POSE_CACHE to a folder of your own" in caplog.text


def test_a_full_disk_costs_the_index_only(tiny_coco, cache, caplog, monkeypatch):
    def full(stream, **_arrays):
        stream.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(tiny_coco.read()) == 4
    assert "No space left on device" in caplog.text
    assert [file.name for file in cache.iterdir() if file.suffix != ".lock"] == []


def test_only_the_owner_may_read_or_change_an_index(tiny_coco, cache):
    tiny_coco.read()
    assert stat.S_IMODE(entry_of(cache).stat().st_mode) == 0o600


def test_the_entries_used_last_stay_and_abandoned_parts_go(tiny_coco, cache, monkeypatch):
    monkeypatch.setattr(annotation_cache, "_MOST_ENTRIES", 2)
    cache.mkdir(parents=True)
    abandoned, in_work = cache / ".old.part", cache / ".new.part"
    abandoned.write_bytes(b"")
    in_work.write_bytes(b"")
    os.utime(abandoned, (0, 0))
    names = [digest_of([b"%d" % number], []) for number in range(3)]
    arrays = {"numbers": np.arange(3)}
    for number, name in enumerate(names[:2]):
        remembered_arrays(name, lambda: arrays, lambda _: True)
        os.utime(cache / f"{name}.npz", (number, number))
    remembered_arrays(names[0], lambda: {}, lambda _: True)  # used again
    remembered_arrays(names[2], lambda: arrays, lambda _: True)
    assert {file.stem for file in cache.glob("*.npz")} == {names[0], names[2]}
    assert in_work.exists()
    assert not abandoned.exists()


def test_a_lock_that_others_may_wait_for_outlives_its_entry(cache, monkeypatch):
    monkeypatch.setattr(annotation_cache, "_MOST_ENTRIES", 1)
    names = [digest_of([b"%d" % number], []) for number in range(2)]
    remembered_arrays(names[0], lambda: {"numbers": np.arange(3)}, lambda _: True)
    os.utime(cache / f"{names[0]}.npz", (0, 0))
    with annotation_cache.FileLock(cache / f"{names[0]}.lock"):
        remembered_arrays(names[1], lambda: {"numbers": np.arange(3)}, lambda _: True)
        assert not (cache / f"{names[0]}.npz").exists()
        with pytest.raises(annotation_cache.Timeout):  # as another process would: the lock is one file still
            annotation_cache.FileLock(cache / f"{names[0]}.lock").acquire(timeout=0)


def read_slowly(log: Path) -> dict[str, np.ndarray]:
    with log.open("a") as stream:
        stream.write("read\n")
    time.sleep(0.5)
    return {"numbers": np.arange(1000)}


def ask(log: Path) -> None:
    found = remembered_arrays("0" * 64, lambda: read_slowly(log), lambda arrays: "numbers" in arrays)
    with log.open("a") as stream:
        stream.write(f"{int(found['numbers'].sum())}\n")


def test_of_processes_that_start_together_one_reads_and_all_have_the_same(tmp_path):
    processes = [multiprocessing.get_context("fork").Process(target=ask, args=(tmp_path / "log",)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert (tmp_path / "log").read_text().split() == ["read", "499500", "499500", "499500"]


def test_a_process_does_not_wait_for_ever_for_another(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(annotation_cache, "_SECONDS_TO_WAIT", 0.1)
    cache.mkdir(parents=True)
    with annotation_cache.FileLock(cache / f"{'0' * 64}.lock"):
        found = remembered_arrays("0" * 64, lambda: {"numbers": np.arange(2)}, lambda _: True)
    assert found["numbers"].tolist() == [0, 1]


def test_a_digest_depends_on_where_one_file_ends_and_the_next_begins():
    assert digest_of([b"ab", b"c"], []) != digest_of([b"a", b"bc"], [])
    assert digest_of([b"a"], ["1"]) != digest_of([b"a"], [1])
    assert digest_of([b"a"], [1]) == digest_of([b"a"], [1])


def test_a_warning_of_the_cache_reaches_a_user_without_logging_set_up():
    assert logging.getLogger(annotation_cache.__name__).getEffectiveLevel() <= logging.WARNING


NUMBERS = ["0", "-0", "-0.0", "1e5", "1E-7", "0.1", "5e-324", "1.7976931348623157e308", "9007199254740993", "2" * 30]


def test_the_fast_parser_reads_every_number_and_text_as_pythons_does(tmp_path):
    rng = np.random.default_rng(0)
    floats = [repr(value) for value in (rng.standard_normal(3000) * 10.0 ** rng.integers(-300, 300, 3000)).tolist()]
    rounded = [f"{value:.2f}" for value in rng.uniform(0, 700, 3000)]
    text = (
        f'{{"images": [{{"id": [{",".join(NUMBERS + floats + rounded)}], "file_name": "\\u00e9\\n\\ud83d\\ude00"}}]}}'
    )
    (expected,) = json.loads(text)["images"]
    (found,) = coco._needed_fields(text.encode(), tmp_path, coco._AnnotationFields)["images"]
    assert [*map(repr, found["id"])] == [*map(repr, expected["id"])]
    assert found["file_name"] == expected["file_name"]


def test_of_a_repeated_key_the_last_counts_as_in_pythons_parser(tiny_coco):
    tiny_coco.write()
    text = tiny_coco.annotation_file.read_text().replace('"bbox":', '"bbox": [1, 1, 1, 1], "bbox":', 1)
    tiny_coco.annotation_file.write_text(text)
    people = read_ground_truth(tiny_coco.annotation_file, tiny_coco.images, tiny_coco.skeleton)
    assert people.boxes_xywh[0].tolist() == [5, 6, 30, 40]


def test_fields_that_nobody_needs_may_hold_anything(tiny_coco):
    expected = tiny_coco.read()
    for entry in [*tiny_coco.content["annotations"], *tiny_coco.content["images"]]:
        entry["segmentation"] = {"counts": [1, [2, {"id": 3}], None], "size": "large"}
    tiny_coco.content["info"] = [None, {"images": 3}]
    assert_same(tiny_coco.read(), expected)


def test_python_reads_what_the_fast_parser_refuses(tiny_coco):
    expected = tiny_coco.read()
    tiny_coco.annotation(11)["area"] = float("nan")
    assert_same(tiny_coco.read(), expected)
    boxes = tiny_coco.read_detections()
    tiny_coco.detections[0]["embedding"] = float("inf")
    assert_same(tiny_coco.read_detections(), boxes)
    assert read_detections(
        tiny_coco.detection_file, tiny_coco.annotation_file, tiny_coco.images, tiny_coco.skeleton
    ).box_scores.tolist() == pytest.approx([0.5] * 4)
