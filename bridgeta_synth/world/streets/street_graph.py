"""A random planar graph of streets: blocks are cut in two, again and again, by streets from side to side."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from bridgeta_synth.world.streets.layouts import Layout
from bridgeta_synth.world.streets.shapes import Points

Edge = tuple[int, int]

# No arm leaves a street at a smaller angle, and no bend is sharper than the second.
_LEAST_ANGLE = math.radians(62)
_SHARPEST_BEND = math.radians(82)
# Junctions along a street are at least this far apart, in metres; closer ones across the street become one.
_APART = 60.0
_TRIES = 3


@dataclass(frozen=True, eq=False)
class _End:
    """Where a cut may meet a face's outline: at `node`, or if that is -1 at a new node at `place` after `position`."""

    position: int
    node: int
    place: Points


class StreetGraph:
    """Nodes `[n, 2]` in metres, joined by straight edges; every edge belongs to a street.

    The edges form one connected graph; a node with edges has two (a bend), three or four. Edges are keyed by their two
    nodes, the smaller first; their values are the street and +1 or -1: whether the street runs from the smaller node
    to the larger or back.
    """

    def __init__(self, outline: Points) -> None:
        count = len(outline)
        self._nodes: list[Points] = list(outline)
        self._faces: list[list[int]] = [list(range(count))]
        self.edges: dict[Edge, tuple[int, int]] = {}
        self._around: dict[int, set[int]] = {i: set() for i in range(count)}
        for i in range(count):
            self._join(i, (i + 1) % count, 0)
        self.streets = 1

    @classmethod
    def draw(cls, rng: np.random.Generator, junctions: int, layout: Layout) -> StreetGraph:
        """Draw a graph of about `junctions` junctions."""
        # A cut adds up to two junctions, and thinning removes some.
        wanted = round(junctions / (1 - 1.5 * layout.thinned))
        graph = cls(_draw_outline(rng, 0.5 * wanted * layout.block))
        failures: dict[int, int] = {}
        while graph.count_junctions() < wanted:
            areas = np.array([graph._area(f) * (failures.get(i, 0) < 3) for i, f in enumerate(graph._faces)])
            if areas.max() < 0.7 * layout.block:
                break
            face = int(np.argmax(areas * rng.uniform(0.5, 1.0, len(areas))))
            done = graph._split(rng, face, layout)
            failures[face] = 0 if done else failures.get(face, 0) + 1
        graph._thin(rng, layout.thinned)
        return graph

    @property
    def nodes(self) -> Points:
        """Places `[n, 2]` of all nodes, including those without edges."""
        return np.array(self._nodes)

    def neighbours(self, node: int) -> list[int]:
        """List the nodes that edges lead to from a node, sorted."""
        return sorted(self._around[node])

    def count_junctions(self) -> int:
        """Count the nodes with three or more edges."""
        return sum(len(others) > 2 for others in self._around.values())

    def _join(self, a: int, b: int, street: int) -> None:
        self.edges[min(a, b), max(a, b)] = street, 1 if a < b else -1
        self._around[a].add(b)
        self._around[b].add(a)

    def _unjoin(self, a: int, b: int) -> tuple[int, int]:
        """Remove an edge; return its street and the street's direction from a to b."""
        street, direction = self.edges.pop((min(a, b), max(a, b)))
        self._around[a].discard(b)
        self._around[b].discard(a)
        return street, direction if a < b else -direction

    def _area(self, face: list[int]) -> float:
        x, y = np.array([self._nodes[i] for i in face]).T
        return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))

    def _split(self, rng: np.random.Generator, index: int, layout: Layout) -> bool:
        """Cut a face in two by the best of some random cuts; return whether any fits."""
        face = self._faces[index]
        ring = np.array([self._nodes[i] for i in face])
        ends = self._cut_ends(rng, face, ring)
        best: tuple[float, _End, _End] | None = None
        for i, start in enumerate(ends):
            for end in ends[i + 1 :]:
                cost = self._cut_cost(face, ring, start, end, layout) + rng.uniform(0, 0.1)
                if cost < (best[0] if best else math.inf):
                    best = cost, start, end
        if best is None:
            return False
        nodes = []
        # The later position first: inserting a node there leaves the earlier position valid.
        for end in sorted(best[1:], key=lambda e: -e.position):
            corner = face[end.position], face[(end.position + 1) % len(face)]
            nodes.append(end.node if end.node >= 0 else self._insert(*corner, end.place))
        i, j = sorted((face.index(nodes[0]), face.index(nodes[1])))
        self._faces[index] = face[i : j + 1]
        self._faces.append(face[j:] + face[: i + 1])
        self._join(nodes[0], nodes[1], self.streets)
        self.streets += 1
        return True

    def _cut_ends(self, rng: np.random.Generator, face: list[int], ring: Points) -> list[_End]:
        """List where cuts may end: junctions whose third arm is on the other side, and places away from junctions."""
        ends = [_End(i, face[i], ring[i]) for i in range(len(face)) if self._is_passed_by(face, ring, i)]
        for i, (a, b) in enumerate(zip(ring, np.roll(ring, -1, axis=0), strict=True)):
            room = 1 - 2 * _APART / float(np.hypot(*(b - a)))
            if room > 0:
                shares = 0.5 + room * (rng.uniform(0, 1, _TRIES) - 0.5)
                ends += [_End(i, -1, a + share * (b - a)) for share in shares]
        return ends

    def _cut_cost(self, face: list[int], ring: Points, start: _End, end: _End, layout: Layout) -> float:
        """Rate a cut: uneven halves and slant add cost, a fourth arm at a junction saves some; inf if impossible."""
        way = end.place - start.place
        length = float(np.hypot(*way))
        if length < _APART:
            return math.inf
        sharpest = 0.0
        for e, sign in ((start, 1), (end, -1)):
            around = self._around[e.node] if e.node >= 0 else (face[e.position], face[(e.position + 1) % len(face)])
            for other in around:
                leg = self._nodes[other] - e.place
                cosine = sign * float(way @ leg) / (length * float(np.hypot(*leg)))
                if cosine > math.cos(_LEAST_ANGLE) and other in face:
                    return math.inf
                sharpest = max(sharpest, cosine if other in face else 0.0)
        halves = sorted(self._half(ring, start.place, end.place, sign) for sign in (1, -1))
        if halves[0] < 0.3 * layout.block:
            return math.inf
        fourth = (start.node >= 0) + (end.node >= 0)
        return halves[1] / sum(halves) + max(0.0, sharpest - layout.slant) - layout.crossings * fourth

    @staticmethod
    def _half(ring: Points, start: Points, end: Points, sign: int) -> float:
        """Return the area of the part of a convex ring on one side of a line."""
        normal = np.array((start[1] - end[1], end[0] - start[0])) * sign
        part = np.concatenate((ring[(ring - start) @ normal > 1e-6], [start, end]))
        x, y = (part - part.mean(axis=0)).T
        order = np.argsort(np.arctan2(y, x))
        x, y = x[order], y[order]
        return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))

    def _is_passed_by(self, face: list[int], ring: Points, position: int) -> bool:
        """Return whether a node of a face is a junction of three arms, the third across the street."""
        count = len(face)
        before, after = ring[position - 1] - ring[position], ring[(position + 1) % count] - ring[position]
        straight = float(before @ after) < -0.98 * float(np.hypot(*before) * np.hypot(*after))
        return straight and len(self._around[face[position]]) == 3

    def _insert(self, a: int, b: int, point: Points) -> int:
        """Insert a node on the edge between two nodes; return it."""
        node = len(self._nodes)
        self._nodes.append(point)
        self._around[node] = set()
        street, direction = self._unjoin(a, b)
        for p, q in ((a, node), (node, b)):
            self._join(p, q, street) if direction > 0 else self._join(q, p, street)
        for face in self._faces:
            for i, (p, q) in enumerate(zip(face, [*face[1:], face[0]], strict=True)):
                if {p, q} == {a, b}:
                    face.insert(i + 1, node)
                    break
        return node

    def chains(self) -> list[list[int]]:
        """List the roads: nodes from junction to junction with the bends between, in the order of their nodes."""
        chains, seen = [], set[Edge]()
        for node in sorted(self._around):
            if len(self._around[node]) < 3:
                continue
            for following in self.neighbours(node):
                if (min(node, following), max(node, following)) in seen:
                    continue
                chain = [node, following]
                while len(self._around[chain[-1]]) == 2:
                    chain.append(next(o for o in self._around[chain[-1]] if o != chain[-2]))
                seen |= {(min(p, q), max(p, q)) for p, q in itertools.pairwise(chain)}
                chains.append(chain)
        return chains

    def remove(self, chain: list[int]) -> bool:
        """Remove a road unless that cuts something off or leaves a dead end or a sharp bend; return whether it did."""
        ends = chain[0], chain[-1]
        if ends[0] == ends[1] or min(len(self._around[end]) for end in ends) < 3:
            return False
        taken = [(p, q, *self._unjoin(p, q)) for p, q in itertools.pairwise(chain)]
        if self._reaches(*ends) and not any(self._bends_sharply(end) for end in ends) and self.count_junctions():
            return True
        for p, q, street, direction in taken:
            self._join(p, q, street) if direction > 0 else self._join(q, p, street)
        return False

    def _bends_sharply(self, node: int) -> bool:
        if len(self._around[node]) != 2:
            return False
        a, b = (self._nodes[o] - self._nodes[node] for o in self._around[node])
        return float(a @ b) > math.cos(_SHARPEST_BEND) * float(np.hypot(*a) * np.hypot(*b))

    def _reaches(self, start: int, goal: int) -> bool:
        reached, waiting = {start}, [start]
        while waiting and goal not in reached:
            new = self._around[waiting.pop()] - reached
            reached |= new
            waiting.extend(new)
        return goal in reached

    def _thin(self, rng: np.random.Generator, share: float) -> None:
        """Remove a share of the roads, after which blocks and town need not be convex."""
        wanted = round(share * len(self.chains()))
        for _ in range(6 * wanted):
            if not wanted:
                break
            chains = self.chains()
            wanted -= self.remove(chains[int(rng.integers(len(chains)))])


def _draw_outline(rng: np.random.Generator, area: float) -> Points:
    """Draw a convex ring of four corners, counter-clockwise, none of them a right angle."""
    turn = rng.uniform(0, 2 * math.pi) + math.pi / 2 * np.arange(4) + rng.uniform(-0.2, 0.2, 4)
    stretch = math.sqrt(rng.uniform(0.75, 1.33))
    # Corners on an ellipse make a convex ring, whatever the angles between them.
    points = np.stack((np.cos(turn) * stretch, np.sin(turn) / stretch), axis=1)
    x, y = points.T
    return points * math.sqrt(area / (0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))))
