"""Graphs of streets differ between splits as their layouts say."""

from __future__ import annotations

import numpy as np

from bridgeta_synth.world.streets.layouts import LAYOUTS
from bridgeta_synth.world.streets.street_graph import StreetGraph


def test_splits_differ_in_their_layouts() -> None:
    """Straightness of streets and the share of junctions of four arms."""
    crossings, bends = [], []
    for layout in LAYOUTS:
        graphs = [StreetGraph.draw(np.random.default_rng(seed), 40, layout) for seed in range(5)]
        arms = [len(graph.neighbours(node)) for graph in graphs for node in range(len(graph.nodes))]
        crossings.append(arms.count(4) / (arms.count(3) + arms.count(4)))
        bends.append(arms.count(2) / len(arms))
    assert crossings[1] < crossings[0] < crossings[2]
    assert bends[2] < bends[0] < bends[1]
