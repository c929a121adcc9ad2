"""A dataset of synthetic pictures on disk, in COCO's own layout and annotation format.

    ROOT/images/{train,val}/000000000001.jpg
    ROOT/annotations/person_keypoints_{train,val}.json
    ROOT/person_detection_results/{train,val}_detections.json

Image i of a split depends on nothing but the settings, the split and i: not on the number of workers, and not on how
many images there are. The same bytes come out twice with the same OpenCV and NumPy. Annotations are written last, so
an interrupted run leaves none.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton
from uniformer_pose.synthetic.figure import StripedSide, check_landmarks
from uniformer_pose.synthetic.pose import PoseVariety
from uniformer_pose.synthetic.scene import Scene, render_scene

GENERATOR = "uniformer_pose.synthetic"
GENERATOR_VERSION = 1  # raise it when the same settings give other pictures or annotations
Split = Literal["train", "val"]
SPLITS: tuple[Split, Split] = ("train", "val")
_SCENE_STREAM, _DETECTION_STREAM = 0, 1
_UNFINISHED = "UNFINISHED"
_PERSON = 1  # COCO's category id


@dataclass(frozen=True)
class SyntheticSettings:
    """Everything the pictures and annotations depend on; it is written into the annotations' ``info``.

    ``person_height`` bounds the standing height of people as a fraction of the image height, except for the
    ``close_up_share`` of them who are taller than the image. ``crowd_share`` of the images hold a far crowd, annotated
    as one ``iscrowd`` region. ``striped_side`` is the side of the body with bands on sleeve and trouser leg:
    ``random`` draws it per person. That is the default because a mirrored picture of a world where it is always the
    left is no picture of that world, so flip augmentation and flip test would harm; in a world of random sides
    they are right. ``poses``: ``any``, or ``frontal`` for people on their feet who face the camera. Raises InputError
    for values out of range.
    """

    num_train_images: int
    num_val_images: int
    image_height: int = 256
    image_width: int = 320
    people_per_image: tuple[int, int] = (1, 4)
    person_height: tuple[float, float] = (0.24, 0.9)
    close_up_share: float = 0.08
    crowd_share: float = 0.06
    striped_side: StripedSide = "random"
    poses: PoseVariety = "any"
    jpeg_quality: int = 92
    seed: int = 0
    keypoint_names: tuple[str, ...] = ()
    limbs: tuple[tuple[int, int], ...] = field(default=(), repr=False)  # COCO's "skeleton": indices from 1

    def __post_init__(self) -> None:
        for name, least, most in (
            ("num_train_images", 0, 10**7),
            ("num_val_images", 0, 10**7),
            ("image_height", 32, 4096),
            ("image_width", 32, 4096),
            ("jpeg_quality", 1, 100),
            ("seed", 0, 2**63),
        ):
            _check_whole(name, getattr(self, name), least, most)
        if self.num_train_images + self.num_val_images == 0:
            raise InputError("num_train_images=0 and num_val_images=0 leave nothing to write; raise one of them")
        for name in ("close_up_share", "crowd_share"):
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)!r} must be between 0 and 1")
        for name, smallest, largest in (("people_per_image", 0.0, 50.0), ("person_height", 0.02, 3.0)):
            bounds = getattr(self, name)
            if not isinstance(bounds, (list, tuple)) or len(bounds) != 2 or not all(map(_is_number, bounds)):
                raise InputError(f"{name}={bounds!r} must be two numbers [least, most]")
            if not smallest <= bounds[0] <= bounds[1] <= largest:
                raise InputError(
                    f"{name}={list(bounds)} must be [least, most] with {smallest:g} <= least <= most <= {largest:g}"
                )
            object.__setattr__(self, name, tuple(bounds))
        for bound in self.people_per_image:
            _check_whole("people_per_image", bound, 0, 50)
        if self.striped_side not in get_args(StripedSide):
            raise InputError(f"striped_side={self.striped_side!r} must be one of {', '.join(get_args(StripedSide))}")
        if self.poses not in get_args(PoseVariety):
            raise InputError(f"poses={self.poses!r} must be one of {', '.join(get_args(PoseVariety))}")
        check_landmarks(self.keypoint_names)

    def num_images(self, split: Split) -> int:
        """How many images a split has."""
        return self.num_train_images if split == "train" else self.num_val_images

    def to_dict(self) -> dict[str, Any]:
        """The settings as they stand in JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def write_synthetic_dataset(
    root: Path | str,
    *,
    num_train_images: int,
    num_val_images: int,
    image_height: int = 256,
    image_width: int = 320,
    people_per_image: tuple[int, int] = (1, 4),
    person_height: tuple[float, float] = (0.24, 0.9),
    close_up_share: float = 0.08,
    crowd_share: float = 0.06,
    striped_side: StripedSide = "random",
    poses: PoseVariety = "any",
    jpeg_quality: int = 92,
    seed: int = 0,
    skeleton: Skeleton | None = None,
    workers: int = 0,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Write a synthetic dataset under ``root``; False if the same one is there already and nothing was done.

    ``skeleton`` (COCO's unless told) names the keypoints to annotate; ``workers`` processes render, 0 renders in this
    process. ``on_progress(done, total)`` is called as images are finished. The other arguments are those of
    SyntheticSettings. Raises InputError for unusable settings, for a different synthetic dataset under ``root`` unless
    ``overwrite``, and always for files there that are not a synthetic dataset.
    """
    root = Path(root)
    skeleton = skeleton or load_skeleton("coco_17")
    settings = SyntheticSettings(
        num_train_images=num_train_images,
        num_val_images=num_val_images,
        image_height=image_height,
        image_width=image_width,
        people_per_image=people_per_image,
        person_height=person_height,
        close_up_share=close_up_share,
        crowd_share=crowd_share,
        striped_side=striped_side,
        poses=poses,
        jpeg_quality=jpeg_quality,
        seed=seed,
        keypoint_names=skeleton.keypoint_names,
        limbs=tuple((int(first) + 1, int(second) + 1) for first, second in skeleton.limb_indices),
    )
    _check_whole("workers", workers, 0, 512)
    if _already_written(root, settings, overwrite=overwrite):
        return False
    _clear(root)
    total = settings.num_train_images + settings.num_val_images
    done = 0
    detection_files: dict[Path, object] = {}
    annotation_files: dict[Path, object] = {}
    for split in SPLITS:
        if not settings.num_images(split):
            continue
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
        records = []
        render = partial(_write_image, root, settings, split)
        for record in _in_order(render, range(1, settings.num_images(split) + 1), workers):
            records.append(record)
            done += 1
            if on_progress is not None:
                on_progress(done, total)
        detection_files[_detection_path(root, split)] = [
            detection for _, _, detections in records for detection in detections
        ]
        annotation_files[_annotation_path(root, split)] = _annotations(settings, split, records)
    for path, content in (*detection_files.items(), *annotation_files.items()):
        _write_json(path, content)
    (root / _UNFINISHED).unlink()
    return True


def render_image(settings: SyntheticSettings, split: Split, image_id: int) -> Scene:
    """Image ``image_id`` (from 1) of a split, with its people."""
    return render_scene(
        _generator(settings, split, image_id, _SCENE_STREAM),
        height=settings.image_height,
        width=settings.image_width,
        people_per_image=settings.people_per_image,
        person_height=settings.person_height,
        close_up_share=settings.close_up_share,
        crowd_share=settings.crowd_share,
        striped_side=settings.striped_side,
        poses=settings.poses,
        keypoint_names=settings.keypoint_names,
    )


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
    people = [
        {
            "image_id": image_id,
            "category_id": _PERSON,
            "iscrowd": 0,
            "bbox": list(person.box_xywh),
            "area": person.area,
            "num_keypoints": int((person.keypoints[:, 2] > 0).sum()),
            "keypoints": [int(v) if float(v).is_integer() else float(v) for v in person.keypoints.ravel()],
            "segmentation": person.polygons,
        }
        for person in scene.people
    ]
    detections = _detections(_generator(settings, split, image_id, _DETECTION_STREAM), settings, image_id, people)
    if scene.crowd is not None:
        crowd = {
            "image_id": image_id,
            "category_id": _PERSON,
            "iscrowd": 1,
            "bbox": list(scene.crowd.box_xywh),
            "area": scene.crowd.area,
            "num_keypoints": 0,
            "keypoints": [0] * (3 * len(settings.keypoint_names)),
            "segmentation": {"counts": scene.crowd.run_lengths, "size": [settings.image_height, settings.image_width]},
        }
        people.append(crowd)
    return image, people, detections


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
        detections.append({"image_id": image_id, "category_id": _PERSON, "bbox": bbox, "score": round(float(score), 5)})
    return detections


def _jittered(rng: np.random.Generator, box: npt.NDArray[np.float64], spread: float) -> npt.NDArray[np.float64]:
    """A box whose edges are off by a few per cent of its size."""
    sides = np.clip(rng.normal(0, spread, 4), -0.25, 0.25) * np.tile(box[2:], 2)
    jittered: npt.NDArray[np.float64] = box + np.concatenate([sides[:2], sides[2:] - sides[:2]])
    return jittered


def _annotations(settings: SyntheticSettings, split: Split, records: Sequence[_Record]) -> dict[str, Any]:
    annotations = [
        {"id": number, **person}
        for number, person in enumerate((p for _, people, _ in records for p in people), start=1)
    ]
    return {
        "info": {
            "description": f"Synthetic people, {split}",
            "generator": GENERATOR,
            "generator_version": GENERATOR_VERSION,
            "seed": settings.seed,
            "settings": settings.to_dict(),
        },
        "licenses": [],
        "categories": [
            {
                "supercategory": "person",
                "id": _PERSON,
                "name": "person",
                "keypoints": list(settings.keypoint_names),
                "skeleton": [list(limb) for limb in settings.limbs],
            }
        ],
        "images": [image for image, _, _ in records],
        "annotations": annotations,
    }


def _in_order(render: Callable[[int], _Record], image_ids: Iterable[int], workers: int) -> Iterator[_Record]:
    """The records of the images in order, rendered in this process or by others."""
    if workers == 0:
        yield from map(render, image_ids)
        return
    # Spawned, not forked: the caller may hold threads (OpenCV, torch) that a fork would copy half-alive.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        with _interrupts_ignored():  # the workers inherit it: Ctrl-C reaches the parent alone, which ends them
            records = executor.map(render, image_ids, chunksize=8)
        yield from records
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's business
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _annotation_path(root: Path, split: Split) -> Path:
    return root / "annotations" / f"person_keypoints_{split}.json"


def _detection_path(root: Path, split: Split) -> Path:
    return root / "person_detection_results" / f"{split}_detections.json"


def _already_written(root: Path, settings: SyntheticSettings, *, overwrite: bool) -> bool:
    """Whether exactly this dataset stands under ``root``; raises InputError if something else stands in its way."""
    if root.exists() and not root.is_dir():
        raise InputError(f"root={root} is a file; give a folder, new or empty")
    if (root / _UNFINISHED).exists():
        return False  # ours, and interrupted: write it anew
    wanted = {"generator_version": GENERATOR_VERSION, **settings.to_dict()}
    complete, different = True, set()
    for split in SPLITS:
        images = {path.name for path in (root / "images" / split).glob("*")}
        path = _annotation_path(root, split)
        if path.exists():
            found = _read_settings(path)
            different |= {name for name in {*found, *wanted} if found.get(name) != wanted.get(name)}
            complete &= _detection_path(root, split).exists()
        elif images:
            raise InputError(
                f"{root / 'images' / split} holds files that are no synthetic dataset; choose another root"
            )
        complete &= path.exists() == (settings.num_images(split) > 0)
        complete &= images >= {f"{image_id:012d}.jpg" for image_id in range(1, settings.num_images(split) + 1)}
    if different and not overwrite:
        raise InputError(
            f"root={root} holds a synthetic dataset with other settings ({', '.join(sorted(different))}); "
            "set overwrite=true to replace it, or choose another root"
        )
    return complete and not different


def _read_settings(path: Path) -> dict[str, Any]:
    """The generator version and settings that an annotation file was written with; refuses files of other origin."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"))["info"]
        if info["generator"] == GENERATOR:
            return {"generator_version": info["generator_version"], **info["settings"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} was not written by the synthetic generator and stays as it is; choose another root")


def _clear(root: Path) -> None:
    """Mark ``root`` as unfinished, then remove the annotations, detections and images of an earlier dataset."""
    root.mkdir(parents=True, exist_ok=True)
    (root / _UNFINISHED).write_text("A synthetic dataset was being written here; write it again.\n", encoding="utf-8")
    for split in SPLITS:
        _annotation_path(root, split).unlink(missing_ok=True)
        _detection_path(root, split).unlink(missing_ok=True)
        for path in (root / "images" / split).glob("[0-9]" * 12 + ".jpg"):
            path.unlink()


def _write_json(path: Path, content: object) -> None:
    """Write a file that is either complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            json.dump(content, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _check_whole(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{name}={value!r} must be a whole number from {least} to {most}")
