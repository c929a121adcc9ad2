from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from uniformer_pose.benchmarks.curves import curves_svg
from uniformer_pose.benchmarks.scale import Curve, write_annotations
from uniformer_pose.data.coco_annotations import read_ground_truth
from uniformer_pose.skeleton import load_skeleton

SVG = "{http://www.w3.org/2000/svg}"


def points(svg: str) -> list[tuple[float, float]]:
    line = ElementTree.fromstring(svg).find(f".//{SVG}polyline")
    assert line is not None
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.attrib["points"].split())]


def test_a_curve_rises_with_its_cost_and_has_its_names() -> None:
    svg = curves_svg([Curve("images", "s < 1", (1.0, 2.0, 3.0), (1.0, 2.0, 3.0))])

    (x1, y1), (x2, y2), (x3, y3) = points(svg)
    assert x2 - x1 == pytest.approx(x3 - x2)
    assert y1 > y2 > y3  # pixels count from the top
    assert {"images", "s < 1"} <= {text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")}


def test_a_size_over_decades_is_spread_by_its_logarithm() -> None:
    (x1, _), (x2, _), (x3, _) = points(curves_svg([Curve("images", "s", (1e3, 1e4, 1e5), (1.0, 1.0, 1.0))]))

    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)


def test_a_single_point_and_no_curve_are_drawn_too() -> None:
    assert len(points(curves_svg([Curve("images", "s", (5.0,), (0.0,))]))) == 1
    assert ElementTree.fromstring(curves_svg([])).tag == f"{SVG}svg"


def test_made_up_annotations_are_read_whole(tmp_path: Path) -> None:
    skeleton = load_skeleton("coco_17")

    written = write_annotations(tmp_path / "people.json", 10, skeleton)

    people = read_ground_truth(tmp_path / "people.json", tmp_path, skeleton)
    assert len(people) == written == 22
    assert len(json.loads((tmp_path / "people.json").read_text())["images"]) == 10
