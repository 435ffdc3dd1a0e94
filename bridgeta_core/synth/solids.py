"""The solid bodies of the world: tapered boxes and ellipsoids, and what vehicles, houses and people are made of.

A tapered box stands upright on its base with a heading; every side may lean inwards, so that it serves as a wall, a
roof, a car's body or its cabin. In its own frame (x forward, y left, z up from the base) it is the set
x + lean_front z <= front, -x + lean_back z <= back, |y| + lean_side z <= side, 0 <= z <= height.
An ellipsoid has half axes (front, side, height / 2) and its centre half its height above the base.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

FACADE, ROOF, BODY, CABIN, WHEEL, CROWN, POLE, CLOTH, SKIN, TRUCK, BUS, LAMP, CARGO = range(13)

Colour = tuple[float, float, float]


@dataclass(eq=False)
class Solids:
    """A struct of arrays over `n` solids; lengths in metres, angles in radians, colours in [0, 1].

    `owner` is the index of the actor that a solid belongs to (-1: scenery) and `main` marks the one solid of an actor
    whose pixels decide about its visibility. `seed` varies the look of solids of one `kind`.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    z: NDArray[np.float64]
    yaw: NDArray[np.float64]
    front: NDArray[np.float64]
    back: NDArray[np.float64]
    side: NDArray[np.float64]
    height: NDArray[np.float64]
    lean_front: NDArray[np.float64]
    lean_back: NDArray[np.float64]
    lean_side: NDArray[np.float64]
    colour: NDArray[np.float64]
    kind: NDArray[np.int64]
    seed: NDArray[np.int64]
    owner: NDArray[np.int64]
    main: NDArray[np.bool_]
    round: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Solids:
        """The solids of an index or mask."""
        return Solids(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def join(cls, parts: list[Solids]) -> Solids:
        """All solids of several sets in order."""
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})

    def moved(self, x: NDArray[np.float64], y: NDArray[np.float64], yaw: NDArray[np.float64]) -> Solids:
        """Solids given in their actors' frames, with every actor `owner` put at x, y, yaw (arrays by actor)."""
        ax, ay, angle = x[self.owner], y[self.owner], yaw[self.owner]
        values = dict(self.__dict__)
        values["x"] = ax + np.cos(angle) * self.x - np.sin(angle) * self.y
        values["y"] = ay + np.sin(angle) * self.x + np.cos(angle) * self.y
        values["yaw"] = angle + self.yaw
        return Solids(**values)

    def corners(self) -> NDArray[np.float64]:
        """Corners of the boxes around the solids, `[n, 8, 3]`: four at the base, then four at the top."""
        cx = np.stack((self.front, self.front, -self.back, -self.back) * 2, axis=1)
        cy = np.stack((self.side, -self.side, -self.side, self.side) * 2, axis=1)
        c, s = np.cos(self.yaw)[:, None], np.sin(self.yaw)[:, None]
        z = self.z[:, None] + np.concatenate((np.zeros((len(self), 4)), np.tile(self.height[:, None], 4)), axis=1)
        return np.stack((self.x[:, None] + c * cx - s * cy, self.y[:, None] + s * cx + c * cy, z), axis=-1)


class SolidList:
    """Collects solids one by one."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []
        self._colours: list[Colour] = []

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
        """Append a solid: `centre` is the middle of its base, `size` its length, width and height, `lean` how many
        metres the front, the back and either side come in per metre of height.
        """
        length, width, height = size
        self._rows.append(
            (*centre, yaw, length / 2, length / 2, width / 2, height, *lean, kind, seed, owner, main, is_round)
        )
        self._colours.append(colour)

    def build(self) -> Solids:
        """The struct of arrays."""
        rows = np.array(self._rows, dtype=np.float64).reshape(-1, 16)
        whole = rows[:, 11:14].astype(np.int64)
        return Solids(
            **dict(zip([f.name for f in fields(Solids)[:11]], rows[:, :11].T.copy(), strict=True)),
            colour=np.array(self._colours, dtype=np.float64).reshape(-1, 3),
            kind=whole[:, 0],
            seed=whole[:, 1],
            owner=whole[:, 2],
            main=rows[:, 14] > 0,
            round=rows[:, 15] > 0,
        )


CAR_COLOURS: tuple[Colour, ...] = (
    (0.85, 0.86, 0.88),
    (0.12, 0.12, 0.13),
    (0.55, 0.57, 0.60),
    (0.33, 0.35, 0.38),
    (0.52, 0.08, 0.08),
    (0.10, 0.20, 0.42),
    (0.80, 0.78, 0.70),
    (0.18, 0.30, 0.22),
    (0.78, 0.55, 0.12),
)
CLOTH_COLOURS: tuple[Colour, ...] = (
    (0.15, 0.17, 0.25),
    (0.55, 0.15, 0.15),
    (0.75, 0.72, 0.68),
    (0.2, 0.35, 0.5),
    (0.25, 0.25, 0.25),
    (0.5, 0.45, 0.2),
)


def add_car(into: SolidList, owner: int, size: tuple[float, float, float], colour: Colour, seed: int) -> None:
    """A car of length, width, height `size` around the origin of its actor's frame."""
    length, width, height = size
    waist = 0.55 * height
    _axles(into, owner, length, width, 0.33)
    into.add(
        BODY,
        (0, 0, 0.2),
        (length, width, waist - 0.2),
        colour,
        lean=(0.12, 0.08, 0.06),
        seed=seed,
        owner=owner,
        main=True,
    )
    cabin = 0.62 * length
    into.add(
        CABIN,
        (-0.06 * length, 0, waist - 0.02),
        (cabin, width - 0.1, height - waist + 0.02),
        colour,
        lean=(1.0, 0.55, 0.25),
        seed=seed,
        owner=owner,
    )


def add_truck(into: SolidList, owner: int, size: tuple[float, float, float], colour: Colour, seed: int) -> None:
    """A box truck: cab in front, body behind."""
    length, width, height = size
    _axles(into, owner, length, width, 0.45)
    cab = min(2.2, 0.3 * length)
    into.add(
        TRUCK,
        ((length - cab) / 2, 0, 0.4),
        (cab, width - 0.1, 0.72 * height - 0.4),
        colour,
        lean=(0.15, 0, 0.03),
        seed=seed,
        owner=owner,
    )
    body = length - cab - 0.15
    into.add(
        CARGO,
        (-(length - body) / 2, 0, 0.55),
        (body, width, height - 0.55),
        (0.82, 0.82, 0.8),
        seed=seed,
        owner=owner,
        main=True,
    )


def add_bus(into: SolidList, owner: int, size: tuple[float, float, float], colour: Colour, seed: int) -> None:
    """A city bus."""
    length, width, height = size
    _axles(into, owner, length, width, 0.48)
    into.add(
        BUS,
        (0, 0, 0.3),
        (length, width, height - 0.3),
        colour,
        lean=(0.04, 0.02, 0.02),
        seed=seed,
        owner=owner,
        main=True,
    )


def add_rider(into: SolidList, owner: int, size: tuple[float, float, float], colour: Colour, seed: int) -> None:
    """A bicycle or motorcycle with its rider."""
    length, width, height = size
    radius = 0.34
    for x in (length / 2 - radius, -length / 2 + radius):
        into.add(WHEEL, (x, 0, 0), (2 * radius, 0.12, 2 * radius), (0.05, 0.05, 0.05), owner=owner, is_round=True)
    into.add(CLOTH, (0, 0, 0.4), (0.9 * length - 2 * radius + 0.3, 0.2, 0.45), (0.15, 0.15, 0.16), owner=owner)
    into.add(
        CLOTH,
        (-0.1, 0, 0.75),
        (0.42, width, height - 1.0),
        colour,
        lean=(0.1, 0.05, 0.12),
        seed=seed,
        owner=owner,
        main=True,
    )
    into.add(SKIN, (0.0, 0, height - 0.28), (0.26, 0.24, 0.28), (0.2, 0.2, 0.22), owner=owner, is_round=True)


def add_person(into: SolidList, owner: int, size: tuple[float, float, float], colour: Colour, seed: int) -> None:
    """A pedestrian: legs, trunk, head."""
    length, width, height = size
    legs, trunk = 0.47 * height, 0.38 * height
    into.add(
        CLOTH,
        (0, 0, 0),
        (0.6 * length, 0.62 * width, legs),
        (0.12, 0.13, 0.18),
        lean=(-0.03, -0.03, -0.02),
        owner=owner,
    )
    into.add(
        CLOTH,
        (0, 0, legs),
        (0.5 * length, 0.85 * width, trunk),
        colour,
        lean=(0.02, 0.02, 0.06),
        seed=seed,
        owner=owner,
        main=True,
    )
    into.add(
        SKIN,
        (0.02, 0, legs + trunk),
        (0.22, 0.2, height - legs - trunk),
        (0.62, 0.46, 0.36),
        owner=owner,
        is_round=True,
    )


def _axles(into: SolidList, owner: int, length: float, width: float, radius: float) -> None:
    for x in (0.31 * length, -0.29 * length):
        into.add(
            WHEEL,
            (x, 0, 0),
            (2 * radius, width - 0.06, 2 * radius),
            (0.05, 0.05, 0.055),
            owner=owner,
            lean=(0.3, 0.3, 0),
        )
