"""Shadows of solids: their outlines on the ground along the sun's rays.

A shadow falls on the terrain, not on a plane. The place that a point P shades is P - s (P_z - terrain), with s the
sun's horizontal direction over its vertical one; fixed-point steps find it to a centimetre on slopes of 6 %.
"""

from __future__ import annotations

import cv2
import numpy as np

from bridgeta_core.utils.arrays import Floats
from bridgeta_synth.world.solids import Solids
from bridgeta_synth.world.terrain import Terrain

Ring = Floats
_AROUND = 12


def sun_drift(sun: tuple[float, float, float]) -> Floats:
    """Compute the metres, along x and y, that light travels per metre of descent, counted towards the sun."""
    return np.array(sun[:2]) / sun[2]


def frustum_corners(solids: Solids) -> Floats:
    """Compute the corners `[n, 8, 3]` of the (tapered) boxes themselves: four at the base, then four at the top."""
    base, top = _cross_sections(solids, 0.0), _cross_sections(solids, 1.0)
    heights = np.concatenate((np.zeros((len(solids), 4)), np.tile(solids.height[:, None], 4)), axis=1)
    local = np.concatenate((np.concatenate((base, top), axis=1), heights[..., None]), axis=-1)
    return np.einsum("nij,nkj->nki", solids.axes, local) + solids.place[:, None]


def _cross_sections(solids: Solids, share: float) -> Floats:
    z = share * solids.height
    front = solids.front - solids.lean_front * z
    back = -(solids.back - solids.lean_back * z)
    middle = (front + back) / 2
    front, back = np.maximum(front, middle), np.minimum(back, middle)
    side = np.maximum(solids.side - solids.lean_side * z, 0)
    x = np.stack((front, front, back, back), axis=1)
    y = np.stack((side, -side, -side, side), axis=1)
    return np.stack((x, y), axis=-1)


def outline_ellipsoids(solids: Solids, sun: tuple[float, float, float]) -> Floats:
    """Compute points `[n, 12, 3]` around ellipsoids where the sun's rays graze them."""
    half = np.stack((solids.front, solids.side, solids.height / 2), axis=1)
    # The ellipsoid is M s + centre for unit vectors s; rays along l graze it where s is at right angles to M^-1 l.
    grazed = np.einsum("nji,j->ni", solids.axes, np.array(sun)) / half
    grazed /= np.linalg.norm(grazed, axis=1, keepdims=True)
    other = np.where(np.abs(grazed[:, 2:]) < 0.9, (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
    u = np.cross(grazed, other)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v = np.cross(grazed, u)
    angle = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)[:, None]
    circle = np.cos(angle) * u[:, None] + np.sin(angle) * v[:, None]
    centre = solids.place + solids.axes[:, :, 2] * half[:, 2:]
    return np.einsum("nij,nkj->nki", solids.axes, circle * half[:, None]) + centre[:, None]


def project_to_ground(points: Floats, terrain: Terrain, slope: Floats) -> Floats:
    """Find the places `[..., 2]` on the terrain that points `[..., 3]` shade, with the `slope` from `sun_drift`.

    Points below the ground shade the place above them.
    """
    xy, z = points[..., :2], points[..., 2:]
    place = xy
    for _ in range(3):
        above = np.maximum(z - terrain.height(place)[..., None], 0)
        place = xy - slope * above
    return place


def outline_shadows(solids: Solids, terrain: Terrain, sun: tuple[float, float, float]) -> list[Ring]:
    """Outline the solids' shadows on the terrain: convex rings `[k, 2]`, in the order of the solids."""
    if not len(solids):
        return []
    slope = sun_drift(sun)
    flat = project_to_ground(frustum_corners(solids), terrain, slope)
    round_flat = project_to_ground(outline_ellipsoids(solids.take(solids.round), sun), terrain, slope)
    result, rounds = [], iter(round_flat)
    for i in range(len(solids)):
        ring = next(rounds) if solids.round[i] else flat[i]
        result.append(convex_hull(ring))
    return result


def hang_cables(
    lamps: Floats, terrain: Terrain, sun: tuple[float, float, float], rng: np.random.Generator
) -> list[Ring]:
    """Hang cables that sag between some of the lamps' heads `[n, 3]` and return their shadows, lines `[k, 2]`: thin and
    dark like joints in the road.
    """
    if len(lamps) < 2 or rng.random() < 0.4:
        return []
    apart = np.linalg.norm(lamps[:, None, :2] - lamps[None, :, :2], axis=-1)
    pairs = np.argwhere(np.triu((apart > 9) & (apart < 32)))
    chosen = pairs[rng.random(len(pairs)) < 0.35]
    along = np.linspace(0, 1, 9)[:, None]
    sag = 0.03 * 4 * along * (1 - along)
    result = []
    for a, b in chosen:
        points = lamps[a] + along * (lamps[b] - lamps[a])
        points[:, 2:] -= sag * apart[a, b]
        result.append(project_to_ground(points, terrain, sun_drift(sun)))
    return result


def convex_hull(points: Floats) -> Ring:
    """Compute the convex hull `[k, 2]` of places `[n, 2]`."""
    # cv2 takes float32 only: relative to the first place it is exact enough anywhere on a map.
    return cv2.convexHull((points - points[0]).astype(np.float32))[:, 0].astype(np.float64) + points[0]


def slice_shadows(
    solids: Solids, terrain: Terrain, sun: tuple[float, float, float], thick: float = 1.5
) -> tuple[list[Ring], Floats]:
    """Outline the shadows of the solids cut into slices of about `thick` metres at most, with the height above the
    terrain, `[k]`, below which a slice surely shades whatever lies above its shadow. Sorted by that height.

    For a place Q on the ground, the light that would reach it passes through the slice and is lost from there down.
    """
    rings: list[Ring] = []
    heights: list[float] = []
    slope = sun_drift(sun)
    corners = frustum_corners(solids)
    count = np.clip(np.ceil(solids.height / thick), 1, 12).astype(int)
    middle = outline_ellipsoids(solids.take(solids.round), sun) if solids.round.any() else np.zeros((0, _AROUND, 3))
    ground = terrain.height(solids.place[:, :2])
    rounds = iter(project_to_ground(middle, terrain, slope))
    for number in np.unique(count[~solids.round]):
        group = np.flatnonzero((count == number) & ~solids.round)
        base, top = corners[group, :4], corners[group, 4:]
        levels = [project_to_ground(base + (top - base) * (k / number), terrain, slope) for k in range(number + 1)]
        for k in range(number):
            both = np.concatenate((levels[k], levels[k + 1]), axis=1)
            rings += [convex_hull(points) for points in both]
            heights += (solids.z[group] - ground[group] + solids.height[group] * (k / number)).tolist()
    for i in np.flatnonzero(solids.round):
        rings.append(convex_hull(next(rounds)))
        heights.append(float(solids.z[i] - ground[i] + 0.4 * solids.height[i]))
    order = np.argsort(heights, kind="stable")
    return [rings[i] for i in order], np.maximum(np.array(heights)[order], 0)
