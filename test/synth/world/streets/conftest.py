"""Road networks that the tests of streets share."""

from __future__ import annotations

import numpy as np
import pytest

from bridgeta_synth.world.streets.layouts import LAYOUTS
from bridgeta_synth.world.streets.network import RoadNetwork, build_network


@pytest.fixture(scope="session", params=[(seed, split) for seed in range(2) for split in range(3)])
def network(request: pytest.FixtureRequest) -> RoadNetwork:
    seed, split = request.param
    return build_network(np.random.default_rng([seed, split]), seed % 2 == 0, LAYOUTS[split], 18)
