"""What a saved model is evaluated on: its training's data or another's, once for each source of boxes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_info

from uniformer_pose.data.datamodule import PersonCrops, evaluation_arguments
from uniformer_pose.errors import InputError, named_set
from uniformer_pose.saved_model import SavedModel, arguments_by_set


def evaluation_datasets(
    model: SavedModel,
    config: Mapping[str, Any],
    *,
    split: Literal["val", "train", "test"],
    boxes: str | list[str] | None,
) -> dict[str, PersonCrops]:
    """The data by the name of its boxes, all read and fit to be scored: a mistake must not show after an hour.

    Those of several sets by the set's name, ``<set>/<boxes>`` where both are several. ``config``: what differs from the
    training's data (``arguments_by_set``). ``boxes``: ``source_names``.
    """
    by_set, sources = arguments_by_set(model, config), source_names(boxes)
    if config.get("codec") is not None:  # a whole data config was chosen: its images and boxes count
        rank_zero_info(f"crops stay {model.codec.height}x{model.codec.width} and {model.codec.method}, as in training")
    datasets = {}
    for of_set, arguments in by_set.items():
        if split == "val" and arguments["val_annotations"] == arguments.get("train_annotations"):
            rank_zero_info(f"{arguments['val_annotations']}: these are the training's own images")
        for of_boxes, source in sources.items():
            name = "/".join(filter(None, (of_set, of_boxes if len(sources) > 1 or not of_set else "")))
            with named_set(of_set):
                datasets[name] = data = PersonCrops(**evaluation_arguments(arguments, split, source))
                data.setup("validate")
                if split != "test":
                    _ = data.ground_truth
    return datasets


def source_names(boxes: str | list[str] | None) -> dict[str, str | None]:
    """Sources of boxes by a name that can be a folder's: ``gt``, ``detector``, or what a file is called."""
    listed = boxes if isinstance(boxes, list) else [boxes]
    names = {"detector" if source is None else Path(source).stem: source for source in listed}
    if len(names) < max(1, len(listed)):
        raise InputError(
            f"boxes=[{','.join(map(str, listed))}]: give gt, detector, files of detections, or several of them with "
            "different names, after which the folders are called"
        )
    return names
