"""Classes and errors from above: what shows, where, and how sure it looks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bridgeta_core.geometry.classes import CLASS_NAMES, CLASSES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.view.bev import (
    ERROR_COLOURS,
    HATCH,
    INVENTED,
    MISSED,
    OPACITIES,
    RIGHT,
    colour_cells,
    find_errors,
    paint_bev,
    paint_errors,
    tint,
)
from bridgeta_core.view.drawing import PAINT_ORDER, PAPER

THRESHOLDS = (0.5, 0.4, 0.45, 0.35, 0.6, 0.5)
values = st.floats(0, 1, width=32)


def colour(name):
    return CLASSES[CLASS_NAMES.index(name)].colour


def fill(**probabilities):
    """Cells of a 5 x 5 grid that all have the same probabilities."""
    layers = np.zeros((6, 5, 5))
    for name, value in probabilities.items():
        layers[CLASS_NAMES.index(name)] = value
    return layers


def middle(**probabilities):
    return tuple(colour_cells(fill(**probabilities), THRESHOLDS)[2, 2].tolist())


def test_forward_is_up_and_left_is_left():
    grid = BevGrid(-20, 40, -15, 15, 0.5)
    layers = np.zeros((6, *grid.shape))
    row, column = np.floor(grid.to_cells(np.array([30.0, 10.0]))[::-1]).astype(int)
    layers[CLASS_NAMES.index("walkway"), row, column] = 1
    picture = paint_bev(layers, grid, 240)
    assert picture.shape == (240, 120, 3)
    v, u = np.argwhere((picture == colour("walkway")).all(axis=2)).mean(axis=0)
    # 30 m ahead is 10 m below the top of 60 m; 10 m to the left is 5 m from the left of 30 m.
    assert v == pytest.approx(10 / 60 * 240, abs=3)
    assert u == pytest.approx(5 / 30 * 120, abs=3)


def test_inside_a_class_is_the_more_opaque_the_surer_it_is():
    thirds = {0.45: 0, 0.63: 0, 0.64: 1, 0.81: 1, 0.82: 2, 1: 2}  # from 0.45 to 1
    for probability, third in thirds.items():
        assert middle(walkway=probability) == tint(colour("walkway"), OPACITIES[third])
    assert middle(walkway=0.449) == middle(walkway=0) == PAPER


def test_an_outline_has_the_full_colour_however_unsure_the_class_is():
    layers = np.zeros((6, 9, 9))
    layers[CLASS_NAMES.index("walkway"), 2:7, 2:7] = 0.46
    picture = colour_cells(layers, THRESHOLDS)
    full = (picture == colour("walkway")).all(axis=2)
    pale = (picture == tint(colour("walkway"), OPACITIES[0])).all(axis=2)
    assert pale[3:6, 3:6].all()
    assert pale.sum() == 9
    assert full.sum() == 16
    assert full[2, 2:7].all()


def test_an_area_that_goes_on_beyond_the_grid_has_no_outline_there():
    assert middle(walkway=1) == tuple(colour_cells(fill(walkway=1))[0, 0].tolist()) != colour("walkway")


@given(arrays(np.float32, (6, 4, 3), elements=values), st.permutations(THRESHOLDS))
def test_a_cell_shows_the_last_of_the_classes_that_reach_their_thresholds(layers, thresholds):
    picture = colour_cells(layers, thresholds)[::-1, ::-1].transpose(1, 0, 2)
    for row, column in np.ndindex(4, 3):
        numbers = [CLASS_NAMES.index(name) for name in PAINT_ORDER]
        there = [n for n in numbers if layers[n, row, column] >= np.float32(thresholds[n])]
        tints = [tint(CLASSES[there[-1]].colour, o) for o in (*OPACITIES, 1)] if there else [PAPER]
        assert tuple(picture[row, column].tolist()) in tints


@given(arrays(np.float32, (6, 4, 3), elements=values), arrays(np.bool_, (4, 3)))
def test_what_no_camera_sees_is_hatched_and_the_rest_is_as_without(layers, seen):
    picture, plain = colour_cells(layers, seen=seen), colour_cells(layers)
    hidden = ~seen.T[::-1, ::-1]
    assert (picture[~hidden] == plain[~hidden]).all()
    assert set(map(tuple, picture[hidden].tolist())) <= set(HATCH)


def test_cells_that_are_unknown_in_every_class_are_hatched():
    layers = fill(walkway=1)
    layers[0, 1, 1] = np.nan  # unknown in one class alone
    layers[:, 2, 3] = np.nan
    hatched = (colour_cells(layers)[..., None, :] == np.array(HATCH)).all(axis=-1).any(axis=-1)
    assert np.argwhere(hatched[::-1, ::-1].T).tolist() == [[2, 3]]


# Machado, Oliveira and Fernandes, A Physiologically-based Model for Simulation of Color Vision Deficiency (2009), at
# full severity, on linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "without red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "without green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "without blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def to_lab(colours, vision):
    """CIE L*a*b* under D65 of RGB colours `[n, 3]`, as somebody with this colour vision sees them."""
    share = np.array(colours) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(vision).T, 0, 1)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.119192, 0.9503041]]
    )
    x, y, z = (np.cbrt(np.maximum(seen @ to_xyz.T / (0.95047, 1, 1.08883), 216 / 24389))).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("vision", VISIONS.values(), ids=VISIONS)
@pytest.mark.parametrize("colours", [[*(c.colour for c in CLASSES), PAPER], [*ERROR_COLOURS.values(), PAPER]])
def test_colours_can_be_told_apart_with_any_colour_vision(colours, vision):
    """A difference of 2.3 is just noticeable."""
    lab = to_lab(colours, vision)
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1)
    assert distances[~np.eye(len(lab), dtype=bool)].min() > 15


def test_errors_are_those_of_the_class_on_top():
    def errors(there, predicted, known=(True,) * 6):
        truth, prediction = (fill(**dict.fromkeys(names, 1.0)) for names in (there, predicted))
        return int(find_errors(prediction, truth, THRESHOLDS, known)[2, 2])

    assert errors([], []) == 0
    assert errors(["walkway"], ["walkway"]) == RIGHT
    assert errors(["walkway"], []) == MISSED
    assert errors([], ["walkway"]) == INVENTED
    assert errors(["drivable_area", "divider"], ["drivable_area"]) == MISSED
    assert errors(["drivable_area"], ["drivable_area", "divider"]) == INVENTED
    assert errors(["divider"], ["drivable_area", "divider"]) == RIGHT
    unknown = [name != "divider" for name in CLASS_NAMES]
    assert errors(["drivable_area"], ["drivable_area", "divider"], unknown) == RIGHT


@given(arrays(np.float32, (6, 3, 4), elements=values), arrays(np.bool_, (6, 3, 4)))
def test_a_prediction_is_right_where_it_is_the_truth_and_wrong_the_other_way_round(layers, truth):
    assert set(find_errors(truth, truth).ravel().tolist()) <= {0, RIGHT}
    predicted = layers >= 0.5
    mirrored = np.array([0, RIGHT, INVENTED, MISSED], dtype=np.uint8)[find_errors(truth, predicted)]
    assert (find_errors(layers, truth) == mirrored).all()


def test_errors_are_painted_forward_up_and_hatched_where_nothing_is_seen():
    grid = BevGrid(-20, 40, -15, 15, 0.5)
    errors = np.zeros(grid.shape, dtype=np.uint8)
    errors[:, 100:] = MISSED  # from 30 m on
    errors[50:, :20] = INVENTED  # on the left, behind
    seen = np.ones(grid.shape, dtype=bool)
    seen[:10, :20] = False  # on the right, behind
    picture = paint_errors(errors, grid, 240, seen)
    assert tuple(picture[5, 60]) == ERROR_COLOURS["missed"]
    assert tuple(picture[236, 5]) == ERROR_COLOURS["invented"]
    assert tuple(picture[236, 114]) in HATCH
    assert tuple(picture[60, 5]) == PAPER
