"""Connections of lanes across junctions: which lanes traffic can enter from a lane's end, and on which path."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry
from shapely.strtree import STRtree

from bridgeta_core.utils.arrays import Flags, Floats
from bridgeta_synth.world.real.centrelines import Strip
from bridgeta_synth.world.streets.shapes import Points, hermite, tightest_radius

Successors = tuple[tuple[tuple[int, Points], ...], ...]

_REACH = 55.0  # metres across the largest junction
STRAIGHT = np.deg2rad(35)  # smaller turns are straight on
_TURN = np.deg2rad(125)  # larger turns are not made
_TIGHTEST = 4.0  # metres: least turning radius of a car
_ROUGH = 0.3  # metres by which a path may leave the road, as kerbs are drawn roughly
_ALONG_OTHERS = 3.0  # metres of a path that may lie on lanes that it neither leaves nor enters


def connect(strips: list[Strip], drivable: BaseGeometry) -> Successors:
    """Find for each lane, in the direction of its strip, the lanes that follow it and the paths `[n, 2]` to them.

    A path stays on the road and off other lanes. Straight on, a lane leads into the one ahead of it; turns to a side
    lead from the outermost lane of that side into the outermost lane of that side.
    """
    if not strips:
        return ()
    ends = np.array([s.centre[-1] for s in strips])
    starts = np.array([s.centre[0] for s in strips])
    leave, enter = np.array([s.leaving for s in strips]), np.array([s.entering for s in strips])
    gap = starts[None] - ends[:, None]
    distance = np.linalg.norm(gap, axis=-1)
    turn = np.arctan2(leave[:, None, 0] * enter[None, :, 1] - leave[:, None, 1] * enter[None, :, 0], leave @ enter.T)
    ahead = np.minimum((gap * leave[:, None]).sum(axis=-1), (gap * enter[None]).sum(axis=-1))
    shift = np.abs(gap[..., 0] * leave[:, None, 1] - gap[..., 1] * leave[:, None, 0])
    straight = np.abs(turn) < STRAIGHT
    possible = np.where(straight, ahead > 0.7 * shift, (ahead > -1.0) & (np.abs(turn) < _TURN)) & (distance < _REACH)
    possible |= (distance < 1.5) & straight
    np.fill_diagonal(possible, False)

    road = drivable.buffer(_ROUGH)
    shapely.prepare(road)
    lanes = STRtree([s.outline for s in strips])
    paths: dict[tuple[int, int], Points] = {}
    for i, j in np.argwhere(possible).tolist():
        path = (
            hermite(ends[i], leave[i], starts[j], enter[j]) if distance[i, j] > 0.5 else np.stack((ends[i], starts[j]))
        )
        if _is_free(path, road, lanes, (i, j)) and tightest_radius(path) > _TIGHTEST:
            paths[i, j] = path
    outermost = _outermost(ends, leave), _outermost(starts, enter)
    return tuple(_choose_successors(i, paths, turn, shift, outermost) for i in range(len(strips)))


def _choose_successors(
    lane: int,
    paths: dict[tuple[int, int], Points],
    turn: Floats,
    shift: Floats,
    outermost: tuple[Flags, Flags],
) -> tuple[tuple[int, Points], ...]:
    """Choose the successors of a lane among those that paths lead to."""
    open_to = [j for i, j in paths if i == lane]
    chosen = []
    ahead = [j for j in open_to if abs(turn[lane, j]) < STRAIGHT]
    for j in ahead:
        nearest = min(ahead, key=lambda k: (float(shift[lane, k]), k)) == j
        rivals = [i for i, other in paths if other == j and abs(turn[i, j]) < STRAIGHT]
        if nearest or min(rivals, key=lambda k: (float(shift[k, j]), k)) == lane:
            chosen.append(j)
    for j in open_to:
        side = int(turn[lane, j] > 0)
        if abs(turn[lane, j]) >= STRAIGHT and outermost[0][side, lane] and outermost[1][side, j]:
            chosen.append(j)
    if not chosen and open_to:
        chosen = [min(open_to, key=lambda j: (abs(float(turn[lane, j])), j))]
    return tuple((j, paths[lane, j]) for j in sorted(chosen))


def _outermost(points: Points, heading: Points) -> Flags:
    """Return whether each has no lane of the same direction to its right and to its left, `[2, n]`."""
    gap = points[None] - points[:, None]
    along = (gap * heading[:, None]).sum(axis=-1)
    left = heading[:, None, 0] * gap[..., 1] - heading[:, None, 1] * gap[..., 0]
    near = (heading @ heading.T > 0.9) & (np.abs(along) < 8) & (np.abs(left) < 6)
    return ~np.stack(((near & (left < -1.5)).any(axis=1), (near & (left > 1.5)).any(axis=1)))


def _is_free(path: Points, road: BaseGeometry, lanes: STRtree, own: tuple[int, int]) -> bool:
    """Return whether a path stays on the road and off lanes other than its `own` two."""
    line = shapely.linestrings(path)
    if not shapely.contains(road, line):
        return False
    others = [k for k in lanes.query(line).tolist() if k not in own]
    across = shapely.length(shapely.intersection(lanes.geometries[others], line)).sum() if others else 0.0
    return bool(across < _ALONG_OTHERS)
