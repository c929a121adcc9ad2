"""Attempts on what reads data: annotations, detections, pictures, skeletons, foreign formats, videos."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import yaml
from mutations import broken_bytes, broken_json, broken_value
from PIL import Image
from watching import Attempt

from uniformer_pose.data.checking.dataset import check_dataset
from uniformer_pose.data.checking.report import Split
from uniformer_pose.data.coco import PersonInstances, read_detections, read_ground_truth
from uniformer_pose.data.conversion.dataset_writer import write_dataset
from uniformer_pose.data.conversion.points_table import read_points_table
from uniformer_pose.data.conversion.source import Log, Settings, Source
from uniformer_pose.data.conversion.usable_people import read_header
from uniformer_pose.data.conversion.yolo_pose import read_yolo_pose
from uniformer_pose.data.images import decode_image, read_file, read_photo
from uniformer_pose.prediction.listed_boxes import read_listed_boxes
from uniformer_pose.skeleton import Skeleton, load_skeleton

SOUND: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "documents.yaml").read_text(encoding="utf-8"))
"""Sound documents of every kind that is read."""

HEIGHT, WIDTH = 24, 32
COCO_17 = load_skeleton("coco_17")


def _broken_file(kind: str, chance: random.Random, folder: Path, name: str) -> tuple[Path, str]:
    data, what = broken_json(SOUND[kind], chance)
    return _written(folder / name, data), what


def annotations(chance: random.Random, folder: Path) -> Attempt:
    """A broken annotation file, read as training does."""
    file, what = _broken_file("annotations", chance, folder, "annotations.json")

    def run() -> None:
        _require_sound(read_ground_truth(file, folder, COCO_17), len(_read_again(file)["annotations"]))

    return Attempt(what, (file.name,), run)


def detections(chance: random.Random, folder: Path) -> Attempt:
    """Broken detector results, read as evaluation does."""
    known = _written(folder / "known.json", json.dumps(SOUND["annotations"]).encode())
    file, what = _broken_file("detections", chance, folder, "detections.json")

    def run() -> None:
        _require_sound(read_detections(file, known, folder, COCO_17), len(_read_again(file)))

    return Attempt(what, (file.name,), run)


def listed_boxes(chance: random.Random, folder: Path) -> Attempt:
    """Broken boxes= of src/predict.py, in either form."""
    kind = "detections" if chance.random() < 0.5 else "annotations"
    file, what = _broken_file(kind, chance, folder, "boxes.json")

    def run() -> None:
        names = ["a.png", "../x", "9" * 30 + ".png"]
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
            content = json.loads(file.read_bytes())
            entries = content if isinstance(content, list) else content["annotations"]
            names += [str(image["file_name"]) for image in content["images"]] if isinstance(content, dict) else []
            names += [str(entry["image_id"]) for entry in entries]
        boxes = read_listed_boxes(file, list(dict.fromkeys(names)))
        line = boxes.remarks()[0]
        counted = sum(map(int, re.findall(r"(?:: |, )(\d+) ", line)))
        assert counted == len(entries), f"{counted} of {len(entries)} entries accounted for"
        assert all(np.isfinite(people.boxes_xywh).all() for people in boxes(names, []))
        assert line.isprintable()

    return Attempt(what, (file.name,), run)


def whole_dataset(chance: random.Random, folder: Path) -> Attempt:
    """A broken annotation file and broken boxes, as src/check_data.py finds everything that is wrong with them."""
    file, what = _broken_file("annotations", chance, folder, "val.json")
    boxes, what_too = _broken_file("detections", chance, folder, "val_boxes.json")
    split = Split("val", file, folder, boxes)

    def run() -> None:
        check_dataset([split], COCO_17, read_images=False, workers=1)
        assert json.loads(json.dumps(split.to_dict(), allow_nan=False))["defects"] is not None
        assert split.lines()

    return Attempt(f"{what} | {what_too}", (file.name, boxes.name), run)


def pictures(chance: random.Random, folder: Path) -> Attempt:
    """A broken picture, as training, prediction and the converter read it."""
    suffix = chance.choice(sorted(_picture_files()))
    data, what = broken_bytes(_picture_files()[suffix], chance)
    file = _written(folder / f"picture{suffix}", data)
    reader = chance.choice(["training", "photo", "header"])

    def run() -> None:
        if reader == "training":
            image = decode_image(file, read_file(file), height=HEIGHT, width=WIDTH).pixels
            assert image.shape == (HEIGHT, WIDTH, 3)
        elif reader == "photo":
            image = read_photo(file, most_pixels=100_000)
            assert image.dtype == np.uint8
            assert image.shape[2] == 3
            assert image.shape[0] * image.shape[1] <= 100_000
        else:
            assert min(read_header(file).displayed) > 0

    return Attempt(f"{suffix} {reader}: {what}", (file.name,), run)


def skeletons(chance: random.Random, folder: Path) -> Attempt:
    """A broken skeleton file."""
    document = SOUND["skeleton"]
    kind = chance.random()
    if kind < 0.7:
        broken, what = broken_value(document, chance)
        text = yaml.safe_dump(broken)
    elif kind < 0.8:
        what = chance.choice(sorted(_YAML_ATTACKS))
        text = _YAML_ATTACKS[what]
    else:
        data, what = broken_bytes(yaml.safe_dump(document).encode(), chance)
        text = data.decode("latin-1")
    file = folder / "skeleton.yaml"
    file.write_text(text, encoding="latin-1" if kind >= 0.8 else "utf-8", errors="surrogatepass")

    def run() -> None:
        skeleton = load_skeleton(file)
        there = skeleton.mirror_permutation
        assert skeleton.num_keypoints == len(there) > 0
        assert (there[there] == np.arange(len(there))).all()
        assert skeleton.limb_indices.shape[1] == 2
        assert np.isfinite(skeleton.oks_sigmas).all()
        assert Skeleton.from_dict(json.loads(json.dumps(skeleton.to_dict()))) == skeleton

    return Attempt(what, (file.name,), run)


def yolo_labels(chance: random.Random, folder: Path) -> Attempt:
    """A broken YOLO-pose dataset, converted whole."""
    root, line = folder / "yolo", "0 0.5 0.5 0.4 0.6 0.5 0.25 2 0.4 0.5 1 0 0 0"
    for name in ("train/a.png", "train/b.png", "val/c.png"):
        _written(root / "images" / name, _picture_files()[".png"])
        _written((root / "labels" / name).with_suffix(".txt"), f"{line}\n{line}\n".encode())
    description = SOUND["yolo"]
    if chance.random() < 0.5:
        description, what = broken_value(description, chance)
    else:
        label, what = _broken_words(f"{line}\n{line}\n", chance)
        _written(root / "labels" / "train" / "a.txt", label)
    _written(root / "data.yaml", yaml.safe_dump(description).encode())

    def run() -> None:
        _convert(read_yolo_pose, root, folder / "converted")

    return Attempt(what, ("data.yaml", ".txt", ".png", "flip_idx", "train ", "val "), run)


def points_tables(chance: random.Random, folder: Path) -> Attempt:
    """A broken CSV of points, converted whole."""
    by_person = "image,split,nose_x,nose_y,left_hand_x,left_hand_y,box_x,box_y,box_width,box_height\n"
    by_person += "".join(f"{image},3,4,9.5,6,1,2,20,18\n" for image in ("a.png,train", "b.png,val"))
    data, what = _broken_words(by_person, chance)
    file = _written(folder / "points.csv", data)
    for name in ("a.png", "b.png"):
        _written(folder / name, _picture_files()[".png"])

    def run() -> None:
        _convert(read_points_table, file, folder / "converted")

    return Attempt(what, (file.name, "train ", "val ", "keypoint names", "images cannot be divided"), run)


def videos(chance: random.Random, folder: Path) -> Attempt:
    """A broken video, read to its end."""
    from uniformer_pose.prediction import video

    data, what = broken_bytes(_video_file(), chance)
    file = _written(folder / "video.mp4", data)

    def run() -> None:
        with mock.patch.object(video, "MAX_PIXELS", 10_000), video.VideoReader(file) as reader:
            last = -1.0
            for frame in reader:
                assert frame.image.shape == (reader.height, reader.width, 3)
                assert frame.seconds > last
                last = frame.seconds
                assert frame.index < 1000, "an endless video"
            assert all(remark.isprintable() for remark in reader.remarks())

    return Attempt(what, (file.name,), run)


_LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(  # stands for ten to the power of ten values
    f"{here}: &{here} [{', '.join([f'*{before}'] * 10)}]\n" for before, here in itertools.pairwise("abcdefghij")
)
_YAML_ATTACKS = {
    "an object": "!!python/object/apply:os.system ['touch MARKER']\n",
    "aliases that grow": _LAUGHS,
    "aliases that grow in a field": yaml.safe_dump(SOUND["skeleton"]).replace("limbs:", f"{_LAUGHS}limbs:"),
    "a mapping in itself": "&a {name: *a}\n",
    "nested too deeply": "[" * 3000,
}
_MORE_WORDS = ["", "\u2028", "9" * 400, "x" * 200000]


def _broken_words(text: str, chance: random.Random) -> tuple[bytes, str]:
    """A table with words exchanged for hostile ones, or with broken bytes."""
    if chance.random() < 0.3:
        return broken_bytes(text.encode(), chance)
    separator = "," if "," in text else " "
    lines = [line.split(separator) for line in text.splitlines()]
    done = []
    for _ in range(chance.choice([1, 1, 2, 3])):
        row = chance.randrange(len(lines))
        column = chance.randrange(len(lines[row]))
        word = chance.choice([*SOUND["words_of_tables"].split(" "), *_MORE_WORDS])
        lines[row][column] = word
        done.append(f"{row}:{column} = {word!r:.20}")
    ending = chance.choice(["\n", "\r\n", "\r"])
    return ending.join(separator.join(line) for line in lines).encode(), "; ".join(done)


def _convert(read: Callable[[Path, Settings, Log], Source], source: Path, to: Path, **settings: Any) -> None:
    """Write the dataset without its problems; every image is converted, or listed as left out."""
    log, asked = Log(skip=True), Settings(**settings)
    shutil.rmtree(to, ignore_errors=True)
    found = read(source, asked, log)
    write_dataset(found, to, "theirs", asked, log, made_from={"from": "a test"})
    assert all(sentence.isprintable() for sentence in log.problems), log.problems
    num_images = 0
    for split in ("train", "val"):
        file = to / "annotations" / f"{split}.json"
        written = json.loads(file.read_text(encoding="utf-8"))
        num_images += len(written["images"])
        if any(sum(annotation["keypoints"][2::3]) for annotation in written["annotations"]):
            skeleton = load_skeleton(to / "skeleton.yaml")
            people = read_ground_truth(file, to / "images" / split, skeleton)
            _require_sound(people, len(written["annotations"]))
    assert num_images == sum(map(len, found.splits.values())) or log.problems


def _require_sound(people: PersonInstances, num_records: int) -> None:
    counts = dict(people.counts)
    read, kept = counts.pop("read"), counts.pop("kept")
    assert read == num_records, f"read {read} of {num_records}"
    assert kept == len(people), f"kept {kept}, has {len(people)}"
    assert kept + sum(counts.values()) == read, f"unaccounted: {people.counts}"
    assert np.isfinite(people.boxes_xywh).all()
    assert np.isfinite(people.keypoints_in_image).all(), "keypoints that are not finite"
    assert (people.boxes_xywh[:, 2:] > 0).all()
    assert np.isin(people.visibility, (0, 1, 2)).all()
    assert (people.image_of_instance < people.num_images).all()
    assert people.summary().isprintable()
    for name in people.file_names.tolist():
        assert ".." not in Path(name).parts, name
        assert not Path(name).is_absolute(), name


def _read_again(file: Path) -> Any:
    return json.loads(file.read_bytes().decode("utf-8-sig", errors="replace"))


def _written(file: Path, data: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


@functools.cache
def _picture_files() -> dict[str, bytes]:
    """One sound picture of each kind by its ending."""
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    files = {suffix: cv2.imencode(suffix, pixels)[1].tobytes() for suffix in (".png", ".webp", ".tif")}
    image, stream = Image.fromarray(pixels), io.BytesIO()
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    image.convert("CMYK").save(stream, "JPEG", exif=turned, progressive=True)
    files[".jpg"] = stream.getvalue()
    stream = io.BytesIO()
    image.save(stream, "GIF")
    return files | {".gif": stream.getvalue()}


@functools.cache
def _video_file() -> bytes:
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for number in range(6):
            picture = np.full((48, 64, 3), 40 * number, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
    return stream.getvalue()
