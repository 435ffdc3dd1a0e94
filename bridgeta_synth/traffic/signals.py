"""Traffic signals and people on crossings, as gates that say when traffic may pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import LineString
from shapely.strtree import STRtree

from bridgeta_synth.traffic.driving import Gates
from bridgeta_synth.traffic.pedestrians import Crossing
from bridgeta_synth.traffic.routes import Route, Streets
from bridgeta_synth.world.solids import LAMP
from bridgeta_synth.world.streets.shapes import arc_length
from bridgeta_synth.world.town.town import Town

_CLEAR = 3.5  # seconds between the green of one street and that of the other
_LAMP_REACH = 8.0  # metres from a junction within which its signals stand
_CROSSING_HALF = 2.0  # metres
_STOP_LINE_REACH = 9.0  # metres before a crossing within which traffic stops at a stop line instead


@dataclass(frozen=True)
class Signal:
    """A signal at the end of a lane: green for the first `green` seconds of every `period` from time `opens` on."""

    opens: float
    green: float
    period: float


def draw_signals(
    town: Town, streets: Streets, lanes: list[int], opens: dict[int, float], rng: np.random.Generator
) -> dict[int, Signal]:
    """Draw the signals at the ends of lanes, by lane, at junctions where signals stand.

    The two streets of a junction are green in turn; `opens` says when the signals of some lanes turn green.
    """
    junctions = [p for p, yes in zip(town.polygons["road_segment"], town.intersections, strict=True) if yes]
    lamps = town.solids.place[town.solids.kind == LAMP][:, :2]
    tree = STRtree(junctions)
    entered: dict[int, list[int]] = {}
    for lane in lanes:
        for way in streets.successors(lane):
            points = streets.points(way)
            crossed = tree.query(shapely.points(points[len(points) // 2]), predicate="dwithin", distance=1.0)
            if len(crossed):
                entered.setdefault(int(crossed[0]), []).append(lane)
                break
    signals = {}
    for junction in sorted(entered):
        has_lamps = len(lamps) > 0 and bool(
            shapely.dwithin(junctions[junction], shapely.points(lamps), _LAMP_REACH).any()
        )
        period, first = float(rng.uniform(44, 64)), float(rng.uniform(0, 64))
        if not has_lamps:
            continue
        headings = {}
        for lane in entered[junction]:
            points = streets.points((lane, -1))
            way = points[-1] - points[max(0, len(points) - 4)]
            headings[lane] = math.atan2(way[1], way[0])
        axis = headings[entered[junction][0]]
        street = {lane: int(abs(math.cos(heading - axis)) < math.sqrt(0.5)) for lane, heading in headings.items()}
        # The first signal on the ego vehicle's route decides.
        decisive = next((lane for lane in opens if lane in street), None)
        if decisive is not None:
            first = opens[decisive] - street[decisive] * period / 2
        for lane, number in street.items():
            signals[lane] = Signal(first + number * period / 2, period / 2 - _CLEAR, period)
    return signals


def add_signals(gates: Gates, who: int, route: Route, streets: Streets, signals: dict[int, Signal]) -> None:
    """Add the gates of a vehicle at the signals along its route."""
    for (lane, successor), start in zip(route.segments, route.starts, strict=True):
        if successor < 0 and lane in signals and lane != route.segments[-1][0]:
            signal = signals[lane]
            gates.add(who, float(start) + streets.stop_distance(lane), signal.opens, signal.green, signal.period)


def add_crossings(gates: Gates, routes: list[Route], streets: Streets, crossings: list[Crossing]) -> None:
    """Add the gates of all vehicles before crossings while people walk there."""
    paths = np.concatenate([r.path for r in routes])
    owner = np.repeat(np.arange(len(routes)), [len(r.path) for r in routes])
    distance = np.concatenate([arc_length(r.path) for r in routes])
    for crossing in crossings:
        zone = LineString(crossing.line).buffer(_CROSSING_HALF, cap_style="flat")
        x0, y0, x1, y1 = zone.bounds
        boxed = np.flatnonzero((paths > (x0, y0)).all(axis=1) & (paths < (x1, y1)).all(axis=1))
        on = boxed[shapely.contains_xy(zone, *paths[boxed].T)]
        # The first of several points in a row is where a route comes onto the crossing.
        for k in on[np.diff(on, prepend=-9) > 1].tolist():
            who, enters = int(owner[k]), float(distance[k]) - 1.2
            gates.close(who, _stop_before(routes[who], streets, enters), crossing.since, crossing.until)


def _stop_before(route: Route, streets: Streets, enters: float) -> float:
    """Return where to stop before a crossing entered at a distance: at a stop line shortly before it, if any."""
    index = int(np.searchsorted(route.starts, enters, side="right")) - 1
    lane, successor = route.segments[index]
    if successor < 0:
        line = float(route.starts[index]) + streets.stop_distance(lane)
        if 0 < enters - line < _STOP_LINE_REACH:
            return line
    return enters
