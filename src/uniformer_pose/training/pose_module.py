"""The LightningModule: crops -> images -> heatmaps -> loss, and predictions -> AP."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

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
from uniformer_pose.saved_model import RECORD_KEY, SavedModel, require_same_keypoints, saved_record
from uniformer_pose.training.last_evaluation import evaluate_the_end
from uniformer_pose.training.non_finite import StopOnNonFinite
from uniformer_pose.training.optimization import Optimization, first_drop, fused_where_possible
from uniformer_pose.training.random_state import seed_by_process
from uniformer_pose.training.step_loss import CompileStep, StepLoss


class PoseModule(pl.LightningModule):
    """Training and evaluation of one model.

    ``model`` holds the network and what goes with it. ``optimization`` is how it is trained, None for evaluation alone.
    ``compile_step``: see ``StepLoss``.

    ``inference_network``, where it is set, computes the heatmaps of evaluations instead of the network: for weights
    that no longer change.
    """

    def __init__(
        self,
        model: SavedModel,
        protocol: EvaluationProtocol,
        optimization: Optimization | None = None,
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
        self.optimization = optimization
        self.compile_step: CompileStep = compile_step
        self._step_loss: StepLoss | None = None
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
        if self.optimization is None:
            raise RuntimeError("this module was built for evaluation: give it an optimization")
        trainer, optimizer = self.trainer, self.trainer.optimizers[0]
        rate = self.optimization.learning_rate(self._global_batch)
        if trainer.ckpt_path:
            epoch = self.data.resumed_at[0] or trainer.current_epoch
            self.optimization.take_up(
                self.network, optimizer, trainer.lr_scheduler_configs, rate=rate, epoch=epoch, step=trainer.global_step
            )
        step, now = trainer.global_step, optimizer.param_groups[0]["lr"]
        crops, processes, accumulated = self.data.batch_size, trainer.world_size, trainer.accumulate_grad_batches
        rank_zero_info(
            f"learning rate {rate:.3g} = {self.optimization.lr_per_256:g} x {self._global_batch} / 256 "
            f"({crops} crops x {processes} devices x {accumulated} accumulated)"
            + (f", by its schedule {now:.3g} at step {step}" if step else "")
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
        """The optimizer at the scaled learning rate, and its schedule."""
        if self.optimization is None:
            raise RuntimeError("this module was built for evaluation: give it an optimization")
        make = fused_where_possible(
            self.optimization.optimizer,
            [parameter for parameter in self.network.parameters() if parameter.requires_grad],
            clipping_scaled_gradients=self.trainer.precision == "16-mixed" and bool(self.trainer.gradient_clip_val),
        )
        rate = self.optimization.learning_rate(self._global_batch)
        optimizer = make(self.optimization.parameters(self.network), lr=rate)
        schedulers = self.optimization.schedulers(optimizer)
        drop, last = first_drop(schedulers), self.trainer.max_epochs
        if drop is not None and last is not None and 0 < last <= drop:
            rank_zero_warn(f"training ends at epoch {last}, before the learning rate first drops, at epoch {drop}")
        return [optimizer], schedulers

    @property
    def _global_batch(self) -> int:
        """Crops of one optimizer step."""
        return int(self.data.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches)

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
                "try precision=fp32, or train with a lower optimizer.lr_per_256"
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
                "continue from an older one with a lower optimizer.lr_per_256"
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
