"""Lanes recorded in a map expansion: centre lines as arc-line paths, and which lane follows which.

A path has up to three segments, each straight or an arc of the path's radius: a Dubins path as in nuscenes-devkit's
`arcline_path_utils`. A lane is a sequence of paths.
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
_CONNECTORS = 4  # most connectors in a row between two lanes


def arc_points(path: Mapping[str, Any], step: float = 0.5) -> Points:
    """Sample one arc-line path: points `[n, 2]`, at most `step` metres apart, both ends included."""
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
    """Sample the centre line `[n, 2]` of a lane: points about 1 m apart in the direction of travel."""
    points = np.concatenate([arc_points(path) for path in paths])
    apart = np.linalg.norm(np.diff(points, axis=0), axis=1) > 1e-3
    return resample(points[np.append(True, apart)], _SPACING)


def read_lanes(content: Mapping[str, Any]) -> tuple[list[Points], Successors]:
    """Read the centre lines of all lanes that have one, and their successors across lane connectors.

    Tokens in the connectivity that the map does not hold are ignored: real maps have some.
    """
    arcs = content.get("arcline_path_3") or {}
    follows = content.get("connectivity") or {}
    tokens = [record["token"] for record in content.get("lane", []) if arcs.get(record["token"])]
    lanes = [lane_points(arcs[token]) for token in tokens]
    valid = [i for i, points in enumerate(lanes) if len(points) > 1]
    numbers = {tokens[i]: n for n, i in enumerate(valid)}
    lanes = [lanes[i] for i in valid]

    def find_following(token: str, way: list[Points], depth: int) -> list[tuple[int, Points]]:
        """List the lanes that follow a token, each with the path to it, which begins with `way`."""
        result: list[tuple[int, Points]] = []
        for following in (follows.get(token) or {}).get("outgoing", []):
            if following in numbers:
                number = numbers[following]
                result.append((number, np.concatenate([*way, lanes[number][:1]])))
            elif depth and arcs.get(following):
                result += find_following(following, [*way, lane_points(arcs[following])], depth - 1)
        return result

    successors = []
    for token in numbers:
        last = lanes[numbers[token]][-1:]
        unique: dict[int, Points] = {}
        for number, path in find_following(token, [last], _CONNECTORS):
            unique.setdefault(number, path)
        successors.append(tuple(sorted(unique.items())))
    return lanes, tuple(successors)
