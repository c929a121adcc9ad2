"""Backgrounds without people, and the light, blur and noise laid over a finished picture."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.synthetic.outfit import scaled
from uniformer_pose.synthetic.outline import Outline

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Occluder = Literal["post", "box", "table", "bush"]
_OCCLUDERS: tuple[Occluder, ...] = ("post", "box", "table", "bush")


def paint_background(rng: np.random.Generator, height: int, width: int) -> Image:
    """A random room, landscape or abstract ground with clutter: (height, width, 3) RGB."""
    image = _smooth_colours(rng, height, width, cells=int(rng.integers(2, 6)), contrast=rng.uniform(0.15, 0.9))
    if rng.random() < 0.65:
        _paint_floor(rng, image)
    if rng.random() < 0.45:
        _paint_pattern(rng, image)
    if rng.random() < 0.5:
        _add_texture(rng, image, strength=rng.uniform(6, 34))
    for _ in range(int(rng.integers(0, 9))):
        _paint_clutter(rng, image)
    if rng.random() < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 2.2)), dtype=np.uint8)
    return image


def occluder(rng: np.random.Generator, height: int, width: int, kind: Occluder | None = None) -> list[Outline]:
    """One object about (0, 0) of about height x width; a random kind unless told."""
    colour = _colour(rng)
    kind = kind or _OCCLUDERS[int(rng.integers(len(_OCCLUDERS)))]
    half_width, half_height = width / 2.0, height / 2.0
    if kind == "post":
        half_width *= 0.3
        tones = [0.65, 1.0]
        shapes = [_rectangle(0, 0, half_width * share, half_height * 1.6) for share in (1.0, 0.5)]
    elif kind == "box":
        tones, half_heights = [0.65, 1.0, 1.25], (half_height, half_height * 0.84, half_height * 0.84)
        shapes = [_rectangle(0, 0, half_width * w, h) for w, h in zip((1.0, 0.86, 0.12), half_heights, strict=True)]
    elif kind == "table":  # two legs and a top
        tones, top = [0.65, 0.65, 1.0, 1.25], -half_height * 0.6
        shapes = [
            _rectangle(side * half_width * 0.85, half_height * 0.3, half_width * 0.09, half_height * 0.9)
            for side in (-1, 1)
        ]
        shapes.append(_rectangle(0, top, half_width * 1.15, half_height * 0.2))
        shapes.append(_rectangle(0, top - half_height * 0.07, half_width * 1.15, half_height * 0.08))
    else:
        angles = np.linspace(0, 2 * np.pi, 22, endpoint=False)
        radius = rng.uniform(0.72, 1.1, angles.size)
        outline = np.stack([np.cos(angles) * radius * half_width, np.sin(angles) * radius * half_height], axis=1)
        colour = (rng.uniform(30, 110), rng.uniform(80, 170), rng.uniform(20, 80))
        tones, shapes = [0.6, 1.0, 1.2], [outline, outline * 0.75, outline * 0.4]
    return [
        Outline("background", np.round(shape), scaled(colour, tone)) for shape, tone in zip(shapes, tones, strict=True)
    ]


def finish(rng: np.random.Generator, image: Image) -> Image:
    """The picture under a random light, colour cast, blur and sensor noise."""
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        corners = rng.uniform(0.6, 1.2, (2, 2)).astype(np.float32)
        light = cv2.cvtColor(cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR), cv2.COLOR_GRAY2BGR)
        image = cv2.multiply(image, light, dtype=cv2.CV_8U)
    gain = rng.uniform(0.75, 1.2) * rng.uniform(0.92, 1.08, 3)
    offset, gamma = rng.uniform(-16, 22), rng.uniform(0.8, 1.3)
    levels = np.linspace(0.0, 1.0, 256)[:, None] ** gamma * 255.0 * gain + offset
    image = cv2.LUT(image, np.clip(np.round(levels), 0, 255).astype(np.uint8)[:, None, :])
    blur = rng.random()
    if blur < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.1))
    elif blur < 0.32:  # camera shake along one axis
        length = int(rng.integers(2, 5))
        image = cv2.blur(image, (length, 1) if rng.random() < 0.5 else (1, length))
    if rng.random() < 0.75:
        noise = rng.integers(0, 256, image.shape, dtype=np.uint8)
        strength = rng.uniform(0.01, 0.16)
        image = cv2.addWeighted(image, 1.0, noise, strength, -127.5 * strength)
    return np.asarray(image, dtype=np.uint8)


def _smooth_colours(rng: np.random.Generator, height: int, width: int, *, cells: int, contrast: float) -> Image:
    tint = rng.uniform(0.1, 0.8)  # most grounds are nearly grey, some are gaudy
    base = rng.uniform(40, 215) + tint * rng.uniform(-70, 70, 3)
    colours = (
        base
        + contrast * rng.uniform(-75, 75, (cells, cells, 1))
        + contrast * tint * rng.uniform(-70, 70, (cells, cells, 3))
    )
    small = np.clip(colours, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _paint_floor(rng: np.random.Generator, image: Image) -> None:
    height, width = image.shape[:2]
    horizon = rng.uniform(0.4, 0.85) * height
    tilt = rng.normal(0, 0.03) * width
    floor = np.array([(0, horizon - tilt), (width, horizon + tilt), (width, height), (0, height)])
    colour = _colour(rng)
    cv2.fillPoly(image, [np.round(floor).astype(np.int32)], colour)
    if rng.random() < 0.5:  # boards or tiles running to a vanishing point
        darker = tuple(0.8 * channel for channel in colour)
        vanishing = rng.uniform(0.2, 0.8) * width
        for x in np.linspace(-width, 2 * width, int(rng.integers(10, 26))):
            far = (int(vanishing + (x - vanishing) * 0.35), int(horizon))
            cv2.line(image, far, (int(x), height), darker, 1, cv2.LINE_AA)
    if rng.random() < 0.5:
        ends = (0, int(horizon - tilt)), (width, int(horizon + tilt))
        cv2.line(image, *ends, _colour(rng), int(rng.integers(1, 6)), cv2.LINE_AA)


def _paint_pattern(rng: np.random.Generator, image: Image) -> None:
    """Bricks, stripes or panels over the upper part."""
    height, width = image.shape[:2]
    bottom = int(height * rng.uniform(0.4, 1.0))
    step_x, step_y = int(rng.integers(10, 60)), int(rng.integers(8, 50))
    colour = tuple(float(np.clip(c + rng.uniform(-45, 45), 0, 255)) for c in image[0, 0])
    kind = int(rng.integers(3))
    if kind != 1:
        for y in range(0, bottom, step_y):
            cv2.line(image, (0, y), (width, y), colour, 1)
    for row, y in enumerate(range(0, bottom, step_y)):
        if kind == 1 and row:
            break
        shift = step_x // 2 if kind == 2 and row % 2 else 0
        for x in range(shift, width, step_x):
            end, thickness = (bottom, max(1, step_x // 4)) if kind == 1 else (min(bottom, y + step_y), 1)
            cv2.line(image, (x, y), (x, end), colour, thickness)


def _add_texture(rng: np.random.Generator, image: Image, *, strength: float) -> None:
    height, width = image.shape[:2]
    cell = int(rng.integers(2, 10))
    grain = rng.integers(0, 256, (max(2, height // cell), max(2, width // cell), 3), dtype=np.uint8)
    if rng.random() < 0.7:
        grain = np.repeat(grain[..., :1], 3, axis=2)
    grain = cv2.resize(grain, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    weight = strength / 128.0
    cv2.addWeighted(image, 1.0, grain, weight, -127.5 * weight, dst=image)


def _paint_clutter(rng: np.random.Generator, image: Image) -> None:
    height, width = image.shape[:2]
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    size = rng.uniform(0.03, 0.3) * height
    colour = _colour(rng)
    kind = int(rng.integers(5))
    if kind == 0:  # furniture: a framed rectangle, perhaps with shelves
        half_width, half_height = size * rng.uniform(0.4, 1.4), size * rng.uniform(0.4, 1.6)
        corner, opposite = (int(x - half_width), int(y - half_height)), (int(x + half_width), int(y + half_height))
        cv2.rectangle(image, corner, opposite, colour, -1)
        frame = tuple(0.6 * channel for channel in colour)
        cv2.rectangle(image, corner, opposite, frame, int(rng.integers(1, 4)))
        for shelf in np.linspace(corner[1], opposite[1], int(rng.integers(2, 6)))[1:-1]:
            cv2.line(image, (corner[0], int(shelf)), (opposite[0], int(shelf)), frame, 1)
    elif kind == 1:
        axes = (int(size * 0.6) + 1, int(size * rng.uniform(0.2, 0.7)) + 1)
        cv2.ellipse(image, (int(x), int(y)), axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
    elif kind == 2:  # a bar, which may look like a limb
        angle, length = rng.uniform(0, np.pi), size * rng.uniform(0.5, 2.0)
        end = (int(x + length * np.cos(angle)), int(y + length * np.sin(angle)))
        cv2.line(image, (int(x), int(y)), end, colour, int(rng.integers(2, 14)), cv2.LINE_AA)
    elif kind == 3:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        radius = size * rng.uniform(0.3, 1.0, angles.size)
        polygon = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
        cv2.fillPoly(image, [np.round(polygon).astype(np.int32)], colour, cv2.LINE_AA)
    else:  # a window or poster: light panes in a frame
        half = size * 0.7
        cv2.rectangle(image, (int(x - half), int(y - half)), (int(x + half), int(y + half)), colour, -1)
        light = tuple(min(255.0, channel + 70) for channel in colour)
        for dx in (-0.47, 0.47):
            left, right = int(x + (dx - 0.4) * half), int(x + (dx + 0.4) * half)
            cv2.rectangle(image, (left, int(y - 0.85 * half)), (right, int(y + 0.85 * half)), light, -1)


def _rectangle(x: float, y: float, half_width: float, half_height: float) -> npt.NDArray[np.float64]:
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    corners: npt.NDArray[np.float64] = np.array([x, y]) + signs * np.array([half_width, half_height])
    return corners


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    grey, tint = rng.uniform(20, 235), rng.uniform(-70, 70, 3) * rng.random()
    red, green, blue = np.clip(grey + tint, 0, 255)
    return float(red), float(green), float(blue)
