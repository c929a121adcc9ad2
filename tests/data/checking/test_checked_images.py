"""Digests and grades of image files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from uniformer_pose.data.checking.images import examine_image
from uniformer_pose.data.coco import PersonInstances

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)


def examine(path: Path, height: int = 40, width: int = 64) -> tuple[bytes | None, str | None, str]:
    """One image with one person in it."""
    people = PersonInstances(
        image_folder=path.parent.resolve(),
        image_ids=np.array([1]),
        file_names=np.array([path.name]),
        image_heights=np.array([height], dtype=np.int32),
        image_widths=np.array([width], dtype=np.int32),
        image_of_instance=np.zeros(1, dtype=np.int32),
        instance_ids=np.array([1]),
        boxes_xywh=np.array([[1.0, 1, 8, 8]]),
        box_scores=np.ones(1, dtype=np.float32),
        keypoints_in_image=np.zeros((1, 17, 2), dtype=np.float32),
        visibility=np.zeros((1, 17), dtype=np.uint8),
    )
    return examine_image(people, 0)


def test_the_same_pixels_have_the_same_digest_whatever_the_file(tmp_path: Path) -> None:
    digests = []
    for name, pixels in (("a.png", PIXELS), ("b.bmp", PIXELS), ("c.png", PIXELS[:, ::-1])):
        Image.fromarray(pixels).save(tmp_path / name)
        digests.append(examine(tmp_path / name)[0])
    assert digests[0] == digests[1] != digests[2]
    Image.fromarray(PIXELS * 0).save(tmp_path / "wide.png")
    Image.fromarray(PIXELS.transpose(1, 0, 2) * 0).save(tmp_path / "high.png")
    assert examine(tmp_path / "wide.png")[0] != examine(tmp_path / "high.png", 64, 40)[0]


def test_a_link_to_itself_and_a_huge_picture_in_a_small_file_are_graded(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "a.jpg")
    assert examine(tmp_path / "a.jpg")[1] == "image_unreadable"

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""))
    assert examine(tmp_path / "a.png")[1] == "image_unreadable"
