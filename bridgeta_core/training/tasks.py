"""What training any network on map labels has in common: optimiser, schedule, loss and validation metric."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from bridgeta_core.config.experiment import DataConfig, Experiment
from bridgeta_core.data.frames import Batch
from bridgeta_core.deploy.weights import load_student
from bridgeta_core.evaluation.conditions import ConditionIoU
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.model.lift import LiftPlan, PlanCache
from bridgeta_core.model.losses import focal_loss
from bridgeta_core.model.student import Student
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.training.teacher_weights import load_teacher
from bridgeta_core.utils.errors import BridgeTAError


class MapTask(lightning.LightningModule):
    """A network on its label loss; `groups` are those of `conditions.groups_of` for the validation frames.

    `scores` holds the results of `ConditionIoU` for the `last` and the `best` validation, with its `epoch`; a
    checkpoint keeps them.
    """

    def __init__(self, experiment: Experiment, groups: Mapping[str, int]) -> None:
        super().__init__()
        self.experiment = experiment
        self.metric = ConditionIoU(experiment.grid, groups)
        self.scores: dict[str, dict[str, Any]] = {}

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Logits `[B, 6, Y, X]` of a batch."""

    def trained(self) -> list[nn.Parameter]:
        """What the optimiser changes."""
        return [p for p in self.parameters() if p.requires_grad]

    def label_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The focal loss of a batch."""
        return focal_loss(logits, batch.labels, batch.known, self.experiment.train.gamma)

    def on_train_epoch_start(self) -> None:
        """What is random in a network or a loss depends on seed, epoch and process alone, so a resumed run repeats it;
        order and augmentation do so by themselves.
        """
        seed = np.random.SeedSequence((self.experiment.train.seed, self.current_epoch, self.global_rank))
        lightning.seed_everything(int(seed.generate_state(1)[0]), workers=True, verbose=False)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The loss of a batch."""
        loss = self.label_loss(self(batch), batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.images))
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Count a batch for the metric."""
        self.count(self(batch), batch)

    def count(self, logits: Tensor, batch: Batch) -> None:
        """Add the logits of a validation batch to loss and metric."""
        self.log("val/loss", self.label_loss(logits, batch), batch_size=len(batch.images), sync_dist=True)
        self.metric.update(torch.sigmoid(logits.float()), batch.labels, batch.known, batch.tokens)

    def on_validation_epoch_end(self) -> None:
        """Log the metric over the whole validation set, of all processes, and keep it."""
        result = self.metric.result(*(self.total(t) for t in (self.metric.counts, self.metric.samples)))
        self.metric.reset()
        for name in CLASS_NAMES:
            self.log(f"val/iou/{name}", _number(result["classes"][name]["iou"]))
        self.log("val/miou", _number(result["miou"]), prog_bar=True)
        self.scores["last"] = {"epoch": self.current_epoch, **result}
        # The rule by which ModelCheckpoint keeps best.ckpt: the first of equals, and a number before none.
        if "best" not in self.scores or _score(result) > _score(self.scores["best"]):
            self.scores["best"] = self.scores["last"]

    def total(self, counts: Tensor) -> Tensor:
        """Counts summed over all processes, on the CPU."""
        if self.trainer.world_size > 1:
            counts = self.trainer.strategy.reduce(counts.to(self.device, copy=True), reduce_op="sum")
        return counts.cpu()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the scores."""
        checkpoint["scores"] = self.scores

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the scores up again."""
        self.scores = checkpoint["scores"]

    def configure_optimizers(self) -> Any:
        """AdamW under a one-cycle schedule that is stepped with every step of the optimiser."""
        train = self.experiment.train
        optimiser = torch.optim.AdamW(self.trained(), lr=train.learning_rate, weight_decay=train.weight_decay)
        steps = max(2, int(self.trainer.estimated_stepping_batches))
        # A rise of exactly one step makes OneCycleLR divide by zero; a trifle more is the same schedule.
        rise = train.warmup if train.warmup * steps != 1 else train.warmup * (1 + 1e-9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=train.learning_rate,
            total_steps=steps,
            pct_start=rise,
            div_factor=10.0,
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _score(result: Mapping[str, Any]) -> float:
    return -1.0 if result["miou"] is None else float(result["miou"])


def start_from(network: nn.Module, trained: nn.Module, path: str) -> None:
    """Give `network` the weights of `trained`, which were read from `path`; their label grids may differ.

    Raises BridgeTAError (exit code 2) when they are of another architecture.
    """
    own, other = network.state_dict(), trained.state_dict()
    unlike = sorted(n for n in own.keys() | other.keys() if n not in own or n not in other or _unlike(own[n], other[n]))
    if unlike:
        raise BridgeTAError(
            f"train.initial is of another architecture: {len(unlike)} tensors differ, e.g. {unlike[0]}",
            where=path,
            fix="Train with the model settings that its description has, or without train.initial",
            exit_code=2,
        )
    network.load_state_dict(other)


def _unlike(one: object, other: object) -> bool:
    return getattr(one, "shape", None) != getattr(other, "shape", None)


def kept_plans(data: DataConfig) -> int:
    """How many calibrations' plans are kept. A fleet has few calibrations, and mirroring the world doubles them; but
    where every sample or image is changed by its own amount, no plan is of use again, and at full scale one has 50 MB.
    """
    augment = data.augment
    world = augment.rotate or augment.scale or augment.translate
    return data.batch_size if world or augment.image_resize or augment.image_flip or augment.image_rotate else 64


class StudentTask(MapTask):
    """The camera-only student on its label loss."""

    def __init__(self, experiment: Experiment, groups: Mapping[str, int]) -> None:
        super().__init__(experiment, groups)
        # Anew here, so that one seed gives one student, whatever is built before it: methods are compared in pairs.
        torch.manual_seed(experiment.train.seed)
        self.student = Student(experiment.model, experiment.grid)
        if experiment.train.initial:
            start_from(self.student, load_student(experiment.train.initial)[0], experiment.train.initial)

    def setup(self, stage: str) -> None:
        """Not in the constructor, because averaging the weights copies the module, and a cache holds a lock."""
        self.plans = PlanCache(self.student.plan, size=kept_plans(self.experiment.data))

    def forward(self, batch: Batch) -> Tensor:
        """Logits `[B, 6, Y, X]` of a batch."""
        return self.student(batch.images, self.plans(batch.intrinsics, batch.ego_T_cam)).Z


class TeacherTask(MapTask):
    """The teacher, of LiDAR with or without cameras, on its label loss."""

    def __init__(self, experiment: Experiment, groups: Mapping[str, int]) -> None:
        super().__init__(experiment, groups)
        self.teacher = Teacher(experiment.teacher, experiment.model, experiment.grid)
        if experiment.train.initial:
            start_from(self.teacher, load_teacher(experiment.train.initial)[0], experiment.train.initial)

    def setup(self, stage: str) -> None:
        """Not in the constructor, because averaging the weights copies the module, and a cache holds a lock."""
        self.plans = PlanCache(
            lambda k, pose: cast(LiftPlan, self.teacher.plan(k, pose)), size=kept_plans(self.experiment.data)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits `[B, 6, Y, X]` of a batch."""
        plan = self.plans(batch.intrinsics, batch.ego_T_cam) if self.teacher.camera is not None else None
        return self.teacher(batch.images, plan, batch.points).Z
