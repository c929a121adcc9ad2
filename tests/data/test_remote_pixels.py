"""A prepared folder in a store: the same crops, what is kept, and a store that fails."""

import os

import numpy as np
import pytest
from torch.utils.data import DataLoader

from loopback_server import Page, running_server
from uniformer_pose.data import remote_pixels
from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.crop_dataset import TrainingCrops, as_it_is
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.images import ImageSource
from uniformer_pose.data.prepared import PreparedImages, prepare_images
from uniformer_pose.errors import InputError

SPEC = CropSpec(64, 48)


@pytest.fixture
def people(tiny_coco):
    return tiny_coco.read()


@pytest.fixture
def store(people, tmp_path, monkeypatch):
    """A server with the prepared folder of ``people``; nothing is kept yet, and no attempt waits."""
    monkeypatch.setenv("UNIFORMER_POSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_pixels.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(remote_pixels, "_BLOCK", 1024)
    prepare_images(people, tmp_path / "prepared")
    with running_server() as server:
        for name in ("index.json", "pixels"):
            server.serve(f"/{name}", Page((tmp_path / "prepared" / name).read_bytes(), has_ranges=True))
        yield server


def crops(people, skeleton, prepared=None):
    source = ImageSource(people, prepared=prepared)
    return TrainingCrops(source, skeleton, SPEC, seed=3, geometric=GeometricAugmentation())


def batches(dataset, epoch, workers=0):
    visits = [(index, epoch) for index in range(len(dataset))]
    batches = [visits[:2], visits[2:]]
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=as_it_is, num_workers=workers)
    return [{name: value.numpy().copy() for name, value in batch.items()} for batch in loader]


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        for name in other:
            assert np.array_equal(one[name], other[name]), name


def asked_for_pixels(server):
    return sum(request == ("GET", "/pixels") for request in server.requests)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache_gb", [1, 1e-5, 0])
def test_crops_are_those_of_the_files_and_what_is_kept_is_not_asked_for_twice(
    store, people, skeleton, cache_gb, workers
):
    remote = crops(people, skeleton, PreparedImages(store.origin, people, cache_gb=cache_gb))
    for epoch in range(3):
        assert_equal(batches(remote, epoch, workers), batches(crops(people, skeleton), epoch))
    seen = asked_for_pixels(store)
    assert_equal(batches(remote, 0, workers), batches(crops(people, skeleton), 0))
    assert (asked_for_pixels(store) - seen == 0) == (cache_gb == 1)


def test_another_process_finds_what_was_kept_and_another_content_does_not(store, people, skeleton):
    batches(crops(people, skeleton, PreparedImages(store.origin, people, cache_gb=1)), 0)
    seen = asked_for_pixels(store)
    batches(crops(people, skeleton, PreparedImages(store.origin, people, cache_gb=1)), 0)
    assert asked_for_pixels(store) == seen
    store.pages["/index.json"].body += b"\n"
    batches(crops(people, skeleton, PreparedImages(store.origin, people, cache_gb=1)), 0)
    assert asked_for_pixels(store) > seen


def test_failures_and_answers_cut_short_are_asked_for_again(store, people, skeleton):
    remote = crops(people, skeleton, PreparedImages(store.origin, people))
    store.pages["/pixels"].statuses = [503, 500]
    store.pages["/pixels"].cuts = [10, 0, 100]
    assert_equal(batches(remote, 0), batches(crops(people, skeleton), 0))


@pytest.mark.parametrize(
    ("page", "changes", "word"),
    [
        ("/index.json", {"status": 404}, "index.json"),
        ("/index.json", {"body": b"{}"}, "damaged"),
        ("/pixels", {"body": b"123", "says_length": True}, "3 bytes instead of"),
        ("/pixels", {"has_ranges": False}, "bytes came instead of"),
        ("/pixels", {"cuts": [5] * 99}, "tried 5 times"),
        ("/pixels", {"status": 403}, "pixels"),
    ],
)
def test_a_store_that_goes_on_failing_is_named(store, people, skeleton, page, changes, word):
    for name, value in changes.items():
        setattr(store.pages[page], name, value)
    with pytest.raises(InputError, match=word) as refused:
        batches(crops(people, skeleton, PreparedImages(store.origin, people)), 0)
    assert store.origin in str(refused.value)


@pytest.mark.parametrize("address", ["http://example.org/p", "ftp://example.org/p", "file:///etc"])
def test_only_stores_that_nobody_can_change_on_the_way_are_read(people, address):
    with pytest.raises(InputError, match=r"https://.*s3://bucket"):
        PreparedImages(address, people)


@pytest.mark.parametrize("page", ["/index.json", "/pixels"])
def test_a_store_that_sends_elsewhere_is_followed_only_where_nobody_can_change_what_comes(
    store, people, skeleton, page
):
    store.serve("/elsewhere", store.pages[page])
    store.serve(page, Page(status=302, headers={"Location": "/elsewhere"}))
    assert_equal(
        batches(crops(people, skeleton, PreparedImages(store.origin, people)), 0), batches(crops(people, skeleton), 0)
    )
    store.serve(page, Page(status=302, headers={"Location": "http://me:word@example.org/p?key=12345"}))
    before = len(store.requests)
    with pytest.raises(InputError, match=r"http://example\.org/p\?\.\.\.: only https://") as refused:
        PreparedImages(store.origin, people)
    assert store.origin + page in str(refused.value)
    assert sum(path == page for _, path in store.requests[before:]) <= 2  # asked for its size in two ways


def test_a_login_in_an_address_is_not_shown(store, people):
    store.pages["/pixels"].status = 404
    with pytest.raises(InputError, match="pixels") as refused:
        PreparedImages(store.origin.replace("//", "//me:word@"), people)
    assert "word" not in str(refused.value)


def test_a_cache_that_cannot_be_written_is_one_line(store, people, skeleton, tmp_path, monkeypatch):
    monkeypatch.setenv("UNIFORMER_POSE_CACHE", str(tmp_path / "prepared" / "index.json"))
    with pytest.raises(InputError, match=r"cannot be kept \(Not a directory\); set UNIFORMER_POSE_CACHE"):
        PreparedImages(store.origin, people)
    monkeypatch.setenv("UNIFORMER_POSE_CACHE", str(tmp_path / "cache"))
    remote = crops(people, skeleton, PreparedImages(store.origin, people, cache_gb=1))
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=r"cannot be kept \(No space left on device\)"):
        batches(remote, 0)
