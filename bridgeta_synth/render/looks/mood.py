"""What painters of solids need to know of a moment: the light, and whose lamps are lit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bridgeta_synth.world.light import Light

Look = tuple[Tensor, Tensor | None]
"""Albedo `[3, n]` and, where something shines, the radiance that it sends out or mirrors `[3, n]`."""


@dataclass(frozen=True, eq=False)
class Mood:
    """A scene's light at an instant. `driving` and `braking` `[actors + 1]` are 1 for actors with lamps or brake lamps
    lit; the last entry stands for scenery, which has none.
    """

    light: Light
    driving: Tensor
    braking: Tensor

    def of_owner(self, states: Tensor, owner: Tensor) -> Tensor:
        """The states `[n]` of the owners of hits; owner -1 is scenery."""
        return states.index_select(0, torch.where(owner < 0, len(states) - 1, owner))

    def colour(self, colour: tuple[float, float, float], device: torch.device) -> Tensor:
        """A colour as planes `[3, 1]`."""
        return torch.tensor(colour, device=device)[:, None]

    def mirrored(self, up: Tensor) -> Tensor:
        """Rough radiance `[3, n]` that comes from a direction that climbs by `up [n]` (-1 to 1): sky above the roofs,
        and below them a street.
        """
        device = up.device
        zenith, horizon = self.colour(self.light.sky_colour, device), self.colour(self.light.horizon_colour, device)
        ambient = self.colour(self.light.ambient, device)
        sky = horizon + (zenith - horizon) * up.clamp(min=0).sqrt()
        street = 0.22 * (ambient + 0.4 * self.colour(self.light.sun_colour, device))
        # Roofs stand about 15 degrees high.
        return torch.lerp(street.expand_as(sky), sky, ((up - 0.10) * 5).clamp(0, 1))
