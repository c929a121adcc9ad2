"""What the pictures and annotations of a synthetic dataset depend on."""

from __future__ import annotations

import json
import typing
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from uniformer_pose.config import check_value
from uniformer_pose.errors import InputError
from uniformer_pose.ranges import Share
from uniformer_pose.synthetic.landmarks import check_landmarks
from uniformer_pose.synthetic.outfit import StripedSide
from uniformer_pose.synthetic.pose import PoseVariety

Split = Literal["train", "val"]
_Number = Annotated[int, Ge(0), Le(10**7)]
_Pixels = Annotated[int, Ge(32), Le(4096)]
_People = Annotated[int, Ge(0), Le(50)]
_Height = Annotated[float, Ge(0.02), Le(3)]


@dataclass(frozen=True)
class SyntheticSettings:
    """Everything the pictures and annotations depend on; it is written into the annotations' ``info``.

    ``people_per_image`` and ``person_height`` are [least, most]. ``person_height`` bounds the standing height of people
    as a fraction of the image height, except for the ``close_up_share`` of them who are taller than the image.
    ``crowd_share`` of the images hold a far crowd, annotated as one ``iscrowd`` region. ``striped_side`` is the side of
    the body with bands on sleeve and trouser leg: ``random`` draws it per person. That is the default because a
    mirrored picture of a world where it is always the left is no picture of that world, so flip augmentation and flip
    test would harm; in a world of random sides they are right. ``poses``: ``any``, or ``frontal`` for people on their
    feet who face the camera. Raises InputError for values out of range.
    """

    num_train_images: _Number
    num_val_images: _Number
    image_height: _Pixels = 256
    image_width: _Pixels = 320
    people_per_image: tuple[_People, _People] = (1, 4)
    person_height: tuple[_Height, _Height] = (0.24, 0.9)
    close_up_share: Share = 0.08
    crowd_share: Share = 0.06
    striped_side: StripedSide = "random"
    poses: PoseVariety = "any"
    jpeg_quality: Annotated[int, Ge(1), Le(100)] = 92
    seed: Annotated[int, Ge(0), Le(2**63)] = 0
    keypoint_names: tuple[str, ...] = ()
    limbs: tuple[tuple[int, int], ...] = field(default=(), repr=False)  # COCO's "skeleton": indices from 1

    def __post_init__(self) -> None:
        for name, annotation in typing.get_type_hints(type(self), include_extras=True).items():
            check_value(name, getattr(self, name), annotation)
        if self.num_train_images + self.num_val_images == 0:
            raise InputError("num_train_images=0 and num_val_images=0 leave nothing to write; raise one of them")
        for name in ("people_per_image", "person_height"):
            least, most = getattr(self, name)
            if least > most:
                raise InputError(f"{name}=[{least}, {most}]: give [least, most]")
            object.__setattr__(self, name, (least, most))
        check_landmarks(self.keypoint_names)

    def num_images(self, split: Split) -> int:
        """How many images a split has."""
        return self.num_train_images if split == "train" else self.num_val_images

    def to_dict(self) -> dict[str, Any]:
        """The settings as they stand in JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain
