"""What the trainer optimises: teacher or student on their label loss, and what both have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from bridgeta_core.config.experiment import DataConfig, Experiment
from bridgeta_core.data.frames import Batch
from bridgeta_core.deploy.teacher_weights import load_teacher, save_teacher
from bridgeta_core.deploy.weights import load_student, save_weights
from bridgeta_core.evaluation.conditions import ConditionIoU
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.model.lift import PlanCache
from bridgeta_core.model.losses import depth_loss, focal_loss, measure_depths
from bridgeta_core.model.student import CameraBranch, Student, Taps
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.arrays import Bytes
from bridgeta_core.utils.errors import BridgeTAError

_PLANS = 64  # of a fleet
_PLAN_BYTES, _MOST_BYTES = 14, 4 * 10**9  # of a plan per depth bin of an image cell; of the plans of shifted images


class MapTask(lightning.LightningModule):
    """A network on its label loss, with optimiser, schedule and validation metric.

    `groups` are those of `conditions.group_samples` for the validation frames. `scores` holds the results of
    `ConditionIoU` for the `last` and the `best` validation, with its `epoch`; a checkpoint has them too. `watched` has
    labels `[6, Y, X]` and probabilities in per cent, at the last validation, of the samples whose tokens are its keys.
    """

    def __init__(self, experiment: Experiment, groups: Mapping[str, int]) -> None:
        super().__init__()
        self.experiment = experiment
        self.metric = ConditionIoU(experiment.grid, groups)
        self.scores: dict[str, dict[str, Any]] = {}
        self.watched: dict[str, tuple[Bytes, Bytes] | None] = {}

    def forward(self, batch: Batch) -> Taps:
        """Compute the taps of the network that is trained."""
        return self.compute_with_depth(batch)[0]

    @abstractmethod
    def compute_with_depth(self, batch: Batch) -> tuple[Taps, Tensor | None]:
        """Compute the taps, and the depth distributions `[B, N, D, h, w]` of the cameras if there are any."""

    @abstractmethod
    def export(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Write the weights file of the network."""

    @abstractmethod
    def count_parameters(self) -> dict[str, int]:
        """Count the parameters of the network, and of what is trained with it and not shipped, for the record."""

    def special_groups(self) -> list[dict[str, Any]]:
        """List groups of parameters with a learning rate of their own, as the optimiser takes them. Default: none."""
        return []

    def label_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Compute the focal loss of a batch."""
        return focal_loss(logits, batch.labels, batch.known, self.experiment.train.gamma)

    def on_train_epoch_start(self) -> None:
        """Reseed per epoch and process, so that a resumed run repeats the same random draws in networks and losses.

        Order and augmentation have seeds of their own.
        """
        seed = np.random.SeedSequence((self.experiment.train.seed, self.current_epoch, self.global_rank))
        lightning.seed_everything(int(seed.generate_state(1)[0]), workers=True, verbose=False)

    def depth_loss(self, depth: Tensor | None, batch: Batch) -> Tensor | None:
        """Compute and log `train.depth_loss` times the loss on depth; None where that is off.

        Raises BridgeTAError (exit code 2) for a network without cameras.
        """
        weight, model = self.experiment.train.depth_loss, self.experiment.model
        if not weight:
            return None
        if depth is None or batch.points is None:
            raise BridgeTAError(
                "train.depth_loss compares the depth of cameras with LiDAR points, and one of them is missing",
                fix="Set train.depth_loss=0",
                exit_code=2,
            )
        size, cells = (model.image.height, model.image.width), (depth.shape[-2], depth.shape[-1])
        measured = measure_depths(batch.points, batch.intrinsics, batch.ego_T_cam, cells, size)
        loss = depth_loss(depth, measured, model.lift)
        self.log("train/depth", loss.detach(), batch_size=len(batch.images))
        return weight * loss

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Compute and log the loss of a batch."""
        taps, depth = self.compute_with_depth(batch)
        loss = self.label_loss(taps.Z, batch)
        if (on_depth := self.depth_loss(depth, batch)) is not None:
            loss = loss + on_depth
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.images))
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Score a batch."""
        self.score(self(batch).Z, batch)

    def score(self, logits: Tensor, batch: Batch) -> None:
        """Add the logits of a validation batch to loss and metric."""
        self.log("val/loss", self.label_loss(logits, batch), batch_size=len(batch.images), sync_dist=True)
        probabilities = torch.sigmoid(logits.float())
        self.metric.update(probabilities, batch.labels, batch.known, batch.tokens)
        for token in self.watched.keys() & set(batch.tokens):
            i = batch.tokens.index(token)
            percent = (100 * probabilities[i]).round().byte()
            self.watched[token] = batch.labels[i].cpu().numpy(), percent.cpu().numpy()

    def on_validation_epoch_end(self) -> None:
        """Log and remember the metric over the whole validation set of all processes."""
        result = self.metric.result(*(self.sum_processes(t) for t in (self.metric.counts, self.metric.samples)))
        self.metric.reset()
        for name in CLASS_NAMES:
            self.log(f"val/iou/{name}", _to_number(result["classes"][name]["iou"]))
        self.log("val/miou", _to_number(result["miou"]), prog_bar=True)
        self.scores["last"] = {"epoch": self.current_epoch, **result}
        # ModelCheckpoint's rule for best.ckpt: the first of equals, and a number before none.
        if "best" not in self.scores or _rank(result) > _rank(self.scores["best"]):
            self.scores["best"] = self.scores["last"]

    def sum_processes(self, counts: Tensor) -> Tensor:
        """Sum counts over all processes, on the CPU."""
        if self.trainer.world_size > 1:
            counts = self.trainer.strategy.reduce(counts.to(self.device, copy=True), reduce_op="sum")
        return counts.cpu()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the scores."""
        checkpoint["scores"] = self.scores

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the scores. Raises BridgeTAError (exit code 2) for the checkpoint of another kind of run."""
        own, there = ({k: v.shape for k, v in s.items()} for s in (self.state_dict(), checkpoint["state_dict"]))
        if own != there:
            raise BridgeTAError(
                "the checkpoint to resume from is of another kind of run: its tensors are not this network's",
                fix="Resume with the command that started the run",
                exit_code=2,
            )
        self.scores = checkpoint["scores"]

    def configure_optimizers(self) -> Any:
        """Set up AdamW under a one-cycle schedule that advances with every step of the optimiser."""
        train = self.experiment.train
        if len(train.momentum) != 2:
            raise BridgeTAError(
                f"train.momentum = {train.momentum} needs two values, at the ends and at the peak", exit_code=2
            )
        special = self.special_groups()
        apart = {id(p) for group in special for p in group["params"]}
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad and id(p) not in apart}
        undecayed = [p for name, p in trained.items() if name.endswith(tuple(train.undecayed))]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained.values() if all(p is not other for other in undecayed)]}
        ]
        if undecayed:
            groups.append({"params": undecayed, "weight_decay": 0.0})
        groups += special
        optimiser = torch.optim.AdamW(groups, lr=train.learning_rate, weight_decay=train.weight_decay)
        steps = max(2, int(self.trainer.estimated_stepping_batches))
        # A rise of exactly one step makes OneCycleLR divide by zero; a tiny bit more is the same schedule.
        rise = train.warmup if train.warmup * steps != 1 else train.warmup * (1 + 1e-9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=[group.get("lr", train.learning_rate) for group in groups],
            total_steps=steps,
            pct_start=rise,
            div_factor=10.0,
            max_momentum=train.momentum[0],
            base_momentum=train.momentum[1],
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class StudentTask(MapTask):
    """The camera-only student on its label loss."""

    def __init__(self, experiment: Experiment, groups: Mapping[str, int]) -> None:
        super().__init__(experiment, groups)
        # Reseed, so that one seed gives one student whatever is built before it: methods are compared in pairs.
        torch.manual_seed(experiment.train.seed)
        self.student = Student(experiment.model, experiment.grid)
        if experiment.train.initial:
            start_from(self.student, load_student(experiment.train.initial)[0], experiment.train.initial)

    def setup(self, stage: str) -> None:
        """Set up the plans, not in the constructor: averaging the weights copies the task, and a cache has a lock."""
        self.plans = PlanCache(self.student.plan, choose_plan_cache_size(self.experiment.data, self.student.camera))

    def compute_with_depth(self, batch: Batch) -> tuple[Taps, Tensor]:
        """Compute the student's taps and depth distributions."""
        return self.student.compute_with_depth(batch.images, self.plans(batch.intrinsics, batch.ego_T_cam))

    def export(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Write the student's weights file."""
        save_weights(path, self.student, self.experiment.data.cameras, provenance)

    def count_parameters(self) -> dict[str, int]:
        """Count the student's parameters."""
        return {"student": self.student.parameter_count}


class TeacherTask(MapTask):
    """The teacher, of LiDAR with or without cameras, on its label loss."""

    def __init__(self, experiment: Experiment, groups: Mapping[str, int]) -> None:
        super().__init__(experiment, groups)
        self.teacher = Teacher(experiment.teacher, experiment.model, experiment.grid)
        if experiment.train.initial:
            start_from(self.teacher, load_teacher(experiment.train.initial)[0], experiment.train.initial)

    def setup(self, stage: str) -> None:
        """Set up the plans, not in the constructor: averaging the weights copies the task, and a cache has a lock."""
        camera, data = self.teacher.camera, self.experiment.data
        self.plans = None if camera is None else PlanCache(camera.plan, choose_plan_cache_size(data, camera))

    def compute_with_depth(self, batch: Batch) -> tuple[Taps, Tensor | None]:
        """Compute the teacher's taps, and the depth distributions of its cameras."""
        plan = self.plans(batch.intrinsics, batch.ego_T_cam) if self.plans is not None else None
        return self.teacher.compute_with_depth(batch.images, plan, batch.points)

    def export(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Write the teacher's weights file."""
        save_teacher(path, self.teacher, self.experiment.data.cameras, provenance)

    def count_parameters(self) -> dict[str, int]:
        """Count the teacher's parameters."""
        return {"teacher": self.teacher.parameter_count}


def choose_plan_cache_size(data: DataConfig, camera: CameraBranch) -> int:
    """Choose how many calibrations' plans to cache.

    A fleet has few calibrations, mirroring the world doubles them, and shifted images have them nine times. Where every
    sample or image is augmented by its own amount no plan is of use again, and at full scale one takes 26 MB.
    """
    augment = data.augment
    world = augment.rotate or augment.scale or augment.translate
    if world or augment.image_resize or augment.image_flip or augment.image_rotate:
        return data.batch_size
    if not augment.image_shift:
        return _PLANS
    plan = _PLAN_BYTES * len(data.cameras) * len(camera.bins) * math.prod(camera.feature_size)
    return max(_PLANS, min(9 * _PLANS, _MOST_BYTES // plan))


def start_from(network: nn.Module, trained: nn.Module, path: str) -> None:
    """Give `network` the weights of `trained`, which were read from `path`; their label grids may differ.

    Raises BridgeTAError (exit code 2) when they are of another architecture.
    """
    own = {name: value.shape for name, value in network.state_dict().items()}
    other = {name: value.shape for name, value in trained.state_dict().items()}
    different = sorted(name for name in own.keys() | other.keys() if own.get(name) != other.get(name))
    if different:
        raise BridgeTAError(
            f"train.initial is of another architecture: {len(different)} tensors differ, e.g. {different[0]}",
            where=path,
            fix="Train with the model settings of its description, or without train.initial",
            exit_code=2,
        )
    network.load_state_dict(trained.state_dict())


def _to_number(value: float | None) -> float:
    return float("nan") if value is None else value


def _rank(result: Mapping[str, Any]) -> float:
    return -1.0 if result["miou"] is None else float(result["miou"])
