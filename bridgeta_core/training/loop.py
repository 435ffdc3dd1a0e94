"""Lightning's trainer for a run: processes, precision, checkpoints, logs."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from bridgeta_core.config.experiment import TrainConfig
from bridgeta_core.runs.folder import RunFolder
from bridgeta_core.training.averaging import MovingAverage
from bridgeta_core.training.batchnorm import SharedBatchNorm
from bridgeta_core.training.checkpoints import WholeCheckpoints
from bridgeta_core.training.frames import Frames
from bridgeta_core.training.processes import Processes
from bridgeta_core.training.stopwatch import Stopwatch
from bridgeta_core.training.tasks import MapTask
from bridgeta_core.utils.errors import BridgeTAError, lost_loader

_IDLE_WARNINGS = (
    "does not have many workers",
    "isinstance.treespec",
    "pin_memory",
    "exists and is not empty",
    "It is recommended to use .self.log.*sync_dist",  # what is logged is the same in every process
)


class Loop:
    """The trainer of a run, its `stopwatch`, and the checkpoint of the `best` validation mIoU."""

    def __init__(self, run: RunFolder, train: TrainConfig, processes: Processes, batches: int, waits: bool) -> None:
        """An epoch has `batches`; `waits` says that some parameters get no gradient in some steps."""
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", message=f".*({'|'.join(_IDLE_WARNINGS)}).*")
        self.run, self.stopwatch = run, Stopwatch()
        self.best = ModelCheckpoint(
            run.checkpoints, filename="best", monitor="val/miou", mode="max", enable_version_counter=False
        )
        # Not best's own `save_last`, which is written only when the validation improves.
        latest = ModelCheckpoint(
            run.checkpoints, filename=run.last.stem, enable_version_counter=False, save_on_train_epoch_end=True
        )
        callbacks: list[Callback] = [self.stopwatch, self.best, latest, LearningRateMonitor("step"), RichProgressBar()]
        if train.ema:
            callbacks.append(MovingAverage(train.ema))
        several, version = processes.world > 1, run.next_version()
        self.trainer = lightning.Trainer(
            max_epochs=train.epochs,
            accelerator="auto",
            devices=processes.devices,
            num_nodes=processes.nodes,
            strategy=DDPStrategy(find_unused_parameters=waits) if several else "auto",
            plugins=[WholeCheckpoints(), *([SharedBatchNorm(torch.cuda.is_available())] if several else [])],
            accumulate_grad_batches=train.accumulate,
            gradient_clip_val=train.clip or None,
            precision=train.precision,
            callbacks=callbacks,
            logger=[CSVLogger(run.path, "logs", version), TensorBoardLogger(run.path, "logs", version)],
            log_every_n_steps=max(1, min(10, batches // train.accumulate)),
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
        )

    @property
    def device(self) -> Any:
        """Where this process computes."""
        return self.trainer.strategy.root_device

    def fit(self, task: MapTask, frames: Frames, resume: bool) -> None:
        """Run the trainer; being stopped is an error that says how to go on."""
        trainer, last = self.trainer, self.run.last
        try:
            trainer.fit(task, frames, ckpt_path=last if resume else None)
            stopped = "was interrupted" if trainer.interrupted else None
        except (KeyboardInterrupt, SystemExit):  # Lightning exits by itself at the second Ctrl-C
            stopped = "was interrupted"
        except OSError as error:  # all else that is read or written has a message of its own
            stopped = f"cannot write its logs ({error.strerror or error})"
        except RuntimeError as error:
            if (reason := lost_loader(error)) is None:
                raise
            stopped = f"lost a loader process ({reason})"
        if stopped:
            kept = f"{last} holds the last finished epoch: go on with --resume"
            fix = kept if last.exists() else "No epoch was finished: start again"
            raise BridgeTAError(stopped, where=self.run.path, fix=fix)
