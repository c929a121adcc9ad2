"""What the page asks for, answered with plain numbers, lists and strings; how they travel is not told here.

Boxes are xywh in image pixels, edges rather than pixel centres; keypoints are (x, y) with whole numbers at pixel
centres. An image is the picture as the network sees it: upright, in full size.
"""

from __future__ import annotations

import base64
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from uniformer_pose.data.crop_geometry import CropGeometry
from uniformer_pose.data.images import read_photo
from uniformer_pose.demo_page.heatmap_layers import heatmap_layer
from uniformer_pose.demo_page.shelf import PictureShelf, ShelvedPicture
from uniformer_pose.errors import InputError
from uniformer_pose.prediction.boxes import BoxFinder
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.synthetic.dataset import SyntheticSettings, render_image

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

MOST_BOXES = 100
"""In one question: the page asks for the poses of more people in several."""

_LONGEST_PREVIEW_SIDE = 1600
_PREVIEW_QUALITY = 90
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Limits:
    """Of the pictures that visitors may hand in, before and after decoding."""

    upload_bytes: int
    pixels: int

    def __post_init__(self) -> None:
        for name, value in (("upload_megabytes", self.upload_bytes), ("megapixels", self.pixels)):
            if value < 1:
                raise InputError(f"limits.{name} must be above 0")


@dataclass(frozen=True, eq=False)
class Example:
    """A picture to try the page with, and where its people are: boxes (P, 4)."""

    name: str
    pixels: Image
    boxes_xywh: FloatArray


def rendered_examples(settings: SyntheticSettings) -> list[Example]:
    """The validation pictures of a synthetic dataset, drawn now, with the boxes of their people."""
    examples = []
    for number in range(1, settings.num_images("val") + 1):
        scene = render_image(settings, "val", number)
        boxes = np.array([person.box_xywh for person in scene.people], dtype=np.float64).reshape(-1, 4)
        examples.append(Example(f"rendered_people_{number}.jpg", scene.image, boxes))
    return examples


class PageAnswers:
    """Answers the page's questions about pictures, with one estimator for all visitors.

    ``make_detector`` is called when somebody first wants people to be found, and again until it succeeds; None where
    there is no detector. ``notes`` are sentences that the page shows about the model. Methods raise InputError, whose
    sentence is for the visitor. They are to be called from one thread at a time, but for ``preview``.
    """

    def __init__(
        self,
        estimator: PoseEstimator,
        *,
        limits: Limits,
        examples: Sequence[Example] = (),
        make_detector: Callable[[], BoxFinder] | None = None,
        notes: Sequence[str] = (),
        score_threshold: float = 0.2,
    ) -> None:
        self.limits = limits
        self._estimator = estimator
        # One of the largest allowed, or many of the usual size; the page hands in again what had to go.
        self._shelf = PictureShelf(2 * limits.pixels)
        self._examples = [(example, _preview(example.pixels)) for example in examples]
        self._make_detector = make_detector
        self._find_boxes: BoxFinder | None = None
        self._notes = list(notes)
        self._score_threshold = score_threshold

    def about(self) -> dict[str, Any]:
        """What the page has to know once: the skeleton, the model, the limits, the examples."""
        skeleton, codec = self._estimator.skeleton, self._estimator.codec
        return {
            "skeleton": {
                "name": skeleton.name,
                "keypoints": list(skeleton.keypoint_names),
                "colours": [list(colour) for colour in skeleton.colours],
                "limbs": skeleton.limb_indices.tolist(),
            },
            "crop": {"height": codec.height, "width": codec.width},
            "notes": self._notes,
            "limits": {"upload_bytes": self.limits.upload_bytes, "boxes": MOST_BOXES},
            "examples": [example.name for example, _ in self._examples],
            "can_detect": self._make_detector is not None,
            "score_threshold": self._score_threshold,
        }

    def open_upload(self, name: str, data: bytes) -> dict[str, Any]:
        """Decode and shelve what somebody handed in: its key, name, size, and no boxes yet."""
        shown = safe_name(name)
        with tempfile.TemporaryDirectory(prefix="uniformer_pose_") as folder:
            path = Path(folder) / "picture"
            path.write_bytes(data)
            try:
                pixels = read_photo(path, most_pixels=self.limits.pixels)
            except InputError as error:  # which names the file here, where the visitor knows another name
                raise InputError(str(error).replace(str(path), shown)) from error
        return self._shelve(shown, pixels, _preview(pixels), np.zeros((0, 4)))

    def open_example(self, number: int) -> dict[str, Any]:
        """Shelve an example: its key, name, size, and the boxes of its people."""
        example, preview = self._example(number)
        return self._shelve(example.name, example.pixels, preview, example.boxes_xywh)

    def example_preview(self, number: int) -> bytes:
        """An example as a JPEG."""
        return self._example(number)[1]

    def preview(self, key: str) -> bytes:
        """A shelved picture as a JPEG, smaller than the picture if that is large."""
        return self._shelf.get(key).preview

    def poses(self, question: Any) -> dict[str, Any]:
        """COCO results of the people in ``boxes`` of a picture, in that order, and the seconds it took.

        ``question`` has the ``picture``'s key, ``boxes`` (P, 4), and if need be ``box_scores`` (P,) and ``flip_test``.
        """
        picture = self._picture_of(question)
        boxes = question.get("boxes")
        if not isinstance(boxes, list) or not 1 <= len(boxes) <= MOST_BOXES:
            raise InputError(f"boxes: give a list of 1 to {MOST_BOXES} boxes [x, y, width, height]")
        start = time.perf_counter()
        people = self._estimator(
            picture.pixels, boxes, box_scores=question.get("box_scores"), flip_test=_flip_test(question)
        )
        seconds = time.perf_counter() - start
        results = people.to_coco(_image_id(picture.name))
        for result in results:
            result["file_name"] = picture.name
        return {"results": results, "seconds": seconds}

    def detect(self, question: Any) -> dict[str, Any]:
        """Boxes and scores of the people that the detector finds in a picture, best first."""
        picture = self._picture_of(question)
        if self._find_boxes is None:
            if self._make_detector is None:
                raise InputError("this page has no detector; draw a box around each person")
            self._find_boxes = self._make_detector()
        found = self._find_boxes([picture.name], [picture.pixels])[0]
        return {"boxes": found.boxes_xywh.tolist(), "box_scores": found.scores.tolist()}

    def heatmaps(self, question: Any) -> dict[str, Any]:
        """What the network sees of the person in ``box`` and where it looks, as pictures in the frame of the crop.

        ``crop`` is a PNG, ``layers`` K transparent ones that lie over it, ``all_layer`` the highest of them in every
        pixel, all in base64. ``peaks`` (K,) are the heights of the heatmaps, ``keypoints_in_crop`` (K, 2) what was
        decoded, in crop pixels.
        """
        picture = self._picture_of(question)
        codec = self._estimator.codec
        box, flip_test = question.get("box"), _flip_test(question)
        if not isinstance(box, list) or len(box) != 4:
            raise InputError("box: give [x, y, width, height] in image pixels")
        heatmaps = self._estimator.heatmaps(picture.pixels, box, flip_test=flip_test)
        decoded, peaks = codec.decode(torch.from_numpy(heatmaps)[None])
        if not (decoded.isfinite().all() and peaks.isfinite().all()):
            raise InputError("the network gives NaN or infinity for this box; try precision=fp32, or other weights")
        crop = CropGeometry.from_box(
            box,
            height=codec.height,
            width=codec.width,
            padding=self._estimator.model.box_padding,
            unbiased=codec.unbiased,
        ).crop(picture.pixels)
        return {
            "crop": _png(crop),
            "layers": [_png(heatmap_layer(heatmap, codec)) for heatmap in heatmaps],
            "all_layer": _png(heatmap_layer(heatmaps.max(axis=0), codec)),
            "peaks": peaks[0].tolist(),
            "keypoints_in_crop": decoded[0].tolist(),
        }

    def _shelve(self, name: str, pixels: Image, preview: bytes, boxes: FloatArray) -> dict[str, Any]:
        key = self._shelf.add(ShelvedPicture(name, pixels, preview))
        height, width = pixels.shape[:2]
        return {"picture": key, "name": name, "height": height, "width": width, "boxes": boxes.tolist()}

    def _example(self, number: int) -> tuple[Example, bytes]:
        if not 0 <= number < len(self._examples):
            raise InputError(f"there is no example {number}; there are {len(self._examples)}, from 0")
        return self._examples[number]

    def _picture_of(self, question: Any) -> ShelvedPicture:
        if not isinstance(question, dict) or not isinstance(question.get("picture"), str):
            raise InputError("picture: say which; its key came when it was opened")
        return self._shelf.get(question["picture"])


def safe_name(name: str) -> str:
    """The last part of a file's name as a line of at most 80 printable characters; ``picture`` if nothing is left."""
    last = PureWindowsPath(PurePosixPath(name).name).name
    printable = "".join(character for character in last if character.isprintable()).strip()
    if len(printable) > _LONGEST_NAME:
        suffix = PurePosixPath(printable).suffix[:10]
        printable = printable[: _LONGEST_NAME - len(suffix)] + suffix
    return printable or "picture"


def _flip_test(question: dict[str, Any]) -> bool:
    flip_test = question.get("flip_test", False)
    if not isinstance(flip_test, bool):
        raise InputError(f"flip_test={flip_test!r}: give true or false")
    return flip_test


def _image_id(name: str) -> int:
    """The number that is the picture's name, as COCO's are; else 1."""
    stem = PurePosixPath(name).stem
    return int(stem) if re.fullmatch(r"[0-9]{1,18}", stem) else 1


def _preview(pixels: Image) -> bytes:
    height, width = pixels.shape[:2]
    scale = _LONGEST_PREVIEW_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return _encoded(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _PREVIEW_QUALITY])


def _png(pixels: Image) -> str:
    swapped = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    return base64.b64encode(_encoded(".png", swapped, [])).decode("ascii")


def _encoded(suffix: str, pixels_bgr: npt.NDArray[Any], parameters: list[int]) -> bytes:
    encoded, content = cv2.imencode(suffix, pixels_bgr, parameters)
    if not encoded:
        raise ValueError(f"no {suffix} can be made of an array of shape {pixels_bgr.shape}")
    return content.tobytes()
