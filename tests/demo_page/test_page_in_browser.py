"""The page as its visitors have it: in Chromium, with a mouse, and with the network switched off in effect.

Needs playwright, which drives the browser, and a browser: Debian's package ``chromium``.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from demo_pages import encoded, served, smooth_photo
from uniformer_pose.demo_page.answers import Limits, PageAnswers
from uniformer_pose.demo_page.server import PageServer
from uniformer_pose.errors import InputError
from uniformer_pose.prediction.boxes import FullPictures
from uniformer_pose.prediction.estimator import PoseEstimator

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.slow

PHOTO = smooth_photo(240, 320)
LIMITS = Limits(upload_bytes=300_000, pixels=100_000)
SECONDS = 60_000.0  # milliseconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no browser: none of " + ", ".join(names) + " is installed (Debian: apt-get install chromium)")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox does not start as root
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=options, timeout=2 * SECONDS)
        yield started
        started.close()


class Detector:
    """Finds one person who fills the picture, once its weights are there."""

    def __init__(self) -> None:
        self.has_weights = False

    def __call__(self) -> FullPictures:
        if not self.has_weights:
            raise InputError("There is no person detector here: draw boxes.")
        return FullPictures()


@pytest.fixture
def detector() -> Detector:
    return Detector()


@pytest.fixture
def server(estimator: PoseEstimator, examples: Any, detector: Detector) -> Iterator[PageServer]:
    answers = PageAnswers(
        estimator, limits=LIMITS, examples=examples, make_detector=detector, notes=["A <b>random</b> model."]
    )
    with served(answers) as running:
        yield running


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1000, "height": 700}, accept_downloads=True)
    yield made
    made.close()


@pytest.fixture
def page(server: PageServer, context: BrowserContext) -> Iterator[Page]:
    """The page, opened; afterwards: no script failed, and nothing was asked of another server."""
    faults: list[str] = []
    opened = context.new_page()
    opened.set_default_timeout(SECONDS)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on(
        "console",
        # A browser reports in the console also what the page puts into words.
        lambda message: (
            faults.append(message.text)
            if message.type == "error" and not message.text.startswith("Failed to load resource")
            else None
        ),
    )
    opened.on(
        "request",
        lambda request: (
            None if request.url.startswith((server.url, "data:", "blob:")) else faults.append(f"asked {request.url}")
        ),
    )
    opened.goto(server.url)
    opened.wait_for_selector("#examples button")
    yield opened
    assert faults == []


def waits_for(page: Page, selector: str, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_contain_text(text, timeout=SECONDS)


def drop(page: Page, data: bytes, name: str) -> None:
    """Drop a file on the page, as from the desktop."""
    transfer = page.evaluate_handle(
        """([base64, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], name));
            return transfer;
        }""",
        [base64.b64encode(data).decode(), name],
    )
    page.dispatch_event("#stage", "drop", {"dataTransfer": transfer})


def draw(page: Page, box: list[float], photo: Any = PHOTO) -> None:
    """Draw a box [x, y, width, height] of the picture's pixels with the mouse."""
    frame = page.locator("#canvas").bounding_box()
    assert frame is not None
    height, width = photo.shape[:2]
    scale = min(frame["width"] / width, frame["height"] / height)
    left = frame["x"] + (frame["width"] - width * scale) / 2
    top = frame["y"] + (frame["height"] - height * scale) / 2
    page.mouse.move(left + box[0] * scale, top + box[1] * scale)
    page.mouse.down()
    page.mouse.move(left + (box[0] + box[2] / 2) * scale, top + box[1] * scale)
    page.mouse.move(left + (box[0] + box[2]) * scale, top + (box[1] + box[3]) * scale)
    page.mouse.up()


def results(page: Page) -> list[dict[str, Any]]:
    return list(json.loads(page.text_content("#json") or ""))


def picture_of(page: Page, selector: str) -> np.ndarray[Any, Any]:
    """(H, W, 3) pixels of what is seen of an element."""
    return np.asarray(PillowImage.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB"))


def decoded(png: str) -> np.ndarray[Any, Any]:
    """The pixels of a PNG in base64."""
    return np.asarray(PillowImage.open(io.BytesIO(base64.b64decode(png))))


def open_with_box(page: Page) -> dict[str, Any]:
    drop(page, encoded(PHOTO), "photo.png")
    waits_for(page, "#status", "320 x 240")
    draw(page, [40, 30, 150, 180])
    waits_for(page, "#status", "1 pose in")
    return results(page)[0]


def test_a_box_drawn_on_a_dropped_picture_gets_the_estimators_pose(page: Page, estimator: PoseEstimator) -> None:
    result = open_with_box(page)
    assert result["bbox"] == pytest.approx([40, 30, 150, 180], abs=0.6)  # a pixel of the view
    expected = estimator(PHOTO, [result["bbox"]])
    keypoints = np.array(result["keypoints"]).reshape(17, 3)
    assert keypoints[:, :2] == pytest.approx(expected.keypoints[0], abs=0.05)
    assert keypoints[:, 2] == pytest.approx(expected.scores[0], abs=1e-3)
    assert result["file_name"] == "photo.png"


def test_keypoints_are_drawn_in_their_colours_where_the_results_have_them(page: Page, estimator: PoseEstimator) -> None:
    keypoints = np.array(open_with_box(page)["keypoints"]).reshape(17, 3)
    page.select_option("#keypoint", "all")  # no ring around one of them
    page.mouse.move(1, 1)
    view = picture_of(page, "#canvas").astype(int)
    scale = min(view.shape[1] / 320, view.shape[0] / 240)
    left, top = (view.shape[1] - 320 * scale) / 2, (view.shape[0] - 240 * scale) / 2
    seen = 0
    for number, (x, y, _) in enumerate(keypoints):
        others = np.delete(keypoints[:, :2], number, axis=0)
        if np.linalg.norm(others - (x, y), axis=1).min() * scale < 9 or not (2 < x < 318 and 2 < y < 238):
            continue  # covered by another, or not in the picture
        column, row = round((x + 0.5) * scale + left), round((y + 0.5) * scale + top)
        assert np.abs(view[row, column] - estimator.skeleton.colours[number]).max() <= 3, number
        seen += 1
    assert seen >= 3


def test_the_heatmap_of_the_chosen_keypoint_lies_over_the_darkened_crop(page: Page, server: PageServer) -> None:
    box = open_with_box(page)["bbox"]
    page.select_option("#keypoint", label="left hip")
    waits_for(page, "#reading", "left hip: peak")
    assert page.get_attribute("#heatmap", "aria-label") == "Heatmap of left hip over the crop of person 1"
    maps = server.answers.heatmaps({"picture": server.answers.open_upload("p", encoded(PHOTO))["picture"], "box": box})
    number = [label.strip() for label in page.locator("#keypoint option").all_text_contents()].index("left hip") - 1
    crop, layer = (decoded(png).astype(float) for png in (maps["crop"], maps["layers"][number]))
    opacity = layer[..., 3:] / 255
    expected = opacity * layer[..., :3] + (1 - opacity) * 0.55 * crop
    shown = decoded(page.evaluate("document.querySelector('#heatmap').toDataURL()").partition(",")[2])[..., :3]
    enlarged = shown.shape[0] // 128
    seen = shown.reshape(128, enlarged, 96, enlarged, 3).mean(axis=(1, 3))
    difference = np.abs(seen - expected).max(axis=-1)
    assert np.median(difference) < 3
    assert (difference < 12).mean() > 0.97  # all but the cross, and sharp edges between enlarged pixels
    column, row = (int((value + 0.5) * enlarged) for value in maps["keypoints_in_crop"][number])
    assert shown[row, column].min() > 240  # the cross is white
    assert f"peak {maps['peaks'][number]:.2f}" in (page.text_content("#reading") or "")


def test_the_flip_test_changes_the_pose_to_the_mean_of_both(page: Page, estimator: PoseEstimator) -> None:
    plain = open_with_box(page)
    page.check("#flip")
    page.wait_for_timeout(100)
    waits_for(page, "#status", "1 pose in")
    flipped = results(page)[0]
    expected = estimator(PHOTO, [flipped["bbox"]], flip_test=True).keypoints[0]
    assert np.array(flipped["keypoints"]).reshape(17, 3)[:, :2] == pytest.approx(expected, abs=0.05)
    assert flipped["keypoints"] != plain["keypoints"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"<html>not found</html>", "holds a web page"),
        (b"", "empty"),
        (encoded(smooth_photo(400, 300)), "more than the 100000 pixels"),
        (bytes(310_000), "larger than 0.3 MB"),
    ],
)
def test_a_bad_upload_is_a_sentence_and_the_picture_before_it_stays(page: Page, data: bytes, told: str) -> None:
    before = open_with_box(page)
    drop(page, data, "<img src=x onerror=alert(1)>.jpg")
    waits_for(page, "#problem", told)
    problem = page.text_content("#problem") or ""
    assert problem.startswith("<img src=x onerror=alert(1)>.jpg: ")
    assert "Traceback" not in problem
    assert results(page) == [before]
    assert page.locator("img[src=x]").count() == 0


def test_notes_are_text_and_never_markup(page: Page) -> None:
    assert page.text_content("#notes") == "A <b>random</b> model."


def test_a_picture_can_be_opened_with_the_file_button(page: Page, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(encoded(PHOTO, "JPEG"))
    page.set_input_files("#file", str(tmp_path / "holiday.jpg"))
    waits_for(page, "#status", "holiday.jpg, 320 x 240")


def test_an_example_comes_with_its_people(page: Page, examples: Any) -> None:
    page.click("#examples button:nth-child(2)")
    waits_for(page, "#status", "poses in ")
    assert [result["bbox"] for result in results(page)] == examples[1].boxes_xywh.tolist()


def test_detected_people_are_posed_and_without_weights_a_line_says_so(page: Page, detector: Detector) -> None:
    drop(page, encoded(PHOTO), "photo.png")
    waits_for(page, "#status", "320 x 240")
    page.click("#detect")
    waits_for(page, "#problem", "There is no person detector here: draw boxes.")
    detector.has_weights = True
    page.click("#detect")
    waits_for(page, "#status", "1 pose in")
    assert results(page)[0]["bbox"] == [0, 0, 320, 240]
    assert page.text_content("#problem") == ""


def test_boxes_can_be_made_changed_and_removed_with_the_keyboard_alone(page: Page) -> None:
    drop(page, encoded(PHOTO), "photo.png")
    waits_for(page, "#status", "320 x 240")
    page.focus("#add")
    page.keyboard.press("Enter")
    waits_for(page, "#status", "1 pose in")
    assert results(page)[0]["bbox"] == [80, 60, 160, 120]
    page.keyboard.press("Control+A")  # the focus is on the first number
    page.keyboard.type("10.5")
    page.keyboard.press("Tab")
    page.wait_for_timeout(100)
    waits_for(page, "#status", "1 pose in")
    assert results(page)[0]["bbox"] == [10.5, 60, 160, 120]
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    waits_for(page, "#json", "[]")
    assert page.locator("#people tbody tr").count() == 0


def test_a_box_without_a_width_is_refused_in_words(page: Page) -> None:
    before = open_with_box(page)
    page.get_by_label("Person 1, width in pixels").fill("-5")
    page.keyboard.press("Tab")
    waits_for(page, "#problem", "a width and height above 0")
    assert results(page) == [before]


def test_a_click_on_a_keypoint_shows_its_person_and_heatmap(page: Page) -> None:
    open_with_box(page)
    draw(page, [200, 60, 100, 160])
    waits_for(page, "#reading", "Person 2")
    keypoints = np.array(results(page)[0]["keypoints"]).reshape(17, 3)
    other = np.array(results(page)[1]["keypoints"]).reshape(17, 3)
    others = np.concatenate([keypoints[:, :2], other[:, :2]])
    alone = next(
        number
        for number, (x, y, _) in enumerate(keypoints)
        if 2 < x < 318 and 2 < y < 238 and np.sort(np.linalg.norm(others - (x, y), axis=1))[1] > 4
    )
    draw(page, [keypoints[alone, 0] + 0.5, keypoints[alone, 1] + 0.5, 0, 0])
    waits_for(page, "#reading", "Person 1")
    assert page.input_value("#keypoint") == str(alone)
    assert len(results(page)) == 2


def test_only_keypoints_above_the_threshold_are_drawn(page: Page) -> None:
    open_with_box(page)
    page.select_option("#keypoint", "all")
    page.mouse.move(1, 1)
    with_skeleton = picture_of(page, "#canvas").astype(int)
    page.locator("#threshold").fill("1")
    without = picture_of(page, "#canvas").astype(int)
    page.locator("#threshold").fill("0.2")
    again = picture_of(page, "#canvas").astype(int)
    assert (np.abs(with_skeleton - without).max(axis=-1) > 30).sum() > 500
    assert np.abs(with_skeleton - again).max() <= 3


def test_a_picture_that_had_to_make_room_is_handed_in_again_by_itself(page: Page, server: PageServer) -> None:
    open_with_box(page)
    for seed in range(4):  # others fill the shelf
        server.answers.open_upload("other.png", encoded(smooth_photo(240, 320, seed)))
    draw(page, [200, 60, 100, 160])
    waits_for(page, "#json", '"bbox": [20')
    assert len(results(page)) == 2
    assert page.text_content("#problem") == ""


def test_results_and_picture_can_be_saved(page: Page) -> None:
    shown = [open_with_box(page)]
    with page.expect_download() as saved:
        page.click("#save-json")
    assert saved.value.suggested_filename == "photo_poses.json"
    assert json.loads(saved.value.path().read_text(encoding="utf-8")) == shown
    with page.expect_download() as saved:
        page.click("#save-picture")
    with PillowImage.open(saved.value.path()) as picture:
        assert picture.size == (320, 240)
        difference = np.abs(np.asarray(picture.convert("RGB")).astype(int) - PHOTO).max(axis=-1)
    assert 100 < (difference > 60).sum() < 0.5 * difference.size  # a skeleton on the same picture


def test_a_server_that_is_gone_is_told_in_words(page: Page, server: PageServer) -> None:
    page.route("**/api/examples/0", lambda route: route.abort())
    page.click("#examples button:nth-child(1)")
    waits_for(page, "#problem", "does not answer. Is it still running?")
    page.unroute("**/api/examples/0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(browser: Browser, server: PageServer, scheme: Any) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector("#examples button")
    page.evaluate("document.querySelector('#problem').textContent = 'A problem.'")

    def luminance(selector: str, name: str) -> float:
        colour = page.locator(selector).first.evaluate("(e, name) => getComputedStyle(e)[name]", name)
        channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    pairs = {"#notes": "body", "h2": "section", "#reading": "section", "#problem": "#problem", ".primary": ".primary"}
    for text, ground in {**pairs, "pre": "pre", "#invitation": "#stage"}.items():
        lighter, darker = sorted(
            [luminance(text, "color"), luminance(ground, "backgroundColor")], reverse=True
        )  # WCAG 2.2, 1.4.3
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, text
    assert (luminance("body", "backgroundColor") > 0.5) == (scheme == "light")
    context.close()


def test_every_control_has_a_name_for_screen_readers(page: Page) -> None:
    open_with_box(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas")].filter((control) => {
            const label = control.labels?.length && control.labels[0].textContent.trim();
            const image = control.querySelector("img")?.alt;
            return !(label || image || control.getAttribute("aria-label") || control.textContent.trim());
        }).map((control) => control.outerHTML)"""
    )
    assert nameless == []


def test_the_page_fits_a_narrow_screen(page: Page) -> None:
    open_with_box(page)
    page.set_viewport_size({"width": 360, "height": 700})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
