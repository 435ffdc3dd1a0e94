"""How plants, people and street furniture look."""

from __future__ import annotations

import torch
from torch import Tensor

from bridgeta_synth.render.looks.noise import band, edge, luminance, speckle, tint, to_planes, value_noise
from bridgeta_synth.render.looks.snapshot import Lighting, Look
from bridgeta_synth.render.rays.solid_hits import BACK, BOTTOM, FRONT, TOP, SolidHits

_WHITE, _GREY, _DARK = (0.62, 0.62, 0.6), (0.22, 0.22, 0.225), (0.012, 0.012, 0.013)
_SIGNAL = ((0.78, (1.0, 0.05, 0.03)), (0.48, (1.0, 0.42, 0.03)), (0.18, (0.05, 0.85, 0.25)))
# Faces of signs: ground and print.
_PLATES = (
    ((0.55, 0.03, 0.03), _WHITE),
    ((0.02, 0.10, 0.42), _WHITE),
    (_WHITE, (0.02, 0.02, 0.02)),
    ((0.60, 0.42, 0.03), (0.02, 0.02, 0.02)),
    ((0.01, 0.20, 0.08), _WHITE),
)


def paint_crown(s: SolidHits, lighting: Lighting) -> Look:
    """Paint leaves: two slanted views of the noise, so that no direction shows streaks."""
    a, b, c = s.x * 2 + s.seed, s.y * 2, s.z * 2
    boughs = value_noise(a + 0.5 * c, b + 0.8 * c) + value_noise(0.6 * b - 0.9 * c + 17, 0.6 * a + 0.3 * c)
    below = 0.45 + 0.65 * (s.z / s.height)
    hue = 1 + 0.25 * (s.trait[0] - 0.5)
    albedo = _mute_green(s) * ((1 + 0.28 * boughs + _speckle_leaves(s)).clamp(0.12, 2.4) * below)
    albedo[0] *= hue
    return albedo, None


def paint_hedge(s: SolidHits, lighting: Lighting) -> Look:
    """Paint trimmed leaves."""
    a, b, c = s.x * 4 + s.seed, s.y * 4, s.z * 4
    twigs = value_noise(a + 0.4 * c, b + 0.7 * c) + value_noise(b - 0.8 * c + 17, a + 0.5 * c)
    below = 0.55 + 0.5 * (s.z / s.height)
    return _mute_green(s) * ((1 + 0.15 * twigs + _speckle_leaves(s)).clamp(0.12, 2.4) * below), None


def _speckle_leaves(s: SolidHits) -> Tensor:
    """Vary single leaves and bunches of them in brightness; each fades where a pixel covers several."""
    # Mix a little of the other axes into each, so that the cubes of the noise are not level.
    x, y, z = s.x + 0.31 * s.z, s.y + 0.27 * s.x, s.z - 0.23 * s.y
    single = speckle(x * 22 + s.seed, y * 22, z * 22) * (0.04 / s.footprint).clamp(max=1.0)
    bunch = speckle(x * 8 + s.seed, y * 8, z * 8) * (0.12 / s.footprint).clamp(max=1.0)
    return 0.22 * single + 0.26 * bunch


def _mute_green(s: SolidHits) -> Tensor:
    """Turn the solid's green into that of leaves in a photograph: olive, and not bright."""
    olive = to_planes((0.95, 1.12, 0.42), s.x.device)
    return 0.3 * s.colour + 0.6 * luminance(s.colour) * olive


def paint_wall(s: SolidHits, lighting: Lighting) -> Look:
    """Paint blocks with stains that run down."""
    across = torch.where(s.face <= BACK, s.y, s.x)
    joint = band((s.z / 0.4 + 100) % 1.0, 0.5, 0.02, s.footprint / 0.4) + band(
        (across / 0.8 + 0.5 * ((s.z / 0.4 + 0.5).floor() % 2) + 100) % 1.0, 0.5, 0.01, s.footprint / 0.8
    )
    fade = (0.05 / s.footprint).clamp(max=1.0)
    stain = 0.12 * value_noise(across * 2.5 + s.seed, s.z * 0.4) + 0.08 * value_noise(across * 0.5, s.z + s.seed)
    return s.colour * (1 + stain - 0.35 * joint.clamp(max=1) * fade * (s.trait[0] > 0.5)).clamp(min=0.2), None


def paint_fence(s: SolidHits, lighting: Lighting) -> Look:
    """Paint slats, with darkness between them."""
    across = torch.where(s.front > s.side, s.x, s.y)
    pitch = 0.10 + 0.08 * s.trait[0]
    # Where slats are thinner than a pixel, only their mean is left.
    wide = s.footprint * s.facing.clamp(min=0.04).rsqrt()
    fade = (1.6 - wide / pitch).clamp(0, 1)
    gap = torch.lerp(torch.full_like(wide, 0.4), band((across / pitch + 100) % 1.0, 0.5, 0.2, wide / pitch), fade)
    gap = gap * (s.face < TOP)
    rail = band(s.z, 0.92 * s.height, 0.05, s.footprint) + band(s.z, 0.15 * s.height, 0.05, s.footprint)
    tall = (s.height > 0.5).float()
    return s.colour * (1 - 0.85 * gap * (1 - rail.clamp(max=1)) * tall), None


def paint_pole(s: SolidHits, lighting: Lighting) -> Look:
    """Paint posts, trunks and arms."""
    return s.colour * (1 + 0.12 * value_noise(s.x * 9 + s.y * 9, s.z * 2)), None


def paint_cloth(s: SolidHits, lighting: Lighting) -> Look:
    """Paint clothes with folds."""
    folds = value_noise(s.x * 9 + s.y * 9 + s.seed, s.z * 3)
    return s.colour * (1 + 0.22 * folds * (0.05 / s.footprint).clamp(max=1.0)), None


def paint_skin(s: SolidHits, lighting: Lighting) -> Look:
    """Paint heads: hair above and behind where the colour is that of skin; helmets have one colour."""
    red, green, blue = s.colour
    person = ((red > 1.2 * blue) & (green < 0.4)).float()
    hair = torch.maximum(edge(s.z - 0.72 * s.height, s.footprint), edge(-0.02 - s.x, s.footprint))
    dark = torch.tensor(((0.010, 0.008, 0.007),), device=red.device).T * (1 + 6 * s.trait[1])
    return tint(s.colour, hair * person, dark), None


def paint_signal(s: SolidHits, lighting: Lighting) -> Look:
    """Paint a traffic signal that faces backwards; the seed says which lamp is lit."""
    albedo = s.colour
    shine = torch.zeros_like(albedo)
    strength = 1.4 if lighting.light.kind == "night" else 3.0
    for index, (z, colour) in enumerate(_SIGNAL):
        disc = edge(0.11 - torch.hypot(s.y, s.z - z), s.footprint) * s.on(BACK)
        lit = to_planes(colour, disc.device)
        albedo = tint(albedo, disc, tuple(0.08 * c for c in colour))  # type: ignore[arg-type]
        shine = shine + lit * (disc * (s.seed == index) * strength)
    return albedo, shine


def paint_sign(s: SolidHits, lighting: Lighting) -> Look:
    """Paint a traffic sign or a board: a face with a rim and print in front, grey behind."""
    across, up = s.y / s.side, 2 * s.z / s.height - 1
    size = torch.minimum(s.side, s.height / 2)
    within = torch.minimum(s.side - s.y.abs(), torch.minimum(s.z, s.height - s.z))
    number = (s.trait[0] * len(_PLATES)).long()
    ground = torch.tensor([p[0] for p in _PLATES], device=number.device).T[:, number]
    printed = torch.tensor([p[1] for p in _PLATES], device=number.device).T[:, number]
    rim = edge(0.035 - within, s.footprint)
    rows = (value_noise(s.y * 7 + s.seed, (s.z * 7).floor()) > 0.1).float() * (((s.z * 7) % 1.0) < 0.55)
    arrow = edge(0.16 * size - (s.y.abs() - 0.35 * size * (0.3 - up).clamp(min=0)).abs(), s.footprint)
    mark = torch.where(s.trait[1] < 0.5, arrow, rows) * (across.abs() < 0.7) * (up.abs() < 0.65)
    face = tint(tint(ground, rim, printed), mark, printed)
    shown = tint(torch.zeros_like(face), s.on(FRONT), face)
    return tint(shown, 1 - s.on(FRONT), _GREY), None


def paint_cone(s: SolidHits, lighting: Lighting) -> Look:
    """Paint a cone or drum with white bands; its foot is dark."""
    share = s.z / s.height
    size = s.footprint / s.height
    bands = torch.maximum(band(share, 0.42, 0.09, size), band(share, 0.72, 0.08, size))
    return tint(s.colour, bands * (s.colour[0] > 0.1), (0.7, 0.7, 0.68)), None


def paint_barrier(s: SolidHits, lighting: Lighting) -> Look:
    """Paint a barrier of concrete or plastic, or boards with slanting stripes."""
    red, _green, blue = s.colour
    board = ((s.front < 0.05) & (s.height < 0.4) & (red > 1.5 * blue)).float()
    stripes = (((s.y + s.z) * 2.5) % 1.0 < 0.5).float()
    colour = tint(s.colour, board * stripes, _WHITE)
    dirt = 0.12 * value_noise(s.y * 2 + s.seed, s.z * 2) - 0.25 * edge(0.15 - s.z, s.footprint) * (1 - board)
    return colour * (1 + dirt), None


def paint_lamp_head(s: SolidHits, lighting: Lighting) -> Look:
    """Paint the head of a street lamp, or the light bar of an emergency vehicle."""
    if not lighting.light.lamps:
        return s.colour, None
    street = (s.owner < 0).float()
    below = torch.maximum(s.on(BOTTOM), 0.25 * (1 - s.on(TOP)))
    lamp = to_planes(lighting.light.lamp_colour, s.x.device) * (14.0 * below * street)
    bar = s.colour * ((1 - street) * lighting.of_owner(lighting.driving, s.owner) * 6.0)
    return s.colour, lamp + bar


def paint_bin(s: SolidHits, lighting: Lighting) -> Look:
    """Paint a bin: a lid's shadow and some dirt."""
    rim = band(s.z, s.height - 0.02, 0.02, s.footprint)
    return s.colour * (1 - 0.5 * rim + 0.1 * value_noise(s.x * 4 + s.seed, s.z * 3 + s.y * 4)), None
