"""A page in the browser: a picture and boxes in, skeletons, heatmaps and COCO results out. Needs the extra ``page``.

Boxes are (P, 4) xywh in pixels of the picture as the page shows it: upright, and turned by its turn buttons.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.data.images import read_photo
from uniformer_pose.errors import DivergedError, InputError, one_line
from uniformer_pose.pictures.heatmap import lay_heatmaps_over
from uniformer_pose.prediction.boxes import BoxFinder, PersonBoxes
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.prediction.sources import number_in_name
from uniformer_pose.synthetic.dataset import render_image
from uniformer_pose.synthetic.settings import SyntheticSettings

try:
    import gradio as gr
    import gradio.routes
    from gradio import processing_utils
    from gradio.utils import get_upload_folder
    from gradio_image_annotation import image_annotator
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ModuleNotFoundError as error:
    raise InputError(f'the page needs {error.name}; install the extra: pip install -e ".[page]"') from error

Image = npt.NDArray[np.uint8]
Boxed = dict[str, Any]
"""What the annotator holds: ``image`` (a path), ``boxes`` (their corners) and ``orientation`` (quarter turns)."""

MOST_BOXES = 100
ALL_KEYPOINTS = "all keypoints"
_THIS_MACHINE = ["localhost", "127.0.0.1"]
_HOW = (
    "Drop, paste or open a picture, and draw a box around each person; without boxes, the whole picture is taken for "
    "one person."
)


class PosePage:
    """What the page does when asked, and the page itself.

    ``most_pixels``: of a picture, larger ones are refused before they are decoded. ``make_detector`` is called when
    people are first to be found. All methods raise InputError for what cannot be used; on the page that becomes one
    line.
    """

    def __init__(self, estimator: PoseEstimator, *, most_pixels: int, make_detector: Callable[[], BoxFinder]) -> None:
        self.estimator, self.most_pixels = estimator, most_pixels
        self.make_detector = functools.cache(make_detector)  # keeps no failure

    def picture(self, boxed: Boxed | None) -> Image:
        """(H, W, 3) RGB pixels as the page shows them."""
        if boxed is None:
            raise InputError("open a picture first, or choose an example")
        path = str(boxed["image"])
        try:
            pixels = read_photo(path, most_pixels=self.most_pixels)
        except InputError as error:
            raise InputError(str(error).replace(path, Path(path).name)) from error
        return np.ascontiguousarray(np.rot90(pixels, -int(boxed.get("orientation") or 0)))

    def opened(self, boxed: Boxed) -> Boxed:
        """The picture that somebody handed in, as pixels that every browser shows as the network sees them."""
        return _boxed(self.picture(boxed), Path(boxed["image"]).stem)

    def found(self, boxed: Boxed | None) -> Boxed:
        """The picture with the boxes of the people that the detector finds, and their scores."""
        pixels, boxed = self.picture(boxed), boxed or {}
        try:
            detector = self.make_detector()
        except Exception as error:  # of which visitors need not know where it looked
            print(f"no person detector: {one_line(error)}", file=sys.stderr)
            raise InputError("there is no person detector here; draw a box around each person") from error
        found = detector([Path(boxed["image"]).name], [pixels])[0]
        if not len(found):
            raise InputError("no person found; draw a box around each")
        return boxed | {"boxes": _corners(found)}

    def people(self, boxed: Boxed | None) -> tuple[Image, PersonBoxes]:
        """The pixels, and the boxes with their scores."""
        pixels = self.picture(boxed)
        given = (boxed or {})["boxes"]
        if not given:
            return pixels, PersonBoxes.whole(pixels)
        if len(given) > MOST_BOXES:
            raise InputError(f"{len(given)} boxes: draw at most {MOST_BOXES}")
        try:
            scores = [float(box.get("label") or 1) for box in given]
        except ValueError as error:
            raise InputError(f"the label of a box is its score, a number ({error})") from None
        corners = np.array([[box[name] for name in ("xmin", "ymin", "xmax", "ymax")] for box in given], dtype=float)
        return pixels, PersonBoxes(np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]), np.array(scores))

    def poses(self, boxed: Boxed | None, flip_test: bool, score_threshold: float) -> tuple[Image, str]:
        """The picture with a skeleton per box, and the path of a file with the COCO results in the order of boxes."""
        pixels, boxes = self.people(boxed)
        people = self.estimator(pixels, boxes.boxes_xywh, box_scores=boxes.scores, flip_test=flip_test)
        stem = Path((boxed or {})["image"]).stem
        content = json.dumps(people.to_coco(number_in_name(stem) or 1)).encode()
        drawn = people.plot(pixels, score_threshold=score_threshold)
        return drawn, processing_utils.save_bytes_to_cache(content, f"{stem}_poses.json", get_upload_folder())

    def heatmaps(self, boxed: Boxed | None, flip_test: bool, keypoint: str) -> Image:
        """The picture with the heatmap of one keypoint of everybody, or of all, each relative to its own peak."""
        pixels, boxes = self.people(boxed)
        skeleton, laid = self.estimator.skeleton, pixels
        shown = [i for i, name in enumerate(skeleton.keypoint_names) if keypoint in (name, ALL_KEYPOINTS)]
        crops = self.estimator.model.crop_spec.around(boxes.boxes_xywh)
        wide, tall = self.estimator.codec.cell_size
        corners = np.broadcast_to([[0, 0], [wide, 0], [0, tall]], (len(boxes), 3, 2))
        for box, (origin, right, below) in zip(boxes.boxes_xywh, crops.to_image(corners), strict=True):
            heatmaps = self.estimator.heatmaps(pixels, box, flip_test=flip_test)[shown]
            peaks = np.maximum(heatmaps.max(axis=(1, 2), keepdims=True), 1e-6)
            cells_to_image = np.stack([right - origin, below - origin, origin], axis=1)
            laid = lay_heatmaps_over(laid, heatmaps / peaks, np.array(skeleton.colours)[shown], cells_to_image)
        return laid

    def blocks(self, model: str, examples: SyntheticSettings, score_threshold: float) -> Any:
        """The page, to be launched."""
        with gr.Blocks(title="UniFormer Pose", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
            gr.Markdown(f"# UniFormer Pose\n{_HOW}\n\nModel: {model}")
            with gr.Row():
                with gr.Column(scale=3):
                    boxed = _annotator()
                    with gr.Row():
                        find, estimate = gr.Button("Find people"), gr.Button("Estimate poses", variant="primary")
                    with gr.Row():
                        threshold = gr.Slider(0, 1, score_threshold, step=0.05, label="Draw keypoints that score above")
                        flip_test = gr.Checkbox(label="Flip test")
                    chosen = gr.Examples(_rendered(examples), boxed, cache_examples=False, label="Rendered people")
                with gr.Column(scale=2):
                    drawn = _shown_image("Poses")
                    results = gr.DownloadButton("Download COCO results")
                    names = [ALL_KEYPOINTS, *self.estimator.skeleton.keypoint_names]
                    keypoint = gr.Dropdown(names, label="Heatmap of", value=ALL_KEYPOINTS)
                    heat = _shown_image("Heatmaps")
            poses_inputs = [boxed, flip_test, threshold]
            with_poses = {"fn": _told(self.poses), "inputs": poses_inputs, "outputs": [drawn, results]}
            with_heatmaps = {"fn": _told(self.heatmaps), "inputs": [boxed, flip_test, keypoint], "outputs": heat}
            emptied = {"fn": lambda: [None] * 3, "outputs": [drawn, results, heat]}
            opened = boxed.upload(_told(self.opened), boxed, boxed)
            opened.then(**emptied)
            opened.failure(lambda: None, None, boxed)
            boxed.clear(**emptied)
            for event in (chosen.load_input_event, find.click(_told(self.found), boxed, boxed)):
                event.success(**with_poses).success(**with_heatmaps)
            gr.on([estimate.click, flip_test.input], **with_poses, api_name="poses").success(**with_heatmaps)
            threshold.release(**with_poses)
            keypoint.input(**with_heatmaps, api_name="heatmaps")
        return page


def launch(page: Any, *, host: str, port: int, most_bytes: int, open_browser: bool) -> None:
    """Serve the page from another thread and say where; a port of 0 is any free one.

    Uploads of more than ``most_bytes`` are refused. Raises InputError if the address cannot be had.
    """
    is_local = host in _THIS_MACHINE
    # A page for this machine is not to be had under another name, by way of which other sites could ask.
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=_THIS_MACHINE if is_local else ["*"])
    try:
        with socket.create_server((host, port)) as free:
            free_port = free.getsockname()[1]
    except OSError as error:
        raise InputError(f"host={host} port={port}: {error.strerror}; port=0 takes any free port") from error
    gradio.routes.print = lambda *_: None  # of every file of the annotator, a line
    processing_utils.async_ssrf_protected_download = _fetch_nothing
    # It asks itself whether it is there, which no proxy can tell.
    os.environ["no_proxy"] = ",".join([os.environ.get("no_proxy", ""), *_THIS_MACHINE]).strip(",")
    _, url, _ = page.launch(
        server_name=host,
        server_port=free_port,
        prevent_thread_lock=True,
        inbrowser=open_browser and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")),
        share=False,
        quiet=True,
        ssr_mode=False,
        footer_links=[],
        max_file_size=most_bytes,
        app_kwargs={"middleware": [trusted]},
    )
    print(f"the page is at      {url}   (Ctrl-C ends it)", flush=True)
    if not is_local:
        print(f"                    open to whoever reaches this machine, because host={host}", flush=True)


def _annotator() -> Any:
    annotator = image_annotator(
        show_label=False,  # a label covers the picture
        sources=["upload", "clipboard"],
        image_type="filepath",
        disable_edit_boxes=True,
        boxes_alpha=0.15,
        show_download_button=False,
    )
    # Its own would decode what nobody has checked, turn it, and save it with loss.
    annotator.preprocess_image = lambda image: image and image.path
    return annotator


async def _fetch_nothing(*_: Any, **__: Any) -> str:
    """In place of what fetches a picture for a visitor who gives its address."""
    raise gr.Error("hand in a file, not an address", print_exception=False)


def _shown_image(label: str) -> Any:
    return gr.Image(label=label, show_label=False, format="jpeg", interactive=False, buttons=["download", "fullscreen"])


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose refusals the page shows in one line."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (InputError, DivergedError) as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call


def _rendered(settings: SyntheticSettings) -> list[list[Boxed]]:
    """The validation pictures of a synthetic dataset, drawn now, with the boxes of their people."""
    examples = []
    for number in range(1, settings.num_images("val") + 1):
        scene = render_image(settings, "val", number)
        boxes = np.array([person.box_xywh for person in scene.people]).reshape(-1, 4)
        examples.append([_boxed(scene.image, f"rendered_{number}", PersonBoxes(boxes, np.ones(len(boxes))))])
    return examples


def _boxed(pixels: Image, stem: str, boxes: PersonBoxes | None = None) -> Boxed:
    _, content = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    path = processing_utils.save_bytes_to_cache(content.tobytes(), f"{stem}.png", get_upload_folder())
    return {"image": path, "boxes": [] if boxes is None else _corners(boxes), "orientation": 0}


def _corners(boxes: PersonBoxes) -> list[dict[str, Any]]:
    """As the annotator has them; a label is the score, unless that is 1."""
    named = []
    for (left, top, width, height), score in zip(boxes.boxes_xywh.tolist(), boxes.scores.tolist(), strict=True):
        label = "" if score == 1 else f"{score:.3f}"
        named.append({"xmin": left, "ymin": top, "xmax": left + width, "ymax": top + height, "label": label})
    return named
