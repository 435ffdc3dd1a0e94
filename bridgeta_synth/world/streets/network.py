"""The road network of a town: a random planar graph, bent, with roads of several classes and outlines of junctions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.strtree import STRtree

from bridgeta_synth.world.streets.layouts import STREET_CLASSES, Layout, draw_profile
from bridgeta_synth.world.streets.roads import Arm, Profile, Road
from bridgeta_synth.world.streets.shapes import Points, resample, rounded, tightest_radius
from bridgeta_synth.world.streets.street_graph import StreetGraph

LEAST_RADIUS = 25.0
LEAST_ANGLE = math.radians(55)
# Metres of a road between its junctions, and between kerbs of roads that do not meet.
_LEAST_LENGTH, _LEAST_GAP = 24.0, 10.0
_ATTEMPTS = 40
_FILLET = 7.0  # metres: the usual radius of a kerb that rounds a corner


@dataclass(frozen=True, eq=False)
class RoadNetwork:
    """Junctions, the roads between them, and the driving side (+1 right, -1 left).

    `arms` holds each junction's arms, sorted counter-clockwise by angle; `junctions` its outline, which ends square
    across every arm where the road's `span` begins.
    """

    nodes: Points
    arms: dict[int, tuple[Arm, ...]]
    roads: tuple[Road, ...]
    junctions: dict[int, Polygon]
    driving_side: int

    def successors(self, road: int, ahead: bool) -> list[Arm]:
        """List the arms by which traffic of a road may leave its end junction: all that lead away, without U-turns."""
        here = self.roads[road]
        node = here.end if ahead else here.start
        return [
            arm
            for arm in self.arms[node]
            if self.roads[arm.road].lanes(arm.at_start) and not (arm.road == road and arm.at_start != ahead)
        ]


def build_network(
    rng: np.random.Generator, keep_right: bool, layout: Layout, junctions: int = 30, margin: float = 100.0
) -> RoadNetwork:
    """Draw a road network whose coordinates are positive and at least `margin` metres.

    Raises RuntimeError when no attempt gives a valid one.
    """
    for _ in range(_ATTEMPTS):
        network = _try_network(rng, 1 if keep_right else -1, layout, junctions, margin)
        if network is not None:
            return network
    raise RuntimeError(f"no valid road network of {junctions} junctions in {_ATTEMPTS} attempts")


def _try_network(
    rng: np.random.Generator, driving_side: int, layout: Layout, junctions: int, margin: float
) -> RoadNetwork | None:
    """Draw a network and remove roads until none conflict; None where that fails."""
    graph = StreetGraph.draw(rng, junctions, layout)
    if graph.count_junctions() < 0.6 * junctions:
        return None
    bend = _Warp(rng, layout.swerve)
    profiles = _profiles(rng, graph, layout)
    bulges = rng.uniform(-1, 1, len(graph.nodes))
    for _ in range(max(8, junctions)):
        nodes = bend(graph.nodes)
        shift = margin - nodes.min(axis=0)
        chains = graph.chains()
        if not chains:
            return None
        roads = []
        for index, chain in enumerate(chains):
            centre = resample(bend(_centre(graph.nodes[chain], bulges[chain[0]])), 1.0) + shift
            roads.append(Road(index, chain[0], chain[-1], centre, _profile_of(graph, chain, profiles), driving_side))
        network = _join_roads(nodes + shift, roads, driving_side)
        bad = _find_conflicts(network)
        if not bad:
            return network if graph.count_junctions() >= 0.6 * junctions else None
        # One at a time: removing one of two roads in conflict frees the other.
        if not any(graph.remove(chains[road]) for road in bad):
            return None
    return None


class _Warp:
    """A smooth map of the plane, near the identity, that bends straight streets; `strain` bounds its shear."""

    def __init__(self, rng: np.random.Generator, strain: float) -> None:
        length = rng.uniform(200, 420, 4)
        turn = rng.uniform(0, 2 * math.pi, 4)
        self._waves = (2 * math.pi / length)[:, None] * np.stack((np.cos(turn), np.sin(turn)), axis=1)
        share = rng.dirichlet(np.full(4, 3.0))
        # Transverse waves shear but do not squeeze.
        across = np.stack((-np.sin(turn), np.cos(turn)), axis=1)
        self._push = (strain * share * length / (2 * math.pi))[:, None] * across
        self._phase = rng.uniform(0, 2 * math.pi, 4)

    def __call__(self, points: Points) -> Points:
        phase = points[:, 0, None] * self._waves[:, 0] + points[:, 1, None] * self._waves[:, 1] + self._phase
        wave = np.sin(phase)
        return points + np.stack([(wave * self._push[:, axis]).sum(axis=1) for axis in (0, 1)], axis=1)


def _centre(corners: Points, bulge: float) -> Points:
    """Draw a road's centre through the nodes of its chain: arcs at bends; a road without bends curves by `bulge`."""
    if len(corners) == 2:
        start, end = corners
        length = float(np.hypot(*(end - start)))
        u = np.linspace(0, 1, max(8, round(length)))[:, None]
        normal = np.array((start[1] - end[1], end[0] - start[0])) / length
        # sin^2 leaves the headings at the junctions as they are.
        return start + u * (end - start) + bulge * min(7.0, 0.0007 * length**2) * np.sin(math.pi * u) ** 2 * normal
    pieces = [corners[:1]]
    legs = np.hypot(*np.diff(corners, axis=0).T)
    for i in range(1, len(corners) - 1):
        # An arc may take half a leg, or at a junction all but the part of the junction.
        room = [legs[j] / 2 if 0 < k < len(corners) - 1 else legs[j] - 24.0 for j, k in ((i - 1, i - 1), (i, i + 1))]
        pieces.append(_arc(corners[i - 1], corners[i], corners[i + 1], min(room)))
    # Straight legs need points as well: the map bends them.
    return resample(np.concatenate([*pieces, corners[-1:]]), 1.0)


def _arc(before: Points, corner: Points, after: Points, room: float) -> Points:
    """Replace the corner of a polyline by an arc, tangent to both legs at up to `room` metres from the corner."""
    a = (corner - before) / np.hypot(*(corner - before))
    b = (after - corner) / np.hypot(*(after - corner))
    turn = math.atan2(a[0] * b[1] - a[1] * b[0], float(a @ b))
    if abs(turn) < 1e-3:
        return corner[None]
    cut = min(max(room, 1.0), 48.0 * math.tan(abs(turn) / 2))
    radius = cut / math.tan(abs(turn) / 2)
    start = corner - cut * a
    normal = math.copysign(1.0, turn) * np.array((-a[1], a[0]))
    angles = np.linspace(0, abs(turn), max(3, round(radius * abs(turn))))[:, None]
    return np.asarray(start + radius * (np.sin(angles) * a + (1 - np.cos(angles)) * normal))


def _profiles(rng: np.random.Generator, graph: StreetGraph, layout: Layout) -> list[Profile]:
    """Draw a profile for every street: the longer a street, the more lanes it is likely to have."""
    nodes = graph.nodes
    length = np.zeros(graph.streets)
    for (a, b), (street, _) in graph.edges.items():
        length[street] += np.hypot(*(nodes[a] - nodes[b]))
    # The first street is the ring around the town; each of its four sides counts as a street.
    rank = np.where(np.arange(graph.streets) == 0, length / 4, length) * np.exp(rng.normal(0, 0.45, graph.streets))
    order = np.argsort(rank, kind="stable")
    middle = np.cumsum(length[order]) - length[order] / 2
    classes = np.searchsorted(np.cumsum(layout.shares) / sum(layout.shares), middle / max(length.sum(), 1.0))
    profiles: list[Profile | None] = [None] * graph.streets
    for street, street_class in zip(order.tolist(), classes.tolist(), strict=True):
        profiles[street] = draw_profile(min(street_class, len(STREET_CLASSES) - 1), rng)
    return [profile for profile in profiles if profile is not None]


def _profile_of(graph: StreetGraph, chain: list[int], profiles: list[Profile]) -> Profile:
    """Look up the profile of the street that a chain starts on, in the chain's direction."""
    a, b = chain[:2]
    street, direction = graph.edges[min(a, b), max(a, b)]
    forward = direction if a < b else -direction
    return profiles[street] if forward > 0 else profiles[street].reversed()


def _join_roads(nodes: Points, roads: list[Road], driving_side: int) -> RoadNetwork:
    """Join roads to a network: arms and outlines of junctions, trims of roads, no one-way road that traps traffic."""
    arms: dict[int, list[Arm]] = defaultdict(list)
    for road in roads:
        head, tail = road.centre[6] - road.centre[0], road.centre[-7] - road.centre[-1]
        arms[road.start].append(Arm(road.index, True, math.atan2(head[1], head[0])))
        arms[road.end].append(Arm(road.index, False, math.atan2(tail[1], tail[0])))
    around = {node: tuple(sorted(here, key=lambda arm: arm.angle)) for node, here in sorted(arms.items())}
    roads = _open_traps(roads, around)
    trims: dict[tuple[int, bool], float] = {}
    for here in around.values():
        trims |= _junction_reaches(roads, here)
    roads = [replace(road, trim=(trims[road.index, True], trims[road.index, False])) for road in roads]
    outlines = {node: _junction_outline(roads, here) for node, here in around.items()}
    return RoadNetwork(nodes, around, tuple(roads), outlines, driving_side)


def _junction_reaches(roads: list[Road], arms: tuple[Arm, ...]) -> dict[tuple[int, bool], float]:
    """Find how far a junction reaches into its arms, metres: to where the kerbs' rounded corners begin.

    Keys are the road and whether the junction is at its start.
    """
    trims = {}
    for position, arm in enumerate(arms):
        half, reach = roads[arm.road].width / 2, 6.0
        for other, sign in ((arms[position - 1], -1), (arms[(position + 1) % len(arms)], 1)):
            theta = (sign * (other.angle - arm.angle)) % (2 * math.pi)
            if theta < math.radians(155):
                corner = (roads[other.road].width / 2 + half * math.cos(theta)) / math.sin(theta)
                reach = max(reach, corner + _tangent_length(theta))
        trims[arm.road, arm.at_start] = min(reach + 1.2, 0.42 * roads[arm.road].length)
    return trims


def _tangent_length(theta: float) -> float:
    """Length from the corner of two kerbs at an angle to where its rounding begins; less at sharp corners."""
    return min(_FILLET / math.tan(theta / 2), 8.0)


def _arm_mouth(road: Road, at_start: bool) -> tuple[Points, Points, Points]:
    """Return where an arm meets its junction: its kerbs left and right of the unit heading outwards, `[2]` each."""
    half = road.width / 2
    s = road.span[0] if at_start else road.span[1]
    plus, minus = road.at(np.array([s, s]), np.array([half, -half]))
    across = (plus - minus) / road.width
    if at_start:
        return plus, minus, np.array((across[1], -across[0]))
    return minus, plus, np.array((-across[1], across[0]))


def _junction_outline(roads: list[Road], arms: tuple[Arm, ...]) -> Polygon:
    """Outline a junction: along all mouths and the rounded corners of the kerbs between them."""
    mouths = [_arm_mouth(roads[arm.road], arm.at_start) for arm in arms]
    pieces = []
    for position, (left, right, out) in enumerate(mouths):
        _, following, way = mouths[(position + 1) % len(mouths)]
        pieces += [right[None], left[None], rounded(left, -out, following, way, _FILLET)[1:-1]]
    return Polygon(np.concatenate(pieces))


def _open_traps(roads: list[Road], arms: dict[int, tuple[Arm, ...]]) -> list[Road]:
    """Make one-way roads two-way where traffic could not leave or reach one of their ends."""
    result = list(roads)

    def is_trap(node: int) -> bool:
        def leads(arm: Arm, away: bool) -> bool:
            return result[arm.road].lanes(arm.at_start == away) > 0

        return any(
            leads(arm, not away) and not any(leads(o, away) for o in arms[node] if o is not arm)
            for arm in arms[node]
            for away in (True, False)
        )

    for node in arms:
        for arm in arms[node]:
            profile = result[arm.road].profile
            if is_trap(node) and 0 in (profile.ahead, profile.back):
                two_way = replace(profile, ahead=1, back=1, centre_line=True)
                result[arm.road] = replace(result[arm.road], profile=two_way)
    return result


def _find_conflicts(network: RoadNetwork) -> list[int]:
    """List roads to remove, the worst first: too short, too tight, too near others, or part of a bad junction."""
    roads = network.roads
    bad: dict[int, None] = {}
    for road in roads:
        radius = tightest_radius(road.centre)
        if radius < max(LEAST_RADIUS, road.width / 2 + 8) or road.span[1] - road.span[0] < _LEAST_LENGTH:
            bad[road.index] = None
    for node, arms in network.arms.items():
        by_length = sorted((arm.road for arm in arms), key=lambda r: roads[r].length)
        turns = [(b.angle - a.angle) % (2 * math.pi) for a, b in zip(arms, (*arms[1:], arms[0]), strict=True)]
        if min(turns) < LEAST_ANGLE or not network.junctions[node].is_valid:
            bad.update(dict.fromkeys(by_length))
    shapes = [Polygon(road.strip(*road.span, road.width / 2, -road.width / 2)) for road in roads]
    bad.update(dict.fromkeys(road.index for road, shape in zip(roads, shapes, strict=True) if not shape.is_valid))
    if not bad:
        bad.update(dict.fromkeys(_find_collisions(network, shapes)))
    return list(bad)


def _find_collisions(network: RoadNetwork, strips: list[Polygon]) -> Iterable[int]:
    """Find roads that come too near others: the shorter of two strips, and strips in other roads' junctions."""
    roads = network.roads
    shapes = np.array([*strips, *network.junctions.values()], dtype=object)
    nodes = list(network.junctions)
    for i, j in zip(*STRtree(shapes).query(shapes, predicate="dwithin", distance=_LEAST_GAP), strict=True):
        if i >= j or i >= len(roads):
            continue
        distance = shapely.distance(shapes[i], shapes[j])
        if j < len(roads):
            ends = {roads[i].start, roads[i].end} & {roads[j].start, roads[j].end}
            # Arms of one junction may come near each other at its corner, but not touch.
            if not ends or distance < 0.5:
                yield min((int(i), int(j)), key=lambda r: roads[r].length)
            continue
        is_own = nodes[j - len(roads)] in (roads[i].start, roads[i].end)
        if not is_own or shapely.intersection(shapes[i], shapes[j]).area > 0.05:
            yield int(i)
