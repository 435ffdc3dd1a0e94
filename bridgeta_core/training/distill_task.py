"""Training the student with a frozen teacher as well as its labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bridgeta_core.config.experiment import Experiment
from bridgeta_core.data.frames import Batch
from bridgeta_core.distill.base import Context, Distiller, Labels, View
from bridgeta_core.distill.levels import freeze_running_statistics
from bridgeta_core.distill.methods.registry import build_distiller
from bridgeta_core.distill.stages import record_stages
from bridgeta_core.evaluation.metric import MapIoU
from bridgeta_core.model.student import Taps
from bridgeta_core.training.frozen import FrozenTeacher
from bridgeta_core.training.tasks import StudentTask
from bridgeta_core.utils.errors import BridgeTAError

_HALF_SCALE = 2.0**16  # the initial scale of PyTorch's GradScaler
_FALL = 0.2  # share of the steps over which the strength falls at the end


@dataclass(frozen=True)
class Ramp:
    """The strength of distillation at each step, as factors of `peak`.

    1 during the warm-up of `warmup` steps, which trains the method's own modules only; then a rise from 0 to 1 over
    `rise` steps; and over the last fifth of all `steps` half a cosine from 1 to `final`.
    """

    steps: int
    warmup: int = 0
    rise: int = 0
    peak: float = 1.0
    final: float = 1.0

    def is_warming_up(self, step: int) -> bool:
        """Return whether the student is not trained yet."""
        return step < self.warmup

    def strength_at(self, step: int) -> float:
        """Return the factor on the terms that compare networks."""
        if self.is_warming_up(step):
            return self.peak
        risen = min(1.0, (step - self.warmup) / self.rise) if self.rise else 1.0
        late = max(0.0, step / max(1, self.steps) - (1 - _FALL)) / _FALL
        return self.peak * risen * (self.final + (1 - self.final) * (1 + math.cos(math.pi * min(1.0, late))) / 2)


class DistillTask(StudentTask):
    """The student's label loss plus the terms of the distiller that the settings name; both are trained together.

    There is no warm-up for a method without anything to train. `calibrated` is whether the weights of the levels are
    set.
    """

    def __init__(self, experiment: Experiment, groups: Mapping[str, int], teacher: FrozenTeacher) -> None:
        super().__init__(experiment, groups)
        config = experiment.distill
        teacher.check_student(self.student, config.teacher)
        self.teacher = teacher
        if config.decoder_from_teacher:
            self._start_from_teacher()
        self.distiller = build_distiller(config, self.student, teacher.network)
        calibrates = type(self.distiller).calibrate is not Distiller.calibrate
        self.calibrated = not (calibrates and config.levels.calibrate)
        own = any(p.requires_grad for p in self.distiller.parameters())
        warms_up = own or self.distiller.select_warmup_parameters(self.student)
        self._warmup = config.warmup_steps if warms_up else 0
        # The teacher runs on validation frames only to score an assistant.
        self.scores_assistant = type(self.distiller).predict_assistant is not Distiller.predict_assistant
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

    def count_parameters(self) -> dict[str, int]:
        """Count the student's parameters, and those that are trained with it and not shipped."""
        trained = (p.numel() for p in self.distiller.parameters() if p.requires_grad)
        return {**super().count_parameters(), "train_only": sum(trained)}

    def special_groups(self) -> list[dict[str, Any]]:
        """List the method's parameters that are not trained as the student's."""
        return self.distiller.parameter_groups()

    def setup(self, stage: str) -> None:
        """Set up the plans, and the ramp now that the number of steps is known."""
        super().setup(stage)
        config, self.steps = self.experiment.distill, max(1, int(self.trainer.estimated_stepping_batches))
        self.ramp = Ramp(self.steps, self._warmup, config.ramp_steps, config.strength, config.final)
        self.teacher.to(self.trainer.strategy.root_device)

    def build_context(self) -> Context:
        """Describe the progress of training."""
        step = self.global_step
        return Context(
            student=self.student,
            teacher=self.teacher.network,
            step=step,
            steps=self.steps,
            strength=self.ramp.strength_at(step),
            warming_up=self.ramp.is_warming_up(step),
            gamma=self.experiment.train.gamma,
        )

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Compute and log the loss of a batch: the label loss, except in the warm-up, and the distiller's terms."""
        context, (teacher, fused) = self.build_context(), self.teacher.run(batch)
        labels = Labels(batch.labels, batch.known)
        self.student.train(not context.warming_up)
        with (
            torch.no_grad() if context.warming_up else nullcontext(),
            record_stages(self.student.decoder) as stages,
        ):
            student, depth = self.compute_with_depth(batch)
        self.student.train()  # the warm-up may train its decoder and head
        context = replace(context, stages=tuple(stages), fused=fused, view=self._view(batch, context))
        label_loss = self.label_loss(student.Z, batch)
        if not self.calibrated and context.step >= self._warmup + self.experiment.distill.calibrate_steps:
            self._calibrate(label_loss, teacher, student, labels, context)
        losses = self.distiller.compute_losses(teacher, student, labels, context)
        terms = [*losses.values()] if context.warming_up else [label_loss, *losses.values()]
        if not context.warming_up and (on_depth := self.depth_loss(depth, batch)) is not None:
            terms.append(on_depth)
        loss = torch.stack([term.float() for term in terms]).sum()
        self._log({"loss": loss}, batch, prog_bar=True)
        self._log({"label": label_loss, **losses, **self.distiller.report}, batch)
        return loss

    def _log(self, values: Mapping[str, Tensor], batch: Batch, prog_bar: bool = False) -> None:
        for name, value in values.items():
            self.log(f"train/{name}", value.detach(), prog_bar=prog_bar, batch_size=len(batch.images))

    def _view(self, batch: Batch, context: Context) -> View | None:
        """Run both networks on the batch as the method transforms it, if it does."""
        view = self.distiller.view(batch, context.step)
        if view is None:
            return None
        with torch.no_grad() if context.warming_up else nullcontext(), freeze_running_statistics(self.student):
            student = self(view)
        return View(self.teacher(view), student, Labels(view.labels, view.known))

    def _calibrate(self, label_loss: Tensor, teacher: Taps, student: Taps, labels: Labels, context: Context) -> None:
        """Set the weights of the levels by the losses at full strength, to the mean over all processes."""
        # Only ratios of gradients count. In half precision they would vanish without the scale that training has too.
        scale = _HALF_SCALE if self.experiment.train.precision == "16-mixed" else 1.0
        losses = self.distiller.compute_losses(teacher, student, labels, replace(context, strength=1.0))
        scaled = {name: scale * loss for name, loss in losses.items()}
        self.distiller.calibrate(scale * label_loss, student, scaled, self.experiment.distill.levels.calibrate)
        if self.trainer.world_size > 1:
            for buffer in self.distiller.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))
        self.calibrated = True

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Freeze the student in the warm-up: AdamW leaves alone what has no gradient, even in weight decay."""
        if self.ramp.is_warming_up(self.global_step):
            trained = {id(p) for p in self.distiller.select_warmup_parameters(self.student)}
            for parameter in self.student.parameters():
                if id(parameter) not in trained:
                    parameter.grad = None

    def validation_step(self, batch: Batch, _: int) -> None:
        """Score the student on a batch, and the assistant if there is one."""
        student = self(batch)
        self.score(student.Z, batch)
        if self.scores_assistant:
            logits = self.distiller.predict_assistant(self.teacher(batch), student, self.build_context())
            if logits is not None:
                self.assistant.update(torch.sigmoid(logits.float()), batch.labels, batch.known)

    def on_validation_epoch_end(self) -> None:
        """Log the student's metric and the assistant's."""
        super().on_validation_epoch_end()
        if self.scores_assistant:
            self.assistant.counts = self.sum_processes(self.assistant.counts)
            self.log("val/assistant_miou", self.assistant.result().miou)
            self.assistant.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save whether the weights of the levels, which are buffers of the distiller, are set."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["calibrated"] = self.calibrated

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore whether the weights of the levels are set."""
        super().on_load_checkpoint(checkpoint)
        self.calibrated = checkpoint["calibrated"]
