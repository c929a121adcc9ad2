"""Person crops of one dataset for Lightning: files on disk in, people to train on and to evaluate, batches out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader

from uniformer_pose.config import check_arguments
from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.coco import (
    AreaSource,
    ImageOrientation,
    PersonInstances,
    read_detections,
    read_ground_truth,
)
from uniformer_pose.data.coco_json import read_annotation_file
from uniformer_pose.data.crop_dataset import TrainingCrops
from uniformer_pose.data.crop_loaders import CropLoaders, already_read
from uniformer_pose.data.images import BadImagePolicy, ImageSource
from uniformer_pose.data.photometric import Photometric
from uniformer_pose.data.poses import read_poses, with_poses
from uniformer_pose.data.prepared import PreparedImages
from uniformer_pose.data.stages import Stage, later_pipelines
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.data_set_metrics import require_fields
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.pckh import head_sizes_of
from uniformer_pose.evaluation.protocol import MetricKind
from uniformer_pose.keypoint_mapping import places_in_target
from uniformer_pose.keypoints.codec import Codec
from uniformer_pose.ranges import Count, CountOrNone, Deviation, Mean, NotNegative, Positive, Seed
from uniformer_pose.skeleton import Skeleton, load_skeleton

# Of the arguments, for who makes the object without a config.
_CHECKED = {"mean", "std", "box_padding", "batch_size", "eval_batch_size", "num_workers", "on_bad_image", "max_images"}
_CHECKED |= {"metric"}
_MANY_MISSED = 0.2
_SURE_ENOUGH = 0.3  # of a predicted keypoint's score, for a label


class PersonCrops(CropLoaders):
    """Training crops and evaluation crops of one dataset in COCO's layout.

    All paths but ``skeleton``'s lie below ``root``. ``val_boxes`` is ``"gt"`` for ground-truth boxes, or a file of
    detector boxes (below root, or a path that exists as it stands). The ``test_`` arguments name images without ground
    truth, None where there are none; ``evaluation_arguments`` puts them in the place of ``val_``. ``codec`` owns the
    crop's size and convention. ``train_poses`` is a file of predicted poses, found as that of ``val_boxes``.
    ``prepared`` is a folder that ``src/prepare.py`` has written, which the training images are read from; None reads
    the image files. ``stages``, by name, change ``geometric`` and ``photometric`` in the last epochs. ``if_missing``
    tells a user who does not have the data what to do. The other arguments are those of conf/data/_people.yaml,
    explained there.

    ``skeleton`` says what the files' keypoints are. With ``model_skeleton``, training people have that one's keypoints,
    found by their names and as ``keypoint_mapping`` says (``places_in``), and those that the model has are evaluated.
    ``name`` is the set's among several.

    ``instance_index`` of batches counts in ``train_people``, and in ``val_people``.
    """

    name: str
    train_people: PersonInstances | None = None
    val_people: PersonInstances | None = None
    val_is_part = False  # whether max_images leaves some out
    _prepared_images: PreparedImages | None = None

    def __init__(
        self,
        root: str,
        train_annotations: str | None,
        train_images: str,
        val_annotations: str,
        val_images: str,
        val_boxes: str,
        skeleton: str | Skeleton,
        codec: Codec,
        mean: Mean,
        std: Deviation,
        box_padding: Positive = 1.25,
        batch_size: Count = 32,
        eval_batch_size: Count = 64,
        num_workers: CountOrNone | Literal["auto"] = "auto",
        prefetch: Count = 2,
        on_bad_image: BadImagePolicy = "error",
        max_images: Count | None = None,
        categories: list[str | int] | None = None,
        area: AreaSource = "annotated",
        metric: MetricKind = "coco",
        headbox_file: str | None = None,
        if_missing: str = "",
        test_annotations: str | None = None,
        test_images: str | None = None,
        test_boxes: str | None = None,
        seed: Seed = 0,
        geometric: GeometricAugmentation | None = None,
        photometric: Photometric | None = None,
        prepared: str | None = None,
        prepared_cache_gb: NotNegative = 100.0,
        image_orientation: ImageOrientation | None = None,
        worker_timeout: NotNegative = 300.0,
        stages: Mapping[str, Stage | None] | None = None,
        train_poses: str | None = None,
        train_poses_images: str | None = None,
        min_keypoint_score: NotNegative | None = None,
        weight_by_score: bool | None = None,
        model_skeleton: Skeleton | None = None,
        keypoint_mapping: Mapping[str, str | None] | None = None,
        name: str = "",
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            prefetch=prefetch,
            worker_timeout=worker_timeout,
            on_bad_image=on_bad_image,
            seed=seed,
        )
        check_arguments(PersonCrops, {name: value for name, value in locals().items() if name in _CHECKED}, "data")
        self.root = Path(root).expanduser()
        self.train_annotations, self.train_images = train_annotations, train_images
        self.val_annotations, self.val_images, self.val_boxes = val_annotations, val_images, val_boxes
        self.own_skeleton = skeleton if isinstance(skeleton, Skeleton) else load_skeleton(skeleton)
        self.skeleton = model_skeleton or self.own_skeleton
        self.name, self.keypoint_mapping = name, keypoint_mapping
        self.codec = codec
        self.mean, self.std = tuple(mean), tuple(std)
        self.box_padding = box_padding
        self.max_images = max_images
        self.categories, self.area, self._metric, self.headbox_file = categories, area, metric, headbox_file
        self.if_missing = if_missing
        self.geometric, self.photometric = geometric, photometric
        self.stages = later_pipelines(geometric, photometric, stages or {})
        self.prepared, self.prepared_cache_gb = prepared, prepared_cache_gb
        self.image_orientation = image_orientation
        self.train_poses, self.train_poses_images = train_poses, train_poses_images
        self._min_keypoint_score = _SURE_ENOUGH if min_keypoint_score is None else min_keypoint_score
        self._weight_by_score = bool(weight_by_score)

    @property
    def val_annotation_file(self) -> Path:
        """The ground truth that predictions are scored against."""
        return self.root / self.val_annotations

    @cached_property
    def places(self) -> tuple[int | None, ...]:
        """Where each of the files' keypoints stands in the model's; None for one that it does not have."""
        if self.skeleton is self.own_skeleton:
            return tuple(range(self.skeleton.num_keypoints))
        return places_in_target(self.own_skeleton, self.skeleton, self.keypoint_mapping)

    @property
    def scored_places(self) -> list[int]:
        """Which of the model's keypoints are evaluated, in the order of ``ground_truth``."""
        return [place for place in self.places if place is not None]

    @property
    def scored_skeleton(self) -> Skeleton:
        """The files' keypoints that are evaluated."""
        return self.own_skeleton.of_keypoints(self._scored_own)

    @property
    def _scored_own(self) -> list[int]:
        return [own for own, place in enumerate(self.places) if place is not None]

    @property
    def metric(self) -> MetricKind:
        """``data.metric``; whole bodies of which the model has a part are scored as one."""
        return "coco" if self._metric == "body_parts" and None in self.places else self._metric

    @property
    def has_training_split(self) -> bool:
        """Whether there is anybody to train on: annotated, or by predicted poses."""
        return self.train_annotations is not None or self.train_poses is not None

    @property
    def val_sets(self) -> Sequence[PersonCrops]:
        """This one."""
        return (self,)

    @property
    def num_visits(self) -> int:
        """Each person once."""
        return 0 if self.train_people is None else len(self.train_people)

    def describe_person(self, instance_index: int) -> str:
        """Picture and annotation of one of ``train_people``."""
        people = already_read(self.train_people)
        file = people.file_names[people.image_of_instance[instance_index]]
        return f"{file} (annotation {people.instance_ids[instance_index]})"

    def setup(self, stage: str) -> None:
        """Read the annotations that the stage needs; every process reads its own copy.

        What evaluation would refuse of its ground truth ends a training here, before the first step.
        """
        self.read(for_training=stage == "fit")
        if stage == "fit":  # at each call: before the trainer is there, the number of processes is not known yet
            self.require_a_batch(already_read(self.train_people).source_file)

    def read(self, *, for_training: bool) -> None:
        """Read what has not been read: the people to evaluate, for training also those to train on, and the truth."""
        of_set = f"{self.name}: " if self.name else ""
        if for_training and self.train_people is None:
            self._say_what_is_drawn()
            self.train_people = self.read_train_people()
            rank_zero_info(f"{of_set}{self.train_people.summary()}")  # what was left out, and why
            if self.prepared is None:
                self.train_people.require_pictures()
            else:
                self._prepared_images = PreparedImages(
                    self.prepared, self.train_people, cache_gb=self.prepared_cache_gb
                )
        if self.val_people is None:
            self.val_people = self._read_val_people()
            rank_zero_info(f"{of_set}{self.val_people.summary()}")
        if for_training:
            self.val_people.require_pictures()
            _ = self.ground_truth

    def _say_what_is_drawn(self) -> None:
        lone_sides = self.skeleton.sides_without_partner()
        drawn = (self.geometric, *(later.geometric for later in self.stages))
        if lone_sides is not None and any(each is not None and each.flip_probability > 0 for each in drawn):
            rank_zero_warn(lone_sides)
        of_set = f" of {self.name}" if self.name else ""
        for later in self.stages:
            rank_zero_info(f"augmentation{of_set}: stage {later.name} from epoch {later.first_epoch} on")

    def training_samples(self, first_sample: int = 0) -> TrainingCrops:
        """The training people's crops; ``first_sample`` is the number of the first among several sets'."""
        return TrainingCrops(
            ImageSource(
                already_read(self.train_people), prepared=self._prepared_images, on_bad_image=self.on_bad_image
            ),
            self.skeleton,
            self.crop_spec,
            seed=self.seed,
            geometric=self.geometric,
            photometric=self.photometric,
            stages=self.stages,
            first_sample=first_sample,
            in_set=np.isin(np.arange(self.skeleton.num_keypoints), self.scored_places) if self.name else None,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Every evaluation box exactly once over all processes, whole images together."""
        return self.evaluation_loader(already_read(self.val_people))

    def read_train_people(self) -> PersonInstances:
        """The people of the training images that are asked for."""
        file = None if self.train_annotations is None else self._existing(self.train_annotations)
        images = self.root / self.train_images
        if self.prepared is None:
            images = self._existing(self.train_images)
        elif not images.exists():
            images = self.root  # the pixels are prepared, so the files need not be at hand
        if file is None:
            return self._in_model(self._poses_on(images))
        content = None if self.train_poses is None else read_annotation_file(file)
        people = read_ground_truth(file, images, self.own_skeleton, categories=self.categories, content=content)
        if content is not None:
            frame = self.image_orientation or people.image_orientation or "stored"
            people = with_poses(people, self._poses_on(images, listed=content.images, orientation=frame))
        return self._in_model(people)

    def _in_model(self, people: PersonInstances) -> PersonInstances:
        """The people that are asked for, in the model's keypoints; those who have none of them are left out."""
        people = self._in_use(people)
        if self.skeleton is self.own_skeleton:
            return people
        moved = people.with_keypoints_at(self.places, self.skeleton.num_keypoints)
        return moved.with_a_label("without any of the model's keypoints")

    def _poses_on(self, images: Path, **others: Any) -> PersonInstances:
        """The poses that are labels, of the pictures in a folder unless another is named for them."""
        if self.train_poses is None:
            raise InputError(
                "data.train_annotations=null needs data.train_poses=<a file of src/predict.py>; a set without a split "
                "for training is there to evaluate on"
            )
        file, folder = self._file(self.train_poses), self.train_poses_images
        images = images if folder is None else self._existing(folder)
        how = {"min_keypoint_score": self._min_keypoint_score, "weighted": self._weight_by_score}
        return read_poses(file, images, self.own_skeleton, **({"orientation": self.image_orientation} | how | others))

    def _read_val_people(self) -> PersonInstances:
        annotations, images = self._existing(self.val_annotations), self._existing(self.val_images)
        if self.val_boxes == "gt":
            people = read_ground_truth(annotations, images, self.own_skeleton, categories=self.categories)
        else:
            people = read_detections(
                self._file(self.val_boxes), annotations, images, self.own_skeleton, categories=self.categories
            )
        if len(people) == 0:
            raise InputError(f"nobody to evaluate. {people.summary()}; give a file with people for data.val_*")
        in_use = self._in_use(people)
        self.val_is_part = in_use.num_images < people.num_images
        return in_use

    def _in_use(self, people: PersonInstances) -> PersonInstances:
        """The people of the images that are asked for, in the orientation that is asked for."""
        people = people.with_orientation(self.image_orientation)
        return people if self.max_images is None else people.first_images(self.max_images)

    @cached_property
    def ground_truth(self) -> CocoGroundTruth:
        """The ground truth of the images to evaluate; InputError where it cannot be scored against, or has nobody."""
        file, people = self.val_annotation_file, already_read(self.val_people)
        truth = CocoGroundTruth.load(file, self.own_skeleton, categories=self.categories, area=self.area)
        for doubt in truth.doubts():
            rank_zero_warn(doubt)
        truth = self._of_scored_keypoints(truth)
        if self.metric == "pckh" and self.headbox_file is not None:
            truth = replace(truth, head_sizes=head_sizes_of(self._file(self.headbox_file), truth))
        require_fields(self.metric, truth)
        if self.metric in ("mean_over_categories", "pckh") and people.record != "annotation":
            raise InputError(
                f"{people.source_file}: data.metric={self.metric} is for annotated boxes: data.val_boxes=gt"
            )
        if self.val_is_part:
            truth = truth.restricted_to(people.image_ids)
        if not truth.is_scored.any():
            raise InputError(
                f"{file}: nobody to score among the {len(truth.ids)} annotations of the images to evaluate; scored are "
                "people with labelled keypoints (num_keypoints above 0) that are no crowd"
            )
        missed = ~np.isin(truth.image_ids[truth.is_scored], people.image_ids)
        if missed.mean() > _MANY_MISSED:
            rank_zero_warn(
                f"{int(missed.sum())} of {len(missed)} people to score are in images without a box in "
                f"{people.source_file}, so they count as missed; is it made for {file.name}?"
            )
        return truth

    def _of_scored_keypoints(self, truth: CocoGroundTruth) -> CocoGroundTruth:
        """As if people had those keypoints only that the model has; who is not scored stays so."""
        if None not in self.places:
            return truth
        scored = self.scored_skeleton
        left_out = [name for name in self.own_skeleton.keypoint_names if name not in scored.keypoint_names]
        shown = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
        rank_zero_info(f"{truth.file.name}: evaluated without {shown}, which the model does not have")
        part = truth.of_keypoints(self._scored_own)
        counts = np.where(truth.labelled_counts > 0, part.labelled_counts, 0)
        return replace(part, skeleton=scored, labelled_counts=counts)

    def _file(self, path: str) -> Path:
        """A file that exists as it stands, or below root."""
        as_it_stands = Path(path).expanduser()
        return as_it_stands if as_it_stands.is_file() else self._existing(path)

    def _existing(self, relative: str) -> Path:
        path = self.root / relative
        if not path.exists():
            raise InputError(f"{path} does not exist; {self.if_missing or 'set data.root=<folder>'}")
        return path


def evaluation_arguments(
    arguments: Mapping[str, Any], split: Literal["val", "train", "test"], boxes: str | None
) -> dict[str, Any]:
    """Arguments of ``PersonCrops`` changed so that another split, with other boxes, is the one that is evaluated.

    ``boxes``: ``"gt"`` for ground-truth boxes, ``"detector"`` for the detector's that the data names, a file of
    detector boxes, or None for what the data names for this split (``train``: ground-truth boxes). Raises
    ``InputError`` where the data has no such split or boxes, and for ground-truth boxes of ``test``, which has none.
    """
    changed = dict(arguments)
    own = "gt" if split == "train" else changed.get(f"{split}_boxes")
    for name in ("annotations", "images"):
        changed[f"val_{name}"] = changed.get(f"{split}_{name}")
        if changed[f"val_{name}"] is None:
            raise InputError(
                f"split={split}: the data has no {split} set; choose data that has one, such as data=coco_256x192, "
                f"or give data.{split}_annotations=<file>, data.{split}_images=<folder> and boxes=<file>"
            )
    if split == "test" and boxes == "gt":
        raise InputError("boxes=gt: the test set's ground truth is not public; give boxes=detector or boxes=<file>")
    chosen = own if boxes in (None, "detector") else boxes
    if chosen is None or (boxes == "detector" and own == "gt"):
        raise InputError(f"split={split}: the data names no detector boxes for it; give boxes=<file of detections>")
    return changed | {"val_boxes": chosen}
