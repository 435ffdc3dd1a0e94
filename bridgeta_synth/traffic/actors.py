"""Actors, which are annotated: categories, sizes and manners of vehicles, people and objects, as in nuScenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bridgeta_synth.traffic.bodies import people, vehicles
from bridgeta_synth.traffic.bodies.vehicles import Body, Builder
from bridgeta_synth.traffic.motion import Motion
from bridgeta_synth.world.solids import Colour, SolidList

Span = tuple[float, float]

_MOVING = 0.2  # m/s; anything slower counts as standing

_CAR_COLOURS: tuple[Colour, ...] = (
    *((0.85, 0.86, 0.88),) * 4,
    *((0.12, 0.12, 0.13),) * 3,
    *((0.55, 0.57, 0.60),) * 3,
    *((0.33, 0.35, 0.38),) * 2,
    (0.52, 0.08, 0.08),
    (0.10, 0.20, 0.42),
    (0.24, 0.36, 0.52),
    (0.80, 0.78, 0.70),
    (0.18, 0.30, 0.22),
    (0.78, 0.55, 0.12),
    (0.42, 0.30, 0.22),
)
_CLOTHES: tuple[Colour, ...] = (
    (0.15, 0.17, 0.25),
    (0.55, 0.15, 0.15),
    (0.75, 0.72, 0.68),
    (0.2, 0.35, 0.5),
    (0.25, 0.25, 0.25),
    (0.5, 0.45, 0.2),
    (0.82, 0.82, 0.84),
    (0.1, 0.1, 0.12),
    (0.3, 0.42, 0.3),
    (0.7, 0.42, 0.5),
)
_TRUCKS: tuple[Colour, ...] = ((0.85, 0.86, 0.88), (0.14, 0.24, 0.46), (0.55, 0.1, 0.1), (0.3, 0.32, 0.34))
_BUSES: tuple[Colour, ...] = ((0.82, 0.82, 0.8), (0.62, 0.12, 0.1), (0.16, 0.42, 0.25), (0.85, 0.62, 0.15))
_WHITE: tuple[Colour, ...] = ((0.88, 0.88, 0.88),)
_BARRIERS: tuple[Colour, ...] = ((0.62, 0.61, 0.58), (0.82, 0.16, 0.1), (0.88, 0.88, 0.86), (0.92, 0.45, 0.08))


@dataclass(frozen=True)
class Model:
    """A kind of actor: nuScenes category, manner, ranges of width, length and height in metres, body and colours.

    `axles` holds the distance between axles and between wheels as shares of length and width; an actor without it
    stands upright on the ground.
    """

    category: str
    manner: str
    width: Span
    length: Span
    height: Span
    build: Builder
    colours: tuple[Colour, ...]
    axles: tuple[float, float] | None = None


_CAR = (0.6, 0.86)
_CYCLE = (0.62, 0.3)

MODELS: dict[str, Model] = {
    "saloon": Model(
        "vehicle.car", "vehicle", (1.75, 1.92), (4.4, 5.0), (1.40, 1.52), vehicles.saloon, _CAR_COLOURS, _CAR
    ),
    "hatchback": Model(
        "vehicle.car", "vehicle", (1.65, 1.85), (3.6, 4.4), (1.45, 1.58), vehicles.hatchback, _CAR_COLOURS, _CAR
    ),
    "suv": Model("vehicle.car", "vehicle", (1.82, 2.02), (4.3, 5.1), (1.62, 1.86), vehicles.suv, _CAR_COLOURS, _CAR),
    "van": Model("vehicle.car", "vehicle", (1.85, 2.05), (4.5, 5.6), (1.85, 2.3), vehicles.van, _CAR_COLOURS, _CAR),
    "pickup": Model(
        "vehicle.truck", "vehicle", (1.9, 2.05), (5.2, 5.9), (1.78, 1.95), vehicles.pickup, _CAR_COLOURS, _CAR
    ),
    "police": Model(
        "vehicle.emergency.police", "vehicle", (1.85, 1.98), (4.7, 5.1), (1.6, 1.72), vehicles.patrol_car, _WHITE, _CAR
    ),
    "ambulance": Model(
        "vehicle.emergency.ambulance", "vehicle", (2.1, 2.3), (5.8, 6.6), (2.6, 2.8), vehicles.ambulance, _WHITE, _CAR
    ),
    "box truck": Model(
        "vehicle.truck", "vehicle", (2.2, 2.5), (5.8, 8.8), (2.7, 3.6), vehicles.box_truck, _TRUCKS, _CAR
    ),
    "tipper": Model("vehicle.truck", "vehicle", (2.4, 2.5), (7.2, 9.0), (2.9, 3.3), vehicles.tipper, _TRUCKS, _CAR),
    "trailer": Model("vehicle.trailer", "vehicle", (2.4, 2.5), (6.5, 9.5), (3.0, 3.7), vehicles.trailer, _TRUCKS, _CAR),
    "bus": Model(
        "vehicle.bus.rigid", "vehicle", (2.5, 2.6), (9.5, 12.2), (2.9, 3.4), vehicles.bus, _BUSES, (0.54, 0.86)
    ),
    "double-decker": Model(
        "vehicle.bus.rigid", "vehicle", (2.5, 2.55), (10.2, 11.5), (4.2, 4.4), vehicles.bus, _BUSES, (0.54, 0.86)
    ),
    "bendy bus": Model(
        "vehicle.bus.bendy", "vehicle", (2.5, 2.55), (8.2, 9.6), (3.0, 3.2), vehicles.bus, _BUSES, (0.54, 0.86)
    ),
    "loader": Model(
        "vehicle.construction", "vehicle", (2.2, 2.6), (6.0, 7.5), (2.8, 3.3), vehicles.loader, _TRUCKS, (0.44, 0.8)
    ),
    "excavator": Model(
        "vehicle.construction", "vehicle", (2.3, 2.7), (6.0, 7.6), (2.9, 3.4), vehicles.excavator, _TRUCKS, (0.44, 0.8)
    ),
    "motorcycle": Model(
        "vehicle.motorcycle",
        "riderless",
        (0.7, 0.85),
        (1.9, 2.2),
        (1.05, 1.2),
        people.motorcycle,
        _CAR_COLOURS,
        _CYCLE,
    ),
    "motorcyclist": Model(
        "vehicle.motorcycle",
        "ridden",
        (0.74, 0.86),
        (1.95, 2.25),
        (1.5, 1.68),
        people.motorcycle_rider,
        _CAR_COLOURS,
        _CYCLE,
    ),
    "bicycle": Model(
        "vehicle.bicycle", "riderless", (0.5, 0.62), (1.65, 1.85), (1.0, 1.1), people.bicycle, _CAR_COLOURS, _CYCLE
    ),
    "cyclist": Model(
        "vehicle.bicycle", "ridden", (0.56, 0.66), (1.68, 1.85), (1.62, 1.82), people.bicycle_rider, _CLOTHES, _CYCLE
    ),
    "scooter rider": Model(
        "human.pedestrian.personal_mobility",
        "ridden",
        (0.5, 0.6),
        (1.1, 1.25),
        (1.75, 1.95),
        people.scooter_rider,
        _CLOTHES,
    ),
    "walker": Model(
        "human.pedestrian.adult", "pedestrian", (0.5, 0.66), (0.7, 0.92), (1.55, 1.9), people.walker, _CLOTHES
    ),
    "stander": Model(
        "human.pedestrian.adult", "pedestrian", (0.5, 0.66), (0.38, 0.5), (1.55, 1.9), people.stander, _CLOTHES
    ),
    "umbrella": Model(
        "human.pedestrian.adult", "pedestrian", (0.95, 1.1), (0.95, 1.1), (1.85, 2.1), people.umbrella, _CLOTHES
    ),
    "sitter": Model(
        "human.pedestrian.adult", "sitting", (0.8, 1.4), (0.78, 0.9), (1.22, 1.36), people.sitter, _CLOTHES
    ),
    "child": Model(
        "human.pedestrian.child", "pedestrian", (0.36, 0.46), (0.5, 0.6), (1.0, 1.35), people.walker, _CLOTHES
    ),
    "worker": Model(
        "human.pedestrian.construction_worker",
        "pedestrian",
        (0.55, 0.7),
        (0.4, 0.52),
        (1.68, 1.92),
        people.worker,
        _CLOTHES,
    ),
    "officer": Model(
        "human.pedestrian.police_officer",
        "pedestrian",
        (0.55, 0.68),
        (0.4, 0.5),
        (1.68, 1.9),
        people.stander,
        ((0.08, 0.1, 0.2),),
    ),
    "stroller": Model(
        "human.pedestrian.stroller", "object", (0.55, 0.62), (0.85, 1.0), (0.98, 1.1), people.stroller, _CLOTHES
    ),
    "cone": Model(
        "movable_object.trafficcone", "object", (0.34, 0.44), (0.34, 0.44), (0.65, 0.95), people.cone, _BARRIERS
    ),
    "drum": Model("movable_object.trafficcone", "object", (0.52, 0.6), (0.52, 0.6), (1.0, 1.1), people.drum, _BARRIERS),
    "jersey barrier": Model(
        "movable_object.barrier", "object", (1.6, 2.4), (0.48, 0.6), (0.8, 1.05), people.jersey_barrier, _BARRIERS
    ),
    "board barrier": Model(
        "movable_object.barrier", "object", (1.7, 2.3), (0.45, 0.6), (0.98, 1.1), people.board_barrier, _BARRIERS[1:]
    ),
    "bicycle rack": Model(
        "static_object.bicycle_rack", "object", (1.8, 4.4), (1.72, 1.85), (1.02, 1.1), people.bicycle_rack, _TRUCKS
    ),
    "bin": Model(
        "movable_object.pushable_pullable",
        "object",
        (0.55, 0.65),
        (0.6, 0.75),
        (1.0, 1.15),
        people.wheeled_bin,
        ((0.15, 0.3, 0.2), (0.14, 0.15, 0.17), (0.2, 0.28, 0.42)),
    ),
    "debris": Model("movable_object.debris", "object", (0.4, 0.7), (0.4, 0.7), (0.3, 0.5), people.debris, _TRUCKS),
}


@dataclass(frozen=True, eq=False)
class Actor:
    """Something that is annotated: a nuScenes category, (width, length, height) in metres, and a motion.

    The motion is that of the point on the ground below the middle. `manner` says which attributes the actor takes:
    `vehicle`, `parked`, `ridden`, `riderless` (a cycle without a rider), `pedestrian`, `sitting` or `object`. `colour`
    and `seed` vary its body. Actors of one `party`, such as a truck and its trailer, stay together.
    """

    category: str
    size: tuple[float, float, float]
    motion: Motion
    manner: str
    model: Model
    colour: Colour
    seed: int
    party: int = -1

    def attribute(self, time: float) -> str | None:
        """Return the nuScenes attribute at a time; None for objects, which have none."""
        if self.manner in _ATTRIBUTES:
            return _ATTRIBUTES[self.manner]
        moving = self.motion.speed(time) > _MOVING
        if self.manner == "pedestrian":
            return "pedestrian.moving" if moving else "pedestrian.standing"
        return "vehicle.moving" if moving else "vehicle.stopped"

    @property
    def is_still(self) -> bool:
        """Whether it never moves."""
        return self.motion.is_still

    def add_body(self, into: SolidList, owner: int) -> None:
        """Add its solids, in its own frame, as those of actor `owner`."""
        width, length, height = self.size
        self.model.build(Body(into, owner, self.seed), (length, width, height), self.colour)


# Admits actors to a scene, all of them or none, and returns whether there was room.
Admit = Callable[[list[Actor]], bool]

_ATTRIBUTES: dict[str, str | None] = {
    "parked": "vehicle.parked",
    "ridden": "cycle.with_rider",
    "riderless": "cycle.without_rider",
    "sitting": "pedestrian.sitting_lying_down",
    "object": None,
}


@dataclass(frozen=True, eq=False)
class Draft:
    """An actor without a motion: a model, a size, a colour and a seed."""

    model: Model
    size: tuple[float, float, float]
    colour: Colour
    seed: int

    def with_motion(self, motion: Motion, manner: str | None = None, party: int = -1) -> Actor:
        """Return the actor with a motion; `manner` replaces the model's."""
        model = self.model
        manner = manner or model.manner
        return Actor(model.category, self.size, motion, manner, model, self.colour, self.seed, party)


def draft_actor(name: str, rng: np.random.Generator) -> Draft:
    """Draw size and looks of an actor of the model `name`."""
    model = MODELS[name]
    width, length, height = (round(float(rng.uniform(*span)), 3) for span in (model.width, model.length, model.height))
    colour = model.colours[int(rng.integers(len(model.colours)))]
    return Draft(model, (width, length, height), colour, int(rng.integers(1 << 16)))
