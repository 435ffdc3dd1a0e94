"""Bodies fill their boxes, and actors have nuScenes' categories and attributes."""

from __future__ import annotations

import numpy as np
import pytest

from bridgeta_synth import nuscenes as facts
from bridgeta_synth.traffic.actors import MODELS, Actor, draft_actor
from bridgeta_synth.traffic.motion import Motion
from bridgeta_synth.world.solids import SolidList, Solids

_CATEGORIES = {name for name, _ in facts.CATEGORIES}
_ATTRIBUTES = {name for name, _ in facts.ATTRIBUTES}


def _vertices(solids: Solids) -> np.ndarray:
    """Corners `[n, 8, 3]` of the tapered boxes themselves, leaning sides included."""
    corners = []
    for z in (np.zeros_like(solids.height), solids.height):
        front, back = solids.front - solids.lean_front * z, solids.back - solids.lean_back * z
        side = solids.side - solids.lean_side * z
        corners += [np.stack((x, y, z), axis=-1) for x in (front, -back) for y in (side, -side)]
    return np.einsum("nij,nkj->nki", solids.axes, np.stack(corners, axis=1)) + solids.place[:, None]


def _solids(actor: Actor) -> Solids:
    into = SolidList()
    actor.add_body(into, 5)
    return into.build()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(6))
def test_a_body_lies_in_its_box_and_fills_it(name: str, seed: int) -> None:
    actor = draft_actor(name, np.random.default_rng([seed, 1])).with_motion(Motion.still(0, 0, 0))
    corners = _vertices(_solids(actor)).reshape(-1, 3)
    low, high = corners.min(axis=0), corners.max(axis=0)
    width, length, height = actor.size
    assert (low > np.array([-length / 2, -width / 2, 0]) - 0.02).all()
    assert (high < np.array([length / 2, width / 2, height]) + 0.02).all()
    assert length * width * height < 1.15 * np.prod(high - low)


@pytest.mark.parametrize("name", MODELS)
def test_solids_only_taper_towards_their_top(name: str) -> None:
    solids = _solids(draft_actor(name, np.random.default_rng(2)).with_motion(Motion.still(0, 0, 0)))
    lean = np.stack((solids.lean_front, solids.lean_back, solids.lean_side))
    # A side that leans outwards would leave the base's outline, by which rays are culled.
    assert (lean >= -1e-9).all()
    assert (solids.front + solids.back >= (lean[0] + lean[1]) * solids.height - 1e-9).all()
    assert (solids.side >= lean[2] * solids.height - 1e-9).all()
    assert (np.stack((solids.front, solids.side, solids.height)) > 0).all()
    assert (solids.colour >= 0).all()
    assert (solids.colour <= 1).all()


@pytest.mark.parametrize("name", MODELS)
def test_one_solid_of_a_body_is_the_main_one(name: str) -> None:
    solids = _solids(draft_actor(name, np.random.default_rng(3)).with_motion(Motion.still(0, 0, 0)))
    assert solids.main.sum() == 1
    assert (solids.owner == 5).all()


@pytest.mark.parametrize("name", MODELS)
def test_categories_and_attributes_are_those_of_nuscenes(name: str) -> None:
    draft = draft_actor(name, np.random.default_rng(4))
    attribute = draft.with_motion(Motion.still(0, 0, 0)).attribute(1.0)
    assert draft.model.category in _CATEGORIES
    kind, sort = draft.model.category.split(".")[:2]
    if kind in ("movable_object", "static_object") or name == "stroller":
        assert attribute is None
        return
    assert attribute in _ATTRIBUTES
    if kind == "vehicle":
        assert attribute.startswith("cycle" if sort in ("bicycle", "motorcycle") else "vehicle")


def test_attributes_follow_the_motion() -> None:
    rng = np.random.default_rng(5)
    times = np.linspace(0, 1, 61)
    straight = np.array([[0.0, 0.0], [50.0, 0.0]])
    moving = Motion.along(straight, 5 + 40 * times, 2.0)
    still = Motion.still(0, 0, 0)
    assert draft_actor("saloon", rng).with_motion(moving).attribute(0.5) == "vehicle.moving"
    assert draft_actor("saloon", rng).with_motion(still).attribute(0.5) == "vehicle.stopped"
    assert draft_actor("saloon", rng).with_motion(still, "parked").attribute(0.5) == "vehicle.parked"
    assert draft_actor("walker", rng).with_motion(moving).attribute(0.5) == "pedestrian.moving"
    assert draft_actor("walker", rng).with_motion(still).attribute(0.5) == "pedestrian.standing"
    assert draft_actor("sitter", rng).with_motion(still).attribute(0.5) == "pedestrian.sitting_lying_down"
    assert draft_actor("cyclist", rng).with_motion(still).attribute(0.5) == "cycle.with_rider"
    assert draft_actor("bicycle", rng).with_motion(still).attribute(0.5) == "cycle.without_rider"
