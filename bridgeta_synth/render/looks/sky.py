"""The sky: from the zenith to the horizon, with clouds, the sun and the glow of a town at night."""

from __future__ import annotations

import torch
from torch import Tensor

from bridgeta_synth.render.looks.noise import to_planes, value_noise
from bridgeta_synth.world.light import Light


def render_sky(way: Tensor, light: Light) -> Tensor:
    """Compute radiance `[3, n]` of the sky along unit directions `way [3, n]`."""
    device = way.device
    zenith, horizon = to_planes(light.sky_colour, device), to_planes(light.horizon_colour, device)
    up = way[2].clamp(min=0.0)
    colour = horizon + (zenith - horizon) * (1.15 * up.sqrt()).clamp(max=1.0)
    sx, sy, sz = light.sun
    toward = (way[0] * sx + way[1] * sy + way[2] * sz).clamp(min=0.0)
    if light.kind == "dusk":
        # The last light is where the sun went down.
        low = (1 - up).clamp(min=0) ** 6
        colour = colour * (1 + 2.0 * low * toward * toward)
    covered = _draw_clouds(way, up, light.cloud)
    if covered is not None:
        cover, thick = covered
        colour = torch.lerp(colour, _cloud_colour(light, device) * (1.06 - 0.22 * thick), cover)
    if max(light.sun_colour) > 0:
        halo = toward * toward
        halo = halo * halo
        narrow = halo * halo * halo
        narrow = narrow * narrow
        disc = ((toward - 0.9990) * 1500).clamp(0, 1)
        glow = 0.05 * halo + 0.25 * narrow + 25 * disc * (1 - 0.9 * light.cloud)
        colour = colour + to_planes(light.sun_colour, device) * glow
    return colour


def _draw_clouds(way: Tensor, up: Tensor, amount: float) -> tuple[Tensor, Tensor] | None:
    """Compute cover (0-1) and thickness of the clouds, `[n]` each, on a plane overhead."""
    if amount <= 0.02:
        return None
    far = 1 / (up + 0.10)
    x, y = way[0] * far, way[1] * far
    large = value_noise(x * 0.9, y * 0.9)
    small = value_noise(x * 2.3 + 7, y * 2.3)
    thick = large + 0.5 * small + 0.22 * value_noise(x * 6.1, y * 6.1 + 3)
    cover = ((thick + 2.6 * amount - 1.55) * 1.1).clamp(0.0, 1.0)
    # Towards the horizon clouds are behind each other in the haze.
    return cover * (0.35 + 6 * up).clamp(max=1.0), thick.clamp(-1.2, 1.6)


def _cloud_colour(light: Light, device: torch.device) -> Tensor:
    """Compute radiance `[3, 1]` of a cloud's side towards the ground."""
    horizon, sun = to_planes(light.horizon_colour, device), to_planes(light.sun_colour, device)
    if light.kind == "night":
        return horizon * 0.9
    if light.kind == "dusk":
        return 0.6 * horizon + 0.25 * sun + 0.3 * to_planes(light.sky_colour, device)
    # A thick cover is darker below than a single cloud in the sun.
    return horizon * (1.02 - 0.1 * light.cloud) + sun * 0.10
