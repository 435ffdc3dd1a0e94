"""The solids of the world: tapered boxes and ellipsoids.

In its own frame (x forward, y left, z up from the base) a tapered box is the set
x + lean_front z <= front, -x + lean_back z <= back, |y| + lean_side z <= side, 0 <= z <= height:
its leaning sides make walls, roofs, bodies and cabins of cars.
An ellipsoid has half axes (front, side, height / 2) and its centre half its height above the base.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from bridgeta_core.utils.arrays import Flags, Floats, Ints

(
    FACADE,
    ROOF,
    BODY,
    CABIN,
    WHEEL,
    CROWN,
    POLE,
    CLOTH,
    SKIN,
    TRUCK,
    BUS,
    LAMP,
    CARGO,
    WALL,
    HEDGE,
    SIGN,
    CONE,
    BARRIER,
    LAMPHEAD,
    CYCLE,
    BIN,
    FENCE,
) = range(22)

Colour = tuple[float, float, float]


@dataclass(eq=False)
class Solids:
    """A struct of arrays over `n` solids; lengths in metres, colours in [0, 1].

    `x`, `y`, `z` are the middle of the base, and the columns of `axes [n, 3, 3]` are the solid's axes, in a common
    frame. `owner` is the index of the actor that a solid belongs to (-1: scenery). `main` marks the one solid of an
    actor whose pixels decide about its visibility. `seed` varies the look of solids of one `kind`.
    """

    x: Floats
    y: Floats
    z: Floats
    axes: Floats
    front: Floats
    back: Floats
    side: Floats
    height: Floats
    lean_front: Floats
    lean_back: Floats
    lean_side: Floats
    colour: Floats
    kind: Ints
    seed: Ints
    owner: Ints
    main: Flags
    round: Flags

    def __len__(self) -> int:
        return len(self.x)

    @property
    def place(self) -> Floats:
        """Middles of the bases, `[n, 3]`."""
        return np.stack((self.x, self.y, self.z), axis=-1)

    def take(self, index: Ints | Flags) -> Solids:
        """Select solids by an index or mask."""
        return Solids(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def join(cls, parts: list[Solids]) -> Solids:
        """Join several sets of solids in order."""
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})

    def transform(self, poses: Floats) -> Solids:
        """Move solids from their actors' frames to the global one: `poses [actors, 4, 4]` are global_T_actor."""
        pose = poses[self.owner]
        rotation = pose[:, :3, :3]
        place = np.einsum("nij,nj->ni", rotation, self.place) + pose[:, :3, 3]
        x, y, z = place.T.copy()
        return replace(self, x=x, y=y, z=z, axes=np.einsum("nij,njk->nik", rotation, self.axes))

    def corners(self) -> Floats:
        """Return the corners of the boxes around the solids, `[n, 8, 3]`: four at the base, then four at the top."""
        # Written out along the solids' axes: several times as fast as products of many small matrices.
        ahead, left, up = (self.axes[:, None, :, i] for i in range(3))
        x = np.stack((self.front, self.front, -self.back, -self.back), axis=1)[..., None]
        y = np.stack((self.side, -self.side, -self.side, self.side), axis=1)[..., None]
        base = self.place[:, None] + x * ahead + y * left
        return np.concatenate((base, base + self.height[:, None, None] * up), axis=1)


class SolidList:
    """A list of solids that grows one by one."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []
        self._colours: list[Colour] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        kind: int,
        centre: tuple[float, float, float],
        size: tuple[float, float, float],
        colour: Colour,
        yaw: float = 0.0,
        lean: tuple[float, float, float] = (0.0, 0.0, 0.0),
        seed: int = 0,
        owner: int = -1,
        main: bool = False,
        is_round: bool = False,
    ) -> None:
        """Append an upright solid.

        `centre` is the middle of its base, `size` its length, width and height, `lean` how many metres the front, the
        back and either side recede per metre of height.
        """
        length, width, height = size
        self._rows.append(
            (*centre, yaw, length / 2, length / 2, width / 2, height, *lean, kind, seed, owner, main, is_round)
        )
        self._colours.append(colour)

    def build(self) -> Solids:
        """Build the struct of arrays."""
        rows = np.array(self._rows, dtype=np.float64).reshape(-1, 16)
        axes = np.zeros((len(rows), 3, 3))
        axes[:, 0, 0] = axes[:, 1, 1] = np.cos(rows[:, 3])
        axes[:, 1, 0] = np.sin(rows[:, 3])
        axes[:, 0, 1] = -axes[:, 1, 0]
        axes[:, 2, 2] = 1
        x, y, z = rows[:, :3].T.copy()
        front, back, side, height, lean_front, lean_back, lean_side = rows[:, 4:11].T.copy()
        whole = rows[:, 11:14].astype(np.int64)
        return Solids(
            x,
            y,
            z,
            axes,
            front,
            back,
            side,
            height,
            lean_front,
            lean_back,
            lean_side,
            colour=np.array(self._colours, dtype=np.float64).reshape(-1, 3),
            kind=whole[:, 0],
            seed=whole[:, 1],
            owner=whole[:, 2],
            main=rows[:, 14] > 0,
            round=rows[:, 15] > 0,
        )
