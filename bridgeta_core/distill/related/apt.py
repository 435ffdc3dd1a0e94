"""Cross-architecture distillation by adaptable prompts, Zhao et al. 2023 (arXiv 2306.14662), after descriptions of it.

A transformer teaches a convolutional network there, and what their cells have seen of the image differs. So both maps
are brought to local features around the same learned centres by attention, whose weights they share (URFM), and
attention and features are compared. The teacher is frozen but for prompts among its tokens, which learn to make it easy
to learn from without getting worse (APT).

Known from notes of third parties only: the attention with a bias by position, both losses, prompts in every layer. No
official code was found; counts, weights and the paper itself were not verified. Ours: centres on a regular grid of the
bird's-eye view, a bias by distance, range and azimuth in the place of facial geometry, attention in units of the
teacher's, the guard against collapse (a probe that reads the labels trains the attention, and nothing else does), and
prompts for convolutions: an additive map and a gain per channel on the teacher's F before its frozen decoder.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from bridgeta_core.config.distill import DistillConfig
from bridgeta_core.config.related import AptConfig
from bridgeta_core.distill.base import Context, Distiller, Example, Labels
from bridgeta_core.distill.cells import AreaAverage
from bridgeta_core.distill.distance import logit_divergence
from bridgeta_core.distill.normalise import TeacherScale, fit_scales, tap_widths
from bridgeta_core.geometry.classes import CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.model.losses import average_maps, focal_loss
from bridgeta_core.model.student import Student, Taps
from bridgeta_core.model.teacher import Teacher
from bridgeta_core.utils.errors import BridgeTAError

_HEADS = 4  # of the attention among centres
_DISTANCES, _RANGES, _AZIMUTHS = 8, 4, 8  # buckets of the bias


class Apt(Distiller):
    """Attention and local features of both networks, and a teacher with prompts.

    What compares networks trains the student, and a little the prompts, which learn from the teacher's label loss. The
    shared attention learns from a probe that reads the labels from the teacher's side: if it could learn to make the
    networks alike, it would end in constants.
    """

    def __init__(self, config: DistillConfig, student: Student, teacher: Teacher) -> None:
        super().__init__(config, student, teacher, ["F"])
        own, width = config.apt, tap_widths(teacher)["F"]
        if own.width % _HEADS:
            raise BridgeTAError(f"distill.apt.width = {own.width} must be a multiple of {_HEADS}", exit_code=2)
        self.scale = TeacherScale(width)
        self.fields = UnifiedFields(width, own, student.bev_grid)
        self.probe = nn.Linear(own.width, len(CLASSES))
        self.prompt = nn.Parameter(torch.zeros(1, width, own.prompts, own.prompts)) if own.prompts else None
        self.gain = nn.Parameter(torch.zeros(width, 1, 1)) if own.prompts else None
        self.average = AreaAverage(student.grid, student.bev_grid)

    def prepare(self, examples: Iterable[Example], teacher: Teacher) -> None:
        """Measure the teacher's statistics on training frames."""
        fit_scales({"F": [self.scale]}, (example.taps for example in examples))

    def compute_losses(self, teacher: Taps, student: Taps, labels: Labels, context: Context) -> dict[str, Tensor]:
        """Compute `kd/attention`, `kd/fields`, `kd/prompts`, `kd/Z`, `label/probe` and `label/teacher`."""
        own, kd, losses = self.config.apt, {}, {}
        if self.prompt is not None:
            teacher = context.teacher.decode(self.add_prompts(teacher.F))
            losses["label/teacher"] = focal_loss(teacher.Z, labels.masks, labels.known, context.gamma)
        with torch.autocast(student.F.device.type, enabled=False):
            t, s = (self.scale(f.float()) for f in (teacher.F, self.adapter.adapt("F", student.F)))
            still = {name: value.detach() for name, value in self.fields.named_parameters()}
            attention_t, local_t = self.fields(t.detach())
            attention_s, local_s = functional_call(self.fields, still, (s,))
            kd["attention"] = own.attention * compare_attention(attention_s, attention_t.detach())
            kd["fields"] = own.fields * functional.mse_loss(local_s, local_t.detach())
            if self.prompt is not None:
                prompted = functional_call(self.fields, still, (t,))[1]
                kd["prompts"] = own.towards_student * functional.mse_loss(prompted, local_s.detach())
            losses["label/probe"] = self._probe(local_t, labels)
        if own.logits > 0:
            kd["Z"] = own.logits * logit_divergence(teacher.Z.detach(), student.Z, self.config.logits.tau)
        return losses | {f"kd/{name}": context.strength * value for name, value in kd.items()}

    def add_prompts(self, features: Tensor) -> Tensor:
        """Scale the channels of the teacher's F and add the map of prompts; both do nothing at the start."""
        assert self.prompt is not None
        assert self.gain is not None
        size = features.shape[-2:]
        prompt = functional.interpolate(self.prompt, size=size, mode="bilinear", align_corners=False)
        return features * (1 + self.gain) + prompt

    def _probe(self, local: Tensor, labels: Labels) -> Tensor:
        """Compute the cross-entropy of the probe with the share that each class has around each centre.

        It sees features of one length, or it would make them, and with them their difference, ever larger.
        """
        shares = functional.adaptive_avg_pool2d(self.average((labels.masks > 0).float()), self.config.apt.centres)
        target = shares.flatten(2).transpose(1, 2)
        logits = self.probe(functional.layer_norm(local, local.shape[-1:]))
        losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return average_maps(losses.mean(dim=1), labels.known)


class UnifiedFields(nn.Module):
    """Features around learned centres, which lie on a regular grid over the cells of F.

    `centres` squared centres attend to F, averaged to at most `cells` squared cells, with a bias by distance from the
    centre, and by range and azimuth of the cell from the vehicle. What an attention among
    the centres makes of that is added.
    """

    bucket: Tensor

    def __init__(self, channels: int, config: AptConfig, grid: BevGrid) -> None:
        super().__init__()
        self.cells = min(config.cells, grid.shape[0]), min(config.cells, grid.shape[1])
        self.centres = nn.Parameter(torch.randn(config.centres**2, channels))
        self.query, self.key, self.value = (nn.Linear(channels, config.width, bias=False) for _ in range(3))
        self.bias = nn.Parameter(torch.zeros(_DISTANCES * _RANGES * _AZIMUTHS, config.width))
        self.mix = nn.MultiheadAttention(config.width, _HEADS, bias=False, batch_first=True)
        at, of = _list_places(grid, (config.centres, config.centres)), _list_places(grid, self.cells)
        self.register_buffer("bucket", _find_buckets(at, of), persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return attention `[B, L, N]` and local features `[B, L, width]` of normalised features `[B, C, Y', X']`."""
        x = functional.adaptive_avg_pool2d(features, self.cells).flatten(2).transpose(1, 2)
        key = self.key(x)
        by_place = (self.bias @ key.transpose(1, 2)).gather(1, self.bucket.expand(len(x), -1, -1))
        energy = (self.query(self.centres) @ key.transpose(1, 2) + by_place) / key.shape[-1] ** 0.5
        attention = torch.softmax(energy, dim=-1)
        local = attention @ self.value(x)
        mixed, _ = self.mix(local, local, local, need_weights=False)
        return attention, local + mixed


def compare_attention(student: Tensor, teacher: Tensor) -> Tensor:
    """Average over frames the squared difference of attention `[B, L, N]` in units of the teacher's square.

    Each of many cells has little of it, so that a plain mean would be tiny.
    """
    difference = (student - teacher).square().sum(dim=(1, 2))
    return (difference / teacher.square().sum(dim=(1, 2))).mean()


def _list_places(grid: BevGrid, shape: tuple[int, int]) -> Tensor:
    """List the centres `[rows * columns, 2]` (x, y in metres) of equal parts of a grid."""
    x, y = ((torch.arange(n) + 0.5) / n for n in reversed(shape))
    x, y = grid.x_min + x * (grid.x_max - grid.x_min), grid.y_min + y * (grid.y_max - grid.y_min)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)


def _find_buckets(centres: Tensor, cells: Tensor) -> Tensor:
    """Find the bucket `[L, N]` of every pair of a centre and a cell: by distance, range and azimuth, finer nearby."""
    distance, (x, y) = torch.cdist(centres, cells), cells.T
    near = _divide((distance / distance.max()).sqrt(), _DISTANCES)
    radius = torch.hypot(x, y)
    ring = _divide((radius / radius.max()).sqrt(), _RANGES)
    sector = _divide((torch.atan2(y, x) / torch.pi + 1) / 2, _AZIMUTHS)
    return (near * _RANGES + ring) * _AZIMUTHS + sector


def _divide(x: Tensor, parts: int) -> Tensor:
    """Find the number of the part of [0, 1] in which x lies, of equal ones."""
    return (x * parts).floor().clamp(max=parts - 1).long()
