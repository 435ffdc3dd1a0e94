"""Where rays hit solids: places on their surfaces, faces and normals, and the solids' own looks."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from bridgeta_core.utils.arrays import Floats, Ints
from bridgeta_synth.render.rays.solid_tensors import SolidTensors
from bridgeta_synth.world.materials import linear

FRONT, BACK, LEFT, RIGHT, TOP, BOTTOM = range(6)
_TRAITS = 4


@dataclass(eq=False)
class SolidLooks:
    """The looks of solids, by solid: `numbers [13, s]` float32 on a device.

    Rows: front, side, height, round, three of linear colour, four traits in [0, 1) derived from the seed, the seed
    below 2^16, and the height of the base above zero. `kind [s]`, `owner [s]` int64.
    """

    numbers: Tensor
    kind: Tensor
    owner: Tensor

    @classmethod
    def of(cls, tensors: SolidTensors) -> SolidLooks:
        """Gather the looks of traced solids."""
        s = tensors.solids
        numbers = np.concatenate(
            (
                np.stack((s.front, s.side, s.height, s.round.astype(np.float64))),
                _mute(linear(s.colour)).T,
                _hash_traits(s.seed),
                np.stack(((s.seed & 0xFFFF).astype(np.float64), s.z)),
            )
        )
        device = tensors.device
        return cls(
            torch.from_numpy(numbers.astype(np.float32)).to(device),
            torch.from_numpy(s.kind).to(device),
            torch.from_numpy(s.owner).to(device),
        )


def _mute(colour: Floats) -> Floats:
    """Mute colours `[n, 3]` as weather does: a little closer to grey."""
    return colour + 0.15 * (colour @ np.array((0.2126, 0.7152, 0.0722))[:, None] - colour)


def _hash_traits(seed: Ints) -> Floats:
    """Hash seeds to numbers in [0, 1) `[4, n]`."""
    state = (seed.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    result = []
    for _ in range(_TRAITS):
        # The output function of splitmix64.
        state = state + np.uint64(0x9E3779B97F4A7C15)
        z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        result.append(((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(np.float64) / 2**24)
    return np.stack(result)


@dataclass(eq=False)
class SolidHits:
    """Hits on solids, all `[n]` but `colour`, `normal` and `way`, which are planes `[3, n]`.

    x, y, z: place in the solid's frame, z from its base; face: FRONT to BOTTOM as float; front, side, height: the
    solid's half length, half width and height; colour: its linear colour; trait: four numbers in [0, 1) of each solid,
    `[4, n]`; seed: the solid's seed, below 2^16; base: height of its base. normal: unit, in the global frame; way: the
    ray's unit direction; facing: cosine between the normal and the way back; footprint: size of a pixel on the surface
    in metres.
    """

    x: Tensor
    y: Tensor
    z: Tensor
    face: Tensor
    front: Tensor
    side: Tensor
    height: Tensor
    lean_front: Tensor
    lean_back: Tensor
    lean_side: Tensor
    colour: Tensor
    trait: Tensor
    seed: Tensor
    base: Tensor
    kind: Tensor
    owner: Tensor
    normal: Tensor
    way: Tensor
    facing: Tensor
    footprint: Tensor

    @classmethod
    def of(
        cls, tensors: SolidTensors, looks: SolidLooks, row: Tensor, step: Tensor, way: Tensor, footprint: Tensor
    ) -> SolidHits:
        """Locate hits on the solids of rows `[n]`.

        They lie `step [3, n]` metres from the rays' origin along unit directions `way`.
        """

        def take(plane: Tensor) -> Tensor:
            return plane.index_select(0, row)

        axes = [take(plane) for plane in tensors.axes]
        sx, sy, sz = step
        x = take(tensors.ox) + axes[0] * sx + axes[1] * sy + axes[2] * sz
        y = take(tensors.oy) + axes[3] * sx + axes[4] * sy + axes[5] * sz
        z = take(tensors.oz) + axes[6] * sx + axes[7] * sy + axes[8] * sz
        leans = [take(plane) for plane in (tensors.lf, tensors.lb, tensors.ls)]
        solid = tensors.solid_of(row)
        numbers = [plane.index_select(0, solid) for plane in looks.numbers]
        front, side, height, is_round = numbers[:4]
        face, local = _find_faces(x, y, z, front, side, height, leans, is_round)
        nx, ny, nz = local
        normal = torch.stack([axes[i] * nx + axes[i + 3] * ny + axes[i + 6] * nz for i in range(3)])
        facing = -(normal[0] * way[0] + normal[1] * way[1] + normal[2] * way[2])
        return cls(
            x,
            y,
            z,
            face,
            front,
            side,
            height,
            lean_front=leans[0],
            lean_back=leans[1],
            lean_side=leans[2],
            colour=torch.stack(numbers[4:7]),
            trait=torch.stack(numbers[7:11]),
            seed=numbers[11],
            base=numbers[12],
            kind=looks.kind.index_select(0, solid),
            owner=looks.owner.index_select(0, solid),
            normal=normal,
            way=way,
            facing=facing,
            # A pixel covers more of a surface that is seen at an angle.
            footprint=(footprint * facing.clamp(min=0.04).rsqrt()).clamp(min=1e-3),
        )

    def take_slice(self, chosen: slice) -> SolidHits:
        """Cut out a slice of the hits."""
        return SolidHits(**{item.name: getattr(self, item.name)[..., chosen] for item in fields(self)})

    def on(self, *faces: int) -> Tensor:
        """Return 1 where the hit is on one of some faces, else 0."""
        result = self.face == faces[0]
        for face in faces[1:]:
            result = result | (self.face == face)
        return result.float()


def _find_faces(
    x: Tensor, y: Tensor, z: Tensor, front: Tensor, side: Tensor, height: Tensor, leans: list[Tensor], is_round: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Find the face of a tapered box at a place on its surface, and the unit normal in the solid's frame."""
    lf, lb, ls = leans
    inset = side - ls * z
    gaps = (
        (front - x - lf * z).abs_(),
        (front + x - lb * z).abs_(),
        (inset - y).abs_(),
        (inset + y).abs_(),
        (height - z).abs_(),
        z.abs(),
    )
    least = torch.minimum(torch.minimum(gaps[0], gaps[1]), torch.minimum(gaps[2], gaps[3]))
    least = torch.minimum(least, torch.minimum(gaps[4], gaps[5]))
    is_face = [(gap <= least).float() for gap in gaps]
    # On an edge two gaps are equal; the later face counts.
    face = torch.zeros_like(x)
    for number in range(1, 6):
        face = torch.maximum(face, is_face[number] * number)
    nx = is_face[FRONT] - is_face[BACK]
    ny = is_face[LEFT] - is_face[RIGHT]
    nz = (
        is_face[TOP]
        - is_face[BOTTOM]
        + is_face[FRONT] * lf
        + is_face[BACK] * lb
        + (is_face[LEFT] + is_face[RIGHT]) * ls
    )
    if bool(is_round.any()):
        half = height / 2
        nx = torch.lerp(nx, x / (front * front), is_round)
        ny = torch.lerp(ny, y / (side * side), is_round)
        nz = torch.lerp(nz, (z - half) / (half * half), is_round)
    scale = (nx * nx + ny * ny + nz * nz).clamp_(min=1e-18).rsqrt_()
    return face, (nx * scale, ny * scale, nz * scale)
