"""Pictures and boxes -> people: the network behind four lines of Python.

estimator = PoseEstimator("zoo:uniformer_s_coco_256x192")
people = estimator("picture.jpg", boxes=[[48, 20, 120, 300]])
people.keypoints  # (1, 17, 2) image pixels
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PillowImage
from PIL import ImageOps

from uniformer_pose.config_parts import Engine, Precision
from uniformer_pose.data.crop_geometry import CropGeometry
from uniformer_pose.data.images import eight_bits, read_photo
from uniformer_pose.errors import DivergedError, InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.other_network import NetworkClass
from uniformer_pose.prediction.boxes import PersonBoxes
from uniformer_pose.prediction.engines import inference_network
from uniformer_pose.prediction.people import People
from uniformer_pose.prediction.pose_pipeline import CropPoses, PosePipeline
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.skeleton import Skeleton
from uniformer_pose.training.precision import computes_in_bf16, find_device, resolved
from uniformer_pose.weights.loading import load_model

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]
Picture = Image | PillowImage.Image | str | Path
Boxes = npt.ArrayLike

# Sigma of the released models; it shapes training targets only, and a codec cannot be without one.
_SIGMA_UP_TO_256, _SIGMA_ABOVE = 2.0, 3.0


class PoseEstimator:
    """The poses of people in pictures, given their boxes.

    ``weights``: a file, an https URL, ``zoo:<name>``, ``hf://owner/repo/file``, or a ``SavedModel``. ``input_size``
    is the crop's (height, width) for files that do not say it; for others it must agree. ``keypoints`` is for a model
    of more than are wanted: those of a skeleton (a name, a file, or as it is). ``device`` None is the GPU, if any.
    ``precision`` ``auto`` is bf16 on a GPU that computes in it, else fp32; bf16 on a processor needs its
    instructions. ``batch_size`` crops go through the network at once. ``model_class`` is for a network that is not of
    this package (``load_model``). ``engine`` computes the heatmaps (see ``inference_network``), and ``auto`` is the
    fastest. ``announce`` is given the line that says what was loaded, and one if something faster is missing.

    Calls change nothing, so threads may share one estimator. The same person gives the same keypoints alone, among
    others, or in a video: the crop is the same, and fp32 differs by rounding only.
    """

    def __init__(
        self,
        weights: str | Path | SavedModel,
        *,
        input_size: tuple[int, int] | None = None,
        keypoints: str | Path | Skeleton | None = None,
        device: str | torch.device | None = None,
        precision: Precision = "auto",
        batch_size: int = 32,
        head_dim: int | None = None,
        model_class: NetworkClass | None = None,
        engine: Engine = "auto",
        announce: Callable[[str], object] = print,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: give at least 1 crop")
        if isinstance(weights, SavedModel):
            if keypoints is not None:
                raise InputError("keypoints=: a SavedModel gives its own; load it with load_model(..., skeleton=)")
            self.model = weights
        else:
            self.model, report = load_model(
                weights, codec=_codec(input_size), head_dim=head_dim, skeleton=keypoints, model_class=model_class
            )
            announce(str(report))
        self.codec, self.skeleton = self.model.codec, self.model.skeleton
        if input_size is not None and tuple(input_size) != (self.codec.height, self.codec.width):
            raise InputError(
                f"input_size={tuple(input_size)}: the model was trained at {self.codec.height}x{self.codec.width} "
                "(height x width); leave input_size out"
            )
        self.batch_size = batch_size
        self.device = find_device(device)
        self.precision = resolved(precision, self.device.type)
        network = inference_network(
            self.model.network.eval(),
            engine=engine,
            device=self.device,
            precision=self.precision,
            height=self.codec.height,
            width=self.codec.width,
        )
        self.engine = network.engine
        if network.remark is not None:
            announce(network.remark)
        elif precision == "auto" and self.engine == "openvino" and computes_in_bf16("cpu"):
            announce(
                "precision=bf16 is faster on this processor, and moves keypoints by less than 0.1 pixels on average"
            )
        self._pipeline = PosePipeline(self.model, network)
        self._pipeline.normalize.to(self.device)

    def __call__(
        self,
        image: Picture,
        boxes: Boxes | None = None,
        *,
        box_scores: npt.ArrayLike | None = None,
        flip_test: bool = False,
    ) -> People:
        """The people of one picture, one per box; see ``predict_batch``."""
        return self.predict_batch(
            [image], [boxes], box_scores=None if box_scores is None else [box_scores], flip_test=flip_test
        )[0]

    def predict_batch(
        self,
        images: Sequence[Picture],
        boxes: Sequence[Boxes | None] | None = None,
        *,
        box_scores: Sequence[npt.ArrayLike | None] | None = None,
        flip_test: bool = False,
    ) -> list[People]:
        """The people of each picture; the crops of all of them fill the network's batches together.

        A picture is an RGB uint8 array (H, W, 3), a grey one (H, W), a PIL image, or the path of a file; of the last
        two the EXIF orientation is applied. ``boxes`` holds for each picture (P, 4) boxes, xywh in image pixels, or
        None for one person who fills the picture; a box may reach outside. ``box_scores`` (P,), 1 by default, go into
        the pose's score. ``flip_test`` averages with the mirrored crop: a little better, at twice the time.

        Raises InputError for a picture or a box that cannot be used, DivergedError where the network gives NaN.
        """
        given: Sequence[Boxes | None] = [None] * len(images) if boxes is None else boxes
        scores: Sequence[Boxes | None] = [None] * len(images) if box_scores is None else box_scores
        for name, entries in (("boxes", given), ("box_scores", scores)):
            if len(entries) != len(images):
                raise InputError(
                    f"{name} for {len(entries)} pictures, but there are {len(images)}; give one per picture"
                )
        pictures = [as_pixels(image) for image in images]
        found = [_person_boxes(*each) for each in zip(range(len(images)), pictures, given, scores, strict=True)]
        fitted = [self.model.crop_spec.around(of_picture.boxes_xywh) for of_picture in found]
        keypoints, keypoint_scores, visibility = self._poses(pictures, fitted, flip_test)
        people, start = [], 0
        for of_picture, crops in zip(found, fitted, strict=True):
            rows = slice(start, start := start + len(of_picture))
            people.append(
                People(
                    keypoints=crops.to_image(keypoints[rows]),
                    scores=keypoint_scores[rows],
                    boxes=of_picture.boxes_xywh,
                    box_scores=of_picture.scores,
                    areas=crops.extent.prod(axis=1),
                    skeleton=self.skeleton,
                    visibility=None if visibility is None else visibility[rows],
                )
            )
        return people

    def heatmaps(self, image: Picture, box: Boxes | None = None, *, flip_test: bool = False) -> FloatArray:
        """(K, h, w) heatmaps of one person, to look at, by ``codec.heatmaps``; a cell is ``codec.cell_size``."""
        picture = as_pixels(image)
        boxes = _person_boxes(0, picture, None if box is None else np.reshape(np.asarray(box), (1, 4)), None)
        crops = self.model.crop_spec.around(boxes.boxes_xywh).crop(picture)
        with torch.inference_mode():
            output = self._pipeline.output(self._on_device(crops), with_flip_test=flip_test)
        return self.codec.heatmaps(output)[0].double().cpu().numpy()

    def _poses(
        self, pictures: Sequence[Image], fitted: Sequence[CropGeometry], flip_test: bool
    ) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        """What ``CropPoses`` has, of all boxes of all pictures, one after the other.

        A GPU is not waited for before the last batch is queued: it computes while the next crops are cut.
        """
        count = self.skeleton.num_keypoints
        with torch.inference_mode():
            batches = map(self._on_device, self._batches(pictures, fitted))
            decoded = [self._pipeline(crops, with_flip_test=flip_test) for crops in batches]
        poses = CropPoses.joined(decoded or [CropPoses(torch.zeros(0, count, 2), torch.zeros(0, count))])
        keypoints, scores, *known = (each.double().cpu().numpy() for each in poses if each is not None)
        if not all(np.isfinite(each).all() for each in (keypoints, scores, *known)):
            raise DivergedError("the network gives NaN or infinity; try precision=fp32, or other weights")
        return keypoints, scores, known[0] if known else None

    def _on_device(self, crops: npt.NDArray[np.uint8]) -> torch.Tensor:
        on_host = torch.from_numpy(crops)
        return on_host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else on_host

    def _batches(self, pictures: Sequence[Image], fitted: Sequence[CropGeometry]) -> Iterator[npt.NDArray[np.uint8]]:
        """The crops of all boxes, of which no more than two batches are in memory."""
        waiting: list[npt.NDArray[np.uint8]] = []
        for picture, crops in zip(pictures, fitted, strict=True):
            for first in range(0, len(crops.center), self.batch_size):
                waiting.extend(crops[first : first + self.batch_size].crop(picture))
                while len(waiting) >= self.batch_size:
                    yield np.stack(waiting[: self.batch_size])
                    del waiting[: self.batch_size]
        if waiting:
            yield np.stack(waiting)


def as_pixels(image: Picture) -> Image:
    """RGB uint8 pixels (H, W, 3) of what may stand for a picture; InputError for anything else."""
    if isinstance(image, str | Path):
        return read_photo(image)
    if isinstance(image, PillowImage.Image):
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # of more than 8 bits, which Pillow would cut off at 255
            return np.repeat(eight_bits(np.asarray(upright))[0][..., None], 3, axis=2)
        return np.asarray(upright.convert("RGB"), dtype=np.uint8)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        if image.ndim == 2:
            return np.repeat(image[..., None], 3, axis=2)
        if image.ndim == 3 and image.shape[2] == 3:
            return image
    raise InputError(
        f"a picture of type {getattr(image, 'dtype', type(image).__name__)} and shape {getattr(image, 'shape', None)}: "
        "give RGB uint8 pixels (height, width, 3), grey ones (height, width), a PIL image or the path of a file"
    )


def _codec(input_size: tuple[int, int] | None) -> HeatmapCodec | None:
    if input_size is None:
        return None
    try:
        height, width = (int(length) for length in input_size)
    except (TypeError, ValueError):
        raise InputError(f"input_size={input_size!r}: give (height, width) of the crop, such as (256, 192)") from None
    return HeatmapCodec(height, width, sigma=_SIGMA_UP_TO_256 if height <= 256 else _SIGMA_ABOVE)


def _person_boxes(number: int, picture: Image, boxes: Boxes | None, scores: npt.ArrayLike | None) -> PersonBoxes:
    try:
        given = PersonBoxes.whole(picture).boxes_xywh if boxes is None else np.asarray(boxes, dtype=np.float64)
        return PersonBoxes(given, np.ones(len(given)) if scores is None else np.asarray(scores))
    except (TypeError, ValueError) as error:  # InputError is a ValueError
        raise InputError(f"picture {number}: {error}") from None
