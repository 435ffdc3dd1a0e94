"""What training any network on map labels has in common: optimiser, schedule, loss and validation metric."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from bridgeta_core.config.experiment import Experiment
from bridgeta_core.data.dataset import Batch
from bridgeta_core.evaluation.conditions import ConditionIoU
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.model.losses import focal_loss


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
        return focal_loss(logits, batch.masks, batch.known, self.experiment.train.gamma)

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
        self.metric.update(torch.sigmoid(logits.float()), batch.masks, batch.known, batch.tokens)

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
