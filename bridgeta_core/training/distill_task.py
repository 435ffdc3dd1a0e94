"""Training the student with a frozen teacher beside its labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bridgeta_core.config.experiment import Experiment
from bridgeta_core.data.frames import Batch
from bridgeta_core.distill.base import Context, Distiller, Labels
from bridgeta_core.distill.methods import build_distiller
from bridgeta_core.evaluation.metric import MapIoU
from bridgeta_core.model.student import StudentOutput
from bridgeta_core.model.teacher import TeacherOutput
from bridgeta_core.training.frozen import FrozenTeacher
from bridgeta_core.training.tasks import StudentTask
from bridgeta_core.utils.errors import BridgeTAError

_LAST = 0.2


@dataclass(frozen=True)
class Ramp:
    """The warm-up of `warmup` steps at full strength, for only the method's own modules are trained by it; then a rise
    from 0 to 1 over `rise` steps; and over the last fifth of all `steps` half a cosine from 1 to `final`. All of it
    times `peak`.
    """

    steps: int
    warmup: int = 0
    rise: int = 0
    peak: float = 1.0
    final: float = 1.0

    def warming(self, step: int) -> bool:
        """Whether the student waits."""
        return step < self.warmup

    def strength(self, step: int) -> float:
        """The factor on the terms that compare networks."""
        if self.warming(step):
            return self.peak
        risen = min(1.0, (step - self.warmup) / self.rise) if self.rise else 1.0
        late = max(0.0, step / max(1, self.steps) - (1 - _LAST)) / _LAST
        return self.peak * risen * (self.final + (1 - self.final) * (1 + math.cos(math.pi * min(1.0, late))) / 2)


_HALF_SCALE = 2.0**16  # what PyTorch's GradScaler starts from


class DistillTask(StudentTask):
    """The student's label loss plus what the distiller of the settings adds; both are trained together.

    A method that brings nothing to train has no warm-up. `calibrated` tells whether the levels' weights are set.
    """

    def __init__(self, experiment: Experiment, groups: Mapping[str, int], teacher: FrozenTeacher) -> None:
        super().__init__(experiment, groups)
        config = experiment.distill
        teacher.check(self.student, config.teacher)
        self.teacher = teacher
        if config.decoder_from_teacher:
            self._start_from_teacher()
        self.distiller = build_distiller(config, self.student, teacher.network)
        self.calibrated = not config.levels.calibrate
        has_own = any(p.requires_grad for p in self.distiller.parameters())
        self._warmup = config.warmup_steps if has_own or self.distiller.trained_while_warming(self.student) else 0
        # The teacher runs on validation frames only for the sake of an assistant.
        self.scores_assistant = type(self.distiller).assistant_logits is not Distiller.assistant_logits
        self.assistant = MapIoU(experiment.grid)

    def _start_from_teacher(self) -> None:
        try:
            for part in ("decoder", "head"):
                getattr(self.student, part).load_state_dict(getattr(self.teacher.network, part).state_dict())
        except RuntimeError as error:
            raise BridgeTAError(
                "the teacher's decoder or head does not fit the student's",
                where=self.experiment.distill.teacher,
                fix="Use the teacher's model.decoder and model.head, or distill.decoder_from_teacher=false",
                exit_code=2,
            ) from error

    def setup(self, stage: str) -> None:
        """As the student's; now the number of steps is known, too."""
        super().setup(stage)
        config, self.steps = self.experiment.distill, max(1, int(self.trainer.estimated_stepping_batches))
        self.ramp = Ramp(self.steps, self._warmup, config.ramp_steps, config.strength, config.final)
        self.teacher.to(self.trainer.strategy.root_device)

    def context(self, **changes: Any) -> Context:
        """How far training is."""
        step = self.global_step
        values: dict[str, Any] = {
            "strength": self.ramp.strength(step),
            "warming": self.ramp.warming(step),
            "gamma": self.experiment.train.gamma,
        }
        return Context(self.student, self.teacher.network, step, self.steps, **(values | changes))

    def student_taps(self, batch: Batch) -> StudentOutput:
        """All taps of the student."""
        return self.student(batch.images, self.plans(batch.intrinsics, batch.ego_T_cam))

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The loss of a batch: the label loss, unless the student waits, and the distiller's terms."""
        context, taps = self.context(), self.teacher(batch)
        labels = Labels(batch.labels, batch.known)
        self.student.train(not context.warming)
        with torch.no_grad() if context.warming else nullcontext():
            student = self.student_taps(batch)
        self.student.train()  # the warm-up may train its decoder and head
        label_loss = self.label_loss(student.Z, batch)
        if not self.calibrated and context.step >= self._warmup + self.experiment.distill.calibrate_steps:
            self._calibrate(label_loss, taps, student, labels)
        losses = self.distiller.losses(taps, student, labels, context)
        terms = [*losses.values()] if context.warming else [label_loss, *losses.values()]
        loss = torch.stack([term.float() for term in terms]).sum()
        self._log({"loss": loss}, batch, prog_bar=True)
        self._log({"label": label_loss, **losses, **self.distiller.report}, batch)
        return loss

    def _log(self, values: Mapping[str, Tensor], batch: Batch, prog_bar: bool = False) -> None:
        for name, value in values.items():
            self.log(f"train/{name}", value.detach(), prog_bar=prog_bar, batch_size=len(batch.images))

    def _calibrate(self, label_loss: Tensor, taps: TeacherOutput, student: StudentOutput, labels: Labels) -> None:
        """Set the levels' weights by the losses at full strength, alike in all processes: the mean of theirs."""
        # Only ratios of gradients count; in half precision they would vanish without the factor that training has too.
        scale = _HALF_SCALE if self.experiment.train.precision == "16-mixed" else 1.0
        losses = self.distiller.losses(taps, student, labels, self.context(strength=1.0))
        scaled = {name: scale * loss for name, loss in losses.items()}
        self.distiller.calibrate(scale * label_loss, student, scaled, self.experiment.distill.levels.calibrate)
        if self.trainer.world_size > 1:
            for buffer in self.distiller.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))
        self.calibrated = True

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave alone what waits: without a gradient AdamW changes nothing, not even by weight decay."""
        if self.ramp.warming(self.global_step):
            trained = {id(p) for p in self.distiller.trained_while_warming(self.student)}
            for parameter in self.student.parameters():
                if id(parameter) not in trained:
                    parameter.grad = None

    def validation_step(self, batch: Batch, _: int) -> None:
        """Count a batch for the student's metric, and for the assistant's if there is one."""
        student = self.student_taps(batch)
        self.count(student.Z, batch)
        if self.scores_assistant:
            logits = self.distiller.assistant_logits(self.teacher(batch), student, self.context())
            if logits is not None:
                self.assistant.update(torch.sigmoid(logits.float()), batch.labels, batch.known)

    def on_validation_epoch_end(self) -> None:
        """As for every network; and log the assistant's metric."""
        super().on_validation_epoch_end()
        if self.scores_assistant:
            self.assistant.counts = self.total(self.assistant.counts)
            self.log("val/assistant_miou", self.assistant.result().miou)
            self.assistant.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep whether the levels' weights, which are the distiller's buffers, are set."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["calibrated"] = self.calibrated

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it up again."""
        super().on_load_checkpoint(checkpoint)
        self.calibrated = checkpoint["calibrated"]

    def train_only(self) -> list[nn.Parameter]:
        """What is trained along and left behind."""
        return [p for p in self.distiller.parameters() if p.requires_grad]
