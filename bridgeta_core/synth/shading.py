"""How surfaces look: facades with windows, roofs, vehicles, trees, people, and the sky."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bridgeta_core.synth import solids as kinds
from bridgeta_core.synth.cast import SolidTensors

FRONT, BACK, LEFT, RIGHT, TOP, BOTTOM = range(6)
_GLASS = (0.10, 0.13, 0.16)


@dataclass(eq=False)
class Surface:
    """Where rays met solids, all `[n]` or `[n, 3]`: place in the solid's frame, face, unit normal in the global frame,
    and the solid's own numbers.
    """

    x: Tensor
    y: Tensor
    z: Tensor
    face: Tensor
    normal: Tensor
    kind: Tensor
    seed: Tensor
    colour: Tensor
    front: Tensor
    side: Tensor
    height: Tensor

    @classmethod
    def of(cls, tensors: SolidTensors, index: Tensor, origin: Tensor, directions: Tensor, distance: Tensor) -> Surface:
        """The surface at the hits of rays: `index [n]` solids, `directions [n, 3]`, `distance [n]`."""
        s, device = tensors.solids, origin.device

        def numbers(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values.astype(np.float32)).to(device)[index]

        cos, sin = tensors.cos[index], tensors.sin[index]
        step = directions * distance[:, None]
        x = tensors.ox[index] + cos * step[:, 0] + sin * step[:, 1]
        y = tensors.oy[index] + cos * step[:, 1] - sin * step[:, 0]
        z = tensors.oz[index] + step[:, 2]
        front, side, height = numbers(s.front), numbers(s.side), numbers(s.height)
        lf, lb, ls = tensors.lf[index], tensors.lb[index], tensors.ls[index]
        gaps = (front - x - lf * z, front + x - lb * z, side - y - ls * z, side + y - ls * z, height - z, z)
        face = torch.zeros_like(index, dtype=torch.int8)
        least = gaps[0].abs()
        for side_of in range(1, 6):
            gap = gaps[side_of].abs()
            face = torch.where(gap < least, side_of, face)
            least = torch.minimum(least, gap)
        nx = (face == FRONT).float() - (face == BACK).float()
        ny = (face == LEFT).float() - (face == RIGHT).float()
        nz = (face == TOP).float() - (face == BOTTOM).float()
        lean = torch.where(face == FRONT, lf, torch.where(face == BACK, lb, ls))
        nz = torch.where(face >= TOP, nz, lean)
        is_round = torch.from_numpy(s.round).to(device)[index]
        nx = torch.where(is_round, x / front**2, nx)
        ny = torch.where(is_round, y / side**2, ny)
        nz = torch.where(is_round, (z - height / 2) / (height / 2) ** 2, nz)
        length = (nx * nx + ny * ny + nz * nz).sqrt().clamp(min=1e-9)
        nx, ny, nz = nx / length, ny / length, nz / length
        normal = torch.stack((cos * nx - sin * ny, sin * nx + cos * ny, nz), dim=1)
        kind = torch.from_numpy(s.kind).to(device)[index]
        seed = torch.from_numpy(s.seed).to(device)[index]
        colour = torch.from_numpy(s.colour.astype(np.float32)).to(device)[index]
        return cls(x, y, z, face, normal, kind, seed, colour, front, side, height)

    def take(self, index: Tensor) -> Surface:
        """The hits of an index."""
        return Surface(**{name: value[index] for name, value in self.__dict__.items()})


def sky(directions: Tensor, sun: Tensor, grain: Tensor) -> Tensor:
    """Colours `[n, 3]` of the sky along unit directions: brighter towards the horizon and the sun, with thin clouds."""
    up = directions[:, 2].clamp(min=0.0)
    horizon = torch.tensor((0.80, 0.85, 0.90), device=directions.device)
    zenith = torch.tensor((0.34, 0.53, 0.80), device=directions.device)
    colour = horizon + (zenith - horizon) * (up.sqrt() * 1.15).clamp(max=1.0)[:, None]
    plane = directions[:, :2] / (up + 0.12)[:, None]
    cloud = _smooth_noise(plane[:, 0] * 1.3, plane[:, 1] * 1.3, grain) + 0.5 * _smooth_noise(
        plane[:, 0] * 3.1 + 7, plane[:, 1] * 3.1, grain
    )
    cover = ((cloud - 0.1) * 0.55).clamp(0.0, 0.8) * (up * 6).clamp(max=1.0)
    glow = (directions @ sun).clamp(min=0.0) ** 24
    colour = colour + cover[:, None] * (0.95 - colour)
    return colour + 0.25 * glow[:, None]


def shade_solids(surface: Surface, sun: Tensor, footprint: Tensor, grain: Tensor) -> Tensor:
    """Colours `[n, 3]` of hits on solids; `footprint [n]` is a pixel's size on them in metres."""
    colour = surface.colour.clone()
    for kind, paint in _PAINTERS.items():
        chosen = (surface.kind == kind).nonzero()[:, 0]
        if len(chosen):
            colour[chosen] = paint(surface.take(chosen), footprint[chosen], grain)
    facing = (surface.normal @ sun).clamp(min=0.0)
    upward = surface.normal[:, 2]
    light = 0.50 + 0.12 * upward + 0.62 * facing
    return colour * light[:, None]


def _edge(inside: Tensor, footprint: Tensor) -> Tensor:
    """Coverage of a pixel whose centre lies `inside` metres within an edge."""
    return (inside / footprint.clamp(min=1e-3) + 0.5).clamp(0.0, 1.0)


def _smooth_noise(x: Tensor, y: Tensor, grain: Tensor) -> Tensor:
    """Value noise with cells of 1, from a table of normal deviates."""
    fx, fy = x.floor(), y.floor()
    u, v = x - fx, y - fy
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    ix, iy = fx.long(), fy.long()

    def corner(i: int, j: int) -> Tensor:
        return grain[((ix + i) & 511) * 512 + ((iy + j) & 511)]

    low = corner(0, 0) * (1 - u) + corner(1, 0) * u
    high = corner(0, 1) * (1 - u) + corner(1, 1) * u
    return low * (1 - v) + high * v


def _facade(s: Surface, footprint: Tensor, grain: Tensor) -> Tensor:
    across_front = s.face <= BACK
    u = torch.where(across_front, s.y, s.x)
    half = torch.where(across_front, s.side, s.front)
    wide = 2.4 + (s.seed % 7) * 0.3
    tall = 2.9 + (s.seed // 7 % 4) * 0.2
    columns = torch.floor((2 * half - 0.8) / wide).clamp(min=1.0)
    wide = (2 * half - 0.8) / columns
    column = (u + half - 0.4) / wide
    storey = s.z / tall
    cu, cv = column.floor(), storey.floor()
    share = 0.24 + (s.seed // 28 % 5) * 0.045
    ground_floor = cv < 1
    shop = (s.seed // 140 % 2 == 0) & ground_floor
    share = torch.where(shop, 0.42, share)
    du = (share - (column - cu - 0.5).abs()) * wide
    dv = (torch.where(shop, 0.36, 0.27) - (storey - cv - 0.5).abs()) * tall
    window = _edge(du, footprint) * _edge(dv, footprint)
    whole = (cu >= 0) & (cu < columns) & ((cv + 1) * tall < s.height + 0.2)
    window = window * whole
    frame = _edge(du + 0.12, footprint) * _edge(dv + 0.12, footprint) * whole
    pick = grain[((cu.long() * 131 + cv.long() * 977 + s.seed * 31 + s.face * 7) & 0x3FFFF)]
    glass = torch.tensor(_GLASS, device=u.device) * (1.5 + 0.5 * pick.clamp(-2, 3))[:, None]
    reflect = torch.tensor((0.30, 0.38, 0.46), device=u.device)
    glass = glass + reflect * (0.25 + 0.25 * (storey - cv))[:, None]
    stain = 1 + 0.05 * _smooth_noise(u * 0.6 + s.seed, s.z * 0.35, grain)
    # Brick and board courses, gone where a pixel covers several of them.
    course = 0.05 * ((s.z * 4).floor() % 2 - 0.5) * (0.12 / footprint).clamp(max=1.0)
    wall = s.colour * (stain + course)[:, None]
    plinth = _edge(0.5 - s.z, footprint)[:, None]
    wall = wall * (1 - 0.3 * plinth)
    trim = (wall * 1.18).clamp(max=0.95)
    wall = wall + frame[:, None] * (trim - wall)
    roofed = (s.face >= TOP)[:, None]
    result = wall + window[:, None] * (glass - wall)
    return torch.where(roofed, torch.full_like(result, 0.45), result)


def _roof(s: Surface, footprint: Tensor, grain: Tensor) -> Tensor:
    rows = 0.10 * (((s.z * 5).floor() % 2) - 0.5) * (0.1 / footprint).clamp(max=1.0)
    return s.colour * (1 + rows + 0.07 * _smooth_noise(s.x * 1.5, s.y * 1.5 + s.z, grain))[:, None]


def _car(s: Surface, footprint: Tensor, grain: Tensor) -> Tensor:
    colour = s.colour.clone()
    dark = torch.tensor((0.05, 0.05, 0.055), device=colour.device)
    flank = (s.face == LEFT) | (s.face == RIGHT)
    for x in (0.62, -0.58):
        away = torch.hypot(s.x - x * s.front, s.z - 0.13)
        arch = _edge(0.39 - away, footprint) * flank
        rim = _edge(0.2 - away, footprint) * flank
        colour = colour + arch[:, None] * (dark - colour)
        colour = colour + rim[:, None] * (0.45 - colour)
    colour = colour + (_edge(0.08 - s.z, footprint) * 0.8)[:, None] * (dark - colour)
    seam = _edge(0.015 - (s.x - 0.05 * s.front).abs(), footprint) * flank * 0.6
    colour = colour * (1 - seam)[:, None]
    across = s.y.abs() / s.side
    lights = _edge((across - 0.58) * s.side, footprint) * _edge(0.09 - (s.z - 0.72 * s.height).abs(), footprint)
    lamp = torch.tensor((0.92, 0.93, 0.88), device=colour.device)
    tail = torch.tensor((0.62, 0.04, 0.04), device=colour.device)
    ahead, behind = (lights * (s.face == FRONT))[:, None], (lights * (s.face == BACK))[:, None]
    colour = colour + ahead * (lamp - colour)
    colour = colour + behind * (tail - colour)
    ends = (s.face == FRONT) | (s.face == BACK)
    plate = _edge(0.26 - s.y.abs(), footprint) * _edge(0.06 - (s.z - 0.4 * s.height).abs(), footprint) * ends
    grille = _edge(0.5 * s.side - s.y.abs(), footprint) * _edge(0.07 - (s.z - 0.68 * s.height).abs(), footprint)
    colour = colour * (1 - 0.8 * grille * (s.face == FRONT))[:, None]
    return colour + plate[:, None] * (0.85 - colour)


def _glazed(s: Surface, footprint: Tensor, inside: Tensor) -> Tensor:
    """The solid's colour with glass where `inside [n]` (metres within the pane) is positive."""
    glass = torch.tensor(_GLASS, device=s.x.device) * 0.7
    reflect = torch.tensor((0.32, 0.38, 0.45), device=s.x.device)
    pane = glass + reflect * (0.1 + 0.45 * s.normal[:, 2].clamp(min=0))[:, None]
    cover = _edge(inside, footprint)[:, None]
    return s.colour + cover * (pane - s.colour)


def _cabin(s: Surface, footprint: Tensor, grain: Tensor) -> Tensor:
    ends = s.face <= BACK
    reach = torch.where(ends, s.side - 0.25 * s.z - 0.08, s.front)
    along = torch.where(ends, s.y.abs(), s.x.abs() * 0)
    upright = torch.minimum(s.z - 0.05, s.height - 0.09 - s.z)
    flank = ~ends
    pillars = torch.minimum((s.x - 0.02 * s.front).abs() - 0.05, torch.ones_like(s.x))
    slope = torch.minimum(s.front - 0.16 - 1.0 * s.z - s.x, s.front - 0.16 - 0.55 * s.z + s.x)
    inside = torch.minimum(upright, torch.where(flank, torch.minimum(pillars, slope), reach - along))
    return _glazed(s, footprint, torch.where(s.face == TOP, -torch.ones_like(inside), inside))


def _bus(s: Surface, footprint: Tensor, grain: Tensor) -> Tensor:
    flank = (s.face == LEFT) | (s.face == RIGHT)
    band = torch.minimum(s.z - 0.36 * s.height, 0.80 * s.height - s.z)
    posts = ((s.x / 1.45 + 100.5) % 1.0 - 0.5).abs() * 1.45 - 0.06
    ends = torch.minimum(s.z - torch.where(s.face == FRONT, 0.28, 0.5) * s.height, 0.84 * s.height - s.z)
    ends = torch.minimum(ends, s.side - 0.12 - s.y.abs())
    inside = torch.where(flank, torch.minimum(torch.minimum(band, posts), s.front - 0.3 - s.x.abs()), ends)
    colour = _glazed(s, footprint, torch.where(s.face >= TOP, -torch.ones_like(inside), inside))
    stripe = _edge(0.12 - (s.z - 0.22 * s.height).abs(), footprint) * (s.face < TOP)
    return colour + stripe[:, None] * (0.9 - colour)


def _truck(s: Surface, footprint: Tensor, grain: Tensor) -> Tensor:
    upright = torch.minimum(s.z - 0.5 * s.height, 0.92 * s.height - s.z)
    across = torch.where(
        s.face == FRONT, s.side - 0.15 - s.y.abs(), torch.minimum(s.front - 0.2 - s.x, s.x + 0.3 * s.front)
    )
    inside = torch.minimum(upright, across)
    return _glazed(s, footprint, torch.where((s.face >= TOP) | (s.face == BACK), -torch.ones_like(inside), inside))


def _crown(s: Surface, footprint: Tensor, grain: Tensor) -> Tensor:
    # Two slanted views of the noise, so that no direction of the crown shows streaks.
    fade = (0.11 / footprint.clamp(min=1e-3)).clamp(max=1.0)
    a, b, c = s.x * 5 + s.seed, s.y * 5, s.z * 5
    leaves = _smooth_noise(a + 0.5 * c, b + 0.8 * c, grain) + _smooth_noise(b - 0.9 * c + 17, a + 0.3 * c, grain)
    boughs = _smooth_noise(0.28 * (a + 0.4 * c), 0.28 * (b + c), grain)
    below = 0.55 + 0.55 * (s.z / s.height)
    return s.colour * ((1 + 0.2 * leaves * fade + 0.16 * boughs).clamp(0.35, 1.7) * below)[:, None]


def _signal(s: Surface, footprint: Tensor, grain: Tensor) -> Tensor:
    colour = s.colour.clone()
    for index, (z, lit) in enumerate(((0.78, (1.0, 0.1, 0.08)), (0.48, (1.0, 0.65, 0.1)), (0.18, (0.1, 0.9, 0.4)))):
        disc = _edge(0.11 - torch.hypot(s.y, s.z - z), footprint) * (s.face == BACK)
        bright = torch.where(s.seed == index, 1.3, 0.22)
        lamp = torch.tensor(lit, device=colour.device) * bright[:, None]
        colour = colour + disc[:, None] * (lamp - colour)
    return colour


_PAINTERS = {
    kinds.FACADE: _facade,
    kinds.ROOF: _roof,
    kinds.BODY: _car,
    kinds.CABIN: _cabin,
    kinds.BUS: _bus,
    kinds.TRUCK: _truck,
    kinds.CROWN: _crown,
    kinds.LAMP: _signal,
}
