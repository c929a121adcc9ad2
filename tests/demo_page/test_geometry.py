"""Where the page's script puts boxes and keypoints, by running it outside a browser."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest


def node_program() -> str | None:
    """A JavaScript engine: the machine's, or the one that comes with playwright."""
    playwright = importlib.util.find_spec("playwright")
    beside = Path(str(playwright.origin)).parent / "driver" / "node" if playwright and playwright.origin else None
    return shutil.which("node") or (str(beside) if beside and beside.is_file() else None)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The values of JavaScript expressions that use geometry.js as ``g``, and a fit as ``fit``."""
    node = node_program()
    if node is None:
        pytest.skip("no JavaScript engine: neither node nor playwright is installed")
    folder = tmp_path_factory.mktemp("script")
    script = files("uniformer_pose.demo_page").joinpath("geometry.js").read_text(encoding="utf-8")
    (folder / "geometry.mjs").write_text(script, encoding="utf-8")

    def evaluate(*expressions: str) -> list[Any]:
        # A picture of 100 x 50 pixels (width x height) in a view of 400 x 300: four times as large, 50 below the top.
        program = "\n".join(
            [
                'import * as g from "./geometry.mjs";',
                "const fit = g.fitInto(400, 300, 100, 50);",
                f"console.log(JSON.stringify([{', '.join(expressions)}]));",
            ]
        )
        (folder / "program.mjs").write_text(program, encoding="utf-8")
        command = [node, str(folder / "program.mjs")]
        finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return list(json.loads(finished.stdout))

    return evaluate


def test_a_picture_lies_in_the_middle_of_its_view_as_large_as_it_fits(evaluated: Any) -> None:
    assert evaluated("fit", "g.fitInto(100, 400, 50, 100)") == [
        {"scale": 4, "left": 0, "top": 50},
        {"scale": 2, "left": 0, "top": 100},
    ]


def test_edges_and_keypoints_differ_by_half_a_pixel_of_the_picture(evaluated: Any) -> None:
    assert evaluated("g.edgeToView([0, 0], fit)", "g.edgeToView([100, 50], fit)", "g.keypointToView([0, 0], fit)") == [
        [0, 50],
        [400, 250],
        [2, 52],
    ]


def test_a_point_of_the_view_comes_back(evaluated: Any) -> None:
    assert evaluated("g.viewToEdge(g.edgeToView([12.5, 49], fit), fit)") == [[12.5, 49]]


def test_a_box_is_the_same_whichever_corner_it_is_drawn_from(evaluated: Any) -> None:
    corners = [("[40, 90]", "[120, 210]"), ("[120, 210]", "[40, 90]"), ("[120, 90]", "[40, 210]")]
    boxes = evaluated(*[f"g.boxBetween({first}, {second}, fit, 100, 50)" for first, second in corners])
    assert boxes == [[10, 10, 20, 30]] * 3


def test_a_box_is_cut_at_the_pictures_edges(evaluated: Any) -> None:
    assert evaluated("g.boxBetween([-30, 0], [500, 150], fit, 100, 50)") == [[0, 0, 100, 25]]


def test_a_box_beside_the_picture_is_none(evaluated: Any) -> None:
    assert evaluated("g.boxBetween([10, 5], [90, 45], fit, 100, 50)") == [None]


def test_a_click_chooses_the_smallest_box_around_it(evaluated: Any) -> None:
    boxes = "[[0, 0, 100, 50], [10, 10, 20, 20], [12, 12, 30, 30]]"
    points = ["[60, 110]", "[200, 60]", "[200, 20]"]
    assert evaluated(*[f"g.boxAt({point}, {boxes}, fit)" for point in points]) == [1, 0, -1]


def test_a_result_is_split_into_keypoints(evaluated: Any) -> None:
    assert evaluated("g.keypointsOf({keypoints: [1, 2, 0.5, 3, 4, 0.25]})") == [
        [{"point": [1, 2], "score": 0.5}, {"point": [3, 4], "score": 0.25}]
    ]


def test_the_nearest_keypoint_that_is_drawn_is_found_within_reach(evaluated: Any) -> None:
    people = "[null, [{point: [9.5, 9.5], score: 0.9}, {point: [10.5, 9.5], score: 0.1}]]"
    found = evaluated(
        f"g.keypointAt([43, 90], {people}, fit, 0.2, 12)",
        f"g.keypointAt([43, 90], {people}, fit, 0.05, 12)",
        f"g.keypointAt([60, 90], {people}, fit, 0.2, 12)",
    )
    assert found == [{"person": 1, "keypoint": 0}, {"person": 1, "keypoint": 1}, None]


def test_lines_are_wider_for_larger_people_within_limits(evaluated: Any) -> None:
    widths = evaluated(*[f"g.strokeWidth([0, 0, {size}, 10], fit)" for size in (1, 55, 110, 100_000)])
    assert widths == [1.5, 2, 4, 8]


def test_the_pages_script_is_valid_javascript(tmp_path: Path) -> None:
    node = node_program()
    if node is None:
        pytest.skip("no JavaScript engine: neither node nor playwright is installed")
    script = tmp_path / "page.mjs"
    script.write_text(files("uniformer_pose.demo_page").joinpath("page.js").read_text(encoding="utf-8"), "utf-8")
    finished = subprocess.run([node, "--check", str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
