"""How vehicles look: paint that mirrors the sky, glass, lamps, wheels and number plates."""

from __future__ import annotations

import torch
from torch import Tensor

from bridgeta_synth.render.looks.noise import band, edge, tint, to_planes, value_noise
from bridgeta_synth.render.looks.snapshot import Lighting, Look
from bridgeta_synth.render.rays.solid_hits import BACK, FRONT, LEFT, RIGHT, TOP, SolidHits

_DARK = (0.004, 0.004, 0.005)
_RIM = (0.16, 0.16, 0.165)
_HEAD, _TAIL, _GLASS = (0.55, 0.56, 0.56), (0.22, 0.006, 0.008), (0.012, 0.014, 0.016)
_HEAD_LIGHT, _TAIL_LIGHT = (9.0, 8.6, 7.6), (0.75, 0.02, 0.015)


def paint_car(s: SolidHits, lighting: Lighting) -> Look:
    """Paint the body of a car up to its waist."""
    ahead, behind, flank = s.on(FRONT), s.on(BACK), s.on(LEFT, RIGHT)
    colour = tint(s.colour, edge(0.10 - s.z, s.footprint) * 0.9, _DARK)
    for x in (0.62, -0.58):
        arch = edge(0.40 - torch.hypot(s.x - x * s.front, s.z - 0.14), s.footprint) * flank
        colour = tint(colour, arch, _DARK)
    seams = band(s.x, 0.05 * s.front, 0.012, s.footprint) + band(s.x, 0.42 * s.front, 0.012, s.footprint)
    handle = band(s.z, 0.75 * s.height, 0.02, s.footprint) * band(s.x, -0.06 * s.front, 0.09, s.footprint)
    colour = colour * (1 - (0.7 * seams + 0.5 * handle).clamp(max=0.8) * flank * edge(s.z - 0.12, s.footprint))
    outside = edge((s.y.abs() / s.side - 0.56) * s.side, s.footprint)
    lamps = outside * band(s.z, 0.74 * s.height, 0.085, s.footprint)
    grille = band(s.y, 0.0, 0.5 * s.side, s.footprint) * band(s.z, 0.62 * s.height, 0.09, s.footprint)
    colour = tint(colour, 0.9 * grille * ahead, _DARK)
    plate = band(s.y, 0.0, 0.26, s.footprint) * band(s.z, 0.42 * s.height, 0.06, s.footprint) * (ahead + behind)
    colour = tint(colour, plate, (0.62, 0.62, 0.58))
    shine = _mirror_in_varnish(s, lighting) * (1 - plate)
    return _add_lamps(s, lighting, colour, shine, lamps * ahead, lamps * behind)


def paint_cabin(s: SolidHits, lighting: Lighting) -> Look:
    """Paint a car's roof and panes; pillars follow the slopes of the solid."""
    flank = s.on(LEFT, RIGHT)
    upright = torch.minimum(s.z - 0.06, s.height - 0.09 - s.z)
    pillar = (s.x + 0.05 * s.front).abs() - 0.05
    ahead = s.front - s.lean_front * s.z - s.x - 0.14
    behind = s.front - s.lean_back * s.z + s.x - 0.14
    sides = torch.minimum(pillar, torch.minimum(ahead, behind))
    ends = s.side - s.lean_side * s.z - 0.09 - s.y.abs()
    inside = torch.minimum(upright, torch.lerp(ends, sides, flank))
    return _glaze(s, lighting, inside, s.colour)


def paint_bus(s: SolidHits, lighting: Lighting) -> Look:
    """Paint a city bus: a band of windows, doors, a coloured stripe, and lit inside at night."""
    flank = s.on(LEFT, RIGHT)
    window = torch.minimum(s.z - 0.36 * s.height, 0.80 * s.height - s.z)
    posts = ((s.x / 1.45 + 100.5) % 1.0 - 0.5).abs() * 1.45 - 0.06
    sides = torch.minimum(torch.minimum(window, posts), s.front - 0.3 - s.x.abs())
    low = torch.where(s.face == FRONT, 0.28, 0.5) * s.height
    ends = torch.minimum(torch.minimum(s.z - low, 0.84 * s.height - s.z), s.side - 0.12 - s.y.abs())
    colour = tint(s.colour, band(s.z, 0.22 * s.height, 0.14, s.footprint) * (s.face < TOP), (0.72, 0.72, 0.7))
    colour = tint(colour, band(s.z, 0.90 * s.height, 0.13, s.footprint) * s.on(FRONT), _DARK)
    albedo, shine = _glaze(s, lighting, torch.lerp(ends, sides, flank), colour)
    assert shine is not None
    if lighting.light.lamps:
        driving = lighting.of_owner(lighting.driving, s.owner)
        lit = edge(torch.minimum(window, posts), s.footprint) * flank * driving * 0.16
        route = band(s.z, 0.90 * s.height, 0.09, s.footprint) * band(s.y, 0.0, 0.6 * s.side, s.footprint) * s.on(FRONT)
        shine = shine + to_planes((0.9, 0.95, 1.0), s.x.device) * lit
        shine = shine + to_planes((1.0, 0.55, 0.08), s.x.device) * (route * driving)
    outside = edge((s.y.abs() / s.side - 0.66) * s.side, s.footprint) * band(s.z, 0.14 * s.height, 0.11, s.footprint)
    return _add_lamps(s, lighting, albedo, shine, outside * s.on(FRONT), outside * s.on(BACK))


def paint_truck(s: SolidHits, lighting: Lighting) -> Look:
    """Paint the cab of a truck."""
    upright = torch.minimum(s.z - 0.48 * s.height, 0.90 * s.height - s.z)
    ends = s.side - 0.15 - s.y.abs()
    sides = torch.minimum(s.front - 0.2 - s.lean_front * s.z - s.x, s.x + 0.3 * s.front)
    inside = torch.minimum(upright, torch.lerp(sides, ends, s.on(FRONT)))
    inside = torch.where(s.face == BACK, -torch.ones_like(inside), inside)
    grille = band(s.z, 0.28 * s.height, 0.13 * s.height, s.footprint) * band(s.y, 0.0, 0.62 * s.side, s.footprint)
    colour = tint(s.colour, 0.9 * grille * s.on(FRONT), _DARK)
    albedo, shine = _glaze(s, lighting, inside, colour)
    assert shine is not None
    lamps = edge(s.y.abs() - 0.68 * s.side, s.footprint) * band(s.z, 0.13 * s.height, 0.10, s.footprint)
    return _add_lamps(s, lighting, albedo, shine, lamps * s.on(FRONT), torch.zeros_like(lamps))


def paint_cargo(s: SolidHits, lighting: Lighting) -> Look:
    """Paint boxes of trucks, skips and arms of machines: sheets with seams, some with a stripe, and tail lamps."""
    large = (s.height > 1.5).float()
    seams = band((s.x / 1.2 + 100.5) % 1.0, 0.5, 0.01, s.footprint / 1.2) * s.on(LEFT, RIGHT)
    doors = band(s.y, 0.0, 0.015, s.footprint) * s.on(BACK)
    dirt = 1 + 0.08 * value_noise(s.x * 2 + s.y * 2, s.z * 2) - 0.2 * edge(0.3 - s.z, s.footprint)
    colour = s.colour * (dirt - 0.4 * large * (seams + doors))
    stripe = band(s.z, (0.35 + 0.3 * s.trait[0]) * s.height, 0.12 * s.height, s.footprint) * s.on(LEFT, RIGHT) * large
    hue = torch.stack((0.45 * s.trait[1], 0.3 * s.trait[2], 0.4 * s.trait[3]))
    colour = tint(colour, stripe * (s.trait[2] > 0.5), hue)
    lamps = edge(s.y.abs() - s.side + 0.34, s.footprint) * edge(s.side - 0.08 - s.y.abs(), s.footprint)
    lamps = lamps * band(s.z, 0.16, 0.07, s.footprint) * s.on(BACK) * large
    return _add_lamps(s, lighting, colour, 0.3 * _mirror_in_varnish(s, lighting), torch.zeros_like(lamps), lamps)


def paint_wheel(s: SolidHits, lighting: Lighting) -> Look:
    """Paint a tyre with a rim of five spokes."""
    radius = s.height / 2
    out = torch.hypot(s.x, s.z - radius)
    rim = edge(0.62 * radius - out, s.footprint)
    angle = torch.atan2(s.z - radius, s.x)
    gap = (torch.cos(5 * angle + s.seed) > 0.2).float() * edge(out - 0.15 * radius, s.footprint) * (radius > 0.2)
    thick = (s.side > 0.05).float()
    return tint(s.colour, rim * (1 - 0.8 * gap * thick) * 0.9, _RIM), None


def _mirror_in_varnish(s: SolidHits, lighting: Lighting) -> Tensor:
    """Compute what clear varnish mirrors, `[3, n]`: the sky, and the sun as a highlight."""
    grazing = (1 - s.facing).clamp(0, 1)
    grazing = grazing * grazing
    up = s.way[2] + 2 * s.facing * s.normal[2]
    shine = lighting.reflect(up) * (0.035 + 0.5 * grazing * grazing)
    if max(lighting.light.sun_colour) > 0.5:
        sx, sy, sz = lighting.light.sun
        toward = sum(c * (w + 2 * s.facing * n) for c, w, n in zip((sx, sy, sz), s.way, s.normal, strict=True))
        glint = torch.as_tensor(toward).clamp(min=0.0)
        for _ in range(5):
            glint = glint * glint
        shine = shine + to_planes(lighting.light.sun_colour, up.device) * (0.35 * glint)
    return shine


def _glaze(s: SolidHits, lighting: Lighting, inside: Tensor, colour: Tensor) -> Look:
    """Put glass into a coat of `colour [3, n]` where `inside [n]` (metres within the pane) is positive."""
    cover = edge(inside, s.footprint) * (s.face < TOP).float()
    grazing = (1 - s.facing).clamp(0, 1)
    up = s.way[2] + 2 * s.facing * s.normal[2]
    mirror = lighting.reflect(up) * (0.10 + 0.6 * grazing * grazing * grazing)
    coat = _mirror_in_varnish(s, lighting)
    return tint(colour, cover, _GLASS), coat + cover * (mirror - coat)


def _add_lamps(s: SolidHits, lighting: Lighting, albedo: Tensor, shine: Tensor, head: Tensor, tail: Tensor) -> Look:
    """Add head lamps and tail lamps on shares `head` and `tail` `[n]` of the pixels."""
    albedo = tint(tint(albedo, head, _HEAD), tail, _TAIL)
    # Lamps send most of their light straight ahead.
    toward = s.facing.clamp(min=0) ** 2
    braking = lighting.of_owner(lighting.braking, s.owner)
    glow = tail * braking * 2.5
    if lighting.light.lamps:
        driving = lighting.of_owner(lighting.driving, s.owner)
        glow = glow + tail * driving
        lit = to_planes(_HEAD_LIGHT, s.x.device) * (head * driving * toward * toward)
        shine = shine + lit
    return albedo, shine + to_planes(_TAIL_LIGHT, s.x.device) * glow
