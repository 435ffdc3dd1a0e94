"""What happens in a scene: where the ego vehicle drives, who else moves or stands, and where all are at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import MultiPoint, Point

from bridgeta_core.geometry import Matrix, rigid
from bridgeta_core.synth.roads import Points, arc_length, at_distance, offset, resample
from bridgeta_core.synth.solids import (
    CAR_COLOURS,
    CLOTH_COLOURS,
    SolidList,
    Solids,
    add_bus,
    add_car,
    add_person,
    add_rider,
    add_truck,
)
from bridgeta_core.synth.town import Town

_STEP = 0.05
_LEAD = 0.5


@dataclass(frozen=True, eq=False)
class Motion:
    """Movement along a path: distance travelled `distance [k]` at times from `-_LEAD` seconds on, `_STEP` apart."""

    path: Points
    distance: NDArray[np.float64]

    def at(self, times: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """x, y and yaw (each `[t]`) at times in seconds since the first keyframe."""
        grid = -_LEAD + _STEP * np.arange(len(self.distance))
        s = np.interp(times, grid, self.distance)
        # A base of 2.4 m, about a wheelbase, rounds off the corners of the sampled path.
        here, ahead, behind = (at_distance(self.path, s + d) for d in (0.0, 1.2, -1.2))
        heading = ahead - behind
        return here[:, 0], here[:, 1], np.arctan2(heading[:, 1], heading[:, 0])

    def speed(self, time: float) -> float:
        """Metres per second."""
        grid = -_LEAD + _STEP * np.arange(len(self.distance))
        return float(
            (np.interp(time + _STEP, grid, self.distance) - np.interp(time - _STEP, grid, self.distance)) / (2 * _STEP)
        )


@dataclass(frozen=True, eq=False)
class Actor:
    """Something that is annotated: nuScenes category, (width, length, height) in metres, its motion, and its kind of
    attribute: `vehicle`, `cycle`, `pedestrian` or `parked`.
    """

    category: str
    size: tuple[float, float, float]
    motion: Motion
    manner: str

    def attribute(self, time: float) -> str:
        """The nuScenes attribute at a time."""
        moving = abs(self.motion.speed(time)) > 0.2
        if self.manner == "parked":
            return "vehicle.parked"
        if self.manner == "cycle":
            return "cycle.with_rider"
        if self.manner == "pedestrian":
            return "pedestrian.moving" if moving else "pedestrian.standing"
        return "vehicle.moving" if moving else "vehicle.stopped"


@dataclass(frozen=True, eq=False)
class Scene:
    """One scene: a town, the ego motion, the actors, and their bodies in their own frames (`Solids.owner` = actor)."""

    index: int
    town: Town
    duration: float
    ego: Motion
    actors: tuple[Actor, ...]
    bodies: Solids
    sun: tuple[float, float]
    _tracks: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.ego.distance)
        times = -_LEAD + _STEP * np.arange(count)
        tracks = np.zeros((3, len(self.actors), count))
        for i, actor in enumerate(self.actors):
            tracks[:, i] = actor.motion.at(times)
        tracks[2] = np.unwrap(tracks[2], axis=-1)
        object.__setattr__(self, "_tracks", tracks)

    def ego_pose(self, time: float) -> Matrix:
        """global_T_ego at seconds since the first keyframe."""
        x, y, yaw = self.ego.at(np.array([time]))
        return rigid((x[0], y[0], 0.0), (math.cos(yaw[0] / 2), 0.0, 0.0, math.sin(yaw[0] / 2)))

    def poses(self, time: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """x, y and yaw of all actors, each `[actors]`."""
        place = float(np.clip((time + _LEAD) / _STEP, 0, self._tracks.shape[-1] - 1.001))
        index = int(place)
        share = place - index
        x, y, yaw = (1 - share) * self._tracks[..., index] + share * self._tracks[..., index + 1]
        return x, y, yaw

    def description(self) -> str:
        """A line about the scene, as the scene table holds."""
        moving = sum(a.manner == "vehicle" for a in self.actors)
        people = sum(a.manner == "pedestrian" for a in self.actors)
        travelled = self.ego.distance[-1] - self.ego.distance[0]
        ego = "Waiting" if travelled < 1 else "Driving"
        _x, _y, yaw = self.ego.at(np.array([0.0, self.duration]))
        turned = math.degrees((yaw[1] - yaw[0] + math.pi) % (2 * math.pi) - math.pi)
        way = "turn left" if turned > 40 else "turn right" if turned < -40 else "straight"
        return f"{ego}, {way}, {moving} vehicles in traffic, {people} pedestrians, synthetic"


def _profile(
    path: Points,
    start: float,
    duration: float,
    cruise: float,
    first: float,
    standing: float = 0.0,
) -> NDArray[np.float64]:
    """Distances along a path over time: slower in bends (2 m/s2 sideways), changes of speed within 1.6 m/s2.

    `first` is the speed at the start and `standing` how long to wait before driving off.
    """
    s = arc_length(path)
    ahead = at_distance(path, s + 2.0) - path
    heading = np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0]))
    curvature = np.abs(np.gradient(heading, np.maximum(s, 1e-9) + np.arange(len(s)) * 1e-9))
    limit = np.minimum(cruise, np.sqrt(2.0 / np.maximum(curvature, 1e-3)))
    for i in range(len(s) - 2, -1, -1):
        limit[i] = min(limit[i], math.sqrt(limit[i + 1] ** 2 + 2 * 1.6 * (s[i + 1] - s[i])))
    count = math.ceil((duration + 2 * _LEAD) / _STEP) + 1
    distance, speed = np.empty(count), min(first, float(np.interp(start, s, limit)))
    here = start
    for i in range(count):
        distance[i] = here
        if i * _STEP < standing + (_LEAD if standing else 0):
            speed = 0.0
            continue
        wanted = float(np.interp(here, s, limit))
        speed += float(np.clip(wanted - speed, -4.0 * _STEP, 1.6 * _STEP))
        here += speed * _STEP
    return distance


def build_scene(town: Town, seed: int, index: int, duration: float) -> Scene:
    """The scene `index` of a seed in its town; equal arguments give an equal scene."""
    rng = np.random.default_rng([seed, 2, index])
    network = town.network
    ego = _ego(town, rng, duration)
    times = np.arange(-_LEAD, duration + _LEAD, 0.25)
    x, y, yaw = ego.at(times)
    # The origin is the rear axle; the car's middle lies 1.3 m before it.
    ego_track = np.stack((x + 1.3 * np.cos(yaw), y + 1.3 * np.sin(yaw)), axis=1)
    centre = ego_track[len(ego_track) // 2]

    actors: list[Actor] = []
    bodies = SolidList()
    tracks: list[tuple[Points, float]] = [(ego_track, 2.6)]

    def accept(actor: Actor, radius: float) -> bool:
        ax, ay, _ = actor.motion.at(times)
        track = np.stack((ax, ay), axis=1)
        for other, other_radius in tracks:
            if np.linalg.norm(track - other, axis=1).min() < radius + other_radius:
                return False
        tracks.append((track, radius))
        actors.append(actor)
        return True

    roads = [r for r in network.roads if np.linalg.norm(r.centre - centre, axis=1).min() < 110]
    target = int(rng.integers(14, 38))
    for _ in range(4 * target):
        if len(actors) >= target:
            break
        road = roads[int(rng.integers(len(roads)))]
        ahead = bool(rng.random() < 0.5)
        lane = int(rng.integers(road.lanes(ahead)))
        path = network.route(road.index, ahead, lane, 25 * duration + 60, rng)
        start = float(rng.uniform(3, road.length - sum(road.trim) - 4))
        waits = rng.random() < 0.3
        kind = rng.choice(["car", "truck", "bus", "cycle"], p=[0.76, 0.1, 0.05, 0.09])
        cruise = float(rng.uniform(5, 13)) if kind != "cycle" else float(rng.uniform(3, 7))
        standing = duration + 2 if waits else 0.0
        motion = Motion(path, _profile(path, start, duration, cruise, cruise, standing))
        _traffic(kind, motion, len(actors), rng, accept, bodies)
    for bay in town.bays:
        if rng.random() < 0.55 and np.hypot(bay.x - centre[0], bay.y - centre[1]) < 100:
            size = _car_size(rng)
            actors.append(_parked(bay.x, bay.y, bay.yaw, size, duration))
            colour = CAR_COLOURS[int(rng.integers(len(CAR_COLOURS)))]
            add_car(bodies, len(actors) - 1, (size[1], size[0], size[2]), colour, int(rng.integers(1 << 16)))
    paths = [p for p in town.footpaths if np.linalg.norm(p - centre, axis=1).min() < 80]
    for _ in range(int(rng.integers(6, 26)) if paths else 0):
        path = paths[int(rng.integers(len(paths)))]
        path = path if rng.random() < 0.5 else path[::-1]
        path = resample(offset(path, float(rng.uniform(-0.6, 0.6))), 0.5)
        pace = 0.0 if rng.random() < 0.2 else float(rng.uniform(0.8, 1.7))
        room = arc_length(path)[-1] - pace * (duration + 2 * _LEAD)
        if room < 4:
            continue
        start = float(rng.uniform(2, room))
        distance = start + pace * _STEP * np.arange(math.ceil((duration + 2 * _LEAD) / _STEP) + 1)
        height = round(float(rng.uniform(1.55, 1.9)), 3)
        actor = Actor("human.pedestrian.adult", (0.66, 0.7, height), Motion(path, distance), "pedestrian")
        if accept(actor, 0.4):
            colour = CLOTH_COLOURS[int(rng.integers(len(CLOTH_COLOURS)))]
            add_person(bodies, len(actors) - 1, (0.7, 0.66, height), colour, int(rng.integers(1 << 16)))
    sun = (float(rng.uniform(0, 2 * math.pi)), math.radians(float(rng.uniform(32, 62))))
    return Scene(index, town, duration, ego, tuple(actors), bodies.build(), sun)


def _ego(town: Town, rng: np.random.Generator, duration: float) -> Motion:
    network = town.network
    # From the town's rim half of what the cameras see would be country.
    outline = MultiPoint(network.nodes).convex_hull
    inner = [r for r in network.roads if outline.exterior.distance(Point(r.centre[len(r.centre) // 2])) > 45]
    road = inner[int(rng.integers(len(inner)))]
    ahead = bool(rng.random() < 0.5)
    path = network.route(road.index, ahead, int(rng.integers(road.lanes(ahead))), 14 * duration + 60, rng)
    start = float(rng.uniform(6, max(8.0, road.length - sum(road.trim) - 8)))
    cruise = float(rng.uniform(6, 12))
    mood = rng.random()
    standing = duration + 2 if mood < 0.07 else float(rng.uniform(0.5, 2.5)) if mood < 0.18 else 0.0
    return Motion(path, _profile(path, start, duration, cruise, cruise, standing))


def _car_size(rng: np.random.Generator) -> tuple[float, float, float]:
    """(width, length, height)."""
    return (
        round(float(rng.uniform(1.75, 2.0)), 3),
        round(float(rng.uniform(4.1, 5.0)), 3),
        round(float(rng.uniform(1.42, 1.85)), 3),
    )


def _traffic(
    kind: str,
    motion: Motion,
    owner: int,
    rng: np.random.Generator,
    accept: Callable[[Actor, float], bool],
    bodies: SolidList,
) -> None:
    colour = CAR_COLOURS[int(rng.integers(len(CAR_COLOURS)))]
    seed = int(rng.integers(1 << 16))
    if kind == "car":
        size, category, add, manner, radius = _car_size(rng), "vehicle.car", add_car, "vehicle", 2.5
    elif kind == "truck":
        size = (2.4, round(float(rng.uniform(6, 8.5)), 3), round(float(rng.uniform(2.8, 3.5)), 3))
        category, add, manner, radius = "vehicle.truck", add_truck, "vehicle", 4.0
    elif kind == "bus":
        size = (2.6, round(float(rng.uniform(10.5, 12)), 3), round(float(rng.uniform(3.0, 3.4)), 3))
        category, add, manner, radius = "vehicle.bus.rigid", add_bus, "vehicle", 5.6
    else:
        category = "vehicle.bicycle" if rng.random() < 0.6 else "vehicle.motorcycle"
        size, add, manner, radius = (0.62, 1.8, 1.72), add_rider, "cycle", 1.2
    if accept(Actor(category, size, motion, manner), radius):
        add(bodies, owner, (size[1], size[0], size[2]), colour, seed)


def _parked(x: float, y: float, yaw: float, size: tuple[float, float, float], duration: float) -> Actor:
    direction = np.array((math.cos(yaw), math.sin(yaw)))
    path = np.array((x, y)) + np.array([[-3.0], [3.0]]) * direction
    distance = np.full(math.ceil((duration + 2 * _LEAD) / _STEP) + 1, 3.0)
    return Actor("vehicle.car", size, Motion(path, distance), "parked")
