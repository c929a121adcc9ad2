"""The page in the browser: what it does when asked, how it is served, and how a user starts and ends it.

The browser test needs playwright and a browser: Debian's package ``chromium``.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image as PillowImage

from demo import served
from programs import composed
from small_models import small_model
from uniformer_pose.config_parts import DemoConfig
from uniformer_pose.entry_point import checked_config
from uniformer_pose.errors import InputError
from uniformer_pose.prediction.boxes import FullPictures
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.weights.export import save_pretrained

gradio_page = pytest.importorskip("uniformer_pose.prediction.page", reason="the extra `page` is not installed")

PROJECT = Path(__file__).resolve().parents[2]
PHOTO = np.asarray(PillowImage.effect_mandelbrot((160, 120), (-2, -1, 1, 1), 50).convert("RGB"))
BOX = {"xmin": 10, "ymin": 20, "xmax": 90, "ymax": 110, "label": ""}
XYWH = [10.0, 20.0, 80.0, 90.0]


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return PoseEstimator(
        small_model(method="udp", height=128, width=96), device="cpu", precision="fp32", engine="eager"
    )


@pytest.fixture
def page(estimator: PoseEstimator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "kept"))
    return gradio_page.PosePage(estimator, most_pixels=1_000_000, make_detector=FullPictures)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    PillowImage.fromarray(PHOTO).save(tmp_path / "000000000139.png")
    return str(tmp_path / "000000000139.png")


def test_skeletons_and_results_are_the_estimators(page: Any, estimator: PoseEstimator, photo: str) -> None:
    boxes = [BOX, BOX | {"xmin": 40, "label": "0.5"}]
    drawn, file = page.poses({"image": photo, "boxes": boxes, "orientation": 0}, True, 0.2)
    expected = estimator(PHOTO, [XYWH, [40, 20, 50, 90]], box_scores=[1, 0.5], flip_test=True)
    assert json.loads(Path(file).read_text()) == expected.to_coco(139)
    assert np.array_equal(drawn, expected.plot(PHOTO))


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF", "PNG"])
def test_a_photo_is_opened_upright_with_the_pixels_that_the_network_sees(
    page: Any, tmp_path: Path, file_format: str
) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"holiday.{file_format.lower()}"
    PillowImage.fromarray(PHOTO).save(path, exif=exif)
    opened = page.opened({"image": str(path), "boxes": []})
    shown = np.asarray(PillowImage.open(opened["image"]))
    assert shown.shape == (160, 120, 3)
    assert np.array_equal(shown, page.picture(opened))
    assert (Path(opened["image"]).name, opened["boxes"]) == ("holiday.png", [])


def test_the_heatmap_of_a_keypoint_stands_where_its_skeleton_has_it(
    page: Any, estimator: PoseEstimator, photo: str
) -> None:
    boxed = {"image": photo, "boxes": [BOX]}
    people = estimator(PHOTO, [XYWH])
    names = estimator.skeleton.keypoint_names
    inside = np.all((people.keypoints[0] > [12, 22]) & (people.keypoints[0] < [88, 108]), axis=1)
    for keypoint in np.flatnonzero(inside)[:3].tolist():
        paint = estimator.skeleton.colours[keypoint]
        laid = page.heatmaps(boxed, False, names[keypoint]).astype(float)
        change, most = np.abs(laid - PHOTO).sum(axis=2), np.abs(np.array(paint) - PHOTO.astype(float)).sum(axis=2)
        opacity = np.where(most > 100, change / most.clip(1), 0)  # of a pixel like the paint rounding hides it
        x, y = np.round(people.keypoints[0, keypoint]).astype(int)
        # The peak's 0.7 lies up to half a pixel, an eighth of a cell, from each pixel's centre.
        assert 0.7 * 7 / 8 < opacity[y - 2 : y + 3, x - 2 : x + 3].max() < 0.71
    assert inside.any()


@pytest.mark.parametrize(
    ("boxes", "named"),
    [
        ([BOX] * 101, "101 boxes"),
        ([BOX | {"xmax": 10}], "above 0"),
        ([BOX | {"ymin": float("nan")}], "finite"),
        ([BOX | {"label": "<b>"}], "score"),
        ([BOX | {"label": "nan"}], "score"),
    ],
)
def test_boxes_that_make_no_sense_are_refused_in_one_line(page: Any, photo: str, boxes: Any, named: str) -> None:
    for ask in (lambda value: page.poses(value, False, 0.2), lambda value: page.heatmaps(value, False, "nose")):
        with pytest.raises(InputError, match=named) as caught:
            ask({"image": photo, "boxes": boxes})
        assert "\n" not in str(caught.value)


def bomb(side: int) -> bytes:
    """A small PNG that claims to have ``side`` times ``side`` pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(9))))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "empty"),
        (b"no picture", "no image"),
        (bomb(1001), "1000000"),
        (bomb(30_000), "1000000"),
    ],
)
def test_what_is_no_picture_or_too_large_never_reaches_the_decoder(
    page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, named: str
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    (tmp_path / "trap.png").write_bytes(content)
    for boxes in ([], [BOX]):
        with pytest.raises(InputError, match=named) as caught:
            page.opened({"image": str(tmp_path / "trap.png"), "boxes": boxes})
        assert str(caught.value).startswith("trap.png: ")


def checked(*arguments: str) -> dict[str, Any]:
    return checked_config(composed("demo", "ckpt_path=any", *arguments), DemoConfig)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page that takes 0.3 MB and a million pixels."""
    folder = tmp_path_factory.mktemp("page")
    save_pretrained(small_model(method="udp", height=128, width=96), folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setenv("UNIFORMER_POSE_OFFLINE", "0")
        limits = ["upload_megabytes=0.3", "megapixels=1", "examples.num_val_images=2"]
        demo = served(checked(f"ckpt_path={folder / 'model'}", "port=0", *limits))
        yield demo.local_url
        demo.close(verbose=False)


def asked(url: str, picture: dict[str, Any]) -> str:
    """What the page answers to a question about a picture's poses, as it came."""
    boxed = {"image": picture | {"meta": {"_type": "gradio.FileData"}}, "boxes": [BOX]}
    event = httpx.post(f"{url}gradio_api/call/poses", json={"data": [boxed, False, 0.2]}).json()["event_id"]
    return httpx.get(f"{url}gradio_api/call/poses/{event}", timeout=60).text


def uploaded(url: str, content: bytes) -> httpx.Response:
    return httpx.post(f"{url}gradio_api/upload", files={"files": ("photo.png", content)})


def encoded() -> bytes:
    content = io.BytesIO()
    PillowImage.fromarray(PHOTO).save(content, "PNG")
    return content.getvalue()


def test_the_served_page_answers_what_was_uploaded_and_refuses_the_rest(address: str, tmp_path: Path) -> None:
    assert address.startswith("http://127.0.0.1:")
    answer = asked(address, {"path": uploaded(address, encoded()).json()[0]})
    assert "event: complete" in answer
    result = next(part for part in json.loads(answer.split("data: ")[1]) if part["path"].endswith(".json"))
    assert httpx.get(result["url"]).json()[0]["bbox"] == XYWH
    assert uploaded(address, bytes(400_000)).status_code == 413
    assert "trap" not in asked(address, {"path": uploaded(address, bomb(30_000)).json()[0]})
    (tmp_path / "mine.png").write_bytes(encoded())
    assert "event: error" in asked(address, {"path": str(tmp_path / "mine.png")})
    assert "not an address" in asked(address, {"path": "https://pictures.invalid/a.png"})


@pytest.mark.parametrize(
    ("host", "status"), [("evil.example", 400), ("127.0.0.1.evil.example", 400), ("localhost:80", 200)]
)
def test_a_page_for_this_machine_answers_to_no_other_name(address: str, host: str, status: int) -> None:
    assert httpx.get(address, headers={"Host": host}).status_code == status


@pytest.mark.slow
def test_a_visitor_draws_a_box_sees_poses_and_downloads_results_and_nothing_is_asked_of_others(
    address: str, tmp_path: Path
) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no browser is installed (Debian: apt-get install chromium)")
    (tmp_path / "broken.png").write_bytes(encoded()[:500])
    (tmp_path / "photo.png").write_bytes(encoded())
    elsewhere: list[str] = []
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox does not start as root.
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        visit = browser.new_page()
        visit.on("request", lambda sent: elsewhere.append(sent.url))
        visit.goto(address)
        files = visit.locator("input[type=file]").first
        files.set_input_files(tmp_path / "broken.png")
        visit.get_by_text("broken.png: no image").wait_for()
        visit.locator(".gallery-item").first.click()
        visit.locator("img[src*=jpeg]").nth(1).wait_for()
        visit.get_by_label("Remove Image").first.click()
        files.set_input_files(tmp_path / "photo.png")
        canvas = visit.locator("canvas").first
        canvas.wait_for()
        visit.wait_for_timeout(1000)
        area = canvas.bounding_box()
        middle, top = area["x"] + area["width"] / 2, area["y"]
        visit.mouse.move(middle - 70, top + 20)
        visit.mouse.down()
        visit.mouse.move(middle, top + 60, steps=3)
        visit.mouse.move(middle + 10, top + 110, steps=3)
        visit.mouse.up()
        visit.get_by_role("button", name="Estimate poses").click()
        visit.locator("img[src*=jpeg]").nth(1).wait_for()
        with visit.expect_download() as download:
            visit.get_by_text("Download COCO results").click()
        name, boxes = download.value.suggested_filename, json.loads(download.value.path().read_text())
        browser.close()
    assert (name, boxes[0]["bbox"], len(boxes)) == ("photo_poses.json", [10.0, 20.0, 80.0, 90.0], 1)
    assert [url for url in elsewhere if not url.startswith((address, "data:", "blob:"))] == []


def test_the_page_is_served_until_ctrl_c(tmp_path: Path) -> None:
    save_pretrained(small_model(method="udp", height=128, width=96), tmp_path / "model")
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / "src" / "demo.py"), "ckpt_path=model", "port=0", "examples.num_val_images=1"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background hands down a SIGINT that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        line = next(line for line in iter(process.stdout.readline, "") if line.startswith("the page is at"))
        assert "UniFormer Pose" in httpx.get(line.split()[4]).text
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, output, errors) == (0, "the page is closed\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # nothing is left behind


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "uniformer_pose.prediction.page")
    with pytest.raises(InputError, match=r"gradio.*pip install.*\[page\]"):
        served(checked())


def test_the_page_is_for_this_machine_only_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (checked()["host"], checked()["port"]) == ("127.0.0.1", 7860)
    assert checked("host=0.0.0.0")["host"] == "0.0.0.0"
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")  # as on a Hugging Face Space
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7861")
    assert (checked()["host"], checked()["port"]) == ("0.0.0.0", 7861)


def test_a_detector_that_cannot_be_made_is_told_in_one_line_without_where_it_looked(
    estimator: PoseEstimator, photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> Any:
        raise InputError("no weight file at /srv/secret.pth")

    page = gradio_page.PosePage(estimator, most_pixels=1_000_000, make_detector=fails)
    with pytest.raises(InputError, match="draw a box around each person") as caught:
        page.found({"image": photo, "boxes": []})
    assert "secret" not in str(caught.value)
    assert "/srv/secret.pth" in capsys.readouterr().err
