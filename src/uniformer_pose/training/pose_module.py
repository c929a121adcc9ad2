"""The LightningModule: crops -> images -> heatmaps -> loss, and predictions -> AP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from uniformer_pose.data.crop_geometry import CropGeometry
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.data.tensors import CropNormalization
from uniformer_pose.errors import DivergedError
from uniformer_pose.evaluation.coco_metrics import protocol_metrics
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.evaluation.report import Evaluation
from uniformer_pose.evaluation.timing import Stopwatch
from uniformer_pose.keypoints.flip_test import predicted_heatmaps
from uniformer_pose.ranges import Count, CountOrNone, Positive, Share
from uniformer_pose.saved_model import RECORD_KEY, SavedModel, require_same_keypoints, saved_record
from uniformer_pose.training.last_evaluation import evaluate_the_end
from uniformer_pose.training.non_finite import StopOnNonFinite
from uniformer_pose.training.optimization import (
    apply_settings,
    fused_where_possible,
    numeric_settings,
    scaled_learning_rate,
    step_schedule,
)
from uniformer_pose.training.random_state import seed_by_process
from uniformer_pose.training.step_loss import CompileStep, StepLoss


class PoseModule(pl.LightningModule):
    """Training and evaluation of one model.

    ``model`` holds the network and what goes with it. ``optimizer`` is called with the parameters and ``lr``: the rate
    stated for 256 images, scaled by the true global batch (devices x batch x accumulation). ``milestones`` are
    epochs; ``warmup_steps`` optimizer steps. ``compile_step``: see ``StepLoss``.

    ``inference_network``, where it is set, computes the heatmaps of evaluations instead of the network: for weights
    that no longer change.
    """

    def __init__(
        self,
        model: SavedModel,
        protocol: EvaluationProtocol,
        optimizer: Callable[..., Optimizer] | None = None,
        learning_rate_per_256: Positive = 5e-4,
        warmup_steps: CountOrNone = 500,
        warmup_start_factor: Share = 0.001,
        milestones: Sequence[Count] = (170, 200),
        decay_factor: Positive = 0.1,
        compile_step: CompileStep = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.network = model.network
        self.codec = model.codec
        self.normalize = CropNormalization(model.mean, model.std)
        # No buffer: an index is not to be averaged, cast or broadcast with the weights.
        self.mirror_permutation = torch.from_numpy(model.skeleton.mirror_permutation)
        self.protocol = protocol
        self.optimizer = optimizer
        self.learning_rate_per_256 = learning_rate_per_256
        self.warmup_steps, self.warmup_start_factor = warmup_steps, warmup_start_factor
        self.milestones, self.decay_factor = tuple(milestones), decay_factor
        self.compile_step: CompileStep = compile_step
        self._step_loss: StepLoss | None = None
        self._optimizer_settings: list[dict[str, Any]] = []
        self.inference_network: Callable[[Tensor], Tensor] | None = None
        self.evaluation: Evaluation | None = None
        self.evaluated_at_step: int | None = None  # of the last complete evaluation, on every process
        self._decoded: list[dict[str, Tensor]] = []
        self._unreadable: list[Tensor] = []
        self._stopwatch: Stopwatch | None = None
        # No buffer: DDP would overwrite each process's with that of the first, at every step.
        self._replaced: Tensor | None = None

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """What cannot be scored against is refused before the first batch."""
        _ = self.data.ground_truth

    # ---------------------------------------------------------------- training

    def configure_callbacks(self) -> list[pl.Callback]:
        """Whoever trains this model, numbers that are not finite never reach its weights."""
        return [StopOnNonFinite()]

    def on_fit_start(self) -> None:
        """Forget what an earlier training of this object left."""
        self._replaced = None
        self._step_loss = None
        seed_by_process(self.trainer.global_rank)
        evaluate_the_end(self.trainer)

    def training_step(self, batch: dict[str, Tensor], _batch_index: int) -> Tensor:
        """The loss of one batch; nothing here waits for the device."""
        if self._step_loss is None:
            # A single batch is not worth minutes of compiling.
            trying = self._trainer is not None and bool(self.trainer.fast_dev_run)  # type: ignore[attr-defined]
            auto_off = trying and self.compile_step == "auto"
            self._step_loss = StepLoss(False if auto_off else self.compile_step, self.device)
        loss, accuracy = self._step_loss(
            self.network, self.normalize, self.codec, batch["crops"], batch["keypoints_in_crop"], batch["visibility"]
        )
        with torch.no_grad():
            replaced = batch["replaced"].sum(dtype=torch.int64)
            self._replaced = replaced if self._replaced is None else self._replaced + replaced
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/pck", accuracy, prog_bar=True)
        return loss

    def on_train_start(self) -> None:
        """Train with what the configuration says, whatever a checkpoint brought, and say with what."""
        optimizer = self.trainer.optimizers[0]
        scheduler = cast(LambdaLR, self.trainer.lr_scheduler_configs[0].scheduler)  # as configure_optimizers made it
        accumulation = self.trainer.accumulate_grad_batches
        epoch, batch = self.data.resumed_at if self.trainer.ckpt_path else (0, 0)
        first_step = scheduler.last_epoch - batch // accumulation if epoch or batch else 0
        schedule = self._schedule(first_epoch=epoch, first_step=first_step)
        scheduler.lr_lambdas = [schedule] * len(optimizer.param_groups)
        apply_settings(self._optimizer_settings, optimizer, scheduler)
        group, step = optimizer.param_groups[0], self.trainer.global_step
        batch_size, processes = self.data.batch_size, self.trainer.world_size
        rank_zero_info(
            f"learning rate {group['initial_lr']:.3g} = {self.learning_rate_per_256:g} x "
            f"{batch_size * processes * accumulation} / 256 "
            f"({batch_size} crops x {processes} devices x {accumulation} accumulated)"
            + (f", by its schedule {group['lr']:.3g} at step {step}" if step else "")
        )

    def on_train_batch_start(self, _batch: dict[str, Tensor], _batch_index: int) -> None:
        """Log the learning rate of the step to come, if Lightning is going to log that step."""
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self) -> None:
        """People who could not be read are not kept silent."""
        if self._replaced is None:
            return
        replaced = int(self.trainer.strategy.reduce(self._replaced, reduce_op="sum"))
        self._replaced = None
        if replaced:
            rank_zero_warn(
                f"epoch {self.current_epoch}: {replaced} people stood in for others whose image could not be read "
                "(data.on_bad_image=skip; data.on_bad_image=error names the first such file)"
            )

    def configure_optimizers(self) -> Any:
        """The optimizer at the scaled learning rate, with a schedule that moves every step."""
        if self.optimizer is None:
            raise RuntimeError("this module was built for evaluation: it has no optimizer")
        global_batch = self.data.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        learning_rate = scaled_learning_rate(self.learning_rate_per_256, global_batch)
        if self.trainer.max_epochs is not None and 0 < self.trainer.max_epochs <= min(self.milestones, default=0):
            rank_zero_warn(
                f"training ends at epoch {self.trainer.max_epochs}, before the learning rate first drops "
                f"(training.milestones={list(self.milestones)})"
            )
        trainable = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        make = fused_where_possible(
            self.optimizer,
            trainable,
            clipping_scaled_gradients=self.trainer.precision == "16-mixed" and bool(self.trainer.gradient_clip_val),
        )
        optimizer = make(trainable, lr=learning_rate)
        self._optimizer_settings = numeric_settings(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, self._schedule()), "interval": "step"},
        }

    def _schedule(self, first_epoch: int = 0, first_step: int = 0) -> Callable[[int], float]:
        # Not trainer.num_training_batches: Lightning makes the loader after the optimizer.
        batches, limit = self.data.train_batches, self.trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        return step_schedule(
            steps_per_epoch=max(1, -(-batches // self.trainer.accumulate_grad_batches)),
            warmup_steps=self.warmup_steps,
            warmup_start_factor=self.warmup_start_factor,
            milestones=self.milestones,
            decay_factor=self.decay_factor,
            first_epoch=first_epoch,
            first_step=first_step,
        )

    # -------------------------------------------------------------- evaluation

    def on_validation_epoch_start(self) -> None:
        """Forget the last pass."""
        self._decoded.clear()
        self._unreadable.clear()
        self.evaluation = None
        self._stopwatch = Stopwatch()

    def on_validation_batch_start(self, *_: Any) -> None:
        """The crops are there."""
        if self._stopwatch is not None:
            self._stopwatch.batch_arrived()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Now the loop waits for the next crops."""
        if self._stopwatch is not None:
            self._stopwatch.loop_waits()

    def validation_step(self, batch: dict[str, Tensor], _batch_index: int) -> dict[str, Tensor] | None:
        """Keypoints of every crop, kept on the device until the pass is over."""
        self._unreadable.append(batch["unreadable_images"])
        if len(batch["crops"]) == 0:  # every image of the batch was unreadable, and skipping them was asked for
            return None
        # An image may have more boxes than a batch: memory stays bounded by the batch size.
        chunks = torch.split(batch["crops"], self.data.eval_batch_size)
        decoded = [self.predict_crops(chunk) for chunk in chunks]
        poses = {
            "instance_index": batch["instance_index"],
            "centers_in_image": batch["centers_in_image"],
            "extents_in_image": batch["extents_in_image"],
            "keypoints_in_crop": torch.cat([keypoints for keypoints, _ in decoded]),
            "scores": torch.cat([scores for _, scores in decoded]),
        }
        self._decoded.append(poses)
        return poses

    def predict_crops(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 RGB crops (B, H, W, 3) -> keypoints in crop pixels (B, K, 2) and scores (B, K)."""
        watch = self._stopwatch
        with watch.part("network", crops.device) if watch else nullcontext():
            images = self.normalize(crops)
            heatmaps = predicted_heatmaps(
                self.inference_network or self.network,
                images,
                self.mirror_permutation.to(images.device),
                with_flip_test=self.protocol.flip_test,
                shift=not self.codec.unbiased,
            )
        with watch.part("decoding", crops.device) if watch else nullcontext():
            return self.codec.decode(heatmaps)

    def on_validation_epoch_end(self) -> None:
        """Gather all processes' poses, score them once, and tell every process the numbers."""
        poses, unreadable = self._gathered()

        def score() -> dict[str, float]:
            self.evaluation = self._score(self._predictions(poses, unreadable))
            return self.evaluation.metrics

        for name, value in self._on_first_process(score).items():
            # An AP over a part of the images must never be taken for the best: -1 is COCO's own "undefined".
            self.log(f"val/{name}", -1.0 if self._limited else value, prog_bar=name == "AP")
        self.evaluated_at_step = None if self._limited else self.global_step

    def _gathered(self) -> tuple[dict[str, np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        """The poses of all processes, and the images that could not be read, of which a warning tells."""
        poses = _gather({name: _stacked(self._decoded, name) for name in (self._decoded[0] if self._decoded else {})})
        mine = {"image": torch.cat(self._unreadable).cpu().numpy()} if self._unreadable else {}
        unreadable = _gather(mine).get("image", np.zeros(0, dtype=np.int64))
        self._decoded.clear()
        if len(unreadable):
            people = self.data.val_people
            names = [str(people.file_names[index]) for index in unreadable] if people else []
            rank_zero_warn(
                f"{len(names)} evaluation images could not be read, their people count as missed: "
                f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
            )
        return poses, unreadable

    def _on_first_process(self, work: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What ``work`` returns on the first process, on all of them; they also share what it raises."""
        outcome: dict[str, float] | Exception = {}
        if self.trainer.is_global_zero:
            try:
                outcome = work()
            except Exception as error:
                outcome = error  # the other processes wait for word: tell them before raising
        outcome = _broadcast(outcome)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @property
    def _limited(self) -> bool:
        """Whether only a part of the images is asked for."""
        trainer: Any = self.trainer
        limit = trainer.limit_val_batches  # 1.0 is all batches, 1 is one batch
        return isinstance(limit, int) or limit != 1.0 or bool(trainer.fast_dev_run) or trainer.sanity_checking

    @property
    def _complete(self) -> bool:
        """Whether all images with boxes are evaluated."""
        return not (self._limited or self.data.val_is_part)

    def _predictions(self, poses: dict[str, np.ndarray[Any, Any]], unreadable: np.ndarray[Any, Any]) -> PosePredictions:
        """The gathered poses in image pixels, each box once; an error if one is missing or not finite."""
        people = self.data.val_people
        if people is None:
            raise RuntimeError("no evaluation people were read")
        expected = len(people)
        index = poses.get("instance_index", np.zeros(0, dtype=np.int64))
        index, first = np.unique(index, return_index=True)
        missing = expected - int(people.boxes_per_image[unreadable].sum()) - len(index)
        if missing and not self._limited:
            raise RuntimeError(f"{missing} of {expected} evaluation boxes were not predicted")
        if len(index) == 0:
            return PosePredictions.empty(self.model.skeleton.num_keypoints)
        crops = CropGeometry(self.model.crop_spec, poses["centers_in_image"][first], poses["extents_in_image"][first])
        keypoints_in_image = crops.to_image(poses["keypoints_in_crop"][first])
        scores = poses["scores"][first]
        bad = ~(np.isfinite(keypoints_in_image).all((1, 2)) & np.isfinite(scores).all(1))
        if bad.any():
            raise DivergedError(
                f"{int(bad.sum())} of {len(bad)} predictions are not finite, so nothing is scored; "
                "try precision=fp32, or train with a lower training.learning_rate_per_256"
            )
        return PosePredictions(
            ids=people.instance_ids[index],
            image_ids=people.image_ids[people.image_of_instance[index]],
            boxes_xywh=people.boxes_xywh[index],
            box_scores=people.box_scores[index],
            areas=poses["extents_in_image"][first].prod(axis=1),
            keypoints_in_image=keypoints_in_image,
            keypoint_scores=scores,
        )

    def _score(self, predictions: PosePredictions) -> Evaluation:
        ground_truth = self.data.ground_truth
        if self._limited:
            ground_truth = ground_truth.restricted_to(predictions.image_ids)
        watch = self._stopwatch or Stopwatch()
        with watch.part("matching"):
            metrics = protocol_metrics(ground_truth, predictions, self.protocol)
        if self._limited:
            images = len(ground_truth.listed_image_ids)
            rank_zero_warn(f"AP {metrics['AP']:.4f} is over {images} images only, so it is logged as -1")
        return Evaluation(metrics, predictions, ground_truth, complete=self._complete, seconds=watch.seconds())

    # -------------------------------------------------------------- checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model from the file alone; never write weights that are not finite."""
        broken = [
            name
            for name, tensor in checkpoint["state_dict"].items()
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
        ]
        if broken:
            raise DivergedError(
                f"{len(broken)} weight tensors are not finite ({broken[0]}, ...), so no checkpoint was written; "
                "continue from an older one with a lower training.learning_rate_per_256"
            )
        checkpoint[RECORD_KEY] = saved_record(self.model)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Its keypoints must be these; without averages, the weights behind the average go on being trained."""
        require_same_keypoints(checkpoint.get(RECORD_KEY), self.model.skeleton)
        trainer: Any = self.trainer
        averages = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)
        if trainer.training and not averages and "current_model_state" in checkpoint:
            checkpoint["state_dict"] = checkpoint["current_model_state"]

    @property
    def data(self) -> PersonCrops:
        """The datamodule of the running trainer."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(datamodule, PersonCrops):
            raise TypeError(f"PoseModule works with PersonCrops, not {type(datamodule).__name__}")
        return datamodule


class PosePredictor(PoseModule):
    """For images without ground truth: an evaluation that ends with ``predictions``, of which nothing is scored.

    After it, on the first process: ``predictions``; ``complete``, false where only a part of the images was asked for;
    ``seconds`` (``Stopwatch``).
    """

    predictions: PosePredictions | None = None
    complete: bool = False
    seconds: dict[str, float]

    def setup(self, stage: str) -> None:
        """Nothing: there is no ground truth."""

    def on_validation_epoch_end(self) -> None:
        """Gather all processes' poses."""
        poses, unreadable = self._gathered()

        def keep() -> dict[str, float]:
            self.predictions, self.complete = self._predictions(poses, unreadable), self._complete
            self.seconds = (self._stopwatch or Stopwatch()).seconds()
            return {}

        self._on_first_process(keep)


def _stacked(batches: list[dict[str, Tensor]], name: str) -> np.ndarray[Any, Any]:
    values: np.ndarray[Any, Any] = torch.cat([batch[name] for batch in batches]).cpu().numpy()
    return values


def _gather(mine: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """All processes' arrays, one after the other; a process may have none, and their numbers may differ."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return mine
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, mine)
    parts: list[dict[str, np.ndarray[Any, Any]]] = [part for part in gathered if part]
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else {})}


def _broadcast(value: Any) -> Any:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]
