import fcntl
import json
import os
import tarfile
from contextlib import suppress

import pytest

from uniformer_pose.data.prepared import preparation
from uniformer_pose.data.prepared.preparation import Source, prepare_image, prepare_images
from uniformer_pose.errors import InputError


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def source_of(path, height, width):
    found = path.stat()
    return Source(path.name, str(path), height, width, found.st_size, found.st_mtime_ns)


def test_shards_are_tar_files_of_jpegs_and_the_manifest_says_where_each_lies(tiny_coco, tmp_path):
    folder = tmp_path / "prepared"
    result = prepare_images(tiny_coco.read(), folder, workers=0, images_per_shard=2)
    assert (result.images, result.made, result.reused, result.bad) == (3, 2, 0, {})
    manifest = json.loads((folder / "manifest.json").read_text())
    for row, name in enumerate(manifest["file_names"]):
        shard = folder / f"shard_{manifest['images']['shards'][row]:05d}.tar"
        with tarfile.open(shard) as tar:
            data = tar.extractfile(name).read()
        offset, length = manifest["images"]["offsets"][row], manifest["images"]["lengths"][row]
        assert shard.read_bytes()[offset : offset + length] == data
        assert data.startswith(b"\xff\xd8")


def test_processes_make_the_same_files(tiny_coco, tmp_path):
    people = tiny_coco.read()
    prepare_images(people, tmp_path / "one", workers=0, images_per_shard=2)
    prepare_images(people, tmp_path / "two", workers=1, images_per_shard=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_progress_is_told_for_every_image(tiny_coco, tmp_path):
    told = []
    prepare_images(tiny_coco.read(), tmp_path / "p", workers=0, on_progress=lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_second_preparation_makes_nothing_anew(tiny_coco, tmp_path):
    people = tiny_coco.read()
    prepare_images(people, tmp_path / "p", workers=0, images_per_shard=1)
    before = files_of(tmp_path / "p")
    result = prepare_images(people, tmp_path / "p", workers=0, images_per_shard=1)
    assert (result.made, result.reused, result.images) == (0, 3, 3)
    assert files_of(tmp_path / "p") == before


def test_only_the_shard_of_a_changed_image_is_made_anew(tiny_coco, tmp_path):
    people = tiny_coco.read()
    prepare_images(people, tmp_path / "p", workers=0, images_per_shard=1)
    os.utime(people.image_path(1), ns=(1, 1))
    result = prepare_images(people, tmp_path / "p", workers=0, images_per_shard=1)
    assert (result.made, result.reused) == (1, 2)


def test_an_interrupted_preparation_continues_after_its_last_whole_shard(tiny_coco, tmp_path, monkeypatch):
    people = tiny_coco.read()
    prepare_images(people, tmp_path / "straight", workers=0, images_per_shard=1)
    with suppress(KeyboardInterrupt), monkeypatch.context() as patch:

        def interrupt(source):
            if source.name == people.file_names[2]:
                raise KeyboardInterrupt
            return prepare_image(source)

        patch.setattr(preparation, "prepare_image", interrupt)
        prepare_images(people, tmp_path / "broken_off", workers=0, images_per_shard=1)
    assert not (tmp_path / "broken_off" / "manifest.json").exists()
    result = prepare_images(people, tmp_path / "broken_off", workers=0, images_per_shard=1)
    assert (result.made, result.reused) == (1, 2)
    assert files_of(tmp_path / "broken_off") == files_of(tmp_path / "straight")


def test_shards_that_are_no_longer_needed_are_removed(tiny_coco, tmp_path):
    people = tiny_coco.read()
    prepare_images(people, tmp_path / "p", workers=0, images_per_shard=1)
    prepare_images(people.first_images(1), tmp_path / "p", workers=0, images_per_shard=1)
    assert {name for name in files_of(tmp_path / "p") if name.startswith("shard")} == {
        "shard_00000.json",
        "shard_00000.tar",
    }


def test_a_bad_image_is_counted_with_what_is_wrong_and_tried_again_next_time(tiny_coco, tmp_path):
    people = tiny_coco.read()
    path = people.image_path(1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-500])
    result = prepare_images(people, tmp_path / "p", workers=0)
    assert list(result.bad) == [path.name]
    assert "cut off" in result.bad[path.name]
    path.write_bytes(whole)
    assert prepare_images(people, tmp_path / "p", workers=0).bad == {}


def test_a_link_out_of_the_image_folder_is_not_followed(tiny_coco, tmp_path):
    people = tiny_coco.read()
    path = people.image_folder / str(people.file_names[0])
    path.rename(tmp_path / "secret.jpg")
    path.symlink_to(tmp_path / "secret.jpg")
    result = prepare_images(people, tmp_path / "p", workers=0)
    assert "outside the image folder" in result.bad[path.name]


@pytest.mark.parametrize(
    ("flags", "reason"), [({"progressive": 1}, "not a baseline JPEG"), ({"rst_interval": 1}, "with restart markers")]
)
def test_a_jpeg_of_another_kind_is_stored_as_it_is(make_jpeg, tmp_path, flags, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(make_jpeg(**flags))
    record = prepare_image(source_of(path, 75, 101))
    assert record.data == path.read_bytes()
    assert record.table_start == record.scan_start == 0
    assert reason in record.whole


def test_what_would_change_a_pixel_is_stored_as_it_is(make_jpeg, tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(make_jpeg())
    other = preparation.divide_jpeg(make_jpeg(quality=60))
    monkeypatch.setattr(preparation, "divide_jpeg", lambda data: other)
    record = prepare_image(source_of(path, 75, 101))
    assert record.data == path.read_bytes()
    assert "pixels would change" in record.whole


def test_a_folder_with_something_else_in_it_is_refused(tiny_coco, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        prepare_images(tiny_coco.read(), tmp_path / "p", workers=0)


def test_a_second_writer_is_refused(tiny_coco, tmp_path):
    people = tiny_coco.read()
    prepare_images(people, tmp_path / "p", workers=0)
    with (tmp_path / "p" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            prepare_images(people, tmp_path / "p", workers=0)


def test_a_full_disk_is_told_in_one_line_and_the_next_run_goes_on(tiny_coco, tmp_path, monkeypatch):
    people = tiny_coco.read()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"No space left.*run the same command again"):
            prepare_images(people, tmp_path / "p", workers=0)
    assert prepare_images(people, tmp_path / "p", workers=0).images == 3


@pytest.mark.parametrize("numbers", [{"images_per_shard": 0}, {"workers": -1}, {"uncompressed_gb": -1.0}])
def test_impossible_numbers_are_refused(tiny_coco, tmp_path, numbers):
    with pytest.raises(InputError, match="use at least"):
        prepare_images(tiny_coco.read(), tmp_path / "p", **numbers)
