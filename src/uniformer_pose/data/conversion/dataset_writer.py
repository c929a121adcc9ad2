"""A foreign data set -> the layout and the data config that training reads, whole or not at all.

    TO/images/{train,val}/...
    TO/annotations/{train,val}.json
    TO/skeleton.yaml
    TO/conf/data/NAME.yaml          for --config-dir TO/conf data=NAME, with TO/conf/data/sets/NAME.yaml
    TO/conversion.json              what it was made from, what was repaired, and what was left out

Everything goes to ``TO.part`` first, renamed at the end.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from uniformer_pose.data.categories import DEFAULT_PERSON_CATEGORY
from uniformer_pose.data.coco import AREA_OF_BOX, read_ground_truth
from uniformer_pose.data.conversion.derived_skeleton import skeleton_and_order
from uniformer_pose.data.conversion.source import Log, Settings, Source, SourceImage, SourcePerson, SplitName
from uniformer_pose.data.conversion.usable_people import usable_splits
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
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> list[str]:
    """Write a data set to the folder ``to``, which must be new or empty; returns a line on each split.

    ``name`` is that of its data config and skeleton. ``made_from`` is kept in conversion.json. Pictures are hard links,
    or copies where links are impossible. Raises InputError for what cannot be converted, unless the log skips it.
    """
    to = to.absolute()  # resolve() would follow a link and write elsewhere
    require_free(to)
    log.refuse()
    skeleton, order = skeleton_and_order(source, name, settings.skeleton, log)
    if "val" not in source.splits:
        source = replace(source, splits=split_by_share(source.splits["train"], settings.val_share))
        log.notes.append(f"no split for validation: {len(source.splits['val'])} of the images, drawn by their names")
    part = to.with_name(to.name + ".part")
    try:
        part.mkdir(parents=True)
    except OSError as error:
        advice = "if a killed conversion left it, delete it, else give another to="
        raise InputError(f"{part} cannot be made ({error.strerror or error}); {advice}") from error
    try:
        splits, frame = usable_splits(source, order, settings.exif, log, on_progress)
        log.refuse()
        source = replace(source, splits=splits, orientation=frame)
        lines = [_write_split(split, source, part, skeleton, log) for split in splits]
        for other, file in source.others.items():
            _place_image(file.resolve(), part / other)
        _write_descriptions(part, to, name, skeleton, source.scored_by)
        facts = {"made_from": dict(made_from), "splits": lines, "notes": log.notes, "repairs": +log.repairs}
        write_json(part / "conversion.json", {**facts, "left_out": log.problems})
        if to.exists():
            to.rmdir()
        part.rename(to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return lines


def require_free(to: Path, sources: Sequence[Path] = ()) -> None:
    """InputError unless a data set may be written to ``to``, of ``sources`` outside it."""
    if to.is_symlink() or (to.exists() and not (to.is_dir() and not any(to.iterdir()))):
        raise InputError(f"to={to} is there already; give a folder that is new or empty")
    for source in sources:
        if source.resolve().is_relative_to(to.resolve()):
            raise InputError(f"to={to} holds the source {source}; give a folder beside it")


def split_by_share(images: Sequence[SourceImage], val_share: float) -> dict[SplitName, list[SourceImage]]:
    """Training and validation images, in the order given; which ones depends on their names only.

    At least one image goes to each. Raises InputError where there are not two.
    """
    if len(images) < 2:
        raise InputError(f"{len(images)} images cannot be divided into training and validation; give at least 2")
    number = min(len(images) - 1, max(1, round(val_share * len(images))))

    def drawn(name: str) -> bytes:
        return hashlib.blake2b(f"0/{name}".encode(errors="surrogateescape"), digest_size=8).digest()

    chosen = set(sorted((image.name for image in images), key=drawn)[:number])
    return {"train": [i for i in images if i.name not in chosen], "val": [i for i in images if i.name in chosen]}


def _write_split(split: SplitName, source: Source, folder: Path, skeleton: Skeleton, log: Log) -> str:
    """Pictures and annotation file; a line on whom training finds in them, InputError where it is nobody."""
    images = source.splits[split]
    file, pictures = folder / "annotations" / f"{split}.json", folder / "images" / split
    pictures.mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, start=1):
        _place_image(image.file.resolve(), pictures / image.name)
        image_id = number if image.image_id is None else image.image_id
        height, width = image.size or (0, 0)
        crowd = {} if image.crowd_index is None else {"crowdIndex": image.crowd_index}
        entries.append({"id": image_id, "file_name": image.name, "height": height, "width": width, **crowd})
        annotations += [_annotation(person, len(annotations) + n, image_id) for n, person in enumerate(image.people, 1)]
    if not any(annotation["num_keypoints"] for annotation in annotations):
        because = [f"{times} {repair}" for repair, times in (+log.repairs).items()]
        because += [f"left out: {len(log.problems)}, first {log.problems[0]}"] if log.problems else []
        words = f"{split} has {len(images)} images and nobody with labelled keypoints"
        raise InputError("; ".join([words, *because, "no training or evaluation is possible"]))
    category = {
        "id": DEFAULT_PERSON_CATEGORY,
        "name": source.category,
        "keypoints": skeleton.keypoint_names,
        "skeleton": (skeleton.limb_indices + 1).tolist(),
    }
    info = {"description": f"{skeleton.name}, {split}", "image_orientation": source.orientation}
    info |= {"boxes": "uncut"} if source.uncut_boxes else {}
    content = {"info": info, "categories": [category], "images": entries, "annotations": annotations}
    write_json(file, content, indent=None)
    return f"{len(images)} images; {read_ground_truth(file, pictures, skeleton).summary()}"


def _annotation(person: SourcePerson, number: int, image_id: int) -> dict[str, Any]:
    box = person.box_xywh.round(3).tolist()  # a thousandth of a pixel
    area = AREA_OF_BOX * box[2] * box[3] if person.area is None else person.area
    return {
        "id": number if person.annotation_id is None else person.annotation_id,
        "image_id": image_id,
        "category_id": DEFAULT_PERSON_CATEGORY,
        "iscrowd": int(person.is_crowd),
        "bbox": box,
        "area": max(round(area, 3), 0.001),
        "keypoints": person.keypoints.round(3).ravel().tolist(),
        "num_keypoints": int((person.keypoints[:, 2] > 0).sum()),
    }


def _place_image(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.hardlink_to(source)
    except OSError:  # another file system, or one without links, or a file of somebody else's
        try:
            shutil.copyfile(source, path)
        except OSError as error:
            raise InputError(f"{source} cannot be copied to {path} ({error.strerror or error})") from error


def _write_descriptions(folder: Path, to: Path, name: str, skeleton: Skeleton, scored_by: Mapping[str, str]) -> None:
    """The skeleton and the data config."""
    about = f"# The keypoints of {name}: check left_right_pairs, and the sigmas, on which OKS and AP depend.\n"
    write_text(folder / "skeleton.yaml", about + _plain_yaml(skeleton.to_dict()))
    facts = {
        "root": str(to),
        "train_annotations": "annotations/train.json",
        "train_images": "images/train",
        "val_annotations": "annotations/val.json",
        "val_images": "images/val",
        "val_boxes": "gt",
        "skeleton": "${.root}/skeleton.yaml",
        **scored_by,
        "if_missing": "say where it is with data.root=<folder>",
    }
    config, conf = {"defaults": ["_people", f"sets/{name}@_here_"], "codec": _CODEC}, folder / "conf" / "data"
    text = f"# Written by src/convert_data.py. Train with {shell_command('--config-dir', to / 'conf', data=name)}\n"
    write_text(conf / f"{name}.yaml", text + _plain_yaml(config))
    text = f"# @package data.sets.{name}\n# Where {name} is, also for data=joint data.sets=[coco,{name}].\n"
    write_text(conf / "sets" / f"{name}.yaml", text + _plain_yaml(facts))


def _plain_yaml(fields: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
