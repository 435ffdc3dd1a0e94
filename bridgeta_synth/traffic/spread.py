"""Spread the scenes of a town: plans of the ego vehicle whose keyframes lie evenly over the roads.

Mitchell's best candidate ("Spectrally optimal sampling for distribution ray tracing", SIGGRAPH 1991): of some plans
drawn at random the one is taken whose keyframes are farthest from those of all plans before it. Where a keyframe will
be is only known when traffic has been driven, so the vehicle is expected to drive as on an empty road, a little slower.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from bridgeta_core.utils.arrays import Floats
from bridgeta_synth.traffic.driving import speed_limits
from bridgeta_synth.traffic.fleet import WARM_UP, EgoPlan, EgoPlanner
from bridgeta_synth.traffic.motion import LEAD
from bridgeta_synth.traffic.routes import Streets
from bridgeta_synth.world.streets.shapes import Points, at_distance
from bridgeta_synth.world.town.town import Town

_CANDIDATES = 48
_PACE = 0.85  # of the speed on an empty road, in traffic


def expect_places(plan: EgoPlan, times: Sequence[float]) -> Points:
    """Return where the ego vehicle of a plan is expected at `times [t]`, seconds since the first keyframe: `[t, 2]`."""
    seconds = np.asarray(times, dtype=np.float64) + WARM_UP + LEAD
    end = min(plan.route.length, plan.start + plan.cruise * float(seconds.max()))
    limits = speed_limits(plan.route, plan.cruise, end)
    metres = np.arange(len(limits), dtype=np.float64)
    passed = np.concatenate(([0.0], np.cumsum(1 / (_PACE * limits[:-1]))))
    since = passed - np.interp(plan.start, metres, passed)
    return at_distance(plan.route.path, np.interp(seconds, since, metres))


def spread_plans(town: Town, count: int, times: Sequence[float], rng: np.random.Generator) -> list[EgoPlan]:
    """Draw plans for `count` scenes with keyframes at `times`; those for fewer scenes are the first of them.

    The first plans are the farthest apart; a plan's own keyframes count among those that should be apart. No vehicle
    stands from the start, as it would see one place only.
    Raises BridgeTAError where the town's interior has no lane.
    """
    planner = EgoPlanner(town, Streets(town), float(times[-1]))
    plans: list[EgoPlan] = []
    taken = np.empty((0, 2))
    for _ in range(count):
        best: tuple[tuple[bool, float], EgoPlan, Points] | None = None
        for _ in range(_CANDIDATES):
            plan, _, fits = planner.draw(False, rng)
            places = expect_places(plan, times)
            inside = fits and bool(shapely.contains_xy(town.interior, *places.T).all())
            score = inside, find_least_distance(places, taken)
            if best is None or score > best[0]:
                best = score, plan, places
        assert best is not None
        plans.append(best[1])
        taken = np.concatenate((taken, best[2]))
    return plans


def find_least_distance(places: Points, others: Points) -> float:
    """Find the least distance of `places [n, 2]` to each other and to `others [m, 2]`; infinity without any pair."""
    distance: Floats = np.linalg.norm(places[:, None] - np.concatenate((places, others)), axis=-1)
    np.fill_diagonal(distance, np.inf)
    return float(distance.min(initial=np.inf))
