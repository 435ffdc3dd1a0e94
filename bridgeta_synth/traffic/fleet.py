"""The vehicles of a scene: the ego vehicle on its route, the traffic around it, and their motions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely

from bridgeta_core.utils.arrays import Floats
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_synth.traffic.actors import Actor, Draft, draft_actor
from bridgeta_synth.traffic.driving import Driver, Gates, drive
from bridgeta_synth.traffic.motion import LEAD, Motion
from bridgeta_synth.traffic.pedestrians import Crossing
from bridgeta_synth.traffic.routes import Route, Streets
from bridgeta_synth.traffic.signals import add_crossings, add_signals, draw_signals
from bridgeta_synth.world.streets.shapes import Points, at_distance
from bridgeta_synth.world.town.town import Town

WARM_UP = 8.0
FASTEST = 14.0
# The ego vehicle: metres between axles and between wheels, and (width, length, height).
EGO_BASE, EGO_TRACK = 2.588, 1.52
EGO_SIZE = (1.73, 4.1, 1.56)

_MODELS: tuple[tuple[str, float], ...] = (
    ("saloon", 0.235),
    ("hatchback", 0.185),
    ("suv", 0.205),
    ("van", 0.08),
    ("pickup", 0.05),
    ("box truck", 0.065),
    ("tipper", 0.02),
    ("bus", 0.04),
    ("double-decker", 0.012),
    ("bendy bus", 0.008),
    ("motorcyclist", 0.045),
    ("cyclist", 0.045),
    ("police", 0.006),
    ("ambulance", 0.004),
)
_TOWED = {"box truck": 0.22, "tipper": 0.15, "bendy bus": 1.0, "pickup": 0.05}
_HITCH = {"bendy bus": 0.35}


@dataclass(frozen=True, eq=False)
class EgoPlan:
    """The plan of the ego vehicle: from distance `start` along `route` at `cruise` m/s (0: it stands)."""

    route: Route
    start: float
    cruise: float

    def track(self, seconds: float) -> Points:
        """Return points `[n, 2]` of its way for some seconds, 4 m apart, over at least 30 m."""
        return at_distance(self.route.path, self.start + np.arange(0.0, max(30.0, self.cruise * seconds), 4.0))


class EgoPlanner:
    """Draws plans for scenes of some seconds: a start on a lane inside the town's interior, weighted by length.

    Raises BridgeTAError where the interior has no lane.
    """

    def __init__(self, town: Town, streets: Streets, duration: float) -> None:
        lanes = town.lanes.lanes
        middles = np.array([lane[len(lane) // 2] for lane in lanes])
        self._lengths = np.array([streets.length((k, -1)) for k in range(len(lanes))])
        inside = shapely.contains_xy(town.interior, *middles.T) & (self._lengths > 14)
        inside &= [len(after) > 0 for after in town.lanes.successors]
        if not inside.any():
            raise BridgeTAError(f"{town.location} has no lane in its interior on which a scene could start")
        weight = np.where(inside, self._lengths, 0.0)
        self._shares = weight / weight.sum()
        self._town, self._streets, self._duration = town, streets, duration

    def draw(self, stands: bool, rng: np.random.Generator) -> tuple[EgoPlan, float, bool]:
        """Draw a plan.

        Return it, the metres of its route ahead of it, and whether these are enough and within the interior when the
        scene begins.
        """
        lane = int(rng.choice(len(self._lengths), p=self._shares))
        cruise = float(rng.uniform(6.0, FASTEST - 0.5))
        need = cruise * (self._duration + WARM_UP + 2 * LEAD) + 30.0
        route = self._streets.draw_route(lane, need + self._lengths[lane], rng)
        stop = self._streets.stop_distance(lane) - EGO_SIZE[1] / 2
        start = stop - float(rng.uniform(0, 9)) if stands else float(rng.uniform(0.1, 0.8)) * float(self._lengths[lane])
        plan = EgoPlan(route, max(3.0, start), 0.0 if stands else cruise)
        at = at_distance(route.path, np.array([plan.start, plan.start + plan.cruise * WARM_UP * 0.8]))
        room = route.length - start
        return plan, room, room > need and bool(shapely.contains_xy(self._town.interior, *at.T).all())


def plan_ego(town: Town, streets: Streets, duration: float, rng: np.random.Generator) -> EgoPlan:
    """Draw a plan whose route is long enough, or the longest of sixteen."""
    planner = EgoPlanner(town, streets, duration)
    stands = rng.random() < 0.055
    best: EgoPlan | None = None
    for _ in range(16):
        plan, room, fits = planner.draw(stands, rng)
        if fits:
            return plan
        best = plan if best is None or room > best.route.length - best.start else best
    assert best is not None
    return best


@dataclass(frozen=True, eq=False)
class _Start:
    """The start of a vehicle: on a lane at a distance, with what it tows."""

    lane: int
    s: float
    draft: Draft
    name: str
    towed: Draft | None
    cruise: float

    @property
    def front(self) -> float:
        return self.draft.size[1] / 2

    @property
    def back(self) -> float:
        return self.front + (self.towed.size[1] + _HITCH.get(self.name, 0.9) if self.towed else 0.0)


def drive_fleet(
    town: Town,
    streets: Streets,
    ego: EgoPlan,
    lanes: list[int],
    crossings: list[Crossing],
    count: int,
    times: Floats,
    rng: np.random.Generator,
) -> tuple[Motion, list[Actor]]:
    """Drive the ego vehicle and about `count` others on `lanes`.

    Returns the motion of the ego vehicle's rear axle and the other vehicles, sampled at `times`.
    """
    ego_lane = ego.route.segments[0][0]
    starts = _draw_starts(streets, ego, ego_lane, lanes, count, rng)
    signals = draw_signals(town, streets, lanes, _draw_green_times(ego, float(times[-1]), rng), rng)
    gates = Gates()
    drivers = [Driver(ego.route, ego.start, 0.7 * ego.cruise, ego.cruise, EGO_SIZE[1] / 2, EGO_SIZE[1] / 2, 1.5, 1.4)]
    seconds = float(times[-1] - times[0]) + WARM_UP
    for start in starts:
        route = streets.draw_route(start.lane, start.s + start.cruise * seconds + 20.0, rng)
        heavy = start.draft.size[1] > 7
        drivers.append(
            Driver(
                route,
                start.s,
                _safe_speed(start, starts, streets, ego, ego_lane),
                start.cruise,
                start.front,
                start.back,
                float(rng.uniform(1.0, 1.8)),
                1.0 if heavy else float(rng.uniform(1.3, 1.9)),
            )
        )
    for who, driver in enumerate(drivers):
        add_signals(gates, who, driver.route, streets, signals)
    add_crossings(gates, [d.route for d in drivers], streets, crossings)
    distance = drive(streets, drivers, gates, times, WARM_UP)
    motion = Motion.along(ego.route.path, distance[0], EGO_BASE, forward=-0.5 * EGO_BASE)
    actors: list[Actor] = []
    for number, (start, driver, gone) in enumerate(zip(starts, drivers[1:], distance[1:], strict=True)):
        lateral = _draw_lane_offset(start, -town.driving_side, rng)
        party = number if start.towed else -1
        base = 0.6 * start.draft.size[1]
        actors.append(start.draft.with_motion(Motion.along(driver.route.path, gone, base, lateral), party=party))
        if start.towed:
            behind = gone - start.back + start.towed.size[1] / 2
            follows = Motion.along(driver.route.path, behind, 0.6 * start.towed.size[1], lateral)
            actors.append(start.towed.with_motion(follows, party=party))
    return motion, actors


def _draw_green_times(ego: EgoPlan, end: float, rng: np.random.Generator) -> dict[int, float]:
    """Draw when the signals along the ego vehicle's route turn green, by lane.

    Mostly they do in time or after a short wait; if the ego vehicle stands, after the `end` of the scene.
    """
    route, result = ego.route, {}
    if ego.cruise == 0:
        return {route.segments[0][0]: end + 1.0}
    for (lane, _), start in zip(route.segments[1::2], route.starts[1::2], strict=True):
        comes = (start - ego.start) / ego.cruise - WARM_UP
        if rng.random() < 0.9 and lane not in result:
            result[lane] = comes + float(rng.uniform(-16, 3))
    return result


def _draw_lane_offset(start: _Start, kerb: int, rng: np.random.Generator) -> float:
    """Draw the offset of a vehicle to the left of its lane's centre, metres; `kerb` is +1 with the kerb on the left."""
    aside = float(np.clip(rng.normal(0, 0.13), -0.28, 0.28))
    if start.name == "cyclist":
        return kerb * 0.9 + aside
    return 3 * aside if start.name == "motorcyclist" else aside


def _draw_starts(
    streets: Streets, ego: EgoPlan, ego_lane: int, lanes: list[int], count: int, rng: np.random.Generator
) -> list[_Start]:
    """Draw the starts of vehicles on lanes, alone and in platoons, with room between them."""
    open_lanes = [lane for lane in lanes if lane not in streets.closed]
    # More vehicles near the ego vehicle's way than farther away.
    way = ego.track(20.0)[::3]
    away = [np.linalg.norm(streets.points((k, -1))[::4, None] - way, axis=-1).min() for k in open_lanes]
    lengths = np.array([streets.length((lane, -1)) for lane in open_lanes])
    weight = lengths * (0.25 + np.exp(-np.array(away) / 25.0))
    names, shares = [name for name, _ in _MODELS], np.array([share for _, share in _MODELS])
    starts: list[_Start] = []

    def place(lane: int, s: float, cruise: float) -> float:
        """Place a vehicle if there is room; return its length."""
        name = str(rng.choice(names, p=shares))
        towed = None
        if rng.random() < _TOWED.get(name, 0.0):
            towed = draft_actor("bendy bus" if name == "bendy bus" else "trailer", rng)
        slow = {"cyclist": float(rng.uniform(3.2, 6.0)), "bus": 9.0, "tipper": 9.0, "box truck": 10.0}
        start = _Start(lane, s, draft_actor(name, rng), name, towed, min(cruise, slow.get(name, FASTEST)))
        others = [(o.s, o.front, o.back) for o in starts if o.lane == lane]
        if lane == ego_lane:
            others.append((ego.start, EGO_SIZE[1] / 2, EGO_SIZE[1] / 2))
        room = all(
            at - back - (s + start.front) > 2.5 if at > s else s - start.back - (at + front) > 2.5
            for at, front, back in others
        )
        # A trailer must be on the lane as well: other routes may join behind it.
        if room and start.back + 1.0 < s < streets.stop_distance(lane) - start.front:
            starts.append(start)
        return start.front + start.back

    def draw_cruise() -> float:
        return float(rng.uniform(6.5, FASTEST))

    if rng.random() < 0.6:
        place(ego_lane, ego.start + float(rng.uniform(9, 32)), draw_cruise())
    if rng.random() < 0.5:
        place(ego_lane, ego.start - float(rng.uniform(8, 22)), draw_cruise())
    for _ in range(4 * count):
        if len(starts) >= count or not open_lanes:
            break
        pick = int(rng.choice(len(open_lanes), p=weight / weight.sum()))
        s, lane, pace = float(rng.uniform(3, lengths[pick])), open_lanes[pick], draw_cruise()
        platoon = 1 + int(rng.integers(1, 5)) * int(rng.random() < 0.35)
        for _ in range(platoon):
            s -= place(lane, s, pace) + float(rng.uniform(3, 9))
    return starts


def _safe_speed(start: _Start, starts: list[_Start], streets: Streets, ego: EgoPlan, ego_lane: int) -> float:
    """Return a speed from which a vehicle can stop behind the one in front and before the end of its lane."""
    ahead = [o.s - o.back for o in starts if o.lane == start.lane and o.s > start.s]
    if ego_lane == start.lane and ego.start > start.s:
        ahead.append(ego.start - EGO_SIZE[1] / 2)
    ahead.append(streets.stop_distance(start.lane) + 2.0)
    room = max(0.0, min(ahead) - start.s - start.front - 2.0)
    return min(0.85 * start.cruise, math.sqrt(2 * 1.6 * room))
