"""From hits on solids to radiance: what each kind looks like, in the light that falls on it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bridgeta_synth.render.looks import buildings as facades
from bridgeta_synth.render.looks import street_objects as things
from bridgeta_synth.render.looks import vehicles as coachwork
from bridgeta_synth.render.looks.mood import Look, Mood
from bridgeta_synth.render.looks.snapshot import Beams
from bridgeta_synth.render.moving_light import BEAM_COLOUR
from bridgeta_synth.render.rays.solid_hits import FRONT, SolidHits
from bridgeta_synth.render.static_light import StaticLight
from bridgeta_synth.world import solids as kinds

_PAINTERS: dict[int, Callable[[SolidHits, Mood], Look]] = {
    kinds.FACADE: facades.facade,
    kinds.ROOF: facades.roof,
    kinds.BODY: coachwork.car,
    kinds.CABIN: coachwork.cabin,
    kinds.WHEEL: coachwork.wheel,
    kinds.CROWN: things.crown,
    kinds.POLE: things.pole,
    kinds.CLOTH: things.cloth,
    kinds.SKIN: things.skin,
    kinds.TRUCK: coachwork.truck,
    kinds.BUS: coachwork.bus,
    kinds.LAMP: things.signal,
    kinds.CARGO: coachwork.cargo,
    kinds.WALL: things.wall,
    kinds.HEDGE: things.hedge,
    kinds.SIGN: things.sign,
    kinds.CONE: things.cone,
    kinds.BARRIER: things.barrier,
    kinds.LAMPHEAD: things.lamp_head,
    kinds.BIN: things.litter_bin,
    kinds.FENCE: things.fence,
}
# Leaves are lit through; walls and hedges are dark at their foot; sheeting sends light back into the headlights' car.
_LEAFY, _STANDING = (kinds.CROWN, kinds.HEDGE), (kinds.FACADE, kinds.WALL, kinds.HEDGE)
_RETRO = {kinds.SIGN: 9.0, kinds.CONE: 3.0, kinds.BARRIER: 2.0}


def shade(
    hits: SolidHits, points: Tensor, mood: Mood, static: StaticLight, beams: Beams | None, view: Tensor
) -> Tensor:
    """Radiance `[3, n]` of hits on solids, in the order of their kinds, at `points [3, n]`, seen from `view [n]`."""
    albedo, shine = _painted(hits, mood)
    light, device = mood.light, points.device
    up = hits.normal[2]
    sx, sy, sz = light.sun
    toward = hits.normal[0] * sx + hits.normal[1] * sy + up * sz
    standing, leafy = _is(hits.kind, _STANDING), _is(hits.kind, _LEAFY)
    open_sky = 1 - standing * (0.4 - 0.16 * hits.z).clamp(min=0)
    # The sky is a little brighter on the sun's side, behind clouds too.
    ambient = mood.colour(light.ambient, device) * ((0.52 + 0.48 * up) * (1 + 0.18 * toward) * open_sky)
    below = mood.colour(light.ambient, device) + mood.colour(light.sun_colour, device) * (0.6 * sz)
    falling = ambient + below * (0.15 * (0.5 - 0.5 * up))
    if max(light.sun_colour) > 0:
        facing = torch.maximum(toward, leafy * (0.45 * toward + 0.45)).clamp(min=0)
        # A step off the surface keeps walls that the sun grazes from shading themselves; leaves shade each other by
        # their paint.
        seen = static.reaches(points + 0.3 * hits.normal, hits.base, leafy * hits.height)
        falling = falling + mood.colour(light.sun_colour, device) * (facing * seen)
    if light.lamps:
        above = (points[2] - hits.base).clamp(min=0)
        lamps = static.lamps_at(points) * (0.35 + 0.35 * up.clamp(min=0)) * (1.15 - 0.12 * above).clamp(0.05, 1)
        falling = falling + mood.colour(light.lamp_colour, device) * lamps
    if beams is not None:
        retro = torch.zeros_like(up)
        for kind, value in _RETRO.items():
            retro += value * _is(hits.kind, (kind,))
        # The back of a sign is bare metal.
        retro *= 1 - _is(hits.kind, (kinds.SIGN,)) * (1 - hits.on(FRONT))
        falling = falling + mood.colour(BEAM_COLOUR, device) * beams.on(points, hits.normal, view, retro)
    return albedo * falling + shine


def by_kind(kind: Tensor) -> Tensor:
    """The order `[n]` in which hits of kinds `[n]` stand sorted; within a kind it stays as it was."""
    there = torch.bincount(kind).tolist()
    parts = [(kind == number).nonzero()[:, 0] for number, count in enumerate(there) if count]
    return torch.cat(parts) if len(parts) > 1 else torch.arange(len(kind), device=kind.device)


def _is(kind: Tensor, wanted: tuple[int, ...]) -> Tensor:
    result = kind == wanted[0]
    for number in wanted[1:]:
        result = result | (kind == number)
    return result.float()


def _painted(hits: SolidHits, mood: Mood) -> tuple[Tensor, Tensor]:
    """Albedo and what the surfaces send out themselves, `[3, n]` each, of hits in the order of their kinds."""
    albedo, shine = hits.colour.clone(), torch.zeros_like(hits.colour)
    start = 0
    for kind, count in enumerate(torch.bincount(hits.kind).tolist()):
        part = slice(start, start + count)
        start += count
        paint = _PAINTERS.get(kind)
        if count and paint is not None:
            look, glow = paint(hits.part(part), mood)
            albedo[:, part] = look
            if glow is not None:
                shine[:, part] = glow
    return albedo, shine
