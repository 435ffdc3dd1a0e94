"""Pedestrians: on footpaths, alone or in company, and over crossings, for which traffic waits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bridgeta_core.utils.arrays import Floats
from bridgeta_synth.traffic.actors import Actor, Admit, Draft, draft_actor
from bridgeta_synth.traffic.motion import Motion
from bridgeta_synth.world.streets.shapes import Points, arc_length, at_distance
from bridgeta_synth.world.town.town import Town

_ROW = 1.4  # metres between rows of people who cross
_WAITING_GAP = 0.7  # metres from the kerb at which people wait to cross
_BASE = 0.5  # metres of a path that decide about a heading


@dataclass(frozen=True, eq=False)
class Crossing:
    """People who cross a street along `path [n, 2]` at `pace` m/s.

    Between distances `enter` and `leave` they are on the carriageway. Traffic gives way from time `since` to `until`.
    """

    path: Points
    enter: float
    leave: float
    pace: float
    since: float
    until: float

    @property
    def line(self) -> Points:
        """The two points at the kerbs, `[2, 2]`."""
        return at_distance(self.path, np.array([self.enter, self.leave]))


def plan_crossings(town: Town, track: Points, count: int, duration: float, rng: np.random.Generator) -> list[Crossing]:
    """Plan when people walk over up to `count` crossings near the `track [n, 2]` of the ego vehicle."""
    middles = np.array([line.mean(axis=0) for line in town.crossings]).reshape(-1, 2)
    near = [k for k in range(len(middles)) if np.linalg.norm(track - middles[k], axis=1).min() < 45]
    chosen = [near[k] for k in rng.permutation(len(near))[:count]]
    result = []
    for index in chosen:
        line = town.crossings[index] if rng.random() < 0.5 else town.crossings[index][::-1]
        length = float(arc_length(line)[-1])
        pace = float(rng.uniform(1.1, 1.6))
        begin = float(rng.uniform(-3.0, max(1.0, duration - 4.0)))
        before, after = (_follow_footpath(town, end, rng) for end in (line[0], line[-1]))
        path = np.concatenate((before[::-1], line, after))
        enter = float(arc_length(np.concatenate((before[::-1], line[:1])))[-1])
        result.append(Crossing(path, enter, enter + length, pace, begin - 1.0, begin + length / pace + 1.5))
    return result


def _follow_footpath(town: Town, end: Points, rng: np.random.Generator) -> Points:
    """Return a path from a crossing's end along the nearest footpath, `[n, 2]`, at most 25 m; empty without one."""
    best: tuple[float, Points] | None = None
    for path in town.footpaths:
        # Skip footpaths that are far away, as most are.
        if abs(path[0, 0] - end[0]) > 150 or abs(path[0, 1] - end[1]) > 150:
            continue
        distance = np.linalg.norm(path - end, axis=1)
        index = int(distance.argmin())
        if distance[index] < 6.0 and (best is None or distance[index] < best[0]):
            ways = [way for way in (path[index:][:26], path[: index + 1][::-1][:26]) if len(way) > 4]
            if ways:
                best = float(distance[index]), ways[int(rng.integers(len(ways)))]
    return best[1] if best else np.zeros((0, 2))


def add_crossing_people(crossing: Crossing, times: Floats, rng: np.random.Generator, wet: bool, admit: Admit) -> None:
    """Add people who come to a crossing, wait, walk over it, and walk on as far as there is a footpath."""
    count = 1 + int(rng.poisson(1.4))
    end, depth = float(arc_length(crossing.path)[-1]), _ROW * ((count - 1) // 3)
    go = crossing.since + 1.0
    walked = np.maximum(times - go, 0.0) * crossing.pace
    # Before that they walk to the crossing, from as far back as the path reaches.
    came = np.minimum(times - go + float(rng.uniform(1.0, 8.0)), 0.0) * crossing.pace
    front = np.clip(crossing.enter - _WAITING_GAP + walked + came, min(depth, end), end)
    for number in range(count):
        column, row = number % 3, number // 3
        distance = front - _ROW * row
        draft = _draft_walker(rng, wet)
        for shift in rng.uniform(-0.04, 0.04, 3) + np.array((0.0, 0.4, -0.4)):
            lateral = float((0.0, 1.3, -1.3)[column] + shift)
            actor = draft.with_motion(Motion.along(crossing.path, distance, _BASE, lateral))
            if admit([actor]):
                break


def add_passers_by(
    town: Town,
    track: Points,
    count: int,
    times: Floats,
    rng: np.random.Generator,
    wet: bool,
    admit: Admit,
) -> None:
    """Add about `count` people on footpaths near a `track [n, 2]`: walking, standing in groups, sitting."""
    near: list[Points] = []
    weight: list[float] = []
    for path in town.footpaths:
        distance = np.linalg.norm(path[::4, None] - track[::8], axis=-1).min(axis=1)
        if distance.min() < 65 and len(path) > 8:
            near.append(path)
            # A soft count of the points near the track.
            weight.append(float((np.exp(-distance / 30)).sum()))
    if not near:
        return
    people = 0
    share = np.array(weight) / np.sum(weight)
    for _ in range(4 * count):
        if people >= count:
            break
        path = near[int(rng.choice(len(near), p=share))]
        kind = rng.random()
        if kind < 0.16:
            company = _draw_group(path, rng, wet)
        elif kind < 0.2:
            company = _draw_sitter(path, rng)
        else:
            company = _draw_walkers(path, times, rng, wet)
        if company and admit(company):
            people += len(company)


def _draft_walker(rng: np.random.Generator, wet: bool) -> Draft:
    return draft_actor("umbrella" if wet and rng.random() < 0.45 else "walker", rng)


def _draw_walkers(path: Points, times: Floats, rng: np.random.Generator, wet: bool) -> list[Actor]:
    """Draw one or more people who walk together along a path; some stop on the way."""
    path = path if rng.random() < 0.5 else path[::-1]
    length = float(arc_length(path)[-1])
    kind = rng.random()
    if kind < 0.04:
        pace, names, places = float(rng.uniform(2.2, 4.0)), ["scooter rider"], [(0.0, 0.0)]
    elif kind < 0.10:
        pace, names, places = float(rng.uniform(0.9, 1.3)), ["walker", "stroller"], [(0.0, 0.0), (1.12, 0.0)]
    elif kind < 0.18:
        pace, names, places = float(rng.uniform(0.8, 1.2)), ["walker", "child"], [(0.0, 0.42), (0.05, -0.35)]
    elif kind < 0.42:
        pace, names, places = float(rng.uniform(0.9, 1.5)), ["walker", "walker"], [(0.0, 0.44), (0.1, -0.44)]
    else:
        pace, names, places = float(rng.uniform(0.9, 1.7)), ["walker"], [(0.0, 0.0)]
    walked = pace * (times - times[0])
    if rng.random() < 0.12:
        walked = np.minimum(walked, float(rng.uniform(0.0, 0.8)) * walked[-1])
    room = length - walked[-1] - 2.0
    if room <= 1.0:
        return []
    # Most stay on the right, so that people who meet pass each other.
    start, aside = float(rng.uniform(1.0, room)), float(rng.uniform(-0.9, 0.1))
    result = []
    for name, (ahead, left) in zip(names, places, strict=True):
        draft = _draft_walker(rng, wet and len(names) == 1) if name == "walker" else draft_actor(name, rng)
        result.append(draft.with_motion(Motion.along(path, start + ahead + walked, _BASE, aside + left)))
    return result


def _draw_group(path: Points, rng: np.random.Generator, wet: bool) -> list[Actor]:
    """Draw one to five people who stand around a place and face each other."""
    x, y = _draw_place(path, rng, 0.9)
    count = 1 + int(rng.integers(0, 5)) * int(rng.random() < 0.6)
    radius = 0.0 if count == 1 else max(0.5, 0.2 * count)
    first = float(rng.uniform(0, 2 * math.pi))
    result = []
    for number in range(count):
        angle = first + 2 * math.pi * number / count
        spot = x + radius * math.cos(angle), y + radius * math.sin(angle)
        yaw = angle + math.pi + float(rng.normal(0, 0.3))
        draft = draft_actor("officer" if rng.random() < 0.01 else "umbrella" if wet and count == 1 else "stander", rng)
        result.append(draft.with_motion(Motion.still(*spot, yaw)))
    return result


def _draw_sitter(path: Points, rng: np.random.Generator) -> list[Actor]:
    index = int(rng.integers(2, len(path) - 2))
    heading = path[index + 1] - path[index - 1]
    yaw = math.atan2(heading[1], heading[0]) + math.pi / 2 * (1 if rng.random() < 0.5 else -1)
    x, y = path[index] - 0.5 * np.array((math.cos(yaw), math.sin(yaw)))
    return [draft_actor("sitter", rng).with_motion(Motion.still(float(x), float(y), yaw))]


def _draw_place(path: Points, rng: np.random.Generator, aside: float) -> tuple[float, float]:
    index = int(rng.integers(1, len(path) - 1))
    heading = path[index + 1] - path[index - 1]
    heading = heading / np.linalg.norm(heading)
    x, y = path[index] + float(rng.uniform(-aside, aside)) * np.array((-heading[1], heading[0]))
    return float(x), float(y)
