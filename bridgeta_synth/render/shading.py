"""From hits on solids to radiance: what each kind looks like, in the light that falls on it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bridgeta_synth.render.looks import buildings, street_objects, vehicles
from bridgeta_synth.render.looks.noise import to_planes
from bridgeta_synth.render.looks.snapshot import Headlights, Lighting, Look
from bridgeta_synth.render.moving_light import BEAM_COLOUR
from bridgeta_synth.render.rays.solid_hits import FRONT, SolidHits
from bridgeta_synth.render.static_light import StaticLight
from bridgeta_synth.world import solids as kinds

_LOOKS: dict[int, Callable[[SolidHits, Lighting], Look]] = {
    kinds.FACADE: buildings.paint_facade,
    kinds.ROOF: buildings.paint_roof,
    kinds.BODY: vehicles.paint_car,
    kinds.CABIN: vehicles.paint_cabin,
    kinds.WHEEL: vehicles.paint_wheel,
    kinds.CROWN: street_objects.paint_crown,
    kinds.POLE: street_objects.paint_pole,
    kinds.CLOTH: street_objects.paint_cloth,
    kinds.SKIN: street_objects.paint_skin,
    kinds.TRUCK: vehicles.paint_truck,
    kinds.BUS: vehicles.paint_bus,
    kinds.LAMP: street_objects.paint_signal,
    kinds.CARGO: vehicles.paint_cargo,
    kinds.WALL: street_objects.paint_wall,
    kinds.HEDGE: street_objects.paint_hedge,
    kinds.SIGN: street_objects.paint_sign,
    kinds.CONE: street_objects.paint_cone,
    kinds.BARRIER: street_objects.paint_barrier,
    kinds.LAMPHEAD: street_objects.paint_lamp_head,
    kinds.BIN: street_objects.paint_bin,
    kinds.FENCE: street_objects.paint_fence,
}
# Light shines through leaves; walls and hedges are dark at their foot; sheeting returns light to the headlights.
_LEAFY, _STANDING = (kinds.CROWN, kinds.HEDGE), (kinds.FACADE, kinds.WALL, kinds.HEDGE)
_RETRO = {kinds.SIGN: 9.0, kinds.CONE: 3.0, kinds.BARRIER: 2.0}


def shade(
    hits: SolidHits,
    points: Tensor,
    lighting: Lighting,
    static: StaticLight,
    headlights: Headlights | None,
    view: Tensor,
) -> Tensor:
    """Compute radiance `[3, n]` of hits on solids, sorted by kind, at `points [3, n]`, seen from `view [n]`."""
    albedo, shine = _paint_all(hits, lighting)
    light, device = lighting.light, points.device
    up = hits.normal[2]
    sx, sy, sz = light.sun
    toward = hits.normal[0] * sx + hits.normal[1] * sy + up * sz
    standing, leafy = _is_kind(hits.kind, _STANDING), _is_kind(hits.kind, _LEAFY)
    open_sky = 1 - standing * (0.4 - 0.16 * hits.z).clamp(min=0)
    # The sky is a little brighter on the sun's side, behind clouds too.
    ambient = to_planes(light.ambient, device) * ((0.52 + 0.48 * up) * (1 + 0.18 * toward) * open_sky)
    below = to_planes(light.ambient, device) + to_planes(light.sun_colour, device) * (0.6 * sz)
    falling = ambient + below * (0.15 * (0.5 - 0.5 * up))
    if max(light.sun_colour) > 0:
        facing = torch.maximum(toward, leafy * (0.45 * toward + 0.45)).clamp(min=0)
        # A step off the surface keeps walls that the sun grazes from shading themselves. The look of leaves includes
        # their own shade.
        seen = static.sunlight_at(points + 0.3 * hits.normal, hits.base, leafy * hits.height)
        falling = falling + to_planes(light.sun_colour, device) * (facing * seen)
    if light.lamps:
        above = (points[2] - hits.base).clamp(min=0)
        lamps = static.lamplight_at(points) * (0.35 + 0.35 * up.clamp(min=0)) * (1.15 - 0.12 * above).clamp(0.05, 1)
        falling = falling + to_planes(light.lamp_colour, device) * lamps
    if headlights is not None:
        retro = torch.zeros_like(up)
        for kind, value in _RETRO.items():
            retro += value * _is_kind(hits.kind, (kind,))
        # The back of a sign is bare metal.
        retro *= 1 - _is_kind(hits.kind, (kinds.SIGN,)) * (1 - hits.on(FRONT))
        falling = falling + to_planes(BEAM_COLOUR, device) * headlights.illuminate(points, hits.normal, view, retro)
    return albedo * falling + shine


def sort_by_kind(kind: Tensor) -> Tensor:
    """Return the order `[n]` that sorts hits by their kinds `[n]`, stable within a kind."""
    there = torch.bincount(kind).tolist()
    parts = [(kind == number).nonzero()[:, 0] for number, count in enumerate(there) if count]
    return torch.cat(parts) if len(parts) > 1 else torch.arange(len(kind), device=kind.device)


def _is_kind(kind: Tensor, wanted: tuple[int, ...]) -> Tensor:
    result = kind == wanted[0]
    for number in wanted[1:]:
        result = result | (kind == number)
    return result.float()


def _paint_all(hits: SolidHits, lighting: Lighting) -> tuple[Tensor, Tensor]:
    """Look up albedo and emitted or mirrored light, `[3, n]` each, of hits sorted by kind."""
    albedo, shine = hits.colour.clone(), torch.zeros_like(hits.colour)
    start = 0
    for kind, count in enumerate(torch.bincount(hits.kind).tolist()):
        part = slice(start, start + count)
        start += count
        paint = _LOOKS.get(kind)
        if count and paint is not None:
            look, glow = paint(hits.take_slice(part), lighting)
            albedo[:, part] = look
            if glow is not None:
                shine[:, part] = glow
    return albedo, shine
