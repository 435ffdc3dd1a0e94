"""The lane records of a map expansion: centre lines as arcs, and which lane follows which.

A path is up to three segments, each straight or an arc of the path's radius: Dubins paths, as described by
nuscenes-devkit's `arcline_path_utils`. A lane is a row of paths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bridgeta_synth.world.real.connections import Successors
from bridgeta_synth.world.streets.shapes import Points, resample

_TURNS = {"L": 1.0, "S": 0.0, "R": -1.0}
_SPACING = 1.0
_CONNECTORS = 4  # the longest row of connectors between two lanes


def arc_points(path: Mapping[str, Any], step: float = 0.5) -> Points:
    """Points `[n, 2]` of one arc-line path, at most `step` metres apart, both ends included."""
    x, y, heading = (float(v) for v in path["start_pose"])
    pieces = [np.array([[x, y]])]
    for shape, length in zip(path["shape"], path["segment_length"], strict=True):
        if length < 1e-6:
            continue
        s = np.linspace(0, float(length), math.ceil(length / step) + 1)[1:]
        curvature = _TURNS[shape] / float(path["radius"]) if _TURNS[shape] else 0.0
        if curvature:
            end = heading + curvature * s
            ahead = (np.sin(end) - math.sin(heading)) / curvature
            aside = (math.cos(heading) - np.cos(end)) / curvature
        else:
            end, ahead, aside = np.full(len(s), heading), math.cos(heading) * s, math.sin(heading) * s
        pieces.append(np.stack((x + ahead, y + aside), axis=1))
        (x, y), heading = pieces[-1][-1].tolist(), float(end[-1])
    return np.concatenate(pieces)


def lane_points(paths: list[Mapping[str, Any]]) -> Points:
    """The centre line `[n, 2]` of a lane, points about 1 m apart in the direction of travel."""
    points = np.concatenate([arc_points(path) for path in paths])
    apart = np.linalg.norm(np.diff(points, axis=0), axis=1) > 1e-3
    return resample(points[np.append(True, apart)], _SPACING)


def read_lanes(content: Mapping[str, Any]) -> tuple[list[Points], Successors]:
    """The centre lines of all lanes that have one, and their successors across lane connectors.

    Tokens that the connectivity names and the map does not hold are passed over: real maps have some.
    """
    arcs = content.get("arcline_path_3") or {}
    follows = content.get("connectivity") or {}
    tokens = [record["token"] for record in content.get("lane", []) if arcs.get(record["token"])]
    lanes = [lane_points(arcs[token]) for token in tokens]
    kept = [i for i, points in enumerate(lanes) if len(points) > 1]
    numbers = {tokens[i]: n for n, i in enumerate(kept)}
    lanes = [lanes[i] for i in kept]

    def onward(token: str, way: list[Points], depth: int) -> list[tuple[int, Points]]:
        """The lanes that follow a token, each with the path that leads there after `way`."""
        found: list[tuple[int, Points]] = []
        for following in (follows.get(token) or {}).get("outgoing", []):
            if following in numbers:
                number = numbers[following]
                found.append((number, np.concatenate([*way, lanes[number][:1]])))
            elif depth and arcs.get(following):
                found += onward(following, [*way, lane_points(arcs[following])], depth - 1)
        return found

    successors = []
    for token in numbers:
        last = lanes[numbers[token]][-1:]
        unique: dict[int, Points] = {}
        for number, path in onward(token, [last], _CONNECTORS):
            unique.setdefault(number, path)
        successors.append(tuple(sorted(unique.items())))
    return lanes, tuple(successors)
