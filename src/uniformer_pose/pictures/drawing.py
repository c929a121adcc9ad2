"""Poses drawn over an image.

Images are (H, W, 3) uint8 RGB. Points are (x, y) in pixels of that image, whole numbers at pixel centres.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.files import write_whole
from uniformer_pose.skeleton import Skeleton

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[np.generic]

_SUBPIXEL_BITS = 4  # OpenCV takes points as integers in units of 1/16 pixel, which lets thin limbs look smooth
_FARTHEST = 1e6  # pixels; OpenCV's integers overflow two orders of magnitude later
_PERSON_EXTENT_PER_STROKE = 90.0
_WIDEST_STROKE = 12
_JPEG_QUALITY = 95
_RIM = (20, 20, 20)
_RING_FILLING = (255, 255, 255)


def draw_poses(
    image: Image,
    keypoints_in_image: Array,
    scores: Array | None,
    skeleton: Skeleton,
    *,
    score_threshold: float = 0.2,
    hollow: Array | None = None,
) -> Image:
    """A copy of the image with the skeleton of each of P people, lines as wide as the person is large.

    ``keypoints_in_image`` is (P, K, 2). A keypoint is drawn where its score, of (P, K), is above the
    threshold, so COCO's visibility can stand for scores; None draws all. A limb is drawn where both its ends
    are. Keypoints that are not finite or a million pixels away are left out; others outside the image still
    pull their limbs. ``hollow`` (P, K) marks those to draw as rings, such as the labelled but hidden ones.
    """
    canvas = np.array(image, dtype=np.uint8, order="C", copy=True)
    points = np.asarray(keypoints_in_image, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (skeleton.num_keypoints, 2):
        raise ValueError(
            f"keypoints of shape {points.shape} do not fit skeleton {skeleton.name!r}: "
            f"(P, {skeleton.num_keypoints}, 2) is needed"
        )
    drawable = np.asarray(np.all(np.abs(points) <= _FARTHEST, axis=-1))  # false for NaN too
    if scores is not None:
        drawable &= np.asarray(scores, dtype=np.float64) > score_threshold
    rings = np.zeros(drawable.shape, dtype=bool) if hollow is None else np.asarray(hollow, dtype=bool)
    for person in range(len(points)):
        _draw_person(canvas, points[person], drawable[person], rings[person], skeleton)
    return canvas


def likely_hidden(visibility: Array | None) -> npt.NDArray[np.bool_] | None:
    """Which keypoints (P, K) to draw as rings, by ``People.visibility``; None where nobody says."""
    return None if visibility is None else np.asarray(np.asarray(visibility, dtype=np.float64)[..., 1] < 0.5)


def _stroke_width(points_in_image: Array, *, height: int, width: int) -> int:
    """Width in pixels of the lines for one person, from how much of the image its (N, 2) points span."""
    if not len(points_in_image):
        return 1
    seen = np.clip(np.asarray(points_in_image, dtype=np.float64), 0, [width - 1, height - 1])
    extent = float(np.ptp(seen, axis=0).max())
    return int(np.clip(round(extent / _PERSON_EXTENT_PER_STROKE), 1, _WIDEST_STROKE))


def save_picture(path: str | Path, image: Image) -> None:
    """Write an RGB image as JPEG where the name ends so, else as PNG; whole, or InputError where that is impossible."""
    path = Path(path)
    is_jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    encoded, content = cv2.imencode(
        ".jpg" if is_jpeg else ".png",
        cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if is_jpeg else [],
    )
    if not encoded:
        raise ValueError(f"no picture can be made of an array of shape {image.shape} and type {image.dtype}")
    with write_whole(path, advice="give a folder that can be written to and has space left") as part:
        part.write_bytes(content.tobytes())


def _draw_person(canvas: Image, points: Array, drawable: Array, hollow: Array, skeleton: Skeleton) -> None:
    """Limbs first, keypoints over them, both on a dark rim that keeps them visible on any background."""
    height, width = canvas.shape[:2]
    stroke = _stroke_width(points[drawable], height=height, width=width)
    fixed_point = np.round(np.where(drawable[:, None], points, 0) * 2**_SUBPIXEL_BITS).astype(np.int64).tolist()
    limbs = [(a, b) for a, b in skeleton.limb_indices.tolist() if drawable[a] and drawable[b]]
    for rim in (True, False):
        for first, second in limbs:
            ends, colour = (fixed_point[first], fixed_point[second]), _RIM if rim else skeleton.colours[first]
            cv2.line(canvas, *ends, colour, stroke + 2 * rim, cv2.LINE_AA, _SUBPIXEL_BITS)
    radius = stroke + 1.5
    for keypoint in np.flatnonzero(drawable).tolist():
        discs = [(radius + 1, _RIM), (radius, skeleton.colours[keypoint])]
        if hollow[keypoint]:
            discs.append((radius - max(1, stroke // 2), _RING_FILLING))
        for disc_radius, colour in discs:
            fixed_radius = round(disc_radius * 2**_SUBPIXEL_BITS)
            cv2.circle(canvas, fixed_point[keypoint], fixed_radius, colour, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)
