"""Actors beside the traffic: parked vehicles, bicycle racks, bins, rows of barriers and construction sites."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import shapely

from bridgeta_synth.traffic.actors import Actor, draft_actor
from bridgeta_synth.traffic.motion import Motion
from bridgeta_synth.world.streets.kerbside import Bay
from bridgeta_synth.world.streets.shapes import Points, arc_length, at_distance, offset
from bridgeta_synth.world.town.town import Town

_BETWEEN = 0.25  # metres between the barriers of a row
_CLEAR = 3.5  # metres around crossings that stay free
_PARKED = ("saloon", "hatchback", "suv", "van", "pickup", "box truck", "motorcycle")
_KERBSIDE = np.array((0.30, 0.24, 0.24, 0.11, 0.05, 0.03, 0.03))
_OFF_ROAD = np.array((0.36, 0.27, 0.26, 0.07, 0.03, 0.0, 0.01))


def park_vehicles(town: Town, track: Points, share: float, reach: float, rng: np.random.Generator) -> list[Actor]:
    """Park vehicles in a `share` of the bays within `reach` metres of a `track [n, 2]`; rows differ in their share."""
    places = np.array([(bay.x, bay.y) for bay in town.bays]).reshape(-1, 2)
    if not len(places):
        return []
    distance = np.min([np.hypot(*(places - spot).T) for spot in track[::8]], axis=0)
    result = []
    # Bays are listed row by row.
    favour = np.repeat(rng.uniform(-0.3, 0.3, len(places) // 12 + 1), 12)
    for index in np.flatnonzero(distance < reach):
        bay = town.bays[index]
        if rng.random() < share + favour[index]:
            result.append(_park_vehicle(bay, rng))
    return result


def _park_vehicle(bay: Bay, rng: np.random.Generator) -> Actor:
    draft = draft_actor(str(rng.choice(_PARKED, p=_KERBSIDE if bay.kerbside else _OFF_ROAD)), rng)
    back = not bay.kerbside and rng.random() < 0.35
    along, across = float(rng.normal(0, 0.18)), float(rng.normal(0, 0.06))
    c, s = math.cos(bay.yaw), math.sin(bay.yaw)
    yaw = bay.yaw + float(rng.normal(0, 0.015)) + (math.pi if back else 0.0)
    motion = Motion.still(bay.x + c * along - s * across, bay.y + s * along + c * across, yaw)
    return draft.with_motion(motion, "riderless" if draft.model.manner == "riderless" else "parked")


def place_street_objects(town: Town, track: Points, share: float, rng: np.random.Generator) -> list[Actor]:
    """Place bicycle racks, bicycles, motorcycles, bins and rows of barriers on footpaths near a track.

    A `share` of the 25 m stretches of footpath has some; crossings stay clear.
    """
    result: list[Actor] = []
    crossings = np.concatenate([np.zeros((0, 2)), *town.crossings])
    for path in town.footpaths:
        s = arc_length(path)
        if s[-1] < 20 or np.linalg.norm(path[::6, None] - track[::12], axis=-1).min() > 50:
            continue
        for begin in np.arange(4.0, s[-1] - 10.0, 25.0).tolist():
            if rng.random() > share or np.linalg.norm(_point_at(path, begin) - track[::6], axis=-1).min() > 50:
                continue
            objects = _place_objects(path, begin + float(rng.uniform(0, 10)), rng)
            places = np.array([(a.motion.x[0], a.motion.y[0]) for a in objects]).reshape(-1, 2)
            free = np.linalg.norm(places[:, None] - crossings, axis=-1).min(axis=1, initial=np.inf) > _CLEAR
            result += [actor for actor, stays in zip(objects, free, strict=True) if stays]
    return result


def _place_objects(path: Points, start: float, rng: np.random.Generator) -> list[Actor]:
    """Place some objects of one kind beside a path, from a distance on."""
    kind = rng.random()
    side = 1.0 if rng.random() < 0.5 else -1.0
    if kind < 0.22:
        return [draft_actor("bicycle rack", rng).with_motion(Motion.still(*_pose_beside(path, start, side * 0.6)))]
    result = []
    if kind < 0.5:
        for number in range(1 + int(rng.integers(4))):
            x, y, yaw = _pose_beside(path, start + 1.0 * number, side * 0.7)
            name = "bicycle" if rng.random() < 0.7 else "motorcycle"
            draft = draft_actor(name, rng)
            result.append(draft.with_motion(Motion.still(x, y, yaw + float(rng.normal(math.pi / 2, 0.12)))))
        return result
    if kind < 0.74:
        for number in range(1 + int(rng.integers(3))):
            x, y, yaw = _pose_beside(path, start + 1.0 * number, side * 0.8)
            draft = draft_actor("bin", rng)
            result.append(draft.with_motion(Motion.still(x, y, yaw + float(rng.normal(math.pi / 2, 0.2)))))
        return result
    return _place_barriers(path, start, side * 0.9, int(rng.integers(4, 14)), rng)


def _point_at(path: Points, s: float) -> Points:
    return at_distance(path, np.array([s]))[0]


def _pose_beside(path: Points, s: float, lateral: float) -> tuple[float, float, float]:
    """Return x, y and the heading of a path at a distance along it and `lateral` metres to its left."""
    before, after = at_distance(path, np.array([s - 0.5, s + 0.5]))
    way = (after - before) / max(float(np.linalg.norm(after - before)), 1e-9)
    x, y = 0.5 * (before + after) + lateral * np.array((-way[1], way[0]))
    return float(x), float(y), math.atan2(way[1], way[0])


def _place_barriers(path: Points, start: float, lateral: float, count: int, rng: np.random.Generator) -> list[Actor]:
    """Place barriers end to end along a path, all of one kind."""
    name = "jersey barrier" if rng.random() < 0.6 else "board barrier"
    pattern = draft_actor(name, rng)
    second = draft_actor(name, rng).colour if rng.random() < 0.4 else pattern.colour
    pitch, length = pattern.size[0] + _BETWEEN, float(arc_length(path)[-1])
    result = []
    for number in range(count):
        s = start + number * pitch
        if s + pitch > length:
            break
        x, y, yaw = _pose_beside(path, s, lateral + float(rng.normal(0, 0.02)))
        # A barrier is long across its heading, as in nuScenes.
        draft = replace(pattern, colour=second if number % 2 else pattern.colour)
        result.append(draft.with_motion(Motion.still(x, y, yaw + math.pi / 2 + float(rng.normal(0, 0.02)))))
    return result


@dataclass(frozen=True, eq=False)
class Site:
    """A construction site on a lane, from `start` to `end` metres; `side` is +1 where the kerb is on the left."""

    lane: int
    start: float
    end: float
    side: int


def choose_site(town: Town, lanes: list[int], avoid: set[int], track: Points, rng: np.random.Generator) -> Site | None:
    """Choose a stretch of a kerb lane near a track, not among the lanes to `avoid`; None where there is none."""
    side = -town.driving_side
    for lane in rng.permutation(np.array(sorted(set(lanes) - avoid), dtype=np.int64))[:12].tolist():
        points = town.lanes.lanes[lane]
        s = arc_length(points)
        if s[-1] < 36:
            continue
        distance = np.linalg.norm(points[:, None] - track[::8], axis=-1).min(axis=1)
        if not 4.0 < distance.min() < 45.0:
            continue
        length = float(rng.uniform(16, min(34, s[-1] - 16)))
        centre = float(np.clip(s[distance.argmin()], 8 + length / 2, s[-1] - 8 - length / 2))
        edge = [_pose_beside(points, centre + d, side * 3.4)[:2] for d in (-length / 2, 0, length / 2)]
        if not shapely.intersects_xy(town.paved, *np.array(edge).T).any():
            return Site(lane, centre - length / 2, centre + length / 2, side)
    return None


def equip_site(town: Town, site: Site, rng: np.random.Generator) -> list[Actor]:
    """Equip a site with cones or barriers around it, a machine or a truck in it, and workers."""
    path = town.lanes.lanes[site.lane]
    kerb, inner = site.side * 1.3, -site.side * 1.3
    result = []
    machine = str(rng.choice(("loader", "excavator", "tipper", "box truck"), p=(0.35, 0.35, 0.15, 0.15)))
    draft = draft_actor(machine, rng)
    length = site.end - site.start
    reach = 0.5 * draft.size[1] + 5.5
    taken = (site.end, site.end)
    if length > 2 * reach:
        s = site.start + float(rng.uniform(reach, length - reach))
        taken = (s - 0.5 * draft.size[1] - 0.5, s + 0.5 * draft.size[1] + 0.5)
        x, y, yaw = _pose_beside(path, s, site.side * 0.4)
        result.append(draft.with_motion(Motion.still(x, y, yaw + (math.pi if rng.random() < 0.3 else 0.0)), "parked"))
    name = "cone" if rng.random() < 0.75 else "drum"
    taper = 6.0
    # Cones lead from the kerb to the lane's inner edge, along it, and back.
    line = [(site.start, kerb), (site.start + taper, inner), (site.end - 0.5 * taper, inner), (site.end, kerb)]
    spots = np.concatenate([_space_out(a, b, 1.9) for a, b in itertools.pairwise(line)])
    barriers = rng.random() < 0.5
    for s, lateral in spots.tolist():
        straight = site.start + taper < s < site.end - 0.5 * taper
        if barriers and straight:
            continue
        result.append(draft_actor(name, rng).with_motion(Motion.still(*_pose_beside(path, s, lateral))))
    if barriers:
        inside = offset(path, inner)
        count = int((length - 1.5 * taper - 1) / 2.5)
        result += _place_barriers(inside, float(site.start + taper + 1.0), 0.0, count, rng)
    for s in rng.uniform(site.start + 6, site.end - 4, int(rng.integers(1, 6))).tolist():
        if taken[0] < s < taken[1]:
            continue
        x, y, _ = _pose_beside(path, s, float(rng.uniform(-0.6, 0.6)))
        draft = draft_actor("worker", rng)
        result.append(draft.with_motion(Motion.still(x, y, float(rng.uniform(-math.pi, math.pi)))))
    return result


def _space_out(a: tuple[float, float], b: tuple[float, float], step: float) -> Points:
    """Return places (distance, lateral) from `a` to before `b`, about `step` metres apart."""
    count = max(1, round(math.hypot(b[0] - a[0], b[1] - a[1]) / step))
    return np.linspace(a, b, count, endpoint=False)
