"""Pictures -> people, with an exported YOLOX or RTMDet run by ONNX Runtime.

Two forms of output are understood, those of the files in circulation:

- one output (1, N, 5 + C), as YOLOX's own project exports it (Ge et al., YOLOX, 2021): rows of centre x, centre y,
  width, height, objectness and C class scores. Unless decoding was exported too, the first four are relative to the
  cells of grids with strides 8, 16, 32 (and 64), the sizes as logarithms;
- ``dets`` (1, N, 5) and ``labels`` (1, N), as MMDeploy exports both networks: rows of x1, y1, x2, y2, score, already
  suppressed, and filled up with rows of score 0.

Both networks take BGR pixels, the picture in the upper left corner and 114 around it: YOLOX as they are, RTMDet
normalised. The YOLOX files from before its release 0.1.1 (August 2021) took others, which a file does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import nms

from uniformer_pose.errors import InputError, one_line
from uniformer_pose.prediction.detection import FloatArray, Image, PersonBoxes, boxes_from_corners, check_pictures
from uniformer_pose.prediction.onnx_file import OnnxFile, read_onnx_file

_SCORE_FLOOR = 0.05
_MOST_CANDIDATES = 5000  # for suppression, whose time grows with their square; as in MMDeploy's exports
_NMS_IOU = 0.65  # of YOLOX's own test
_PADDING = 114
# Of RTMDet's preprocessing, in the order of its channels: blue, green, red.
_MEAN = np.array([103.53, 116.28, 123.675], dtype=np.float32).reshape(3, 1, 1)
_STD = np.array([57.375, 57.12, 58.395], dtype=np.float32).reshape(3, 1, 1)
_STRIDES = ((8, 16, 32), (8, 16, 32, 64))
_DEFAULT_SIDE = 640
_LONGEST_SIDE = 4096
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_KNOWN = "YOLOX as its own project exports it, or YOLOX or RTMDet exported by MMDeploy (dets, labels)"


@dataclass(frozen=True)
class _Layout:
    """Whose pixels go in, and what comes out; ``outputs`` are the names of those to ask for."""

    network: Literal["yolox", "rtmdet"]
    form: Literal["grid", "decoded", "suppressed"]
    outputs: tuple[str, ...]


class OnnxDetector:
    """RGB uint8 pictures (H, W, 3) of any sizes -> the people in each: boxes of at least score 0.05, best first.

    ``path``: the ONNX file. ``layout``: the network it holds; ``auto`` sees it from the graph. ``person_class``: the
    number of the class, 0 in COCO and in files for people only. ``height``, ``width``: of the network's input in
    pixels, where the file leaves them open (640 if None). ``providers``: of ONNX Runtime, best first; None takes CUDA
    if the installed runtime has it. ``threads``: of one run on the CPU; None leaves it to the runtime.

    One picture at a time, as most files are exported for. Nothing but the standard operators is run, and weights
    outside the file's folder are not read (``read_onnx_file``). Safe to call from several threads.

    Raises InputError without the package onnxruntime, for a file that cannot be used or is of another layout, and for
    pictures of another form.
    """

    def __init__(
        self,
        path: str,
        *,
        layout: Literal["auto", "yolox", "rtmdet"] = "auto",
        person_class: int = 0,
        height: int | None = None,
        width: int | None = None,
        providers: list[str] | None = None,
        threads: int | None = None,
    ) -> None:
        if person_class < 0:
            raise InputError(f"person_class={person_class}: give the number of the class of people, 0 in COCO")
        file = read_onnx_file(path)
        self._path = file.path
        self._person_class = person_class
        self._session = _session(file, providers, threads)
        self._input_name, self._input_type, self.height, self.width = _input_of(file, self._session, height, width)
        self._layout = _recognised(file, self._session, layout)
        self._cells: tuple[FloatArray, FloatArray] | None = None

    def __call__(self, images: Sequence[Image]) -> list[PersonBoxes]:
        """The people of each picture, in the order of the pictures."""
        check_pictures(images)
        return [self._detect(image) for image in images]

    @property
    def network(self) -> Literal["yolox", "rtmdet"]:
        """Which network's pixels it is given."""
        return self._layout.network

    @property
    def providers(self) -> list[str]:
        """What ONNX Runtime runs it on."""
        return list(self._session.get_providers())

    def _detect(self, image: Image) -> PersonBoxes:
        # Their own pipelines round the size of the picture within the input differently.
        placed = placed_size(image.shape, self.height, self.width, rounded=self._layout.form == "suppressed")
        pixels = network_input(image, placed, self.height, self.width, normalized=self._layout.network == "rtmdet")
        try:
            outputs = self._session.run(
                list(self._layout.outputs), {self._input_name: pixels.astype(self._input_type, copy=False)}
            )
        except Exception as error:  # the runtime's exceptions have nothing else in common
            raise InputError(f"{self._path}: the detector failed ({one_line(error)}); export it again") from error
        if self._layout.form == "suppressed":
            corners, scores = self._suppressed(outputs)
        else:
            corners, scores = self._from_rows(outputs[0])
        if not (np.isfinite(corners).all() and np.isfinite(scores).all()):
            raise InputError(
                f"{self._path}: gives boxes that are not finite; the file is damaged, or of a precision too low for it"
            )
        return boxes_from_corners(corners_in_image(corners, placed, image.shape), scores)

    def _suppressed(self, outputs: Sequence[npt.NDArray[Any]]) -> tuple[FloatArray, FloatArray]:
        rows = outputs[0]
        if rows.ndim != 3 or rows.shape[0] != 1 or rows.shape[2] != 5:
            raise self._unlike(f"dets of shape {rows.shape} in place of (1, N, 5)")
        wanted = rows[0, :, 4] >= _SCORE_FLOOR
        if len(outputs) > 1:
            if outputs[1].shape != rows.shape[:2]:
                raise self._unlike(f"labels of shape {outputs[1].shape} for dets of shape {rows.shape}")
            wanted &= outputs[1][0] == self._person_class
        # NaN is not below the floor either; it shall be told.
        found = rows[0][wanted | np.isnan(rows[0]).any(axis=1)].astype(np.float64)
        found = found[np.argsort(-found[:, 4], kind="stable")]
        return found[:, :4], found[:, 4]

    def _from_rows(self, output: npt.NDArray[Any]) -> tuple[FloatArray, FloatArray]:
        if output.ndim != 3 or output.shape[0] != 1 or output.shape[2] <= 5 + self._person_class:
            raise self._unlike(
                f"an output of shape {output.shape}, with no score of class {self._person_class} in its rows"
            )
        rows = output[0].astype(np.float32, copy=False)
        if self._layout.form == "grid" and (self._cells is None or len(self._cells[0]) != len(rows)):
            self._cells = self._grid(len(rows))
        scores = rows[:, 4] * rows[:, 5 + self._person_class]
        candidates = np.flatnonzero(~(scores < _SCORE_FLOOR))  # NaN is among them; it shall be told
        candidates = candidates[rows[candidates, 5:].argmax(axis=1) == self._person_class]
        boxes, scores = rows[candidates, :4].astype(np.float64), scores[candidates].astype(np.float64)
        if self._cells is not None:
            cells, strides = self._cells[0][candidates], self._cells[1][candidates]
            with np.errstate(over="ignore"):  # infinite sizes are told by whoever called
                boxes = np.concatenate([boxes[:, :2] + cells, np.exp(boxes[:, 2:])], axis=1) * strides
        corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
        order = np.argsort(-scores, kind="stable")[:_MOST_CANDIDATES]
        corners, scores = corners[order], scores[order]
        ranks = torch.arange(len(order), 0, -1, dtype=torch.float64)  # equal scores cannot change places
        kept = nms(torch.from_numpy(corners), ranks, _NMS_IOU).numpy()
        return corners[kept], scores[kept]

    def _grid(self, num_rows: int) -> tuple[FloatArray, FloatArray]:
        """Corner (N, 2) in cells and stride (N, 1) in pixels of the cell of each row."""
        for strides in _STRIDES:
            grids = [
                np.indices((self.height // stride, self.width // stride))[::-1].reshape(2, -1) for stride in strides
            ]
            if sum(grid.shape[1] for grid in grids) == num_rows:
                lengths = [grid.shape[1] for grid in grids]
                return np.concatenate(grids, axis=1).T.astype(np.float64), np.repeat(strides, lengths)[:, None] * 1.0
        raise self._unlike(f"{num_rows} rows for an input of {self.height}x{self.width}, which no YOLOX has")

    def _unlike(self, what: str) -> InputError:
        return InputError(f"{self._path}: gives {what}; give {_KNOWN}")


def placed_size(image_shape: tuple[int, ...], height: int, width: int, *, rounded: bool) -> tuple[int, int]:
    """Height and width of a picture scaled to fit ``height`` x ``width``, at least one pixel each.

    One side fits exactly. The other is rounded to the nearest, or down; in whole numbers, so that no rounding of a
    quotient can make it one pixel less.
    """
    image_height, image_width = image_shape[:2]
    if height * image_width <= width * image_height:
        return height, _divided(image_width * height, image_height, rounded)
    return _divided(image_height * width, image_width, rounded), width


def network_input(
    image: Image, placed: tuple[int, int], height: int, width: int, *, normalized: bool
) -> npt.NDArray[np.float32]:
    """BGR (1, 3, height, width) of an RGB picture (H, W, 3) resized to ``placed`` in the upper left corner.

    The rest is 114. Pixels from 0 to 255, or minus RTMDet's mean over its standard deviation.
    """
    canvas = np.full((height, width, 3), _PADDING, dtype=np.uint8)
    size = (placed[1], placed[0])
    canvas[: placed[0], : placed[1]] = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_LINEAR)
    pixels = np.asarray(cv2.dnn.blobFromImage(canvas, swapRB=True), dtype=np.float32)
    if normalized:
        pixels -= _MEAN
        pixels /= _STD
    return pixels


def corners_in_image(corners: FloatArray, placed: tuple[int, int], image_shape: tuple[int, ...]) -> FloatArray:
    """Corners (P, 4) xyxy in pixels of the network's input -> in pixels of the picture that was ``placed`` there."""
    return np.asarray(corners * np.array([image_shape[1] / placed[1], image_shape[0] / placed[0]] * 2))


def _divided(numerator: int, denominator: int, rounded: bool) -> int:
    return max(1, (2 * numerator + denominator) // (2 * denominator) if rounded else numerator // denominator)


def _session(file: OnnxFile, providers: list[str] | None, threads: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "detector=onnx needs the package onnxruntime: pip install onnxruntime (or onnxruntime-gpu), or take "
            "detector=torchvision"
        ) from error
    available = onnxruntime.get_available_providers()
    missing = [name for name in providers or [] if name not in available]
    if missing or providers == []:
        raise InputError(f"providers={providers}: this ONNX Runtime has {', '.join(available)}; name some of these")
    if threads is not None and threads < 1:
        raise InputError(f"threads={threads}: give 1 or more, or null to leave it to ONNX Runtime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = threads or 0
    # Idle threads would otherwise spin, and take the cores from the pose network.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(
        "session.load_model_format", "ONNX"
    )  # the form that was checked, whatever the name
    try:
        return onnxruntime.InferenceSession(
            str(file.path), options, providers=providers or [name for name in _PROVIDERS if name in available]
        )
    except Exception as error:  # the runtime's exceptions have nothing else in common
        raise InputError(
            f"{file.path}: ONNX Runtime {onnxruntime.__version__} does not load it ({one_line(error)}); export it again"
        ) from error


def _recognised(file: OnnxFile, session: Any, asked: Literal["auto", "yolox", "rtmdet"]) -> _Layout:
    if asked not in ("auto", "yolox", "rtmdet"):
        raise InputError(f"layout={asked}: give auto, yolox or rtmdet")
    outputs = {output.name: output.shape or [] for output in session.get_outputs()}
    if {"dets", "labels"} <= outputs.keys():
        network = _network_of(file) if asked == "auto" else asked
        if network is None:
            raise InputError(
                f"{file.path}: dets and labels, but of YOLOX or RTMDet? They take different pixels and the graph does "
                "not show which it is; give layout=yolox or layout=rtmdet"
            )
        return _Layout(network, "suppressed", ("dets", "labels"))
    if len(outputs) == 1 and asked != "rtmdet":
        name, shape = next(iter(outputs.items()))
        if len(shape) == 3 and (isinstance(shape[2], str | None) or shape[2] > 5):
            # YOLOX has an exponential in its decoding and nowhere else.
            return _Layout("yolox", "decoded" if "Exp" in file.operators else "grid", (name,))
    seen = ", ".join(f"{name} {shape}" for name, shape in outputs.items())
    raise InputError(f"{file.path}: its outputs are {seen[:160]}, which layout={asked} does not have; give {_KNOWN}")


def _network_of(file: OnnxFile) -> Literal["yolox", "rtmdet"] | None:
    """Whose graph it is, from what an export keeps: names of the last convolutions, and what the first one takes."""
    if any("rtm_cls" in name or "rtm_reg" in name for name in file.parameter_names):
        return "rtmdet"
    if any("multi_level_conv" in name for name in file.parameter_names):
        return "yolox"
    if file.first_convolution_channels == 12:  # YOLOX begins by folding 2 x 2 pixels into channels
        return "yolox"
    # A decoded YOLOX has an exponential; the smaller RTMDets have none.
    if file.first_convolution_channels == 3 and "Exp" not in file.operators:
        return "rtmdet"
    return None


def _input_of(file: OnnxFile, session: Any, height: int | None, width: int | None) -> tuple[str, Any, int, int]:
    """Name and type of the only input, and its height and width: the file's, where it leaves them open the asked."""
    inputs = session.get_inputs()
    shape = (inputs[0].shape or []) if inputs else []
    if len(inputs) != 1 or len(shape) != 4 or shape[1] not in (3, None) or inputs[0].type not in _INPUT_TYPES:
        seen = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
        raise InputError(f"{file.path}: its inputs are {seen[:160]}; one float (1, 3, height, width) is needed")
    if isinstance(shape[0], int) and shape[0] != 1:
        raise InputError(f"{file.path}: takes {shape[0]} pictures at a time; export it for one")
    sides = []
    for name, fixed, asked in (("height", shape[2], height), ("width", shape[3], width)):
        if isinstance(fixed, int) and asked not in (None, fixed):
            raise InputError(f"{name}={asked}: {file.path} has a fixed {name} of {fixed}; leave {name} out")
        open_side = _DEFAULT_SIDE if asked is None else asked
        side = fixed if isinstance(fixed, int) else open_side
        if not 32 <= side <= _LONGEST_SIDE or side % 32:
            raise InputError(f"{name}={side}: {file.path} needs a multiple of 32 from 32 to {_LONGEST_SIDE}")
        sides.append(side)
    return inputs[0].name, _INPUT_TYPES[inputs[0].type], sides[0], sides[1]
