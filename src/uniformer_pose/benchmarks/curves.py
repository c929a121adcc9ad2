"""Curves of a benchmark as one SVG file: small charts side by side, no drawing library needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from uniformer_pose.benchmarks.scale import Curve

_WIDTH, _HEIGHT = 300, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 34, 40
_COLUMNS = 3
_COLOUR = "#1f6fb2"


def curves_svg(curves: Sequence[Curve]) -> str:
    """An SVG drawing of all curves, each with axes from 0 (x logarithmic where it spans more than a decade)."""
    rows = -(-len(curves) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH, max(rows, 1) * _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, curve in enumerate(curves):
        row, column = divmod(number, _COLUMNS)
        parts.append(f'<g transform="translate({column * _WIDTH},{row * _HEIGHT})">{_chart(curve)}</g>')
    return "\n".join([*parts, "</svg>\n"])


def _chart(curve: Curve) -> str:
    logarithmic = min(curve.x) > 0 and max(curve.x) / min(curve.x) > 10
    along = [math.log10(x) if logarithmic else x for x in curve.x]
    low, high = (min(along), max(along)) if len(set(along)) > 1 else (along[0] - 1, along[0] + 1)
    top = max(curve.y) * 1.1 or 1.0
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    points = [
        (_LEFT + (x - low) / (high - low) * inner_width, _TOP + (1 - y / top) * inner_height)
        for x, y in zip(along, curve.y, strict=True)
    ]
    base = _TOP + inner_height
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [
        f'<text x="{_LEFT}" y="20" font-weight="bold">{escape(curve.y_name)}</text>',
        f'<path d="M{_LEFT} {_TOP}V{base}H{_WIDTH - _RIGHT}" fill="none" stroke="#888"/>',
        f'<polyline points="{path}" fill="none" stroke="{_COLOUR}" stroke-width="2"/>',
        f'<text x="{_LEFT + inner_width / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(curve.x_name)}</text>',
    ]
    for share in (0.0, 0.5, 1.0):
        y = _TOP + (1 - share / 1.1) * inner_height
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{max(curve.y) * share:.3g}</text>')
    last_label = -math.inf
    for (x, y), value in zip(points, curve.x, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_COLOUR}"/>')
        if x - last_label > 30:
            parts.append(f'<text x="{x:.1f}" y="{base + 15}" text-anchor="middle">{_short(value)}</text>')
            last_label = x
    return "".join(parts)


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
