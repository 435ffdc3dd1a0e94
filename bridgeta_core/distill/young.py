"""The constant of Young's inequality per level, and what tells how tight the inequality is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bridgeta_core.config.distill import BridgeTAConfig
from bridgeta_core.utils.errors import BridgeTAError

_DECAY = 0.99  # of the running means behind the adaptive rule: about a hundred steps


class Young(nn.Module):
    """eps of every level: `constant`; `adaptive`, the tightest bound |b - c| / |a - b| of running mean lengths; or a
    `curriculum` in which w = 1 / (1 + eps) falls from 3/4 to 1/4, so that the assistant walks from student to teacher.
    """

    lengths: Tensor

    def __init__(self, config: BridgeTAConfig, levels: Sequence[str]) -> None:
        super().__init__()
        unknown = sorted(set(config.eps_of) - {"F", "D", "Z"})
        if unknown or any(not value > 0 for value in config.eps_of.values()):
            raise BridgeTAError(
                f"distill.bridgeta.eps_of = {config.eps_of} must give F, D or Z a positive number", exit_code=2
            )
        self.config, self.levels = config, tuple(levels)
        self.register_buffer("lengths", torch.zeros(len(self.levels), 2))

    def eps(self, level: str, progress: float) -> float:
        """The constant of a level when the share `progress` of the training is done."""
        if self.config.eps_rule == "curriculum":
            w = 0.75 - 0.5 * progress
            return 1 / w - 1
        if self.config.eps_rule == "adaptive" and level in self.levels:
            ab, bc = self.lengths[self.levels.index(level)].tolist()
            if ab > 0 and bc > 0:
                return min(100.0, max(0.01, (bc / ab) ** 0.5))
        return self.config.eps_of.get(level, self.config.eps)

    def share(self, level: str, progress: float) -> float:
        """The share w = 1 / (1 + eps): b* lies this share of the way from the teacher to the student."""
        return 1 / (1 + self.eps(level, progress))

    @torch.no_grad()
    def measure(self, level: str, ab: Tensor, bc: Tensor, ac: Tensor, eps: float) -> dict[str, Tensor]:
        """What to log of squared distances between teacher a, assistant b and student c, and the running lengths.

        slack = right side minus left side, never negative for a squared norm. By the exact identity slack is
        ((1 + eps)^2 / eps) |b - b*|^2, so delta = |b - b*|^2 / |a - c|^2 follows; and rho, the share of the way from a
        to c at which b's projection lies, from the three lengths alone. Near 0, delta says that the assistant does
        nothing of its own. For divergences, which are no squared norms, the three are formal.
        """
        if self.training:
            row = self.lengths[self.levels.index(level)]
            new = torch.stack([ab, bc]).to(row)
            row.copy_(torch.where(row > 0, _DECAY * row + (1 - _DECAY) * new, new))
        slack = (1 + eps) * ab + (1 + 1 / eps) * bc - ac
        direct = ac.clamp(min=1e-12)
        return {
            f"slack_{level}": slack,
            f"delta_{level}": slack * eps / (1 + eps) ** 2 / direct,
            f"rho_{level}": (ab + ac - bc) / (2 * direct),
        }
