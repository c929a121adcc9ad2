"""A foreign dataset -> the layout and the data config that training reads, whole or not at all.

    TO/images/{train,val}/...
    TO/annotations/{train,val}.json
    TO/skeleton.yaml
    TO/conf/data/NAME.yaml          for --config-dir TO/conf data=NAME
    TO/conversion.json              what it was made from, and how
    TO/left_out.txt                 what could not be converted, one sentence a line, if anything

Images are read and annotations written one by one. Everything goes to ``TO.part`` first, which is renamed at the end.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

import yaml

from uniformer_pose.data.categories import DEFAULT_PERSON_CATEGORY
from uniformer_pose.data.conversion.source import Problems, SourceDataset, SourceImage, SourcePerson, SplitName
from uniformer_pose.errors import InputError
from uniformer_pose.overrides import shell_command

CONVERTER = "uniformer_pose.data.conversion"
_MANIFEST = "conversion.json"
_UNFINISHED = ".part"


@dataclass(eq=False)
class ConversionSummary:
    """What was written: images, people, and people with a labelled keypoint, by split; what was left out, and notes.

    ``repairs``: how often each was needed. ``copied``: images that could not be linked, or were not to be.
    """

    config_file: Path
    notes: list[str]
    left_out: list[str]
    repairs: dict[str, int] = field(default_factory=dict)
    images: Counter[SplitName] = field(default_factory=Counter)
    people: Counter[SplitName] = field(default_factory=Counter)
    labelled: Counter[SplitName] = field(default_factory=Counter)
    copied: int = 0

    def text(self) -> str:
        """A few lines for people."""
        lines = [f"{split:<5} {self.of(split)} of them with labelled keypoints" for split in self.images]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"note: {times} {repair}" for repair, times in self.repairs.items()]
        if self.left_out:
            lines.append(f"left out: {len(self.left_out)}, listed in {self.config_file.parents[2] / 'left_out.txt'}")
        return "\n".join(lines)

    def of(self, split: SplitName) -> str:
        """How much a split holds."""
        return f"{self.images[split]} images, {self.people[split]} people, {self.labelled[split] or 'none'}"


def write_dataset(
    dataset: SourceDataset,
    to: Path,
    *,
    name: str,
    image_files: Literal["link", "copy"] = "link",
    codec: Mapping[str, Any],
    area_of_box: float,
    overwrite: bool = False,
    on_problem: Literal["error", "skip"] = "error",
    made_from: Mapping[str, Any],
    on_progress: Callable[[int, int], None] | None = None,
) -> ConversionSummary:
    """Write ``dataset`` to the folder ``to``, which must be new, empty, or (``overwrite``) written by this function.

    ``link`` makes hard links, and copies where the file system has none. ``codec`` holds height, width and sigma for
    the data config. ``area_of_box``: the share of its box that a person without an area covers. ``on_problem``: one
    InputError for all that cannot be converted, or leave it out and list it. ``made_from``: kept in conversion.json.
    """
    to = to.absolute()  # resolve() would follow a link and write elsewhere
    require_free(to, overwrite=overwrite)
    unfinished = to.with_name(to.name + _UNFINISHED)
    if unfinished.exists():
        _require_ours(unfinished)
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    problems = Problems(allowed=on_problem == "skip")
    summary = ConversionSummary(to / "conf" / "data" / f"{name}.yaml", dataset.notes, problems.sentences)
    total = sum(map(len, dataset.images.values()))
    numbers = count(1)

    def read(split: SplitName, image_name: str) -> SourceImage | None:
        image = dataset.read(split, image_name, problems)
        if on_progress is not None:
            on_progress(next(numbers), total)
        return image

    try:
        _write_json(unfinished / _MANIFEST, {"converted_by": CONVERTER})  # so that an interrupted one is known as ours
        for sentence in dataset.problems:
            problems.add(sentence)
        for split in dataset.images:
            images = ((image_name, read(split, image_name)) for image_name in dataset.images[split])
            _write_split(dataset, split, images, unfinished, problems, summary, image_files, area_of_box)
        summary.repairs = dict(+dataset.repairs)  # those that were needed
        problems.refuse()
        _require_labelled(summary)
        _write_skeleton(unfinished / "skeleton.yaml", dataset)
        _write_config(unfinished / "conf" / "data" / f"{name}.yaml", to, name, codec)
        if summary.left_out:
            text = "\n".join(summary.left_out) + "\n"
            (unfinished / "left_out.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
        counts = {key: getattr(summary, key) for key in ("notes", "repairs", "images", "people", "labelled")}
        facts = {"converted_by": CONVERTER, "made_from": dict(made_from), "left_out": len(summary.left_out)}
        _write_json(unfinished / _MANIFEST, {**facts, **counts})
        _put_in_place(unfinished, to)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return summary


def _require_labelled(summary: ConversionSummary) -> None:
    for split in summary.images:
        if not summary.labelled[split]:
            left_out = summary.left_out
            because = f" (left out: {len(left_out)}, first {left_out[0]})" if left_out else ""
            repaired = "".join(f"; {times} {repair}" for repair, times in summary.repairs.items())
            raise InputError(
                f"{split}: {summary.of(split)} with a labelled keypoint{because}; no training or evaluation is "
                f"possible{repaired}"
            )


def require_free(to: Path, *, overwrite: bool) -> None:
    """InputError unless a dataset may be written to ``to``."""
    if to.is_symlink() or (to.exists() and not to.is_dir()):
        raise InputError(f"to={to} is no folder; give a folder that is new or empty")
    if not to.exists() or not any(to.iterdir()):
        return
    if not overwrite:
        raise InputError(f"to={to} holds files; give a new folder, or overwrite=true to replace a converted dataset")
    _require_ours(to)


def _require_ours(folder: Path) -> None:
    """Only what a conversion wrote is ever deleted."""
    try:
        ours = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["converted_by"] == CONVERTER
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise InputError(f"{folder} holds files that no conversion wrote, and stays as it is; give another folder")


def _write_split(
    dataset: SourceDataset,
    split: SplitName,
    images: Iterable[tuple[str, SourceImage | None]],
    folder: Path,
    problems: Problems,
    summary: ConversionSummary,
    image_files: Literal["link", "copy"],
    area_of_box: float,
) -> None:
    """One annotation file and its images; annotations are streamed to disk, the images' entries come after them."""
    image_folder = folder / "images" / split
    image_folder.mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    summary.images[split] = 0
    entries: dict[str, str] = {}
    with (folder / "annotations" / f"{split}.json").open("w", encoding="utf-8") as file:
        file.write(json.dumps(_head(dataset, split))[:-1] + ', "annotations": [')
        for image_name, image in images:
            if image is None:
                continue
            if image.file_name in entries:
                problems.add(f"{image.path}: is named twice, as {image_name} and otherwise")
                continue
            image_id = len(entries) + 1 if image.image_id is None else image.image_id
            size = {"height": image.height, "width": image.width}
            entries[image.file_name] = json.dumps({"id": image_id, "file_name": image.file_name, **size})
            summary.copied += _place_image(image, image_folder / image.file_name, image_files)
            for person in image.people:
                file.write(",\n" if summary.people[split] else "\n")
                summary.people[split] += 1
                entry = _annotation(person, summary.people[split], image_id, area_of_box)
                file.write(json.dumps(entry, allow_nan=False))
                summary.labelled[split] += entry["num_keypoints"] > 0
        file.write('\n], "images": [\n' + ",\n".join(entries.values()) + "\n]}\n")
        file.flush()
        os.fsync(file.fileno())
    summary.images[split] = len(entries)


def _head(dataset: SourceDataset, split: SplitName) -> dict[str, Any]:
    skeleton = dataset.skeleton
    category = {
        "id": DEFAULT_PERSON_CATEGORY,
        "name": dataset.category,
        "supercategory": dataset.category,
        "keypoints": list(skeleton.keypoint_names),
        "skeleton": (skeleton.limb_indices + 1).tolist(),
    }
    about = {"description": f"{skeleton.name}, {split}", "converted_by": CONVERTER, "image_orientation": "displayed"}
    return {"info": about, "categories": [category]}


def _annotation(person: SourcePerson, number: int, image_id: int, area_of_box: float) -> dict[str, Any]:
    x, y, width, height = (round(side, 3) for side in person.box_xywh.tolist())
    keypoints: list[float] = []
    for point_x, point_y, visibility in person.keypoints.tolist():
        keypoints += [_short(point_x), _short(point_y), int(visibility)]
    area = width * height * area_of_box if person.area is None else person.area
    return {
        "iscrowd": 0,
        **person.other_fields,
        "id": number if person.annotation_id is None else person.annotation_id,
        "image_id": image_id,
        "category_id": DEFAULT_PERSON_CATEGORY,
        "bbox": [_short(x), _short(y), _short(width), _short(height)],
        "area": max(round(area, 3), 0.001),
        "keypoints": keypoints,
        "num_keypoints": int((person.keypoints[:, 2] > 0).sum()),
    }


def _short(value: float) -> float | int:
    """A coordinate to a thousandth of a pixel, without digits that say nothing."""
    rounded = round(value, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def _place_image(image: SourceImage, path: Path, image_files: Literal["link", "copy"]) -> bool:
    """Link or copy one image to its place; whether it had to be copied."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = image.path.resolve()
    if image_files == "link":
        try:
            path.hardlink_to(source)
            return False
        except OSError:  # another file system, or one without links, or a file of somebody else's
            pass
    try:
        shutil.copyfile(source, path)
    except OSError as error:
        raise InputError(f"{source} cannot be copied to {path} ({error.strerror or error})") from error
    return True


def _write_skeleton(path: Path, dataset: SourceDataset) -> None:
    fields = dataset.skeleton.to_dict()
    text = (
        f"# The keypoints of {dataset.skeleton.name}. sigma: the annotators' spread as a fraction of the square root\n"
        "# of the person's area; OKS and AP depend on it. left_right_pairs are exchanged where a crop is mirrored.\n"
        "# upper_body and lower_body, both or neither, are for half-body augmentation and hold every keypoint once.\n"
    )
    path.write_text(text + _plain_yaml(fields), encoding="utf-8")


def _write_config(path: Path, to: Path, name: str, codec: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True)
    fields = {
        "defaults": ["_people"],
        "root": str(to),
        "train_annotations": "annotations/train.json",
        "train_images": "images/train",
        "val_annotations": "annotations/val.json",
        "val_images": "images/val",
        "val_boxes": "gt",
        "skeleton": "${.root}/skeleton.yaml",
        "codec": dict(codec),
        "if_missing": "say where it is with data.root=<folder>",
    }
    arguments = shell_command("--config-dir", to / "conf", data=name)
    text = f"# Written by src/convert_data.py. Train with {arguments}\n"
    path.write_text(text + _plain_yaml(fields), encoding="utf-8")


def _plain_yaml(fields: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def _put_in_place(unfinished: Path, to: Path) -> None:
    """Rename; an older dataset is moved aside first and comes back if the new one cannot take its place."""
    aside = to.with_name(f"{to.name}.old")
    if to.exists():
        if aside.exists():
            _require_ours(aside)
            shutil.rmtree(aside)
        to.rename(aside)
    try:
        unfinished.rename(to)
    except OSError:
        if aside.exists():
            aside.rename(to)
        raise
    if aside.exists():
        shutil.rmtree(aside)
