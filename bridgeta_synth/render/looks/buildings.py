"""How buildings look: facades of plaster, brick, glass and panels with windows, shops and lit rooms, and roofs."""

from __future__ import annotations

import torch
from torch import Tensor

from bridgeta_synth.render.looks.noise import band, desaturate, edge, hash_normal, tint, to_planes, value_noise
from bridgeta_synth.render.looks.snapshot import Lighting, Look
from bridgeta_synth.render.rays.solid_hits import BACK, TOP, SolidHits

_WARM = ((1.0, 0.72, 0.40), (1.0, 0.86, 0.66))
_SIGNS = ((0.42, 0.05, 0.045), (0.05, 0.12, 0.34), (0.05, 0.20, 0.11), (0.52, 0.36, 0.08), (0.50, 0.50, 0.48))
# Shares of the styles: plaster, brick, curtain walls, ribbon windows.
_BRICK, _GLASS, _RIBBON = 0.36, 0.60, 0.78


def paint_facade(s: SolidHits, lighting: Lighting) -> Look:
    """Paint walls with storeys of windows; the seed chooses the style and the sizes."""
    first, second, style, fourth = s.trait
    across = (s.face <= BACK).float()
    u = torch.lerp(s.x, s.y, across)
    half = torch.lerp(s.front, s.side, across)
    brick = ((style >= _BRICK) & (style < _GLASS)).float()
    glazed = ((style >= _GLASS) & (style < _RIBBON)).float()
    ribbon = (style >= _RIBBON).float()
    tall = 2.9 + 0.7 * second
    wide = 2.2 + 2.2 * first - 0.9 * glazed
    room = (2 * half - 0.8).clamp(min=0.4)
    columns = torch.floor(room / wide).clamp_(min=1.0)
    wide = room / columns
    column, storey = (u + half - 0.4) / wide, s.z / tall
    cu, cv = column.floor(), storey.floor()
    shop = ((cv < 1) & (fourth < 0.55)).float()
    share = 0.24 + 0.17 * fourth + 0.22 * glazed
    share = torch.lerp(share, torch.full_like(share, 0.44), shop) + ribbon * (1 - shop)
    rise = torch.lerp(0.27 + 0.17 * glazed - 0.03 * ribbon, torch.full_like(share, 0.37), shop)
    du = (share - (column - cu - 0.5).abs()) * wide
    dv = (rise - (storey - cv - 0.5 + 0.05 * shop).abs()) * tall
    whole = ((cu >= 0) & (cu < columns) & ((cv + 1) * tall < s.height + 0.2)).float()
    window = edge(du, s.footprint) * edge(dv, s.footprint) * whole
    frame = edge(du + 0.10, s.footprint) * edge(dv + 0.10, s.footprint) * whole
    # Bars between panes, where they can be seen.
    bars = band(column - cu, 0.5, 0.03 / wide, s.footprint / wide) * (0.08 / s.footprint).clamp(max=1.0)
    number = cu.int() * 131 + cv.int() * 977 + s.seed.int() * 31 + s.face.int() * 7
    chance, other = hash_normal(number), hash_normal(number + 50021)

    stain = 1 + 0.05 * value_noise(u * 0.6 + s.seed, s.z * 0.35)
    wall = desaturate(s.colour, 0.15) * (stain + brick * _lay_bricks(u, s) - 0.3 * edge(0.5 - s.z, s.footprint))
    red = to_planes((1.05, 0.88, 0.80), u.device)
    wall = wall * (1 + brick * (red - 1))
    wall = tint(wall, band(s.z, s.height - 0.35, 0.3, s.footprint) * 0.4, (0.6, 0.58, 0.55))
    wall = wall + frame * ((wall * 1.25).clamp(max=0.8) - wall)
    sign = band(s.z, 0.93 * tall, 0.32, s.footprint) * (s.z < tall).float() * (fourth < 0.55).float()
    sign = sign * (s.face < TOP).float()
    board = torch.tensor(_SIGNS, device=u.device).T[:, (first * 5).long()]
    # Letters, as far as they can be seen.
    letters = (
        band(s.z, 0.93 * tall, 0.14, s.footprint) * (value_noise(u * 5, first * 50) > 0.15).float() * (u.abs() < 1.7)
    )
    wall = tint(wall, sign, board)
    wall = tint(wall, sign * letters, (0.62, 0.62, 0.6))

    blind = (chance > 1.0).float() * (1 - shop)
    goods = hash_normal((u * 3.3).floor().int() * 389 + (s.z * 2.7).floor().int() * 71 + s.seed.int())
    inside = 0.02 + 0.25 * blind + shop * (0.012 + 0.012 * goods.clamp(-1, 2.5))
    albedo = wall + window * (inside - wall)
    flat = (s.face >= TOP).float()
    albedo = tint(albedo, flat, (0.17, 0.17, 0.165))
    window = window * (1 - flat)
    grazing = (1 - s.facing).clamp(0, 1)
    mirror = (0.13 + 0.22 * glazed + 0.6 * grazing * grazing * grazing) * (1 - 0.6 * blind)
    # Panes hang at slightly different angles, so each shows another part of the sky.
    shine = lighting.reflect(s.way[2] + 0.04 * other + 0.05) * (mirror * window * (1 - 0.7 * bars))
    if lighting.light.lamps:
        shine = (
            shine
            + _light_rooms(s, u, window, shop, chance, other, goods)
            + sign * (1 - flat) * board * (0.12 * (first < 0.6))
        )
    return albedo, shine


def _lay_bricks(u: Tensor, s: SolidHits) -> Tensor:
    """Lay bricks and joints, as deviations `[n]` from a wall's mean that fade where a pixel covers several of them."""
    row = (s.z / 0.075).floor()
    place = u / 0.24 + 0.5 * (row % 2)
    brick = 0.13 * hash_normal(row.int() * 997 + place.floor().int() * 31 + s.face.int())
    joint = torch.maximum(
        band(s.z / 0.075 - row, 0.5, 0.08, s.footprint / 0.075),
        band(place - place.floor(), 0.5, 0.025, s.footprint / 0.24),
    )
    return (brick + 0.25 * joint) * (0.05 / s.footprint).clamp(max=1.0)


def _light_rooms(
    s: SolidHits, u: Tensor, window: Tensor, shop: Tensor, chance: Tensor, other: Tensor, goods: Tensor
) -> Tensor:
    """Light rooms and shops behind windows, `[3, n]`."""
    lit = torch.maximum((other > 0.75).float(), shop * (s.trait[1] < 0.7).float())
    strength = lit * window * (0.045 + 0.035 * chance.clamp(-1, 2) + 0.11 * shop)
    warm = torch.tensor(_WARM, device=s.x.device)
    tone = torch.lerp(warm[0][:, None], warm[1][:, None], (0.5 + 0.5 * chance).clamp(0, 1))
    # Goods on shelves in shops, folds of curtains in rooms.
    folds = 0.85 + 0.25 * value_noise(u * 7 + s.seed, s.z * 0.2)
    return tone * (strength * torch.lerp(folds, 0.85 + 0.2 * goods, shop).clamp(0.15, 1.6))


def paint_roof(s: SolidHits, lighting: Lighting) -> Look:
    """Paint rows of tiles."""
    rows = 0.14 * (((s.z * 5).floor() % 2) - 0.5) * (0.1 / s.footprint).clamp(max=1.0)
    return desaturate(s.colour, 0.2) * (1 + rows + 0.10 * value_noise(s.x * 1.5, s.y * 1.5 + s.z)), None
