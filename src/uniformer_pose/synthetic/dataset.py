"""A dataset of synthetic pictures on disk, in COCO's own layout and annotation format, or that of a published set.

    ROOT/images/{train,val}/000000000001.jpg
    ROOT/annotations/person_keypoints_{train,val}.json
    ROOT/person_detection_results/{train,val}_detections.json
    ROOT/annotations/mpii_gt_val.mat: for mpii_16 the heads, in the order of annotation ids, which are from 0

Names and lists of keypoints are as the skeleton says that they are in its set's files; the category lists as
``unlabelled`` what the figure is too coarse for. But for COCO's, every image has CrowdPose's ``crowdIndex``.

Image i of a split depends on nothing but the settings, the split and i: not on the number of workers, and not on how
many images there are. The same bytes come out twice with the same OpenCV and NumPy. Annotations are written last, so
an interrupted run leaves none.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le

from uniformer_pose.config import check_value
from uniformer_pose.data.categories import DEFAULT_PERSON_CATEGORY
from uniformer_pose.errors import InputError
from uniformer_pose.files import write_json, write_whole
from uniformer_pose.skeleton import Skeleton, load_skeleton
from uniformer_pose.synthetic.landmarks import not_shown
from uniformer_pose.synthetic.scene import Person, Scene, render_scene
from uniformer_pose.synthetic.set_form import crowd_index, head_boxes_file, in_arrays
from uniformer_pose.synthetic.settings import Split, SyntheticSettings

GENERATOR = "uniformer_pose.synthetic"
GENERATOR_VERSION = 1  # raise it when the same settings give other pictures or annotations
SPLITS: tuple[Split, Split] = ("train", "val")
_SCENE_STREAM, _DETECTION_STREAM = 0, 1
_UNFINISHED = "UNFINISHED"
_HEAD_BOXES = "annotations/mpii_gt_val.mat"
_COCO, _MPII = "coco_17", "mpii_16"  # skeletons


def write_synthetic_dataset(
    root: Path | str,
    *,
    skeleton: Skeleton | None = None,
    workers: int = 0,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda *_: None,
    **settings: Any,
) -> bool:
    """Write a synthetic dataset under ``root``; False if the same one is there already and nothing was done.

    ``skeleton`` (COCO's unless told) names the keypoints to annotate; ``workers`` processes render, 0 renders in this
    process. ``on_progress(done, total)`` is called as images are finished. ``settings`` are those of SyntheticSettings.
    Raises InputError for unusable settings, for a different synthetic dataset under ``root`` unless ``overwrite``, and
    always for files there that are not a synthetic dataset.
    """
    root, skeleton = Path(root), skeleton or load_skeleton(_COCO)
    if skeleton.figure != "person":
        raise InputError(f"skeleton {skeleton.name} is of figure {skeleton.figure}, and only people are drawn")
    limbs = tuple((int(first) + 1, int(second) + 1) for first, second in skeleton.limb_indices)
    wanted = SyntheticSettings(**settings | {"keypoint_names": skeleton.keypoint_names, "limbs": limbs})
    check_value("workers", workers, Annotated[int, Ge(0), Le(512)])
    form = {name: value for name, value in skeleton.to_dict().items() if name.endswith("_in_files")}
    recorded = wanted.to_dict() | ({} if skeleton.name == _COCO else {"skeleton": skeleton.name}) | form
    if _already_written(root, recorded, overwrite=overwrite):
        return False
    _clear(root)
    files: dict[Path, object] = {}
    done = count(1)
    for split in SPLITS:
        if not wanted.num_images(split):
            continue
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
        records = []
        for record in _in_order(partial(_write_image, root, wanted, split), wanted.num_images(split), workers):
            records.append(record)
            on_progress(next(done), wanted.num_train_images + wanted.num_val_images)
        files[_detection_path(root, split)] = [found for _, _, detections in records for found in detections]
        files[_annotation_path(root, split)], head_boxes = _annotations(recorded, skeleton, split, records)
        if skeleton.name == _MPII and split == "val":
            with write_whole(root / _HEAD_BOXES) as part:
                part.write_bytes(head_boxes_file(head_boxes))
    for path, content in files.items():
        write_json(path, content, indent=None)
    (root / _UNFINISHED).unlink()
    return True


def render_image(settings: SyntheticSettings, split: Split, image_id: int) -> Scene:
    """Image ``image_id`` (from 1) of a split, with its people."""
    return render_scene(_generator(settings, split, image_id, _SCENE_STREAM), settings)


def _generator(settings: SyntheticSettings, split: Split, image_id: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([settings.seed, SPLITS.index(split), image_id, stream])


# What one image contributes: its entry of "images", its annotations without ids, its detections.
_Record = tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]


def _write_image(root: Path, settings: SyntheticSettings, split: Split, image_id: int) -> _Record:
    scene = render_image(settings, split, image_id)
    file_name = f"{image_id:012d}.jpg"
    parameters = [cv2.IMWRITE_JPEG_QUALITY, settings.jpeg_quality]
    encoded = cv2.imencode(".jpg", cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), parameters)[1]
    (root / "images" / split / file_name).write_bytes(encoded.tobytes())
    image = {"id": image_id, "width": settings.image_width, "height": settings.image_height, "file_name": file_name}
    people = [_annotation(image_id, person) for person in scene.people]
    detections = _detections(_generator(settings, split, image_id, _DETECTION_STREAM), settings, image_id, people)
    return image, people + ([_annotation(image_id, scene.crowd, iscrowd=1)] if scene.crowd else []), detections


def _annotation(image_id: int, person: Person, iscrowd: int = 0) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "category_id": DEFAULT_PERSON_CATEGORY,
        "iscrowd": iscrowd,
        "bbox": list(person.box_xywh),
        "area": person.area,
        "num_keypoints": int((person.keypoints[:, 2] > 0).sum()),
        "keypoints": [int(v) if float(v).is_integer() else float(v) for v in person.keypoints.ravel()],
        "segmentation": person.segmentation,
        "head_box": person.head_box,  # goes into a file of its own
    }


def _detections(
    rng: np.random.Generator, settings: SyntheticSettings, image_id: int, people: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What a good but imperfect person detector would report: COCO results, best score first.

    Most people are found with a high score and a slightly wrong box; one in twenty is missed, one in ten found twice;
    there are a few false alarms with low scores.
    """
    found: list[tuple[float, npt.NDArray[np.float64]]] = []
    for person in people:
        box = np.asarray(person["bbox"], dtype=np.float64)
        missed, doubled = rng.random() < 0.05, rng.random() < 0.1
        if not missed:
            found.append((1.0 - 0.4 * rng.beta(1, 5), _jittered(rng, box, 0.03)))
            if doubled:
                found.append((rng.uniform(0.1, 0.6), _jittered(rng, box, 0.1)))
    for _ in range(int(rng.poisson(0.5))):
        tall, wide = rng.uniform(0.1, 0.6) * settings.image_height, rng.uniform(0.05, 0.4) * settings.image_width
        corner = rng.uniform(0, settings.image_width - wide), rng.uniform(0, settings.image_height - tall)
        found.append((rng.uniform(0.02, 0.35), np.array([*corner, wide, tall])))
    found.sort(key=lambda entry: -entry[0])
    detections = []
    for score, (x, y, wide, tall) in found:
        left, top = max(0.0, x), max(0.0, y)
        right, bottom = min(settings.image_width, x + wide), min(settings.image_height, y + tall)
        bbox = [round(float(v), 2) for v in (left, top, max(1.0, right - left), max(1.0, bottom - top))]
        detections.append(
            {
                "image_id": image_id,
                "category_id": DEFAULT_PERSON_CATEGORY,
                "bbox": bbox,
                "score": round(float(score), 5),
            }
        )
    return detections


def _jittered(rng: np.random.Generator, box: npt.NDArray[np.float64], spread: float) -> npt.NDArray[np.float64]:
    """A box whose edges are off by a few per cent of its size."""
    sides = np.clip(rng.normal(0, spread, 4), -0.25, 0.25) * np.tile(box[2:], 2)
    jittered: npt.NDArray[np.float64] = box + np.concatenate([sides[:2], sides[2:] - sides[:2]])
    return jittered


def _annotations(
    settings: dict[str, Any], skeleton: Skeleton, split: Split, records: Sequence[_Record]
) -> tuple[dict[str, Any], list[tuple[float, ...]]]:
    """What the annotation file holds, and the head boxes of its people."""
    info = {
        "description": f"Synthetic people, {split}",
        "generator": GENERATOR,
        "generator_version": GENERATOR_VERSION,
        "seed": settings["seed"],
        "settings": settings,
    }
    names = skeleton.names_in_files or skeleton.keypoint_names
    limbs = [limb for limb in settings["limbs"] if max(limb) <= len(names)]
    unlabelled = not_shown(skeleton.keypoint_names)
    category = {"supercategory": "person", "id": DEFAULT_PERSON_CATEGORY, "name": "person", "keypoints": names}
    images = [image for image, _, _ in records]
    if skeleton.name != _COCO:
        images = [{**image, "crowdIndex": crowd_index(people)} for image, people, _ in records]
    first_id, with_crowds = (0, False) if skeleton.name == _MPII else (1, True)
    people = [person for _, found, _ in records for person in found if with_crowds or not person["iscrowd"]]
    head_boxes = [person.pop("head_box") for person in people]
    content = {
        "info": info,
        "licenses": [],
        "categories": [{**category, "skeleton": limbs} | ({"unlabelled": unlabelled} if unlabelled else {})],
        "images": images,
        "annotations": [{"id": n, **in_arrays(person, skeleton)} for n, person in enumerate(people, start=first_id)],
    }
    return content, head_boxes


def _in_order(render: Callable[[int], _Record], num_images: int, workers: int) -> Iterator[_Record]:
    """The records of the images in order, rendered in this process or by others."""
    image_ids = range(1, num_images + 1)
    if workers == 0:
        yield from map(render, image_ids)
        return
    # Spawned, not forked: the caller may hold threads (OpenCV, torch) that a fork would copy half-alive.
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        yield from executor.map(render, image_ids, chunksize=8)
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends the workers


def _annotation_path(root: Path, split: Split) -> Path:
    return root / "annotations" / f"person_keypoints_{split}.json"


def _detection_path(root: Path, split: Split) -> Path:
    return root / "person_detection_results" / f"{split}_detections.json"


def _already_written(root: Path, settings: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Whether exactly this dataset stands under ``root``; raises InputError if something else stands in its way."""
    if root.exists() and not root.is_dir():
        raise InputError(f"root={root} is a file; give a folder, new or empty")
    if (root / _UNFINISHED).exists():
        return False  # ours, and interrupted: write it again
    wanted = {"generator_version": GENERATOR_VERSION, **settings}
    written = [found for found in (_settings_of(root, split) for split in SPLITS) if found]
    different = {name for found in written for name in {*found, *wanted} if found.get(name) != wanted.get(name)}
    if different and not overwrite:
        raise InputError(
            f"root={root} holds a synthetic dataset with other settings ({', '.join(sorted(different))}); "
            "set overwrite=true to replace it, or choose another root"
        )
    return bool(written) and not different


def _settings_of(root: Path, split: Split) -> dict[str, Any]:
    """The generator version and settings that a split was written with, {} where there is none; refuses other files."""
    path = _annotation_path(root, split)
    others = [*(root / "images" / split).glob("*"), *([root / _HEAD_BOXES] if split == "val" else [])]
    if not path.exists() and not any(other.exists() for other in others):
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8"))["info"]
        if info["generator"] == GENERATOR:
            return {"generator_version": info["generator_version"], **info["settings"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{root} holds files not written by the synthetic generator, which stay; choose another root")


def _clear(root: Path) -> None:
    """Mark ``root`` as unfinished, then remove the annotations, detections and images of an earlier dataset."""
    root.mkdir(parents=True, exist_ok=True)
    (root / _UNFINISHED).write_text("A synthetic dataset was being written here; write it again.\n", encoding="utf-8")
    (root / _HEAD_BOXES).unlink(missing_ok=True)
    for split in SPLITS:
        _annotation_path(root, split).unlink(missing_ok=True)
        _detection_path(root, split).unlink(missing_ok=True)
        for path in (root / "images" / split).glob("[0-9]" * 12 + ".jpg"):
            path.unlink()
