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
_MORE_THAN_STROKE = 1.5  # pixels that a keypoint's radius is larger than the width of its limbs

# Keypoints of faces and hands are small where they are many: those whose eighth nearest is closer than a tenth of the
# person's extent. None of a body alone is: a head has five, and two feet that stand together have eight.
_NEIGHBOURS = 8
_CROWDED_WITHIN = 0.1
_PERSON_EXTENT_PER_LEAST_RADIUS = 900.0
_LEAST_RADIUS = 0.125  # pixels; that paints more than one, and a radius of 0 none
_LENGTH_PER_RADIUS = 18  # of a limb to a keypoint that is small for its neighbours
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

    Keypoints that crowd, those of faces and hands, are small, down to dots of a pixel or two on a small person.
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
    """Limbs first, keypoints over them, both on a dark rim that keeps them visible on any background.

    Dots too small for a rim have none, and are never rings.
    """
    height, width = canvas.shape[:2]
    radii: npt.NDArray[np.float64] = np.zeros(len(points))
    radii[drawable] = _radii(points[drawable], height=height, width=width)
    fixed_point = np.round(np.where(drawable[:, None], points, 0) * 2**_SUBPIXEL_BITS).astype(np.int64).tolist()
    indices = skeleton.limb_indices
    indices = indices[drawable[indices].all(axis=1)]
    limbs = list(zip(indices.tolist(), *_pens(_limb_radii(points[indices], radii[indices])), strict=True))
    for with_rim in (True, False):
        for (first, second), line, rim in limbs:
            ends, colour = (fixed_point[first], fixed_point[second]), _RIM if with_rim else skeleton.colours[first]
            cv2.line(canvas, *ends, colour, line + 2 * (with_rim and rim > 0), cv2.LINE_AA, _SUBPIXEL_BITS)
    lines, rims = _pens(radii)
    for keypoint in np.flatnonzero(drawable).tolist():
        radius, line, rim = float(radii[keypoint]), lines[keypoint], rims[keypoint]
        discs = [(radius + rim, _RIM)] * (rim > 0) + [(radius, skeleton.colours[keypoint])]
        if hollow[keypoint] and rim > 0:
            discs.append((radius - max(1, line // 2), _RING_FILLING))
        for disc_radius, colour in discs:
            fixed_radius = round(disc_radius * 2**_SUBPIXEL_BITS)
            cv2.circle(canvas, fixed_point[keypoint], fixed_radius, colour, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)


def _radii(points_in_image: Array, *, height: int, width: int) -> npt.NDArray[np.float64]:
    """(N,) pixels, for a person's (N, 2) keypoints: by how much of the image they span, and by how crowded each is."""
    if not len(points_in_image):
        return np.zeros(0)
    extent = float(np.ptp(np.clip(points_in_image, 0, [width - 1, height - 1]), axis=0).max())
    stroke = int(np.clip(round(extent / _PERSON_EXTENT_PER_STROKE), 1, _WIDEST_STROKE))
    room: npt.NDArray[np.float64] = np.ones(len(points_in_image))
    if len(room) > _NEIGHBOURS and extent > 0:
        distances = np.linalg.norm(np.subtract(points_in_image[:, None], points_in_image), axis=-1)
        nearest = np.partition(distances, _NEIGHBOURS, axis=1)[:, _NEIGHBOURS]  # its own distance, 0, is the first
        room = np.minimum(1, nearest / (_CROWDED_WITHIN * extent)) ** 2
    least = max(_LEAST_RADIUS, extent / _PERSON_EXTENT_PER_LEAST_RADIUS)
    return np.asarray(np.maximum(least, (stroke + _MORE_THAN_STROKE) * room))


def _limb_radii(ends: Array, radii: Array) -> npt.NDArray[np.float64]:
    """(L,) between the radii (L, 2) of a limb's two ends (L, 2, 2), as its length allows.

    So a forearm stays wider than the fingers, and a finger is thin from its root.
    """
    lengths = np.linalg.norm(np.subtract(ends[:, 0], ends[:, 1]), axis=-1)
    return np.asarray(np.clip(lengths / _LENGTH_PER_RADIUS, radii.min(axis=1), radii.max(axis=1)))


def _pens(radii: npt.NDArray[np.float64]) -> tuple[list[int], list[float]]:
    """Widths of the limbs at keypoints of these radii, and of the dark rims around both; pixels."""
    widths = radii - _MORE_THAN_STROKE
    return np.maximum(1, np.rint(widths)).astype(int).tolist(), widths.clip(0, 1).tolist()
