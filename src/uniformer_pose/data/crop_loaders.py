"""Batches of crops for Lightning: their order, the processes' shares of them, and where a training stands in them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from uniformer_pose.data.crop_dataset import EvaluationImages, as_it_is
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.images import BadImagePolicy, ImageSource
from uniformer_pose.data.people import PersonInstances
from uniformer_pose.data.sampling import EpochSampler, pack_images
from uniformer_pose.data.workers import prepare_worker, workers_for
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.codec import Codec
from uniformer_pose.skeleton import Skeleton

if TYPE_CHECKING:
    from uniformer_pose.data.datamodule import PersonCrops


class CropLoaders(pl.LightningDataModule):
    """What data modules of person crops share, whatever data they read.

    Batches: ``TrainingSample``, and ``EvaluationBatch`` of each of ``val_sets``. The order of epoch e depends on (seed,
    e) and every crop on (seed, e, index) alone: neither workers, nor processes, nor an interruption change what a
    person's crop looks like.
    """

    codec: Codec
    skeleton: Skeleton
    """The model's, which training batches are in."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    box_padding: float
    train_poses: str | None = None
    _next_epoch, _next_batch = 0, 0

    def __init__(
        self,
        *,
        batch_size: int,
        eval_batch_size: int,
        num_workers: int | Literal["auto"],
        prefetch: int,
        worker_timeout: float,
        on_bad_image: BadImagePolicy,
        seed: int,
    ) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self._num_workers, self.prefetch, self.worker_timeout = num_workers, prefetch, worker_timeout
        self.on_bad_image, self.seed = on_bad_image, seed
        self._resumed: dict[str, int] = {}

    @property
    @abstractmethod
    def val_sets(self) -> Sequence[PersonCrops]:
        """The sets that are evaluated, each by its own metric; the first is what a training is judged by."""

    @property
    @abstractmethod
    def num_visits(self) -> int:
        """Crops of one epoch of all processes; 0 before they have been read."""

    @abstractmethod
    def describe_person(self, instance_index: int) -> str:
        """Words that lead to the person of a training batch: its picture and annotation."""

    @abstractmethod
    def training_samples(self) -> Any:
        """What gives a loader its training batches."""

    def epoch_sampler(self, rank: int, world_size: int) -> EpochSampler:
        """The order of a process's training samples."""
        return EpochSampler(self.num_visits, seed=self.seed, rank=rank, world_size=world_size)

    @property
    def crop_spec(self) -> CropSpec:
        """The crops that batches hold."""
        return CropSpec(self.codec.height, self.codec.width, self.box_padding, self.codec.unbiased)

    @property
    def num_workers(self) -> int:
        """Worker processes of each loader; see ``workers_for``."""
        if self._num_workers != "auto":
            return self._num_workers
        return workers_for(getattr(self.trainer, "num_devices", 1), on_gpu=torch.accelerator.is_available())

    @property
    def resumed_at(self) -> tuple[int, int]:
        """The epoch in which a resumed training goes on, and how many batches of it are behind."""
        return self._next_epoch, self._next_batch

    @property
    def train_batches(self) -> int:
        """Training batches of one epoch on one device."""
        _rank, world_size = self._rank_and_world_size()
        return -(-self.num_visits // world_size) // self.batch_size

    def require_a_batch(self, source: object) -> None:
        """InputError where the people of ``source`` do not fill one batch."""
        if self.train_batches < 1:
            _rank, processes = self._rank_and_world_size()
            raise InputError(
                f"{source}: {self.num_visits} people on {processes} processes do not fill one batch of "
                f"{self.batch_size}; lower data.batch_size"
            )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled crops; a last incomplete batch is left out, since BatchNorm learns nothing good from it."""
        dataset = self.training_samples()
        self._require_same_steps()
        sampler = self.epoch_sampler(*self._rank_and_world_size())
        # Lightning asks for an iterator before it tells the sampler the epoch (Lightning #21938), so a resumed run
        # would repeat epoch 0's order; the position comes from the checkpoint instead.
        sampler.resume_at(self._next_epoch, self._next_batch * self.batch_size)
        return self._loader(dataset, sampler=sampler, batch_size=self.batch_size, drop_last=True)

    def evaluation_loader(self, people: PersonInstances, *, stays: bool = True) -> DataLoader[Any]:
        """Every box exactly once over all processes, whole images together; with ``stays``, workers are kept."""
        rank, world_size = self._rank_and_world_size()
        batches = pack_images(people.boxes_per_image, self.eval_batch_size, rank=rank, world_size=world_size)
        dataset = EvaluationImages(ImageSource(people, on_bad_image=self.on_bad_image), self.crop_spec)
        # Lightning lets a process without a batch skip the evaluation, and the others wait for it for ever: an empty
        # batch keeps it with them.
        return self._loader(dataset, stays=stays, batch_sampler=batches or [[]])

    def _loader(self, dataset: Any, *, stays: bool = True, **options: Any) -> DataLoader[Any]:
        workers: dict[str, Any] = {}
        if self.num_workers > 0:
            workers = {"persistent_workers": stays, "prefetch_factor": self.prefetch, "timeout": self.worker_timeout}
        return DataLoader(
            dataset,
            num_workers=self.num_workers,
            collate_fn=as_it_is,
            worker_init_fn=prepare_worker,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.seed),  # else iterating would draw from the global generator
            **workers,
            **options,
        )

    def state_dict(self) -> dict[str, Any]:
        """Where training stands in its data: the epoch, and the batches of it already learnt from."""
        trainer = self.trainer
        if trainer is None:
            return {}
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress
        epochs = trainer.fit_loop.epoch_progress.current
        done = progress.current.processed
        if progress.is_last_batch and done >= trainer.num_training_batches:
            return {"epoch": epochs.ready, "batch": 0, **self._what_steps_depend_on()}
        return {"epoch": max(epochs.ready - 1, 0), "batch": done, **self._what_steps_depend_on()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` stood."""
        self._next_epoch, self._next_batch = int(state_dict.get("epoch", 0)), int(state_dict.get("batch", 0))
        self._resumed = {name: state_dict[name] for name in self._what_steps_depend_on() if name in state_dict}

    def _what_steps_depend_on(self) -> dict[str, int]:
        return {
            "people": self.num_visits,
            "batch_size": self.batch_size,
            "accumulated": getattr(self.trainer, "accumulate_grad_batches", 1),
            "processes": self._rank_and_world_size()[1],
            "seed": self.seed,
        }

    def _require_same_steps(self) -> None:
        """A resumed run that reads other batches is not the interrupted one: say so, or stop in mid-epoch."""
        now = self._what_steps_depend_on()
        changes = [f"{name} {old} is now {now[name]}" for name, old in self._resumed.items() if old != now[name]]
        if changes and self._next_batch:
            raise InputError(
                f"the checkpoint stands after batch {self._next_batch} of an epoch, but {', '.join(changes)}; resume "
                "with the settings of the interrupted run, or from a checkpoint at the end of an epoch"
            )
        if changes:
            rank_zero_warn(f"resuming, but {', '.join(changes)}: this is no longer the interrupted run")

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def already_read(people: PersonInstances | None) -> PersonInstances:
    """The people that ``setup`` reads; RuntimeError before it."""
    if people is None:
        raise RuntimeError("the datamodule has not been set up: call setup() first")
    return people
