"""MPII's annotations as the pose papers use them: a JSON list with one entry a person, joints counted from 1."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec
import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco_json import decoded, read_bytes
from uniformer_pose.errors import InputError

NUM_JOINTS = 16


class MpiiRecord(msgspec.Struct, gc=False):
    """A person: ``joints`` (16, 2), [-1, -1] where missing, ``joints_vis`` 1 where annotated, body height over 200."""

    image: str
    joints: list[tuple[float, float]]
    joints_vis: list[float]
    center: tuple[float, float]
    scale: float


@dataclass(frozen=True, eq=False)
class MpiiPeople:
    """The P people of a file, in its order; coordinates as there, the left upper pixel being (1, 1)."""

    file: Path
    file_names: list[str]
    image_ids: npt.NDArray[np.int64]
    """(P,) the number in the file's name."""
    joints_from_one: npt.NDArray[np.float64]
    """(P, 16, 2)"""
    annotated: npt.NDArray[np.bool_]
    """(P, 16)"""

    def __len__(self) -> int:
        return len(self.file_names)


def read_mpii_file(file: str | Path) -> MpiiPeople:
    """The people of ``mpii_{train,val}.json``; InputError names the first entry that is none."""
    path = Path(file)
    records = decoded(read_bytes(path), list[MpiiRecord], path)
    if not records:
        raise InputError(f"{path}: holds no people; give MPII's list with one entry a person")
    for index, record in enumerate(records):
        if {len(record.joints), len(record.joints_vis)} != {NUM_JOINTS} or _image_id(record.image) is None:
            raise InputError(
                f"{path}: entry {index} needs {NUM_JOINTS} joints, as many joints_vis, and a number in the image's "
                f"name; it has {len(record.joints)}, {len(record.joints_vis)} and {record.image!r:.60}"
            )
    return MpiiPeople(
        file=path,
        file_names=[record.image for record in records],
        image_ids=np.array([_image_id(record.image) for record in records], dtype=np.int64),
        joints_from_one=np.array([record.joints for record in records], dtype=np.float64),
        annotated=np.array([record.joints_vis for record in records], dtype=np.float64) > 0,
    )


def _image_id(name: str) -> int | None:
    digits = re.fullmatch(r"\d{1,18}", PurePosixPath(name).stem, re.ASCII)
    return int(digits[0]) if digits else None
