"""The LightningModule: crops -> images -> heatmaps -> loss, and predictions -> AP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from timm.utils import distribute_bn
from torch import Tensor

from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.crop_loaders import CropLoaders
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.errors import DivergedError, InputError
from uniformer_pose.evaluation.data_set_metrics import metric_names
from uniformer_pose.evaluation.pose_metric import PoseMetric
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.evaluation.report import Evaluation
from uniformer_pose.evaluation.timing import Stopwatch
from uniformer_pose.headline import headline, monitored
from uniformer_pose.keypoints.accuracy import pck
from uniformer_pose.keypoints.codec import NetworkOutput
from uniformer_pose.nearest_name import did_you_mean
from uniformer_pose.prediction.pose_pipeline import CropPoses, PosePipeline
from uniformer_pose.ranges import NotNegative
from uniformer_pose.saved_model import RECORD_KEY, SavedModel, require_same_keypoints, saved_record
from uniformer_pose.training.compiled_step import CompileStep, compiled_where_asked
from uniformer_pose.training.loss import KeypointMSE, Loss
from uniformer_pose.training.non_finite import StopOnNonFinite
from uniformer_pose.training.optimization import Optimization
from uniformer_pose.training.parameter_groups import learning_rates, table_of_rates
from uniformer_pose.training.progress import all_steps, is_logged
from uniformer_pose.training.resume.random_state import seed_by_process
from uniformer_pose.training.step import loss_and_output
from uniformer_pose.training.teacher import Teacher
from uniformer_pose.weights.contract import not_finite


class PoseModule(pl.LightningModule):
    """Training and evaluation of one model.

    ``model`` holds the network and what goes with it. ``optimization`` is how it is trained, None for evaluation alone,
    and ``loss`` what is made small. ``compile_step``: see ``CompiledStep``. ``teacher``: a trained model to learn from,
    by its path or address, and ``teacher_weight`` that of what it adds. ``inference_network`` computes evaluations
    instead of the network: for weights that no longer change. ``is_scored`` false is for images without ground truth.

    After an evaluation, on every process: ``evaluations`` by the names of the data's sets, whose numbers are logged as
    ``logged_names`` says (with a visibility head ``val/visibility_...`` too), or without scores ``metric.predictions``.
    """

    def __init__(
        self,
        model: SavedModel,
        protocol: EvaluationProtocol,
        optimization: Optimization | None = None,
        loss: Loss = KeypointMSE(),  # noqa: B008  # frozen
        compile_step: CompileStep = False,
        teacher: str | None = None,
        teacher_weight: NotNegative | None = None,
        inference_network: Callable[[Tensor], NetworkOutput] | None = None,
        is_scored: bool = True,
    ) -> None:
        super().__init__()
        self.model, self.network, self.codec = model, model.network, model.codec
        self.pipeline = PosePipeline(model, model.network if inference_network is None else inference_network)
        self.normalize = self.pipeline.normalize  # here too, so that it moves with this module
        self.protocol, self.is_scored = protocol, is_scored
        self.optimization, self.loss = optimization, loss
        self.teacher = None if teacher is None else Teacher.of(teacher, model, loss, teacher_weight)
        self.compile_step, self._compute = compile_step, loss_and_output
        self.metrics: list[PoseMetric]
        self.evaluations: dict[str, Evaluation] = {}
        self._watch = Stopwatch()
        self._replaced: Tensor | None = None

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """What cannot be scored against, or is not scored, is refused before the first batch."""
        if self.is_scored:
            for each in self.data.val_sets:
                _ = each.ground_truth
            require_logged(self.monitor, self.data.val_sets)

    @property
    def monitor(self) -> str:
        """The logged number that stands for an evaluation."""
        return monitored(self.protocol.monitor, self.data.val_sets[0].metric)

    # ---------------------------------------------------------------- training

    def configure_callbacks(self) -> list[pl.Callback]:
        """Whoever trains this model, numbers that are not finite never reach its weights."""
        return [StopOnNonFinite()] if self.trainer.state.fn == "fit" else []

    def on_fit_start(self) -> None:
        """Forget what an earlier training of this object left."""
        self._replaced = None
        if self.teacher is not None:
            self.teacher.network.to(self.device)
        self._compute = compiled_where_asked(loss_and_output, self.compile_step, self.device)
        seed_by_process(self.trainer.global_rank)

    def training_step(self, batch: dict[str, Tensor], _batch_index: int) -> Tensor:
        """The loss of one batch; nothing here waits for the device, nor is computed for a number that nobody reads."""
        keypoints_in_crop, visibility = batch["keypoints_in_crop"], batch["visibility"]
        how, labels = (self.network, self.normalize, self.codec, self.loss), (keypoints_in_crop, visibility)
        weights, in_set = batch.get("keypoint_weights"), batch.get("in_set")
        loss, output = self._compute(*how, batch["crops"], *labels, weights, self.teacher, in_set)
        if self.data.on_bad_image == "skip":
            replaced = batch["replaced"].sum(dtype=torch.int64)
            self._replaced = replaced if self._replaced is None else self._replaced + replaced
        if is_logged(self.trainer, self.trainer.global_step + 1):
            self.log("train/loss", loss)
            with torch.no_grad():
                self.log("train/pck", pck(self.codec, output, *self.codec.encode(keypoints_in_crop, visibility)))
            self.log_dict(learning_rates(self.trainer.optimizers[0]))
        return loss

    def on_train_start(self) -> None:
        """Train with what the configuration says, whatever a checkpoint brought, and say with what."""
        optimization = cast("Optimization", self.optimization)
        trainer, optimizer = self.trainer, self.trainer.optimizers[0]
        rate, step = optimization.learning_rate(self._global_batch), trainer.global_step
        if trainer.ckpt_path:
            epoch, batch = self.data.resumed_at
            epoch, schedulers = epoch or trainer.current_epoch, trainer.lr_scheduler_configs
            total = all_steps(trainer, epoch, batch)
            optimization.take_up(
                self.network, optimizer, schedulers, rate=rate, epoch=epoch, step=step, total_steps=total
            )
        stands_at = learning_rates(optimizer)["train/learning_rate"]
        crops, processes, accumulated = self.data.batch_size, trainer.world_size, trainer.accumulate_grad_batches
        rank_zero_info(
            f"learning rate {rate:.3g} = {optimization.lr_per_256:g} x {self._global_batch} / 256 "
            f"({crops} crops x {processes} devices x {accumulated} accumulated)"
            + (f", by its schedule {stands_at:.3g} at step {step}" if step else "")
        )
        if optimization.groups.have_rates:
            rank_zero_info(table_of_rates(self.network, optimizer, rate))

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
        optimization = cast("Optimization", self.optimization)
        clips_scaled = self.trainer.precision == "16-mixed" and bool(self.trainer.gradient_clip_val)
        rate = optimization.learning_rate(self._global_batch)
        optimizer = optimization.make(self.network, rate, fused=not clips_scaled)
        return [optimizer], optimization.schedulers(optimizer, all_steps(self.trainer), self.monitor)

    def configure_gradient_clipping(
        self, _optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """As Lightning does it, which refuses it beside a fused optimizer in bf16, where nothing is scaled."""
        clip = torch.nn.utils.clip_grad_value_ if gradient_clip_algorithm == "value" else torch.nn.utils.clip_grad_norm_
        if gradient_clip_val:
            clip(self.network.parameters(), gradient_clip_val)

    @property
    def _global_batch(self) -> int:
        """Crops of one optimizer step."""
        return int(self.data.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches)

    # -------------------------------------------------------------- evaluation

    def on_validation_epoch_start(self) -> None:
        """Begin a pass."""
        if self.trainer.world_size > 1:  # trainer=ddp leaves each process its own until now
            distribute_bn(self.network, self.trainer.world_size)
        self.evaluations, self._watch = {}, Stopwatch()
        self.metrics = [self._metric_of(each) for each in self.data.val_sets]

    def _metric_of(self, each: PersonCrops) -> PoseMetric:
        has_all = [*each.scored_places] == [*range(each.skeleton.num_keypoints)]
        return PoseMetric(
            cast("PersonInstances", each.val_people),
            self.model.crop_spec,
            self.protocol,
            each.ground_truth if self.is_scored else None,
            kind=each.metric,
            places=None if has_all else each.scored_places,
            is_part=self._is_limited,
        )

    @property
    def metric(self) -> PoseMetric:
        """That of the first set."""
        return self.metrics[0]

    @property
    def evaluation(self) -> Evaluation | None:
        """That of the first set."""
        return next(iter(self.evaluations.values()), None)

    def on_validation_batch_start(self, *_: Any) -> None:
        """The crops are there."""
        self._watch.batch_arrived()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Now the loop waits for the next crops."""
        self._watch.loop_waits()

    def validation_step(self, batch: dict[str, Tensor], _batch_index: int, dataloader_idx: int = 0) -> None:
        """Keypoints of every crop, kept on the device until the pass is over."""
        self.metrics[dataloader_idx].update(batch, *self.predict_batch(batch))

    def predict_batch(self, batch: dict[str, Tensor]) -> CropPoses:
        """The poses of a batch, which may be of unreadable images only."""
        crops = batch["crops"]
        if not len(crops):  # those of a black one, for the shapes
            black = crops.new_zeros(1, self.codec.height, self.codec.width, 3)
            keypoints, scores, visibility = self.pipeline(black, with_flip_test=False)
            return CropPoses(keypoints[:0], scores[:0], None if visibility is None else visibility[:0])
        # An image may have more boxes than a batch: memory stays bounded by the batch size.
        chunks = torch.split(crops, self.data.eval_batch_size)
        return CropPoses.joined(
            [self.pipeline(chunk, with_flip_test=self.protocol.flip_test, watch=self._watch) for chunk in chunks]
        )

    def on_validation_epoch_end(self) -> None:
        """Gather all processes' poses, score them, and log the numbers."""
        sets = self.data.val_sets
        for prefix, each, metric in zip(log_prefixes(sets), sets, self.metrics, strict=True):
            with self._watch.part("matching"):
                numbers = metric.compute()
            truth = metric.ground_truth
            if truth is None:
                continue
            numbers = self.trainer.strategy.broadcast(numbers)  # processors of two kinds may differ in the last bit
            shown = headline(metric.kind)
            if self._is_limited:
                part = f"partial validation of {len(truth.listed_image_ids)} images"
                rank_zero_warn(f"{part}: {shown} {numbers[shown]:.4f} is logged as -1")
            for name, value in numbers.items():
                # A score over a part of the images must never be taken for the best: -1 is COCO's own "undefined".
                self.log(f"{prefix}{name}", -1.0 if self._is_limited else value, prog_bar=name == shown)
            self.evaluations[each.name] = Evaluation(
                numbers,
                metric.predictions,
                truth,
                complete=not (self._is_limited or each.val_is_part),
                seconds=self.seconds if len(sets) == 1 else {},  # the time of a pass is all sets'
                kind=metric.kind,
            )

    @property
    def seconds(self) -> dict[str, float]:
        """Where the time of the pass went, on this process (``Stopwatch``)."""
        return self._watch.seconds()

    @property
    def is_complete(self) -> bool:
        """Whether all images with boxes are evaluated."""
        return not (self._is_limited or any(each.val_is_part for each in self.data.val_sets))

    @property
    def _is_limited(self) -> bool:
        """Whether only a part of the images is asked for."""
        trainer: Any = self.trainer
        limit = trainer.limit_val_batches  # 1.0 is all batches, 1 is one batch
        return isinstance(limit, int) or limit != 1.0 or bool(trainer.fast_dev_run) or trainer.sanity_checking

    # -------------------------------------------------------------- checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model from the file alone; never write weights that are not finite."""
        if broken := not_finite(checkpoint["state_dict"]):
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
    def data(self) -> CropLoaders:
        """The datamodule of the running trainer."""
        return cast("CropLoaders", self.trainer.datamodule)  # type: ignore[attr-defined]


def log_prefixes(sets: Sequence[PersonCrops]) -> list[str]:
    """What stands before the numbers of each set where they are logged: ``val/`` of the first, ``val/<name>/``."""
    return ["val/", *(f"val/{each.name}/" for each in sets[1:])]


def logged_names(sets: Sequence[PersonCrops]) -> list[str]:
    """Under which names the numbers of the sets are logged."""
    found = zip(log_prefixes(sets), sets, strict=True)
    return [f"{prefix}{name}" for prefix, each in found for name in metric_names(each.metric, each.own_skeleton)]


def require_logged(monitor: str, sets: Sequence[PersonCrops]) -> None:
    """InputError for an ``evaluation.monitor`` that is none of the sets' numbers."""
    if monitor not in (names := logged_names(sets)):
        raise InputError(f"evaluation.monitor={monitor}: {did_you_mean(monitor, names)}")
