"""One picture of people with its annotations: who stands before whom, what is covered, what is cut off.

A second picture is painted along with the visible one: the part buffer, whose pixels say which layer and which body
part is on top. Every box, area and visibility is read from it. Pixel centres have whole coordinates: (0, 0) is the
centre of the top left pixel, as OpenCV has it; boxes are xywh from pixel edge to pixel edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.synthetic.background import Image, finish, occluder, paint_background
from uniformer_pose.synthetic.figure import Figure, build_figure, build_silhouette
from uniformer_pose.synthetic.landmarks import landmarks_of
from uniformer_pose.synthetic.outfit import Outfit
from uniformer_pose.synthetic.outline import PARTS, Outline
from uniformer_pose.synthetic.pose import Proportions, sample_pose
from uniformer_pose.synthetic.settings import SyntheticSettings

PartBuffer = npt.NDArray[np.int32]
_PART_BITS = (len(PARTS) - 1).bit_length()
_PARTS_PER_LAYER = 1 << _PART_BITS
_SUBPIXEL_BITS = 4
_FEWEST_SEEN = 3


@dataclass(frozen=True)
class PlacedFigure:
    """A figure in an image: its hips' middle stands at (x, y), in image pixels."""

    figure: Figure
    x: float
    y: float


@dataclass(frozen=True)
class Person:
    """What is seen of one person, in image pixels: what COCO asks of an annotation.

    ``keypoints`` (K, 3) are x, y and v: 2 seen, 1 in the image but covered, 0 outside (then x = y = 0). Of a person
    with fewer than three keypoints seen none is labelled: COCO's annotators could not have told where the others are.
    ``segmentation``: polygons, or run lengths of a crowd. ``head_box``: left, top, right and bottom of the head without
    hair, in sight or not; empty for a crowd.
    """

    keypoints: npt.NDArray[np.float64]
    box_xywh: tuple[int, int, int, int]
    area: int
    segmentation: list[list[int]] | dict[str, list[int]]
    head_box: tuple[float, ...] = ()


@dataclass(frozen=True)
class Scene:
    """A rendered picture (H, W, 3) RGB, its people who are seen at all, and its crowd if it has one."""

    image: Image
    people: list[Person]
    crowd: Person | None


class Canvas:
    """A picture and its part buffer; layers are painted over one another, later ones in front."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.parts: PartBuffer = np.zeros(image.shape[:2], dtype=np.int32)
        self._layers = 0

    def paint(self, outlines: Sequence[Outline], x: float = 0.0, y: float = 0.0) -> int:
        """Paint one layer of outlines, moved by (x, y), over what is there; returns the layer's number."""
        self._layers += 1
        base = self._layers * _PARTS_PER_LAYER
        all_points = np.concatenate([outline.points for outline in outlines])
        fixed_point = np.round((all_points + np.array([x, y])) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        end = 0
        for outline in outlines:
            start, end = end, end + len(outline.points)
            points = fixed_point[start:end]
            cv2.fillPoly(self.image, [points], outline.colour, cv2.LINE_AA, _SUBPIXEL_BITS)
            if outline.is_surface:
                cv2.fillPoly(self.parts, [points], base + PARTS.index(outline.part), cv2.LINE_8, _SUBPIXEL_BITS)
        return self._layers

    def mask(self, layer: int, part: str | None = None) -> npt.NDArray[np.bool_]:
        """(H, W) where a layer, or one body part of it, is on top."""
        if part is not None:
            return np.asarray(self.parts == layer * _PARTS_PER_LAYER + PARTS.index(part))
        return np.asarray(self.parts >> _PART_BITS == layer)

    def part_at(self, x: float, y: float) -> tuple[int, str] | None:
        """Layer and part on top at a point, layer 0 for the background; None outside the image."""
        height, width = self.parts.shape
        if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
            return None
        row, column = round(y), round(x)
        layer, part = divmod(int(self.parts[row, column]), _PARTS_PER_LAYER)
        return layer, PARTS[part]


def describe_person(canvas: Canvas, layer: int, placed: PlacedFigure, keypoint_names: Sequence[str]) -> Person | None:
    """What is seen of a painted figure; None if nothing is."""
    mask = canvas.mask(layer)
    area = int(mask.sum())
    if area == 0:
        return None
    keypoints = np.zeros((len(keypoint_names), 3))
    for row, name in enumerate(landmarks_of(tuple(keypoint_names))):
        if name is None:
            continue
        x, y = placed.figure.landmarks[name]
        x, y = round(x + placed.x, 2), round(y + placed.y, 2)
        on_top = canvas.part_at(x, y)
        if on_top is not None:
            seen = on_top[0] == layer and on_top[1] in placed.figure.shown_by[name]
            keypoints[row] = (x, y, 2 if seen else 1)
    if np.count_nonzero(keypoints[:, 2] == 2) < min(_FEWEST_SEEN, len(keypoints)):
        keypoints[:] = 0.0
    left, top, right, bottom = placed.figure.extent("head")
    head_box = left + placed.x, top + placed.y, right + placed.x, bottom + placed.y
    return Person(keypoints, _tight_box(mask), area, _polygons(mask), head_box)


def render_scene(rng: np.random.Generator, settings: SyntheticSettings) -> Scene:
    """A random picture. A close-up is a person taller than the image; a crowd stands far behind everyone else."""
    height, width = settings.image_height, settings.image_width
    least, most = settings.people_per_image
    canvas = Canvas(paint_background(rng, height, width))
    crowd_layer = _paint_crowd(rng, canvas) if rng.random() < settings.crowd_share else None
    placed: list[PlacedFigure] = []
    taken: list[tuple[float, float, float, float]] = []
    sizes = []
    for _ in range(int(rng.integers(least, most + 1))):
        close_up = rng.random() < settings.close_up_share
        sizes.append(height * (rng.uniform(1.1, 1.7) if close_up else rng.uniform(*settings.person_height)))
    light = rng.uniform(-2.6, -0.5)  # highlights lie somewhere above
    layers: list[int] = []
    for size in sorted(sizes):  # the tallest stand in front
        pose = sample_pose(rng, settings.poses)
        figure = build_figure(
            Proportions.sample(rng),
            pose,
            Outfit.sample(rng, settings.striped_side),
            height=size,
            light=(np.cos(light), np.sin(light)),
            distance=rng.uniform(3.5, 10.0),
        )
        person = _place(rng, figure, height, width, taken, ground=_ground(rng, size, height))
        if pose.name == "sitting" and rng.random() < 0.7:
            _paint_seat(rng, canvas, person, size)
        elif rng.random() < 0.4:
            _paint_shadow(canvas, person)
        placed.append(person)
        layers.append(canvas.paint(figure.outlines, person.x, person.y))
        if rng.random() < 0.16:
            left, top, right, bottom = taken[-1]
            tall, wide = rng.uniform(0.2, 0.5) * (bottom - top), rng.uniform(0.3, 0.9) * (right - left)
            outlines = occluder(rng, max(6, int(tall)), max(6, int(wide)))
            canvas.paint(outlines, rng.uniform(left, right), rng.uniform(top + 0.3 * (bottom - top), bottom))
    people = [
        describe_person(canvas, layer, person, settings.keypoint_names)
        for layer, person in zip(layers, placed, strict=True)
    ]
    crowd = _describe_crowd(canvas, crowd_layer, len(settings.keypoint_names)) if crowd_layer is not None else None
    return Scene(finish(rng, canvas.image), [person for person in people if person is not None], crowd)


def _place(
    rng: np.random.Generator,
    figure: Figure,
    height: int,
    width: int,
    taken: list[tuple[float, float, float, float]],
    *,
    ground: float | None,
) -> PlacedFigure:
    """The figure at a free place if one is found in a few tries; its box is added to ``taken``.

    With a ``ground`` (image row) the figure's lowest point comes to lie there if it fits. One figure in six may overlap
    others as it likes, and a few may be cut by the image border.
    """
    left, top, right, bottom = figure.extent()
    tolerated = 0.9 if rng.random() < 0.16 else rng.uniform(0.0, 0.3)
    cut = rng.random() < 0.15
    best, best_overlap = (0.0, 0.0), np.inf
    for _ in range(6):
        positions = []
        for start, end, length in ((left, right, width), (top, bottom, height)):
            slack = 0.35 * (end - start) if cut else 0.0
            low, high = -slack - start, length - 1 + slack - end
            if low > high:  # larger than the image: keep the head's side of it most of the time
                low, high = (high, low) if length is width else (low - 0.12 * (end - start), low + 0.02 * length)
            positions.append(rng.uniform(low, high))
        x, y = positions
        if ground is not None and not cut:
            y = min(ground, height - 1) - bottom if ground - (bottom - top) > 0 else y
        box = (left + x, top + y, right + x, bottom + y)
        overlap = max((_covered_share(box, other) for other in taken), default=0.0)
        if overlap < best_overlap:
            best, best_overlap = (x, y), overlap
        if overlap <= tolerated:
            break
    x, y = best
    taken.append((left + x, top + y, right + x, bottom + y))
    return PlacedFigure(figure, x, y)


def _ground(rng: np.random.Generator, size: float, height: int) -> float | None:
    """The row that a person of this standing height stands on: the nearer, the lower; None for anywhere."""
    return (0.55 + 0.45 * size / height + rng.normal(0, 0.05)) * height if rng.random() < 0.7 else None


def _covered_share(box: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Intersection of two corner boxes over the smaller one's area."""
    wide = min(box[2], other[2]) - max(box[0], other[0])
    tall = min(box[3], other[3]) - max(box[1], other[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return max(0.0, wide) * max(0.0, tall) / max(smaller, 1e-6)


def _paint_seat(rng: np.random.Generator, canvas: Canvas, placed: PlacedFigure, size: float) -> None:
    """A box behind a sitting figure, from its seat to its feet."""
    bottom = placed.figure.extent()[3]
    tall = max(6.0, bottom - 0.02 * size)
    outlines = occluder(rng, int(tall), max(6, int(size * rng.uniform(0.22, 0.45))), kind="box")
    canvas.paint(outlines, placed.x, placed.y + 0.02 * size + tall / 2)


def _paint_shadow(canvas: Canvas, placed: PlacedFigure) -> None:
    left, _, right, bottom = placed.figure.extent()
    centre = (int(placed.x + (left + right) / 2), int(placed.y + bottom))
    axes = (int(0.4 * (right - left)) + 1, int(0.05 * (right - left)) + 2)
    row, column = (int(np.clip(v, 0, n - 1)) for v, n in zip((centre[1], centre[0]), canvas.image.shape, strict=False))
    colour = tuple(0.55 * float(channel) for channel in canvas.image[row, column])
    cv2.ellipse(canvas.image, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)


def _paint_crowd(rng: np.random.Generator, canvas: Canvas) -> int:
    """A far crowd as one layer; returns its number."""
    height, width = canvas.image.shape[:2]
    size = height * rng.uniform(0.05, 0.1)
    ground, centre = rng.uniform(0.25, 0.8) * height, rng.uniform(0.1, 0.9) * width
    spread = rng.uniform(0.12, 0.4) * width
    outlines: list[Outline] = []
    for _ in range(int(rng.integers(8, 24))):
        colours = [tuple(float(c) for c in rng.uniform(20, 240, 3)) for _ in range(2)]
        skin = tuple(float(c) for c in np.array([235.0, 185.0, 150.0]) * rng.uniform(0.45, 1.0))
        offset = np.array([centre + rng.uniform(-spread, spread), ground + rng.normal(0, 0.15 * size)])
        rgb = [(c[0], c[1], c[2]) for c in (*colours, skin)]
        silhouette = build_silhouette(size * rng.uniform(0.8, 1.2), rgb, rng.uniform(0, 0.08))
        outlines += [outline._replace(points=outline.points + offset) for outline in silhouette]
    return canvas.paint(outlines)


def _describe_crowd(canvas: Canvas, layer: int, num_keypoints: int) -> Person | None:
    """A region of people too small to tell apart, as COCO's uncompressed RLE (column by column)."""
    mask = canvas.mask(layer)
    area = int(mask.sum())
    if area == 0:
        return None
    columns = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(columns)) + 1
    runs = np.diff(np.concatenate([[0], changes, [columns.size]])).tolist()
    counts = [0, *runs] if columns[0] else runs
    return Person(np.zeros((num_keypoints, 3)), _tight_box(mask), area, {"counts": counts, "size": [*mask.shape]})


def _tight_box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    x, y, box_width, box_height = cv2.boundingRect(mask.view(np.uint8))
    return int(x), int(y), int(box_width), int(box_height)


def _polygons(mask: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Outer contours of a mask as COCO polygons, within a pixel; a mask too thin for one gives its box."""
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    simple = (cv2.approxPolyDP(contour, 0.8, closed=True).reshape(-1) for contour in contours)
    polygons = [[int(value) for value in polygon] for polygon in simple if polygon.size >= 6]
    if polygons:
        return polygons
    x, y, wide, tall = _tight_box(mask)
    return [[x, y, x + wide, y, x + wide, y + tall, x, y + tall]]
