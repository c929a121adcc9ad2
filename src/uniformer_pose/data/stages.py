"""Stages of augmentation: other draws for the last epochs of a training, such as RTMPose's milder last 30.

A sample's epoch, which travels with its index, decides what is drawn for it: workers that stay between epochs need not
be told, and a resumed training needs no memory of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, NamedTuple

from uniformer_pose.config import check_arguments, check_changes
from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.photometric import Photometric
from uniformer_pose.errors import InputError
from uniformer_pose.ranges import Count


@dataclass(frozen=True)
class Stage:
    """Other draws in the last ``last_epochs`` of a training's ``max_epochs`` epochs, up to the next stage if any.

    ``geometric`` and ``photometric`` are the arguments that differ from those of the training's first epochs ({}:
    none; where the first epochs have no such augmentation, there is none here either), or an augmentation of the
    stage's own, or None for none.

    The epochs count back from the end that is planned: a training of 210 epochs that is resumed with ``max_epochs`` 260
    returns to the first epochs' draws up to epoch 230. Raises InputError for a number out of its range.
    """

    last_epochs: Count
    max_epochs: int | None
    geometric: GeometricAugmentation | Mapping[str, Any] | None = field(default_factory=dict)
    photometric: Photometric | Mapping[str, Any] | None = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_arguments(Stage, {"last_epochs": self.last_epochs})


class Pipeline(NamedTuple):
    """What is drawn for every visit from an epoch on."""

    name: str
    first_epoch: int
    geometric: GeometricAugmentation | None
    photometric: Photometric | None


def later_pipelines(
    geometric: GeometricAugmentation | None, photometric: Photometric | None, stages: Mapping[str, Stage | None]
) -> list[Pipeline]:
    """What takes the place of ``geometric`` and ``photometric`` in stages, by name, in the order of their epochs.

    Raises InputError for a stage that is longer than the training, or begins where another one does, and for an
    argument that the augmentation it changes does not have or allow.
    """
    found: dict[int, Pipeline] = {}
    for name, stage in stages.items():
        if stage is None:
            continue
        key = f"augmentation.stages.{name}"
        first = _first_epoch(stage, key)
        if first in found:
            other = f"stage {found[first].name} has the same epochs; give another number, or {key}=null"
            raise InputError(f"{key}.last_epochs={stage.last_epochs}: {other}")
        parts = (geometric, stage.geometric, f"{key}.geometric"), (photometric, stage.photometric, f"{key}.photometric")
        found[first] = Pipeline(name, first, *(_changed(*part) for part in parts))
    return [found[first] for first in sorted(found)]


def _first_epoch(stage: Stage, key: str) -> int:
    last, of = stage.last_epochs, stage.max_epochs
    if of is None or last > of:  # null, and -1, are without an end
        raise InputError(
            f"trainer.max_epochs={'null' if of is None else of}: {key} is for the last {last} epochs; give at least as "
            f"many, a smaller {key}.last_epochs, or {key}=null"
        )
    return of - last


def _changed(first: Any, change: Any, key: str) -> Any:
    """The first epochs' augmentation as a stage changes it."""
    if not isinstance(change, Mapping):
        return change
    if first is None or not change:
        return first
    if not is_dataclass(first) or isinstance(first, type):
        raise InputError(f"{key}: {type(first).__name__} is no dataclass, so it cannot be changed; give a _target_")
    check_changes(type(first), change, key)
    return replace(first, **change)
