"""A foreign data set -> the layout and the data config that training reads, whole or not at all.

    TO/images/{train,val}/...
    TO/annotations/{train,val}.json
    TO/skeleton.yaml
    TO/conf/data/NAME.yaml          for --config-dir TO/conf data=NAME
    TO/conversion.json              what it was made from, and how
    TO/left_out.txt                 what could not be converted, one sentence a line, if anything

Everything goes to ``TO.part`` first, renamed at the end.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from uniformer_pose.data.categories import DEFAULT_PERSON_CATEGORY
from uniformer_pose.data.coco import AREA_OF_BOX
from uniformer_pose.data.conversion.derived_skeleton import derive_skeleton, order_by_name
from uniformer_pose.data.conversion.source import (
    Log,
    Settings,
    Source,
    SourceImage,
    SourcePerson,
    SplitName,
)
from uniformer_pose.data.conversion.usable_people import Finisher
from uniformer_pose.errors import InputError
from uniformer_pose.files import write_json, write_text
from uniformer_pose.overrides import shell_command
from uniformer_pose.skeleton import Skeleton

_CODEC = {"height": 256, "width": 192, "sigma": 2.0}


def write_dataset(
    source: Source,
    to: Path,
    name: str,
    settings: Settings,
    log: Log,
    *,
    made_from: Mapping[str, Any],
    on_progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write a data set to the folder ``to``, which must be new or empty; returns a line on each split.

    ``name`` is that of its data config and skeleton. ``made_from`` is kept in conversion.json. Pictures are hard links,
    or copies where links are impossible. Raises InputError for what cannot be converted, unless the log skips it.
    """
    to = to.absolute()  # resolve() would follow a link and write elsewhere
    require_free(to)
    log.refuse()
    skeleton, order = _skeleton_and_order(source, name, settings, log)
    splits = source.splits
    if "val" not in splits:
        splits = split_by_share(splits["train"], settings.val_share)
        log.notes.append(f"no split for validation: {len(splits['val'])} of the images, drawn by their names, are it")
    unfinished = to.with_name(to.name + ".part")
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        advice = "if a killed conversion left it, delete it, else give another to="
        raise InputError(f"{unfinished} cannot be made ({error.strerror or error}); {advice}") from error
    try:
        converted = Finisher(source, skeleton, order, settings, log).splits(splits, on_progress or (lambda *_: None))
        log.refuse()
        lines = []
        for split, images in converted.items():
            for image in images:
                _place_image(image.file.resolve(), unfinished / "images" / split / image.name)
            lines.append(_write_split(split, images, unfinished, skeleton, source.category, log))
        _write_descriptions(unfinished, to, name, skeleton)
        facts = {"made_from": dict(made_from), "splits": lines, "notes": log.notes, "repairs": +log.repairs}
        write_json(unfinished / "conversion.json", {**facts, "left_out": len(log.problems)})
        if log.problems:
            text = "\n".join(log.problems) + "\n"
            write_text(unfinished / "left_out.txt", text.encode(errors="backslashreplace").decode())
        if to.exists():
            to.rmdir()
        unfinished.rename(to)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return lines


def require_free(to: Path, sources: Sequence[Path] = ()) -> None:
    """InputError unless a data set may be written to ``to``, of ``sources`` outside it."""
    if to.is_symlink() or (to.exists() and not to.is_dir()):
        raise InputError(f"to={to} is no folder; give a folder that is new or empty")
    if to.exists() and any(to.iterdir()):
        raise InputError(f"to={to} holds files; give a folder that is new or empty")
    for source in sources:
        if source.resolve().is_relative_to(to.resolve()):
            raise InputError(f"to={to} holds the source {source}; give a folder beside it")


def split_by_share(images: Sequence[SourceImage], val_share: float) -> dict[SplitName, list[SourceImage]]:
    """Training and validation images, in the order given; which ones depends on their names only.

    At least one image goes to validation. Raises InputError where nothing would stay to train on.
    """
    if not 0 < val_share < 1:
        raise InputError(f"val_share={val_share}: give the share of images for validation, above 0 and below 1")
    if len(images) < 2:
        raise InputError(f"{len(images)} images cannot be divided into training and validation; give at least 2")
    number = min(len(images) - 1, max(1, round(val_share * len(images))))

    def drawn(image: SourceImage) -> bytes:
        return hashlib.blake2b(f"0/{image.name}".encode(errors="surrogateescape"), digest_size=8).digest()

    chosen = {image.name for image in sorted(images, key=drawn)[:number]}
    return {"train": [i for i in images if i.name not in chosen], "val": [i for i in images if i.name in chosen]}


def _skeleton_and_order(
    source: Source, name: str, settings: Settings, log: Log
) -> tuple[Skeleton, npt.NDArray[np.int64]]:
    """The skeleton that was asked for, else one from the names; where its keypoints stand in the source (K,)."""
    order = np.arange(len(source.keypoint_names))
    if settings.skeleton is None:
        flips, limbs = source.flip_indices, source.limbs
        skeleton = derive_skeleton(name, source.keypoint_names, log, flip_indices=flips, limbs=limbs)
    else:
        skeleton = settings.skeleton
        order = order_by_name(skeleton.keypoint_names, source.keypoint_names, "the source", log)
    lone_sides = skeleton.sides_without_partner()
    log.notes += [] if lone_sides is None else [lone_sides]
    return skeleton, order


def _write_split(
    split: SplitName, images: Sequence[SourceImage], folder: Path, skeleton: Skeleton, category: str, log: Log
) -> str:
    """One annotation file; InputError where it would have nobody to train on or to evaluate."""
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, start=1):
        image_id = number if image.image_id is None else image.image_id
        height, width = image.size or (0, 0)
        entries.append({"id": image_id, "file_name": image.name, "height": height, "width": width})
        annotations += [_annotation(person, len(annotations) + n, image_id) for n, person in enumerate(image.people, 1)]
    about = {
        "id": DEFAULT_PERSON_CATEGORY,
        "name": category,
        "keypoints": skeleton.keypoint_names,
        "skeleton": (skeleton.limb_indices + 1).tolist(),
    }
    info = {"description": f"{skeleton.name}, {split}", "image_orientation": "displayed"}
    content = {"info": info, "categories": [about], "images": entries, "annotations": annotations}
    write_json(folder / "annotations" / f"{split}.json", content, indent=None)
    labelled = sum(annotation["num_keypoints"] > 0 for annotation in annotations)
    line = f"{split:<5} {len(entries)} images, {len(annotations)} people, {labelled} of them with labelled keypoints"
    if not labelled:
        because = [f"{times} {repair}" for repair, times in (+log.repairs).items()]
        because += [f"left out: {len(log.problems)}, first {log.problems[0]}"] if log.problems else []
        raise InputError("; ".join([line, *because, "no training or evaluation is possible"]))
    return line


def _annotation(person: SourcePerson, number: int, image_id: int) -> dict[str, Any]:
    box = [_short(side) for side in person.box_xywh.tolist()]
    area = AREA_OF_BOX * box[2] * box[3] if person.area is None else person.area
    return {
        "iscrowd": 0,
        **person.other_fields,
        "id": number if person.annotation_id is None else person.annotation_id,
        "image_id": image_id,
        "category_id": DEFAULT_PERSON_CATEGORY,
        "bbox": box,
        "area": max(round(area, 3), 0.001),
        "keypoints": [_short(number) for number in person.keypoints.ravel().tolist()],
        "num_keypoints": int((person.keypoints[:, 2] > 0).sum()),
    }


def _short(value: float) -> float | int:
    """A coordinate to a thousandth of a pixel, without digits that say nothing."""
    rounded = round(value, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def _place_image(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # another file system, or one without links, or a file of somebody else's
        path.hardlink_to(source)
        return
    try:
        shutil.copyfile(source, path)
    except OSError as error:
        raise InputError(f"{source} cannot be copied to {path} ({error.strerror or error})") from error


def _write_descriptions(folder: Path, to: Path, name: str, skeleton: Skeleton) -> None:
    """The skeleton and the data config."""
    text = (
        f"# The keypoints of {name}. sigma: the annotators' spread as a fraction of the square root\n"
        "# of the person's area; OKS and AP depend on it. left_right_pairs are exchanged where a crop is mirrored.\n"
        "# upper_body and lower_body, both or neither, are for half-body augmentation and hold every keypoint once.\n"
    )
    write_text(folder / "skeleton.yaml", text + _plain_yaml(skeleton.to_dict()))
    fields = {
        "defaults": ["_people"],
        "root": str(to),
        "train_annotations": "annotations/train.json",
        "train_images": "images/train",
        "val_annotations": "annotations/val.json",
        "val_images": "images/val",
        "val_boxes": "gt",
        "skeleton": "${.root}/skeleton.yaml",
        "codec": _CODEC,
        "if_missing": "say where it is with data.root=<folder>",
    }
    text = f"# Written by src/convert_data.py. Train with {shell_command('--config-dir', to / 'conf', data=name)}\n"
    write_text(folder / "conf" / "data" / f"{name}.yaml", text + _plain_yaml(fields))


def _plain_yaml(fields: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
