"""Lightning's trainer for a run: processes, precision, averaged weights, checkpoints, time, logs."""

from __future__ import annotations

import importlib
import logging
import statistics
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import cv2
import lightning
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, RichProgressBar, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from bridgeta_core.config.experiment import TrainConfig
from bridgeta_core.geometry.classes import THRESHOLD
from bridgeta_core.runs.folder import RunFolder
from bridgeta_core.runs.words import describe_epoch
from bridgeta_core.training.batchnorm import SharedBatchNorm
from bridgeta_core.training.frames import RunFrames
from bridgeta_core.training.processes import Processes
from bridgeta_core.training.tasks import MapTask
from bridgeta_core.utils.arrays import Bytes
from bridgeta_core.utils.errors import BridgeTAError, describe_lost_loader, read_message
from bridgeta_core.utils.outputs import replace_when_done
from bridgeta_core.view.progress import WatchedSample, draw_progress

_IDLE_WARNINGS = (
    "does not have many workers",
    "isinstance.treespec",
    "pin_memory",
    "exists and is not empty",
    "It is recommended to use .self.log.*sync_dist",  # what is logged is the same in every process
)
_WATCHED = 5  # validation samples that are drawn after every epoch
_UNTIMED_STEPS = 3  # first steps of an epoch, in which loaders start and caches fill


class Loop:
    """The trainer of a run, its `stopwatch`, and the checkpoint of the `best` validation mIoU."""

    def __init__(
        self, run: RunFolder, train: TrainConfig, processes: Processes, batches: int, unused_parameters: bool
    ) -> None:
        """Set up the trainer for epochs of `batches`; `unused_parameters`: some get no gradient in some steps."""
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", message=f".*({'|'.join(_IDLE_WARNINGS)}).*")
        self.run, self.stopwatch = run, Stopwatch()
        self.best = ModelCheckpoint(
            run.checkpoints, filename=run.best.stem, monitor="val/miou", mode="max", enable_version_counter=False
        )
        # Not the `save_last` of `best`, which is written only when the validation improves.
        latest = ModelCheckpoint(
            run.checkpoints, filename=run.last.stem, enable_version_counter=False, save_on_train_epoch_end=True
        )
        callbacks: list[Callback] = [self.stopwatch, self.best, latest, LearningRateMonitor("step"), RichProgressBar()]
        if processes.rank == 0:
            callbacks += [EpochLine(), SamplePictures(run.samples)]
        if train.ema:
            callbacks.append(MovingAverage(train.ema))
        several, version = processes.world > 1, run.next_version()
        self.trainer = lightning.Trainer(
            max_epochs=train.epochs,
            accelerator="auto",
            devices=processes.devices,
            num_nodes=processes.nodes,
            strategy=DDPStrategy(find_unused_parameters=unused_parameters) if several else "auto",
            plugins=[WholeCheckpoints(), *([SharedBatchNorm(torch.cuda.is_available())] if several else [])],
            accumulate_grad_batches=train.accumulate,
            gradient_clip_val=train.clip or None,
            precision=train.precision,
            callbacks=callbacks,
            logger=[
                CSVLogger(run.path, "logs", version),
                TensorBoardLogger(run.path, "logs", version),
                *_open_logger(train),
            ],
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

    def fit(self, task: MapTask, frames: RunFrames, resume: bool) -> None:
        """Run the trainer. Raises BridgeTAError that says how to continue when training stops early.

        With `resume` it is raised at once when the last or the best checkpoint is damaged.
        """
        trainer, last = self.trainer, self.run.last
        if resume:
            read_checkpoint(self.run.best)
        try:
            trainer.fit(task, frames, ckpt_path=last if resume else None)
            stopped = "was interrupted" if trainer.interrupted else None
        except (KeyboardInterrupt, SystemExit):  # Lightning exits by itself at the second Ctrl-C
            stopped = "was interrupted"
        except OSError as error:  # reading and writing anything else raises BridgeTAError
            stopped = f"cannot write its logs ({error.strerror or error})"
        except RuntimeError as error:
            if (reason := describe_lost_loader(error)) is None:
                raise
            stopped = f"lost a loader process ({reason})"
        if stopped:
            resumable = f"{last} holds the last finished epoch: continue with --resume"
            fix = resumable if last.exists() else "No epoch was finished: start again"
            raise BridgeTAError(stopped, where=self.run.path, fix=fix)


def _open_logger(train: TrainConfig) -> list[Logger]:
    """Make the logger that the settings ask for. Raises BridgeTAError (exit code 2) when that fails."""
    if train.logger is None:
        return []
    module, _, name = train.logger.partition(":")
    try:
        logger = getattr(importlib.import_module(module), name)(**train.logger_options)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        fix = "Give module:Class of a Lightning logger whose package is installed, and its arguments"
        what = f"train.logger = {train.logger} cannot be made ({read_message(error)})"
        raise BridgeTAError(what, fix=fix, exit_code=2) from error
    if not isinstance(logger, Logger):
        raise BridgeTAError(f"train.logger = {train.logger} is no Lightning logger", exit_code=2)
    return [logger]


class EpochLine(Callback):
    """A line on the screen that stays, for every epoch."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start timing."""
        self._start, self._first = time.monotonic(), getattr(self, "_first", trainer.current_epoch)
        self._begun = getattr(self, "_begun", self._start)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Print how the epoch ended."""
        now, epoch = time.monotonic(), trainer.current_epoch
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        left = (now - self._begun) / (epoch + 1 - self._first) * (trainer.max_epochs - epoch - 1)
        best = pl_module.scores.get("best")
        print(describe_epoch(epoch, trainer.max_epochs, metrics, best, now - self._start, left))


class SamplePictures(Callback):
    """A picture of some validation samples after every epoch, in a file and in TensorBoard."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before: dict[str, Bytes] = {}

    def on_fit_start(self, trainer: Any, pl_module: MapTask) -> None:
        """Choose samples that this process validates."""
        frames: RunFrames = trainer.datamodule
        self._names = {sample.token: f"{sample.scene}, {sample.token}" for sample in frames.watch(_WATCHED)}
        pl_module.watched = dict.fromkeys(self._names)

    def on_validation_end(self, trainer: Any, pl_module: MapTask) -> None:
        """Draw them, by the thresholds that were best in this validation."""
        shown = [
            WatchedSample(self._names[token], labels=seen[0], now=seen[1], before=self._before.get(token))
            for token, seen in pl_module.watched.items()
            if seen is not None
        ]
        if not shown:
            return
        epoch = trainer.current_epoch
        before = f"epoch {epoch}" if self._before else "the epoch before"
        thresholds = [c["threshold"] or THRESHOLD for c in pl_module.scores["last"]["classes"].values()]
        picture = draw_progress(shown, pl_module.experiment.grid, thresholds, now=f"epoch {epoch + 1}", before=before)
        with replace_when_done(self._path) as temporary:
            temporary.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("val/samples", picture, trainer.global_step, dataformats="HWC")
        self._before = {token: seen[1] for token, seen in pl_module.watched.items() if seen is not None}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint: a resumed run draws what one that was not interrupted draws."""
        return {token: torch.from_numpy(percent) for token, percent in self._before.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self._before = {token: percent.numpy() for token, percent in state_dict.items()}


class MovingAverage(WeightAveraging):
    """Exponential moving average of weights and buffers, for validation and export.

    After n steps the decay is at most (1 + n) / (10 + n), as in TensorFlow's moving averages: a constant decay would
    carry the random initial weights through the first thousands of steps. Counters and flags are copied.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        super().__init__(avg_fn=self.average)

    def average(self, mean: Tensor, value: Tensor, n: Tensor) -> Tensor:
        """Average the value of step n into the mean of the steps before."""
        if not value.is_floating_point():
            return value
        return value + (mean - value) * torch.clamp((1 + n) / (10 + n), max=self.decay)


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoint files that are whole or absent, read as tensors and plain values only.

    Lightning's own are written to the system's temporary folder and moved from there, which between two filesystems is
    a copy that can break off.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint. Raises BridgeTAError when the disk is full."""
        with replace_when_done(Path(path), durable=True) as temporary, open(temporary, "wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # torch complains about its unclosed archive and hides the system's error behind that.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint. Raises BridgeTAError as `read_checkpoint`."""
        return read_checkpoint(Path(path), map_location)


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint, as of the folder that it lies in now: a run may have been moved or copied.

    Raises BridgeTAError when it is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not compare the checksums
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} has another checksum")
        checkpoint = dict(torch.load(path, map_location=map_location, weights_only=True))
    except Exception as error:  # archives and pickles that are damaged raise whatever their damage leads to
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        fix = "Put a whole one in its place, or start the run again in another --out"
        raise BridgeTAError(f"cannot be read ({reason})", where=path, fix=fix) from error
    for state in checkpoint.get("callbacks", {}).values():
        if "best_model_path" in state:
            _move_state(state, path.parent.resolve())
    return checkpoint


def _move_state(state: dict[str, Any], folder: Path) -> None:
    """Name the checkpoints in the state of a ModelCheckpoint, which has absolute paths, in another folder."""

    def move(path: str) -> str:
        return str(folder / Path(path).name) if path else path

    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = move(state[key])
    state["best_k_models"] = {move(path): score for path, score in state["best_k_models"].items()}
    state["dirpath"] = str(folder)


class Stopwatch(Callback):
    """The wall-clock time of a run over all its resumptions, and the time per optimiser step, loading included."""

    def __init__(self) -> None:
        self._start, self._before = time.monotonic(), 0.0
        self._steps: list[float] = []
        self._skipped: list[float] = []

    @property
    def seconds(self) -> float:
        """Seconds of the run, without what was lost when it broke off."""
        return self._before + time.monotonic() - self._start

    @property
    def seconds_per_step(self) -> float | None:
        """Median over the steps, None without any."""
        steps = self._steps or self._skipped
        return statistics.median(steps) if steps else None

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start timing after the validation of the epoch before."""
        self._last, self._at, self._of_epoch = time.monotonic(), trainer.global_step, 0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Time a step, which may have several batches."""
        if trainer.global_step == self._at:
            return
        now = time.monotonic()
        self._of_epoch += 1
        (self._steps if self._of_epoch > _UNTIMED_STEPS else self._skipped).append(now - self._last)
        self._last, self._at = now, trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"seconds": self.seconds, "steps": self._steps, "skipped": self._skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self._before, self._steps, self._skipped = (state_dict[key] for key in ("seconds", "steps", "skipped"))
