"""Drive traffic along its routes: drivers keep their distance, give way and wait, so that nobody collides.

Following is the intelligent driver model (Treiber, Hennecke and Helbing, "Congested traffic states in empirical
observations and microscopic simulations", Physical Review E 62, 2000): acceleration a (1 - (v / v0)^4 - (s* / s)^2)
with the gap s to the vehicle in front and s* = s0 + v T + v dv / (2 sqrt(a b)). Where routes merge or cross, whoever
arrives first goes first; to the other one, that vehicle or the edge of the crossing is in front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bridgeta_core.utils.arrays import Floats, Ints
from bridgeta_synth.traffic.routes import CROSS, FOLLOW, MERGE, Meetings, Route, Streets, find_meetings
from bridgeta_synth.world.streets.shapes import at_distance

STEP = 0.2
_COMFORT = 2.2  # b above, m/s2
_GAP = 2.0  # s0 above, metres
_HARDEST = 7.0  # most deceleration, m/s2
_SIDEWAYS = 2.0  # lateral acceleration in bends, m/s2
_FIRM = 4.5  # m/s2; whoever would have to brake harder before a line drives on
_NOTICE = 30.0  # metres before a merge at which others are heeded
_EVER = 1e6  # seconds, longer than any scene


@dataclass(frozen=True, eq=False)
class Driver:
    """A vehicle on a route: its middle at distance `start`, with `speed` and the desired speed `cruise`, m/s.

    `front` and `back` are metres from its middle to its ends, a trailer included. With `cruise` 0 it stays. `headway`
    (s) and `acceleration` (m/s2) are T and a above.
    """

    route: Route
    start: float
    speed: float
    cruise: float
    front: float
    back: float
    headway: float = 1.4
    acceleration: float = 1.5


class Gates:
    """Places on routes that are closed at times.

    `rows` hold (who, at, opens, length, period): vehicle `who` may pass distance `at` of its route during the first
    `length` seconds of every `period` from time `opens` on.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[int, float, float, float, float]] = []

    def add(self, who: int, at: float, opens: float, length: float, period: float) -> None:
        """Add a gate that opens periodically, like a traffic signal."""
        self.rows.append((who, at, opens, length, period))

    def close(self, who: int, at: float, since: float, until: float) -> None:
        """Add a gate that is closed once."""
        self.add(who, at, until, _EVER - (until - since), _EVER)


def speed_limits(route: Route, cruise: float, end: float) -> Floats:
    """Return speed limits, m/s, for every metre of a route up to `end`, lower in and before bends: `[n]`."""
    s = np.arange(0.0, end + 2.0)
    here = at_distance(route.path, np.concatenate((s - 2.0, s, s + 2.0)))
    before, middle, after = np.split(here, 3)
    one, two = middle - before, after - middle
    turn = np.arctan2(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0], (one * two).sum(axis=1))
    curvature = np.abs(turn) / 2.0
    # Averaged over 5 m, the length of a vehicle: a kink in a sampled line is not a bend.
    curvature = np.convolve(np.pad(curvature, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    limit = np.minimum(cruise, np.sqrt(_SIDEWAYS / np.maximum(curvature, 1e-3)))
    # Back from a bend the square of the speed rises by at most 2 b per metre: a running minimum.
    ramp = 2 * 1.5 * s
    square = np.minimum.accumulate((limit**2 + ramp)[::-1])[::-1] - ramp
    return np.sqrt(np.maximum(square, 0.25))


def drive(streets: Streets, drivers: list[Driver], gates: Gates, times: Floats, warm_up: float) -> Floats:
    """Drive; return the distances of all drivers along their routes at `times`, `[drivers, t]`.

    `times` ascend. The drivers are at their starts at times[0] - warm_up.
    """
    begin, count = float(times[0]) - warm_up, len(drivers)
    steps = int(np.ceil((float(times[-1]) - begin) / STEP)) + 1
    reach = STEP * steps * 15.0
    limits = [speed_limits(d.route, max(d.cruise, 0.5), min(d.route.length, d.start + reach)) for d in drivers]
    table = np.empty((count, max(len(row) for row in limits)))
    for row, values in zip(table, limits, strict=True):
        row[: len(values)], row[len(values) :] = values, values[-1]
    crowd = _Crowd(drivers, find_meetings(streets, [d.route for d in drivers]), gates, table)
    path, speed, acceleration = np.empty((3, steps, count))
    for step in range(steps):
        path[step], speed[step] = crowd.s, crowd.v
        acceleration[step] = crowd.advance(begin + step * STEP)
    at = (times - begin) / STEP
    index = np.minimum(at.astype(np.int64), steps - 1)
    # Within a step the acceleration is constant.
    ahead = ((at - index) * STEP)[:, None]
    return np.asarray((path[index] + speed[index] * ahead + 0.5 * acceleration[index] * ahead**2).T)


class _Crowd:
    """All drivers at one time: distances `s` of their middles along their routes, and speeds `v`, both `[n]`."""

    def __init__(self, drivers: list[Driver], meet: Meetings, gates: Gates, limits: Floats) -> None:
        def column(name: str) -> Floats:
            return np.array([getattr(d, name) for d in drivers], dtype=np.float64)

        self.s, self.v = column("start"), column("speed")
        self._front, self._back, self._headway, self._pull = map(column, ("front", "back", "headway", "acceleration"))
        self._stays = column("cruise") == 0
        self._limits, self._meet = limits, meet
        # Nobody passes the end of a route.
        ends = np.array([d.route.length for d in drivers]) - 0.5
        who, at, *self._gates = np.array(gates.rows, dtype=np.float64).reshape(-1, 5).T
        self._gate_who = np.concatenate((who.astype(np.int64), np.arange(len(drivers))))
        self._gate_at = np.concatenate((at, ends))

    def advance(self, time: float) -> Floats:
        """Advance all drivers by one step; return their accelerations, m/s2."""
        s, v = self.s, self.v
        nose, tail = s + self._front, s - self._back
        row = np.minimum(np.maximum(s, 0).astype(np.int64), self._limits.shape[1] - 1)
        wish = self._limits[np.arange(len(s)), row]
        free = np.where(v <= wish, self._pull * (1 - (v / wish) ** 4), -np.minimum(_COMFORT, (v - wish) / 0.5))
        hold, held_at = self._wait_at_gates(time, nose)
        who, gap, other = self._heed_others(nose, tail, held_at)
        who, gap = np.concatenate((who, hold[0])), np.concatenate((gap, hold[1]))
        other = np.concatenate((other, np.zeros(len(hold[0]))))
        mine = v[who]
        rate = mine * (mine - other) / (2 * np.sqrt(self._pull[who] * _COMFORT))
        wanted = _GAP + np.maximum(0.0, mine * self._headway[who] + rate)
        brake = self._pull[who] * (wanted / np.maximum(gap, 0.4)) ** 2
        most = np.zeros(len(s))
        np.maximum.at(most, who, brake)
        acceleration = np.maximum(free - most, -_HARDEST)
        acceleration = np.where(self._stays, -v / STEP, np.maximum(acceleration, -v / STEP))
        self.s = s + v * STEP + 0.5 * acceleration * STEP**2
        self.v = np.maximum(v + acceleration * STEP, 0.0)
        return acceleration

    def _wait_at_gates(self, time: float, nose: Floats) -> tuple[tuple[Ints, Floats], Floats]:
        """Return who waits for a closed gate, the gap to it, and per driver the nearest such gate (inf: none)."""
        opens, length, period = self._gates
        shut = np.mod(time - opens, period) >= length
        closed = np.concatenate((shut, np.ones(len(nose), dtype=bool)))
        who = self._gate_who
        gap = self._gate_at - nose[who]
        # Too late to stop: the signal was amber a moment ago.
        late = self.v[who] ** 2 > 2 * _FIRM * np.maximum(gap, 0.0) + 0.5
        late[len(shut) :] = False
        chosen = closed & (gap > -0.6) & ~late
        held_at = np.full(len(nose), np.inf)
        np.minimum.at(held_at, who[chosen], self._gate_at[chosen])
        # The model stops at its least gap; a bumper comes closer to a line than to a vehicle.
        return (who[chosen], gap[chosen] + _GAP - 0.3), held_at

    def _heed_others(self, nose: Floats, tail: Floats, held_at: Floats) -> tuple[Ints, Floats, Floats]:
        """Return who has a vehicle in front, the gap to it, and its speed."""
        m, v = self._meet, self.v
        i, j = m.one, m.other
        over = (tail[i] > m.a1) | (tail[j] > m.b1) | (m.a0 - nose[i] > 90.0)
        near = np.flatnonzero(~over)
        i, j, kind = i[near], j[near], m.kind[near]
        to_a, to_b = m.a0[near] - nose[i], m.b0[near] - nose[j]
        vi, vj = v[i], v[j]
        lead = (self.s[j] + m.shift[near]) - self.s[i]
        first = (lead > 0) | ((lead == 0) & (j < i))
        gap = lead - self._back[j] - self._front[i]
        inside = to_b < 0
        coming = (to_b < _NOTICE) & (to_a < _NOTICE) & (held_at[j] > m.b0[near])
        follows = ((kind == FOLLOW) & inside & first) | ((kind == MERGE) & first & (inside | coming))
        # Before the lanes merge nobody needs to brake at once for a vehicle beside.
        early = np.maximum(to_a, 0.0) * (kind == MERGE)
        gap = np.maximum(gap, np.minimum(early, 0.25 * early + 1.0))

        # Where routes cross, whoever can no longer stop goes first, then whoever arrives first.
        bound_i, bound_j = (speed**2 > 2 * _FIRM * np.maximum(to, 0.0) for speed, to in ((vi, to_a), (vj, to_b)))
        time_i, time_j = (np.maximum(to, 0) / np.maximum(speed, 2.5) for speed, to in ((vi, to_a), (vj, to_b)))
        sooner = (time_j < time_i) | ((time_j == time_i) & (j < i))
        leaves_j = (m.b1[near] - tail[j]) / np.maximum(vj, 2.5)
        yields = np.where(bound_i == bound_j, sooner, bound_j)
        yields &= bound_j | (held_at[j] > m.b0[near])
        yields &= (time_i < leaves_j + 1.5) & (bound_j | (time_j < 6.0))
        waits = (kind == CROSS) & yields
        gap = np.where(waits, to_a + _GAP - 0.8, gap)
        chosen = follows | waits
        return i[chosen], gap[chosen], np.where(waits, 0.0, vj)[chosen]
