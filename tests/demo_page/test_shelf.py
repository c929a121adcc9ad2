"""Visitors' pictures stay while there is room, and only who has the key gets them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from uniformer_pose.demo_page.shelf import PictureGoneError, PictureShelf, ShelvedPicture


def picture(height: int, width: int = 10) -> ShelvedPicture:
    return ShelvedPicture("p.jpg", np.zeros((height, width, 3), dtype=np.uint8), b"")


def test_a_picture_comes_back_by_its_key() -> None:
    shelf, wanted = PictureShelf(1000), picture(10)
    key = shelf.add(wanted)
    shelf.add(picture(10))
    assert shelf.get(key) is wanted


def test_keys_are_long_and_never_the_same() -> None:
    shelf, same = PictureShelf(10**6), picture(1)
    keys = {shelf.add(same) for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) >= 22  # 128 bits


def test_the_picture_nobody_asked_for_longest_makes_room() -> None:
    shelf = PictureShelf(200)
    first, second = shelf.add(picture(10)), shelf.add(picture(10))
    shelf.get(first)
    third = shelf.add(picture(10))
    assert [len(shelf.get(key).pixels) for key in (first, third)] == [10, 10]
    with pytest.raises(PictureGoneError, match="open it again"):
        shelf.get(second)


def test_a_picture_larger_than_the_shelf_stands_there_alone() -> None:
    shelf = PictureShelf(200)
    shelf.add(picture(5))
    large = shelf.add(picture(100))
    assert len(shelf) == 1
    assert shelf.get(large).pixels.shape == (100, 10, 3)


def test_visitors_at_the_same_time_never_exceed_the_shelf_and_each_finds_the_last_picture() -> None:
    shelf = PictureShelf(1000)

    def visit(_: int) -> bool:
        key = shelf.add(picture(5))
        return shelf.get(key) is not None and len(shelf) <= 20 + 8

    with ThreadPoolExecutor(8) as visitors:
        assert all(visitors.map(visit, range(400)))
    assert len(shelf) == 20
