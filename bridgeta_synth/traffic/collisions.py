"""Find which oriented rectangles on the ground overlap, moving or at rest."""

from __future__ import annotations

import numpy as np

from bridgeta_core.utils.arrays import Flags, Floats, Ints
from bridgeta_synth.world.streets.shapes import Points
from bridgeta_synth.world.town.town import Town

# Metres above the ground: solids whose base is higher, such as crowns of trees, or whose top is lower block nobody.
_OVERHEAD, _LOW = 1.3, 0.3


def overlaps(one: Floats, other: Floats, one_half: Floats, other_half: Floats) -> Flags:
    """Return whether rectangles overlap, `[n]`, from x, y, yaw `[3, n]` and half lengths and widths `[2, n]` of both.

    Two convex shapes are apart if the other lies wholly beyond some side of one of them (separating axes).
    """
    dx, dy = other[0] - one[0], other[1] - one[1]
    turn = other[2] - one[2]
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    result = np.ones(dx.shape, dtype=bool)
    for yaw, mine, theirs in ((one[2], one_half, other_half), (other[2], other_half, one_half)):
        c, s = np.cos(yaw), np.sin(yaw)
        result &= np.abs(c * dx + s * dy) < mine[0] + theirs[0] * cos + theirs[1] * sin
        result &= np.abs(c * dy - s * dx) < mine[1] + theirs[0] * sin + theirs[1] * cos
    return result


def find_overlaps(one: Floats, one_half: Floats, other: Floats, other_half: Floats, pairs: Ints) -> Flags:
    """Return whether the two of each pair ever overlap, `[pairs]`.

    `one [n, 3, t]` and `other [m, 3, t]` hold x, y, yaw at the same times (t = 1 for what stands), `one_half [n, 2]`
    and `other_half [m, 2]` half lengths and widths, and `pairs [p, 2]` indices into both.
    """
    result = np.zeros(len(pairs), dtype=bool)
    if not len(pairs):
        return result
    i, j = pairs.T
    reach = np.hypot(*one_half.T)[i] + np.hypot(*other_half.T)[j]
    low = np.maximum(one[:, :2].min(axis=2)[i], other[:, :2].min(axis=2)[j])
    high = np.minimum(one[:, :2].max(axis=2)[i], other[:, :2].max(axis=2)[j])
    near = np.flatnonzero(((low - high) < reach[:, None]).all(axis=1))
    i, j, reach = i[near], j[near], reach[near]
    # Distances first: most pairs with overlapping bounds are never there together.
    dx, dy = (one[i, axis] - other[j, axis] for axis in (0, 1))
    pair, step = np.nonzero(dx * dx + dy * dy < np.square(reach)[:, None])
    i, j = i[pair], j[pair]
    first = one[i, :, np.minimum(step, one.shape[2] - 1)].T
    second = other[j, :, np.minimum(step, other.shape[2] - 1)].T
    hit = overlaps(first, second, one_half[i].T, other_half[j].T)
    result[near[pair[hit]]] = True
    return result


class Obstacles:
    """The solids of a town that block traffic within `reach` metres of places `[n, 2]`: houses, trunks, poles."""

    def __init__(self, town: Town, places: Points, reach: float) -> None:
        solids = town.solids
        at = np.stack((solids.x, solids.y), axis=1)
        low, high = places.min(axis=0) - reach, places.max(axis=0) + reach
        near = np.flatnonzero(((at > low) & (at < high)).all(axis=1))
        base = solids.z[near] - town.terrain.height(at[near])
        near = near[(base < _OVERHEAD) & (base + solids.height[near] > _LOW)]
        yaw = np.arctan2(solids.axes[near, 1, 0], solids.axes[near, 0, 0])
        self._tracks = np.stack((solids.x[near], solids.y[near], yaw), axis=1)[:, :, None]
        self._half = np.stack((np.maximum(solids.front[near], solids.back[near]), solids.side[near]), axis=1)

    def hit(self, tracks: Floats, half: Floats) -> Flags:
        """Return which tracks `[n, 3, t]` with half lengths and widths `[n, 2]` ever hit an obstacle, `[n]`."""
        reach = np.hypot(*half.T)[:, None] + np.hypot(*self._half.T)
        low, high = tracks[:, :2].min(axis=2)[:, None], tracks[:, :2].max(axis=2)[:, None]
        places = self._tracks[:, :2, 0]
        pairs = np.argwhere(((places > low - reach[..., None]) & (places < high + reach[..., None])).all(axis=-1))
        result = np.zeros(len(tracks), dtype=bool)
        result[pairs[find_overlaps(tracks, half, self._tracks, self._half, pairs), 0]] = True
        return result


class OccupiedGround:
    """The ground and all that has been admitted to it so far, at `[t]` times.

    It begins with `tracks [n, 3, t]` and half lengths and widths `[n, 2]`; `margin` metres stay free between any two.
    """

    def __init__(self, obstacles: Obstacles, tracks: Floats, half: Floats, margin: float) -> None:
        self._obstacles, self._margin = obstacles, margin
        self.tracks, self.half = tracks, half

    def admit(self, tracks: Floats, half: Floats) -> bool:
        """Admit tracks `[k, 3, t]` or `[k, 3, 1]` if none of them hits anything; return whether."""
        grown = half + self._margin
        count, new = len(self.tracks), len(tracks)
        with_others = np.stack(np.meshgrid(np.arange(new), np.arange(count), indexing="ij"), axis=-1).reshape(-1, 2)
        each_other = np.argwhere(np.triu(np.ones((new, new), dtype=bool), 1))
        if (
            self._obstacles.hit(tracks, grown).any()
            or find_overlaps(tracks, grown, self.tracks, self.half, with_others).any()
            or find_overlaps(tracks, grown, tracks, half, each_other).any()
        ):
            return False
        whole = np.broadcast_to(tracks, (new, *self.tracks.shape[1:]))
        self.tracks, self.half = np.concatenate((self.tracks, whole)), np.concatenate((self.half, half))
        return True


def select_compatible(tracks: Floats, half: Floats, party: Ints, blocked: Flags) -> Flags:
    """Select tracks so that none overlap, `[n]`; earlier ones have precedence.

    `tracks [n, 3, t]`, `half [n, 2]` as above. Members of one `party` (-1: none) may overlap and are removed together;
    those `blocked` are removed in any case.
    """
    count = len(tracks)
    apart = (party[:, None] != party) | (party < 0)
    pairs = np.argwhere(np.triu(apart, 1))
    hit = pairs[find_overlaps(tracks, half, tracks, half, pairs)]
    clash = np.zeros((count, count), dtype=bool)
    clash[hit[:, 0], hit[:, 1]] = True
    stays = ~blocked
    members = [np.flatnonzero((party == party[k]) & (party >= 0)) for k in range(count)]
    for k in range(count):
        if stays[k] and (clash[:k, k] & stays[:k]).any():
            stays[k] = False
        if not stays[k]:
            stays[members[k]] = False
    return stays
