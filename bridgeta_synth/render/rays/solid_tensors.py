"""Solids on a device, and their intersection with rays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bridgeta_core.utils.arrays import Floats
from bridgeta_synth.world.solids import Solids


class SolidTensors:
    """Solids on a device as seen from several views: row `view * len(solids) + i` is solid i seen from that view.

    `solids_by_view` holds the same solids in the same order for every view, where they are at its time; `solids` are
    those of the first. Whatever depends on the view is stored per row, in the solid's own frame, so that float32
    suffices however large the global coordinates are.
    """

    def __init__(self, solids_by_view: Sequence[Solids], origins: Floats, device: torch.device) -> None:
        solids = solids_by_view[0]
        self.solids_by_view, self.solids, self.count, self.device = tuple(solids_by_view), solids, len(solids), device
        views = len(origins)
        # Rows of `inverse` are the solids' axes: they rotate global directions into the solids' frames.
        inverse = np.concatenate([np.swapaxes(each.axes, 1, 2) for each in solids_by_view])
        away = np.concatenate([origin - each.place for origin, each in zip(origins, solids_by_view, strict=True)])
        ox, oy, oz = np.einsum("nij,nj->ni", inverse, away).T

        def repeat(values: Floats) -> Floats:
            return np.tile(values, views)

        front, back, side, height = (repeat(v) for v in (solids.front, solids.back, solids.side, solids.height))
        lean_front, lean_back, lean_side = (repeat(v) for v in (solids.lean_front, solids.lean_back, solids.lean_side))
        columns = np.stack(
            (
                *(inverse[:, i, j] for i in range(3) for j in range(3)),
                ox,
                oy,
                oz,
                front - ox - lean_front * oz,
                back + ox - lean_back * oz,
                side - oy - lean_side * oz,
                side + oy - lean_side * oz,
                lean_front,
                lean_back,
                lean_side,
                height - oz,
                1 / front,
                1 / side,
                2 / height,
                oz - height / 2,
            )
        )
        # In the solid's frame: the origin of the rays (ox, oy, oz), its distances to the front, back, left, right and
        # top face (f, b, l, r, top), the leans (lf, lb, ls), the inverse half axes (ia, ib, ic), and the height of the
        # origin above the middle (ozc).
        values = torch.from_numpy(columns.astype(np.float32)).to(device)
        self.axes = values[:9]
        (self.ox, self.oy, self.oz, self.f, self.b, self.l, self.r, self.lf, self.lb, self.ls) = values[9:19]
        (self.top, self.ia, self.ib, self.ic, self.ozc) = values[19:]
        lean = (solids.lean_front != 0) | (solids.lean_back != 0) | (solids.lean_side != 0)
        tilted = np.any([np.abs(each.axes[:, 2, 2] - 1) > 1e-12 for each in solids_by_view], axis=0)
        # Ellipsoids, tapered and plain boxes each have their own test, which is cheaper for upright ones.
        self.family = 2 * np.where(solids.round, 2, np.where(lean, 1, 0)) + tilted

    def solid_of(self, row: Tensor) -> Tensor:
        """Return the solids `[n]` of rows."""
        return row % max(self.count, 1)

    def intersect(self, family: int, row: Tensor, directions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute where rays enter the solids of rows `[k]`, as ray parameters `[k]`, and whether they do, bool `[k]`.

        All solids are of one family. `directions` are the planes x, y and z of the rays, `[k]` each.
        """
        test = (_intersect_box, _intersect_tapered, _intersect_ellipsoid)[family // 2]
        return test(self, row, *_rotate_to_solids(self, row, directions, bool(family % 2)))


def _rotate_to_solids(s: SolidTensors, w: Tensor, d: Sequence[Tensor], tilted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Rotate global directions (x, y, z, each `[k]`) into the frames of the solids of rows `[k]`."""
    dx, dy, dz = d
    a = [s.axes[i].index_select(0, w) for i in (range(9) if tilted else (0, 1, 3, 4))]
    if not tilted:
        return a[0] * dx + a[1] * dy, a[2] * dx + a[3] * dy, dz
    x, y, z = (a[i] * dx + a[i + 1] * dy + a[i + 2] * dz for i in (0, 3, 6))
    return x, y, z


def _intersect_box(s: SolidTensors, w: Tensor, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    enter, leave = None, None
    for speed, ahead, behind in ((x, s.f, s.b), (y, s.l, s.r), (z, s.top, s.oz)):
        inverse = 1 / _avoid_zero(speed)
        t1, t2 = ahead.index_select(0, w) * inverse, -behind.index_select(0, w) * inverse
        low, high = torch.minimum(t1, t2), torch.maximum(t1, t2)
        enter = low if enter is None else torch.maximum(enter, low)
        leave = high if leave is None else torch.minimum(leave, high)
    assert enter is not None
    assert leave is not None
    return enter, (enter < leave) & (enter > 0.02)


def _intersect_tapered(s: SolidTensors, w: Tensor, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    inverse = 1 / _avoid_zero(z)
    t1, t2 = s.top.index_select(0, w) * inverse, -s.oz.index_select(0, w) * inverse
    enter, leave = torch.minimum(t1, t2), torch.maximum(t1, t2)
    side = s.ls.index_select(0, w) * z
    for speed, room in (
        (x + s.lf.index_select(0, w) * z, s.f),
        (s.lb.index_select(0, w) * z - x, s.b),
        (y + side, s.l),
        (side - y, s.r),
    ):
        t = room.index_select(0, w) / _avoid_zero(speed)
        enter = torch.where(speed < 0, torch.maximum(enter, t), enter)
        leave = torch.where(speed < 0, leave, torch.minimum(leave, t))
    return enter, (enter < leave) & (enter > 0.02)


def _intersect_ellipsoid(s: SolidTensors, w: Tensor, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    ia, ib, ic = s.ia.index_select(0, w), s.ib.index_select(0, w), s.ic.index_select(0, w)
    x, y, z = x * ia, y * ib, z * ic
    ox, oy, oz = s.ox.index_select(0, w) * ia, s.oy.index_select(0, w) * ib, s.ozc.index_select(0, w) * ic
    a, b, c = x * x + y * y + z * z, x * ox + y * oy + z * oz, ox * ox + oy * oy + oz * oz - 1
    inside = b * b - a * c
    t = (-b - inside.clamp(min=0).sqrt()) / a
    return t, (inside > 0) & (t > 0.02)


def _avoid_zero(speed: Tensor) -> Tensor:
    """Move speeds near zero away from it."""
    return speed + 1e-9 * (speed.abs() < 1e-9)
