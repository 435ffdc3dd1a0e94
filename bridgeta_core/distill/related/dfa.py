"""DFA, "Differentiable feature aggregation search for knowledge distillation", Guan et al. 2020 (arXiv 2008.00506),
after descriptions of it by others.

The target of each stage is not the teacher's last layer there but a mixture of all. Its weights are searched as
architectures are: a mixture should be within the student's reach, and rich enough that the rest of the student finds
the classes in it. Then they are frozen, and ordinary feature distillation follows.

The paper's: convex mixtures per group of layers of one size, the bridge loss of both paths, a search in which weights
and networks take turns, and weights that are frozen after it. Ours: the groups (the fuser's parts and F, the blocks of
every stage, what is joined to D and D), normalised layers, principal components where widths differ, weighted cells,
and a search in the same run: networks and mixtures learn in turn, on different batches but not on different scenes.
Where a stage is fed, what earlier ones hand to D stays the student's own. A decay to equal weights takes the place of a
regulariser. The rate of the search is higher than usual, since it has hundreds of steps and not thousands. Not
verified: the paper's equations, weights and lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.distill.base import Context, Distiller, Example, Labels
from bridgeta_core.distill.cells import CellWeighting, shrink_weights
from bridgeta_core.distill.dense import list_stage_widths
from bridgeta_core.distill.distance import logit_divergence, squared_distance
from bridgeta_core.distill.layers import compute_layers, list_layer_widths
from bridgeta_core.distill.levels import calibrate_weights, use_running_statistics
from bridgeta_core.distill.normalise import TeacherScale, build_identity, fit_scales, tap_widths
from bridgeta_core.distill.pca import PrincipalComponents
from bridgeta_core.distill.stages import fuses, replace_stage
from bridgeta_core.model.losses import focal_loss
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher


class Group(nn.Module):
    """Layers of a teacher with `widths` channels, and what brings the student's `width` channels there and back.

    `alpha` `[layers]` are the weights of the mixture, which sum to 1. It follows `beta` while these are searched.
    """

    alpha: Tensor

    def __init__(self, widths: list[int], width: int, mixing: str, seed: int) -> None:
        super().__init__()
        count, size = len(widths), min(widths)
        self.layers = nn.ModuleList(TeacherScale(w) if w == size else PrincipalComponents(w, size) for w in widths)
        self.bring = build_identity(width, widths[-1])
        self.register_buffer("alpha", _start(count, mixing, seed))
        if mixing == "searched":
            self.beta = nn.Parameter(torch.zeros(count))
            self.feed = nn.Conv2d(size, width, 1)

    def mix(self, layers: list[Tensor], alpha: Tensor) -> Tensor:
        """Mix the normalised layers."""
        normalised = (normalise(layer.float()) for normalise, layer in zip(self.layers, layers, strict=True))
        return torch.stack([a * layer for a, layer in zip(alpha, normalised, strict=True)]).sum(dim=0)

    def adapt(self, features: Tensor, size: torch.Size) -> Tensor:
        """Bring the student's features to where the mixture is, as if they were the last layer."""
        return self.layers[-1](_resize(self.bring(features.float()), size))


class Dfa(Distiller):
    """The distances of the student's F, stages and D from mixtures, and in the search the labels behind one of them.

    `scale` `[groups]` is what the calibration sets.
    """

    scale: Tensor

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, ())
        self.needs_live_teacher = fuses(teacher)
        first, *stages, last = list_layer_widths(teacher)
        common = list(zip(stages, list_stage_widths(student), strict=False))
        own = tap_widths(student)
        pairs = [(first, own["F"]), *common, (last, own["D"])]
        self.names = ["F", *(f"stage_{i + 1}" for i in range(len(common))), "D"]
        mixing = config.dfa.mixing
        self.mixtures = nn.ModuleList(Group(*pair, mixing, seed) for seed, pair in enumerate(pairs))
        self.register_buffer("scale", torch.ones(len(pairs)))
        self.cells = CellWeighting(config.dfa.cells, student.grid, student.bev_grid)

    @property
    def groups(self) -> list[Group]:
        """The groups of layers, from F to D."""
        return [group for group in self.mixtures if isinstance(group, Group)]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """List the weights of the mixtures."""
        if self.config.dfa.mixing != "searched":
            return []
        betas = [group.beta for group in self.groups]
        return [{"params": betas, "lr": self.config.dfa.rate, "weight_decay": self.config.dfa.decay}]

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Measure the statistics of all layers, and the components of those that are wider than their group."""
        places = {f"{i}/{j}": (i, j) for i, group in enumerate(self.groups) for j in range(len(group.layers))}

        def read(names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
            for example in examples:
                layers = self._compute_layers(teacher, example.taps, example.fused)
                yield {name: layers[places[name][0]][places[name][1]] for name in names}

        modules = {name: self.groups[i].layers[j] for name, (i, j) in places.items()}
        scales = {name: [module] for name, module in modules.items() if isinstance(module, TeacherScale)}
        fit_scales(scales, read(scales))
        for name, module in modules.items():
            if isinstance(module, PrincipalComponents):
                module.fit(found[name] for found in read([name]))

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/F`, `kd/stage_I`, `kd/D`, with a weight `kd/Z`, and in the search `label/bridge`."""
        own, strength = self.config.dfa, context.strength
        layers = self._compute_layers(context.teacher, teacher, context.fused)
        searching, for_mixtures = self._is_searching(context), self._is_for_mixtures(context)
        inner = [student.F, *context.stages[: len(self.groups) - 2], student.D]
        weights = self.cells(labels, teacher.Z).feature
        losses, mixed, self.report = {}, [], {}
        for name, group, scale, features, of_group in zip(
            self.names, self.groups, self.scale, inner, layers, strict=True
        ):
            alpha = group.alpha
            if searching:
                found = functional.softmax(group.beta, dim=0)
                group.alpha.copy_(found.detach())
                alpha = found if for_mixtures else found.detach()
            with torch.autocast(features.device.type, enabled=False):
                mixed.append(group.mix(of_group, alpha))
                adapted = group.adapt(features, mixed[-1].shape[-2:])
                adapted = adapted.detach() if for_mixtures else adapted
                value = squared_distance(mixed[-1], adapted, shrink_weights(weights, adapted.shape[-2:]))
            losses[f"kd/{name}"] = strength * own.weight * scale * value
            self.report[f"last_{name}"] = group.alpha[-1].clone()
        if own.logits > 0:
            losses["kd/Z"] = strength * own.logits * logit_divergence(teacher.Z, student.Z, self.config.logits.tau)
        if searching and own.bridge > 0:
            chosen = draw_group(context.step, len(self.groups))
            features = student.F.detach() if for_mixtures else student.F
            z = self._decode(context.student, features, chosen, mixed[chosen], inner[chosen], for_mixtures)
            losses["label/bridge"] = own.bridge * focal_loss(z, labels.masks, labels.known, context.gamma)
        return losses

    def calibrate(self, label_loss: Tensor, student: Taps, losses: dict[str, Tensor], share: float) -> None:
        """Set the weights of the groups by their gradients at the student's F."""
        own = self.config.dfa.weight * share
        calibrate_weights(self.scale, label_loss, student.F, [losses[f"kd/{name}"] for name in self.names], own)

    def _compute_layers(self, teacher: Teacher, taps: Taps, fused: Tensor | None) -> list[list[Tensor]]:
        """Compute the layers of the groups that the student has too."""
        first, *stages, last = compute_layers(teacher, taps, fused)
        return [first, *stages[: len(self.groups) - 2], last]

    def _is_searching(self, context: Context) -> bool:
        """Return whether the weights are not frozen yet. In a warm-up the student shows nothing to search by."""
        own, warmup = self.config.dfa, self.config.warmup_steps
        return own.mixing == "searched" and context.step - warmup < own.search * max(0, context.steps - warmup)

    def _is_for_mixtures(self, context: Context) -> bool:
        """Return whether the mixtures learn, and not the networks; these do in the step of the calibration."""
        own = self.config.warmup_steps + self.config.calibrate_steps
        return self._is_searching(context) and not context.warming_up and (context.step - own) % 2 == 1

    def _decode(
        self, student: Student, features: Tensor, index: int, mixture: Tensor, replaced: Tensor, fixed: bool
    ) -> Tensor:
        """Compute the student's logits from its F with a mixture in the place of the group's own tensor, `replaced`.

        With `fixed` networks nothing but the mixture gets a gradient.
        """
        group, parts = self.groups[index], (student.decoder, student.head)
        with use_running_statistics(*parts), keep_fixed(group.feed, *parts) if fixed else nullcontext():
            fed = _resize(group.feed(mixture), replaced.shape[-2:])
            if index == 0:
                return student.decode(fed).Z
            if index == len(self.groups) - 1:
                return student.head(fed)
            with replace_stage(student.decoder, index - 1, fed):
                return student.decode(features).Z


@contextmanager
def keep_fixed(*modules: nn.Module) -> Iterator[None]:
    """Let gradients pass through modules in the block without reaching their parameters."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def draw_group(step: int, count: int) -> int:
    """Draw the group whose mixture is decoded in a step."""
    return int(torch.randint(count, (), generator=torch.Generator().manual_seed(step)))


def _start(count: int, mixing: str, seed: int) -> Tensor:
    """Return the weights `[count]` to begin with, which are final unless they are searched."""
    if mixing == "last":
        return functional.one_hot(torch.tensor(count - 1), count).float()
    if mixing == "random":
        return functional.softmax(torch.randn(count, generator=torch.Generator().manual_seed(seed)), dim=0)
    return torch.full((count,), 1 / count)


def _resize(x: Tensor, size: torch.Size) -> Tensor:
    return x if x.shape[-2:] == size else functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
