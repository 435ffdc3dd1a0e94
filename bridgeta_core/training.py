"""Training on Lightning: one folder per run that holds the settings, the logs, the checkpoints and the weights."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
import time
import warnings
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from bridgeta_core.classes import CLASS_NAMES
from bridgeta_core.config import Experiment, to_mapping
from bridgeta_core.data.augment import Augment
from bridgeta_core.data.dataset import Batch, FrameDataset, collate
from bridgeta_core.errors import BridgeTAError
from bridgeta_core.files import replace_when_done
from bridgeta_core.losses import focal_loss
from bridgeta_core.metric import MapIoU
from bridgeta_core.model.lift import PlanCache
from bridgeta_core.model.student import Student
from bridgeta_core.weights import save_weights

_SETTINGS = "experiment.yaml"


class StudentTask(lightning.LightningModule):
    """The camera-only student on its label loss: optimiser, schedule, loss and validation metric."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        self.experiment = experiment
        self.student = Student(experiment.model, experiment.grid)
        self.metric = MapIoU(experiment.grid)

    def setup(self, stage: str) -> None:
        """Not in the constructor, because averaging the weights copies the module, and a cache holds a lock."""
        # A fleet has few calibrations, and mirroring doubles them; only turned samples need a plan of their own.
        self.plans = PlanCache(self.student.plan, size=64)

    def forward(self, batch: Batch) -> Tensor:
        """Logits `[B, 6, Y, X]` of a batch."""
        return self.student(batch.images, self.plans(batch.intrinsics, batch.ego_T_cam)).Z

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The loss of a batch."""
        loss = focal_loss(self(batch), batch.masks, batch.known, self.experiment.train.gamma)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.images))
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Count a batch for the metric."""
        logits = self(batch)
        loss = focal_loss(logits, batch.masks, batch.known, self.experiment.train.gamma)
        self.log("val/loss", loss, batch_size=len(batch.images), sync_dist=True)
        self.metric.update(torch.sigmoid(logits), batch.masks, batch.known)

    def on_validation_epoch_end(self) -> None:
        """Log the metric over the whole validation set, of all processes."""
        if self.trainer.world_size > 1:
            self.metric.counts = self.all_gather(self.metric.counts.to(self.device)).sum(dim=0).cpu()
        result = self.metric.result()
        self.metric.reset()
        for name, value in zip(CLASS_NAMES, result.best, strict=True):
            self.log(f"val/iou/{name}", value)
        self.log("val/miou", result.miou, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW under a one-cycle schedule that is stepped with every batch."""
        train = self.experiment.train
        optimiser = torch.optim.AdamW(
            self.student.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=train.learning_rate,
            total_steps=max(2, int(self.trainer.estimated_stepping_batches)),
            pct_start=train.warmup,
            div_factor=10.0,
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class MovingAverage(WeightAveraging):
    """Exponential moving average of weights and buffers; validation and export use it.

    After n steps the decay is at most (1 + n) / (10 + n), as in TensorFlow's moving averages: a constant one would
    carry the random initial weights through the first thousands of steps.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(
            avg_fn=lambda mean, value, n: value + (mean - value) * torch.clamp((1 + n) / (10 + n), max=decay)
        )


class Frames(lightning.LightningDataModule):
    """Training and validation frames; order and augmentation depend only on the seed, the epoch and the sample."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        data, train = experiment.data, experiment.train
        self.experiment = experiment
        augment = Augment(flip=data.flip, rotate=data.rotate, colour=data.colour, seed=train.seed)
        common = (data.cameras, experiment.model.image, experiment.grid)
        self.training = FrameDataset(Path(data.train_root), data.version, data.train_scenes, *common, augment=augment)
        self.validation = FrameDataset(Path(data.val_root), data.version, data.val_scenes, *common, augment=None)

    def _loader(self, dataset: FrameDataset, shuffle: bool) -> DataLoader:
        trainer, data = self.trainer, self.experiment.data
        assert trainer is not None
        sampler: DistributedSampler = DistributedSampler(
            dataset, trainer.world_size, trainer.global_rank, shuffle=shuffle, seed=self.experiment.train.seed
        )
        return DataLoader(
            dataset,
            batch_size=data.batch_size,
            sampler=sampler,
            num_workers=data.workers,
            collate_fn=collate,
            drop_last=shuffle and len(sampler) >= data.batch_size,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader:
        """Made anew for every epoch, because the workers carry the epoch that seeds the augmentation."""
        assert self.trainer is not None
        self.training.set_epoch(self.trainer.current_epoch)
        return self._loader(self.training, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """The validation frames, in their order."""
        return self._loader(self.validation, shuffle=False)


def _git_revision() -> str | None:
    """The revision of the source tree, None for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None if result.returncode == 0 else None


def provenance(experiment: Experiment, frames: Frames, metrics: dict[str, float], steps: int, seconds: float) -> dict:
    """What a weights file says about its origin: command, data, settings, figures, versions."""
    sheet = Path(experiment.data.train_root) / "synth.json"
    return {
        "command": " ".join(["bridgeta", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git_revision": _git_revision(),
        "train_samples": len(frames.training),
        "validation_samples": len(frames.validation),
        "synthetic_data": json.loads(sheet.read_text())["settings"] if sheet.exists() else None,
        "data": to_mapping(experiment.data),
        "train": to_mapping(experiment.train),
        "steps": steps,
        "seconds": round(seconds),
        "validation": metrics,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": lightning.__version__,
        },
    }


def _fit(trainer: lightning.Trainer, task: StudentTask, frames: Frames, folder: Path, last: Path, resume: bool) -> None:
    """Run the trainer; being stopped is an error that says how to go on."""
    try:
        trainer.fit(task, frames, ckpt_path=last if resume else None)
        stopped = "was interrupted" if trainer.interrupted else None
    except (KeyboardInterrupt, SystemExit):  # Lightning exits by itself at the second Ctrl-C
        stopped = "was interrupted"
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or "killed" not in str(error):
            raise
        stopped = f"lost a loader process ({str(error).splitlines()[0]})"
    if stopped:
        kept = f"{last} holds the last finished epoch: go on with --resume"
        raise BridgeTAError(stopped, where=folder, fix=kept if last.exists() else "No epoch was finished: start again")


def train_student(experiment: Experiment, folder: Path, resume: bool = False) -> Path:
    """Train the student and return the path of its exported weights, `folder`/student.safetensors.

    `folder` receives experiment.yaml, logs/version_N (metrics.csv and TensorBoard events; N counts the resumptions),
    checkpoints/last.ckpt and checkpoints/best.ckpt (best validation mIoU). With `resume` the run goes on after the
    last finished epoch, and the settings must be those of the run. Raises BridgeTAError when the folder holds a run
    and `resume` is off, or the other way round.
    """
    checkpoints, settings = folder / "checkpoints", folder / _SETTINGS
    last, target = checkpoints / "last.ckpt", folder / "student.safetensors"
    if not resume and (last.exists() or target.exists()):
        raise BridgeTAError("already holds a run", where=folder, fix="Add --resume or name another --out", exit_code=2)
    if resume and not last.exists():
        raise BridgeTAError("has no checkpoint to resume from", where=folder, fix="Leave out --resume", exit_code=2)
    if resume and yaml.safe_load(settings.read_text()) != to_mapping(experiment):
        raise BridgeTAError(
            "is a run with other settings", where=folder, fix=f"Resume with those of {settings}", exit_code=2
        )
    lightning.seed_everything(experiment.train.seed, workers=True, verbose=False)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", message=".*(does not have many workers|isinstance.treespec|pin_memory|exists and is not empty).*"
    )
    frames = Frames(experiment)
    task = StudentTask(experiment)
    with replace_when_done(settings) as temporary:
        temporary.write_text(yaml.safe_dump(to_mapping(experiment), sort_keys=False))
    best = ModelCheckpoint(checkpoints, filename="best", monitor="val/miou", mode="max", enable_version_counter=False)
    # Not best's own `save_last`, which is written only when the validation improves.
    latest = ModelCheckpoint(
        checkpoints, filename=last.stem, enable_version_counter=False, save_on_train_epoch_end=True
    )
    callbacks: list[Callback] = [best, latest, LearningRateMonitor("step"), RichProgressBar()]
    if experiment.train.ema:
        callbacks.append(MovingAverage(experiment.train.ema))
    version = len(list((folder / "logs").glob("version_*")))  # a resumed run must not overwrite the earlier log
    trainer = lightning.Trainer(
        max_epochs=experiment.train.epochs,
        gradient_clip_val=experiment.train.clip or None,
        precision=experiment.train.precision,
        callbacks=callbacks,
        logger=[CSVLogger(folder, "logs", version), TensorBoardLogger(folder, "logs", version)],
        log_every_n_steps=max(1, min(10, len(frames.training) // experiment.data.batch_size)),
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )
    start = time.monotonic()
    _fit(trainer, task, frames, folder, last, resume)
    if trainer.is_global_zero:
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
        task.load_state_dict(state["state_dict"])
        metrics = {"miou": float(best.best_model_score or 0.0), "epoch": state["epoch"]}
        origin = provenance(experiment, frames, metrics, trainer.global_step, time.monotonic() - start)
        save_weights(target, task.student, experiment.data.cameras, origin)
    return target
